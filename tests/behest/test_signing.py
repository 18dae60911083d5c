"""Vector 7 of the contract: tokens that a tenant's server has signed itself, by both generations of
the published signer and by attackers.
"""

import base64
import time
from dataclasses import dataclass
from typing import Any

import behest as published
import httpx
import jwt
import pytest
from behest import BehestSigningClient, sign_behest_jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from tests.behest.conftest import CHAT, HELLO, Sdk, until
from tests.stack.admin import UNLIMITED, Admin, bearer
from tests.stack.conftest import Stack, ask
from tests.stack.test_cli import done, told

PID = "signing-shop"
OTHER = "signing-other"


@dataclass(frozen=True)
class Key:
    """A signing key as `weir signing create` shows it, once."""

    kid: str
    text: str  # bare base64 of the PKCS#8 PEM
    tid: str
    pid: str

    @property
    def pem(self) -> str:
        return base64.b64decode(self.text).decode()

    def claims(self, **changed: Any) -> dict[str, Any]:
        """What the older signer says."""
        now = int(time.time())
        own = {"tid": self.tid, "pid": self.pid, "uid": "u", "iss": "behest", "aud": "behest"}
        return {**own, "iat": now, "nbf": now, "exp": now + 300, **changed}

    def sign(self, *, kid: str | None = None, pem: str | None = None, **changed: Any) -> str:
        headers = {"kid": kid or self.kid, "typ": "JWT"}
        return jwt.encode(self.claims(**changed), pem or self.pem, "RS256", headers=headers)


def create(stack: Stack, pid: str) -> Key:
    made = told(stack, "signing", "create", "--project", pid)
    return Key(made["kid"], made["private_key"], stack.env["BEHEST_TENANT_ID"], pid)


@pytest.fixture(scope="module")
def key(stack: Stack, admin: Admin) -> Key:
    for pid in (PID, OTHER):
        admin.project(pid, default_model="fake-large", **UNLIMITED)
    return create(stack, PID)


def send(stack: Stack, token: str) -> httpx.Response:
    return stack.http.post(CHAT, headers=bearer(token), json=ask())


def test_vector_07_printed_key_is_one_that_the_published_client_loads(sdk: Sdk, key: Key) -> None:
    client = sdk(key=key.text, kid=key.kid, tenant_id=key.tid, project_id=key.pid)
    assert client.mode == "sign"
    answer = client.chat.completions.create(messages=HELLO, user_id="u_1", tier=2)
    assert answer["choices"][0]["message"]["content"] == "Hello!"
    text = "".join(
        chunk["choices"][0]["delta"].get("content") or ""
        for chunk in client.chat.completions.create(messages=HELLO, stream=True)
    )
    assert text == "w0 w1 w2 w3 w4 "


def test_vector_07_token_of_the_older_signer_is_good(stack: Stack, key: Key) -> None:
    signed = sign_behest_jwt(
        private_key_pem=key.pem,
        key_id=key.kid,
        tenant_id=key.tid,
        project_id=key.pid,
        user_id="legacy",
    )
    assert send(stack, signed["access_token"]).status_code == 200
    with BehestSigningClient(
        signing_key_pem=key.pem,
        key_id=key.kid,
        tenant_id=key.tid,
        project_id=key.pid,
        base_url=stack.env["BEHEST_BASE_URL"] + "/v1",
    ) as client:
        answer = client.chat.completions.create(model="default", messages=HELLO)
        assert answer.choices[0].message.content == "Hello!"


def test_vector_07_role_of_a_signed_token_is_always_user(stack: Stack, sdk: Sdk, key: Key) -> None:
    client = sdk(key=key.text, kid=key.kid, tenant_id=key.tid, project_id=key.pid)
    token = client.auth.mint(user_id="u_1", role="admin").token
    assert send(stack, token).status_code == 200
    reply = stack.http.get("/v1/usage?user_id=someone-else", headers=bearer(token))
    assert reply.status_code == 403


def test_vector_07_token_for_another_tenant_or_project_is_refused(stack: Stack, key: Key) -> None:
    assert send(stack, key.sign(tid="another")).status_code == 401
    assert send(stack, key.sign(pid=OTHER)).status_code in (401, 403)
    assert send(stack, key.sign(pid="nobody")).status_code in (401, 403)


def test_vector_07_token_without_an_rsa_signature_of_the_key_is_refused(
    stack: Stack, key: Key
) -> None:
    headers = {"kid": key.kid, "typ": "JWT"}
    unsigned = jwt.encode(key.claims(), "", "none", headers=headers)
    private = load_pem_private_key(key.pem.encode(), None)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    # PyJWT refuses to sign this: an attacker does not use it.
    head, body, _ = key.sign().split(".")
    forged = _hmac(head.replace("UlMyNTYi", "SFMyNTYi"), body, public)
    strange = (
        rsa.generate_private_key(65537, 2048)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode()
    )
    for token in (unsigned, forged, key.sign(pem=strange)):
        assert send(stack, token).status_code == 401


def _hmac(head: str, body: str, secret: bytes) -> str:
    import hashlib
    import hmac

    raw = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"


def test_vector_07_token_that_lives_for_more_than_a_day_is_refused(stack: Stack, key: Key) -> None:
    now = int(time.time())
    assert send(stack, key.sign(iat=now, exp=now + 86_400)).status_code == 200
    assert send(stack, key.sign(iat=now, exp=now + 86_401)).status_code == 401


def test_vector_07_key_that_is_not_of_the_ring_cannot_stand_for_one(stack: Stack, key: Key) -> None:
    ours = jwt.get_unverified_header(stack.mint()["token"])["kid"]
    assert send(stack, key.sign(kid=ours)).status_code == 401


def test_vector_07_revoked_key_counts_for_nothing_within_seconds(
    stack: Stack, sdk: Sdk, key: Key
) -> None:
    revoked = create(stack, PID)
    token = revoked.sign()
    assert send(stack, token).status_code == 200
    done(stack, "signing", "revoke", revoked.kid, "--yes")
    until(lambda: send(stack, token).status_code == 401)
    assert send(stack, key.sign()).status_code == 200
    client = sdk(key=revoked.text, kid=revoked.kid, tenant_id=key.tid, project_id=key.pid)
    with pytest.raises(published.BehestAuthError):
        client.chat.completions.create(messages=HELLO)


def test_signing_keys_are_in_the_published_key_list(stack: Stack, key: Key) -> None:
    listed = stack.http.get("/.well-known/jwks.json").json()["keys"]
    assert key.kid in [each["kid"] for each in listed]
