"""Settling a reservation, by the request that holds it or by the sweeper; cancelling an open
request.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from weir.aws import contention, expressions, items
from weir.aws.contention import CONDITION_REASON
from weir.aws.expressions import Expression
from weir.aws.items import Item, Key
from weir.aws.ledger.books import (
    CONFLICTS_S,
    SETTLE_S,
    Books,
    key_of,
    let_expire,
    members,
    place,
    reservation_of,
)
from weir.aws.reading import every_item
from weir.aws.store import Part
from weir.errors import LedgerBusy
from weir.ledger import rules
from weir.ledger.admission import Reservation, Swept
from weir.ledger.rules import NOW, USER, Settlement

log = logging.getLogger(__name__)

SWEPT_AT_ONCE = 100


class Settlements(Books):
    # ------------------------------------------------------------ settling

    def settle(
        self,
        reservation: Reservation,
        settled: Settlement,
        row: Mapping[str, Any] | None,
        by: str = "s",
    ) -> bool:
        """Give back what was held and not taken, and write the usage row, in one round trip.

        False if it was settled before. `by` distinguishes callers that may settle it differently.
        Raises AwsError if the store failed for SETTLE_S.
        """
        parts = self._settling(reservation, settled, row)

        def settle() -> bool:
            try:
                self._transact(parts, f"{reservation.id}{by}")
            except Exception as error:
                if contention.reason_codes(error)[:1] == [CONDITION_REASON]:
                    return False
                raise
            return True

        return self._retried(settle, _may_pass, within_s=SETTLE_S)

    def _settling(
        self, reservation: Reservation, settled: Settlement, row: Mapping[str, Any] | None
    ) -> list[Part]:
        at = reservation.at
        # With `doc`: an item without it stands where an undone admission must never arrive.
        held = Expression()
        held.require_present("doc")
        parts = [expressions.delete(self._name, key_of(reservation), held)]
        if row is not None:
            parts.append(expressions.put(self._name, self._row(reservation, row)))
        for scope, part, codes in reservation.held:
            changes = rules.correction(codes, reservation.amounts, settled, at)
            if scope == USER:
                changes.pop(NOW, None)
                parts.append(self._closing(reservation))
            for window, added in changes.items():
                expression = Expression()
                for name, value in added.items():
                    expression.add(name, value)
                let_expire(expression, window, at)
                key = place(reservation.pid, scope, part, window, at)
                parts.append(self._update(key, expression))
        return parts

    def _closing(self, reservation: Reservation) -> Part:
        expression = Expression()
        for name in ("open", "cancelled"):
            expression.delete(name, [reservation.completion_id])
        key = place(reservation.pid, USER, reservation.subject, NOW, reservation.at)
        return self._update(key, expression)

    def _row(self, reservation: Reservation, row: Mapping[str, Any]) -> Item:
        at_ms = row.get("at_ms", reservation.at * 1000)
        key = items.usage(reservation.pid, reservation.subject, at_ms, reservation.id)
        values = {
            "pid": reservation.pid,
            "subject": reservation.subject,
            "completion_id": reservation.completion_id,
            **reservation.row,
            **row,
            "at_ms": at_ms,
            "ttl": at_ms // 1000 + self._usage_kept_s,
        }
        return {**key.item(), **expressions.attributes(values)}

    # ------------------------------------------------------------ sweeping

    def sweep(self, now: int, until: Callable[[], bool]) -> Swept:
        """Settle at their worst case the reservations whose requests should have ended by `now`:
        their processes have died. Stops early when `until` says so.
        """
        settled = failed = oldest_s = nano_usd = 0
        # Of two sweepers at once only one is told that it settled.
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
        """Return what it is charged, in nano-USD; None if there is nothing to settle."""
        if "doc" not in item:  # left by an admission that was undone
            key = Key(item["pk"]["S"], item["sk"]["S"])
            self._client.delete_item(TableName=self._name, Key=key.item())
            return None
        reservation = reservation_of(item)
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

    # ------------------------------------------------------------ cancelling

    def cancel(self, pid: str, subject: str, completion_id: str) -> bool:
        """Mark an open request of this subject to be stopped; False if there is none of this id.

        Raises AwsError; LedgerBusy if the subject's other requests were in the way for too long.
        """
        expression = Expression()
        expression.add("cancelled", [completion_id])
        expression.require_member("open", completion_id)

        def mark() -> bool:
            try:
                self._client.update_item(
                    TableName=self._name,
                    Key=Key(items.ledger(pid, subject), items.NOW).item(),
                    **expression.built(),
                )
            except Exception as error:
                if contention.condition_failed(error):
                    return False
                raise
            return True

        return self._retried(
            mark, contention.is_conflict, within_s=CONFLICTS_S, given_up=LedgerBusy
        )

    def is_cancelled(self, pid: str, subject: str, completion_id: str) -> bool:
        """One small read, eventually consistent."""
        answer = self._client.get_item(
            TableName=self._name,
            Key=Key(items.ledger(pid, subject), items.NOW).item(),
            ProjectionExpression="cancelled",
        )
        return completion_id in members(answer.get("Item") or {}, "cancelled")


def _may_pass(error: Exception) -> bool:
    return contention.is_busy(error) or not contention.is_wrong(error)
