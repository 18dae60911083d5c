"""The fault matrix: whatever the provider does, one outcome that a published client understands.

After each fault: the provider's connection is let go of, and the next request is fine.
"""

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.provider import FakeProvider, chunk
from tests.stack.conftest import Stack, ask, start
from tests.stack.fault_proxy import FaultProxy


@pytest.fixture(scope="module")
def proxy(provider: FakeProvider) -> FaultProxy:
    return FaultProxy(("127.0.0.1", provider.port))


@pytest.fixture(scope="module")
def faulty(proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start(
        tmp_path_factory.mktemp("faulty"),
        upstream=proxy.url,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(faulty: Stack) -> Iterator[OpenAI]:
    token = faulty.mint()["token"]
    base_url = faulty.env["BEHEST_BASE_URL"] + "/v1"
    with OpenAI(api_key=token, base_url=base_url, max_retries=0) as sdk:
        yield sdk


BEGUN = chunk("begun").decode()
GOOD = {"do": "stream", "chunks": 3}
# name: proxy's mode, provider's behaviour, status and code of the outcome (200: in the stream)
MATRIX: dict[str, tuple[str, dict[str, Any], int, str | None]] = {
    "refuse": ("refuse", GOOD, 502, "upstream_unavailable"),
    "slow connect": ("slow connect", GOOD, 504, "upstream_timeout"),
    "slow trickle": ("trickle", GOOD, 200, None),
    "reset before the first byte": ("reset:0", GOOD, 502, "upstream_unavailable"),
    "reset after the first byte": ("reset:400", GOOD, 200, "upstream_unavailable"),
    "half frame, then close": ("cut:500", GOOD, 200, "upstream_unavailable"),
    "half frame, then an end": ("pass", {"do": "cut", "how": "end"}, 200, "upstream_error"),
    "bare end without DONE": ("pass", {"do": "frames", "frames": [BEGUN]}, 200, "upstream_error"),
    "garbage JSON": (
        "pass",
        {"do": "frames", "frames": [BEGUN, "data: {not json}\n\n"]},
        200,
        "upstream_invalid_response",
    ),
    "error inside a 200": (
        "pass",
        {"do": "frames", "frames": [BEGUN, 'data: {"error":{"message":"boom"}}\n\n']},
        200,
        "upstream_error",
    ),
    "overload inside a 200": (
        "pass",
        {"do": "frames", "frames": [BEGUN, 'data: {"error":{"message":"overloaded"}}\n\n']},
        200,
        "upstream_rate_limited",
    ),
    "error as a 200's first event": (
        "pass",
        {"do": "frames", "frames": ['data: {"error":{"message":"boom"}}\n\n']},
        502,
        "upstream_error",
    ),
    "overload as a 200's first event": (
        "pass",
        {"do": "frames", "frames": ['data: {"error":{"message":"overloaded"}}\n\n']},
        503,
        "upstream_rate_limited",
    ),
    "401": ("pass", {"do": "fail", "status": 401}, 502, "upstream_credentials_refused"),
    "429": ("pass", {"do": "fail", "status": 429}, 503, "upstream_rate_limited"),
    "429 with Retry-After": (
        "pass",
        {"do": "fail", "status": 429, "retry_after": "9"},
        503,
        "upstream_rate_limited",
    ),
    "HTML": ("pass", {"do": "html"}, 502, "upstream_invalid_response"),
    "6 s of silence": ("pass", {"do": "silent", "seconds": 6}, 200, None),
}


def outcome_of(client: OpenAI, how: dict[str, Any]) -> tuple[int, str | None, str]:
    """What the OpenAI SDK makes of it: status, code of the error, text (or Retry-After)."""
    text = ""
    try:
        stream = client.chat.completions.create(model="default", stream=True, **ask(how))
    except openai.APIStatusError as failed:
        return failed.status_code, failed.code, failed.response.headers.get("retry-after", "")
    finished = False
    try:
        for piece in stream:
            text += piece.choices[0].delta.content or ""
            finished = finished or bool(piece.choices[0].finish_reason)
    except openai.APIError as failed:
        return 200, failed.code, text
    assert finished, "a cut stream was taken for a whole one"
    return 200, None, text


def wait_until_let_go(provider: FakeProvider) -> None:
    give_up = time.monotonic() + 3
    while provider.busy and time.monotonic() < give_up:
        time.sleep(0.01)
    assert provider.busy == 0


@pytest.mark.parametrize("fault", MATRIX)
def test_fault_has_one_outcome_and_the_next_request_is_fine(
    client: OpenAI, proxy: FaultProxy, provider: FakeProvider, fault: str
) -> None:
    mode, how, status, code = MATRIX[fault]
    proxy.set(mode)
    # A connection made under another mode would not see this one.
    proxy.drop()
    outcome = outcome_of(client, how)
    assert outcome[:2] == (status, code)
    if status == 503:
        assert outcome[2] == how.get("retry_after", "1"), "Retry-After"
    proxy.set("pass")
    wait_until_let_go(provider)
    assert outcome_of(client, GOOD) == (200, None, "w0 w1 w2 ")


def test_storm_of_500s_passes_without_a_trace(client: OpenAI, provider: FakeProvider) -> None:
    storm = [outcome_of(client, {"do": "fail", "status": 500})[:2] for _ in range(20)]
    assert storm == [(502, "upstream_error")] * 20
    wait_until_let_go(provider)
    assert outcome_of(client, GOOD)[:2] == (200, None)


def test_five_megabytes_stream_through_whole(client: OpenAI, provider: FakeProvider) -> None:
    """They lie beside the words, of which there are no more than the output cap allows."""
    beside = chunk("w ", obfuscation="x" * 65_536).decode()
    ends = [chunk(None, "stop").decode(), "data: [DONE]\n\n"]
    provider.does = {"do": "frames", "frames": [beside] * 80 + ends}
    try:
        status, code, text = outcome_of(client, {})
    finally:
        provider.does = {}
    assert (status, code, text) == (200, None, "w " * 80)
    wait_until_let_go(provider)
