"""weir projects: make, show, change, suspend."""

import argparse
from collections.abc import Mapping
from typing import Any

from weir.configuration import NewProject, ProjectChange, parsed
from weir.limits import PROJECT, WITHOUT_TIER, Limits

from . import text
from .console import Console
from .deployment import CommandError
from .flags import Commands, add_limits_flag, changed_limits, text_or_file


def add_to(commands: Commands) -> None:
    group = commands.group("projects", "apps: each has its own pages, keys, models and limits")
    group.command("list", list_projects, "every project")
    show = group.command("show", show_project, "one project, with what holds for it")
    create = group.command("create", create_project, "make a project")
    update = group.command("update", update_project, "change what is named; the rest stays")
    suspend = group.command(
        "suspend", suspend_project, "refuse the project's keys and tokens, until it is resumed"
    )
    resume = group.command("resume", resume_project, "end a suspension")
    for parser in (show, create, update, suspend, resume):
        parser.add_argument("pid", metavar="PID", help="the project's id, such as my-shop")
    for parser in (create, update):
        _add_settings(parser, clearing=parser is update)


def _add_settings(parser: argparse.ArgumentParser, *, clearing: bool) -> None:
    """`clearing`: with the flags that take a setting back."""
    parser.set_defaults(cleared=[])
    parser.add_argument("--name", help="a name for people")
    many: dict[str, Any] = {"nargs": "+", "action": "extend"}
    parser.add_argument(
        "--origin",
        dest="origins",
        metavar="ORIGIN",
        help="the pages that may call, such as https://app.example.com; replaces the list "
        "(`weir origins add` adds to it)",
        **many,
    )
    parser.add_argument(
        "--preview-origin",
        dest="preview_origins",
        metavar="PATTERN",
        help="pages of preview deployments, such as https://*.preview.example.com; replaces the "
        "list",
        **many,
    )
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        dest="models",
        metavar="NAME",
        help="the models of the catalogue that may be asked for; replaces the list",
        **many,
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
    if clearing:
        for choice, flag, field, help_text in (
            (models, "--all-models", "models", "offer the whole catalogue (the default)"),
            (default, "--no-default-model", "default_model", "requests must name a model"),
            (prompt, "--no-system-prompt", "system_prompt", "put nothing before the messages"),
        ):
            choice.add_argument(
                flag,
                dest="cleared",
                action="append_const",
                const=field,
                help=help_text,
            )
    add_limits_flag(parser, "--limit", "of all users of the project together")
    add_limits_flag(parser, "--user-limit", "of each user whose token has no tier")


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
    told = {"pid": asked.pid, **_settings(asked, {})}
    made = console.operator.create_project(parsed(NewProject, told))
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
    told = _settings(asked, console.operator.project(asked.pid))
    if not told:
        raise CommandError("Say what to change; `weir projects update --help` lists the flags.")
    _show(console, console.operator.update_project(asked.pid, parsed(ProjectChange, told)))


def suspend_project(console: Console, asked: argparse.Namespace) -> None:
    _set_status(console, asked.pid, "suspended")
    console.note("Its keys and tokens are refused within 5 seconds.")


def resume_project(console: Console, asked: argparse.Namespace) -> None:
    _set_status(console, asked.pid, "active")


def _set_status(console: Console, pid: str, status: str) -> None:
    change = parsed(ProjectChange, {"status": status})
    told = console.operator.update_project(pid, change)
    console.show(told, f"The project {pid} is {told['status']}.")


def _settings(asked: argparse.Namespace, before: Mapping[str, Any]) -> dict[str, Any]:
    """What the flags say. Of limits the operation takes the whole set, so the others are added."""
    names = ("name", "origins", "preview_origins", "models", "default_model", "system_prompt")
    told = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    told.update(dict.fromkeys(asked.cleared))
    for field in ("limits", "user_limits"):
        if given := getattr(asked, field):
            told[field] = changed_limits(before.get(field, {}), given)
    return told


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
                ("Limits", _limits(PROJECT, project["limits"])),
                ("User limits", f"{_limits(WITHOUT_TIER, project['user_limits'])} (without tier)"),
                ("Changed tiers", ", ".join(sorted(project["tiers"])) or "none"),
                ("Created", text.day(project["created_at"])),
            ]
        ),
    )


def _limits(defaults: Limits, document: Mapping[str, Any]) -> str:
    return text.limits_text(defaults.overridden(document).document())


def _state(project: Mapping[str, Any]) -> str:
    states = [project["status"], text.off_text(project["killed"])]
    return ", ".join(state for state in states if state)
