"""weir usage: what was used, by whom, and what it cost."""

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from weir.aws.operator.recounts import ROLLUPS_KEPT_S
from weir.aws.usage import Crowded, Usage
from weir.usage import spreadsheet
from weir.usage.question import GROUPS, Question
from weir.usage.reading import Found, find
from weir.usage.sums import COUNTS, DAY_S, Tally, Totals, by_cost

from . import flags, usage_page
from .console import Console
from .deployment import CommandError
from .flags import Commands
from .page import Page, Terminal
from .periods import Period, Times, day, day_of, month
from .text import printable
from .usage_page import change, numbers

OVERVIEW_TOP, TABLE_TOP = 5, 20
NONE = "(none)"
Named = tuple[str, Totals]


def add_to(commands: Commands) -> None:
    parser = commands.command(
        "usage",
        show_usage,
        "what was used and what it cost, this month or in another time; days are UTC",
    )
    parser.add_argument("--project", metavar="PID", help="of this project (default: of all)")
    parser.add_argument(
        "--month", metavar="YYYY-MM", type=month, help="of this month (default: the present one)"
    )
    parser.add_argument("--from", dest="first", metavar="YYYY-MM-DD", type=day, help="from a day")
    parser.add_argument(
        "--to",
        dest="last",
        metavar="YYYY-MM-DD",
        type=day,
        help="to a day and with it (default: today)",
    )
    parser.add_argument(
        "--by", choices=GROUPS, help="a table, one line for each of these, instead of a summary"
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
    _add_repair(Commands(parser, flags.shared()))
    parser.set_defaults(run=show_usage)  # without a verb


def _add_repair(verbs: Commands) -> None:
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


def _count(typed: str) -> int:
    if not typed.isascii() or not typed.isdigit() or int(typed) == 0:
        raise argparse.ArgumentTypeError(f"{typed!r}: a number above 0")
    return int(typed)


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the usage of projects, or of one user of theirs."""

    usage: Usage
    now_ms: int
    pids: Sequence[str]
    user: str | None

    def __str__(self) -> str:
        whose = f"Project {self.pids[0]}" if len(self.pids) == 1 else "All projects"
        return f"{whose}, user {self.user}" if self.user is not None else whose

    def find(self, pid: str, period: Period, by: str | None = None) -> Found:
        """Add up without a bound: an operator waits for it, not a function."""
        question = Question(*period.window, user_id=self.user, group_by=by)
        return find(question, pid, self.usage, self.now_ms, most_read=None)

    def groups(self, period: Period, by: str) -> dict[str, Mapping[str, Totals]]:
        """Return the sums of each project."""
        return {pid: self.find(pid, period, by).groups for pid in self.pids}


def _now_ms() -> int:
    return int(time.time() * 1000)


def _by_day(found: Iterable[Found]) -> dict[str, Totals]:
    return _added((start[:10], t) for each in found for start, t in each.buckets.items())


def _added(named: Iterable[Named]) -> dict[str, Totals]:
    tally: Tally[str] = Tally()
    for name, totals in named:
        tally.add(name, totals)
    return tally.sums()


def _sum(each: Iterable[Totals]) -> Totals:
    return sum(each, Totals())


# ---------------------------------------------------------------- the command


def show_usage(console: Console, options: argparse.Namespace) -> None:
    now_ms = _now_ms()
    times = Times.of(options, day_of(now_ms))
    if options.user is not None and not options.project:
        raise CommandError("A user is one of a project: name it with --project.")
    if options.csv and console.as_json:
        raise CommandError("Either --csv or --json.")
    if options.project:
        pids = [console.operator.project(options.project)["pid"]]
    else:
        pids = sorted(project["pid"] for project in console.operator.projects())
    reader = Reader(_usage(console), now_ms, pids, options.user)
    if options.csv:
        _write_csv(console, options, reader, times)
    elif options.by:
        _show_table(console, options, reader, times)
    elif len(pids) == 1:
        _show_project(console, options, reader, times)
    else:
        _show_projects(console, reader, times)


def repair_usage(console: Console, options: argparse.Namespace) -> int:
    """Return exit code 1 if there are rows that cannot be added."""
    try:
        done = console.operator.recount(_usage(console), kept_s=options.kept_days * DAY_S)
    except Crowded:
        raise CommandError(
            "Requests of this moment add to the same sums. What was added stays added: repeat it."
        ) from None
    document = {"added": done.added, "unreadable": [key._asdict() for key in done.unreadable]}
    lines = [f"Added: {done.added:,}. Requests of the last hour are left alone."]
    lines += [printable(f"Cannot be read: pk {pk}, sk {sk}") for pk, sk in done.unreadable]
    console.show(document, *lines)
    return 1 if done.unreadable else 0


def _usage(console: Console) -> Usage:
    return Usage(console.deployment.client("dynamodb"), console.deployment.outputs["TableName"])


def _show_project(
    console: Console, options: argparse.Namespace, reader: Reader, times: Times
) -> None:
    (pid,) = reader.pids
    now, before = reader.find(pid, times.now, "model"), reader.find(pid, times.before).totals
    by_day, total = _by_day([now]), now.totals
    users = {} if reader.user is not None else reader.find(pid, times.now, "user").groups
    document = {
        **_head(times),
        "project": pid,
        **({"user": reader.user} if reader.user is not None else {}),
        "total": total.told(),
        "before": before.told(),
        "days": _listed("day", sorted(by_day.items())),
        "models": _listed("model", by_cost(now.groups, options.top)),
        "users": _listed("user", by_cost(users, options.top)),
    }
    page = Page(Terminal.of(sys.stdout))
    usage_page.compare(page, str(reader), times, total, before)
    if total.requests:
        top = options.top or OVERVIEW_TOP
        usage_page.chart(page, by_day, times.shown)
        if users:
            usage_page.listed(page, "USER", users, by_cost(users, top))
        usage_page.listed(page, "MODEL", now.groups, by_cost(now.groups, top))
    console.show(document, *page.lines)


def _show_projects(console: Console, reader: Reader, times: Times) -> None:
    pids = reader.pids
    now = {pid: reader.find(pid, times.now) for pid in pids}
    sums = {pid: found.totals for pid, found in now.items()}
    before = {pid: reader.find(pid, times.before).totals for pid in pids}
    by_day = _by_day(now.values())
    total, total_before = _sum(sums.values()), _sum(before.values())
    document = {
        **_head(times),
        "total": total.told(),
        "before": total_before.told(),
        "days": _listed("day", sorted(by_day.items())),
        "projects": [
            {"project": pid, "total": totals.told(), "before": before[pid].told()}
            for pid, totals in by_cost(sums)
        ],
    }
    page = Page(Terminal.of(sys.stdout))
    usage_page.compare(page, str(reader), times, total, total_before)
    if total.requests:
        usage_page.chart(page, by_day, times.shown)
    if pids and (total.requests or total_before.requests):
        rows = [
            (pid, *numbers(totals), change(totals.nano_usd, before[pid].nano_usd))
            for pid, totals in by_cost(sums)
        ]
        last = ("Total", *numbers(total), change(total.nano_usd, total_before.nano_usd))
        page.table(("PROJECT", *usage_page.HEADS, "CHANGE"), [*rows, last])
    console.show(document, *page.lines)


def _show_table(
    console: Console, options: argparse.Namespace, reader: Reader, times: Times
) -> None:
    by: str = options.by
    groups = reader.groups(times.now, by)
    total = _sum(totals for sums in groups.values() for totals in sums.values())
    if console.as_json:
        data = [
            {"project": pid, **each}
            for pid, sums in groups.items()
            for each in _listed(by, _ordered(by, sums, options.top))
        ]
        return console.show({**_head(times), "by": by, "data": data, "total": total.told()})
    # A day and a model are the same in all projects; a user, or a session, is not.
    alone = len(reader.pids) == 1 or by in ("day", "model")
    sums = _added(
        ((name or NONE) if alone else f"{pid} / {name or NONE}", totals)
        for pid, each in groups.items()
        for name, totals in each.items()
    )
    page = Page(Terminal.of(sys.stdout))
    page.say(f"{reader}, {times.now} (UTC), by {by}:")
    if not total.requests:
        page.say(usage_page.NOTHING)
    else:
        default = None if by == "day" else TABLE_TOP
        head = by.upper() if alone else f"PROJECT / {by.upper()}"
        usage_page.listed(page, head, sums, _ordered(by, sums, options.top or default), total)
    return console.show(None, *page.lines)


def _write_csv(console: Console, options: argparse.Namespace, reader: Reader, times: Times) -> None:
    by = options.by or "day"
    rows = [
        (pid, name, totals)
        for pid, sums in reader.groups(times.now, by).items()
        for name, totals in _ordered(by, sums, options.top)
    ]
    if options.csv == "-":
        return write_csv(sys.stdout, by, rows)
    try:
        with Path(options.csv).open("w", encoding="utf-8", newline="") as file:
            write_csv(file, by, rows)
    except OSError as error:
        raise CommandError(f"{options.csv} cannot be written: {error.strerror}") from None
    return console.note(f"{len(rows):,} lines are in {options.csv}.")


def write_csv(file: TextIO, by: str, rows: Iterable[tuple[str, str, Totals]]) -> None:
    """Write (project, name, sum), with exact costs."""
    lines: list[list[str | int]] = [["project", by, *COUNTS, "cost_usd"]]
    for pid, name, totals in rows:
        counts = (getattr(totals, count) for count in COUNTS)
        lines.append([pid, name, *counts, spreadsheet.exact_usd(totals.nano_usd)])
    spreadsheet.write(file, lines)


def _ordered(by: str, sums: Mapping[str, Totals], most: int | None) -> list[Named]:
    shown = by_cost(sums, most)
    return sorted(shown) if by == "day" else shown


def _head(times: Times) -> dict[str, Any]:
    return {
        "from": str(times.now.first),
        "to": str(times.now.last),
        "compared_with": {"from": str(times.before.first), "to": str(times.before.last)},
    }


def _listed(by: str, named: Iterable[Named]) -> list[dict[str, Any]]:
    return [{by: name or None, **totals.told()} for name, totals in named]
