"""weir usage: what was used, by whom, and what it cost."""

import argparse
import csv
import heapq
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, TextIO

from weir.aws import items
from weir.aws.operator.recounts import ROLLUPS_KEPT_S
from weir.aws.usage import Crowded, Usage
from weir.projects.limits import NANO
from weir.usage.sums import TOTALS, Totals

from . import flags
from .console import Console
from .deployment import CommandError
from .flags import Commands
from .text import printable

# What can be grouped by, and the attribute of a detail's sum that tells it.
ATTRIBUTES = {
    "day": "",
    "model": "model",
    "user": "subject",
    "session": "session_id",
    "thread": "thread_id",
    "tag": "tag",
}
OVERVIEW_TOP, TABLE_TOP = 5, 20
NONE = "(none)"
DAY, DAY_S = timedelta(days=1), 86_400
Named = tuple[str, Totals]


def add_to(commands: Commands) -> None:
    parser = commands.command(
        "usage",
        show_usage,
        "what was used and what it cost, this month or in another time; days are UTC",
    )
    parser.add_argument("--project", metavar="PID", help="of this project (default: of all)")
    parser.add_argument(
        "--month", metavar="YYYY-MM", type=_month, help="of this month (default: the present one)"
    )
    parser.add_argument("--from", dest="first", metavar="YYYY-MM-DD", type=_day, help="from a day")
    parser.add_argument(
        "--to",
        dest="last",
        metavar="YYYY-MM-DD",
        type=_day,
        help="to a day and with it (default: today)",
    )
    parser.add_argument(
        "--by", choices=ATTRIBUTES, help="a table, one line for each of these, instead of a summary"
    )
    parser.add_argument("--user", metavar="ID", help="of this user only; needs --project")
    parser.add_argument(
        "--top",
        metavar="N",
        type=_count,
        help=f"list so many at most, the most expensive first (default: {OVERVIEW_TOP} in the "
        f"summary, {TABLE_TOP} in a table, all days, and all in a file or a JSON document)",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE|-",
        help="write a table as comma-separated values, by day unless --by says otherwise; "
        "- is stdout",
    )
    verbs = Commands(parser, flags.shared())
    parser.set_defaults(run=show_usage)  # without a verb
    repair = verbs.command(
        "repair",
        repair_usage,
        "add up what was given up, once its cause is mended; reads the whole table",
    )
    repair.add_argument(
        "--kept-days",
        metavar="N",
        type=_count,
        default=ROLLUPS_KEPT_S // DAY_S,
        help="how long sums are kept: the stack's RollupRetentionDays (default: %(default)s)",
    )


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True, slots=True)
class Period:
    """Days of UTC, the last one with it."""

    first: date
    last: date

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.first != self.last else f"{self.first}"

    def days(self) -> list[date]:
        return [self.first + DAY * n for n in range((self.last - self.first).days + 1)]


@dataclass(frozen=True, slots=True)
class Times:
    """`shown` are the days of the chart: those of the month to come, too."""

    now: Period
    before: Period
    shown: Period
    today: date

    @classmethod
    def of(cls, asked: argparse.Namespace, today: date) -> "Times":
        """Raises CommandError for what is no time, or lies ahead."""
        if asked.first or asked.last:
            return cls._between(asked, today)
        first = asked.month or today.replace(day=1)
        if first > today:
            raise CommandError(f"{first:%Y-%m} has not begun.")
        shown, last_month = Period(first, _end(first)), (first - DAY).replace(day=1)
        ends = _end(last_month)
        if shown.last > today:  # only so far is the present month comparable
            ends = min(ends, last_month + (today - first))
        now = Period(first, min(shown.last, today))
        return cls(now, Period(last_month, ends), shown, today)

    @classmethod
    def _between(cls, asked: argparse.Namespace, today: date) -> "Times":
        if asked.month:
            raise CommandError("Either --month, or --from and --to.")
        if not asked.first:
            raise CommandError("--to needs --from.")
        if asked.first > today:
            raise CommandError(f"{asked.first} lies ahead.")
        now = Period(asked.first, min(asked.last or today, today))
        if now.last < now.first:
            raise CommandError("--to lies before --from.")
        length = DAY * len(now.days())
        return cls(now, Period(now.first - length, now.first - DAY), now, today)


def _end(first: date) -> date:
    return (first + 31 * DAY).replace(day=1) - DAY


def _today() -> date:
    return datetime.now(UTC).date()


def _month(typed: str) -> date:
    if not re.fullmatch(r"\d{4}-\d\d", typed, re.ASCII):
        raise argparse.ArgumentTypeError(f"{typed!r}: a month is YYYY-MM")
    return _day(f"{typed}-01")


def _day(typed: str) -> date:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", typed, re.ASCII):
            return date.fromisoformat(typed)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{typed!r}: there is no such day (YYYY-MM-DD)")


def _count(typed: str) -> int:
    if not typed.isascii() or not typed.isdigit() or int(typed) == 0:
        raise argparse.ArgumentTypeError(f"{typed!r}: a number above 0")
    return int(typed)


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Reader:
    """Of one project, or of one of its users."""

    usage: Usage
    pid: str
    subject: str | None

    def days(self, period: Period) -> list[tuple[str, str, Totals]]:
        """(day, model, sum), the day as 2026-11-21."""
        if self.subject is not None:
            return [(str(day), told["model"], t) for day, told, t in self._details(period.days())]
        found = self.usage.days(self.pid, _key(period.first), _key(period.last))
        return [(f"{d[:4]}-{d[4:6]}-{d[6:]}", model, totals) for d, model, totals in found]

    def grouped(self, by: str, period: Period, today: date) -> dict[str, Totals]:
        if by in ("day", "model"):
            return added((day if by == "day" else model, t) for day, model, t in self.days(period))
        attribute = ATTRIBUTES[by]
        if by == "user" and self.subject is None:
            whole, days = _whole_months(period, today)
        else:
            whole, days = [], period.days()
        read = [(subject, t) for month in whole for subject, t in self.usage.users(self.pid, month)]
        read += [(told.get(attribute, ""), t) for _, told, t in self._details(days)]
        sums = added(read)
        return {_user(name): t for name, t in sums.items()} if by == "user" else sums

    def _details(self, days: Iterable[date]) -> Iterator[tuple[date, dict[str, str], Totals]]:
        for day in days:
            for told, totals in self.usage.details(self.pid, _key(day), self.subject):
                yield day, told, totals


def _whole_months(period: Period, today: date) -> tuple[list[str], list[date]]:
    """The months that it has all of, which have a sum of each user; and its other days."""
    months, days = [], []
    for day in period.days():
        first = day.replace(day=1)
        if first >= period.first and min(_end(first), today) <= period.last:
            if day == first:
                months.append(f"{day:%Y%m}")
        else:
            days.append(day)
    return months, days


def added(each: Iterable[Named]) -> dict[str, Totals]:
    sums: dict[str, Totals] = {}
    for name, totals in each:
        sums[name] = sums.get(name, Totals()) + totals
    return sums


def _sum(each: Iterable[Totals]) -> Totals:
    return sum(each, Totals())


def _key(day: date) -> str:
    return f"{day:%Y%m%d}"


def _user(subject: str) -> str:
    return subject.removeprefix(items.user(""))


def _dearest(sums: Mapping[str, Totals], most: int | None) -> list[Named]:
    def order(named: Named) -> tuple[int, int, int, str]:
        name, totals = named
        return -totals.nano_usd, -totals.tokens, -totals.requests, name

    return heapq.nsmallest(len(sums) if most is None else most, sums.items(), key=order)


# ---------------------------------------------------------------- the command


def show_usage(console: Console, asked: argparse.Namespace) -> None:
    times = Times.of(asked, _today())
    if asked.user is not None and not asked.project:
        raise CommandError("A user is one of a project: name it with --project.")
    if asked.csv and console.as_json:
        raise CommandError("Either --csv or --json.")
    readers = _readers(console, asked)
    if asked.csv:
        _write_csv(console, asked, readers, times)
    elif asked.by:
        _show_table(console, asked, readers, times)
    elif len(readers) == 1:
        _show_project(console, asked, readers[0], times)
    else:
        _show_projects(console, readers, times)


def repair_usage(console: Console, asked: argparse.Namespace) -> int:
    """Exit code 1 if there are rows that cannot be added."""
    try:
        done = console.operator.recount(_usage(console), kept_s=asked.kept_days * DAY_S)
    except Crowded:
        raise CommandError(
            "Requests of this moment add to the same sums. What was added stays added: repeat it."
        ) from None
    told = {"added": done.added, "unreadable": [key._asdict() for key in done.unreadable]}
    lines = [f"Added: {done.added:,}. Requests of the last hour are left alone."]
    lines += [printable(f"Cannot be read: pk {pk}, sk {sk}") for pk, sk in done.unreadable]
    console.show(told, *lines)
    return 1 if done.unreadable else 0


def _usage(console: Console) -> Usage:
    return Usage(console.deployment.client("dynamodb"), console.deployment.outputs["TableName"])


def _readers(console: Console, asked: argparse.Namespace) -> list[Reader]:
    usage = _usage(console)
    subject = None if asked.user is None else items.user(asked.user)
    if asked.project:
        pids = [console.operator.project(asked.project)["pid"]]
    else:
        pids = sorted(project["pid"] for project in console.operator.projects())
    return [Reader(usage, pid, subject) for pid in pids]


def _show_project(
    console: Console, asked: argparse.Namespace, reader: Reader, times: Times
) -> None:
    days = reader.days(times.now)
    total = _sum(totals for _, _, totals in days)
    before = _sum(totals for _, _, totals in reader.days(times.before))
    by_day = added((day, totals) for day, _, totals in days)
    models = added((model, totals) for _, model, totals in days)
    users = {} if asked.user is not None else reader.grouped("user", times.now, times.today)
    document = {
        **_head(times),
        "project": reader.pid,
        **({"user": asked.user} if asked.user is not None else {}),
        "total": total.told(),
        "before": before.told(),
        "days": _listed("day", sorted(by_day.items())),
        "models": _listed("model", _dearest(models, asked.top)),
        "users": _listed("user", _dearest(users, asked.top)),
    }
    if console.as_json:
        return console.show(document)
    page = Page(Terminal.of(sys.stdout, os.environ))
    whose = f"Project {reader.pid}"
    if asked.user is not None:
        whose += f", user {asked.user}"
    page.compare(whose, times, total, before)
    if total.requests:
        top = asked.top or OVERVIEW_TOP
        page.chart(by_day, times.shown)
        if users:
            page.top("USER", users, top)
        page.top("MODEL", models, top)
    return console.show(document, *page.lines)


def _show_projects(console: Console, readers: Sequence[Reader], times: Times) -> None:
    now = {reader.pid: reader.days(times.now) for reader in readers}
    sums = {pid: _sum(totals for _, _, totals in days) for pid, days in now.items()}
    before = {r.pid: _sum(totals for _, _, totals in r.days(times.before)) for r in readers}
    by_day = added((day, totals) for days in now.values() for day, _, totals in days)
    total, total_before = _sum(sums.values()), _sum(before.values())
    document = {
        **_head(times),
        "total": total.told(),
        "before": total_before.told(),
        "days": _listed("day", sorted(by_day.items())),
        "projects": [
            {"project": pid, "total": totals.told(), "before": before[pid].told()}
            for pid, totals in _dearest(sums, None)
        ],
    }
    page = Page(Terminal.of(sys.stdout, os.environ))
    page.compare("All projects", times, total, total_before)
    if total.requests:
        page.chart(by_day, times.shown)
    if readers and (total.requests or total_before.requests):
        rows = [
            (pid, *_numbers(totals), change(totals.nano_usd, before[pid].nano_usd))
            for pid, totals in _dearest(sums, None)
        ]
        last = ("Total", *_numbers(total), change(total.nano_usd, total_before.nano_usd))
        page.table(("PROJECT", *_HEADS, "CHANGE"), [*rows, last])
    console.show(document, *page.lines)


def _grouped(
    readers: Sequence[Reader], by: str, times: Times
) -> Iterator[tuple[str, dict[str, Totals]]]:
    for reader in readers:
        yield reader.pid, reader.grouped(by, times.now, times.today)


def _show_table(
    console: Console, asked: argparse.Namespace, readers: Sequence[Reader], times: Times
) -> None:
    by: str = asked.by
    grouped = dict(_grouped(readers, by, times))
    total = _sum(totals for sums in grouped.values() for totals in sums.values())
    if console.as_json:
        data = [
            {"project": pid, **each}
            for pid, sums in grouped.items()
            for each in _listed(by, _ordered(by, sums, asked.top))
        ]
        return console.show({**_head(times), "by": by, "data": data, "total": total.told()})
    # A day and a model are the same in all projects; a user, or a session, is not.
    alone = len(readers) == 1 or by in ("day", "model")
    sums = added(
        ((name or NONE) if alone else f"{pid} / {name or NONE}", totals)
        for pid, each in grouped.items()
        for name, totals in each.items()
    )
    page = Page(Terminal.of(sys.stdout, os.environ))
    page.say(f"{_whose(asked, readers)}, {times.now} (UTC), by {by}:")
    if not total.requests:
        page.say("No request has been counted.")
    else:
        default = None if by == "day" else TABLE_TOP
        head = by.upper() if alone else f"PROJECT / {by.upper()}"
        page.listed(head, sums, _ordered(by, sums, asked.top or default), total)
    return console.show(None, *page.lines)


def _whose(asked: argparse.Namespace, readers: Sequence[Reader]) -> str:
    whose = f"Project {readers[0].pid}" if len(readers) == 1 else "All projects"
    return f"{whose}, user {asked.user}" if asked.user is not None else whose


def _ordered(by: str, sums: Mapping[str, Totals], most: int | None) -> list[Named]:
    dearest = _dearest(sums, most)
    return sorted(dearest) if by == "day" else dearest


def _head(times: Times) -> dict[str, Any]:
    return {
        "from": str(times.now.first),
        "to": str(times.now.last),
        "compared_with": {"from": str(times.before.first), "to": str(times.before.last)},
    }


def _listed(by: str, named: Iterable[Named]) -> list[dict[str, Any]]:
    return [{by: name or None, **totals.told()} for name, totals in named]


# ---------------------------------------------------------------- CSV


def _write_csv(
    console: Console, asked: argparse.Namespace, readers: Sequence[Reader], times: Times
) -> None:
    by = asked.by or "day"
    rows = [
        (pid, name, totals)
        for pid, sums in _grouped(readers, by, times)
        for name, totals in _ordered(by, sums, asked.top)
    ]
    if asked.csv == "-":
        return write_csv(sys.stdout, by, rows)
    try:
        with Path(asked.csv).open("w", encoding="utf-8", newline="") as file:
            write_csv(file, by, rows)
    except OSError as error:
        raise CommandError(f"{asked.csv} cannot be written: {error.strerror}") from None
    return console.note(f"{len(rows):,} lines are in {asked.csv}.")


def write_csv(file: TextIO, by: str, rows: Iterable[tuple[str, str, Totals]]) -> None:
    """As RFC 4180 has it. Costs are exact."""
    counted = [name for name in TOTALS if name != "nano_usd"]
    to = csv.writer(file)
    to.writerow(["project", by, *counted, "cost_usd"])
    for pid, name, totals in rows:
        cost = f"{Decimal(totals.nano_usd) / NANO:f}"
        to.writerow([pid, _inert(name), *(getattr(totals, each) for each in counted), cost])


def _inert(name: str) -> str:
    """Callers chose it. A spreadsheet takes what begins so for a formula, and what has an
    apostrophe before it for a text.
    """
    return f"'{name}" if name.lstrip(" ")[:1] in _FORMULA else name


_FORMULA = set("=+-@\t\r\n＝＋－＠")  # noqa: RUF001  # the wide ones count, too


# ---------------------------------------------------------------- numbers


def money(nano_usd: int) -> str:
    """In cents from one dollar on; below, with three digits that are not 0, if it has them."""
    usd = Decimal(nano_usd) / NANO
    places = 2 if usd >= 1 or not usd else max(2, 2 - usd.adjusted())
    rounded = usd.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    whole, _, digits = f"{rounded:,f}".partition(".")
    return f"${whole}.{digits.rstrip('0'):0<2}"


def change(now: int, before: int) -> str:
    """In percent of what it was; rounded to one decimal."""
    if not before:
        return "new" if now else "-"
    percent = (Decimal(now - before) * 100 / before).quantize(Decimal("0.1"), ROUND_HALF_UP)
    return f"{percent:+,f}%" if percent else "0.0%"


def _numbers(totals: Totals) -> tuple[str, str, str]:
    return f"{totals.requests:,}", f"{totals.tokens:,}", money(totals.nano_usd)


_HEADS = ("REQUESTS", "TOKENS", "COST")


# ---------------------------------------------------------------- a page for people


@dataclass(frozen=True, slots=True)
class Terminal:
    """`width` is None where nobody looks: in a file nothing is shortened."""

    width: int | None
    encoding: str
    colour: bool

    @classmethod
    def of(cls, out: TextIO, env: Mapping[str, str]) -> "Terminal":
        seen = out.isatty()
        width = shutil.get_terminal_size().columns if seen else None
        colour = seen and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
        return cls(width, out.encoding or "ascii", colour)

    def can(self, characters: str) -> bool:
        try:
            characters.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True


BLOCKS, ASCII = " ▁▂▃▄▅▆▇█", " .#"  # from nothing to a whole character
CHART_HEIGHT = 5
LEAST_NAME = 8  # characters of a name that are shown however narrow it is
CYAN, PLAIN = "\x1b[36m", "\x1b[0m"


class Page:
    def __init__(self, terminal: Terminal) -> None:
        self.lines: list[str] = []
        self._terminal = terminal
        self._ellipsis = "…" if terminal.can("…") else "~"

    def say(self, sentence: str) -> None:
        said = self._writable(sentence)
        self.lines += textwrap.wrap(said, self._terminal.width) if self._terminal.width else [said]

    def compare(self, whose: str, times: Times, now: Totals, before: Totals) -> None:
        self.say(f"{whose}, {times.now} (UTC), beside {times.before}:")
        if not now.requests:
            self.say("No request has been counted.")
            if before.requests:
                requests, tokens, cost = _numbers(before)
                self.say(f"Before: requests {requests}, tokens {tokens}, {cost}.")
            return
        counts: list[tuple[str, Callable[[Totals], int]]] = [
            ("Requests", lambda totals: totals.requests),
            ("Failed", lambda totals: totals.failed),
            ("Tokens", lambda totals: totals.tokens),
        ]
        rows = [
            (name, f"{of(now):,}", f"{of(before):,}", change(of(now), of(before)))
            for name, of in counts
        ]
        a, b = now.nano_usd, before.nano_usd
        self.table(
            ("", "NOW", "BEFORE", "CHANGE"), [*rows, ("Cost", money(a), money(b), change(a, b))]
        )

    def top(self, head: str, sums: Mapping[str, Totals], most: int) -> None:
        self.listed(head, sums, _dearest(sums, most))

    def listed(
        self,
        head: str,
        sums: Mapping[str, Totals],
        listed: Sequence[Named],
        total: Totals | None = None,
    ) -> None:
        rows = [(name, *_numbers(totals)) for name, totals in listed]
        if left := len(sums) - len(listed):
            names = {name for name, _ in listed}
            others = _sum(totals for name, totals in sums.items() if name not in names)
            rows.append((f"({left:,} more)", *_numbers(others)))
        if total is not None:
            rows.append(("Total", *_numbers(total)))
        self.table((head, *_HEADS), rows)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A blank line, then names to the left, which are cut if need be, and numbers. Where it is
        too narrow for all of these, the second column goes first, then the first.
        """
        first, *columns = zip(heads, *rows, strict=True)
        names = [self._writable(name) for name in first]
        longest, width = max(map(len, names)), self._terminal.width
        if width is not None:
            least = min(longest, LEAST_NAME)
            for column in columns[1::-1]:
                if least + _taken(columns) > width:
                    columns.remove(column)
            longest = min(longest, max(width - _taken(columns), least))
        widths = [max(map(len, column)) for column in columns]
        self.lines.append("")
        for name, *numbers in zip(names, *columns, strict=True):
            if len(name) > longest:
                name = name[: longest - 1] + self._ellipsis
            right = [cell.rjust(width) for cell, width in zip(numbers, widths, strict=True)]
            self.lines.append("  ".join([name.ljust(longest), *right]))

    def chart(self, by_day: Mapping[str, Totals], shown: Period) -> None:
        """Of what it cost; of tokens, if it cost nothing."""
        paid = any(totals.nano_usd for totals in by_day.values())
        days = shown.days()
        sums = [by_day.get(str(day), Totals()) for day in days]
        values = [each.nano_usd if paid else each.tokens for each in sums]
        width = self._terminal.width or 80
        merged = math.ceil(len(values) / width)
        bars = [sum(values[at : at + merged]) for at in range(0, len(values), merged)]
        most = max(bars)
        if not most:
            return
        told = money(most) if paid else f"{most:,}"
        each = "day" if merged == 1 else f"{merged} days"
        self.lines.append("")
        self.say(f"{'Cost' if paid else 'Tokens'} of each {each}, at most {told}:")
        step = 2 if len(bars) * 2 <= width else 1
        for drawn in self._bars(bars, most, " " * (step - 1)):
            self.lines.append(f"{CYAN}{drawn}{PLAIN}" if self._terminal.colour and drawn else drawn)
        self.lines.append(_axis(days[::merged], step, width))

    def _bars(self, values: Sequence[int], most: int, gap: str) -> Iterator[str]:
        marks = BLOCKS if self._terminal.can(BLOCKS) else ASCII
        full = len(marks) - 1
        heights = [math.ceil(value * CHART_HEIGHT * full / most) for value in values]
        for row in reversed(range(CHART_HEIGHT)):
            drawn = (marks[min(max(height - row * full, 0), full)] for height in heights)
            yield gap.join(drawn).rstrip()

    def _writable(self, text: str) -> str:
        encoding = self._terminal.encoding
        return printable(text).encode(encoding, "replace").decode(encoding)


def _taken(columns: Iterable[Sequence[str]]) -> int:
    return sum(2 + max(map(len, column)) for column in columns)


def _axis(days: Sequence[date], step: int, width: int) -> str:
    """The first day, and each that is a multiple of five, below its bar."""
    axis = ""
    for at, day in enumerate(days):
        if (at and (day.day % 5 or len(axis) >= at * step)) or at * step + 2 > width:
            continue
        axis = axis.ljust(at * step) + str(day.day)
    return axis
