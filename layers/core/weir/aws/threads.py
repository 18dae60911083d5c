"""A user's threads, for the user themselves: listed, read, renamed, deleted.

All of it lies in the user's own partition, so no name and no cursor leads to anybody else's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from weir.aws import contention, items
from weir.aws.contention import CONDITION_REASON, Busy
from weir.aws.items import Item, Key, Record
from weir.aws.reading import until_nothing_is_left
from weir.aws.store import Store
from weir.aws.thread_items import current, record_key, thread_parts, turn_of
from weir.chat import threads, transcripts
from weir.chat.threads import THREAD
from weir.errors import LedgerBusy, NotFound, NotReady
from weir.projects.project import Project

MOST_BYTES = 3_500_000  # of turns in one answer
MOST_QUERIES = 4  # of one answer: each returns at most 1 MB
_WRITE_BATCH = 25  # items in one BatchWriteItem
TRIES = 8
FIRST_WAIT_S = 0.02
MOST_WAIT_S = 0.3

T = TypeVar("T")
Page = tuple[Sequence[Mapping[str, Any]], str | None]


class Threads:
    """Of one user of a project. `now_ms` is the request's time, by which what is over is judged."""

    def __init__(
        self,
        client: Store,
        table_name: str,
        project: Project,
        subject: str,
        now_ms: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._name = table_name
        self._pid = project.pid
        self._subject = subject
        self._now_ms = now_ms
        self._kept_ms = threads.kept_ms(project, THREAD)
        self._sleep = sleep

    # ------------------------------------------------------------ reading

    def page(self, limit: int, after: str | None, search: str | None) -> Page:
        """Return the records of threads, the one used last first, and where the next page begins.

        It is one query, unless titles are searched or some threads' time is over; then a page may
        have fewer than `limit` although there are more.
        """
        found: list[Mapping[str, Any]] = []
        wanted = (search or "").casefold()
        for _ in range(MOST_QUERIES):
            answer = self._query(items.THREADS, after, limit + 1, forward=False)
            for item in answer["Items"]:
                if len(found) == limit:
                    return found, after
                after = item["sk"]["S"]
                document = current(items.record_of(item), self._kept_ms, self._now_ms)
                if document and wanted in document["title"].casefold():
                    found.append(document)
            if "LastEvaluatedKey" not in answer:
                return found, None
        return found, after

    def record(self, thread_id: str) -> Mapping[str, Any]:
        """Raise NotFound for one that is not there, or is somebody else's."""
        return self._record(thread_id)[0]

    def messages(
        self, thread_id: str, record: Mapping[str, Any], most: int, after: str | None
    ) -> Page:
        """Return at most `most` messages of a thread, oldest first, and where the next page begins.

        `after` names the turn before it and, behind `!`, how many messages of the next turn the
        page before had.
        """
        prefix = items.conversation(THREAD, thread_id)
        since = record["since_ms"]
        if self._kept_ms is not None:
            since = max(since, self._now_ms - self._kept_ms)
        start, skip = transcripts.parse_place(after or f"{prefix}{since:013d}!0")
        found: list[Mapping[str, Any]] = []
        size = 0
        for _ in range(MOST_QUERIES):
            answer = self._query(prefix, start, most - len(found) + 2, forward=True)
            for item in answer["Items"]:
                if item["sk"]["S"] == prefix + items.RECORD_OF_A_THREAD:
                    return found, None
                size += len(item["doc"]["S"])
                views = transcripts.message_views(turn_of(item))[skip:]
                fit = 0 if found and size > MOST_BYTES else most - len(found)
                found += views[:fit]
                if len(views) > fit:
                    return found, f"{start}!{skip + fit}"
                start, skip = item["sk"]["S"], 0
            if "LastEvaluatedKey" not in answer:
                return found, None
        return found, f"{start}!0"

    # ------------------------------------------------------------ changing

    def rename(self, thread_id: str, title: str) -> Mapping[str, Any]:
        """Return the record as it is then. Raise NotFound."""

        def rename() -> Mapping[str, Any]:
            document, version, ttl = self._record(thread_id)
            after = {**document, "title": title}
            parts = thread_parts(
                self._name, self._pid, self._subject, version, document["last_ms"], after, ttl
            )
            try:
                self._client.transact_write_items(TransactItems=parts)
            except Exception as error:
                if CONDITION_REASON in contention.reason_codes(error):
                    raise Busy(at_once=True) from error
                raise
            return after

        return self._retried(rename)

    def delete(self, thread_id: str, until: Callable[[], bool]) -> None:
        """Delete a thread; one that is not there is no error. It is gone from the list at once.

        Raise NotReady if `until` says that time is up before all of its turns are deleted: the next
        call goes on.
        """

        def unlist() -> None:
            key = record_key(self._pid, self._subject, thread_id)
            record = self._read(key)
            if not record.version:
                return
            last_ms = record.document["last_ms"]
            copy = items.listed_thread(self._pid, self._subject, thread_id, last_ms)
            parts = [
                {"Delete": {"TableName": self._name, "Key": each.item()}} for each in (key, copy)
            ]
            parts[0]["Delete"] |= {
                "ConditionExpression": "version = :v",
                "ExpressionAttributeValues": {":v": {"N": str(record.version)}},
            }
            try:
                self._client.transact_write_items(TransactItems=parts)
            except Exception as error:
                if CONDITION_REASON in contention.reason_codes(error):
                    raise Busy(at_once=True) from error
                raise

        self._retried(unlist)
        self._erase(items.conversation(THREAD, thread_id), until)

    def delete_all(self, until: Callable[[], bool]) -> None:
        """Delete everything that is kept of what the user has said, sessions too. Raise NotReady as
        `delete` does.
        """
        self._erase("", until)

    # ------------------------------------------------------------ the calls

    def _record(self, thread_id: str) -> tuple[dict[str, Any], int, int | None]:
        """Return the document, its version and its `ttl`."""
        key = record_key(self._pid, self._subject, thread_id)
        item = self._item(key)
        record = items.record_of(item)
        document = current(record, self._kept_ms, self._now_ms)
        if item is None or not document:
            raise NotFound("There is no such thread.")
        return document, record.version, int(item["ttl"]["N"]) if "ttl" in item else None

    def _read(self, key: Key) -> Record:
        return items.record_of(self._item(key))

    def _item(self, key: Key) -> Item | None:
        answer = self._client.get_item(TableName=self._name, Key=key.item(), ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item

    def _query(
        self, prefix: str, start: str | None, limit: int, *, forward: bool
    ) -> dict[str, Any]:
        """Return a page of the items whose sort keys begin with `prefix`, behind the key `start`,
        in which that way. One that does not begin with it would be refused by DynamoDB.
        """
        pk = items.content(self._pid, self._subject)
        more: dict[str, Any] = {}
        if start is not None:
            if not start.startswith(prefix):
                raise transcripts.bad_cursor()
            more = {"ExclusiveStartKey": Key(pk, start).item()}
        return self._client.query(
            TableName=self._name,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
            ExpressionAttributeValues={":pk": {"S": pk}, ":sk": {"S": prefix}},
            ScanIndexForward=forward,
            Limit=limit,
            ConsistentRead=True,
            **more,
        )

    def _erase(self, prefix: str, until: Callable[[], bool]) -> None:
        while True:
            condition, values = "pk = :pk", {":pk": {"S": items.content(self._pid, self._subject)}}
            if prefix:
                condition += " AND begins_with(sk, :sk)"
                values[":sk"] = {"S": prefix}
            answer = self._client.query(
                TableName=self._name,
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
                ConsistentRead=True,
            )
            keys = [{"pk": item["pk"], "sk": item["sk"]} for item in answer["Items"]]
            for begin in range(0, len(keys), _WRITE_BATCH):
                if until():
                    raise NotReady(
                        "There is so much to delete that it is not done yet. Call again.",
                        retry_after_s=1,
                    )
                batch = keys[begin : begin + _WRITE_BATCH]
                until_nothing_is_left(
                    self._write_batch,
                    {self._name: [{"DeleteRequest": {"Key": key}} for key in batch]},
                    self._sleep,
                )
            if "LastEvaluatedKey" not in answer:
                return

    def _write_batch(self, requested: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the store did not get to."""
        answer = self._client.batch_write_item(RequestItems=requested)
        return answer.get("UnprocessedItems") or {}

    def _retried(self, call: Callable[[], T]) -> T:
        return contention.retried(
            call,
            lambda error: isinstance(error, Busy) or contention.is_busy(error),
            tries=TRIES,
            first_wait_s=FIRST_WAIT_S,
            most_wait_s=MOST_WAIT_S,
            given_up=LedgerBusy,
            sleep=self._sleep,
        )
