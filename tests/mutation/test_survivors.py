"""No small fault in money or identity goes unnoticed by the unit tests.

A sample of mutants of each module is run against the tests about it, in a copy of the core. What
survives must be in `survivors.txt`, each with the reason why it makes no difference. `MUTANTS` is
how many of a module are tried (`all` for every one), `MUTATION_SEED` which.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
ARGUED = Path(__file__).with_name("survivors.txt")
UNIT = "tests/unit"
# Each module, and the tests that are about it.
MODULES = {
    "identity/tokens": [f"{UNIT}/identity"],
    "identity/callers": [f"{UNIT}/identity", f"{UNIT}/aws/test_callers.py"],
    "identity/issuers": [f"{UNIT}/identity/test_issuers.py"],
    "identity/key_sets": [f"{UNIT}/identity/test_key_sets.py"],
    "identity/exchange": [f"{UNIT}/identity/test_exchange.py"],
    "identity/api_keys": [f"{UNIT}/identity", f"{UNIT}/aws/test_store.py"],
    "identity/revoke": [f"{UNIT}/identity/test_revoke.py"],
    "revocation": [f"{UNIT}/test_revocation.py"],
    "ledger/rules": [f"{UNIT}/ledger", f"{UNIT}/aws/test_ledger.py"],
    "ledger/costs": [f"{UNIT}/ledger/test_costs.py", f"{UNIT}/chat/test_completion.py"],
    "chat/relay": [
        *(f"{UNIT}/chat/test_relay{part}.py" for part in ("", "_bounds", "_outcome")),
        f"{UNIT}/chat/test_golden.py",
    ],
    "embeddings/inputs": [f"{UNIT}/embeddings/test_inputs.py"],
    "embeddings/answers": [f"{UNIT}/embeddings/test_answers.py"],
    "embeddings/routes": [f"{UNIT}/embeddings/test_routes.py"],
    "chat/completion": [
        f"{UNIT}/chat/test_completion.py",
        f"{UNIT}/chat/test_question_to_the_ledger.py",
    ],
    "web/origins": [f"{UNIT}/web/test_origins.py"],
    "web/public_addresses": [f"{UNIT}/web/test_public_addresses.py"],
}
COUNT = os.environ.get("MUTANTS", "10")
SEED = int(os.environ.get("MUTATION_SEED", "1"))


def argued() -> set[str]:
    lines = ARGUED.read_text().splitlines()
    return {line for line in lines if line.strip() and not line.startswith(("#", " "))}


def survivors(mutants: Sequence[Mutant], module: str, core: Path) -> list[str]:
    """Return the names of those with which every test passes."""
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("forked.py"), core, module, *MODULES[module]],
        input=json.dumps([mutant.source for mutant in mutants]),
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(core)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    survived = [json.loads(line) for line in run.stdout.splitlines()]
    return [each.name for each, lives in zip(mutants, survived, strict=True) if lives]


@pytest.mark.long
@pytest.mark.parametrize("module", MODULES)
def test_no_mutant_survives_but_those_that_make_no_difference(module: str, tmp_path: Path) -> None:
    source = (ROOT / "layers/core/weir" / f"{module}.py").read_text()
    every = list(mutants_of(module, source))
    chosen = every
    if COUNT != "all":
        chosen = random.Random(f"{SEED}{module}").sample(every, min(int(COUNT), len(every)))
    known = argued()

    def copy_of(number: int) -> Path:
        core = tmp_path / str(number)
        shutil.copytree(ROOT / "layers/core", core, ignore=shutil.ignore_patterns("__pycache__"))
        return core

    workers = max(1, os.cpu_count() or 1)
    copies = [copy_of(number) for number in range(workers)]

    def share(number: int) -> list[str]:
        mine = [each for each in chosen[number::workers] if each.name not in known]
        return survivors(mine, module, copies[number])

    with ThreadPoolExecutor(workers) as pool:
        found = [name for names in pool.map(share, range(workers)) for name in names]
    assert found == [], f"{len(found)} of {len(chosen)} tried, of {len(every)}; seed {SEED}"
