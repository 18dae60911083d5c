"""The OpenAI Python SDK of the development environment, through every scenario."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.clients.conftest import Matrix, Outcomes
from tests.clients.run import AT_ONCE
from tests.clients.scenarios import SCENARIOS, Scenario, check
from tests.clients.stream import stream


@pytest.fixture(scope="module")
def outcomes(matrix: Matrix) -> Outcomes:
    def run(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(stream, tasks))

    return matrix.stream(run, ["openai"])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_openai_python_shows_exactly_an_answer_or_an_error(
    scenario: Scenario, outcomes: Outcomes
) -> None:
    check(scenario, outcomes["openai", scenario.name])
