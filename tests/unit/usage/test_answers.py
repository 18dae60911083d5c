"""Answers about usage as callers read them: JSON, CSV, the billing document."""

import csv
import io

import pytest

from tests.unit.usage.kept import NOON, PID, Kept, answer, ask, row, several
from weir.errors import BadRequest
from weir.projects.limits import NANO
from weir.usage.answers import billing, table
from weir.usage.question import OF_BILLING, OF_USAGE, understand
from weir.usage.reading import find
from weir.usage.sums import COUNTS


def test_money_is_divided_once() -> None:
    kept = Kept([row(NOON, nano_usd=100_000_001) for _ in range(10)])
    told = answer(kept)
    assert told["total_cost_usd"] == told["totals"]["cost_usd"] == 1.00000001
    assert told["breakdown"][0]["cost_usd"] == 1.00000001


def test_answer_has_every_member_that_some_client_reads() -> None:
    told = answer(several(), month="202611", group_by="model")
    assert told["object"] == "usage"
    assert told["project_id"] == PID
    assert (told["from"], told["to"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert (told["granularity"], told["group_by"]) == ("day", "model")
    assert {"tokens", "cost_usd", "requests", "input_tokens", "output_tokens"} <= set(
        told["totals"]
    )
    for each in told["breakdown"]:
        assert {"timestamp", "tokens", "cost_usd"} <= set(each)
    for each in told["data"]:
        assert {"key", "cost_usd", "requests"} <= set(each)
    assert (told["has_more"], told["next_cursor"]) == (False, None)
    assert answer(several())["data"] == []


def test_billing_tells_what_the_guide_shows() -> None:
    kept = several()
    query = {"from": ["2026-11-01"], "to": ["2026-11-30"]}
    asked = understand(query, NOON, only=None, names=OF_BILLING, group_by="model")
    told = billing(asked, PID, find(asked, PID, kept, NOON))
    large, small = 9 * 700 + 3 * (3 + 4 + 5), 3 * (50 + 51 + 52)
    assert told == {
        "project_id": PID,
        "window": {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"},
        "platform": {
            "requests": 27,
            "input_tokens": 27 * 7,
            "output_tokens": 27 * 5,
            "cost_usd": (large + small) / NANO,
            "by_model": [
                {"model": "m-large", "requests": 18, "cost_usd": large / NANO},
                {"model": "m-small", "requests": 9, "cost_usd": small / NANO},
            ],
        },
        "byok": {
            "requests": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "cost_usd": 0,
            "by_model": [],
        },
    }
    for name in sorted(set(OF_USAGE) - set(OF_BILLING)):
        with pytest.raises(BadRequest):
            understand({name: ["day"]}, NOON, only=None, names=OF_BILLING)


def lines_of(kept: Kept, **query: str) -> tuple[list[dict[str, str]], str | None]:
    asked = ask(format="csv", **query)
    text, cursor = table(asked, find(asked, PID, kept, NOON))
    return list(csv.DictReader(io.StringIO(text, newline=""))), cursor


def test_csv_says_what_json_says() -> None:
    kept = several()
    for query, name, member in (
        ({}, "timestamp", "breakdown"),
        ({"group_by": "session"}, "key", "data"),
    ):
        asked = ask(**query)
        text, _ = table(asked, find(asked, PID, kept, NOON))
        assert text.count("\r\n") == text.count("\n")
        lines, cursor = lines_of(kept, **query)
        told = answer(kept, **query)[member]
        assert cursor is None
        assert [line[name] for line in lines] == [each[name] or "" for each in told]
        for line, each in zip(lines, told, strict=True):
            assert set(line) == set(each)
            assert float(line["cost_usd"]) == each["cost_usd"]
            assert [int(line[n]) for n in COUNTS] == [each[n] for n in COUNTS]
    first, cursor = lines_of(kept, limit="1")
    assert len(first) == 1
    rest, cursor = lines_of(kept, cursor=cursor or "")
    assert len(rest) == 2
    assert cursor is None


def test_csv_begins_no_formula() -> None:
    for evil in ('=cmd|"/C calc", 1\r\n', "\u00a0=1+1", "\N{FULLWIDTH EQUALS SIGN}1"):
        (line,), _ = lines_of(Kept([row(NOON, session_id=evil)]), group_by="session")
        assert line["key"] == f"'{evil}"


def test_among_sums_that_cost_the_same_those_with_more_tokens_come_first() -> None:
    rows = [row(NOON, uid, 0, input_tokens=n) for uid, n in (("a", 1), ("b", 3), ("c", 2))]
    rows += [row(NOON, "d", 0, input_tokens=0, output_tokens=4, model="m-small") for _ in range(2)]
    kept = Kept(rows)
    data = answer(kept, group_by="user")["data"]
    counted = [(each["key"], each["tokens"], each["requests"]) for each in data]
    assert counted == [("d", 8, 2), ("b", 8, 1), ("c", 7, 1), ("a", 6, 1)]
