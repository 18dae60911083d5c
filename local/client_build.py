"""Builds the npm package in clients/typescript into its dist/, once: a later start only compares a
hash.

    python3 -m local.client_build          build it, if it is missing or outdated
    python3 -m local.client_build check    show what TypeScript's checker and ESLint find

Standard library only. The packages that the build needs are installed into .local/client, ESLint
into .local/eslint, nothing into clients/. The output of npm and tsc goes to
.local/logs/install-client.log.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from local import CannotRun, install, node
from local.processes import dies_with_us
from local.settings import ROOT

SOURCE = ROOT / "clients/typescript"
DIST = SOURCE / "dist"
PLACE = ROOT / ".local/client"
LOG = ROOT / ".local/logs/install-client.log"
ESLINT = ROOT / "local/eslint"
ESLINT_PLACE = ROOT / ".local/eslint"
SETTINGS = ("package.json", "package-lock.json", "tsconfig.json")


def build() -> None:
    """Build the package. Raise CannotRun, with one sentence."""
    if is_current():
        return
    program, npm = node.find()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with install.one_at_a_time(ROOT / ".local/install-client.lock"):
        if is_current():  # another start has built it meanwhile
            return
        print("Building the TypeScript client ...", flush=True)
        began = time.monotonic()
        LOG.unlink(missing_ok=True)
        wanted = built_from()
        _copy_sources()
        _fetch_packages(npm, PLACE)
        shutil.rmtree(PLACE / "dist", ignore_errors=True)
        _run([program, "node_modules/typescript/bin/tsc"], PLACE)
        shutil.rmtree(DIST, ignore_errors=True)
        shutil.copytree(PLACE / "dist", DIST)
        _stamp().write_text(wanted)
        print(f"Built the TypeScript client: {time.monotonic() - began:.0f} s", flush=True)


def is_current() -> bool:
    """Return whether dist/ is what the sources say."""
    try:
        return (DIST / "index.js").exists() and _stamp().read_text() == built_from()
    except OSError:
        return False


def _stamp() -> Path:
    return PLACE / "built-from"


def built_from() -> str:
    """Return a hash of everything that dist/ depends on."""
    digest = hashlib.sha256()
    settings = [SOURCE / name for name in SETTINGS]
    for path in [*settings, *sorted((SOURCE / "src").rglob("*"))]:
        if path.is_file():
            name = path.relative_to(SOURCE)
            digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def copy_package(place: Path) -> None:
    """Copy what the published package has to `place`."""
    place.mkdir(parents=True)
    shutil.copy(SOURCE / "package.json", place / "package.json")
    shutil.copytree(DIST, place / "dist")


def _copy_sources() -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(PLACE / "src", ignore_errors=True)
    shutil.copytree(SOURCE / "src", PLACE / "src")
    for name in SETTINGS:
        shutil.copy(SOURCE / name, PLACE / name)


def _fetch_packages(npm: list[str], place: Path) -> None:
    node.fetch_packages(place, npm, lambda command: _run(command, place))


def _run(command: list[str], place: Path) -> None:
    with LOG.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=dies_with_us(),
        )
        failed = process.wait() != 0
    if failed:
        unreachable = install.NO_NETWORK.search(LOG.read_text(errors="replace"))
        why = "the npm registry cannot be reached" if unreachable else "npm or tsc failed"
        raise CannotRun(f"Building the TypeScript client failed: {why}. The output is in {LOG}.")


def check() -> int:
    """Show on the terminal what TypeScript and ESLint find; return an exit status."""
    program, npm = node.find()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with install.one_at_a_time(ROOT / ".local/install-client.lock"):
        _copy_sources()
        _fetch_packages(npm, PLACE)
    for command in ([program, "node_modules/typescript/bin/tsc", "--noEmit"], [*linter(), "src"]):
        failed = subprocess.run(command, cwd=PLACE, check=False).returncode
        if failed:
            return failed
    return 0


def linter() -> list[str]:
    """Install ESLint, and return the start of its command; the folders to lint are to follow."""
    program, npm = node.find()
    with install.one_at_a_time(ROOT / ".local/install-client.lock"):
        ESLINT_PLACE.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json", "eslint.config.js"):
            shutil.copy(ESLINT / name, ESLINT_PLACE / name)
        _fetch_packages(npm, ESLINT_PLACE)
    eslint = ESLINT_PLACE / "node_modules/eslint/bin/eslint.js"
    return [program, str(eslint), "--config", str(ESLINT_PLACE / "eslint.config.js")]


def main(asked: list[str]) -> int:
    try:
        if asked == ["check"]:
            return check()
        build()
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
