"""The fake provider listens, keeps what it was sent, and answers as a test or the request says."""

import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.provider.answers import Answer, Exchange, changed
from tests.provider.dialects import DIALECTS
from tests.provider.inputs import INPUTS
from tests.provider.wire import Request, Script, Server


class FakeProvider(Server):
    """`scripts` answer the first requests, one each: an Answer, or a function that gets the bare
    connection, which is closed when it returns. Later requests say themselves how to be answered.
    """

    def __init__(self, *scripts: Answer | Script, tls: ssl.SSLContext | None = None) -> None:
        self.scripts = deque(scripts)
        self.received: list[bytes] = []  # requests as they came
        self.requests: list[dict[str, Any]] = []  # their bodies
        self.headers: list[dict[str, str]] = []
        self.busy = 0  # requests that are being answered
        self.left = threading.Event()  # a peer hung up before its answer had ended
        self.does: dict[str, Any] = {}  # for every request, whatever its message says
        self.points: dict[str, Callable[[], object]] = {}
        self._first: set[str] = set()  # what has been answered by its `first`
        super().__init__(tls=tls)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}/v1"

    def answer(self, request: Request, connection: socket.socket) -> bool:
        asked = json.loads(request.body)
        self.received.append(request.raw)
        self.requests.append(asked)
        self.headers.append(request.headers)
        script = self.scripts.popleft() if self.scripts else self._as_told(request.path, asked)
        self.busy += 1
        try:
            if isinstance(script, Answer):
                return Exchange(script, connection, self).play()
            script(connection)
            return False
        except OSError:
            self.left.set()
            raise
        finally:
            self.busy -= 1

    def _as_told(self, path: str, asked: dict[str, Any]) -> Answer:
        of_inputs = INPUTS.get(path.partition("?")[0].rpartition("/")[2])
        try:
            told = asked["input"] if of_inputs else asked["messages"][-1]["content"]
            how = self.does or json.loads(told[0] if isinstance(told, list) else told)
            named = how.get("do")
        except (ValueError, TypeError, AttributeError, KeyError):
            how, named = {}, None
        if of_inputs and named is None:
            return changed(of_inputs(asked, how), how)
        if "first" in how and (text := json.dumps(how)) not in self._first:
            self._first.add(text)
            how = how["first"]
            named = how["do"]
        dialect = DIALECTS[named or ("stream" if asked.get("stream") else "whole")]
        return changed(dialect(how), how)
