"""HTTP/1.1 servers over asyncio: h11 knows the protocol, asyncio the sockets, this file only
carries between them.

Rules of this file:

* One request at a time on a connection, in order; what a client pipelines waits in the buffer.
* What is written leaves at once (asyncio sets TCP_NODELAY), and writing waits for a slow reader.
* A peer that goes away is noticed while its answer is still being made: `Exchange.gone`,
  `Exchange.on_gone`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http.client import responses

import h11

from local.processes import listen_on_loopback

Headers = Sequence[tuple[str, str]]

READ_SIZE = 64 * 1024
# Beyond it h11 answers 431 by itself. API Gateway's own limit is smaller, and the gateway checks
# that one.
MAX_HEAD = 64 * 1024
# An answer sent before the whole request was read is lost if the socket is then closed on unread
# data (RFC 9112, 9.6): so much, for so long, is read and thrown away first.
LINGER_BYTES = 32 * 1024 * 1024
LINGER_S = 5.0


class BodyTooLarge(Exception):
    """The request's body is longer than its reader allows."""


class PeerGone(Exception):
    """The peer closed or broke the connection, or spoke no HTTP."""


class Exchange:
    """One request and its answer."""

    def __init__(self, connection: _Connection, request: h11.Request) -> None:
        self._connection = connection
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("ascii")
        # Names as the client wrote them: their case is what a function sees, too.
        self.headers = [
            (name.decode("ascii"), value.decode("latin-1"))
            for name, value in request.headers.raw_items()
        ]
        self.trailers: dict[str, str] = {}
        self.peer = connection.peer
        self.gone = asyncio.Event()
        self.started = False
        self._on_gone: list[Callable[[], None]] = []

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def on_gone(self, callback: Callable[[], None]) -> None:
        if self.gone.is_set():
            callback()
        else:
            self._on_gone.append(callback)

    def peer_left(self) -> None:
        self.gone.set()
        while self._on_gone:
            self._on_gone.pop()()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The request's body, each piece as it comes. Its trailers are there when it has ended."""
        while True:
            event = await self._connection.event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.trailers = {
                    name.decode("ascii"): value.decode("latin-1") for name, value in event.headers
                }
                self._connection.watch(self)
                return
            else:
                raise PeerGone("the connection closed inside a request")

    async def read(self, limit: int) -> bytes:
        pieces, size = [], 0
        async for piece in self.chunks():
            size += len(piece)
            if size > limit:
                raise BodyTooLarge
            pieces.append(piece)
        return b"".join(pieces)

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        # Without a length h11 chunks what follows (or closes, for a client of HTTP/1.0).
        response = h11.Response(
            status_code=status,
            reason=responses.get(status, ""),
            headers=[
                (name.encode("ascii"), value.encode("latin-1", "replace"))
                for name, value in headers
            ],
        )
        await self._connection.send(response)

    async def write(self, data: bytes) -> None:
        if data and self.method != "HEAD":
            await self._connection.send(h11.Data(data=data))

    async def end(self) -> None:
        await self._connection.send(h11.EndOfMessage())

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        bodiless = status in (204, 304)  # RFC 9110: these have no content, and 204 no length either
        await self.start(
            status, headers if bodiless else [*headers, ("Content-Length", str(len(body)))]
        )
        if not bodiless:
            await self.write(body)
        await self.end()

    def cut(self) -> None:
        """Ends the connection inside the answer, after what was written: the peer sees a truncated
        message.
        """
        self._connection.close()

    def abort(self) -> None:
        """Breaks the connection at once."""
        self._connection.abort()


Handler = Callable[[Exchange], Awaitable[None]]


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._watcher: asyncio.Task[None] | None = None
        self._body_is_held_back = False
        peer = writer.get_extra_info("peername")
        self.peer: str = peer[0] if isinstance(peer, tuple) else "127.0.0.1"

    async def event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            inside_a_request = self._h11.their_state is h11.SEND_BODY
            try:
                event = self._h11.next_event()
                if event is not h11.NEED_DATA:
                    return event  # type: ignore[return-value]  # NEED_DATA is excluded one line above
                if self._h11.they_are_waiting_for_100_continue:
                    self._body_is_held_back = False
                    await self.send(h11.InformationalResponse(status_code=100, headers=[]))
                self._h11.receive_data(await self._reader.read(READ_SIZE))
            except OSError as error:
                raise PeerGone(str(error)) from error
            except h11.RemoteProtocolError as error:
                if inside_a_request:
                    raise PeerGone(str(error)) from error
                raise

    async def send(self, event: h11.Event) -> None:
        try:
            data = self._h11.send(event)
        except h11.LocalProtocolError as error:
            if self._h11.our_state in (h11.ERROR, h11.CLOSED):
                raise PeerGone("the connection has ended") from error
            raise
        if data:
            try:
                self._writer.write(data)
                await self._writer.drain()
            except OSError as error:
                raise PeerGone(str(error)) from error

    def watch(self, exchange: Exchange) -> None:
        """From the end of a request to the end of its answer: keeps what is pipelined, notices who
        leaves.
        """
        self._watcher = asyncio.ensure_future(self._watch(exchange))

    async def _watch(self, exchange: Exchange) -> None:
        received = 0
        while received < MAX_HEAD:
            try:
                data = await self._reader.read(READ_SIZE)
                if data:
                    self._h11.receive_data(data)
                    received += len(data)
                    continue
            except (OSError, RuntimeError):
                pass
            exchange.peer_left()
            return

    async def serve(self, handler: Handler) -> None:
        while True:
            event = await self.event()
            if not isinstance(event, h11.Request):
                return
            self._body_is_held_back = self._h11.they_are_waiting_for_100_continue
            exchange = Exchange(self, event)
            await handler(exchange)
            if not await self._ready_for_another(exchange):
                return

    async def _ready_for_another(self, exchange: Exchange) -> bool:
        if self._h11.our_state is h11.SEND_BODY or self._writer.is_closing():
            return False
        if self._h11.their_state is h11.SEND_BODY and not self._body_is_held_back:
            await self._discard(exchange)
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
            self._watcher = None
        if exchange.gone.is_set() or (self._h11.our_state, self._h11.their_state) != (
            h11.DONE,
            h11.DONE,
        ):
            return False
        self._h11.start_next_cycle()
        return True

    async def _discard(self, exchange: Exchange) -> None:
        left = LINGER_BYTES
        with contextlib.suppress(PeerGone, TimeoutError):
            async with asyncio.timeout(LINGER_S):
                async for piece in exchange.chunks():
                    left -= len(piece)
                    if left < 0:
                        return

    async def refuse(self, error: h11.RemoteProtocolError) -> None:
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("Content-Length", "0"), ("Connection", "close")]
            await self.send(h11.Response(status_code=error.error_status_hint, headers=headers))
            await self.send(h11.EndOfMessage())

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()

    async def finish(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Server:
    """Answers every connection of one listening socket with one handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket | None = None) -> int:
        """Listens on `listener`, or on a free loopback port. Returns the port."""
        listener = listener or listen_on_loopback(0)
        if listener.family == getattr(socket, "AF_UNIX", None):
            self._server = await asyncio.start_unix_server(self._accept, sock=listener)
            return 0
        self._server = await asyncio.start_server(self._accept, sock=listener)
        port: int = listener.getsockname()[1]
        return port

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer)
        try:
            await connection.serve(self._handler)
        except h11.RemoteProtocolError as error:
            with contextlib.suppress(PeerGone, h11.LocalProtocolError):
                await connection.refuse(error)
        except (PeerGone, BodyTooLarge):
            pass
        finally:
            await connection.finish()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
