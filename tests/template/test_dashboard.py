"""The dashboard shows metrics that exist; each alarm has its page, and the page can be followed."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cli.main
from local.template import load
from weir import metrics

ROOT = Path(__file__).parents[2]
WEIR = ROOT / "layers/core/weir"
STACK = "weir-test"
RUNBOOKS = ROOT / "docs" / "runbooks"
# Beside the alarms' pages, what no alarm tells.
OTHERS = {RUNBOOKS / "README.md", RUNBOOKS / "leaked-signing-key.md"}
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path not in OTHERS)

# What AWS publishes, and under which dimensions. Sources: the developer guides of API Gateway
# ("REST API metrics"), Lambda ("Types of metrics"), DynamoDB ("Metrics and dimensions") and SQS
# ("Available CloudWatch metrics").
PUBLISHED = {
    **{
        ("AWS/ApiGateway", name): ("ApiName", "Stage")
        for name in ("Count", "4XXError", "5XXError", "Latency", "IntegrationLatency")
    },
    **{
        ("AWS/Lambda", name): ("FunctionName",)
        for name in ("ConcurrentExecutions", "Duration", "Errors", "IteratorAge", "Throttles")
    },
    **{
        ("AWS/DynamoDB", name): ("TableName",)
        for name in ("ReadThrottleEvents", "WriteThrottleEvents", "TransactionConflict")
    },
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): ("QueueName",),
}
STATISTICS = re.compile(r"Sum|Average|Minimum|Maximum|SampleCount|p\d{1,2}(\.\d+)?")
SEARCH = re.compile(
    r"SEARCH\('\{(?P<namespace>\w+),(?P<dimensions>[\w,]+)\} "
    r'MetricName="(?P<name>\w+)" Stack="(?P<stack>[\w-]+)"\', \'(?P<statistic>\w+)\'\)'
)


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    found = load(ROOT / "template.yaml")["Resources"]
    assert isinstance(found, dict)
    return found


def alarms(resources: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: each["Properties"]
        for name, each in resources.items()
        if each["Type"] == "AWS::CloudWatch::Alarm"
    }


@pytest.fixture(scope="module")
def text(resources: dict[str, Any]) -> str:
    """As CloudFormation hands it to CloudWatch, with each reference's own text in its place."""
    (dashboard,) = [r for r in resources.values() if r["Type"] == "AWS::CloudWatch::Dashboard"]
    body = dashboard["Properties"]["DashboardBody"]["Fn::Sub"]
    for name in re.findall(r"\$\{(\w+)(?:\.\w+)?\}", body):
        assert name in resources or name == "StageName", name
    put = re.sub(r"\$\{(?!!)([^}]+)\}", lambda found: PUT_IN.get(found[1], found[1]), body)
    return put.replace("${!", "${")


PUT_IN = {"AWS::StackName": STACK, "AWS::Region": "eu-west-1"}


@pytest.fixture(scope="module")
def widgets(text: str) -> list[dict[str, Any]]:
    found = json.loads(text)["widgets"]
    assert isinstance(found, list)
    return found


def shown(widgets: list[dict[str, Any]]) -> Iterator[tuple[str, str, frozenset[str]]]:
    """(namespace, name, dimensions) of each metric, of a search what it searches."""
    for widget in widgets:
        for metric in widget["properties"].get("metrics", ()):
            if isinstance(metric[0], dict):
                search = SEARCH.fullmatch(metric[0]["expression"])
                assert search, metric
                yield (
                    search["namespace"],
                    search["name"],
                    frozenset(search["dimensions"].split(",")),
                )
            else:
                words = [word for word in metric if isinstance(word, str)]
                yield words[0], words[1], frozenset(words[2::2])


def emitted() -> set[tuple[str, frozenset[str]]]:
    """(name, dimensions) of each metric that a function's code emits."""
    found = set()
    for path in [*(ROOT / "functions").glob("*/app.py"), *WEIR.rglob("*.py")]:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "emf":
                        names, dimensions = (_keys(function, each) for each in call.args[3:])
                        base = frozenset({metrics.STACK})
                        for name in names:
                            found |= {(name, base), (name, base | dimensions)}
    return found


def _keys(function: ast.FunctionDef, node: ast.expr) -> set[str]:
    """Of a dict, or of the local variable that is one and may have got more members."""
    if isinstance(node, ast.Dict):
        return {str(ast.literal_eval(key)) for key in node.keys if key is not None}
    assert isinstance(node, ast.Name)
    keys = set()
    for each in ast.walk(function):
        if isinstance(each, ast.Assign):
            for target, value in _assigned(each):
                if isinstance(target, ast.Name) and target.id == node.id:
                    keys |= _keys(function, value)
                if isinstance(target, ast.Subscript) and ast.unparse(target.value) == node.id:
                    keys.add(str(ast.literal_eval(target.slice)))
    return keys


def _assigned(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    (target,) = node.targets
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        yield from zip(target.elts, node.value.elts, strict=True)
    else:
        yield target, node.value


# ---------------------------------------------------------------- the dashboard


def test_body_is_far_below_cloudwatchs_limit_and_its_widgets_do_not_overlap(
    text: str, widgets: list[dict[str, Any]]
) -> None:
    assert len(text.encode()) < 1_000_000
    assert len(widgets) <= 500
    taken: set[tuple[int, int]] = set()
    for widget in widgets:
        columns = range(widget["x"], widget["x"] + widget["width"])
        cells = {(x, widget["y"] + y) for x in columns for y in range(widget["height"])}
        assert max(columns) < 24
        assert not taken & cells, widget["properties"]["title"]
        taken |= cells


def test_every_metric_of_ours_is_one_that_a_function_emits(widgets: list[dict[str, Any]]) -> None:
    assert ("UpstreamErrors", frozenset({"Stack", "Upstream"})) in emitted()
    ours = {each[1:] for each in shown(widgets) if each[0] == metrics.NAMESPACE}
    assert len(ours) > 10
    assert ours <= emitted()


def test_every_other_metric_is_one_that_aws_publishes(widgets: list[dict[str, Any]]) -> None:
    others = {each for each in shown(widgets) if each[0] != metrics.NAMESPACE}
    assert len(others) > 5
    for namespace, name, dimensions in others:
        assert dimensions == set(PUBLISHED[(namespace, name)]), name


def test_every_graph_is_of_this_stack_in_this_region_with_a_statistic_that_exists(
    widgets: list[dict[str, Any]],
) -> None:
    for widget in widgets:
        properties = widget["properties"]
        if widget["type"] == "alarm":
            continue
        assert widget["type"] == "metric"
        assert properties["region"] == "eu-west-1"
        for metric in properties["metrics"]:
            told = metric[-1]
            assert told["label"]
            assert STATISTICS.fullmatch(told.get("stat", properties["stat"]))
            if "expression" in told:
                search = SEARCH.fullmatch(told["expression"])
                assert search
                assert (search["stack"], len(told["expression"]) <= 1024) == (STACK, True)
                assert STATISTICS.fullmatch(search["statistic"])
            elif metric[0] == metrics.NAMESPACE:
                assert metric[2:4] == ["Stack", STACK]


def test_dashboard_shows_what_an_operator_asks_first(widgets: list[dict[str, Any]]) -> None:
    names = {name for _, name, _ in shown(widgets)}
    assert {
        *("Requests", "Refusals", "FirstByteMs", "Tokens", "CostUsd", "UpstreamErrors"),
        *("Fallbacks", "ConcurrentExecutions", "SweptReservations", "WriteThrottleEvents"),
        *("4XXError", "5XXError"),
    } <= names
    percentiles = {
        metric[-1]["stat"]
        for widget in widgets
        for metric in widget["properties"].get("metrics", ())
        if "FirstByteMs" in metric
    }
    assert percentiles == {"p50", "p95"}


def test_every_alarm_is_on_the_dashboard(
    resources: dict[str, Any], widgets: list[dict[str, Any]]
) -> None:
    (widget,) = [each for each in widgets if each["type"] == "alarm"]
    assert set(widget["properties"]["alarms"]) == {f"{name}.Arn" for name in alarms(resources)}


def test_dashboards_of_two_regions_and_two_stacks_do_not_collide(
    resources: dict[str, Any],
) -> None:
    """They are global to an account."""
    name = resources["Dashboard"]["Properties"]["DashboardName"]["Fn::Sub"]
    assert "${AWS::StackName}" in name
    assert "${AWS::Region}" in name


# ---------------------------------------------------------------- the runbooks


def page_of(alarm: str) -> Path:
    return RUNBOOKS / (re.sub(r"(?<!^)(?=[A-Z])", "-", alarm.removesuffix("Alarm")).lower() + ".md")


def test_every_alarm_has_its_page_and_names_it_and_every_page_its_alarm(
    resources: dict[str, Any],
) -> None:
    named = alarms(resources)
    assert {page_of(name) for name in named} == set(PAGES)
    listed = (RUNBOOKS / "README.md").read_text()
    for name, alarm in named.items():
        page = page_of(name)
        assert alarm["AlarmDescription"].endswith(f" {page.relative_to(ROOT)}"), name
        assert page.read_text().startswith(f"# {name}\n")
        assert f"[{name}]({page.name})" in listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_page_says_what_to_know_at_night_and_is_short(page: Path) -> None:
    said = page.read_text()
    places = [said.index(f"**{word}**") for word in ("Means", "Look at", "Do", "Over")]
    assert places == sorted(places)
    assert len(said.splitlines()) <= 60


def commands() -> set[str]:
    found: set[str] = set()
    for page in RUNBOOKS.glob("*.md"):
        said = page.read_text()
        found |= set(re.findall(r"^weir .*$", said, re.MULTILINE))
        found |= {" ".join(words.split()) for words in re.findall(r"`(weir --stack [^`]*)`", said)}
    return found


def test_every_command_of_the_pages_is_one_that_weir_understands() -> None:
    parser = cli.main.parser()
    assert len(commands()) > 15
    for command in commands():
        asked = parser.parse_args(shlex.split(command)[1:])
        assert asked.run is not None, command


def test_every_query_of_the_pages_looks_for_what_is_logged() -> None:
    sources = "".join(
        path.read_text()
        for folder in ("functions", "layers/core/weir", "layers/stream")
        for path in (ROOT / folder).rglob("*.py")
    )
    blocks = "".join(
        block
        for page in PAGES
        for block in re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL)
    )
    messages = set(re.findall(r'message = "([^"]+)"', blocks))
    assert len(messages) > 5
    for message in messages:
        assert f'"{message}"' in sources, message


def test_every_resource_of_the_template_that_a_page_names_is_there(
    resources: dict[str, Any],
) -> None:
    for page in RUNBOOKS.glob("*.md"):
        for name in re.findall(r"`([A-Z]\w+(?:Function|Logs|Failures))`", page.read_text()):
            assert name in resources, (page.name, name)
