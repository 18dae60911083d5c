"""Published clients, the newest and those that an older Node gets, through every scenario."""

import pytest

from tests.clients.conftest import Matrix
from tests.clients.scenarios import SCENARIOS, Scenario, check

pytestmark = pytest.mark.long

NODE = (
    "openai",
    "openai .stream()",
    "@ai-sdk/openai",
    "@ai-sdk/openai-compatible",
    "@ai-sdk/openai, UI stream",
    "@langchain/openai",
    "fetch",
)
TODAY = ("@openai/agents",)
PYTHON = (
    "openai",
    "openai async",
    "openai .stream()",
    "langchain-openai",
    "pydantic-ai",
    "openai-agents",
    "litellm",
)
RUNS = (
    ("newest", "python", PYTHON),
    ("older", "python", ("openai",)),
    ("newest", "node", (*NODE, *TODAY)),
    ("older", "node", NODE),
)
# What a client has no way to show, and one that reads `fetch` by hand does not.
HIDDEN = {
    "fetch": {"code"},
    "openai-agents": {"finish"},
    "@openai/agents": {"finish"},
    "@ai-sdk/openai, UI stream": {"usage"},
}
CASES = [
    pytest.param(run, client, id=f"{run[0]} {run[1]} {client}") for run in RUNS for client in run[2]
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
@pytest.mark.parametrize(("run", "client"), CASES)
def test_a_client_shows_exactly_an_answer_or_an_error(
    run: tuple[str, str, tuple[str, ...]], client: str, scenario: Scenario, matrix: Matrix
) -> None:
    outcome = matrix.outcomes(*run)[client, scenario.name]
    check(scenario, outcome, hidden=frozenset(HIDDEN.get(client, ())))
