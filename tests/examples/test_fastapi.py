"""The FastAPI example as a server, over HTTP: who gets a token, and for whom."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import httpx
import jwt
import pytest

from tests.examples.conftest import Running
from tests.provider import FakeProvider

pytestmark = pytest.mark.long

TOKEN = "/api/behest/token"
FOREIGN = {"Origin": "http://localhost:5173", "Sec-Fetch-Site": "same-site"}


@pytest.fixture
def site(examples: Callable[[str], Running]) -> Running:
    return examples("fastapi")


@pytest.fixture
def visitor(site: Running) -> Iterator[httpx.Client]:
    """A browser's cookies, after signing in."""
    with httpx.Client(base_url=site.url, timeout=30) as client:
        account = {n: site.stack.env[f"DEMO_{n.upper()}"] for n in ("email", "password")}
        reply = client.post("/api/sign-in", json=account)
        assert reply.status_code == 200, reply.text
        yield client


def uid(token: str) -> str:
    return str(jwt.decode(token, options={"verify_signature": False})["uid"])


def test_a_token_has_the_names_that_the_quickstarts_page_reads(visitor: httpx.Client) -> None:
    reply = visitor.post(TOKEN)
    assert set(reply.json()) == {"token", "ttl", "sessionId", "expiresAt"}
    assert reply.json()["ttl"] == 900
    assert reply.headers["cache-control"] == "no-store"


def test_without_a_session_there_is_no_token(site: Running) -> None:
    assert httpx.post(f"{site.url}{TOKEN}").status_code == 401
    forged = {"session": "eyJlbWFpbCI6ICJhZGFAZXhhbXBsZS5jb20ifQ==.aaaa.bbbb"}
    assert httpx.post(f"{site.url}{TOKEN}", cookies=forged).status_code == 401


def test_nothing_that_a_page_sends_says_who_it_is(visitor: httpx.Client) -> None:
    mine = uid(visitor.post(TOKEN).json()["token"])
    forged = visitor.post(
        f"{TOKEN}?user_id=somebody",
        json={"user_id": "somebody", "userId": "somebody"},
        headers={"X-User-Id": "somebody", "X-End-User-Id": "somebody"},
    )
    assert uid(forged.json()["token"]) == mine != "somebody"


@pytest.mark.parametrize("path", [TOKEN, "/api/chat", "/api/sign-in", "/api/sign-out"])
def test_another_sites_page_cannot_use_the_visitors_cookie(
    visitor: httpx.Client, path: str
) -> None:
    assert visitor.post(path, json={"messages": []}, headers=FOREIGN).status_code == 403


def test_the_server_streams_an_answer_for_its_visitor(
    visitor: httpx.Client, provider: FakeProvider
) -> None:
    gate = threading.Event()
    provider.points["gate"] = lambda: gate.wait(20)
    steps = [{"text": "First "}, {"point": "gate"}, {"text": "and last."}]
    how = {"do": "steps", "steps": [*steps, {"finish": "stop"}, {"done": True}]}
    messages = [{"role": "user", "content": json.dumps(how)}]
    with visitor.stream("POST", "/api/chat", json={"messages": messages}) as reply:
        pieces = reply.iter_text()
        assert next(pieces) == "First "
        gate.set()
        assert "".join(pieces) == "and last."


def test_a_visitor_who_leaves_stops_the_provider(
    visitor: httpx.Client, provider: FakeProvider
) -> None:
    provider.left.clear()
    messages = [
        {"role": "user", "content": json.dumps({"do": "stream", "chunks": 1000, "gap_s": 0.02})}
    ]
    with visitor.stream("POST", "/api/chat", json={"messages": messages}) as reply:
        next(reply.iter_text())
    assert provider.left.wait(5)


def test_a_provider_that_fails_is_a_sentence_without_the_servers_secrets(
    visitor: httpx.Client, site: Running
) -> None:
    messages = [{"role": "user", "content": json.dumps({"do": "fail", "status": 500})}]
    reply = visitor.post("/api/chat", json={"messages": messages})
    assert reply.status_code == 503
    assert reply.json()["message"] == "The chat is not available now. Try again later."
    assert site.stack.env["BEHEST_KEY"] not in reply.text + site.log.read_text()
