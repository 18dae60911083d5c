"""What a provider's failures are to the caller."""

import json
from typing import Any

import pytest

from weir.chat.failures import refusal_of_upstream


def error(**parts: Any) -> bytes:
    return json.dumps({"error": parts}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (400, {}, error(message="bad temperature", param="temperature"), (400, "validation_error")),
        (400, {}, error(code="context_length_exceeded"), (400, "context_length_exceeded")),
        (422, {}, b"<html>", (400, "validation_error")),
        (401, {}, error(message="Wrong key sk-secret"), (502, "upstream_credentials_refused")),
        (403, {}, b"", (502, "upstream_credentials_refused")),
        (404, {}, error(message="no such model"), (502, "upstream_error")),
        (413, {}, b"", (413, "request_too_large")),
        (429, {}, b"", (503, "upstream_rate_limited")),
        (429, {}, error(code="insufficient_quota"), (503, "upstream_quota_exceeded")),
        (500, {}, error(message="stack trace"), (502, "upstream_error")),
        (503, {}, b"\xff\xfe", (502, "upstream_error")),
        (302, {}, b"", (502, "upstream_error")),
        (418, {}, b"[]", (502, "upstream_error")),
        (400, {}, b'{"error":"plain"}', (400, "validation_error")),
        (400, {}, b"[" * 100_000, (400, "validation_error")),
    ],
)  # fmt: skip
def test_providers_failure_is_told_as_what_it_is_to_our_caller(
    status: int, headers: dict[str, str], body: bytes, expected: tuple[int, str]
) -> None:
    refusal = refusal_of_upstream(status, headers, body)
    assert (refusal.status, refusal.code) == expected
    assert refusal.status not in (401, 403)
    assert "sk-secret" not in json.dumps(refusal.envelope("r"))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, "1"),
        ("7", "7"),
        ("0", "1"),
        ("2.5", "3"),
        ("1e9", "1"),
        ("99999", "3600"),
        ("Fri, 01 Jan 2027 00:00:00 GMT", "1"),
        ("\u0663", "1"),  # a digit, but not an ASCII one
    ],
)
def test_retry_after_of_a_busy_provider_is_a_whole_number(header: str | None, seconds: str) -> None:
    headers = {} if header is None else {"retry-after": header}
    assert refusal_of_upstream(429, headers, b"").headers["Retry-After"] == seconds


def test_providers_code_and_param_are_passed_on_only_if_they_are_words() -> None:
    for odd in ("Bearer sk-CANARY", "x" * 65, "a b", 7, None, "<b>"):
        refusal = refusal_of_upstream(400, {}, error(code=odd, param=odd))
        assert (refusal.code, refusal.param) == ("validation_error", None)
    refusal = refusal_of_upstream(400, {}, error(code="bad_x", param="messages[0].content"))
    assert (refusal.code, refusal.param) == ("bad_x", "messages[0].content")


def test_client_is_told_not_to_retry_what_cannot_help() -> None:
    assert refusal_of_upstream(401, {}, b"").headers["x-should-retry"] == "false"
    assert "x-should-retry" not in refusal_of_upstream(500, {}, b"").headers
