"""Runs a function under AWS's own Runtime Interface Emulator, a stranger to our reading of the API.

    with Rie(binary, task=folder_with_app_py) as rie:
        raw = rie.invoke({"some": "event"})

`raw` is what the runtime sent, undecoded: prelude, eight NULs, body. The emulator buffers a
response and drops its trailers, so it proves the protocol and says nothing about latency.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any

REPOSITORY = Path(__file__).parents[2]
WRAPPER = REPOSITORY / "layers" / "stream" / "start-stream-runtime"


def find_rie() -> Path | None:
    """The emulator ships inside aws-sam-cli, which has an environment of its own."""
    if named := os.environ.get("WEIR_RIE"):
        return Path(named) if Path(named).is_file() else None
    pattern = "lib/python3.*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64"
    return next(iter(sorted((REPOSITORY / ".venv-sam").glob(pattern))), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Rie:
    """`task` is the function's folder. `python` runs it: the tests' own interpreter by default."""

    def __init__(
        self,
        binary: Path,
        task: Path,
        *,
        handler: str = "app.handler",
        env: dict[str, str] | None = None,
        python: str = sys.executable,
        wrapper: Path = WRAPPER,
    ) -> None:
        self.port = free_port()
        addresses = {
            "--runtime-interface-emulator-address": f"127.0.0.1:{self.port}",
            "--runtime-api-address": f"127.0.0.1:{free_port()}",
        }
        options = [word for pair in addresses.items() for word in pair]
        self._command = [str(binary), *options, str(wrapper), python, handler]
        # No timeout variable: the emulator's default of 300 s holds unless the caller sets one.
        base = {"PATH": os.environ["PATH"], "LAMBDA_TASK_ROOT": str(task)}
        self._env, self._task = {**base, **(env or {})}, task

    def __enter__(self) -> Rie:
        self._log = TemporaryFile()  # closed in __exit__
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            cwd=self._task,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that __exit__ ends the function's process as well
        )
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.01)
        self.__exit__(None, None, None)
        raise RuntimeError(f"{self._command[0]} does not listen on port {self.port}")

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(5)
        self._log.close()

    def invoke(self, event: Any, timeout_s: float = 10) -> bytes:
        return self.request(event, timeout_s)[1]

    def request(self, event: Any, timeout_s: float = 10) -> tuple[int, bytes]:
        """The emulator's own status as well: 502 when runtime or function could not start."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            path = "/2015-03-31/functions/function/invocations"
            connection.request("POST", path, json.dumps(event).encode())
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    @property
    def log(self) -> str:
        """What emulator and function have written so far, mixed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")
