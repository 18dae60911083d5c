"""Child processes that never outlive us.

Each child leads a process group of its own, so that a Ctrl-C at the terminal reaches only the
runner and everything ends in order; and the kernel kills it when the thread that started it dies,
so that not even SIGKILL of the runner leaves one behind. Hence the one rule: start children from
the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from local import CannotRun

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def dies_with_us() -> Callable[[], None]:
    """For `preexec_fn`. Elsewhere than on Linux there is no such thing, and it does nothing."""
    parent = os.getpid()

    def in_the_child() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return in_the_child


class Child:
    """A running process, known by what it is for."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.log = name, log
        self._process = process
        self.pid = process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def wait(self) -> int:
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """To its whole group: what it may have started itself is included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


async def start(
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Starts it with exactly this environment; what it prints is appended to `log`."""
    with log.open("ab") as output, warnings.catch_warnings():
        # Python warns of `preexec_fn` in a process with threads; ours only calls prctl, which takes
        # no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
            pass_fds=pass_fds,
            preexec_fn=dies_with_us(),
        )
    return Child(name, process, log)


async def stop(children: Iterable[Child], grace_s: float) -> None:
    """SIGTERM to all, and SIGKILL to those that are still there after `grace_s`."""
    alive = [child for child in children if not child.ended]
    for child in alive:
        child.signal(signal.SIGTERM)
    if alive and grace_s > 0:
        waits = [asyncio.ensure_future(child.wait()) for child in alive]
        await asyncio.wait(waits, timeout=grace_s)
    for child in alive:
        # Even if the leader has ended: the rest of its group may not have.
        child.signal(signal.SIGKILL)
    await asyncio.gather(*(child.wait() for child in alive))


def listen_on_loopback(port: int, setting: str = "PORT") -> socket.socket:
    """0 is any free port. `setting` is what to change if it is taken."""
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets that name it; without
    # it every answer of two writes waits 40 ms for a delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise CannotRun(
            f"Port {port} cannot be used ({error.strerror}): stop what listens there,"
            f" or choose another one: {setting}={port + 1} make run"
        ) from error
    return listener


def free_port() -> int:
    with listen_on_loopback(0) as probe:
        port: int = probe.getsockname()[1]
        return port


async def until_it_answers(child: Child, port: int, path: str, timeout_s: float) -> None:
    """Waits for status 200 of a server that has just been started."""
    give_up = time.monotonic() + timeout_s
    while True:
        if child.ended:
            raise CannotRun(f"{child.name} has ended at its start; see {child.log}.")
        if await _status(port, path) == 200:
            return
        if time.monotonic() > give_up:
            raise CannotRun(
                f"{child.name} did not answer within {timeout_s:.0f} s; see {child.log}."
            )
        await asyncio.sleep(0.03)


async def _status(port: int, path: str) -> int:
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
                line = await reader.readline()
                return int(line.split()[1])
            finally:
                writer.close()
    except (OSError, IndexError, ValueError):
        return 0
