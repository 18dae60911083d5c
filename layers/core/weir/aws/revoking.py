"""Revoking tokens and sessions of a user, for operators and for backends."""

from collections.abc import Iterable

from weir.aws import items
from weir.aws.contention import retried
from weir.aws.table import Stale, SubjectChange, Table
from weir.errors import Conflict
from weir.operator.audit import Entry
from weir.revocation import Revocation

TRIES = 10
FIRST_WAIT_S = 0.05
MOST_WAIT_S = 0.4


def revoke(
    table: Table, pid: str, what: Revocation, now: int, entries: Iterable[Entry] = ()
) -> None:
    """Refuse what is named from the next request on. `entries` are for the audit trail, written in
    the same transaction. `now` is Unix seconds. Raises Conflict if the user has no room for it, or
    others are changing the same record.
    """
    key, audited = items.subject(pid, items.user(what.user_id)), list(entries)

    def change() -> None:
        (before,) = table.records([key])
        after = what.applied_to(before.document, now)
        table.commit([SubjectChange(key, before, after, now)], audited)

    retried(
        change,
        lambda error: isinstance(error, Stale),
        tries=TRIES,
        first_wait_s=FIRST_WAIT_S,
        most_wait_s=MOST_WAIT_S,
        given_up=lambda: Conflict("This user's record is being changed by others. Try again."),
    )
