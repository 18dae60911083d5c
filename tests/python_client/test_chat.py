"""Answers and streams, whole or with the error that says why not."""

import gc
import json
from typing import Any

import anyio
import httpx2
import openai
import pytest

from tests.python_client.fake import (
    DONE,
    HELLO,
    USAGE,
    Gateway,
    answer,
    chunk,
    failure,
    frame,
    stream,
)
from weir_client import (
    BadRequest,
    BudgetExceeded,
    Cancelled,
    Conflict,
    ConnectionFailed,
    NotFound,
    PermissionDeniedError,
    RateLimited,
    RequestTimeout,
    StreamCut,
    Unavailable,
    WeirError,
)


def text(chunks: Any) -> str:
    """Read it as the published quickstarts do: without a guard."""
    return "".join(part.choices[0].delta.content or "" for part in chunks)


def ask(gateway: Gateway, **more: Any) -> Any:
    return gateway.weir(max_retries=more.pop("max_retries", 2)).chat.completions.create(
        user_id="u", messages=HELLO, **more
    )


def cancelled(gateway: Gateway) -> list[str]:
    return [path for path in gateway.paths() if path.endswith("/cancel")]


def test_a_request_is_openais_with_the_default_model_and_our_headers() -> None:
    gateway = Gateway(answer())
    ask(gateway, thread_id="t 1", tag="x", request_id="mine", temperature=0.5, tier=2)
    assert gateway.bodies("/auth/mint")[0]["tier"] == 2
    (body,) = gateway.bodies("/chat/completions")
    assert body == {"messages": HELLO, "model": "default", "stream": False, "temperature": 0.5}
    headers = gateway.requests[-1].headers
    assert headers["x-thread-id"] == "t 1"
    assert headers["fc-tag"] == "x"
    assert headers["x-client-request-id"] == "mine"
    assert headers["user-agent"].startswith("weir-client/")


def test_a_field_that_openai_does_not_know_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="extra_body"):
        ask(Gateway(), no_such_field=1)


def test_a_stream_is_whole_and_is_not_cancelled() -> None:
    gateway = Gateway(stream(chunk("a"), chunk("b", "stop"), DONE))
    assert text(ask(gateway, stream=True)) == "ab"
    assert not cancelled(gateway)


def test_usage_comes_only_to_those_who_asked_for_it() -> None:
    parts = (chunk("a", "stop"), USAGE, DONE)
    assert text(ask(Gateway(stream(*parts)), stream=True)) == "a"
    *_, last = ask(Gateway(stream(*parts)), stream=True, stream_options={"include_usage": True})
    assert last.usage.total_tokens == 2


@pytest.mark.parametrize(
    "parts",
    [
        (chunk("a"), DONE),
        (chunk("a"),),
        (chunk("a"), b'data: {"id": "c1", "cho'),
        (chunk("a"), httpx2.ReadError("broke")),
        (chunk("a", "stop", 0), chunk("a", None, 1), DONE),
    ],
    ids=["no reason", "no end", "half a frame", "broken", "one of two choices"],
)
def test_an_answer_without_a_finish_reason_is_cut(parts: Any) -> None:
    gateway = Gateway(stream(*parts))
    with pytest.raises(StreamCut) as caught:
        list(ask(gateway, stream=True, n=2 if len(parts) == 3 else 1))
    assert caught.value.request_id == "req-1"


def test_an_answer_in_one_piece_without_a_finish_reason_is_cut() -> None:
    with pytest.raises(StreamCut):
        ask(Gateway(answer(finish_reason=None)))


def test_a_stream_that_falls_silent_is_cancelled_and_is_a_timeout() -> None:
    gateway = Gateway(stream(chunk("a"), httpx2.ReadTimeout("silent")))
    with pytest.raises(RequestTimeout):
        list(ask(gateway, stream=True))
    assert len(cancelled(gateway)) == 1


@pytest.mark.parametrize(
    ("code", "type", "kind"),
    [
        ("upstream_error", "api_error", Unavailable),
        ("cancelled", "api_error", Cancelled),
        ("quota_exceeded", "billing_error", BudgetExceeded),
        ("content_filter", "invalid_request_error", BadRequest),
    ],
)
def test_a_failure_within_a_stream_is_raised_with_its_code(
    code: str, type: str, kind: type[WeirError]
) -> None:
    error = {"error": {"message": "No.", "type": type, "param": None, "code": code}}
    gateway = Gateway(stream(chunk("a"), b"data: " + json.dumps(error).encode() + b"\n\n"))
    with pytest.raises(kind) as caught:
        list(ask(gateway, stream=True))
    assert (caught.value.code, caught.value.request_id) == (code, "req-1")
    assert not cancelled(gateway)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "validation_error", BadRequest),
        (402, "quota_exceeded", BudgetExceeded),
        (403, "forbidden", PermissionDeniedError),
        (404, "not_found", NotFound),
        (409, "conflict", Conflict),
        (409, "cancelled", Cancelled),
        (413, "request_too_large", BadRequest),
        (422, "idempotency_key_reused", BadRequest),
        (429, "rate_limited", RateLimited),
        (500, "server_error", Unavailable),
        (502, "upstream_error", Unavailable),
        (504, "upstream_timeout", Unavailable),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_a_status_becomes_the_error_that_says_what_to_do(
    status: int, code: str, kind: type[WeirError], streams: bool
) -> None:
    gateway = Gateway(failure(status, code, param="p", details={"resets_at": 7}))
    with pytest.raises(WeirError) as caught:
        ask(gateway, stream=streams)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.param, error.request_id) == (status, code, "p", "req-9")
    assert isinstance(error.__cause__, openai.APIStatusError)
    if isinstance(error, BudgetExceeded):
        assert error.resets_at == 7


def test_an_answer_that_is_not_the_gateways_is_an_error_all_the_same() -> None:
    with pytest.raises(Unavailable) as caught:
        ask(Gateway(httpx2.Response(502, text="<html>")), max_retries=0)
    assert caught.value.status == 502


def test_a_short_wait_is_waited_and_the_request_keeps_its_id() -> None:
    busy = failure(503, "ledger_busy", retryable=True, headers={"Retry-After": "0"})
    gateway = Gateway(busy, answer())
    ask(gateway)
    ids = [request.headers["x-client-request-id"] for request in gateway.requests[-2:]]
    assert ids[0] == ids[1]


def test_a_long_wait_is_the_applications_decision() -> None:
    gateway = Gateway(failure(429, "rate_limited", retryable=True, headers={"Retry-After": "42"}))
    with pytest.raises(RateLimited) as caught:
        ask(gateway)
    assert caught.value.retry_after == 42


def test_what_no_waiting_helps_is_not_repeated() -> None:
    with pytest.raises(RateLimited):
        ask(Gateway(failure(429, "rate_limited", retryable=False)))


def test_a_request_that_timed_out_is_cancelled_and_not_repeated() -> None:
    def silent(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("silent", request=request)

    gateway = Gateway(silent)
    with pytest.raises(RequestTimeout):
        ask(gateway, request_id="mine")
    assert cancelled(gateway) == ["/chat/completions/mine/cancel"]


def test_a_gateway_that_cannot_be_reached_is_tried_again() -> None:
    def refused(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    gateway = Gateway(refused, answer())
    assert ask(gateway).choices[0].message.content == "hello"
    with pytest.raises(ConnectionFailed, match="refused"):
        ask(Gateway(refused), max_retries=0)


def test_leaving_the_loop_cancels_the_answer() -> None:
    gateway = Gateway(stream(chunk("a"), chunk("b"), chunk("c", "stop"), DONE))
    for _ in ask(gateway, stream=True, request_id="mine"):
        break
    gc.collect()
    assert cancelled(gateway) == ["/chat/completions/mine/cancel"]


def test_a_context_that_ends_cancels_the_answer_once() -> None:
    gateway = Gateway(stream(chunk("a"), chunk("b", "stop"), DONE))
    with ask(gateway, stream=True) as running:
        assert next(running).choices[0].delta.content == "a"
    running.close()
    assert len(cancelled(gateway)) == 1
    assert list(running) == []


def test_leaving_the_loop_behind_the_last_word_cancels_nothing() -> None:
    gateway = Gateway(stream(chunk("a", "stop"), DONE))
    for _ in ask(gateway, stream=True):
        break
    gc.collect()
    assert not cancelled(gateway)


def test_an_async_generator_that_its_reader_leaves_cancels_the_answer() -> None:
    """What a web framework does with the quickstart's generator when the browser has gone."""
    gateway = Gateway(stream(chunk("a"), chunk("b"), chunk("c", "stop"), DONE))

    async def run() -> None:
        weir = gateway.async_weir()

        async def words() -> Any:
            chunks = await weir.chat.completions.create(user_id="u", messages=HELLO, stream=True)
            async for part in chunks:
                yield part.choices[0].delta.content or ""

        reading = words()
        assert await anext(reading) == "a"
        await reading.aclose()
        del reading
        with anyio.fail_after(10):
            while not cancelled(gateway):
                gc.collect()
                await anyio.lowlevel.checkpoint()
        await weir._http.client.aclose()

    anyio.run(run)


@pytest.mark.parametrize("streams", [False, True])
def test_a_task_that_is_cancelled_cancels_its_answer(streams: bool) -> None:
    """A web framework cancels the task of a request whose browser has gone."""

    class Silent(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield chunk("a")
            began.set()
            await anyio.sleep_forever()

    gateway = Gateway()
    began: anyio.Event

    async def run() -> None:
        nonlocal began
        began = anyio.Event()

        async def slow(request: httpx2.Request) -> httpx2.Response:
            if not request.url.path.endswith("/chat/completions"):
                await anyio.lowlevel.checkpoint()  # where a cancelled task would end
                return gateway(request)
            if streams:
                headers = {"Content-Type": "text/event-stream"}
                return httpx2.Response(200, headers=headers, stream=Silent())
            began.set()
            await anyio.sleep_forever()
            raise AssertionError("it sleeps forever")

        weir = gateway.async_weir()
        weir._http.client._transport = httpx2.MockTransport(slow)

        async def read() -> None:
            told: Any = await weir.chat.completions.create(
                user_id="u", messages=HELLO, stream=streams, request_id="mine"
            )
            async for _ in told:
                pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await began.wait()
            tasks.cancel_scope.cancel()
        assert cancelled(gateway) == ["/chat/completions/mine/cancel"]
        await weir._http.client.aclose()

    anyio.run(run)


def test_a_customer_is_served_with_the_api_key_itself() -> None:
    gateway = Gateway(answer(), answer())
    weir = gateway.weir(key="sk_live_" + "a" * 43)
    weir.chat.completions.create(customer="ext:user_42", messages=HELLO, model="fc:mock/echo")
    sent = gateway.requests[-1].headers
    assert sent["authorization"].startswith("Bearer sk_live_")
    assert sent["fc-customer"] == "ext:user_42"
    weir.chat.completions.create(messages=HELLO, model="fc:mock/echo")
    assert "fc-customer" not in gateway.requests[-1].headers
    assert gateway.minted == 0


@pytest.mark.parametrize("thread_id", ["\u00fc", "a\nX-Role: admin"])
def test_a_name_that_no_header_can_carry_is_refused(thread_id: str) -> None:
    gateway = Gateway()
    with pytest.raises(BadRequest) as caught:
        ask(gateway, thread_id=thread_id)
    assert caught.value.param == "X-Thread-Id"
    assert not gateway.requests


def test_an_empty_frame_of_a_provider_does_no_harm() -> None:
    gateway = Gateway(stream(frame({"choices": []}), chunk("a", "stop"), DONE))
    assert text(ask(gateway, stream=True)) == "a"
