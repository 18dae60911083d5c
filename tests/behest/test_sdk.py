"""behest-ai in API-key mode, and its older classes: what the vectors do not say."""

import threading
import warnings
from collections.abc import Iterator
from typing import Any

import behest as published
import openai
import pytest
from behest import Behest, BehestClient

from tests.behest.conftest import CHAT, HELLO, Sdk, until
from tests.provider import USAGE, FakeProvider
from tests.stack.admin import UNLIMITED, Admin, bearer
from tests.stack.conftest import Stack, ask

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object"}},
}


def test_environment_alone_is_enough(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEHEST_KEY", "BEHEST_BASE_URL"):
        monkeypatch.setenv(name, stack.env[name])
    monkeypatch.setenv("BEHEST_TIER", "2")
    monkeypatch.setenv("BEHEST_TTL", "900")
    monkeypatch.setenv("BEHEST_USER_ID", "from-the-environment")
    client = Behest()
    claims = published.decode_token(client.auth.mint().token)
    client.auth._http.close()
    assert (claims["uid"], claims["tier"]) == ("from-the-environment", 2)
    assert claims["exp"] - claims["iat"] == 900


def test_base_url_may_end_with_a_slash(stack: Stack, sdk: Sdk) -> None:
    client = sdk(base_url=stack.env["BEHEST_BASE_URL"] + "/")
    assert client.chat.completions.create(messages=HELLO)["object"] == "chat.completion"


def test_user_and_tier_of_a_chat_are_the_minted_ones(stack: Stack, behest: Behest) -> None:
    behest.chat.completions.create(messages=HELLO, user_id="user_2abc", tier=3, session_id="s-sdk")
    token = behest.auth.mint(user_id="user_2abc", tier=3).token
    me = stack.http.get("/v1/me", headers=bearer(token)).json()
    assert (me["user_id"], me["tier"]) == ("user_2abc", 3)


@pytest.mark.parametrize(
    "uid",
    ["default", "anonymous", "user_2abc", "auth0|abc123", "jo@example.com", "Zoë 👋", "x" * 255],
)
def test_user_ids_of_the_documented_sign_in_services_are_good(behest: Behest, uid: str) -> None:
    answer = behest.chat.completions.create(messages=HELLO, user_id=uid)
    assert answer["usage"]["total_tokens"] == USAGE["total_tokens"]


def test_tools_and_unknown_options_pass(provider: FakeProvider, behest: Behest) -> None:
    behest.chat.completions.create(messages=HELLO, tools=[TOOL], headers={"X": "y"}, anything=1)
    assert provider.requests[-1]["tools"] == [TOOL]
    assert "headers" not in provider.requests[-1]


def test_stream_has_choices_in_every_chunk_unless_usage_was_requested(behest: Behest) -> None:
    asked = ask(stream=True)
    assert all(chunk["choices"] for chunk in behest.chat.completions.create(**asked))
    *_, last = behest.chat.completions.create(stream_options={"include_usage": True}, **asked)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == USAGE["total_tokens"]


def test_failure_within_a_stream_cannot_be_taken_for_its_end(behest: Behest) -> None:
    *before, last = behest.chat.completions.create(**ask({"do": "cut", "how": "end"}, stream=True))
    assert all(chunk["choices"] for chunk in before)
    assert last["error"]["code"] == "upstream_error"
    # The vendor's quickstart reads chunk["choices"][0], which raises.
    assert "choices" not in last


def test_session_of_another_user_in_the_header_charges_the_tokens_user(
    stack: Stack, behest: Behest
) -> None:
    """The client sends the last minted session with whatever token it is given."""
    bobs = behest.auth.mint(user_id="sdk-bob").token
    behest.auth.mint(user_id="sdk-ann")
    behest.chat.completions.create(messages=HELLO, token=bobs)

    def spent() -> bool:
        told = stack.http.get("/v1/usage", headers=bearer(bobs)).json()
        return bool(told["totals"]["requests"] == 1)

    until(spent)


# ---------------------------------------------------------------- its errors


def test_killed_project_is_an_auth_error_that_says_forbidden(admin: Admin, sdk: Sdk) -> None:
    admin.project("killed", default_model="fake-large", **UNLIMITED)
    client = sdk(key=admin.key("killed"))
    token = client.auth.mint(user_id="u").token
    admin("PUT", "kill-switches", {"scope": "project", "project": "killed", "off": True}, 204)
    refused = until(lambda: _refusal(client, token))
    assert isinstance(refused, published.BehestAuthError)
    assert (refused.status, refused.code) == (403, "forbidden")


def test_suspended_project_is_an_auth_error(admin: Admin, sdk: Sdk) -> None:
    admin.project("suspended", default_model="fake-large", **UNLIMITED)
    client = sdk(key=admin.key("suspended"))
    token = client.auth.mint(user_id="u").token
    admin("PATCH", "projects/suspended", {"status": "suspended"})
    refused = until(lambda: _refusal(client, token))
    assert isinstance(refused, published.BehestAuthError)
    assert (refused.status, refused.code) == (401, "invalid_token")
    unminted = until(lambda: _refusal(client, None))  # another function, which keeps its own copy
    assert (unminted.status, unminted.code) == (401, "invalid_token")


def _refusal(client: Behest, token: str | None) -> published.BehestError | None:
    """Return how a chat is refused, or without a token its mint."""
    try:
        client.chat.completions.create(messages=HELLO, token=token)
    except published.BehestError as error:
        return error
    return None


def test_id_that_is_still_open_is_a_conflict(
    stack: Stack, provider: FakeProvider, behest: Behest
) -> None:
    token = behest.auth.mint(user_id="twice").token
    named = bearer(token) | {"X-Client-Request-Id": "chosen-by-the-caller"}
    release = threading.Event()
    provider.points["held"] = lambda: release.wait(20)
    body = ask({"do": "steps", "steps": [{"text": "begun"}, {"point": "held"}]}, stream=True)
    try:
        with stack.http.stream("POST", CHAT, headers=named, json=body) as held:
            assert held.status_code == 200
            reply = stack.http.post(CHAT, headers=named, json=ask())
            told = published.classify_http_error(
                reply.status_code, headers=dict(reply.headers), body=reply.json()
            )
            assert type(told) is published.BehestError
            assert (told.status, told.code) == (409, "conflict")
            assert reply.headers["x-should-retry"] == "false"
            release.set()
    finally:
        release.set()


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ({"do": "fail", "status": 500}, 502, "upstream_error"),
        ({"do": "fail", "status": 429, "retry_after": 7}, 503, "upstream_rate_limited"),
        ({"do": "reset"}, 502, "upstream_unavailable"),
    ],
)
def test_providers_failure_is_a_server_error_with_its_trace(
    behest: Behest, how: dict[str, Any], status: int, code: str
) -> None:
    with pytest.raises(published.BehestServerError) as failed:
        behest.chat.completions.create(**ask(how))
    assert (failed.value.status, failed.value.code) == (status, code)
    assert failed.value.trace_id == failed.value.raw["trace_id"]


# ---------------------------------------------------------------- older classes


@pytest.fixture
def legacy(stack: Stack) -> Iterator[BehestClient]:
    token = str(stack.mint("legacy")["access_token"])
    with BehestClient(api_key=token, base_url=stack.env["BEHEST_BASE_URL"] + "/v1") as client:
        yield client


def test_older_client_chats_streams_and_lists_models(legacy: BehestClient) -> None:
    answer = legacy.chat.completions.create(model="default", messages=HELLO)
    assert answer.choices[0].message.content == "Hello!"
    how: Any = ask({"text": "ok ", "chunks": 2})
    chunks = legacy.chat.completions.create(model="", stream=True, **how)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ok ok "
    assert [model.id for model in legacy.models.list()] == ["default", "fake-large", "mock-echo"]


def test_older_clients_user_header_is_ignored(stack: Stack) -> None:
    token = str(stack.mint("legacy")["access_token"])
    url = stack.env["BEHEST_BASE_URL"] + "/v1"
    with BehestClient(api_key=token, base_url=url, end_user_id="someone-else") as client:
        client.chat.completions.create(model="default", messages=HELLO)
    seen = stack.log("ChatFunction")
    assert "someone-else" not in seen


def test_api_key_straight_on_chat_is_a_401_that_names_mint(stack: Stack) -> None:
    url = stack.env["BEHEST_BASE_URL"] + "/v1"
    with (
        BehestClient(api_key=stack.env["BEHEST_KEY"], base_url=url) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.chat.completions.create(model="default", messages=HELLO)
    assert refused.value.code == "invalid_token"
    assert "mint" in str(refused.value)


def test_deprecated_mint_token_has_both_generations_names(behest: Behest) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        told = behest.mint_token(userId="u", sessionId="s-old", ttl=120)
    assert (told["session_id"], told["ttl"], told["expires_in"]) == ("s-old", 120, 120)
    assert told["token"] == told["access_token"]
