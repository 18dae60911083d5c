"""Budgets whose thresholds have been reached, seen from the table's stream.

A settlement removes its reservation (`OPEN#…`), which the stream brings with what it had held: the
project, the subject, the month, and its worst case. For each of those the month's counters are read
and compared with the budget of now, and what is left with the least that a request of the month has
held, which is kept (`WATCH#…`). What has been reached is written to the outbox, at a place that
names subject, month, threshold and budget. So it is told once, whoever else looks, and again if the
operator has set another budget since and that is reached, too.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from weir.aws import contention, items
from weir.aws.customers import Customers
from weir.aws.expressions import Expression
from weir.aws.items import Item, Key, Record
from weir.aws.ledger.books import place, reservation_of, used_of
from weir.aws.reading import items_at
from weir.aws.store import Store
from weir.aws.webhooks import outbox
from weir.aws.webhooks.endpoints import endpoints_of
from weir.aws.webhooks.outbox import Posted, Queue
from weir.customers.customer import DELETED
from weir.ledger import rules
from weir.ledger.rules import MONTH, PROJECT, USER
from weir.projects.limits import BY_PUBLIC_NAME, HELD_USD
from weir.projects.project import Project
from weir.webhooks import thresholds
from weir.webhooks.endpoints import Endpoint
from weir.webhooks.thresholds import Budget, event_data, event_type

log = logging.getLogger(__name__)

_BUDGET = BY_PUBLIC_NAME["usd_per_month"]
_LEAST = "least_held"
OF_THE_PROJECT = ""  # where a subject's key stands for one
CUSTOMER = "c#"  # begins the key of a subject that is a customer

# The budget of a project's subject; None: it has none.
BudgetOf = Callable[[str, str], Budget | None]


class Spender(NamedTuple):
    """Who has spent in which month, as the ledger's sort key spells it."""

    pid: str
    subject: str
    month: str


class Seen(NamedTuple):
    """`at`: a moment in the month, Unix seconds; `held`: the least that a request held."""

    at: int
    held: int


def spenders(settled: Iterable[Item]) -> dict[Spender, Seen]:
    """Return whose money the settled reservations were about. Those that cannot be read are named
    in the log: the ledger's own function met them first.
    """
    found: dict[Spender, Seen] = {}
    for item in settled:
        if "doc" not in item:  # of an admission that was undone
            continue
        try:
            reservation = reservation_of(item)
            whose = [
                OF_THE_PROJECT if scope == PROJECT else part
                for scope, part, codes in reservation.held
                if _BUDGET.code in codes
                and (scope == PROJECT or (scope == USER and part.startswith(CUSTOMER)))
            ]
        except (KeyError, TypeError, ValueError):
            log.exception("a reservation cannot be read")
            continue
        for subject in whose:
            spender = Spender(reservation.pid, subject, items.month(reservation.at))
            before = found.get(spender)
            held = reservation.amounts.nano_usd
            found[spender] = Seen(reservation.at, min(held, before.held) if before else held)
    return found


class Watch:
    """`budget_of` is asked for the budgets of subjects; those of projects stand in their record."""

    def __init__(
        self,
        client: Store,
        table_name: str,
        queue: Queue,
        budget_of: BudgetOf,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._name = table_name
        self._queue = queue
        self._budget_of = budget_of
        self._clock = clock

    # ------------------------------------------------------------ thresholds

    def note(self, settled: Iterable[Item]) -> int:
        """Return how many events have been written. Raise AwsError; what is written stays."""
        seen = spenders(settled)
        if not seen:
            return 0
        pids = {spender.pid for spender in seen}
        records = self._records(
            [key for pid in pids for key in (items.project(pid), items.webhooks(pid))]
        )
        written = 0
        for spender, (at, held) in seen.items():
            wants = endpoints_of(records[items.webhooks(spender.pid)]).values()
            project = records[items.project(spender.pid)]
            if wants and project.version:
                written += self._judge(spender, at, held, project, list(wants))
        return written

    def _judge(
        self, spender: Spender, at: int, held: int, record: Record, wants: list[Endpoint]
    ) -> int:
        project = Project.from_document(spender.pid, record.document)
        budget = self._budget(project, spender)
        if budget is None:
            return 0
        places = _places(project, spender.subject, at)
        least = items.watch(*spender)
        read = self._items([*places, least])
        spent, kept = _spent(read, places), read.get(least, {}).get(_LEAST, {"N": str(held + 1)})
        if held < int(kept["N"]):
            self._keep(least, held, at)
        held = min(held, int(kept["N"]))
        if len(places) > 1 and thresholds.reached(budget.limit, spent, held):
            # What moved from one shard to another while they were read was counted twice, or not
            # at all. Twice in a row it would have to move at the very same moment.
            spent = min(spent, _spent(self._items(places), places))
        written = 0
        for found in thresholds.reached(budget.limit, spent, held):
            kind = event_type(budget, found.threshold)
            if not any(each.wants(kind) for each in wants):
                continue
            month = spender.month.removeprefix("MONTH#")
            period = f"{month[:4]}-{month[4:]}"
            data = event_data(budget, found, spent, period, rules.resets_at(_BUDGET, at))
            where = f"{spender.month}#{found.threshold}#{budget.limit}#{spender.subject}"
            event = outbox.new_event(kind, data, self._clock())
            written += outbox.add(self._client, self._name, spender.pid, where, event)
        return written

    def _budget(self, project: Project, spender: Spender) -> Budget | None:
        if spender.subject != OF_THE_PROJECT:
            return self._budget_of(spender.pid, spender.subject)
        limit = project.limits.nano_usd_per_month
        public = {"project": project.pid}
        return None if limit is None else Budget(limit, is_customers=False, public=public)

    def _keep(self, key: Key, held: int, at: int) -> None:
        """Keep it as the month's least, unless another has kept less meanwhile."""
        note = Expression()
        note.lower_to(_LEAST, held)
        note.set("ttl", at + outbox.KEPT_S)
        try:
            self._client.update_item(TableName=self._name, Key=key.item(), **note.built())
        except Exception as error:
            if not contention.condition_failed(error):
                raise

    def _records(self, keys: list[Key]) -> Mapping[Key, Record]:
        found = self._items(keys)
        return {key: items.record_of(found.get(key)) for key in keys}

    def _items(self, keys: list[Key]) -> dict[Key, Item]:
        found: dict[Key, Item] = {}
        for start in range(0, len(keys), 100):  # DynamoDB takes so many in one BatchGetItem
            found |= items_at(self._client, self._name, keys[start : start + 100])
        return found

    # ------------------------------------------------------------ to the queue

    def hand_over(self, posted: Iterable[Posted]) -> int:
        """Put a message for each endpoint that gets an event into the queue; return how many."""
        events = list(posted)
        pids = {each.pid for each in events}
        records = self._records([items.webhooks(pid) for pid in pids])
        return self._queue.send(
            body
            for each in events
            for body in outbox.messages(
                each, endpoints_of(records[items.webhooks(each.pid)]).values()
            )
        )


def _spent(read: Mapping[Key, Item], places: Iterable[Key]) -> int:
    used = [used_of(read[key]) for key in places if key in read]
    return sum(each.get(_BUDGET.unit, 0) - each.get(HELD_USD, 0) for each in used)


def budgets_of(customers: Customers) -> BudgetOf:
    """Return what tells the budgets of subjects, as they are now."""

    def budget_of(pid: str, subject: str) -> Budget | None:
        found = customers.read(pid, subject.removeprefix(CUSTOMER))
        limit = None if found is None else found.limits.nano_usd_per_month
        if found is None or limit is None or found.status == DELETED:
            return None
        named = {"customer": found.id, "external_id": found.external_id}
        return Budget(limit, is_customers=True, public=named)

    return budget_of


def _places(project: Project, subject: str, at: int) -> list[Key]:
    """Return where the month's counters are. Of a pool that is, or was, divided: of every shard
    that there can be, for what was used before stays where it was until somebody needs room.
    """
    if subject != OF_THE_PROJECT:
        return [place(project.pid, USER, subject, MONTH, at)]
    divided = project.pool.shards > 1 or project.pool.generation > 0
    shards = range(items.MOST_SHARDS if divided else 1)
    return [place(project.pid, PROJECT, str(shard), MONTH, at) for shard in shards]
