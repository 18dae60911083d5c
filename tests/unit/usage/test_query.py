"""Questions about usage: how they are understood, what is added up for them, how it is told."""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.errors import BadRequest, Forbidden, Refusal, TooLarge
from weir.projects.limits import NANO
from weir.usage import query as usage_query
from weir.usage import sums
from weir.usage.query import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    OF_BILLING,
    OF_USAGE,
    Asked,
    document,
    find,
    parse_time,
    told_time,
    understand,
)
from weir.usage.sums import DAYS, DETAIL, MINUTES, USERS, Row, Totals
from weir.web.request import Request

NOON = 1_795_262_400_000  # 2026-11-21T12:00:00Z
MIDNIGHT = NOON - 12 * HOUR_MS
NOVEMBER, DECEMBER = 1_793_491_200_000, 1_796_083_200_000
PID = "shop"


def row(at_ms: int, uid: str = "ann", nano_usd: int = 1, **told: str | int) -> dict[str, Any]:
    """The attributes of a usage row."""
    return {
        "pid": PID,
        "subject": f"u#{uid}",
        "uid": uid,
        "model": "m-large",
        "at_ms": at_ms,
        "outcome": "completed",
        "estimated": False,
        "input_tokens": 7,
        "cached_tokens": 1,
        "output_tokens": 5,
        "reasoning_tokens": 2,
        "nano_usd": nano_usd,
        **told,
    }


class Kept:
    """What the table keeps of these rows, by its rules. `asked` is what was read."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.kept = list(rows)
        self.sums = sums.added_up(Row.of(each) for each in rows)
        self.asked: list[str] = []

    def _of(
        self, kind: str, pid: str, period: str
    ) -> Iterator[tuple[str, Mapping[str, str], Totals]]:
        for place, (told, totals) in sorted(self.sums.items()):
            if (place.kind, place.pid, place.period) == (kind, pid, period):
                yield place.name, told, totals

    def days(self, pid: str, first: str, last: str) -> Iterator[tuple[str, str, Totals]]:
        self.asked.append("days")
        for place, (_, totals) in sorted(self.sums.items()):
            if (place.kind, place.pid) == (DAYS, pid) and first <= place.period <= last:
                yield place.period, place.name, totals

    def users(self, pid: str, month: str) -> Iterator[tuple[str, Totals]]:
        self.asked.append(f"users {month}")
        for _, told, totals in self._of(USERS, pid, month):
            yield told["subject"], totals

    def minutes(self, pid: str, day: str) -> Iterator[tuple[str, str, Totals]]:
        self.asked.append(f"minutes {day}")
        for name, _, totals in self._of(MINUTES, pid, day):
            yield name[:4], name[5:], totals

    def details(
        self, pid: str, day: str, subject: str | None = None
    ) -> Iterator[tuple[dict[str, str], Totals]]:
        self.asked.append(f"details {day} {subject or 'all'}")
        for _, told, totals in self._of(DETAIL, pid, day):
            if subject in (None, told["subject"]):
                yield dict(told), totals

    def rows(self, pid: str, subject: str, from_ms: int, to_ms: int) -> Iterator[dict[str, Any]]:
        self.asked.append(f"rows {told_time(from_ms)} {told_time(to_ms)} {subject}")
        for each in self.kept:
            if (each["pid"], each["subject"]) == (pid, subject) and from_ms <= each[
                "at_ms"
            ] < to_ms:
                yield dict(each)


def ask(only: str | None = None, now_ms: int = NOON, accept: str = "", /, **query: str) -> Asked:
    """`from_` is `from`, which Python does not take."""
    told = {name.rstrip("_"): [value] for name, value in query.items()}
    return understand(told, now_ms, only=only, accept=accept)


def answer(
    kept: Kept, only: str | None = None, now_ms: int = NOON, /, **query: str
) -> dict[str, Any]:
    asked = ask(only, now_ms, **query)
    return document(asked, PID, find(asked, PID, kept, now_ms))


def refused(only: str | None = None, /, **query: str) -> Refusal:
    with pytest.raises((BadRequest, Forbidden)) as told:
        ask(only, **query)
    return told.value


def by_key(told: Mapping[str, Any], member: str = "requests") -> dict[str | None, Any]:
    return {each["key"]: each[member] for each in told["data"]}


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T12:00:00Z",
        "2026-11-21T12:00:00z",
        "2026-11-21t12:00:00",
        "2026-11-21 12:00",
        "2026-11-21 12:00:00",
        "20261121T120000Z",
        "2026-11-21T12:00:00.000Z",
        "2026-11-21T12:00:00.000000+00:00",
        "2026-11-21T12:00:00 00:00",  # its + became a space
        "2026-11-21T14:00:00 02:00",
        "2026-11-21T14:00:00+02:00",
        "2026-11-21T14:00:00 +02:00",
        "2026-11-21T14:00:00+0200",
        "2026-11-21T14:00:00+02",
        "2026-11-21T06:30:00-05:30",
        "2026-11-20T23:00:00-13:00",
        "1795262400",
        "1795262400.0",
        "1795262400000",
    ],
)
def test_moment_is_understood_in_every_spelling(text: str) -> None:
    assert parse_time(text) == parse_time(text, end=True) == NOON


def test_bare_date_is_its_beginning_and_as_an_end_counts_in_full() -> None:
    for text in ("2026-11-21", "20261121"):
        assert parse_time(text) == MIDNIGHT
        assert parse_time(text, end=True) == MIDNIGHT + DAY_MS
    assert parse_time("2024-02-29") == parse_time("2024-02-28", end=True)
    assert parse_time("2026-11-21T12:00:00.25") == NOON + 250


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "undefined",
        "2026",
        "2026-11",
        "2026-13-01",
        "2026-02-29",
        "0000-01-01",
        "1969-12-30",
        "9999-12-31",
        "1970-01-01T00:00:00+01:00",
        "2026-11-21T24:00",
        "2026-11-21T12:60",
        "2026-11-21T12:00:60",
        "2026-11-21T12:00+24:00",
        "2026-11-21T12:0002:00",
        "2026-11-21Z",
        "-1795262400",
        "17952624000000000",
        "12345",
        "\u0662\u0660\u0662\u0666-11-21",
        "2026-11-21\n",
    ],
)
def test_what_is_no_time_of_this_age_is_refused(text: str) -> None:
    assert parse_time(text) is None
    for name in ("from", "to", "since", "until"):
        if text.strip() == text:
            error = refused(**{f"{name}_": text})
            assert (error.status, error.param) == (400, name)


def test_time_is_told_as_it_can_be_asked_for() -> None:
    for at_ms in (0, NOON, NOON + 1, usage_query.LAST_MS):
        assert parse_time(told_time(at_ms)) == at_ms
    assert told_time(NOON) == "2026-11-21T12:00:00Z"
    assert told_time(NOON + 7) == "2026-11-21T12:00:00.007Z"


# ---------------------------------------------------------------- the window


def window(asked: Asked) -> tuple[str, str]:
    return told_time(asked.from_ms), told_time(asked.to_ms)


def test_without_a_window_it_is_this_month_until_now_and_for_minutes_this_day() -> None:
    today_ends = "2026-11-22T00:00:00Z"
    assert window(ask()) == ("2026-11-01T00:00:00Z", today_ends)
    assert window(ask("ann")) == ("2026-11-01T00:00:00Z", today_ends)
    assert window(ask(granularity="hour")) == ("2026-11-01T00:00:00Z", today_ends)
    assert window(ask(granularity="minute")) == ("2026-11-21T00:00:00Z", today_ends)
    last_of_october = "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"
    assert window(ask(to="2026-10-31")) == window(ask(until="2026-11-01T00:00Z")) == last_of_october
    assert window(ask(since="2026-11-20"))[0] == "2026-11-20T00:00:00Z"


@pytest.mark.parametrize(
    ("month", "ends"),
    [
        ("202602", "2026-03-01T00:00:00Z"),
        ("2024-02", "2024-03-01T00:00:00Z"),
        ("202612", "2027-01-01T00:00:00Z"),
    ],
)
def test_month_is_all_of_it(month: str, ends: str) -> None:
    asked = ask(month=month)
    assert window(asked) == (told_time(parse_time(f"{month}01".replace("-", "")) or 0), ends)


@pytest.mark.parametrize("month", ["202613", "202600", "0000", "2026-1", "november", "999912"])
def test_what_is_no_month_is_refused(month: str) -> None:
    assert refused(month=month).param in ("month", "from")


def test_window_that_is_empty_or_asked_for_twice_is_refused() -> None:
    assert refused(from_="2026-11-22T00:00Z").param == "from"
    assert refused(from_="2026-11-21T00:00Z", to="2026-11-21T00:00Z").param == "from"
    assert refused(from_="2026-11-20", to="2026-11-18").param == "from"
    assert refused(to="1970-01-01T00:00Z").param == "from"
    assert refused(from_="2026-11-20", since="2026-11-20").param == "since"
    assert refused(to="2026-11-20", until="2026-11-20").param == "until"
    assert refused(month="202611", until="2026-11-20").param == "month"


@pytest.mark.parametrize(("granularity", "days"), [("minute", 2), ("hour", 31), ("day", 400)])
def test_window_is_bounded_by_its_granularity(granularity: str, days: int) -> None:
    to = told_time(MIDNIGHT)
    ask(granularity=granularity, from_=told_time(MIDNIGHT - days * DAY_MS), to=to)
    error = refused(
        granularity=granularity, from_=told_time(MIDNIGHT - days * DAY_MS - 1), to=to, user_id="a"
    )
    assert f"{days} days" in error.message


def test_projects_window_is_rounded_outwards_and_a_users_is_exact() -> None:
    odd = {"from_": "2026-11-20T10:20:30.5Z", "to": "2026-11-20T11:20:30.5Z"}
    assert window(ask(**odd)) == ("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z")
    minutes = "2026-11-20T10:20:00Z", "2026-11-20T11:21:00Z"
    assert window(ask(**odd, granularity="hour")) == minutes
    exact = "2026-11-20T10:20:30.500Z", "2026-11-20T11:20:30.500Z"
    assert window(ask(**odd, user_id="ann")) == window(ask("ann", **odd)) == exact
    edge = ask(from_=told_time(usage_query.LAST_MS - 1), to=told_time(usage_query.LAST_MS))
    assert edge.to_ms == usage_query.LAST_MS


# ---------------------------------------------------------------- the other parameters


@pytest.mark.parametrize(
    "query",
    [
        {"granularity": "week"},
        {"granularity": "Day"},
        {"group_by": "colour"},
        {"format": "xml"},
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "10001"},
        {"limit": "1e3"},
        {"limit": "9" * 5000},
        {"limit": "\u0661"},
        {"userid": "ann"},
        {"user_id": "a" * 256},
        {"user_id": "a\x00b"},
        {"user_id": "a\ud800"},
        {"user_id": "ann", "customer_id": "cust_1"},
        {"customer_id": "ann"},
        {"customer_id": "ext:"},
    ],
)
def test_parameter_that_is_wrong_is_named(query: dict[str, str]) -> None:
    error = refused(**query)
    assert error.status == 400
    assert error.param == list(query)[-1]
    assert len(error.message) < 200


def test_parameter_that_is_empty_counts_as_absent() -> None:
    assert ask(user_id="", tag=" ", from_="", limit="", group_by="", cursor="") == ask()


def test_parameter_may_be_there_twice_if_it_says_the_same() -> None:
    twice = {"tag": ["a", "a"], "model": ["m"]}
    assert understand(twice, NOON, only=None).filters == {"tag": "a", "model": "m"}
    with pytest.raises(BadRequest) as told:
        understand({"tag": ["a", "b"]}, NOON, only=None)
    assert told.value.param == "tag"


@pytest.mark.parametrize(
    ("event", "query"),
    [
        ({"multiValueQueryStringParameters": {"tag": ["a", "b"]}}, {"tag": ["a", "b"]}),
        ({"queryStringParameters": {"tag": "a"}}, {"tag": ["a"]}),
        ({"queryStringParameters": None, "multiValueQueryStringParameters": None}, {}),
        ({}, {}),
    ],
)
def test_every_value_of_a_query_reaches_the_request(
    event: dict[str, Any], query: dict[str, list[str]]
) -> None:
    plain = {"requestContext": {"requestId": "r"}, "httpMethod": "GET", "path": "/v1/usage"}
    assert Request.from_event({**plain, **event}).query == query


def test_value_that_is_no_text_is_no_bug() -> None:
    event: Any = {"tag": [None], "model": [7]}
    assert understand(event, NOON, only=None).filters == {"model": "7"}


def test_raw_ampersand_in_a_user_id_is_put_back_and_never_cuts_it_short() -> None:
    """Else an operator would be told of somebody else's usage."""
    assert ask(**{"user_id": "auth0|a b", "c": ""}).user_id == "auth0|a b&c"
    for stray in ({"c": "", "d": ""}, {"c": "1"}, {"c": "1", "d": ""}):
        assert "%26" in refused(user_id="a", **stray).message
    assert refused(c="").param == "c"


@pytest.mark.parametrize(
    ("name", "member"), [("user", "user"), ("user_id", "user"), ("session_id", "session")]
)
def test_group_is_known_by_its_parameters_name_too(name: str, member: str) -> None:
    assert ask(group_by=name).group_by == member


def test_customer_is_a_subject_of_his_own_and_has_used_nothing_yet() -> None:
    for customer in ("cust_1", "cus_1", "ext:cust", "ext:a"):
        kept = Kept([row(NOON, customer)])
        told = answer(kept, customer_id=customer)
        assert (told["total_requests"], told["customer_id"]) == (0, customer)
        assert told["user_id"] is None
    assert ask(customer_id="ext:a").subject == "c#ext:a"


def test_csv_is_asked_for_by_format_or_by_media_type() -> None:
    assert ask(format="csv").csv
    assert ask(None, NOON, "text/csv").csv
    assert not ask(None, NOON, "text/csv", format="json").csv
    assert not ask(None, NOON, "application/json, text/csv;q=0.5").csv
    assert not understand({}, NOON, only=None, names=OF_BILLING, accept="text/csv").csv
    assert (ask(format="csv").limit, ask().limit) == (10_000, 1_000)
    assert ask(format="csv", limit="3").limit == 3


# ---------------------------------------------------------------- who may see whom


def test_user_sees_himself_whether_he_is_named_or_not() -> None:
    assert ask("ann").subject == ask("ann", user_id="ann").subject == "u#ann"
    assert ask("jo+x@y.z", user_id="jo x@y.z").user_id == "jo+x@y.z"  # a raw + came as a space
    assert ask("a&b", **{"user_id": "a", "b": ""}).user_id == "a&b"


@pytest.mark.parametrize(
    "query",
    [
        {"user_id": "bob"},
        {"user_id": "ANN"},
        {"user_id": "ann", "b": ""},
        {"user_id": "*"},
        {"customer_id": "cust_1"},
        {"customer_id": "ann"},
    ],
)
def test_user_sees_nobody_else(query: dict[str, str]) -> None:
    error = refused("ann", **query)
    assert (error.status, error.code) == (403, "forbidden")
    assert "bob" not in json.dumps(error.envelope("r"))


def test_user_who_groups_by_user_or_comes_with_anothers_cursor_still_sees_himself() -> None:
    kept = Kept([row(NOON - n, uid) for n, uid in enumerate(["ann", "bob", "cy"])])
    assert by_key(answer(kept, "ann", group_by="user")) == {"ann": 1}
    assert all("all" not in read and "users" not in read for read in kept.asked)
    everyone = answer(kept, group_by="user", limit="1")["next_cursor"]
    assert refused("ann", group_by="user", cursor=everyone).param == "cursor"


@pytest.mark.parametrize("granularity", ["minute", "hour"])
@pytest.mark.parametrize(
    "more",
    [
        {"session_id": "s"},
        {"thread_id": "t"},
        {"tag": "t"},
        {"group_by": "user"},
        {"group_by": "customer"},
        {"group_by": "session"},
        {"group_by": "thread"},
        {"group_by": "tag"},
    ],
)
def test_project_by_hour_is_known_by_model_only_and_a_user_by_everything(
    granularity: str, more: dict[str, str]
) -> None:
    today = {"granularity": granularity, "from_": "2026-11-21"}
    error = refused(**today, **more)
    assert error.param == next(iter(more))
    assert "user_id" in error.message
    ask("ann", **today, **more)
    ask(**today, model="m")
    ask(**today, group_by="model")
    ask(**today, group_by="day")


# ---------------------------------------------------------------- adding up


def several() -> Kept:
    """Of two days of two months, before and after each midnight."""
    rows = []
    for day in (NOVEMBER - DAY_MS, NOVEMBER, MIDNIGHT - DAY_MS, MIDNIGHT):
        for n, at_ms in enumerate((day, day + HOUR_MS, day + 11 * HOUR_MS + 59_999)):
            rows += [
                row(at_ms, "ann", 3 + n, session_id="s1", tag="a"),
                row(at_ms + 1, "bob", 50 + n, session_id="s2", thread_id="t", model="m-small"),
                row(at_ms + 2, "bob", 700, outcome="cancelled", estimated=True),
            ]
    return Kept(rows)


QUESTIONS: list[dict[str, str]] = [
    {},
    {"granularity": "hour"},
    {"granularity": "minute", "from_": "2026-11-20"},
    {"from_": "2026-10-01", "to": "2026-11-30"},
    {"from_": "2026-11-20T11:00:00.001Z", "to": "2026-11-21T01:00Z"},
    {"from_": "2026-11-20T00:30Z", "to": "2026-11-20T11:30Z"},
    {"from_": "2026-11-21T00:30Z"},
    {"month": "202610"},
    {"month": "202611", "model": "m-small"},
    {"from_": "2026-11-21", "to": "2027-01-31"},
]
GROUPS: list[dict[str, str]] = [
    {},
    *({"group_by": name} for name in usage_query.GROUPS),
    {"session_id": "s1"},
    {"thread_id": "t", "group_by": "model"},
    {"tag": "a", "group_by": "user"},
    {"model": "m-large", "group_by": "session"},
]
COUNTED = [name for name in (field.name for field in fields(Totals)) if name != "nano_usd"]


@pytest.mark.parametrize("more", GROUPS, ids=str)
@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_answer_adds_up_to_the_rows_of_its_window(
    question: dict[str, str], more: dict[str, str]
) -> None:
    """Whatever it was read from."""
    kept, query = several(), {**question, **more}
    for user in (None, "ann", "bob"):
        who = {"user_id": user} if user else {}
        try:
            asked = ask(**query, **who)
        except BadRequest:
            assert user is None
            assert question.get("granularity") in ("hour", "minute")
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
        for name in COUNTED:
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


def test_more_than_one_answer_can_add_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_query, "MOST_READ", 8)
    kept = several()
    answer(kept, user_id="bob", month="202611", tag="none")
    for query in ({"group_by": "session"}, {"granularity": "hour", "user_id": "bob"}):
        asked = ask(month="202611", **query)
        with pytest.raises(BadRequest) as told:
            find(asked, PID, kept, NOON)
        assert "shorter" in told.value.message


# ---------------------------------------------------------------- telling


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
    told = usage_query.billing(asked, PID, find(asked, PID, kept, NOON))
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
    text, cursor = usage_query.table(asked, find(asked, PID, kept, NOON))
    return list(csv.DictReader(io.StringIO(text, newline=""))), cursor


def test_csv_says_what_json_says() -> None:
    kept = several()
    for query, name, member in (
        ({}, "timestamp", "breakdown"),
        ({"group_by": "session"}, "key", "data"),
    ):
        asked = ask(**query)
        text, _ = usage_query.table(asked, find(asked, PID, kept, NOON))
        assert text.count("\r\n") == text.count("\n")
        lines, cursor = lines_of(kept, **query)
        told = answer(kept, **query)[member]
        assert cursor is None
        assert [line[name] for line in lines] == [each[name] or "" for each in told]
        for line, each in zip(lines, told, strict=True):
            assert set(line) == set(each)
            assert float(line["cost_usd"]) == each["cost_usd"]
            assert [int(line[n]) for n in COUNTED] == [each[n] for n in COUNTED]
    first, cursor = lines_of(kept, limit="1")
    assert len(first) == 1
    rest, cursor = lines_of(kept, cursor=cursor or "")
    assert len(rest) == 2
    assert cursor is None


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_begins_no_formula(start: str) -> None:
    evil = f'{start}cmd|"/C calc", 1\r\n'
    (line,), _ = lines_of(Kept([row(NOON, session_id=evil)]), group_by="session")
    assert line["key"] == f"'{evil}"


def test_csv_writes_money_without_an_exponent() -> None:
    for nano, text in ((0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (NANO * 20, "20")):
        (line,), _ = lines_of(Kept([row(NOON, nano_usd=nano)]))
        assert line["cost_usd"] == text


def test_answer_that_no_function_could_return_is_refused() -> None:
    longest = "x" * usage_query.MOST_ANSWER_BYTES
    assert usage_query.refuse_too_long(longest) == longest
    with pytest.raises(TooLarge):
        usage_query.refuse_too_long(longest + "x")


# ---------------------------------------------------------------- pages


def walk(
    kept: Kept, grow: Callable[[Kept], Kept] = lambda kept: kept, /, **query: str
) -> list[list[dict[str, Any]]]:
    """All pages; between two of them what is kept grows."""
    pages, cursor = [], ""
    while True:
        told = answer(kept, cursor=cursor, **query)
        pages.append(told["data" if "group_by" in query else "breakdown"])
        assert told["has_more"] == (told["next_cursor"] is not None)
        if not told["has_more"]:
            return pages
        cursor, kept = told["next_cursor"], grow(kept)


def test_walk_through_groups_meets_each_once_although_their_costs_change() -> None:
    users = [f"u{n:02d}" for n in range(30)]
    rows = [row(NOON - n, uid, 100 - n, session_id=uid) for n, uid in enumerate(users)]
    poor = iter(reversed(users))

    def grow(kept: Kept) -> Kept:
        """The cheapest becomes the dearest, each time another; and somebody new comes."""
        more = [row(NOON, next(poor), 10_000), row(NOON, f"a{len(kept.kept)}", 1)]
        return Kept([*kept.kept, *more])

    for by in ("user", "session"):
        assert [len(page) for page in walk(Kept(rows), group_by=by, limit="7")] == [7, 7, 7, 7, 2]
    pages = walk(Kept(rows), grow, group_by="user", limit="7")
    met = [each["key"] for page in pages for each in page]
    assert [key for key in sorted(met) if key.startswith("u")] == users
    assert len(met) == len(set(met))
    assert len(pages) >= 5
    assert [each["key"] for each in pages[0]] == users[:7]  # the dearest come first
    for page in pages:
        costs = [each["cost_usd"] for each in page]
        assert costs == sorted(costs, reverse=True)


def test_first_of_many_pages_is_no_longer_than_what_a_cursor_can_remember() -> None:
    kept = Kept([row(NOON, f"user-{n:04d}-{'é' * 200}", n) for n in range(1_300)])
    pages = walk(kept, group_by="user", limit="1000")
    assert [len(page) for page in pages] == [200, 1000, 100]
    assert len({each["key"] for page in pages for each in page}) == 1_300
    cursor = answer(kept, group_by="user", limit="1000")["next_cursor"]
    later = answer(kept, group_by="user", limit="1000", cursor=cursor)["next_cursor"]
    assert len(cursor) < len(later) < 4_000  # API Gateway takes 10,240 bytes with all headers


def test_walk_through_time_goes_on_where_it_was_and_keeps_its_window() -> None:
    kept = Kept([row(NOON - n * MINUTE_MS) for n in range(5)])

    def grow(kept: Kept) -> Kept:
        return Kept([*kept.kept, *(row(NOON - n * MINUTE_MS) for n in range(5))])

    pages = walk(kept, grow, granularity="minute", limit="2")
    assert [[each["timestamp"][14:16] for each in page] for page in pages] == [
        ["56", "57"],
        ["58", "59"],
        ["00"],
    ]
    first = ask(granularity="minute", limit="2")
    cursor = document(first, PID, find(first, PID, kept, NOON))["next_cursor"]
    tomorrow = ask(None, NOON + DAY_MS, granularity="minute", limit="3", cursor=cursor)
    assert window(tomorrow) == window(first)


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "garbage!",
        "é",
        "A" * 5000,
        base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b"[" * 3000).decode(),
        base64.b64encode(b"9" * 5000).decode(),
        forged(),
        forged(2, "x", 0, 1, None, ""),
        forged(1, ask().same(), None, NOON, None, ""),
        forged(1, ask().same(), True, NOON, None, ""),
        forged(1, ask().same(), 1.5, NOON, None, ""),
        forged(1, ask().same(), float("nan"), NOON, None, ""),
        forged(1, ask().same(), NOVEMBER, NOON, 7, ""),
        forged(1, ask().same(), NOVEMBER, NOON, None, 7),
        forged(1, ask().same(), NOVEMBER, NOON, None, "é"),
        forged(1, ask().same(), NOVEMBER, NOON, None, "A" * 4_000),
        forged(1, ["x"], NOVEMBER, NOON, None, ""),
        forged(1, ask(tag="a").same(), NOVEMBER, NOON, None, ""),
    ],
)
def test_cursor_that_is_not_of_this_question_is_refused(cursor: str) -> None:
    assert refused(cursor=cursor).param == "cursor"


def test_cursor_cannot_widen_a_window() -> None:
    wide = forged(1, ask().same(), NOON - 401 * DAY_MS, NOON, None, "")
    assert refused(cursor=wide).param == "granularity"
    assert refused(cursor=forged(1, ask().same(), -1, NOON, None, "")).param == "from"
    assert refused(cursor=forged(1, ask().same(), 0, 10**15, None, "")).param == "from"
    ask(cursor=forged(1, ask().same(), NOVEMBER, NOON, "\ud800", ""))


# ---------------------------------------------------------------- whatever comes

VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "2026-11-20",
            "2026-11-20T10:00:00 02:00",
            "2026-11-21T10:00",
            "1795262400",
            "1795262400000",
            "202611",
            "day",
            "hour",
            "minute",
            "user",
            "session",
            "model",
            "ann",
            "m-large",
            "cust_1",
            "csv",
            "5",
            "10000",
            "None",
            forged(1, ask().same(), NOVEMBER, NOON, "x", ""),
        ]
    ),
)
QUERIES = st.dictionaries(
    st.one_of(st.sampled_from(OF_USAGE), st.text(max_size=5)),
    st.lists(VALUES, min_size=1, max_size=2),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(query=QUERIES, only=st.sampled_from([None, "ann"]), names=st.booleans())
def test_any_query_has_an_answer_or_a_reason(
    query: dict[str, list[str]], only: str | None, names: bool
) -> None:
    asked = None
    try:
        asked = understand(query, NOON, only=only, names=OF_USAGE if names else OF_BILLING)
    except (BadRequest, Forbidden) as refusal:
        told = refusal.envelope("r")
    if asked is None:
        assert told["error"]["param"] is not None
        assert len(json.dumps(told)) < 3_000
        return
    found = find(asked, PID, SEVERAL, NOON)
    told = document(asked, PID, found)
    assert len(told["data"] if asked.group_by else told["breakdown"]) <= asked.limit
    json.dumps([told, usage_query.table(asked, found), usage_query.billing(asked, PID, found)])
    assert only is None or asked.subject == "u#ann"


SEVERAL = several()
