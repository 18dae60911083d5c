"""A connection of the system's own TCP, over loopback: is its far end there?"""

import socket
import time
from collections.abc import Iterator

import pytest

from tests.unit.connections.deaf import make_deaf
from weir.connections import liveness

IDLE_S = 1.1  # the kernel probes nothing that has been idle for less than a second

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def idle() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        with near, far:
            near.sendall(b"x")
            far.recv(1)
            yield near, far


def test_far_end_that_is_there_answers_and_is_sent_nothing(idle: Pair) -> None:
    near, far = idle
    time.sleep(IDLE_S)
    assert liveness.is_answered(near)
    far.settimeout(0)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    assert not near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_far_end_that_is_gone_without_a_word_is_found_out_in_time(idle: Pair) -> None:
    near, far = idle
    make_deaf(far)
    time.sleep(IDLE_S)
    began = time.monotonic()
    assert not liveness.is_answered(near)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("linger", [b"\0\0\0\0\0\0\0\0", b"\1\0\0\0\0\0\0\0"])
def test_far_end_that_has_closed_does_not_answer(idle: Pair, linger: bytes) -> None:
    near, far = idle
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    time.sleep(IDLE_S)
    far.close()
    assert not liveness.is_answered(near)


def test_what_cannot_be_probed_counts_as_gone_without_a_wait(idle: Pair) -> None:
    began = time.monotonic()
    assert not liveness.is_answered(idle[0])
    assert time.monotonic() - began < liveness.PROBE_MARGIN_S
