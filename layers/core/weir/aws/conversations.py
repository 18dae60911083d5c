"""The threads and sessions that a chat continues: one read before it is admitted, one write after
it is settled. What is said, compared and kept: `weir/chat/threads.py`, `turns.py`, `additions.py`.

The read returns the record of a thread and its last turns together, because they lie side by side.
The write is one transaction: the turn, the record, and the record's copy in the list of threads,
which moves to the top. The record has a version. If another request has written it meanwhile, the
transaction is made again from what is there then; a thread that was deleted meanwhile stays so.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence

from weir.aws import contention, expressions, items
from weir.aws.contention import Busy
from weir.aws.items import Key, Record
from weir.aws.store import Part, Store
from weir.aws.thread_items import current, thread_parts, turn_item, turn_of, with_ttl
from weir.chat import additions, completion, threads
from weir.chat.completion import Charge, Running
from weir.chat.threads import SESSION, THREAD, Addition, Conversation
from weir.chat.turns import Turn
from weir.metrics import COUNT, emf
from weir.projects.project import Project

log = logging.getLogger("chat")

TRIES = 8
FIRST_WAIT_S = 0.02
MOST_WAIT_S = 0.3


class Deleted(Exception):
    """The thread was deleted while it was being answered."""


class Conversations:
    def __init__(
        self,
        client: Store,
        table_name: str,
        stack: str,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`stack` is the deployment's name, for the metric of what could not be kept."""
        self._client = client
        self._name = table_name
        self._stack = stack
        self._clock = clock
        self._sleep = sleep

    def read(
        self, pid: str, subject: str, project: Project, kind: str, name: str, now_ms: int
    ) -> Conversation:
        """Return what is kept under a name: one query, however long it is. Raises AwsError."""
        prefix = items.conversation(kind, name)
        answer = self._client.query(
            TableName=self._name,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
            ExpressionAttributeValues={
                ":pk": {"S": items.content(pid, subject)},
                ":sk": {"S": prefix},
            },
            ScanIndexForward=False,
            Limit=1 + threads.items_read(project),
            ConsistentRead=True,
        )
        found = answer["Items"]
        record = items.NO_RECORD
        if found and found[0]["sk"]["S"] == prefix + items.RECORD_OF_A_THREAD:
            record = items.record_of(found.pop(0))
        kept_ms = threads.kept_ms(project, kind)
        document = current(record, kept_ms, now_ms)
        turns: list[Turn] = []
        if kind == SESSION or document:
            since = document.get("since_ms", 0)
            turns = [
                turn
                for turn in map(turn_of, reversed(found))
                if turn.at_ms >= since and not threads.is_over(turn.at_ms, kept_ms, now_ms)
            ]
        whole = "LastEvaluatedKey" not in answer or len(turns) < len(found)
        listed_ms = record.document.get("last_ms")
        return Conversation(kind, name, document, record.version, turns, whole, listed_ms)

    def keep(self, running: Running, charge: Charge) -> None:
        """Add a request that was settled. Never raises: what fails is logged, without a word of
        what was said, and counted.
        """
        try:
            self._keep(running, charge)
        except Deleted:
            log.info("the thread was deleted meanwhile", extra=self._named(running))
        except Exception as error:
            now_ms = int(self._clock() * 1000)
            counted = emf("chat", self._stack, now_ms, {"TurnsNotKept": (1, COUNT)}, {})
            # Not its message, which may quote what was said.
            what = {"error": type(error).__name__, "aws_error": contention.code_of(error)}
            log.error("the turn was not kept", extra={**self._named(running), **what, **counted})

    def _named(self, running: Running) -> dict[str, str]:
        return {"completion_id": running.chat.completion_id}

    def _keep(self, running: Running, charge: Charge) -> None:
        chat, reply = running.chat, running.reply
        addition = chat.addition
        if addition is None or reply is None:
            return
        turns = additions.added_turns(
            addition,
            reply,
            at_ms=chat.at_ms,
            request=running.reservation.id,
            completion_id=chat.completion_id,
            row={**running.reservation.row, **charge.row},
            usage=completion.receipt(running, running.outcome),
        )
        if not turns:
            return
        now_ms = int(self._clock() * 1000)
        pk = items.content(chat.claims.pid, chat.subject)
        prefix = items.conversation(addition.conversation.kind, addition.conversation.name)
        ttl = None if addition.kept_ms is None else (now_ms + addition.kept_ms) // 1000
        parts = [
            expressions.put(self._name, with_ttl(turn_item(Key(pk, prefix + t.id), t), ttl))
            for t in turns
        ]
        if addition.conversation.kind == THREAD:
            self._add_to_thread(chat, addition, turns, charge, parts, now_ms, ttl)
        else:
            self._retried(lambda: self._transact(parts))

    def _add_to_thread(
        self,
        chat: completion.Chat,
        addition: Addition,
        turns: Sequence[Turn],
        charge: Charge,
        parts: Sequence[Part],
        now_ms: int,
        ttl: int | None,
    ) -> None:
        conversation = addition.conversation
        before = Record(dict(conversation.document), conversation.version)
        listed = conversation.listed_ms
        pid, subject = chat.claims.pid, chat.subject

        def add() -> None:
            nonlocal before, listed
            document = additions.record(
                addition,
                before.document,
                turns,
                at_ms=chat.at_ms,
                now_ms=now_ms,
                tokens=charge.row["input_tokens"] + charge.row["output_tokens"],
                nano_usd=charge.row["nano_usd"],
            )
            ours = thread_parts(self._name, pid, subject, before.version, listed, document, ttl)
            try:
                self._transact([*ours, *parts])
            except Exception as error:
                if contention.CONDITION_REASON not in contention.reason_codes(error):
                    raise
                found = contention.reasons_of(error)[0].get("Item")
                if not found:
                    raise Deleted from error
                before = items.record_of(found)
                listed = before.document["last_ms"]
                raise Busy(at_once=True) from error

        self._retried(add)

    def _transact(self, parts: Sequence[Part]) -> None:
        self._client.transact_write_items(
            TransactItems=parts, ClientRequestToken=os.urandom(16).hex()
        )

    def _retried(self, call: Callable[[], None]) -> None:
        contention.retried(
            call,
            _may_pass,
            tries=TRIES,
            first_wait_s=FIRST_WAIT_S,
            most_wait_s=MOST_WAIT_S,
            sleep=self._sleep,
        )


def _may_pass(error: Exception) -> bool:
    return isinstance(error, Busy) or contention.is_busy(error)
