"""The sweeper's door: what it says of a sweep, and when it stops."""

import json
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.conftest import LAMBDA, unattended_door
from weir.ledger.admission import Swept


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return unattended_door(monkeypatch, "sweep", {})


def context(left_ms: int) -> Any:
    return SimpleNamespace(
        get_remaining_time_in_millis=lambda: left_ms,
        **LAMBDA,
    )


def sweep(door: ModuleType, swept: Swept, left_ms: int = 60_000) -> tuple[int, bool]:
    """What the ledger was asked: for which time, and whether it had to stop at once."""
    asked: list[tuple[int, bool]] = []

    def answer(now: int, until: Callable[[], bool]) -> Swept:
        asked.append((now, until()))
        return swept

    vars(door)["_ledger"] = SimpleNamespace(sweep=answer)
    try:
        door.handler({}, context(left_ms))
    finally:
        (one,) = asked
    return one


def said(door: ModuleType) -> dict[str, Any]:
    (line,) = door.logger.handlers[0].stream.getvalue().splitlines()
    loaded = json.loads(line)
    assert isinstance(loaded, dict)
    return loaded


def test_sweep_says_in_one_line_what_it_did_and_cloudwatch_counts_it(door: ModuleType) -> None:
    sweep(door, Swept(settled=3, failed=0, oldest_s=70, nano_usd=250_000_000))
    line = said(door)
    assert (line["message"], line["level"]) == ("swept", "INFO")
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert {(one["Name"], one["Unit"], line[one["Name"]]) for one in directive["Metrics"]} == {
        ("SweptReservations", "Count", 3),
        ("SweepFailures", "Count", 0),
        ("OldestReservationSeconds", "Seconds", 70),
        ("CostUsd", "None", 0.25),
    }
    assert (directive["Dimensions"], line["Stack"]) == ([["Stack"]], "weir-test")


def test_sweep_that_left_something_is_counted_first_and_then_an_error(door: ModuleType) -> None:
    with pytest.raises(door.SweepFailed, match=r"^2 "):
        sweep(door, Swept(settled=1, failed=2, oldest_s=700, nano_usd=1))
    assert said(door)["SweepFailures"] == 2


def test_sweep_stops_while_there_is_time_for_what_it_has_begun(door: ModuleType) -> None:
    """Lambda would kill it in the middle, and what it did would not be counted."""
    assert sweep(door, Swept(0, 0, 0, 0), left_ms=30_000)[1] is False
    assert sweep(door, Swept(0, 0, 0, 0), left_ms=19_000)[1] is True
