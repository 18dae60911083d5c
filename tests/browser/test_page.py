"""examples/react-vite in a browser: what a person in front of the page sees."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree
from threading import Event, Thread
from typing import Any

import jwt
import pytest
from botocore.exceptions import ClientError
from playwright.sync_api import BrowserContext, Page, Response, Route, expect

from local import page as local_page
from local import page_build
from tests.browser.conftest import Visitor, answer_every_origin
from tests.provider import FakeProvider
from tests.stack.conftest import Stack
from weir.identity.keyring import KeyRing

TOKEN = "/api/behest/token"
CHAT = "/v1/chat/completions"

# ---------------------------------------------------------------- signing in


def test_a_wrong_password_is_refused_in_words(visitor: Visitor) -> None:
    visitor.sign_in(password="not-the-password-1A")
    expect(visitor.alert).to_have_text("The e-mail address or the password is wrong.")
    password = visitor.page.get_by_label("Password")
    expect(password).to_be_focused()
    expect(password).to_have_accessible_description("The e-mail address or the password is wrong.")
    assert visitor.posts(TOKEN) == []


def test_after_a_wrong_password_the_right_one_signs_in(visitor: Visitor) -> None:
    visitor.sign_in(password="not-the-password-1A")
    expect(visitor.alert).to_be_visible()
    visitor.page.get_by_label("Password").fill(visitor.stack.env["DEMO_PASSWORD"])
    visitor.page.get_by_role("button", name="Sign in").click()
    expect(visitor.message).to_be_focused()


def test_a_temporary_password_is_told_apart_from_a_wrong_one(
    visitor: Visitor, stack: Stack
) -> None:
    pool, email = stack.env["COGNITO_USER_POOL_ID"], "new@example.com"
    stack.aws("cognito-idp").admin_create_user(
        UserPoolId=pool,
        Username=email,
        TemporaryPassword="Temporary-Password-1",
        MessageAction="SUPPRESS",
    )
    visitor.page.goto("/")
    visitor.page.get_by_label("E-mail").fill(email)
    visitor.page.get_by_label("Password").fill("Temporary-Password-1")
    visitor.page.get_by_role("button", name="Sign in").click()
    expect(visitor.alert).to_contain_text("temporary password")


def test_signing_out_revokes_the_session(visitor: Visitor, stack: Stack) -> None:
    session = sign_in_and_look(visitor)
    visitor.page.get_by_role("button", name="Sign out").click()
    expect(visitor.page.get_by_text("You are signed out.")).to_be_visible()
    with pytest.raises(ClientError, match="NotAuthorized"):
        _renew_until_refused(stack, session["RefreshToken"])


def test_an_id_token_is_renewed_after_its_hour(visitor: Visitor) -> None:
    visitor.page.clock.install()
    session = sign_in_and_look(visitor)
    visitor.page.clock.fast_forward("59:30")
    visitor.ask()
    visitor.sees_an_answer()
    first, second = (one.headers["authorization"] for one in visitor.posts(TOKEN))
    assert first == f"Bearer {session['IdToken']}"
    assert second != first


def test_a_session_that_was_revoked_elsewhere_leads_back_to_the_sign_in(
    visitor: Visitor, stack: Stack
) -> None:
    visitor.page.clock.install()
    session = sign_in_and_look(visitor)
    stack.aws("cognito-idp").revoke_token(
        Token=session["RefreshToken"], ClientId=stack.env["COGNITO_CLIENT_ID"]
    )
    visitor.page.clock.fast_forward("59:30")
    visitor.ask()
    ended = visitor.page.get_by_text("Your session has ended. Please sign in again.")
    expect(ended).to_be_visible()
    expect(visitor.page.get_by_label("E-mail")).to_be_focused()


# ---------------------------------------------------------------- an answer


def test_the_first_words_are_seen_while_the_answer_is_unfinished(
    visitor: Visitor, provider: FakeProvider
) -> None:
    gate = Event()
    provider.points["gate"] = lambda: gate.wait(20)
    visitor.sign_in()
    visitor.ask(
        do="steps",
        steps=[
            {"text": "First "},
            {"point": "gate"},
            {"text": "and last."},
            {"finish": "stop"},
            {"done": True},
        ],
    )
    expect(visitor.answers).to_have_text("Model: First ")
    expect(visitor.status).to_have_text("The model is answering.")
    expect(visitor.page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    gate.set()
    expect(visitor.answers).to_have_text("Model: First and last.")
    visitor.sees_an_answer()
    (post,) = visitor.posts(CHAT)
    sent = post.all_headers()
    assert sent["x-session-id"]
    assert sent["origin"] != visitor.stack.env["BEHEST_BASE_URL"]
    assert "cookie" not in sent


def test_stop_ends_the_answer_here_and_at_the_provider(
    visitor: Visitor, provider: FakeProvider
) -> None:
    provider.left.clear()
    visitor.sign_in()
    visitor.ask(do="stream", chunks=1000, gap_s=0.02)
    expect(visitor.answers).to_contain_text("w3")
    visitor.page.get_by_role("button", name="Stop").click()
    expect(visitor.page.get_by_text("Stopped.")).to_be_visible()
    assert provider.left.wait(5)
    shown = visitor.answers.text_content()
    expect(visitor.message).to_be_focused()
    visitor.ask("And then?")
    visitor.sees_an_answer()
    assert visitor.answers.first.text_content() == shown


def test_stop_works_before_the_first_word(visitor: Visitor) -> None:
    visitor.sign_in()
    visitor.ask(do="silent", seconds=2)
    visitor.page.get_by_role("button", name="Stop").click()
    expect(visitor.page.get_by_text("Stopped.")).to_be_visible()
    expect(visitor.answers).to_have_count(0)
    visitor.ask()
    visitor.sees_an_answer()


def test_the_page_sends_the_new_message_and_the_model_gets_the_conversation(
    visitor: Visitor, provider: FakeProvider
) -> None:
    visitor.sign_in()
    visitor.ask("One")
    visitor.sees_an_answer()
    visitor.ask("Two")
    expect(visitor.answers).to_have_count(2)
    visitor.sees_an_answer()
    two = {"role": "user", "content": "Two"}
    assert json.loads(visitor.posts(CHAT)[-1].post_data or "")["messages"] == [two]
    assert provider.requests[-1]["messages"] == [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "w0 w1 w2 w3 w4 "},
        two,
    ]


def test_a_conversation_survives_a_reload_and_a_new_one_begins_empty(
    visitor: Visitor, provider: FakeProvider
) -> None:
    visitor.sign_in()
    visitor.ask("One")
    visitor.sees_an_answer()
    visitor.page.reload()
    visitor.sign_in(at=visitor.page.url)
    expect(visitor.page.locator(".question")).to_have_text("You: One")
    expect(visitor.answers).to_have_text("Model: w0 w1 w2 w3 w4")
    visitor.page.get_by_role("button", name="New chat").click()
    expect(visitor.answers).to_have_count(0)
    visitor.ask("Two")
    visitor.sees_an_answer()
    assert provider.requests[-1]["messages"] == [{"role": "user", "content": "Two"}]


def test_the_keyboard_is_enough(visitor: Visitor, provider: FakeProvider) -> None:
    page, keys = visitor.page, visitor.page.keyboard
    page.goto("/")
    expect(page.get_by_label("E-mail")).to_be_focused()
    keys.type(visitor.stack.env["DEMO_EMAIL"])
    keys.press("Tab")
    keys.type(visitor.stack.env["DEMO_PASSWORD"])
    keys.press("Enter")
    expect(visitor.message).to_be_focused()
    keys.type("Two")
    keys.press("Shift+Enter")
    keys.type("lines")
    keys.press("Enter")
    visitor.sees_an_answer()
    assert provider.requests[-1]["messages"][-1]["content"] == "Two\nlines"
    keys.type(json.dumps({"do": "stream", "chunks": 1000, "gap_s": 0.02}))
    keys.press("Enter")
    expect(visitor.answers.last).to_contain_text("w1")
    keys.press("Escape")
    expect(page.get_by_text("Stopped.")).to_be_visible()
    expect(visitor.message).to_be_focused()
    for name in ("Conversation", "Sign out"):  # backwards through everything that can be used
        keys.press("Shift+Tab")
        expect(page.get_by_label(name).or_(page.get_by_role("button", name=name))).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_label("E-mail")).to_be_focused()


def test_a_narrow_phone_shows_everything(visitor: Visitor) -> None:
    page = visitor.page
    page.set_viewport_size({"width": 320, "height": 568})
    visitor.sign_in()
    visitor.ask(do="stream", text="averylongword" * 20, chunks=5)
    visitor.sees_an_answer()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.evaluate("document.querySelector('.log').scrollWidth") == 320
    for name in ("Send", "Sign out"):
        expect(page.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)


# ---------------------------------------------------------------- the token


def test_the_token_is_fetched_again_before_it_expires(visitor: Visitor) -> None:
    visitor.page.clock.install()
    visitor.sign_in()
    visitor.ask("One")
    visitor.sees_an_answer()
    visitor.page.clock.fast_forward("13:50")  # of 15 minutes
    visitor.ask("Two")
    visitor.sees_an_answer()
    assert len(visitor.posts(TOKEN)) == 1
    visitor.page.clock.fast_forward("00:15")
    visitor.ask("Three")
    visitor.sees_an_answer()
    assert len(visitor.posts(TOKEN)) == 2
    one, two, three = (post.headers["authorization"] for post in visitor.posts(CHAT))
    assert one == two != three


def test_an_expired_token_is_replaced_once_and_the_answer_comes(visitor: Visitor) -> None:
    visitor.page.route("**/v1/me", lambda route: route.abort())  # it would be the first to see it
    give_expired_tokens(visitor, how_many=1)
    visitor.sign_in()
    visitor.ask()
    visitor.sees_an_answer()
    assert len(visitor.posts(TOKEN)) == 2
    assert [answer(post).status for post in visitor.posts(CHAT)] == [401, 200]


def test_a_token_that_is_refused_again_is_told_and_not_tried_forever(visitor: Visitor) -> None:
    give_expired_tokens(visitor, how_many=10)
    visitor.sign_in()
    visitor.ask()
    expect(visitor.alert).to_contain_text("Your session has ended. Please sign in again.")
    assert [answer(post).status for post in visitor.posts(CHAT)] == [401, 401]


# ---------------------------------------------------------------- what goes wrong


def test_a_page_of_an_unlisted_origin_is_told_why_and_how_to_find_out_more(
    visitor: Visitor, elsewhere: Callable[..., str]
) -> None:
    origin = elsewhere()
    visitor.sign_in(at=origin)
    expect(visitor.alert).to_contain_text("This page is not allowed to use the chat.")
    blocked, failed, advice = visitor.console_errors
    assert "blocked by CORS policy" in blocked
    assert failed == "Failed to load resource: net::ERR_FAILED"
    assert "the port differs." in advice
    assert f"weir origins add {origin}" in advice


@pytest.mark.parametrize("path", [TOKEN, CHAT])
def test_a_connection_that_fails_is_not_taken_for_a_refused_origin(
    visitor: Visitor, path: str
) -> None:
    visitor.page.route(f"**{path}", lambda route: route.abort())
    visitor.sign_in()
    if path == CHAT:
        visitor.ask()
    expect(visitor.alert).to_contain_text("The chat cannot be reached.")


def test_a_page_beside_the_gateway_on_its_own_origin_is_not_told_of_origins(
    visitor: Visitor,
) -> None:
    """A browser sends no Origin when such a page asks why."""
    told = {"origin": None, "allowed": False, "reason": "no_origin", "message": "No page sent it."}
    visitor.page.route(f"**{TOKEN}", lambda route: route.abort())
    visitor.page.route(
        "**/v1/cors",
        lambda route: route.fulfill(json=told, headers={"Access-Control-Allow-Origin": "*"}),
    )
    visitor.sign_in()
    expect(visitor.alert).to_contain_text("The chat cannot be reached.")


def test_a_gateway_that_is_not_there_is_not_taken_for_a_refused_origin(
    visitor: Visitor, elsewhere: Callable[..., str]
) -> None:
    visitor.sign_in(at=elsewhere(VITE_WEIR_BASE_URL="http://127.0.0.1:9"))
    expect(visitor.alert).to_contain_text("The chat cannot be reached.")


def test_a_user_pool_that_is_not_there_is_told(
    visitor: Visitor, elsewhere: Callable[..., str]
) -> None:
    visitor.sign_in(at=elsewhere(VITE_COGNITO_ENDPOINT="http://127.0.0.1:9"))
    expect(visitor.alert).to_contain_text("The sign-in service at http://127.0.0.1:9 cannot")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            {"status": 429, "retry_after": "7"},
            "cannot answer at the moment. Try again in 7 seconds.",
        ),
        ({"status": 400, "message": "No such seed."}, "No such seed."),
        ({"status": 401}, "cannot answer at the moment. Please try again in a moment."),
    ],
)
def test_a_provider_that_refuses_is_told_in_words(
    visitor: Visitor, how: dict[str, Any], words: str
) -> None:
    visitor.sign_in()
    visitor.ask(do="fail", **how)
    expect(visitor.alert).to_contain_text(words)
    assert len(visitor.posts(CHAT)) == 1  # told at once, not retried in silence
    assert len(visitor.posts(TOKEN)) == 1  # and not taken for a token of ours that was refused


def test_an_answer_that_breaks_off_stays_and_can_be_asked_for_again(
    visitor: Visitor, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.sign_in()
    visitor.ask(do="cut", how="reset")
    expect(visitor.alert).to_contain_text("cannot answer at the moment.")
    expect(visitor.answers).to_have_text("Model: begun")
    asked = provider.requests[-1]["messages"]
    monkeypatch.setattr(provider, "does", {"do": "stream"})
    visitor.page.get_by_role("button", name="Try again").click()
    visitor.sees_an_answer()
    expect(visitor.alert).to_be_hidden()
    expect(visitor.answers).to_have_text("Model: w0 w1 w2 w3 w4 ")
    assert provider.requests[-1]["messages"] == asked


def test_a_connection_that_breaks_inside_an_answer_is_told(visitor: Visitor) -> None:
    visitor.sign_in()
    visitor.ask(do="stream", chunks=1000, gap_s=0.02)
    expect(visitor.answers).to_contain_text("w1")
    kill_chat_function(visitor.stack)
    expect(visitor.alert).to_contain_text("The answer was cut off")
    visitor.ask()
    visitor.sees_an_answer()


def test_a_question_without_a_connection_can_be_asked_again(
    visitor: Visitor, context: BrowserContext
) -> None:
    visitor.sign_in()
    expect(visitor.message).to_be_visible()
    context.set_offline(True)
    visitor.ask()
    expect(visitor.alert).to_contain_text("cannot be reached")
    context.set_offline(False)
    visitor.page.get_by_role("button", name="Try again").click()
    visitor.sees_an_answer()


def test_an_answer_without_a_finish_reason_is_not_taken_for_complete(visitor: Visitor) -> None:
    """As after a proxy on the way that closes the connection in order: no error reaches the SDK."""

    def cut(route: Route) -> None:
        headers = {"Access-Control-Allow-Origin": "*", "Content-Type": "text/event-stream"}
        frame = {"choices": [{"index": 0, "delta": {"content": "Half an"}, "finish_reason": None}]}
        route.fulfill(status=200, headers=headers, body=f"data: {json.dumps(frame)}\n\n")

    visitor.sign_in()
    visitor.page.route(f"**{CHAT}", cut)
    visitor.ask()
    expect(visitor.answers).to_have_text("Model: Half an")
    expect(visitor.alert).to_contain_text("The answer was cut off")


def test_an_answer_at_its_length_limit_says_so(visitor: Visitor) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Long"}, "finish_reason": "length"}]}
    visitor.sign_in()
    visitor.ask(do="frames", frames=[f"data: {json.dumps(chunk)}\n\n", "data: [DONE]\n\n"])
    expect(visitor.page.get_by_text("reached its length limit")).to_be_visible()


# ---------------------------------------------------------------- means


def sign_in_and_look(visitor: Visitor) -> dict[str, str]:
    """What Cognito gave the page."""

    def is_sign_in(reply: Response) -> bool:
        return reply.request.method == "POST" and "AuthenticationResult" in reply.text()

    with visitor.page.expect_response(is_sign_in) as seen:
        visitor.sign_in()
    expect(visitor.message).to_be_visible()
    result = seen.value.json()["AuthenticationResult"]
    assert isinstance(result, dict)
    return result


def _renew_until_refused(stack: Stack, refresh_token: str) -> None:
    """The page does not wait for the revocation, so it may take a moment."""
    give_up = time.monotonic() + 3
    while time.monotonic() < give_up:
        stack.aws("cognito-idp").initiate_auth(
            ClientId=stack.env["COGNITO_CLIENT_ID"],
            AuthFlow="REFRESH_TOKEN_AUTH",
            AuthParameters={"REFRESH_TOKEN": refresh_token},
        )


def answer(post: Any) -> Response:
    reply = post.response()
    assert isinstance(reply, Response)
    return reply


def give_expired_tokens(visitor: Visitor, how_many: int) -> None:
    """The first tokens that the page gets are the gateway's own, but of two hours ago."""
    stack = visitor.stack
    secret = stack.aws("secretsmanager").get_secret_value(
        SecretId=stack.outputs()["SigningKeySecretArn"]
    )["SecretString"]
    key = KeyRing.from_secret(secret).current
    given = 0

    def exchange(route: Route) -> None:
        nonlocal given
        reply = route.fetch()
        told = reply.json()
        given += 1
        if given <= how_many:
            claims = jwt.decode(told["token"], options={"verify_signature": False})
            past = {name: claims[name] - 7200 for name in ("iat", "nbf", "exp")}
            headers = jwt.get_unverified_header(told["token"])
            told["token"] = jwt.encode({**claims, **past}, key.rsa(), "RS256", headers)
        route.fulfill(response=reply, json=told)

    visitor.page.route(f"**{TOKEN}", exchange)


def kill_chat_function(stack: Stack) -> None:
    """Its processes of this stack, which is known by the address of its embedded AWS."""
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environ = (process / "environ").read_text()
            if "-ChatFunction-" in environ and stack.env["COGNITO_ENDPOINT"] in environ:
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
    assert killed


@pytest.fixture
def elsewhere(stack: Stack, page: Page, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serves the same page from an origin that nobody listed; returns it. It signs in as on AWS,
    where Cognito answers every origin; the embedded AWS would refuse it.
    """
    env = stack.env
    page.route(f"{env['COGNITO_ENDPOINT']}/", answer_every_origin)
    addresses = local_page.config(
        env["BEHEST_BASE_URL"], env["COGNITO_CLIENT_ID"], env["COGNITO_ENDPOINT"]
    )
    folder = copytree(page_build.PAGE, tmp_path / "page")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

        def serve(**changed: str) -> str:
            (folder / "config.json").write_text(json.dumps({**addresses, **changed}))
            return f"http://localhost:{server.server_port}"

        yield serve
        server.shutdown()
