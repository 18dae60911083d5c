"""A model provider that misbehaves on request: the last message says how, as a JSON object.

`does` is done to every request instead, whatever its message says. `steps` are done one after the
other; a step {"point": name} lets happen what a test has put into `points`.
"""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    body = {
        "id": "theirs",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake-large",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


class FakeProvider(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.busy = 0  # requests that are being answered
        self.left = threading.Event()  # a peer hung up before its answer had ended
        self.does: dict[str, Any] = {}
        self.points: dict[str, Callable[[], object]] = {}
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """A peer that hangs up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeProvider

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(asked)
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        try:
            how = json.loads(asked["messages"][-1]["content"])
        except (ValueError, TypeError):
            how = {}
        how = self.server.does or how
        behave = BEHAVIOURS[how.get("do", "stream" if asked.get("stream") else "whole")]
        self.server.busy += 1
        try:
            behave(self, how)
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.set()
            self.close_connection = True
        finally:
            self.server.busy -= 1

    # ------------------------------------------------------------ ways to answer

    def answer(self, status: int, media_type: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def hang(self) -> None:
        """Until the peer hangs up."""
        self.connection.settimeout(30)
        with contextlib.suppress(OSError):
            while self.connection.recv(1):
                pass
        self.server.left.set()
        self.close_connection = True

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _stream(to: _Handler, how: dict[str, Any]) -> None:
    to.begin()
    for number in range(how.get("chunks", 5)):
        to.send(chunk(how.get("text", f"w{number} ")))
        time.sleep(how.get("gap_s", 0.01))
    to.send(chunk(None, "stop"))
    to.send(
        b"data: " + json.dumps({"id": "theirs", "choices": [], "usage": USAGE}).encode() + b"\n\n"
    )
    to.send(b"data: [DONE]\n\n")
    to.end()


def _whole(to: _Handler, how: dict[str, Any]) -> None:
    if "point" in how:
        to.server.points[how["point"]]()
    message = {"role": "assistant", "content": how.get("text", "Hello!")}
    body = {
        "id": "theirs",
        "object": "chat.completion",
        "created": 1,
        "model": "fake-large",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": how.get("usage", USAGE),
    }
    to.answer(200, "application/json", json.dumps(body).encode())


def _fail(to: _Handler, how: dict[str, Any]) -> None:
    body = json.dumps({"error": {"message": how.get("message", "no"), "code": how.get("code")}})
    retry = {"Retry_After": how["retry_after"]} if "retry_after" in how else {}
    to.answer(how["status"], how.get("type", "application/json"), body.encode(), **retry)


def _cut(to: _Handler, how: dict[str, Any]) -> None:
    to.begin()
    to.send(chunk("begun"))
    time.sleep(0.1)
    to.send(chunk("never whole")[:25])
    to.wfile.flush()
    {"reset": to.reset, "close": lambda: setattr(to, "close_connection", True), "end": to.end}[
        how["how"]
    ]()


def _silent(to: _Handler, how: dict[str, Any]) -> None:
    if how.get("begin"):
        to.begin()
        to.send(chunk("begun"))
    if "seconds" in how:
        time.sleep(how["seconds"])
        _stream(to, {})
    else:
        to.hang()


def _frames(to: _Handler, how: dict[str, Any]) -> None:
    to.begin()
    time.sleep(how.get("silent_s", 0))
    for frame in how["frames"]:
        to.send(frame.encode())
        time.sleep(0.02)
    to.end()


def _steps(to: _Handler, how: dict[str, Any]) -> None:
    """The head leaves with the first thing that is sent, and not before."""
    begun = False
    for step in how["steps"]:
        ((what, value),) = step.items()
        if what == "point":
            to.server.points[value]()
            continue
        if not begun:
            to.begin()
            begun = True
        if what == "text":
            to.send(chunk(value))
        elif what == "finish":
            to.send(chunk(None, value))
        elif what == "usage":
            told = {"id": "theirs", "choices": [], "usage": USAGE}
            to.send(b"data: " + json.dumps(told).encode() + b"\n\n")
        elif what == "done":
            to.send(b"data: [DONE]\n\n")
    to.end()


BEHAVIOURS: dict[str, Callable[[_Handler, dict[str, Any]], None]] = {
    "stream": _stream,
    "whole": _whole,
    "fail": _fail,
    "html": lambda to, how: to.answer(200, "text/html", b"<html>a proxy's page</html>"),
    "empty": lambda to, how: to.answer(200, "text/event-stream", b""),
    "reset": lambda to, how: to.reset(),
    "cut": _cut,
    "silent": _silent,
    "frames": _frames,
    "steps": _steps,
}
