"""Read dotenv files: `.local/env`, which `make run` writes. Standard library only."""

from __future__ import annotations

from pathlib import Path


def read_env(path: Path) -> dict[str, str] | None:
    """Return the names and values of a dotenv file, or None if there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return None
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}
