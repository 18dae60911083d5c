"""What a newcomer needs to make a first call: a key, a user to sign in, `.local/env`, and a few
lines on the terminal.

Key and password stay the same from one start to the next, because applications have them in their
settings.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local.embedded_aws import ROOT, STACK_NAME, Stack, client
from local.seed import UPSTREAM
from weir.aws.table import Table
from weir.errors import Refusal
from weir.identity import api_keys

DEMO_EMAIL = "demo@example.com"
DEMO_GROUP = "free"
RINGSIDE_SCOPES = (api_keys.CLIENT_TOKENS, api_keys.CHAT, api_keys.WRITE, api_keys.READ)


@dataclass(frozen=True)
class Credentials:
    key: str
    ringside_key: str
    email: str
    password: str


def write_env(path: Path, values: dict[str, str]) -> None:
    """Readable by its owner only, and never half written."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".env-")  # made with mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write("# Written by `make run` at each start; the key and the password stay.\n")
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    Path(name).replace(path)


def make_credentials(stack: Stack, kept: dict[str, str]) -> Credentials:
    """Registers the kept key and user, or new ones, with this start's stack. Blocks."""
    key = make_first_key(stack, kept.get("BEHEST_KEY", ""), api_keys.BEHEST, (api_keys.MINT,))
    ringside_key = make_first_key(
        stack, kept.get("FC_API_KEY", ""), api_keys.RINGSIDE, RINGSIDE_SCOPES
    )
    password = kept.get("DEMO_PASSWORD") or f"Demo-{secrets.token_hex(8)}"
    make_demo_user(stack, DEMO_EMAIL, password)
    return Credentials(key, ringside_key, DEMO_EMAIL, password)


def make_first_key(stack: Stack, kept: str, contract: str, scopes: Sequence[str]) -> str:
    try:
        api_keys.unverified_hash(kept)
    except Refusal:
        kept = api_keys.form(secrets.token_hex(16), api_keys.PREFIXES[contract])
    table = Table(client(stack.endpoint, "dynamodb"), stack.outputs["TableName"])
    pid = stack.outputs["ProjectId"]
    now = int(time.time())
    table.add_api_key(api_keys.describe(kept, pid=pid, name="make run", now=now, scopes=scopes))
    return kept


def make_demo_user(stack: Stack, email: str, password: str) -> None:
    users = client(stack.endpoint, "cognito-idp")
    pool = stack.outputs["UserPoolId"]
    with contextlib.suppress(users.exceptions.UsernameExistsException):
        users.admin_create_user(
            UserPoolId=pool,
            Username=email,
            MessageAction="SUPPRESS",
            UserAttributes=[
                {"Name": "email", "Value": email},
                {"Name": "email_verified", "Value": "true"},
            ],
        )
    users.admin_set_user_password(
        UserPoolId=pool, Username=email, Password=password, Permanent=True
    )
    users.admin_add_user_to_group(UserPoolId=pool, Username=email, GroupName=DEMO_GROUP)


def env_values(
    stack: Stack, url: str, origin: str, credentials: Credentials | None, model: str
) -> dict[str, str]:
    made = {}
    if credentials is not None:
        made = {
            "BEHEST_KEY": credentials.key,
            "FC_BASE_URL": f"{url}/v1",
            "FC_API_KEY": credentials.ringside_key,
            "FC_MODEL": f"fc:{UPSTREAM}/{model}",
            "DEMO_EMAIL": credentials.email,
            "DEMO_PASSWORD": credentials.password,
        }
    return {
        "BEHEST_BASE_URL": url,
        "BEHEST_TENANT_ID": stack.outputs["TenantId"],
        "BEHEST_PROJECT_ID": stack.outputs["ProjectId"],
        "ALLOWED_ORIGIN": origin,
        "COGNITO_ENDPOINT": stack.endpoint,
        "COGNITO_USER_POOL_ID": stack.outputs["UserPoolId"],
        "COGNITO_CLIENT_ID": stack.outputs["UserPoolClientId"],
        "WEIR_STACK": STACK_NAME,
        # Not AWS's own names: who sources this file keeps their own credentials.
        "WEIR_LOCAL_ACCESS_KEY_ID": ROOT["AWS_ACCESS_KEY_ID"],
        "WEIR_LOCAL_SECRET_ACCESS_KEY": ROOT["AWS_SECRET_ACCESS_KEY"],
        **made,
    }


def banner(
    url: str, page: str | None, shown: Credentials | None, model: str, env_file: Path
) -> str:
    if shown is None:
        return f"""
Weir listens on {url}, as a deployment leaves it: without a project, a model, a key or a user.
docs/deploy.md says what comes next; `weir` speaks to this one, and to the embedded AWS in memory.

Ctrl-C ends it.
"""
    return f"""
Weir listens on {url}

  Page     {page or "none in this run"}
  Sign in  {shown.email}, password {shown.password}
  API key  {shown.key}
  Model    {model}
  AWS      embedded, in memory: what is in it ends with it
  Kept     key, demo user and addresses in {env_file}; logs in {env_file.parent / "logs"}

A first streamed answer:

{first_call(url, shown.key)}

Ctrl-C ends it.
"""


def first_call(url: str, key: str) -> str:
    """One line for a shell: mints a token for the user `me`, and streams an answer with it."""
    pick = 'import json,sys;print(json.load(sys.stdin)["token"])'
    mint = (
        f"curl -s {url}/v1/auth/mint -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d '{{\"user_id\":\"me\"}}' "
        f"| python3 -c '{pick}'"
    )
    body = '{"stream":true,"messages":[{"role":"user","content":"Say hello."}]}'
    return (
        f'curl -N {url}/v1/chat/completions -H "Authorization: Bearer $({mint})" '
        f"-H 'Content-Type: application/json' -d '{body}'"
    )
