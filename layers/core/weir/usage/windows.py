"""The window of a question, as its parameters give it: half open, Unix milliseconds, UTC."""

from collections.abc import Mapping

from weir.errors import BadRequest
from weir.usage.times import (
    DAY_MS,
    LAST_MS,
    format_time,
    midnight,
    month_of,
    parse_month,
    parse_time,
)

PARAMETERS = ("from", "to", "since", "until", "month")
MOST_DAYS = {"minute": 2, "hour": 31, "day": 400}


def window(given: Mapping[str, str], granularity: str, now_ms: int) -> tuple[int, int]:
    """Return the window that was given; by default from the first of the month (for minutes: from
    midnight) to the end of today. Raises BadRequest.
    """
    if "month" in given:
        if clash := [name for name in PARAMETERS if name in given and name != "month"]:
            raise BadRequest(f"Ask for month or for {clash[0]}, not for both.", param="month")
        month = parse_month(given["month"])
        if month is None:
            raise BadRequest("month must be like 202611.", param="month")
        return month
    for name, synonym in (("from", "since"), ("to", "until")):
        if name in given and synonym in given:
            raise BadRequest(f"{name} and {synonym} are the same: name one.", param=synonym)
    to_ms = _time(given, "to", "until", end=True)
    if to_ms is None:
        to_ms = midnight(now_ms) + DAY_MS
    from_ms = _time(given, "from", "since")
    if from_ms is None:
        last = max(0, to_ms - 1)
        from_ms = midnight(last) if granularity == "minute" else month_of(last)[0]
    return from_ms, to_ms


def _time(given: Mapping[str, str], *names: str, end: bool = False) -> int | None:
    name = next((name for name in names if name in given), None)
    if name is None:
        return None
    at_ms = parse_time(given[name], end=end)
    if at_ms is None:
        raise BadRequest(
            f"{name} must be a date (2026-04-01), a date and time (2026-04-01T09:30:00Z), or Unix "
            "seconds.",
            param=name,
        )
    return at_ms


def bounded(from_ms: int, to_ms: int, granularity: str) -> tuple[int, int]:
    """Return a window that can be answered. Raises BadRequest for one that is empty or too long."""
    if not 0 <= from_ms < to_ms <= LAST_MS:
        raise BadRequest("`from` must be before `to`, and both of this age.", param="from")
    if to_ms - from_ms > MOST_DAYS[granularity] * DAY_MS:
        raise BadRequest(
            f"With granularity {granularity} a window has at most {MOST_DAYS[granularity]} days.",
            param="granularity",
            details={"from": format_time(from_ms), "to": format_time(to_ms)},
        )
    return from_ms, to_ms
