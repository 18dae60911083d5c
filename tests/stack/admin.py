"""Users of the embedded Cognito, and the admin API as one of its operators calls it."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import httpx

from tests.stack.conftest import LIFTED, ROOT, Stack

PASSWORD = "Correct-Horse-9"
ADMIN = "operator@example.com"
COUNTS_WITHIN_S = 6  # what a process may keep of the configuration, and a second
# For a project of which more is asked in a minute than it may by default.
UNLIMITED: dict[str, Any] = {name: dict.fromkeys(LIFTED) for name in ("limits", "user_limits")}


def signed_in(
    stack: Stack,
    email: str,
    groups: Iterable[str] = (),
    *,
    client: str | None = None,
    pool: str | None = None,
) -> dict[str, str]:
    """Cognito's tokens for a user, who is made if need be."""
    cognito = stack.aws("cognito-idp")
    pool = pool or stack.env["COGNITO_USER_POOL_ID"]
    with contextlib.suppress(cognito.exceptions.UsernameExistsException):
        cognito.admin_create_user(
            UserPoolId=pool,
            Username=email,
            MessageAction="SUPPRESS",
            UserAttributes=[
                {"Name": "email", "Value": email},
                {"Name": "email_verified", "Value": "true"},
            ],
        )
    cognito.admin_set_user_password(
        UserPoolId=pool, Username=email, Password=PASSWORD, Permanent=True
    )
    for group in groups:
        cognito.admin_add_user_to_group(UserPoolId=pool, Username=email, GroupName=group)
    tokens = cognito.initiate_auth(
        ClientId=client or stack.env["COGNITO_CLIENT_ID"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": email, "PASSWORD": PASSWORD},
    )["AuthenticationResult"]
    assert isinstance(tokens, dict)
    return tokens


def another_client(stack: Stack, pool: str | None = None) -> str:
    """The id of one more client of the pool: another application's."""
    made = stack.aws("cognito-idp").create_user_pool_client(
        UserPoolId=pool or stack.env["COGNITO_USER_POOL_ID"],
        ClientName="another",
        ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
    )
    return str(made["UserPoolClient"]["ClientId"])


class Admin:
    """An operator's session with the admin API."""

    def __init__(self, stack: Stack, email: str = ADMIN) -> None:
        self.http = stack.http
        self.token = signed_in(stack, email, ["admins"])["IdToken"]

    def send(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        if body is not None:
            more["json"] = body
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        return self.http.request(method, f"/admin/v1/{path}", headers=headers, **more)

    def __call__(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """The answer's JSON, after checking its status."""
        reply = self.send(method, path, body)
        assert reply.status_code == status, f"{method} {path}: {reply.text}"
        return reply.json() if reply.content else None

    def project(self, pid: str, **told: Any) -> dict[str, Any]:
        """Made, or as it is named here."""
        reply = self.send("POST", "projects", {"pid": pid, **told})
        if reply.status_code == 409:
            self("PATCH", f"projects/{pid}", {"limits": None, "user_limits": None})
            reply = self.send("PATCH", f"projects/{pid}", told)
        assert reply.status_code in (200, 201), reply.text
        made = reply.json()
        assert isinstance(made, dict)
        return made

    def key(self, pid: str, **told: Any) -> str:
        """The secret of a new API key."""
        return str(self("POST", f"projects/{pid}/keys", told, 201)["secret"])

    def everything(self) -> dict[str, Any]:
        """All that an operator can see, to be compared."""
        projects = [project["pid"] for project in self("GET", "projects")["data"]]
        return {
            "configuration": self("GET", "configuration"),
            "switches": self("GET", "kill-switches"),
            "upstreams": self("GET", "upstreams"),
            "signing_keys": self("GET", "signing-keys"),
            "keys": {pid: _keys(self("GET", f"projects/{pid}/keys")) for pid in projects},
            "last": self("GET", "audit?limit=1")["data"],
        }


def _keys(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Without the time of their last use, which no operator changes."""
    return [{n: v for n, v in key.items() if n != "last_used_at"} for key in told["data"]]


def mint(stack: Stack, key: str, user_id: str = "u_1", **more: Any) -> str:
    """A user token, for an API key."""
    reply = stack.http.post("/v1/auth/mint", headers=bearer(key), json={"user_id": user_id, **more})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["token"])


def soon(holds: Callable[[], bool]) -> None:
    """A change counts in time, on every process: nothing that is asked for later may miss it."""
    give_up = time.monotonic() + COUNTS_WITHIN_S
    while True:
        asked = time.monotonic()
        if holds():
            break
        assert asked < give_up, f"a change has not counted within {COUNTS_WITHIN_S} seconds"
        time.sleep(0.1)
    time.sleep(max(0.0, give_up - time.monotonic()))


EMBEDDED_NANO_USD = 20_000  # for a token, so that money is counted in few requests


def set_up_embeddings(admin: Admin, base_url: str) -> None:
    """An upstream with the models `embed`, which has a price, and `judge`, which is free."""
    admin("PUT", "upstreams/vectors", {"kind": "openai", "base_url": base_url})
    admin("PUT", "upstreams/vectors/key", {"key": "provider-secret-key"})
    for name, kind, price in (
        ("embed", "embedding", EMBEDDED_NANO_USD),
        ("judge", "moderation", 0),
    ):
        candidate = {"upstream": "vectors", "model": f"fake-{name}", "input_nano_usd": price}
        entry = {"context_tokens": 8192, "overhead_tokens": 0, "candidates": [candidate]}
        admin("PUT", f"models/{name}", {**entry, "kind": kind})


def bearer(credential: str, origin: str | None = None) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {credential}"}
    return headers if origin is None else {**headers, "Origin": origin}


def model(upstream: str, name: str, *, aliases: Iterable[str] = ()) -> dict[str, Any]:
    """A catalogue entry; `name` is the upstream's own."""
    return {
        "aliases": list(aliases),
        "candidates": [
            {
                "upstream": upstream,
                "model": name,
                "input_nano_usd": 100,
                "cached_input_nano_usd": 10,
                "output_nano_usd": 400,
            }
        ],
        "context_tokens": 8192,
        "max_output_tokens": 2048,
        "overhead_tokens": 100,
    }


@cache
def document() -> dict[str, Any]:
    """docs/openapi.json."""
    told = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert isinstance(told, dict)
    return told
