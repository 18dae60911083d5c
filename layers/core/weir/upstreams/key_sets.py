"""Key sets of other issuers, fetched over HTTPS from where an operator said they are.

The connection is guarded (weir/upstreams/guarded.py): whoever may write a project's configuration
chooses the address. At most MAX_BYTES, MAX_KEYS and TOTAL_S. The names, the addresses and the
trusted authorities come in through the constructor, for tests; no setting changes them.
"""

import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpcore

from weir.errors import BadRequest, ExchangeRefused
from weir.identity.issuers import Issuer
from weir.identity.key_sets import (
    KeySet,
    KeySetUnavailable,
    VerificationKey,
    fresh_for_s,
    parse,
)
from weir.upstreams.guarded import Dial, GuardedClient, Resolve, Unreachable, dial, resolve
from weir.web.request import no_name_twice, parse_json

TOTAL_S = 5.0
MAX_BYTES = 256_000


class KeySetFetcher:
    """Fetches a key set each time that it is called."""

    def __init__(
        self,
        *,
        resolve: Resolve = resolve,
        dial: Dial = dial,
        tls: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = GuardedClient(resolve=resolve, dial=dial, tls=tls, monotonic=monotonic)

    def __call__(self, jwks_uri: str) -> KeySet:
        """Return the key set at an address. Raise KeySetUnavailable, with a sentence that says why
        there is none.
        """
        body, headers = self._get(jwks_uri)
        fresh = fresh_for_s(headers.get("cache-control", ""), headers.get("age", ""))
        return parse(_json(body), fresh)

    def find(self, issuer: Issuer, kid: str | None, algorithm: str) -> VerificationKey:
        """Return an issuer's key, fetched now: for an operator who tries a token. Raise
        ExchangeRefused.
        """
        try:
            keys = self(issuer.jwks_uri)
        except KeySetUnavailable as error:
            raise ExchangeRefused(str(error), reason="issuer_keys_unavailable") from None
        key = keys.find(kid, algorithm)
        if key is None:
            raise ExchangeRefused(
                f"{issuer.jwks_uri} has no key of this id (kid) for {algorithm}; there are: "
                f"{keys.told()}.",
                reason="unknown_kid",
            )
        return key

    def discovered(self, issuer: str) -> str:
        """Return the `jwks_uri` of an issuer that publishes its configuration (OpenID Connect
        Discovery, section 4). Raise KeySetUnavailable.
        """
        body, _ = self._get(issuer.rstrip("/") + "/.well-known/openid-configuration")
        told = _json(body)
        found = told.get("jwks_uri") if isinstance(told, dict) else None
        if not isinstance(told, dict) or told.get("issuer") != issuer or not isinstance(found, str):
            raise KeySetUnavailable(
                f"The configuration that {issuer} publishes is not that of an issuer of this very "
                "name (OpenID Connect Discovery, section 4.3)."
            )
        return found

    def _get(self, url: str) -> tuple[bytes, dict[str, str]]:
        try:
            with self._client.stream("GET", url, _HEADERS, total_s=TOTAL_S) as answer:
                return _read(answer, urlsplit(url).hostname or "")
        except Unreachable as error:
            raise KeySetUnavailable(str(error)) from None


_HEADERS = [("Accept", "application/json"), ("Accept-Encoding", "identity"), ("User-Agent", "weir")]


def _read(answer: httpcore.Response, host: str) -> tuple[bytes, dict[str, str]]:
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers
    }
    if 300 <= answer.status < 400:
        raise KeySetUnavailable(f"{host} redirects elsewhere, which is not followed.")
    if answer.status != 200:
        raise KeySetUnavailable(f"{host} answers with status {answer.status}.")
    if headers.get("content-encoding", "identity") != "identity":
        raise KeySetUnavailable(f"{host} compresses its answer, which was not asked for.")
    body = b""
    for part in answer.iter_stream():
        body += part
        if len(body) > MAX_BYTES:
            raise KeySetUnavailable(f"{host} sends more than {MAX_BYTES} bytes.")
    return body, headers


def _json(body: bytes) -> Any:
    try:
        return parse_json(body, object_pairs_hook=no_name_twice)
    except BadRequest as error:
        raise KeySetUnavailable(f"The answer cannot be read. {error.message}") from None
