"""Lambda's part in a queue: messages are taken from it and given to the function that has asked for
them; what the function has taken is removed, and the rest becomes visible again when its time has
come.

The embedded AWS keeps the queue and would invoke stand-ins. Source: AWS Lambda Developer Guide,
"Using Lambda with Amazon SQS".
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.embedded_aws import REGION, Stack, client
from local.pool import Busy, Pool
from local.sandbox import InvocationFailed, Stream
from local.template import QueueSource

Message = dict[str, Any]

LOOK_EVERY_S = 0.5


class Queues:
    """`say` takes one line for each batch that fails."""

    def __init__(
        self,
        sources: Sequence[QueueSource],
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


class _Reader:
    def __init__(
        self, source: QueueSource, pool: Pool, stack: Stack, say: Callable[[str], None]
    ) -> None:
        self.source = source
        self._pool, self._stack, self._say = pool, stack, say
        self._url = stack.resources[source.queue]
        self._free = asyncio.Semaphore(source.at_once)
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while True:
            # First a free place, then a message: one that waited here would become visible again.
            await self._free.acquire()
            try:
                batch = await asyncio.to_thread(self._receive)
            except (BotoCoreError, ClientError) as error:
                self._tell(f"the queue cannot be read: {error}")
                batch = []
            if not batch:
                self._free.release()
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            task = asyncio.create_task(self._hand_over(batch))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _hand_over(self, batch: list[Message]) -> None:
        try:
            taken = await self._invoke(batch)
            await asyncio.to_thread(self._remove, taken)
        except (BotoCoreError, ClientError, InvocationFailed, Busy) as error:
            self._tell(str(error) or type(error).__name__)
        finally:
            self._free.release()

    async def _invoke(self, batch: list[Message]) -> list[Message]:
        """Return what the function has taken. Raise InvocationFailed, Busy."""
        records = [self._as_lambda_tells_it(one) for one in batch]
        answer = await self._pool.invoke(json.dumps({"Records": records}).encode())
        if isinstance(answer, Stream):
            answer.abort()
            raise InvocationFailed("it streamed an answer")
        try:
            failures = (json.loads(answer) or {}).get("batchItemFailures") or []
            left = {one["itemIdentifier"] for one in failures}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvocationFailed("its answer is not understood") from None
        if not left <= {one["MessageId"] for one in batch}:  # then Lambda takes nothing as done
            raise InvocationFailed("its answer names messages that it was not given")
        return [one for one in batch if one["MessageId"] not in left]

    # ------------------------------------------------------------ the queue: these block

    def _receive(self) -> list[Message]:
        answer = client(self._stack.endpoint, "sqs").receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=self.source.batch_size,
            MessageSystemAttributeNames=["All"],
        )
        found: list[Message] = answer.get("Messages", [])
        return found

    def _remove(self, taken: Sequence[Message]) -> None:
        for one in taken:
            client(self._stack.endpoint, "sqs").delete_message(
                QueueUrl=self._url, ReceiptHandle=one["ReceiptHandle"]
            )

    def _as_lambda_tells_it(self, message: Message) -> dict[str, Any]:
        name = self._url.rpartition("/")[2]
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": {},
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": f"arn:aws:sqs:{REGION}:{self._stack.account}:{name}",
            "awsRegion": REGION,
        }

    def _tell(self, what: str) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._say(f"{at} {self.source.function}: {what}")
