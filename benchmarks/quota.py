"""A share of one core for one process, as a small function has it.

It is a control group of Linux, version 2 or 1, where this user may make one.

Lambda gives a function CPU by its memory, one core at 1,769 MB (AWS: "Configure Lambda function
memory"). How finely it cuts time is not documented; here a period is 20 ms.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WHOLE_CORE_MB = 1769
PERIOD_US = 20_000
_V2, _V1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")


def why_not() -> str:
    """Return why no quota can be set here, or ""."""
    try:
        with _group(WHOLE_CORE_MB):
            return ""
    except OSError as error:
        return f"no control group with a CPU quota can be made here ({error.strerror})"


@contextmanager
def limited(pid: int, memory_mb: int) -> Iterator[None]:
    """Give the process, with all its threads, what a function of `memory_mb` has."""
    with _group(memory_mb) as group:
        home = _home_of(group)
        (group / "cgroup.procs").write_text(str(pid))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                (home / "cgroup.procs").write_text(str(pid))


@contextmanager
def _group(memory_mb: int) -> Iterator[Path]:
    version_1 = (_V1 / "cpu.cfs_quota_us").exists()
    group = (_V1 if version_1 else _V2) / "weir-bench"
    group.mkdir(exist_ok=True)
    try:
        quota = max(1000, PERIOD_US * memory_mb // WHOLE_CORE_MB)
        if version_1:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        yield group
    finally:
        _remove(group)


def _home_of(group: Path) -> Path:
    return group.parent


def _remove(group: Path) -> None:
    """A process that has just been ended may still be on its way out of it."""
    for _ in range(100):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.01)
        else:
            return
