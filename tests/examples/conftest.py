"""The examples as `make example` starts them, each on a port of its own, in front of one stack."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

from local import CannotRun, example, install, processes
from tests.browser.conftest import QUIET, Visitor
from tests.provider import FakeProvider
from tests.stack.conftest import LIFTED, Stack, operator_of, start
from weir.operator.documents import LimitsDocument, ProjectChange, parsed
from weir.projects.limits import BUILT_IN

PRODUCTION = "nextjs as built"


def _free_ports() -> Iterator[int]:
    """Yield ports below those that systems give to outgoing connections: they have to be known
    when the stack starts, and free until the example does, minutes later.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(CannotRun), processes.listen_on_loopback(port):
            yield port


PORTS = dict(zip([*example.BY_NAME, PRODUCTION], _free_ports(), strict=False))
STARTS_WITHIN_S = 120


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    path = install.chromium()
    if path is None:
        pytest.fail(install.NEEDS_CHROMIUM)
    return {**browser_type_launch_args, "executable_path": path, "args": QUIET}


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    fake = FakeProvider()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def stack(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start(
        tmp_path_factory.mktemp("examples"),
        upstream=provider.url,
        # By this name only: at 127.0.0.1 an example is a page of an origin that is not listed.
        ALLOWED_ORIGINS=",".join(f"http://localhost:{port}" for port in PORTS.values()),
        WEIR_PARAM_NextKeyMinimumAgeSeconds="0",
    ) as running:
        _limit_every_user(running)
        yield running


def _limit_every_user(stack: Stack) -> None:
    """Give every user a limit that no test reaches, so that a page has something to show."""
    limits = {"requests_per_day": 10_000}
    operator = operator_of(stack)
    operator.update_project("default", parsed(ProjectChange, {"user_limits": limits}))
    for tier in BUILT_IN:
        operator.set_tier(
            "default", tier, parsed(LimitsDocument, {**dict.fromkeys(LIFTED), **limits})
        )


@pytest.fixture(scope="session")
def base_url() -> None:
    """No address: each example has its own."""


@dataclass(frozen=True)
class Running:
    name: str
    stack: Stack
    log: Path

    @property
    def url(self) -> str:
        return f"http://localhost:{PORTS[self.name]}"

    @property
    def elsewhere(self) -> str:
        """The same page, by a name whose origin the gateway does not list."""
        return f"http://127.0.0.1:{PORTS[self.name]}"


@contextlib.contextmanager
def start_example(name: str, stack: Stack) -> Iterator[Running]:
    """The example's server, as `make example` starts it."""
    chosen = example.BY_NAME[name]
    with serving(name, stack, [*example.prepare(chosen), str(PORTS[name])], chosen) as running:
        yield running


@contextlib.contextmanager
def serving(
    name: str, stack: Stack, command: list[str], chosen: example.Example
) -> Iterator[Running]:
    """What `command` serves on the port of `name`, from the example's folder."""
    log = stack.directory / "logs" / f"example-{name}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=chosen.folder,
            env=example.environment(chosen, stack.env, PORTS[name]),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        running = Running(name, stack, log)
        try:
            _wait(running, process)
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait(running: Running, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(running.url, timeout=60).status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail(f"{running.name} did not start:\n{running.log.read_text()}")


@pytest.fixture(scope="session")
def examples(stack: Stack) -> Iterator[Callable[[str], Running]]:
    """Start an example once, for all tests of it."""
    with contextlib.ExitStack() as started:
        known: dict[str, Running] = {}

        def get(name: str) -> Running:
            if name not in known:
                known[name] = started.enter_context(start_example(name, stack))
            return known[name]

        yield get


@pytest.fixture
def visitor(page: Page, stack: Stack) -> Visitor:
    page.set_default_timeout(15_000)
    visitor = Visitor(page, stack)
    page.on("request", lambda request: visitor.requests.append(request))
    page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            visitor.console_errors.append(message.text) if message.type == "error" else None
        ),
    )
    return visitor
