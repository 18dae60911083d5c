"""Key sets of other issuers, fetched over HTTPS from where an operator said they are.

Whoever may write a project's configuration chooses the address, and the issuer chooses what it
resolves to and what it answers: so the fetch must not become a way into the network that the
function runs in, nor a way to keep it busy.

* https only, by the public certificate authorities, for the name as it was written; no redirect is
  followed, no proxy is taken from the environment.
* Every address that the name has must be public, and one of those very addresses is dialled: the
  name is resolved once, so it cannot be one thing when checked and another when dialled.
* At most MAX_BYTES, MAX_KEYS, and TOTAL_S on the wall clock from the look-up of the name to the
  last byte, however slowly they drip.

httpcore, the transport of httpx, follows no redirects and knows no proxies unless told to, and
lets the connection be made here (docs/decisions/0025). The names, the addresses and the trusted
authorities come in through the constructor, for tests; no setting changes them.
"""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import certifi
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
from weir.web.public_addresses import is_public, parse_public_url
from weir.web.request import no_name_twice, parse_json

CONNECT_S = 2.0  # to resolve the name; to dial and to speak TLS, each
TOTAL_S = 5.0
MAX_BYTES = 256_000
_READ_SIZE = 65_536

Resolve = Callable[[str, int], Iterable[str]]  # the addresses of a host
Dial = Callable[[str, int, float], httpcore.NetworkStream]  # address, port, seconds


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name, as the system resolves it. Raise OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def dial(address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
    return httpcore.SyncBackend().connect_tcp(address, port, timeout=timeout_s)


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
        self._resolve = resolve
        self._dial = dial
        self._tls = tls
        self._monotonic = monotonic

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
            parse_public_url(url)
        except ValueError as error:
            raise KeySetUnavailable(f"{url[:200]}: {error}.") from None
        if self._tls is None:
            # Made once: loading the certificates takes longer than everything else here.
            self._tls = ssl.create_default_context(cafile=certifi.where())
        host = urlsplit(url).hostname or ""
        until = self._monotonic() + TOTAL_S
        network = _PublicNetwork(self._resolve, self._dial, until, self._monotonic)
        pool = httpcore.ConnectionPool(ssl_context=self._tls, network_backend=network)
        try:
            with pool, pool.stream("GET", url, headers=_HEADERS) as answer:
                return _read(answer, host)
        except KeySetUnavailable:
            raise
        except (httpcore.TimeoutException, TimeoutError):
            raise KeySetUnavailable(f"{host} took too long (at most {TOTAL_S:g} s).") from None
        except httpcore.ConnectError as error:
            raise KeySetUnavailable(f"{host} cannot be reached over TLS: {error}.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise KeySetUnavailable(
                f"The answer of {host} broke off or is not HTTP ({type(error).__name__})."
            ) from None


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


class _PublicNetwork(httpcore.NetworkBackend):
    """Connects to public addresses only, and gives up at a moment that is fixed beforehand."""

    def __init__(
        self, resolve: Resolve, dial: Dial, until: float, monotonic: Callable[[], float]
    ) -> None:
        self._resolve = resolve
        self._dial = dial
        self._until = until
        self._monotonic = monotonic

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        for address in self._public_addresses(host, port):
            try:
                stream = self._dial(address, port, self._left(CONNECT_S))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
            return _BoundedStream(stream, self._left)
        raise KeySetUnavailable(f"{host} cannot be reached.")

    def _public_addresses(self, host: str, port: int) -> list[str]:
        """Return where a name leads; IPv4 first, which every function can reach."""
        addresses = _in_time(lambda: list(self._resolve(host, port)), self._left(CONNECT_S), host)
        if not addresses:
            raise KeySetUnavailable(f"There is no address of {host}.")
        if not all(map(is_public, addresses)):
            raise KeySetUnavailable(f"{host} leads to an address that is not public.")
        return sorted(dict.fromkeys(addresses), key=lambda address: ":" in address)

    def _left(self, most_s: float) -> float:
        left = self._until - self._monotonic()
        if left <= 0:
            raise TimeoutError
        return min(most_s, left)


class _BoundedStream(httpcore.NetworkStream):
    """A connection each of whose waits ends with the whole fetch."""

    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[float], float]) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(TOTAL_S))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(TOTAL_S))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        spoken = self._stream.start_tls(ssl_context, server_hostname, self._left(CONNECT_S))
        return _BoundedStream(spoken, self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _in_time(look_up: Callable[[], list[str]], within_s: float, host: str) -> list[str]:
    """Resolve in a thread of its own: the system's resolver has no timeout that could be set."""
    answered: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            answered.put(look_up())
        except (OSError, UnicodeError):
            answered.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        found = answered.get(timeout=within_s)
    except queue.Empty:
        raise KeySetUnavailable(f"The name {host} was not resolved in time.") from None
    if found is None:
        raise KeySetUnavailable(f"The name {host} cannot be resolved.")
    return found
