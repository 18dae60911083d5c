"""Metrics in a log line, as CloudWatch's embedded metric format wants them."""

import io
import json
import logging
import re
from typing import Any

import pytest
from aws_lambda_powertools import Logger

from stream_runtime import OneLine
from weir.metrics import COUNT, DIMENSIONS, MILLISECONDS, NO_UNIT, emf

AT_MS = 1_800_000_000_123
METRICS = {"Requests": (1, COUNT), "FirstByteMs": (12.5, MILLISECONDS), "CostUsd": (0.0, NO_UNIT)}


def assert_is_emf(line: dict[str, Any]) -> None:
    """What the specification demands of a line; CloudWatch passes over one that breaks it."""
    metadata = line["_aws"]
    assert set(metadata) == {"Timestamp", "CloudWatchMetrics"}
    assert isinstance(metadata["Timestamp"], int)
    for directive in metadata["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert 0 < len(directive["Namespace"]) <= 1024
        assert 0 < len(directive["Metrics"]) <= 100
        assert directive["Dimensions"]
        for names in directive["Dimensions"]:
            assert len(names) <= 30
            assert all(isinstance(line[name], str) and line[name] for name in names)
        for metric in directive["Metrics"]:
            assert set(metric) == {"Name", "Unit"}
            assert isinstance(line[metric["Name"]], (int, float))


def test_line_has_the_directive_and_each_value_beside_it() -> None:
    told = emf("chat", "weir-a", AT_MS, METRICS, {})
    assert_is_emf(told)
    assert told == {
        "_aws": {
            "Timestamp": AT_MS,
            "CloudWatchMetrics": [
                {
                    "Namespace": "Weir",
                    "Dimensions": [["Stack"]],
                    "Metrics": [
                        {"Name": "Requests", "Unit": "Count"},
                        {"Name": "FirstByteMs", "Unit": "Milliseconds"},
                        {"Name": "CostUsd", "Unit": "None"},
                    ],
                }
            ],
        },
        "service": "chat",
        "Stack": "weir-a",
        "Requests": 1,
        "FirstByteMs": 12.5,
        "CostUsd": 0.0,
    }


def test_metric_counts_under_its_dimensions_and_for_the_whole_deployment() -> None:
    told = emf("chat", "weir-a", AT_MS, METRICS, {"Model": "m-large", "Project": "default"})
    assert_is_emf(told)
    (directive,) = told["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["Stack"], ["Stack", "Model", "Project"]]
    assert (told["Model"], told["Project"]) == ("m-large", "default")


def test_deployments_of_one_account_are_counted_apart() -> None:
    """CloudWatch adds up what has the same names and values, whoever has written it."""

    def counted(stack: str) -> set[tuple[str, ...]]:
        told = emf("chat", stack, AT_MS, METRICS, {"Model": "m-large"})
        (directive,) = told["_aws"]["CloudWatchMetrics"]
        return {tuple(told[name] for name in names) for names in directive["Dimensions"]}

    assert counted("weir-a").isdisjoint(counted("weir-b"))


def test_dimension_without_a_value_does_not_cost_the_line_its_metrics() -> None:
    assert emf("chat", "weir-a", AT_MS, METRICS, {"Model": ""}) == emf(
        "chat", "weir-a", AT_MS, METRICS, {}
    )


@pytest.mark.parametrize("name", ["uid", "User", "Session", "sid"])
def test_metric_of_a_single_user_or_session_cannot_be_made(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        emf("chat", "weir-a", AT_MS, METRICS, {"Model": "m-large", name: "42"})


def written(logger: logging.Logger | Logger) -> dict[str, Any]:
    line = {
        "outcome": "ok",
        **emf("chat", "weir-a", AT_MS, METRICS, dict.fromkeys(DIMENSIONS, "x")),
    }
    logger.info("chat", extra=line)
    said = io.StringIO()
    for handler in logger.handlers:
        assert isinstance(handler, logging.StreamHandler)
        said = handler.stream
    assert re.fullmatch(r"[^\n]+\n", said.getvalue()), "one line"
    loaded = json.loads(said.getvalue())
    assert isinstance(loaded, dict)
    return loaded


def test_streaming_runtimes_log_line_keeps_it_whole() -> None:
    logger = logging.Logger("chat")
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.handlers[0].setFormatter(OneLine(as_text=False))
    line = written(logger)
    assert_is_emf(line)
    assert line["message"] == "chat"
    assert line["outcome"] == "ok"


def test_powertools_log_line_keeps_it_whole() -> None:
    line = written(Logger(service="none of ours", stream=io.StringIO(), logger_handler=None))
    assert_is_emf(line)
    assert line["message"] == "chat"
