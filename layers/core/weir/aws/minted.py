"""How many tokens of a key of the ring may be alive: an upper bound, for who must decide whether to
distrust it.

Tokens are counted in blocks. Before a process signs the first token of a block, it adds the whole
block to the count of that hour; a block is used for an hour at most. So a mint seldom costs a
write, and no token is ever missing: those of the last `HOURS` hours are all that can be alive.
"""

from weir.aws import items
from weir.aws.expressions import Expression
from weir.aws.items import Key
from weir.aws.reading import items_at
from weir.aws.store import Store
from weir.identity.keyring import RETIRED_FOR_S, Kid

# A process that mints much takes larger blocks; one that mints a single token is counted as ten.
FIRST_BLOCK, MOST_BLOCK = 10, 100
HOUR_S = 3600
# A token lives for a day at most, and its block was counted up to an hour earlier. The hour that is
# running counts, too.
HOURS = RETIRED_FOR_S // HOUR_S + 2
KEPT_S = (HOURS + 1) * HOUR_S


class Minted:
    def __init__(self, client: Store, table_name: str) -> None:
        self._client = client
        self._name = table_name
        self._kid: Kid | None = None
        self._left = 0
        self._size = 0
        self._until = 0

    def count(self, kid: Kid, now: int) -> None:
        """Count a token that `kid` is about to sign, at `now` (Unix seconds). Raises what a call to
        the store fails with: a token that is not counted must not be signed.
        """
        if kid != self._kid or self._left < 1 or not self._until - HOUR_S <= now < self._until:
            self._take(kid, now)
        self._left -= 1

    def outstanding(self, kid: Kid, now: int) -> int:
        """Return how many tokens of a key may be alive at `now`: never fewer than there are."""
        hour = now // HOUR_S
        keys = [items.minted(kid, each) for each in range(hour - HOURS + 1, hour + 1)]
        found: dict[Key, items.Item] = items_at(self._client, self._name, keys)
        return sum(int(item["tokens"]["N"]) for item in found.values())

    def _take(self, kid: Kid, now: int) -> None:
        used_up = kid == self._kid and self._left < 1
        size = min(self._size * 2, MOST_BLOCK) if used_up else FIRST_BLOCK
        block = Expression()
        block.add("tokens", size)
        block.set("ttl", now + KEPT_S)
        self._client.update_item(
            TableName=self._name, Key=items.minted(kid, now // HOUR_S).item(), **block.built()
        )
        self._kid, self._size, self._left, self._until = kid, size, size, now + HOUR_S
