"""How commands are declared, and the flags that several of them take."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from weir.operator.documents import refusal_of
from weir.projects.limits import BY_PUBLIC_NAME

from . import text
from .console import Console
from .deployment import CommandError

Run = Callable[[Console, argparse.Namespace], int | None]

LIMITS = tuple(BY_PUBLIC_NAME)
_DEFAULT = object()  # the limit that holds if none is set


class Parser(argparse.ArgumentParser):
    """argparse repeats what it does not understand; that may be a key."""

    def error(self, message: str) -> NoReturn:
        super().error(text.without_keys(message))


class Commands:
    """A parser's verbs and groups. A group alone prints its help."""

    def __init__(self, parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
        parser.set_defaults(run=None, parser=parser)
        self._parsers = parser.add_subparsers(metavar="COMMAND", title="commands")
        self._shared = shared

    def group(self, name: str, help_text: str) -> "Commands":
        return Commands(self._parser(name, help_text), self._shared)

    def command(
        self, name: str, run: Run, help_text: str, *, project: bool = False, asks: bool = False
    ) -> argparse.ArgumentParser:
        """`project`: it is about one project. `asks`: it asks before it does what it does."""
        parser = self._parser(name, help_text)
        parser.set_defaults(run=run)
        if project:
            parser.add_argument(
                "--project", metavar="PID", help="the project (default: the stack's ProjectId)"
            )
        if asks:
            parser.add_argument(
                "--yes", action="store_true", help="do it without asking; scripts need this"
            )
        return parser

    def _parser(self, name: str, help_text: str) -> argparse.ArgumentParser:
        return self._parsers.add_parser(
            name, help=help_text, description=help_text, parents=[self._shared]
        )


def shared() -> argparse.ArgumentParser:
    """Accepted before and after a command."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--stack", metavar="NAME", help="the CloudFormation stack to speak to")
    either.add_argument("--local", action="store_true", help="the gateway of `make run`")
    parser.add_argument(
        "--json", action="store_true", help="answer with one JSON document, for scripts"
    )
    return parser


def where(asked: argparse.Namespace) -> tuple[str, ...]:
    """The words that name the deployment, if it was named."""
    if "stack" in asked:
        return ("--stack", asked.stack)
    return ("--local",) if "local" in asked else ()


def pid_of(console: Console, asked: argparse.Namespace) -> str:
    return str(asked.project or console.deployment.pid)


def limit(typed: str, values: str = "a number, none (no limit) or default") -> tuple[str, Any]:
    """`rpm=60`, `rpm=none`, `rpm=default`."""
    name, _, value = typed.partition("=")
    if name not in LIMITS:
        raise argparse.ArgumentTypeError(
            f"{typed!r}: a limit is NAME=VALUE, of {', '.join(LIMITS)}"
        )
    if value == "none":
        return name, None
    if value == "default":
        return name, _DEFAULT
    try:
        return name, BY_PUBLIC_NAME[name].number(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{typed!r}: a limit is {values}") from None


def tier_limit(typed: str) -> tuple[str, Any]:
    """Of a tier no single one is taken back: `default` is understood, and not offered."""
    return limit(typed, "a number or none (no limit)")


def named_limits(given: Iterable[tuple[str, Any]]) -> tuple[dict[str, Any], set[str]]:
    """Those that are set, and those that go back to their defaults."""
    last = dict(given)
    told = {name: value for name, value in last.items() if value is not _DEFAULT}
    return told, last.keys() - told.keys()


def add_limits_flag(
    parser: argparse.ArgumentParser, flag: str, of: str, *, changing: bool = True
) -> None:
    """`changing`: of what has limits already."""
    stay = ". Limits that are not named stay" if changing else ""
    parser.add_argument(
        flag,
        metavar="NAME=VALUE",
        dest=f"{flag.strip('-').replace('-', '_')}s",
        type=limit,
        action="append",
        default=[],
        help=f"a limit {of}: {', '.join(LIMITS)}; VALUE is a number, none (no limit) or default; "
        f"may be repeated{stay}",
    )


def add_allowed_fields_flag(parser: argparse._ActionsContainer, of: str) -> None:
    parser.add_argument(
        "--allow-field",
        dest="allowed_fields",
        metavar="NAME",
        action="append",
        help=f"a further field of a chat request that is passed on {of}; may be repeated, and "
        "replaces the list",
    )


def add_shards_flag(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument(
        "--ledger-shards",
        metavar="N",
        type=int,
        help=f"into how many items the counters {of} are divided, 1 to 16. One serves some 20 "
        "requests a second; raise it when requests are refused with ledger_busy",
    )


def text_or_file(typed: str) -> str:
    """`@FILE` is the file's content."""
    if not typed.startswith("@"):
        return typed
    try:
        return Path(typed[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{typed[1:]} cannot be read: {error}") from None


def named_prompt(typed: str) -> tuple[str, str]:
    """Return name and text of `NAME=TEXT` or `NAME=@FILE`."""
    name, equals, text = typed.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{typed[:60]!r} is not NAME=TEXT or NAME=@FILE")
    return name, text_or_file(text)


def read_input(path: str) -> str:
    """Of a file, or of stdin for `-`."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from None


def checked_name(kind: Any, name: str, what: str) -> str:
    """Raises CommandError if nothing may be called that."""
    try:
        TypeAdapter(kind).validate_python(name)
    except ValidationError as error:
        told = refusal_of(error.errors(include_url=False, include_input=False)).message
        raise CommandError(f"{name!r} cannot name {what}: {told}") from None
    return name
