"""A channel against OpenSSL's own server, over a pair of sockets."""

import contextlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.connections.authority import Authority, authority, named
from weir.connections.channel import Channel

HOST = "provider.example.com"

Far = Callable[[ssl.SSLSocket], object]
Connect = Callable[..., Channel]


@pytest.fixture(scope="module")
def ours() -> Authority:
    return authority(named("Our Authority"))


@pytest.fixture(scope="module")
def trusting(ours: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ours.pem)


@pytest.fixture
def serving(ours: Authority, tmp_path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.issue(tmp_path, HOST))
    return context


@pytest.fixture
def connect(serving: ssl.SSLContext, trusting: ssl.SSLContext) -> Iterator[Connect]:
    """Return a channel whose far end runs a script; another one with its session may follow."""
    made: list[Channel] = []
    threads = []

    def start(
        far: Far,
        session: ssl.SSLSession | None = None,
        most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> Channel:
        near, other = socket.socketpair()
        serving.maximum_version = most

        def serve() -> None:
            with (
                contextlib.suppress(OSError),
                serving.wrap_socket(other, server_side=True) as spoken,
            ):
                far(spoken)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        channel = Channel(near)
        made.append(channel)
        channel.secure(trusting, HOST, session, 5)
        return channel

    yield start
    for each in made:
        each.close()
    for thread in threads:
        thread.join(5)


def everything(channel: Channel) -> bytes:
    got = b""
    while (data := channel.receive(5)) != b"":
        assert data is not None
        got += data
    return got


def test_records_of_a_burst_are_one_piece(connect: Connect) -> None:
    sent = threading.Event()

    def far(spoken: ssl.SSLSocket) -> None:
        for letter in b"burst":
            spoken.sendall(bytes((letter,)))
        sent.set()
        spoken.recv(1)

    channel = connect(far)
    assert sent.wait(5)
    assert channel.receive(5) == b"burst"
    assert channel.receive(0) is None


@pytest.mark.parametrize("seed", range(5))
def test_content_is_the_same_under_every_cut(
    seed: int, serving: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """The far end's bytes arrive in pieces that respect no record."""
    chance = random.Random(seed)
    content = chance.randbytes(100_000)
    near, other = socket.socketpair()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    spoken = serving.wrap_bio(incoming, outgoing, server_side=True)

    def serve() -> None:
        while True:
            try:
                spoken.do_handshake()
                break
            except ssl.SSLWantReadError:
                other.sendall(outgoing.read())
                incoming.write(other.recv(65_536))
        at = 0
        while at < len(content):
            size = chance.choice((1, 100, 5_000, 16_384))
            at += spoken.write(content[at : at + size])
        raw = outgoing.read()
        while raw:
            cut = chance.choice((1, 4, 5, 6, 300, 20_000))
            other.sendall(raw[:cut])
            raw = raw[cut:]
        other.close()

    thread = threading.Thread(target=serve)
    thread.start()
    channel = Channel(near)
    channel.secure(trusting, HOST, None, 5)
    got = everything(channel)
    thread.join(5)
    channel.close()
    assert got == content


def test_silence_is_none_and_a_timeout_for_a_file(connect: Connect) -> None:
    channel = connect(lambda spoken: spoken.recv(1))
    began = time.monotonic()
    assert channel.receive(0.05) is None
    assert 0.04 < time.monotonic() - began < 2
    channel.settimeout(0.05)
    with channel.makefile("rb") as file, pytest.raises(TimeoutError):
        file.read(1)


@pytest.mark.parametrize("says_so", [True, False])
def test_end_comes_after_all_content_and_stays(connect: Connect, says_so: bool) -> None:
    def far(spoken: ssl.SSLSocket) -> None:
        spoken.sendall(b"last words")
        if says_so:
            spoken.unwrap()

    channel = connect(far)
    assert everything(channel) == b"last words"
    assert channel.receive(0) == b""


def test_content_before_a_broken_record_is_handed_over_and_then_the_break(connect: Connect) -> None:
    def far(spoken: ssl.SSLSocket) -> None:
        spoken.sendall(b"whole")
        socket.socket.sendall(spoken, b"\x17\x03\x03\x00\x20" + b"x" * 32)  # not as it was agreed
        with contextlib.suppress(OSError):
            spoken.recv(1)

    channel = connect(far)
    time.sleep(0.1)
    assert channel.receive(5) == b"whole"
    with pytest.raises(ssl.SSLError):
        channel.receive(5)


def test_large_request_is_sent_whole_to_a_far_end_that_is_slow(connect: Connect) -> None:
    body = random.Random(1).randbytes(3_000_000)
    got = bytearray()
    done = threading.Event()

    def far(spoken: ssl.SSLSocket) -> None:
        time.sleep(0.1)
        while len(got) < len(body):
            got.extend(spoken.recv(65_536))
        done.set()

    channel = connect(far)
    channel.settimeout(5)
    channel.sendall(body)
    assert done.wait(5)
    assert got == body


def test_far_end_that_takes_nothing_is_given_up(connect: Connect) -> None:
    over = threading.Event()
    channel = connect(lambda _: over.wait(5))
    channel.settimeout(0.05)
    with pytest.raises(TimeoutError):
        channel.sendall(b"x" * 3_000_000)
    over.set()


def test_file_reads_lines_and_the_rest_stays_for_the_channel(connect: Connect) -> None:
    def far(spoken: ssl.SSLSocket) -> None:
        spoken.sendall(b"head\r\n" + b"b" * 20_000)
        spoken.recv(1)

    channel = connect(far)
    channel.settimeout(5)
    with channel.makefile("rb") as file:
        assert file.readline() == b"head\r\n"
        rest = file.peek()
        channel.settimeout(5)
        while len(rest) < 20_000:
            rest += channel.receive(5) or b""
    assert rest == b"b" * 20_000


def test_file_reads_on_after_its_channel_is_closed(connect: Connect) -> None:
    channel = connect(lambda spoken: (spoken.sendall(b"body"), spoken.unwrap()))
    channel.settimeout(5)
    file = channel.makefile("rb")
    channel.close()
    assert file.read() == b"body"
    file.close()
    with pytest.raises(OSError, match="descriptor"):
        channel.sendall(b"x")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_is_resumed_and_its_tickets_do_not_count_as_content(
    connect: Connect, version: ssl.TLSVersion
) -> None:
    resumed = []

    def far(spoken: ssl.SSLSocket) -> None:
        resumed.append(spoken.session_reused)
        spoken.recv(1)
        spoken.sendall(b"y")
        spoken.recv(1)

    session = None
    for _ in range(3):
        channel = connect(far, session, version)
        channel.sendall(b"x")
        assert channel.receive(5) == b"y"
        assert channel.is_idle()
        session = channel.session
        assert session is not None
        channel.close()
    assert resumed == [False, True, True]


def test_stranger_is_refused_and_hears_why(serving: ssl.SSLContext) -> None:
    near, other = socket.socketpair()
    heard: list[str] = []

    def serve() -> None:
        try:
            serving.wrap_socket(other, server_side=True).recv(1)
        except ssl.SSLError as error:
            heard.append(error.reason)
        other.close()

    thread = threading.Thread(target=serve)
    thread.start()
    channel = Channel(near)
    with pytest.raises(ssl.SSLCertVerificationError):
        channel.secure(ssl.create_default_context(), HOST, None, 5)
    thread.join(5)
    channel.close()
    assert heard == ["TLSV1_ALERT_UNKNOWN_CA"]


def test_handshake_that_stalls_ends_in_time(trusting: ssl.SSLContext) -> None:
    near, other = socket.socketpair()
    channel = Channel(near)
    with other, pytest.raises(TimeoutError):
        channel.secure(trusting, HOST, None, 0.05)
    channel.close()


@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_kept_channel_is_not_idle_once_its_far_end_has_said_more(
    connect: Connect, last: bytes
) -> None:
    go_on = threading.Event()

    def far(spoken: ssl.SSLSocket) -> None:
        go_on.wait(5)
        spoken.sendall(last)

    channel = connect(far)
    assert channel.is_idle()
    go_on.set()
    until = time.monotonic() + 5
    while channel.is_idle() and time.monotonic() < until:
        time.sleep(0.01)
    assert not channel.is_idle()


def test_plain_channel_hands_over_all_that_has_come() -> None:
    near, other = socket.socketpair()
    channel = Channel(near)
    assert channel.receive(0) is None
    other.sendall(b"one")
    other.sendall(b"two")
    assert channel.receive(0) == b"onetwo"
    other.close()
    assert channel.receive(0) == b""
    channel.close()
