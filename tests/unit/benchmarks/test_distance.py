"""A provider that is made distant answers late, and by one round trip later on a new connection."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from benchmarks import ROOT
from tests.provider.wire import Request, Server

ONE_WAY_MS = 40


class Echo(Server):
    def answer(self, request: Request, connection: socket.socket) -> bool:
        connection.sendall(request.body)
        return True


@pytest.fixture
def port() -> Iterator[int]:
    echo = Echo()
    command = [sys.executable, "-m", "benchmarks.distance", str(echo.port), str(ONE_WAY_MS)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()
    echo.close()


def ask(client: socket.socket) -> float:
    """Return the milliseconds to the answer."""
    began = time.monotonic()
    client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
    assert client.recv(5, socket.MSG_WAITALL) == b"hello"
    return (time.monotonic() - began) * 1000


def test_each_way_takes_its_time_and_a_new_connection_a_round_trip_more(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        # Its first bytes leave when SYN and SYN-ACK would have travelled, so a little has passed.
        assert ask(client) >= 4 * ONE_WAY_MS - 10
        least = min(ask(client) for _ in range(5))
    assert 2 * ONE_WAY_MS <= least < 4 * ONE_WAY_MS
