"""TypeScript's verdict on each example, with the client as it is now."""

import subprocess

import pytest

from local import example, node

pytestmark = pytest.mark.long

NODE_EXAMPLES = [name for name, one in example.BY_NAME.items() if not one.is_python]


@pytest.mark.parametrize("name", NODE_EXAMPLES)
def test_an_example_type_checks(name: str) -> None:
    chosen = example.BY_NAME[name]
    example.prepare(chosen)
    _, npm = node.find()
    checked = subprocess.run(
        [*npm, "run", "check"], cwd=chosen.folder, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
