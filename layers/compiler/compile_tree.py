"""Compiles every module below a folder for read-only use on Lambda.

The bytecode is trusted unchecked: SAM gives every file of a zip the date 1980, so a pyc that looks
at its source's date would be stale, and /opt cannot be written to. Run by a native CPython 3.13, or
by the same in WebAssembly.
"""

import importlib.util
import py_compile
import sys
from pathlib import Path

CACHE_TAG = "cpython-313"
MAGIC = b"\xf3\r\r\n"  # CPython 3.13


def compile_tree(root: Path, runtime_root: str) -> None:
    """Tracebacks will name a module's place below `runtime_root`, not where it was built."""
    if importlib.util.MAGIC_NUMBER != MAGIC:
        raise SystemExit(f"Python {sys.version} does not write the bytecode of Python 3.13")
    for source in sorted(root.rglob("*.py")):
        py_compile.compile(
            str(source),
            cfile=str(source.parent / "__pycache__" / f"{source.stem}.{CACHE_TAG}.pyc"),
            dfile=f"{runtime_root}/{source.relative_to(root).as_posix()}",
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


if __name__ == "__main__":
    compile_tree(Path(sys.argv[1]), sys.argv[2])
