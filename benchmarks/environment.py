"""What has to be there before anything is measured: made once, into .local/bench.

Both relays run on one interpreter: CPython 3.13, Lambda's, if there is one, else the one that runs
this. Everything they import is compiled beforehand, or the first round would measure the compiler.
Weir runs from the layers as they are built for Lambda, for this machine's processor instead.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ROOT, STATE, CannotMeasure
from layers import build

HERE = Path(__file__).resolve().parent
LOCK = HERE / "requirements.txt"
VENV = ROOT / ".local" / "venv-bench"
LAYERS = STATE / "layers"
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


@dataclass(frozen=True)
class Environment:
    python: Path  # of the FastAPI relay, with its packages
    bare_python: Path  # the same interpreter without any: what Weir's function runs on
    layers: Path  # /opt on Lambda
    nginx: Path | None
    why_no_nginx: str
    versions: dict[str, str]


def prepare() -> Environment:
    STATE.mkdir(parents=True, exist_ok=True)
    interpreter = build.find_python() or sys.executable
    version = _output(
        [interpreter, "-c", "import platform as p; print(p.python_version())"]
    ).strip()
    _make_venv(interpreter, version)
    relay = HERE / "fastapi_relay.py"
    _run([str(VENV / "bin" / "python"), "-m", "compileall", "-q", str(relay)], "compiling it")
    bare = STATE / f"python-{version}"
    if not (bare / "bin" / "python").exists():
        _run([interpreter, "-m", "venv", "--without-pip", str(bare)], "making an environment")
    _build_layers(interpreter, version)
    nginx, why = _find_nginx()
    versions = {"Python": version, **_locked_versions()}
    if nginx is not None:
        told = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False)
        versions["nginx"] = told.stderr.strip().rpartition("/")[2]
    return Environment(
        VENV / "bin" / "python", bare / "bin" / "python", LAYERS, nginx, why, versions
    )


def _make_venv(interpreter: str, version: str) -> None:
    stamp = VENV / ".weir-bench"
    wanted = f"{hashlib.sha256(LOCK.read_bytes()).hexdigest()} {version}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    build.say("Installing what is measured beside Weir ...")
    shutil.rmtree(VENV, ignore_errors=True)
    _run([interpreter, "-m", "venv", str(VENV)], "making an environment")
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    options = ["--quiet", "--no-input", "--no-deps", "--require-hashes", "-r", str(LOCK)]
    _run([*pip, *options], "installing benchmarks/requirements.txt (is there a network?)")
    _run(
        [str(VENV / "bin" / "python"), "-m", "compileall", "-q", str(VENV / "lib")],
        "compiling what was installed",
        accept=(0, 1),  # some packages carry templates that are no Python
    )
    stamp.write_text(wanted)


def _build_layers(interpreter: str, version: str) -> None:
    """All three beside each other, as Lambda unpacks them into /opt."""
    lock = ROOT / "layers" / "dependencies" / "requirements.txt"
    sources = sorted((ROOT / "layers").glob("*.py"))
    recipe = (lock.read_bytes(), *(each.read_bytes() for each in sources), version.encode())
    wanted = hashlib.sha256(b"".join(recipe)).hexdigest()
    stamp, dependencies = STATE / "dependencies.stamp", STATE / "dependencies"
    if not stamp.exists() or stamp.read_text() != wanted:
        stamp.unlink(missing_ok=True)
        minor = ".".join(version.split(".")[:2])
        platforms = tuple(f"{policy}_{platform.machine()}" for policy in PLATFORMS)
        build.build_dependencies(dependencies, build.Target(minor, platforms))
        stamp.write_text(wanted)
    shutil.rmtree(LAYERS, ignore_errors=True)
    LAYERS.mkdir(parents=True)
    for name, builder in (("core", build.build_core), ("stream", build.build_stream)):
        builder(STATE / name)
    for source in (dependencies, STATE / "core", STATE / "stream"):
        shutil.copytree(source, LAYERS, dirs_exist_ok=True)
    (LAYERS / build.START_STREAM_RUNTIME).chmod(0o755)
    compiler = ROOT / "layers" / "compiler" / "compile_tree.py"
    _run(
        [interpreter, "-sP", str(compiler), str(LAYERS / "python"), build.RUNTIME_ROOT],
        "compiling the layers",
    )


def _find_nginx() -> tuple[Path | None, str]:
    """The one on PATH, or the distribution's package, unpacked but not installed: installing it
    would start a server on port 80.
    """
    found = shutil.which("nginx")
    if found:
        return Path(found), ""
    unpacked = STATE / "nginx"
    program = unpacked / "usr" / "sbin" / "nginx"
    if not program.exists():
        if shutil.which("apt-get") is None or os.geteuid() != 0:
            return None, "nginx is not installed, and fetching it takes apt and root"
        unpacked.mkdir(parents=True, exist_ok=True)
        script = "apt-get -qq update; apt-get -qq download nginx && dpkg-deb -x nginx_*.deb ."
        subprocess.run(["/bin/sh", "-c", script], cwd=unpacked, capture_output=True, check=False)
    if not program.exists():
        return None, "nginx is not installed, and apt could not fetch it"
    works = subprocess.run([program, "-v"], capture_output=True, check=False).returncode == 0
    return (program, "") if works else (None, f"{program} does not run here")


def _locked_versions() -> dict[str, str]:
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK.read_text(), re.MULTILINE))
    shown = (
        "fastapi",
        "uvicorn",
        "uvloop",
        "httptools",
        "httpx",
        "pyjwt",
        "cryptography",
        "boto3",
        "awslambdaric",
    )
    return {name: locked[name] for name in shown}


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _run(command: Sequence[str], what: str, accept: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in accept:
        raise CannotMeasure(f"{what} failed: {(done.stdout + done.stderr).strip()[-500:]}")
