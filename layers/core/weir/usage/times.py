"""Moments, days and months of UTC, read from text and written as text.

Moments are Unix milliseconds. A day's name is 20261121, a month's 202611, as in the sums' keys.
"""

import datetime
import re
import time
from collections.abc import Iterator

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LAST_MS = 9_999_999_999_999  # 13 digits is what a row's key has; in the year 2286

# `re` compiles a pattern when it is first used: most cold starts need none of them.
_DATE = r"(\d{4})-?(\d\d)-?(\d\d)"
_DAY = rf"(?a){_DATE}"
_MONTH = r"(?a)(\d{4})-?(\d\d)"
_MOMENT = (
    rf"(?ai){_DATE}[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{{1,9}}))?)?"
    r"(?: ?Z|( ?[+-]| )(\d\d):?(\d\d)?)?"
)
_EPOCH_S = r"(?a)(\d{9,10})(?:\.(\d{1,9}))?"
_EPOCH_MS = r"(?a)\d{11,13}"


def parse_time(text: str, *, end: bool = False) -> int | None:
    """Return the moment that `text` names: a date, a date and time, Unix seconds or milliseconds.

    `end`: a bare date is the end of that day, not its beginning. Without a zone it is UTC; the `+`
    of a zone may have become a space, as clients that do not encode their queries send it. None:
    not a time, or not one of 1970 to 2286.
    """
    if re.fullmatch(_EPOCH_MS, text):
        return int(text)
    if found := re.fullmatch(_EPOCH_S, text):
        return int(found[1]) * 1000 + _thousandths(found[2])
    if (begins := parse_day(text)) is not None:
        at = begins + DAY_MS if end else begins
    elif found := re.fullmatch(_MOMENT, text):
        begins, past = _begin(*found.groups()[:3]), _past_midnight(*found.groups()[3:])
        if begins is None or past is None:
            return None
        at = begins + past
    else:
        return None
    return at if 0 <= at <= LAST_MS else None


def parse_day(text: str) -> int | None:
    """Return the beginning of a bare date (2026-11-21 or 20261121). None: not a date, or not one
    of 1970 to 2286.
    """
    found = re.fullmatch(_DAY, text)
    begins = _begin(*found.groups()) if found else None
    return begins if begins is not None and 0 <= begins <= LAST_MS else None


def parse_month(text: str) -> tuple[int, int] | None:
    """Return the window of a month (2026-11 or 202611). None: not a month, or not one of 1970 to
    2286.
    """
    found = re.fullmatch(_MONTH, text)
    begins = _begin(found[1], found[2], "01") if found else None
    if begins is None or not 0 <= begins <= LAST_MS:
        return None
    return month_of(begins)


def month_of(at_ms: int) -> tuple[int, int]:
    """Return the window of the month in which a moment lies."""
    at = time.gmtime(at_ms // 1000)
    begins = midnight(at_ms) - (at.tm_mday - 1) * DAY_MS
    next_month = midnight(begins + 31 * DAY_MS)
    return begins, next_month - (time.gmtime(next_month // 1000).tm_mday - 1) * DAY_MS


def format_time(at_ms: int) -> str:
    """Write a moment as RFC 3339 has it, with milliseconds only if it is not a whole second."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000))
    return f"{text}.{at_ms % 1000:03d}Z" if at_ms % 1000 else f"{text}Z"


def midnight(at_ms: int) -> int:
    return at_ms - at_ms % DAY_MS


def next_midnight(at_ms: int) -> int:
    """Return the first midnight that is not before a moment."""
    return -(-at_ms // DAY_MS) * DAY_MS


def day_name(at_ms: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(at_ms // 1000))


def day_begins(name: str) -> int:
    """Return the beginning of a day by its name; 0 for a name that no day has."""
    return _begin(name[:4], name[4:6], name[6:]) or 0


def day_names(from_ms: int, to_ms: int) -> Iterator[str]:
    for at_ms in range(midnight(from_ms), to_ms, DAY_MS):
        yield day_name(at_ms)


def _begin(year: str, month: str, day: str) -> int | None:
    try:
        days = datetime.date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        return None
    return (days - datetime.date(1970, 1, 1).toordinal()) * DAY_MS


def _past_midnight(
    hour: str,
    minute: str,
    second: str | None,
    fraction: str | None,
    sign: str | None,
    off_hours: str | None,
    off_minutes: str | None,
) -> int | None:
    """Return the milliseconds from midnight of UTC. None: there is no such time of day."""
    parts = [int(part or 0) for part in (hour, minute, second, off_hours, off_minutes)]
    if any(part >= most for part, most in zip(parts, (24, 60, 60, 24, 60), strict=True)):
        return None
    local = parts[0] * HOUR_MS + parts[1] * MINUTE_MS + parts[2] * 1000 + _thousandths(fraction)
    offset = parts[3] * HOUR_MS + parts[4] * MINUTE_MS
    return local + offset if (sign or "").strip() == "-" else local - offset


def _thousandths(fraction: str | None) -> int:
    return int(((fraction or "") + "000")[:3])
