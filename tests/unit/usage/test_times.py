"""Moments, days and months: how they are read and written."""

import pytest

from tests.unit.usage.kept import MIDNIGHT, NOON, refused
from weir.usage.times import (
    DAY_MS,
    LAST_MS,
    format_time,
    month_of,
    parse_day,
    parse_month,
    parse_time,
)


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


def test_written_time_reads_as_the_same_time() -> None:
    for at_ms in (0, NOON, NOON + 1, LAST_MS):
        assert parse_time(format_time(at_ms)) == at_ms
    assert format_time(NOON) == "2026-11-21T12:00:00Z"
    assert format_time(NOON + 7) == "2026-11-21T12:00:00.007Z"


@pytest.mark.parametrize(
    ("text", "begins", "ends"),
    [
        ("2026-11", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("202612", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2024-02", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("1970-01", "1970-01-01T00:00:00Z", "1970-02-01T00:00:00Z"),
    ],
)
def test_month_ends_where_the_next_one_begins(text: str, begins: str, ends: str) -> None:
    window = parse_month(text)
    assert window is not None
    assert window == (parse_time(begins), parse_time(ends))
    for at_ms in (window[0], window[1] - 1):
        assert month_of(at_ms) == window


@pytest.mark.parametrize(
    "text", ["2026-13", "202600", "2026-1", "1969-12", "9999-12", "2026-11-01"]
)
def test_what_is_no_month_of_this_age_is_none(text: str) -> None:
    assert parse_month(text) is None


def test_day_is_a_bare_date_only() -> None:
    assert parse_day("2026-11-21") == parse_day("20261121") == MIDNIGHT
    for text in ("2026-11-21T00:00Z", "1795219200", "2026-11", "2026-02-30", "1969-12-31"):
        assert parse_day(text) is None
