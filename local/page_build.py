"""Builds the example page (examples/react-vite) into .local/page, once: a later start only compares
a hash.

    python3 -m local.page_build          build it, if it is missing or outdated
    python3 -m local.page_build check    the same, then TypeScript's checker

Standard library only. Nothing is written into examples/: the sources are copied, and an operator's
.env.local stays behind, because the page reads this run's addresses from /config.json. The output
of npm and vite goes to .local/logs/install-page.log.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from local import CannotRun, install
from local.processes import dies_with_us
from local.settings import ROOT

SOURCE = ROOT / "examples/react-vite"
PLACE = ROOT / ".local/page"
PAGE = PLACE / "dist"
LOG = ROOT / ".local/logs/install-page.log"
# Made by whoever works in examples/, and nothing of ours.
NOT_SOURCE = ("node_modules", "dist", ".env", ".env.*")
NO_NETWORK = re.compile("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH")


def build() -> None:
    """Raises CannotRun, with one sentence."""
    if is_current():
        return
    node, npm = find_node()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with install.one_at_a_time(ROOT / ".local/install.lock"):
        if is_current():  # another start was waited for, and it did this
            return
        print("Building the example page ...", flush=True)
        began = time.monotonic()
        LOG.unlink(missing_ok=True)
        wanted = _sources()
        _copy_sources()
        _fetch_packages(npm)
        new = PLACE / "dist.new"
        vite = str(PLACE / "app/node_modules/vite/bin/vite.js")
        _run([node, vite, "build", "--emptyOutDir", "--outDir", str(new)])
        shutil.rmtree(PAGE, ignore_errors=True)
        new.rename(PAGE)
        _stamp().write_text(wanted)
        print(f"Built the example page: {time.monotonic() - began:.0f} s", flush=True)


def is_current() -> bool:
    try:
        return (PAGE / "index.html").exists() and _stamp().read_text() == _sources()
    except OSError:
        return False


def _stamp() -> Path:
    return PLACE / "built-from"


def _sources() -> str:
    told = hashlib.sha256()
    ignored = shutil.ignore_patterns(*NOT_SOURCE)
    for folder, folders, files in os.walk(SOURCE):
        folders[:] = sorted(set(folders) - ignored(folder, folders))
        for name in sorted(set(files) - ignored(folder, files)):
            path = Path(folder) / name
            told.update(f"{path.relative_to(SOURCE)}\0".encode() + path.read_bytes() + b"\0")
    return told.hexdigest()


def _copy_sources() -> None:
    app = PLACE / "app"
    app.mkdir(parents=True, exist_ok=True)
    for old in app.iterdir():
        if old.name != "node_modules":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    shutil.copytree(SOURCE, app, ignore=shutil.ignore_patterns(*NOT_SOURCE), dirs_exist_ok=True)


def _fetch_packages(npm: list[str]) -> None:
    """What the lock names, unless it is there already."""
    app = PLACE / "app"
    stamp = app / "node_modules/.weir-lock"
    wanted = (app / "package-lock.json").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    _run([*npm, *install.NPM_CI, "--include=dev", "--loglevel=error"])
    stamp.write_text(wanted)


def _run(command: list[str]) -> None:
    """In the copy, without what an operator's shell would put into the page."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VITE_") and name != "NODE_ENV"
    }
    with LOG.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=PLACE / "app",
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=dies_with_us(),
        )
        failed = process.wait() != 0
    if failed:
        unreachable = NO_NETWORK.search(LOG.read_text(errors="replace"))
        why = "the npm registry cannot be reached" if unreachable else "npm or vite failed"
        raise CannotRun(f"Building the example page failed: {why}. The output is in {LOG}.")


# --- node ---------------------------------------------------------------------------------------


def find_node() -> tuple[str, list[str]]:
    """node, and the start of an npm command: the machine's own, or one from the package index."""
    found = _installed_node()
    if found is None:
        install.install("node")
        found = install.node_of(install.ENVIRONMENTS["node"])
    return found


def _installed_node() -> tuple[str, list[str]] | None:
    """node and npm on the PATH, if Vite takes that node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)\.", told)
    return (node, [npm]) if found and new_enough(int(found[1]), int(found[2])) else None


def new_enough(major: int, minor: int) -> bool:
    """Vite's own demand: ^20.19.0 || >=22.12.0."""
    return (major == 20 and minor >= 19) or (major, minor) >= (22, 12)


def check() -> int:
    """TypeScript's verdict on what is in the copy: for people, on the terminal."""
    node, _ = find_node()
    tsc = PLACE / "app/node_modules/typescript/bin/tsc"
    return subprocess.run([node, str(tsc)], cwd=PLACE / "app", check=False).returncode


def main(asked: list[str]) -> int:
    try:
        build()
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    return check() if asked == ["check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
