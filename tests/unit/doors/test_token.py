"""The door that makes tokens, in process: what the running stack does not show."""

import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.conftest import LAMBDA
from weir.aws import lean
from weir.aws.clients import client
from weir.aws.operator import Operator
from weir.aws.public_keys import PublicKeys
from weir.aws.table import Table
from weir.identity.keyring import PublicKey, SigningKey
from weir.settings import Caches

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    "TENANT_ID": "tenant-1",
    "TABLE_NAME": "t",
    "STACK_NAME": "weir-test",
    "AWS_REGION": "us-east-1",
    "PROJECT_ID": "default",
    "SIGNING_KEY_SECRET": "signing",
    "COGNITO_CLIENT_ID": "client",
    "SESSION_TOKEN_TTL_S": "900",
}


@pytest.fixture
def door(
    configured: Operator,
    signing_key: SigningKey,
    other_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
) -> ModuleType:
    ring = {
        name: {"kid": key.kid, "private_key": key.private_key}
        for name, key in (("current", signing_key), ("next", other_key))
    }
    client("secretsmanager").create_secret(Name="signing", SecretString=json.dumps(ring))
    monkeypatch.setattr(lean, "client", client)
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    path = ROOT / "functions" / "token" / "app.py"
    spec = importlib.util.spec_from_file_location("door_token", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def send(door: ModuleType, method: str, path: str, body: str = "", key: str = "") -> dict[str, Any]:
    event = {
        "httpMethod": method,
        "path": path,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "requestContext": {"requestId": "req-1", "httpMethod": method, "resourcePath": path},
        "body": body,
    }
    answer: dict[str, Any] = door.handler(event, SimpleNamespace(**LAMBDA))
    return answer


@pytest.mark.parametrize("twice", ["user_id", "role", "ttl", "whatever"])
def test_member_that_stands_twice_in_a_mint_body_is_refused(
    door: ModuleType, configured: Operator, twice: str
) -> None:
    key, _ = configured.create_key("default", name="backend", scopes=["mint"], role="user")
    members = ['"user_id":"ann"', f'"{twice}":"user"', f'"{twice}":"user"']
    answer = send(door, "POST", "/v1/auth/mint", "{" + ",".join(members) + "}", key)
    assert answer["statusCode"] == 400
    error = json.loads(answer["body"])["error"]
    assert (error["code"], error["details"]) == ("validation_error", {"reason": "invalid_json"})
    assert "twice" in error["message"]
    assert send(door, "POST", "/v1/auth/mint", '{"user_id":"ann"}', key)["statusCode"] == 200


def test_key_list_is_read_once_in_five_seconds_whoever_asks_how_often(
    door: ModuleType, public_key: PublicKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, now = [], time.time()
    read = Table.public_keys

    def counted(table: Table) -> list[PublicKey]:
        reads.append(1)
        return read(table)

    monkeypatch.setattr(Table, "public_keys", counted)
    door._table.publish(public_key)

    def listed() -> list[str]:
        answer = send(door, "GET", "/.well-known/jwks.json")
        return [key["kid"] for key in json.loads(answer["body"])["keys"]]

    monkeypatch.setattr(
        door, "_public_keys", PublicKeys(door._table, lambda: now, Caches(keys_s=5))
    )
    assert [listed() for _ in range(20)] == [[public_key.kid]] * 20
    assert len(reads) == 1
    now += 5.1
    assert listed() == [public_key.kid]
    assert len(reads) == 2
