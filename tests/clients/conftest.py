"""The running stack as published clients meet it, and what they showed of each scenario."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local import install
from tests.clients.scenarios import SCENARIOS, Outcome
from tests.provider import FakeProvider
from tests.stack.admin import UNLIMITED, Admin, bearer, mint
from tests.stack.conftest import Stack, ask, start

HERE = Path(__file__).parent
CHAT = "/v1/chat/completions"
MODEL = "fake-large"
HOLD = "hold"
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


Outcomes = dict[tuple[str, str], Outcome]  # by the names of client and scenario


@dataclass
class Matrix:
    """Runs clients of tests/clients/newest and older against the stack, each once."""

    stack: Stack
    provider: FakeProvider
    admin: Admin
    ran: dict[tuple[str, str], Outcomes] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def job(self, tokens: dict[str, str]) -> dict[str, Any]:
        return {
            "base_url": self.stack.env["BEHEST_BASE_URL"] + "/v1",
            "tokens": tokens,
            "scenarios": [scenario.request() for scenario in SCENARIOS],
        }

    @contextmanager
    def users(self) -> Iterator[dict[str, str]]:
        """Yield tokens of a user without limits, one who is too fast, and one out of quota."""
        tokens = {"unlimited": str(self.stack.mint()["token"])}
        tokens["out of quota"] = self._limited(requests_per_day=1)
        self.stack.http.post(CHAT, headers=bearer(tokens["out of quota"]), json=ask())
        tokens["too fast"] = self._limited(concurrent_streams=1)
        body = ask({"do": "steps", "steps": [{"text": "begun"}, {"point": HOLD}]}, stream=True)
        release = threading.Event()
        self.provider.points[HOLD] = lambda: release.wait(CLIENTS_AT_MOST_S)
        headers = bearer(tokens["too fast"])
        try:
            with self.stack.http.stream("POST", CHAT, headers=headers, json=body) as held:
                assert held.status_code == 200, held.read()
                yield tokens
        finally:
            release.set()

    def _limited(self, **limits: int) -> str:
        """Return the token of the only user of a project of its own."""
        pid = f"limited-{next(self.numbers)}"
        self.admin.project(
            pid,
            default_model=MODEL,
            limits=UNLIMITED["limits"],
            user_limits={**UNLIMITED["user_limits"], **limits},
        )
        return mint(self.stack, self.admin.key(pid))

    def outcomes(self, age: str, language: str, clients: tuple[str, ...]) -> Outcomes:
        """Return what each of the clients showed of each scenario."""
        if (age, language) not in self.ran:
            self.ran[age, language] = self._run(age, language, clients)
        return self.ran[age, language]

    def _run(self, age: str, language: str, clients: tuple[str, ...]) -> Outcomes:
        environment = install.ENVIRONMENTS[f"clients-{age}"]
        install.install(environment.name)
        if language == "python":
            command = [str(environment.directory / "bin/python"), "-P", str(HERE / "run.py")]
        else:
            # Node looks for packages from the folder of the file that imports them.
            script = shutil.copy(HERE / "run.mjs", environment.directory / "node")
            command = [install.node_of(environment)[0], str(script)]
        with self.users() as tokens:
            ended = subprocess.run(
                [*command, *clients],
                input=json.dumps(self.job(tokens)),
                capture_output=True,
                text=True,
                timeout=CLIENTS_AT_MOST_S,
            )
        assert ended.returncode == 0, ended.stderr
        reported = [json.loads(line) for line in ended.stdout.splitlines()]
        return {(one["client"], one["scenario"]): Outcome.parse(one["outcome"]) for one in reported}


@pytest.fixture(scope="session")
def matrix(stack: Stack, provider: FakeProvider) -> Matrix:
    return Matrix(stack, provider, Admin(stack))
