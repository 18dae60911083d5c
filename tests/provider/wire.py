"""HTTP/1.1 on bare sockets, with the standard library alone: what a fake provider sends leaves in
exactly the bytes it is given, each piece by one sendall. Benchmarks use this, too.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True)
class Request:
    """`raw` is the request as it came; `headers` has lower-case names."""

    raw: bytes
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def read_request(peer: socket.socket) -> Request | None:
    """Return the next request with its body, or None if the peer has hung up before its end."""
    raw = bytearray()
    while (end := raw.find(b"\r\n\r\n")) < 0:
        if not (data := peer.recv(65536)):
            return None
        raw += data
    line, *lines = raw[:end].decode("latin-1").split("\r\n")
    method, path, _ = line.split(" ")
    headers = {}
    for each in lines:
        name, _, value = each.partition(":")
        headers[name.lower()] = value.strip()
    start = end + 4
    whole = start + int(headers.get("content-length", 0))
    while len(raw) < whole:
        if not (data := peer.recv(65536)):
            return None
        raw += data
    return Request(bytes(raw), method, path, headers, bytes(raw[start:whole]))


class Server:
    """Listens on a free port of the loopback, with one thread a connection."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def answer(self, request: Request, connection: socket.socket) -> bool:
        """Answer one request. Return whether the connection stays open for the next."""
        raise NotImplementedError

    def close(self) -> None:
        """Take no more connections. Those that are open go on until their peers leave."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                self._converse(plain)
            else:
                with self._tls.wrap_socket(plain, server_side=True) as connection:
                    self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        while (request := read_request(connection)) and self.answer(request, connection):
            pass


Script = Callable[[socket.socket], object]


def reply(status: bytes, media_type: bytes, body: bytes, extra: bytes = b"") -> Script:
    """Return what sends one whole answer; `extra` is header lines, each with its line end."""
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n"
    sent = head % (status, media_type, len(body), extra) + body
    return lambda peer: peer.sendall(sent)
