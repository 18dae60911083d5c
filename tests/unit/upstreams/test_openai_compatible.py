"""A provider over real sockets: what it can do wrong, and that we let go of it."""

import gzip
import itertools
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from tests import provider
from tests.provider.wire import SSE_HEAD, Script, http_chunk, read_request, reply
from tests.unit.connections.deaf import make_deaf
from weir.chat import relay, sse
from weir.chat.outcome import Outcome
from weir.errors import Refusal
from weir.projects.upstream_kinds import KINDS
from weir.upstreams import openai_compatible
from weir.upstreams.openai_compatible import Provider

TO = KINDS["openai"].destination("m", {}, "key")


class FakeProvider(provider.FakeProvider):
    """Also makes the clients that call it."""

    def __init__(self, *scripts: Script) -> None:
        super().__init__(*scripts)
        self._clients: list[Provider] = []

    def connect(self, ending: str = "") -> Provider:
        self._clients.append(Provider(self.url + ending))
        return self._clients[-1]

    def close(self) -> None:
        super().close()
        for client in self._clients:
            client.close()


@pytest.fixture
def start() -> Iterator[Callable[..., FakeProvider]]:
    started: list[FakeProvider] = []

    def begin(*scripts: Script) -> FakeProvider:
        started.append(FakeProvider(*scripts))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute passes on the clock, and for the kernel as much as it needs to probe."""
    later = time.time() + 60
    monkeypatch.setattr("time.time", lambda: later)
    time.sleep(1.1)


def read_all(provider: Provider, *, stream: bool = True) -> bytes:
    call = provider.open(TO, b"{}", stream=stream)
    try:
        pieces = []
        while piece := call.receive(5):
            pieces.append(piece)
        assert piece == b"", "the upstream fell silent"
        return b"".join(pieces)
    finally:
        call.close()


def refusal_of(provider: Provider, *, stream: bool = True) -> Refusal:
    with pytest.raises(Refusal) as refused:
        read_all(provider, stream=stream)
    return refused.value


def test_request_carries_bearer_body_and_no_compression(
    start: Callable[..., FakeProvider],
) -> None:
    fake = start(reply(b"200 OK", b"application/json; charset=utf-8", b'{"ok":1}'))
    assert read_all(fake.connect("/"), stream=False) == b'{"ok":1}'
    head = fake.received[0].split(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"post /v1/chat/completions http/1.1")
    assert b"authorization: bearer key" in head
    assert b"accept-encoding: identity" in head


def test_chunks_arrive_when_they_are_sent(start: Callable[..., FakeProvider]) -> None:
    def slowly(peer: socket.socket) -> None:
        peer.sendall(SSE_HEAD)
        for letter in (b"a", b"b", b"c"):
            peer.sendall(http_chunk(letter))
            time.sleep(0.1)
        peer.sendall(b"0\r\n\r\n")

    call = start(slowly).connect().open(TO, b"{}", stream=True)
    arrivals = []
    while call.receive(5):
        arrivals.append(time.monotonic())
    call.close()
    assert len(arrivals) == 3
    assert all(b - a > 0.05 for a, b in itertools.pairwise(arrivals))


def test_connection_is_used_again_for_the_next_request(start: Callable[..., FakeProvider]) -> None:
    answer = SSE_HEAD + http_chunk(b"a") + b"0\r\n\r\n"

    def twice(peer: socket.socket) -> None:
        peer.sendall(answer)
        read_request(peer)
        peer.sendall(answer)

    fake = start(twice)
    provider = fake.connect()
    assert (read_all(provider), read_all(provider)) == (b"a", b"a")
    assert fake.connections == 1


def test_connection_is_used_again_after_any_pause_if_its_far_end_is_there(
    start: Callable[..., FakeProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = SSE_HEAD + http_chunk(b"a") + b"0\r\n\r\n"

    def twice(peer: socket.socket) -> None:
        peer.sendall(answer)
        read_request(peer)
        peer.sendall(answer)

    fake = start(twice)
    provider = fake.connect()
    assert read_all(provider) == b"a"
    pause(monkeypatch)
    assert (read_all(provider), fake.connections) == (b"a", 1)


def test_request_never_goes_into_a_connection_that_is_gone_without_a_word(
    start: Callable[..., FakeProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = SSE_HEAD + http_chunk(b"a") + b"0\r\n\r\n"
    over = threading.Event()

    def once_and_go(peer: socket.socket) -> None:
        peer.sendall(answer)
        make_deaf(peer)
        over.wait(5)

    fake = start(once_and_go, lambda peer: peer.sendall(answer))
    provider = fake.connect()
    assert read_all(provider) == b"a"
    pause(monkeypatch)
    began = time.monotonic()
    assert (read_all(provider), fake.connections) == (b"a", 2)
    assert time.monotonic() - began < 1
    over.set()


def test_connection_that_the_provider_closed_is_not_used_again(
    start: Callable[..., FakeProvider],
) -> None:
    answer = SSE_HEAD + http_chunk(b"a") + b"0\r\n\r\n"
    fake = start(*[lambda peer: peer.sendall(answer)] * 3)
    provider = fake.connect()
    assert [read_all(provider) for _ in range(3)] == [b"a"] * 3


def test_connection_closed_just_as_it_is_used_again_is_replaced(
    start: Callable[..., FakeProvider],
) -> None:
    answer = SSE_HEAD + http_chunk(b"a") + b"0\r\n\r\n"

    def answer_one_and_drop_the_next(peer: socket.socket) -> None:
        peer.sendall(answer)
        peer.recv(65536)

    fake = start(answer_one_and_drop_the_next, lambda peer: peer.sendall(answer))
    provider = fake.connect()
    assert (read_all(provider), read_all(provider)) == (b"a", b"a")


def test_request_that_is_cut_later_on_a_kept_connection_is_not_asked_twice(
    start: Callable[..., FakeProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_compatible, "SENT_AGAIN_WITHIN_S", 0.05)
    answer = SSE_HEAD + http_chunk(b"a") + b"0\r\n\r\n"

    def answer_one_and_work_on_the_next(peer: socket.socket) -> None:
        peer.sendall(answer)
        read_request(peer)
        time.sleep(0.1)

    fake = start(answer_one_and_work_on_the_next, lambda peer: peer.sendall(answer))
    provider = fake.connect()
    assert read_all(provider) == b"a"
    assert refusal_of(provider).code == "upstream_unavailable"
    assert fake.connections == 1


def test_request_that_broke_on_its_own_connection_is_not_repeated(
    start: Callable[..., FakeProvider],
) -> None:
    fake = start(lambda peer: None, lambda peer: peer.sendall(SSE_HEAD))
    assert refusal_of(fake.connect()).code == "upstream_unavailable"
    assert len(fake.received) == 1


def hang_until_peer_leaves(left: threading.Event) -> Script:
    def hang(peer: socket.socket) -> None:
        peer.settimeout(5)
        try:
            if peer.recv(1) == b"":
                left.set()
        except ConnectionResetError:
            left.set()

    return hang


@pytest.mark.parametrize("after", [b"", SSE_HEAD, SSE_HEAD + http_chunk(b"a")])
def test_closing_hangs_up_at_once_whatever_the_provider_does(
    start: Callable[..., FakeProvider], after: bytes
) -> None:
    left = threading.Event()

    def begin_then_hang(peer: socket.socket) -> None:
        peer.sendall(after)
        hang_until_peer_leaves(left)(peer)

    fake = start(begin_then_hang, reply(b"200 OK", b"text/event-stream", b"next"))
    provider = fake.connect()
    call = provider.open(TO, b"{}", stream=True)
    call.receive(0.3)
    began = time.monotonic()
    call.close()
    assert time.monotonic() - began < 1
    assert left.wait(2)
    assert read_all(provider) == b"next"


def test_closing_hangs_up_on_a_connection_that_is_used_again(
    start: Callable[..., FakeProvider],
) -> None:
    left = threading.Event()

    def answer_one_then_hang(peer: socket.socket) -> None:
        peer.sendall(SSE_HEAD + http_chunk(b"a") + b"0\r\n\r\n")
        read_request(peer)
        hang_until_peer_leaves(left)(peer)

    provider = start(answer_one_then_hang).connect()
    assert read_all(provider) == b"a"
    call = provider.open(TO, b"{}", stream=True)
    assert call.receive(0.2) is None
    call.close()
    assert left.wait(2)


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (
            reply(b"200 OK", b"text/event-stream", b"x", b"Content-Encoding: br\r\n"),
            502,
            "upstream_invalid_response",
        ),
        (
            reply(b"200 OK", b"text/event-stream", b"not gzip", b"Content-Encoding: gzip\r\n"),
            502,
            "upstream_unavailable",
        ),
        (reply(b"401 No", b"application/json", b"{}"), 502, "upstream_credentials_refused"),
        (reply(b"429 No", b"text/html", b"x", b"Retry-After: 3\r\n"), 503, "upstream_rate_limited"),
        (reply(b"500 No", b"text/html", b"x" * 1_000_000), 502, "upstream_error"),
        (lambda peer: None, 502, "upstream_unavailable"),
        (lambda peer: peer.sendall(b"SSH-2.0\r\n"), 502, "upstream_unavailable"),
        (lambda peer: peer.sendall(SSE_HEAD + b"5\r\nab"), 502, "upstream_unavailable"),
    ],
)
def test_useless_provider_is_told_as_what_it_is_and_the_next_request_works(
    start: Callable[..., FakeProvider], script: Script, status: int, code: str
) -> None:
    fake = start(script, reply(b"200 OK", b"text/event-stream", b"fine"))
    provider = fake.connect()
    refusal = refusal_of(provider)
    assert (refusal.status, refusal.code) == (status, code)
    assert read_all(provider) == b"fine"


GZIP = b"Content-Encoding: gzip\r\n"


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_answer_that_is_compressed_unasked_is_read(
    start: Callable[..., FakeProvider], size: int
) -> None:
    text = b"data: " + b"ab" * 2_000_000 + b"\n\n"  # more than is inflated at once
    packed = gzip.compress(text)
    pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
    chunked = SSE_HEAD.replace(b"\r\n\r\n", b"\r\n" + GZIP + b"\r\n")
    streamed = b"".join([chunked, *map(http_chunk, pieces), b"0\r\n\r\n"])
    fake = start(
        lambda peer: peer.sendall(streamed),
        reply(b"200 OK", b"application/json", packed, GZIP),
        reply(
            b"200 OK", b"application/json", zlib.compress(b"{}"), b"Content-Encoding: deflate\r\n"
        ),
        reply(b"200 OK", b"text/event-stream", b"fine"),
    )
    provider = fake.connect()
    assert [read_all(provider) for _ in range(4)] == [text, text, b"{}", b"fine"]
    assert b"\r\nAccept-Encoding: identity\r\n" in fake.received[0]


def test_compressed_answer_that_is_cut_is_not_whole(start: Callable[..., FakeProvider]) -> None:
    cut = gzip.compress(b"data: abc\n\n" * 100)[:-20]
    provider = start(reply(b"200 OK", b"text/event-stream", cut, GZIP)).connect()
    with pytest.raises(Refusal) as refused:
        read_all(provider)
    assert refused.value.code == "upstream_unavailable"


def test_refusal_that_is_compressed_unasked_is_read(start: Callable[..., FakeProvider]) -> None:
    body = gzip.compress(b'{"error":{"message":"too hot","param":"temperature"}}')
    refusal = refusal_of(start(reply(b"400 No", b"application/json", body, GZIP)).connect())
    assert (refusal.status, refusal.message, refusal.param) == (400, "too hot", "temperature")


def test_informational_answers_are_skipped(start: Callable[..., FakeProvider]) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    last = b"HTTP/1.1 100 Continue\r\n\r\n" + SSE_HEAD + http_chunk(b"a") + b"0\r\n\r\n"
    fake = start(lambda peer: peer.sendall(hints + last), lambda peer: peer.sendall(hints * 50))
    provider = fake.connect()
    assert read_all(provider) == b"a"
    assert refusal_of(provider).code == "upstream_unavailable"


def test_nobody_listening_is_unavailable_and_later_somebody_is(
    start: Callable[..., FakeProvider],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    provider = Provider(f"http://127.0.0.1:{port}/v1")
    assert refusal_of(provider).code == "upstream_unavailable"


def test_silence_is_nothing_yet(start: Callable[..., FakeProvider]) -> None:
    call = start(hang_until_peer_leaves(threading.Event())).connect().open(TO, b"{}", stream=True)
    assert call.receive(0.05) is None
    call.close()
    call.close()


def test_six_minutes_of_silence_end_in_one_error_with_time_scaled_a_hundredfold(
    start: Callable[..., FakeProvider],
) -> None:
    left = threading.Event()

    def begin_then_hang(peer: socket.socket) -> None:
        peer.sendall(SSE_HEAD)
        peer.sendall(http_chunk(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'))
        hang_until_peer_leaves(left)(peer)

    call = start(begin_then_hang).connect().open(TO, b"{}", stream=True)
    timing = relay.Timing(
        time.monotonic,
        deadline=time.monotonic() + 8.40,
        commit_after_s=relay.COMMIT_AFTER_S / 100,
        heartbeat_every_s=relay.HEARTBEAT_EVERY_S / 100,
        upstream_silence_s=relay.UPSTREAM_SILENCE_S / 100,
    )
    began, outcome = time.monotonic(), Outcome()
    writes = list(relay.stream(relay.Answering("id", 1, 1_000), call, timing, outcome))
    assert 2.9 < time.monotonic() - began < 4.5
    assert writes.count(sse.HEARTBEAT) >= 15
    assert b'"code":"upstream_timeout"' in writes[-1]
    assert outcome.outcome == "upstream_timeout"
    assert left.wait(2)
