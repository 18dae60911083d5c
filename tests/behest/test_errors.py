"""Vector 13 of the contract: what both generations of the published client make of each refusal."""

import json

import behest as published
import httpx
import pytest
from behest import errors as legacy

from tests.behest.conftest import CHAT, chat, expired
from tests.stack.admin import UNLIMITED, Admin, bearer
from tests.stack.conftest import ORIGIN, Stack, ask


@pytest.fixture(scope="module")
def refusals(stack: Stack, admin: Admin) -> dict[str, httpx.Response]:
    """One of each status that this gateway answers."""
    token = str(stack.mint()["token"])
    admin.project("refused", default_model="fake-large", **UNLIMITED)
    key = admin.key("refused")
    admin("PUT", "projects/refused/tiers/max", {"requests_per_day": 0})
    admin("PUT", "projects/refused/tiers/free", {"rpm": 0})

    def of_tier(tier: str) -> httpx.Response:
        minted = stack.http.post(
            "/v1/auth/mint", headers=bearer(key), json={"user_id": "u", "tier": tier}
        )
        refused: httpx.Response = chat(stack, minted.json()["token"])
        return refused

    return {
        "400": chat(stack, token, model="gpt-9"),
        "401": chat(stack, "a.b.c"),
        "401 expired": chat(stack, expired(stack)),
        "402": of_tier("max"),
        "403": stack.http.post("/v1/auth/mint", headers=bearer(key, ORIGIN), json={"user_id": "u"}),
        "404": stack.http.get("/v1/nothing", headers=bearer(token)),
        "429": of_tier("free"),
        "502": stack.http.post(
            CHAT, headers=bearer(token), json=ask({"do": "fail", "status": 500})
        ),
    }


@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [
        ("400", legacy.ValidationError, "validation_error"),
        ("401", legacy.AuthenticationError, "invalid_token"),
        ("401 expired", legacy.TokenExpiredError, "token_expired"),
        ("402", legacy.BehestError, "budget_exceeded"),
        ("403", legacy.BehestError, "api_key_in_browser"),
        ("404", legacy.BehestError, "not_found"),
        ("429", legacy.RateLimitError, "rate_limit_exceeded"),
        ("502", legacy.ServerError, "upstream_error"),
    ],
)
def test_vector_13_legacy_parser_makes_the_right_error_of_each_body(
    refusals: dict[str, httpx.Response],
    refusal: str,
    kind: type[legacy.BehestError],
    code: str,
) -> None:
    told = legacy.parse_error_response(refusals[refusal])
    assert type(told) is kind
    assert (told.status, told.code) == (int(refusal[:3]), code)
    assert told.request_id
    assert str(told) == refusals[refusal].json()["error"]["message"]


@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [
        ("400", published.BehestBadRequestError, "validation_error"),
        ("401", published.BehestAuthError, "invalid_token"),
        ("401 expired", published.BehestAuthError, "invalid_token"),
        ("402", published.BehestQuotaError, "quota_exceeded"),
        ("403", published.BehestAuthError, "api_key_in_browser"),
        ("404", published.BehestError, "not_found"),
        ("429", published.BehestRateLimitError, "rate_limited"),
        ("502", published.BehestServerError, "upstream_error"),
    ],
)
def test_vector_13_todays_parser_makes_the_right_error_of_each_body(
    refusals: dict[str, httpx.Response],
    refusal: str,
    kind: type[published.BehestError],
    code: str,
) -> None:
    reply = refusals[refusal]
    told = published.classify_http_error(
        reply.status_code, headers=dict(reply.headers), body=json.loads(reply.content)
    )
    assert type(told) is kind
    assert told.code == code
    assert told.trace_id == reply.headers["x-trace-id"]
