"""CSV whose texts no spreadsheet takes for formulas, and which are otherwise what they were."""

import csv
import io
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.projects.limits import NANO
from weir.usage import spreadsheet
from weir.usage.spreadsheet import inert

ALL = [chr(code) for code in range(sys.maxunicode + 1)]
UNSEEN = [c for c in ALL if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp")]
# Not seen either, although they count as letters and marks (Default_Ignorable_Code_Point).
UNSEEN += list("\u034f\u115f\u1160\u17b4\u17b5\u180b\u2065\u3164\ufe00\ufe0f\uffa0\U000e0100")
FORMULA = [c for c in ALL if unicodedata.normalize("NFKC", c)[:1] in tuple("=+-@\N{MINUS SIGN}")]


def read(text: str) -> str:
    """What a reader of RFC 4180 reads of a text that was written."""
    file = io.StringIO(newline="")
    spreadsheet.write(file, [["name"], [text]])
    return list(csv.reader(io.StringIO(file.getvalue(), newline=""), strict=True))[1][0]


@pytest.mark.parametrize("before", ["", " ", "\u00a0", "\u200b", "\ufeff", "\u3000", " \u00ad\t"])
@pytest.mark.parametrize("start", ["=", "+", "-", "@", *"＝＋－＠"])  # noqa: RUF001
def test_formula_is_a_text_whatever_blanks_are_before_it(before: str, start: str) -> None:
    assert read(f"{before}{start}1+1").startswith(f"'{before}")


@pytest.mark.parametrize("name", ["\tx", "\rx", "\nx", "\x00x", "\x1bx", "\x85x", " \u200b\x07x"])
def test_control_character_at_the_beginning_is_a_text(name: str) -> None:
    assert read(name) == f"'{name}"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("x;=1+1", "x;'=1+1"),
        ("x;\u00a0＝1;-2", "x;'\u00a0＝1;'-2"),  # noqa: RUF001
        ("x\t@SUM(A1)", "x\t'@SUM(A1)"),
        ("x\r\n=1", "x\r\n'=1"),
        ("\t=1", "'\t'=1"),
        ("=1;=2", "'=1;'=2"),
    ],
)
def test_text_that_another_separator_parts_begins_no_formula(name: str, written: str) -> None:
    """A spreadsheet with the decimal comma parts at semicolons, and reads our quotes as text."""
    assert read(name) == written
    for cell in re.split(r"[;\t\r\n]", written):
        assert not cell.lstrip(" \u00a0").startswith(("=", "-", "@", "＝"))  # noqa: RUF001


@pytest.mark.parametrize(
    "name",
    [
        *(
            'a "quoted", name',
            "two\r\nlines",
            "a=1",
            "a - b",
            "a, -b",
            "",
            "é",
            "u-1",
            "名前",
            "😀",
        ),
        *("user@example.com", " x", "\u00a0x", "\ufeffx", "'quoted", "a;b", "2026-11-21T12:00:00Z"),
    ],
)
def test_any_other_text_is_read_as_it_was(name: str) -> None:
    assert read(name) == name


def test_every_character_that_is_not_seen_hides_no_formula() -> None:
    missed = [hex(ord(c)) for c in UNSEEN if not inert(f"x;{c}=1").startswith(("x;'", f"x;{c}'"))]
    assert missed == []
    assert [hex(ord(c)) for c in UNSEEN if inert(f"{c}=1")[0] != "'"] == []


def test_every_form_of_the_characters_that_begin_a_formula_is_known() -> None:
    assert len(FORMULA) > 15
    assert [hex(ord(c)) for c in FORMULA if inert(c) != f"'{c}"] == []


@given(st.text(st.sampled_from("=+-@;\t\r\n '\"x\u200b＝"), max_size=12))  # noqa: RUF001
def test_a_text_that_is_inert_stays_as_it_is_but_for_apostrophes(text: str) -> None:
    once = inert(text)
    assert once.replace("'", "") == text.replace("'", "")
    for cell in re.split(r"[;\t\r\n]", once):
        assert cell.lstrip(" \u200b")[:1] not in tuple("=+-@＝")  # noqa: RUF001


def test_numbers_are_written_as_they_are() -> None:
    file = io.StringIO(newline="")
    spreadsheet.write(file, [["a", "b"], [-1, spreadsheet.exact_usd(1)]])
    assert file.getvalue() == "a,b\r\n-1,0.000000001\r\n"


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (1_500_000_000, "1.5"),
        (NANO * 20, "20"),
        (10**27, "1" + "0" * 18),
    ],
)
def test_money_is_exact_and_has_no_exponent(nano_usd: int, text: str) -> None:
    assert spreadsheet.exact_usd(nano_usd) == text
