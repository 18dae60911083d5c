"""The admin API's document and its door say the same: read, and tried out by schemathesis."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import openapi
from tests.provider import FakeProvider
from tests.stack.admin import Admin, document, model
from tests.stack.conftest import ROOT, Stack, start

DOCUMENT = ROOT / "docs" / "openapi.json"
# Two that do not hold, on purpose: what fits the document may still not fit what is there (a model
# that nobody has); and a method that is not listed is answered 404, as every unknown route is.
NOT_ASKED = "positive_data_acceptance,unsupported_method"
# Where paths are fixed (below), what is asked for is not what was created a moment ago.
NOT_CREATED = "ensure_resource_availability"
# What is there, so that more is tried than "there is no such project".
THERE = """
[parameters]
"path.pid" = "default"

[[operations]]
include-path-regex = "^/admin/v1/models/"
parameters = { name = "fake-large" }

[[operations]]
include-path-regex = "^/admin/v1/upstreams/"
parameters = { name = "spare" }

[[operations]]
include-path-regex = "/tiers/"
parameters = { name = "gold", tier = "gold" }
"""


def test_document_is_what_the_door_says() -> None:
    assert DOCUMENT.read_text() == openapi.text(), "docs/openapi.json is old: make openapi"


def test_every_operation_and_parameter_is_described_and_names_its_refusals() -> None:
    told = document()
    names = []
    for path, item in told["paths"].items():
        for method, operation in item.items():
            names.append(operation["operationId"])
            assert operation["summary"], (method, path)
            assert operation["description"].startswith(operation["summary"]), (method, path)
            answers = set(operation["responses"])
            assert openapi.refusals(method, path) == answers - {"200", "201", "202", "204"}, (
                method,
                path,
            )
            assert ("409" in answers) == (method != "get"), (method, path)
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], (method, path, parameter["name"])
    assert len(names) == len(set(names))
    assert told["security"] == [{"cognito": []}]


def test_summary_is_the_first_sentence_of_what_the_door_says() -> None:
    told = document()["paths"]["/admin/v1/projects/{pid}/keys"]["post"]
    assert told["summary"] == "Make an API key"
    assert told["description"].startswith("Make an API key. Its secret is in this answer")


def test_client_that_fills_in_defaults_changes_nothing_but_what_it_names() -> None:
    schemas = document()["components"]["schemas"]
    for name in ("ProjectChange", "TenantDocument", "LimitsDocument"):
        filled = [n for n, member in schemas[name]["properties"].items() if "default" in member]
        assert filled == [], name
    tenant = schemas["ConfigurationFile"]["properties"]["tenant"]
    assert "default" not in tenant
    for limits in (schemas["ProjectChange"], schemas["TenantDocument"]):
        assert openapi.KEPT in limits["properties"]["limits"]["description"]
    assert "stay" not in schemas["NewProject"]["properties"]["limits"]["description"]


def test_every_schema_is_used_and_has_one_form() -> None:
    schemas = document()["components"]["schemas"]
    text = DOCUMENT.read_text()
    assert [name for name in schemas if f'/schemas/{name}"' not in text] == []
    assert [name for name in schemas if name.endswith(("-Input", "-Output"))] == []


@pytest.fixture(scope="module")
def apart(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that may be turned upside down."""
    with start(
        tmp_path_factory.mktemp("fuzzed"),
        upstream=provider.url,
    ) as running:
        yield running


@pytest.fixture
def admin(apart: Stack) -> Admin:
    one = Admin(apart)
    one("PUT", "upstreams/spare", {"kind": "openai", "base_url": "https://spare.example/v1"})
    one("PUT", "models/spare", model("spare", "spare"))
    one("PUT", "projects/default/tiers/gold", {"rpm": 5})
    return one


def tried(stack: Stack, admin: Admin, place: Path, *how: str, there: str = "") -> str:
    """What schemathesis says. It writes into `place` only."""
    place.mkdir(exist_ok=True)
    (place / "schemathesis.toml").write_text(there)
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "PYTEST"))}
    environment["SCHEMATHESIS_HOOKS"] = str(Path(__file__).with_name("schemathesis_hooks.py"))
    told = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "run",
            DOCUMENT,
            *("--url", stack.env["BEHEST_BASE_URL"]),
            *("--header", f"Authorization: Bearer {admin.token}"),
            *("--checks", "all", "--exclude-checks"),
            f"{NOT_ASKED},{NOT_CREATED}" if there else NOT_ASKED,
            "--generation-deterministic",
            *("--workers", "1", "--request-timeout", "20", "--no-color", "--warnings", "off"),
            *how,
        ],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=570,
    )
    said = told.stdout + told.stderr
    assert told.returncode == 0, said[-15_000:]
    return said


def nothing_failed(stack: Stack) -> None:
    """Nothing that the door did not foresee, whatever it answered."""
    log = stack.log("AdminFunction")
    assert "Traceback" not in log
    assert '"level":"ERROR"' not in log.replace(" ", "")


def test_no_answer_is_undocumented(apart: Stack, admin: Admin, tmp_path: Path) -> None:
    phases = ("--phases", "examples,fuzzing", "--max-examples", "4")
    said = tried(apart, admin, tmp_path / "short", *phases, there=THERE)
    operations = sum(len(item) for item in document()["paths"].values())
    assert f"Tested: {operations}\n" in said
    nothing_failed(apart)


# Not `stateful` with what is there: having made a project, schemathesis looks for a tier in it, but
# must look in `default`, where it has deleted that tier, and takes it for lost (ST302).
@pytest.mark.long
@pytest.mark.parametrize(
    ("phases", "there"),
    [("examples,coverage,fuzzing,stateful", ""), ("examples,coverage,fuzzing", THERE)],
    ids=["unknown", "known"],
)
def test_no_answer_of_many_is_undocumented(
    apart: Stack, admin: Admin, tmp_path: Path, phases: str, there: str
) -> None:
    how = ("--phases", phases, "--max-examples", "100")
    tried(apart, admin, tmp_path / "deep", *how, there=there)
    nothing_failed(apart)
