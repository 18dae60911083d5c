"""The OpenAI Python SDK of the development environment, through every scenario."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.clients import run
from tests.clients.conftest import Matrix
from tests.clients.scenarios import SCENARIOS, Outcome, Scenario, check


@pytest.fixture(scope="module")
def outcomes(matrix: Matrix) -> dict[Any, Outcome]:
    with matrix.users() as tokens, ThreadPoolExecutor(run.AT_ONCE) as pool:
        job = matrix.job(tokens)
        shown = list(pool.map(lambda one: run.run(job, "openai", one), job["scenarios"]))
    return {one["scenario"]: Outcome.parse(one["outcome"]) for one in shown}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_openai_python_shows_exactly_an_answer_or_an_error(
    scenario: Scenario, outcomes: dict[Any, Outcome]
) -> None:
    check(scenario, outcomes[scenario.name])
