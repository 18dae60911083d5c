"""Read how long a provider wants us to wait, in each of the spellings in use.

All functions return seconds, and None where nothing that can be read is said. `now` is Unix time;
without it (0.0) a point in time says nothing.
"""

import math
import re
from collections.abc import Iterable, Mapping

MAX_WAIT_S = 3600

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_NUMBER = r"[0-9]{1,13}(?:\.[0-9]{1,12})?"
_DIMENSIONS = ("", "-requests", "-tokens")


def whole_seconds(seconds: float) -> int:
    """Round up to what a Retry-After of ours may say: at least 1, at most MAX_WAIT_S."""
    return max(1, min(math.ceil(seconds), MAX_WAIT_S))


def first(*waits: float | None) -> float | None:
    return next((wait for wait in waits if wait is not None), None)


def in_headers(headers: Mapping[str, object], now: float) -> float | None:
    """Read `retry-after-ms` (OpenAI, Azure) or Retry-After (RFC 9110, section 10.2.3). The names
    are lower-case.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _number(headers.get(name))
        if milliseconds is not None:
            return milliseconds / 1000
    said = headers.get("retry-after")
    return first(duration(said), _until_date(said, now))


def until_reset(headers: Mapping[str, object], now: float) -> float | None:
    """Read `x-ratelimit-reset…`: when a limit has room again. Of several limits those count that
    have nothing left; if none says so, the longest wait is the safe one.
    """
    used_up, every = [], []
    for dimension in _DIMENSIONS:
        wait = _until(headers.get(f"x-ratelimit-reset{dimension}"), now)
        if wait is not None:
            every.append(wait)
            if _number(headers.get(f"x-ratelimit-remaining{dimension}")) == 0:
                used_up.append(wait)
    return max(used_up or every, default=None)


def in_members(members: Iterable[Mapping[str, object]]) -> float | None:
    """Read it from an error's own members; `retryDelay` is Google's RetryInfo."""
    for each in members:
        for name in ("retry_after", "retry_after_seconds", "retryAfter", "retryDelay"):
            wait = duration(each.get(name))
            if wait is not None:
                return wait
    return None


def in_words(message: str) -> float | None:
    """Read the one sentence that several providers share: "Please try again in 1m30s"."""
    wait = rf"(?:{_NUMBER}(?:ms|[smh]))+|{_NUMBER} seconds?\b"
    said = re.search(rf"(?i)\b(?:try again|retry) (?:in|after) ({wait})", message[:5000])
    return duration(said[1].partition(" ")[0]) if said else None


def duration(value: object) -> float | None:
    """Read seconds as a number or as text, or Go's spelling of a duration ("1m30s", "250ms")."""
    number = _number(value)
    if number is not None or not isinstance(value, str):
        return number
    value = value.strip()
    if not re.fullmatch(rf"(?:{_NUMBER}(?:ms|[smh]))+", value):
        return None
    parts = re.findall(rf"({_NUMBER})(ms|[smh])", value)
    return sum(float(count) * _UNITS_S[unit] for count, unit in parts)


def _number(value: object) -> float | None:
    if isinstance(value, str) and re.fullmatch(_NUMBER, value.strip()):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e13:
        return float(value)
    return None


def _until(value: object, now: float) -> float | None:
    """Read a wait, or the Unix time of its end in seconds or milliseconds. One that is over says
    nothing.
    """
    wait = duration(value)
    if wait is None or wait < 1e9:
        return wait
    left = (wait / 1000 if wait >= 1e11 else wait) - now
    return left if now > 0 and left > 0 else None


def _until_date(value: object, now: float) -> float | None:
    if not isinstance(value, str) or now <= 0:
        return None
    from email.utils import mktime_tz, parsedate_tz  # rarely needed, and not small

    try:
        date = parsedate_tz(value[:64])
        return None if date is None else max(0.0, mktime_tz(date) - now)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
