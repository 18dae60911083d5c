"""Write src/weir_client/_sync from src/weir_client/_async, so that both have one surface.

    .venv/bin/python clients/python/make_sync.py

A test fails if the result is not what is committed. Needs ruff, for the layout.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "src/weir_client"
WORDS = {
    "async_sleep": "sleep",
    "async_shield": "shield",
    "_async": "_sync",
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "StopAsyncIteration": "StopIteration",
    "Awaitable[T]": "T",
    "Awaitable[None]": "None",
    "Awaitable[Any]": "Any",
}
# In this order; the last one is for AsyncWeir, AsyncIterator, AsyncOpenAI and the like.
RULES = [
    *((rf"(?<!\w){re.escape(word)}(?!\w)", other) for word, other in WORDS.items()),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAwaitable, ", ""),
    (r"\bAsync(?=[A-Z])|(?<=Default)Async(?=Httpx)", ""),
    (r"without blocking\. `_sync` is generated from these modules\.", "and block."),
]
LAYOUT = ["--quiet", "--isolated", "--line-length", "100"]
FIXES = ["--fix-only", "--unsafe-fixes", "--select", "I,UP028"]
FIXES += ["--config", 'lint.isort.known-first-party=["weir_client"]']
HEAD = "# Generated from _async by make_sync.py: change that, and run it.\n"


def synchronous(source: str) -> str:
    """Return the blocking form of a module."""
    for pattern, replacement in RULES:
        source = re.sub(pattern, replacement, source)
    for command in (["check", *FIXES], ["format"]):
        source = subprocess.run(
            [Path(sys.executable).parent / "ruff", *command, *LAYOUT, "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return HEAD + source


def main() -> None:
    """Write every module."""
    for path in (PACKAGE / "_async").glob("*.py"):
        target = PACKAGE / "_sync" / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_text(synchronous(path.read_text()))


if __name__ == "__main__":
    main()
