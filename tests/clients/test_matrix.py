"""Published clients, the newest and those that an older Node gets: what docs/clients.md claims."""

import pytest

from tests.clients.capabilities import CAPABILITIES, Capability
from tests.clients.conftest import Matrix, installed
from tests.clients.rows import ROWS, Row, streamed, used
from tests.clients.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.long

INSTALLED = [row for row in ROWS if row.language != "browser"]
STREAMED = [
    pytest.param(row, client, id=f"{row.age} {row.language} {client}")
    for row in INSTALLED
    for client in row.streamed
]
USED = [
    pytest.param(row, id=f"{row.age} {row.language} {row.used}") for row in INSTALLED if row.used
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
@pytest.mark.parametrize(("row", "client"), STREAMED)
def test_a_client_shows_exactly_an_answer_or_an_error(
    row: Row, client: str, scenario: Scenario, matrix: Matrix
) -> None:
    outcomes = matrix.outcomes(row.age, row.language, streamed(row.language, row.age))
    row.check_stream(client, scenario, outcomes[client, scenario.name])


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda one: one.name)
@pytest.mark.parametrize("row", USED)
def test_a_client_does_what_the_page_says(row: Row, capability: Capability, matrix: Matrix) -> None:
    uses = matrix.uses(row.age, row.language, used(row.language, row.age))
    row.check_use(capability, uses[str(row.used), capability.name])


@pytest.mark.parametrize("run", [("newest", "python"), ("newest", "node"), ("older", "node")])
def test_openai_takes_a_function_as_its_key(run: tuple[str, str], matrix: Matrix) -> None:
    client = "openai, a function as key"
    tools = next(one for one in CAPABILITIES if one.name == "tools")
    uses = matrix.use(installed(*run), [client], [tools])
    tools.check(uses[client, tools.name])
