"""Local signing over HTTP: tokens that a tenant's own server has signed, against the running stack
(contract section 23, vector 7); and the operator's commands for the keys.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from tests.stack.admin import COUNTS_WITHIN_S, Admin, bearer
from tests.stack.conftest import Stack, ask, envelope
from tests.stack.test_cli import done, told

DAY_S = 86_400
SHOP, OTHER = "signing-shop", "signing-other"


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Admin:
    admin = Admin(stack)
    model = admin("GET", "projects/default")["default_model"]
    for pid in (SHOP, OTHER):
        limits = {"user_limits": {"rpm": None}, "limits": {"rpm": None}}
        admin.project(pid, default_model=model, **limits)
    return admin


class Server:
    """A tenant's server, with what `weir signing create` has printed."""

    def __init__(self, stack: Stack, pid: str, created: dict[str, Any]) -> None:
        self.pid, self.kid = pid, str(created["kid"])
        self.tid = stack.env["BEHEST_TENANT_ID"]
        self.pem = base64.b64decode(created["private_key"], validate=True).decode()

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        headers = {"kid": self.kid, "typ": "JWT", **header}
        return jwt.encode(claims, self.pem, algorithm="RS256", headers=headers)

    def newer(self, **changes: Any) -> dict[str, Any]:
        """The claims of behest-ai 1.5 in sign mode."""
        now = int(time.time())
        return {
            "tid": self.tid,
            "pid": self.pid,
            "uid": "u_signed",
            "role": "user",
            "scp": [],
            "iss": "https://api.behest.ai",
            "aud": "behest",
            "iat": now,
            "nbf": now,
            "exp": now + 900,
            "jti": "0b2f3f0e-58b5-4a5f-9a68-2f7c7f4f1f11",
            "sid": "s_signed",
            **changes,
        }

    def legacy(self, **changes: Any) -> dict[str, Any]:
        """The claims of `sign_behest_jwt`."""
        left_out = ("role", "scp", "jti", "sid")
        kept = {n: v for n, v in self.newer(iss="behest").items() if n not in left_out}
        return {**kept, **changes}


@pytest.fixture(scope="module")
def server(stack: Stack, admin: Admin) -> Iterator[Server]:
    created = told(stack, "signing", "create", "--project", SHOP, "--name", "tests")
    yield Server(stack, SHOP, created)
    done(stack, "signing", "revoke", created["kid"], "--yes")


def chat(stack: Stack, token: str) -> httpx.Response:
    return stack.http.post("/v1/chat/completions", headers=bearer(token), json=ask())


@pytest.mark.parametrize("shape", [Server.newer, Server.legacy])
def test_token_that_a_server_has_signed_chats_and_is_metered_for_its_user(
    stack: Stack, server: Server, shape: Callable[..., dict[str, Any]]
) -> None:
    token = server.sign(shape(server, uid=f"u_{shape.__name__}"))
    reply = chat(stack, token)
    assert reply.status_code == 200, reply.text
    me = stack.http.get("/v1/me", headers=bearer(token))
    assert me.status_code == 200, me.text
    assert f"u_{shape.__name__}" in me.text


def test_admin_role_of_such_a_token_is_a_users(stack: Stack, server: Server) -> None:
    """An admin's token may ask for the usage of every user; a user's only for their own."""
    token = server.sign(server.newer(role="admin", uid="u_would_be_admin"))
    reply = stack.http.get("/v1/usage", headers=bearer(token))
    assert reply.status_code == 200, reply.text
    other = stack.http.get("/v1/usage", params={"user_id": "u_newer"}, headers=bearer(token))
    assert other.status_code == 403 or other.json()["user_id"] == "u_would_be_admin"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pid": OTHER}, "bad_pid"),
        ({"tid": "00000000-0000-0000-0000-000000000000"}, "bad_tid"),
        ({"iat": 1, "nbf": 1}, "bad_exp"),
        ({"iss": "https://evil.example"}, "bad_iss"),
        ({"uid": "admin"}, "bad_uid"),
    ],
    ids=str,
)
def test_token_that_says_what_its_key_may_not_is_a_401(
    stack: Stack, server: Server, changes: dict[str, Any], reason: str
) -> None:
    for shape in (server.newer, server.legacy):
        error = envelope(chat(stack, server.sign(shape(**changes))), 401, "invalid_token")
        assert error["details"]["reason"] == reason


def test_token_that_would_live_for_more_than_a_day_is_a_401(stack: Stack, server: Server) -> None:
    now = int(time.time())
    token = server.sign(server.legacy(exp=now + DAY_S + 10))
    error = envelope(chat(stack, token), 401, "invalid_token")
    assert error["details"]["reason"] == "bad_exp"


def test_unsigned_token_and_one_with_the_public_key_as_a_secret_are_a_401(
    stack: Stack, server: Server
) -> None:
    key = serialization.load_pem_private_key(server.pem.encode(), password=None)
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def part(value: object) -> str:
        octets = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()

    for alg in ("none", "HS256"):
        signed = f"{part({'alg': alg, 'typ': 'JWT', 'kid': server.kid})}.{part(server.newer())}"
        mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
        for signature in ("", part(mac)):
            envelope(chat(stack, f"{signed}.{signature}"), 401, "invalid_token")


def test_neither_kind_of_key_can_stand_for_the_other(stack: Stack, server: Server) -> None:
    ring = jwt.get_unverified_header(stack.mint()["token"])["kid"]
    ours = server.newer(iss=f"urn:weir:{server.tid}", role="admin")
    error = envelope(chat(stack, server.sign(ours, kid=ring)), 401, "invalid_token")
    assert error["details"]["reason"] == "bad_signature"
    # As if the ring had signed for the tenant's key: its signature, under another kid.
    _, payload, signature = stack.mint()["token"].split(".")
    renamed = json.dumps({"alg": "RS256", "typ": "JWT", "kid": server.kid}).encode()
    forged = base64.urlsafe_b64encode(renamed).rstrip(b"=").decode()
    envelope(chat(stack, f"{forged}.{payload}.{signature}"), 401, "invalid_token")


def published(stack: Stack) -> set[str]:
    return {key["kid"] for key in stack.http.get("/.well-known/jwks.json").json()["keys"]}


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + COUNTS_WITHIN_S
    while not holds():
        assert time.monotonic() < give_up, "it has not counted in time"
        time.sleep(0.2)


def test_revoked_key_leaves_the_key_list_and_its_tokens_are_refused_within_the_cache(
    stack: Stack, admin: Admin
) -> None:
    created = admin("POST", "signing-keys", {"project": SHOP, "name": "leaked"}, 201)
    leaked = Server(stack, SHOP, created)
    token = leaked.sign(leaked.legacy())
    # A kid that is not known is looked for once a second: another test may have sent one just now.
    until(lambda: chat(stack, token).status_code == 200)
    until(lambda: leaked.kid in published(stack))
    admin("DELETE", f"signing-keys/{leaked.kid}", status=204)
    until(lambda: chat(stack, token).status_code == 401)
    until(lambda: leaked.kid not in published(stack))
    error = envelope(chat(stack, token), 401, "invalid_token")
    assert error["details"]["reason"] == "unknown_kid"


def test_uploaded_public_half_verifies_what_the_private_one_signs(
    stack: Stack, admin: Admin
) -> None:
    pair = told(stack, "signing", "create", "--project", OTHER)
    made = Server(stack, OTHER, pair)
    key = serialization.load_pem_private_key(made.pem.encode(), password=None)
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    twice = admin.send("POST", "signing-keys", {"project": SHOP, "public_key": pem.decode()})
    envelope(twice, 409, "conflict")
    private = admin.send("POST", "signing-keys", {"project": SHOP, "public_key": made.pem})
    assert made.pem[100:140] not in private.text
    assert envelope(private, 400, "validation_error")["param"] == "public_key"
    both = {"project": SHOP, "every_project": True}
    envelope(admin.send("POST", "signing-keys", both), 400, "validation_error")
    envelope(admin.send("POST", "signing-keys", {}), 400, "validation_error")
    until(lambda: chat(stack, made.sign(made.legacy())).status_code == 200)
    done(stack, "signing", "revoke", made.kid, "--yes")


def test_suspended_projects_signing_key_is_refused_with_it(stack: Stack, admin: Admin) -> None:
    created = told(stack, "signing", "create", "--every-project")
    every = Server(stack, SHOP, created)
    until(lambda: chat(stack, every.sign(every.legacy())).status_code == 200)
    unknown = chat(stack, every.sign(every.legacy(pid="nowhere")))
    assert envelope(unknown, 401, "invalid_token")["details"]["reason"] == "unknown_project"
    done(stack, "signing", "revoke", every.kid, "--yes")


def test_private_half_is_in_no_log_and_not_in_the_table(stack: Stack, server: Server) -> None:
    chat(stack, server.sign(server.newer()))
    inner = server.pem.splitlines()[5]
    for log in (stack.directory / "logs").glob("*.log"):
        assert inner not in log.read_text(errors="replace"), log.name
    table = stack.aws("dynamodb")
    pages = table.get_paginator("scan").paginate(TableName=stack.outputs()["TableName"])
    for page in pages:
        assert inner not in json.dumps(page["Items"], default=str)
