"""POST /v1/auth/mint, its alias, and the key list, over HTTP through the deployed template."""

import jwt
import pytest

from tests.stack.conftest import ORIGIN, Stack, envelope

KEY_ROUTES = ["/v1/auth/mint", "/auth/v1/auth/mint"]


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


@pytest.mark.parametrize("route", KEY_ROUTES)
def test_key_becomes_a_token_with_every_name_a_client_looks_for(stack: Stack, route: str) -> None:
    reply = stack.http.post(
        route,
        headers=bearer(stack.env["BEHEST_KEY"]),
        json={"user_id": "u_1", "session_id": "s_1", "ttl": 900, "tier": 2, "role": "regular"},
    )
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    told = reply.json()
    assert told["jwt"] == told["access_token"] == told["token"]
    assert (told["ttl"], told["expires_in"], told["token_type"]) == (900, 900, "Bearer")
    assert told["session_id"] == told["sessionId"] == "s_1"
    assert told["expires_at"] == told["expiresAt"]
    assert told["project_id"] == stack.env["BEHEST_PROJECT_ID"]
    assert told["tenant_id"] == stack.env["BEHEST_TENANT_ID"]


def test_token_verifies_with_the_published_keys_and_a_library(stack: Stack) -> None:
    minted = stack.mint(tier="pro", ttl=60)
    reply = stack.http.get("/.well-known/jwks.json")
    assert reply.headers["cache-control"] == "public, max-age=300"
    keys = jwt.PyJWKSet.from_dict(reply.json())
    kid = jwt.get_unverified_header(minted["token"])["kid"]
    claims = jwt.decode(
        minted["token"],
        keys[kid],
        algorithms=["RS256"],
        audience="behest",
        issuer=f"urn:weir:{stack.env['BEHEST_TENANT_ID']}",
    )
    assert (claims["uid"], claims["tier"], claims["role"]) == ("u_1", "pro", "user")
    assert claims["exp"] - claims["iat"] == 60


def test_two_mints_of_one_user_are_two_sessions(stack: Stack) -> None:
    assert stack.mint()["session_id"] != stack.mint()["session_id"]


def test_curl_without_a_content_type_is_fine(stack: Stack) -> None:
    headers = bearer(stack.env["BEHEST_KEY"]) | {
        "Content-Type": "application/x-www-form-urlencoded"
    }
    reply = stack.http.post("/v1/auth/mint", headers=headers, content='{"user_id":"me"}')
    assert reply.status_code == 200


@pytest.mark.parametrize("route", KEY_ROUTES)
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing"),
        ({"Authorization": "Basic abc"}, "malformed"),
        ({"Authorization": "Bearer"}, "malformed"),
        (bearer("bh_live_x"), "malformed"),
        (bearer("behest_sk_live_" + "0" * 32), "unknown_api_key"),
        (bearer("behest_sk_live_' OR '1'='1"), "malformed"),
        (bearer("eyJhbGciOiJub25lIn0.e30."), "malformed"),
    ],
    ids=str,
)
def test_missing_unknown_or_foreign_key_is_a_401(
    stack: Stack, route: str, headers: dict[str, str], reason: str
) -> None:
    reply = stack.http.post(route, headers=headers, json={"user_id": "u"})
    error = envelope(reply, 401, "invalid_token")
    assert error["details"]["reason"] == reason


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b"{}", "user_id"),
        (b'{"user_id":"admin"}', "user_id"),
        (b'{"user_id":"' + b"x" * 256 + b'"}', "user_id"),
        (b'{"user_id":"u","ttl":59}', "ttl"),
        (b'{"user_id":"u","ttl":86401}', "ttl"),
        (b'{"user_id":"u","tier":"gold"}', "tier"),
    ],
)
def test_bad_body_is_a_400_that_names_the_field(
    stack: Stack, body: bytes, param: str | None
) -> None:
    reply = stack.http.post("/v1/auth/mint", headers=bearer(stack.env["BEHEST_KEY"]), content=body)
    assert envelope(reply, 400, "validation_error")["param"] == param


def test_body_over_the_limit_is_a_413_and_the_next_request_works(stack: Stack) -> None:
    reply = stack.http.post(
        "/v1/auth/mint", headers=bearer(stack.env["BEHEST_KEY"]), content=b"x" * 70_000
    )
    envelope(reply, 413, "request_too_large")
    assert stack.mint()["token"]


def test_key_in_a_browser_is_refused_so_that_the_page_can_read_it(stack: Stack) -> None:
    headers = bearer(stack.env["BEHEST_KEY"]) | {"Origin": ORIGIN}
    reply = stack.http.post("/v1/auth/mint", headers=headers, json={"user_id": "u"})
    envelope(reply, 403, "api_key_in_browser")
    assert reply.headers["access-control-allow-origin"] == ORIGIN


def test_no_secret_is_in_any_log(stack: Stack) -> None:
    stack.mint()
    for log in (stack.directory / "logs").glob("*.log"):
        text = log.read_text(errors="replace")
        for secret in (stack.env["BEHEST_KEY"], "provider-secret-key", "PRIVATE KEY", "eyJhbGci"):
            assert secret not in text, log.name
