"""What only the Express example has: chat from the server, and one page for every user."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Error, Locator, expect

from local import example, node
from tests.browser.conftest import Visitor
from tests.examples.conftest import PORTS, Running
from tests.provider import FakeProvider
from tests.stack.conftest import Stack

pytestmark = pytest.mark.long

CHAT = "/v1/chat/completions"


@pytest.fixture
def site(examples: Callable[[str], Running]) -> Running:
    return examples("express")


@pytest.fixture
def summarise(visitor: Visitor, site: Running) -> Locator:
    """The button, after a first answer."""
    visitor.sign_in(at=site.url)
    visitor.ask("What is a weir?")
    visitor.sees_an_answer()
    return visitor.page.get_by_role("button", name="Summarise")


def test_the_server_summarises_a_conversation_for_its_user(
    visitor: Visitor, summarise: Locator, provider: FakeProvider
) -> None:
    summarise.click()
    expect(visitor.answers).to_have_count(2)
    expect(visitor.answers.last).to_contain_text("w0 w1")
    assert len(visitor.posts(CHAT)) == 1  # the second one was the server's
    asked = str(provider.requests[-1]["messages"][-1]["content"])
    assert "user: What is a weir?" in asked


def test_stop_ends_what_the_server_asked_at_the_provider(
    visitor: Visitor, summarise: Locator, provider: FakeProvider
) -> None:
    provider.left.clear()
    provider.does = {"do": "stream", "chunks": 1000, "gap_s": 0.02}
    try:
        before = len(provider.requests)
        summarise.click()
        while len(provider.requests) == before:  # until the server has asked
            visitor.page.wait_for_timeout(20)
        visitor.page.get_by_role("button", name="Stop").click()
        expect(visitor.page.get_by_text("Stopped.")).to_be_visible()
        assert provider.left.wait(10)
    finally:
        provider.does = {}


def test_a_failure_of_the_server_is_a_sentence_and_not_its_settings(
    visitor: Visitor, summarise: Locator, provider: FakeProvider
) -> None:
    provider.does = {"do": "body", "body": "the provider's secrets", "status": 500}
    try:
        with visitor.page.expect_response("**/api/summary") as replied:
            summarise.click()
        expect(visitor.alert).to_contain_text("The chat cannot answer at the moment.")
    finally:
        provider.does = {}
    unavailable = {"message": "The chat is not available now. Try again later."}
    assert replied.value.json() == unavailable
    visitor.page.get_by_role("button", name="Try again").click()
    visitor.sees_an_answer()


def test_the_next_user_of_the_page_gets_a_token_and_a_conversation_of_their_own(
    visitor: Visitor, site: Running
) -> None:
    visitor.sign_in(at=site.url)
    visitor.ask(do="stream", chunks=1000, gap_s=0.02)
    expect(visitor.answers).to_contain_text("w3")
    visitor.page.get_by_role("button", name="Sign out").click()
    expect(visitor.page.get_by_text("You are signed out.")).to_be_visible()
    visitor.page.get_by_label("E-mail").fill(visitor.stack.env["DEMO_EMAIL"])
    visitor.page.get_by_label("Password").fill(visitor.stack.env["DEMO_PASSWORD"])
    visitor.page.get_by_role("button", name="Sign in").click()
    expect(visitor.page.locator(".turn")).to_have_count(0)
    visitor.ask("Hello")
    visitor.sees_an_answer()
    first, second = visitor.posts(CHAT)
    assert first.headers["authorization"] != second.headers["authorization"]
    sent = json.loads(second.post_data or "")["messages"]
    assert [message["content"] for message in sent] == ["Hello"]


def test_the_page_has_no_way_to_show_html_that_was_not_made_safe(
    visitor: Visitor, site: Running
) -> None:
    reply = visitor.page.goto(site.url)
    assert reply is not None
    assert "unsafe" not in reply.headers["content-security-policy"]
    with pytest.raises(Error, match="TrustedHTML"):
        visitor.page.evaluate("document.body.innerHTML = '<b>bold</b>'")


@pytest.mark.parametrize("path", ["/api/summary", "/api/sign-out"])
def test_another_sites_page_cannot_use_the_visitors_cookie(site: Running, path: str) -> None:
    foreign = {"Origin": "http://localhost:5173", "Sec-Fetch-Site": "same-site"}
    assert httpx.post(f"{site.url}{path}", json={}, headers=foreign).status_code == 403


def test_the_server_asks_for_no_visitor_without_a_session(site: Running) -> None:
    body = {"conversation": "user: hi", "user_id": "somebody"}
    assert httpx.post(f"{site.url}/api/summary", json=body).status_code == 401


def test_npm_run_ask_answers_for_a_user(site: Running, stack: Stack) -> None:
    chosen = example.BY_NAME["express"]
    _, npm = node.find()
    asked = subprocess.run(
        [*npm, "run", "--silent", "ask", "--", "job-1", "What", "is", "a", "weir?"],
        cwd=chosen.folder,
        env=example.environment(chosen, stack.env, PORTS["express"]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("w0 w1"), asked.stdout
