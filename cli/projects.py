"""weir projects: make, show, change, suspend."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from weir.errors import BadRequest
from weir.operator.documents import NewProject, ProjectChange, parsed
from weir.operator.known_models import load
from weir.projects.limits import CUSTOMER, PROJECT, WITHOUT_TIER, Limits
from weir.projects.project import NEW_CUSTOMERS_PER_HOUR

from . import text
from .console import Console
from .deployment import CommandError
from .flags import (
    Commands,
    add_allowed_fields_flag,
    add_limits_flag,
    add_shards_flag,
    named_limits,
    named_prompt,
    text_or_file,
)

_LIMITS = ("limits", "user_limits", "customer_limits")


def add_to(commands: Commands) -> None:
    group = commands.group("projects", "apps: each has its own pages, keys, models and limits")
    group.command("list", list_projects, "every project")
    show = group.command("show", show_project, "one project, with what holds for it")
    create = group.command("create", create_project, "make a project")
    update = group.command("update", update_project, "change what is named; the rest stays")
    suspend = group.command(
        "suspend",
        suspend_project,
        "refuse the project's keys and tokens, until it is resumed",
        asks=True,
    )
    resume = group.command("resume", resume_project, "end a suspension")
    for parser in (show, create, update, suspend, resume):
        parser.add_argument("pid", metavar="PID", help="the project's id, such as my-shop")
    for parser in (create, update):
        _add_settings(parser, changing=parser is update)


def _add_settings(parser: argparse.ArgumentParser, *, changing: bool) -> None:
    """`changing`: of a project that is there, with the flags that take a setting back."""
    parser.set_defaults(cleared=[])
    parser.add_argument("--name", help="a name for people")
    repeated = "; may be repeated" + ("; replaces the list" if changing else "")
    adds = " (`weir origins add` adds to it)" if changing else ""
    parser.add_argument(
        "--origin",
        dest="origins",
        metavar="ORIGIN",
        action="append",
        help=f"a page that may call, such as https://app.example.com{repeated}{adds}",
    )
    parser.add_argument(
        "--preview-origin",
        dest="preview_origins",
        metavar="PATTERN",
        action="append",
        help="pages of preview deployments, such as https://*.preview.example.com" + repeated,
    )
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        dest="models",
        metavar="NAME",
        action="append",
        help=f"a model of the catalogue that may be asked for{repeated}",
    )
    default = parser.add_mutually_exclusive_group()
    default.add_argument(
        "--default-model", metavar="NAME", help="the model of a request that names none"
    )
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument(
        "--system-prompt",
        metavar="TEXT|@FILE",
        type=text_or_file,
        help="put before the messages of every caller",
    )
    address = parser.add_mutually_exclusive_group()
    address.add_argument(
        "--rpm-per-address",
        metavar="N",
        type=int,
        help="chat requests a minute from one network address, whoever sends them",
    )
    parser.add_argument(
        "--new-customers-per-hour",
        metavar="N",
        type=int,
        help=f"how many customers may be created ({NEW_CUSTOMERS_PER_HOUR})",
    )
    parser.add_argument(
        "--prompt",
        dest="prompts",
        metavar="NAME=TEXT|NAME=@FILE",
        type=named_prompt,
        action="append",
        help="a system prompt that a client token may name; may be repeated, and replaces the list",
    )
    allowed = parser.add_mutually_exclusive_group()
    add_allowed_fields_flag(allowed, "to every provider")
    retention = _add_memory_flags(parser)
    if changing:
        for choice, flag, field, help_text in (
            (models, "--all-models", "models", "offer the whole catalogue (the default)"),
            (default, "--no-default-model", "default_model", "requests must name a model"),
            (prompt, "--no-system-prompt", "system_prompt", "put nothing before the messages"),
            (
                address,
                "--no-rpm-per-address",
                "rpm_per_address",
                "do not count by network address (the default)",
            ),
            (allowed, "--no-allowed-fields", "allowed_fields", "allow no further field"),
            (retention, "--no-retention-days", "retention_days", "keep threads until deleted"),
        ):
            choice.add_argument(
                flag,
                dest="cleared",
                action="append_const",
                const=field,
                help=help_text,
            )
    for flag, of in (
        ("--limit", "of all users of the project together"),
        ("--user-limit", "of each user whose token has no tier"),
        ("--customer-limit", "of a customer that is created without limits of its own"),
    ):
        add_limits_flag(parser, flag, of, changing=changing)
    add_shards_flag(parser, "of all users of the project together")


def _add_memory_flags(parser: argparse.ArgumentParser) -> Any:
    """Return the group of the flags that say for how long threads are kept."""
    parser.add_argument(
        "--memory-window",
        metavar="TURNS",
        type=int,
        help="how many turns of a thread or session are sent with a request, 0 to 200 (20)",
    )
    retention = parser.add_mutually_exclusive_group()
    retention.add_argument(
        "--retention-days",
        metavar="DAYS",
        type=int,
        help="for how long what is said in a thread is kept; 0: nothing is kept",
    )
    parser.add_argument(
        "--memory-enabled",
        action=argparse.BooleanOptionalAction,
        help="remember a session, so that requests of it need not bring their history",
    )
    parser.add_argument(
        "--store-tool-calls",
        action=argparse.BooleanOptionalAction,
        help="keep tool calls and their results in threads (the default)",
    )
    return retention


def list_projects(console: Console, _asked: argparse.Namespace) -> None:
    found = console.operator.projects()
    rows = [
        (p["pid"], _state(p), len(p["origins"]), p["default_model"] or "-", p["name"] or "")
        for p in found
    ]
    heads = ("PROJECT", "STATE", "ORIGINS", "DEFAULT MODEL", "NAME")
    console.show({"data": found}, *text.table(heads, rows))
    if not found:
        console.note(f"There is none yet: {console.command('projects', 'create', 'PID')}")


def show_project(console: Console, asked: argparse.Namespace) -> None:
    _show(console, console.operator.project(asked.pid))


def create_project(console: Console, asked: argparse.Namespace) -> None:
    told, _ = _settings(asked)
    with _models_that_are_known(console, asked):
        made = console.operator.create_project(parsed(NewProject, {"pid": asked.pid, **told}))
    _show(console, made)
    pid = made["pid"]
    if not made["default_model"]:
        _advise_default_model(console, pid)
    if not made["origins"]:
        say = console.command("origins", "add", "https://…", "--project", pid)
        console.note(f"No page may call it yet: {say}")
    say = console.command("keys", "create", "--project", pid)
    console.note(f"A key for your server: {say}")


def _advise_default_model(console: Console, pid: str) -> None:
    models = sorted(console.operator.catalogue()["models"])
    if not models:
        console.note(f"The catalogue has no model yet: {console.command('models', 'add', 'NAME')}")
    name = models[0] if len(models) == 1 else "NAME"
    say = console.command("projects", "update", pid, "--default-model", name)
    console.note(f"It has no default model; requests must name one, until: {say}")


def update_project(console: Console, asked: argparse.Namespace) -> None:
    told, unset = _settings(asked)
    if not told:
        raise CommandError("Say what to change; `weir projects update --help` lists the flags.")
    with _models_that_are_known(console, asked):
        changed = console.operator.update_project(asked.pid, parsed(ProjectChange, told), unset)
    _show(console, changed)


@contextmanager
def _models_that_are_known(console: Console, asked: argparse.Namespace) -> Iterator[None]:
    """Of a model that is refused because nobody has added it yet, says how."""
    try:
        yield
    except BadRequest as refusal:
        named = (
            {asked.default_model} if refusal.param == "default_model" else set(asked.models or ())
        )
        missing = named & load().models.keys() - console.operator.catalogue()["models"].keys()
        if not missing or refusal.param not in ("default_model", "models"):
            raise
        say = "; ".join(f"`{console.command('models', 'add', name)}`" for name in sorted(missing))
        raise CommandError(f"{refusal.param}: {refusal.message} To add it: {say}.") from None


def suspend_project(console: Console, asked: argparse.Namespace) -> None:
    if _is(console, asked.pid, "suspended"):
        return
    console.confirm(f"Every key and token of the project {asked.pid} will be refused.")
    _set_status(console, asked.pid, "suspended")
    console.note("Its keys and tokens are refused within 5 seconds.")


def resume_project(console: Console, asked: argparse.Namespace) -> None:
    if not _is(console, asked.pid, "active"):
        _set_status(console, asked.pid, "active")


def _is(console: Console, pid: str, status: str) -> bool:
    """If so, it is told."""
    project = console.operator.project(pid)
    if project["status"] != status:
        return False
    console.show(project, f"The project {pid} was {status} already.")
    return True


def _set_status(console: Console, pid: str, status: str) -> None:
    change = parsed(ProjectChange, {"status": status})
    told = console.operator.update_project(pid, change)
    console.show(told, f"The project {pid} is {told['status']}.")


def _settings(asked: argparse.Namespace) -> tuple[dict[str, Any], dict[str, set[str]]]:
    """What the flags say; and the limits that go back to their defaults."""
    names = (
        "name",
        "origins",
        "preview_origins",
        "models",
        "default_model",
        "system_prompt",
        "allowed_fields",
        "memory_enabled",
        "memory_window",
        "retention_days",
        "store_tool_calls",
        "rpm_per_address",
        "new_customers_per_hour",
        "ledger_shards",
    )
    told = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    if asked.prompts is not None:
        told["prompts"] = dict(asked.prompts)
    told.update(dict.fromkeys(asked.cleared))
    unset = {}
    for field in _LIMITS:
        if given := getattr(asked, field):
            told[field], unset[field] = named_limits(given)
    return told, unset


def _show(console: Console, project: Mapping[str, Any]) -> None:
    prompt, models = project["system_prompt"], project["models"]
    console.show(
        project,
        *text.aligned(
            [
                ("Project", project["pid"]),
                ("Name", project["name"] or "-"),
                ("State", _state(project)),
                ("Origins", ", ".join(project["origins"]) or "none"),
                ("Preview origins", ", ".join(project["preview_origins"]) or "none"),
                ("Models", "the whole catalogue" if models is None else ", ".join(models)),
                ("Default model", project["default_model"] or "none"),
                ("System prompt", f"{len(prompt)} characters" if prompt else "none"),
                ("Allowed fields", ", ".join(project["allowed_fields"]) or "none"),
                ("Threads", _memory(project)),
                ("Limits", _limits(PROJECT, project["limits"])),
                ("User limits", f"{_limits(WITHOUT_TIER, project['user_limits'])} (without tier)"),
                ("Customer limits", _limits(CUSTOMER, project["customer_limits"])),
                ("New customers an hour", project["new_customers_per_hour"]),
                ("Prompts for client tokens", ", ".join(sorted(project["prompts"])) or "none"),
                ("Requests a minute per address", project["rpm_per_address"] or "any number"),
                ("Ledger shards", project["ledger_shards"]),
                ("Changed tiers", ", ".join(sorted(project["tiers"])) or "none"),
                ("Created", text.day(project["created_at"])),
            ]
        ),
    )


def _memory(project: Mapping[str, Any]) -> str:
    days, window = project["retention_days"], project["memory_window"]
    if days == 0:
        return "nothing is kept"
    kept = "kept until they are deleted" if days is None else f"kept for {days} days"
    tools = "" if project["store_tool_calls"] else "; no tool calls"
    sessions = "; sessions are remembered" if project["memory_enabled"] else ""
    return f"{kept}; at most {window} turns are sent{tools}{sessions}"


def _limits(defaults: Limits, document: Mapping[str, Any]) -> str:
    return text.limits_text(defaults.overridden(document).document())


def _state(project: Mapping[str, Any]) -> str:
    states = [project["status"], text.off_text(project["killed"])]
    return ", ".join(state for state in states if state)
