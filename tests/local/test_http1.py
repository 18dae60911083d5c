"""What the servers make of HTTP as it really comes."""

import asyncio

import pytest

from local.http1 import BodyTooLarge, Exchange, PeerGone
from tests.local.harness import exchange, run, serving, until


async def echo(exchange: Exchange) -> None:
    body = await exchange.read(1000)
    await exchange.respond(200, [("Content-Type", "text/plain")], exchange.target.encode() + body)


async def refuse_unread(exchange: Exchange) -> None:
    await exchange.respond(413, [], b"no")


def test_pipelined_requests_are_answered_in_order_on_one_connection() -> None:
    async def test() -> None:
        async with serving(echo) as port:
            told = await exchange(
                port,
                b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
                b"GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            )
        assert told.count(b"HTTP/1.1 200 OK") == 3
        assert told.index(b"/1abc") < told.index(b"/2") < told.index(b"/3")

    run(test())


def test_a_chunked_request_is_read_with_its_trailers() -> None:
    seen = {}

    async def handler(exchange: Exchange) -> None:
        seen["body"] = await exchange.read(1000)
        seen["trailer"] = exchange.trailers["x-end"].encode()
        await exchange.respond(204, [], b"")

    async def test() -> None:
        async with serving(handler) as port:
            told = await exchange(
                port,
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
                b"Connection: close\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX-End: yes\r\n\r\n",
            )
        assert told.startswith(b"HTTP/1.1 204 ")
        assert b"content-length" not in told.lower()
        assert seen == {"body": b"abc", "trailer": b"yes"}

    run(test())


def test_100_continue_is_sent_only_when_the_body_is_wanted() -> None:
    async def test() -> None:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        async with serving(echo) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
            writer.write(b"ok")
            await reader.readline()
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()
        async with serving(refuse_unread) as port:
            told = await exchange(port, head)
            assert told.startswith(b"HTTP/1.1 413 ")

    run(test())


def test_an_answer_before_the_whole_body_still_arrives() -> None:
    async def test() -> None:
        body = b"x" * 3_000_000
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        async with serving(refuse_unread) as port:
            assert (await exchange(port, head % len(body) + body)).endswith(b"no")

    run(test())


def test_head_gets_the_headers_of_the_body_and_no_body() -> None:
    async def test() -> None:
        async with serving(echo) as port:
            told = await exchange(port, b"HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        head, _, body = told.partition(b"\r\n\r\n")
        assert b"content-length: 2" in head.lower()
        assert body == b""

    run(test())


def test_http_1_0_gets_a_stream_that_ends_with_the_connection() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.read(0)
        await exchange.start(200, [])
        await exchange.write(b"one")
        await exchange.write(b"two")
        await exchange.end()

    async def test() -> None:
        async with serving(handler) as port:
            told = await exchange(port, b"GET / HTTP/1.0\r\n\r\n")
        assert told.endswith(b"\r\n\r\nonetwo")

    run(test())


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nNo colon\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"],
    ids=["request-line", "header", "no-host"],
)
def test_what_is_not_http_gets_400(sent: bytes) -> None:
    async def test() -> None:
        async with serving(echo) as port:
            assert (await exchange(port, sent)).startswith(b"HTTP/1.1 400 ")

    run(test())


def test_a_head_without_end_gets_431() -> None:
    async def test() -> None:
        async with serving(echo) as port:
            told = await exchange(port, b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)
            assert told.startswith(b"HTTP/1.1 431 ")

    run(test())


def test_a_client_that_leaves_is_noticed_before_anything_is_written() -> None:
    left = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.read(0)
        exchange.on_gone(left.set)
        await exchange.gone.wait()
        await asyncio.sleep(0.05)
        with pytest.raises(PeerGone):
            await exchange.respond(200, [], b"x" * 10_000_000)

    async def test() -> None:
        async with serving(handler) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await writer.drain()
            writer.close()
            await until(left.is_set)

    run(test())


def test_a_body_over_its_readers_limit_is_told_apart() -> None:
    async def handler(exchange: Exchange) -> None:
        with pytest.raises(BodyTooLarge):
            await exchange.read(2)
        await exchange.respond(200, [], b"noticed")

    async def test() -> None:
        async with serving(handler) as port:
            sent = (
                b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
            )
            assert (await exchange(port, sent)).endswith(b"noticed")

    run(test())
