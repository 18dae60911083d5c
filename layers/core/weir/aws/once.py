"""Answers of requests with an Idempotency-Key, in the table: weir/customers/idempotency.py.

Powertools has this, too, but brings boto3, whose import takes longer than all else a mint needs
(docs/decisions/0034).
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from weir.aws import contention, items
from weir.aws.expressions import PRESENT, Expression
from weir.aws.items import Key
from weir.aws.store import Store
from weir.customers.idempotency import KEPT_S, LOCKED_S, WAIT_S
from weir.errors import IdempotencyInProgress, IdempotencyKeyReused

LOOK_EVERY_S = 0.1


class Answered(NamedTuple):
    status: int
    document: Mapping[str, Any]
    is_replay: bool = False


class Once:
    def __init__(
        self,
        client: Store,
        table_name: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._name = table_name
        self._monotonic = monotonic
        self._sleep = sleep

    def answer(
        self, pid: str, digest: str, fingerprint: str, now: int, do: Callable[[], Answered]
    ) -> Answered:
        """Return what `do` answers, or what it answered before, within a day. Raise
        IdempotencyKeyReused for another body, IdempotencyInProgress for one that is still running
        after a wait. What `do` raises is not kept: nothing was carried out.
        """
        key = items.once(pid, digest)
        give_up = self._monotonic() + WAIT_S
        while not self._lock(key, fingerprint, now):
            item = self._client.get_item(
                TableName=self._name, Key=key.item(), ConsistentRead=True
            ).get("Item")
            if item is None:
                continue  # the other one has failed meanwhile
            if item["fingerprint"]["S"] != fingerprint:
                raise IdempotencyKeyReused
            if "answer" in item:
                return Answered(
                    int(item["status"]["N"]), json.loads(item["answer"]["S"]), is_replay=True
                )
            if self._monotonic() > give_up:
                raise IdempotencyInProgress
            self._sleep(LOOK_EVERY_S)
        try:
            answered = do()
        except BaseException:
            self._client.delete_item(TableName=self._name, Key=key.item())
            raise
        self._keep(key, answered, now)
        return answered

    def _lock(self, key: Key, fingerprint: str, now: int) -> bool:
        lock = Expression()
        lock.require_new_or_below("until", now)
        lock.set("fingerprint", fingerprint)
        lock.set("until", now + LOCKED_S)
        lock.set("ttl", now + KEPT_S)
        lock.remove(["answer"])
        try:
            self._client.update_item(TableName=self._name, Key=key.item(), **lock.built())
        except Exception as error:
            if contention.condition_failed(error):
                return False
            raise
        return True

    def _keep(self, key: Key, answered: Answered, now: int) -> None:
        keep = Expression(PRESENT)
        keep.set("answer", json.dumps(answered.document, separators=(",", ":")))
        keep.set("status", answered.status)
        keep.set("until", now + KEPT_S)
        keep.set("ttl", now + KEPT_S)
        self._client.update_item(TableName=self._name, Key=key.item(), **keep.built())
