"""`weir`: what an operator does to a deployment. Reads like a sentence: weir keys create."""

import argparse
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError, ClientError

from weir import api_keys
from weir.api_keys import ApiKey, KeyHash
from weir.errors import Refusal

from .deployment import DEFAULT_STACK, CommandError, Deployment, find


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    try:
        deployment = find(stack=getattr(asked, "stack", None), local=getattr(asked, "local", False))
        print(f"On {deployment.label}:", file=sys.stderr)
        return int(asked.run(deployment, asked))
    except CommandError as error:
        print(f"weir: {error}", file=sys.stderr)
    except (ClientError, BotoCoreError) as error:
        print(f"weir: AWS refused: {error}", file=sys.stderr)
    return 1


def create_key(deployment: Deployment, asked: argparse.Namespace) -> int:
    secret = api_keys.form(secrets.token_hex(16))
    key = api_keys.describe(secret, pid=deployment.pid, name=asked.name, now=int(time.time()))
    deployment.table().add_api_key(key)
    print(secret)  # alone on stdout, so that KEY=$(weir keys create) works
    print(
        f"{key.key_id} for project {key.pid}. It is shown only now: keep it on a server, as "
        "BEHEST_KEY, never in a page.",
        file=sys.stderr,
    )
    return 0


def revoke_key(deployment: Deployment, asked: argparse.Namespace) -> int:
    table = deployment.table()
    key_hash = _hash_of(asked.key, deployment)
    if key_hash is None or table.api_key(key_hash) is None:
        raise CommandError(
            f"No API key {_short(asked.key)} in project {deployment.pid}. `weir status` lists them."
        )
    if not table.revoke_api_key(key_hash, int(time.time())):
        print(f"{api_keys.key_id_of(key_hash)} was revoked before.")
        return 0
    print(
        f"{api_keys.key_id_of(key_hash)} is revoked: it mints nothing from now on. Tokens that it "
        "has minted live until they expire."
    )
    return 0


def show_status(deployment: Deployment, _asked: argparse.Namespace) -> int:
    table = deployment.table()
    listed = [key for key in table.public_keys() if key.believed_at(int(time.time()))]
    keys = table.api_keys(deployment.pid)
    print(f"Address      {deployment.url}")
    print(f"Stack        {deployment.stack_status}")
    print(f"Project      {deployment.pid}")
    print(f"Origins      {deployment.outputs['AllowedOrigins'].replace(',', ', ')}")
    answers = _answers(deployment.url)
    print(f"Answers      {'yes' if answers is None else answers}")
    if listed:
        newest = _day(max(key.created_at for key in listed))
        print(f"Signing keys {len(listed)} listed, the newest of {newest}")
    else:
        print("Signing keys none yet: the first rotation has not run. Mint answers 503 until then.")
    print(f"API keys     {_keys_line(keys)}")
    for key in keys:
        state = f"revoked {_day(key.revoked_at)}" if key.revoked_at else "active"
        print(f"  {key.key_id}  {key.display}…  {_day(key.created_at)}  {state:18}  {key.name}")
    return 0 if answers is None and listed else 1


def _hash_of(key: str, deployment: Deployment) -> KeyHash | None:
    """A key is named by its id, or by itself."""
    if key.startswith("key_"):
        return deployment.table().api_key_hash(deployment.pid, key)
    try:
        return api_keys.unverified_hash(key)
    except Refusal:
        return None


def _short(key: str) -> str:
    return key if key.startswith("key_") else key[: len(api_keys.PREFIX) + 4] + "…"


def _answers(url: str) -> str | None:
    """None if the gateway serves its key list, else what is wrong."""
    try:
        with urllib.request.urlopen(f"{url}/.well-known/jwks.json", timeout=10) as reply:  # noqa: S310
            reply.read()
    except (urllib.error.URLError, OSError) as error:
        return f"no ({error})"
    return None


def _keys_line(keys: list[ApiKey]) -> str:
    active = sum(1 for key in keys if key.revoked_at is None)
    return f"{active} active, {len(keys) - active} revoked" if keys else "none: `weir keys create`"


def _day(seconds: int | None) -> str:
    return datetime.fromtimestamp(seconds or 0, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _parser() -> argparse.ArgumentParser:
    where = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    either = where.add_mutually_exclusive_group()
    either.add_argument("--stack", metavar="NAME", help="the CloudFormation stack to speak to")
    either.add_argument("--local", action="store_true", help="the gateway of `make run`")
    parser = argparse.ArgumentParser(
        prog="weir",
        description="Operate a Weir deployment.",
        epilog="Without --stack or --local: the gateway of `make run`, if it was ever started in "
        f"this folder, else the stack {DEFAULT_STACK}.",
        parents=[where],
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    keys = commands.add_parser("keys", help="API keys of servers").add_subparsers(
        required=True, metavar="COMMAND"
    )
    create = keys.add_parser(
        "create", parents=[where], help="make a key; it is printed once, alone on stdout"
    )
    create.add_argument("--name", default="", help="what the key is for")
    create.set_defaults(run=create_key)
    revoke = keys.add_parser("revoke", parents=[where], help="stop a key at once")
    revoke.add_argument("key", metavar="KEY", help="its id (key_…) or the key itself")
    revoke.set_defaults(run=revoke_key)

    status = commands.add_parser(
        "status", parents=[where], help="what is deployed, and whether it answers"
    )
    status.set_defaults(run=show_status)
    return parser


if __name__ == "__main__":
    sys.exit(main())
