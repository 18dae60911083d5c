"""Published JavaScript clients in a page: what docs/clients.md claims for Chromium."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from local import install
from tests.clients import conftest as clients
from tests.clients.capabilities import CAPABILITIES, Capability
from tests.clients.conftest import Matrix, Outcomes, Tasks, Uses
from tests.clients.front import Front
from tests.clients.rows import Row, rows, streamed, used
from tests.clients.scenarios import SCENARIOS, Scenario
from tests.provider import FakeProvider
from tests.stack.admin import Admin
from tests.stack.conftest import Stack

pytestmark = pytest.mark.long

ROWS = rows("browser")
STREAMED = [pytest.param(row, client, id=client) for row in ROWS for client in row.streamed]
USED = [pytest.param(row, id=str(row.used)) for row in ROWS if row.used]


@pytest.fixture(scope="module")
def bundle() -> Path:
    """One script with the newest clients, as a page's build makes it."""
    environment = install.ENVIRONMENTS["clients-newest"]
    install.install(environment.name)
    place = environment.directory / "node"
    for script in clients.HERE.glob("*.mjs"):
        shutil.copy(script, place)
    node, _ = install.node_of(environment)
    made = place / "bundle.js"
    subprocess.run(
        [
            *(node, str(place / "node_modules/esbuild/bin/esbuild"), str(place / "browser.mjs")),
            *("--bundle", "--format=iife", "--log-level=error", f"--outfile={made}"),
        ],
        check=True,
        timeout=120,
    )
    return made


@pytest.fixture(scope="module")
def run(bundle: Path, browser: Browser, base_url: str) -> Iterator[clients.Run]:
    """Run tasks in the example page, for its origin. Its policy knows nothing of `Front`."""
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(base_url)
    page.add_script_tag(path=bundle)

    def evaluate(tasks: Tasks) -> list[dict[str, Any]]:
        reported = page.evaluate("(tasks) => window.run(tasks)", tasks)
        assert isinstance(reported, list)
        return reported

    yield evaluate
    context.close()


@pytest.fixture(scope="module")
def matrix(stack: Stack, provider: FakeProvider, base_url: str) -> Iterator[Matrix]:
    front = Front(stack.env["BEHEST_BASE_URL"])
    yield Matrix(stack, provider, front, Admin(stack), origins=[base_url])
    front.close()


@pytest.fixture(scope="module")
def outcomes(matrix: Matrix, run: clients.Run) -> Outcomes:
    return matrix.stream(run, streamed("browser"))


@pytest.fixture(scope="module")
def uses(matrix: Matrix, run: clients.Run) -> Uses:
    return matrix.use(run, used("browser"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
@pytest.mark.parametrize(("row", "client"), STREAMED)
def test_a_client_in_a_page_shows_exactly_an_answer_or_an_error(
    row: Row, client: str, scenario: Scenario, outcomes: Outcomes
) -> None:
    row.check_stream(client, scenario, outcomes[client, scenario.name])


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda one: one.name)
@pytest.mark.parametrize("row", USED)
def test_a_client_in_a_page_does_what_the_documents_say(
    row: Row, capability: Capability, uses: Uses
) -> None:
    row.check_use(capability, uses[str(row.used), capability.name])


@pytest.mark.parametrize("row", USED)
def test_a_client_in_a_page_shows_what_is_wrong_with_its_address(
    row: Row, stack: Stack, run: clients.Run
) -> None:
    """Not that it has no connection: the preflight of a path that is no route succeeds."""
    task = {
        "client": row.used,
        "capability": "whole",
        "url": stack.env["BEHEST_BASE_URL"] + "/v1",  # to which it adds another
        "token": str(stack.mint()["token"]),
        "content": "hi",
    }
    (reported,) = run([task])
    (error,) = reported["shown"]["errors"]
    assert "must end with /v1, once" in error["message"], error
