"""The fake provider does what it is told, in these bytes: other tests build upon it."""

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.provider import FakeProvider, chunk
from tests.provider.answers import cut, delayed, gzipped, naked, paused, point, streamed, whole
from tests.provider.dialects import DIALECTS, ENDING, ROLE
from weir.upstreams.mock_answers import DONE


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    made = FakeProvider()
    yield made
    made.close()


def ask(
    provider: FakeProvider, *, stream: bool = True, **how: Any
) -> tuple[http.client.HTTPResponse, bytes]:
    """Return the answer and its body, or what came of it before the connection broke."""
    body = {"stream": stream, "messages": [{"role": "user", "content": json.dumps(how)}]}
    connection = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=10)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        reply = connection.getresponse()
        got = b""
        try:
            while piece := reply.read1(65536):
                got += piece
        except (ConnectionResetError, http.client.HTTPException):
            got += b" BROKEN"
        return reply, got
    finally:
        connection.close()


WORDS = ROLE + b"".join(chunk(f"w{number} ") for number in range(5))
FIRST = ROLE + chunk("w0 ")


def test_request_that_says_nothing_is_answered_well_and_kept(provider: FakeProvider) -> None:
    reply, body = ask(provider)
    assert reply.headers["Content-Type"] == "text/event-stream"
    assert body == WORDS + b"".join(ENDING)
    _, body = ask(provider, stream=False)
    assert json.loads(body)["choices"][0]["message"]["content"] == "Hello!"
    assert [asked["stream"] for asked in provider.requests] == [True, False]
    assert provider.headers[0]["host"] == f"127.0.0.1:{provider.port}"
    assert provider.received[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"interleave": ": ping\n\n"}, FIRST + b": ping\n\n" + ENDING[0] + b": ping\n\n"),
        ({"interleave": "data:\n\n", "gzip": True}, FIRST + b"data:\n\n" + ENDING[0]),
        ({"cut": {"after": 1, "how": "close"}}, FIRST + ENDING[0][:25] + b" BROKEN"),
        ({"cut": {"after": 1, "how": "reset"}}, FIRST + ENDING[0][:25] + b" BROKEN"),
        ({"cut": {"after": 2, "how": "end"}}, FIRST + ENDING[0] + ENDING[1][:25]),
        ({"framing": "until_close", "type": "text/plain"}, FIRST + ENDING[0]),
    ],
)
def test_changes_go_with_each_other(
    provider: FakeProvider, how: dict[str, Any], said: bytes
) -> None:
    reply, body = ask(provider, do="stream", chunks=1, **how)
    assert reply.headers.get("Content-Encoding") == ("gzip" if "gzip" in how else None)
    assert reply.headers["Content-Type"] == how.get("type", "text/event-stream")
    assert (reply.headers["Transfer-Encoding"] is None) == ("framing" in how)
    body = gzip.decompress(body) if "gzip" in how else body
    assert body.startswith(said)
    assert body == said or not said.endswith(b" BROKEN")


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("how", [{}, {"gzip": True}, {"headers": {"X-Own": "1"}}], ids=str)
def test_every_dialect_takes_changes(
    provider: FakeProvider, name: str, how: dict[str, Any]
) -> None:
    needs: dict[str, dict[str, Any]] = {
        "fail": {"status": 529, "retry_after": 3},
        "cut": {"how": "end"},
        "silent": {"seconds": 0},
        "frames": {"frames": ["data: {}\n\n"]},
        "steps": {"steps": [{"text": "a"}, {"point": "here"}, {"finish": "stop"}, {"done": True}]},
        "body": {"body": "busy", "status": 503},
    }
    provider.points["here"] = lambda: None
    if name == "reset":
        with pytest.raises(ConnectionResetError):
            ask(provider, do=name, **how)
        return
    reply, body = ask(provider, do=name, **needs.get(name, {}), **how)
    assert reply.status == needs.get(name, {}).get("status", 200)
    assert b"BROKEN" not in body
    assert reply.headers.get("X-Own") == how.get("headers", {}).get("X-Own")
    if "gzip" in how:
        gzip.decompress(body)


def test_scripts_come_first_one_for_each_request_down_to_the_bytes(provider: FakeProvider) -> None:
    seen: list[str] = []
    provider.points["between"] = lambda: seen.append("between")
    provider.scripts.extend(
        [
            streamed(b"a", point("between"), DONE),
            cut(gzipped(whole(b"x" * 1000)), after=0),
            naked(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"),
            lambda peer: peer.sendall(b"HTTP/1.0 204 No\r\n\r\n"),
        ]
    )
    assert ask(provider)[1] == b"a" + DONE
    assert seen == ["between"]
    reply, body = ask(provider)
    assert (len(body), int(reply.headers["Content-Length"]) > 25) == (25, True)
    assert ask(provider)[1] == b"b"
    assert ask(provider)[0].status == 204
    assert ask(provider)[1].startswith(WORDS)


def test_delay_comes_before_the_head_and_pauses_after_each_piece(provider: FakeProvider) -> None:
    provider.scripts.append(paused(delayed(streamed(b"a", b"b"), 0.1), 0.1))
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=10)
    connection.request("POST", "/", b"{}")
    reply = connection.getresponse()
    assert time.monotonic() - began >= 0.1
    assert reply.read() == b"ab"
    assert time.monotonic() - began >= 0.3
    connection.close()


def test_provider_sees_that_its_peer_has_left(provider: FakeProvider) -> None:
    body = {"messages": [{"content": json.dumps({"do": "silent", "begin": True})}]}
    with socket.create_connection(("127.0.0.1", provider.port)) as peer:
        text = json.dumps(body).encode()
        peer.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        assert peer.recv(10) == b"HTTP/1.1 2"
        assert not provider.left.is_set()
    assert provider.left.wait(5)


def test_first_request_of_its_kind_is_answered_apart(provider: FakeProvider) -> None:
    how = {"do": "whole", "first": {"do": "fail", "status": 503, "retry_after": 2}}
    refused, _ = ask(provider, stream=False, **how)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "2")
    assert ask(provider, stream=False, **how)[0].status == 200
    assert ask(provider, stream=False, **how, other=True)[0].status == 503


def test_point_is_reached_when_a_peer_leaves_an_answer_without_end(provider: FakeProvider) -> None:
    left = threading.Event()
    provider.points["left"] = left.set
    how = {"do": "steps", "steps": [{"text": "begun"}, {"talk": "left"}]}
    text = json.dumps({"messages": [{"content": json.dumps(how)}]}).encode()
    with socket.create_connection(("127.0.0.1", provider.port)) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        got = b""
        while b"begun" not in got:
            got += peer.recv(1000)
        assert not left.is_set()
    assert left.wait(5)
