"""What the template really deploys: its translation, where a wrong word passes every linter."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from samtranslator.translator.transform import transform

from weir import metrics
from weir.upstreams import webhooks as upstream
from weir.web import routes
from weir.webhooks import schedule

ROOT = Path(__file__).parents[2]
FUNCTIONS = {
    "TokenFunction": "token",
    "ChatFunction": "chat",
    "EmbeddingsFunction": "embeddings",
    "PreflightFunction": "preflight",
    "AccountFunction": "account",
    "CustomersFunction": "customers",
    "AdminFunction": "admin",
    "RotateFunction": "rotate",
    "SweepFunction": "sweep",
    "WebhooksFunction": "webhooks",
    "NotifyFunction": "notify",
    "DeliverFunction": "deliver",
    "MeterFunction": "meter",
}
# Every path that a page may call, and how.
BROWSER_ROUTES = {
    "/v1/chat/completions": "POST",
    "/v1/chat/completions/{id}/cancel": "POST",
    "/v1/embeddings": "POST",
    "/v1/moderations": "POST",
    "/v1/auth/mint": "POST",
    "/auth/v1/auth/mint": "POST",
    "/v1/auth/revoke": "POST",
    "/api/behest/token": "POST",
    "/v1/token": "POST",
    "/.well-known/jwks.json": "GET",
    "/auth/.well-known/jwks.json": "GET",
    "/v1/models": "GET",
    "/v1/models/{name+}": "GET",
    "/v1/threads": "GET DELETE",
    "/v1/threads/{id+}": "GET PATCH DELETE",
    "/v1/me": "GET",
    "/v1/usage": "GET",
    "/v1/billing/usage": "GET",
    "/v1/cors": "GET",
    "/v1/customers/{ref}/usage": "GET",
}
# Of a project's server: no page may call them, and so none has a preflight.
SERVER_ROUTES = {
    "/v1/customers": "POST GET",
    "/v1/customers/{ref}": "GET PUT PATCH POST DELETE",
    "/v1/customers/{ref}/client_tokens": "POST GET DELETE",
    "/v1/customers/{ref}/client_tokens/{id}": "DELETE",
    "/v1/client_tokens": "POST",
    "/v1/client_tokens/{id}": "DELETE",
    "/v1/webhook_endpoints": "GET POST",
    "/v1/webhook_endpoints/{id}": "GET PATCH DELETE",
    "/v1/webhook_endpoints/{id}/rotate_secret": "POST",
    "/v1/webhook_endpoints/{id}/test": "POST",
    "/v1/webhook_endpoints/{id}/deliveries": "GET",
    "/v1/webhook_endpoints/{id}/replay": "POST",
}
OPERATOR_ROUTES = {
    "/admin/v1/{proxy+}",
    "/v1/projects/{pid}/tiers",
    "/v1/projects/{pid}/tiers/{proxy+}",
}
ANY_METHOD = "x-amazon-apigateway-any-method"
# Everything else: any method, OPTIONS included.
ELSEWHERE = ("/", "/{proxy+}")


class _Loader(yaml.SafeLoader):
    """CloudFormation's short forms, written out."""


def _intrinsic(loader: yaml.Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if suffix == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _intrinsic)

Resources = dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def source() -> dict[str, Any]:
    loaded = yaml.load((ROOT / "template.yaml").read_text(), _Loader)  # noqa: S506 - a SafeLoader
    assert isinstance(loaded, dict)
    return loaded


def translate(source: dict[str, Any]) -> Resources:
    """Return the resources of the template as CloudFormation gets them from SAM."""

    class Policies:
        def load(self) -> dict[str, str]:
            return {
                "AWSLambdaBasicExecutionRole": "arn:basic",
                "AWSXrayWriteOnlyAccess": "arn:xray",
                "AWSXRayDaemonWriteAccess": "arn:xray",
            }

    template = json.loads(json.dumps(source, default=str))
    for resource in template["Resources"].values():
        for uri in ("CodeUri", "ContentUri"):
            if uri in resource.get("Properties", {}):
                resource["Properties"][uri] = "s3://bucket/key"
    found = transform(template, {}, Policies())["Resources"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="session")
def resources(source: dict[str, Any]) -> Resources:
    return translate(source)


def of_type(resources: Resources, kind: str) -> Resources:
    return {name: r for name, r in resources.items() if r["Type"] == kind}


def methods(resources: Resources) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in resources["Api"]["Properties"]["Body"]["paths"].items():
        for method, body in item.items():
            yield path, method, body


def statements(resources: Resources, function: str, effect: str = "Allow") -> list[dict[str, Any]]:
    role = resources[f"{function}Role"]["Properties"]
    found = []
    for policy in role.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            # `!If [Bedrock, statement, NoValue]` counts as granted.
            found.append(statement["Fn::If"][1] if "Fn::If" in statement else statement)
    return [statement for statement in found if statement["Effect"] == effect]


def actions(resources: Resources, function: str) -> set[str]:
    granted = set()
    for statement in statements(resources, function):
        asked = statement["Action"]
        granted |= {asked} if isinstance(asked, str) else set(asked)
    return granted


# ---------------------------------------------------------------- routes


STREAMED = ("/v1/chat/completions", "/v1/embeddings", "/v1/moderations")


def test_what_may_be_long_really_streams_and_nothing_else_does(resources: Resources) -> None:
    """`ResponseTransferMode: STREAM` in the source passes lint and gives a buffered route."""
    for path, method, body in methods(resources):
        integration = body["x-amazon-apigateway-integration"]
        if path in STREAMED and method == "post":
            assert integration["responseTransferMode"] == "STREAM"
            assert integration["timeoutInMillis"] == 900_000
            assert "/2021-11-15/functions/" in json.dumps(integration["uri"])
            assert "/response-streaming-invocations" in json.dumps(integration["uri"])
        else:
            assert "responseTransferMode" not in integration
            assert "/2015-03-31/functions/" in json.dumps(integration["uri"])


def test_routes_are_exactly_these(resources: Resources) -> None:
    found = {f"{method.upper()} {path}" for path, method, _ in methods(resources)}
    assert found == {
        *(f"{m} {path}" for path, several in BROWSER_ROUTES.items() for m in several.split()),
        *(f"OPTIONS {path}" for path in BROWSER_ROUTES),
        *(f"{m} {path}" for path, several in SERVER_ROUTES.items() for m in several.split()),
        *(f"{ANY_METHOD.upper()} {path}" for path in OPERATOR_ROUTES),
        *(f"{ANY_METHOD.upper()} {path}" for path in ELSEWHERE),
    }


def test_the_404_knows_exactly_the_routes_that_there_are(resources: Resources) -> None:
    found = {
        ("ANY" if method == ANY_METHOD else method.upper(), path)
        for path, method, _ in methods(resources)
        if method != "options" and path not in ELSEWHERE
    }
    assert found == set(routes.ROUTES)
    assert len(found) == len(routes.ROUTES)


@pytest.mark.parametrize("path", ELSEWHERE)
def test_any_other_path_is_answered_by_the_preflight_function_whatever_the_method(
    resources: Resources, path: str
) -> None:
    (body,) = resources["Api"]["Properties"]["Body"]["paths"][path].values()
    assert "PreflightFunction" in json.dumps(body)
    assert "security" not in body


def test_every_browser_route_has_a_preflight_without_authorizer(resources: Resources) -> None:
    for path, method, body in methods(resources):
        if method == "options":
            assert "security" not in body, path
            assert "PreflightFunction" in json.dumps(body)
        elif path not in {*OPERATOR_ROUTES, *SERVER_ROUTES, *ELSEWHERE}:
            item = resources["Api"]["Properties"]["Body"]["paths"][path]
            assert "options" in item, path


@pytest.mark.parametrize("route", sorted(OPERATOR_ROUTES))
def test_admin_api_is_behind_cognito_and_no_page_can_call_it(
    resources: Resources, route: str
) -> None:
    """Without a preflight of its own: `ANY` takes OPTIONS, too, and asks it for a token."""
    item = resources["Api"]["Properties"]["Body"]["paths"][route]
    assert set(item) == {ANY_METHOD}
    assert item[ANY_METHOD]["security"] == [{"Cognito": []}]
    assert "AdminFunction" in json.dumps(item)


def test_only_session_and_admin_ask_cognito_and_chat_asks_nobody(resources: Resources) -> None:
    guarded = {path for path, _, body in methods(resources) if body.get("security")}
    assert guarded == {"/api/behest/token", *OPERATOR_ROUTES}


def test_api_is_regional_traced_and_throttled_on_every_route(resources: Resources) -> None:
    assert resources["Api"]["Properties"]["EndpointConfiguration"]["Types"] == ["REGIONAL"]
    (stage,) = of_type(resources, "AWS::ApiGateway::Stage").values()
    assert stage["Properties"]["TracingEnabled"] is True
    settings = {s["ResourcePath"]: s for s in stage["Properties"]["MethodSettings"]}
    mints = ("/v1/auth/mint", "/auth/v1/auth/mint", "/api/behest/token", "/v1/token")
    named = {*STREAMED, "/v1/auth/revoke", *mints}
    assert set(settings) == {"/*", *("/" + p.replace("/", "~1") for p in (*named, "/v1/cors"))}
    assert all("ThrottlingRateLimit" in s for s in settings.values())
    assert stage["Properties"]["AccessLogSetting"]["DestinationArn"]


def test_the_route_that_asks_nobody_for_anything_is_throttled_low(resources: Resources) -> None:
    (stage,) = of_type(resources, "AWS::ApiGateway::Stage").values()
    (cors,) = [
        s for s in stage["Properties"]["MethodSettings"] if s["ResourcePath"] == "/~1v1~1cors"
    ]
    assert cors["HttpMethod"] == "GET"
    assert (cors["ThrottlingRateLimit"], cors["ThrottlingBurstLimit"]) == (10, 20)


def test_access_log_line_is_json_and_holds_no_credential(resources: Resources) -> None:
    (stage,) = of_type(resources, "AWS::ApiGateway::Stage").values()
    line = stage["Properties"]["AccessLogSetting"]["Format"]
    assert json.loads(line)["requestId"] == "$context.requestId"
    assert "header" not in line.lower().replace("timetoallheaders", "").replace("headersms", "")


def longest_source(permission: dict[str, Any]) -> str:
    source = permission["SourceArn"]
    if "Fn::GetAtt" in source:
        return "arn:aws-us-gov:events:ap-southeast-1:123456789012:rule/" + "r" * 64
    text = source["Fn::Sub"]
    text = text if isinstance(text, str) else text[0]
    longest = {
        "AWS::Partition": "aws-us-gov",
        "AWS::Region": "ap-southeast-1",
        "AWS::AccountId": "123456789012",
        "__ApiId__": "abcdefghij",
        "__Stage__": "*",
    }
    return re.sub(r"\$\{([^}]+)\}", lambda name: longest.get(name[1], "x" * 64), text)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_own_policy_stays_far_below_lambdas_20_kb(
    resources: Resources, function: str
) -> None:
    """Each permission becomes a statement of it; written out with the longest names that a stack, a
    function, a partition and a region may have.
    """
    permissions = [
        p["Properties"]
        for p in of_type(resources, "AWS::Lambda::Permission").values()
        if function in json.dumps(p["Properties"]["FunctionName"])
    ]
    pulls = ("MeterFunction", "NotifyFunction", "DeliverFunction")
    assert bool(permissions) == (function not in pulls), "they read by themselves"
    arn = f"arn:aws-us-gov:lambda:ap-southeast-1:123456789012:function:{'f' * 64}"
    statements = [
        {
            "Sid": "s" * 100,
            "Effect": "Allow",
            "Principal": {"Service": permission["Principal"]},
            "Action": "lambda:InvokeFunction",
            "Resource": arn,
            "Condition": {"ArnLike": {"AWS:SourceArn": longest_source(permission)}},
        }
        for permission in permissions
    ]
    assert len(json.dumps(statements)) < 20 * 1024 * 0.75


# ---------------------------------------------------------------- API Gateway's own errors


def gateway_responses(resources: Resources) -> dict[str, dict[str, Any]]:
    found = resources["Api"]["Properties"]["Body"]["x-amazon-apigateway-gateway-responses"]
    assert isinstance(found, dict)
    return found


STATUSES = {
    "UNAUTHORIZED": 401,
    "EXPIRED_TOKEN": 401,
    "INVALID_API_KEY": 401,
    "ACCESS_DENIED": 403,
    "WAF_FILTERED": 403,
    "MISSING_AUTHENTICATION_TOKEN": 404,
    "RESOURCE_NOT_FOUND": 404,
    "REQUEST_TOO_LARGE": 413,
    "THROTTLED": 429,
    "QUOTA_EXCEEDED": 429,
    "INTEGRATION_FAILURE": 503,
    "INTEGRATION_TIMEOUT": 504,
}


def test_gateway_errors_have_the_statuses_that_clients_expect(resources: Resources) -> None:
    found = gateway_responses(resources)
    assert {name: int(found[name]["statusCode"]) for name in STATUSES} == STATUSES
    assert set(found) == {*STATUSES, "DEFAULT_4XX", "DEFAULT_5XX"}


@pytest.mark.parametrize("name", ["MISSING_AUTHENTICATION_TOKEN", "RESOURCE_NOT_FOUND"])
def test_route_without_the_method_is_a_404_that_says_so(resources: Resources, name: str) -> None:
    """API Gateway's own words would send people looking for a credential."""
    body = gateway_responses(resources)[name]["responseTemplates"]["application/json"]
    assert '"reason":"no_such_method"' in body
    assert "$context.error" not in body
    assert "authenti" not in body.lower()


@pytest.mark.parametrize("name", [*STATUSES, "DEFAULT_4XX", "DEFAULT_5XX"])
def test_gateway_error_is_the_one_envelope_with_readable_headers(
    resources: Resources, name: str
) -> None:
    response = gateway_responses(resources)[name]
    headers = {
        key.removeprefix("gatewayresponse.header."): value
        for key, value in response["responseParameters"].items()
    }
    assert headers["Access-Control-Allow-Origin"] == "'*'"
    assert "retry-after" in headers["Access-Control-Expose-Headers"]
    assert headers["X-Request-Id"] == headers["X-Trace-Id"] == "context.requestId"
    assert "Access-Control-Allow-Credentials" not in headers
    body = response["responseTemplates"]["application/json"]
    body = body.replace("$context.error.messageString", '"m"')
    told = json.loads(re.sub(r"\$context\.[A-Za-z.]+", "x", body))
    assert set(told) == {"error", "code", "message", "retryable", "trace_id"}
    assert set(told["error"]) == {"message", "type", "param", "code", "details", "request_id"}
    if response.get("statusCode") in ("429", "503"):
        assert headers["Retry-After"] == "'1'"


# ---------------------------------------------------------------- functions and their rights


def test_functions_run_on_lambdas_python_and_arm_with_tracing_and_kept_logs(
    resources: Resources,
) -> None:
    assert set(of_type(resources, "AWS::Lambda::Function")) == set(FUNCTIONS)
    for name in FUNCTIONS:
        properties = resources[name]["Properties"]
        assert properties["Runtime"] == "python3.13"
        assert properties["Architectures"] == ["arm64"]
        assert properties["TracingConfig"] == {"Mode": "Active"}
        logs = resources[properties["LoggingConfig"]["LogGroup"]["Ref"]]
        assert logs["Properties"]["RetentionInDays"]


def test_only_what_streams_takes_the_streaming_runtime(resources: Resources) -> None:
    for name in FUNCTIONS:
        properties = resources[name]["Properties"]
        environment = properties["Environment"]["Variables"]
        streams = name in ("ChatFunction", "EmbeddingsFunction")
        assert ("AWS_LAMBDA_EXEC_WRAPPER" in environment) == streams
        assert ("StreamLayer" in json.dumps(properties.get("Layers", []))) == streams


RIGHTS = {
    "TokenFunction": {
        "dynamodb:BatchGetItem",
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "secretsmanager:GetSecretValue",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
    "ChatFunction": {
        "dynamodb:BatchGetItem",
        "dynamodb:ConditionCheckItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "secretsmanager:GetSecretValue",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "bedrock:InvokeModel",
        "bedrock:InvokeModelWithResponseStream",
        "bedrock:CallWithBearerToken",
    },
    "EmbeddingsFunction": {
        "dynamodb:BatchGetItem",
        "dynamodb:ConditionCheckItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "secretsmanager:GetSecretValue",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
    "PreflightFunction": {
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
    "AccountFunction": {
        "dynamodb:BatchGetItem",
        "dynamodb:BatchWriteItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
    "CustomersFunction": {
        "dynamodb:BatchGetItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "secretsmanager:GetSecretValue",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
    "AdminFunction": {
        "dynamodb:BatchGetItem",
        "dynamodb:BatchWriteItem",
        "dynamodb:ConditionCheckItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "secretsmanager:GetSecretValue",
        "secretsmanager:PutSecretValue",
        "kms:Decrypt",
        "kms:Encrypt",
        "kms:GenerateDataKey",
    },
    "RotateFunction": {
        "dynamodb:Query",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "secretsmanager:DescribeSecret",
        "secretsmanager:GetSecretValue",
        "secretsmanager:PutSecretValue",
        "secretsmanager:UpdateSecretVersionStage",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
    "SweepFunction": {
        "dynamodb:DeleteItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
    "WebhooksFunction": {
        "dynamodb:BatchGetItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "kms:Decrypt",
        "kms:Encrypt",
        "kms:GenerateDataKey",
    },
    "NotifyFunction": {
        "dynamodb:BatchGetItem",
        "dynamodb:DescribeStream",
        "dynamodb:GetRecords",
        "dynamodb:GetShardIterator",
        "dynamodb:ListStreams",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "sqs:SendMessage",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
    "DeliverFunction": {
        "dynamodb:BatchGetItem",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
        "sqs:SendMessage",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
    "MeterFunction": {
        "dynamodb:DescribeStream",
        "dynamodb:GetRecords",
        "dynamodb:GetShardIterator",
        "dynamodb:ListStreams",
        "dynamodb:UpdateItem",
        "sqs:SendMessage",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    },
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_role_has_exactly_the_rights_the_function_uses(resources: Resources, function: str) -> None:
    assert actions(resources, function) == RIGHTS[function]
    for statement in statements(resources, function):
        if statement["Resource"] == "*":
            assert statement["Action"] == "bedrock:CallWithBearerToken"


OF_THE_LEDGER = ["LEDGER#*", "OPEN#*", "USAGE#*"]
OF_WEBHOOKS = ["WEBHOOKS#*", "DELIVERIES#*"]
# An endpoint's record with its entry in the audit trail; tests and replays are events.
WRITTEN_OF_WEBHOOKS = ["WEBHOOKS#*", "OUTBOX#*", "AUDIT"]
CONFIGURATION = ["TENANT", "OVERRUNS", "PROJECTS", "SUBJECT#*"]
CUSTOMERS = ["EXTERNAL#*", "SUBJECT#*", "LEDGER#*"]
NEW_CUSTOMERS = ["EXTERNAL#*", "CUSTOMERS#*", "ARRIVALS#*", "SUBJECT#*#c#cust_*"]
CLIENT_TOKENS = "LEDGER#*#t#cust_*"
# Under which partition keys each function may do what. Not of the table: its stream.
MAY: dict[str, dict[str, list[str]]] = {
    "TokenFunction": {
        "BatchGetItem": CONFIGURATION,
        "GetItem": ["APIKEY#*", "JWKS#*", "KNOWN#*"],
        "Query": ["KEYRING", "SIGNINGKEYS"],
        "PutItem": ["REFUSED#*", "KNOWN#*"],
        "UpdateItem": ["APIKEY#*", "SUBJECT#*", "MINTED#*", "JWKS#*", "ARRIVALS#*"],
    },
    "ChatFunction": {
        "BatchGetItem": ["TENANT", "OVERRUNS", "PROJECTS", "LEDGER#*", *CUSTOMERS],
        "GetItem": ["APIKEY#*", *OF_THE_LEDGER],
        "Query": ["KEYRING", "SIGNINGKEYS", "CONTENT#*"],
        # A customer whom a server names as `user` is created.
        "PutItem": [*NEW_CUSTOMERS, "REFUSED#*", *OF_THE_LEDGER, "CONTENT#*"],
        "UpdateItem": [*NEW_CUSTOMERS, "APIKEY#*", *OF_THE_LEDGER, "OVERRUNS"],
        "DeleteItem": [*OF_THE_LEDGER, "CONTENT#*"],
        # Admission demands in its transaction that the user is not blocked, nor the token revoked.
        "ConditionCheckItem": [*OF_THE_LEDGER, "SUBJECT#*"],
    },
    "EmbeddingsFunction": {
        "BatchGetItem": ["TENANT", "OVERRUNS", "PROJECTS", "LEDGER#*", *CUSTOMERS],
        "GetItem": ["APIKEY#*", *OF_THE_LEDGER],
        "Query": ["KEYRING", "SIGNINGKEYS"],
        "PutItem": [*NEW_CUSTOMERS, "REFUSED#*", *OF_THE_LEDGER],
        "UpdateItem": [*NEW_CUSTOMERS, "APIKEY#*", *OF_THE_LEDGER, "OVERRUNS"],
        "DeleteItem": OF_THE_LEDGER,
        "ConditionCheckItem": [*OF_THE_LEDGER, "SUBJECT#*"],
    },
    "AccountFunction": {
        "BatchGetItem": [*CONFIGURATION, "LEDGER#*", "EXTERNAL#*"],
        "GetItem": ["APIKEY#*", "CONTENT#*"],
        "Query": ["KEYRING", "SIGNINGKEYS", "ROLLUP#*", "USAGE#*", "CONTENT#*"],
        "PutItem": ["REFUSED#*", "CONTENT#*"],
        "DeleteItem": ["CONTENT#*"],
        "BatchWriteItem": ["CONTENT#*"],
        "UpdateItem": ["APIKEY#*", "ASKED#*", "LEDGER#*"],
    },
    "CustomersFunction": {
        "BatchGetItem": [*CONFIGURATION, *CUSTOMERS],
        "GetItem": ["APIKEY#*", "ONCE#*"],
        "Query": ["CUSTOMERS#*", CLIENT_TOKENS],
        "PutItem": [*NEW_CUSTOMERS, CLIENT_TOKENS],
        "UpdateItem": [
            *("APIKEY#*", *NEW_CUSTOMERS, "ONCE#*", "ASKED#*", "MINTED#*", CLIENT_TOKENS),
        ],
        "DeleteItem": ["CUSTOMERS#*", "ONCE#*"],
    },
    # Everybody may call it: it reads what all projects share, and writes what was refused.
    "PreflightFunction": {"GetItem": ["TENANT"], "PutItem": ["REFUSED#*"]},
    # Never the key ring; of the ledger client tokens alone; nothing in the audit trail is changed.
    "AdminFunction": {
        "BatchGetItem": [*CONFIGURATION, *OF_WEBHOOKS, "EXTERNAL#*"],
        "GetItem": ["PROJECT#*", "APIKEY#*"],
        "Query": [
            "DELIVERIES#*",
            *("PROJECTS", "PROJECT#*", "SIGNINGKEYS", "CONTENT#*", "REFUSED#*"),
            *("ROLLUP#*", "USAGE#*", "AUDIT", "CUSTOMERS#*", CLIENT_TOKENS),
        ],
        "ConditionCheckItem": ["TENANT", "PROJECTS"],
        "PutItem": [
            *WRITTEN_OF_WEBHOOKS,
            *NEW_CUSTOMERS,
            *("TENANT", "PROJECTS", "PROJECT#*", "APIKEY#*", "SIGNINGKEYS", "AUDIT"),
        ],
        "UpdateItem": [
            *NEW_CUSTOMERS,
            *("APIKEY#*", "SIGNINGKEYS", "OVERRUNS", "SUBJECT#*", CLIENT_TOKENS),
        ],
        "DeleteItem": ["DELIVERIES#*", "PROJECT#*", "CUSTOMERS#*"],
        "BatchWriteItem": ["CONTENT#*"],
    },
    "RotateFunction": {call: ["KEYRING"] for call in ("Query", "PutItem", "UpdateItem")},
    "SweepFunction": {
        "Query": ["OPEN#*"],
        **dict.fromkeys(("PutItem", "UpdateItem", "DeleteItem"), OF_THE_LEDGER),
    },
    "WebhooksFunction": {
        "BatchGetItem": [*CONFIGURATION, *OF_WEBHOOKS],
        "GetItem": ["APIKEY#*"],
        "UpdateItem": ["APIKEY#*"],
        "PutItem": WRITTEN_OF_WEBHOOKS,
        **{key: ["DELIVERIES#*"] for key in ("Query", "DeleteItem")},
    },
    "NotifyFunction": {
        "BatchGetItem": ["PROJECTS", "SUBJECT#*", "WEBHOOKS#*", "LEDGER#*", "WATCH#*"],
        "UpdateItem": ["WATCH#*"],
        "PutItem": ["OUTBOX#*"],
    },
    # Never a write to an endpoint's record.
    "DeliverFunction": {
        "BatchGetItem": OF_WEBHOOKS,
        **{key: ["DELIVERIES#*"] for key in ("PutItem", "UpdateItem")},
    },
    "MeterFunction": {"UpdateItem": ["USAGE#*", "ROLLUP#*"]},
}
# Which attributes an update may name, by function and partition key; of others, every one.
ATTRIBUTES = {
    ("TokenFunction", "APIKEY#*"): ["pk", "sk", "last_used_at"],
    # What is revoked of a user, and never `doc`, by which an operator has blocked them.
    ("TokenFunction", "SUBJECT#*"): [*("pk", "sk", "version", "ttl", "not_before", "s_*", "t_*")],
    ("ChatFunction", "APIKEY#*"): ["pk", "sk", "last_used_at"],
    ("EmbeddingsFunction", "APIKEY#*"): ["pk", "sk", "last_used_at"],
    ("TokenFunction", "MINTED#*"): ["pk", "sk", "tokens", "ttl"],
    ("CustomersFunction", "APIKEY#*"): ["pk", "sk", "last_used_at"],
    ("AccountFunction", "APIKEY#*"): ["pk", "sk", "last_used_at"],
    ("WebhooksFunction", "APIKEY#*"): ["pk", "sk", "last_used_at"],
    ("AccountFunction", "ASKED#*"): ["pk", "sk", "questions", "ttl"],
    ("AccountFunction", "LEDGER#*"): ["pk", "sk", "open", "cancelled"],
    ("AdminFunction", "APIKEY#*"): ["pk", "sk", "revoked_at"],
    ("AdminFunction", "SIGNINGKEYS"): ["pk", "sk", "not_after", "ttl"],
}
KEYS, NAMED = "dynamodb:LeadingKeys", "dynamodb:Attributes"


def of_the_table(resources: Resources, function: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each call that a function may make to the table, with the statement's condition."""
    for statement in statements(resources, function):
        if statement["Resource"] == {"Fn::GetAtt": ["Table", "Arn"]}:
            asked = statement["Action"]
            for action in [asked] if isinstance(asked, str) else asked:
                yield action.removeprefix("dynamodb:"), statement["Condition"]


def leading_keys(condition: dict[str, Any]) -> list[str]:
    (keys,) = [
        told[KEYS]
        for operator, told in condition.items()
        if KEYS in told and operator in ("ForAllValues:StringLike", "ForAllValues:StringEquals")
    ]
    assert isinstance(keys, list)
    return keys


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_reads_and_writes_under_its_keys_only(resources: Resources, function: str) -> None:
    """The embedded AWS does not judge dynamodb:LeadingKeys; AWS does."""
    found: dict[str, list[str]] = {}
    for call, condition in of_the_table(resources, function):
        found[call] = found.get(call, []) + leading_keys(condition)
    assert found == MAY[function]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_update_names_its_attributes_only_where_it_has_few(
    resources: Resources, function: str
) -> None:
    """The embedded AWS does not judge dynamodb:Attributes; AWS does. An update that could return
    all of an item would read what it may not write (AWS: "Using IAM policy conditions for
    fine-grained access control").
    """
    found = {}
    for call, condition in of_the_table(resources, function):
        operators = ("ForAllValues:StringEquals", "ForAllValues:StringLike")
        named = next(
            (condition[o][NAMED] for o in operators if NAMED in condition.get(o, {})), None
        )
        if named is not None:
            assert call == "UpdateItem"
            assert condition["StringEqualsIfExists"] == {"dynamodb:ReturnValues": "NONE"}
            (key,) = leading_keys(condition)
            found[function, key] = named
    assert found == {each: named for each, named in ATTRIBUTES.items() if each[0] == function}


def test_nothing_that_the_admin_api_is_ever_granted_changes_the_audit_trail(
    resources: Resources,
) -> None:
    (denied,) = statements(resources, "AdminFunction", "Deny")
    assert set(denied["Action"]) == {
        *("dynamodb:BatchWriteItem", "dynamodb:DeleteItem", "dynamodb:UpdateItem")
    }
    assert denied["Condition"] == {"ForAnyValue:StringEquals": {KEYS: ["AUDIT"]}}
    assert denied["Resource"] == {"Fn::GetAtt": ["Table", "Arn"]}


@pytest.mark.parametrize("function", ["MeterFunction", "NotifyFunction"])
def test_reader_of_this_tables_stream_reads_no_other(resources: Resources, function: str) -> None:
    (stream,) = [s for s in statements(resources, function) if "dynamodb:GetRecords" in s["Action"]]
    assert stream["Resource"] == {"Fn::Sub": "${Table.Arn}/stream/*"}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_role_has_rights_of_amazons_making_but_to_log_and_to_trace(
    resources: Resources, function: str
) -> None:
    arns = json.dumps(resources[f"{function}Role"]["Properties"]["ManagedPolicyArns"])
    names = {name.lower() for name in re.findall(r"policy/(?:service-role/)?(\w+)", arns)}
    logs, traces = sorted(names)  # SAM's choice of the two for tracing depends on the region
    assert logs == "awslambdabasicexecutionrole"
    assert traces in ("awsxraydaemonwriteaccess", "awsxraywriteonlyaccess")
    assert resources[function]["Properties"]["Role"] == {"Fn::GetAtt": [f"{function}Role", "Arn"]}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_secrets_are_read_by_who_needs_them(resources: Resources, function: str) -> None:
    said = json.dumps([statements(resources, function), resources[function]["Properties"]])
    signs = function in ("TokenFunction", "CustomersFunction", "RotateFunction")
    assert (("SigningKeySecret" in said) or (function == "RotateFunction")) == signs
    keys = ("ChatFunction", "EmbeddingsFunction", "AdminFunction")
    assert ("ProviderKeysSecret" in said) == (function in keys)


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("AdminFunction", "kms:Encrypt"),
        ("WebhooksFunction", "kms:Encrypt"),
        ("DeliverFunction", "kms:Decrypt"),
    ],
)
def test_webhook_secrets_are_opened_where_they_sign_and_nowhere_else(
    resources: Resources, function: str, call: str
) -> None:
    """By itself a role calls KMS under the encryption context of a webhook's secret only: the
    table's own data key has another.
    """
    direct = [
        s
        for s in statements(resources, function)
        if "kms:" in json.dumps(s["Action"]) and "kms:ViaService" not in json.dumps(s)
    ]
    assert [(s["Action"], s["Condition"]) for s in direct] == [
        (
            call,
            {
                "ForAllValues:StringEquals": {
                    "kms:EncryptionContextKeys": ["weir:project", "weir:webhook_endpoint"]
                }
            },
        )
    ]


def test_deliveries_wait_out_the_function_and_die_where_somebody_looks(
    resources: Resources,
) -> None:
    queue = resources["Deliveries"]["Properties"]
    properties = resources["DeliverFunction"]["Properties"]
    # AWS: "Using Lambda with Amazon SQS".
    assert queue["VisibilityTimeout"] >= 6 * properties["Timeout"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadLetters", "Arn"]}
    assert queue["MessageRetentionPeriod"] > 2 * schedule.GIVE_UP_S
    assert properties["Timeout"] > 2 * upstream.TOTAL_S
    (mapping,) = [
        m["Properties"]
        for m in of_type(resources, "AWS::Lambda::EventSourceMapping").values()
        if m["Properties"]["FunctionName"] == {"Ref": "DeliverFunction"}
    ]
    assert (mapping["BatchSize"], mapping["ScalingConfig"]) == (1, {"MaximumConcurrency": 10})
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_bedrock_rights_can_be_left_out(source: dict[str, Any]) -> None:
    policies = source["Resources"]["ChatFunction"]["Properties"]["Policies"]
    conditional = [s for s in policies[0]["Statement"] if "Fn::If" in s]
    assert len(conditional) == 2
    assert all(statement["Fn::If"][0] == "Bedrock" for statement in conditional)
    assert source["Conditions"]["Bedrock"] == {"Fn::Equals": [{"Ref": "AllowBedrock"}, "true"]}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_whoever_reads_or_writes_under_the_customer_key_may_do_so_through_our_services_only(
    resources: Resources, function: str
) -> None:
    """The embedded AWS does not enforce this; AWS does. DynamoDB asks for both of whoever touches a
    table with a customer managed key for the first time in a while.
    """
    (kms,) = [s for s in statements(resources, function) if "kms:GenerateDataKey" in s["Action"]]
    assert set(kms["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey"}
    assert kms["Resource"] == {"Fn::GetAtt": ["Key", "Arn"]}
    via = kms["Condition"]["StringEquals"]["kms:ViaService"]
    assert via == [
        {"Fn::Sub": "dynamodb.${AWS::Region}.amazonaws.com"},
        {"Fn::Sub": "secretsmanager.${AWS::Region}.amazonaws.com"},
    ]


def test_every_function_folder_holds_exactly_one_door() -> None:
    for folder in FUNCTIONS.values():
        found = {p.name for p in (ROOT / "functions" / folder).iterdir()} - {"__pycache__"}
        assert found == {"app.py"}


# ---------------------------------------------------------------- rotation


def test_rotation_is_wired_and_runs_at_once(resources: Resources) -> None:
    (schedule,) = of_type(resources, "AWS::SecretsManager::RotationSchedule").values()
    properties = schedule["Properties"]
    assert properties["SecretId"] == {"Fn::GetAtt": ["SigningKeySecret", "Id"]}
    assert properties["RotationLambdaARN"] == {"Fn::GetAtt": ["RotateFunction", "Arn"]}
    assert properties["RotateImmediatelyOnUpdate"] is True
    assert properties["RotationRules"]["AutomaticallyAfterDays"] == {"Ref": "KeyRotationDays"}


def test_permission_to_rotate_exists_before_the_schedule_does(resources: Resources) -> None:
    (schedule,) = of_type(resources, "AWS::SecretsManager::RotationSchedule").values()
    permission = resources[schedule["DependsOn"]]["Properties"]
    assert permission["Principal"] == "secretsmanager.amazonaws.com"
    assert permission["FunctionName"] == {"Fn::GetAtt": ["RotateFunction", "Arn"]}
    assert permission["SourceAccount"] == {"Ref": "AWS::AccountId"}
    assert permission["SourceArn"] == {"Fn::GetAtt": ["SigningKeySecret", "Id"]}


# ---------------------------------------------------------------- schedules, metrics and alarms


def test_sweeper_runs_each_minute_and_no_run_is_tried_twice_or_outlives_its_minute(
    resources: Resources,
) -> None:
    (rule,) = of_type(resources, "AWS::Events::Rule").values()
    assert rule["Properties"]["ScheduleExpression"] == "rate(1 minute)"
    assert rule["Properties"].get("State", "ENABLED") == "ENABLED"
    (target,) = rule["Properties"]["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": ["SweepFunction", "Arn"]}
    assert "Input" not in target
    (invoked,) = of_type(resources, "AWS::Lambda::EventInvokeConfig").values()
    assert invoked["Properties"]["FunctionName"] == {"Ref": "SweepFunction"}
    assert invoked["Properties"]["MaximumRetryAttempts"] == 0
    assert invoked["Properties"]["MaximumEventAgeInSeconds"] == 60
    properties = resources["SweepFunction"]["Properties"]
    assert (properties["MemorySize"], properties["Timeout"]) == (256, 60)


# Name: metric, seconds, comparison (g: greater, ge: or equal, l: less) and threshold.
ALARMS: dict[str, tuple[str, int, str, Any]] = {
    "SettlementFailuresAlarm": ("Weir SettlementFailures", 300, "ge", 1),
    "SweptReservationsAlarm": ("Weir SweptReservations", 900, "ge", 5),
    "SweepFailuresAlarm": ("Weir SweepFailures", 300, "ge", 1),
    "SweepErrorsAlarm": ("AWS/Lambda Errors", 300, "ge", 1),
    "SweepStoppedAlarm": ("AWS/Lambda Invocations", 900, "l", 1),
    "OldestReservationAlarm": ("Weir OldestReservationSeconds", 300, "g", 600),
    "AboveWorstCaseAlarm": ("Weir AboveWorstCase", 300, "ge", 1),
    "LedgerBusyAlarm": ("Weir LedgerBusy", 300, "ge", 10),
    "SpendAlarm": ("Weir CostUsd", 3600, "g", {"Ref": "SpendAlarmUsdPerHour"}),
    "ChatThrottlesAlarm": ("AWS/Lambda Throttles", 300, "ge", 1),
    "ApiFailuresAlarm": ("AWS/ApiGateway 5XXError", 300, "ge", 5),
    "UsageGivenUpAlarm": ("AWS/SQS ApproximateNumberOfMessagesVisible", 300, "ge", 1),
    "DeadLettersAlarm": ("AWS/SQS ApproximateNumberOfMessagesVisible", 300, "ge", 1),
    "NotifyGivenUpAlarm": ("AWS/SQS ApproximateNumberOfMessagesVisible", 300, "ge", 1),
    "UsageLateAlarm": ("AWS/Lambda IteratorAge", 300, "g", 3_600_000),
}
# Of which a sum would mean nothing.
GAUGES = {
    *("OldestReservationAlarm", "UsageGivenUpAlarm", "UsageLateAlarm"),
    *("DeadLettersAlarm", "NotifyGivenUpAlarm"),
}
SILENCES = {"SweepStoppedAlarm"}  # where no data is what is wrong
COMPARISONS = {
    "g": "GreaterThanThreshold",
    "ge": "GreaterThanOrEqualToThreshold",
    "l": "LessThanThreshold",
}


def test_alarms_are_exactly_these(resources: Resources) -> None:
    assert set(of_type(resources, "AWS::CloudWatch::Alarm")) == set(ALARMS)


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_counts_its_metric_and_tells_the_topic_what_to_do(
    resources: Resources, name: str
) -> None:
    alarm = resources[name]["Properties"]
    metric, period, comparison, threshold = ALARMS[name]
    assert f"{alarm['Namespace']} {alarm['MetricName']}" == metric
    assert alarm["Statistic"] == ("Maximum" if name in GAUGES else "Sum")
    assert (alarm["Period"], alarm["EvaluationPeriods"]) == (period, 1)
    assert alarm["ComparisonOperator"] == COMPARISONS[comparison]
    assert alarm["Threshold"] == threshold
    assert alarm["TreatMissingData"] == ("breaching" if name in SILENCES else "notBreaching")
    assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}]
    sentences = re.findall(r"[.;?](?:\s|$)", alarm["AlarmDescription"])
    assert len(sentences) >= 2
    assert len(alarm["AlarmDescription"]) <= 1024


def test_alarms_name_whom_they_watch(resources: Resources) -> None:
    """Of our own metrics this deployment's alone: an account may have several."""
    watched = {
        name: {one["Name"]: one["Value"] for one in alarm["Properties"].get("Dimensions", [])}
        for name, alarm in of_type(resources, "AWS::CloudWatch::Alarm").items()
    }
    ours = [name for name, (metric, *_) in ALARMS.items() if metric.startswith("Weir ")]
    assert watched == {
        **{name: {metrics.STACK: {"Ref": "AWS::StackName"}} for name in ours},
        "SweepErrorsAlarm": {"FunctionName": {"Ref": "SweepFunction"}},
        "SweepStoppedAlarm": {"FunctionName": {"Ref": "SweepFunction"}},
        "ChatThrottlesAlarm": {"FunctionName": {"Ref": "ChatFunction"}},
        "ApiFailuresAlarm": {
            "ApiName": resources["Api"]["Properties"]["Body"]["info"]["title"],
            "Stage": {"Ref": "StageName"},
        },
        "UsageGivenUpAlarm": {"QueueName": {"Fn::GetAtt": ["MeterFailures", "QueueName"]}},
        "DeadLettersAlarm": {"QueueName": {"Fn::GetAtt": ["DeadLetters", "QueueName"]}},
        "NotifyGivenUpAlarm": {"QueueName": {"Fn::GetAtt": ["NotifyFailures", "QueueName"]}},
        "UsageLateAlarm": {"FunctionName": {"Ref": "MeterFunction"}},
    }


@pytest.mark.parametrize("metric", [m for m, *_ in ALARMS.values() if m.startswith("Weir ")])
def test_alarm_watches_a_metric_that_some_function_emits(metric: str) -> None:
    namespace, name = metric.split(" ")
    assert namespace == metrics.NAMESPACE
    doors_and_layers = [*(ROOT / "functions").rglob("*.py"), *(ROOT / "layers").rglob("*.py")]
    assert any(f'"{name}"' in path.read_text() for path in doors_and_layers)


def test_somebody_is_told_only_if_there_is_an_address(
    resources: Resources, source: dict[str, Any]
) -> None:
    subscription = resources["AlarmSubscription"]
    assert subscription["Properties"] == {
        "TopicArn": {"Ref": "AlarmTopic"},
        "Protocol": "email",
        "Endpoint": {"Ref": "AlarmEmail"},
    }
    assert source["Conditions"][subscription["Condition"]] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmEmail"}, ""]}]
    }
    address = source["Parameters"]["AlarmEmail"]
    assert address["Default"] == ""
    assert re.fullmatch(address["AllowedPattern"], "")
    assert re.fullmatch(address["AllowedPattern"], "ops@example.com")
    assert not re.fullmatch(address["AllowedPattern"], "ops")


def test_cloudwatch_may_publish_to_the_topic(resources: Resources) -> None:
    """It may not use the AWS-managed key of SNS: under that key every alarm would be lost."""
    assert "KmsMasterKeyId" not in resources["AlarmTopic"].get("Properties", {})


def test_whoever_fetches_a_token_for_each_chat_is_not_throttled_before_the_chat(
    source: dict[str, Any],
) -> None:
    default = {name: one["Default"] for name, one in source["Parameters"].items()}
    assert default["ChatRequestsPerSecond"] < default["TokenRequestsPerSecond"]
    assert default["ChatRequestsBurst"] < default["TokenRequestsBurst"]


# ---------------------------------------------------------------- data and users


def test_table_is_on_demand_encrypted_recoverable_streamed_and_retained(
    resources: Resources,
) -> None:
    (table,) = of_type(resources, "AWS::DynamoDB::Table").values()
    properties = table["Properties"]
    assert table["DeletionPolicy"] == "RetainExceptOnCreate"
    assert table["UpdateReplacePolicy"] == "Retain"
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["SSESpecification"]["SSEType"] == "KMS"
    assert properties["SSESpecification"]["KMSMasterKeyId"] == {"Fn::GetAtt": ["Key", "Arn"]}
    assert properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert properties["StreamSpecification"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}


def test_key_is_retained_with_the_table_and_rotates(resources: Resources) -> None:
    assert resources["Key"]["DeletionPolicy"] == resources["Table"]["DeletionPolicy"]
    assert resources["Key"]["Properties"]["EnableKeyRotation"] is True
    for secret in of_type(resources, "AWS::SecretsManager::Secret").values():
        assert secret["Properties"]["KmsKeyId"] == {"Fn::GetAtt": ["Key", "Arn"]}


def test_strangers_may_not_sign_up_and_tiers_are_groups(
    resources: Resources, source: dict[str, Any]
) -> None:
    assert source["Parameters"]["AllowSelfSignUp"]["Default"] == "false"
    pool = resources["UserPool"]["Properties"]
    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] == {
        "Fn::If": ["SelfSignUp", False, True]
    }
    groups = of_type(resources, "AWS::Cognito::UserPoolGroup").values()
    assert {g["Properties"]["GroupName"] for g in groups} == {"free", "pro", "max", "admins"}
    client = resources["UserPoolClient"]["Properties"]
    assert client["GenerateSecret"] is False
    assert set(client["WriteAttributes"]) == {"email", "name"}


def test_sign_in_page_of_cognitos_own_is_there_only_if_it_is_named(
    resources: Resources, source: dict[str, Any]
) -> None:
    assert source["Parameters"]["SignInDomainPrefix"]["Default"] == ""
    assert source["Conditions"]["ManagedLogin"] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "SignInDomainPrefix"}, ""]}]
    }
    for kind in ("UserPoolDomain", "ManagedLoginBranding"):
        (resource,) = of_type(resources, f"AWS::Cognito::{kind}").values()
        assert resource["Condition"] == "ManagedLogin"
    assert source["Outputs"]["SignInDomain"]["Condition"] == "ManagedLogin"
    client = resources["UserPoolClient"]["Properties"]
    conditional = {
        n: v["Fn::If"] for n, v in client.items() if isinstance(v, dict) and "Fn::If" in v
    }
    returns, nothing = {"Ref": "SignInReturnUrls"}, {"Ref": "AWS::NoValue"}
    assert conditional == {
        "AllowedOAuthFlowsUserPoolClient": ["ManagedLogin", True, nothing],
        # Neither `implicit`, which puts tokens into addresses, nor a client that acts for no user.
        "AllowedOAuthFlows": ["ManagedLogin", ["code"], nothing],
        "AllowedOAuthScopes": ["ManagedLogin", ["openid", "email"], nothing],
        "SupportedIdentityProviders": ["ManagedLogin", ["COGNITO"], nothing],
        "CallbackURLs": ["ManagedLogin", returns, nothing],
        "LogoutURLs": ["ManagedLogin", returns, nothing],
    }


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://app.example.com/", True),
        ("http://localhost:5173/", True),
        ("http://localhost/", True),
        ("http://app.example.com/", False),
        ("http://localhost.example.com/", False),
        ("https://*.example.com/", False),
        ("https://app.example.com/#signed-in", False),
        ("javascript:alert(1)", False),
    ],
)
def test_cognito_returns_to_encrypted_pages_or_this_machine(
    source: dict[str, Any], url: str, allowed: bool
) -> None:
    pattern = source["Parameters"]["SignInReturnUrls"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, url)) is allowed


def test_every_parameter_has_a_default_and_says_what_it_is(source: dict[str, Any]) -> None:
    for name, parameter in source["Parameters"].items():
        assert "Default" in parameter, name
        assert parameter["Description"], name


def test_newcomer_finds_what_he_needs_in_the_outputs(source: dict[str, Any]) -> None:
    assert {
        "ApiUrl",
        "OpenAiBaseUrl",
        "FirstCommand",
        "TenantId",
        "ProjectId",
        "UserPoolId",
        "UserPoolClientId",
        "TableName",
        "ProviderKeysSecretArn",
    } <= set(source["Outputs"])
