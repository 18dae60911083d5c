"""The door that makes tokens, in process: what the running stack does not show."""

import importlib.util
import json
import time
import uuid
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jwt
import pytest

from tests.unit.conftest import LAMBDA
from weir.aws import items, lean
from weir.aws.clients import client
from weir.aws.operator import Operator
from weir.aws.public_keys import PublicKeys
from weir.aws.table import Table
from weir.identity import tokens
from weir.identity.keyring import KeyRing, PublicKey, SigningKey
from weir.operator.documents import ProjectChange, parsed
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


def test_mint_that_is_warm_reads_no_secret_and_writes_nothing(
    door: ModuleType, configured: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some SDKs mint before every chat."""
    key, _ = configured.create_key("default", name="n", scopes=["mint"], role="user")
    calls: list[str] = []
    for service in ("dynamodb", "secretsmanager"):
        it = client(service)
        real = it._make_api_call

        def count(name: str, told: Any, real: Any = real) -> Any:
            calls.append(name)
            return real(name, told)

        monkeypatch.setattr(it, "_make_api_call", count)
    for _ in range(3):
        calls.clear()
        assert send(door, "POST", "/v1/auth/mint", '{"user_id":"ann"}', key)["statusCode"] == 200
    assert calls == ["GetItem", "BatchGetItem"]


def test_private_key_is_parsed_once_and_anew_after_a_rotation(
    door: ModuleType,
    configured: Operator,
    signing_key: SigningKey,
    other_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, _ = configured.create_key("default", name="n", scopes=["mint"], role="user")
    parsed: list[str] = []
    parse = SigningKey.rsa

    def counted(self: SigningKey) -> Any:
        parsed.append(self.kid)
        return parse(self)

    tokens._private.cache_clear()
    monkeypatch.setattr(SigningKey, "rsa", counted)

    def mint() -> str:
        answer = send(door, "POST", "/v1/auth/mint", '{"user_id":"ann"}', key)
        return str(jwt.get_unverified_header(json.loads(answer["body"])["token"])["kid"])

    assert [mint(), mint()] == [signing_key.kid] * 2
    rotated = KeyRing(other_key, signing_key).to_secret()
    client("secretsmanager").put_secret_value(SecretId="signing", SecretString=rotated)
    door._signer._vault.forget("signing")
    assert [mint(), mint()] == [other_key.kid] * 2
    assert parsed == [signing_key.kid, other_key.kid]


def payload(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def test_token_names_its_key_and_that_of_a_session_names_none(
    door: ModuleType, configured: Operator
) -> None:
    secret, key = configured.create_key("default", name="n", scopes=["mint"], role="user")
    minted = json.loads(send(door, "POST", "/v1/auth/mint", '{"user_id":"ann"}', secret)["body"])
    jti = payload(minted["token"])["jti"]
    assert uuid.UUID(jti).version == 4
    assert names(jti, key.key_id)
    event = json.loads((ROOT / "events" / "token.real.json").read_text())
    event["requestContext"]["authorizer"]["claims"] |= {"aud": "client", "token_use": "id"}
    event["headers"].pop("origin", None)
    event["headers"].pop("Origin", None)
    answer = door.handler(event, SimpleNamespace(**LAMBDA))
    jti = payload(json.loads(answer["body"])["token"])["jti"]
    assert not names(jti, key.key_id)


def names(jti: str, key_id: str) -> bool:
    digits = jti.replace("-", "")
    return digits[:12] + digits[13:16] == key_id.removeprefix("key_")[:15]


def test_backend_may_revoke_while_its_project_is_switched_off_but_not_suspended(
    door: ModuleType, configured: Operator
) -> None:
    """When it is switched on again, the user has long been signed out."""
    key, _ = configured.create_key("default", name="n", scopes=["mint"], role="user")

    def revoke() -> int:
        answer = send(door, "POST", "/v1/auth/revoke", '{"user_id":"ann"}', key)
        door._snapshots.forget("default")
        return int(answer["statusCode"])

    configured.switch_project("default", off=True)
    assert revoke() == 200
    configured.switch_project("default", off=False)
    (record,) = door._table.records([items.subject("default", "u#ann")])
    assert list(record.document) == ["not_before"]
    configured.update_project("default", parsed(ProjectChange, {"status": "suspended"}))
    assert revoke() == 401


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
