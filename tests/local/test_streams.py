"""The table's stream on one machine: who is told what, in what order, and what becomes of a record
that is not taken.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from local import embedded_aws, streams, template
from local.control import Control
from local.embedded_aws import Stack
from local.pool import Busy, Pool
from local.rotation import Rotations
from local.sandbox import InvocationFailed
from local.schedules import Schedules
from local.streams import Streams, matches
from local.template import EventSource, NotUnderstood
from tests.local.harness import ROOT, exchange, run, serving, until

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/the-table/stream/2026"
STACK = cast(
    "Stack",
    SimpleNamespace(
        endpoint="http://embedded",
        resources={"Table": "the-table", "Failures": "http://embedded/the-queue"},
        functions={"Meter": SimpleNamespace(arn="arn:aws:lambda:::function:meter")},
    ),
)
OURS = {"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "USAGE#"}]}}}}
SOURCE = EventSource(
    function="Meter",
    table="Table",
    patterns=(OURS,),
    batch_size=4,
    retries=2,
    bisects=True,
    reports=True,
    failures="Failures",
)
Answer = Callable[[list[str]], Any]


def record(name: str, *, event: str = "INSERT") -> dict[str, Any]:
    """As botocore reads it. The name is the sequence number's end and the key's."""
    return {
        "eventID": "e",
        "eventName": event,
        "dynamodb": {
            "ApproximateCreationDateTime": datetime(2026, 11, 21, 12, tzinfo=UTC),
            "Keys": {"pk": {"S": f"USAGE#p#{name}"}, "sk": {"S": "1"}},
            "NewImage": {"note": {"B": b"\x00\xff"}},
            "SequenceNumber": f"0000{name}",
        },
    }


class FakeAws:
    """The embedded AWS's stream, and its queue."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.looks = 0
        self.errors: list[str] = []
        self.page = 1000
        self.began: list[dict[str, str]] = []

    def __call__(self, endpoint: str, service: str) -> "FakeAws":
        assert endpoint == "http://embedded"
        return self

    def write(self, *names: str) -> None:
        self.records += [record(name) for name in names]

    def describe_table(self, **asked: str) -> Any:
        assert asked == {"TableName": "the-table"}
        return {"Table": {"LatestStreamArn": ARN}}

    def describe_stream(self, **asked: str) -> Any:
        assert asked == {"StreamArn": ARN}
        return {"StreamDescription": {"Shards": [{"ShardId": "s-1"}]}}

    def get_shard_iterator(self, **asked: str) -> Any:
        assert (asked.pop("StreamArn"), asked.pop("ShardId")) == (ARN, "s-1")
        self.began.append(asked)
        numbers = [one["dynamodb"]["SequenceNumber"] for one in self.records]
        after = asked.get("SequenceNumber")
        return {"ShardIterator": str(0 if after is None else numbers.index(after) + 1)}

    def get_records(self, **asked: str) -> Any:
        self.looks += 1
        if self.errors:
            raise ClientError({"Error": {"Code": self.errors.pop(), "Message": "m"}}, "GetRecords")
        start = int(asked["ShardIterator"])
        found = self.records[start : start + self.page]
        return {"Records": found, "NextShardIterator": str(start + len(found))}

    def send_message(self, **asked: str) -> None:
        assert asked["QueueUrl"] == "http://embedded/the-queue"
        self.messages.append(json.loads(asked["MessageBody"]))

    def given_up(self) -> list[tuple[str, str, int, int]]:
        """First and last record, how many, and how often they were tried."""
        return [
            (
                told["DDBStreamBatchInfo"]["startSequenceNumber"][4:],
                told["DDBStreamBatchInfo"]["endSequenceNumber"][4:],
                told["DDBStreamBatchInfo"]["batchSize"],
                told["requestContext"]["approximateInvokeCount"],
            )
            for told in self.messages
        ]


class FakePool:
    """`answers` gets the names of the records; what it returns is the function's answer."""

    def __init__(self, answers: Answer = lambda names: None) -> None:
        self.answers = answers
        self.batches: list[list[str]] = []
        self.events: list[dict[str, Any]] = []

    async def invoke(self, event: bytes) -> bytes:
        told = json.loads(event)
        names = [one["dynamodb"]["SequenceNumber"][4:] for one in told["Records"]]
        self.events.append(told)
        self.batches.append(names)
        answer = self.answers(names)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    fake = FakeAws()
    monkeypatch.setattr(streams, "client", fake)
    monkeypatch.setattr(streams, "RETRY_S", 0.001)
    monkeypatch.setattr(streams, "LOOK_EVERY_S", 0.01)
    return fake


def reading(pool: FakePool, said: list[str] | None = None, **more: Any) -> Streams:
    pools = cast("dict[str, Pool]", {"Meter": pool})
    source = EventSource(**{**vars(SOURCE), **more})
    return Streams([source], pools, STACK, (said if said is not None else []).append)


def handed(pool: FakePool, said: list[str] | None = None, **more: Any) -> None:
    run(_handed(reading(pool, said, **more)))


async def _handed(what: Streams) -> None:
    await what.run_now()


def fails(*bad: str) -> Answer:
    """The function fails for a batch that has one of these."""

    def answer(names: list[str]) -> None:
        if set(bad) & set(names):
            raise InvocationFailed("ValueError: out of order")

    return answer


def refuses(*bad: str) -> Answer:
    """It takes the others, and names these."""
    return lambda names: {
        "batchItemFailures": [{"itemIdentifier": f"0000{n}"} for n in names if n in bad]
    }


# ---------------------------------------------------------------- what is handed over


def test_function_gets_what_matches_in_order_and_in_batches(aws: FakeAws) -> None:
    aws.write(*"abcdef")
    aws.records.insert(3, record("x", event="MODIFY"))
    ledgers = record("y")
    ledgers["dynamodb"]["Keys"]["pk"]["S"] = "LEDGER#p#y"
    aws.records.insert(1, ledgers)
    pool = FakePool()
    handed(pool)
    assert pool.batches == [list("abcd"), list("ef")]


def test_record_is_as_lambda_tells_it(aws: FakeAws) -> None:
    aws.write("a")
    pool = FakePool()
    handed(pool)
    ((told,),) = [event["Records"] for event in pool.events]
    assert told["eventSourceARN"] == ARN
    assert told["dynamodb"]["ApproximateCreationDateTime"] == 1_795_262_400
    assert told["dynamodb"]["NewImage"] == {"note": {"B": "AP8="}}
    assert told["dynamodb"]["Keys"]["pk"] == {"S": "USAGE#p#a"}


def test_everything_is_read_however_small_the_pages_are(aws: FakeAws) -> None:
    aws.page = 2
    aws.write(*"abcde")
    pool = FakePool()

    async def check() -> None:
        assert await reading(pool).run_now() == {"Meter": 5}

    run(check())
    assert [name for batch in pool.batches for name in batch] == list("abcde")


def test_what_is_written_later_comes_later_and_nothing_comes_twice(aws: FakeAws) -> None:
    pool = FakePool()

    async def check() -> None:
        running = asyncio.ensure_future(reading(pool).run())
        for name in "abc":
            aws.write(name)
            await until(lambda name=name: [name] in pool.batches)  # type: ignore[misc]
        running.cancel()

    run(check())
    assert pool.batches == [["a"], ["b"], ["c"]]


def test_nothing_to_read_is_looked_for_now_and_then_only(
    aws: FakeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LOOK_EVERY_S", 0.1)

    async def check() -> None:
        running = asyncio.ensure_future(reading(FakePool()).run())
        await asyncio.sleep(0.35)
        running.cancel()

    run(check())
    assert 3 <= aws.looks <= 5


def test_two_never_hand_over_at_once(aws: FakeAws) -> None:
    """Somebody asks for it while it is under way: the order would be lost."""
    aws.write(*"abcdefgh")
    at_once: list[int] = []

    async def slow() -> None:
        at_once.append(1)
        await asyncio.sleep(0.01)
        assert len(at_once) == 1
        at_once.clear()

    pool = FakePool(lambda names: slow())

    async def check() -> None:
        what = reading(pool)
        await asyncio.gather(what.run_now(), what.run_now())

    run(check())
    assert pool.batches == [list("abcd"), list("efgh")]


# ---------------------------------------------------------------- what is not taken


def test_named_record_comes_again_with_those_after_it_and_is_then_given_up(aws: FakeAws) -> None:
    aws.write(*"abcdef")
    pool, said = FakePool(refuses("c")), list[str]()
    handed(pool, said)
    assert pool.batches == [list("abcd"), list("cd"), list("cd"), list("ef")]
    assert aws.given_up() == [("c", "d", 2, 3)]
    assert said[-1].endswith(" Meter: 2 records are given up")


def test_record_that_is_taken_at_the_second_try_is_not_given_up(aws: FakeAws) -> None:
    aws.write(*"abc")
    once = iter(["b"])
    pool = FakePool(lambda names: refuses(next(once, ""))(names))
    handed(pool)
    assert pool.batches == [list("abc"), list("bc")]
    assert not aws.messages


def test_batch_that_fails_is_halved_until_the_one_is_found(aws: FakeAws) -> None:
    aws.write(*"abcdef")
    pool = FakePool(fails("c"))
    handed(pool)
    assert pool.batches == [
        *(list("abcd"), list("ab"), list("cd"), ["c"], ["c"], ["c"], ["d"]),
        list("ef"),
    ]
    assert aws.given_up() == [("c", "c", 1, 3)]
    assert aws.messages[0]["responseContext"]["functionError"] == "Unhandled"


def test_batch_that_fails_is_given_up_whole_where_it_may_not_be_halved(aws: FakeAws) -> None:
    aws.write(*"abcdef")
    pool = FakePool(fails("c"))
    handed(pool, bisects=False)
    assert pool.batches == [list("abcd")] * 3 + [list("ef")]
    assert aws.given_up() == [("a", "d", 4, 3)]


@pytest.mark.parametrize(
    "answer",
    [
        b"not JSON",
        {"batchItemFailures": [{"itemIdentifier": "unknown"}]},
        {"batchItemFailures": [{}]},
        {"batchItemFailures": "all"},
        ["x"],
    ],
    ids=str,
)
def test_answer_that_is_not_understood_means_that_nothing_was_taken(
    aws: FakeAws, answer: Any
) -> None:
    aws.write("a")
    pool = FakePool(lambda names: answer)
    handed(pool)
    assert pool.batches == [["a"]] * 3
    assert aws.given_up() == [("a", "a", 1, 3)]


@pytest.mark.parametrize("answer", [None, {}, {"batchItemFailures": []}, b"null"], ids=str)
def test_answer_that_names_nothing_takes_all(aws: FakeAws, answer: Any) -> None:
    aws.write(*"ab")
    pool = FakePool(lambda names: answer)
    handed(pool)
    assert pool.batches == [["a", "b"]]


def test_function_that_does_not_report_takes_what_it_does_not_fail_at(aws: FakeAws) -> None:
    aws.write(*"ab")
    pool = FakePool(refuses("a"))
    handed(pool, reports=False)
    assert pool.batches == [["a", "b"]]


def test_function_that_has_no_process_free_is_no_failure(aws: FakeAws) -> None:
    aws.write("a")
    busy = iter(range(10))

    def answer(names: list[str]) -> None:
        if next(busy, None) is not None:
            raise Busy("Meter")

    pool = FakePool(answer)
    handed(pool)
    assert len(pool.batches) == 11
    assert not aws.messages


def test_without_a_queue_it_is_told_in_the_log_alone(aws: FakeAws) -> None:
    aws.write("a")
    said: list[str] = []
    handed(FakePool(fails("a")), said, failures=None)
    assert said[-1].endswith("1 records are given up")
    assert not aws.messages


# ---------------------------------------------------------------- what else goes wrong


def test_iterator_that_has_expired_goes_on_where_it_was(aws: FakeAws) -> None:
    pool, said = FakePool(), list[str]()

    async def check() -> None:
        running = asyncio.ensure_future(reading(pool, said).run())
        aws.write("a")
        await until(lambda: bool(pool.batches))
        aws.errors.append("ExpiredIteratorException")
        aws.write("b")
        await until(lambda: len(pool.batches) == 2)
        running.cancel()

    run(check())
    assert pool.batches == [["a"], ["b"]]
    assert aws.began[-1] == {
        "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
        "SequenceNumber": "0000a",
    }
    assert "ExpiredIteratorException" in said[0]


def test_what_is_no_longer_there_is_left_out_and_the_rest_is_read(aws: FakeAws) -> None:
    pool = FakePool()

    async def check() -> None:
        running = asyncio.ensure_future(reading(pool).run())
        aws.write("a")
        await until(lambda: bool(pool.batches))
        aws.records.clear()
        aws.errors.append("TrimmedDataAccessException")
        aws.write("b")
        await until(lambda: len(pool.batches) == 2)
        running.cancel()

    run(check())
    assert aws.began[-1] == {"ShardIteratorType": "TRIM_HORIZON"}


def test_end_of_the_stack_waits_for_no_batch(aws: FakeAws) -> None:
    async def check() -> None:
        pool = FakePool(lambda names: asyncio.Event().wait())
        aws.write("a")
        running = asyncio.ensure_future(reading(pool).run())
        await until(lambda: bool(pool.batches))
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=0.5)
        assert done

    run(check())


def test_control_socket_hands_everything_over_now(aws: FakeAws, tmp_path: Path) -> None:
    aws.write(*"abcdef")
    pool = FakePool()

    async def check() -> None:
        nothing = Schedules([], {}, STACK, print)
        control = Control({}, cast("Rotations", None), nothing, reading(pool))
        async with serving(control) as port:
            asked = b"POST /streams HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n"
            told = await exchange(port, asked + b"Content-Length: 0\r\n\r\n")
        head, _, body = told.partition(b"\r\n\r\n")
        assert head.split()[1] == b"200"
        assert json.loads(body) == {"records": {"Meter": 6}}

    run(check())
    assert sum(map(len, pool.batches)) == 6


# ---------------------------------------------------------------- the template


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ({}, True),
        ({"eventName": ["INSERT"]}, True),
        ({"eventName": ["MODIFY", "REMOVE"]}, False),
        ({"eventName": ["MODIFY", "INSERT"]}, True),
        (OURS, True),
        ({"dynamodb": {"Keys": {"pk": {"S": [{"prefix": "LEDGER#"}, "x"]}}}}, False),
        ({"dynamodb": {"Keys": {"pk": {"N": [{"prefix": "USAGE#"}]}}}}, False),
        ({"dynamodb": {"Keys": {"none": {"S": ["x"]}}}}, False),
        ({"eventName": {"S": ["INSERT"]}}, False),
    ],
    ids=str,
)
def test_record_matches_what_its_pattern_says(pattern: dict[str, Any], fits: bool) -> None:
    assert matches(pattern, record("a")) is fits


def declared(**more: Any) -> dict[str, Any]:
    properties = {
        "Stream": {"Fn::GetAtt": ["Table", "StreamArn"]},
        "StartingPosition": "TRIM_HORIZON",
        "MaximumRetryAttempts": 3,
        **more,
    }
    events = {"Rows": {"Type": "DynamoDB", "Properties": properties}}
    meter = {"Type": "AWS::Serverless::Function", "Properties": {"Events": events}}
    return {"Resources": {"Meter": meter}}


def test_template_says_who_is_told_what() -> None:
    told = template.event_sources(template.load(ROOT / "template.yaml"))
    events = {"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "OUTBOX#"}]}}}}
    settled = {"eventName": ["REMOVE"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "OPEN#"}]}}}}
    assert told == [
        EventSource("MeterFunction", "Table", (OURS,), 100, 5, True, True, "MeterFailures"),
        EventSource(
            "NotifyFunction", "Table", (settled, events), 100, 10, True, False, "NotifyFailures"
        ),
    ]


def test_embedded_aws_invokes_nobody_itself() -> None:
    """Its functions are stand-ins."""
    adapted = embedded_aws.adapt(declared())["Resources"]["Meter"]["Properties"]
    assert adapted["Events"]["Rows"]["Properties"]["Enabled"] is False


def test_source_that_says_little_has_lambdas_defaults() -> None:
    (told,) = template.event_sources(declared())
    assert told == EventSource("Meter", "Table", ({},), 100, 3, False, False, None)


@pytest.mark.parametrize(
    "more",
    [
        {"StartingPosition": "LATEST"},
        {"ParallelizationFactor": 2},
        {"TumblingWindowInSeconds": 60},
        {"Stream": "arn:aws:dynamodb:::table/t/stream/1"},
        {"Stream": {"Fn::GetAtt": ["Table", "Arn"]}},
        {"MaximumRetryAttempts": None},
        {"BatchSize": "100"},
        {"FunctionResponseTypes": ["Other"]},
        {"DestinationConfig": {"OnFailure": {"Type": "SNS", "Destination": "x"}}},
        {"FilterCriteria": {"Filters": [{"Pattern": "{"}]}},
        {"FilterCriteria": {"Filters": [{"Pattern": '{"a": [{"numeric": [">", 1]}]}'}]}},
        {"FilterCriteria": {"Filters": [{"Pattern": '{"a": []}'}]}},
        {"FilterCriteria": {"Filters": [{"Pattern": '["a"]'}]}},
    ],
    ids=str,
)
def test_source_that_would_be_treated_otherwise_than_on_aws_is_refused(
    more: dict[str, Any],
) -> None:
    with pytest.raises(NotUnderstood, match="Meter: Rows"):
        template.event_sources(declared(**more))


@pytest.mark.parametrize("kind", ["Kinesis", "MQ"])
def test_sources_of_other_kinds_are_refused(kind: str) -> None:
    source = declared()
    source["Resources"]["Meter"]["Properties"]["Events"]["Rows"]["Type"] = kind
    with pytest.raises(NotUnderstood, match=kind):
        template.event_sources(source)
    elsewhere = {"Resources": {"X": {"Type": "AWS::Lambda::EventSourceMapping"}}}
    with pytest.raises(NotUnderstood, match="EventSourceMapping"):
        template.event_sources(elsewhere)
