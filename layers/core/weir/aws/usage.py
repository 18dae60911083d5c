"""Usage rows and their sums: added up once each, read by whoever may.

A row is marked in the transaction that adds it (`summed`), so that a row which the table's stream
brings twice, late, or out of order is added once.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from weir.aws import contention, expressions, items
from weir.aws.contention import CONDITION_REASON, Busy
from weir.aws.expressions import PRESENT, Expression
from weir.aws.items import Item, Key
from weir.aws.reading import every_item
from weir.aws.store import Part, Store
from weir.usage import sums as rules
from weir.usage.sums import (
    DAY_S,
    DAYS,
    DETAIL,
    DIMENSIONS,
    MINUTES,
    TOTALS,
    USERS,
    Place,
    Row,
    Totals,
)

log = logging.getLogger(__name__)

MOST_PARTS = 100  # of one transaction
TRIES = 8
FIRST_WAIT_S = 0.04
MOST_WAIT_S = 0.4
LONGEST_MONTH_S = 31 * DAY_S

_NEEDED = ("pid", "at_ms", "outcome", "estimated", *DIMENSIONS, *TOTALS)


class Crowded(Exception):
    """Others were adding to the same sums for too long."""


class Unreadable(Exception):
    """What stands where a usage row should is none."""


class Usage:
    def __init__(
        self,
        client: Store,
        table_name: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._name = table_name
        self._sleep = sleep

    # ------------------------------------------------------------ adding up

    def add(self, rows: Mapping[Key, Row], kept_until: Callable[[Row], int]) -> int:
        """How many were added; the others had been before, or are gone. As many as fit go into one
        transaction. `kept_until`: Unix seconds, for `ttl`; of two rows of one month the same, or
        the first to be added decides. Raises AwsError, Crowded; what it has added stays added.
        """
        # Those with the same sums side by side: more of them fit.
        added, waiting = 0, sorted(rows.items(), key=lambda each: each[0])
        while waiting:
            batch = _fitting(waiting)
            waiting = waiting[len(batch) :]
            added += self._add_together(batch, kept_until)
        return added

    def _add_together(
        self, batch: Sequence[tuple[Key, Row]], kept_until: Callable[[Row], int]
    ) -> int:
        left = list(batch)

        def add() -> int:
            try:
                # Never with the token of another try, which may have had other rows.
                self._client.transact_write_items(
                    TransactItems=self._parts(left, kept_until),
                    ClientRequestToken=os.urandom(16).hex(),
                )
            except Exception as error:
                marks = contention.reason_codes(error)[: len(left)]
                if CONDITION_REASON not in marks:
                    raise
                left[:] = [
                    each for each, code in zip(left, marks, strict=True) if code != CONDITION_REASON
                ]
                if left:
                    raise Busy(at_once=True) from error
            return len(left)

        return contention.retried(
            add,
            _may_pass,
            tries=TRIES,
            first_wait_s=FIRST_WAIT_S,
            most_wait_s=MOST_WAIT_S,
            given_up=Crowded,
            sleep=self._sleep,
        )

    def _parts(
        self, rows: Sequence[tuple[Key, Row]], kept_until: Callable[[Row], int]
    ) -> list[Part]:
        until: dict[Place, int] = {}
        for _, row in rows:
            for place in row.places():
                until[place] = max(until.get(place, 0), kept_until(row))
        sums = rules.added_up(row for _, row in rows)
        return [
            *(self._marking(key) for key, _ in rows),
            *(
                self._adding(place, told, totals, until[place])
                for place, (told, totals) in sums.items()
            ),
        ]

    def _marking(self, key: Key) -> Part:
        mark = Expression(PRESENT)
        mark.require_absent("summed")
        mark.set("summed", True)
        return expressions.update(self._name, key, mark)

    def _adding(self, place: Place, labels: Mapping[str, str], totals: Totals, until: int) -> Part:
        sums = Expression()
        # Rows come late and in any order: none of them shortens how long a sum is kept.
        sums.set_once("ttl", until)
        for name, text in labels.items():
            sums.set(name, text)
        for name in TOTALS:
            sums.add(name, getattr(totals, name))
        return expressions.update(self._name, items.rollup(*place), sums)

    def missing(self, before_ms: int) -> Iterator[Item]:
        """Rows of requests that began before `before_ms` and were never added. Reads all of the
        table.
        """
        return every_item(
            self._client.scan,
            TableName=self._name,
            FilterExpression=(
                "begins_with(pk, :usage) AND sk < :before AND attribute_not_exists(summed)"
            ),
            ExpressionAttributeValues={
                ":usage": {"S": "USAGE#"},
                ":before": {"S": f"{before_ms:013d}"},
            },
        )

    # ------------------------------------------------------------ reading

    def days(self, pid: str, first: str, last: str) -> Iterator[tuple[str, str, Totals]]:
        """(day, model, sum) of a project, from day `first` to `last` and with it, as 20261121."""
        pk = items.rollup(DAYS, pid, "").pk
        for item in self._query(pk, f"{first}#", f"{last}#\U0010ffff"):
            day, _, model = item["sk"]["S"].partition("#")
            yield day, model, _totals(item)

    def users(self, pid: str, month: str) -> Iterator[tuple[str, Totals]]:
        """(subject, sum) of a project's month, as 202611, in no order."""
        for item in self._query(items.rollup(USERS, pid, month).pk):
            yield item["subject"]["S"], _totals(item)

    def minutes(self, pid: str, day: str) -> Iterator[tuple[str, str, Totals]]:
        """(minute, model, sum) of a project's day; the minute as 1327."""
        for item in self._query(items.rollup(MINUTES, pid, day).pk):
            minute, _, model = item["sk"]["S"].partition("#")
            yield minute, model, _totals(item)

    def details(
        self, pid: str, day: str, subject: str | None = None
    ) -> Iterator[tuple[dict[str, str], Totals]]:
        """({subject, model, session_id, thread_id, tag}, sum) of a project's day, or of one
        subject's.
        """
        pk = items.rollup(DETAIL, pid, day).pk
        start = None if subject is None else f"{rules.digest(subject)}#"
        for item in self._query(pk, start, start and f"{start}~"):
            told = {name: item[name]["S"] for name in rules.DIMENSIONS if name in item}
            yield told, _totals(item)

    def rows(self, pid: str, subject: str, from_ms: int, to_ms: int) -> Iterator[dict[str, Any]]:
        """One subject's rows, oldest first, from `from_ms` to before `to_ms`: their attributes."""
        pk = items.usage(pid, subject, 0, "").pk
        for item in self._query(pk, f"{from_ms:013d}", f"{to_ms:013d}"):
            yield attributes_of(item)

    def _query(self, pk: str, first: str | None = None, last: str | None = None) -> Iterator[Item]:
        condition, values = "pk = :pk", {":pk": {"S": pk}}
        if first is not None and last is not None:
            if first > last:  # DynamoDB refuses that
                return
            condition += " AND sk BETWEEN :first AND :last"
            values |= {":first": {"S": first}, ":last": {"S": last}}
        yield from every_item(
            self._client.query,
            TableName=self._name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
        )


def _may_pass(error: Exception) -> bool:
    """Whether others were adding to the same sums, or have added some of the rows."""
    return isinstance(error, Busy) or contention.is_busy(error) or contention.is_under_way(error)


def row_of(item: Item) -> tuple[Key, Row]:
    """A usage row, from the table or its stream. Raises Unreadable."""
    try:
        told = attributes_of({name: item[name] for name in _NEEDED if name in item})
        return Key(item["pk"]["S"], item["sk"]["S"]), Row.of(told)
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(type(error).__name__) from error  # never with what stands there


def kept(for_s: int) -> Callable[[Row], int]:
    """For Usage.add: so many seconds after a month's end its sums may go. All of them at once, so
    that it does not matter which of its rows is added first.
    """
    return lambda row: row.month_began + LONGEST_MONTH_S + for_s


def attributes_of(item: Item) -> dict[str, Any]:
    """A usage row's values, from the table or its stream. Raises ValueError for other types."""
    values: dict[str, Any] = {}
    for name, typed in item.items():
        if "S" in typed:
            values[name] = typed["S"]
        elif "N" in typed:
            values[name] = int(typed["N"])
        elif "BOOL" in typed:
            values[name] = typed["BOOL"]
        else:
            raise ValueError(f"{name} is of type {next(iter(typed), 'none')}")
    return values


def _fitting(rows: Sequence[tuple[Key, Row]]) -> Sequence[tuple[Key, Row]]:
    """As many of the first as fit into one transaction."""
    places: set[Place] = set()
    for count, (_, row) in enumerate(rows):
        places.update(row.places())
        if count + 1 + len(places) > MOST_PARTS:
            return rows[:count]
    return rows


def _totals(item: Item) -> Totals:
    return Totals(*(int(item[name]["N"]) if name in item else 0 for name in TOTALS))
