"""For people: aligned columns, times, amounts, and what differs between two documents."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Columns under their heads; the last one may be as long as it likes."""
    return aligned([heads, *rows])


def aligned(rows: Iterable[Sequence[object]]) -> list[str]:
    texts = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in texts]


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


def limits_text(limits: Mapping[str, Any]) -> str:
    """Spelled as the flags take them."""
    told = [f"{name}={value}" for name, value in limits.items() if value is not None]
    return ", ".join(told) or "no limit"


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
        printable(f"{' / '.join(path) or '(all)'}: {_value(old)} -> {_value(new)}")
        for path, old, new in _leaves((), was, becomes)
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
    else:
        yield path, before, after


def _value(value: object) -> str:
    return "(not set)" if value is _NOTHING else json.dumps(value, ensure_ascii=False)
