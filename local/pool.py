"""The processes of one function: one request at a time in each, more of them as requests come
together.

As on Lambda a request takes an idle process or starts one. Here there is a bound: beyond it a
request waits for a process to become free, for a few seconds, and is then refused as a throttled
function is.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable

from local.sandbox import InvocationFailed, Program, Sandbox, Stream

IDLE_S = 60.0
# The role's credentials live for twelve hours; Lambda, too, replaces an environment after some
# hours.
MAX_AGE_S = 6 * 3600.0
LOOK_EVERY_S = 5.0


class Busy(Exception):
    """Every process is at work and none became free in time."""


class Pool:
    """`starting` is shared by all pools: starting is all processor time, and more at once makes
    each one slower.
    """

    def __init__(
        self,
        program: Program,
        credentials: Callable[[], Awaitable[dict[str, str]]],
        starting: asyncio.Semaphore,
        *,
        most: int,
        wait_s: float,
    ) -> None:
        self._program, self._credentials, self._starting = program, credentials, starting
        self._most, self._wait_s = most, wait_s
        self._sandboxes: set[Sandbox] = set()
        self._idle: list[Sandbox] = []
        self._waiting: deque[asyncio.Future[Sandbox]] = deque()
        self._coming = 0
        self._stopped = False
        self._tasks = {asyncio.ensure_future(self._retire_now_and_then())}

    async def invoke(self, event: bytes) -> bytes | Stream:
        """The function's answer; InvocationFailed if it gave none, Busy if no process was to be
        had.
        """
        try:
            return await (await self._acquire()).invoke(event)
        except InvocationFailed as error:
            self._say(str(error))
            raise

    async def warm(self) -> None:
        """Starts a process, unless there is an idle one, and waits until it could serve."""
        self._free(await self._acquire())

    async def stop(self) -> None:
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        sandboxes = list(self._sandboxes)
        for sandbox in sandboxes:
            sandbox.kill("stopped")
        await asyncio.gather(*(sandbox.gone() for sandbox in sandboxes))

    @property
    def size(self) -> int:
        return len(self._sandboxes) + self._coming

    async def _acquire(self) -> Sandbox:
        if self._idle:
            return self._idle.pop()  # the last one used, so that the others may grow old and go
        waiter: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        full = self.size >= self._most
        if not full:
            self._start_one()
        try:
            # A process that starts for this request may take its time: only waiting for somebody
            # else's is bounded.
            await asyncio.wait({waiter}, timeout=self._wait_s if full else None)
        except asyncio.CancelledError:
            if waiter.done() and waiter.exception() is None:
                self._free(waiter.result())
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if not waiter.done():
            raise Busy(self._program.name)
        return waiter.result()

    def _free(self, sandbox: Sandbox) -> None:
        """Hands it to whoever has waited longest."""
        if sandbox.dead:
            return
        if self._waiting:
            self._waiting.popleft().set_result(sandbox)
        else:
            self._idle.append(sandbox)

    def _start_one(self) -> None:
        self._coming += 1
        task = asyncio.ensure_future(self._start())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self) -> None:
        async with self._starting:
            sandbox = Sandbox(self._program, self._free, self._dead)
            try:
                if not self._waiting:  # another process has become free meanwhile
                    return
                await sandbox.start(await self._credentials())
                self._sandboxes.add(sandbox)
            except OSError as error:
                self._fail_one(f"it could not be started: {error}")
                return
            finally:
                self._coming -= 1
            await sandbox.settled()

    def _fail_one(self, why: str) -> None:
        if self._waiting:
            self._waiting.popleft().set_exception(InvocationFailed(why))

    def _dead(self, sandbox: Sandbox, why: str) -> None:
        self._sandboxes.discard(sandbox)
        if sandbox in self._idle:
            self._idle.remove(sandbox)
        if self._stopped:
            return
        if not sandbox.has_served:
            self._fail_one(why)  # and not the others: each of them has a start of its own
        elif self._waiting:
            self._start_one()
        if sandbox.was_streaming:
            self._say(why)

    async def _retire_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = time.monotonic()
            for sandbox in list(self._idle):
                surplus = len(self._sandboxes) > 1 and now - sandbox.idle_since > IDLE_S
                if surplus or now - sandbox.since > MAX_AGE_S:
                    self._idle.remove(sandbox)
                    self._sandboxes.discard(sandbox)
                    sandbox.kill("no longer needed")

    def _say(self, why: str) -> None:
        print(f"{self._program.name}: {why} (its log: {self._program.log})", file=sys.stderr)
