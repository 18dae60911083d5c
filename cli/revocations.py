"""weir tokens, weir sessions, weir users: tokens that are refused before they expire."""

import argparse
import base64
import json
from typing import Any

from weir.identity import api_keys
from weir.operator.documents import RevokeTokens, parsed
from weir.revocation import Revocation

from . import text
from .console import Console
from .deployment import CommandError
from .flags import Commands, pid_of


def add_to(commands: Commands) -> None:
    tokens = commands.group("tokens", "user tokens")
    token = tokens.command(
        "revoke", revoke_token, "refuse one token from the next request on", project=True
    )
    token.add_argument("token", metavar="TOKEN", nargs="?", help="the token itself")
    token.add_argument("--jti", metavar="JTI", help="or its id (jti), with --user")
    token.add_argument("--user", metavar="UID", help="the user_id that it was made for")
    sessions = commands.group("sessions", "sessions of users")
    session = sessions.command(
        "revoke", revoke_session, "refuse a session's tokens from the next request on", project=True
    )
    session.add_argument("uid", metavar="UID", help="the session's user_id")
    session.add_argument("sid", metavar="SID", help="its session_id")
    users = commands.group("users", "users of a project")
    user = users.command(
        "sign-out",
        sign_out,
        "refuse all tokens that a user has now; they may sign in again",
        project=True,
    )
    user.add_argument("uid", metavar="UID", help="the user_id that the tokens were made for")


def revoke_token(console: Console, asked: argparse.Namespace) -> None:
    if (asked.token is None) == (asked.jti is None) or (asked.jti is None) != (asked.user is None):
        raise CommandError("Name the token itself, or its id and its user: --jti JTI --user UID.")
    if asked.token is None:
        _revoke(console, pid_of(console, asked), {"user_id": asked.user, "jti": asked.jti})
        return
    claims = _unverified_claims(asked.token)
    named = {"user_id": claims.get("uid"), "jti": claims.get("jti")}
    if None in named.values() or not isinstance(claims.get("pid"), str):
        raise CommandError(
            "This token does not name its id (jti), user (uid) and project (pid). `weir users "
            "sign-out` refuses all tokens of a user."
        )
    if asked.project not in (None, claims["pid"]):
        raise CommandError(f"This is a token of project {text.printable(claims['pid'])}.")
    _revoke(console, claims["pid"], named)


def revoke_session(console: Console, asked: argparse.Namespace) -> None:
    _revoke(console, pid_of(console, asked), {"user_id": asked.uid, "session_id": asked.sid})


def sign_out(console: Console, asked: argparse.Namespace) -> None:
    _revoke(console, pid_of(console, asked), {"user_id": asked.uid})


def _revoke(console: Console, pid: str, named: dict[str, Any]) -> None:
    told = parsed(RevokeTokens, named)
    what = Revocation(told.user_id, told.session_id, told.jti)
    console.operator.revoke(pid, what)
    tokens = {
        "token": f"The token {what.jti!r}",
        "session": f"Every token of the session {what.session_id!r}",
        "user": "Every token that was issued until now",
    }[what.kind]
    console.show(
        {"project": pid, **told.model_dump(exclude_none=True)},
        text.printable(
            f"{tokens} of the user {what.user_id!r} of project {pid} is refused from the next "
            "request on."
        ),
    )


def _unverified_claims(token: str) -> dict[str, Any]:
    """Read what a token says, as it is the operator who sends it: what it names is revoked whether
    or not it is genuine. What was typed is not repeated.
    """
    if api_keys.looks_like(token):
        raise CommandError("This is an API key: `weir keys revoke` revokes it and its tokens.")
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError):
        claims = None
    if not isinstance(claims, dict):
        raise CommandError("This is not a user token: one has three parts, separated by dots.")
    return claims
