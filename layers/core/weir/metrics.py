"""Metrics as members of a log line: CloudWatch makes metrics of what a line with `_aws` says, and
no call is made on a request's way.

Source: Amazon CloudWatch User Guide, "Specification: Embedded metric format".
"""

from collections.abc import Mapping
from typing import Any

NAMESPACE = "Weir"

COUNT, SECONDS, MILLISECONDS, NO_UNIT = "Count", "Seconds", "Milliseconds", "None"

# Each combination of values is a metric of its own, and costs as one: never a user or a session.
DIMENSIONS = frozenset(("Project", "Model", "Code", "Upstream"))
STACK = "Stack"  # of every metric: two deployments in one account must not be counted together


def emf(
    service: str,
    stack: str,
    at_ms: int,
    metrics: Mapping[str, tuple[float, str]],
    dimensions: Mapping[str, str],
) -> dict[str, Any]:
    """The members that make metrics of a JSON log line, to be passed to a logger as `extra`.

    `stack` is the deployment's name; `at_ms`, Unix milliseconds. `metrics`: value and unit, by
    name; at most 100. Each is counted for the whole deployment, and once more under `dimensions` if
    there are any. One without a value is left out, because CloudWatch drops the whole line for it.
    Raises ValueError for a dimension that is not in DIMENSIONS.
    """
    if not DIMENSIONS.issuperset(dimensions):
        raise ValueError(f"a metric may have no dimension of {sorted(dimensions)}")
    told = {name: value for name, value in dimensions.items() if value}
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [[STACK], [STACK, *told]] if told else [[STACK]],
        "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in metrics.items()],
    }
    return {
        "_aws": {"Timestamp": at_ms, "CloudWatchMetrics": [directive]},
        "service": service,
        STACK: stack,
        **told,
        **{name: value for name, (value, _) in metrics.items()},
    }
