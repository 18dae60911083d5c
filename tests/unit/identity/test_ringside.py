"""How errors are told to callers of the Ringside contract: its section 11."""

import base64
import json
from typing import Any

import pytest

from weir.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Internal,
    Killed,
    LedgerBusy,
    LimitReached,
    NotFound,
    OriginNotAllowed,
    QuotaExceeded,
    Refusal,
    TokenExpired,
    TooLarge,
    Unauthenticated,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from weir.identity.api_keys import RINGSIDE_LIVE
from weir.identity.ringside import is_client_token, speaks_it, spelled
from weir.web.origins import Origins
from weir.web.request import Request

PAGE = "https://app.example.com"


def jwt_of(typ: str) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "typ": typ}).encode())
    return f"{head.rstrip(b'=').decode()}.e30.AAAA"


TOKEN, USER_TOKEN = jwt_of("fc-client+jwt"), jwt_of("JWT")
KEY = RINGSIDE_LIVE + "0" * 32


def request(authorization: str) -> Request:
    return Request("req", "POST", "/", {"authorization": authorization, "origin": PAGE})


def told(refusal: Refusal, authorization: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    status, headers, body = spelled(refusal, request(authorization), Origins(frozenset({PAGE})))
    return status, headers, json.loads(body)


@pytest.mark.parametrize(
    ("authorization", "speaks", "is_page"),
    [
        (f"Client {TOKEN}", True, True),
        (f"client {USER_TOKEN}", True, True),
        ("Client garbage", True, True),
        (f"Bearer {TOKEN}", True, True),
        (f"Bearer {KEY}", True, False),
        ("Bearer sk_test_x", True, False),
        (f"Bearer {USER_TOKEN}", False, False),
        ("Bearer behest_sk_live_0", False, False),
        *((odd, False, False) for odd in ("", "Bearer", "Bearer e30.e30.e30", "Bearer W10.x.y")),
        ("Bearer \ud800.a.b", False, False),
    ],
)
def test_contract_is_seen_from_the_credential(
    authorization: str, speaks: bool, is_page: bool
) -> None:
    asked = request(authorization)
    assert (speaks_it(asked), is_client_token(asked)) == (speaks, is_page)


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (TokenExpired(), 401, "client_token_expired"),
        (Unauthenticated("x", reason="token_revoked"), 401, "client_token_revoked"),
        (Unauthenticated("x", reason="project_suspended"), 401, "client_token_revoked"),
        (Unauthenticated("x", reason="bad_signature"), 401, "client_token_invalid"),
        (Unauthenticated("x", reason="missing"), 401, "client_token_invalid"),
        (OriginNotAllowed(PAGE), 403, "client_token_origin_mismatch"),
        (Killed("user"), 403, "customer_blocked"),
        (Killed("project"), 403, "forbidden"),
        (Forbidden("x", code="client_token_ip_mismatch"), 403, "client_token_ip_mismatch"),
        (QuotaExceeded("x"), 402, "budget_exceeded"),
        (LimitReached("x", retry_after_s=1), 429, "rate_limited"),
        (
            LimitReached("x", retry_after_s=1, details={"limit_name": "concurrent_streams"}),
            429,
            "concurrency_limited",
        ),
        (BadRequest("x"), 400, "invalid_request"),
        (BadRequest("x", details={"reason": "invalid_json"}), 400, "invalid_json"),
        (BadRequest("x", code="invalid_model_ref"), 400, "invalid_model_ref"),
        (NotFound("x"), 404, "not_found"),
        (NotFound("x", code="model_not_found"), 404, "model_not_found"),
        (Conflict("x", code="external_id_taken"), 409, "external_id_taken"),
        (TooLarge("x"), 413, "request_too_large"),
        (Internal(), 500, "internal_error"),
        (UpstreamUnavailable("x"), 502, "upstream_unavailable"),
        (UpstreamFailed("x"), 502, "upstream_unavailable"),
        (UpstreamFailed("x", code="upstream_credentials_refused"), 502, "upstream_unavailable"),
        (UpstreamBusy("x"), 503, "upstream_quota_exceeded"),
        (UpstreamTimeout("x"), 504, "upstream_timeout"),
        (LedgerBusy(), 503, "ledger_busy"),
    ],
)
def test_page_gets_the_contracts_codes(refusal: Refusal, status: int, code: str) -> None:
    got, headers, body = told(refusal, f"Client {TOKEN}")
    assert (got, body["error"]["code"], body["code"]) == (status, code, code)
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert body["error"]["request_id"] == body["trace_id"] == "req"


def test_page_is_told_whether_to_fetch_a_new_token() -> None:
    for refusal, error in (
        (TokenExpired(), "expired_token"),
        (Unauthenticated("x", reason="bad_signature"), "invalid_token"),
    ):
        assert told(refusal, f"Client {TOKEN}")[1]["WWW-Authenticate"] == f'Client error="{error}"'


def test_server_gets_its_own_codes() -> None:
    for reason in ("unknown_api_key", "malformed", "missing"):
        _, headers, body = told(Unauthenticated("x", reason=reason), f"Bearer {KEY}")
        assert body["code"] == "invalid_api_key"
        assert headers["WWW-Authenticate"].startswith("Bearer")
    lacks = Unauthenticated("The API key lacks the scope 'api:write'.", reason="missing_scope")
    status, headers, body = told(lacks, f"Bearer {KEY}")
    assert (status, body["code"], body["error"]["param"]) == (
        403,
        "insufficient_scope",
        "api:write",
    )
    assert "WWW-Authenticate" not in headers


SPENT = {
    "scope": "user",
    "limit_name": "usd_per_month",
    "limit": {"usd_per_month": 5.0},
    "usage": {"usd_this_month": 4.9},
    "resets_at": 1_782_864_000,
}


def test_server_is_told_what_is_left_and_a_page_only_when_it_is_renewed() -> None:
    _, _, body = told(QuotaExceeded("spent 4.9 of 5", details=SPENT), f"Bearer {KEY}")
    assert body["error"]["budget"] == {
        "limit_usd": 5.0,
        "spent_usd": 4.9,
        "remaining_usd": 0.1,
        "resets_at": 1_782_864_000,
    }
    assert body["error"]["aliases"] == ["customer_budget_exceeded"]
    _, _, body = told(QuotaExceeded("spent 4.9 of 5", details=SPENT), f"Client {TOKEN}")
    assert body["error"]["budget"] == {"resets_at": 1_782_864_000}
    assert "4.9" not in json.dumps(body)


def test_callers_of_the_other_contract_are_told_what_they_always_were() -> None:
    for authorization in (f"Bearer {USER_TOKEN}", "", "Bearer behest_sk_live_1"):
        _, _, body = told(QuotaExceeded("x", details=SPENT), authorization)
        assert (body["error"]["code"], body["code"]) == ("quota_exceeded", "budget_exceeded")
        assert "budget" not in body["error"]
        _, _, body = told(TokenExpired(), authorization)
        assert (body["error"]["code"], body["code"]) == ("invalid_token", "token_expired")
