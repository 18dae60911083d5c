"""What several unit tests need: one signing key (making RSA keys is slow), a deployment, and a
table that an operator has set up.
"""

import importlib.util
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from moto import mock_aws

from weir.aws.clients import client
from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.rotation import make_signing_key
from weir.aws.table import Table
from weir.identity import tokens
from weir.identity.keyring import Kid, PublicKey, SigningKey
from weir.operator.documents import ModelDocument, NewProject, UpstreamDocument, parsed
from weir.settings import Deployment

NOW = 1_800_000_000
PROVIDER_KEYS = "provider-keys"  # the secret
ORIGIN = "https://app.example.com"
UPSTREAM: dict[str, Any] = {"kind": "openai", "base_url": "https://api.provider.example/v1"}
# What an operator writes of an upstream of each kind.
UPSTREAM_OF: dict[str, dict[str, Any]] = {
    "openai": UPSTREAM,
    "bedrock": {"kind": "bedrock", "region": "eu-west-1"},
    "azure": {
        "kind": "azure",
        "base_url": "https://resource.openai.azure.com",
        "api_version": "2024-10-21",
    },
    "mock": {"kind": "mock"},
}
CANDIDATE: dict[str, Any] = {
    "upstream": "main",
    "model": "provider/m-large",
    "input_nano_usd": 100,
    "cached_input_nano_usd": 10,
    "output_nano_usd": 400,
}
MODEL: dict[str, Any] = {
    "candidates": [CANDIDATE],
    "context_tokens": 100_000,
    "max_output_tokens": 1024,
    "overhead_tokens": 0,
}
PROJECT: dict[str, Any] = {"pid": "default", "origins": [ORIGIN], "default_model": "m-large"}


def make_table(dynamodb: Any) -> None:
    """The deployed table's keys, under the name `t`."""
    dynamodb.create_table(
        TableName="t",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )


def minted(key: SigningKey, *, now: int) -> str:
    """A user token of tenant-1, good for a minute."""
    return tokens.mint(
        key,
        issuer="urn:weir:tenant-1",
        tid="tenant-1",
        pid="default",
        uid="u",
        role="user",
        ttl_s=60,
        tier=None,
        session_id="s",
        jti="j",
        now=now,
    ).value


@pytest.fixture(scope="session")
def signing_key() -> SigningKey:
    return make_signing_key(Kid("ring_1"))


@pytest.fixture(scope="session")
def other_key() -> SigningKey:
    return make_signing_key(Kid("ring_2"))


@pytest.fixture(scope="session")
def public_key(signing_key: SigningKey) -> PublicKey:
    return signing_key.public(created_at=NOW)


@pytest.fixture
def deployment() -> Deployment:
    return Deployment("tenant-1", "t", "weir-test")


@pytest.fixture
def aws() -> Iterator[None]:
    """An empty table, and the secret of the providers' keys as a deployment leaves it."""
    with mock_aws():
        make_table(client("dynamodb"))
        client("secretsmanager").create_secret(Name=PROVIDER_KEYS, SecretString="{}")
        yield


@pytest.fixture
def table(aws: None) -> Table:
    return Table(client("dynamodb"), "t")


@pytest.fixture
def operator(table: Table) -> Operator:
    """Who has done nothing yet."""
    keys = ProviderKeys(client("secretsmanager"), PROVIDER_KEYS)
    return Operator(table, keys, actor="the operator", clock=lambda: NOW)


def set_up(operator: Operator) -> None:
    """As a first operator does: a provider, a model with its price, a project."""
    operator.put_upstream("main", parsed(UpstreamDocument, UPSTREAM))
    operator.put_model("m-large", parsed(ModelDocument, MODEL))
    operator.create_project(parsed(NewProject, PROJECT))


@pytest.fixture
def configured(operator: Operator) -> Operator:
    set_up(operator)
    return operator


LAMBDA: dict[str, Any] = {
    "function_name": "f",
    "memory_limit_in_mb": 256,
    "invoked_function_arn": "arn:aws:lambda:us-east-1:1:function:f",
    "aws_request_id": "r",
}


def unattended_door(
    monkeypatch: pytest.MonkeyPatch, name: str, environment: Mapping[str, str]
) -> ModuleType:
    """A function that AWS calls and no user, as Lambda loads it; what it logs can be read."""
    named = {
        "TENANT_ID": "t-1",
        "TABLE_NAME": "t",
        "STACK_NAME": "weir-test",
        "AWS_REGION": "us-east-1",
    }
    for variable, value in {**named, **environment}.items():
        monkeypatch.setenv(variable, value)
    path = Path(__file__).parents[2] / "functions" / name / "app.py"
    spec = importlib.util.spec_from_file_location(f"door_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.logger.handlers[0], "stream", io.StringIO())
    return module
