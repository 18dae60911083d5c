"""Questions about usage: how a query is understood, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.usage.kept import (
    MIDNIGHT,
    NOON,
    NOVEMBER,
    PID,
    Kept,
    answer,
    ask,
    by_key,
    forged,
    refused,
    row,
    several,
    window,
)
from weir.errors import BadRequest, Forbidden
from weir.usage.answers import billing, document, table
from weir.usage.question import OF_BILLING, OF_USAGE, understand
from weir.usage.reading import find
from weir.usage.times import DAY_MS, LAST_MS, format_time, parse_time
from weir.web.request import Request

# ---------------------------------------------------------------- the window


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
    assert window(asked) == (format_time(parse_time(f"{month}01".replace("-", "")) or 0), ends)


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
    to = format_time(MIDNIGHT)
    ask(granularity=granularity, from_=format_time(MIDNIGHT - days * DAY_MS), to=to)
    error = refused(
        granularity=granularity, from_=format_time(MIDNIGHT - days * DAY_MS - 1), to=to, user_id="a"
    )
    assert f"{days} days" in error.message


def test_projects_window_is_rounded_outwards_and_a_users_is_exact() -> None:
    odd = {"from_": "2026-11-20T10:20:30.5Z", "to": "2026-11-20T11:20:30.5Z"}
    assert window(ask(**odd)) == ("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z")
    minutes = "2026-11-20T10:20:00Z", "2026-11-20T11:21:00Z"
    assert window(ask(**odd, granularity="hour")) == minutes
    exact = "2026-11-20T10:20:30.500Z", "2026-11-20T11:20:30.500Z"
    assert window(ask(**odd, user_id="ann")) == window(ask("ann", **odd)) == exact
    edge = ask(from_=format_time(LAST_MS - 1), to=format_time(LAST_MS))
    assert edge.to_ms == LAST_MS


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
            forged(1, ask().digest(), NOVEMBER, NOON, "x", ""),
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
    json.dumps([told, table(asked, found), billing(asked, PID, found)])
    assert only is None or asked.subject == "u#ann"


SEVERAL = several()
