"""weir erase-user, weir admins, weir audit: about people."""

import argparse
from typing import Any

from weir.cognito import ADMINS
from weir.configuration import EraseUser, parsed

from . import text
from .console import Console
from .deployment import CommandError
from .flags import Commands, pid_of


def add_to(commands: Commands) -> None:
    erase = commands.command(
        "erase-user",
        erase_user,
        "remove what a user has said and been told; it cannot be undone",
        project=True,
        asks=True,
    )
    erase.add_argument("uid", metavar="UID", help="the user_id that his tokens were made for")
    admins = commands.group("admins", "who may call the admin API")
    add = admins.command(
        "add", add_admin, "let a Cognito user call the admin API; he is invited if he is new"
    )
    add.add_argument("email", metavar="EMAIL")
    audit = commands.command("audit", show_audit, "who changed what, newest first")
    audit.add_argument(
        "--limit", metavar="N", type=int, default=20, help="how many entries (default: 20)"
    )


def erase_user(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    user_id = parsed(EraseUser, {"user_id": asked.uid}).user_id
    console.operator.project(pid)
    console.confirm(f"What the user {user_id!r} of project {pid} has said and been told is erased.")
    removed = console.operator.erase_user(pid, user_id)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(removed.items()))
    console.show(
        {"removed": removed},
        f"Removed of {user_id!r} in project {pid}: {told or 'nothing, none was kept'}.",
        "What stays: whether he is blocked, the audit trail, and logs until their retention ends.",
    )


def add_admin(console: Console, asked: argparse.Namespace) -> None:
    if "@" not in asked.email:
        raise CommandError(f"{asked.email!r} is not an e-mail address.")
    users, pool = console.deployment.client("cognito-idp"), console.deployment.outputs["UserPoolId"]
    whom = {"UserPoolId": pool, "Username": asked.email}
    email = {"Name": "email", "Value": asked.email}
    verified = {"Name": "email_verified", "Value": "true"}
    try:
        found = users.admin_get_user(**whom)
        created = False
        # Where strangers may sign up, one of them may have taken the address before its owner.
        if verified not in found["UserAttributes"]:
            raise CommandError(
                f"A user with the address {asked.email} exists, but has never shown that it is "
                "his. Let him confirm it first, or delete him."
            )
    except users.exceptions.UserNotFoundException:
        attributes = [email, verified]
        users.admin_create_user(**whom, UserAttributes=attributes, DesiredDeliveryMediums=["EMAIL"])
        created = True
    console.operator.admin_is_added(asked.email)
    users.admin_add_user_to_group(**whom, GroupName=ADMINS)
    invited = " Cognito mails a temporary password." if created else ""
    console.show(
        {"email": asked.email, "group": ADMINS, "created": created},
        f"{asked.email} may call the admin API, from his next sign-in on.{invited}",
    )


def show_audit(console: Console, asked: argparse.Namespace) -> None:
    if not 1 <= asked.limit <= 1000:
        raise CommandError("--limit is from 1 to 1000.")
    entries: list[dict[str, Any]] = []
    more = True
    while more and len(entries) < asked.limit:
        older_than = entries[-1]["id"] if entries else None
        page, more = console.operator.audit_trail(asked.limit - len(entries), older_than)
        entries += [entry.document() for entry in page]
    lines = []
    for entry in entries:
        head = f"{text.day(entry['at'])}  {entry['action']} {entry['target']}  by {entry['actor']}"
        changed = text.differences(entry["before"], entry["after"])
        lines += [text.printable(head), *(f"  {each}" for each in changed)]
    console.show({"data": entries}, *lines)
