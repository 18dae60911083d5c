"""CSV for spreadsheets (RFC 4180), in which no text can become a formula.

Callers choose the names of users, sessions and tags. A spreadsheet calculates a cell that begins
with `=`, `+`, `-` or `@`, in their full-width and other forms, too, and some spreadsheets first
drop blanks and characters that cannot be seen. An apostrophe before it makes it a text. The rule
is OWASP's ("CSV Injection"), which also names leading tabs and line breaks.

Some spreadsheets part cells at semicolons or tabs, too (LibreOffice as it offers to, Excel where
the decimal comma is usual), and then do not know our quotes for quotes. So what follows a
semicolon, a tab or a line break is treated like the beginning of a cell.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from weir.projects.limits import NANO

_PARTING = r"\t\r\n"
# Other blanks, controls, formats and Default_Ignorable_Code_Points: what a reader does not see.
_UNSEEN = (
    r"\x00-\x08\x0b\x0c\x0e-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891"
    r"\u08e2\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f"
    r"\u2800\u3000\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    r"\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# = + - @ and the minus sign, with every character that Unicode holds compatible with these (NFKC).
_FORMULA = (
    r"=+\-@\u207a-\u207c\u208a-\u208c\u2212\u2a75\u2a76\ufb29\ufe62\ufe63\ufe66\ufe6b"
    r"\uff0b\uff0d\uff1d\uff20"
)
_CONTROL = r"\x00-\x1f\x7f-\x9f"
# `re` compiles it when it is first used: few answers are CSV.
_BEGINS = (
    rf"^(?=[{_PARTING}{_UNSEEN}]*[{_FORMULA}{_CONTROL}])"
    rf"|(?<=[;{_PARTING}])(?=[{_UNSEEN}]*[{_FORMULA}])"
)


def write(file: TextIO, rows: Iterable[Sequence[str | int]]) -> None:
    """Write rows, heads included. Every text is made inert; numbers are written as they are."""
    lines = csv.writer(file, lineterminator="\r\n")
    for row in rows:
        lines.writerow([inert(cell) if isinstance(cell, str) else cell for cell in row])


def inert(text: str) -> str:
    """Return a text with an apostrophe wherever a formula would begin."""
    return re.sub(_BEGINS, "'", text)


def exact_usd(nano_usd: int) -> str:
    """Write money to the nano-USD, without an exponent and without zeros at the end."""
    return f"{nano_usd // NANO}.{nano_usd % NANO:09d}".rstrip("0").rstrip(".")
