"""Vectors 11 and 12 of the contract: what a page may send and read, and how it renews its token."""

import time
from typing import Any

import behest as published
import httpx
import pytest
from behest import Behest
from openai import OpenAI

from tests.behest.conftest import CHAT, Sdk, chat, expired, until
from tests.stack.admin import Admin, bearer
from tests.stack.conftest import ORIGIN, Stack, ask

STAINLESS = (
    "x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)
FETCHED_BEFORE_S = 60


# ---------------------------------------------------------------- 11: CORS


def preflight(stack: Stack, origin: str, path: str = CHAT) -> httpx.Response:
    asked = f"authorization,content-type,x-session-id,x-thread-id,x-end-user-id,{STAINLESS}"
    return stack.http.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": asked,
        },
    )


@pytest.mark.parametrize("path", [CHAT, "/v1/auth/mint", "/v1/usage", "/v1/models"])
def test_vector_11_preflight_of_an_allowed_origin_allows_every_header_of_the_sdks(
    stack: Stack, path: str
) -> None:
    reply = preflight(stack, ORIGIN, path)
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    allowed = reply.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    assert {*STAINLESS.split(","), "authorization", "x-session-id", "x-thread-id"} <= set(allowed)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:5174",
        f"{ORIGIN}/",
        ORIGIN.replace("http://", "https://"),
    ],
)
def test_vector_11_other_origin_gets_no_permission(stack: Stack, origin: str) -> None:
    assert "access-control-allow-origin" not in preflight(stack, origin).headers


def test_vector_11_page_can_read_every_refusal_and_when_to_come_back(
    stack: Stack, admin: Admin, sdk: Sdk, limited: str
) -> None:
    client = sdk(key=limited)
    admin("PUT", "projects/vectors/tiers/one-a-day", {"requests_per_day": 1})
    admin("PUT", "projects/vectors/tiers/one-a-minute", {"rpm": 1})
    until(lambda: _mints(client, "one-a-minute"))
    seen = {401: chat(stack, "a.b.c", {"Origin": ORIGIN})}
    for tier in ("one-a-day", "one-a-minute"):
        token = client.auth.mint(user_id=tier, tier=tier).token
        for _ in range(3):  # a minute may end between two
            reply = chat(stack, token, {"Origin": ORIGIN})
            if reply.status_code != 200:
                seen[reply.status_code] = reply
    assert seen.keys() == {401, 402, 429}
    for reply in seen.values():
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        exposed = reply.headers["access-control-expose-headers"].lower()
        for name in ("retry-after", "x-trace-id", "x-request-id", "x-should-retry"):
            assert name in exposed
    assert seen[429].headers["retry-after"].isdigit()
    assert seen[402].headers["x-should-retry"] == "false"


def _mints(client: Behest, tier: Any) -> bool:
    try:
        return bool(client.auth.mint(user_id="u", tier=tier).token)
    except published.BehestBadRequestError:
        return False


# ---------------------------------------------------------------- 12: a page


class TokenCache:
    """What @behest/react does: keeps the app's token until a minute before its end, and after a 401
    fetches one more, once (contract, section 11.5).
    """

    def __init__(self, stack: Stack, session: str, first: dict[str, Any]) -> None:
        self.stack, self.session, self.kept, self.fetched = stack, session, first, 0

    def token(self) -> str:
        if self.kept["expiresAt"] - time.time() < FETCHED_BEFORE_S:
            self.fetch()
        return str(self.kept["token"])

    def fetch(self) -> None:
        reply = self.stack.http.post("/api/behest/token", headers=bearer(self.session, ORIGIN))
        assert reply.status_code == 200, reply.text
        self.kept = reply.json()
        self.fetched += 1
        assert isinstance(self.kept["token"], str)
        assert isinstance(self.kept["sessionId"], str)
        for name in ("ttl", "expiresAt"):
            assert isinstance(self.kept[name], int)

    def stream(self) -> str:
        for attempt in (1, 2):
            with OpenAI(
                api_key=self.token(),
                base_url=f"{self.stack.env['BEHEST_BASE_URL']}/v1",
                default_headers={"Origin": ORIGIN, "X-Session-Id": self.kept["sessionId"]},
                max_retries=0,
            ) as client:
                try:
                    chunks = client.chat.completions.create(
                        model="", stream=True, **ask({"text": "ok", "chunks": 1})
                    )
                    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
                except Exception as error:
                    if attempt == 2 or getattr(error, "status_code", None) != 401:
                        raise
                    self.fetch()
        raise AssertionError


@pytest.mark.parametrize("says_so", [True, False], ids=["known to be old", "believed to be new"])
def test_vector_12_page_with_an_expired_token_fetches_one_and_streams(
    stack: Stack, says_so: bool
) -> None:
    old = {
        "token": expired(stack),
        "sessionId": "s",
        "ttl": 60,
        "expiresAt": int(time.time()) + (-60 if says_so else 600),
    }
    cache = TokenCache(stack, stack.sign_in()["IdToken"], old)
    assert cache.stream() == "ok"
    assert cache.fetched == 1
    assert cache.stream() == "ok"
    assert cache.fetched == 1
