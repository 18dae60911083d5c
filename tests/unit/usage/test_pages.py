"""Pages of an answer: each entry once, whatever happens between two of them."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.usage.kept import (
    NOON,
    NOVEMBER,
    PID,
    Kept,
    answer,
    ask,
    forged,
    refused,
    row,
    window,
)
from weir.usage.answers import document
from weir.usage.reading import find
from weir.usage.times import DAY_MS, MINUTE_MS


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
        forged(1, ask().digest(), None, NOON, None, ""),
        forged(1, ask().digest(), True, NOON, None, ""),
        forged(1, ask().digest(), 1.5, NOON, None, ""),
        forged(1, ask().digest(), float("nan"), NOON, None, ""),
        forged(1, ask().digest(), NOVEMBER, NOON, 7, ""),
        forged(1, ask().digest(), NOVEMBER, NOON, None, 7),
        forged(1, ask().digest(), NOVEMBER, NOON, None, "é"),
        forged(1, ask().digest(), NOVEMBER, NOON, None, "A" * 4_000),
        forged(1, ["x"], NOVEMBER, NOON, None, ""),
        forged(1, ask(tag="a").digest(), NOVEMBER, NOON, None, ""),
    ],
)
def test_cursor_that_is_not_of_this_question_is_refused(cursor: str) -> None:
    assert refused(cursor=cursor).param == "cursor"


def test_cursor_cannot_widen_a_window() -> None:
    wide = forged(1, ask().digest(), NOON - 401 * DAY_MS, NOON, None, "")
    assert refused(cursor=wide).param == "granularity"
    assert refused(cursor=forged(1, ask().digest(), -1, NOON, None, "")).param == "from"
    assert refused(cursor=forged(1, ask().digest(), 0, 10**15, None, "")).param == "from"
    ask(cursor=forged(1, ask().digest(), NOVEMBER, NOON, "\ud800", ""))
