"""Whose fault a provider's failure is, by its status and its words."""

import json
from typing import Any, NamedTuple

import pytest

from weir.chat.failures import refusal_of_upstream
from weir.chat.masking import Mask
from weir.errors import Refusal

NOW = 1_790_000_000.0
SECRET = "sk-CANARY-0123456789"


class Case(NamedTuple):
    """A provider's answer, what it is to the caller, and what the caller reads in the message."""

    status: int
    body: object
    expected: tuple[int, str, bool]  # status, error.code, retryable
    words: str = ""


def error(**parts: Any) -> dict[str, Any]:
    return {"error": parts}


def as_bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def refused(status: int, body: object = b"", **headers: str) -> Refusal:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal_of_upstream(status, named, as_bytes(body), Mask(SECRET), now=NOW)


def judged(refusal: Refusal) -> tuple[int, str, bool]:
    return refusal.status, refusal.code, refusal.retryable


INVALID = (400, "validation_error", False)
TOO_LONG = (400, "context_length_exceeded", False)
FILTERED = (400, "content_filter", False)
TOO_LARGE = (413, "request_too_large", False)
KEY = (502, "upstream_credentials_refused", False)
CREDIT = (503, "upstream_quota_exceeded", False)
BUSY = (503, "upstream_rate_limited", True)
TOO_BUSY_EVER = (503, "upstream_rate_limited", False)
FAILED = (502, "upstream_error", True)
OPERATOR = (502, "upstream_error", False)

PROVIDERS_FAULTS: dict[str, Case] = {
    # The request is at fault.
    "400 with param": Case(400, error(message="bad x", param="temperature"), INVALID, "bad x"),
    "400 with their code": Case(400, error(code="bad_x"), (400, "bad_x", False)),
    "400 with a page": Case(400, b"<html><title>400 Bad Request</title>", INVALID, "400 Bad"),
    "400 with a page without title": Case(400, b"<html>", INVALID, "refused the request"),
    "400 empty": Case(400, b"", INVALID, "refused the request"),
    "400 error as text": Case(400, b'{"error":"plain"}', INVALID, "plain"),
    "400 JSON text": Case(400, b'"plain"', INVALID, "plain"),
    "400 plain text": Case(400, b"missing field `role`", INVALID, "missing field `role`"),
    "400 broken JSON": Case(400, b'{"error":{"mess', INVALID, "refused the request"),
    "400 nested too deeply": Case(400, b"[" * 100_000, INVALID),
    "400 objects nested too deeply": Case(400, b'{"error":' * 20_000 + b"1", INVALID),
    "400 with a lone surrogate": Case(400, rb'{"error":"a\ud800b"}', INVALID, "ab"),
    "400 with NaN": Case(400, b'{"error":{"message":"bad","code":NaN}}', INVALID, "bad"),
    "400 with null": Case(400, b"null", INVALID),
    "400 not UTF-8": Case(400, b"\xff\xfe", INVALID),
    "400 that quotes the caller": Case(
        400, error(message="Invalid value: 'Incorrect API key, insufficient balance'"), INVALID
    ),
    "422": Case(422, b"<html>", INVALID),
    "flat, vLLM": Case(
        400,
        {"object": "error", "message": "bad x", "type": "BadRequestError", "code": 400},
        INVALID,
        "bad x",
    ),
    "flat message": Case(400, {"message": "bad x"}, INVALID, "bad x"),
    "FastAPI": Case(422, {"detail": [{"loc": ["body", "n"], "msg": "bad n"}]}, INVALID, "bad n"),
    "FastAPI text": Case(400, {"detail": "bad x"}, INVALID, "bad x"),
    "Mistral": Case(
        422, {"object": "error", "message": {"detail": [{"msg": "bad x"}]}}, INVALID, "bad x"
    ),
    "Cloudflare": Case(400, {"errors": [{"code": 7, "message": "bad x"}]}, INVALID, "bad x"),
    "Gemini's list": Case(400, [error(code=400, message="bad x")], INVALID, "bad x"),
    "OAuth": Case(400, {"error": "e", "error_description": "bad x"}, INVALID, "bad x"),
    "JSON in the message": Case(
        400, error(message=json.dumps(error(message="bad x"))), INVALID, "bad x"
    ),
    "OpenRouter quotes another": Case(
        400,
        error(
            message="Provider returned error",
            code=400,
            metadata={"raw": json.dumps(error(message="bad x", code="bad_x"))},
        ),
        (400, "bad_x", False),
        "bad x",
    ),
    "llama.cpp context": Case(
        400,
        error(code=400, message="exceeds the context", type="exceed_context_size_error"),
        TOO_LONG,
        "exceeds the context",
    ),
    "OpenAI context": Case(400, error(code="context_length_exceeded"), TOO_LONG),
    "context in words alone": Case(
        400,
        {"object": "error", "message": "This model's maximum context length is 2048 tokens."},
        TOO_LONG,
        "2048 tokens",
    ),
    "context as a server error": Case(500, error(code="context_length_exceeded"), TOO_LONG),
    "OpenRouter: no such feature": Case(
        404,
        error(message="No endpoints found that support tool use.", code=404),
        INVALID,
        "support tool use",
    ),
    "413": Case(413, b"", TOO_LARGE),
    "413 with words": Case(413, error(message="Max size: 8000 tokens."), TOO_LARGE, "8000"),
    # Its content is not allowed.
    "Azure's content filter": Case(
        400, error(code="content_filter", message="filtered", param="prompt"), FILTERED, "filtered"
    ),
    "OpenRouter's moderation": Case(
        403,
        error(code=403, message="flagged", metadata={"reasons": ["violence"]}),
        FILTERED,
        "flagged",
    ),
    "moderation by code": Case(
        403, error(code="content_policy_violation"), (400, "content_policy_violation", False)
    ),
    "xAI's moderation": Case(
        403,
        {"code": "no permission", "error": "Content violates usage guidelines. Team: 9b, …"},
        FILTERED,
        "does not allow",
    ),
    "451 of another gateway": Case(451, error(code="pii_blocked"), (400, "pii_blocked", False)),
    # The gateway's key.
    "401": Case(401, error(message=f"Wrong key {SECRET}"), KEY),
    "403": Case(403, b"", KEY),
    "403 page": Case(403, b"<html><title>Attention Required!</title>", KEY),
    "Gemini's bad key": Case(
        400, [error(code=400, message="API key not valid.", status="INVALID_ARGUMENT")], KEY
    ),
    "Gemini's bad key, by its reason": Case(
        400, error(code=400, details=[{"reason": "API_KEY_INVALID"}]), KEY
    ),
    "xAI's bad key": Case(400, {"error": "Incorrect API key provided: xa***bc."}, KEY),
    # The gateway's account.
    "402": Case(402, error(message="Insufficient Balance", code="invalid_request_error"), CREDIT),
    "402 empty": Case(402, b"", CREDIT),
    "OpenAI's quota": Case(429, error(code="insufficient_quota"), CREDIT),
    "quota as type": Case(429, error(type="insufficient_quota"), CREDIT),
    "403 of New API": Case(403, error(code="insufficient_user_quota"), CREDIT),
    "401 flat": Case(401, {"type": "CreditsError", "message": "Insufficient balance."}, CREDIT),
    "401 Anthropic's shape": Case(
        401, {"type": "error", "error": {"type": "CreditsError"}}, CREDIT
    ),
    "billing limit": Case(429, error(code="billing_hard_limit_reached"), CREDIT),
    "billing not active": Case(429, error(code="billing_not_active"), CREDIT),
    "Anthropic's balance": Case(
        400,
        error(type="invalid_request_error", message="Your credit balance is too low to access"),
        CREDIT,
    ),
    "OpenRouter's key limit": Case(403, error(code=403, message="Key limit exceeded (x)."), CREDIT),
    "SiliconFlow": Case(
        403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, CREDIT
    ),
    "Moonshot": Case(429, error(type="exceeded_current_quota_error"), CREDIT),
    "NIM": Case(402, {"status": 402, "title": "Payment Required", "detail": "Account x"}, CREDIT),
    "Fireworks": Case(412, error(message="Account x: account suspended"), CREDIT),
    # The catalogue.
    "404": Case(404, error(message="no such model"), OPERATOR, "catalogue"),
    "404 of OpenAI": Case(
        404, error(code="model_not_found", type="invalid_request_error"), OPERATOR, "catalogue"
    ),
    "403 model": Case(403, error(code="model_not_found"), OPERATOR, "catalogue"),
    "400 decommissioned": Case(400, error(code="model_decommissioned"), OPERATOR, "catalogue"),
    "400 Bedrock's model": Case(
        400, {"message": "The provided model identifier is invalid."}, OPERATOR, "catalogue"
    ),
    # The moment.
    "429": Case(429, b"", BUSY, "limiting"),
    "429 of Google": Case(429, [error(code=429, status="RESOURCE_EXHAUSTED")], BUSY),
    "429 quota of a minute": Case(
        429, error(status="RESOURCE_EXHAUSTED", message="You exceeded your current quota"), BUSY
    ),
    "429 Moonshot is overloaded": Case(
        429, error(type="engine_overloaded_error"), BUSY, "overload"
    ),
    "429 too large for ever": Case(
        429, error(message="Request too large for x on tokens per min"), TOO_BUSY_EVER
    ),
    "413 that is a limit": Case(413, error(code="rate_limit_exceeded"), TOO_BUSY_EVER),
    "403 that is a limit": Case(403, error(code="rateLimitExceeded"), BUSY),
    "400 that is a limit": Case(400, {"__type": "com.amazon#ThrottlingException"}, BUSY),
    "498 of Groq": Case(498, error(code="capacity_exceeded"), BUSY, "overloaded"),
    "529 of Anthropic": Case(529, b"", BUSY, "overloaded"),
    "503 of Google": Case(503, error(code=503, status="UNAVAILABLE"), BUSY, "overloaded"),
    "500 overloaded": Case(500, error(message="Model is overloaded"), BUSY, "overloaded"),
    "500": Case(500, error(message="stack trace"), FAILED, "status 500"),
    "503": Case(503, b"\xff\xfe", FAILED),
    "502 with general words": Case(502, error(type="invalid_request_error"), FAILED),
    "520 of Cloudflare": Case(520, b"error code: 520", FAILED),
    "527 of Cloudflare": Case(527, b"", FAILED),
    # Others below 500: those that pass by themselves, and those that the address is to blame for.
    "408": Case(408, b"", FAILED),
    "409": Case(409, b"", FAILED),
    "424 of Bedrock": Case(424, b"", FAILED),
    "425": Case(425, b"", FAILED),
    "499": Case(499, b"", FAILED),
    **{
        str(status): Case(status, b"[]", OPERATOR)
        for status in (405, 406, 410, 411, 412, 414, 415, 418, 421, 426, 431, 451)
    },
    # What is no answer to a chat request.
    "204": Case(204, b"", OPERATOR),
    "302": Case(302, error(code="insufficient_quota"), OPERATOR, "redirect"),
    "999": Case(999, b"", FAILED),
}


@pytest.mark.parametrize("case", PROVIDERS_FAULTS.values(), ids=PROVIDERS_FAULTS)
def test_providers_status_is_told_as_what_it_is_to_our_caller(case: Case) -> None:
    refusal = refused(case.status, case.body)
    assert judged(refusal) == case.expected
    assert case.words in refusal.message
    assert refusal.details["upstream_status"] == case.status
    assert SECRET not in json.dumps([refusal.envelope("r"), refusal.log])
    retried = refusal.status in (502, 503)  # by an OpenAI SDK, left to itself
    assert (refusal.headers.get("x-should-retry") == "false") == (retried and not refusal.retryable)
