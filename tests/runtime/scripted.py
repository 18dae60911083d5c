"""A Lambda Runtime API that plays a script and keeps every byte it got, with the time it came.

The runtime under test is a real process, started through its wrapper script. When the script is
played out and the runtime asks for more, the server goes away: then the runtime has to end too.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRAPPER = Path(__file__).parents[2] / "layers" / "stream" / "start-stream-runtime"
RUNTIME = "/2018-06-01/runtime"


@dataclass
class Invocation:
    """What /next hands out, and how the answer to it is taken."""

    event: bytes = b"{}"
    request_id: str = "request-1"
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 202  # of the answer to /response and /error
    # After the first chunk: "answer" early with `status`, "reset" the connection, stay and read
    # nothing more ("deaf"), or read a little now and then ("drip").
    leave: str = ""
    raw_next: bytes = b""  # instead of a well-formed answer to /next
    chunked_next: bool = False

    def next_answer(self) -> bytes:
        if self.raw_next:
            return self.raw_next
        headers = {
            "Lambda-Runtime-Aws-Request-Id": self.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 60_000),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:1:function:f",
            **self.headers,
        }
        body = self.event
        if self.chunked_next:
            headers["Transfer-Encoding"] = "chunked"
            half = len(body) // 2
            pieces = [b"%X\r\n%b\r\n" % (len(p), p) for p in (body[:half], body[half:]) if p]
            body = b"".join([*pieces, b"0\r\n\r\n"])
        else:
            headers["Content-Length"] = str(len(body))
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Exchange:
    """One request of the runtime. `arrivals` are the pieces as they came: (seconds, bytes)."""

    arrivals: list[tuple[float, bytes]]

    @property
    def raw(self) -> bytes:
        return b"".join(data for _, data in self.arrivals)

    @property
    def line(self) -> str:
        method, path, _ = self.raw.split(b"\r\n", 1)[0].decode().split(" ")
        return f"{method} {path.removeprefix(RUNTIME)}"

    @property
    def headers(self) -> dict[str, str]:
        head = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        pairs = [line.split(": ", 1) for line in head]
        return {name.lower(): value for name, value in pairs}

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def chunks(self) -> list[bytes]:
        return decode_chunks(self.body)[0]

    @property
    def trailers(self) -> dict[str, str]:
        return decode_chunks(self.body)[1]

    @property
    def prelude(self) -> Any:
        return json.loads(self.chunks[0].split(b"\0" * 8, 1)[0])

    @property
    def stream(self) -> bytes:
        """What the client of the function would read."""
        return b"".join(self.chunks).split(b"\0" * 8, 1)[1]

    def complete(self) -> bool:
        _, end, body = self.raw.partition(b"\r\n\r\n")
        if not end:
            return False
        if "transfer-encoding" in self.headers:
            return decode_chunks(body)[2]
        return len(body) >= int(self.headers.get("content-length", "0"))


def decode_chunks(body: bytes) -> tuple[list[bytes], dict[str, str], bool]:
    """Chunks, trailers, whether the body has ended. A wrong frame is an AssertionError."""
    chunks: list[bytes] = []
    while True:
        size_line, end, rest = body.partition(b"\r\n")
        if not end:
            return chunks, {}, False
        size = int(size_line, 16)
        if size == 0:
            break
        if len(rest) < size + 2:
            return chunks, {}, False
        assert rest[size : size + 2] == b"\r\n"
        chunks.append(rest[:size])
        body = rest[size + 2 :]
    if not rest.endswith(b"\r\n"):
        return chunks, {}, False
    lines = rest.decode("ascii").split("\r\n")
    if rest != b"\r\n" and not rest.endswith(b"\r\n\r\n"):
        return chunks, {}, False
    return chunks, dict(line.split(": ", 1) for line in lines if line), True


class ScriptedApi:
    def __init__(self, script: list[Invocation], statuses: dict[str, int]) -> None:
        self.exchanges: list[Exchange] = []
        self.idle = threading.Event()
        self._script: queue.SimpleQueue[Invocation] = queue.SimpleQueue()
        for invocation in script:
            self._script.put(invocation)
        self._by_id = {invocation.request_id: invocation for invocation in script}
        self._statuses = statuses
        self._done = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self._done.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=[connection], daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            exchange = Exchange([])
            connection.settimeout(10)
            invocation: Invocation | None = None
            while not exchange.complete():
                data = connection.recv(1 << 20)
                if not data:
                    break
                exchange.arrivals.append((time.monotonic(), data))
                if len(exchange.arrivals) == 1:
                    self.exchanges.append(exchange)
                invocation = self._by_id.get(exchange.line.split("/")[2:3][0])
                if invocation and invocation.leave and exchange.line.endswith("/response"):
                    self._leave(connection, invocation)
                    return
            self._answer(connection, exchange, invocation)

    def _leave(self, connection: socket.socket, invocation: Invocation) -> None:
        if invocation.leave == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if invocation.leave in ("deaf", "drip"):
            while not self._done.wait(0.05):
                if invocation.leave == "drip":
                    connection.recv(1024)
            return
        connection.sendall(answer(invocation.status))
        self._done.wait(8)  # the connection stays open: only the answer tells

    def _answer(
        self, connection: socket.socket, exchange: Exchange, invocation: Invocation | None
    ) -> None:
        if exchange.line == "GET /invocation/next":
            if self._script.empty():
                self.idle.set()
                self._done.wait(10)
                return
            connection.sendall(self._script.get().next_answer())
            return
        expected = 200 if exchange.line.startswith("GET") else 202
        expected = invocation.status if invocation else expected
        connection.sendall(answer(self._statuses.get(exchange.line, expected)))


def answer(status: int) -> bytes:
    return b"HTTP/1.1 %d Scripted\r\nContent-Length: 2\r\n\r\n{}" % status


@dataclass
class Played:
    exchanges: list[Exchange]
    output: str
    exit_code: int
    seconds: float

    @property
    def lines(self) -> list[str]:
        return [exchange.line for exchange in self.exchanges]

    def one(self, line: str) -> Exchange:
        found = [exchange for exchange in self.exchanges if exchange.line == line]
        assert len(found) == 1, f"{line} in {self.lines}\n{self.output}"
        return found[0]

    def response(self, request_id: str = "request-1") -> Exchange:
        return self.one(f"POST /invocation/{request_id}/response")

    def error(self, request_id: str = "request-1") -> Exchange:
        return self.one(f"POST /invocation/{request_id}/error")

    @property
    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]


def environment(task: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "LAMBDA_TASK_ROOT": str(task), "_HANDLER": "app.handler", **more}


def play(
    task: Path,
    source: str,
    *script: Invocation,
    statuses: dict[str, int] | None = None,
    wrapper: Path = WRAPPER,
    env: dict[str, str] | None = None,
) -> Played:
    """Runs `source` as app.py under the runtime until the script is played out."""
    (task / "app.py").write_text(textwrap.dedent(source))
    api = ScriptedApi(list(script), statuses or {})
    started = time.monotonic()
    process = subprocess.Popen(
        [str(wrapper), sys.executable, "ignored-bootstrap.py"],
        env=environment(task, **{"AWS_LAMBDA_RUNTIME_API": api.address, **(env or {})}),
        cwd=task,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        while not api.idle.wait(0.01) and process.poll() is None:
            assert time.monotonic() - started < 10, api.exchanges
        api.close()
        output, _ = process.communicate(timeout=5)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    return Played(api.exchanges, output.decode(), process.returncode, time.monotonic() - started)
