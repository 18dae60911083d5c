"""Doors in process, for what the running stack cannot show: Bedrock, no keys, a failing store, a
configuration that is older than the counters.
"""

import importlib.util
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.provider import FakeProvider, answers
from tests.provider.answers import Answer
from tests.unit.conftest import (
    CANDIDATE,
    MODEL,
    NOW,
    ORIGIN,
    PROVIDER_KEYS,
    UPSTREAM,
    UPSTREAM_OF,
    minted,
)
from weir.aws import contention, items, lean
from weir.aws.clients import client
from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.table import Table
from weir.chat import completion
from weir.chat.completion import Chat
from weir.chat.masking import Mask
from weir.errors import (
    BadRequest,
    NotReady,
    QuotaExceeded,
    Refusal,
    UpstreamBusy,
    UpstreamRejected,
    UpstreamUnavailable,
)
from weir.identity import tokens
from weir.identity.keyring import SigningKey
from weir.ledger.admission import Reservation, StaleConfiguration
from weir.ledger.costs import MOST_OVERRUN
from weir.operator.documents import (
    LimitsDocument,
    ModelDocument,
    NewProject,
    ProjectChange,
    UpstreamDocument,
    parsed,
)
from weir.projects.limits import Tier
from weir.upstreams import bedrock
from weir.upstreams.mock_answers import DONE, frame
from weir.web import cors
from weir.web.request import Request

ROOT = Path(__file__).parents[3]
BASE = {
    "TENANT_ID": "tenant-1",
    "TABLE_NAME": "t",
    "STACK_NAME": "weir-test",
    "AWS_REGION": "us-east-1",
}
CONTEXT = SimpleNamespace(
    get_remaining_time_in_millis=lambda: 60_000,
    end_response_within=lambda milliseconds: None,
    function_name="f",
    memory_limit_in_mb=512,
    invoked_function_arn="arn:aws:lambda:us-east-1:1:function:f",
    aws_request_id="r",
)


Load = Callable[..., ModuleType]


class MotoInPlaceOfLean:
    """moto stands in for botocore alone; what `lean` sends is proven by its own tests, and by the
    running stack. Its failures are told as `lean` tells them.
    """

    def __init__(self, service: str) -> None:
        self._client = client(service)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(**asked: Any) -> Any:
            try:
                return method(**asked)
            except ClientError as error:
                code, reasons = contention.code_of(error), contention.reasons_of(error)
                raise lean.AwsError(f"{name} failed", 400, code, reasons) from error

        return call


@pytest.fixture
def load(configured: Operator, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setattr(lean, "client", MotoInPlaceOfLean)
    monkeypatch.setattr(lean, "new_client", MotoInPlaceOfLean)

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
    secrets = client("secretsmanager")
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


@pytest.mark.parametrize(
    ("name", "method", "path", "of_ours"),
    [
        ("account", "GET", "/v1/models", "_believed"),
        ("account", "GET", "/v1/usage", "_found"),
        ("admin", "GET", "/admin/v1/projects", "_operator"),
        ("admin", "GET", "/admin/v1/projects", "believe_admin"),  # before its route is found
        ("preflight", "OPTIONS", "/v1/me", "_answer"),
        ("token", "GET", "/.well-known/jwks.json", "jwks"),
        ("token", "POST", "/api/behest/token", "believe_session"),
    ],
)
def test_bug_of_ours_is_a_500_in_the_one_envelope_that_gives_nothing_away(
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    method: str,
    path: str,
    of_ours: str,
) -> None:
    door = load(name, **{**TOKEN_DOOR, **ADMIN_DOOR})

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of ours")

    monkeypatch.setattr(door, of_ours, fail)
    asked = get(path, "x", ORIGIN)
    asked["httpMethod"] = asked["requestContext"]["httpMethod"] = method
    asked["requestContext"]["authorizer"] = {"claims": ADMIN}
    answer = door.handler(asked, CONTEXT)
    assert answer["statusCode"] == 500
    told = json.loads(answer["body"])
    assert told["code"] == told["error"]["code"] == "server_error"
    assert told["error"]["type"] == "api_error"
    assert told["trace_id"] == told["error"]["request_id"] == "req-1"
    assert "secret" not in answer["body"]
    headers = headers_of(answer)
    assert headers["X-Request-Id"] == "req-1"
    assert headers["x-should-retry"] == "false"
    readable_by = None if name in ("admin", "preflight") else ORIGIN
    assert headers.get("Access-Control-Allow-Origin") == readable_by


CHAT_DOOR = {"PROVIDER_KEYS_SECRET": PROVIDER_KEYS, "MAX_STREAM_S": "300"}
ADMIN_DOOR = {
    "PROVIDER_KEYS_SECRET": PROVIDER_KEYS,
    "KEY_ARN": "key",
    "COGNITO_CLIENT_ID": "client",
    "PROJECT_ID": "default",
}


def chat_event(door: ModuleType, signing_key: SigningKey) -> dict[str, Any]:
    """A request with a token of the ring that is published in the table."""
    Table(client("dynamodb"), "t").publish(signing_key.public(created_at=NOW))
    token = minted(signing_key, now=int(door.time.time()))
    return event("chat.smallest", REPLACE_WITH_USER_TOKEN=token)


@pytest.mark.parametrize(
    ("region", "asked"), [("eu-central-1", "eu-central-1"), (None, "us-east-1")]
)
def test_bedrock_is_asked_in_its_region_with_the_roles_own_bearer(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    region: str | None,
    asked: str,
) -> None:
    assert bedrock.base_url("eu-west-1") == (
        "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1"
    )
    provider = FakeProvider()
    regions = []

    def base_url(region: str) -> str:
        regions.append(region)
        return provider.url.removesuffix("/v1") + "/openai/v1"

    monkeypatch.setattr(bedrock, "base_url", base_url)
    told = {"kind": "bedrock", "region": region}
    configured.put_upstream("main", parsed(UpstreamDocument, told))
    try:
        door = load("chat", **CHAT_DOOR)
        status, _, body, rest = door.handler(chat_event(door, signing_key), CONTEXT)
        rest.close()
        door._providers.close()
    finally:
        provider.close()
    (choice,) = json.loads(body)["choices"]
    assert (status, choice["index"]) == (200, 0)
    assert provider.received[0].startswith(b"POST /openai/v1/chat/completions HTTP")
    assert provider.headers[0]["authorization"].startswith("Bearer bedrock-api-key-")
    assert set(regions) == {asked}


def test_provider_is_dialled_while_the_store_is_asked_and_asked_only_if_admitted(
    load: Load, configured: Operator, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = FakeProvider()
    address = provider.url.removesuffix("/v1") + "/openai/v1"
    monkeypatch.setattr(bedrock, "base_url", lambda _: address)
    configured.put_upstream("main", parsed(UpstreamDocument, {"kind": "bedrock"}))
    door = load("chat", **CHAT_DOOR)
    admit = door._ledger.admit

    def dialled() -> None:
        until = time.monotonic() + 5
        while not provider.connections and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)  # for the thread that dials to find out, too

    def refused(_: object) -> object:
        dialled()
        raise QuotaExceeded("Not now.")

    def admitted(ask: object) -> object:
        assert provider.connections == 1
        return admit(ask)

    try:
        monkeypatch.setattr(door._ledger, "admit", refused)
        status, _, _, _ = door.handler(chat_event(door, signing_key), CONTEXT)
        assert (status, provider.connections, provider.received) == (402, 1, [])
        assert not any(each.name.endswith("(_run)") for each in threading.enumerate())
        monkeypatch.setattr(door._ledger, "admit", admitted)
        status, _, _, rest = door.handler(chat_event(door, signing_key), CONTEXT)
        rest.close()
        door._providers.close()
    finally:
        provider.close()
    assert (status, provider.connections, len(provider.received)) == (200, 1, 1)


def test_chat_without_a_provider_key_says_so_and_its_bug_is_a_500(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **{**CHAT_DOOR, "PROVIDER_KEYS_SECRET": "no-such-secret"})
    asked = chat_event(door, signing_key)
    status, headers, body, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(body)["error"]["code"]) == (503, "not_ready")
    client("secretsmanager").create_secret(Name="no-such-secret", SecretString="{}")
    status, headers, body, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(body)["error"]["code"]) == (503, "upstream_not_configured")
    assert headers["x-should-retry"] == "false"
    monkeypatch.setattr(door.completion, "understood", lambda *_: 1 / 0)
    status, _, body, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(body)["error"]["code"]) == (500, "server_error")


def test_chat_whose_table_is_gone_is_a_503(load: Load, signing_key: SigningKey) -> None:
    door = load("chat", **CHAT_DOOR)
    asked = chat_event(door, signing_key)
    client("dynamodb").delete_table(TableName="t")
    status, _, body, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(body)["error"]["code"]) == (503, "store_unavailable")


# ---------------------------------------------------------------- a chat, admitted and settled

USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
PROMPT, WORDS = "prompt-canary", "answer-canary"


class Scripted:
    """A provider's answer, as the relay reads one."""

    mask = Mask("provider-secret")

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def receive(self, timeout_s: float) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def close(self) -> None:
        pass


def whole() -> Scripted:
    choice = {"index": 0, "message": {"content": WORDS}, "finish_reason": "stop"}
    return Scripted(json.dumps({"choices": [choice], "usage": USAGE}).encode())


def streamed() -> Scripted:
    begins = {"choices": [{"index": 0, "delta": {"content": WORDS}}]}
    ends = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return Scripted(
        *(b"data: " + json.dumps(each).encode() + b"\n\n" for each in (begins, ends)),
        b"data: [DONE]\n\n",
    )


Upstreams = dict[str, Callable[[], Scripted] | Refusal]


def asks(door: ModuleType, monkeypatch: pytest.MonkeyPatch, answers: Upstreams) -> list[str]:
    """Which upstreams the door opens, and what each answers or fails with."""
    opened: list[str] = []

    def open_(upstream: Any, model: str, body: bytes, *, stream: bool) -> Scripted:
        opened.append(upstream.name)
        answer = answers[upstream.name]
        if isinstance(answer, Refusal):
            raise answer
        return answer()

    monkeypatch.setattr(door._providers, "open", open_)
    return opened


def say(
    door: ModuleType, signing_key: SigningKey, *, request_id: str | None = None, **more: Any
) -> tuple[int, dict[str, str], bytes, Iterator[bytes]]:
    asked = chat_event(door, signing_key)
    asked["body"] = json.dumps({"messages": [{"role": "user", "content": PROMPT}], **more})
    if request_id is not None:
        asked["headers"]["X-Client-Request-Id"] = request_id
    answer: tuple[int, dict[str, str], bytes, Iterator[bytes]] = door.handler(asked, CONTEXT)
    return answer


def rows(prefix: str) -> list[dict[str, Any]]:
    found = client("dynamodb").scan(TableName="t")["Items"]
    return [
        {name: next(iter(value.values())) for name, value in item.items()}
        for item in found
        if item["pk"]["S"].startswith(prefix)
    ]


def chat_line(caplog: pytest.LogCaptureFixture, message: str = "chat") -> dict[str, Any]:
    (line,) = [vars(r) for r in caplog.records if (r.name, r.msg) == ("chat", message)]
    return line


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "chat")
    return caplog


def test_answer_names_what_was_not_passed_on_where_a_page_can_read_it(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **CHAT_DOOR)
    asks(door, monkeypatch, {"main": whole})
    _, headers, _, _ = say(door, signing_key)
    assert "X-Weir-Dropped" not in headers
    more: dict[str, Any] = {"user": "u", "metadata": {}, "a\r\nb": 1}
    status, headers, _, _ = say(door, signing_key, **more)
    assert (status, headers["X-Weir-Dropped"]) == (200, "user, metadata, +1")
    assert "x-weir-dropped" in cors.EXPOSE_HEADERS


def test_request_is_settled_at_what_it_took_and_its_one_log_line_has_no_word_of_it(
    load: Load,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    heard: pytest.LogCaptureFixture,
) -> None:
    door = load("chat", **CHAT_DOOR)
    asks(door, monkeypatch, {"main": whole})
    status, headers, body, rest = say(door, signing_key)
    assert (status, list(rest)) == (200, [])
    assert json.loads(body)["usage"] == {**USAGE, "cost_usd": 4e-06}  # 20 · 100 + 5 · 400 nano
    assert headers["X-Weir-Upstreams"] == "main=ok"
    assert headers["RateLimit-Policy"] == '"rpm";q=6;w=60, "tokens_per_day";q=1000000;w=86400'
    (row,) = rows("USAGE#")
    assert (row["nano_usd"], row["outcome"], row["upstream"]) == ("4000", "completed", "main")
    assert rows("OPEN#") == []
    line = chat_line(heard)
    assert (line["CostUsd"], line["Requests"], line["SettlementFailures"]) == (4e-06, 1, 0)
    assert (line["Stack"], line["Model"]) == ("weir-test", "m-large")
    for secret in (PROMPT, WORDS, "provider-secret"):
        assert secret not in repr([vars(record) for record in heard.records])
        assert secret not in repr(rows(""))


@pytest.mark.parametrize("name", ["X-Session-Id", "X-Thread-Id"])
def test_id_that_the_answer_could_not_repeat_is_refused_before_anything_is_paid(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    door = load("chat", **CHAT_DOOR)
    opened = asks(door, monkeypatch, {"main": whole})
    asked = chat_event(door, signing_key)
    for value in ("s" * 256, '"' * 4_500, '"' * 9_000):
        asked["headers"][name] = value
        status, _, body, _ = door.handler(asked, CONTEXT)
        error = json.loads(body)["error"]
        assert (status, error["code"], error["param"]) == (400, "validation_error", name)
    assert opened == []
    assert rows("OPEN#") == rows("USAGE#") == rows("LEDGER#") == []
    asked["headers"][name] = '"' * 255
    status, headers, _, rest = door.handler(asked, CONTEXT)
    assert (status, headers[name], list(rest)) == (200, '"' * 255, [])


def test_body_of_four_million_bytes_is_the_longest(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **CHAT_DOOR)
    opened = asks(door, monkeypatch, {"main": whole})
    asked = chat_event(door, signing_key)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
    asked["body"] = body + " " * (4_000_001 - len(body))
    status, _, answer, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(answer)["error"]["code"]) == (413, "request_too_large")
    assert opened == []
    asked["body"] = asked["body"][:-1]
    assert door.handler(asked, CONTEXT)[0] == 200


def test_response_may_be_unread_for_no_longer_than_an_answer_may_take(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **{**CHAT_DOOR, "MAX_STREAM_S": "20"})
    asks(door, monkeypatch, {"main": whole})
    limits: list[int] = []
    for left_ms in (900_000, 12_000):
        context = SimpleNamespace(**{**vars(CONTEXT), "end_response_within": limits.append})
        context.get_remaining_time_in_millis = lambda left_ms=left_ms: left_ms
        assert door.handler(chat_event(door, signing_key), context)[0] == 200
    assert limits == [20_000, 7_000]


def test_settlement_that_fails_does_not_touch_the_answer_and_is_counted(
    load: Load,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    heard: pytest.LogCaptureFixture,
) -> None:
    door = load("chat", **CHAT_DOOR)
    asks(door, monkeypatch, {"main": streamed})

    def fail(*_: Any) -> bool:
        raise lean.AwsError("transact_write_items failed", 500, "InternalServerError")

    monkeypatch.setattr(door._ledger, "settle", fail)
    status, _, first, rest = say(door, signing_key, stream=True)
    text = first + b"".join(rest)
    assert (status, text.endswith(b"data: [DONE]\n\n")) == (200, True)
    line = chat_line(heard)
    # What it cost is counted by the sweeper, which settles it.
    assert (line["SettlementFailures"], line["CostUsd"]) == (1, 0)
    assert line["nano_usd"] > 0
    assert len(rows("OPEN#")) == 1, "the sweeper's"


def candidates(operator: Operator, *names: str) -> None:
    """`m-large` is answered by these, in this order; each is dearer than the one before."""
    for name in names:
        operator.put_upstream(name, parsed(UpstreamDocument, UPSTREAM))
    told = [
        {**CANDIDATE, "upstream": name, "output_nano_usd": 400 * place}
        for place, name in enumerate(names, 1)
    ]
    operator.put_model("m-large", parsed(ModelDocument, {**MODEL, "candidates": told}))


def test_candidates_are_asked_in_order_until_one_answers_and_its_prices_count(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    heard: pytest.LogCaptureFixture,
) -> None:
    candidates(configured, "a", "b", "c", "d")
    door = load("chat", **CHAT_DOOR)
    broken, keyless = UpstreamUnavailable("no"), NotReady("no", code="upstream_not_configured")
    opened = asks(door, monkeypatch, {"a": broken, "b": keyless, "c": whole, "d": whole})
    status, headers, *_, rest = say(door, signing_key)
    assert (status, list(rest), opened) == (200, [], ["a", "b", "c"])
    assert headers["X-Weir-Upstreams"] == "a=upstream_unavailable, b=upstream_not_configured, c=ok"
    (row,) = rows("USAGE#")
    assert (row["upstream"], row["nano_usd"]) == ("c", str(20 * 100 + 5 * 1200))
    assert chat_line(heard)["Fallbacks"] == 1
    failure = chat_line(heard, "upstream failed")  # a missing key is not the upstream's fault
    assert (failure["Upstream"], failure["code"]) == ("a", "upstream_unavailable")
    assert (failure["UpstreamErrors"], failure["Stack"]) == (1, "weir-test")


def azures() -> Answer:
    """Azure begins with what its filter says of the prompt."""
    filtered = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    begins = {"choices": [{"index": 0, "delta": {"content": WORDS}}]}
    ends = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    frames = (filtered, begins, ends, {"choices": [], "usage": USAGE})
    return answers.streamed(*map(frame, frames), DONE)


OPENAI_PATH = "/v1/chat/completions"
AZURE_PATH = "/openai/deployments/large-eu/chat/completions?api-version=2024-10-21"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("first", ["openai", "azure"])
def test_openai_and_azure_stand_in_for_each_other_each_with_its_own_key(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    stream: bool,
) -> None:
    """Both on one host, told apart by path; the first one asked fails."""
    good = azures() if stream else answers.whole(whole().receive(0))
    provider = FakeProvider(answers.whole(b'{"error":{"message":"no"}}', status=500), good)
    host = provider.url.removesuffix("/v1")
    order = [first, "azure" if first == "openai" else "openai"]
    for name, path in (("openai", "/v1"), ("azure", "")):
        document = {**UPSTREAM_OF[name], "base_url": host + path}
        configured.put_upstream(name, parsed(UpstreamDocument, document))
        configured.set_provider_key(name, f"key-of-{name}")
    own = {"openai": "large", "azure": "large-eu"}
    told = [{**CANDIDATE, "upstream": name, "model": own[name]} for name in order]
    configured.put_model("m-large", parsed(ModelDocument, {**MODEL, "candidates": told}))
    door = load("chat", **CHAT_DOOR)
    try:
        status, headers, body, rest = say(door, signing_key, stream=stream)
        text = body + b"".join(rest)
        door._providers.close()
    finally:
        provider.close()
    assert (status, WORDS.encode() in text) == (200, True)
    assert headers["X-Weir-Upstreams"] == f"{order[0]}=upstream_error, {order[1]}=ok"
    sent = {
        "openai": (OPENAI_PATH, "Bearer key-of-openai", None),
        "azure": (AZURE_PATH, None, "key-of-azure"),
    }
    paths = [raw.split(b" ", 2)[1].decode() for raw in provider.received]
    keys = [(each.get("authorization"), each.get("api-key")) for each in provider.headers]
    assert [(path, *key) for path, key in zip(paths, keys, strict=True)] == [
        sent[name] for name in order
    ]
    (row,) = rows("USAGE#")
    assert (row["upstream"], row["nano_usd"]) == (order[1], "4000")


def test_upstream_that_breaks_off_its_answer_is_counted_and_one_that_answers_is_not(
    load: Load,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    heard: pytest.LogCaptureFixture,
) -> None:
    door = load("chat", **CHAT_DOOR)
    begun = {"choices": [{"index": 0, "delta": {"content": WORDS}}]}
    answers: Upstreams = {"main": streamed}
    asks(door, monkeypatch, answers)
    for answer in (streamed, lambda: Scripted(b"data: " + json.dumps(begun).encode() + b"\n\n")):
        answers["main"] = answer
        *_, rest = say(door, signing_key, stream=True)
        list(rest)
    failure = chat_line(heard, "upstream failed")
    assert (failure["Upstream"], failure["code"]) == ("main", "upstream_error")
    assert [vars(r)["Fallbacks"] for r in heard.records if r.msg == "chat"] == [0, 0]


@pytest.mark.parametrize("store_fails", [False, True])
def test_answer_above_its_worst_case_raises_the_worst_case_of_its_candidate(
    load: Load,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    heard: pytest.LogCaptureFixture,
    store_fails: bool,
) -> None:
    door = load("chat", **CHAT_DOOR)
    usage = {"prompt_tokens": 1, "completion_tokens": 10_000_000}
    choice = {"index": 0, "delta": {"content": WORDS}, "finish_reason": "stop"}
    frame = b"data: " + json.dumps({"choices": [choice], "usage": usage}).encode() + b"\n\n"
    asks(door, monkeypatch, {"main": lambda: Scripted(frame + b"data: [DONE]\n\n")})
    if store_fails:
        monkeypatch.setattr(door._table, "raise_overrun", lambda *_: 1 / 0)
    *_, rest = say(door, signing_key, stream=True)
    list(rest)
    assert int(rows("USAGE#")[0]["excess_nano_usd"]) > 0
    (noted,) = Table(client("dynamodb"), "t").records([items.OVERRUNS])
    if store_fails:
        assert noted.version == 0
        assert chat_line(heard, "the worst case is not raised")
    else:
        assert list(noted.document.values()) == [MOST_OVERRUN]
        assert chat_line(heard, "the worst case is raised")["percent"] == MOST_OVERRUN


def test_word_that_a_provider_refuses_with_is_no_dimension_of_a_metric(
    load: Load,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    heard: pytest.LogCaptureFixture,
) -> None:
    door = load("chat", **CHAT_DOOR)
    asks(door, monkeypatch, {"main": UpstreamRejected("no", code="their-own-word")})
    status, _, body, _ = say(door, signing_key)
    assert (status, json.loads(body)["error"]["code"]) == (400, "their-own-word")
    line = chat_line(heard, "refused")
    assert (line["Code"], line["code"]) == ("validation_error", "their-own-word")


@pytest.mark.parametrize(
    ("failures", "asked", "expected"),
    [
        (
            [UpstreamUnavailable("no"), UpstreamBusy("no")],
            ["a", "b"],
            (503, "upstream_rate_limited"),
        ),
        ([UpstreamRejected("bad field"), UpstreamBusy("no")], ["a"], (400, "validation_error")),
    ],
    ids=["nobody answers", "the request itself is wrong"],
)
def test_request_that_nobody_answered_costs_nothing(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    failures: list[Refusal],
    asked: list[str],
    expected: tuple[int, str],
) -> None:
    candidates(configured, "a", "b")
    configured.update_project(
        "default", parsed(ProjectChange, {"user_limits": {"usd_per_month": 1}})
    )
    door = load("chat", **CHAT_DOOR)
    opened = asks(door, monkeypatch, dict(zip("ab", failures, strict=True)))
    status, _, body, _ = say(door, signing_key)
    assert ((status, json.loads(body)["error"]["code"]), opened) == (expected, asked)
    (month,) = [r for r in rows("LEDGER#default#u#u") if r["sk"].startswith("MONTH#")]
    counted = {n: v for n, v in month.items() if n not in ("pk", "sk", "ttl")}
    assert set(counted.values()) == {"0"}
    (row,) = rows("USAGE#")
    assert (row["nano_usd"], row["outcome"]) == ("0", expected[1])
    assert rows("OPEN#") == []


def test_request_by_limits_that_have_changed_is_judged_by_the_new_ones(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this process knows may be five seconds old; once another that knows more has divided
    the pool anew, the counters know better.
    """
    table = Table(client("dynamodb"), "t")
    keys = ProviderKeys(client("secretsmanager"), PROVIDER_KEYS)
    operator = Operator(table, keys, actor="of today, as the counters are")
    before = {"limits": {"requests_per_day": 9}, "ledger_shards": 2}
    operator.update_project("default", parsed(ProjectChange, before))
    ours, theirs = load("chat", **CHAT_DOOR), load("chat", **CHAT_DOOR)

    def answer(door: ModuleType) -> tuple[int, str | None]:
        status, _, body, rest = say(door, signing_key)
        list(rest)
        return status, json.loads(body).get("error", {}).get("details", {}).get("limit_name")

    for door in (ours, theirs):
        asks(door, monkeypatch, {"main": whole})
        # moto takes its time for sixteen shards, and nobody else is in the way here.
        monkeypatch.setattr(door._ledger, "_monotonic", lambda: 0.0)
        # Nothing that it knows grows old by itself.
        monkeypatch.setattr(door._snapshots, "_clock", lambda: NOW)
    assert answer(ours) == (200, None)
    lowered = {"limits": {"requests_per_day": 2}}
    operator.update_project("default", parsed(ProjectChange, lowered))
    assert answer(theirs) == (200, None)
    assert answer(ours) == (402, "requests_per_day")


def test_request_whose_configuration_stays_behind_is_told_to_come_again(
    load: Load,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    heard: pytest.LogCaptureFixture,
) -> None:
    door = load("chat", **CHAT_DOOR)
    opened = asks(door, monkeypatch, {"main": whole})
    tried = []

    def admit(asked: Any) -> None:
        tried.append(asked)
        raise StaleConfiguration

    monkeypatch.setattr(door._ledger, "admit", admit)
    status, headers, body, _ = say(door, signing_key)
    assert (status, json.loads(body)["error"]["code"]) == (503, "ledger_busy")
    assert headers["Retry-After"] == "1"
    assert (len(tried), opened) == (2, [])
    line = chat_line(heard, "refused")
    assert (line["LedgerBusy"], line["Refusals"], line["Code"]) == (1, 1, "ledger_busy")


def test_id_of_a_request_that_is_open_is_a_conflict_until_it_ends(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **CHAT_DOOR)
    asks(door, monkeypatch, {"main": streamed})
    *_, rest = say(door, signing_key, request_id="mine", stream=True)
    status, headers, body, _ = say(door, signing_key, request_id="mine", stream=True)
    assert (status, json.loads(body)["error"]["code"]) == (409, "conflict")
    assert headers["x-should-retry"] == "false"
    assert list(rest)[-1].endswith(b"data: [DONE]\n\n")
    status, *_, rest = say(door, signing_key, request_id="mine", stream=True)
    assert (status, bool(list(rest))) == (200, True)


def test_refusal_by_a_limit_says_which_and_when_to_come_again_and_logs_no_word(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    heard: pytest.LogCaptureFixture,
) -> None:
    configured.update_project("default", parsed(ProjectChange, {"user_limits": {"rpm": 1}}))
    door = load("chat", **CHAT_DOOR)
    opened = asks(door, monkeypatch, {"main": whole})
    assert say(door, signing_key)[0] == 200
    heard.clear()
    status, headers, body, _ = say(door, signing_key)
    error = json.loads(body)["error"]
    assert (status, error["code"], opened) == (429, "rate_limited", ["main"])
    assert error["details"]["limit_name"] == "rpm"
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert headers["RateLimit"] == f'"rpm";r=0;t={headers["Retry-After"]}'
    assert rows("OPEN#") == []
    line = chat_line(heard, "refused")
    assert (line["Refusals"], line["Code"], line["Stack"]) == (1, "rate_limited", "weir-test")
    assert PROMPT not in repr([vars(record) for record in heard.records])


# ---------------------------------------------------------------- what is charged

CAP = 1024  # of the model
SAID = 5  # tokens of WORDS, by our count: a third of its bytes


def chunk(
    content: str = "", *, finished: bool = False, completion_tokens: int | None = None
) -> bytes:
    """A frame of a stream; with a usage of 20 tokens of input, if it tells one."""
    choice: dict[str, Any] = {"index": 0, "delta": {"content": content} if content else {}}
    if finished:
        choice["finish_reason"] = "stop"
    told: dict[str, Any] = {"choices": [choice]}
    if completion_tokens is not None:
        told["usage"] = {"prompt_tokens": 20, "completion_tokens": completion_tokens}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def stopped(door: ModuleType, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """The caller cancels when so many pieces of the answer have come."""

    class Stopping:
        def __init__(self, look: Callable[[], bool]) -> None:
            self._left = after

        def __call__(self) -> bool:
            self._left -= 1
            return self._left <= 0

        def end(self) -> bool:
            return True

    monkeypatch.setattr(door, "Cancellation", Stopping)


def reserved(door: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Reservation]:
    """What the door reserves from now on."""
    made: list[Reservation] = []
    admit = door._ledger.admit

    def kept(ask: Any) -> Reservation:
        made.append(admit(ask))
        return made[-1]

    monkeypatch.setattr(door._ledger, "admit", kept)
    return made


def test_request_may_be_swept_a_minute_after_the_longest_answer_could_have_ended(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **{**CHAT_DOOR, "MAX_STREAM_S": "123"})
    at = int(door.time.time())
    stopped_clock = SimpleNamespace(time=lambda: at + 0.9, monotonic=door.time.monotonic)
    monkeypatch.setattr(door, "time", stopped_clock)
    asks(door, monkeypatch, {"main": whole})
    made = reserved(door, monkeypatch)
    *_, rest = say(door, signing_key)
    list(rest)
    assert made[0].due == at + 123 + 60


def of_the_bill(row: dict[str, Any]) -> tuple[str, int, bool]:
    """Outcome, output tokens, estimated."""
    return row["outcome"], int(row["output_tokens"]), row["estimated"]


def may_hide(operator: Operator, hidden: bool) -> None:
    told = {**MODEL, "hidden_reasoning": hidden}
    operator.put_model("m-large", parsed(ModelDocument, told))


@pytest.mark.parametrize(
    ("hidden", "before", "output"),
    [
        (True, [chunk(WORDS)], CAP),
        (False, [chunk(WORDS)], SAID),
        # What is told before the end is what had been produced by then.
        (False, [chunk(completion_tokens=1), chunk(WORDS)], SAID),
        (False, [chunk(WORDS, completion_tokens=1)], SAID),
        (False, [chunk(completion_tokens=50), chunk(WORDS)], 50),
        (True, [chunk(WORDS, completion_tokens=50)], CAP),
    ],
    ids=["hidden", "shown", "told before", "told too little", "told more", "hidden and told"],
)
def test_stream_that_is_stopped_is_charged_on_the_safe_side(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    hidden: bool,
    before: list[bytes],
    output: int,
) -> None:
    may_hide(configured, hidden)
    door = load("chat", **CHAT_DOOR)
    ends = [chunk(finished=True, completion_tokens=7), b"data: [DONE]\n\n"]
    asks(door, monkeypatch, {"main": lambda: Scripted(*before, *ends)})
    stopped(door, monkeypatch, after=len(before))
    made = reserved(door, monkeypatch)
    *_, first, rest = say(door, signing_key, stream=True)
    last = [first, *rest][-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "cancelled"
    (row,) = rows("USAGE#")
    assert of_the_bill(row) == ("cancelled", output, True)
    # Of what was held only output comes back: no more is known of the input than its bound.
    assert int(row["nano_usd"]) == made[0].amounts.nano_usd - (CAP - output) * 400
    assert rows("OPEN#") == []


def test_model_of_which_nothing_is_said_is_taken_to_hide_some_of_its_output(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **CHAT_DOOR)
    asks(door, monkeypatch, {"main": lambda: Scripted(chunk(WORDS))})
    stopped(door, monkeypatch, after=1)
    made = reserved(door, monkeypatch)
    *_, rest = say(door, signing_key, stream=True)
    list(rest)
    (row,) = rows("USAGE#")
    assert int(row["nano_usd"]) == made[0].amounts.nano_usd


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "broken"])
def test_whole_answer_that_ends_in_its_middle_is_charged_its_cap_and_not_asked_for_again(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    cancels: bool,
) -> None:
    """Nobody knows how much of it the provider had made, whether the model hides any or not."""

    class Breaking(Scripted):
        def receive(self, timeout_s: float) -> bytes:
            if self._pieces:
                return super().receive(timeout_s)
            raise UpstreamUnavailable("The connection broke.")

    configured.put_upstream("other", parsed(UpstreamDocument, UPSTREAM))
    both = [CANDIDATE, {**CANDIDATE, "upstream": "other"}]
    told = {**MODEL, "candidates": both, "hidden_reasoning": False}
    configured.put_model("m-large", parsed(ModelDocument, told))
    door = load("chat", **CHAT_DOOR)
    opened = asks(door, monkeypatch, {"main": lambda: Breaking(b'{"choices":'), "other": whole})
    if cancels:
        stopped(door, monkeypatch, after=1)
    made = reserved(door, monkeypatch)
    status, _, body, _ = say(door, signing_key)
    expected = (409, "cancelled") if cancels else (502, "upstream_unavailable")
    assert ((status, json.loads(body)["error"]["code"]), opened) == (expected, ["main"])
    (row,) = rows("USAGE#")
    assert of_the_bill(row) == (expected[1], CAP, True)
    assert int(row["nano_usd"]) == made[0].amounts.nano_usd


def test_of_a_usage_in_every_chunk_the_last_one_counts(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **CHAT_DOOR)
    pieces = (
        chunk(WORDS, completion_tokens=1),
        chunk(WORDS, completion_tokens=2),
        chunk(finished=True, completion_tokens=3),
        b"data: [DONE]\n\n",
    )
    asks(door, monkeypatch, {"main": lambda: Scripted(*pieces)})
    *_, rest = say(door, signing_key, stream=True)
    list(rest)
    (row,) = rows("USAGE#")
    assert of_the_bill(row) == ("completed", 3, False)
    assert int(row["nano_usd"]) == 20 * 100 + 3 * 400


def test_answer_that_was_finished_without_a_word_of_its_usage_is_estimated(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("chat", **CHAT_DOOR)
    asks(door, monkeypatch, {"main": streamed})
    made = reserved(door, monkeypatch)
    *_, rest = say(door, signing_key, stream=True)
    list(rest)
    (row,) = rows("USAGE#")
    assert of_the_bill(row) == ("completed", SAID, True)
    assert int(row["input_tokens"]) == made[0].amounts.tokens - CAP, "the estimate, not the bound"


# ---------------------------------------------------------------- which page may call


def test_other_page_is_refused_by_its_project_and_noted_for_the_operator(
    load: Load, configured: Operator, signing_key: SigningKey
) -> None:
    shop = {"pid": "shop", "origins": ["https://shop.example"]}
    configured.create_project(parsed(NewProject, shop))
    door = load("chat", **CHAT_DOOR)
    asked = chat_event(door, signing_key)
    asked["headers"]["Origin"] = "https://shop.example"
    status, headers, body, _ = door.handler(asked, CONTEXT)
    assert (status, json.loads(body)["code"]) == (403, "origin_not_allowed")
    # Some project lists it, so that the page may read why.
    assert headers["Access-Control-Allow-Origin"] == "https://shop.example"
    asked["headers"]["Origin"] = "https://evil.example"
    status, headers, _, _ = door.handler(asked, CONTEXT)
    assert (status, "Access-Control-Allow-Origin" in headers) == (403, False)
    assert [origin for origin, _ in configured.refused_origins("default")] == [
        "https://shop.example"  # the second came too soon after
    ]


@pytest.mark.parametrize(("tier", "cap"), [(None, 1024), ("free", 9), ("gone", 9), (3, 1024)])
def test_output_is_capped_by_the_users_tier_and_one_that_is_gone_counts_as_the_first(
    load: Load, configured: Operator, tier: Tier | None, cap: int
) -> None:
    configured.set_tier("default", "free", parsed(LimitsDocument, {"max_output_tokens": 9}))
    door = load("chat", **CHAT_DOOR)
    snapshot = door._snapshots.of("default", "u")
    claims = tokens.Claims("tenant-1", "default", "u", "user", "s", tier, "j", 0)
    request = Request("r", "POST", "/v1/chat/completions", {})

    def understood(content: object) -> Chat:
        body = {"messages": [{"role": "user", "content": content}]}
        return completion.understood(request, claims, snapshot, body, at_ms=0, random_hex="00")

    assert understood("hi").asked.output_cap == cap
    with pytest.raises(BadRequest, match="takes no images"):
        understood([{"type": "image_url", "image_url": {"url": "https://pics.example/a.png"}}])


# ---------------------------------------------------------------- GET /v1/models


def get(path: str, credential: str, origin: str | None = None) -> dict[str, Any]:
    return {
        "httpMethod": "GET",
        "path": path,
        "resource": path,
        "headers": {
            "Authorization": f"Bearer {credential}",
            **({} if origin is None else {"Origin": origin}),
        },
        "requestContext": {"requestId": "req-1", "httpMethod": "GET", "resourcePath": path},
        "body": None,
    }


def test_models_are_those_the_project_offers_and_its_default_by_any_believed_credential(
    load: Load, configured: Operator, signing_key: SigningKey
) -> None:
    for name in ("m-other", "m-dead"):
        configured.put_model(name, parsed(ModelDocument, {**MODEL, "aliases": [f"{name}-alias"]}))
    told = {"models": ["m-large", "m-dead"]}
    configured.update_project("default", parsed(ProjectChange, told))
    configured.switch_model("m-dead", off=True)
    key, _ = configured.create_key("default", name="", scopes=["api:read"], role="user")
    door = load("account")
    Table(client("dynamodb"), "t").publish(signing_key.public(created_at=NOW))
    token = minted(signing_key, now=int(door.time.time()))
    for credential, origin in ((key, None), (token, None), (token, ORIGIN)):
        answer = door.handler(get("/v1/models", credential, origin), CONTEXT)
        assert answer["statusCode"] == 200
        listed = json.loads(answer["body"])
        assert listed["object"] == "list"
        assert [model["id"] for model in listed["data"]] == ["default", "m-large"]
        assert {model["owned_by"] for model in listed["data"]} == {"main"}
        told_pages = answer["multiValueHeaders"].get("Access-Control-Allow-Origin")
        assert told_pages == (None if origin is None else [origin])
    for name, status in (
        ("default", 200),
        ("m-large", 200),
        ("m-other", 404),
        ("m-other-alias", 404),
        ("m-dead", 404),
        ("nothing", 404),
    ):
        answer = door.handler(get(f"/v1/models/{name}", token), CONTEXT)
        assert (name, answer["statusCode"]) == (name, status)
        if status == 200:
            assert json.loads(answer["body"])["id"] == name


@pytest.mark.parametrize(
    ("credential", "origin", "status", "code"),
    [
        ("behest_sk_live_" + "0" * 32, None, 401, "invalid_token"),
        ("behest_sk_live_" + "0" * 32, ORIGIN, 403, "api_key_in_browser"),
        ("rubbish", None, 401, "invalid_token"),
        ("TOKEN", "https://evil.example", 403, "origin_not_allowed"),
    ],
)
def test_models_are_told_to_nobody_else(
    load: Load, signing_key: SigningKey, credential: str, origin: str, status: int, code: str
) -> None:
    door = load("account")
    Table(client("dynamodb"), "t").publish(signing_key.public(created_at=NOW))
    credential = credential.replace("TOKEN", minted(signing_key, now=int(door.time.time())))
    for path in ("/v1/models", "/v1/models/m-large"):
        answer = door.handler(get(path, credential, origin), CONTEXT)
        assert (answer["statusCode"], json.loads(answer["body"])["error"]["code"]) == (status, code)
        assert "m-large" not in answer["body"]


# ---------------------------------------------------------------- GET /v1/me, cancelling


def cancelling(completion_id: str, credential: str, origin: str | None = None) -> dict[str, Any]:
    asked = get(f"/v1/chat/completions/{completion_id}/cancel", credential, origin)
    asked["httpMethod"] = asked["requestContext"]["httpMethod"] = "POST"
    return asked


def test_user_sees_his_limits_and_what_is_left_of_them(
    load: Load, configured: Operator, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {"user_limits": {"usd_per_month": 2, "tokens_per_day": None}}
    configured.update_project("default", parsed(ProjectChange, told))
    chat, door = load("chat", **CHAT_DOOR), load("account")
    asks(chat, monkeypatch, {"main": streamed})
    *_, rest = say(chat, signing_key, stream=True)
    token = minted(signing_key, now=int(door.time.time()))
    answer = door.handler(get("/v1/me", token, ORIGIN), CONTEXT)
    assert answer["statusCode"] == 200
    assert answer["multiValueHeaders"]["Access-Control-Allow-Origin"] == [ORIGIN]
    me = json.loads(answer["body"])
    assert (me["object"], me["user_id"], me["project_id"], me["tier"]) == (
        "me",
        "u",
        "default",
        None,
    )
    limits = {one["limit_name"]: one for one in me["limits"]}
    assert set(limits) == {"concurrent_streams", "rpm", "usd_per_month"}
    assert limits["concurrent_streams"] == {
        "limit_name": "concurrent_streams",
        "limit": 3,
        "used": 1,
        "left": 2,
        "resets_at": None,
    }
    assert limits["rpm"]["used"] + limits["rpm"]["left"] == me["rate_limit"]["rpm"] == 6
    budget = me["budget"]
    assert (budget["limit_usd"], budget["spent_usd"]) == (2, 0)
    assert budget["reserved_usd"] > 0.0004  # 1,024 tokens of output, and the prompt
    assert budget["remaining_usd"] == 2 - budget["reserved_usd"]
    list(rest)
    after = json.loads(door.handler(get("/v1/me", token), CONTEXT)["body"])
    assert after["budget"]["reserved_usd"] == 0
    assert 0 < after["budget"]["spent_usd"] < budget["reserved_usd"]
    assert after["limits"][0]["used"] == 0


def test_running_request_is_cancelled_by_its_id_and_only_while_it_runs(
    load: Load, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, door = load("chat", **CHAT_DOOR), load("account")
    asks(chat, monkeypatch, {"main": streamed})
    *_, rest = say(chat, signing_key, request_id="mine", stream=True)
    token = minted(signing_key, now=int(door.time.time()))
    for _ in range(2):
        answer = door.handler(cancelling("mine", token), CONTEXT)
        assert answer["statusCode"] == 200
        told = {"id": "mine", "object": "chat.completion.cancelled", "cancelled": True}
        assert json.loads(answer["body"]) == told
    assert chat._watched().is_cancelled("default", "u#u", "mine")
    list(rest)
    assert not chat._watched().is_cancelled("default", "u#u", "mine")
    assert door.handler(cancelling("mine", token), CONTEXT)["statusCode"] == 404


@pytest.mark.parametrize(
    "completion_id",
    ["nobody", "a/b", "a%2Fb", 'q"', "#", "a?b", "..", "%", "\U0001f980", "x" * 3000],
)
def test_whatever_is_no_running_request_is_not_found(
    load: Load, signing_key: SigningKey, completion_id: str
) -> None:
    door = load("account")
    Table(client("dynamodb"), "t").publish(signing_key.public(created_at=NOW))
    token = minted(signing_key, now=int(door.time.time()))
    asked = cancelling(completion_id, token, ORIGIN)
    for answer in (
        door.handler(asked, CONTEXT),
        door.handler(get(f"/v1/models/{completion_id}", token, ORIGIN), CONTEXT),
    ):
        assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (404, "not_found")
        assert answer["multiValueHeaders"]["Access-Control-Allow-Origin"] == [ORIGIN]
        assert len(answer["body"]) < 1_000
    assert rows("LEDGER#") == []


@pytest.mark.parametrize(
    ("credential", "origin", "status", "code"),
    [
        ("behest_sk_live_" + "0" * 32, None, 401, "invalid_token"),
        ("behest_sk_live_" + "0" * 32, ORIGIN, 403, "api_key_in_browser"),
        ("rubbish", None, 401, "invalid_token"),
        ("TOKEN", "https://evil.example", 403, "origin_not_allowed"),
        ("BLOCKED", None, 403, "forbidden"),
    ],
)
def test_nobody_else_sees_or_cancels_anything(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    credential: str,
    origin: str | None,
    status: int,
    code: str,
) -> None:
    door = load("account")
    Table(client("dynamodb"), "t").publish(signing_key.public(created_at=NOW))
    if credential == "BLOCKED":
        configured.switch_user("default", "u", off=True, reason="abuse")
    if credential.isupper():
        credential = minted(signing_key, now=int(door.time.time()))
    for asked in (get("/v1/me", credential, origin), cancelling("mine", credential, origin)):
        answer = door.handler(asked, CONTEXT)
        assert (answer["statusCode"], json.loads(answer["body"])["error"]["code"]) == (status, code)
        assert "limits" not in answer["body"]
        assert "abuse" not in answer["body"]


# ---------------------------------------------------------------- the admin API

ADMIN = {
    "token_use": "id",
    "aud": "client",
    "sub": "sub-1",
    "email": "jo@example.com",
    "cognito:groups": "admins",
}


def admin_event(
    method: str,
    path: str,
    body: object = None,
    query: dict[str, str] | None = None,
    claims: dict[str, str] | None = None,
) -> dict[str, Any]:
    """From a page of a listed origin, which is of no use to it."""
    return {
        **get(f"/admin/v1{path}", "x", ORIGIN),
        "httpMethod": method,
        "requestContext": {
            "requestId": "req-1",
            "httpMethod": method,
            "resourcePath": f"/admin/v1{path}",
            "authorizer": {"claims": ADMIN if claims is None else claims},
        },
        "queryStringParameters": query,
        "multiValueQueryStringParameters": query and {n: [v] for n, v in query.items()},
        "body": body if body is None or isinstance(body, str) else json.dumps(body),
    }


def headers_of(answer: dict[str, Any]) -> dict[str, str]:
    several = {name: values[0] for name, values in (answer.get("multiValueHeaders") or {}).items()}
    return {**several, **(answer.get("headers") or {})}


def refused(answer: dict[str, Any]) -> tuple[int, str, str | None]:
    told = json.loads(answer["body"])
    assert set(told) == {"error", "code", "message", "retryable", "trace_id"}
    assert told["trace_id"] == told["error"]["request_id"] == "req-1"
    assert headers_of(answer)["X-Request-Id"] == "req-1"
    assert "Access-Control-Allow-Origin" not in headers_of(answer)
    return answer["statusCode"], told["error"]["code"], told["error"]["param"]


def test_operator_is_answered_with_what_support_needs_and_no_page_may_read_it(
    load: Load, configured: Operator
) -> None:
    door = load("admin", **ADMIN_DOOR)
    change = {"name": "Shop", "limits": {"rpm": 5}}
    answer = door.handler(admin_event("PATCH", "/projects/default", change), CONTEXT)
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"])["name"] == "Shop"
    headers = headers_of(answer)
    assert headers["X-Request-Id"] == "req-1"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    entries = [e for e in configured.audit_trail(9)[0] if e.action == "project.update"]
    assert [entry.actor for entry in entries] == ["cognito:sub-1 jo@example.com"]


def test_answer_without_content_has_no_body(load: Load) -> None:
    door = load("admin", **ADMIN_DOOR)
    answer = door.handler(admin_event("DELETE", "/projects/default/tiers/free"), CONTEXT)
    assert (answer["statusCode"], answer["body"]) == (204, None)
    assert headers_of(answer)["X-Request-Id"] == "req-1"


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({**ADMIN, "cognito:groups": "pro"}, 403),
        ({**ADMIN, "cognito:groups": ""}, 403),
        ({**ADMIN, "token_use": "access"}, 401),
        ({**ADMIN, "aud": "other"}, 401),
        ({}, 401),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/projects", "/no-such-route"])
def test_nobody_else_is_answered_whatever_he_asks(
    load: Load, claims: dict[str, str], status: int, path: str
) -> None:
    door = load("admin", **ADMIN_DOOR)
    answer = door.handler(admin_event("GET", path, claims=claims), CONTEXT)
    assert refused(answer)[0] == status
    assert "default" not in answer["body"]


@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [
        (("PATCH", "/projects/default", {"limits": {"rpm": "5"}}), 400, "limits.rpm"),
        (("PATCH", "/projects/default", {"nmae": "x"}), 400, "nmae"),
        (("PATCH", "/projects/default", [1]), 400, None),
        (("PATCH", "/projects/default", "{"), 400, None),
        (("PATCH", "/projects/default", '{"limits":{"usd_per_month":NaN}}'), 400, None),
        (("PATCH", "/projects/default", {"default_model": "gone"}), 400, "default_model"),
        (("PUT", "/upstreams/main", {"kind": "openai", "base_url": "http://x.example"}), 400, None),
        (("GET", "/projects/nobody"), 404, None),
        (("GET", "/no-such-route"), 404, None),
        (("DELETE", "/projects"), 404, None),
        (("POST", "/projects", {"pid": "default"}), 409, None),
        (("PATCH", "/tenant", '"' + "x" * 1_000_001 + '"'), 413, None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_refusal_of_the_admin_api_is_told_in_the_one_envelope(
    load: Load, asked: tuple[Any, ...], status: int, param: str | None
) -> None:
    door = load("admin", **ADMIN_DOOR)
    codes = {
        400: "validation_error",
        404: "not_found",
        409: "conflict",
        413: "request_too_large",
    }
    answer = door.handler(admin_event(*asked), CONTEXT)
    assert refused(answer) == (status, codes[status], param)


@pytest.mark.parametrize("kind", UPSTREAM_OF)
def test_upstream_of_every_kind_is_written_and_read_over_the_admin_api(
    load: Load, kind: str
) -> None:
    door, written = load("admin", **ADMIN_DOOR), UPSTREAM_OF[kind]
    for asked in (("PUT", "/upstreams/new", written), ("GET", "/upstreams/new")):
        answer = door.handler(admin_event(*asked), CONTEXT)
        assert answer["statusCode"] == 200, answer["body"]
        told = {n: v for n, v in json.loads(answer["body"]).items() if v is not None}
        assert told == written
    exported = door.handler(admin_event("GET", "/configuration"), CONTEXT)["body"]
    assert json.loads(exported)["upstreams"]["new"] == written
    door.handler(admin_event("DELETE", "/upstreams/new"), CONTEXT)
    again = door.handler(admin_event("PUT", "/configuration", exported), CONTEXT)
    assert json.loads(again["body"])["applied"] is True
    answer = door.handler(admin_event("GET", "/upstreams/new"), CONTEXT)
    assert json.loads(answer["body"])["kind"] == kind


def test_export_of_the_admin_api_brings_every_limit_back_as_it_was(
    load: Load, configured: Operator
) -> None:
    """A limit that is not set has a default; told as null, it would come back as no limit."""
    configured.set_tier("default", "team", parsed(LimitsDocument, {"rpm": 7, "tpm": None}))
    configured.update_project("default", parsed(ProjectChange, {"limits": {"usd_per_month": 1.5}}))
    before = door_limits(configured)
    door = load("admin", **ADMIN_DOOR)
    exported = door.handler(admin_event("GET", "/configuration"), CONTEXT)["body"]
    again = door.handler(admin_event("PUT", "/configuration", exported), CONTEXT)
    assert (again["statusCode"], json.loads(again["body"])["applied"]) == (200, True)
    assert door_limits(configured) == before
    dry = admin_event("PUT", "/configuration", exported, {"dry_run": "true"})
    assert json.loads(door.handler(dry, CONTEXT)["body"]) == {"applied": False, "changes": []}


def door_limits(operator: Operator) -> list[Any]:
    project = operator.project("default")
    return [project["limits"], project["user_limits"], operator.tiers("default"), operator.tenant()]


def test_store_of_the_admin_api_that_fails_is_a_503_and_its_bug_a_500(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = load("admin", **ADMIN_DOOR)
    asked = admin_event("GET", "/projects")
    client("dynamodb").delete_table(TableName="t")
    assert refused(door.handler(asked, CONTEXT))[:2] == (503, "store_unavailable")
    monkeypatch.setattr(door, "_operator", lambda: 1 / 0)
    answer = door.handler(asked, CONTEXT)
    assert refused(answer)[:2] == (500, "server_error")
    assert "division" not in answer["body"]


@pytest.mark.parametrize("name", ["account", "admin", "chat", "token", "rotate", "sweep"])
def test_door_without_its_settings_does_not_start(
    load: Load, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in (*TOKEN_DOOR, *CHAT_DOOR, *ADMIN_DOOR):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "environ", {**os.environ})
    with pytest.raises(Exception, match=r"missing or empty"):
        load(name, TABLE_NAME=" ")
