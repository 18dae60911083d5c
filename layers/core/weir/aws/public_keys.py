"""A process's copy of the key ring, for those who verify tokens and for the published key list.

Kept for a few seconds, so that a key struck from the ring stops being believed that soon. A `kid`
nobody knows makes us look again at once, so that a freshly published key is never refused; but not
more often than once in a while, or made-up `kid`s would turn into load on the table.
"""

from weir.aws.table import Table
from weir.errors import Unauthenticated
from weir.freshness import Clock, is_due
from weir.identity.keyring import Kid, PublicKey

CACHED_FOR_S = 5
UNKNOWN_KID_EVERY_S = 1


class PublicKeys:
    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._keys: dict[Kid, PublicKey] = {}
        self._read_at = float("-inf")

    def listed(self) -> list[PublicKey]:
        """Return every listed key, retired ones included: anyone may ask for the list, so it is
        read at most once in CACHED_FOR_S.
        """
        if is_due(self._read_at, CACHED_FOR_S, self._clock()):
            self._read()
        return list(self._keys.values())

    def find(self, kid: Kid, now: int) -> PublicKey:
        """`now` is Unix seconds. Raises Unauthenticated for a key that is unknown or retired."""
        kept_for_s = CACHED_FOR_S if kid in self._keys else UNKNOWN_KID_EVERY_S
        if is_due(self._read_at, kept_for_s, self._clock()):
            self._read()
        key = self._keys.get(kid)
        if key is None or not key.believed_at(now):
            raise Unauthenticated("The token was not signed by this gateway.", reason="unknown_kid")
        return key

    def _read(self) -> None:
        # In this order: after a read that failed the next request reads again. Until it has
        # succeeded nobody is told that his token is bad.
        self._keys = {key.kid: key for key in self._table.public_keys()}
        self._read_at = self._clock()
