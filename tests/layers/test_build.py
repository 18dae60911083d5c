"""The layers as they are shipped: right processor, right bytecode, nothing too much."""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layers import build

ROOT = Path(__file__).resolve().parents[2]
NATIVE = build.find_python()
AARCH64 = 183  # ELF e_machine
UNCHECKED_HASH = 0b01
LAMBDA_UNZIPPED_LIMIT = 250_000_000

needs_native = pytest.mark.skipif(NATIVE is None, reason="needs an installed Python 3.13")

# To be tried, the layer must run on this machine: the same build with other wheels.
HOST_PYTHON = NATIVE or sys.executable
HOST = build.Target(
    "3.13" if NATIVE else f"{sys.version_info.major}.{sys.version_info.minor}",
    tuple(
        f"{policy}_{os.uname().machine}"
        for policy in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
    ),
)


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dependencies")
    build.build("dependencies", out)
    return out


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("core")
    build.build("core", out)
    return out


@pytest.fixture(scope="session")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stream")
    build.build("stream", out)
    return out


@pytest.fixture(params=["dependencies", "core", "stream"])
def layer(request: pytest.FixtureRequest) -> Path:
    out = request.getfixturevalue(request.param)
    assert isinstance(out, Path)
    return out


@pytest.fixture(scope="session")
def runnable(tmp_path_factory: pytest.TempPathFactory, core: Path) -> Path:
    """Dependencies and core as they lie on Lambda, for this machine's processor."""
    out = tmp_path_factory.mktemp("runnable")
    build.build_dependencies(out, HOST)
    if NATIVE:
        build.finish("dependencies", out)
    shutil.copytree(core / "python", out / "python", dirs_exist_ok=True)
    return out / "python"


def digest(out: Path) -> dict[str, tuple[int, str]]:
    return {
        path.relative_to(out).as_posix(): (
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def run(python: str, code: str, site: Path) -> str:
    """As on Lambda: only the layers, nothing of this machine's packages, nothing written."""
    done = subprocess.run(
        [python, "-SsBP", "-W", "error", "-c", code],
        env={
            "PYTHONPATH": str(site),
            "PATH": os.environ["PATH"],
            "AWS_DEFAULT_REGION": "eu-west-1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pycs(out: Path) -> Iterator[Path]:
    return out.rglob("*.pyc")


# ---------------------------------------------------------------- what is in them


def test_every_library_is_for_lambdas_processor(dependencies: Path) -> None:
    libraries = [
        path
        for path in dependencies.rglob("*")
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"
    ]
    machines = {path.name: int.from_bytes(path.read_bytes()[18:20], "little") for path in libraries}
    assert machines
    assert set(machines.values()) == {AARCH64}
    assert not [
        path.name
        for path in dependencies.rglob("*")
        if "x86_64" in path.name or "i686" in path.name
    ]
    assert {path.name for path in dependencies.rglob("*.so*")} == set(machines)


def test_every_module_is_precompiled_and_trusted_without_its_source(layer: Path) -> None:
    sources = {path.relative_to(layer) for path in layer.rglob("*.py")}
    compiled = {path.relative_to(layer) for path in pycs(layer)}
    assert sources
    assert {
        path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc" for path in sources
    } == compiled
    for path in compiled:
        header = (layer / path).read_bytes()[:8]
        assert header == b"\xf3\r\r\n" + UNCHECKED_HASH.to_bytes(4, "little"), path


def test_tracebacks_name_the_place_on_lambda_and_nothing_names_this_machine(layer: Path) -> None:
    assert all(b"/opt/python/" in path.read_bytes() for path in pycs(layer))
    for path in layer.rglob("*"):
        if path.is_file():
            assert str(layer).encode() not in path.read_bytes(), path


def test_pruned_far_below_what_lambda_unzips(dependencies: Path, core: Path, stream: Path) -> None:
    size = sum(
        path.stat().st_size for out in (dependencies, core, stream) for path in out.rglob("*")
    )
    assert size < 40_000_000 < LAMBDA_UNZIPPED_LIMIT


def test_scanners_still_see_every_package_and_its_version(dependencies: Path) -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==(\S+)", _lock(), re.MULTILINE))
    seen = set()
    for path in dependencies.glob("python/*.dist-info/METADATA"):
        text = path.read_text()
        name, version = (
            re.search(rf"^{field}: (\S+)", text, re.MULTILINE) for field in ("Name", "Version")
        )
        assert name is not None
        assert version is not None
        seen.add((re.sub(r"[-_.]+", "-", name[1]).lower(), version[1]))
    assert seen == locked


def test_the_lock_does_not_depend_on_the_python_that_builds() -> None:
    """pip asks the Python that runs it, not the one it fetches for, whether a marker holds."""
    markers = set(re.findall(r"^[^ #]\S*==\S+ ; (.*) \\$", _lock(), re.MULTILINE))
    assert not [marker for marker in markers if "version" in marker or "platform_machine" in marker]


def _lock() -> str:
    return (ROOT / "layers" / "dependencies" / "requirements.txt").read_text()


def test_core_layer_is_the_core_and_nothing_else(core: Path) -> None:
    source = ROOT / "layers" / "core" / "weir"
    wanted = {path.relative_to(source) for path in source.rglob("*.py")}
    shipped = {
        path.relative_to(core / "python" / "weir") for path in core.rglob("*") if path.is_file()
    }
    assert {path for path in shipped if path.suffix == ".py"} == wanted
    assert {path.suffix for path in shipped} <= {".py", ".pyc", ".json"}


def test_process_of_the_layers_knows_authorities_without_parsing_a_bundle(runnable: Path) -> None:
    bundle = (runnable / "certifi" / "cacert.pem").read_text()
    files = list((runnable / "certificates").iterdir())
    assert len(files) == bundle.count("BEGIN CERTIFICATE") > 100
    assert all(re.fullmatch(r"[0-9a-f]{8}\.\d", path.name) for path in files)
    # OpenSSL counts what it has parsed: nothing, until a server names an authority.
    code = (
        "from weir.connections import trust;"
        "print(trust.context().cert_store_stats()['x509'], trust.context().verify_mode)"
    )
    assert run(HOST_PYTHON, code, runnable).split() == ["0", "2"]


# ---------------------------------------------------------------- run bits


def test_only_the_wrapper_is_executable(layer: Path) -> None:
    for path in layer.rglob("*"):
        executable = path.is_dir() or path.name == "start-stream-runtime"
        assert path.stat().st_mode & 0o777 == (0o755 if executable else 0o644), path


def test_the_wrapper_lies_where_the_function_looks_and_starts_with_a_shebang(stream: Path) -> None:
    assert (stream / "start-stream-runtime").read_bytes().startswith(b"#!/")
    assert (stream / "python" / "stream_runtime.py").is_file()


# ---------------------------------------------------------------- same inputs, same bytes


@pytest.mark.long  # it fetches and compiles everything twice
def test_building_again_into_the_same_folder_changes_no_byte(
    layer: Path, request: pytest.FixtureRequest
) -> None:
    before = digest(layer)
    (layer / "python" / "left_behind.py").write_text("from an earlier build")
    build.build(request.node.callspec.params["layer"], layer)
    assert digest(layer) == before


# ---------------------------------------------------------------- the pruned tree works


def test_what_functions_import_works_from_the_pruned_tree(runnable: Path) -> None:
    said = run(
        HOST_PYTHON,
        """
import botocore.auth, botocore.exceptions, botocore.session, certifi, jwt, ssl
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
token = jwt.encode({"sub": "u"}, key, algorithm="RS256")
assert jwt.decode(token, key.public_key(), algorithms=["RS256"]) == {"sub": "u"}
ssl.create_default_context(cafile=certifi.where())
Logger(service="x").info("logged"); Metrics(namespace="x"); APIGatewayRestResolver()
session = botocore.session.get_session()
session.set_credentials("a", "b")
for name in ("cognito-idp", "dynamodb", "kms", "secretsmanager", "sqs", "sts"):
    print(name, session.create_client(name).meta.endpoint_url)
""",
        runnable,
    )
    assert "dynamodb https://dynamodb.eu-west-1.amazonaws.com" in said


def test_core_imports_from_the_pruned_tree(runnable: Path) -> None:
    modules = [
        path.relative_to(runnable).with_suffix("")
        for path in sorted((runnable / "weir").rglob("*.py"))
    ]
    names = [".".join(path.parts).removesuffix(".__init__") for path in modules]
    run(
        HOST_PYTHON,
        "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names),
        runnable,
    )


def test_every_aws_service_that_sources_name_is_kept() -> None:
    called = set()
    for folder in ("functions", "layers/core", "layers/stream"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(attr=name) | ast.Name(id=name),
                        args=[ast.Constant(value=service), *_],
                    ) if name in ("client", "resource", "create_client"):
                        called.add(service)
    assert "dynamodb" in called
    assert called <= build.AWS_SERVICES


@needs_native
def test_bytecode_is_used_and_its_source_is_not_looked_at(core: Path, tmp_path: Path) -> None:
    shutil.copytree(core / "python", tmp_path / "python")
    errors = tmp_path / "python" / "weir" / "errors.py"
    errors.write_text("raise SystemExit('the source was compiled again')")
    run(HOST_PYTHON, "import weir.errors", tmp_path / "python")


# ---------------------------------------------------------------- without an installed Python 3.13


@pytest.fixture(scope="session")
def by_pyodide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pyodide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIR_LAYER_COMPILER", "pyodide")
        build.build("core", out)
    return out


def test_webassembly_makes_the_same_layer(by_pyodide: Path, core: Path) -> None:
    assert set(digest(by_pyodide)) == set(digest(core))
    for path in pycs(by_pyodide):
        assert path.read_bytes()[:16] == (core / path.relative_to(by_pyodide)).read_bytes()[:16]


@needs_native
def test_lambdas_python_reads_what_webassembly_compiled(
    by_pyodide: Path, runnable: Path, tmp_path: Path
) -> None:
    site = tmp_path / "python"
    shutil.copytree(runnable, site)
    shutil.copytree(by_pyodide / "python", site, dirs_exist_ok=True)
    (site / "weir" / "tokens.py").write_text("raise SystemExit('the source was compiled again')")
    run(HOST_PYTHON, "import weir.identity.tokens", site)


SAME_PROGRAM = """
import marshal, pathlib, sys
ours, native = map(pathlib.Path, sys.argv[1:])

def shape(code):
    parts = [shape(part) if hasattr(part, "co_code") else part for part in code.co_consts]
    place = [code.co_filename, code.co_qualname, code.co_firstlineno]
    return [place, code.co_names, code.co_varnames, code.co_freevars, parts]

for path in sorted(ours.rglob("*.pyc")):
    files = (path, native / path.relative_to(ours))
    one, other = (shape(marshal.loads(file.read_bytes()[16:])) for file in files)
    assert one == other, path
"""


@needs_native
def test_webassembly_compiles_to_the_same_program(by_pyodide: Path, core: Path) -> None:
    """Single instructions differ between 3.13 releases; names, constants and places may not."""
    subprocess.run([HOST_PYTHON, "-c", SAME_PROGRAM, by_pyodide, core], check=True)


def test_a_shim_that_refuses_to_run_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "python3.13"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert build.find_python() in (None, sys.executable)


# ---------------------------------------------------------------- failures say what is missing


def test_an_unknown_layer_is_refused_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["everything", "out"]) == 2
    assert "dependencies|core|stream" in capsys.readouterr().err


def test_an_unknown_compiler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEIR_LAYER_COMPILER", "gcc")
    assert build.main(["core", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err
        == "core: WEIR_LAYER_COMPILER is 'gcc'; it may be native or pyodide.\n"
    )


def test_without_network_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert build.main(["dependencies", str(tmp_path)]) == 1
    assert "pip could not fetch the wheels (is there a network?):" in capsys.readouterr().err


def test_a_python_without_pip_is_told_apart(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    done = subprocess.run(
        [bare / "bin" / "python", ROOT / "layers" / "build.py", "dependencies", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "has no pip; set WEIR_PYTHON to a Python that has one." in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- as SAM builds them


@pytest.fixture(scope="session")
def sam() -> str:
    found = ROOT / ".venv-sam" / "bin" / "sam"
    program = str(found) if found.exists() else shutil.which("sam")
    if program is None:
        pytest.skip("needs the SAM command line")
    return program


@pytest.mark.long
def test_sam_builds_and_zips_them_whole(sam: str, tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "layers", tmp_path / "layers", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "template.yaml").write_text(_layers_template())
    environment = {**os.environ, "SAM_CLI_TELEMETRY": "0", "WEIR_PYTHON": sys.executable}
    for _ in range(2):
        subprocess.run(
            [sam, "build"], cwd=tmp_path, env=environment, check=True, capture_output=True
        )
    built = tmp_path / ".aws-sam" / "build" / "StreamLayer"
    zipped = tmp_path / "stream.zip"
    script = (
        "import sys; from samcli.lib.package import utils; "
        "utils.make_zip_with_lambda_permissions(sys.argv[1], sys.argv[2])"
    )
    python = Path(sam).resolve().parent / "python"
    subprocess.run([python, "-c", script, zipped.with_suffix(""), built], check=True)
    with zipfile.ZipFile(zipped) as archive:
        assert archive.getinfo("start-stream-runtime").external_attr >> 16 & 0o777 == 0o755
        assert "python/__pycache__/stream_runtime.cpython-313.pyc" in archive.namelist()


def _layers_template() -> str:
    layer = """
  {name}Layer:
    Type: AWS::Serverless::LayerVersion
    Metadata: {{ BuildMethod: makefile, BuildArchitecture: arm64 }}
    Properties:
      ContentUri: layers/
      CompatibleRuntimes: [python3.13]
      CompatibleArchitectures: [arm64]"""
    return "Transform: AWS::Serverless-2016-10-31\nResources:" + "".join(
        layer.format(name=name) for name in ("Dependencies", "Core", "Stream")
    )
