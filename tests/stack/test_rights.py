"""Least privilege, enforced by the embedded AWS: each function's role tries what it must not.

It does not know dynamodb:LeadingKeys and dynamodb:Attributes, and so lets these roles read and
write anywhere in the table; under which keys they may is asserted on the template. So is the
meter's right to the table's stream: here only a right to every stream counts.
"""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.stack.conftest import Stack

KEY = {"pk": {"S": "x"}, "sk": {"S": "x"}}
QUERY = {
    "KeyConditionExpression": "pk = :p",
    "ExpressionAttributeValues": {":p": {"S": "KEYRING"}},
}


@pytest.fixture(scope="module")
def other_stream(stack: Stack) -> str:
    """The ARN of the stream of a table in the same account that is not the deployment's."""
    made = stack.aws("dynamodb").create_table(
        TableName="of-somebody-else",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    arn: str = made["TableDescription"]["LatestStreamArn"]
    return arn


def attempts(
    outputs: dict[str, str], kept: str, stream: str
) -> dict[str, tuple[str, str, dict[str, Any]]]:
    table = {"TableName": outputs["TableName"]}
    signing = {"SecretId": outputs["SigningKeySecretArn"]}
    provider = {"SecretId": outputs["ProviderKeysSecretArn"]}
    return {
        "get": ("dynamodb", "get_item", {**table, "Key": KEY}),
        "get many": (
            "dynamodb",
            "batch_get_item",
            {"RequestItems": {outputs["TableName"]: {"Keys": [KEY]}}},
        ),
        "query": ("dynamodb", "query", {**table, **QUERY}),
        "put": ("dynamodb", "put_item", {**table, "Item": KEY}),
        "update": ("dynamodb", "update_item", {**table, "Key": KEY}),
        "delete": ("dynamodb", "delete_item", {**table, "Key": KEY}),
        "write many": (
            "dynamodb",
            "batch_write_item",
            {"RequestItems": {outputs["TableName"]: [{"DeleteRequest": {"Key": KEY}}]}},
        ),
        "scan": ("dynamodb", "scan", table),
        "drop": ("dynamodb", "delete_table", table),
        "read another table's stream": (
            "dynamodbstreams",
            "describe_stream",
            {"StreamArn": stream},
        ),
        "get from another table": (
            "dynamodb",
            "get_item",
            {"TableName": "of-somebody-else", "Key": {"pk": {"S": "x"}}},
        ),
        "read signing keys": ("secretsmanager", "get_secret_value", signing),
        "describe signing keys": ("secretsmanager", "describe_secret", signing),
        "read provider keys": ("secretsmanager", "get_secret_value", provider),
        "write provider keys": (
            "secretsmanager",
            "put_secret_value",
            # What it is: other tests use it.
            {**provider, "SecretString": kept},
        ),
        "write signing keys": (
            "secretsmanager",
            "update_secret",
            {**signing, "Description": "x"},
        ),
        "drop provider keys": ("secretsmanager", "delete_secret", provider),
        "list users": ("cognito-idp", "list_users", {"UserPoolId": outputs["UserPoolId"]}),
        "list roles": ("iam", "list_roles", {}),
    }


MAY = {
    "TokenFunction": {"get", "get many", "query", "put", "update", "read signing keys"},
    "ChatFunction": {
        "get",
        "get many",
        "query",
        "put",
        "update",
        "delete",
        "read provider keys",
    },
    "EmbeddingsFunction": {
        *("get", "get many", "query", "put", "update", "delete", "read provider keys")
    },
    "PreflightFunction": {"get", "put"},
    "AccountFunction": {"get", "get many", "query", "put", "update", "delete", "write many"},
    "AdminFunction": {
        "get",
        "get many",
        "query",
        "put",
        "update",
        "delete",
        "write many",
        "read provider keys",
        "write provider keys",
    },
    "RotateFunction": {"query", "put", "update", "read signing keys", "describe signing keys"},
    "SweepFunction": {"query", "put", "update", "delete"},
    "MeterFunction": {"update"},
}


@pytest.mark.parametrize("function", MAY)
def test_role_may_do_what_its_function_does_and_nothing_else(
    stack: Stack, other_stream: str, function: str
) -> None:
    resources = stack.aws("cloudformation").list_stack_resources(StackName="weir-local")
    names = {
        r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources["StackResourceSummaries"]
    }
    role = stack.aws("iam").get_role(RoleName=names[f"{function}Role"])["Role"]["Arn"]
    session = stack.aws("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    allowed = set()
    outputs = stack.outputs()
    kept = stack.aws("secretsmanager").get_secret_value(SecretId=outputs["ProviderKeysSecretArn"])
    for name, (service, call, arguments) in attempts(
        outputs, kept["SecretString"], other_stream
    ).items():
        try:
            getattr(stack.aws(service, session), call)(**arguments)
            allowed.add(name)
        except ClientError as error:
            if "AccessDenied" not in error.response["Error"]["Code"]:
                raise
    assert allowed == MAY[function]
