"""weir kill, weir revive, weir switches."""

import argparse

from weir.operator.documents import KillSwitch, parsed

from . import text
from .console import Console
from .flags import Commands, pid_of


def add_to(commands: Commands) -> None:
    kill = commands.group("kill", "switch something off: its requests are refused with 403")
    revive = commands.group("revive", "switch it on again")
    for group, off in ((kill, True), (revive, False)):
        tenant = group.command("tenant", switch, "all projects together", asks=off)
        project = group.command("project", switch, "one project", asks=off)
        project.add_argument("name", metavar="PID")
        model = group.command("model", switch, "one model, for everybody")
        model.add_argument("name", metavar="NAME", help="its name in the catalogue")
        user = group.command("user", switch, "one user of a project", project=True)
        user.add_argument("name", metavar="UID", help="the user_id that his tokens were made for")
        verbs = {"tenant": tenant, "project": project, "model": model, "user": user}
        for scope, parser in verbs.items():
            parser.set_defaults(scope=scope, off=off, reason="")
            if off:
                help_text = "kept in the audit trail, and shown by `weir switches`"
                parser.add_argument("--reason", metavar="TEXT", help=help_text)
    commands.command("switches", list_switches, "everything that is switched off now")


def switch(console: Console, asked: argparse.Namespace) -> None:
    named = {"scope": asked.scope, "off": asked.off, "reason": asked.reason}
    if asked.scope == "user":
        named |= {"project": pid_of(console, asked), "user_id": asked.name}
    elif asked.scope != "tenant":
        named[asked.scope] = asked.name
    told = parsed(KillSwitch, named)
    changes = _is_off(console, told) != asked.off
    _apply(console, told, ask=asked.off and changes)
    what = "tenant" if asked.scope == "tenant" else f"{asked.scope} {asked.name}"
    when = "within 5 seconds"
    if asked.scope == "user":
        what += f" of project {told.project}"
        when = "on his next request"
    if changes:
        said = f"The {what} is switched {'off' if asked.off else 'on'}; it counts {when}."
    else:
        said = f"The {what} was {'switched off already' if asked.off else 'not switched off'}."
    console.show({"data": console.operator.switches()}, text.printable(said))


def _is_off(console: Console, told: KillSwitch) -> bool:
    names = {name: getattr(told, name) for name in ("scope", "project", "model", "user_id")}
    return any(
        all(each.get(name) == value for name, value in names.items())
        for each in console.operator.switches()
    )


def _apply(console: Console, told: KillSwitch, *, ask: bool) -> None:
    operator, off, reason = console.operator, told.off, told.reason
    if told.scope == "tenant":
        if ask:
            console.confirm("Every request of every project will be refused.")
        operator.switch_tenant(off=off, reason=reason)
    elif told.scope == "project":
        pid = str(told.project)
        operator.project(pid)
        if ask:
            console.confirm(f"Every request of the project {pid} will be refused.")
        operator.switch_project(pid, off=off, reason=reason)
    elif told.scope == "model":
        operator.switch_model(str(told.model), off=off, reason=reason)
    else:
        operator.switch_user(str(told.project), str(told.user_id), off=off, reason=reason)


def list_switches(console: Console, _asked: argparse.Namespace) -> None:
    found = console.operator.switches()
    rows = [
        (
            each["scope"],
            " ".join(each[n] for n in ("project", "model", "user_id") if n in each),
            text.day(each["at"]),
            each["by"],
            each["reason"],
        )
        for each in found
    ]
    lines = text.table(("WHAT", "WHICH", "SINCE", "BY", "REASON"), rows)
    console.show({"data": found}, *(lines if rows else ["Nothing is switched off."]))
