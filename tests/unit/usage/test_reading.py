"""What is added up for a question, and what is read for it."""

from typing import Any

import pytest

from tests.unit.usage.kept import (
    DECEMBER,
    MIDNIGHT,
    NOON,
    NOVEMBER,
    PID,
    Kept,
    answer,
    ask,
    by_key,
    row,
    several,
)
from weir.errors import BadRequest
from weir.projects.limits import NANO
from weir.usage import question
from weir.usage.answers import document
from weir.usage.reading import find
from weir.usage.sums import COUNTS, Row, Totals
from weir.usage.times import DAY_MS

QUESTIONS: list[dict[str, str]] = [
    {},
    {"granularity": "hour"},
    {"granularity": "minute", "from_": "2026-11-20"},
    {"from_": "2026-10-01", "to": "2026-11-30"},
    {"from_": "2026-10-31", "to": "2026-11-20"},
    {"from_": "2026-09-29", "to": "2026-11-20"},
    {"from_": "2026-11-20T11:00:00.001Z", "to": "2026-11-21T01:00Z"},
    {"from_": "2026-11-20T00:30Z", "to": "2026-11-20T11:30Z"},
    {"from_": "2026-11-21T00:30Z"},
    {"month": "202610"},
    {"month": "202611", "model": "m-small"},
    {"from_": "2026-11-21", "to": "2027-01-31"},
]
GROUPS: list[dict[str, str]] = [
    {},
    *({"group_by": name} for name in question.GROUPS),
    {"session_id": "s1"},
    {"thread_id": "t", "group_by": "model"},
    {"tag": "a", "group_by": "user"},
    {"model": "m-large", "group_by": "session"},
]


@pytest.mark.parametrize("more", GROUPS, ids=str)
@pytest.mark.parametrize("window", QUESTIONS, ids=str)
def test_answer_adds_up_to_the_rows_of_its_window(
    window: dict[str, str], more: dict[str, str]
) -> None:
    """Whatever it was read from."""
    kept, query = several(), {**window, **more}
    for user in (None, "ann", "bob"):
        who = {"user_id": user} if user else {}
        try:
            asked = ask(**query, **who)
        except BadRequest:
            assert user is None
            assert window.get("granularity") in ("hour", "minute")
            continue
        chosen = [
            Row.of(each)
            for each in kept.kept
            if asked.from_ms <= each["at_ms"] < asked.to_ms
            and user in (None, each["uid"])
            and all(each.get(name) == value for name, value in asked.filters.items())
        ]
        expected = sum((each.totals for each in chosen), Totals())
        adds_up(document(asked, PID, find(asked, PID, kept, NOON)), expected)


def adds_up(told: dict[str, Any], expected: Totals) -> None:
    """In every member of an answer that tells numbers."""
    assert told["totals"] == expected.told()
    assert told["total_cost_usd"] == expected.nano_usd / NANO
    assert told["total_requests"] == expected.requests
    assert told["prompt_tokens"] + told["completion_tokens"] == expected.tokens
    for lines in [told["breakdown"], *([told["data"]] if told["group_by"] else [])]:
        for name in COUNTS:
            assert sum(line[name] for line in lines) == getattr(expected, name)
        assert round(sum(line["cost_usd"] for line in lines) * NANO) == expected.nano_usd
    starts = [each["timestamp"] for each in told["breakdown"]]
    assert starts == sorted(set(starts))
    costs = [each["cost_usd"] for each in told["data"]]
    assert costs == sorted(costs, reverse=True)


def test_groups_are_named_as_callers_name_them_and_null_is_what_has_none() -> None:
    kept = several()
    november = {"month": "202611"}
    assert by_key(answer(kept, **november, group_by="user")) == {"bob": 18, "ann": 9}
    assert by_key(answer(kept, **november, group_by="customer")) == {None: 27}
    assert by_key(answer(kept, **november, group_by="session")) == {"s1": 9, "s2": 9, None: 9}
    assert by_key(answer(kept, **november, group_by="thread")) == {"t": 9, None: 18}
    assert by_key(answer(kept, **november, group_by="tag")) == {"a": 9, None: 18}
    assert by_key(answer(kept, **november, group_by="model")) == {"m-large": 18, "m-small": 9}
    days = by_key(answer(kept, **november, group_by="day"))
    assert days == {"2026-11-01": 9, "2026-11-20": 9, "2026-11-21": 9}


def test_times_without_usage_are_left_out_and_buckets_begin_where_they_begin() -> None:
    kept = Kept([row(MIDNIGHT - 1), row(MIDNIGHT), row(MIDNIGHT + 90_000), row(NOON)])

    def starts(**query: str) -> list[str]:
        return [each["timestamp"] for each in answer(kept, **query)["breakdown"]]

    assert starts() == ["2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"]
    for who in ({}, {"user_id": "ann"}):
        assert starts(granularity="hour", from_="2026-11-21", **who) == [
            "2026-11-21T00:00:00Z",
            "2026-11-21T12:00:00Z",
        ]
        assert starts(granularity="minute", from_="2026-11-20T23:59:00Z", **who) == [
            "2026-11-20T23:59:00Z",
            "2026-11-21T00:00:00Z",
            "2026-11-21T00:01:00Z",
            "2026-11-21T12:00:00Z",
        ]
    assert starts(from_="2026-10-01", to="2026-10-31") == []


def test_month_ends_where_the_next_begins() -> None:
    kept = Kept([row(at) for at in (NOVEMBER - 1, NOVEMBER, DECEMBER - 1, DECEMBER)])
    for who in ({}, {"user_id": "ann"}, {"tag": ""}, {"group_by": "session"}, {"group_by": "user"}):
        for month, count in (("202610", 1), ("202611", 2), ("202612", 1), ("202701", 0)):
            told = answer(kept, None, DECEMBER + DAY_MS * 60, month=month, **who)
            assert (month, told["total_requests"]) == (month, count)


@pytest.mark.parametrize(
    ("query", "reads"),
    [
        ({}, ["days"]),
        ({"model": "m-large", "group_by": "day"}, ["days"]),
        ({"group_by": "user", "month": "202610"}, ["days", "users 202610"]),
        ({"group_by": "user"}, ["days", "users 202611"]),
        (
            {"group_by": "user", "from_": "2026-10-01", "to": "2026-11-21"},
            ["days", "users 202610", "users 202611"],
        ),
        (
            {"group_by": "user", "from_": "2026-11-19", "to": "2026-11-20"},
            ["details 20261119 all", "details 20261120 all"],
        ),
        (
            {"group_by": "user", "from_": "2026-11-01", "to": "2026-11-02"},
            ["details 20261101 all", "details 20261102 all"],
        ),
        (
            {"group_by": "user", "from_": "2026-09-30", "to": "2026-11-21"},
            ["details 20260930 all", "days", "users 202610", "users 202611"],
        ),
        (
            {"group_by": "user", "from_": "2026-10-01", "to": "2026-11-01"},
            ["days", "users 202610", "details 20261101 all"],
        ),
        ({"tag": "a", "from_": "2026-11-21"}, ["details 20261121 all"]),
        ({"user_id": "ann", "from_": "2026-11-21"}, ["details 20261121 u#ann"]),
        ({"user_id": "ann", "month": "202701"}, []),
        (
            {"user_id": "ann", "from_": "2026-11-19T10:00Z", "to": "2026-11-21T08:00Z"},
            [
                "rows 2026-11-19T10:00:00Z 2026-11-20T00:00:00Z u#ann",
                "details 20261120 u#ann",
                "rows 2026-11-21T00:00:00Z 2026-11-21T08:00:00Z u#ann",
            ],
        ),
        (
            {"user_id": "ann", "from_": "2026-11-21T08:00Z", "to": "2026-11-21T09:00Z"},
            ["rows 2026-11-21T08:00:00Z 2026-11-21T09:00:00Z u#ann"],
        ),
        (
            {"granularity": "hour", "from_": "2026-11-20T23:00Z", "to": "2026-11-21T01:00Z"},
            ["minutes 20261120", "minutes 20261121"],
        ),
    ],
    ids=str,
)
def test_no_more_is_read_than_the_question_needs(query: dict[str, str], reads: list[str]) -> None:
    kept = several()
    answer(kept, **query)
    # What lies ahead by less than two days may be looked for: clocks differ.
    assert [each for each in kept.asked if "20261122" not in each] == reads


def test_request_of_this_very_moment_is_in_an_answer_until_now() -> None:
    kept = Kept([row(NOON), row(NOON + 500)])  # a clock that is ahead of ours
    for query in ({}, {"user_id": "ann"}, {"user_id": "ann", "granularity": "hour"}):
        assert answer(kept, **query)["total_requests"] == 2


def test_row_that_cannot_be_read_is_in_no_sum_and_breaks_none() -> None:
    kept = Kept([row(NOON)])
    kept.kept += [{**row(NOON), "nano_usd": -1}, {**row(NOON), "model": ""}]
    told = answer(kept, user_id="ann", granularity="hour")
    assert told["total_requests"] == 1


def test_other_project_is_not_read() -> None:
    kept = Kept([row(NOON), {**row(NOON), "pid": "other"}])
    for query in QUESTIONS:
        for more in ({}, {"user_id": "ann"}, {"group_by": "model"}):
            asked = ask(**query, **more)
            assert find(asked, "nobodys", kept, NOON).totals == Totals()


def test_more_than_one_answer_can_add_up_is_refused() -> None:
    kept = several()
    few = ask(user_id="bob", month="202611", tag="none")
    find(few, PID, kept, NOON, most_read=8)
    for query in ({"group_by": "session"}, {"granularity": "hour", "user_id": "bob"}):
        asked = ask(month="202611", **query)
        with pytest.raises(BadRequest) as told:
            find(asked, PID, kept, NOON, most_read=8)
        assert "shorter" in told.value.message
