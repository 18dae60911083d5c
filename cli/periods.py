"""The days that `weir usage` is about: this month, another one, or some days; all of UTC."""

import argparse
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from weir.usage import times
from weir.usage.times import DAY_MS

from .deployment import CommandError

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Period:
    """Days from `first` to `last`, both included."""

    first: date
    last: date

    @classmethod
    def of(cls, window: tuple[int, int]) -> "Period":
        from_ms, to_ms = window
        return cls(day_of(from_ms), day_of(to_ms - DAY_MS))

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.first != self.last else f"{self.first}"

    @property
    def window(self) -> tuple[int, int]:
        """Unix milliseconds, half open."""
        return _begins(self.first), _begins(self.last + DAY)

    def days(self) -> list[date]:
        return [self.first + DAY * n for n in range((self.last - self.first).days + 1)]


@dataclass(frozen=True, slots=True)
class Times:
    """`before` is what `now` is compared with; `shown` are the days of the chart, with those of the
    month that are still to come.
    """

    now: Period
    before: Period
    shown: Period

    @classmethod
    def of(cls, options: argparse.Namespace, today: date) -> "Times":
        """Understand --month, --from and --to. Raises CommandError for days that lie ahead or make
        no period.
        """
        if options.first or options.last:
            return cls._between(options, today)
        shown = options.month or _month_of(today)
        if shown.first > today:
            raise CommandError(f"{shown.first:%Y-%m} has not begun.")
        before = _month_of(shown.first - DAY)
        if shown.last > today:  # the month before is comparable up to the same day only
            same_day = before.first + (today - shown.first)
            before = Period(before.first, min(before.last, same_day))
        return cls(Period(shown.first, min(shown.last, today)), before, shown)

    @classmethod
    def _between(cls, options: argparse.Namespace, today: date) -> "Times":
        if options.month:
            raise CommandError("Either --month, or --from and --to.")
        if not options.first:
            raise CommandError("--to needs --from.")
        if options.first > today:
            raise CommandError(f"{options.first} lies ahead.")
        now = Period(options.first, min(options.last or today, today))
        if now.last < now.first:
            raise CommandError("--to lies before --from.")
        length = DAY * len(now.days())
        return cls(now, Period(now.first - length, now.first - DAY), now)


def month(typed: str) -> Period:
    """Read a month as the API does, for argparse."""
    window = times.parse_month(typed)
    if window is None:
        raise argparse.ArgumentTypeError(f"{typed!r}: a month is YYYY-MM")
    return Period.of(window)


def day(typed: str) -> date:
    """Read a day as the API does, for argparse."""
    begins = times.parse_day(typed)
    if begins is None:
        raise argparse.ArgumentTypeError(f"{typed!r}: there is no such day (YYYY-MM-DD)")
    return day_of(begins)


def day_of(at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms // 1000, UTC).date()


def _month_of(day: date) -> Period:
    return Period.of(times.month_of(_begins(day)))


def _begins(day: date) -> int:
    return times.day_begins(f"{day:%Y%m%d}")
