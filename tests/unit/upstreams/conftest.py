"""Servers on loopback for the tests of guarded connections."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.upstreams.served import HOST, Script, Served, certificate


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("tls")
    return {name: certificate(directory, name) for name in (HOST, "other.example.com")}


@pytest.fixture
def serve(certificates: dict[str, Path]) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def start(*scripts: Script, name: str = HOST) -> Served:
        made.append(Served(certificates[name], *scripts))
        return made[-1]

    yield start
    for served in made:
        served.close()
