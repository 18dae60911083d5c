"""Who may call the admin API: every operation of its document × every kind of credential."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.issuers import ENTRY
from tests.stack.admin import (
    PASSWORD,
    Admin,
    another_client,
    bearer,
    document,
    mint,
    model,
    signed_in,
)
from tests.stack.conftest import ORIGIN, Stack, ask, envelope

PID = "roles"
Operation = tuple[str, str]
OPERATIONS: list[Operation] = [
    (method.upper(), path)
    for path, item in document()["paths"].items()
    for method, told in item.items()
]
# What would change something if it were let through. Of every operation that takes a body.
BODIES: dict[Operation, Any] = {
    ("POST", "/admin/v1/projects"): {"pid": "made-by-nobody"},
    ("PATCH", "/admin/v1/projects/{pid}"): {"name": "changed", "status": "suspended"},
    ("POST", "/admin/v1/projects/{pid}/keys"): {"name": "stolen", "role": "admin"},
    ("POST", "/admin/v1/signing-keys"): {"every_project": True, "name": "stolen"},
    ("PUT", "/admin/v1/projects/{pid}/tiers/{name}"): {"rpm": 1000},
    ("POST", "/v1/projects/{pid}/tiers"): {"name": "theirs", "overrides": {"rpm_limit": 1000}},
    ("PUT", "/v1/projects/{pid}/tiers/{tier}"): {"overrides": {"rpm_limit": 1000}},
    ("PUT", "/admin/v1/projects/{pid}/issuers/{name}"): ENTRY,
    ("POST", "/admin/v1/projects/{pid}/issuers/verdict"): {"token": "a.b.c"},
    ("POST", "/admin/v1/projects/{pid}/webhooks"): {
        "url": "https://theirs.example.com/",
        "events": ["webhook.test"],
    },
    ("PATCH", "/admin/v1/projects/{pid}/webhooks/{webhook}"): {
        "url": "https://theirs.example.com/"
    },
    ("POST", "/admin/v1/projects/{pid}/webhooks/{webhook}/replay"): {},
    ("POST", "/admin/v1/projects/{pid}/users/erase"): {"user_id": "u_1"},
    ("POST", "/admin/v1/projects/{pid}/users/revoke"): {"user_id": "u_1"},
    ("PUT", "/admin/v1/models/{name}"): {**model("roles", "theirs"), "context_tokens": 9999},
    ("PUT", "/admin/v1/upstreams/{name}"): {"kind": "openai", "base_url": "https://x.example"},
    ("PUT", "/admin/v1/upstreams/{name}/key"): {"key": "stolen-key-1234"},
    ("PUT", "/admin/v1/kill-switches"): {"scope": "project", "project": PID, "off": True},
    ("POST", "/admin/v1/overruns/reset"): {"candidate": f"{PID}/theirs"},
    ("PATCH", "/admin/v1/tenant"): {"limits": {"rpm": 7777}},
    ("PUT", "/admin/v1/configuration"): {
        "format": "weir-configuration/1",
        "tenant": {"limits": {"rpm": 6666}},
    },
}
QUERIES: dict[Operation, dict[str, str]] = {
    ("GET", "/admin/v1/projects/{pid}/origins/verdict"): {"origin": ORIGIN},
}


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Admin:
    return Admin(stack)


@pytest.fixture(scope="module")
def place(admin: Admin) -> dict[str, str]:
    """Values of every path's parameters, and what is there under them."""
    admin("PUT", f"upstreams/{PID}", {"kind": "openai", "base_url": "https://roles.example/v1"})
    admin("PUT", f"models/{PID}", model(PID, "theirs"))
    admin.project(PID, origins=["https://roles.example"])
    admin("PUT", f"projects/{PID}/tiers/{PID}", {"rpm": 5})
    key = admin("POST", f"projects/{PID}/keys", {}, 201)
    signs = admin("POST", "signing-keys", {"project": PID}, 201)
    new = {"url": "https://roles.example.com/", "events": ["webhook.test"]}
    webhook = admin("POST", f"projects/{PID}/webhooks", new, 201)
    return {
        "pid": PID,
        "name": PID,
        "tier": PID,
        "key_id": key["key_id"],
        "kid": signs["kid"],
        "webhook": webhook["id"],
    }


def send(
    http: httpx.Client, operation: Operation, place: dict[str, str], headers: dict[str, str]
) -> httpx.Response:
    method, path = operation
    return http.request(
        method,
        path.format(**place),
        headers=headers,
        params=QUERIES.get(operation),
        json=BODIES.get(operation),
    )


def test_every_operation_with_a_body_has_one_here() -> None:
    documented = {
        (method.upper(), path)
        for path, item in document()["paths"].items()
        for method, told in item.items()
        if "requestBody" in told
    }
    assert set(BODIES) == documented
    assert len(OPERATIONS) >= 30


# ---------------------------------------------------------------- those who are refused


def in_groups(*groups: str) -> Callable[[Stack, Admin], dict[str, str]]:
    name = "-".join(groups) or "plain"
    return lambda stack, admin: bearer(signed_in(stack, f"{name}@example.com", groups)["IdToken"])


def made_admin(token: str, **header: str) -> str:
    """With the group in its claims, under the same signature."""
    parts = token.split(".")
    for number, changes in ((0, header), (1, {"cognito:groups": ["admins"]})):
        told = json.loads(base64.urlsafe_b64decode(parts[number] + "=="))
        text = json.dumps({**told, **changes}).encode()
        parts[number] = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
    return ".".join(parts)


def plain_token(stack: Stack) -> str:
    return signed_in(stack, "plain@example.com")["IdToken"]


def of_another_client(stack: Stack, admin: Admin) -> dict[str, str]:
    tokens = signed_in(stack, "operator@example.com", ["admins"], client=another_client(stack))
    return bearer(tokens["IdToken"])


def of_another_pool(stack: Stack, admin: Admin) -> dict[str, str]:
    cognito = stack.aws("cognito-idp")
    pool = cognito.create_user_pool(PoolName="another")["UserPool"]["Id"]
    cognito.create_group(UserPoolId=pool, GroupName="admins")
    tokens = signed_in(
        stack, "stranger@example.com", ["admins"], client=another_client(stack, pool), pool=pool
    )
    return bearer(tokens["IdToken"])


def admins_user_token(stack: Stack, admin: Admin) -> dict[str, str]:
    token = mint(stack, admin.key(PID, role="admin"), "boss", role="admin")
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["role"] == "admin"
    return bearer(token)


# What each sends, and what it is answered: 401 is "who are you", 403 "not you".
REFUSED: dict[str, tuple[int, Callable[[Stack, Admin], dict[str, str]]]] = {
    "nothing": (401, lambda stack, admin: {}),
    "garbage": (401, lambda stack, admin: bearer("garbage")),
    "garbage that looks like a token": (
        401,
        lambda stack, admin: bearer("eyJhbGciOiJSUzI1NiJ9.e30.x"),
    ),
    "an operator's password": (
        401,
        lambda stack, admin: {
            "Authorization": "Basic "
            + base64.b64encode(f"operator@example.com:{PASSWORD}".encode()).decode()
        },
    ),
    "an API key that mints": (401, lambda stack, admin: bearer(admin.key(PID))),
    "an API key that reads": (
        401,
        lambda stack, admin: bearer(admin.key(PID, scopes=["api:read"])),
    ),
    "an API key of role admin": (401, lambda stack, admin: bearer(admin.key(PID, role="admin"))),
    "a user token": (401, lambda stack, admin: bearer(mint(stack, admin.key(PID)))),
    "a user token with headers that promise more": (
        401,
        lambda stack, admin: {
            **bearer(mint(stack, admin.key(PID))),
            "X-Role": "admin",
            "X-Tier": "max",
            "X-End-User-Id": "operator@example.com",
            "cognito-groups": "admins",
        },
    ),
    "a user token of role admin": (401, admins_user_token),
    "a plain user's ID token": (403, in_groups()),
    "ID token of group free": (403, in_groups("free")),
    "ID token of group pro": (403, in_groups("pro")),
    "ID token of group max": (403, in_groups("max")),
    "ID token of every group but admins": (403, in_groups("free", "pro", "max")),
    "a plain user's ID token with X-Role": (
        403,
        lambda stack, admin: {**bearer(plain_token(stack)), "X-Role": "admin"},
    ),
    "an operator's access token": (
        401,
        lambda stack, admin: bearer(
            signed_in(stack, "operator@example.com", ["admins"])["AccessToken"]
        ),
    ),
    "an operator's refresh token": (
        401,
        lambda stack, admin: bearer(
            signed_in(stack, "operator@example.com", ["admins"])["RefreshToken"]
        ),
    ),
    "an ID token whose groups were changed": (
        401,
        lambda stack, admin: bearer(made_admin(plain_token(stack))),
    ),
    "an ID token that names no algorithm": (
        401,
        lambda stack, admin: bearer(made_admin(plain_token(stack), alg="none")),
    ),
    "an operator's ID token of another client": (401, of_another_client),
    "an ID token of another user pool": (401, of_another_pool),
}


@pytest.mark.parametrize("who", REFUSED)
def test_every_operation_is_refused_to(
    stack: Stack, admin: Admin, place: dict[str, str], who: str
) -> None:
    status, credential = REFUSED[who]
    headers = credential(stack, admin)
    before = admin.everything()
    for operation in OPERATIONS:
        reply = send(stack.http, operation, place, headers)
        error = envelope(reply, status, "invalid_token" if status == 401 else "forbidden")
        assert "admin" not in json.dumps(error["details"]), operation
        assert str(status) in document()["paths"][operation[1]][operation[0].lower()]["responses"]
    assert admin.everything() == before


def test_group_whose_name_only_resembles_admins_is_no_admin(stack: Stack, admin: Admin) -> None:
    """A list of groups arrives as text: it must be taken apart as what it is."""
    stack.aws("cognito-idp").create_group(
        UserPoolId=stack.env["COGNITO_USER_POOL_ID"], GroupName="not-admins"
    )
    stack.aws("cognito-idp").create_group(
        UserPoolId=stack.env["COGNITO_USER_POOL_ID"], GroupName="admins2"
    )
    token = signed_in(stack, "resembling@example.com", ["not-admins", "admins2"])["IdToken"]
    reply = stack.http.get("/admin/v1/projects", headers=bearer(token))
    envelope(reply, 403, "forbidden")


# ---------------------------------------------------------------- the one who is let through


def test_every_operation_lets_an_operator_through(admin: Admin, place: dict[str, str]) -> None:
    """Last of each path what removes it."""
    for operation in sorted(OPERATIONS, key=lambda one: (one[0] == "DELETE", one)):
        reply = send(admin.http, operation, place, bearer(admin.token))
        assert reply.status_code not in (401, 403), (operation, reply.text)
        assert reply.status_code < 500, (operation, reply.text)
    admin("PUT", "kill-switches", {"scope": "project", "project": PID, "off": False}, 204)
    admin("PATCH", "tenant", {"limits": {}})
    admin("PATCH", f"projects/{PID}", {"status": "active"})


def test_operators_session_opens_nothing_but_the_admin_api(stack: Stack, admin: Admin) -> None:
    headers = bearer(admin.token)
    for reply in (
        stack.http.post("/v1/chat/completions", headers=headers, json=ask()),
        stack.http.get("/v1/models", headers=headers),
        stack.http.get("/v1/models/default", headers=headers),
        stack.http.post("/v1/auth/mint", headers=headers, json={"user_id": "u_1"}),
    ):
        envelope(reply, 401, "invalid_token")


def test_key_that_reads_makes_no_token_and_key_that_mints_is_no_token(
    stack: Stack, admin: Admin
) -> None:
    admin.project(PID)
    reads, mints = admin.key(PID, scopes=["api:read"]), admin.key(PID)
    reply = stack.http.post("/v1/auth/mint", headers=bearer(reads), json={"user_id": "u_1"})
    assert envelope(reply, 401, "invalid_token")["details"] == {"reason": "missing_scope"}
    for key in (reads, mints):
        reply = stack.http.post("/v1/chat/completions", headers=bearer(key), json=ask())
        assert envelope(reply, 401, "invalid_token")["details"] == {"reason": "api_key_on_chat"}
        assert stack.http.get("/v1/models", headers=bearer(key)).status_code == 200


def test_headers_give_a_user_no_other_role_tier_or_identity(stack: Stack, admin: Admin) -> None:
    """A user who is blocked stays blocked under another's name, and so does a role."""
    admin.project(PID)
    key = admin.key(PID)
    admin(
        "PUT",
        "kill-switches",
        {"scope": "user", "project": PID, "user_id": "bad", "off": True},
        204,
    )
    token = mint(stack, admin.key(PID), "good", role="admin")
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["role"] == "user"  # clamped to the key's own
    promising = {"X-Role": "admin", "X-Tier": "max", "X-End-User-Id": "good"}
    reply = stack.http.post(
        "/v1/auth/mint", headers={**bearer(key), **promising}, json={"user_id": "bad"}
    )
    assert envelope(reply, 403, "forbidden")["details"] == {"reason": "killed", "scope": "user"}
    admin(
        "PUT",
        "kill-switches",
        {"scope": "user", "project": PID, "user_id": "bad", "off": False},
        204,
    )


def test_no_page_may_call_the_admin_api_and_no_answer_is_readable_by_one(
    stack: Stack, admin: Admin
) -> None:
    preflight = stack.http.options(
        "/admin/v1/projects",
        headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET"},
    )
    assert preflight.status_code == 401
    assert "access-control-allow-methods" not in preflight.headers
    for method in ("GET", "OPTIONS"):
        reply = admin.send(method, "projects", headers={"Origin": ORIGIN})
        assert "access-control-allow-origin" not in reply.headers
