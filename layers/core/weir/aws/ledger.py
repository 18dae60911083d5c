"""The ledger's items and calls: a request is admitted in one transaction and settled in another.

    LEDGER#…  NOW        a subject's: `open`, the ids of its open requests; `cancelled`, those to be
                         stopped. A pool's: `streams`, how many are open
              MINUTE#…   `requests`, `tokens`
              MONTH#…    `tokens`, `nano_usd`, `nano_usd_reserved` (what of it is held by open
                         requests), and of a day `d21q` requests, `d21t` tokens
              of a pool  `g`, the generation of the configuration by which it was divided into
                         shards. Who knows a later one first divides anew what is used; who knows
                         an earlier one must read the configuration again
    OPEN#…               a reservation: `doc` says what it holds of whom

Every counter is what is used and held together. What is admitted and refused:
`weir/ledger/rules.py`.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weir.aws import items
from weir.aws.items import Item, Key
from weir.aws.lean import PASSING, AwsError, code_of, reasons_of
from weir.aws.reading import every_item, items_at
from weir.errors import Conflict, Killed, LedgerBusy
from weir.ledger import rules
from weir.ledger.rules import MINUTE, MONTH, NOW, USER, Account, Amounts, Field, Settlement, Used
from weir.projects.limits import Limits, Pool

log = logging.getLogger(__name__)

CONFLICTS_S = 1.0  # how long admission tries to get past other requests
SETTLE_S = 5.0  # how long settling does: the sweeper would charge the worst case
MOST_WAIT_S = 0.2
MINUTE_KEPT_S = 2 * 3600
MONTH_KEPT_S = 75 * 86_400
USAGE_KEPT_S = 90 * 86_400  # unless the operator wants it otherwise
SWEPT_AT_ONCE = 100
UNDO_TRIES = 5

_MARK = "g"
_BUSY = {
    "TransactionConflict",
    "ThrottlingError",
    "ProvisionedThroughputExceeded",
    "TransactionConflictException",
}
# AWS says them as if the request were wrong. But the client had sent it before, unheard: that may
# have been carried out, or be so yet.
_PASSING = PASSING | {"TransactionInProgressException"}
_MET = {"ConditionalCheckFailedException", "TransactionConflictException"}


class StaleConfiguration(Exception):
    """An operator has changed a pool's limits; what the caller knows of them is older."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that wants to be admitted. `limited`: see rules.of_subject. `price` tells what so
    many output tokens make it take; `afford`, how many output tokens fit into what is left of a
    limit. The output may be made smaller if `shrinkable`, in steps of `choices`. `row` is what its
    usage row needs if nobody else writes it.
    """

    pid: str
    subject: str
    tier: object
    completion_id: str
    limits: Limits
    limited: frozenset[str]
    project: Pool
    tenant: Pool
    price: Callable[[int], Amounts]
    afford: Callable[[Field, int], int]
    output_tokens: int
    choices: int
    shrinkable: bool
    due: int
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request holds until it is settled. `held` is of rules.held, for each account."""

    id: str
    key: Key
    pid: str
    subject: str
    completion_id: str
    at: int
    amounts: Amounts
    output_tokens: int
    held: Sequence[Sequence[str]]
    row: Mapping[str, Any]

    def item(self) -> Item:
        told = {
            "id": self.id,
            "pid": self.pid,
            "subject": self.subject,
            "completion_id": self.completion_id,
            "at": self.at,
            **self.amounts.document(),
            "output_tokens": self.output_tokens,
            "held": self.held,
            "row": self.row,
        }
        text = json.dumps(told, separators=(",", ":"), ensure_ascii=False)
        return {**self.key.item(), "doc": {"S": text}}

    @classmethod
    def from_item(cls, item: Item) -> "Reservation":
        told = json.loads(item["doc"]["S"])
        return cls(
            told["id"],
            Key(item["pk"]["S"], item["sk"]["S"]),
            told["pid"],
            told["subject"],
            told["completion_id"],
            told["at"],
            Amounts.from_document(told),
            told["output_tokens"],
            told["held"],
            told["row"],
        )


@dataclass(frozen=True, slots=True)
class Swept:
    """`oldest_s` is for how long the oldest had been due; `nano_usd`, what was charged."""

    settled: int
    failed: int
    oldest_s: int
    nano_usd: int


class Ledger:
    def __init__(
        self,
        client: Any,
        table_name: str,
        clock: Callable[[], float],
        *,
        usage_kept_s: int = USAGE_KEPT_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`client` is `lean`'s, or botocore's. `clock` gives Unix seconds."""
        self._client = client
        self._name = table_name
        self._clock = clock
        self._usage_kept_s = usage_kept_s
        self._monotonic = monotonic
        self._sleep = sleep

    # ------------------------------------------------------------ admission

    def admit(self, ask: Ask) -> Reservation:
        """In one round trip, all or nothing, if nobody is in the way and nothing must shrink.

        Raises the refusal that says which limit; Killed for a blocked user; Conflict if this
        user has an open request with this id; LedgerBusy if others were in the way for too long;
        StaleConfiguration; AwsError, and then nothing is held.
        """
        at = int(self._clock())
        give_up = self._monotonic() + CONFLICTS_S
        reservation_id = os.urandom(16).hex()
        output_tokens, tries = ask.output_tokens, 0
        pools = (
            rules.of_pool(rules.PROJECT, ask.project, os.urandom(1)[0]),
            rules.of_pool(rules.TENANT, ask.tenant, os.urandom(1)[0]),
        )
        accounts = (rules.of_subject(ask.subject, ask.limits, ask.limited), *pools)
        if ask.limits.concurrent_streams == 0:  # a set that is not there has no size to compare
            raise rules.refusal(accounts[0], rules.BY_CODE["s"], 0, Amounts(0, 0), at, ask.tier)
        held = [rules.held(account) for account in accounts if account.windows()]
        while True:
            tries += 1
            reservation = Reservation(
                reservation_id,
                items.reservation(reservation_id, ask.due),
                ask.pid,
                ask.subject,
                ask.completion_id,
                at,
                ask.price(output_tokens),
                output_tokens,
                held,
                ask.row,
            )
            refused = self._reserve(reservation, accounts, tries)
            if not refused:
                return reservation
            again = [each for each in refused if isinstance(each, _Busy)]
            if not again:
                output_tokens = _smaller(ask, output_tokens, refused, reservation.amounts, at)
            elif self._monotonic() > give_up:
                raise LedgerBusy
            elif any(each.waits for each in again):
                self._wait(tries)

    def _reserve(
        self, reservation: Reservation, accounts: Sequence[Account], tries: int
    ) -> list["_Over | _Busy"]:
        """Who refuses it; nobody, if it is admitted."""
        blocked = items.subject(reservation.pid, reservation.subject)
        parts = [
            {
                "ConditionCheck": {
                    "TableName": self._name,
                    "Key": blocked.item(),
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            },
            {
                "Put": {
                    "TableName": self._name,
                    "Item": reservation.item(),
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            },
        ]
        places: list[tuple[Account, str, list[Field]]] = []
        for account in accounts:
            for window, fields in account.windows().items():
                places.append((account, window, fields))
                parts.append(self._taking(reservation, account, window, fields))
        try:
            self._transact(parts, f"{reservation.id}{tries:04d}")
            return []
        except Exception as error:
            reasons = _cancelled(error)
            if reasons is None:
                if not _is_ours(error):
                    self._undo(reservation)
                raise
        failed = [reason.get("Code") == "ConditionalCheckFailed" for reason in reasons]
        if not any(failed):
            return [_Busy(waits=True)]
        if failed[1]:  # it was admitted the first time, and the answer was lost
            return []
        if failed[0]:
            raise Killed("user")
        refused: list[_Over | _Busy] = []
        for (account, window, fields), failing, reason in zip(
            places, failed[2:], reasons[2:], strict=True
        ):
            if failing:
                item = reason.get("Item") or {}
                refused += self._judged(reservation, account, window, fields, item)
        if not refused:  # what refused it has passed meanwhile
            return [_Busy(waits=False)]
        over = [each for each in refused if isinstance(each, _Over)]
        return list(over or refused)

    def _judged(
        self,
        reservation: Reservation,
        account: Account,
        window: str,
        fields: Sequence[Field],
        item: Item,
    ) -> Iterable["_Over | _Busy"]:
        at, amounts, used = reservation.at, reservation.amounts, _used(item)
        is_open = account.scope == USER and window == NOW
        if is_open and reservation.completion_id in _set(item, "open"):
            raise Conflict(
                f"A request with the id {reservation.completion_id!r} is still open. Choose "
                "another X-Client-Request-Id, or cancel that one."
            )
        if account.is_pool and window != MINUTE and used.get(_MARK, 0) > account.generation:
            raise StaleConfiguration
        if account.is_pool and (account.shards > 1 or account.generation):
            return self._make_room(reservation, account, window)
        over = account.over(fields, used, amounts, at)
        return [_Over(account, field, used.get(rules.attribute(field, at), 0)) for field in over]

    def _taking(
        self, reservation: Reservation, account: Account, window: str, fields: Sequence[Field]
    ) -> dict[str, Any]:
        at, amounts = reservation.at, reservation.amounts
        expression = _Expression()
        if account.scope == USER and window == NOW:
            one = expression.value({"SS": [reservation.completion_id]})
            expression.add(f"{expression.name('open')} {one}")
            member = expression.value({"S": reservation.completion_id})
            expression.condition(f"NOT contains({expression.name('open')}, {member})")
            most = account.limits.concurrent_streams
            if most is not None:
                there = expression.name("open")
                limit = expression.value({"N": str(most)})
                expression.condition(f"(attribute_not_exists({there}) OR size({there}) < {limit})")
            fields = ()
        for field in fields:
            expression.take(rules.attribute(field, at), amounts.of(field), account.share(field))
            if field.reserved:
                expression.take(field.reserved, amounts.of(field), None)
        if account.is_pool and window != MINUTE:
            expression.unchanged(_MARK, account.generation or None)
        if window != NOW:
            expression.set("ttl", at + _kept_s(window))
        if any(field.period == rules.DAY for field in fields):
            expression.removed = rules.other_days(at)
        return self._update(
            _place(reservation.pid, account.scope, account.part, window, at), expression
        )

    def _make_room(
        self, reservation: Reservation, account: Account, window: str
    ) -> list["_Over | _Busy"]:
        """Moves what is used between the shards of a pool, so that this one has room."""
        at, amounts = reservation.at, reservation.amounts
        shards = items.MOST_SHARDS if account.generation else account.shards
        keys = [
            _place(reservation.pid, account.scope, str(shard), window, at)
            for shard in range(shards)
        ]
        found = self.read(keys)
        used = [_used(item) for item in found]
        if window != MINUTE and any(each.get(_MARK, 0) > account.generation for each in used):
            raise StaleConfiguration
        wanted, refused = rules.redistributed(account, window, used, amounts, at)
        if refused:
            # The items are read one after the other. What was settled or moved meanwhile is in both
            # of two, and adds up to more than there ever was: nobody is refused because of that.
            if self.read(keys) != found:
                return [_Busy(waits=True)]
            return [_Over(account, field, total) for field, total in refused]
        parts = self._moving(account, window, at, zip(keys, used, wanted, strict=True))
        if parts:
            try:
                self._transact(parts, os.urandom(16).hex())
            except Exception as error:
                if _cancelled(error) is None:
                    raise
                return [_Busy(waits=True)]
        return [_Busy(waits=False)]

    def _moving(
        self,
        account: Account,
        window: str,
        at: int,
        changes: Iterable[tuple[Key, Used, Mapping[str, int]]],
    ) -> list[dict[str, Any]]:
        """The writes by which each item, that has the first, comes to have the second. What is
        settled meanwhile is no hindrance; what is admitted is.
        """
        marked = account.generation > 0 and window != MINUTE
        parts = []
        for key, was, wants in changes:
            divided = marked and was.get(_MARK) != account.generation
            moved = {n: value - was.get(n, 0) for n, value in wants.items()}
            if not divided and not any(moved.values()):
                continue
            expression = _Expression()
            for name, by in moved.items():
                expression.take(name, by, was.get(name, 0) + by)
            if marked:
                expression.unchanged(_MARK, was.get(_MARK))
                expression.set(_MARK, account.generation)
            if window != NOW:  # this may make the item
                expression.set("ttl", at + _kept_s(window))
            parts.append(self._update(key, expression))
        return parts

    def _undo(self, reservation: Reservation) -> None:
        """Of an admission whose answer never came: whether it was carried out, is being so, or
        never will be.
        """
        nothing = Settlement(0, 0, answered=False)
        try:
            for tried in range(1, UNDO_TRIES + 1):
                if self.settle(reservation, nothing, None, by="u"):
                    return
                # It is not there, and with this in its place it never will be. The sweeper removes
                # it.
                try:
                    self._client.put_item(
                        TableName=self._name,
                        Item=reservation.key.item(),
                        ConditionExpression="attribute_not_exists(pk)",
                    )
                    return
                except Exception as error:  # it is there now, or coming
                    if code_of(error) not in _MET:
                        raise
                self._wait(tried)
            log.error("an admission of which nothing is known is not undone")
        except Exception:
            log.exception("an admission of which nothing is known could not be undone")

    # ------------------------------------------------------------ settling

    def settle(
        self,
        reservation: Reservation,
        settled: Settlement,
        row: Mapping[str, Any] | None,
        by: str = "s",
    ) -> bool:
        """In one round trip: gives back what was held and not taken, and leaves the usage row.
        False if it was settled before. Raises AwsError if the store failed for SETTLE_S. `by` tells
        those apart who might settle it with other words.
        """
        at = reservation.at
        parts: list[dict[str, Any]] = [
            {
                "Delete": {
                    "TableName": self._name,
                    "Key": reservation.key.item(),
                    "ConditionExpression": "attribute_exists(doc)",
                }
            }
        ]
        if row is not None:
            parts.append({"Put": {"TableName": self._name, "Item": self._row(reservation, row)}})
        for scope, part, codes in reservation.held:
            changes = rules.correction(codes, reservation.amounts, settled, at)
            if scope == USER:
                changes.pop(NOW, None)
                parts.append(self._closing(reservation))
            for window, added in changes.items():
                expression = _Expression()
                for name, value in added.items():
                    expression.take(name, value, None)
                if window != NOW:
                    expression.set("ttl", at + _kept_s(window))
                place = _place(reservation.pid, scope, part, window, at)
                parts.append(self._update(place, expression))
        give_up, tries = self._monotonic() + SETTLE_S, 0
        while True:
            tries += 1
            try:
                self._transact(parts, f"{reservation.id}{by}")
                return True
            except Exception as error:
                reasons = _cancelled(error)
                if reasons and reasons[0].get("Code") == "ConditionalCheckFailed":
                    return False
                if self._monotonic() > give_up or (reasons is None and _is_ours(error)):
                    raise
            self._wait(tries)

    def _closing(self, reservation: Reservation) -> dict[str, Any]:
        expression = _Expression()
        one = expression.value({"SS": [reservation.completion_id]})
        names = [expression.name("open"), expression.name("cancelled")]
        update = self._update(
            _place(reservation.pid, USER, reservation.subject, NOW, reservation.at), expression
        )
        update["Update"]["UpdateExpression"] = f"DELETE {', '.join(f'{n} {one}' for n in names)}"
        return update

    def _row(self, reservation: Reservation, row: Mapping[str, Any]) -> Item:
        at_ms = row.get("at_ms", reservation.at * 1000)
        told = {**reservation.row, **row, "at_ms": at_ms}
        key = items.usage(reservation.pid, reservation.subject, at_ms, reservation.id)
        named = {
            "pid": reservation.pid,
            "subject": reservation.subject,
            "completion_id": reservation.completion_id,
        }
        ends = at_ms // 1000 + self._usage_kept_s
        return {**key.item(), **_typed({**named, **told, "ttl": ends})}

    def sweep(self, now: int, until: Callable[[], bool]) -> Swept:
        """Settles at their worst case the reservations whose requests should have ended by `now`:
        their processes have died. Stops early when `until` says so.
        """
        settled = failed = oldest_s = nano_usd = 0
        # Of two sweepers at once only one is told that it was he who settled.
        by = f"w{os.urandom(1).hex()}"
        for shard in range(items.OPEN_SHARDS):
            for item in self._due(f"OPEN#{shard}", now):
                if until():
                    return Swept(settled, failed, oldest_s, nano_usd)
                try:
                    charged = self._sweep(item, by)
                    if charged is not None:
                        settled, nano_usd = settled + 1, nano_usd + charged
                except Exception:
                    log.exception("a reservation cannot be swept", extra={"key": item["sk"]["S"]})
                    failed += 1
                oldest_s = max(oldest_s, now - int(item["sk"]["S"][:10]))
        return Swept(settled, failed, oldest_s, nano_usd)

    def _sweep(self, item: Item, by: str) -> int | None:
        """nano-USD that it is charged; None if there is nothing to settle."""
        if "doc" not in item:  # what _undo has left
            key = Key(item["pk"]["S"], item["sk"]["S"])
            self._client.delete_item(TableName=self._name, Key=key.item())
            return None
        reservation = Reservation.from_item(item)
        amounts = reservation.amounts
        row = {
            "outcome": "abandoned",
            "estimated": True,
            "input_tokens": amounts.tokens - reservation.output_tokens,
            "cached_tokens": 0,
            "output_tokens": reservation.output_tokens,
            "reasoning_tokens": 0,
            "nano_usd": amounts.nano_usd,
        }
        worst = Settlement(amounts.tokens, amounts.nano_usd, answered=True)
        return amounts.nano_usd if self.settle(reservation, worst, row, by) else None

    def _due(self, pk: str, now: int) -> Iterable[Item]:
        return every_item(
            self._client.query,
            TableName=self._name,
            KeyConditionExpression="pk = :pk AND sk < :now",
            ExpressionAttributeValues={":pk": {"S": pk}, ":now": {"S": f"{now:010d}"}},
            Limit=SWEPT_AT_ONCE,
            ConsistentRead=True,
        )

    # ------------------------------------------------------------ cancelling, looking

    def cancel(self, pid: str, subject: str, completion_id: str) -> bool:
        """False if this subject has no such open request. Raises AwsError; LedgerBusy if others of
        his requests were in the way for too long.
        """
        give_up, tries = self._monotonic() + CONFLICTS_S, 0
        while True:
            tries += 1
            try:
                self._client.update_item(
                    TableName=self._name,
                    Key=Key(items.ledger(pid, subject), items.NOW).item(),
                    UpdateExpression="ADD cancelled :one",
                    ConditionExpression="contains(#open, :id)",
                    ExpressionAttributeNames={"#open": "open"},
                    ExpressionAttributeValues={
                        ":one": {"SS": [completion_id]},
                        ":id": {"S": completion_id},
                    },
                )
                return True
            except Exception as error:
                if code_of(error) == "ConditionalCheckFailedException":
                    return False
                if code_of(error) != "TransactionConflictException":
                    raise
                if self._monotonic() > give_up:
                    raise LedgerBusy from error
            self._wait(tries)

    def is_cancelled(self, pid: str, subject: str, completion_id: str) -> bool:
        """One small read, eventually consistent."""
        answer = self._client.get_item(
            TableName=self._name,
            Key=Key(items.ledger(pid, subject), items.NOW).item(),
            ProjectionExpression="cancelled",
        )
        return completion_id in _set(answer.get("Item") or {}, "cancelled")

    def used_by(self, pid: str, subject: str, at: int) -> tuple[Used, Used, Used]:
        """Now, in this minute, and in this month with its days. One round trip."""
        keys = [_place(pid, USER, subject, window, at) for window in (NOW, MINUTE, MONTH)]
        now, minute, month = (_used(item) for item in self.read(keys))
        return now, minute, month

    def read(self, keys: Sequence[Key]) -> list[Item]:
        """Strongly consistent; empty for what is not there. Raises AwsError."""
        found = items_at(self._client, self._name, keys, self._wait)
        return [found.get(key, {}) for key in keys]

    # ------------------------------------------------------------ the calls

    def _update(self, key: Key, expression: "_Expression") -> dict[str, Any]:
        return {"Update": {"TableName": self._name, "Key": key.item(), **expression.built()}}

    def _transact(self, parts: list[dict[str, Any]], token: str) -> None:
        """`token`: sent twice, it is carried out once."""
        for part in parts:
            for operation in part.values():
                if "ConditionExpression" in operation:
                    operation["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        self._client.transact_write_items(TransactItems=parts, ClientRequestToken=token)

    def _wait(self, tries: int) -> None:
        """Whoever collides must not collide again."""
        most = min(MOST_WAIT_S, 0.01 * 2**tries)
        self._sleep(os.urandom(1)[0] / 255 * most)


@dataclass(frozen=True, slots=True)
class _Over:
    """A limit that refuses; `used` is of the whole pool."""

    account: Account
    field: Field
    used: int


@dataclass(frozen=True, slots=True)
class _Busy:
    """Neither admitted nor refused: try again, after a while if others are at it."""

    waits: bool


class _Expression:
    """An update, part by part. Names stand for themselves nowhere: many are reserved words."""

    def __init__(self) -> None:
        self.sets: list[str] = []
        self.removed: Sequence[str] = ()
        self._adds: list[str] = []
        self._conditions: list[str] = []
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        return self._names.setdefault(attribute, f"#a{len(self._names)}")

    def value(self, value: Any) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = value
        return placeholder

    def add(self, term: str) -> None:
        self._adds.append(term)

    def set(self, attribute: str, value: int) -> None:
        self.sets.append(f"{self.name(attribute)} = {self.value({'N': str(value)})}")

    def condition(self, condition: str) -> None:
        self._conditions.append(condition)

    def take(self, attribute: str, amount: int, most: int | None) -> None:
        """Adds `amount`, if there is then no more than `most`."""
        name = self.name(attribute)
        self.add(f"{name} {self.value({'N': str(amount)})}")
        if most is None:
            return
        fits = f"{name} <= {self.value({'N': str(most - amount)})}"
        # Where nothing is used yet there is no counter, and a comparison with it fails.
        self.condition(f"(attribute_not_exists({name}) OR {fits})" if most >= amount else fits)

    def unchanged(self, attribute: str, value: int | None) -> None:
        name = self.name(attribute)
        if value is None:
            self.condition(f"attribute_not_exists({name})")
        else:
            self.condition(f"{name} = {self.value({'N': str(value)})}")

    def built(self) -> dict[str, Any]:
        clauses = [
            f"{verb} {', '.join(terms)}"
            for verb, terms in (("SET", self.sets), ("ADD", self._adds), ("REMOVE", self.removed))
            if terms
        ]
        built: dict[str, Any] = {
            "UpdateExpression": " ".join(clauses),
            "ExpressionAttributeNames": {to: name for name, to in self._names.items()},
            "ExpressionAttributeValues": self._values,
        }
        if self._conditions:
            built["ConditionExpression"] = " AND ".join(self._conditions)
        return built


def _smaller(
    ask: Ask,
    output_tokens: int,
    refused: Sequence["_Over | _Busy"],
    amounts: Amounts,
    at: int,
) -> int:
    """How many output tokens fit into what is left, if the caller has not said how many he wants.
    Raises the refusal.
    """
    over = [each for each in refused if isinstance(each, _Over)]
    fits = output_tokens
    for each in over:
        limit = each.account.limit(each.field) or 0
        fits = min(fits, ask.afford(each.field, limit - each.used))
    fits -= fits % ask.choices
    if ask.shrinkable and rules.LEAST_OUTPUT_TOKENS * ask.choices <= fits < output_tokens:
        return fits
    order = [field.code for field in rules.FIELDS]
    first = min(over, key=lambda each: order.index(each.field.code))
    raise rules.refusal(first.account, first.field, first.used, amounts, at, ask.tier)


def _place(pid: str, scope: str, part: str, window: str, at: int) -> Key:
    sk = {NOW: items.NOW, MINUTE: items.minute(at), MONTH: items.month(at)}[window]
    return Key(items.ledger("" if scope == rules.TENANT else pid, part), sk)


def _kept_s(window: str) -> int:
    return MINUTE_KEPT_S if window == MINUTE else MONTH_KEPT_S


def _cancelled(error: Exception) -> Sequence[Mapping[str, Any]] | None:
    """Why a transaction was cancelled, part by part; None if it failed in another way."""
    reasons = reasons_of(error)
    if reasons:
        return reasons
    return [{"Code": code_of(error)}] if code_of(error) in _BUSY else None


def _is_ours(error: Exception) -> bool:
    """No use in trying again: the request itself is wrong, or may not be made."""
    if code_of(error) in _PASSING:
        return False
    status = getattr(error, "status", None)
    return not isinstance(error, AwsError) or (status is not None and 400 <= status < 500)


def _used(item: Item) -> dict[str, int]:
    used = {name: int(value["N"]) for name, value in item.items() if "N" in value}
    if "open" in item:
        used["streams"] = len(_set(item, "open"))
    return used


def _set(item: Item, name: str) -> Sequence[str]:
    members: Sequence[str] = item.get(name, {}).get("SS", ())
    return members


def _typed(row: Mapping[str, Any]) -> Item:
    typed: Item = {}
    for name, value in row.items():
        if isinstance(value, bool):
            typed[name] = {"BOOL": value}
        elif isinstance(value, int | float):
            typed[name] = {"N": str(value)}
        elif value is not None:
            typed[name] = {"S": str(value)}
    return typed
