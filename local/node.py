"""Find Node and npm: the machine's own, or one from the package index. Standard library only."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from local import install


def find() -> tuple[str, list[str]]:
    """Return the path of a Node that Vite takes, and the start of an npm command."""
    found = _installed()
    if found is None:
        install.install("node")
        found = install.node_of(install.ENVIRONMENTS["node"])
    return found


def fetch_packages(
    folder: Path, npm: list[str], run: Callable[[list[str]], None], *, beside: str = ""
) -> None:
    """Install what the folder's lock names into its node_modules, unless it is there already.

    `run` runs a command in the folder; it raises if that fails. `beside` stands for packages that
    the lock names without a hash: another text installs them again.
    """
    stamp = folder / "node_modules/.weir-lock"
    wanted = (folder / "package-lock.json").read_text() + beside
    if stamp.exists() and stamp.read_text() == wanted:
        return
    run([*npm, *install.NPM_CI, "--include=dev", "--loglevel=error"])
    stamp.write_text(wanted)


def _installed() -> tuple[str, list[str]] | None:
    """Return node and npm on the PATH, or None if Vite does not take that node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.run(
        [node, "--version"], capture_output=True, text=True, check=False
    ).stdout
    found = re.match(r"v(\d+)\.(\d+)\.", version)
    return (node, [npm]) if found and is_new_enough(int(found[1]), int(found[2])) else None


def is_new_enough(major: int, minor: int) -> bool:
    """Say whether Vite takes it: ^20.19.0 || >=22.12.0."""
    return (major == 20 and minor >= 19) or (major, minor) >= (22, 12)
