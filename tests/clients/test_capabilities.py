"""Published clients beyond streaming: tools, structured output, retries, stopping."""

import pytest

from tests.clients.capabilities import CAPABILITIES, Capability
from tests.clients.conftest import Matrix

pytestmark = pytest.mark.long

PYTHON = ("openai", "langchain-openai", "pydantic-ai", "openai-agents", "litellm")
NODE = ("openai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "@langchain/openai")
RUNS = (
    ("newest", "python", PYTHON),
    ("older", "python", ("openai 1.0",)),
    ("newest", "node", (*NODE, "@openai/agents")),
    ("older", "node", NODE),
)
CASES = [
    pytest.param(run, client, id=f"{run[0]} {run[1]} {client}") for run in RUNS for client in run[2]
]


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda one: one.name)
@pytest.mark.parametrize(("run", "client"), CASES)
def test_a_client_does_what_people_do_with_it(
    run: tuple[str, str, tuple[str, ...]], client: str, capability: Capability, matrix: Matrix
) -> None:
    capability.check(matrix.uses(*run)[client, capability.name])
