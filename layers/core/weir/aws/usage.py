"""Usage rows and their sums: added up once each, read by whoever may.

A row is marked in the transaction that adds it (`summed`), so that a row which the table's stream
brings twice, late, or out of order is added once.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from weir import usage
from weir.aws import items
from weir.aws.items import Item, Key
from weir.aws.lean import code_of, reasons_of
from weir.usage import DAYS, DETAIL, MINUTES, TOTALS, USERS, Place, Row, Totals

log = logging.getLogger(__name__)

MOST_PARTS = 100  # of one transaction
TRIES = 8
MOST_WAIT_S = 0.4


class Crowded(Exception):
    """Others were adding to the same sums for too long."""


class Usage:
    def __init__(
        self,
        client: Any,
        table_name: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`client` is `lean`'s, or botocore's."""
        self._client = client
        self._name = table_name
        self._sleep = sleep

    # ------------------------------------------------------------ adding up

    def add(self, rows: Mapping[Key, Row], kept_until: Callable[[Row], int]) -> int:
        """How many were added; the others had been before, or are gone. As many as fit go into one
        transaction. `kept_until`: Unix seconds, for `ttl`. Raises AwsError, Crowded.
        """
        added, waiting = 0, list(rows.items())
        while waiting:
            batch = _fitting(waiting)
            waiting = waiting[len(batch) :]
            added += self._add_together(batch, kept_until)
        return added

    def _add_together(
        self, batch: Sequence[tuple[Key, Row]], kept_until: Callable[[Row], int]
    ) -> int:
        left = list(batch)
        for tried in range(1, TRIES + 1):
            if not left:
                return 0
            parts = [self._marking(key) for key, _ in left]
            until = max(kept_until(row) for _, row in left)
            parts += [
                self._adding(place, told, totals, until)
                for place, (told, totals) in usage.added_up(row for _, row in left).items()
            ]
            try:
                self._client.transact_write_items(
                    TransactItems=parts, ClientRequestToken=os.urandom(16).hex()
                )
                return len(left)
            except Exception as error:
                reasons = reasons_of(error)
                if not reasons and code_of(error) != "TransactionConflictException":
                    raise
                done = [reason.get("Code") == "ConditionalCheckFailed" for reason in reasons]
                before, left = (
                    len(left),
                    [each for at, each in enumerate(left) if not (at < len(done) and done[at])],
                )
                if len(left) == before:  # somebody else is at the same sums
                    self._sleep(os.urandom(1)[0] / 255 * min(MOST_WAIT_S, 0.02 * 2**tried))
        raise Crowded

    def _marking(self, key: Key) -> dict[str, Any]:
        return {
            "Update": {
                "TableName": self._name,
                "Key": key.item(),
                "UpdateExpression": "SET summed = :yes",
                "ConditionExpression": "attribute_exists(pk) AND attribute_not_exists(summed)",
                "ExpressionAttributeValues": {":yes": {"BOOL": True}},
            }
        }

    def _adding(
        self, place: Place, told: Mapping[str, str], totals: Totals, until: int
    ) -> dict[str, Any]:
        counted = {name: getattr(totals, name) for name in TOTALS}
        names = [*told, *counted, "ttl"]
        names_to = {f"#a{at}": name for at, name in enumerate(names)}
        to = {name: placeholder for placeholder, name in names_to.items()}
        values: Item = {":ttl": {"N": str(until)}}
        sets = [f"{to['ttl']} = :ttl"]
        for at, (name, text) in enumerate(told.items()):
            values[f":t{at}"] = {"S": text}
            sets.append(f"{to[name]} = :t{at}")
        adds = []
        for at, (name, count) in enumerate(counted.items()):
            values[f":c{at}"] = {"N": str(count)}
            adds.append(f"{to[name]} :c{at}")
        return {
            "Update": {
                "TableName": self._name,
                "Key": items.rollup(*place).item(),
                "UpdateExpression": f"SET {', '.join(sets)} ADD {', '.join(adds)}",
                "ExpressionAttributeNames": names_to,
                "ExpressionAttributeValues": values,
            }
        }

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
        start = None if subject is None else f"{usage.digest(subject)}#"
        for item in self._query(pk, start, start and f"{start}~"):
            told = {name: item[name]["S"] for name in usage.DIMENSIONS if name in item}
            yield told, _totals(item)

    def rows(self, pid: str, subject: str, from_ms: int, to_ms: int) -> Iterator[dict[str, Any]]:
        """One subject's rows, oldest first, from `from_ms` to before `to_ms`: their attributes."""
        pk = items.usage(pid, subject, 0, "").pk
        for item in self._query(pk, f"{from_ms:013d}", f"{to_ms:013d}"):
            yield attributes_of(item)

    def _query(self, pk: str, first: str | None = None, last: str | None = None) -> Iterator[Item]:
        condition, values = "pk = :pk", {":pk": {"S": pk}}
        if first is not None and last is not None:
            condition += " AND sk BETWEEN :first AND :last"
            values |= {":first": {"S": first}, ":last": {"S": last}}
        start: dict[str, Any] = {}
        while True:
            answer = self._client.query(
                TableName=self._name,
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
                **start,
            )
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


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
