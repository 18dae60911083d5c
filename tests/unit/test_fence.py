"""The core stays pure, and imports run doors → shell → core, never up.

ruff refuses what the core may not use (layers/core/ruff.toml); these tests plant each such use and
see it refused. What ruff cannot express is checked here on the syntax tree.
"""

import ast
import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEIR = ROOT / "layers" / "core" / "weir"
SHELL = {"aws", "connections", "upstreams"}

# From the bottom up. A wing imports its own modules and those of lower floors.
FLOORS = [
    {""},  # the package's root: errors, settings, metrics, freshness, identifiers
    {"web"},
    {"projects"},
    {"customers", "webhooks"},
    {"identity", "ledger", "operator"},
    {"usage"},
    {"chat"},
    {"embeddings"},
    {"connections"},
    {"aws"},
    {"upstreams"},
]
FLOOR_OF = {wing: floor for floor, wings in enumerate(FLOORS) for wing in wings}

# What the core may import from elsewhere. A module that is missing here may be added if it is pure.
PURE = {
    "base64",
    "binascii",
    "collections",
    "contextlib",
    "cryptography",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "email.utils",  # dates as HTTP spells them
    "enum",
    "functools",
    "hashlib",
    "hmac",
    "importlib.resources",  # the starting list of models, which comes with the code
    "io",
    "ipaddress",
    "json",
    "jwt",
    "math",
    "operator",
    "publicsuffixlist",
    "pydantic",
    "re",
    "struct",
    "time",
    "typing",
    "unicodedata",
    "urllib.parse",
}

# Of `time`: what only spells a time that it is given.
SPELLING = {"gmtime", "strftime", "strptime", "struct_time"}

MODULES = [
    *("asyncio", "boto3", "botocore.session", "concurrent.futures", "ftplib", "glob"),
    *("http.client", "http.server", "httpcore", "httpx", "multiprocessing", "os", "os.path"),
    *("pathlib", "platform", "random", "requests", "secrets", "select", "selectors", "shutil"),
    *("signal", "smtplib", "socket", "socketserver", "ssl", "subprocess", "sys", "tempfile"),
    *("threading", "urllib.request", "urllib3", "weir.aws", "weir.aws.lean", "weir.upstreams"),
    *("weir.upstreams.bedrock", "aws_lambda_powertools.event_handler"),
]
MEMBERS = [
    *("os.environ", "os.getenv", "os.urandom", "http.client", "urllib.request", "weir.aws"),
    *(
        "weir.connections",
        "weir.upstreams",
        "concurrent.futures",
        "uuid.uuid1",
        "uuid.uuid4",
        "uuid.getnode",
    ),
    *("io.open", "importlib.import_module"),
    "cryptography.hazmat.primitives.asymmetric.rsa.generate_private_key",
    *(f"time.{n}" for n in dir(time) if n.islower() and n[0] != "_" and n not in SPELLING),
]
OF_DATETIME = ["datetime.now", "datetime.utcnow", "datetime.today", "date.today"]


def forbidden_lines() -> Iterator[str]:
    """Each forbidden use on a line of its own, in each spelling that Python has for it."""
    for module in MODULES:
        yield f"import {module}"
    for member in MEMBERS:
        module, _, name = member.rpartition(".")
        yield f"import {module}; {module}.{name}"
        yield f"import {module} as m; m.{name}"
        yield f"from {module} import {name}"
        yield f"from {module} import {name} as n"
    for member in OF_DATETIME:
        kind, _, name = member.partition(".")
        yield f"import datetime; datetime.{member}()"
        yield f"import datetime as d; d.{member}()"
        yield f"from datetime import {kind}; {kind}.{name}()"
        yield f"from datetime import {kind} as k; k.{name}()"


def refused_by_ruff(place: Path, lines: list[str]) -> set[str]:
    """Return the lines that ruff, as `make check` and editors run it, refuses as banned."""
    # Each in a function of its own, where no name hides that of another.
    source = "".join(f"def f{n}(): {line}\n" for n, line in enumerate(lines))
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "json"]
    told = subprocess.run(
        [*ruff, "--stdin-filename", str(place), "-"],
        input=source,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert told.returncode in (0, 1), told.stderr
    found = [each for each in json.loads(told.stdout) if each["code"] == "TID251"]
    return {lines[each["location"]["row"] - 1] for each in found}


def folders() -> Iterator[str]:
    """Every folder of the package, as a path below it; "" is the package itself."""
    for package in sorted(WEIR.rglob("__init__.py")):
        yield package.parent.relative_to(WEIR).as_posix().removeprefix(".")


CORE = [folder for folder in folders() if folder.split("/")[0] not in SHELL]
SHELL_FOLDERS = [folder for folder in folders() if folder.split("/")[0] in SHELL]


@pytest.mark.parametrize("folder", CORE)
def test_core_may_use_nothing_of_the_world_outside(folder: str) -> None:
    lines = list(forbidden_lines())
    missed = set(lines) - refused_by_ruff(WEIR / folder / "planted.py", lines)
    assert missed == set()


@pytest.mark.parametrize("folder", SHELL_FOLDERS)
def test_shell_may_use_it(folder: str) -> None:
    assert refused_by_ruff(WEIR / folder / "planted.py", list(forbidden_lines())) == set()


def test_doors_leave_aws_and_providers_to_the_shell() -> None:
    lines = ["import boto3", "import botocore.session", "import httpx", "import httpcore"]
    assert refused_by_ruff(ROOT / "functions/chat/app.py", lines) == set(lines)


# ---------------------------------------------------------------- what ruff cannot express


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in WEIR.rglob("*.py"):
        dotted = ".".join(path.relative_to(WEIR.parent).with_suffix("").parts)
        found[dotted.removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imported(tree: ast.Module, known: set[str]) -> set[str]:
    """What a module imports, at its top or later. `from p import m` is p.m, if that is a module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            package = node.module or ""
            for each in node.names:
                member = f"{package}.{each.name}"
                found.add(member if member in known | PURE else package)
    return found


def wing(module: str) -> str:
    """`weir.aws.operator.records` is in the wing `aws`, `weir.errors` in none."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (WEIR / parts[1]).is_dir() else ""


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "weir"


def upward(module: str, imports: set[str]) -> set[str]:
    """Of `imports`, those that `module` may not have: of a higher floor, or of a wing beside it."""
    own = wing(module)
    theirs = {name for name in imports if is_ours(name) and wing(name) != own}
    return {name for name in theirs if FLOOR_OF[wing(name)] >= FLOOR_OF[own]}


def impure(imports: set[str]) -> set[str]:
    outside = {name for name in imports if not is_ours(name)}
    return {name for name in outside if not {name, name.partition(".")[0]} & PURE}


def unseen_by_ruff(tree: ast.Module) -> list[int]:
    """Return the lines that read the clock, since they give gmtime or strftime no time, that open a
    file, or that import what no check can see.
    """
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    enough = {"time.gmtime": 1, "time.strftime": 2, "open": 99, "__import__": 99}
    return [c.lineno for c in calls if len(c.args) < enough.get(ast.unparse(c.func), 0)]


def test_every_wing_has_its_floor() -> None:
    assert {folder.split("/")[0] for folder in folders()} == set(FLOOR_OF)


def test_imports_never_run_up() -> None:
    trees = modules()
    assert len(trees) > 40
    found = {name: upward(name, imported(tree, set(trees))) for name, tree in trees.items()}
    assert {name: each for name, each in found.items() if each} == {}


@pytest.mark.parametrize(
    ("module", "line", "is_up"),
    [
        ("weir.errors", "from weir.web import cors", True),
        ("weir.web.cors", "from weir.projects.limits import NANO", True),
        ("weir.ledger.costs", "from weir.identity import tokens", True),
        ("weir.ledger.costs", "def f():\n    import weir.chat.request", True),
        ("weir.usage.query", "from weir import aws", True),
        ("weir.aws.ledger", "from weir.upstreams.bedrock import RoleBearer", True),
        ("weir.chat.relay", "from weir.errors import Refusal", False),
        ("weir.upstreams.bedrock", "from weir.aws.lean import presigned_url", False),
    ],
)
def test_import_that_runs_up_is_seen(module: str, line: str, is_up: bool) -> None:
    assert bool(upward(module, imported(ast.parse(line), set(modules())))) is is_up


def test_no_module_imports_itself_by_a_circle() -> None:
    trees = modules()
    TopologicalSorter({name: imported(tree, set(trees)) for name, tree in trees.items()}).prepare()


def test_core_imports_only_what_is_known_to_be_pure() -> None:
    trees = modules()
    found = {
        name: impure(imported(tree, set(trees)))
        for name, tree in trees.items()
        if wing(name) not in SHELL
    }
    assert {name: each for name, each in found.items() if each} == {}
    assert impure({"telnetlib", "importlib", "json", "weir.errors"}) == {"telnetlib", "importlib"}


def test_core_spells_only_times_that_it_is_given_and_opens_no_file() -> None:
    found = {n: unseen_by_ruff(t) for n, t in modules().items() if wing(n) not in SHELL}
    assert {name: lines for name, lines in found.items() if lines} == {}
    for line in ("time.gmtime()", "time.strftime('%Y')", "open('x')", "__import__('os')"):
        assert unseen_by_ruff(ast.parse(line)) == [1], line
    assert unseen_by_ruff(ast.parse("time.strftime('%Y', time.gmtime(0)); at.strftime('%Y')")) == []


# What a door must not import, not even by way of another module: a page waits for its cold start.
HEAVY = {"boto3", "botocore", "httpx", "pydantic"}
LIGHT_DOORS = {
    "account": HEAVY,
    "chat": HEAVY | {"aws_lambda_powertools"},
    "preflight": HEAVY | {"aws_lambda_powertools", "cryptography", "jwt"},  # it has no such layer
    "token": HEAVY,
}


@pytest.mark.parametrize("name", LIGHT_DOORS)
def test_door_that_a_page_waits_for_imports_nothing_heavy(name: str) -> None:
    trees = modules()
    door = ast.parse((ROOT / "functions" / name / "app.py").read_text())
    found, due = set(), imported(door, set(trees))
    while due:
        found |= due
        due = {each for n in due & set(trees) for each in imported(trees[n], set(trees))} - found
    assert "weir.errors" in found
    assert {each.partition(".")[0] for each in found} & LIGHT_DOORS[name] == set()


def test_layers_know_nothing_of_what_stands_above_them() -> None:
    above = {"functions", "cli", "local", "benchmarks", "tests"}
    stream = ast.parse((ROOT / "layers/stream/stream_runtime.py").read_text())
    trees = modules()
    for name, tree in {**trees, "stream_runtime": stream}.items():
        others = above | ({"weir"} if name == "stream_runtime" else {"stream_runtime"})
        tops = {each.partition(".")[0] for each in imported(tree, set(trees))}
        assert tops & others == set(), name
