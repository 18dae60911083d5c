"""A page for a terminal: every line fits, nothing steers the terminal, every column is straight."""

import io
from datetime import date, timedelta

import pytest

from cli.page import Page, Terminal
from cli.text import aligned, padded, start_of, width_of

DAYS = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]


def page(width: int | None, encoding: str = "utf-8") -> Page:
    return Page(Terminal(width, encoding, colour=False))


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("ann", 3),
        ("é", 1),
        ("e\u0301", 1),
        ("山田", 4),
        ("한글", 4),
        ("\u1112\u1161\u11ab", 2),  # one syllable of Korean, in three letters, as macOS writes it
        ("Ａ", 2),  # noqa: RUF001
        ("ｱ", 1),
        ("😀", 2),
        ("\N{REPLACEMENT CHARACTER}", 1),
    ],
)
def test_width_is_that_of_a_terminal(text: str, width: int) -> None:
    assert width_of(text) == width
    assert padded(text, 9) == text + " " * (9 - width)
    assert start_of(text, width) == text


def test_start_of_a_text_is_cut_between_characters() -> None:
    assert [start_of("a山e\u0301b", width) for width in range(6)] == [
        *("", "a", "a", "a山", "a山e\u0301", "a山e\u0301b"),
    ]


def test_columns_are_straight_whatever_the_names_are_written_in() -> None:
    names = ["ann", "山田太郎", "e\u0301va", "😀"]
    shown = page(80)
    shown.table(("USER", "COST"), [(name, "$1") for name in names])
    assert {width_of(line) for line in shown.lines[1:]} == {len("山田太郎") * 2 + 2 + len("COST")}
    columns = aligned([(name, "x") for name in names])
    assert {width_of(line) for line in columns} == {11}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("width", [24, 33, 40])
def test_every_line_fits_a_narrow_terminal(width: int, encoding: str) -> None:
    shown = page(width, encoding)
    numbers = ("1,000,000,000", "2,000,000,000,000", "$10,000,000.00")
    for name in ("u" * 256, "山" * 128, "e\u0301" * 100):
        shown.table(("USER", "REQUESTS", "TOKENS", "COST"), [(name, *numbers)])
        shown.say(f"Project {'x' * 63}, user {name}, 2026-11-01 to 2026-11-21 (UTC):")
    shown.chart("Cost", DAYS, list(range(365)), str)
    assert max(map(width_of, shown.lines)) <= width
    assert "$10,000,000.00" in "".join(shown.lines), "the cost is the last that goes"
    "".join(shown.lines).encode(encoding)


def test_sentence_is_broken_between_words_and_loses_none() -> None:
    shown = page(12)
    shown.say("one two three " + "x" * 30 + " end")
    assert shown.lines == ["one two", "three", "x" * 12, "x" * 12, "xxxxxx end"]
    whole = page(None)
    whole.say("one two three " + "x" * 300)
    assert len(whole.lines) == 1


def test_what_goes_into_a_file_is_whole() -> None:
    shown = page(None)
    shown.table(("USER", "COST"), [("u" * 256, "$1")])
    assert "u" * 256 in shown.lines[-1]
    assert Terminal.of(io.StringIO(), {}) == Terminal(None, "ascii", colour=False)


def test_name_that_would_steer_the_terminal_is_harmless() -> None:
    shown = page(80)
    shown.table(("USER", "COST"), [("\x1b[2J\x07\u202eevil\n", "$1")])
    shown.say("user \x1b[2J\u202eevil")
    assert "".join(shown.lines).isprintable()


def test_more_days_than_columns_share_bars() -> None:
    shown = page(40)
    shown.chart("Tokens", DAYS, [0] * 364 + [70], "{:,}".format)
    assert shown.lines[1] == "Tokens of each 10 days, at most 70:"
    assert shown.lines[2] == " " * 36 + "█"


def test_days_without_anything_have_no_chart() -> None:
    shown = page(40)
    shown.chart("Tokens", DAYS, [0] * 365, str)
    assert shown.lines == []
