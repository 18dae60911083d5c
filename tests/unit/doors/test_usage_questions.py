"""How often, and about how much, usage may be asked: by users, by API keys, by the operator."""

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.unit.conftest import LAMBDA, NOW, PROVIDER_KEYS
from weir.aws import lean
from weir.aws.clients import client
from weir.aws.operator import Operator
from weir.aws.table import Table
from weir.identity import tokens
from weir.identity.keyring import SigningKey
from weir.usage import reading
from weir.usage.question import MOST_OF_A_KEY, MOST_OF_A_USER
from weir.usage.sums import Totals

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    "TENANT_ID": "tenant-1",
    "TABLE_NAME": "t",
    "STACK_NAME": "weir-test",
    "AWS_REGION": "us-east-1",
    "PROVIDER_KEYS_SECRET": PROVIDER_KEYS,
    "KEY_ARN": "key",
    "COGNITO_CLIENT_ID": "client",
    "PROJECT_ID": "default",
}
OPERATOR = {"token_use": "id", "aud": "client", "sub": "s", "cognito:groups": "admins"}


class Clock:
    """Ten seconds into a minute."""

    def __init__(self) -> None:
        self.now = float(NOW - NOW % 60 + 10)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def load(
    configured: Operator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], ModuleType]:
    monkeypatch.setattr(lean, "client", client)
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)

    def door(name: str) -> ModuleType:
        path = ROOT / "functions" / name / "app.py"
        spec = importlib.util.spec_from_file_location(f"door_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return door


def ask(door: ModuleType, path: str, credential: str = "") -> dict[str, Any]:
    path, _, query = path.partition("?")
    event = {
        "httpMethod": "GET",
        "path": path,
        "headers": {"Authorization": f"Bearer {credential}"},
        "multiValueQueryStringParameters": parse_qs(query),
        "requestContext": {
            "requestId": "req-1",
            "httpMethod": "GET",
            "resourcePath": path,
            "authorizer": {"claims": OPERATOR},
        },
        "body": None,
    }
    answer: dict[str, Any] = door.handler(event, SimpleNamespace(**LAMBDA))
    return answer


def token(key: SigningKey, uid: str, role: str = "user") -> str:
    Table(client("dynamodb"), "t").publish(key.public(created_at=NOW))
    return tokens.mint(
        key,
        issuer="urn:weir:tenant-1",
        tid="tenant-1",
        pid="default",
        uid=uid,
        role=role,
        ttl_s=600,
        tier=None,
        session_id="s",
        jti="j",
        now=NOW - 60,
    ).value


def statuses(door: ModuleType, path: str, credential: str, times: int) -> list[int]:
    return [ask(door, path, credential)["statusCode"] for _ in range(times)]


def test_user_asks_thirty_times_a_minute_on_both_routes_together_and_others_do_not_wait(
    load: Callable[[str], ModuleType], signing_key: SigningKey, clock: Clock
) -> None:
    door, ann = load("account"), token(signing_key, "ann")
    assert ask(door, "/v1/usage?group_by=colour", ann)["statusCode"] == 400  # costs nothing
    half = MOST_OF_A_USER // 2
    assert statuses(door, "/v1/usage", ann, half) == [200] * half
    assert statuses(door, "/v1/billing/usage", ann, half) == [200] * half
    refused = ask(door, "/v1/usage", ann)
    assert refused["statusCode"] == 429
    assert refused["multiValueHeaders"]["Retry-After"] == ["50"]
    error = json.loads(refused["body"])["error"]
    assert error["code"] == "rate_limited"
    assert error["details"] == {
        "limit_name": "usage_questions_per_minute",
        "limit": {"usage_questions_per_minute": MOST_OF_A_USER},
    }
    assert ask(door, "/v1/me", ann)["statusCode"] == 200
    assert ask(door, "/v1/usage", token(signing_key, "bob"))["statusCode"] == 200
    clock.now += 50
    assert ask(door, "/v1/usage", ann)["statusCode"] == 200


def test_api_key_asks_for_all_users_of_a_dashboard(
    load: Callable[[str], ModuleType], configured: Operator
) -> None:
    door = load("account")
    one, _ = configured.create_key("default", name="a", scopes=["api:read"], role="user")
    other, _ = configured.create_key("default", name="b", scopes=["api:read"], role="user")
    assert statuses(door, "/v1/usage", one, MOST_OF_A_KEY + 1) == [200] * MOST_OF_A_KEY + [429]
    assert ask(door, "/v1/usage", other)["statusCode"] == 200


class Long:
    """A day with one session and thread for every request."""

    def __init__(self, sums: int) -> None:
        self.sums = sums

    def details(
        self, _pid: str, _day: str, _subject: str | None = None
    ) -> Iterator[tuple[dict[str, str], Totals]]:
        for number in range(self.sums):
            yield {"subject": f"u#{number % 100}", "model": "m"}, Totals(1, nano_usd=1)


@pytest.mark.parametrize(
    ("sums", "of_a_key", "of_the_operator"),
    [
        (reading.MOST_READ, 200, 200),
        (reading.MOST_READ + 1, 400, 200),
        (reading.MOST_READ_BY_THE_OPERATOR, 400, 200),
        (reading.MOST_READ_BY_THE_OPERATOR + 1, 400, 400),
    ],
)
def test_operator_is_answered_where_a_project_has_more_sums_than_others_may_read(
    load: Callable[[str], ModuleType],
    configured: Operator,
    clock: Clock,
    sums: int,
    of_a_key: int,
    of_the_operator: int,
) -> None:
    account, admin = load("account"), load("admin")
    vars(account)["_usage"] = vars(admin)["_usage"] = Long(sums)
    key, _ = configured.create_key("default", name="a", scopes=["api:read"], role="user")
    clock.now += 86_400 - clock.now % 86_400 + 5  # a day has just begun
    asked = time.strftime("from=%Y-%m-%d&group_by=session", time.gmtime(clock.now))
    for door, path, credential, status in (
        (account, "/v1/usage", key, of_a_key),
        (admin, "/admin/v1/projects/default/usage", "", of_the_operator),
    ):
        answer = ask(door, f"{path}?{asked}", credential)
        assert answer["statusCode"] == status, answer["body"][:300]
        if status == 400:
            assert "weir usage" in json.loads(answer["body"])["message"]
