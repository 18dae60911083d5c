"""Answers with the time of every piece; and Lambda's side of the Runtime API, as thin as can be.

Nothing is parsed while an answer arrives: pieces are kept with their time, and taken apart when it
has ended. One thread, blocking sockets: nothing else runs between the network and the clock.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
import uuid
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

from benchmarks import CannotMeasure

PATIENCE_S = 60.0
READ_SIZE = 256 * 1024
END_OF_CHUNKS = b"\r\n0\r\n\r\n"  # no JSON and no chunk holds these bytes
DELIMITER = b"\0" * 8  # between a Lambda response's prelude and its body
STAMP = re.compile(rb" t=(\d+) ")

now = time.monotonic_ns


@dataclass
class Reading:
    """A message as it came: `marks` are (time, how many bytes had come by then)."""

    raw: bytearray = field(default_factory=bytearray)
    marks: list[tuple[int, int]] = field(default_factory=list)

    def receive(self, connection: socket.socket) -> bool:
        """One piece. False at the end of the connection."""
        data = connection.recv(READ_SIZE)
        self.raw += data
        self.marks.append((now(), len(self.raw)))
        return data != b""

    def whole(self) -> bool:
        head = self.raw.find(b"\r\n\r\n", 0, 16_384)
        if head < 0:
            return False
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self.raw[:head])
        if length is not None:
            return len(self.raw) >= head + 4 + int(length[1])
        if b"chunked" in self.raw[:head].lower():
            return self.raw.endswith(END_OF_CHUNKS)
        return self.raw.startswith((b"GET ", b"POST "))


def read(connection: socket.socket) -> Reading:
    reading = Reading()
    connection.settimeout(PATIENCE_S)
    try:
        while not reading.whole():
            if not reading.receive(connection):
                break
    except TimeoutError:
        raise CannotMeasure(f"an answer stopped after {bytes(reading.raw[-300:])!r}") from None
    return reading


@dataclass(frozen=True)
class Answer:
    """What one request came to, in nanoseconds of the one clock."""

    status: int
    body: bytes
    first_byte: int
    delays: list[int]  # from the provider's stamp to the arrival of the whole frame


def take_apart(reading: Reading) -> Answer:
    """Of an HTTP response, or of a function's response as it POSTs it to the Runtime API."""
    raw = bytes(reading.raw)
    head, body, ends = _dechunk(raw)
    times, sizes = [mark[0] for mark in reading.marks], [mark[1] for mark in reading.marks]

    def arrival(offset: int) -> int:
        """Of the body's byte before `offset`."""
        chunk = bisect_left(ends, (offset, 0))
        body_end, raw_end = ends[chunk]
        return times[bisect_left(sizes, raw_end - (body_end - offset))]

    start, status = 0, 0
    if head.startswith(b"HTTP/"):
        status = int(head.split(b" ", 2)[1])
    elif (prelude := body.find(DELIMITER)) >= 0:
        status = json.loads(body[:prelude])["statusCode"]
        start = prelude + len(DELIMITER)
    if not body[start:]:
        raise CannotMeasure(f"an answer without a body: {raw[:300]!r}")
    delays = [
        arrival(body.index(b"\n\n", stamp.end()) + 2) - int(stamp[1])
        for stamp in STAMP.finditer(body, start)
    ]
    return Answer(status, body[start:], arrival(start + 1), delays)


def _dechunk(raw: bytes) -> tuple[bytes, bytes, list[tuple[int, int]]]:
    """Head, body, and for each chunk where it ends: (in the body, in `raw`)."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    position = len(head) + 4
    if b"chunked" not in head.lower():
        return head, rest, [(len(rest), len(raw))]
    pieces: list[bytes] = []
    raw_ends: list[int] = []
    while True:
        line_end = raw.find(b"\r\n", position)
        size = int(raw[position:line_end] or b"0", 16) if line_end >= 0 else 0
        if size == 0:
            break
        pieces.append(raw[line_end + 2 : line_end + 2 + size])
        raw_ends.append(line_end + 2 + size)
        position = line_end + 4 + size
    return head, b"".join(pieces), list(zip(accumulate(map(len, pieces)), raw_ends, strict=True))


def connect(port: int, give_up: float) -> socket.socket:
    """As soon as somebody listens there."""
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise CannotMeasure(f"nobody listens on port {port}") from None
            time.sleep(0.001)
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def has_ended(connection: socket.socket) -> bool:
    """Of an idle connection: whether its peer has closed it."""
    return bool(select.select([connection], [], [], 0)[0])


class RuntimeApi:
    """One function process's Runtime API: it asks for the next event, and posts its answer."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._idle: socket.socket | None = None

    def until_idle(self) -> None:
        """Until the process waits for an event: an invocation is over only then."""
        if self._idle is None:
            connection, request = self._next_request()
            if not request.raw.startswith(b"GET "):
                raise CannotMeasure(f"the function failed: {bytes(request.raw[-1000:])!r}")
            self._idle = connection

    def invoke(self, event: bytes) -> tuple[int, Reading]:
        """When the event left, and the function's answer."""
        self.until_idle()
        assert self._idle is not None
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {uuid.uuid4()}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {int((time.time() + 600) * 1000)}\r\n"
            "Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:0:function:bench\r\n"
            f"Content-Length: {len(event)}\r\n\r\n"
        )
        asked = now()
        self._idle.sendall(head.encode() + event)
        self._idle = None
        connection, answer = self._next_request()
        if b"/response HTTP/1.1" not in answer.raw[:200]:
            raise CannotMeasure(f"the function failed: {bytes(answer.raw[:2000])!r}")
        connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        return asked, answer

    def _next_request(self) -> tuple[socket.socket, Reading]:
        while True:
            ready, _, _ = select.select([self._listener, *self._open], [], [], PATIENCE_S)
            if not ready:
                raise CannotMeasure("the function did not come back to the Runtime API")
            for waiting in ready:
                if waiting is self._listener:
                    connection, _ = self._listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._open.append(connection)
                    continue
                request = read(waiting)
                if request.raw:
                    return waiting, request
                self._open.remove(waiting)
                waiting.close()

    def close(self) -> None:
        for connection in (self._listener, *self._open):
            connection.close()
