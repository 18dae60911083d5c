"""weir keys: API keys of servers."""

import argparse

from weir.errors import Refusal
from weir.identity import api_keys
from weir.identity.api_keys import ApiKey
from weir.operator.documents import NewApiKey, parsed

from . import text
from .console import Console
from .deployment import CommandError
from .flags import Commands, pid_of


def add_to(commands: Commands) -> None:
    group = commands.group("keys", "API keys of servers")
    group.command("list", list_keys, "a project's keys, without their secrets", project=True)
    create = group.command(
        "create", create_key, "make a key; it is printed once, alone on stdout", project=True
    )
    create.add_argument("--name", default="", help="what the key is for")
    create.add_argument(
        "--scope",
        dest="scopes",
        action="append",
        choices=(api_keys.MINT, api_keys.READ, api_keys.CHAT, api_keys.WEBHOOKS),
        help="mint: make and revoke tokens for users (the default); api:read: list models, read "
        "usage; api:chat: chat without a token, from a server; api:webhooks: change webhook "
        "endpoints; may be repeated",
    )
    create.add_argument(
        "--role",
        default="user",
        choices=("user", "admin"),
        help="the highest role that its tokens may have (default: user)",
    )
    revoke = group.command(
        "revoke", revoke_key, "stop a key, at once and for good", project=True, asks=True
    )
    revoke.add_argument("key", metavar="KEY", help="its id (key_…) or the key itself")


def list_keys(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    keys = console.operator.keys(pid)
    console.show({"data": [key.document() for key in keys]}, *key_lines(keys))
    if not keys:
        say = console.command("keys", "create", "--project", pid)
        console.note(f"There is none yet: {say}")


def create_key(console: Console, asked: argparse.Namespace) -> None:
    told = {"name": asked.name, "role": asked.role, "scopes": asked.scopes or [api_keys.MINT]}
    new = parsed(NewApiKey, told)
    secret, key = console.operator.create_key(
        pid_of(console, asked), name=new.name, scopes=new.scopes, role=new.role
    )
    # Alone on stdout, so that KEY=$(weir keys create) works.
    console.show({**key.document(), "secret": secret}, secret)
    console.note(
        f"{key.key_id} for project {key.pid}. It is shown only now: keep it on a server, as "
        "BEHEST_KEY, never in a page."
    )


def revoke_key(console: Console, asked: argparse.Namespace) -> None:
    pid, key_id = pid_of(console, asked), _id_of(asked.key)
    key = next((key for key in console.operator.keys(pid) if key.key_id == key_id), None)
    if key is None:
        say = console.command("keys", "list", "--project", pid)
        raise CommandError(f"No API key {key_id} in project {pid}. {say} shows them.")
    was_active = key.revoked_at is None
    if was_active:
        named = f" ({text.printable(key.name)})" if key.name else ""
        console.confirm(
            f"{key_id}{named} of project {pid} will be refused for good, and so will the tokens "
            "that it has made."
        )
        was_active = console.operator.revoke_key(pid, key_id)
    console.show(
        {"project": pid, "key_id": key_id, "revoked": True, "was_active": was_active},
        f"{key_id} of project {pid} is revoked: it mints nothing from now on, and tokens that it "
        "has made are refused within 5 seconds."
        if was_active
        else f"{key_id} of project {pid} was revoked before.",
    )


def key_lines(keys: list[ApiKey]) -> list[str]:
    rows = [
        (
            key.key_id,
            f"{key.display}…",
            f"revoked {text.day(key.revoked_at)}" if key.revoked_at else "active",
            text.day(key.created_at),
            text.day(key.last_used_at) or "never",
            " ".join(sorted(key.scopes)),
            key.role,
            key.name,
        )
        for key in keys
    ]
    heads = ("KEY", "STARTS WITH", "STATE", "CREATED", "LAST USED", "SCOPES", "ROLE", "NAME")
    return text.table(heads, rows)


def _id_of(key: str) -> str:
    """What was typed may be a secret, and is not repeated."""
    if key.startswith("key_"):
        return key
    try:
        return api_keys.key_id_of(api_keys.unverified_hash(key))
    except Refusal:
        raise CommandError("No API key looks like that, nor the id of one (key_…).") from None
