"""The door that the table's stream tells of settled reservations and events."""

import json
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.conftest import LAMBDA, unattended_door
from weir.aws import expressions, items
from weir.aws.webhooks import outbox

ENVIRONMENT = {"DELIVERIES_QUEUE": "q", "AWS_DEFAULT_REGION": "us-east-1"}
EVENT = outbox.new_event("wallet.low", {"a": 1}, 5)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return unattended_door(monkeypatch, "notify", ENVIRONMENT)


def settled(number: int) -> dict[str, Any]:
    key = {"pk": {"S": "OPEN#3"}, "sk": {"S": str(number)}}
    image = {**key, "doc": {"S": "{}"}}
    return {"eventName": "REMOVE", "dynamodb": {"Keys": key, "OldImage": image}}


def posted(**more: Any) -> dict[str, Any]:
    key = items.outbox("p", "x").item()
    values = expressions.attributes({"doc": json.dumps(EVENT.document())})
    image = {**key, **values, **more}
    return {"eventName": "INSERT", "dynamodb": {"Keys": key, "NewImage": image}}


def handled(door: ModuleType, *records: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the reservations and the events that it hands on."""
    noted: list[Any] = []
    handed: list[Any] = []

    def note(one: list[Any]) -> int:
        noted.extend(one)
        return len(one)

    def hand_over(one: list[Any]) -> int:
        handed.extend(one)
        return len(one)

    vars(door)["_watch"] = SimpleNamespace(note=note, hand_over=hand_over)
    assert door.handler({"Records": list(records)}, SimpleNamespace(**LAMBDA)) is None
    return noted, handed


def test_reservations_and_events_go_their_ways(door: ModuleType) -> None:
    noted, handed = handled(door, settled(1), posted(), settled(2))
    assert [one["sk"]["S"] for one in noted] == ["1", "2"]
    assert handed == [outbox.Posted("p", EVENT, None)]


@pytest.mark.parametrize("doc", ["", "{}", "7"])
def test_event_that_cannot_be_read_holds_nobody_back(door: ModuleType, doc: str) -> None:
    noted, handed = handled(door, posted(doc={"S": doc}), posted(), settled(1))
    assert (len(noted), len(handed)) == (1, 1)


def test_store_or_queue_that_fails_brings_the_records_again(door: ModuleType) -> None:
    def fails(_: Any) -> int:
        raise ConnectionError

    vars(door)["_watch"] = SimpleNamespace(note=len, hand_over=fails)
    with pytest.raises(ConnectionError):
        door.handler({"Records": [posted()]}, SimpleNamespace(**LAMBDA))
