"""Run one module's tests once for each mutant of it: `python forked.py CORE MODULE TEST…`.

Reads the mutants' sources from stdin, a JSON list, and prints a line for each: true if every test
passes. Starting pytest takes longer than most of these tests; so this process imports what they
need and never changes, and forks for each mutant. The unchanged module comes first: if its tests do
not pass, nothing that they say of a mutant counts.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

TIMEOUT_S = 180  # a mutant that never ends is noticed, too
HEAVY = (
    "boto3",
    "cryptography.x509",
    "httpx",
    "hypothesis",
    "jwt",
    "moto.dynamodb.responses",
    "pydantic",
)


def passes(tests: list[str], core: str) -> bool:
    child = os.fork()
    if child == 0:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        # Pytest warns that it cannot rewrite the assertions of what has been imported before it.
        os._exit(
            pytest.main(
                ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not long",
                 "-W", "ignore::pytest.PytestAssertRewriteWarning",
                 "-o", f"pythonpath={core} layers/stream .", *tests]
            )
        )  # fmt: skip
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> None:
    core, module, *tests = sys.argv[1:]
    sys.dont_write_bytecode = True
    for name in HEAVY:
        __import__(name)
    if any(name == "weir" or name.startswith("weir.") for name in sys.modules):
        raise SystemExit("weir has been imported before the mutant was in its place")
    path = Path(core, "weir", f"{module}.py")
    if not passes(tests, core):
        raise SystemExit(f"the tests of {module} do not pass without a mutant")
    for source in json.loads(sys.stdin.read()):
        path.write_text(source)
        sys.stdout.write(json.dumps(passes(tests, core)) + "\n")


if __name__ == "__main__":
    main()
