"""weir status, weir url: what is deployed, and whether it answers."""

import argparse
import time
import urllib.error
import urllib.request
from typing import Any

from weir.errors import NotFound
from weir.identity.api_keys import ApiKey

from . import text
from .console import Console
from .flags import Commands
from .keys import key_lines


def add_to(commands: Commands) -> None:
    commands.command(
        "status", show_status, "what is deployed, and whether it answers (if not, exit code 1)"
    )
    commands.command("url", show_url, "the gateway's address, alone on stdout")


def show_url(console: Console, _asked: argparse.Namespace) -> None:
    # BEHEST_BASE_URL=$(weir url)
    console.show({"address": console.deployment.url}, console.deployment.url)


def show_status(console: Console, _asked: argparse.Namespace) -> int:
    deployment, operator = console.deployment, console.operator
    now = int(time.time())
    listed = [key for key in deployment.table().public_keys() if key.believed_at(now)]
    projects = [project["pid"] for project in operator.projects()]
    try:
        project, keys = operator.project(deployment.pid), operator.keys(deployment.pid)
    except NotFound:
        project, keys = None, []
    switches, wrong = operator.switches(), _wrong(deployment.url)
    overruns = operator.overruns()
    told = {
        "address": deployment.url,
        "stack_status": deployment.stack_status,
        "answers": wrong is None,
        "signing_keys": len(listed),
        "projects": projects,
        "project": project,
        "keys": [key.document() for key in keys],
        "kill_switches": switches,
        "overruns": overruns,
    }
    if listed:
        newest = text.day(max(key.created_at for key in listed))
        signing = f"{len(listed)} listed, the newest of {newest}"
    else:
        signing = "none yet: the first rotation has not run. Mint answers 503 until then."
    off = [" ".join(s[n] for n in _NAMES if n in s) for s in switches]
    rows = [
        ("Address", deployment.url),
        ("Stack", deployment.stack_status),
        ("Answers", "yes" if wrong is None else f"no ({wrong})"),
        ("Signing keys", signing),
        ("Switched off", ", ".join(off) or "nothing"),
        *(("Above worst case", _overrun(console, each)) for each in overruns),
        ("Projects", len(projects)),
        *_project_rows(console, project, keys),
    ]
    console.show(told, *text.aligned(rows), *(f"  {line}" for line in key_lines(keys) if keys))
    return 0 if wrong is None and listed else 1


_NAMES = ("scope", "project", "model", "user_id")


def _overrun(console: Console, overrun: dict[str, Any]) -> str:
    name, times = overrun["candidate"], overrun["percent"] / 100
    reset = console.command("models", "reset-worst-case", name)
    return f"{name}: {times:g} times its output cap is reserved ({reset})"


def _project_rows(
    console: Console, project: dict[str, Any] | None, keys: list[ApiKey]
) -> list[tuple[str, str]]:
    """Of the project whose users sign in with the stack's own pool."""
    pid = console.deployment.pid
    if project is None:
        return [("Project", f"{pid}, not made yet: {console.command('projects', 'create', pid)}")]
    add = console.command("origins", "add", "https://…")
    choose = console.command("projects", "update", pid, "--default-model", "NAME")
    active = sum(1 for key in keys if key.revoked_at is None)
    counted = f"{active} active, {len(keys) - active} revoked"
    return [
        ("Project", f"{pid} ({project['status']})"),
        ("Origins", ", ".join(project["origins"]) or f"none: {add}"),
        ("Model", project["default_model"] or f"no default: {choose}"),
        ("API keys", counted if keys else f"none: {console.command('keys', 'create')}"),
    ]


def _wrong(url: str) -> str | None:
    """None if the gateway serves its key list."""
    try:
        with urllib.request.urlopen(f"{url}/.well-known/jwks.json", timeout=10) as reply:  # noqa: S310
            reply.read()
    except (urllib.error.URLError, OSError) as error:
        return str(error)
    return None
