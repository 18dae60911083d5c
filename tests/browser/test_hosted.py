"""examples/react-vite with Cognito's own sign-in page: the embedded AWS's, which checks return
addresses, codes, and the verifier against its challenge.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.browser.conftest import Visitor
from tests.stack.conftest import Stack

AUTHORIZE, TOKENS, CHAT = "/oauth2/authorize", "/oauth2/token", "/v1/chat/completions"
NOT_OURS = "This sign-in was not begun in this tab. Please sign in again."
HOSTED: dict[str, Any] = {
    "AllowedOAuthFlowsUserPoolClient": True,
    "AllowedOAuthFlows": ["code"],
    "AllowedOAuthScopes": ["openid", "email"],
    "SupportedIdentityProviders": ["COGNITO"],
}


@pytest.fixture(scope="module", autouse=True)
def sign_in_page(stack: Stack) -> Iterator[None]:
    """The client as the template sets it with SignInDomainPrefix."""
    users = stack.aws("cognito-idp")
    named = {
        "UserPoolId": stack.env["COGNITO_USER_POOL_ID"],
        "ClientId": stack.env["COGNITO_CLIENT_ID"],
    }
    client = users.describe_user_pool_client(**named)["UserPoolClient"]
    kept = {
        name: client[name]
        for name in ("ExplicitAuthFlows", "TokenValidityUnits", "IdTokenValidity")
    }
    returns = [stack.env["ALLOWED_ORIGIN"] + "/"]
    users.update_user_pool_client(
        **named, **kept, **HOSTED, CallbackURLs=returns, LogoutURLs=returns
    )
    yield
    users.update_user_pool_client(**named, **kept)


@pytest.fixture
def hosted(visitor: Visitor) -> Visitor:
    """A visitor of the page, which knows where the sign-in page is."""

    def config(route: Route) -> None:
        told = route.fetch().json()
        route.fulfill(json={**told, "VITE_COGNITO_DOMAIN": told["VITE_COGNITO_ENDPOINT"]})

    visitor.page.route("**/config.json", config)
    return visitor


def begin(visitor: Visitor) -> None:
    visitor.page.goto("/")
    visitor.page.get_by_role("button", name="Sign in").click()


def sign_in(visitor: Visitor) -> None:
    begin(visitor)
    visitor.page.get_by_label("Username").fill(visitor.stack.env["DEMO_EMAIL"])
    visitor.page.get_by_label("Password").fill(visitor.stack.env["DEMO_PASSWORD"])
    visitor.page.get_by_role("button", name="Sign in").click()


def sign_in_and_look(visitor: Visitor) -> dict[str, Any]:
    """Return what the page got at /oauth2/token."""
    with visitor.page.expect_response(f"**{TOKENS}") as seen:
        sign_in(visitor)
    expect(visitor.message).to_be_visible()
    tokens = seen.value.json()
    assert isinstance(tokens, dict)
    return tokens


def form(request: Request) -> dict[str, str]:
    return {name: each for name, (each,) in parse_qs(request.post_data or "").items()}


def query(url: str) -> dict[str, str]:
    return {name: each for name, (each,) in parse_qs(urlsplit(url).query).items()}


def test_a_visitor_signs_in_on_cognitos_own_page_and_chats(hosted: Visitor, base_url: str) -> None:
    sign_in(hosted)
    hosted.ask()
    hosted.sees_an_answer()
    expect(hosted.page.get_by_text(hosted.stack.env["DEMO_EMAIL"])).to_be_visible()
    assert hosted.page.url.partition("#")[0] == f"{base_url}/", (
        "the code must not stay in the address"
    )
    (asked,) = [query(one.url) for one in hosted.requests if AUTHORIZE in one.url]
    (sent,) = [form(one) for one in hosted.posts(TOKENS)]
    digest = hashlib.sha256(sent["code_verifier"].encode()).digest()
    assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == sent["redirect_uri"] == f"{base_url}/"
    assert asked["scope"] == "openid email"
    secrets = [asked["state"], asked["nonce"], sent["code_verifier"]]
    assert len(set(secrets)) == 3
    assert all(len(each) == 43 for each in secrets)


def test_a_code_is_worth_nothing_without_the_verifier(hosted: Visitor) -> None:
    """Whoever reads it on its way: the page's request is held back, and another one made."""
    hosted.page.route(f"**{TOKENS}", lambda route: route.abort())
    sign_in(hosted)
    expect(hosted.alert).to_contain_text("cannot be reached")
    (sent,) = [form(one) for one in hosted.posts(TOKENS)]
    address = hosted.stack.env["COGNITO_ENDPOINT"] + TOKENS
    for stolen in ({**sent, "code_verifier": "x" * 43}, {**sent, "redirect_uri": "https://evil/"}):
        assert httpx.post(address, data=stolen).json()["error"] == "invalid_grant"
    assert httpx.post(address, data=sent).status_code == 200
    assert httpx.post(address, data=sent).json()["error"] == "invalid_grant"


def test_signing_out_ends_the_session_here_and_at_cognito(hosted: Visitor, base_url: str) -> None:
    tokens = sign_in_and_look(hosted)
    hosted.page.get_by_role("button", name="Sign out").click()
    expect(hosted.page.get_by_role("button", name="Sign in")).to_be_focused()
    assert hosted.page.url == f"{base_url}/"
    (left,) = [query(one.url) for one in hosted.requests if "/logout?" in one.url]
    assert left["logout_uri"] == f"{base_url}/"
    until_refused(hosted.stack, tokens["refresh_token"])


def test_an_id_token_is_renewed_after_its_hour(hosted: Visitor) -> None:
    hosted.page.clock.install()
    tokens = sign_in_and_look(hosted)
    hosted.page.clock.fast_forward("59:30")
    hosted.ask()
    hosted.sees_an_answer()
    first, second = (one.headers["authorization"] for one in hosted.posts("/api/behest/token"))
    assert first == f"Bearer {tokens['id_token']}" != second
    assert form(hosted.posts(TOKENS)[-1])["grant_type"] == "refresh_token"


def test_a_session_that_was_revoked_elsewhere_leads_back_to_the_sign_in(hosted: Visitor) -> None:
    hosted.page.clock.install()
    tokens = sign_in_and_look(hosted)
    stack = hosted.stack
    stack.aws("cognito-idp").revoke_token(
        Token=tokens["refresh_token"], ClientId=stack.env["COGNITO_CLIENT_ID"]
    )
    hosted.page.clock.fast_forward("59:30")
    hosted.ask()
    ended = hosted.page.get_by_text("Your session has ended. Please sign in again.")
    expect(ended).to_be_visible()
    assert not [one for one in hosted.requests if "/logout?" in one.url]


def test_an_answer_that_this_tab_did_not_ask_for_is_refused(hosted: Visitor, base_url: str) -> None:
    """A link with somebody else's code would sign the visitor in as somebody else."""
    hosted.page.goto("/?code=of-somebody-else&state=guessed")
    expect(hosted.alert).to_have_text(NOT_OURS)
    hosted.page.goto("/?error=access_denied&error_description=Call+555-0100")
    expect(hosted.alert).to_have_text(NOT_OURS)
    assert hosted.posts(TOKENS) == []
    assert hosted.page.url == f"{base_url}/"


def test_an_answer_to_an_earlier_request_of_this_tab_is_refused(hosted: Visitor) -> None:
    earlier = asked_and_held(hosted)
    asked_and_held(hosted)
    hosted.page.goto(f"/?code=c&state={earlier['state']}")
    expect(hosted.alert).to_have_text(NOT_OURS)
    assert hosted.posts(TOKENS) == []


def test_an_id_token_for_another_request_is_refused(hosted: Visitor) -> None:
    def with_another_nonce(route: Route) -> None:
        reply = route.fetch()
        told = reply.json()
        claims = jwt.decode(told["id_token"], options={"verify_signature": False})
        told["id_token"] = jwt.encode({**claims, "nonce": "another"}, "k" * 32, "HS256")
        route.fulfill(response=reply, json=told)

    hosted.page.route(f"**{TOKENS}", with_another_nonce)
    sign_in(hosted)
    expect(hosted.alert).to_have_text(NOT_OURS)
    assert hosted.posts("/api/behest/token") == []


def test_a_refusal_of_the_sign_in_page_is_shown(hosted: Visitor) -> None:
    asked = asked_and_held(hosted)
    words = "error=access_denied&error_description=User+is+not+enabled"
    hosted.page.goto(f"/?{words}&state={asked['state']}")
    expect(hosted.alert).to_have_text("The sign-in page refused: User is not enabled.")


def test_a_visitor_who_comes_back_without_an_answer_can_begin_again(hosted: Visitor) -> None:
    begin(hosted)
    expect(hosted.page.get_by_label("Username")).to_be_visible()
    hosted.page.go_back()
    sign_in(hosted)
    expect(hosted.message).to_be_visible()


def asked_and_held(visitor: Visitor) -> dict[str, str]:
    """Begin a sign-in whose page shows nothing; return what it was asked."""
    page: Page = visitor.page
    page.route(f"**{AUTHORIZE}?*", lambda route: route.fulfill(body="held"))
    with page.expect_request(f"**{AUTHORIZE}?*") as seen:
        begin(visitor)
    expect(page.get_by_text("held")).to_be_visible()
    return query(seen.value.url)


def until_refused(stack: Stack, refresh_token: str) -> None:
    """The page does not wait for the revocation, so it may take a moment."""
    renewal = {
        "grant_type": "refresh_token",
        "client_id": stack.env["COGNITO_CLIENT_ID"],
        "refresh_token": refresh_token,
    }
    give_up = time.monotonic() + 3
    while time.monotonic() < give_up:
        reply = httpx.post(stack.env["COGNITO_ENDPOINT"] + TOKENS, data=renewal)
        if reply.status_code == 400:
            assert json.loads(reply.content)["error"] == "invalid_grant"
            return
    pytest.fail("the refresh token was not revoked")
