"""Reads template.yaml: as the file stands (functions, layers, rotation, schedules, streams), and as
SAM translates it (the API).

What this file does not know it refuses, with the offending text: a route that the local gateway
would treat otherwise than API Gateway must not go unnoticed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Template = dict[str, Any]

METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
ANY = "x-amazon-apigateway-any-method"
# REST APIs end a buffered integration after 29 s unless the template asks for less (or a quota
# allows more).
DEFAULT_TIMEOUT_MS = 29_000


class NotUnderstood(Exception):
    """The template says something that the local gateway does not do."""


# --- the file as it stands ----------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms: `!Ref X` is {"Ref": "X"}, `!Sub X` is {"Fn::Sub":
    "X"}.
    """


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


def load(path: Path) -> Template:
    template: Template = yaml.load(path.read_text(), _Loader)  # noqa: S506 (a subclass of SafeLoader)
    return template


@dataclass(frozen=True)
class Function:
    """What CloudFormation does not give back, because the deployed code is a stand-in."""

    logical_id: str
    code: Path
    handler: str
    layers: tuple[str, ...]


def functions(template: Template, root: Path) -> dict[str, Function]:
    defaults = template.get("Globals", {}).get("Function", {})
    found = {}
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        properties = {**defaults, **resource["Properties"]}
        if not isinstance(properties.get("CodeUri"), str):
            raise NotUnderstood(f"{logical_id}: CodeUri: {properties.get('CodeUri')!r}")
        # SAM appends: the globals' layers first, then the function's own.
        layers = [*defaults.get("Layers", []), *resource["Properties"].get("Layers", [])]
        if not all(isinstance(layer, dict) and set(layer) == {"Ref"} for layer in layers):
            raise NotUnderstood(f"{logical_id}: Layers: {layers!r}")
        found[logical_id] = Function(
            logical_id,
            root / properties["CodeUri"],
            properties["Handler"],
            tuple(layer["Ref"] for layer in layers),
        )
    return found


@dataclass(frozen=True)
class Rotation:
    """Logical ids: which function rotates which secret."""

    function: str
    secret: str


def rotations(template: Template) -> list[Rotation]:
    found = []
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] != "AWS::SecretsManager::RotationSchedule":
            continue
        properties = resource["Properties"]
        secret, function = properties["SecretId"], properties["RotationLambdaARN"]
        if not isinstance(secret, dict) or not isinstance(function, dict):
            raise NotUnderstood(f"{logical_id}: {properties!r}")
        secret_id = secret.get("Ref") or secret.get("Fn::GetAtt", [None])[0]
        function_id = function.get("Fn::GetAtt", [None])[0]
        if secret_id is None or function_id is None:
            raise NotUnderstood(f"{logical_id}: {properties!r}")
        found.append(Rotation(function_id, secret_id))
    return found


@dataclass(frozen=True)
class Schedule:
    """Logical ids, of SAM's making for the rule: which function runs how often."""

    function: str
    rule: str
    every_s: int


UNIT_S = {"minute": 60, "hour": 3600, "day": 86_400}
# Schedules that stand elsewhere than with their function.
OTHER_SCHEDULES = ("AWS::Events::Rule", "AWS::Scheduler::Schedule")


def schedules(template: Template) -> list[Schedule]:
    found = []
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] in OTHER_SCHEDULES:
            raise NotUnderstood(f"{logical_id}: {resource['Type']}")
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        for name, event in resource["Properties"].get("Events", {}).items():
            where = f"{logical_id}: {name}"
            if event["Type"] == "ScheduleV2":
                raise NotUnderstood(f"{where}: ScheduleV2")
            if event["Type"] == "Schedule":
                properties = event["Properties"]
                _only(properties, {"Schedule", "Name", "Description"}, where)
                every_s = _every_s(where, properties["Schedule"])
                found.append(Schedule(logical_id, f"{logical_id}{name}", every_s))
    return found


def _every_s(where: str, expression: Any) -> int:
    """EventBridge wants the singular for 1, and the plural for more."""
    match = re.fullmatch(r"rate\(([1-9][0-9]{0,5}) (minute|hour|day)(s?)\)", str(expression))
    if match is None or (match[1] == "1") == bool(match[3]):
        raise NotUnderstood(f"{where}: Schedule: {expression!r}")
    return int(match[1]) * UNIT_S[match[2]]


@dataclass(frozen=True)
class EventSource:
    """Logical ids: which function is told what changes in which table. A record must match one of
    `patterns`. `retries` after the first try; then where it was is told to the queue `failures`.
    `bisects`, `reports`: as their properties in the template.
    """

    function: str
    table: str
    patterns: tuple[dict[str, Any], ...]
    batch_size: int
    retries: int
    bisects: bool
    reports: bool
    failures: str | None


# Sources that stand elsewhere than with their function, and those of other kinds.
OTHER_SOURCES = ("AWS::Lambda::EventSourceMapping", "AWS::Pipes::Pipe")
OTHER_PULLS = ("Kinesis", "MSK", "MQ", "SelfManagedKafka", "DocumentDB")


def event_sources(template: Template) -> list[EventSource]:
    found = []
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] in OTHER_SOURCES:
            raise NotUnderstood(f"{logical_id}: {resource['Type']}")
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        for name, event in resource["Properties"].get("Events", {}).items():
            where = f"{logical_id}: {name}"
            if event["Type"] in OTHER_PULLS:
                raise NotUnderstood(f"{where}: {event['Type']}")
            if event["Type"] == "DynamoDB":
                found.append(_event_source(logical_id, where, event["Properties"]))
    return found


def _event_source(function: str, where: str, properties: dict[str, Any]) -> EventSource:
    _only(
        properties,
        {
            "Stream",
            "StartingPosition",
            "BatchSize",
            "MaximumBatchingWindowInSeconds",
            "ParallelizationFactor",
            "FilterCriteria",
            "FunctionResponseTypes",
            "BisectBatchOnFunctionError",
            "MaximumRetryAttempts",
            "DestinationConfig",
        },
        where,
    )
    # There is nothing here from before the start; and one batch after the other.
    for name, does in {"StartingPosition": "TRIM_HORIZON", "ParallelizationFactor": 1}.items():
        if properties.get(name, does) != does:
            raise NotUnderstood(f"{where}: {name}: {properties[name]!r}")
    # Without an end to its tries one record would stop everything, which is for AWS to refuse.
    numbers = {"BatchSize": 100, "MaximumRetryAttempts": None}
    for name, default in numbers.items():
        if not isinstance(properties.get(name, default), int):
            raise NotUnderstood(f"{where}: {name}: {properties.get(name)!r}")
    responses = properties.get("FunctionResponseTypes", [])
    if responses not in ([], ["ReportBatchItemFailures"]):
        raise NotUnderstood(f"{where}: FunctionResponseTypes: {responses!r}")
    return EventSource(
        function,
        _logical_id(f"{where}: Stream", properties["Stream"], "StreamArn"),
        _patterns(where, properties.get("FilterCriteria", {})),
        properties.get("BatchSize", 100),
        properties["MaximumRetryAttempts"],
        properties.get("BisectBatchOnFunctionError", False),
        bool(responses),
        _failures(where, properties.get("DestinationConfig")),
    )


@dataclass(frozen=True)
class QueueSource:
    """Logical ids: which function takes the messages of which queue, at most `batch_size` at once,
    in at most `at_once` processes.
    """

    function: str
    queue: str
    batch_size: int
    at_once: int


def queue_sources(template: Template) -> list[QueueSource]:
    found = []
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        for name, event in resource["Properties"].get("Events", {}).items():
            if event["Type"] == "SQS":
                where = f"{logical_id}: {name}"
                found.append(_queue_source(logical_id, where, event["Properties"]))
    return found


def _queue_source(function: str, where: str, properties: dict[str, Any]) -> QueueSource:
    _only(properties, {"Queue", "BatchSize", "ScalingConfig", "FunctionResponseTypes"}, where)
    # Without it one message that fails takes the others of its batch with it.
    if properties.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
        raise NotUnderstood(f"{where}: FunctionResponseTypes")
    at_once = properties.get("ScalingConfig", {}).get("MaximumConcurrency")
    batch_size = properties.get("BatchSize", 10)
    for number, least, most in ((at_once, 2, 1000), (batch_size, 1, 10)):
        if not isinstance(number, int) or not least <= number <= most:
            raise NotUnderstood(f"{where}: {number!r} is not a number from {least} to {most}")
    queue = _logical_id(f"{where}: Queue", properties["Queue"], "Arn")
    return QueueSource(function, queue, batch_size, at_once)


def _logical_id(where: str, value: Any, attribute: str) -> str:
    got = value.get("Fn::GetAtt") if isinstance(value, dict) else None
    if not isinstance(got, list) or got[1:] != [attribute]:
        raise NotUnderstood(f"{where}: {value!r}")
    return str(got[0])


def _failures(where: str, config: Any) -> str | None:
    if config is None:
        return None
    told = config.get("OnFailure", {})
    if set(config) != {"OnFailure"} or told.get("Type") != "SQS":
        raise NotUnderstood(f"{where}: DestinationConfig: {config!r}")
    return _logical_id(f"{where}: Destination", told.get("Destination"), "Arn")


def _patterns(where: str, criteria: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Without any, everything matches."""
    found = []
    for one in criteria.get("Filters", [{"Pattern": "{}"}]):
        try:
            pattern = json.loads(one["Pattern"])
        except (KeyError, TypeError, ValueError):
            raise NotUnderstood(f"{where}: FilterCriteria: {one!r}") from None
        if not _is_pattern(pattern):
            raise NotUnderstood(f"{where}: FilterCriteria: {one['Pattern']}")
        found.append(pattern)
    return tuple(found)


def _is_pattern(told: Any) -> bool:
    """Nested members; at their ends what a text may be, or may begin with."""
    return isinstance(told, dict) and all(
        _is_pattern(value) or (isinstance(value, list) and value and all(map(_is_rule, value)))
        for value in told.values()
    )


def _is_rule(rule: Any) -> bool:
    return isinstance(rule, str) or (
        isinstance(rule, dict) and set(rule) == {"prefix"} and isinstance(rule["prefix"], str)
    )


# --- the API, as SAM translates it --------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    function: str
    streams: bool
    timeout_s: float
    authorizer: str | None
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class GatewayResponse:
    status: int | None
    headers: dict[str, str]
    body: str | None


@dataclass(frozen=True)
class Api:
    logical_id: str
    stage: str
    routes: tuple[Route, ...]
    # Name of a Cognito authorizer: logical id of its user pool.
    authorizers: dict[str, str]
    gateway_responses: dict[str, GatewayResponse]


def read_api(processed: Template, parameters: dict[str, str]) -> Api:
    apis = [
        (logical_id, resource["Properties"])
        for logical_id, resource in processed["Resources"].items()
        if resource["Type"] == "AWS::ApiGateway::RestApi"
    ]
    if len(apis) != 1:
        raise NotUnderstood(f"{len(apis)} REST APIs; there must be one")
    logical_id, properties = apis[0]
    if "BinaryMediaTypes" in properties:
        raise NotUnderstood(f"{logical_id}: BinaryMediaTypes")
    body = properties["Body"]
    _only(
        body,
        {"openapi", "info", "paths", "components", "x-amazon-apigateway-gateway-responses"},
        logical_id,
    )
    authorizers = _authorizers(body)
    routes = tuple(
        _route(path, method, operation, authorizers)
        for path, item in body["paths"].items()
        for method, operation in item.items()
    )
    answers = {
        name: _gateway_response(name, told)
        for name, told in body.get("x-amazon-apigateway-gateway-responses", {}).items()
    }
    return Api(logical_id, _stage(processed, parameters), routes, authorizers, answers)


def _stage(processed: Template, parameters: dict[str, str]) -> str:
    for resource in processed["Resources"].values():
        if resource["Type"] == "AWS::ApiGateway::Stage":
            name = resource["Properties"]["StageName"]
            return parameters[name["Ref"]] if isinstance(name, dict) else str(name)
    raise NotUnderstood("no stage")


def _only(mapping: dict[str, Any], known: set[str], where: str) -> None:
    for key in mapping:
        if key not in known:
            raise NotUnderstood(f"{where}: {key}: {mapping[key]!r}")


def _authorizers(body: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name, scheme in body.get("components", {}).get("securitySchemes", {}).items():
        authorizer = scheme.get("x-amazon-apigateway-authorizer", {})
        pools = authorizer.get("providerARNs", [])
        if (
            authorizer.get("type") != "cognito_user_pools"
            or (scheme.get("in"), scheme.get("name")) != ("header", "Authorization")
            or len(pools) != 1
            or pools[0].get("Fn::GetAtt", [None, None])[1] != "Arn"
        ):
            raise NotUnderstood(f"authorizer {name}: {scheme!r}")
        found[name] = pools[0]["Fn::GetAtt"][0]
    return found


def _route(path: str, method: str, operation: dict[str, Any], authorizers: dict[str, str]) -> Route:
    where = f"{method.upper()} {path}"
    if method not in (*METHODS, ANY):
        raise NotUnderstood(where)
    _only(
        operation, {"x-amazon-apigateway-integration", "security", "responses", "parameters"}, where
    )
    integration = operation["x-amazon-apigateway-integration"]
    _only(
        integration,
        {"httpMethod", "type", "uri", "responseTransferMode", "timeoutInMillis"},
        where,
    )
    if integration["type"] != "aws_proxy":
        raise NotUnderstood(f"{where}: type: {integration['type']!r}")
    function, streams = _target(where, integration)
    authorizer, scopes = _security(where, operation.get("security", []), authorizers)
    return Route(
        "ANY" if method == ANY else method.upper(),
        path,
        function,
        streams,
        integration.get("timeoutInMillis", DEFAULT_TIMEOUT_MS) / 1000,
        authorizer,
        scopes,
    )


def _target(where: str, integration: dict[str, Any]) -> tuple[str, bool]:
    uri = integration["uri"]
    text = uri.get("Fn::Sub") if isinstance(uri, dict) else uri
    match = re.fullmatch(
        r"arn:.+:lambda:path/(?P<api>[0-9-]+)/functions/\$\{(?P<function>\w+)\.Arn\}/(?P<call>[a-z-]+)",
        text or "",
    )
    mode = integration.get("responseTransferMode", "BUFFERED")
    forms = {
        ("BUFFERED", "2015-03-31", "invocations"): False,
        ("STREAM", "2021-11-15", "response-streaming-invocations"): True,
    }
    form = match and (mode, match["api"], match["call"])
    if match is None or form not in forms:
        raise NotUnderstood(f"{where}: responseTransferMode {mode!r} with uri {uri!r}")
    return match["function"], forms[form]


def _security(
    where: str, security: list[dict[str, list[str]]], authorizers: dict[str, str]
) -> tuple[str | None, tuple[str, ...]]:
    if not security:
        return None, ()
    if len(security) != 1 or len(security[0]) != 1:
        raise NotUnderstood(f"{where}: security: {security!r}")
    name, scopes = next(iter(security[0].items()))
    if name == "NONE":
        return None, ()
    if name not in authorizers:
        raise NotUnderstood(f"{where}: security: {security!r}")
    return name, tuple(scopes)


HEADER = "gatewayresponse.header."
# What a gateway response may say of its request.
CONTEXT_VARIABLES = (
    "context.requestId",
    "context.extendedRequestId",
    "context.error.message",
    "context.error.messageString",
    "context.error.responseType",
)


def _gateway_response(name: str, told: dict[str, Any]) -> GatewayResponse:
    _only(told, {"statusCode", "responseParameters", "responseTemplates"}, name)
    headers = {}
    for parameter, value in told.get("responseParameters", {}).items():
        static = isinstance(value, str) and value.startswith("'") and value.endswith("'")
        if not parameter.startswith(HEADER) or not (static or value in CONTEXT_VARIABLES):
            raise NotUnderstood(f"{name}: {parameter}: {value!r}")
        headers[parameter.removeprefix(HEADER)] = value
    templates = told.get("responseTemplates", {})
    _only(templates, {"application/json"}, name)
    body = templates.get("application/json")
    for variable in re.findall(r"\$([A-Za-z]\w*(?:\.\w+)*)", body or ""):
        if variable not in CONTEXT_VARIABLES:
            raise NotUnderstood(f"{name}: ${variable}")
    status = told.get("statusCode")
    return GatewayResponse(int(status) if status else None, headers, body)
