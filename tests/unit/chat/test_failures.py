"""What a caller, and the log, read of a provider's failures; and those reported within a 200."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.chat.test_faults import (
    BUSY,
    CREDIT,
    FAILED,
    FILTERED,
    INVALID,
    KEY,
    NOW,
    OPERATOR,
    SECRET,
    TOO_LARGE,
    TOO_LONG,
    Case,
    as_bytes,
    error,
    judged,
    refused,
)
from tests.unit.web.test_edge import every_refusal
from weir.chat.detection import event_is_failure, failure_in
from weir.chat.failures import refusal_in_answer, refusal_of_upstream
from weir.chat.masking import Mask
from weir.errors import (
    ExchangeRefused,
    ExternalIdTaken,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    Refusal,
)


def reported(document: object, *, before_any_word: bool = True) -> Refusal:
    failure = failure_in(document)
    assert failure is not None
    return refusal_in_answer(failure, Mask(SECRET), before_any_word=before_any_word)


REPORTED_WITHIN_A_200: dict[str, Case] = {
    "the context is exceeded": Case(
        200,
        error(code=400, message="exceeds it, try increasing it", type="exceed_context_size_error"),
        TOO_LONG,
        "exceeds it, try increasing it",
    ),
    "status as code": Case(200, error(code=400, message="bad x"), INVALID, "bad x"),
    "status as digits": Case(200, error(code="422", message="bad x"), INVALID, "bad x"),
    "status beside": Case(200, {"status_code": 400, "error": "bad x"}, INVALID, "bad x"),
    "status further in": Case(200, error(error={"code": 413, "message": "x"}), TOO_LARGE, "x"),
    "status of success outside": Case(200, {"code": 200, **error(code=429)}, BUSY),
    "a number for an error": Case(200, {"error": 429}, BUSY),
    "type alone": Case(200, error(type="invalid_request_error", message="bad"), INVALID, "bad"),
    "Google's word": Case(200, [error(status="INVALID_ARGUMENT", message="bad")], INVALID, "bad"),
    "rate limit": Case(200, error(type="rate_limit_error"), BUSY, "limiting"),
    "rate limit in words": Case(200, error(message="rate limit, slow down"), BUSY, "slow down"),
    "rate limit of an account": Case(
        200, error(code=429, message="Rate limit reached in organization org-x"), BUSY, "Try again"
    ),
    "OpenRouter's error type": Case(
        200, error(message="x", metadata={"error_type": "rate_limit_exceeded"}), BUSY
    ),
    "overloaded": Case(200, error(type="overloaded_error"), BUSY, "overloaded"),
    "overloaded in words": Case(
        200, error(message="model is overloaded, come back later"), BUSY, "come back later"
    ),
    "overloaded with 529": Case(200, error(code=529, message="come back"), BUSY, "come back"),
    "no credit": Case(200, error(code="insufficient_quota"), CREDIT),
    "no credit, as 402": Case(200, error(code=402, message="x 13 USD"), CREDIT),
    "no credit, in words": Case(200, error(message="Insufficient Balance"), CREDIT),
    "no credit, MiniMax": Case(
        200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, CREDIT
    ),
    "bad key": Case(200, error(type="authentication_error", message=SECRET), KEY),
    "bad key, in words": Case(200, error(message=f"Incorrect API key: {SECRET}"), KEY),
    "no such model": Case(200, error(type="not_found_error"), OPERATOR),
    "content": Case(200, error(code="content_filter", message="no"), FILTERED, "no"),
    "server error": Case(200, error(code=502, message="cut off"), FAILED, "failed: cut off"),
    "time-out": Case(200, error(status="DEADLINE_EXCEEDED"), FAILED, "no reason given"),
    "error as text": Case(200, {"error": "boom"}, FAILED, "failed: boom"),
    "error as list": Case(200, {"error": [{"message": "boom"}]}, FAILED, "failed: boom"),
    "error is empty and all there is": Case(200, {"error": {}}, FAILED, "no reason given"),
    "error beside choices": Case(
        200, {"choices": [{"message": {"content": None}}], **error(code=429)}, BUSY
    ),
    "error beside no choices": Case(200, {"choices": [], **error(message="boom")}, FAILED, "boom"),
    "error beside usage": Case(200, {"usage": {}, **error(message="boom")}, FAILED, "boom"),
    "error in the choice": Case(
        200,
        {"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "boom"}}]},
        FAILED,
        "failed: boom",
    ),
    "error in the second choice": Case(
        200, {"choices": [{"delta": {}}, {"error": {"code": 400, "message": "x"}}]}, INVALID, "x"
    ),
    "finish_reason error": Case(200, {"choices": [{"finish_reason": "error"}]}, FAILED),
    "finish_reason of Zhipu": Case(200, {"choices": [{"finish_reason": "network_error"}]}, FAILED),
    "finish_reason of DeepSeek": Case(
        200, {"choices": [{"finish_reason": "insufficient_system_resource"}]}, BUSY
    ),
    "flat": Case(200, {"object": "error", "message": "boom"}, FAILED, "boom"),
    "flat, no more than a message": Case(200, {"message": "boom"}, FAILED, "boom"),
    "flat with code": Case(200, {"code": 20012, "message": "boom"}, FAILED, "boom"),
    "flat with status": Case(200, {"code": 400, "message": "bad x"}, INVALID, "bad x"),
    "detail": Case(200, {"detail": "boom"}, FAILED, "boom"),
    "detail list": Case(200, {"detail": [{"msg": "boom"}]}, FAILED, "boom"),
    "errors": Case(200, {"errors": [{"message": "boom"}], "success": False}, FAILED, "boom"),
    "no success": Case(200, {"success": False}, FAILED),
    "Anthropic": Case(200, {"type": "error", "error": {"type": "api_error"}}, FAILED),
    "type error alone": Case(200, {"type": "error"}, FAILED),
    "Baidu": Case(200, {"error_code": 17, "error_msg": "boom"}, FAILED, "boom"),
}


@pytest.mark.parametrize("case", REPORTED_WITHIN_A_200.values(), ids=REPORTED_WITHIN_A_200)
@pytest.mark.parametrize("before_any_word", [True, False])
def test_failure_reported_within_a_200_is_what_it_would_be_as_a_status(
    case: Case, before_any_word: bool
) -> None:
    refusal = reported(case.body, before_any_word=before_any_word)
    assert judged(refusal) == case.expected
    assert case.words in refusal.message
    assert SECRET not in json.dumps([refusal.envelope("r"), refusal.log])


NO_FAILURE: dict[str, object] = {
    "a chunk": {"choices": [{"index": 0, "delta": {"content": "error"}, "finish_reason": None}]},
    "the last chunk": {"choices": [{"delta": {}, "finish_reason": "stop", "error": None}]},
    "filtered output": {"choices": [{"delta": {}, "finish_reason": "content_filter"}]},
    "error null": {"choices": [{}], "error": None},
    "error empty": {"choices": [{}], "error": {}},
    "error blank": {"choices": [{}], "error": ""},
    "error false": {"choices": [{}], "error": False},
    "error of nulls": {"choices": [{}], "error": {"message": "", "code": None}},
    "error of nulls in a choice": {"choices": [{"error": {"message": None}}]},
    "usage": {"choices": [], "usage": {"prompt_tokens": 1}},
    "usage without choices": {"usage": {"prompt_tokens": 1}},
    "usage and an empty error": {"choices": [], "usage": {"prompt_tokens": 1}, "error": {}},
    "usage and an error of nulls": {"usage": {"prompt_tokens": 1}, "error": {"message": ""}},
    "error null alone": {"error": None},
    "error false alone": {"error": False},
    "ping": {"type": "ping"},
    "ping with words": {"type": "ping", "message": "alive"},
    "Azure's first chunk": {"choices": [], "prompt_filter_results": [], "object": "", "id": ""},
    "a message that is an object": {"type": "message_start", "message": {"content": []}},
    "wrapped success": {"code": 0, "message": "success", "data": {}},
    "MiniMax's success": {"base_resp": {"status_code": 0, "status_msg": "success"}},
    "no errors": {"errors": [], "success": True},
    "odd choices": {"choices": [1, None], "message": "x"},
    "odd finish": {"choices": [{"finish_reason": ["error"]}]},
    "choices an object": {"choices": {"error": 1}},
    "an empty object": {},
    "an empty list": [],
    "a list of texts": ["error"],
    "a text": "error",
    "a number": 7,
    "nothing": None,
}


@pytest.mark.parametrize("document", NO_FAILURE.values(), ids=NO_FAILURE)
def test_what_reports_no_failure_is_none(document: object) -> None:
    assert failure_in(document) is None


def test_event_named_error_is_a_failure_even_if_its_data_is_text() -> None:
    assert event_is_failure("error")
    assert not event_is_failure("message")
    refusal = refusal_in_answer("rate limit reached", before_any_word=True)
    assert judged(refusal) == BUSY
    assert judged(refusal_in_answer('{"code": 400}', before_any_word=True)) == INVALID
    assert judged(refusal_in_answer(None, before_any_word=True)) == FAILED


# ---------------------------------------------------------------- what is passed on


def test_providers_code_and_param_are_passed_on_only_if_they_are_words() -> None:
    for odd in (f"Bearer {SECRET}", SECRET, "x" * 65, "a b", 7, "7", None, "<b>", ["a"]):
        refusal = refused(400, error(code=odd, param=odd))
        assert (refusal.code, refusal.param) in (
            ("validation_error", None),
            ("validation_error", "7"),
        )
    refusal = refused(400, error(code="bad_x", param="messages[0].content"))
    assert (refusal.code, refusal.param) == ("bad_x", "messages[0].content")


def test_code_of_ours_is_not_taken_from_a_provider() -> None:
    """A client would fetch a new token for it, or wait for its budget's next month."""
    # Never on this route.
    others = {ExchangeRefused, ExternalIdTaken, IdempotencyInProgress, IdempotencyKeyReused}
    kinds = [kind for kind in every_refusal() if kind not in others]
    ours = {code for kind in kinds for code in (kind.code, kind.legacy_code) if code}
    ours |= {"forbidden", "completed", "cancelled", "upstream_not_configured"}
    of_a_providers_refusal = {
        *("validation_error", "upstream_quota_exceeded", "upstream_rate_limited"),
    }
    for code in ours - {"validation_error"}:
        assert refused(400, error(code=code)).code in of_a_providers_refusal, code


def test_where_the_field_is_is_read_from_a_list_too() -> None:
    body = {"detail": [{"loc": ["body", "messages", 0, "role", {}], "msg": "Field required"}]}
    refusal = refused(422, body)
    assert (refusal.message, refusal.param) == ("Field required", "messages.0.role")


@pytest.mark.parametrize(
    ("body", "filtered"),
    [
        (
            error(
                code="content_filter",
                innererror={
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {
                        "hate": {"filtered": False, "severity": "safe"},
                        "jailbreak": {"filtered": True, "detected": True},
                        "odd": None,
                        "no word": {"filtered": True},
                    },
                },
            ),
            ["jailbreak"],
        ),
        (error(code=400, metadata={"reasons": ["violence", 7, "x" * 99]}), ["violence"]),
        (error(code="content_filter"), None),
    ],
)
def test_categories_of_filtered_content_are_told(body: object, filtered: list[str] | None) -> None:
    refusal = refused(400, body)
    assert judged(refusal) == FILTERED
    assert refusal.details.get("filtered") == filtered


def test_providers_words_are_bounded_masked_and_printable() -> None:
    words = f"a\nb\x00c\x1b[31m\u202ed sk-CANARY-\u200b0123456789 {SECRET} " + "x" * 5000
    refusal = refused(400, error(message=words))
    assert refusal.message.startswith("a bc[31md *** *** x")
    assert len(refusal.message) == 1000
    logged = refused(401, error(message=words)).log["upstream_message"]
    assert logged == refusal.message[:500]


def test_secret_at_the_cut_is_not_half_told() -> None:
    refusal = refused(400, error(message="x" * 990 + SECRET))
    assert refusal.message == "x" * 990 + "***"


@pytest.mark.parametrize("status", [401, 402, 403, 404, 429, 500, 503])
def test_words_about_the_operators_account_go_to_the_log_alone(status: int) -> None:
    refusal = refused(status, error(message="Account acme has 13 USD left", code="odd_code"))
    assert "acme" not in json.dumps([refusal.envelope("r"), refusal.headers])
    assert refusal.log == {
        "upstream_status": status,
        "upstream_code": "odd_code",
        "upstream_message": "Account acme has 13 USD left",
    }


def test_ids_of_the_operators_account_are_taken_out_of_words_about_the_request() -> None:
    refusal = refused(400, error(message="org-0123456789abcdef01 may not use team_members"))
    assert refusal.message == "*** may not use team_members"


def test_words_that_may_quote_the_request_are_not_logged() -> None:
    log = refused(400, error(message="bad value 'my secret diary'", code="bad_x")).log
    assert log == {"upstream_status": 400, "upstream_code": "bad_x"}


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"x-request-id": "req_1", "cf-ray": "9-FRA"}, {}, "req_1"),
        ({"request-id": "req_1"}, {}, "req_1"),
        ({"x-amzn-requestid": "a-b"}, {}, "a-b"),
        ({"apim-request-id": "a-b"}, {}, "a-b"),
        ({"cf-ray": "9-FRA"}, {"request_id": "req_2"}, "9-FRA"),
        ({}, {"type": "error", "error": {}, "request_id": "req_2"}, "req_2"),
        ({"x-request-id": "a b\x1b"}, {}, None),
        ({"x-request-id": "x" * 129}, {}, None),
        ({"x-request-id": SECRET}, {}, None),
        ({}, {}, None),
    ],
)
def test_providers_request_id_is_logged(
    headers: dict[str, str], body: object, expected: str | None
) -> None:
    refusal = refusal_of_upstream(500, headers, as_bytes(body), Mask(SECRET))
    assert refusal.log.get("upstream_request_id") == expected
    assert "req_" not in json.dumps(refusal.envelope("r"))


def test_provider_that_says_that_no_retry_helps_is_believed() -> None:
    for status in (429, 500):
        refusal = refused(status, x_should_retry="false")
        assert refusal.headers["x-should-retry"] == "false"
        assert "x-should-retry" not in refused(status).headers


# ---------------------------------------------------------------- whatever it sends

names = st.sampled_from(
    [
        *("error", "errors", "message", "code", "type", "status", "detail", "details", "metadata"),
        *("raw", "headers", "reasons", "loc", "msg", "choices", "usage", "finish_reason", "param"),
        *("innererror", "content_filter_result", "filtered", "retry_after", "retryDelay"),
        *("request_id", "base_resp", "status_code", "success", "Retry-After", "X-RateLimit-Reset"),
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-1, 10**20)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [400, 401, 403, 429, 500, "403", "insufficient_quota", "error", "invalid_token"]
    )
    | st.sampled_from([SECRET, f"key {SECRET}\u202e", json.dumps({"error": {"message": SECRET}})])
)
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=30,
)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-request-id"]),
    st.text(max_size=40) | st.sampled_from([SECRET, "1m", "Fri, 01 Jan 2027 00:00:00 GMT"]),
)


def is_harmless(refusal: Refusal) -> None:
    assert isinstance(refusal, Refusal)
    assert refusal.status in (400, 413, 502, 503)
    assert len(refusal.message) <= 1100
    assert refusal.code not in ("invalid_token", "quota_exceeded", "rate_limited")
    whole = json.dumps([refusal.envelope("r"), refusal.headers, refusal.log], ensure_ascii=False)
    assert SECRET not in whole
    assert not re.search("[\x00-\x1f\u202a-\u202e\ud800-\udfff]", refusal.message)
    wait = refusal.retry_after_s
    assert wait is None or (isinstance(wait, int) and 1 <= wait <= 3600)


@given(st.integers(100, 999), headers, documents, st.sampled_from([0.0, NOW]))
def test_whatever_a_provider_sends_is_a_refusal(
    status: int, headers: dict[str, str], document: object, now: float
) -> None:
    body = json.dumps(document).encode()
    is_harmless(refusal_of_upstream(status, headers, body, Mask(SECRET), now=now))


@given(st.integers(100, 999), st.binary(max_size=200))
def test_whatever_bytes_a_provider_sends_are_a_refusal(status: int, body: bytes) -> None:
    is_harmless(refusal_of_upstream(status, {}, body, Mask(SECRET)))


@given(documents, st.booleans())
def test_whatever_a_200_reports_is_a_refusal(document: object, before_any_word: bool) -> None:
    failure = failure_in(document)
    if failure is not None:
        is_harmless(refusal_in_answer(failure, Mask(SECRET), before_any_word=before_any_word))
    is_harmless(refusal_in_answer(document, Mask(SECRET), before_any_word=before_any_word))
