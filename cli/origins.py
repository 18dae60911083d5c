"""weir origins, weir cors: which pages may call, and why one may not."""

import argparse
from dataclasses import asdict

from weir.operator.documents import ProjectChange, parsed
from weir.web.origins import MOST_TOLD, diagnose, parse_origin

from . import text
from .console import Console
from .flags import Commands, pid_of


def add_to(commands: Commands) -> None:
    group = commands.group("origins", "the pages that may call a project")
    group.command("list", list_origins, "a project's origins", project=True)
    add = group.command("add", add_origins, "allow pages", project=True)
    remove = group.command("remove", remove_origins, "allow pages no longer", project=True)
    for parser in (add, remove):
        parser.add_argument(
            "origins", metavar="ORIGIN", nargs="+", help="such as https://app.example.com"
        )
        parser.add_argument(
            "--preview",
            action="store_true",
            help="patterns for preview deployments, such as https://*.preview.example.com",
        )

    cors = commands.group("cors", "why a page is refused")
    check = cors.command(
        "check",
        check_origin,
        "say whether a page may call, and if not, why (exit code 1) and how to allow it",
        project=True,
    )
    check.add_argument("origin", metavar="ORIGIN", help="as the browser's console shows it")
    cors.command(
        "refused",
        list_refused,
        "the pages that were refused in the last 30 days, latest first",
        project=True,
    )


def list_origins(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    _show(console, pid, console.operator.project(pid))


def add_origins(console: Console, asked: argparse.Namespace) -> None:
    field = "preview_origins" if asked.preview else "origins"
    given = parsed(ProjectChange, {field: asked.origins}).stored()[field]
    pid = pid_of(console, asked)
    told = console.operator.change_origins(pid, add=given, previews=asked.preview)
    _show(console, pid, told, changed=True)
    console.note("It counts within 5 seconds, at preflights within 30.")


def remove_origins(console: Console, asked: argparse.Namespace) -> None:
    given = asked.origins if asked.preview else [_as_listed(origin) for origin in asked.origins]
    pid = pid_of(console, asked)
    told = console.operator.change_origins(pid, remove=given, previews=asked.preview)
    _show(console, pid, told, changed=True)
    console.note(
        "It counts within 5 seconds. Browsers that have asked before may try for two hours; they "
        "are refused."
    )


def _as_listed(origin: str) -> str:
    try:
        return parse_origin(origin)
    except ValueError:
        return origin  # is not listed, then


def _show(
    console: Console, pid: str, project: dict[str, list[str]], *, changed: bool = False
) -> None:
    exact, previews = project["origins"], project["preview_origins"]
    lines = [*exact, *(f"{pattern}  (preview deployments)" for pattern in previews)]
    # The project may have been taken for another one.
    head = [f"Pages that may call the project {pid} now:"] if changed and lines else []
    console.show({"project": pid, "origins": exact, "preview_origins": previews}, *head, *lines)
    if not lines:
        say = console.command("origins", "add", "https://…", "--project", pid)
        console.note(f"No page may call the project {pid}: {say}")


def check_origin(console: Console, asked: argparse.Namespace) -> int:
    pid = pid_of(console, asked)
    console.operator.project(pid)
    lists = console.operator.origins()
    allowed = lists.pop(pid)
    verdict = diagnose(asked.origin, allowed, lists)
    # What is allowed already, only spelled otherwise, need not be added.
    remedy = None
    if verdict.suggestion is not None and verdict.suggestion not in allowed:
        remedy = console.command("origins", "add", verdict.suggestion, "--project", pid)
    told = {"origin": asked.origin[:MOST_TOLD], **asdict(verdict), "command": remedy}
    lines = [verdict.message]
    if remedy is not None:
        lines.append(f"To allow {verdict.suggestion}: {remedy}")
    console.show(told, *map(text.printable, lines))
    return 0 if verdict.allowed else 1


def list_refused(console: Console, asked: argparse.Namespace) -> None:
    """At a preflight the project is not known yet: those of all projects are told together."""
    places = [
        (pid_of(console, asked), "this project does not list it (its preflight was allowed)"),
        ("", "no project lists it (its preflight was refused)"),
    ]
    found = sorted(
        (
            (at, origin, pid, why)
            for pid, why in places
            for origin, at in console.operator.refused_origins(pid)
        ),
        reverse=True,
    )
    data = [
        {"origin": origin, "last_at": at, "project": pid or None} for at, origin, pid, _ in found
    ]
    rows = [(origin, text.day(at), why) for at, origin, _, why in found]
    lines = text.table(("ORIGIN", "LAST", "WHY"), rows) if rows else ["No page was refused."]
    console.show({"data": data}, *lines)
    if rows:
        say = console.command("cors", "check", "ORIGIN", "--project", pid_of(console, asked))
        console.note(f"More about one of them: {say}")
