"""weir erase-user, weir admins, weir audit: about people."""

import argparse
from typing import Any

from weir.identity.cognito import ADMINS
from weir.operator.documents import EraseUser, parsed

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
    admins.command("list", list_admins, "who may call it now")
    add = admins.command(
        "add", add_admin, "let a Cognito user call the admin API; he is invited if he is new"
    )
    remove = admins.command(
        "remove", remove_admin, "let one call it no longer; he stays a user", asks=True
    )
    for parser in (add, remove):
        parser.add_argument("email", metavar="EMAIL")
    audit = commands.command("audit", show_audit, "who changed what, newest first")
    audit.add_argument(
        "--limit", metavar="N", type=int, default=20, help="how many entries (default: 20)"
    )


def erase_user(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    user_id = parsed(EraseUser, {"user_id": asked.uid}).user_id
    console.operator.project(pid)
    console.confirm(
        f"What the user {user_id!r} of project {pid} has said and been told will be erased."
    )
    removed = console.operator.erase_user(pid, user_id)
    told = ", ".join(
        f"{count} {kind.replace('_', ' ')}{'' if count == 1 else 's'}"
        for kind, count in sorted(removed.items())
    )
    console.show(
        {"removed": removed},
        f"Removed of the user {user_id!r} of project {pid}: {told}."
        if told
        else f"Of the user {user_id!r} of project {pid} nothing was kept.",
        "What stays: whether the user is blocked or signed out, the audit trail, and logs until "
        "their retention ends.",
    )


def list_admins(console: Console, _asked: argparse.Namespace) -> None:
    users, pool = _cognito(console)
    pages = users.get_paginator("list_users_in_group").paginate(UserPoolId=pool, GroupName=ADMINS)
    data = sorted(
        (
            {
                "email": next(
                    (a["Value"] for a in user["Attributes"] if a["Name"] == "email"),
                    user["Username"],
                ),
                "status": user["UserStatus"],
                "enabled": user["Enabled"],
            }
            for page in pages
            for user in page["Users"]
        ),
        key=lambda admin: str(admin["email"]),
    )
    rows = [
        (admin["email"], "" if admin["enabled"] else "disabled", admin["status"].lower())
        for admin in data
    ]
    lines = text.table(("ADMIN", "", "STATUS"), rows) if rows else []
    console.show({"data": data}, *lines)
    if not data:
        say = console.command("admins", "add", "EMAIL")
        console.note(f"Nobody may call the admin API yet: {say}")


def _cognito(console: Console) -> tuple[Any, str]:
    return console.deployment.client("cognito-idp"), console.deployment.outputs["UserPoolId"]


def _whom(pool: str, email: str) -> dict[str, str]:
    if "@" not in email:
        raise CommandError(f"{email!r} is not an e-mail address.")
    return {"UserPoolId": pool, "Username": email}


def _is_admin(users: Any, whom: dict[str, str]) -> bool:
    pages = users.get_paginator("admin_list_groups_for_user").paginate(**whom)
    return any(group["GroupName"] == ADMINS for page in pages for group in page["Groups"])


def remove_admin(console: Console, asked: argparse.Namespace) -> None:
    users, pool = _cognito(console)
    whom = _whom(pool, asked.email)
    try:
        was_admin = _is_admin(users, whom)
    except users.exceptions.UserNotFoundException:
        was_admin = False
    line = f"{asked.email} was not an admin."
    if was_admin:
        console.confirm(f"{asked.email} will not be able to call the admin API any more.")
        console.operator.admin_is_removed(asked.email)
        users.admin_remove_user_from_group(**whom, GroupName=ADMINS)
        line = (
            f"{asked.email} is no admin any more. A session that he has now may count as one until "
            "it expires, within an hour."
        )
    console.show({"email": asked.email, "group": ADMINS, "was_admin": was_admin}, line)


def add_admin(console: Console, asked: argparse.Namespace) -> None:
    users, pool = _cognito(console)
    whom = _whom(pool, asked.email)
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
    was_admin = not created and _is_admin(users, whom)
    line = f"{asked.email} was an admin already."
    if not was_admin:
        console.operator.admin_is_added(asked.email)
        users.admin_add_user_to_group(**whom, GroupName=ADMINS)
        line = f"{asked.email} may call the admin API, from his next sign-in on."
    if created:
        line += " Cognito mails a temporary password."
    console.show(
        {"email": asked.email, "group": ADMINS, "created": created, "was_admin": was_admin}, line
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
    console.show({"data": entries}, *(lines or ["Nothing was changed yet."]))
