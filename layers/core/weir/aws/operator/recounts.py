"""Usage rows that the sums lack, because whoever adds them up has given them up."""

from typing import NamedTuple

from weir.aws.items import Item, Key
from weir.aws.operator.records import Records
from weir.aws.usage import Unreadable, Usage, kept, row_of
from weir.usage.sums import Row

ROLLUPS_KEPT_S = 800 * 86_400  # the template's default
LEFT_ALONE_S = 3600  # so young a row may yet be added in the ordinary way
AT_ONCE = 100


class Recount(NamedTuple):
    """`unreadable` are the keys of rows that cannot be added: no program of ours writes such."""

    added: int
    unreadable: list[Key]


class Recounts(Records):
    def recount(
        self,
        usage: Usage,
        *,
        kept_s: int = ROLLUPS_KEPT_S,
        older_than_s: int = LEFT_ALONE_S,
    ) -> Recount:
        """Adds up rows that are older and were not added; done twice, it adds nothing twice. Reads
        all of the table. `kept_s` is for sums that are not there yet. Raises what calls to AWS fail
        with, and Crowded: what was added stays added.
        """
        before_ms, kept_until = int((self._clock() - older_than_s) * 1000), kept(kept_s)
        added, waiting, unreadable = 0, dict[Key, Row](), list[Key]()
        for item in usage.missing(before_ms):
            try:
                key, row = row_of(item)
                waiting[key] = row
            except Unreadable:
                unreadable.append(_key(item))
            if len(waiting) == AT_ONCE:
                added += usage.add(waiting, kept_until)
                waiting.clear()
        return Recount(added + usage.add(waiting, kept_until), unreadable)


def _key(item: Item) -> Key:
    return Key(item["pk"]["S"], item["sk"]["S"])
