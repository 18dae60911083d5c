"""Rotation of the signing keys in the running stack: no token is refused that was good."""

import time

import httpx
import jwt

from tests.stack.conftest import Stack, ask


def rotate(stack: Stack) -> None:
    transport = httpx.HTTPTransport(uds=str(stack.directory / "control.sock"))
    with httpx.Client(transport=transport, timeout=30) as control:
        reply = control.post("http://weir/rotate")
    assert reply.status_code == 200, reply.text


def kids(stack: Stack) -> set[str]:
    return {key["kid"] for key in stack.http.get("/.well-known/jwks.json").json()["keys"]}


def chat(stack: Stack, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return stack.http.post("/v1/chat/completions", headers=headers, json=ask()).status_code


def test_tokens_of_before_and_after_a_rotation_are_believed(stack: Stack) -> None:
    before = stack.mint()["token"]
    listed = kids(stack)
    signed_with = jwt.get_unverified_header(before)["kid"]
    assert signed_with in listed
    rotate(stack)
    give_up = time.monotonic() + 6  # a process keeps the list for five seconds
    while not kids(stack) > listed and time.monotonic() < give_up:
        time.sleep(0.2)
    assert kids(stack) > listed, "a new key is published, no old one is struck"
    assert chat(stack, before) == 200
    assert chat(stack, stack.mint()["token"]) == 200

    current = stack.aws("secretsmanager").get_secret_value(
        SecretId=stack.outputs()["SigningKeySecretArn"], VersionStage="AWSCURRENT"
    )
    assert signed_with not in current["SecretString"], "the old private key is gone"
