"""TypeScript's and ESLint's verdict on each example, with the client as it is now."""

import subprocess

import pytest

from local import client_build, example, node

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


@pytest.mark.parametrize("name", NODE_EXAMPLES)
def test_an_example_has_nothing_that_the_linter_minds(name: str) -> None:
    chosen = example.BY_NAME[name]
    example.prepare(chosen)
    folders = [
        folder
        for folder in ("src", "server", "app", "lib", "components")
        if (chosen.folder / folder).is_dir()
    ]
    linted = subprocess.run(
        [*client_build.linter(), *folders], cwd=chosen.folder, capture_output=True, text=True
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr
