"""The sign-in of the Node examples, over HTTP: who gets a token, and for whom."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape

import httpx
import jwt
import pytest

from tests.examples.conftest import Running

pytestmark = pytest.mark.long

TOKEN = "/api/weir/token"
FOREIGN = [
    {"Origin": "http://localhost:5173", "Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example"},  # a browser that does not send Sec-Fetch-Site
    {"Origin": "null"},  # a sandboxed frame
]


@pytest.fixture(params=["nextjs", "express"])
def site(request: pytest.FixtureRequest, examples: Callable[[str], Running]) -> Running:
    return examples(str(request.param))


def sign_in(
    site: Running, client: httpx.Client, headers: dict[str, str], password: str | None = None
) -> httpx.Response:
    account = {
        "email": site.stack.env["DEMO_EMAIL"],
        "password": password or site.stack.env["DEMO_PASSWORD"],
    }
    if site.name != "nextjs":
        return client.post("/api/sign-in", json=account, headers=headers)
    # The form, as a browser without JavaScript sends it.
    page = client.get("/").text
    hidden = re.findall(r'<input type="hidden" name="([^"]+)"(?: value="([^"]*)")?', page)
    fields = {unescape(name): unescape(value) for name, value in hidden} | account
    parts = [(name, (None, value)) for name, value in fields.items()]
    return client.post("/", files=parts, headers=headers)


@pytest.fixture
def nobody_yet(site: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=60) as client:
        yield client


@pytest.fixture
def signed_in(site: Running, nobody_yet: httpx.Client) -> httpx.Client:
    sign_in(site, nobody_yet, {"Origin": site.url})
    assert "session" in nobody_yet.cookies
    return nobody_yet


def uid(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(jwt.decode(reply.json()["token"], options={"verify_signature": False})["uid"])


def test_a_token_has_the_names_that_the_quickstarts_page_reads(signed_in: httpx.Client) -> None:
    reply = signed_in.post(TOKEN)
    assert set(reply.json()) == {"token", "ttl", "sessionId", "expiresAt"}
    assert reply.json()["ttl"] == 900
    assert reply.headers["cache-control"] == "no-store"


def test_a_wrong_password_begins_no_session(site: Running, nobody_yet: httpx.Client) -> None:
    sign_in(site, nobody_yet, {"Origin": site.url}, password="not-the-password-1A")
    assert not nobody_yet.cookies
    assert nobody_yet.post(TOKEN).status_code == 401


def test_a_forged_cookie_is_no_session(site: Running, signed_in: httpx.Client) -> None:
    payload, _, signature = str(signed_in.cookies["session"]).partition(".")
    forged = [
        f"{payload}.",
        payload,
        f"{payload}.{signature[:-4]}AAAA",
        f"e30.{signature}",
        "",
        "%",
    ]
    for cookie in forged:
        headers = {"Cookie": f"session={cookie}"}
        assert httpx.post(f"{site.url}{TOKEN}", headers=headers).status_code == 401, cookie


def test_scripts_cannot_read_the_sessions_cookie(site: Running, nobody_yet: httpx.Client) -> None:
    reply = sign_in(site, nobody_yet, {"Origin": site.url})
    attributes = {part.strip().lower() for part in reply.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=lax"} <= attributes


def test_nothing_that_a_page_sends_says_who_it_is(signed_in: httpx.Client) -> None:
    mine = uid(signed_in.post(TOKEN))
    forged = signed_in.post(
        f"{TOKEN}?user_id=somebody",
        json={"user_id": "somebody", "userId": "somebody", "tier": 3},
        headers={"X-User-Id": "somebody", "X-End-User-Id": "somebody"},
    )
    assert uid(forged) == mine != "somebody"


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_sites_page_gets_no_token(signed_in: httpx.Client, headers: dict[str, str]) -> None:
    assert signed_in.post(TOKEN, headers=headers).status_code == 403
    assert signed_in.post(TOKEN, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_sites_page_cannot_sign_a_visitor_in(
    site: Running, nobody_yet: httpx.Client, headers: dict[str, str]
) -> None:
    reply = sign_in(site, nobody_yet, headers)
    assert reply.status_code >= 400
    assert not nobody_yet.cookies
