"""The example page in a real Chromium, on its own origin, in front of a provider that tests script.

Whatever a test does, the page must end it without a cookie, with nothing stored, and without an
error that nobody caught.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Route,
    expect,
)

from local import install
from tests.provider import FakeProvider
from tests.stack.conftest import Stack, start

# Else it looks for updates and accounts at its start; a test's machine may have no network.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # As an attacker's own name server would answer (DNS rebinding).
    "--host-resolver-rules=MAP rebound.example 127.0.0.1",
)


HERE = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These come last: Playwright keeps an event loop running in the main thread until the session
    ends, and beside it no other test could `asyncio.run`.
    """
    items.sort(key=lambda item: HERE in item.path.parents)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    path = install.chromium()
    if path is None:
        pytest.fail(install.NEEDS_CHROMIUM)
    return {**browser_type_launch_args, "executable_path": path, "args": QUIET}


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    fake = FakeProvider()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def stack(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start(
        tmp_path_factory.mktemp("browser"),
        HEADLESS="0",
        PAGE_PORT="0",
        upstream=provider.url,
        WEIR_PARAM_NextKeyMinimumAgeSeconds="0",
    ) as running:
        assert httpx.get(running.env["ALLOWED_ORIGIN"]).status_code == 200, "no page is served"
        yield running


@pytest.fixture(scope="session")
def base_url(stack: Stack) -> str:
    """Of the page, for pytest-playwright."""
    return stack.env["ALLOWED_ORIGIN"]


@dataclass
class Visitor:
    """A person in front of the page, who sees roles, labels and words."""

    page: Page
    stack: Stack
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    console_errors: list[str] = field(default_factory=list)

    def sign_in(self, *, password: str | None = None, at: str = "/") -> None:
        self.page.goto(at)
        self.page.get_by_label("E-mail").fill(self.stack.env["DEMO_EMAIL"])
        self.page.get_by_label("Password").fill(password or self.stack.env["DEMO_PASSWORD"])
        self.page.get_by_role("button", name="Sign in").click()

    def ask(self, question: str = "Hi", **how: Any) -> None:
        """A question; one with `do=...` tells the provider how to behave."""
        self.message.fill(json.dumps(how) if how else question)
        self.page.get_by_role("button", name="Send").click()

    @property
    def message(self) -> Locator:
        return self.page.get_by_label("Message")

    @property
    def alert(self) -> Locator:
        """What the page reports, and not the element in which Next.js announces its pages."""
        return self.page.get_by_role("alert").and_(
            self.page.locator(":not(#__next-route-announcer__)")
        )

    @property
    def answers(self) -> Locator:
        return self.page.locator(".answer")

    @property
    def status(self) -> Locator:
        return self.page.get_by_role("status")

    def sees_an_answer(self) -> None:
        expect(self.status).to_have_text("The answer is complete.")

    def posts(self, path: str) -> list[Request]:
        return [one for one in self.requests if one.method == "POST" and one.url.endswith(path)]


@pytest.fixture
def visitor(page: Page, context: BrowserContext, stack: Stack) -> Iterator[Visitor]:
    one = Visitor(page, stack)

    def hear(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            one.complaints.append(message.text)
        if message.type == "error":
            one.console_errors.append(message.text)

    page.set_default_timeout(10_000)
    page.on("request", lambda request: one.requests.append(request))
    page.on("pageerror", lambda error: one.complaints.append(str(error)))
    page.on("console", hear)
    yield one
    kept = page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]")
    assert context.cookies() == []
    assert kept == ["", 0, 0]
    assert one.complaints == []


def answer_every_origin(route: Route) -> None:
    """Answer a call of Cognito as AWS does: for a page of any origin."""
    sent = route.request.headers
    named = {name: sent[name] for name in ("content-type", "x-amz-target")}
    reply = httpx.post(route.request.url, content=route.request.post_data_buffer, headers=named)
    allowed = {"Access-Control-Allow-Origin": "*", "Content-Type": reply.headers["content-type"]}
    route.fulfill(status=reply.status_code, body=reply.content, headers=allowed)
