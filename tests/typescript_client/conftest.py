"""The npm package, built, and Node's own test runner."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from local import client_build
from local import node as node_js

HERE = Path(__file__).parent
AT_MOST_S = 120


@pytest.fixture(scope="session")
def node() -> str:
    """Return the path of the Node that the package was built with."""
    client_build.build()
    return node_js.find()[0]


@pytest.fixture(scope="session")
def run_tests(node: str) -> Callable[..., None]:
    """Return a function that runs one file of Node's tests, with these environment variables."""

    def run(name: str, **variables: str) -> None:
        ended = subprocess.run(
            [node, "--test", "--test-timeout=90000", "--test-reporter=spec", str(HERE / name)],
            env={**os.environ, "WEIR_CLIENT": str(client_build.PLACE), **variables},
            capture_output=True,
            text=True,
            timeout=AT_MOST_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    return run
