"""The documents name everything there is to find: routes, error codes, parameters, settings."""

import re
from pathlib import Path

import pytest
import yaml

from tests.unit.web.test_edge import every_refusal
from weir import errors
from weir.chat.completion import BILLED, Billed
from weir.chat.outcome import Ending, State
from weir.errors import Refusal
from weir.operator.documents import ProjectChange, parsed
from weir.projects.limits import ALL_FIELDS, ONE_REQUEST

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "template.yaml").read_text()


def doc(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def test_every_route_is_documented() -> None:
    routes = set(re.findall(r'Path: "?([^\s"]+)"?, Method: (\w+)', TEMPLATE))
    routes |= {("/v1/chat/completions", "POST")}
    assert len(routes) > 8
    for path, method in routes:
        if method != "OPTIONS":
            assert f"`{method} {path}`" in doc("routes"), path


def test_every_error_code_is_documented() -> None:
    codes = {kind.code for kind in every_refusal()}
    for source in (ROOT / "layers/core/weir").rglob("*.py"):
        codes |= set(re.findall(r'code="(\w+)"', source.read_text()))
    codes |= set(re.findall(r'"code":"(\w+)","details"', TEMPLATE))
    assert {"upstream_error", "api_key_in_browser", "rate_limited"} <= codes
    for code in codes:
        assert f"`{code}`" in doc("errors"), code


def test_every_reason_for_a_401_is_documented() -> None:
    for source in (ROOT / "layers/core/weir").rglob("*.py"):
        for reason in re.findall(r'reason="(\w+)"', source.read_text()):
            documented = doc("errors")
            assert f"`{reason}`" in documented or reason.startswith("bad_"), reason


def test_error_tree_in_the_module_names_every_class() -> None:
    for kind in every_refusal():
        assert kind.__name__ in (errors.__doc__ or ""), kind.__name__


def test_every_kind_of_limit_is_documented() -> None:
    for field in ALL_FIELDS:
        pages = (
            ["configuration"]
            if field.period == ONE_REQUEST
            else ["configuration", "ledger", "errors"]
        )
        for page in pages:
            assert f"`{field.public}`" in doc(page), (page, field.public)
        assert not field.usage or f"`{field.usage}`" in doc("errors"), field.usage


def test_table_of_who_pays_is_the_codes_own() -> None:
    table = doc("ledger").split("| the answer |")[1].split("\n\n")[0]
    head, _, *lines = table.splitlines()
    endings = [Ending(name.strip()) for name in head.strip("|").split("|")]
    shown = {}
    for line in lines:
        state, *cells = line.strip("|").split("|")
        for ending, cell in zip(endings, cells, strict=True):
            if cell.strip():
                how = Billed[cell.strip().replace(" ", "_").upper()]
                shown[State(state.split(":")[0].strip()), ending] = how
    assert shown == BILLED


def test_every_parameter_and_function_setting_is_documented() -> None:
    parameters = TEMPLATE.split("\nParameters:\n")[1].split("\nConditions:\n")[0]
    names = re.findall(r"^  (\w+):$", parameters, re.MULTILINE)
    assert len(names) > 12
    for name in names:
        assert f"`{name}`" in doc("settings"), name
    for variable in re.findall(r'(?:_text|_integer)\(env, "(\w+)"', settings_source()):
        if variable != "AWS_REGION":  # Lambda's own
            assert f"`{variable}`" in doc("settings"), variable
            assert f"{variable}:" in TEMPLATE, variable


def settings_source() -> str:
    return (ROOT / "layers/core/weir/settings.py").read_text()


def test_every_setting_of_make_run_is_documented() -> None:
    found: set[str] = set()
    for source in (ROOT / "local").glob("*.py"):
        found |= set(re.findall(r'env(?:iron)?(?:\.get\(|, )"([A-Z_]+)"', source.read_text()))
    assert {"PORT", "UPSTREAM_BASE_URL", "WEIR_MAX_PROCESSES"} <= found
    for name in found:
        assert f"`{name}`" in doc("settings"), name


def test_every_link_between_documents_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target, anchor in re.findall(r"\]\(([\w./-]*)(#[\w-]+)?\)", page.read_text()):
            there = page.parent / target if target else page
            assert there.exists(), (page.name, target)
            if anchor and there.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
                assert anchor[1:] in slugs, (page.name, target, anchor)


def test_documented_patterns_of_previews_are_accepted_or_refused_as_said() -> None:
    pages = [page.read_text() for page in (ROOT / "docs").rglob("*.md")]
    shown = {
        pattern
        for page in pages
        for pattern in re.findall(r"origins add '([^']+)' --preview", page)
    }
    assert "https://*.d1abcdef.amplifyapp.com" in shown
    for pattern in shown:
        parsed(ProjectChange, {"preview_origins": [pattern]})
    (refused,) = re.findall(r"A pattern such as `(\S+)`", doc("front-end"))
    with pytest.raises(Refusal, match=r"public suffix vercel\.app"):
        parsed(ProjectChange, {"preview_origins": [refused]})


def test_no_command_to_be_pasted_has_a_comment_behind_it() -> None:
    """An interactive zsh would hand it over as arguments."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            assert not re.findall(r"^.*\S +# .*$", block, re.MULTILINE), page.name


@pytest.mark.parametrize("language", ["json", "yaml"])
def test_blocks_in_the_documents_parse(language: str) -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL):
            yaml.safe_load(block)


def test_python_blocks_in_the_documents_compile() -> None:
    blocks = [
        block
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert blocks
    for block in blocks:
        compile(block, "a document", "exec")
