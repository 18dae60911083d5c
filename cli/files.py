"""weir export, weir import: the whole configuration as one file, to be kept and compared."""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from weir.operator.documents import ConfigurationFile, parsed
from weir.projects.upstream_kinds import takes_key

from . import text
from .console import Console
from .deployment import CommandError
from .flags import Commands, read_input
from .upstreams import advise_key


def add_to(commands: Commands) -> None:
    export = commands.command(
        "export",
        export_file,
        "write everything that was set, without keys, kill switches and users",
    )
    export.add_argument("file", metavar="FILE", nargs="?", help="where to (default: stdout)")
    import_ = commands.command(
        "import",
        import_file,
        "make what a file names equal to the file, all or nothing; what it does not name stays",
        asks=True,
    )
    import_.add_argument("file", metavar="FILE", help="what `weir export` wrote; - for stdin")
    import_.add_argument(
        "--dry-run", action="store_true", help="only say what would change, and change nothing"
    )


def export_file(console: Console, asked: argparse.Namespace) -> None:
    # Sorted: two exports of the same are the same file.
    told = console.operator.exported()
    written = json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if asked.file is None:
        console.show(told, written.rstrip("\n"))
        return
    try:
        Path(asked.file).write_text(written, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{asked.file} cannot be written: {error}") from None
    console.show({"file": asked.file}, f"Written to {asked.file}.")


def import_file(console: Console, asked: argparse.Namespace) -> None:
    try:
        told = json.loads(read_input(asked.file))
    except ValueError as error:
        raise CommandError(f"{asked.file} is not JSON: {error}.") from None
    if isinstance(told, dict) and "format" not in told:
        raise CommandError("This is not a file of `weir export`: format is missing.")
    file = parsed(ConfigurationFile, told)
    changes = console.operator.imported(file, dry_run=True)
    applied = bool(changes) and not asked.dry_run
    if applied:
        if not console.yes:  # what is asked about must have been seen
            console.note("\n".join(_lines(changes)))
        console.confirm(f"{_count(changes)} will be changed, as told above.")
        changes = console.operator.imported(file, dry_run=False)
    lines = _lines(changes) if console.yes or not applied else []
    lines.append(f"{_count(changes)} {'would change' if asked.dry_run else 'changed'}.")
    console.show({"applied": applied, "changes": changes}, *lines)
    if applied:
        for name, upstream in console.operator.catalogue()["upstreams"].items():
            if name in file.upstreams and takes_key(upstream["kind"]):
                advise_key(console, name, upstream)


def _count(changes: list[dict[str, Any]]) -> str:
    return {0: "Nothing", 1: "One record"}.get(len(changes), f"{len(changes)} records")


def _what(change: Mapping[str, Any]) -> str:
    """project shop; but catalogue, tenant: there is one of each."""
    kind = str(change["action"]).partition(".")[0]
    return kind if kind == change["target"] else f"{kind} {change['target']}"


def _lines(changes: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        line
        for change in changes
        for line in (
            _what(change),
            *(f"  {each}" for each in text.differences(change["before"], change["after"])),
        )
    ]
