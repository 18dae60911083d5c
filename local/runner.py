"""Starts everything in order, says when it is ready, and ends everything: the second half of `make
run`.

Runs in .venv's interpreter, after local/install.py has made what it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from cli.dotenv import read_env
from local import (
    CannotRun,
    control,
    embedded_aws,
    first_use,
    functions,
    page,
    page_build,
    peers,
    processes,
    seed,
    template,
)
from local.authorizer import CognitoAuthorizer
from local.embedded_aws import REGION, RoleCredentials, Stack
from local.events import Place
from local.gateway import Gateway
from local.http1 import Server
from local.pool import Pool
from local.processes import Child
from local.queues import Queues
from local.rotation import RotationFailed, Rotations
from local.sandbox import InvocationFailed
from local.schedules import Schedules
from local.settings import ROOT, Settings, Upstream
from local.streams import Streams
from weir.errors import Refusal

MODEL = "smollm2-135m"
# The model itself reaches 8,192; its server keeps a cache for as many as it is started with.
MODEL_CONTEXT_TOKENS = 4096
# Where dev servers listen: Vite, Next.js and those of examples/.
DEVELOPMENT_PORTS = (5173, 3000, 3001, 3002, 8000)
# Starting a process is all processor time.
STARTS_AT_ONCE = max(2, os.cpu_count() or 1)
# What is asked to end gets so long before it is killed; all together five seconds are promised.
GRACE_S = 1.0


@dataclass
class Running:
    """What has been started so far, so that it can be ended whatever happens."""

    children: list[Child] = field(default_factory=list)
    pools: dict[str, Pool] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    model: tuple[Child, int] | None = None
    claim: IO[str] | None = None

    async def stop(self) -> None:
        for server in self.servers:
            await server.stop()
        await asyncio.gather(
            processes.stop(self.children, GRACE_S), *(pool.stop() for pool in self.pools.values())
        )


async def run(asked: Settings) -> None:
    """Until a signal. Raises CannotRun if it cannot start, or if a part of it dies."""
    running = Running()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stopping.is_set():  # the second Ctrl-C: the kernel ends what we started
            os._exit(1)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    work = asyncio.ensure_future(_start_and_watch(asked, running))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():
            with contextlib.suppress(OSError):  # of a pipe whose reader the Ctrl-C has ended, too
                os.write(sys.stdout.fileno(), b"\nEnding.\n")
        else:
            await work
    finally:
        work.cancel()
        await asyncio.wait({work})
        stop.cancel()
        await running.stop()


async def _start_and_watch(asked: Settings, running: Running) -> None:
    began = time.monotonic()
    # From the first moment on: who calls early waits in the queue until everything is ready.
    listener = processes.listen_on_loopback(asked.port)
    page_listener = _listen_for_page(asked)
    running.claim = _claim(asked.directory)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    logs = _prepare(asked.directory)
    source = template.load(ROOT / "template.yaml")
    # What is not understood is told before anything starts.
    scheduled, sources = template.schedules(source), template.event_sources(source)
    queued = template.queue_sources(source)
    upstream = await _upstream(asked, running)
    seed.model_entry(upstream)  # without a price nothing needs to start
    origins = _origins(asked, listener, page_listener)
    endpoint = await _embedded_aws(asked, running, origins)
    stack = await asyncio.to_thread(embedded_aws.deploy, endpoint, source, asked.parameters)
    _make_pools(asked, running, source, stack, logs)
    rotations = Rotations(template.rotations(source), running.pools, stack)
    schedules = Schedules(scheduled, running.pools, stack, _log_to(logs / "schedules.log"))
    streams = Streams(sources, running.pools, stack, _log_to(logs / "streams.log"))
    queues = Queues(queued, running.pools, stack, _log_to(logs / "queues.log"))
    env_file = asked.directory / "env"
    kept = read_env(env_file) or {}
    _, _, _, credentials = await asyncio.gather(
        _first_rotation(rotations),
        _warm(
            [
                pool
                for name, pool in running.pools.items()
                # Nobody waits for what a schedule or a stream runs.
                if not any(by.uses(name) for by in (rotations, schedules, streams, queues))
            ]
        ),
        _model_ready(running),
        asyncio.to_thread(_set_up, asked, stack, upstream, origins, kept),
    )
    first_use.write_env(
        env_file,
        first_use.env_values(stack, url, origins[0], credentials, seed.model_name(upstream.model)),
    )
    commands = control.Control(running.pools, rotations, schedules, streams)
    await _open(running, stack, listener, asked, commands)
    model = f"{upstream.model}, " + (
        f"at {upstream.base_url}" if asked.upstream else "embedded: real, but small and not clever"
    )
    page_url = await _open_page(running, stack, page_listener, url, asked.allowed_hosts)
    told = first_use.banner(url, page_url, credentials, model, env_file)
    print(told, flush=True)
    print(f"Ready after {time.monotonic() - began:.1f} s.", flush=True)
    on_time = asyncio.gather(schedules.run(), streams.run(), queues.run())
    try:
        await asyncio.gather(_until_one_dies(running), on_time)
    finally:
        on_time.cancel()


def _set_up(
    asked: Settings, stack: Stack, upstream: Upstream, origins: list[str], kept: dict[str, str]
) -> first_use.Credentials | None:
    """What an operator would do next. Blocks."""
    if asked.empty:
        return None
    try:
        seed.set_up(stack, upstream, origins)
    except Refusal as refusal:
        raise CannotRun(f"The first project cannot be made. {refusal.message}") from None
    return first_use.make_credentials(stack, kept)


def _claim(directory: Path) -> IO[str]:
    """The folder is this process's alone until it ends, however it ends."""
    directory.mkdir(parents=True, exist_ok=True)
    claim = (directory / "run.lock").open("w")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        claim.close()
        raise CannotRun(
            f"Another `make run` uses {directory}: end it, or give this one a folder of its own:"
            " WEIR_LOCAL_DIR=..."
        ) from None
    return claim


def _prepare(directory: Path) -> Path:
    logs = directory / "logs"
    _tighten(directory)
    for scratch in ("tmp", "aws"):
        shutil.rmtree(directory / scratch, ignore_errors=True)
        (directory / scratch).mkdir(parents=True)
    logs.mkdir(exist_ok=True)
    for log in logs.glob("*.log"):
        if not log.name.startswith("install-"):
            log.unlink()
    return logs


def _tighten(directory: Path) -> None:
    """Close to others what an earlier release left open. The folder itself may not be ours."""
    for name in ("env", "run.lock", "control.sock", "logs", "image"):
        with contextlib.suppress(FileNotFoundError):
            path = directory / name
            path.chmod(0o700 if path.is_dir() else 0o600)
    for log in (directory / "logs").glob("*.log"):
        log.chmod(0o600)


async def _embedded_aws(asked: Settings, running: Running, origins: list[str]) -> str:
    """Starts it; returns its endpoint."""
    interpreter = ROOT / ".local/venv-aws/bin/python"
    child, port = await embedded_aws.start(interpreter, asked.directory, origins)
    running.children.append(child)
    return await embedded_aws.until_ready(child, port)


async def _upstream(asked: Settings, running: Running) -> Upstream:
    """The provider that was asked for, or the embedded model, which becomes ready meanwhile."""
    if asked.upstream is not None:
        return asked.upstream
    port, api_key = processes.free_port(), secrets.token_hex(16)
    python = ROOT / ".local/venv-model/bin/python"
    child = await processes.start(
        "The embedded model",
        [str(python), str(ROOT / "local/model_server.py"), str(port), str(MODEL_CONTEXT_TOKENS)],
        env={"PATH": os.defpath, "MODEL_API_KEY": api_key},
        cwd=asked.directory,
        log=asked.directory / "logs/model.log",
    )
    running.children.append(child)
    running.model = (child, port)
    return Upstream(
        f"http://127.0.0.1:{port}/v1",
        MODEL,
        api_key,
        "max_tokens",
        *seed.EMBEDDED_PRICES,
        hidden_reasoning=False,
        embeds=True,
        context_tokens=MODEL_CONTEXT_TOKENS,
    )


async def _model_ready(running: Running) -> None:
    if running.model is not None:
        await processes.until_it_answers(*running.model, "/health", 60)


def _origins(asked: Settings, gateway: socket.socket, page: socket.socket | None) -> list[str]:
    """Of the example page, of where front ends run while they are written, and the gateway's."""
    if asked.allowed_origins:
        return [origin.strip() for origin in asked.allowed_origins.split(",")]
    ports = [page.getsockname()[1] if page else 5173, *DEVELOPMENT_PORTS, gateway.getsockname()[1]]
    # To a browser the two names are two origins.
    return [
        f"http://{host}:{port}"
        for port in dict.fromkeys(ports)
        for host in ("localhost", "127.0.0.1")
    ]


def _make_pools(
    asked: Settings, running: Running, source: template.Template, stack: Stack, logs: Path
) -> None:
    image = functions.Image(ROOT, asked.directory, Path(sys.executable))
    starting = asyncio.Semaphore(STARTS_AT_ONCE)
    for logical_id, function in template.functions(source, ROOT).items():
        configuration = stack.functions[logical_id]
        running.pools[logical_id] = Pool(
            functions.program(function, configuration, stack, image, logs, asked.environment),
            RoleCredentials(stack.endpoint, configuration),
            starting,
            most=asked.most_processes,
            wait_s=asked.wait_s,
        )


async def _warm(pools: list[Pool]) -> None:
    try:
        await asyncio.gather(*(pool.warm() for pool in pools))
    except InvocationFailed as error:
        raise CannotRun(f"A function does not start: {error}") from error


async def _first_rotation(rotations: Rotations) -> None:
    try:
        await rotations.run_now()
    except RotationFailed as error:
        raise CannotRun(
            f"The first rotation, which makes the signing keys, failed at {error}"
        ) from error


async def _open(
    running: Running,
    stack: Stack,
    listener: socket.socket,
    asked: Settings,
    commands: control.Control,
) -> None:
    api = template.read_api(stack.processed, stack.parameters)
    authorizers = {
        name: CognitoAuthorizer(stack.endpoint, REGION, stack.resources[pool])
        for name, pool in api.authorizers.items()
    }
    deployment = next(
        (v for k, v in stack.resources.items() if k.startswith(f"{api.logical_id}Deployment")), ""
    )
    place = Place(stack.account, stack.resources[api.logical_id], api.stage, REGION, deployment)
    say = _log_to(asked.directory / "logs/gateway.log")
    gateway = Gateway(api, place, running.pools, authorizers, say)
    for handler, socket_ in (
        (commands, control.listen(asked.directory / "control.sock")),
        (peers.for_hosts(gateway, asked.allowed_hosts), listener),
    ):
        server = Server(handler)
        running.servers.append(server)
        await server.start(socket_)


def _log_to(path: Path) -> Callable[[str], None]:
    log = path.open("a", buffering=1)
    return lambda line: print(line, file=log)


def _listen_for_page(asked: Settings) -> socket.socket | None:
    if asked.page_port is None or not page_build.is_current():
        return None
    return processes.listen_on_loopback(asked.page_port, "PAGE_PORT")


async def _open_page(
    running: Running,
    stack: Stack,
    listener: socket.socket | None,
    url: str,
    allowed_hosts: Sequence[str],
) -> str | None:
    """Returns its address."""
    if listener is None:
        return None
    addresses = page.config(url, stack.outputs["UserPoolClientId"], stack.endpoint)
    if "SignInDomain" in stack.outputs:
        addresses["VITE_COGNITO_DOMAIN"] = stack.endpoint
    server = Server(peers.for_hosts(page.Page(page_build.PAGE, addresses), allowed_hosts))
    running.servers.append(server)
    return f"http://localhost:{await server.start(listener)}"


async def _until_one_dies(running: Running) -> None:
    waits = {asyncio.ensure_future(child.wait()): child for child in running.children}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    child = waits[done.pop()]
    raise CannotRun(f"{child.name} has ended by itself; see {child.log}.")


def _forget_the_operators_shell() -> None:
    """No AWS settings, and no proxy: this process speaks to loopback only."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull


def main(asked: Settings) -> int:
    os.umask(0o077)  # logs, settings and the embedded AWS's files are this user's alone
    _forget_the_operators_shell()
    try:
        asyncio.run(run(asked))
    except template.NotUnderstood as error:
        raise CannotRun(f"The local gateway does not understand the template: {error}") from error
    return 0
