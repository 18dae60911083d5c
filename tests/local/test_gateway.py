"""What API Gateway does around a function: its limits, its own errors, its ways with answers."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.authorizer import Expired, Unauthorized
from local.events import Place
from local.gateway import Gateway
from local.pool import Busy, Pool
from local.sandbox import InvocationFailed
from local.template import Api, GatewayResponse, Route
from tests.local.harness import exchange, pool_of, program, run, serving, until

PLACE = Place("000000000000", "abc123", "live", "us-east-1", "dep1")
TRACE = {"X-Request-Id": "context.requestId", "Access-Control-Allow-Origin": "'*'"}
ENVELOPE = '{"message":$context.error.messageString,"reason":"$context.error.responseType"}'
RESPONSES = {
    "DEFAULT_4XX": GatewayResponse(None, TRACE, ENVELOPE),
    "DEFAULT_5XX": GatewayResponse(None, TRACE, ENVELOPE),
    "EXPIRED_TOKEN": GatewayResponse(401, {}, '{"code":"token_expired"}'),
    "MISSING_AUTHENTICATION_TOKEN": GatewayResponse(404, TRACE, '{"id":"$context.requestId"}'),
    "REQUEST_TOO_LARGE": GatewayResponse(413, TRACE, ENVELOPE),
    "INTEGRATION_FAILURE": GatewayResponse(503, {**TRACE, "Retry-After": "'1'"}, ENVELOPE),
}

Function = Callable[[dict[str, Any]], Awaitable[Any]]


class Scripted:
    """A pool whose function is a coroutine of the test."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self.events: list[dict[str, Any]] = []

    async def invoke(self, event: bytes) -> bytes:
        self.events.append(json.loads(event))
        answer = await self._function(self.events[-1])
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


class OneAuthorizer:
    async def claims(self, header: str | None, _scopes: tuple[str, ...]) -> dict[str, str]:
        if header == "Bearer expired":
            raise Expired
        if header != "Bearer right":
            raise Unauthorized
        return {"sub": "u1"}


async def plain(_event: dict[str, Any]) -> Any:
    return {"statusCode": 200, "body": "ok"}


def route(path: str = "/a", **changes: Any) -> Route:
    told: dict[str, Any] = {
        "method": "POST",
        "path": path,
        "function": "F",
        "streams": False,
        "timeout_s": 5.0,
        "authorizer": None,
        "scopes": (),
    }
    return Route(**{**told, **changes})


@asynccontextmanager
async def gateway(pool: Any, *routes: Route) -> AsyncIterator[httpx.AsyncClient]:
    api = Api("Api", "live", routes or (route(),), {"Cognito": "UserPool"}, RESPONSES)
    log: list[str] = []
    one: Any = OneAuthorizer()
    front = Gateway(api, PLACE, {"F": pool}, {"Cognito": one}, log.append)
    url = "http://127.0.0.1"
    async with serving(front) as port, httpx.AsyncClient(base_url=f"{url}:{port}") as client:
        yield client


def port_of(client: httpx.AsyncClient) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


def test_a_buffered_answer_has_the_gateways_headers() -> None:
    async def test() -> None:
        pool = Scripted(plain)
        async with gateway(pool) as client:
            reply = await client.post("/a", content=b"hello")
        assert (reply.status_code, reply.text) == (200, "ok")
        context = pool.events[0]["requestContext"]
        assert reply.headers["x-amzn-requestid"] == context["requestId"]
        assert reply.headers["content-type"] == "application/json"
        assert "date" in reply.headers
        assert pool.events[0]["body"] == "hello"

    run(test())


def test_an_unknown_route_gets_the_templates_404() -> None:
    async def test() -> None:
        async with gateway(Scripted(plain)) as client:
            for reply in (await client.post("/b"), await client.get("/a")):
                assert reply.status_code == 404
                assert reply.json()["id"] == reply.headers["x-request-id"]
                assert reply.headers["x-request-id"] == reply.headers["x-amzn-requestid"]
                assert reply.headers["access-control-allow-origin"] == "*"

    run(test())


def test_health_is_told_by_the_gateway_itself() -> None:
    async def test() -> None:
        async with gateway(Scripted(plain)) as client:
            reply = await client.get("/healthz")
        assert (reply.status_code, reply.json()) == (200, {"status": "ready"})

    run(test())


@pytest.mark.parametrize(
    ("header", "status"),
    [("Bearer right", 200), ("Bearer wrong", 401), ("Bearer expired", 401), (None, 401)],
)
def test_the_authorizer_stands_before_the_function(header: str | None, status: int) -> None:
    async def test() -> None:
        pool = Scripted(plain)
        async with gateway(pool, route(authorizer="Cognito")) as client:
            headers = {"Authorization": header} if header else {}
            reply = await client.post("/a", headers=headers)
        assert reply.status_code == status
        assert len(pool.events) == (status == 200)
        if header == "Bearer expired":
            assert reply.json() == {"code": "token_expired"}
        if status == 200:
            assert pool.events[0]["requestContext"]["authorizer"] == {"claims": {"sub": "u1"}}

    run(test())


@pytest.mark.parametrize("raw", list('"<>\\^`{|}'))
def test_a_raw_character_that_urls_do_not_have_is_refused_in_a_query(raw: str) -> None:
    async def test() -> None:
        async with gateway(Scripted(plain)) as client:
            head = f"POST /a?b={raw} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            told = await exchange(port_of(client), head.encode())
            assert told.startswith(b"HTTP/1.1 400 ")
            assert (await client.post("/a?b=%7C")).status_code == 200

    run(test())


def test_head_and_body_and_event_have_their_limits() -> None:
    async def test() -> None:
        pool = Scripted(plain)
        async with gateway(pool) as client:
            reply = await client.post("/a", headers={"X-Long": "x" * 10_300})
            assert reply.status_code == 431
            assert (await client.post("/a", headers={"X-Long": "x" * 9_000})).status_code == 200
            pool.events.clear()
            reply = await client.post("/a", content=b"x" * (10 * 1024 * 1024 + 1))
            assert (reply.status_code, reply.json()["message"]) == (413, "Request Too Long")
            # 3.5 MB of quotes are 7 MB in JSON, and the event's limit counts these.
            assert (await client.post("/a", content=b'"' * 3_500_000)).status_code == 413
            assert pool.events == []
            assert (await client.post("/a", content=b"x" * 3_500_000)).status_code == 200

    run(test())


async def busy(_event: dict[str, Any]) -> Any:
    raise Busy


async def failing(_event: dict[str, Any]) -> Any:
    raise InvocationFailed("it failed")


async def slow(_event: dict[str, Any]) -> Any:
    await asyncio.sleep(5)


async def malformed(_event: dict[str, Any]) -> Any:
    return {"status": 200}


@pytest.mark.parametrize(
    ("function", "status", "reason"),
    [
        (busy, 503, "INTEGRATION_FAILURE"),
        (failing, 502, "DEFAULT_5XX"),
        (malformed, 502, "DEFAULT_5XX"),
        (slow, 504, "DEFAULT_5XX"),
    ],
)
def test_a_function_without_an_answer_gets_a_gateway_error(
    function: Function, status: int, reason: str
) -> None:
    async def test() -> None:
        async with gateway(Scripted(function), route(timeout_s=0.2)) as client:
            reply = await client.post("/a")
        assert (reply.status_code, reply.json()["reason"]) == (status, reason)
        if function is busy:
            assert reply.headers["retry-after"] == "1"

    run(test())


def test_a_connection_is_kept_across_errors() -> None:
    async def test() -> None:
        async with gateway(Scripted(plain)) as client:
            head = b"POST /a?| HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxx"
            last = b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            told = await exchange(port_of(client), head + last)
        assert told.count(b"HTTP/1.1 ") == 2
        assert told.endswith(b"ok")

    run(test())


STREAMING = """
import os, time
def handler(event, context):
    query = event["queryStringParameters"] or {}
    def rest():
        try:
            for number in range(int(query.get("chunks", 3))):
                time.sleep(float(query.get("gap_s", 0)))
                if number == int(query.get("die_at", -1)): os._exit(1)
                if number == int(query.get("raise_at", -1)): raise ValueError("midway")
                yield b"data: %d\\n\\n" % number
        finally:
            open("closed", "w").write("yes")
    return 200, {"Content-Type": "text/event-stream", "Set-Cookie": ["a=1", "b=2"]}, b"", rest()
"""


@asynccontextmanager
async def streaming(tmp_path: Path, source: str = STREAMING) -> AsyncIterator[httpx.AsyncClient]:
    what = program(tmp_path, source, streams=True)
    async with pool_of(what) as pool, gateway(pool, route(streams=True)) as client:
        await pool.warm()
        yield client


def test_chunks_reach_the_client_when_they_are_made(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            streaming(tmp_path) as client,
            client.stream("POST", "/a?chunks=5&gap_s=0.1") as reply,
        ):
            assert reply.status_code == 200
            assert reply.headers["content-type"] == "text/event-stream"
            assert reply.headers.get_list("set-cookie") == ["a=1", "b=2"]
            now = asyncio.get_running_loop().time
            times = [now() async for _ in reply.aiter_raw()]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert len(times) == 5
        assert all(0.06 < gap < 0.2 for gap in gaps), gaps

    run(test())


@pytest.mark.parametrize("how", ["die_at=1", "raise_at=1"])
def test_a_stream_that_breaks_off_is_truncated_for_the_client(tmp_path: Path, how: str) -> None:
    async def test() -> None:
        async with streaming(tmp_path) as client:
            sent = f"POST /a?{how} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
            told = await exchange(port_of(client), sent.encode())
            # One chunk of nine bytes, and then the end of the connection instead of the last chunk.
            assert told.endswith(b"\r\n\r\n9\r\ndata: 0\n\n\r\n")
            assert (await client.post("/a")).text.endswith("data: 2\n\n")

    run(test())


def test_a_client_that_leaves_closes_the_functions_generator(tmp_path: Path) -> None:
    async def test() -> None:
        async with streaming(tmp_path) as client:
            async with client.stream("POST", "/a?chunks=100000&gap_s=0.05") as reply:
                async for _ in reply.aiter_raw():
                    break
            await until((tmp_path / "closed").exists)

    run(test())


def test_an_error_before_the_first_byte_is_a_gateway_error(tmp_path: Path) -> None:
    async def test() -> None:
        async with streaming(tmp_path, "def handler(event, context): raise ValueError") as client:
            reply = await client.post("/a")
        assert (reply.status_code, reply.json()["reason"]) == (502, "DEFAULT_5XX")

    run(test())


@pytest.mark.parametrize("streams", [True, False])
def test_route_and_answer_must_agree_on_streaming(tmp_path: Path, streams: bool) -> None:
    buffered = "def handler(event, context): return {'statusCode': 200}"
    what = program(tmp_path, buffered if streams else STREAMING, streams=not streams)

    async def test() -> None:
        async with pool_of(what) as pool, gateway(pool, route(streams=streams)) as client:
            assert (await client.post("/a")).status_code == 502

    run(test())


def test_the_gateway_answers_many_at_once(tmp_path: Path) -> None:
    source = "import time\ndef handler(event, context):\n    time.sleep(0.2)\n    return {}"

    async def test() -> None:
        pool: Pool
        async with (
            pool_of(program(tmp_path, source), most=2, wait_s=0.5) as pool,
            gateway(pool) as client,
        ):
            await asyncio.gather(*(client.post("/a") for _ in range(2)))
            replies = await asyncio.gather(*(client.post("/a") for _ in range(12)))
        statuses = [reply.status_code for reply in replies]
        assert 4 <= statuses.count(200) <= 8  # two at a time, within what they waited
        assert statuses.count(503) == 12 - statuses.count(200)

    run(test())
