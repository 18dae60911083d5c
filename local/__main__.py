"""`make run`: install what is missing, continue in .venv's Python, run until Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

SUPPORTED = "3.11, 3.12 or 3.13"


def main() -> int:
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        other = _supported_python()
        if other is None:
            told = f"Weir needs Python {SUPPORTED}; this is {sys.version.split()[0]}."
            print(told, file=sys.stderr)
            return 1
        _become(other)
    # Until the runner has handlers of its own, SIGTERM ends this as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from local import CannotRun

    try:
        return _install_and_run()
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _install_and_run() -> int:
    from local import CannotRun, install, page_build, processes, settings

    asked = settings.from_env(os.environ)
    processes.listen_on_loopback(asked.port).close()  # better now than after the installation
    if asked.page_port is not None:
        processes.listen_on_loopback(asked.page_port, "PAGE_PORT").close()
    parts = ["run", "aws"]
    if asked.upstream is None:
        install.check_model_can_run()
        parts.append("model")
    install.install(*parts)
    os.chdir(settings.ROOT)
    venv = settings.ROOT / ".venv"
    if os.path.realpath(sys.prefix) != os.path.realpath(venv):
        _become(str(venv / "bin/python"))
    if asked.page_port is not None:
        try:
            page_build.build()
        except CannotRun as error:
            print(f"{error} The gateway starts without it.", flush=True)
    from local import runner

    return runner.main(asked)


def _supported_python() -> str | None:
    """Another interpreter on the PATH. One that only stands there, as pyenv's shims do, is
    passed over.
    """
    for name in ("python3.13", "python3.12", "python3.11"):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
            return path
    return None


def _become(python: str) -> None:
    """This process goes on as that interpreter; it never returns."""
    for name in ("PYTHONPATH", "PYTHONHOME"):  # of the operator's shell, and not for these packages
        os.environ.pop(name, None)
    sys.stdout.flush()
    os.execv(python, [python, "-m", "local"])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
