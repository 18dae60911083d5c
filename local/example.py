"""Start one of examples/ against the gateway that `make run` runs.

    python3 -m local.example NAME

Installs the example's packages (npm ones into its node_modules, Python ones into
.local/venv-example-NAME), with Weir's own client as this checkout has it, passes the values of
.local/env on, and becomes the example's server. Standard library only, and any Python that the
project supports may run it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from cli.dotenv import read_env
from local import CannotRun, client_build, install, node, processes
from local.settings import ROOT

EXAMPLES = ROOT / "examples"
PYTHON_CLIENT = ROOT / "clients/python/src"


@dataclass(frozen=True)
class Example:
    name: str
    port: int
    # What listens there already while `make run` runs, if anything does.
    note: str = ""

    @property
    def folder(self) -> Path:
        return EXAMPLES / self.name

    @property
    def is_python(self) -> bool:
        return (self.folder / "requirements.txt").exists()


BY_NAME = {
    example.name: example
    for example in (
        Example(
            "react-vite",
            5173,
            "`make run` serves this example there. To work on it, start `HEADLESS=1 make run`.",
        ),
        Example("nextjs", 3000),
        Example("express", 3001),
        Example("chat-widget", 3002),
        Example("fastapi", 8000),
    )
}


def prepare(example: Example) -> list[str]:
    """Install what the example needs, and return the command that starts it. Raise CannotRun."""
    client_build.build()
    if example.is_python:
        modules = example.folder / "static/weir-client"  # for its page, which has no build
        shutil.rmtree(modules, ignore_errors=True)
        shutil.copytree(client_build.DIST, modules)
        environment = f"example-{example.name}"
        install.install(environment)
        python = install.ENVIRONMENTS[environment].directory / "bin/python"
        return [str(python), "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port"]
    _, npm = node.find()
    _install_packages(example, npm)
    return [*npm, "run", "dev", "--", "--port"]


def _install_packages(example: Example, npm: list[str]) -> None:
    """Install what the lock names, with the client as it is now."""

    def run(command: list[str]) -> None:
        print(f"Installing the packages of examples/{example.name} ...", flush=True)
        log = install.STATE / f"logs/install-example-{example.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            failed = subprocess.run(
                command, cwd=example.folder, stdout=output, stderr=subprocess.STDOUT, check=False
            ).returncode
        if failed:
            raise CannotRun(f"Installing its packages failed. The output is in {log}.")

    node.fetch_packages(example.folder, npm, run, beside=client_build.built_from())


def environment(example: Example, gateway: dict[str, str], port: int) -> dict[str, str]:
    """Return the variables that the example's server is started with."""
    return {
        # An operator's own settings of the same names would point elsewhere.
        **{n: v for n, v in os.environ.items() if not n.startswith(("BEHEST_", "WEIR_", "FC_"))},
        **gateway,
        "VITE_WEIR_BASE_URL": gateway["BEHEST_BASE_URL"],
        "VITE_COGNITO_CLIENT_ID": gateway["COGNITO_CLIENT_ID"],
        "VITE_COGNITO_ENDPOINT": gateway["COGNITO_ENDPOINT"],
        "NEXT_TELEMETRY_DISABLED": "1",
        "PORT": str(port),
        # From this checkout, in the place of `pip install weir-client`.
        "PYTHONPATH": str(PYTHON_CLIENT),
        "PYTHONPYCACHEPREFIX": str(ROOT / ".local/pycache"),
    }


def _gateway() -> dict[str, str]:
    """Return .local/env of the running gateway. Raise CannotRun if none runs."""
    file = Path(os.environ.get("WEIR_LOCAL_DIR") or ROOT / ".local") / "env"
    found = read_env(file)
    if found is None or "BEHEST_KEY" not in found:
        raise CannotRun("Start `make run` in another terminal first, and leave it running.")
    url = found["BEHEST_BASE_URL"]
    try:
        urllib.request.urlopen(f"{url}/healthz", timeout=5).close()  # noqa: S310, of our own file
    except OSError:
        raise CannotRun(
            f"No gateway answers at {url}. Start `make run` in another terminal first, and leave"
            " it running."
        ) from None
    return found


def _check_port(example: Example) -> None:
    try:
        processes.listen_on_loopback(example.port).close()
    except CannotRun:
        note = example.note or "End what listens there first."
        raise CannotRun(f"Port {example.port} is in use. {note}") from None


def main(names: list[str]) -> int:
    if len(names) != 1 or names[0] not in BY_NAME:
        print(f"usage: make example NAME={'|'.join(BY_NAME)}", file=sys.stderr)
        return 2
    example = BY_NAME[names[0]]
    try:
        gateway = _gateway()
        _check_port(example)
        command = prepare(example)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"\n  http://localhost:{example.port}\n"
        f"  Sign in as {gateway['DEMO_EMAIL']}, password {gateway['DEMO_PASSWORD']}\n",
        flush=True,
    )
    os.chdir(example.folder)
    command = [*command, str(example.port)]
    program = shutil.which(command[0]) or command[0]
    os.execve(program, command, environment(example, gateway, example.port))  # noqa: S606
    return 0  # not reached


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
