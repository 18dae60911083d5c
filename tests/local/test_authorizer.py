"""Which tokens pass API Gateway's Cognito authorizer."""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from local.authorizer import CognitoAuthorizer, Expired, Unauthorized
from local.http1 import Exchange
from tests.local.harness import run, serving

POOL = "us-east-1_abc"
ISSUER = f"https://cognito-idp.us-east-1.amazonaws.com/{POOL}"
# Two, as Cognito has: one for ID tokens, one for access tokens.
KEYS = {kid: rsa.generate_private_key(65537, 2048) for kid in ("id", "access")}
STRANGER = rsa.generate_private_key(65537, 2048)


def jwks() -> bytes:
    keys = [
        {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "RS256"}
        for kid, key in KEYS.items()
    ]
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    told = {
        "sub": "u1",
        "iss": ISSUER,
        "aud": "any-client-of-the-pool",
        "token_use": "id",
        "iat": now,
        "exp": now + 3600,
        "email_verified": True,
        "auth_time": now,
        "cognito:groups": ["free", "pro"],
    }
    return {name: value for name, value in {**told, **changes}.items() if value is not None}


def token(kid: str = "id", key: rsa.RSAPrivateKey | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key or KEYS[kid], "RS256", headers={"kid": kid})


@asynccontextmanager
async def authorizer() -> AsyncIterator[tuple[CognitoAuthorizer, list[str]]]:
    fetched: list[str] = []

    async def handler(exchange: Exchange) -> None:
        fetched.append(exchange.target)
        await exchange.read(0)
        await exchange.respond(200, [], jwks())

    async with serving(handler) as port:
        yield CognitoAuthorizer(f"http://127.0.0.1:{port}", "us-east-1", POOL), fetched


@pytest.mark.parametrize("prefix", ["", "Bearer "])
def test_an_id_token_passes_and_its_claims_are_text(prefix: str) -> None:
    async def test() -> None:
        async with authorizer() as (judge, fetched):
            told = await judge.claims(prefix + token(exp=4_000_000_000, iat=1_700_000_000), ())
        assert fetched == [f"/{POOL}/.well-known/jwks.json"]
        assert told["sub"] == "u1"
        assert told["cognito:groups"] == "free,pro"
        assert told["email_verified"] == "true"
        assert told["auth_time"].isdigit()
        assert told["exp"] == "Tue Oct 02 07:06:40 UTC 2096"
        assert told["iat"] == "Tue Nov 14 22:13:20 UTC 2023"

    run(test())


def unsigned() -> str:
    def part(told: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'kid': 'id'})}.{part(claims())}."


def tampered() -> str:
    head, _, signature = token().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(sub="u2")).encode()).decode().rstrip("=")
    return f"{head}.{body}.{signature}"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer ",
        "Bearer x",
        "Basic dTpw",
        token(token_use="access"),
        token(token_use=None),
        token(iss=ISSUER + "x"),
        token(iss=None),
        token(exp=None),
        token(key=STRANGER),
        jwt.encode(claims(), KEYS["id"], "RS256", headers={"kid": "unknown"}),
        jwt.encode(claims(), KEYS["id"], "RS256"),
        jwt.encode(claims(), "secret" * 8, "HS256", headers={"kid": "id"}),
        unsigned(),
        tampered(),
    ],
    ids=[
        "missing",
        "empty",
        "bearer-only",
        "no-jwt",
        "basic",
        "access-token",
        "no-use",
        "other-pool",
        "no-issuer",
        "no-expiry",
        "foreign-key",
        "unknown-kid",
        "no-kid",
        "hs256",
        "alg-none",
        "tampered",
    ],
)
def test_anything_else_is_unauthorized(header: str | None) -> None:
    async def test() -> None:
        async with authorizer() as (judge, _):
            with pytest.raises(Unauthorized):
                await judge.claims(header, ())

    run(test())


def test_an_expired_token_is_told_apart() -> None:
    async def test() -> None:
        async with authorizer() as (judge, _):
            with pytest.raises(Expired):
                await judge.claims(token(exp=int(time.time()) - 1), ())

    run(test())


def test_a_route_with_scopes_takes_access_tokens_that_have_one() -> None:
    async def test() -> None:
        async with authorizer() as (judge, _):
            right = token("access", token_use="access", scope="openid api/chat")
            assert (await judge.claims(right, ("api/chat",)))["scope"] == "openid api/chat"
            for wrong in (token(), token("access", token_use="access", scope="openid")):
                with pytest.raises(Unauthorized):
                    await judge.claims(wrong, ("api/chat",))

    run(test())


def test_unknown_kids_do_not_make_it_fetch_again_and_again() -> None:
    async def test() -> None:
        async with authorizer() as (judge, fetched):
            for number in range(5):
                unknown = jwt.encode(claims(), STRANGER, "RS256", headers={"kid": str(number)})
                with pytest.raises(Unauthorized):
                    await judge.claims(unknown, ())
            await judge.claims(token(), ())
        assert len(fetched) == 1

    run(test())
