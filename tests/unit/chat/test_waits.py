"""How long a busy provider makes our caller wait."""

from email.utils import formatdate

import pytest

from tests.unit.chat.test_failures import reported
from tests.unit.chat.test_faults import NOW, as_bytes, error, refused
from weir.chat.failures import refusal_of_upstream


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, "1"),
        ("7", "7"),
        ("0", "1"),
        ("2.5", "3"),
        ("-5", "1"),
        ("1e9", "1"),
        ("99999", "3600"),
        ("Fri, 01 Jan 2027 00:00:00 GMT", "3600"),
        (formatdate(NOW + 45, usegmt=True), "45"),
        (formatdate(NOW - 45, usegmt=True), "1"),
        ("Sun, 99 Foo 2026 00:00:00 GMT", "1"),
        ("\u0663", "1"),  # a digit, but not an ASCII one
    ],
)
def test_retry_after_of_a_busy_provider_is_a_whole_number(header: str | None, seconds: str) -> None:
    refusal = refused(429) if header is None else refused(429, retry_after=header)
    assert refusal.headers["Retry-After"] == seconds


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "Fri, 01 Jan 2027 00:00:00 GMT"},
        {"x-ratelimit-reset": str(int(NOW) + 45)},
    ],
)
def test_without_a_clock_a_point_in_time_says_nothing(headers: dict[str, str]) -> None:
    assert refusal_of_upstream(429, headers, b"").headers["Retry-After"] == "1"


IN_45_S: dict[str, tuple[dict[str, str], object]] = {
    "milliseconds": ({"retry-after-ms": "45000"}, b""),
    "milliseconds are more exact": ({"retry-after-ms": "44100", "retry-after": "90"}, b""),
    "bad milliseconds": ({"retry-after-ms": "soon", "retry-after": "45"}, b""),
    "Go's spelling": ({"retry-after": "45s"}, b""),
    "a limit's reset": ({"x-ratelimit-reset-requests": "44.2s"}, b""),
    "a limit's reset in milliseconds": ({"x-ratelimit-reset-tokens": "44500ms"}, b""),
    "the limit that is used up": (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "45s",
            "x-ratelimit-remaining-tokens": "9",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        b"",
    ),
    "the longer of two": (
        {"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "0m45s"},
        b"",
    ),
    "Retry-After before a reset": ({"retry-after": "45", "x-ratelimit-reset-tokens": "6m"}, b""),
    "a reset as Unix time": ({"x-ratelimit-reset": str(int(NOW) + 45)}, b""),
    "retry_after": ({}, error(retry_after=45)),
    "retry_after as text": ({}, error(retry_after="44.5")),
    "retry_after outside": ({}, {"retry_after": 45, "error": "x"}),
    "Google": (
        {},
        [error(details=[{"@type": "…RetryInfo", "retryDelay": "44.074824224s"}])],
    ),
    "OpenRouter": (
        {},
        error(metadata={"headers": {"X-RateLimit-Reset": str(int(NOW * 1000) + 45_000)}}),
    ),
    "quoted Retry-After": ({}, error(metadata={"headers": {"Retry-After": 45}})),
    "OpenAI's sentence": ({}, error(message="Limit 3. Please try again in 45s. Visit …")),
    "Groq's sentence": ({}, error(message="Please try again in 0m44.5s.")),
    "Azure's sentence": ({}, error(message="Please retry after 45 seconds.")),
    "a sentence before a reset": (
        {"x-ratelimit-reset-tokens": "6m0s"},
        error(message="Please try again in 45s."),
    ),
}


@pytest.mark.parametrize(("headers", "body"), IN_45_S.values(), ids=IN_45_S)
def test_wait_is_understood_in_each_spelling(headers: dict[str, str], body: object) -> None:
    refusal = refusal_of_upstream(429, headers, as_bytes(body), now=NOW)
    assert refusal.headers["Retry-After"] == "45"


@pytest.mark.parametrize(
    "reset", ["-1", "", "soon", str(int(NOW) - 5), str(int(NOW * 1000) - 5), "1m30", "9" * 400]
)
def test_wait_that_says_nothing_is_a_second(reset: str) -> None:
    refusal = refusal_of_upstream(429, {"x-ratelimit-reset": reset}, b"", now=NOW)
    assert refusal.headers["Retry-After"] == "1"


@pytest.mark.parametrize("status", [408, 498, 500, 503, 529])
def test_wait_is_kept_wherever_it_helps_to_try_again(status: int) -> None:
    assert refused(status, retry_after="45").headers["Retry-After"] == "45"


def test_no_wait_is_told_where_it_does_not_help() -> None:
    for status in (400, 401, 402, 404, 413, 418):
        assert "Retry-After" not in refused(status, retry_after="45").headers
    assert "Retry-After" not in refused(500).headers


def test_wait_within_an_answer_is_told_only_while_a_header_can_carry_it() -> None:
    document = error(code=429, retry_after=45)
    assert reported(document).headers["Retry-After"] == "45"
    assert "Retry-After" not in reported(document, before_any_word=False).headers
