"""Passes requests on to the gateway, and keeps when each came and how it was answered."""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from dataclasses import dataclass

import httpx

from tests.provider.wire import Request, Server

# Of one connection only, or not true of what httpx hands over.
OF_ONE_CONNECTION = {
    "connection",
    "content-encoding",
    "content-length",
    "host",
    "transfer-encoding",
}


@dataclass(frozen=True)
class Attempt:
    at: float  # time.monotonic() when it came
    status: int


class Front(Server):
    """`attempts` and `refused` are by the request's token."""

    def __init__(self, url: str) -> None:
        self.attempts: dict[str, list[Attempt]] = defaultdict(list)
        self.refused: dict[str, threading.Event] = {}  # set at the first 429
        self._http = httpx.Client(base_url=url, timeout=60)
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, request: Request, connection: socket.socket) -> bool:
        at = time.monotonic()
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        headers = {k: v for k, v in request.headers.items() if k not in OF_ONE_CONNECTION}
        reply = self._http.request(
            request.method, request.path, headers=headers, content=request.body
        )
        if request.method == "POST":
            self.attempts[token].append(Attempt(at, reply.status_code))
        if reply.status_code == 429 and token in self.refused:
            self.refused[token].set()
        lines = [f"HTTP/1.1 {reply.status_code} {reply.reason_phrase}"]
        lines += [
            f"{name}: {value}"
            for name, value in reply.headers.multi_items()
            if name not in OF_ONE_CONNECTION
        ]
        if reply.status_code != 204:
            lines.append(f"Content-Length: {len(reply.content)}")
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + reply.content)
        return True

    def close(self) -> None:
        super().close()
        self._http.close()
