"""Build the TypeScript client (clients/typescript) into its dist/, once: a later call only compares
a hash.

    python3 -m local.client_build          build it, if it is missing or outdated

Standard library only. The output of npm and tsc goes to .local/logs/install-client.log.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from local import CannotRun, install, node
from local.processes import dies_with_us
from local.settings import ROOT

SOURCE = ROOT / "clients/typescript"
DIST = SOURCE / "dist"
LOG = ROOT / ".local/logs/install-client.log"
STAMP = ROOT / ".local/client-built-from"


def build() -> None:
    """Make dist/ what the sources say. Raise CannotRun, with one sentence."""
    if is_current():
        return
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with install.one_at_a_time(ROOT / ".local/install-client.lock"):
        if is_current():  # another start was waited for, and it did this
            return
        print("Building the TypeScript client ...", flush=True)
        LOG.unlink(missing_ok=True)
        wanted = built_from()
        program, npm = node.find()
        fetch_packages(npm)
        shutil.rmtree(DIST, ignore_errors=True)
        _run([program, str(SOURCE / "node_modules/typescript/bin/tsc"), "-p", "tsconfig.json"])
        STAMP.write_text(wanted)


def is_current() -> bool:
    try:
        return (DIST / "index.js").exists() and STAMP.read_text() == built_from()
    except OSError:
        return False


def built_from() -> str:
    """Return a hash of everything that dist/ depends on."""
    digest = hashlib.sha256()
    files = [SOURCE / name for name in ("package.json", "package-lock.json", "tsconfig.json")]
    for path in [*files, *sorted((SOURCE / "src").rglob("*.ts"))]:
        digest.update(f"{path.relative_to(SOURCE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def copy_package(place: Path) -> None:
    """Copy what the published package has to `place`."""
    place.mkdir(parents=True)
    shutil.copy(SOURCE / "package.json", place / "package.json")
    shutil.copytree(DIST, place / "dist")


def fetch_packages(npm: list[str]) -> None:
    """Install what the lock names, unless it is there already."""
    stamp = SOURCE / "node_modules/.weir-lock"
    wanted = (SOURCE / "package-lock.json").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    _run([*npm, *install.NPM_CI, "--include=dev", "--loglevel=error"])
    stamp.write_text(wanted)


def _run(command: list[str]) -> None:
    with LOG.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=SOURCE,
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


def main() -> int:
    try:
        build()
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
