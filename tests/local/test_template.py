"""What is read from the template, and what is refused rather than misread."""

import copy
from pathlib import Path
from typing import Any

import pytest
from samtranslator.translator.transform import transform

from local import embedded_aws, template
from local.template import NotUnderstood, Rotation, Schedule, Template

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source() -> Template:
    return template.load(ROOT / "template.yaml")


@pytest.fixture(scope="module")
def processed(source: Template) -> Template:
    class NoPolicies:
        def load(self) -> dict[str, str]:
            return {}

    translated = transform(embedded_aws.adapt(source), {}, NoPolicies())
    assert isinstance(translated, dict)
    return translated


def test_every_function_has_its_folder_and_its_layers(source: Template) -> None:
    found = template.functions(source, ROOT)
    assert {one.code.name for one in found.values()} == {
        path.name for path in (ROOT / "functions").iterdir()
    }
    assert all((one.code / "app.py").is_file() for one in found.values())
    assert found["ChatFunction"].layers == ("DependenciesLayer", "CoreLayer", "StreamLayer")
    assert found["ChatFunction"].handler == "app.handler"


def test_the_rotation_schedule_is_remembered_though_it_is_not_deployed(source: Template) -> None:
    assert template.rotations(source) == [Rotation("RotateFunction", "SigningKeySecret")]
    adapted = embedded_aws.adapt(source)
    assert "SigningKeyRotation" not in adapted["Resources"]
    assert "SigningKeyRotation" in source["Resources"]


def test_the_schedule_is_remembered_and_switched_off_in_what_is_deployed(
    source: Template, processed: Template
) -> None:
    (found,) = template.schedules(source)
    assert found == Schedule("SweepFunction", "SweepFunctionEveryMinute", 60)
    rule = processed["Resources"][found.rule]
    assert rule["Type"] == "AWS::Events::Rule"
    assert rule["Properties"]["State"] == "DISABLED"


def scheduled(kind: str = "Schedule", **properties: Any) -> Template:
    event = {"Type": kind, "Properties": properties}
    function = {"Type": "AWS::Serverless::Function", "Properties": {"Events": {"Tick": event}}}
    return {"Resources": {"A": function}}


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [
        ("rate(1 minute)", 60),
        ("rate(5 minutes)", 300),
        ("rate(1 hour)", 3600),
        ("rate(12 hours)", 43_200),
        ("rate(1 day)", 86_400),
        ("rate(7 days)", 604_800),
    ],
)
def test_rate_is_read_in_seconds(rate: str, seconds: int) -> None:
    assert template.schedules(scheduled(Schedule=rate)) == [Schedule("A", "ATick", seconds)]


@pytest.mark.parametrize(
    ("source", "offending"),
    [
        (scheduled(Schedule="cron(0 12 * * ? *)"), "cron"),
        (scheduled(Schedule="rate(0 minutes)"), "rate\\(0"),
        (scheduled(Schedule="rate(1 minutes)"), "1 minutes"),
        (scheduled(Schedule="rate(2 hour)"), "2 hour"),
        (scheduled(Schedule="rate(30 seconds)"), "seconds"),
        (scheduled(Schedule={"Ref": "Rate"}), "Ref"),
        (scheduled(Schedule="rate(1 minute)", Input="{}"), "A: Tick: Input"),
        (scheduled(Schedule="rate(1 minute)", Enabled=False), "Enabled"),
        (scheduled("ScheduleV2", ScheduleExpression="rate(1 minute)"), "ScheduleV2"),
        ({"Resources": {"A": {"Type": "AWS::Events::Rule"}}}, "AWS::Events::Rule"),
        ({"Resources": {"A": {"Type": "AWS::Scheduler::Schedule"}}}, "Scheduler"),
    ],
)
def test_schedule_that_is_not_understood_is_refused_with_its_text(
    source: Template, offending: str
) -> None:
    with pytest.raises(NotUnderstood, match=offending):
        template.schedules(source)


def test_the_translated_template_gives_routes_authorizer_and_error_responses(
    processed: Template,
) -> None:
    api = template.read_api(processed, {"StageName": "live"})
    routes = {(route.method, route.path): route for route in api.routes}
    chat = routes["POST", "/v1/chat/completions"]
    assert chat.streams
    assert (chat.function, chat.timeout_s, chat.authorizer) == ("ChatFunction", 900, None)
    mint = routes["POST", "/v1/auth/mint"]
    assert (mint.streams, mint.timeout_s) == (False, 29)
    assert routes["POST", "/api/behest/token"].authorizer == "Cognito"
    assert routes["OPTIONS", "/api/behest/token"].authorizer is None
    admin = routes["ANY", "/admin/v1/{proxy+}"]
    assert (admin.function, admin.authorizer, admin.scopes) == ("AdminFunction", "Cognito", ())
    assert api.authorizers == {"Cognito": "UserPool"}
    assert api.stage == "live"
    not_found = api.gateway_responses["MISSING_AUTHENTICATION_TOKEN"]
    assert not_found.status == 404
    assert not_found.headers["X-Request-Id"] == "context.requestId"
    assert not_found.headers["Access-Control-Allow-Origin"] == "'*'"


def api_with(
    operation: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
    method: str = "post",
) -> Template:
    integration = {
        "type": "aws_proxy",
        "httpMethod": "POST",
        "uri": {
            "Fn::Sub": "arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/"
            "${TheFunction.Arn}/invocations"
        },
    }
    told = {"x-amazon-apigateway-integration": integration, "responses": {}}
    whole = {
        "openapi": "3.0.1",
        "info": {},
        "paths": {"/a": {method: {**told, **(operation or {})}}},
        **(body or {}),
    }
    stage = {"Type": "AWS::ApiGateway::Stage", "Properties": {"StageName": "live"}}
    api = {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Body": whole}}
    return {"Resources": {"Api": api, "ApiStage": stage}}


def integration(**changes: Any) -> dict[str, Any]:
    told = copy.deepcopy(api_with()["Resources"]["Api"]["Properties"]["Body"])
    usual = told["paths"]["/a"]["post"]["x-amazon-apigateway-integration"]
    return {"x-amazon-apigateway-integration": {**usual, **changes}}


def answers(**told: Any) -> dict[str, Any]:
    return {"x-amazon-apigateway-gateway-responses": {"DEFAULT_4XX": told}}


def scheme(**told: Any) -> dict[str, Any]:
    return {"components": {"securitySchemes": {"Other": told}}}


def test_the_smallest_api_is_read() -> None:
    (route,) = template.read_api(api_with(), {}).routes
    assert (route.method, route.path, route.function) == ("POST", "/a", "TheFunction")


@pytest.mark.parametrize(
    ("processed", "offending"),
    [
        (api_with(integration(type="mock")), "mock"),
        (api_with(integration(type="http_proxy")), "http_proxy"),
        (api_with(integration(requestTemplates={})), "requestTemplates"),
        (api_with(integration(responseTransferMode="STREAM")), "STREAM"),
        (api_with(integration(uri="arn:aws:apigateway:::sqs:path/x")), "sqs"),
        (api_with(method="trace"), "TRACE"),
        (api_with({"security": [{"Other": []}]}), "Other"),
        (api_with({"security": [{"A": []}, {"B": []}]}), "security"),
        (api_with({"x-amazon-apigateway-request-validator": "all"}), "request-validator"),
        (api_with(body={"x-amazon-apigateway-binary-media-types": ["*/*"]}), "binary-media-types"),
        (api_with(body={"x-amazon-apigateway-policy": {}}), "apigateway-policy"),
        (api_with(body=scheme(type="apiKey")), "Other"),
        (api_with(body=answers(responseTemplates={"text/html": "x"})), "text/html"),
        (api_with(body=answers(responseTemplates={"application/json": "$input.a"})), "input.a"),
        (
            api_with(body=answers(responseParameters={"gatewayresponse.header.A": "method.x"})),
            "method.x",
        ),
        ({"Resources": {}}, "0 REST APIs"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_its_text(
    processed: Template, offending: str
) -> None:
    with pytest.raises(NotUnderstood, match=offending):
        template.read_api(processed, {})


def test_short_forms_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "a: !Ref B\nc: !GetAtt D.E.F\nd: !Sub [x, {y: !If [C, 1, 2]}]\ne: !Equals [1, 2]\n"
    )
    assert template.load(path) == {
        "a": {"Ref": "B"},
        "c": {"Fn::GetAtt": ["D", "E.F"]},
        "d": {"Fn::Sub": ["x", {"y": {"Fn::If": ["C", 1, 2]}}]},
        "e": {"Fn::Equals": [1, 2]},
    }
