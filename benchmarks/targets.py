"""What is measured: how each is started, asked and ended. To add one, write a class like these and
add it to `all_targets`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks import ROOT, STATE, CannotMeasure, store, wire
from benchmarks.authority import HOST, Authority
from benchmarks.environment import Environment
from benchmarks.store import Credentials
from benchmarks.wire import Answer, now
from local.processes import dies_with_us, free_port

START_S = 30.0
_HERE = Path(__file__).resolve().parent
# CPUCLOCK_SCHED of MAKE_PROCESS_CPUCLOCK in Linux: nanoseconds of all threads, ended ones included.
_CPU_CLOCK = 2


@dataclass(frozen=True)
class Place:
    """What all of them are given."""

    environment: Environment
    upstream_port: int
    store: str
    credentials: Credentials
    authority: Authority | None  # of the provider's certificate; None: it speaks plaintext

    @property
    def upstream(self) -> str:
        if self.authority is None:
            return f"http://127.0.0.1:{self.upstream_port}"
        return f"https://{HOST}:{self.upstream_port}"


@dataclass(frozen=True)
class Ask:
    chunks: int
    gap_s: float = 0.0
    whole_bytes: int = 0  # not as a stream, and with so much content

    def body(self) -> dict[str, Any]:
        how = json.dumps(asdict(self))
        messages = [
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": how},
        ]
        return {"model": "default", "messages": messages, "stream": not self.whole_bytes}


class Target(Protocol):
    name: str

    def start(self) -> None: ...

    def until_ready(self) -> None:
        """Wait until a request would not have to wait for the start."""

    def ask(self, ask: Ask) -> tuple[int, Answer]:
        """When the request left, and the whole answer. The first one also waits for the start."""

    def process(self) -> Process | None:
        """None: there is nothing between the client and the provider."""

    def stop(self) -> None: ...


class Process:
    """One program, ended with us whatever happens."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self.log = STATE / "logs" / f"{name}.log"
        with self.log.open("ab") as output:
            self.began = now()
            self._popen = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=dies_with_us(),
            )
        self.pid = self._popen.pid

    def cpu_ns(self) -> int:
        return time.clock_gettime_ns(((~self.pid) << 3) | _CPU_CLOCK)

    def memory_kb(self, field: str = "VmRSS") -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
        raise CannotMeasure(f"process {self.pid} has ended")

    def freeze(self) -> None:
        """Stop it, as Lambda freezes a process between two invocations."""
        self._popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._popen.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()


class Http:
    """Whatever answers HTTP on a port: one connection, kept."""

    name = "direct"

    def __init__(self, place: Place, port: int) -> None:
        self.place, self.port = place, port
        self._tls: ssl.SSLContext | None = None
        self._connection: socket.socket | None = None

    def start(self) -> None:
        pass

    def process(self) -> Process | None:
        return None

    def until_ready(self) -> None:
        if self._connection is not None and wire.has_ended(self._connection):
            self._connection.close()  # servers close a connection that was idle for seconds
            self._connection = None
        if self._connection is None:
            self._connection = wire.connect(self.port, time.monotonic() + START_S)
            if self._tls is not None:
                self._connection = self._tls.wrap_socket(self._connection, server_hostname=HOST)

    def ask(self, ask: Ask) -> tuple[int, Answer]:
        body = json.dumps(ask.body()).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Bearer {self.place.credentials.token}\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.until_ready()
        assert self._connection is not None
        asked = now()
        self._connection.sendall(head.encode() + body)
        return asked, wire.take_apart(wire.read(self._connection))

    def stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Direct(Http):
    """The provider itself."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, place.upstream_port)
        if place.authority is not None:
            self._tls = place.authority.client_context()


class _Started(Http):
    """An HTTP server of ours."""

    _process: Process

    def process(self) -> Process:
        return self._process

    def stop(self) -> None:
        super().stop()
        self._process.stop()


class FastApi(_Started):
    name = "fastapi"

    def __init__(self, place: Place) -> None:
        super().__init__(place, free_port())

    def start(self) -> None:
        env = {
            "PATH": os.defpath,
            **store.aws_environment(self.place.store),
            "TABLE_NAME": store.TABLE,
            "PROVIDER_KEYS_SECRET": store.SECRET,
            "PROVIDER": store.UPSTREAM,
            "TOKEN_ISSUER": store.ISSUER,
            "TOKEN_AUDIENCE": "behest",
            "JWKS_URL": f"{self.place.upstream}/.well-known/jwks.json",
            "UPSTREAM_BASE_URL": f"{self.place.upstream}/v1",
        }
        if self.place.authority is not None:  # httpx and urllib honour it
            env["SSL_CERT_FILE"] = str(self.place.authority.bundle)
        argv = [str(self.place.environment.python), "-m", "uvicorn", "fastapi_relay:app"]
        argv += ["--host", "127.0.0.1", "--port", str(self.port)]
        argv += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        self._process = Process(self.name, argv, env, _HERE)


class Nginx(_Started):
    name = "nginx"

    def __init__(self, place: Place) -> None:
        super().__init__(place, free_port())

    def start(self) -> None:
        folder = STATE / "nginx-run"
        folder.mkdir(exist_ok=True)
        configuration = folder / "nginx.conf"
        temporary = "\n".join(
            f"{kind}_temp_path {folder};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration.write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
            "events { worker_connections 64; }\n"
            f"http {{ access_log {folder}/access.log; {temporary}\n"
            f"upstream provider {{ server 127.0.0.1:{self.place.upstream_port}; keepalive 4;\n"
            "keepalive_requests 1000000; keepalive_timeout 300s; }\n"
            f"server {{ listen 127.0.0.1:{self.port}; keepalive_requests 1000000;\n"
            f"location / {{ {self._to_provider()} proxy_http_version 1.1;\n"
            'proxy_set_header Connection ""; proxy_buffering off; } } }\n'
        )
        assert self.place.environment.nginx is not None
        argv = [str(self.place.environment.nginx), "-p", str(folder), "-c", str(configuration)]
        self._process = Process(self.name, argv, {"PATH": os.defpath}, folder)

    def _to_provider(self) -> str:
        if self.place.authority is None:
            return "proxy_pass http://provider;"
        return (
            f"proxy_pass https://provider; proxy_ssl_name {HOST}; proxy_ssl_server_name on;\n"
            f"proxy_ssl_trusted_certificate {self.place.authority.bundle}; proxy_ssl_verify on;\n"
            "proxy_ssl_protocols TLSv1.2 TLSv1.3;"
        )


class Weir:
    """The chat function as Lambda runs it: the layers' wrapper, the streaming runtime, the door."""

    name = "weir"

    def __init__(self, place: Place) -> None:
        self._place = place
        told = json.loads((ROOT / "events" / "chat.real.json").read_text())
        told["headers"]["Authorization"] = f"Bearer {place.credentials.token}"
        told["multiValueHeaders"]["Authorization"] = [told["headers"]["Authorization"]]
        self._event = told

    def start(self) -> None:
        self._api = wire.RuntimeApi()
        layers = self._place.environment.layers
        env = _lambda_environment("chat", self._api.address, self._place)
        argv = [str(layers / "start-stream-runtime"), str(self._place.environment.bare_python)]
        self._process = Process(self.name, [*argv, "bootstrap.py"], env, ROOT / "functions/chat")

    def process(self) -> Process:
        return self._process

    def until_ready(self) -> None:
        self._api.until_idle()

    def ask(self, ask: Ask) -> tuple[int, Answer]:
        event = json.dumps({**self._event, "body": json.dumps(ask.body())}).encode()
        asked, reading = self._api.invoke(event)
        self._api.until_idle()
        return asked, wire.take_apart(reading)

    def stop(self) -> None:
        self._process.stop()
        self._api.close()


def preflight_cold_start_ns(place: Place) -> int:
    """The stock runtime with the preflight function: process start to answer."""
    api = wire.RuntimeApi()
    env = _lambda_environment("preflight", api.address, place)
    argv = [str(place.environment.python), "-m", "awslambdaric", "app.handler"]
    process = Process("preflight", argv, env, ROOT / "functions" / "preflight")
    try:
        _, reading = api.invoke((ROOT / "events" / "preflight.real.json").read_bytes())
        answer = json.loads(wire.take_apart(reading).body)
        if answer["statusCode"] != 204:
            raise CannotMeasure(f"preflight answered {answer}")
        return reading.marks[-1][0] - process.began
    finally:
        process.stop()
        api.close()


def _lambda_environment(function: str, runtime_api: str, place: Place) -> dict[str, str]:
    code = ROOT / "functions" / function
    return {
        **store.aws_environment(place.store),
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_LAMBDA_FUNCTION_NAME": function,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "LAMBDA_TASK_ROOT": str(code),
        "_HANDLER": "app.handler",
        "PATH": os.defpath,
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": str(place.environment.layers / "python"),
        # Lambda's folders cannot be written, and functions/ is what is deployed.
        "PYTHONDONTWRITEBYTECODE": "1",
        "TENANT_ID": store.TENANT,
        "TABLE_NAME": store.TABLE,
        "STACK_NAME": "weir-bench",
        "PROVIDER_KEYS_SECRET": store.SECRET,
        "MAX_STREAM_S": "300",
    }


class Helper:
    """A process of ours that prints its port: the fake provider, or the distance to it."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=dies_with_us(),
        )
        assert self._popen.stdout is not None
        self.port = int(self._popen.stdout.readline())

    def stop(self) -> None:
        self._popen.kill()
        self._popen.wait()
        assert self._popen.stdout is not None
        self._popen.stdout.close()


def provider(jwks: Path, authority: Authority | None) -> Helper:
    certificate = [] if authority is None else [str(authority.server)]
    return Helper("benchmarks.upstream", str(jwks), *certificate)


def all_targets(place: Place) -> list[Target]:
    """In the order of the table's columns. The first one is what the others are compared with."""
    targets: list[Target] = [Direct(place)]
    if place.environment.nginx is not None:
        targets.append(Nginx(place))
    return [*targets, FastApi(place), Weir(place)]
