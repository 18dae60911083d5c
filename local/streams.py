"""Lambda's part in a table's stream: what changes there is read, filtered, and given to the
functions that have asked for it, in batches and in order, until they have taken it or it is given
up.

The embedded AWS keeps the stream and would invoke stand-ins. Here a batch does not wait for more to
come (MaximumBatchingWindowInSeconds): whoever looks on wants to see what he has just done.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.embedded_aws import Stack, client
from local.pool import Busy, Pool
from local.sandbox import InvocationFailed, Stream
from local.template import EventSource

Record = dict[str, Any]

LOOK_EVERY_S = 0.5
# With fewer it was all there is, and to look again at once would only be work.
FULL_PAGE = 100
# Before another try; twice as long before the next.
RETRY_S = 0.1
MOST_RETRY_S = 2.0


class Streams:
    """`say` takes one line for each batch that fails, and each that is given up."""

    def __init__(
        self,
        sources: Sequence[EventSource],
        pools: Mapping[str, Pool],
        stack: Stack,
        say: Callable[[str], None],
    ) -> None:
        self._readers = [_Reader(one, pools[one.function], stack, say) for one in sources]

    def uses(self, function: str) -> bool:
        return any(reader.source.function == function for reader in self._readers)

    async def run(self) -> None:
        """For as long as the stack runs."""
        await asyncio.gather(*(reader.run() for reader in self._readers))

    async def run_now(self) -> dict[str, int]:
        """On return what was written before has been taken or given up. By function: how many
        records those were.
        """
        counts = await asyncio.gather(
            *(reader.catch_up(until_empty=True) for reader in self._readers)
        )
        return {
            reader.source.function: count
            for reader, count in zip(self._readers, counts, strict=True)
        }


@dataclass(frozen=True)
class _Failure:
    """`first` is the first record that was not taken; `reported`, that the function said so itself,
    and did not fail.
    """

    first: int
    why: str
    reported: bool


class _Reader:
    def __init__(
        self, source: EventSource, pool: Pool, stack: Stack, say: Callable[[str], None]
    ) -> None:
        self.source = source
        self._pool, self._stack, self._say = pool, stack, say
        self._alone = asyncio.Lock()
        self._arn = ""
        self._shard = ""
        self._iterator: str | None = None
        self._last: str | None = None  # sequence number that was read

    async def run(self) -> None:
        while True:
            try:
                await self.catch_up()
            except (BotoCoreError, ClientError) as error:
                self._tell(f"the stream cannot be read: {error}")
            await asyncio.sleep(LOOK_EVERY_S)

    async def catch_up(self, *, until_empty: bool = False) -> int:
        """How many records have been handed over."""
        count, size = 0, self.source.batch_size
        async with self._alone:
            while True:
                read, records = await asyncio.to_thread(self._read)
                for start in range(0, len(records), size):
                    await self._hand_over(records[start : start + size])
                count += len(records)
                if read < (1 if until_empty else FULL_PAGE):
                    return count

    # ------------------------------------------------------------ reading

    def _read(self) -> tuple[int, list[Record]]:
        """How many records come next, and those of them that match. Blocks."""
        streams = client(self._stack.endpoint, "dynamodbstreams")
        if self._iterator is None:
            self._iterator = self._new_iterator(streams)
        try:
            answer = streams.get_records(ShardIterator=self._iterator)
        except ClientError as error:
            # This machine has slept, or a function has failed for long.
            if error.response["Error"]["Code"] == "TrimmedDataAccessException":
                self._last = None
            self._iterator = None
            raise
        self._iterator = answer["NextShardIterator"]
        page = answer["Records"]
        if page:
            self._last = page[-1]["dynamodb"]["SequenceNumber"]
        patterns = self.source.patterns
        matching = [one for one in page if any(matches(pattern, one) for pattern in patterns)]
        return len(page), [_as_lambda_tells_it(one, self._arn) for one in matching]

    def _new_iterator(self, streams: Any) -> str:
        if not self._arn:
            name = self._stack.resources[self.source.table]
            told = client(self._stack.endpoint, "dynamodb").describe_table(TableName=name)
            self._arn = told["Table"]["LatestStreamArn"]
            stream = streams.describe_stream(StreamArn=self._arn)["StreamDescription"]
            (shard,) = stream["Shards"]  # the embedded AWS has one
            self._shard = shard["ShardId"]
        where = {"ShardIteratorType": "TRIM_HORIZON"}
        if self._last is not None:
            where = {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "SequenceNumber": self._last,
            }
        answer = streams.get_shard_iterator(StreamArn=self._arn, ShardId=self._shard, **where)
        iterator: str = answer["ShardIterator"]
        return iterator

    # ------------------------------------------------------------ handing over

    async def _hand_over(self, batch: list[Record]) -> None:
        """Source: AWS Lambda Developer Guide, "Process DynamoDB records with Lambda", on errors."""
        left = deque([(batch, 0)])
        while left:
            records, tried = left.popleft()
            try:
                failure = await self._invoke(records)
            except Busy:
                left.appendleft((records, tried))
                await asyncio.sleep(RETRY_S)
                continue
            if failure is None:
                continue
            self._tell(failure.why)
            records = records[failure.first :]
            if self.source.bisects and not failure.reported and len(records) > 1:
                half = len(records) // 2  # which is no new try
                left.extendleft([(records[half:], tried), (records[:half], tried)])
            elif tried >= self.source.retries:
                await asyncio.to_thread(self._give_up, records, tried + 1, failure)
                continue
            else:
                left.appendleft((records, tried + 1))
            await asyncio.sleep(min(MOST_RETRY_S, RETRY_S * 2**tried))

    async def _invoke(self, records: list[Record]) -> _Failure | None:
        """Raises Busy."""
        try:
            answer = await self._pool.invoke(json.dumps({"Records": records}).encode())
        except InvocationFailed as error:
            return _Failure(0, str(error), reported=False)
        if isinstance(answer, Stream):
            answer.abort()
            return _Failure(0, "it streamed an answer", reported=False)
        return _reported(answer, records) if self.source.reports else None

    def _give_up(self, records: list[Record], tries: int, failure: _Failure) -> None:
        """Blocks."""
        self._tell(f"{len(records)} records are given up")
        if self.source.failures is None:
            return
        changes = [record["dynamodb"] for record in records]
        told = {
            "requestContext": {
                "requestId": str(uuid.uuid4()),
                "functionArn": self._stack.functions[self.source.function].arn,
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": tries,
            },
            "responseContext": {
                "statusCode": 200,
                "executedVersion": "$LATEST",
                "functionError": None if failure.reported else "Unhandled",
            },
            "version": "1.0",
            "timestamp": _at(time.time()),
            "DDBStreamBatchInfo": {
                "shardId": self._shard,
                "startSequenceNumber": changes[0]["SequenceNumber"],
                "endSequenceNumber": changes[-1]["SequenceNumber"],
                "approximateArrivalOfFirstRecord": _at(changes[0]["ApproximateCreationDateTime"]),
                "approximateArrivalOfLastRecord": _at(changes[-1]["ApproximateCreationDateTime"]),
                "batchSize": len(records),
                "streamArn": self._arn,
            },
        }
        try:
            client(self._stack.endpoint, "sqs").send_message(
                QueueUrl=self._stack.resources[self.source.failures], MessageBody=json.dumps(told)
            )
        except (BotoCoreError, ClientError) as error:
            self._tell(f"nor can that be told: {error}")

    def _tell(self, what: str) -> None:
        self._say(f"{_at(time.time())} {self.source.function}: {what}")


def matches(pattern: Mapping[str, Any], record: object) -> bool:
    """Source: AWS Lambda Developer Guide, "Filter rule syntax": what the template reader lets pass
    of it.
    """
    if not isinstance(record, Mapping):
        return False
    for name, wanted in pattern.items():
        there = record.get(name)
        if isinstance(wanted, Mapping):
            if not matches(wanted, there):
                return False
        elif not any(_equals(rule, there) for rule in wanted):
            return False
    return True


def _equals(rule: str | Mapping[str, str], there: object) -> bool:
    if isinstance(rule, str):
        return there == rule
    return isinstance(there, str) and there.startswith(rule["prefix"])


def _reported(answer: bytes, records: Sequence[Record]) -> _Failure | None:
    """What the function says that it did not take. What cannot be understood means: nothing."""
    numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
    try:
        told = json.loads(answer)
        failures = (told or {}).get("batchItemFailures") or []
        first = min((numbers.index(one["itemIdentifier"]) for one in failures), default=None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Failure(0, "its answer is not understood", reported=False)
    if first is None:
        return None
    return _Failure(first, f"it did not take the record {numbers[first]}", reported=True)


def _as_lambda_tells_it(record: Record, arn: str) -> Record:
    plain: Record = json.loads(json.dumps(record, default=_plain))
    return {**plain, "eventSourceARN": arn}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(type(value).__name__)


def _at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
