from pathlib import Path

import pytest

from tests.runtime.rie import find_rie


@pytest.fixture(scope="session")
def rie_binary() -> Path:
    binary = find_rie()
    if binary is None:
        pytest.fail(
            "The Lambda Runtime Interface Emulator is missing: run `make install-sam`, "
            "or name the binary in WEIR_RIE."
        )
    return binary
