"""The package's own tests, in Node, over real HTTP on this machine."""

from collections.abc import Callable

import pytest


@pytest.mark.parametrize("name", ["events", "client", "explain", "adapters", "server", "edge"])
def test_the_package_does_what_it_says(name: str, run_tests: Callable[..., None]) -> None:
    run_tests(f"{name}.test.mjs")
