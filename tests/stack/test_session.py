"""POST /api/behest/token: a Cognito session becomes a user token. No body, no cookie."""

import jwt
import pytest
from botocore.exceptions import ClientError

from tests.stack.conftest import ORIGIN, Stack, ask, envelope

ROUTE = "/api/behest/token"


def test_signed_in_user_gets_a_token_that_chats(stack: Stack) -> None:
    session = stack.sign_in()
    reply = stack.http.post(
        ROUTE, headers={"Authorization": f"Bearer {session['IdToken']}", "Origin": ORIGIN}
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    told = reply.json()
    assert set(told) == {"token", "ttl", "sessionId", "expiresAt"}
    claims = jwt.decode(told["token"], options={"verify_signature": False})
    subject = jwt.decode(session["IdToken"], options={"verify_signature": False})["sub"]
    assert (claims["uid"], claims["role"], claims["tier"]) == (subject, "user", "free")
    chat = stack.http.post(
        "/v1/chat/completions",
        headers={"Authorization": f"Bearer {told['token']}", "Origin": ORIGIN},
        json=ask(),
    )
    assert chat.status_code == 200


def test_nothing_is_read_from_the_body(stack: Stack) -> None:
    reply = stack.http.post(
        ROUTE,
        headers={"Authorization": stack.sign_in()["IdToken"]},
        content=b'{"user_id":"somebody else","tier":"max","role":"admin","ttl":86400',
    )
    claims = jwt.decode(reply.json()["token"], options={"verify_signature": False})
    assert (claims["uid"] != "somebody else", claims["tier"], claims["role"]) == (
        True,
        "free",
        "user",
    )
    assert reply.json()["ttl"] == 900


def test_wrong_password_gives_no_session(stack: Stack) -> None:
    with pytest.raises(ClientError, match="NotAuthorized"):
        stack.sign_in(password="not-the-password-1A")


def test_other_tokens_are_refused_in_the_envelope(stack: Stack) -> None:
    session = stack.sign_in()
    tampered = session["IdToken"][:-6] + "AAAAAA"
    for credential in (session["AccessToken"], tampered, stack.mint()["token"], "x.y.z"):
        reply = stack.http.post(ROUTE, headers={"Authorization": f"Bearer {credential}"})
        envelope(reply, 401, "invalid_token")
        assert reply.headers["access-control-allow-origin"] == "*"
    envelope(stack.http.post(ROUTE), 401, "invalid_token")


def test_page_of_another_origin_gets_no_token(stack: Stack) -> None:
    headers = {"Authorization": stack.sign_in()["IdToken"], "Origin": "https://evil.example"}
    envelope(stack.http.post(ROUTE, headers=headers), 403, "origin_not_allowed")
