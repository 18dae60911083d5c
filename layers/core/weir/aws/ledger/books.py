"""What admission and settlement share: where counters and reservations are stored, how they are
read, and how a transaction is sent.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from weir.aws import contention, expressions, items
from weir.aws.expressions import Expression
from weir.aws.items import Item, Key
from weir.aws.reading import items_at
from weir.aws.store import Part, Store
from weir.ledger import rules
from weir.ledger.admission import Reservation
from weir.ledger.rules import LIFE, MINUTE, MONTH, NOW, TOKEN, USER, Amounts, Used

CONFLICTS_S = 1.0  # how long admission and cancelling try to get past other requests
SETTLE_S = 5.0  # how long settling does: the sweeper would charge the worst case
FIRST_WAIT_S = 0.02
MOST_WAIT_S = 0.2
MINUTE_KEPT_S = 2 * 3600
MONTH_KEPT_S = 75 * 86_400
USAGE_KEPT_S = 90 * 86_400  # unless the operator wants it otherwise

T = TypeVar("T")


class Books:
    def __init__(
        self,
        client: Store,
        table_name: str,
        clock: Callable[[], float],
        *,
        usage_kept_s: int = USAGE_KEPT_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock` gives Unix seconds."""
        self._client = client
        self._name = table_name
        self._clock = clock
        self._usage_kept_s = usage_kept_s
        self._monotonic = monotonic
        self._sleep = sleep

    def used_by(self, pid: str, subject: str, at: int) -> tuple[Used, Used, Used]:
        """Return what a subject uses now, in this minute, and in this month with its days. One
        round trip.
        """
        keys = [place(pid, USER, subject, window, at) for window in (NOW, MINUTE, MONTH)]
        now, minute, month = (used_of(item) for item in self.read(keys))
        return now, minute, month

    def used_this_month(self, pid: str, subjects: Sequence[str], at: int) -> list[Used]:
        """Return what each of at most 100 subjects uses in this month. One round trip."""
        keys = [place(pid, USER, subject, MONTH, at) for subject in subjects]
        return [used_of(item) for item in self.read(keys)] if keys else []

    def read(self, keys: Sequence[Key]) -> list[Item]:
        """Strongly consistent; empty for what is not there. Raises AwsError."""
        found = items_at(self._client, self._name, keys, sleep=self._sleep)
        return [found.get(key, {}) for key in keys]

    def _update(self, key: Key, expression: Expression) -> Part:
        return expressions.update(self._name, key, expression)

    def _transact(self, parts: Sequence[Part], token: str) -> None:
        """`token`: sent twice, it is carried out once."""
        for part in parts:
            for operation in part.values():
                if "ConditionExpression" in operation:
                    operation["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        self._client.transact_write_items(TransactItems=parts, ClientRequestToken=token)

    def _retried(
        self,
        call: Callable[[], T],
        again: Callable[[Exception], bool],
        *,
        tries: int | None = None,
        within_s: float | None = None,
        given_up: Callable[[], Exception] | None = None,
    ) -> T:
        return contention.retried(
            call,
            again,
            tries=tries,
            within_s=within_s,
            first_wait_s=FIRST_WAIT_S,
            most_wait_s=MOST_WAIT_S,
            given_up=given_up,
            sleep=self._sleep,
            monotonic=self._monotonic,
        )


# ---------------------------------------------------------------- counters


def place(pid: str, scope: str, part: str, window: str, at: int) -> Key:
    """Return the key of an account's counters in the window that contains `at`."""
    if scope == TOKEN:
        return items.client_token(pid, part)
    sk = {NOW: items.NOW, MINUTE: items.minute(at), MONTH: items.month(at)}[window]
    return Key(items.ledger("" if scope == rules.TENANT else pid, part), sk)


def let_expire(expression: Expression, window: str, at: int) -> None:
    """Set when DynamoDB may delete the counters of a window that has ended. NOW never ends, and a
    token's record says when it does.
    """
    if window not in (NOW, LIFE):
        kept_s = MINUTE_KEPT_S if window == MINUTE else MONTH_KEPT_S
        expression.set("ttl", at + kept_s)


def used_of(item: Item) -> dict[str, int]:
    used = {name: int(value["N"]) for name, value in item.items() if "N" in value}
    if "open" in item:
        used["streams"] = len(members(item, "open"))
    return used


def members(item: Item, name: str) -> Sequence[str]:
    found: Sequence[str] = item.get(name, {}).get("SS", ())
    return found


# ---------------------------------------------------------------- reservations


def key_of(reservation: Reservation) -> Key:
    return items.reservation(reservation.id, reservation.due)


def reservation_item(reservation: Reservation) -> Item:
    document = {
        "id": reservation.id,
        "pid": reservation.pid,
        "subject": reservation.subject,
        "completion_id": reservation.completion_id,
        "at": reservation.at,
        **reservation.amounts.document(),
        "output_tokens": reservation.output_tokens,
        "held": reservation.held,
        "row": reservation.row,
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return {**key_of(reservation).item(), "doc": {"S": text}}


def reservation_of(item: Item) -> Reservation:
    """Raises KeyError, TypeError or ValueError for an item that is none, or is not where a
    reservation of its id and deadline belongs.
    """
    document: Mapping[str, Any] = json.loads(item["doc"]["S"])
    reservation = Reservation(
        id=document["id"],
        due=int(item["sk"]["S"].partition("#")[0]),
        pid=document["pid"],
        subject=document["subject"],
        completion_id=document["completion_id"],
        at=document["at"],
        amounts=Amounts.from_document(document),
        output_tokens=document["output_tokens"],
        held=document["held"],
        row=document["row"],
    )
    if key_of(reservation).item() != {"pk": item["pk"], "sk": item["sk"]}:
        raise ValueError("its id is not that of its key")
    return reservation
