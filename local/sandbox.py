"""One process of a function, and the Runtime API that it serves from.

The process is the real thing: the stock runtime client, or whatever AWS_LAMBDA_EXEC_WRAPPER starts.
This file is Lambda's side of the Runtime API (AWS: "Using the Lambda runtime API"), as strict as
Lambda: one request at a time, one answer to each, nothing for an invocation that is over. A process
that crashes, answers nonsense or overruns its timeout fails one invocation and is never used again.

One thing is nicer than Lambda. When the HTTP client leaves, `Stream.abort` breaks the runtime's
connection, so that the function closes its generator; Lambda never tells a function, and lets it
run (and bill) to its end.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local import peers, processes
from local.http1 import BodyTooLarge, Exchange, PeerGone, Server
from local.processes import Child

API = "/2018-06-01/runtime"
DELIMITER = b"\0" * 8
# The prelude and its delimiter must lie in the first 16 KB of a streamed response.
MAX_PRELUDE = 16 * 1024
# Lambda's limit for a buffered response: 6 MB and a little.
MAX_PAYLOAD = 6 * 1024 * 1024 + 100
# Lambda gives 10 s. A laptop that starts thirty at once on two cores is slower than Lambda.
INIT_TIMEOUT_S = 60.0


class InvocationFailed(Exception):
    """The function gave no usable answer. API Gateway says 502 to that."""


@dataclass
class Stream:
    """A streamed response whose prelude has come. Read `chunks` to the end, or `abort`."""

    prelude: dict[str, Any]
    _first: bytes
    _rest: AsyncIterator[bytes]
    _exchange: Exchange
    _over: asyncio.Event

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, each piece as it comes. Raises InvocationFailed if it ends otherwise than it
        should.
        """
        try:
            if self._first:
                yield self._first
            async for piece in self._rest:
                yield piece
        except PeerGone as error:
            raise InvocationFailed("the response broke off") from error
        finally:
            self._over.set()
        if error_type := self._trailer("lambda-runtime-function-error-type"):
            told = base64.b64decode(self._trailer("lambda-runtime-function-error-body") or "")
            raise InvocationFailed(f"{error_type}: {_message(told)}")

    def _trailer(self, name: str) -> str | None:
        return self._exchange.trailers.get(name)

    def abort(self) -> None:
        """Breaks the runtime's connection, unless the response has ended by itself."""
        if not self._over.is_set():
            self._exchange.abort()
            self._over.set()


@dataclass
class _Invocation:
    event: bytes
    deadline: float
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    # Lambda's newer nonce: an answer that carries another one comes too late.
    nonce: str = field(default_factory=lambda: str(uuid.uuid4()))
    answered: bool = False
    answer: asyncio.Future[bytes | Stream] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def fail(self, why: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(InvocationFailed(why))


@dataclass(frozen=True)
class Program:
    """How a process of the function is started. `env` lacks only AWS_LAMBDA_RUNTIME_API and the
    credentials.
    """

    name: str
    arn: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    log: Path
    timeout_s: float


class Sandbox:
    """States, in order: starting, then idle and busy by turns, then dead. `on_idle` and `on_dead`
    tell the pool.
    """

    def __init__(
        self,
        program: Program,
        on_idle: Callable[[Sandbox], None],
        on_dead: Callable[[Sandbox, str], None],
    ) -> None:
        self._program = program
        self._on_idle, self._on_dead = on_idle, on_dead
        # A page or another user could otherwise take an event, which carries the caller's token.
        self._server = Server(peers.for_programs(self._runtime_api))
        self._child: Child | None = None
        self._watch: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next: asyncio.Future[_Invocation] | None = None
        self._invocation: _Invocation | None = None
        self._settled, self._gone = asyncio.Event(), asyncio.Event()
        self._why_dead = ""
        self.dead = False
        self.has_served = False
        self.since = time.monotonic()
        self.idle_since = self.since

    async def start(self, credentials: dict[str, str]) -> None:
        port = await self._server.start(peers.only_ours(processes.listen_on_loopback(0)))
        env = {**self._program.env, **credentials, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}"}
        self._child = await processes.start(
            self._program.name,
            self._program.argv,
            env=env,
            cwd=self._program.cwd,
            log=self._program.log,
        )
        self._timer = self._kill_after(
            INIT_TIMEOUT_S, f"it was not ready within {INIT_TIMEOUT_S:.0f} s"
        )
        self._watch = asyncio.ensure_future(self._wait_for_the_end(self._child))

    async def _wait_for_the_end(self, child: Child) -> None:
        code = await child.wait()
        child.signal(signal.SIGKILL)  # whatever it may have left in its group
        if self._timer is not None:
            self._timer.cancel()
        self.dead = True
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        why = self._why_dead or f"the process ended ({how})"
        if self._invocation is not None:
            self._invocation.fail(why)
        self._on_dead(self, why)
        self._settled.set()
        await self._server.stop()
        self._gone.set()

    def kill(self, why: str) -> None:
        self._why_dead = self._why_dead or why
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    async def settled(self) -> None:
        """Until it can serve, or has died trying."""
        await self._settled.wait()

    async def gone(self) -> None:
        await self._gone.wait()

    @property
    def was_streaming(self) -> bool:
        return self._invocation is not None and self._invocation.answered

    def _kill_after(self, delay_s: float, why: str) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, self.kill, why)

    # --- the invoking side ---

    async def invoke(self, event: bytes) -> bytes | Stream:
        """For an idle sandbox only. The answer, or InvocationFailed."""
        if self.dead or self._next is None:
            raise InvocationFailed(self._why_dead or "the process has ended")
        timeout_s = self._program.timeout_s
        invocation = _Invocation(event, time.time() + timeout_s)
        self._invocation = invocation
        self._timer = self._kill_after(timeout_s, f"Task timed out after {timeout_s:.2f} seconds")
        self._next.set_result(invocation)
        return await invocation.answer

    # --- the runtime's side ---

    async def _runtime_api(self, exchange: Exchange) -> None:
        call = (exchange.method, *exchange.target.removeprefix(API).strip("/").split("/"))
        if not exchange.target.startswith(API):
            await _refuse(exchange, 404, "NotFound")
        elif call == ("GET", "invocation", "next"):
            await self._hand_out(exchange)
        elif call == ("POST", "init", "error"):
            self._why_dead = _message(await exchange.read(MAX_PAYLOAD))
            await _accept(exchange)
        elif (
            len(call) == 4
            and call[:2] == ("POST", "invocation")
            and call[3] in ("response", "error")
        ):
            await self._take(exchange, request_id=call[2], failed=call[3] == "error")
        else:
            await _refuse(exchange, 404, "NotFound")

    async def _hand_out(self, exchange: Exchange) -> None:
        await exchange.read(0)
        busy = self._invocation is not None and not self._invocation.answered
        if busy or (self._next is not None and not self._next.done()):
            await _refuse(exchange, 403, "InvalidStateTransition")
            return
        if self._timer is not None:
            self._timer.cancel()
        self._invocation = None
        self._next = asyncio.get_running_loop().create_future()
        self.idle_since = time.monotonic()
        self.has_served = True
        self._settled.set()
        self._on_idle(self)
        invocation = await self._next
        headers = [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
            ("Lambda-Runtime-Invocation-Id", invocation.nonce),
            ("Lambda-Runtime-Deadline-Ms", str(int(invocation.deadline * 1000))),
            ("Lambda-Runtime-Invoked-Function-Arn", self._program.arn),
            ("Lambda-Runtime-Trace-Id", _trace_id(invocation.request_id)),
        ]
        await exchange.respond(200, headers, invocation.event)

    async def _take(self, exchange: Exchange, *, request_id: str, failed: bool) -> None:
        invocation = self._invocation
        if invocation is None or invocation.request_id != request_id:
            await _refuse(exchange, 400, "InvalidRequestID")
        elif exchange.header("lambda-runtime-invocation-id") not in (None, invocation.nonce):
            await _refuse(exchange, 410, "Runtime.InvokeTimeout")
        elif invocation.answered:
            await _refuse(exchange, 403, "InvalidStateTransition")
        elif failed:
            invocation.answered = True
            invocation.fail(_message(await exchange.read(MAX_PAYLOAD)))
            await _accept(exchange)
        else:
            mode = exchange.header("lambda-runtime-function-response-mode")
            if mode not in (None, "streaming"):
                await _refuse(exchange, 400, "Runtime.InvalidResponseModeHeader")
                return
            invocation.answered = True
            await (self._take_stream if mode else self._take_whole)(exchange, invocation)

    async def _take_whole(self, exchange: Exchange, invocation: _Invocation) -> None:
        try:
            payload = await exchange.read(MAX_PAYLOAD)
        except BodyTooLarge:
            invocation.fail("Function.ResponseSizeTooLarge: the response is longer than 6 MB")
            await _refuse(exchange, 413, "RequestEntityTooLarge")
            return
        except PeerGone:
            invocation.fail("the response broke off")
            raise
        if not invocation.answer.done():
            invocation.answer.set_result(payload)
        await _accept(exchange)

    async def _take_stream(self, exchange: Exchange, invocation: _Invocation) -> None:
        chunks = exchange.chunks()
        try:
            prelude, first = await _read_prelude(chunks)
        except (InvocationFailed, PeerGone) as error:
            invocation.fail(str(error))
            exchange.abort()
            return
        over = asyncio.Event()
        if not invocation.answer.done():
            invocation.answer.set_result(Stream(prelude, first, chunks, exchange, over))
            await over.wait()
        await _accept(exchange)


async def _read_prelude(chunks: AsyncIterator[bytes]) -> tuple[dict[str, Any], bytes]:
    received = b""
    async for piece in chunks:
        received += piece
        head, delimiter, first = received.partition(DELIMITER)
        if delimiter and len(head) + len(delimiter) <= MAX_PRELUDE:
            try:
                prelude = json.loads(head)
            except ValueError as error:
                raise InvocationFailed(f"the prelude is not JSON: {head[:200]!r}") from error
            if not isinstance(prelude, dict):
                raise InvocationFailed(f"the prelude is not an object: {head[:200]!r}")
            return prelude, first
        if len(received) > MAX_PRELUDE:
            break
    raise InvocationFailed(
        f"no prelude and delimiter in the first {MAX_PRELUDE} bytes: {received[:200]!r}"
    )


def _message(told: bytes) -> str:
    """`Type: message` of the error that a runtime reports."""
    try:
        error = json.loads(told)
        return f"{error['errorType']}: {error['errorMessage']}"
    except (ValueError, KeyError, TypeError):
        return told[:500].decode("utf-8", "replace") or "no error was told"


def _trace_id(request_id: str) -> str:
    digits = request_id.replace("-", "")
    return f"Root=1-{int(time.time()):08x}-{digits[:24]};Parent={digits[:16]};Sampled=0"


async def _accept(exchange: Exchange) -> None:
    await exchange.respond(202, [("Content-Type", "application/json")], b'{"status":"OK"}\n')


async def _refuse(exchange: Exchange, status: int, error_type: str) -> None:
    body = json.dumps({"errorMessage": error_type, "errorType": error_type}).encode()
    await exchange.respond(status, [("Content-Type", "application/json")], body)
