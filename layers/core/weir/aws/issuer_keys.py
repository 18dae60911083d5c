"""Keys of other issuers: kept in the process, kept in the table, and fetched when both are old.

Kept for as long as the issuer's Cache-Control says, within bounds. In the table they outlive the
process: a new one need not fetch, and an issuer that is down logs nobody out, for STALE_FOR_S. A
key that nobody knows makes us fetch at once, for the issuer may have a new one. Of all processes
together one fetches in FETCH_EVERY_S, whatever the reason: a stranger's made-up key ids must not
become load on somebody else's server. Without any key at all each process asks for itself, at that
rate: the first users of an issuer should not have to wait for one another.
"""

import json
import logging
from collections.abc import Callable
from typing import NamedTuple

from weir.aws import contention, items
from weir.aws.expressions import Expression
from weir.aws.items import Item
from weir.aws.store import Store
from weir.errors import ExchangeRefused, NotReady
from weir.freshness import Clock, is_due
from weir.identity.key_sets import KeySet, KeySetUnavailable, VerificationKey, parse

FETCH_EVERY_S = 30
STALE_FOR_S = 86_400  # beyond what Cache-Control allowed, while the issuer cannot be reached
READ_EVERY_S = 5  # of the table, by one process, for a key that it does not have
KEPT_FOR_S = 300  # in a process, before the table is looked at again
MOST_SETS = 100  # kept by one process
TTL_S = 30 * 86_400

log = logging.getLogger(__name__)

Fetch = Callable[[str], KeySet]


class _Kept(NamedTuple):
    """What a process knows of one address; times are Unix seconds. `keys` None: nothing yet."""

    keys: KeySet | None = None
    fresh_until: int = 0
    read_at: float = float("-inf")
    asked_at: float = float("-inf")  # when this process last wanted to ask the issuer

    def is_fresh(self, now: float) -> bool:
        return now < self.fresh_until

    def is_usable(self, now: float) -> bool:
        return self.keys is not None and now < self.fresh_until + STALE_FOR_S


class IssuerKeys:
    def __init__(self, client: Store, table_name: str, fetch: Fetch, clock: Clock) -> None:
        """`fetch` returns the key set at an address, and raises KeySetUnavailable."""
        self._client = client
        self._name = table_name
        self._fetch = fetch
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def find(self, jwks_uri: str, kid: str | None, algorithm: str) -> VerificationKey:
        """Return an issuer's key. Raise ExchangeRefused for one that it has not published, NotReady
        if its keys cannot be had, AwsError.
        """
        now = self._clock()
        kept = self._kept.get(jwks_uri, _Kept())
        if not _serves(kept, kid, algorithm, now) or is_due(kept.read_at, KEPT_FOR_S, now):
            kept = self._renewed(jwks_uri, kept, kid, algorithm, now)
            self._keep(jwks_uri, kept)
        if not kept.is_usable(now) or kept.keys is None:
            raise NotReady(
                "The keys of the token's issuer cannot be fetched at the moment. Try again.",
                details={"reason": "issuer_keys_unavailable"},
                retry_after_s=5,
            )
        key = kept.keys.find(kid, algorithm)
        if key is None:
            raise ExchangeRefused(
                "The token's issuer has published no key that this token could be signed with "
                f"(kid, {algorithm}).",
                reason="unknown_kid",
            )
        return key

    def _renewed(
        self, jwks_uri: str, kept: _Kept, kid: str | None, algorithm: str, now: float
    ) -> _Kept:
        """Look into the table, and if that is not enough, ask the issuer."""
        if is_due(kept.read_at, READ_EVERY_S, now):
            kept = self._read(jwks_uri, now)._replace(asked_at=kept.asked_at)
        if _serves(kept, kid, algorithm, now) or not is_due(kept.asked_at, FETCH_EVERY_S, now):
            return kept
        kept = kept._replace(asked_at=now)
        if kept.is_usable(now) and not self._claim(jwks_uri, now):
            return kept
        try:
            keys = self._fetch(jwks_uri)
        except KeySetUnavailable as error:
            log.warning("an issuer's keys cannot be fetched: %s", error)
            return kept
        fresh_until = int(now) + keys.fresh_for_s
        self._write(jwks_uri, keys, fresh_until, now)
        return kept._replace(keys=keys, fresh_until=fresh_until)

    def _keep(self, jwks_uri: str, kept: _Kept) -> None:
        self._kept.pop(jwks_uri, None)
        if len(self._kept) >= MOST_SETS:
            del self._kept[next(iter(self._kept))]
        self._kept[jwks_uri] = kept

    # ------------------------------------------------------------ the table

    def _read(self, jwks_uri: str, now: float) -> _Kept:
        answer = self._client.get_item(
            TableName=self._name, Key=items.key_set(jwks_uri).item(), ConsistentRead=True
        )
        keys, fresh_until = _stored(answer.get("Item", {}))
        return _Kept(keys, fresh_until, read_at=now)

    def _claim(self, jwks_uri: str, now: float) -> bool:
        """Whether this process is the one that fetches in this slot of time."""
        claim = Expression()
        claim.raise_to("slot", int(now) // FETCH_EVERY_S)
        claim.set("ttl", int(now) + TTL_S)
        try:
            self._client.update_item(
                TableName=self._name, Key=items.key_set(jwks_uri).item(), **claim.built()
            )
        except Exception as error:
            if contention.condition_failed(error):
                return False
            raise
        return True

    def _write(self, jwks_uri: str, keys: KeySet, fresh_until: int, now: float) -> None:
        note = Expression()
        note.set("doc", json.dumps(keys.document(), separators=(",", ":")))
        note.set("fresh_until", fresh_until)
        note.set("ttl", int(now) + TTL_S)
        self._client.update_item(
            TableName=self._name, Key=items.key_set(jwks_uri).item(), **note.built()
        )


def _serves(kept: _Kept, kid: str | None, algorithm: str, now: float) -> bool:
    return (
        kept.is_fresh(now) and kept.keys is not None and kept.keys.find(kid, algorithm) is not None
    )


def _stored(item: Item) -> tuple[KeySet | None, int]:
    """Return what was written; nothing for an item that only marks who fetches."""
    if "doc" not in item:
        return None, 0
    try:
        return parse(json.loads(item["doc"]["S"])), int(item["fresh_until"]["N"])
    except (KeySetUnavailable, ValueError, KeyError):
        log.exception("an issuer's keys cannot be read")
        return None, 0
