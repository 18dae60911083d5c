"""Every front end in Chromium: what a visitor does and sees, whichever framework made the page."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import Visitor, answer_every_origin
from tests.examples.conftest import Running
from tests.provider import FakeProvider
from tests.stack.conftest import Stack, operator_of
from weir.operator.documents import ProjectChange, parsed

pytestmark = pytest.mark.long

# Where each page gets its token.
TOKEN_ROUTES = {
    "react-vite": "/api/behest/token",
    "nextjs": "/api/weir/token",
    "express": "/api/weir/token",
    "fastapi": "/api/behest/token",
    "chat-widget": "/api/chat-token",
}
CHAT = "/v1/chat/completions"
AI_SENTENCE = "You are talking to an AI. Its answers can be wrong."
CONFIGURATION_COUNTS_WITHIN_S = 15


@pytest.fixture(params=TOKEN_ROUTES)
def site(request: pytest.FixtureRequest, examples: Callable[[str], Running]) -> Running:
    return examples(str(request.param))


def sign_in(visitor: Visitor, site: Running, *, password: str | None = None, at: str = "") -> None:
    visitor.sign_in(password=password, at=at or site.url)
    if site.name == "chat-widget" and password is None:
        visitor.page.get_by_role("button", name="Chat", exact=True).click()


def test_a_wrong_password_is_refused_in_words(visitor: Visitor, site: Running) -> None:
    sign_in(visitor, site, password="not-the-password-1A")
    expect(visitor.alert).to_have_text("The e-mail address or the password is wrong.")
    assert visitor.posts(TOKEN_ROUTES[site.name]) == []


def test_an_answer_streams_from_the_gateway_into_the_page(
    visitor: Visitor, site: Running, provider: FakeProvider
) -> None:
    gate = Event()
    provider.points["gate"] = lambda: gate.wait(20)
    sign_in(visitor, site)
    steps = [{"text": "First "}, {"point": "gate"}, {"text": "and last."}]
    visitor.ask(do="steps", steps=[*steps, {"finish": "stop"}, {"done": True}])
    expect(visitor.answers).to_contain_text("First")
    expect(visitor.page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    gate.set()
    expect(visitor.answers).to_contain_text("First and last.")
    visitor.sees_an_answer()
    (post,) = visitor.posts(CHAT)
    assert post.url.startswith(visitor.stack.env["BEHEST_BASE_URL"])
    assert "cookie" not in post.all_headers()


def test_stop_ends_the_answer_here_and_at_the_provider(
    visitor: Visitor, site: Running, provider: FakeProvider
) -> None:
    provider.left.clear()
    sign_in(visitor, site)
    visitor.ask(do="stream", chunks=1000, gap_s=0.02)
    expect(visitor.answers).to_contain_text("w3")
    visitor.page.get_by_role("button", name="Stop").click()
    expect(visitor.page.get_by_text("Stopped.")).to_be_visible()
    assert provider.left.wait(5)
    assert [post.url for post in visitor.posts("/cancel")]
    visitor.ask("And then?")
    visitor.sees_an_answer()


def test_the_token_is_renewed_in_the_middle_of_a_conversation(
    visitor: Visitor, site: Running
) -> None:
    visitor.page.clock.install()
    sign_in(visitor, site)
    visitor.ask("One")
    visitor.sees_an_answer()
    visitor.page.clock.fast_forward("14:05")  # of 15 minutes
    visitor.ask("Two")
    expect(visitor.answers).to_have_count(2)
    visitor.sees_an_answer()
    first, second = (post.headers["authorization"] for post in visitor.posts(CHAT))
    assert first != second


def test_a_page_of_an_unlisted_origin_says_so_and_the_console_names_the_command(
    visitor: Visitor, site: Running
) -> None:
    cognito = visitor.stack.env["COGNITO_ENDPOINT"]
    visitor.page.route(f"{cognito}/", answer_every_origin)
    sign_in(visitor, site, at=site.elsewhere)
    if site.name != "react-vite":  # which meets the gateway when it signs in
        visitor.ask()
    expect(visitor.alert).to_contain_text("not allowed")
    command = f"weir origins add {site.elsewhere}"
    assert any(command in line for line in visitor.console_errors), visitor.console_errors


@contextmanager
def limited(stack: Stack, limits: dict[str, Any], status: int) -> Iterator[None]:
    """Limit the whole project, until its users get `status`; lift it afterwards."""
    operator = operator_of(stack)
    operator.update_project("default", parsed(ProjectChange, {"limits": limits}))
    try:
        _until(stack, status)
        yield
    finally:
        lifted = dict.fromkeys(limits)
        operator.update_project("default", parsed(ProjectChange, {"limits": lifted}))
        _until(stack, 200)


def _until(stack: Stack, status: int) -> None:
    token = stack.mint("somebody else")["token"]
    until = time.monotonic() + CONFIGURATION_COUNTS_WITHIN_S
    body = {"messages": [{"role": "user", "content": "hi"}]}
    agreed = 0
    while agreed < 5:  # every process of the function has to know
        reply = stack.http.post(CHAT, headers={"Authorization": f"Bearer {token}"}, json=body)
        agreed = agreed + 1 if reply.status_code == status else 0
        assert time.monotonic() < until, reply.text
        time.sleep(0.05)


def test_a_budget_that_is_used_up_is_a_sentence(visitor: Visitor, site: Running) -> None:
    with limited(visitor.stack, {"usd_per_month": 0.000001}, 402):
        sign_in(visitor, site)
        visitor.ask()
        expect(visitor.alert).to_contain_text(re.compile("used up|no room|left", re.IGNORECASE))
        assert len(visitor.posts(CHAT)) == 1


def test_too_many_requests_are_a_sentence_with_the_time_to_wait(
    visitor: Visitor, site: Running
) -> None:
    with limited(visitor.stack, {"rpm": 1}, 429):
        sign_in(visitor, site)
        visitor.ask("One")
        expect(visitor.alert).to_contain_text(re.compile(r"in \d+ (second|minute)"))


def test_a_question_asked_offline_can_be_asked_again(
    visitor: Visitor, site: Running, context: BrowserContext
) -> None:
    sign_in(visitor, site)
    visitor.ask("One")
    visitor.sees_an_answer()
    context.set_offline(True)
    visitor.ask("Two")
    expect(visitor.alert).to_be_visible()
    time.sleep(5)
    context.set_offline(False)
    visitor.page.get_by_role("button", name="Try again").click()
    expect(visitor.answers).to_have_count(2)
    visitor.sees_an_answer()
    expect(visitor.alert).to_have_count(0)


def test_an_answer_goes_on_while_the_tab_is_hidden(
    visitor: Visitor, site: Running, provider: FakeProvider, context: BrowserContext
) -> None:
    gate = Event()
    provider.points["gate"] = lambda: gate.wait(20)
    sign_in(visitor, site)
    steps = [{"text": "First "}, {"point": "gate"}, {"text": "and last."}]
    visitor.ask(do="steps", steps=[*steps, {"finish": "stop"}, {"done": True}])
    expect(visitor.answers).to_contain_text("First")
    other = context.new_page()  # which comes to the front
    gate.set()
    other.wait_for_timeout(500)
    other.close()
    visitor.page.bring_to_front()
    expect(visitor.answers).to_contain_text("First and last.")
    visitor.sees_an_answer()


def test_two_tabs_talk_side_by_side(
    visitor: Visitor, site: Running, context: BrowserContext, stack: Stack
) -> None:
    sign_in(visitor, site)
    second = Visitor(context.new_page(), stack)
    if site.name == "react-vite":
        sign_in(second, site)
    else:  # the site's own cookie serves both
        expect(visitor.message).to_be_visible()
        second.page.goto(site.url)
        if site.name == "chat-widget":
            second.page.get_by_role("button", name="Chat", exact=True).click()
    for tab in (visitor, second):
        tab.ask("Hello")
    for tab in (visitor, second):
        tab.sees_an_answer()
    assert visitor.page.evaluate("Object.keys(localStorage)") == []


def test_the_next_user_of_a_tab_has_neither_the_token_nor_the_conversation_of_the_last(
    visitor: Visitor, site: Running, provider: FakeProvider
) -> None:
    sign_in(visitor, site)
    visitor.ask("A secret of the first user")
    visitor.sees_an_answer()
    visitor.page.get_by_role("button", name="Sign out").click()
    expect(visitor.page.get_by_label("Password")).to_be_visible()
    tokens = len(visitor.posts(TOKEN_ROUTES[site.name]))
    visitor.page.get_by_label("E-mail").fill(visitor.stack.env["DEMO_EMAIL"])
    visitor.page.get_by_label("Password").fill(visitor.stack.env["DEMO_PASSWORD"])
    visitor.page.get_by_role("button", name="Sign in").click()
    if site.name == "chat-widget":
        visitor.page.get_by_role("button", name="Chat", exact=True).click()
    if site.name in ("react-vite", "nextjs"):  # whose address still names the conversation
        visitor.page.get_by_text("New chat").click()
    visitor.ask("Two")
    expect(visitor.answers).to_have_count(1)
    visitor.sees_an_answer()
    assert len(visitor.posts(TOKEN_ROUTES[site.name])) > tokens
    assert provider.requests[-1]["messages"][-1]["content"] == "Two"
    assert len(provider.requests[-1]["messages"]) == 1


def test_what_the_model_writes_cannot_run_in_the_page(visitor: Visitor, site: Running) -> None:
    evil = "<img src=x onerror=alert(1)> [link](javascript:alert(1)) <b>bold</b> **strong**"
    visitor.page.on("dialog", lambda dialog: visitor.complaints.append(dialog.message))
    sign_in(visitor, site)
    steps = [{"text": evil}, {"finish": "stop"}, {"done": True}]
    visitor.ask(do="steps", steps=steps)
    visitor.sees_an_answer()
    answer = visitor.answers.first
    assert answer.locator("img, script, iframe, a[href^='javascript']").count() == 0
    assert visitor.complaints == []


def test_a_visitor_is_told_that_it_is_an_ai_and_what_is_left(
    visitor: Visitor, site: Running
) -> None:
    sign_in(visitor, site)
    expect(visitor.page.get_by_text(AI_SENTENCE)).to_be_visible()
    expect(visitor.page.locator(".left")).to_contain_text("left")


@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 844), (1280, 800)])
def test_nothing_overflows(visitor: Visitor, site: Running, width: int, height: int) -> None:
    visitor.page.set_viewport_size({"width": width, "height": height})
    sign_in(visitor, site)
    visitor.ask(do="stream", text="averylongword" * 20, chunks=5)
    visitor.sees_an_answer()
    assert visitor.page.evaluate("document.documentElement.scrollWidth") == width
    expect(visitor.page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
