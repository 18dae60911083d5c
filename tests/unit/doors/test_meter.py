"""The meter's door: what it hands on of a batch, and what it says of the rest."""

import json
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.conftest import LAMBDA, unattended_door
from weir.aws.clients import client
from weir.aws.items import Key
from weir.aws.lean import AwsError
from weir.aws.usage import Crowded, Usage
from weir.usage.sums import Row

ENVIRONMENT = {"ROLLUP_RETENTION_DAYS": "800"}
NOON_MS = 1_795_262_400_000  # 2026-11-21 12:00:00 UTC
SECRET = "sessions-may-have-names"
CONTEXT: Any = SimpleNamespace(
    **LAMBDA,
)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return unattended_door(monkeypatch, "meter", ENVIRONMENT)


def said(door: ModuleType) -> dict[str, Any]:
    (line,) = door.logger.handlers[0].stream.getvalue().splitlines()
    loaded = json.loads(line)
    assert isinstance(loaded, dict)
    return loaded


def record(number: int, **more: Any) -> dict[str, Any]:
    """Of the stream, as Lambda hands it on."""
    image = {
        "pk": {"S": "USAGE#default#u#ann"},
        "sk": {"S": f"{NOON_MS}#{number:032x}"},
        "pid": {"S": "default"},
        "subject": {"S": "u#ann"},
        "session_id": {"S": SECRET},
        "model": {"S": "m-large"},
        "at_ms": {"N": str(NOON_MS)},
        "outcome": {"S": "completed"},
        "estimated": {"BOOL": False},
        **{
            name: {"N": "1"}
            for name in (
                "input_tokens",
                "cached_tokens",
                "output_tokens",
                "reasoning_tokens",
                "nano_usd",
            )
        },
        **more,
    }
    return {
        "eventID": "e",
        "eventName": "INSERT",
        "eventSource": "aws:dynamodb",
        "dynamodb": {
            "Keys": {name: image[name] for name in ("pk", "sk")},
            "NewImage": image,
            "SequenceNumber": f"{number:020d}",
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    }


def poisoned(number: int) -> dict[str, Any]:
    return record(number, nano_usd={"S": SECRET})


def answer(door: ModuleType, *records: dict[str, Any]) -> list[str]:
    """The sequence numbers that it says it has not taken."""
    told = door.handler({"Records": list(records)}, CONTEXT)
    json.dumps(told)
    assert set(told) == {"batchItemFailures"}
    return [failure["itemIdentifier"] for failure in told["batchItemFailures"]]


def handed(
    door: ModuleType, add: Callable[[], int] = lambda: 0
) -> list[tuple[list[str], dict[Key, int]]]:
    """What it hands on from now: the keys, and until when their sums are kept."""
    calls: list[tuple[list[str], dict[Key, int]]] = []

    def keep(rows: Mapping[Key, Row], until: Callable[[Row], int]) -> int:
        calls.append(([k.sk[-4:] for k in rows], {k: until(row) for k, row in rows.items()}))
        return add()

    vars(door)["_usage"] = SimpleNamespace(add=keep)
    return calls


@pytest.mark.parametrize("at", [0, 2, 4], ids=["first", "middle", "last"])
def test_poisoned_record_holds_nobody_back_and_is_named(door: ModuleType, at: int) -> None:
    calls = handed(door)
    batch = [poisoned(n) if n == at else record(n) for n in range(5)]
    assert answer(door, *batch) == [f"{at:020d}"]
    ((keys, _),) = calls
    assert keys == [f"{n:04x}" for n in range(5) if n != at]


def test_of_several_poisoned_records_the_first_is_named(door: ModuleType) -> None:
    """Lambda goes on from the lowest, so the others come again anyway."""
    handed(door)
    assert answer(door, record(1), poisoned(2), record(3), poisoned(4)) == [f"{2:020d}"]


@pytest.mark.parametrize("change", [{}, {"NewImage": {}}, {"OldImage": record(1)["dynamodb"]}])
def test_record_without_what_was_written_is_named_too(
    door: ModuleType, change: dict[str, Any]
) -> None:
    calls = handed(door)
    bare = {"eventName": "INSERT", "dynamodb": {**change, "SequenceNumber": "7"}}
    assert answer(door, bare, record(8)) == ["7"]
    assert calls[0][0] == ["0008"]


def test_good_batch_is_taken_whole_and_one_line_says_how_many(door: ModuleType) -> None:
    handed(door, lambda: 2)
    assert answer(door, record(1), record(2), record(3)) == []
    line = said(door)
    assert (line["message"], line["level"]) == ("added up", "INFO")
    assert (line["records"], line["added"], line["unreadable"]) == (3, 2, 0)


def test_line_never_says_what_a_row_says(door: ModuleType) -> None:
    handed(door)
    answer(door, record(1), poisoned(2))
    line = said(door)
    assert (line["level"], line["unreadable"]) == ("WARNING", 1)
    assert SECRET not in json.dumps(line)


@pytest.mark.parametrize("error", [Crowded(), AwsError("HTTP 500", 500, "InternalServerError")])
def test_store_that_fails_fails_the_batch_so_that_lambda_halves_it(
    door: ModuleType, error: Exception
) -> None:
    """An answer that names the first record would have all of it tried again as it is, and given
    up as a whole.
    """

    def fail() -> int:
        raise error

    handed(door, fail)
    with pytest.raises(type(error)):
        door.handler({"Records": [record(1), poisoned(2)]}, CONTEXT)


def test_sums_are_kept_for_as_long_as_the_operator_says(door: ModuleType) -> None:
    (calls,) = [handed(door)]
    answer(door, record(1))
    ((_, until),) = calls
    month_ends = 1_796_083_200  # 2026-12-01
    assert month_ends + 800 * 86_400 <= min(until.values()) <= month_ends + 801 * 86_400


@pytest.mark.parametrize("days", ["", "30", "3651", "x"])
def test_unusable_retention_is_told_at_the_start_by_its_name(
    monkeypatch: pytest.MonkeyPatch, days: str, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "ROLLUP_RETENTION_DAYS", days)
    with pytest.raises(Exception, match="ROLLUP_RETENTION_DAYS"):
        request.getfixturevalue("door")


@pytest.mark.usefixtures("aws")
def test_batch_that_comes_again_is_added_once(door: ModuleType) -> None:
    """The whole of it, over a table."""
    dynamodb = client("dynamodb")
    vars(door)["_usage"] = Usage(dynamodb, "t")
    batch = [record(1), poisoned(2), record(3)]
    for each in batch:
        dynamodb.put_item(TableName="t", Item=each["dynamodb"]["NewImage"])
    assert answer(door, *batch) == [f"{2:020d}"]
    assert answer(door, *batch[1:]) == [f"{2:020d}"]
    assert answer(door, *reversed(batch)) == [f"{2:020d}"]
    ((_, _, totals),) = Usage(dynamodb, "t").days("default", "20261121", "20261121")
    assert totals.requests == 2
