"""Least privilege, enforced by the embedded AWS: each function's role tries what it must not."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.stack.conftest import Stack

KEY = {"pk": {"S": "x"}, "sk": {"S": "x"}}
QUERY = {
    "KeyConditionExpression": "pk = :p",
    "ExpressionAttributeValues": {":p": {"S": "KEYRING"}},
}


def attempts(outputs: dict[str, str]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    table = {"TableName": outputs["TableName"]}
    signing = {"SecretId": outputs["SigningKeySecretArn"]}
    provider = {"SecretId": outputs["ProviderKeysSecretArn"]}
    return {
        "get": ("dynamodb", "get_item", {**table, "Key": KEY}),
        "query": ("dynamodb", "query", {**table, **QUERY}),
        "put": ("dynamodb", "put_item", {**table, "Item": KEY}),
        "update": ("dynamodb", "update_item", {**table, "Key": KEY}),
        "delete": ("dynamodb", "delete_item", {**table, "Key": KEY}),
        "scan": ("dynamodb", "scan", table),
        "drop": ("dynamodb", "delete_table", table),
        "read signing keys": ("secretsmanager", "get_secret_value", signing),
        "describe signing keys": ("secretsmanager", "describe_secret", signing),
        "read provider keys": ("secretsmanager", "get_secret_value", provider),
        "write provider keys": (
            "secretsmanager",
            "put_secret_value",
            {**provider, "SecretString": "x"},
        ),
        "list users": ("cognito-idp", "list_users", {"UserPoolId": outputs["UserPoolId"]}),
        "list roles": ("iam", "list_roles", {}),
    }


MAY = {
    "TokenFunction": {"get", "query", "read signing keys"},
    "ChatFunction": {"query", "read provider keys"},
    "PreflightFunction": set(),
    "RotateFunction": {"query", "put", "update", "read signing keys", "describe signing keys"},
}


@pytest.mark.parametrize("function", MAY)
def test_role_may_do_what_its_function_does_and_nothing_else(stack: Stack, function: str) -> None:
    resources = stack.aws("cloudformation").list_stack_resources(StackName="weir-local")
    names = {
        r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources["StackResourceSummaries"]
    }
    role = stack.aws("iam").get_role(RoleName=names[f"{function}Role"])["Role"]["Arn"]
    session = stack.aws("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    allowed = set()
    for name, (service, call, arguments) in attempts(stack.outputs()).items():
        try:
            getattr(stack.aws(service, session), call)(**arguments)
            allowed.add(name)
        except ClientError as error:
            if "AccessDenied" not in error.response["Error"]["Code"]:
                raise
    assert allowed == MAY[function]
