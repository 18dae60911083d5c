"""What a fake provider answers: status, headers, and pieces, one after the other.

A piece is bytes, which are sent at once, or something to do between them: `wait(0.5)`,
`point("name")`, `begin`, `hang`, `close`, `reset`. An answer is changed by functions that take one
and return another, so that each change goes with each dialect:

    cut(paused(gzipped(answer), 0.1), after=2, how="reset")
"""

import contextlib
import socket
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from http.client import responses
from typing import TYPE_CHECKING, Any

from tests.provider.wire import LAST_CHUNK, http_chunk

if TYPE_CHECKING:
    from tests.provider.server import FakeProvider

Piece = bytes | Callable[["Exchange"], object]


class Framing(Enum):
    CHUNKED = auto()
    SIZED = auto()  # with a Content-Length
    UNTIL_CLOSE = auto()
    NAKED = auto()  # without status and headers: the pieces are all that is sent


@dataclass(frozen=True, slots=True)
class Answer:
    pieces: tuple[Piece, ...]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": SSE})
    framing: Framing = Framing.CHUNKED
    length: int = 0  # what a Content-Length says, whatever is sent

    def head(self) -> bytes:
        headers = dict(self.headers)
        if self.framing is Framing.CHUNKED:
            headers["Transfer-Encoding"] = "chunked"
        elif self.framing is Framing.SIZED:
            headers["Content-Length"] = str(self.length)
        lines = [f"HTTP/1.1 {self.status} {responses.get(self.status, 'Its Own')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


SSE = "text/event-stream"
JSON = "application/json"


def streamed(*pieces: Piece) -> Answer:
    """Each piece in an HTTP chunk of its own. The head leaves with the first of them."""
    return Answer(pieces)


def whole(body: bytes, media_type: str = JSON, status: int = 200) -> Answer:
    headers = {"Content-Type": media_type}
    return Answer((body,), status, headers, Framing.SIZED, len(body))


def naked(*pieces: Piece) -> Answer:
    """Exactly these bytes, on a connection that stays open unless a piece closes it."""
    return Answer(pieces, framing=Framing.NAKED)


# ---------------------------------------------------------------- what is done between bytes


class Exchange:
    """One answer on its way."""

    def __init__(self, answer: Answer, connection: socket.socket, provider: "FakeProvider") -> None:
        self.answer = answer
        self.connection = connection
        self.provider = provider
        self._begun = answer.framing is Framing.NAKED

    def play(self) -> bool:
        """Send everything. Return whether the connection stays open."""
        try:
            for piece in self.answer.pieces:
                if isinstance(piece, bytes):
                    self.send(piece)
                else:
                    piece(self)
        except _Gone:
            return False
        self.begin()
        if self.answer.framing is Framing.CHUNKED:
            self.connection.sendall(LAST_CHUNK)
        return self.answer.framing is not Framing.UNTIL_CLOSE

    def begin(self) -> None:
        """Send status and headers, if they have not been sent."""
        if not self._begun:
            self._begun = True
            self.connection.sendall(self.answer.head())

    def send(self, data: bytes) -> None:
        self.begin()
        if self.answer.framing is Framing.CHUNKED:
            data = http_chunk(data)
        self.connection.sendall(data)


class _Gone(Exception):
    """The connection is not to be used any more."""


def begin(exchange: Exchange) -> None:
    exchange.begin()


def wait(seconds: float) -> Piece:
    return lambda exchange: time.sleep(seconds)


def point(name: str) -> Piece:
    """Let happen what a test has put into the provider's `points`."""
    return lambda exchange: exchange.provider.points[name]()


def hang(exchange: Exchange) -> None:
    """Say nothing until the peer hangs up."""
    exchange.connection.settimeout(30)
    with contextlib.suppress(OSError):
        while exchange.connection.recv(1):
            pass
    exchange.provider.left.set()
    raise _Gone


def close(exchange: Exchange) -> None:
    raise _Gone


def reset(exchange: Exchange) -> None:
    linger = struct.pack("ii", 1, 0)
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    raise _Gone


ENDS: dict[str, tuple[Piece, ...]] = {
    "close": (close,),
    "reset": (reset,),
    "hang": (hang,),
    "end": (),  # as if that were all
}


# ---------------------------------------------------------------- changes that go with any answer


def headed(answer: Answer, headers: Mapping[str, str]) -> Answer:
    return replace(answer, headers={**answer.headers, **headers})


def labelled(answer: Answer, media_type: str) -> Answer:
    return headed(answer, {"Content-Type": media_type})


def delayed(answer: Answer, seconds: float) -> Answer:
    """Before anything is sent, status and headers included."""
    return replace(answer, pieces=(wait(seconds), *answer.pieces))


def paused(answer: Answer, seconds: float) -> Answer:
    """After each piece of bytes."""
    return _after_each(answer, wait(seconds))


def interleaved(answer: Answer, piece: bytes) -> Answer:
    """With this after each piece of a stream: a ping, an empty `data:`."""
    return _after_each(answer, piece)


def cut(answer: Answer, after: int, how: str = "close") -> Answer:
    """Break off after so many pieces and 25 bytes of the next, if there is one (`ENDS`)."""
    kept: list[Piece] = []
    for piece in answer.pieces:
        if isinstance(piece, bytes):
            if after == 0:
                kept.append(piece[:25])
                break
            after -= 1
        kept.append(piece)
    return replace(answer, pieces=(*kept, *ENDS[how]))


def gzipped(answer: Answer) -> Answer:
    """Each piece is flushed, as a compressing proxy does for a stream."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    pieces: list[Piece] = [
        packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
        if isinstance(piece, bytes)
        else piece
        for piece in answer.pieces
    ]
    pieces.append(packer.flush())
    length = sum(len(piece) for piece in pieces if isinstance(piece, bytes))
    return headed(
        replace(answer, pieces=tuple(pieces), length=length), {"Content-Encoding": "gzip"}
    )


def _after_each(answer: Answer, added: Piece) -> Answer:
    pieces: list[Piece] = []
    for piece in answer.pieces:
        pieces += [piece, added] if isinstance(piece, bytes) else [piece]
    return replace(answer, pieces=tuple(pieces))


# By the name that a request gives them, in the order in which they are made.
CHANGES: dict[str, Callable[[Answer, Any], Answer]] = {
    "interleave": lambda answer, text: interleaved(answer, text.encode()),
    "gzip": lambda answer, wanted: gzipped(answer) if wanted else answer,
    "framing": lambda answer, name: replace(answer, framing=Framing[name.upper()]),
    "pause_s": paused,
    "cut": lambda answer, told: cut(answer, **told),
    "delay_s": delayed,
    "type": labelled,
    "headers": headed,
}


def changed(answer: Answer, how: Mapping[str, Any]) -> Answer:
    for name, change in CHANGES.items():
        if name in how:
            answer = change(answer, how[name])
    return answer
