"""Answers to questions about usage, added up from the sums that are kept.

The coarsest sums that can answer are read: a project's days and minutes by model, a month's users,
else the details of each day. Only the beginning and the end of one subject's window, where it does
not end at midnight, are read from the rows. No number is a guess.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from weir.errors import BadRequest
from weir.usage.question import BUCKETS, GROUPS, SUBJECTS, Question
from weir.usage.sums import Row, Tally, Totals
from weir.usage.times import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    day_begins,
    day_name,
    day_names,
    format_time,
    midnight,
    month_of,
    next_midnight,
)

# Rows or sums for one answer: seconds, and a function has 25. The operator must still be answered
# where one caller's new session or thread with each request makes a day long.
MOST_READ, MOST_READ_BY_THE_OPERATOR = 50_000, 200_000

# When it began, exact to the bucket (None: it counts for the groups only); what it is grouped and
# filtered by (None: it counts for the buckets only); how much it was.
_Piece = tuple[int | None, Mapping[str, str] | None, Totals]


class Sums(Protocol):
    """What `weir.aws.usage.Usage` reads."""

    def days(self, pid: str, first: str, last: str) -> Iterator[tuple[str, str, Totals]]: ...

    def users(self, pid: str, month: str) -> Iterator[tuple[str, Totals]]: ...

    def minutes(self, pid: str, day: str) -> Iterator[tuple[str, str, Totals]]: ...

    def details(
        self, pid: str, day: str, subject: str | None = None
    ) -> Iterator[tuple[dict[str, str], Totals]]: ...

    def rows(
        self, pid: str, subject: str, from_ms: int, to_ms: int
    ) -> Iterator[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """`buckets` by the time they begin at, as in an answer; `groups` by their key, "" for none."""

    totals: Totals
    buckets: Mapping[str, Totals]
    groups: Mapping[str, Totals]


def find(
    question: Question, pid: str, sums: Sums, now_ms: int, most_read: int | None = MOST_READ
) -> Found:
    """Add up what a question is about. Raises BadRequest if that is more than `most_read` rows and
    sums; None: without a bound.
    """
    buckets: Tally[int] = Tally()
    groups: Tally[str] = Tally()
    group_by, filters = question.group_by, question.filters.items()
    bucket_ms = BUCKETS[question.granularity]
    for at_ms, labels, taken in _bounded(_pieces(question, pid, sums, now_ms), most_read):
        if labels is not None and any(labels.get(name) != value for name, value in filters):
            continue
        if at_ms is not None:
            buckets.add(at_ms - at_ms % bucket_ms, taken)
        if group_by and labels is not None:
            groups.add(_key(group_by, at_ms or 0, labels), taken)
    # Months are read at another moment than their days: groups must add up to the total.
    totals = (groups if group_by else buckets).total()
    starts = {format_time(at_ms): taken for at_ms, taken in buckets.sums().items()}
    return Found(totals, starts, groups.sums())


def _bounded(pieces: Iterator[_Piece], most_read: int | None) -> Iterator[_Piece]:
    for read, piece in enumerate(pieces):
        if read == most_read:
            raise BadRequest(
                "There is more usage in this window than one answer can add up. Ask for a shorter "
                "one; the operator's `weir usage` adds up any amount.",
                param="from",
            )
        yield piece


def _key(group_by: str, at_ms: int, labels: Mapping[str, str]) -> str:
    if group_by == "day":
        return format_time(at_ms)[:10]
    value = labels.get(GROUPS[group_by], "")
    if group_by in SUBJECTS:
        prefix = SUBJECTS[group_by]
        return value.removeprefix(prefix) if value.startswith(prefix) else ""
    return value


# ---------------------------------------------------------------- what is read


def _pieces(question: Question, pid: str, sums: Sums, now_ms: int) -> Iterator[_Piece]:
    from_ms = question.from_ms
    to_ms = min(question.to_ms, midnight(now_ms) + 2 * DAY_MS)  # clocks differ, but not by a day
    if from_ms >= to_ms:
        return
    if question.subject is not None:
        yield from _of_a_subject(question, pid, sums, to_ms, now_ms)
    elif question.granularity != "day":
        yield from _minutes(pid, sums, from_ms, to_ms)
    elif (question.group_by or "day") in ("model", "day") and question.filters.keys() <= {"model"}:
        for day, model, taken in sums.days(pid, day_name(from_ms), day_name(to_ms - 1)):
            yield day_begins(day), {"model": model}, taken
    elif question.group_by in SUBJECTS and not question.filters:
        yield from _subjects(pid, sums, from_ms, to_ms, now_ms)
    else:
        yield from _details(pid, sums, None, from_ms, to_ms)


def _of_a_subject(
    question: Question, pid: str, sums: Sums, to_ms: int, now_ms: int
) -> Iterator[_Piece]:
    """Read whole days from their details, what is before and after them from the rows."""
    subject, from_ms = question.subject or "", question.from_ms
    begins = next_midnight(from_ms)
    # Of a day that has not ended, all is there until now.
    ends = midnight(to_ms) if to_ms <= now_ms else next_midnight(to_ms)
    if question.granularity != "day" or begins > ends:
        yield from _rows(pid, sums, subject, from_ms, to_ms)
        return
    yield from _rows(pid, sums, subject, from_ms, begins)
    yield from _details(pid, sums, subject, begins, ends)
    yield from _rows(pid, sums, subject, ends, to_ms)


def _subjects(pid: str, sums: Sums, from_ms: int, to_ms: int, now_ms: int) -> Iterator[_Piece]:
    """Read who spent what: of whole months from the months' own sums, which do not know the days;
    of the days before and after these from their details.
    """
    first, next_first = month_of(from_ms)
    begins = from_ms if from_ms == first else next_first
    # Of a month that has not ended, all is there until now.
    ends = to_ms if to_ms > now_ms else month_of(to_ms)[0]
    if begins >= ends:
        yield from _details(pid, sums, None, from_ms, to_ms)
        return
    yield from _details(pid, sums, None, from_ms, begins)
    for day, _, taken in sums.days(pid, day_name(begins), day_name(ends - 1)):
        yield day_begins(day), None, taken
    for month in dict.fromkeys(day[:6] for day in day_names(begins, ends)):
        for subject, taken in sums.users(pid, month):
            yield None, {"subject": subject}, taken
    yield from _details(pid, sums, None, ends, to_ms)


def _rows(pid: str, sums: Sums, subject: str, from_ms: int, to_ms: int) -> Iterator[_Piece]:
    if from_ms >= to_ms:
        return
    for attributes in sums.rows(pid, subject, from_ms, to_ms):
        try:
            row = Row.of(attributes)
        except (KeyError, TypeError, ValueError):
            continue  # no sum has it, either
        yield row.at_ms, row.told, row.totals


def _details(
    pid: str, sums: Sums, subject: str | None, from_ms: int, to_ms: int
) -> Iterator[_Piece]:
    for day in day_names(from_ms, to_ms):
        for labels, taken in sums.details(pid, day, subject):
            yield day_begins(day), labels, taken


def _minutes(pid: str, sums: Sums, from_ms: int, to_ms: int) -> Iterator[_Piece]:
    for day in day_names(from_ms, to_ms):
        for minute, model, taken in sums.minutes(pid, day):
            at_ms = day_begins(day) + int(minute[:2]) * HOUR_MS + int(minute[2:]) * MINUTE_MS
            if from_ms <= at_ms < to_ms:
                yield at_ms, {"model": model}, taken
