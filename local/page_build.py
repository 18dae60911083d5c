"""Build the example page (examples/react-vite) into .local/page, once: a later start only compares
a hash.

    python3 -m local.page_build          build it, if it is missing or outdated
    python3 -m local.page_build check    the same, then TypeScript's checker

Standard library only. Nothing is written into examples/: the sources are copied, beside the client
that they depend on, and an operator's .env.local stays behind, because the page reads this run's
addresses from /config.json. The output of npm and vite goes to .local/logs/install-page.log.
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

from local import CannotRun, client_build, install
from local import node as node_js
from local.processes import dies_with_us
from local.settings import ROOT

SOURCE = ROOT / "examples/react-vite"
PLACE = ROOT / ".local/page"
PAGE = PLACE / "dist"
APP = PLACE / "examples/react-vite"
LOG = ROOT / ".local/logs/install-page.log"
# Made by whoever works in examples/, and nothing of ours.
NOT_SOURCE = ("node_modules", "dist", ".env", ".env.*")
NO_NETWORK = re.compile("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH")


def build() -> None:
    """Raises CannotRun, with one sentence."""
    client_build.build()
    if is_current():
        return
    node, npm = node_js.find()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with install.one_at_a_time(ROOT / ".local/install.lock"):
        if is_current():  # another start was waited for, and it did this
            return
        print("Building the example page ...", flush=True)
        began = time.monotonic()
        LOG.unlink(missing_ok=True)
        wanted = _sources()
        _copy_sources()
        node_js.fetch_packages(APP, npm, _run, beside=client_build.built_from())
        new = PLACE / "dist.new"
        vite = str(APP / "node_modules/vite/bin/vite.js")
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
    told.update(client_build.built_from().encode())
    return told.hexdigest()


def _copy_sources() -> None:
    APP.mkdir(parents=True, exist_ok=True)
    for old in APP.iterdir():
        if old.name != "node_modules":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    shutil.copytree(SOURCE, APP, ignore=shutil.ignore_patterns(*NOT_SOURCE), dirs_exist_ok=True)
    client = APP / "../../clients/typescript"  # as package.json names it
    shutil.rmtree(client, ignore_errors=True)
    client_build.copy_package(client)


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
            cwd=APP,
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


def check() -> int:
    """TypeScript's verdict on what is in the copy: for people, on the terminal."""
    node, _ = node_js.find()
    tsc = APP / "node_modules/typescript/bin/tsc"
    return subprocess.run([node, str(tsc)], cwd=APP, check=False).returncode


def main(asked: list[str]) -> int:
    try:
        build()
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    return check() if asked == ["check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
