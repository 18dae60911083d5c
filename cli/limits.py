"""weir tiers, weir tenant: how much may be used."""

import argparse
from typing import Any

from weir.operator.documents import LimitsDocument, TenantDocument, TierName, parsed
from weir.projects.limits import BUILT_IN

from . import text
from .console import Console
from .deployment import CommandError
from .flags import (
    Commands,
    add_limits_flag,
    add_shards_flag,
    checked_name,
    named_limits,
    pid_of,
    tier_limit,
)


def add_to(commands: Commands) -> None:
    group = commands.group("tiers", "how much one user may use, by the tier in his token")
    group.command("list", list_tiers, "a project's tiers, with the limits that hold", project=True)
    set_ = group.command(
        "set",
        set_tier,
        "change limits of a tier; a new name becomes a tier of the project's own (at most 3)",
        project=True,
    )
    reset = group.command(
        "reset",
        reset_tier,
        "take free, pro or max back to its defaults; remove a tier of the project's own",
        project=True,
        asks=True,
    )
    for parser in (set_, reset):
        parser.add_argument("name", metavar="NAME", help="free, pro, max, or one of your own")
    set_.add_argument(
        "limits",
        metavar="LIMIT=VALUE",
        type=tier_limit,
        nargs="+",
        help="such as rpm=60 tokens_per_day=none; limits that are not named stay",
    )

    tenant = commands.group("tenant", "what holds for all projects together")
    tenant.command("show", show_tenant, "the limits of the whole deployment")
    update = tenant.command("update", update_tenant, "change the limits that are named")
    add_limits_flag(update, "--limit", "of all projects together")
    add_shards_flag(update, "of all projects together")


def list_tiers(console: Console, asked: argparse.Namespace) -> None:
    tiers = console.operator.tiers(pid_of(console, asked))
    rows = [
        (t["number"], t["name"], " ".join(t["changed"]) or "-", text.limits_text(t["limits"]))
        for t in tiers
    ]
    console.show({"data": tiers}, *text.table(("NUMBER", "NAME", "CHANGED", "LIMITS"), rows))


def set_tier(console: Console, asked: argparse.Namespace) -> None:
    pid, name = pid_of(console, asked), checked_name(TierName, asked.name, "a tier")
    told, unset = named_limits(asked.limits)
    if unset:
        say = console.command("tiers", "reset", name, "--project", pid)
        does = "resets them all" if name in BUILT_IN else "removes the tier"
        raise CommandError(f"One limit cannot be taken back alone; `{say}` {does}.")
    tier = console.operator.set_tier(pid, name, parsed(LimitsDocument, told))
    console.show(
        {"project": pid, **tier},
        f"Tier {tier['number']} ({tier['name']}) of project {pid}: "
        f"{text.limits_text(tier['limits'])}",
    )


def reset_tier(console: Console, asked: argparse.Namespace) -> None:
    pid, name = pid_of(console, asked), asked.name
    if name not in BUILT_IN and name in (t["name"] for t in console.operator.tiers(pid)):
        console.confirm(
            f"The tier {name!r} of project {pid} will be removed; its users become free."
        )
    console.operator.reset_tier(pid, name)
    done = "is back to its defaults" if name in BUILT_IN else "is removed"
    told = {"project": pid, "name": name, "removed": name not in BUILT_IN}
    console.show(told, f"The tier {name!r} of project {pid} {done}.")


def show_tenant(console: Console, _asked: argparse.Namespace) -> None:
    tenant = console.operator.tenant()
    rows = [
        ("Limits", text.limits_text(tenant["limits"])),
        ("Ledger shards", tenant["ledger_shards"]),
        ("State", text.off_text(tenant["killed"]) or "on"),
    ]
    console.show(tenant, *text.aligned(rows))


def update_tenant(console: Console, asked: argparse.Namespace) -> None:
    if not asked.limits and asked.ledger_shards is None:
        raise CommandError("Say what to change: --limit usd_per_month=100, for example.")
    limits, unset = named_limits(asked.limits)
    told: dict[str, Any] = {"limits": limits}
    if asked.ledger_shards is not None:
        told["ledger_shards"] = asked.ledger_shards
    tenant = console.operator.update_tenant(parsed(TenantDocument, told), {"limits": unset})
    console.show(
        tenant,
        f"Limits of the deployment: {text.limits_text(tenant['limits'])}; "
        f"ledger shards: {tenant['ledger_shards']}",
    )
