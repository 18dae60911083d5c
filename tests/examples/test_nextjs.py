"""What only the Next.js example has: a list of chats, useChat, and a build for production."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Locator, expect

from local import example, node
from tests.browser.conftest import Visitor
from tests.examples.conftest import PORTS, PRODUCTION, Running, serving
from tests.provider import FakeProvider
from tests.stack.conftest import Stack

pytestmark = pytest.mark.long

CHAT = "/v1/chat/completions"


@pytest.fixture
def site(examples: Callable[[str], Running]) -> Running:
    return examples("nextjs")


@pytest.fixture
def signed_in(visitor: Visitor, site: Running) -> Visitor:
    visitor.sign_in(at=site.url)
    expect(visitor.message).to_be_visible()
    return visitor


@pytest.fixture
def chats(signed_in: Visitor) -> Locator:
    """The list of a visitor who has none yet."""
    _forget_all(signed_in.stack, signed_in)
    signed_in.page.reload()
    return signed_in.page.get_by_role("navigation", name="Chats")


def _forget_all(stack: Stack, visitor: Visitor) -> None:
    ask = "async () => (await (await fetch('/api/weir/token', {method: 'POST'})).json()).token"
    headers = {"Authorization": f"Bearer {visitor.page.evaluate(ask)}"}
    assert stack.http.delete("/v1/threads?confirm=all", headers=headers).status_code == 204


def test_a_chat_survives_a_reload_and_goes_on(
    signed_in: Visitor, chats: Locator, provider: FakeProvider
) -> None:
    signed_in.ask("What is a weir?")
    signed_in.sees_an_answer()
    expect(signed_in.page).to_have_url(re.compile(r"/chat\?thread=[\w-]{36}$"))
    answer = signed_in.answers.inner_text()
    signed_in.page.reload()
    expect(signed_in.page.locator(".question")).to_have_text(re.compile("What is a weir?"))
    expect(signed_in.answers).to_have_text(answer, use_inner_text=True)
    signed_in.ask("And a lock?")
    expect(signed_in.answers).to_have_count(2)
    signed_in.sees_an_answer()
    sent = json.loads(signed_in.posts(CHAT)[-1].post_data or "")["messages"]
    assert [message["content"] for message in sent] == ["And a lock?"]
    asked = [str(message["content"]) for message in provider.requests[-1]["messages"]]
    assert asked[0] == "What is a weir?"
    assert asked[-1] == "And a lock?"


def test_chats_can_be_opened_begun_and_deleted(signed_in: Visitor, chats: Locator) -> None:
    page = signed_in.page
    signed_in.ask("First chat")
    signed_in.sees_an_answer()
    expect(chats.get_by_role("link", name="First chat")).to_have_attribute("aria-current", "page")
    chats.get_by_role("link", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    signed_in.ask("Second chat")
    signed_in.sees_an_answer()
    expect(chats.get_by_role("listitem")).to_have_count(2)

    chats.get_by_role("link", name="First chat").click()
    expect(page.locator(".question")).to_have_text(re.compile("First chat"))
    page.go_back()
    expect(page.locator(".question")).to_have_text(re.compile("Second chat"))

    chats.get_by_role("button", name="Delete Second chat").click()
    expect(chats.get_by_role("listitem")).to_have_count(1)
    expect(page.locator(".turn")).to_have_count(0)
    page.reload()
    expect(chats.get_by_role("listitem")).to_have_count(1)
    assert signed_in.console_errors == []


def test_on_a_phone_the_chats_are_behind_a_button(signed_in: Visitor, chats: Locator) -> None:
    signed_in.page.set_viewport_size({"width": 390, "height": 844})
    signed_in.ask("First chat")
    signed_in.sees_an_answer()
    expect(chats).to_be_hidden()
    signed_in.page.get_by_role("button", name="Chats").click()
    expect(chats.get_by_role("link", name="First chat")).to_be_visible()
    signed_in.page.keyboard.press("Escape")
    expect(chats).to_be_hidden()
    signed_in.page.get_by_role("button", name="Chats").click()
    chats.get_by_role("link", name="New chat").click()
    expect(chats).to_be_hidden()
    expect(signed_in.message).to_be_focused()


def test_leaving_a_chat_in_mid_answer_stops_the_provider(
    signed_in: Visitor, chats: Locator, provider: FakeProvider
) -> None:
    provider.left.clear()
    signed_in.ask(do="stream", chunks=1000, gap_s=0.02)
    expect(signed_in.answers).to_contain_text("w3")
    chats.get_by_role("link", name="New chat").click()
    assert provider.left.wait(5)
    expect(signed_in.page.locator(".turn")).to_have_count(0)


def test_a_session_that_has_ended_leads_to_the_sign_in(
    visitor: Visitor, site: Running, context: BrowserContext
) -> None:
    visitor.page.clock.install()
    visitor.sign_in(at=site.url)
    visitor.ask("One")
    visitor.sees_an_answer()
    context.clear_cookies()
    visitor.page.clock.fast_forward("14:05")  # the token is to be renewed
    visitor.ask("Two")
    expect(
        visitor.page.get_by_text("Your session has ended. Please sign in again.")
    ).to_be_visible()
    expect(visitor.page.get_by_label("Password")).to_be_visible()


# ---------------------------------------------------------------- useChat


@pytest.fixture
def ai_page(signed_in: Visitor, site: Running) -> Visitor:
    signed_in.page.goto(f"{site.url}/ai")
    return signed_in


def test_usechat_streams_from_the_gateway_with_the_whole_conversation(ai_page: Visitor) -> None:
    ai_page.ask("One")
    ai_page.sees_an_answer()
    ai_page.ask("Two")
    expect(ai_page.answers).to_have_count(2)
    ai_page.sees_an_answer()
    assert all(
        post.url.startswith(ai_page.stack.env["BEHEST_BASE_URL"]) for post in ai_page.posts(CHAT)
    )
    sent = json.loads(ai_page.posts(CHAT)[-1].post_data or "")["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]


def test_stop_of_usechat_ends_the_answer_at_the_provider(
    ai_page: Visitor, provider: FakeProvider
) -> None:
    provider.left.clear()
    ai_page.ask(do="stream", chunks=1000, gap_s=0.02)
    expect(ai_page.answers).to_contain_text("w3")
    ai_page.page.get_by_role("button", name="Stop").click()
    assert provider.left.wait(5)
    ai_page.ask("And then?")
    ai_page.sees_an_answer()


def test_usechat_explains_a_failure_and_can_ask_again(
    ai_page: Visitor, provider: FakeProvider
) -> None:
    provider.does = {"do": "stream", "chunks": 5, "cut": {"after": 3, "how": "reset"}}
    try:
        ai_page.ask("Hello")
        expect(ai_page.alert).to_contain_text("The chat cannot answer at the moment.")
    finally:
        provider.does = {}
    ai_page.page.get_by_role("button", name="Try again").click()
    ai_page.sees_an_answer()
    expect(ai_page.alert).to_have_count(0)
    expect(ai_page.answers).to_have_count(1)


# ---------------------------------------------------------------- in production


@pytest.fixture(scope="module")
def production(stack: Stack) -> Iterator[Running]:
    chosen = example.BY_NAME["nextjs"]
    example.prepare(chosen)
    _, npm = node.find()
    # Without any of its settings: they are read when the server starts.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BEHEST_", "WEIR_", "NEXT_"))
    }
    built = subprocess.run(
        [*npm, "run", "build"],
        cwd=chosen.folder,
        env=environment | {"NEXT_TELEMETRY_DISABLED": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    command = [*npm, "run", "start", "--", "--port", str(PORTS[PRODUCTION])]
    with serving(PRODUCTION, stack, command, chosen) as running:
        yield running


def test_the_production_build_works_under_its_content_security_policy(
    visitor: Visitor, production: Running
) -> None:
    reply = visitor.page.goto(production.url)
    assert reply is not None
    policy = reply.headers["content-security-policy"]
    assert "unsafe" not in policy
    visitor.sign_in(at=production.url)
    visitor.ask("Hello")
    visitor.sees_an_answer()
    expect(visitor.answers.locator(".markdown")).to_contain_text("w0 w1")
    assert not [line for line in visitor.console_errors if "Content Security Policy" in line]
    assert visitor.complaints == []
