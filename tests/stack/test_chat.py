"""POST /v1/chat/completions over HTTP: the stream, its gaps, and everything that can go wrong."""

import itertools
import json
import time
from typing import Any

import httpx
import pytest

from tests.provider import USAGE, FakeProvider, chunk
from tests.stack.conftest import ORIGIN, Stack, ask, envelope

ROUTE = "/v1/chat/completions"


RECEIPT = {**USAGE, "cost_usd": 0.000017}  # 7 tokens at $1 for a million, 5 at $2


def post(stack: Stack, token: str, body: Any, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return stack.http.post(ROUTE, headers={"Authorization": f"Bearer {token}", **named}, json=body)


def frames(text: str) -> list[dict[str, Any]]:
    return [json.loads(f[6:]) for f in text.split("\n\n") if f.startswith("data: {")]


def test_answer_streams_chunk_by_chunk_as_the_provider_sends_it(stack: Stack, token: str) -> None:
    arrivals: list[float] = []
    body = ask({"do": "stream", "chunks": 8, "gap_s": 0.1}, stream=True)
    headers = {"Authorization": f"Bearer {token}"}
    with stack.http.stream("POST", ROUTE, headers=headers, json=body) as reply:
        assert reply.status_code == 200
        for data in reply.iter_raw():
            assert data.endswith(b"\n\n"), "half a frame"
            arrivals.append(time.monotonic())
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    assert len(arrivals) >= 8
    # A busy machine may read two chunks late and together; one that gathers them has no gaps.
    assert sum(gap > 0.05 for gap in gaps[:7]) >= 5, gaps


def test_stream_has_the_contracts_headers_and_bytes(stack: Stack, token: str) -> None:
    reply = post(stack, token, ask(stream=True), X_Thread_Id="th_1", X_Session_Id="s_9")
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store, no-transform"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["x-request-id"] == reply.headers["x-trace-id"]
    assert (reply.headers["x-thread-id"], reply.headers["x-session-id"]) == ("th_1", "s_9")
    assert "\r" not in reply.text
    assert "\nid:" not in reply.text
    assert reply.text.endswith("data: [DONE]\n\n")
    ids = {frame["id"] for frame in frames(reply.text)}
    assert ids == {reply.headers["x-completion-id"]}
    assert all(frame["choices"] for frame in frames(reply.text)), "usage nobody asked for"


def test_caller_may_choose_the_id_and_ask_for_usage(stack: Stack, token: str) -> None:
    body = ask(stream=True, stream_options={"include_usage": True})
    reply = post(stack, token, body, X_Client_Request_Id="my-request-1")
    assert reply.headers["x-completion-id"] == "my-request-1"
    last = frames(reply.text)[-1]
    assert (last["id"], last["choices"], last["usage"]) == ("my-request-1", [], RECEIPT)


def test_answer_that_does_not_stream_is_one_object(stack: Stack, token: str) -> None:
    reply = post(stack, token, ask())
    assert reply.headers["content-type"] == "application/json"
    told = reply.json()
    assert told["choices"][0]["message"]["content"] == "Hello!"
    assert (told["usage"], told["id"]) == (RECEIPT, reply.headers["x-completion-id"])


def test_provider_is_told_the_model_the_cap_and_our_key_and_nothing_of_the_caller(
    stack: Stack, token: str, provider: FakeProvider
) -> None:
    body = ask(stream=True, model="default", max_tokens=99_999, tools=[], something_new={"a": 1})
    more = {"X_End_User_Id": "u2", "X_Tier": "max", "Cookie": "a=b", "Origin": ORIGIN}
    reply = post(stack, token, body, **more)
    told, headers = provider.requests[-1], provider.headers[-1]
    assert told["model"] == "fake-large"
    assert told["max_completion_tokens"] == 1024
    assert told["stream_options"] == {"include_usage": True}
    assert "something_new" not in told
    assert reply.headers["x-weir-dropped"] == "something_new"
    assert headers["authorization"] == "Bearer provider-secret-key"
    assert token not in json.dumps([told, headers])
    assert not {"cookie", "origin", "x-end-user-id", "x-tier"} & set(headers)


CANARY = "provider-secret-key"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        {"do": "fail", "status": 400, "message": f"bad header Bearer {CANARY}"},
        {"do": "fail", "status": 400, "code": f"Bearer {CANARY}"},
        {"do": "fail", "status": 401, "message": f"Incorrect API key: {CANARY}"},
        {"do": "frames", "frames": [f'data: {{"error":{{"message":"{CANARY}"}}}}\n\n']},
        {"do": "stream", "text": CANARY},
        {"do": "whole", "text": CANARY},
    ],
    ids=str,
)
def test_providers_key_is_never_told_even_if_the_provider_quotes_it(
    stack: Stack, token: str, how: dict[str, Any], stream: bool
) -> None:
    reply = post(stack, token, ask(how, stream=stream))
    assert CANARY not in reply.text
    assert CANARY not in json.dumps(dict(reply.headers))
    assert CANARY not in stack.log("ChatFunction")


def test_multi_byte_text_survives(stack: Stack, token: str) -> None:
    text = "Grüße 🌊 世界"
    reply = post(stack, token, ask({"do": "stream", "text": text, "chunks": 20}, stream=True))
    deltas = [f["choices"][0]["delta"].get("content", "") for f in frames(reply.text)]
    assert "".join(deltas) == text * 20


# ---------------------------------------------------------------- the provider's failures

CREDENTIALS = "upstream_credentials_refused"
FAILURES = [
    ({"do": "fail", "status": 401, "message": "provider-secret"}, 502, CREDENTIALS),
    ({"do": "fail", "status": 403}, 502, CREDENTIALS),
    ({"do": "fail", "status": 404}, 502, "upstream_error"),
    ({"do": "fail", "status": 429, "retry_after": "7"}, 503, "upstream_rate_limited"),
    ({"do": "fail", "status": 429, "code": "insufficient_quota"}, 503, "upstream_quota_exceeded"),
    ({"do": "fail", "status": 500}, 502, "upstream_error"),
    ({"do": "fail", "status": 503, "type": "text/html"}, 502, "upstream_error"),
    ({"do": "fail", "status": 400, "message": "temperature!"}, 400, "validation_error"),
    ({"do": "html"}, 502, "upstream_invalid_response"),
    ({"do": "reset"}, 502, "upstream_unavailable"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("how", "status", "code"), FAILURES, ids=str)
def test_failure_before_the_first_byte_is_plain_http_and_the_next_request_works(
    stack: Stack, token: str, how: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    reply = post(stack, token, ask(how, stream=stream), Origin=ORIGIN)
    error = envelope(reply, status, code)
    assert "provider-secret" not in reply.text
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert "retry-after" in reply.headers["access-control-expose-headers"]
    if how.get("retry_after"):
        assert reply.headers["retry-after"] == "7"
    if status == 400:
        assert error["message"] == "temperature!"
    assert post(stack, token, ask()).status_code == 200


@pytest.mark.parametrize(
    "how",
    [
        {"do": "cut", "how": "reset"},
        {"do": "cut", "how": "close"},
        {"do": "cut", "how": "end"},
        {"do": "frames", "frames": [chunk("a").decode()]},
        {"do": "frames", "frames": [chunk("a").decode(), "data: [DONE]\n\n"]},
        {"do": "frames", "frames": [chunk("a").decode(), "data: {broken\n\n"]},
        {"do": "frames", "frames": [chunk("a").decode(), 'data: {"error":{"message":"x"}}\n\n']},
    ],
    ids=str,
)
def test_failure_after_the_first_byte_is_one_error_frame_and_no_done(
    stack: Stack, token: str, how: dict[str, Any]
) -> None:
    reply = post(stack, token, ask(how, stream=True))
    assert reply.status_code == 200
    told = frames(reply.text)
    assert set(told[-1]) == {"error"}, "with choices beside it some clients do not see it"
    assert told[-1]["error"]["type"] == "upstream_error"
    assert "[DONE]" not in reply.text
    assert post(stack, token, ask()).status_code == 200


def test_empty_answer_is_never_an_empty_200(stack: Stack, token: str) -> None:
    envelope(post(stack, token, ask({"do": "empty"}, stream=True)), 502, "upstream_error")


def test_crlf_and_comments_become_plain_frames(stack: Stack, token: str) -> None:
    sent = [": PROCESSING\r\n\r\n", chunk("a", "stop").decode().replace("\n", "\r\n")]
    how = {"do": "frames", "frames": [*sent, "data: [DONE]\r\n\r\n"]}
    reply = post(stack, token, ask(how, stream=True))
    assert "\r" not in reply.text
    assert "PROCESSING" not in reply.text
    assert reply.text.count("\n\n") == 2


def test_silent_provider_is_committed_to_after_five_seconds(stack: Stack, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    body = ask({"do": "silent", "seconds": 6}, stream=True)
    began = time.monotonic()
    with stack.http.stream("POST", ROUTE, headers=headers, json=body) as reply:
        pieces = reply.iter_raw()
        assert next(pieces) == b": ping\n\n"
        assert 4 < time.monotonic() - began < 6
        assert reply.headers["x-completion-id"]
        assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


def test_provider_is_hung_up_on_when_the_client_leaves(
    stack: Stack, token: str, provider: FakeProvider
) -> None:
    provider.left.clear()
    headers = {"Authorization": f"Bearer {token}"}
    body = ask({"do": "stream", "chunks": 500, "gap_s": 0.02}, stream=True)
    with stack.http.stream("POST", ROUTE, headers=headers, json=body) as reply:
        next(reply.iter_raw())
    assert provider.left.wait(3)
    assert post(stack, token, ask()).status_code == 200


@pytest.mark.long
@pytest.mark.parametrize("begin", [True, False])
def test_silent_provider_is_hung_up_on_at_the_next_heartbeat(
    stack: Stack, token: str, provider: FakeProvider, begin: bool
) -> None:
    provider.left.clear()
    headers = {"Authorization": f"Bearer {token}"}
    body = ask({"do": "silent", "begin": begin}, stream=True)
    with stack.http.stream("POST", ROUTE, headers=headers, json=body) as reply:
        next(reply.iter_raw())
    # What is not written is not noticed: at the latest the next heartbeat finds nobody.
    assert provider.left.wait(17)
    assert post(stack, token, ask()).status_code == 200


# ---------------------------------------------------------------- the caller's mistakes


def test_missing_and_foreign_credentials_are_refused(stack: Stack, token: str) -> None:
    reply = stack.http.post(ROUTE, json=ask())
    assert envelope(reply, 401, "invalid_token")["details"]["reason"] == "missing"
    for credential, reason in (
        ("garbage", "malformed"),
        (token[:-4] + "AAAA", "bad_signature"),
        (stack.env["BEHEST_KEY"], "api_key_on_chat"),
        (stack.sign_in()["IdToken"], "wrong_algorithm_or_type"),
    ):
        error = envelope(post(stack, credential, ask()), 401, "invalid_token")
        assert error["details"]["reason"] == reason, credential[:20]


def test_wrong_origin_is_refused_and_right_origin_may_read(stack: Stack, token: str) -> None:
    reply = post(stack, token, ask(), Origin="https://evil.example")
    envelope(reply, 403, "origin_not_allowed")
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["vary"] == "Origin"
    reply = post(stack, token, ask(stream=True), Origin=ORIGIN)
    assert reply.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'{"messages":[]}', "messages"),
        (json.dumps(ask(model="gpt-9")).encode(), "model"),
        (json.dumps(ask(stream="yes")).encode(), "stream"),
    ],
)
def test_bad_body_is_a_400_and_the_provider_hears_nothing(
    stack: Stack, token: str, provider: FakeProvider, body: bytes, param: str | None
) -> None:
    before = len(provider.requests)
    headers = {"Authorization": f"Bearer {token}", "Origin": ORIGIN}
    reply = stack.http.post(ROUTE, headers=headers, content=body)
    assert envelope(reply, 400, "validation_error")["param"] == param
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert len(provider.requests) == before


def test_body_over_four_megabytes_is_a_413_and_below_it_passes(stack: Stack, token: str) -> None:
    large = ask()
    large["messages"][0]["content"] = "x" * 3_900_000
    assert post(stack, token, large).status_code == 200
    large["messages"][0]["content"] = "x" * 4_100_000
    envelope(post(stack, token, large), 413, "request_too_large")
    large["messages"][0]["content"] = "x" * 11_000_000
    envelope(post(stack, token, large), 413, "request_too_large")
    assert post(stack, token, ask()).status_code == 200


def test_route_without_the_method_is_a_404_that_any_page_can_read(stack: Stack) -> None:
    for method, path in (("GET", ROUTE), ("POST", "/v1/models"), ("DELETE", "/v1/models/one")):
        reply = stack.http.request(method, path, headers={"Origin": "https://evil.example"})
        error = envelope(reply, 404, "not_found")
        assert error["details"] == {"reason": "no_such_method"}
        assert reply.headers["access-control-allow-origin"] == "*"


# ---------------------------------------------------------------- preflight

STAINLESS = (
    "authorization,content-type,x-session-id,x-stainless-lang,x-stainless-timeout,x-thread-id"
)


@pytest.mark.parametrize("route", [ROUTE, "/v1/auth/mint", "/api/behest/token", "/v1/token"])
def test_preflight_is_answered_before_any_credential(stack: Stack, route: str) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": STAINLESS,
    }
    reply = stack.http.options(route, headers={"Origin": ORIGIN, **asked})
    assert (reply.status_code, reply.text) == (204, "")
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert reply.headers["access-control-allow-headers"] == STAINLESS
    assert reply.headers["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in reply.headers
    for origin in ("https://evil.example", ORIGIN + "/", "https://localhost:5173", "null"):
        reply = stack.http.options(route, headers={"Origin": origin, **asked})
        envelope(reply, 403, "origin_not_allowed")
        assert "access-control-allow-origin" not in reply.headers
