"""A queue on one machine: who takes its messages, how many at once, and what becomes of those that
are not taken.
"""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from local import embedded_aws, queues, template
from local.embedded_aws import Stack
from local.pool import Busy, Pool
from local.queues import Queues
from local.sandbox import InvocationFailed
from local.template import NotUnderstood, QueueSource
from tests.local.harness import ROOT, run, until

STACK = cast(
    "Stack",
    SimpleNamespace(
        endpoint="http://embedded",
        account="1",
        resources={"Queue": "http://embedded/1/the-queue"},
    ),
)
SOURCE = QueueSource("Deliver", "Queue", 1, 2)


class FakeAws:
    """A queue whose messages, once received, stay hidden until they are removed."""

    def __init__(self, *bodies: str) -> None:
        self.waiting = list(bodies)
        self.removed: list[str] = []
        self.errors = 0

    def __call__(self, _endpoint: str, _service: str) -> "FakeAws":
        return self

    def receive_message(self, **asked: Any) -> dict[str, Any]:
        assert asked["QueueUrl"] == "http://embedded/1/the-queue"
        if self.errors:
            self.errors -= 1
            raise ClientError({"Error": {"Code": "Down", "Message": "m"}}, "ReceiveMessage")
        most = asked["MaxNumberOfMessages"]
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        messages = [
            {
                "MessageId": body,
                "ReceiptHandle": f"r-{body}",
                "Body": body,
                "MD5OfBody": "md5",
                "Attributes": {"SentTimestamp": "5"},
            }
            for body in taken
        ]
        return {"Messages": messages} if messages else {}

    def delete_message(self, **asked: Any) -> None:
        self.removed.append(asked["ReceiptHandle"])


class FakePool:
    def __init__(self, answer: Callable[[list[str]], Any]) -> None:
        self.answer = answer
        self.events: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0

    async def invoke(self, event: bytes) -> bytes:
        told = json.loads(event)
        self.events.append(told)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self.answer([one["messageId"] for one in told["Records"]])
            if asyncio.iscoroutine(answer):
                answer = await answer
        finally:
            self.at_once -= 1
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def failing(*ids: str) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": each} for each in ids]}


def worked(
    monkeypatch: pytest.MonkeyPatch, aws: FakeAws, pool: FakePool, calls: int, **more: Any
) -> list[str]:
    """Run until the function has been called so often; return what was said."""
    monkeypatch.setattr(queues, "client", aws)
    monkeypatch.setattr(queues, "LOOK_EVERY_S", 0.01)
    said: list[str] = []

    async def work() -> None:
        source = QueueSource(**{**vars(SOURCE), **more})
        pools = cast("dict[str, Pool]", {"Deliver": pool})
        task = asyncio.create_task(Queues([source], pools, STACK, said.append).run())
        await until(lambda: len(pool.events) >= calls and not pool.at_once)
        await asyncio.sleep(0.05)
        task.cancel()

    run(work())
    return said


def test_message_that_the_function_takes_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    aws, pool = FakeAws("a", "b"), FakePool(lambda ids: failing())
    assert worked(monkeypatch, aws, pool, 2) == []
    assert sorted(aws.removed) == ["r-a", "r-b"]
    (record,) = pool.events[0]["Records"]
    assert record == {
        "messageId": "a",
        "receiptHandle": "r-a",
        "body": "a",
        "attributes": {"SentTimestamp": "5"},
        "messageAttributes": {},
        "md5OfBody": "md5",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:1:the-queue",
        "awsRegion": "us-east-1",
    }


def test_message_that_is_named_stays_and_the_others_of_its_batch_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws, pool = FakeAws("a", "b", "c"), FakePool(lambda ids: failing("b"))
    worked(monkeypatch, aws, pool, 1, batch_size=10)
    assert aws.removed == ["r-a", "r-c"]


@pytest.mark.parametrize(
    "answer",
    [
        failing("other"),
        {"batchItemFailures": [{}]},
        {"batchItemFailures": 7},
        b"no JSON",
        InvocationFailed("it died"),
        Busy(),
    ],
    ids=str,
)
def test_batch_whose_outcome_is_not_known_stays(
    monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    def answered(_ids: list[str]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    aws = FakeAws("a")
    said = worked(monkeypatch, aws, FakePool(answered), 1)
    assert aws.removed == []
    assert len(said) == 1


def test_function_that_says_nothing_has_taken_all(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = FakeAws("a")
    worked(monkeypatch, aws, FakePool(lambda ids: None), 1)
    assert aws.removed == ["r-a"]


def test_no_more_are_under_way_at_once_than_the_template_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def slow() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return failing()

    aws, pool = FakeAws(*"abcdef"), FakePool(lambda ids: slow())
    worked(monkeypatch, aws, pool, 6)
    assert pool.most_at_once == 2
    assert len(aws.removed) == 6


def test_queue_that_cannot_be_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = FakeAws("a")
    aws.errors = 1
    said = worked(monkeypatch, aws, FakePool(lambda ids: failing()), 1)
    assert aws.removed == ["r-a"]
    assert "cannot be read" in said[0]


# ---------------------------------------------------------------- the template


def declared(**more: Any) -> dict[str, Any]:
    properties = {
        "Queue": {"Fn::GetAtt": ["Queue", "Arn"]},
        "ScalingConfig": {"MaximumConcurrency": 2},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        **more,
    }
    events = {"Due": {"Type": "SQS", "Properties": properties}}
    deliver = {"Type": "AWS::Serverless::Function", "Properties": {"Events": events}}
    return {"Resources": {"Deliver": deliver, "Queue": {"Type": "AWS::SQS::Queue"}}}


def test_template_says_who_takes_which_queue() -> None:
    told = template.queue_sources(template.load(ROOT / "template.yaml"))
    assert told == [QueueSource("DeliverFunction", "Deliveries", 1, 10)]
    assert template.queue_sources(declared()) == [QueueSource("Deliver", "Queue", 10, 2)]


def test_embedded_aws_takes_no_message_itself() -> None:
    adapted = embedded_aws.adapt(declared())["Resources"]["Deliver"]["Properties"]
    assert adapted["Events"]["Due"]["Properties"]["Enabled"] is False


@pytest.mark.parametrize(
    "more",
    [
        {"FunctionResponseTypes": []},
        {"BatchSize": 11},
        {"BatchSize": "1"},
        {"ScalingConfig": {"MaximumConcurrency": 1}},
        {"ScalingConfig": {}},
        {"Queue": "arn:aws:sqs:::q"},
        {"MaximumBatchingWindowInSeconds": 5},
        {"FilterCriteria": {}},
    ],
    ids=str,
)
def test_source_that_would_be_treated_otherwise_than_on_aws_is_refused(
    more: dict[str, Any],
) -> None:
    with pytest.raises(NotUnderstood, match="Deliver: Due"):
        template.queue_sources(declared(**more))
