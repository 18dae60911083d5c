"""`make run`: install what is missing, then become the runner, in .venv's Python."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

SUPPORTED = "3.11, 3.12 or 3.13"


def _supported_python() -> str | None:
    """Another interpreter on the PATH. One that only stands there, as pyenv's shims do, is passed
    over.
    """
    for name in ("python3.13", "python3.12", "python3.11"):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
            return path
    return None


def main() -> int:
    """Returns only if there is nothing to run: otherwise this process becomes another."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        other = _supported_python()
        if other is None:
            print(
                f"Weir needs Python {SUPPORTED}; this is {sys.version.split()[0]}.", file=sys.stderr
            )
            return 1
        os.execv(other, [other, "-m", "local"])  # noqa: S606
    from local import CannotRun, install, processes, settings

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asked = settings.from_env(os.environ)
        processes.listen_on_loopback(asked.port).close()  # better now than after the installation
        parts = ["run", "aws"]
        if asked.upstream is None:
            install.check_model_can_run()
            parts.append("model")
        install.install(*parts)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    python = str(settings.ROOT / ".venv/bin/python")
    os.chdir(settings.ROOT)
    sys.stdout.flush()
    return os.execv(python, [python, "-m", "local.runner"])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
