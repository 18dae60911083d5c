"""Usage, added up: thousands of rows, shuffled and brought twice by a stream that fails at random,
through the meter's own handler in several processes, on the embedded AWS; and the running stack.

In every case the sums are what a recount of the rows gives, which is written here once more.
"""

import dataclasses
import importlib.util
import io
import json
import multiprocessing
import os
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing.pool import Pool
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from botocore.session import Session

from local import embedded_aws
from tests.stack.conftest import ROOT, Stack, ask
from weir.aws import items, lean
from weir.aws.usage import Usage, kept, row_of

PROCESSES = 3
BATCH = 100
MIDNIGHT_MS = 1_796_083_200_000  # 2026-12-01 00:00:00 UTC: a day and a month begin
SUMMED = (
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "nano_usd",
)
COUNTED = ("requests", "failed", "estimated", *SUMMED)
Sum = tuple[int, ...]


# ---------------------------------------------------------------- rows


def usage_row(number: int) -> dict[str, Any]:
    """The same for a number in whatever process."""
    chance = random.Random(number)
    told: dict[str, Any] = {
        "pid": chance.choice(("default", "shop")),
        "subject": f"u#{chance.randrange(4)}",
        "session_id": f"s-{chance.randrange(2)}",
        "model": chance.choice(("m-large", "fc:provider/model")),
        "at_ms": MIDNIGHT_MS + chance.randrange(-60_000, 60_000),
        "outcome": chance.choice(("completed", "completed", "cancelled", "upstream_error")),
        "estimated": chance.random() < 0.3,
        **{name: chance.randrange(10_000) for name in SUMMED},
    }
    if chance.random() < 0.1:
        told["tag"] = chance.choice(("night", "日本", "a#b"))
    if chance.random() < 0.1:
        told["at_ms"] = MIDNIGHT_MS - chance.choice((0, 1))
    key = items.usage(told["pid"], told["subject"], told["at_ms"], f"{number:032x}")
    return {**key.item(), **{name: typed(value) for name, value in told.items()}}


def typed(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"BOOL": value}
    return {"N": str(value)} if isinstance(value, int) else {"S": value}


def record(number: int) -> dict[str, Any]:
    """As the stream brings it; a negative number is what nobody can read."""
    image = usage_row(abs(number))
    if number < 0:
        image["nano_usd"] = {"S": "much"}
    change = {
        "Keys": {name: image[name] for name in ("pk", "sk")},
        "NewImage": image,
        "SequenceNumber": str(number),
    }
    return {"eventName": "INSERT", "dynamodb": change}


# ---------------------------------------------------------------- the recount


def plain(item: dict[str, Any]) -> dict[str, Any]:
    values = [next(iter(typed.items())) for typed in item.values()]
    read = [int(value) if kind == "N" else value for kind, value in values]
    return dict(zip(item, read, strict=True))


def recounted(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, ...], Sum]:
    """By another way than the product's: from the words of weir/usage/sums.py."""
    sums: dict[tuple[str, ...], Counter[str]] = {}
    for row in rows:
        at = datetime.fromtimestamp(row["at_ms"] / 1000, UTC)
        day, pid, subject, model = f"{at:%Y%m%d}", row["pid"], row["subject"], row["model"]
        group = [row.get(name, "") for name in ("session_id", "thread_id", "tag")]
        for place in (
            ("detail", pid, day, subject, model, *group),
            ("days", pid, day, model),
            ("users", pid, f"{at:%Y%m}", subject),
            ("minutes", pid, day, f"{at:%H%M}", model),
        ):
            counter = sums.setdefault(place, Counter())
            counter["requests"] += 1
            counter["failed"] += row["outcome"] != "completed"
            counter["estimated"] += row["estimated"]
            for name in SUMMED:
                counter[name] += row[name]
    return {place: tuple(counter[name] for name in COUNTED) for place, counter in sums.items()}


def kept_sums(rollups: Sequence[dict[str, Any]]) -> dict[tuple[str, ...], Sum]:
    """All that lie in the table, by what they say of themselves."""
    found: dict[tuple[str, ...], Sum] = {}
    for one in rollups:
        _, pid, *period = one["pk"].split("#")
        before, _, after = one["sk"].partition("#")
        if not period:
            place: tuple[str, ...] = ("days", pid, before, one["model"])
            assert after == one["model"]
        elif period[1:] == ["M"]:
            place = ("minutes", pid, period[0], before, one["model"])
        elif len(period[0]) == 6:
            place = ("users", pid, period[0], one["subject"])
        else:
            names = ("subject", "model", "session_id", "thread_id", "tag")
            place = ("detail", pid, period[0], *(one.get(name, "") for name in names))
        assert place not in found
        found[place] = tuple(one[name] for name in COUNTED)
    return found


def in_table(dynamodb: Any, table: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The usage rows, and the sums."""
    every = [
        plain({n: v for n, v in item.items() if "SS" not in v})
        for page in dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        for item in page["Items"]
    ]
    rows = [each for each in every if each["pk"].startswith("USAGE#")]
    return rows, [each for each in every if each["pk"].startswith("ROLLUP#")]


# ---------------------------------------------------------------- in the processes


class Faulty:
    """A client that fails at random: before the transaction, after it, or for others' sake."""

    def __init__(self, client: lean.Client) -> None:
        self._client = client
        self._chance = random.Random(os.getpid())
        self.faults: Counter[str] = Counter()

    def transact_write_items(self, **asked: Any) -> Any:
        what = self._chance.random()
        if what < 0.04:
            self.faults["before"] += 1
            raise lean.AwsError("no answer")
        if what < 0.1:
            self.faults["conflict"] += 1
            reasons = [{"Code": "None"} for _ in asked["TransactItems"]]
            self._chance.choice(reasons)["Code"] = "TransactionConflict"
            raise lean.AwsError("cancelled", 400, "TransactionCanceledException", reasons)
        answer = self._client.transact_write_items(**asked)
        if what > 0.96:
            self.faults["after"] += 1
            raise lean.AwsError("the answer was lost")
        return answer


@dataclasses.dataclass
class Worker:
    door: ModuleType
    client: Faulty
    dynamodb: Any
    table: str


_worker: list[Worker] = []  # of this process


def begin(endpoint: str, root: dict[str, str], table: str) -> None:
    os.environ.update(
        root,
        AWS_REGION=embedded_aws.REGION,
        AWS_ENDPOINT_URL=endpoint,
        TENANT_ID="t-1",
        TABLE_NAME=table,
        STACK_NAME="weir-test",
        ROLLUP_RETENTION_DAYS="800",
    )
    spec = importlib.util.spec_from_file_location("door_meter", ROOT / "functions/meter/app.py")
    assert spec is not None
    assert spec.loader is not None
    door = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(door)
    door.logger.handlers[0].stream = io.StringIO()
    client = Faulty(lean.new_client("dynamodb"))
    faulty: Any = client
    vars(door)["_usage"] = Usage(faulty, table, sleep=lambda seconds: None)
    _worker.append(Worker(door, client, botocore_client(endpoint, root), table))


def botocore_client(endpoint: str, root: dict[str, str]) -> Any:
    return Session().create_client(
        "dynamodb",
        region_name=embedded_aws.REGION,
        endpoint_url=endpoint,
        aws_access_key_id=root["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=root["AWS_SECRET_ACCESS_KEY"],
    )


def write(numbers: Sequence[int]) -> None:
    (worker,) = _worker
    for start in range(0, len(numbers), 25):
        puts = [{"PutRequest": {"Item": usage_row(n)}} for n in numbers[start : start + 25]]
        told = worker.dynamodb.batch_write_item(RequestItems={worker.table: puts})
        assert not told.get("UnprocessedItems")


def replay(batch: Sequence[int]) -> Counter[str]:
    """As Lambda does, until the batch has been taken or its poisoned records are given up."""
    (worker,) = _worker
    context = SimpleNamespace(
        function_name="f",
        memory_limit_in_mb=256,
        invoked_function_arn="arn:aws:lambda:us-east-1:1:function:f",
        aws_request_id="r",
    )
    told, left = Counter[str](), deque([list(batch)])
    while left:
        numbers = left.popleft()
        try:
            answer = worker.door.handler({"Records": [record(n) for n in numbers]}, context)
        except lean.AwsError:
            told["failed"] += 1
            half = (len(numbers) + 1) // 2
            left.extend(part for part in (numbers[:half], numbers[half:]) if part)
            continue
        for failure in answer["batchItemFailures"]:
            first = numbers.index(int(failure["itemIdentifier"]))
            assert numbers[first] < 0
            told["given up"] += 1
            if rest := numbers[first + 1 :]:
                left.append(rest)
    told.update(worker.client.faults)
    worker.client.faults.clear()
    return told


# ---------------------------------------------------------------- the proof


def new_table(endpoint: str, name: str) -> Any:
    """Returns a client of botocore's."""
    dynamodb = botocore_client(endpoint, embedded_aws.ROOT)
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": attribute, "AttributeType": "S"} for attribute in ("pk", "sk")
        ],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )
    return dynamodb


@pytest.mark.parametrize(
    "count",
    [300, *(pytest.param(n, marks=pytest.mark.long) for n in (2_000, 100_000))],
)
def test_sums_are_what_a_recount_of_the_rows_gives(endpoint: str, count: int) -> None:
    chance, table = random.Random(count), f"rows-{count}"
    dynamodb = new_table(endpoint, table)
    numbers = list(range(1, count + 1))
    brought = [*numbers, *chance.choices(numbers, k=count // 5)]
    chance.shuffle(brought)
    for _ in range(10):  # what is not in the table, and cannot be read
        brought.insert(chance.randrange(len(brought)), -chance.randrange(count, 2 * count))
    batches = [brought[start : start + BATCH] for start in range(0, len(brought), BATCH)]
    told: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    pool: Pool
    with context.Pool(PROCESSES, begin, (endpoint, embedded_aws.ROOT, table)) as pool:
        pool.map(write, [numbers[i::PROCESSES] for i in range(PROCESSES)], 1)
        for each in pool.imap_unordered(replay, batches):
            told.update(each)
        pool.close()
        pool.join()
    assert told["given up"] == 10
    if count > 300:  # of few batches not each fails in every way
        assert min(told[what] for what in ("before", "after", "conflict", "failed")) > 0

    rows, rollups = in_table(dynamodb, table)
    assert len(rows) == count
    assert all(row["summed"] is True for row in rows)
    assert kept_sums(rollups) == recounted(rows)


def units(dynamodb: Any, table: str, of: Sequence[dict[str, Any]], at_once: int) -> float:
    """Write units for one request, as the store says that it charges."""
    charged: list[float] = []

    class Measuring:
        def transact_write_items(self, **asked: Any) -> Any:
            assert len(asked["TransactItems"]) <= 100
            answer = dynamodb.transact_write_items(**asked, ReturnConsumedCapacity="TOTAL")
            charged.extend(each["CapacityUnits"] for each in answer["ConsumedCapacity"])
            return answer

    measuring: Any = Measuring()
    adding = Usage(measuring, table)
    found = [row_of(item) for item in of]
    for item in of:
        dynamodb.put_item(TableName=table, Item=item)
    for start in range(0, len(of), at_once):
        adding.add(dict(found[start : start + at_once]), kept(86_400))
    return sum(charged) / len(of)


@pytest.mark.parametrize(
    ("users", "at_once", "most"),
    [
        (1, 1, 10.0),  # the row's mark and four sums, two units each
        (1, 100, 2.2),
        (100, 100, 6.2),  # each in a session of its own
    ],
)
def test_adding_up_costs_as_many_write_units_as_the_documents_say(
    endpoint: str, users: int, at_once: int, most: float
) -> None:
    table = f"units-{users}-{at_once}"
    dynamodb = new_table(endpoint, table)
    rows = []
    for number in range(20 if at_once == 1 else 100):
        user = number % users
        more = {"subject": f"u#{user:036}", "session_id": f"{user:036}", "pid": "default"}
        more |= {"model": "m-large", "tag": "x" * 64, "thread_id": f"{user:036}"}
        row = {**usage_row(number), "at_ms": typed(MIDNIGHT_MS)}
        row |= {name: typed(value) for name, value in more.items()}
        key = items.usage("default", more["subject"], MIDNIGHT_MS, f"{number:032x}")
        rows.append({**row, **key.item()})
    assert most - 0.3 <= units(dynamodb, table, rows, at_once) <= most


# ---------------------------------------------------------------- the running stack


def caught_up(stack: Stack) -> None:
    """On return the stream has been read to its end."""
    transport = httpx.HTTPTransport(uds=str(stack.directory / "control.sock"))
    with httpx.Client(transport=transport, timeout=30) as control:
        assert control.post("http://weir/streams").status_code == 200


def sums_of(stack: Stack, uid: str) -> list[int]:
    """This user's requests, by the sums of the month."""
    usage = Usage(stack.aws("dynamodb"), stack.outputs()["TableName"])
    months = {time.strftime("%Y%m", time.gmtime(at)) for at in (time.time(), time.time() - 60)}
    found = [pair for month in months for pair in usage.users("default", month)]
    return [totals.requests for subject, totals in found if subject == f"u#{uid}"]


def chat(stack: Stack, uid: str, **more: Any) -> None:
    token = stack.mint(uid)["token"]
    headers = {"Authorization": f"Bearer {token}"}
    reply = stack.http.post("/v1/chat/completions", headers=headers, json=ask(**more))
    assert reply.status_code == 200, reply.text


def test_what_a_user_has_used_is_in_the_sums_within_seconds_and_once(stack: Stack) -> None:
    for _ in range(3):
        chat(stack, "u_sums")
    chat(stack, "u_sums", user="other-tag")
    give_up = time.monotonic() + 5
    while sums_of(stack, "u_sums") != [4]:
        assert time.monotonic() < give_up, sums_of(stack, "u_sums")
        time.sleep(0.05)
    caught_up(stack)
    rows, rollups = in_table(stack.aws("dynamodb"), stack.outputs()["TableName"])
    assert kept_sums(rollups) == recounted(rows)


def test_row_goes_after_the_days_that_the_operator_gives_it(stack: Stack) -> None:
    chat(stack, "u_kept")
    caught_up(stack)
    rows, rollups = in_table(stack.aws("dynamodb"), stack.outputs()["TableName"])
    (row,) = [row for row in rows if row["subject"] == "u#u_kept"]
    assert row["ttl"] == row["at_ms"] // 1000 + 90 * 86_400
    (of_month,) = [
        each
        for each in rollups
        if each.get("subject") == "u#u_kept" and len(each["pk"].split("#")[2]) == 6
    ]
    assert 800 * 86_400 < of_month["ttl"] - row["at_ms"] // 1000 < 832 * 86_400


def test_row_that_nobody_can_read_ends_in_the_queue_and_stops_nobody(stack: Stack) -> None:
    dynamodb, table = stack.aws("dynamodb"), stack.outputs()["TableName"]
    poisoned = usage_row(1) | {"nano_usd": {"S": "much"}}
    dynamodb.put_item(TableName=table, Item=poisoned)
    try:
        chat(stack, "u_behind")
        caught_up(stack)
        assert sums_of(stack, "u_behind") == [1]
    finally:
        dynamodb.delete_item(TableName=table, Key={n: poisoned[n] for n in ("pk", "sk")})
    resources = stack.aws("cloudformation").list_stack_resources(StackName="weir-local")
    (queue,) = [
        r["PhysicalResourceId"]
        for r in resources["StackResourceSummaries"]
        if r["LogicalResourceId"] == "MeterFailures"
    ]
    (message,) = stack.aws("sqs").receive_message(QueueUrl=queue)["Messages"]
    told = json.loads(message["Body"])
    assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert told["requestContext"]["approximateInvokeCount"] == 6
    assert told["DDBStreamBatchInfo"]["batchSize"] >= 1
    stack.aws("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
