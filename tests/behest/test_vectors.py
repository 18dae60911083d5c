"""The conformance vectors of the contract (contracts/behest.md, section 23), over HTTP.

Vector 6, the OpenAI SDKs with a token, is in tests/clients and tests/stack/test_openai_sdk.py;
vector 7 is in test_signing.py, 8 in test_threads.py, 11 and 12 in test_pages.py, 13 in
test_errors.py. Most say it with the published client.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import behest as published
import pytest
from behest import Behest

from tests.behest.conftest import CHAT, HELLO, Sdk, chat, until
from tests.stack.admin import Admin, bearer
from tests.stack.conftest import Stack, ask, envelope

CLAIMS = ["tid", "pid", "uid", "role", "scp", "iss", "aud", "iat", "nbf", "exp", "jti", "sid"]

# ---------------------------------------------------------------- 1 to 3: mint


def test_vector_01_minted_token_has_the_contracts_claims_in_its_order(behest: Behest) -> None:
    minted = behest.auth.mint(user_id="u_1", session_id="s_1", tier=2, ttl=900)
    assert len(minted.token.split(".")) == 3
    assert (minted.ttl, minted.session_id) == (900, "s_1")
    claims = published.decode_token(minted.token)
    assert list(claims) == [*CLAIMS, "tier"]
    assert claims["exp"] - claims["iat"] == 900
    assert claims["nbf"] == claims["iat"]
    assert claims["tier"] == 2
    assert list(published.decode_token(behest.auth.mint().token)) == CLAIMS


def test_vector_02_older_path_and_role_mint_under_the_older_names(stack: Stack) -> None:
    reply = stack.http.post(
        "/auth/v1/auth/mint",
        headers=bearer(stack.env["BEHEST_KEY"]),
        json={"user_id": "u", "role": "regular"},
    )
    told = reply.json()
    assert (reply.status_code, told["expires_in"], told["token_type"]) == (200, 3600, "Bearer")
    assert published.decode_token(told["access_token"])["role"] == "user"


@pytest.mark.parametrize(
    "wrong",
    [{"user_id": None}, {"user_id": "x" * 256}, {"user_id": "admin"}, {"ttl": 59}, {"ttl": 86401}],
    ids=str,
)
def test_vector_03_bad_field_of_mint_is_a_400(stack: Stack, wrong: dict[str, Any]) -> None:
    body = {"user_id": "u"} | wrong
    reply = stack.http.post("/v1/auth/mint", headers=bearer(stack.env["BEHEST_KEY"]), json=body)
    assert envelope(reply, 400, "validation_error")["param"] == next(iter(wrong))


def test_vector_03_bad_unknown_and_revoked_keys_are_401s(admin: Admin, sdk: Sdk) -> None:
    made = admin("POST", "projects/default/keys", {}, 201)
    revoked = sdk(key=made["secret"])
    assert revoked.auth.mint(user_id="u").token
    admin("DELETE", f"projects/default/keys/{made['key_id']}", status=204)
    unknown = sdk(key="behest_sk_live_" + "0" * 32)
    for client in (revoked, unknown):
        with pytest.raises(published.BehestAuthError) as refused:
            client.auth.mint(user_id="u")
        assert (refused.value.status, refused.value.code) == (401, "invalid_token")
    reply = admin.http.post("/v1/auth/mint", headers=bearer("bh_live_x"), json={"user_id": "u"})
    envelope(reply, 401, "invalid_token")


# ---------------------------------------------------------------- 4, 5: chat


@pytest.mark.parametrize("named", [{}, {"model": ""}, {"model": "default"}], ids=str)
def test_vector_04_chat_without_a_model_gets_the_projects(
    behest: Behest, named: dict[str, str]
) -> None:
    answer = behest.chat.completions.create(messages=HELLO, user_id="u", **named)
    assert answer["choices"][0]["message"]["content"] == "Hello!"
    assert answer["model"] == "fake-large"


def test_vector_04_unknown_model_is_a_bad_request(behest: Behest) -> None:
    with pytest.raises(published.BehestBadRequestError) as refused:
        behest.chat.completions.create(messages=HELLO, user_id="u", model="gpt-9")
    assert (refused.value.status, refused.value.code) == (400, "validation_error")


def test_vector_05_stream_is_lf_only_ends_with_done_and_adds_up_to_the_whole(
    stack: Stack, behest: Behest
) -> None:
    how = {"text": "Grüße 👋", "chunks": 1}
    body = ask(how, stream=True)
    token = behest.auth.mint().token
    raw = stack.http.post(CHAT, headers=bearer(token), json=body).content
    assert b"\r" not in raw
    assert raw.endswith(b"data: [DONE]\n\n")
    pieces = behest.chat.completions.create(token=token, **body)
    # Unguarded, as the vendor's quickstart indexes it.
    text = "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces)
    whole = behest.chat.completions.create(token=token, **ask(how))
    assert text == whole["choices"][0]["message"]["content"] == "Grüße 👋"


def test_vector_05_bad_token_of_a_stream_is_a_401_before_the_first_byte(behest: Behest) -> None:
    with pytest.raises(published.BehestAuthError) as refused:
        next(behest.chat.completions.create(messages=HELLO, token="a.b.c", stream=True))
    assert (refused.value.status, refused.value.code) == (401, "invalid_token")


# ---------------------------------------------------------------- 9: usage


def test_vector_09_usage_is_read_with_times_and_names_that_the_client_does_not_escape(
    behest: Behest,
) -> None:
    user = "auth0|a b&c"
    token = behest.auth.mint(user_id=user, session_id="s-9").token
    behest.chat.completions.create(messages=HELLO, token=token)
    now = datetime.now(UTC)

    def used() -> dict[str, Any] | None:
        told = behest.usage.get(
            from_=now - timedelta(hours=2),
            to=now + timedelta(minutes=1),
            granularity="hour",
            token=token,
        )
        return told if told["totals"]["tokens"] else None

    told = until(used)
    assert told["totals"]["cost_usd"] > 0
    assert {"timestamp", "tokens", "cost_usd"} <= told["breakdown"][-1].keys()
    # No `|` here: API Gateway refuses a raw one in a query before any function sees it.
    other = "first last@example.com"
    named = behest.usage.get(user_id=other, token=behest.auth.mint(user_id=other).token)
    assert named["totals"]["tokens"] == 0


def test_vector_09_user_cannot_read_what_another_has_used(behest: Behest) -> None:
    with pytest.raises(published.BehestAuthError) as refused:
        behest.usage.get(user_id="someone-else")  # the client mints for `default`
    assert (refused.value.status, refused.value.code) == (403, "forbidden")


def test_vector_09_billing_has_the_guides_shape(stack: Stack, behest: Behest) -> None:
    token = behest.auth.mint().token
    behest.chat.completions.create(messages=HELLO, token=token)
    reply = stack.http.get("/v1/billing/usage?from=2026-01-01", headers=bearer(token))
    told = reply.json()
    assert told["project_id"] == stack.env["BEHEST_PROJECT_ID"]
    assert told["window"].keys() == {"from", "to"}
    for bucket in ("platform", "byok"):
        counts = {"requests", "input_tokens", "output_tokens", "cost_usd", "by_model"}
        assert counts <= told[bucket].keys()


# ---------------------------------------------------------------- 10: limits


def test_vector_10_eleventh_request_in_a_minute_on_free_is_a_429(sdk: Sdk, limited: str) -> None:
    client = sdk(key=limited)
    token = client.auth.mint(user_id="fast", tier=1).token
    began, refused, admitted = time.time() // 60, None, 0
    while refused is None:
        try:
            client.chat.completions.create(messages=HELLO, token=token)
            admitted += 1
        except published.BehestRateLimitError as error:
            refused = error
    # The minute may have ended on the way.
    assert admitted == 10 or (began != time.time() // 60 and 10 < admitted <= 20)
    assert refused.code == "rate_limited"
    assert refused.retry_after is not None
    assert 1 <= refused.retry_after <= 60
    assert refused.raw["code"] == "rate_limit_exceeded"
    assert refused.raw["retryable"] is True


def test_vector_10_over_the_days_tokens_is_a_402_with_limit_and_usage(
    admin: Admin, sdk: Sdk
) -> None:
    admin.project("quota", default_model="fake-large", limits={"rpm": None})
    admin("PUT", "projects/quota/tiers/free", {"tokens_per_day": 60})
    client = sdk(key=admin.key("quota"))
    token = client.auth.mint(user_id="much", tier="free").token
    client.chat.completions.create(messages=HELLO, token=token, max_tokens=20)
    with pytest.raises(published.BehestQuotaError) as refused:
        client.chat.completions.create(messages=HELLO, token=token, max_tokens=36)
    assert (refused.value.status, refused.value.code) == (402, "quota_exceeded")
    told = refused.value.raw["error"]["details"]
    assert told["tier"] == "free"
    assert told["limit"] == {"tokens_per_day": 60}
    assert 0 < told["usage"]["tokens_today"] <= 60
    assert refused.value.trace_id


# ---------------------------------------------------------------- 14: spoofed headers


def test_vector_14_headers_that_claim_another_user_tier_or_role_change_nothing(
    stack: Stack, sdk: Sdk, limited: str
) -> None:
    client = sdk(key=limited)
    mine = client.auth.mint(user_id="u1", tier="free").token
    claimed = {
        "X-End-User-Id": "u2",
        "X-Tier": "max",
        "X-Role": "admin",
        "X-Tenant-Id": "another",
        "X-Project-Id": "default",
    }
    assert chat(stack, mine, claimed).status_code == 200
    me = stack.http.get("/v1/me", headers=bearer(mine) | claimed).json()
    assert (me["user_id"], me["project_id"], me["tier"]) == ("u1", "vectors", "free")
    used = {each["limit_name"]: each["used"] for each in me["limits"]}
    assert used["requests_per_day"] == 1
    theirs = client.auth.mint(user_id="u2", tier="free").token
    others = stack.http.get("/v1/me", headers=bearer(theirs)).json()
    assert {each["used"] for each in others["limits"]} == {0}
    reply = stack.http.get("/v1/usage?user_id=u2", headers=bearer(mine) | claimed)
    envelope(reply, 403, "forbidden")
