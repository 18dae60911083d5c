"""A process's copy of the keys that verify tokens: those of the ring, and those of tenants'
servers.

Kept for a few seconds, so that a key that is struck out or revoked stops being believed that soon.
A `kid` that is not known makes us look again at once, so that a freshly published key is never
refused; but not more often than once in a while, or made-up `kid`s would turn into load on the
table.

The two kinds lie in two partitions, and the form of a `kid` says in which one to look: a token
costs one read at most, neither kind can stand for the other, and made-up `kid`s of one kind do not
keep a fresh key of the other from being found.
"""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from weir.aws.table import Table
from weir.errors import Unauthenticated
from weir.freshness import Clock, is_due
from weir.identity.keyring import Kid, PublicKey
from weir.identity.tenant_keys import TenantKey, is_tenant_kid
from weir.settings import Caches

Key = TypeVar("Key", PublicKey, TenantKey)


class PublicKeys:
    def __init__(self, table: Table, clock: Clock, caches: Caches) -> None:
        self._ring = _Copy(table.public_keys, clock, caches)
        self._of_tenants = _Copy(table.tenant_keys, clock, caches)

    def listed(self) -> list[PublicKey]:
        """Return every listed key, retired and revoked ones included: anyone may ask for the list,
        so it is read no more often than is due.
        """
        return [*self._ring.all(), *(key.public for key in self._of_tenants.all())]

    def find(self, kid: Kid, now: int) -> PublicKey | TenantKey:
        """`now` is Unix seconds. Raises Unauthenticated for a key that is unknown, retired or
        revoked.
        """
        if is_tenant_kid(kid):
            return self._of_tenants.find(kid, now)
        return self._ring.find(kid, now)


class _Copy(Generic[Key]):
    """Of one partition."""

    def __init__(self, read: Callable[[], Iterable[Key]], clock: Clock, caches: Caches) -> None:
        self._read_all: Callable[[], Iterable[Key]] = read
        self._clock = clock
        self._caches = caches
        self._keys: dict[Kid, Key] = {}
        self._read_at = float("-inf")

    def all(self) -> list[Key]:
        if is_due(self._read_at, self._caches.keys_s, self._clock()):
            self._read()
        return list(self._keys.values())

    def find(self, kid: Kid, now: int) -> Key:
        kept_for_s = self._caches.keys_s if kid in self._keys else self._caches.unknown_kid_s
        if is_due(self._read_at, kept_for_s, self._clock()):
            self._read()
        key = self._keys.get(kid)
        if key is None or not key.believed_at(now):
            raise Unauthenticated(
                "The token was not signed by a key that is believed here.", reason="unknown_kid"
            )
        return key

    def _read(self) -> None:
        # In this order: after a read that failed the next request reads again. Until it has
        # succeeded, no caller hears that their token is bad.
        self._keys = {key.kid: key for key in self._read_all()}
        self._read_at = self._clock()
