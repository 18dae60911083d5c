"""Doors in process, for what the running stack cannot show: Bedrock, no keys, a failing store."""

import importlib.util
import json
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest

from tests.unit.conftest import NOW, PROVIDER_KEYS, minted
from weir import tokens
from weir.aws.operator import Operator
from weir.aws.table import Table
from weir.configuration import UpstreamDocument, parsed
from weir.keyring import SigningKey
from weir.upstreams import bedrock

ROOT = Path(__file__).parents[2]
BASE = {
    "TENANT_ID": "tenant-1",
    "TABLE_NAME": "t",
    "AWS_REGION": "us-east-1",
}
CONTEXT = SimpleNamespace(
    get_remaining_time_in_millis=lambda: 60_000,
    function_name="f",
    memory_limit_in_mb=512,
    invoked_function_arn="arn:aws:lambda:us-east-1:1:function:f",
    aws_request_id="r",
)


Load = Callable[..., ModuleType]


@pytest.fixture
def load(configured: Operator, monkeypatch: pytest.MonkeyPatch) -> Load:
    def door(name: str, **env: str) -> ModuleType:
        for variable, value in {**BASE, **env}.items():
            monkeypatch.setenv(variable, value)
        path = ROOT / "functions" / name / "app.py"
        spec = importlib.util.spec_from_file_location(f"door_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return door


def event(name: str, **placeholders: str) -> dict[str, Any]:
    text = (ROOT / "events" / f"{name}.json").read_text()
    for placeholder, value in placeholders.items():
        text = text.replace(placeholder, value)
    loaded = json.loads(text)
    assert isinstance(loaded, dict)
    return loaded


TOKEN_DOOR = {
    "PROJECT_ID": "default",
    "SIGNING_KEY_SECRET": "signing",
    "COGNITO_CLIENT_ID": "client",
    "SESSION_TOKEN_TTL_S": "900",
}
SESSION = event("token.real", REPLACE_WITH_COGNITO_CLIENT_ID="client", PLACE="")
SESSION["headers"].pop("Origin")


def test_mint_is_503_with_retry_after_until_the_first_rotation_and_works_right_after(
    load: Load, signing_key: SigningKey, other_key: SigningKey
) -> None:
    secrets = boto3.client("secretsmanager")
    secrets.create_secret(Name="signing", SecretString="{}")
    door = load("token", **TOKEN_DOOR)
    answer = door.handler(SESSION, CONTEXT)
    assert answer["statusCode"] == 503
    assert json.loads(answer["body"])["error"]["details"]["reason"] == "no_signing_keys"
    assert answer["multiValueHeaders"]["Retry-After"] == ["5"]
    ring = {
        "current": {"kid": signing_key.kid, "private_key": signing_key.private_key},
        "next": {"kid": other_key.kid, "private_key": other_key.private_key},
    }
    secrets.put_secret_value(SecretId="signing", SecretString=json.dumps(ring))
    answer = door.handler(SESSION, CONTEXT)
    assert answer["statusCode"] == 200, answer
    assert tokens.unverified_kid(json.loads(answer["body"])["token"]) == signing_key.kid


def test_store_that_fails_is_a_503_without_its_words(load: Load) -> None:
    door = load("token", **TOKEN_DOOR, TABLE_NAME="no-such-table")
    mint = event("token.smallest", REPLACE_WITH_API_KEY="behest_sk_live_" + "0" * 32)
    answer = door.handler(mint, CONTEXT)
    assert answer["statusCode"] == 503
    told = json.loads(answer["body"])
    assert told["error"]["code"] == "store_unavailable"
    assert "no-such-table" not in answer["body"]
    assert answer["multiValueHeaders"]["Retry-After"] == ["1"]


def test_bug_of_ours_is_a_500_without_detail(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    door = load("token", **TOKEN_DOOR)
    monkeypatch.setattr(door, "jwks", lambda *_: 1 / 0)
    asked = {**SESSION, "httpMethod": "GET", "path": "/.well-known/jwks.json"}
    asked["resource"] = asked["path"]
    answer = door.handler(asked, CONTEXT)
    assert answer["statusCode"] == 500
    assert "division" not in answer["body"]
    assert json.loads(answer["body"])["error"]["code"] == "server_error"


class Bedrock(BaseHTTPRequestHandler):
    seen: dict[str, str] = {}  # noqa: RUF012 - one server, one test

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Bedrock.seen = {"path": self.path, "authorization": self.headers["Authorization"]}
        body = json.dumps({"id": "x", "choices": [{"index": 0}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


CHAT_DOOR = {"PROVIDER_KEYS_SECRET": PROVIDER_KEYS, "MAX_STREAM_S": "300"}
ADMIN_DOOR = {"PROVIDER_KEYS_SECRET": PROVIDER_KEYS, "COGNITO_CLIENT_ID": "client"}


def chat_event(door: ModuleType, signing_key: SigningKey) -> dict[str, Any]:
    """A request with a token of the ring that is published in the table."""
    Table(boto3.client("dynamodb"), "t").publish(signing_key.public(created_at=NOW))
    token = minted(signing_key, now=int(door.time.time()))
    return event("chat.smallest", REPLACE_WITH_USER_TOKEN=token)


def test_bedrock_is_asked_in_its_region_with_the_roles_own_bearer(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bedrock.base_url("eu-west-1") == (
        "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1"
    )
    server = HTTPServer(("127.0.0.1", 0), Bedrock)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    regions = []

    def base_url(region: str) -> str:
        regions.append(region)
        return f"http://127.0.0.1:{server.server_port}/openai/v1"

    monkeypatch.setattr(bedrock, "base_url", base_url)
    elsewhere = {"kind": "bedrock", "region": "eu-central-1"}
    configured.put_upstream("main", parsed(UpstreamDocument, elsewhere))
    try:
        door = load("chat", **CHAT_DOOR)
        status, _, body, rest = door.handler(chat_event(door, signing_key), CONTEXT)
        rest.close()
        for provider in door._providers.values():
            provider.close()
    finally:
        server.shutdown()
        server.server_close()
    assert (status, json.loads(body)["choices"]) == (200, [{"index": 0}])
    assert Bedrock.seen["path"] == "/openai/v1/chat/completions"
    assert Bedrock.seen["authorization"].startswith("Bearer bedrock-api-key-")
    assert regions == ["eu-central-1"]


def test_chat_without_a_provider_key_says_so_and_its_bug_is_a_500(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **{**CHAT_DOOR, "PROVIDER_KEYS_SECRET": "no-such-secret"})
    asked = chat_event(door, signing_key)
    status, headers, body, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(body)["error"]["code"]) == (503, "not_ready")
    boto3.client("secretsmanager").create_secret(Name="no-such-secret", SecretString="{}")
    status, headers, body, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(body)["error"]["code"]) == (503, "upstream_not_configured")
    assert headers["x-should-retry"] == "false"
    monkeypatch.setattr(door.chat, "understand", lambda *_: 1 / 0)
    status, _, body, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(body)["error"]["code"]) == (500, "server_error")


def test_chat_whose_table_is_gone_is_a_503(load: Load, signing_key: SigningKey) -> None:
    door = load("chat", **CHAT_DOOR)
    asked = chat_event(door, signing_key)
    boto3.client("dynamodb").delete_table(TableName="t")
    status, _, body, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(body)["error"]["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("name", ["account", "admin", "chat", "token", "rotate"])
def test_door_without_its_settings_does_not_start(
    load: Load, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in (*TOKEN_DOOR, *CHAT_DOOR, *ADMIN_DOOR):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "environ", {**os.environ})
    with pytest.raises(Exception, match=r"missing or empty"):
        load(name, TABLE_NAME=" ")
