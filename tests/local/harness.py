"""Loopback servers and function processes for the tests of the local stack."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from local.http1 import Handler, Server
from local.pool import Pool
from local.sandbox import Program

ROOT = Path(__file__).parents[2]
STREAM_LAYER = ROOT / "layers/stream"
NOBODY = 65534
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="to become another user needs root")


def run(test: Coroutine[Any, Any, None]) -> None:
    """A test's own event loop, with an end to it."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(limited())


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    server = Server(handler)
    try:
        yield await server.start()
    finally:
        await server.stop()


async def exchange(port: int, sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        writer.close()


def program(
    directory: Path, source: str, *, streams: bool = False, timeout_s: float = 10
) -> Program:
    """A function made of `source`, on the runtime that the template would give it."""
    directory.mkdir(exist_ok=True)
    (directory / "app.py").write_text(source)
    stock = (sys.executable, "-m", "awslambdaric", "app.handler")
    streaming = (str(STREAM_LAYER / "start-stream-runtime"), sys.executable, "bootstrap.py")
    return Program(
        name="TestFunction",
        arn="arn:aws:lambda:us-east-1:000000000000:function:test",
        argv=streaming if streams else stock,
        env={
            "PATH": os.defpath,
            "_HANDLER": "app.handler",
            "LAMBDA_TASK_ROOT": str(directory),
            "AWS_LAMBDA_FUNCTION_NAME": "test",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        cwd=directory,
        log=directory / "log",
        timeout_s=timeout_s,
    )


@asynccontextmanager
async def pool_of(what: Program, *, most: int = 4, wait_s: float = 0.3) -> AsyncIterator[Pool]:
    async def no_credentials() -> dict[str, str]:
        return {}

    pool = Pool(what, no_credentials, asyncio.Semaphore(2), most=most, wait_s=wait_s)
    try:
        yield pool
    finally:
        await pool.stop()


def event(**told: Any) -> bytes:
    return json.dumps(told).encode()


async def until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def as_nobody(port: int) -> bytes:
    """What another user of this machine gets from that port."""
    call = ["curl", "--silent", "--max-time", "5", f"http://127.0.0.1:{port}/"]
    ended = subprocess.run(call, user=NOBODY, cwd="/", stdout=subprocess.PIPE, check=False)
    assert ended.returncode != 7, "nobody listens"
    return ended.stdout
