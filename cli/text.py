"""For people: aligned columns, times, amounts, and what differs between two documents."""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Columns under their heads; the last one may be as long as it likes."""
    return aligned([heads, *rows])


def aligned(rows: Iterable[Sequence[object]]) -> list[str]:
    texts = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(width_of, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(map(padded, row, widths)).rstrip() for row in texts]


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: a Chinese, Japanese or Korean character
    and an emoji take two, an accent that stands on another character none.
    """
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me") or "\u1160" <= character <= "\u11ff":
        return 0  # these letters of Korean are drawn into the one before them
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def padded(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))


def start_of(text: str, width: int) -> str:
    """Return as much of a text as fits into so many columns."""
    if width_of(text) <= width:
        return text
    taken = 0
    for at, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[:at]
    return text


def printable(cell: object) -> str:
    """On one line, and without what would steer a terminal: some of it was sent by strangers."""
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}"
        for c in str(cell)
    )


def day(seconds: int | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def usd_per_million(nano_usd_per_token: int) -> str:
    """Of tokens, exactly."""
    return f"{Decimal(nano_usd_per_token) / 1000:f}"


def _number(value: float) -> str:
    """100, and not 100.0."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def limits_text(limits: Mapping[str, Any]) -> str:
    """Spelled as the flags take them."""
    told = [
        f"{name}={_number(value) if isinstance(value, float) else value}"
        for name, value in limits.items()
        if value is not None
    ]
    return ", ".join(told) or "no limit"


def without_keys(said: str) -> str:
    """What is repeated of an operator's words must not be a secret."""
    return _KEY.sub("(a key?)", said)


# The id of a tenant's signing key is no secret, although it begins like one.
_KID = r"sk_[0-9a-f]{32}(?![0-9A-Za-z_-])"
_KEY = re.compile(rf"(?<![A-Za-z0-9])(?!{_KID})(sk-|sk_|gsk_|xai-|AIza|behest_sk_|eyJ)[^\s'\"]*")


def off_text(killed: Mapping[str, Any] | None) -> str:
    if not killed:
        return ""
    reason = f": {killed['reason']}" if killed["reason"] else ""
    return f"switched off {day(killed['at'])} by {killed['by']}{reason}"


def differences(before: object, after: object) -> list[str]:
    """One line for each value that differs: where it is, what it was, what it is. None as a whole:
    there is no such thing.
    """
    was, becomes = (_NOTHING if each is None else each for each in (before, after))
    return [
        printable(f"{' / '.join(path) or '(all)'}: {_value(name, old)} -> {_value(name, new)}")
        for path, old, new in _leaves((), was, becomes)
        for name in path[-1:] or ("",)
    ]


_NOTHING = object()
_Leaf = tuple[tuple[str, ...], object, object]


def _leaves(path: tuple[str, ...], before: object, after: object) -> Iterator[_Leaf]:
    if before == after:
        return
    a, b = ({} if each in (_NOTHING, None) else each for each in (before, after))
    # What was added or removed as a whole is told value by value, too.
    if isinstance(a, Mapping) and isinstance(b, Mapping) and (a or b):
        for name in sorted({*a, *b}):
            yield from _leaves((*path, name), a.get(name, _NOTHING), b.get(name, _NOTHING))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (was, becomes) in enumerate(zip(a, b, strict=True)):
            yield from _leaves((*path, str(number)), was, becomes)
    else:
        yield path, before, after


_TIMES = {"at", "created_at", "revoked_at"}  # Unix seconds


def _value(name: str, value: object) -> str:
    if value is _NOTHING:
        return "(not set)"
    if name in _TIMES and isinstance(value, int):
        return day(value)
    return _number(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
