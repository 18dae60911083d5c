"""The running stack as published clients meet it, and what they showed."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from local import install
from tests.clients.capabilities import CAPABILITIES, ENDINGS, LEFT_WITHIN_S, Capability, Shown, Use
from tests.clients.front import Front
from tests.clients.scenarios import SCENARIOS, Outcome
from tests.provider import FakeProvider
from tests.stack.admin import UNLIMITED, Admin, bearer, mint
from tests.stack.conftest import ROOT, Stack, ask, start

HERE = Path(__file__).parent
CHAT = "/v1/chat/completions"
MODEL = "fake-large"
# Also how long a stream is held open meanwhile: less than MaxStreamSeconds.
CLIENTS_AT_MOST_S = 280


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    fake = FakeProvider()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def stack(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start(
        tmp_path_factory.mktemp("clients"),
        upstream=provider.url,
        WEIR_PARAM_NextKeyMinimumAgeSeconds="0",
    ) as running:
        yield running


Tasks = list[dict[str, Any]]
Run = Callable[[Tasks], list[dict[str, Any]]]  # does tasks, as run.py and run.mjs do
Outcomes = dict[tuple[str, str], Outcome]  # by the names of client and scenario
Uses = dict[tuple[str, str], Use]  # by the names of client and capability


def installed(age: str, language: str) -> Run:
    """Return what runs the clients of tests/clients/newest or older."""
    environment = install.ENVIRONMENTS[f"clients-{age}"]
    install.install(environment.name)
    if language == "python":
        command = [str(environment.directory / "bin/python"), "-m", "tests.clients.run"]
    else:
        # Node looks for packages from the folder of the file that imports them.
        for script in HERE.glob("*.mjs"):
            shutil.copy(script, environment.directory / "node")
        node, _ = install.node_of(environment)
        command = [node, str(environment.directory / "node/run.mjs")]

    def run(tasks: Tasks) -> list[dict[str, Any]]:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            input=json.dumps({"tasks": tasks}),
            capture_output=True,
            text=True,
            timeout=CLIENTS_AT_MOST_S,
        )
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    return run


@dataclass
class Matrix:
    """Takes clients through scenarios and capabilities, each once."""

    stack: Stack
    provider: FakeProvider
    front: Front
    admin: Admin
    origins: list[str] = field(default_factory=list)  # of pages that run clients
    streamed: dict[Any, Outcomes] = field(default_factory=dict)
    used: dict[Any, Uses] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def outcomes(self, age: str, language: str, clients: Iterable[str]) -> Outcomes:
        """Return what each of the clients showed of each scenario."""
        if (age, language) not in self.streamed:
            self.streamed[age, language] = self.stream(installed(age, language), clients)
        return self.streamed[age, language]

    def uses(self, age: str, language: str, clients: Iterable[str]) -> Uses:
        """Return what came of each of the capabilities with each of the clients."""
        if (age, language) not in self.used:
            self.used[age, language] = self.use(installed(age, language), clients)
        return self.used[age, language]

    def stream(self, run: Run, clients: Iterable[str]) -> Outcomes:
        tokens = {"unlimited": str(self.stack.mint()["token"])}
        tokens["out of quota"] = self._out_of_quota("u_1")
        key = self._key(concurrent_streams=1)
        tokens["too fast"] = mint(self.stack, key)
        with self._held(tokens["too fast"], threading.Event()):
            reported = run(
                [
                    {
                        "client": client,
                        "base_url": self.stack.env["BEHEST_BASE_URL"] + "/v1",
                        "token": tokens[scenario.user],
                        "scenario": scenario.request(),
                    }
                    for client in clients
                    for scenario in SCENARIOS
                ]
            )
        return {(one["client"], one["scenario"]): Outcome.parse(one["outcome"]) for one in reported}

    def use(
        self,
        run: Run,
        clients: Iterable[str],
        capabilities: Iterable[Capability] = CAPABILITIES,
    ) -> Uses:
        echo = self._key(default_model="mock-echo")
        slow = self._key(concurrent_streams=1)
        left: dict[str, float] = {}
        tasks: dict[tuple[str, str], dict[str, Any]] = {}
        with ExitStack() as held:
            for client, capability in itertools.product(clients, capabilities):
                point = f"use-{next(self.numbers)}"
                match capability.user:
                    case "echo":
                        token = mint(self.stack, echo, point)
                    case "too fast":
                        token = mint(self.stack, slow, point)
                        self.front.refused[token] = threading.Event()
                        held.enter_context(self._held(token, self.front.refused[token]))
                    case "out of quota":
                        token = self._out_of_quota(point)
                    case _:
                        token = str(self.stack.mint(point)["token"])
                self.provider.points[point] = partial(_note_time, left, point)
                # Only a connection of the client's own shows how it leaves.
                ends = capability.name in ENDINGS
                tasks[client, capability.name] = {
                    "client": client,
                    "capability": capability.name,
                    "url": self.stack.env["BEHEST_BASE_URL"] if ends else self.front.url,
                    "token": token,
                    "content": capability.content(point),
                    "id": point,
                }
            reported = run(list(tasks.values()))
        give_up = time.monotonic() + LEFT_WITHIN_S
        ending = {task["id"] for task in tasks.values() if task["capability"] in ENDINGS}
        while not ending <= set(left) and time.monotonic() < give_up:
            time.sleep(0.05)
        uses = {}
        for one in reported:
            task = tasks[one["client"], one["capability"]]
            uses[one["client"], one["capability"]] = Use(
                Shown.parse(one["shown"]),
                tuple(self.front.attempts[task["token"]]),
                left.get(task["id"]),
            )
        return uses

    @contextmanager
    def _held(self, token: str, release: threading.Event) -> Iterator[None]:
        """Keep a stream of this user open until `release` is set, or the block ends."""
        point = f"hold-{next(self.numbers)}"
        body = ask({"do": "steps", "steps": [{"text": "begun"}, {"point": point}]}, stream=True)
        self.provider.points[point] = lambda: release.wait(CLIENTS_AT_MOST_S)
        try:
            with self.stack.http.stream("POST", CHAT, headers=bearer(token), json=body) as held:
                assert held.status_code == 200, held.read()
                yield
        finally:
            release.set()

    def _out_of_quota(self, user_id: str) -> str:
        token = mint(self.stack, self._key(requests_per_day=1), user_id)
        self.stack.http.post(CHAT, headers=bearer(token), json=ask())
        return token

    def _key(self, default_model: str = MODEL, **limits: int) -> str:
        """Return an API key of a project of its own, with such limits for each user."""
        pid = f"clients-{next(self.numbers)}"
        self.admin.project(
            pid,
            default_model=default_model,
            origins=self.origins,
            limits=UNLIMITED["limits"],
            user_limits={**UNLIMITED["user_limits"], **limits},
        )
        return self.admin.key(pid)


def _note_time(times: dict[str, float], what: str) -> None:
    times[what] = time.time()


@pytest.fixture(scope="session")
def matrix(stack: Stack, provider: FakeProvider) -> Iterator[Matrix]:
    front = Front(stack.env["BEHEST_BASE_URL"])
    yield Matrix(stack, provider, front, Admin(stack))
    front.close()
