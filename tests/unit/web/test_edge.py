"""CORS, events, the envelope, settings, a Cognito session, Bedrock's bearer."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from aws_bedrock_token_generator import BedrockTokenGenerator
from botocore.credentials import Credentials

from weir import errors
from weir.errors import (
    BadRequest,
    Forbidden,
    OriginNotAllowed,
    Refusal,
    TokenExpired,
    Unauthenticated,
)
from weir.identity import cognito
from weir.settings import (
    AdminSettings,
    ChatSettings,
    DeliverSettings,
    Deployment,
    NotifySettings,
    RotateSettings,
    SettingsError,
    TokenSettings,
    WebhookSettings,
)
from weir.upstreams import bedrock
from weir.web import cors
from weir.web.origins import Origins
from weir.web.request import Request, refusal_answer

ALLOWED = Origins(frozenset({"https://app.example.com", "http://localhost:5173"}))
NEVER = [
    "http://app.example.com",
    "https://app.example.com:444",
    "https://app.example.com/",
    "https://APP.example.com",
    "https://app.example.com.evil.example",
    "https://evil.example",
    "http://127.0.0.1:5173",
    "null",
    "*",
    "",
]

# openai 7.55.0 in Chromium, as captured.
STAINLESS = (
    "authorization,content-type,x-session-id,x-stainless-arch,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    "x-stainless-runtime-version,x-stainless-timeout,x-thread-id"
)


def test_preflight_allows_what_the_openai_browser_sdk_asks_for() -> None:
    asked = {"origin": "https://app.example.com", "access-control-request-headers": STAINLESS}
    headers = cors.preflight_headers(asked, ALLOWED)
    assert headers is not None
    assert headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert headers["Access-Control-Allow-Headers"] == STAINLESS
    assert headers["Access-Control-Max-Age"] == "7200"
    assert "Access-Control-Allow-Credentials" not in headers


@pytest.mark.parametrize("origin", NEVER)
def test_origin_that_is_not_exactly_listed_gets_nothing(origin: str) -> None:
    assert cors.preflight_headers({"origin": origin}, ALLOWED) is None
    assert cors.response_headers(origin, ALLOWED) == {"Vary": "Origin"}
    with pytest.raises(OriginNotAllowed) as refused:
        Request.from_event(event(headers={"origin": origin})).require_origin(ALLOWED)
    assert refused.value.details == {"origin": origin}


def test_preview_origin_is_answered_by_its_own_name_and_never_by_the_pattern() -> None:
    allowed = Origins(previews=("https://*.preview.example.com",))
    origin = "https://pr-7.preview.example.com"
    headers = cors.preflight_headers({"origin": origin}, allowed)
    assert headers is not None
    assert headers["Access-Control-Allow-Origin"] == origin
    assert cors.response_headers(origin, allowed)["Access-Control-Allow-Origin"] == origin


def test_no_origin_is_a_server_which_is_not_judged_by_it() -> None:
    request = Request.from_event(event(headers={}))
    request.require_origin(Origins())
    request.refuse_browser()
    headers = cors.preflight_headers({}, ALLOWED)
    assert headers is not None
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("asked", ["", "a\nb", "x" * 100, "a," * 100, "é"])
def test_odd_header_names_are_not_echoed(asked: str) -> None:
    request = {"origin": "http://localhost:5173", "access-control-request-headers": asked}
    headers = cors.preflight_headers(request, ALLOWED)
    assert headers is not None
    assert headers["Access-Control-Allow-Headers"] == cors.ALLOW_HEADERS


def test_page_may_read_what_retries_and_support_need() -> None:
    exposed = cors.response_headers("http://localhost:5173", ALLOWED)[
        "Access-Control-Expose-Headers"
    ]
    assert {"retry-after", "retry-after-ms", "x-should-retry", "x-request-id"} <= set(
        exposed.split(", ")
    )


def event(**changes: Any) -> dict[str, Any]:
    return {
        "httpMethod": "POST",
        "path": "/v1/auth/mint",
        "headers": {"Authorization": "Bearer abc", "ORIGIN": "https://app.example.com"},
        "multiValueHeaders": {"Authorization": ["Bearer abc"]},
        "requestContext": {"requestId": "req-1"},
        "body": '{"a": "ü"}',
        "isBase64Encoded": False,
        **changes,
    }


def test_event_is_read_once_into_a_plain_request() -> None:
    request = Request.from_event(event())
    assert (request.request_id, request.origin) == ("req-1", "https://app.example.com")
    assert request.bearer() == "abc"
    assert request.json_object() == {"a": "ü"}
    assert request.source == ""


def test_source_is_the_address_that_the_platform_saw() -> None:
    context = {"requestId": "req-1", "identity": {"sourceIp": "203.0.113.7"}}
    told = event(requestContext=context, headers={"X-Forwarded-For": "198.51.100.1"})
    assert Request.from_event(told).source == "203.0.113.7"


def test_smallest_event_is_enough() -> None:
    request = Request.from_event(
        {"httpMethod": "GET", "path": "/", "headers": None, "requestContext": {"requestId": "r"}}
    )
    assert (request.body, request.origin, request.claims) == (b"", None, {})


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "abc", "Bearerabc", "Client abc"]
)
def test_missing_or_malformed_credential_is_a_401(header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    with pytest.raises(Unauthenticated):
        Request.from_event(event(headers=headers)).bearer()


def test_two_credentials_are_refused() -> None:
    with pytest.raises(Unauthenticated):
        Request.from_event(
            event(multiValueHeaders={"authorization": ["Bearer abc", "Bearer def"]})
        ).bearer()


def test_scheme_is_read_whatever_its_case() -> None:
    assert Request.from_event(event(headers={"authorization": "bEaReR  x"})).bearer() == "x"


NO_OBJECTS = [
    None,
    "",
    "{",
    "[]",
    "7",
    '"x"',
    "null",
    '{"a":1e999}',
    '{"a":-Infinity}',
    "1" * 5000,
    '{"a":NaN}',
    "[" * 100_000,
    "\ud800",
]


@pytest.mark.parametrize("body", NO_OBJECTS)
def test_body_that_is_no_json_object_is_a_400(body: str | None) -> None:
    with pytest.raises(BadRequest):
        Request.from_event(event(body=body)).json_object()


def test_api_key_from_a_page_is_refused() -> None:
    with pytest.raises(Forbidden, match="Revoke"):
        Request.from_event(event()).refuse_browser()


# ---------------------------------------------------------------- the envelope


def every_refusal(kind: type[Refusal] = Refusal) -> list[type[Refusal]]:
    return [kind, *(sub for child in kind.__subclasses__() for sub in every_refusal(child))]


MAKE: dict[type[Refusal], Any] = {
    Unauthenticated: lambda: Unauthenticated("m", reason="r"),
    TokenExpired: TokenExpired,
    errors.OriginNotAllowed: lambda: errors.OriginNotAllowed("https://evil.example"),
    errors.Internal: errors.Internal,
    errors.Cancelled: errors.Cancelled,
    errors.LedgerBusy: errors.LedgerBusy,
    errors.IdempotencyInProgress: errors.IdempotencyInProgress,
    errors.IdempotencyKeyReused: errors.IdempotencyKeyReused,
    errors.LimitReached: lambda: errors.LimitReached("m", retry_after_s=1),
}


@pytest.mark.parametrize("kind", every_refusal(), ids=lambda kind: kind.__name__)
def test_every_refusal_is_told_in_the_one_envelope(kind: type[Refusal]) -> None:
    refusal = MAKE.get(kind, lambda: kind("m"))()
    request = Request.from_event(event())
    status, headers, body = refusal_answer(refusal, request, ALLOWED)
    told = json.loads(body)
    assert 400 <= status <= 504
    assert set(told) == {"error", "code", "message", "retryable", "trace_id"}
    assert set(told["error"]) == {"message", "type", "param", "code", "details", "request_id"}
    assert isinstance(told["code"], str)
    assert told["message"] == told["error"]["message"]
    assert headers["X-Request-Id"] == headers["X-Trace-Id"] == told["trace_id"] == "req-1"
    assert headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    retried = status in (402, 409) or status >= 500  # by an OpenAI SDK, left to itself
    assert ("x-should-retry" in headers) == (retried and not refusal.retryable)


def test_expired_token_has_the_top_level_code_that_old_clients_look_for() -> None:
    told = TokenExpired().envelope("r")
    assert (told["error"]["code"], told["code"]) == ("invalid_token", "token_expired")


def test_only_an_expired_token_says_expired() -> None:
    """The oldest client decides by this word whether to fetch a new token."""
    for kind in every_refusal():
        if kind not in (TokenExpired,):
            refusal = MAKE.get(kind, lambda kind=kind: kind("m"))()
            assert "expired" not in refusal.message.lower()


# ---------------------------------------------------------------- settings

FULL = {
    "TENANT_ID": "t",
    "PROJECT_ID": "p",
    "TABLE_NAME": "table",
    "STACK_NAME": "weir-test",
    "SIGNING_KEY_SECRET": "arn:1",
    "PROVIDER_KEYS_SECRET": "arn:2",
    "KEY_ARN": "arn:3",
    "DELIVERIES_QUEUE": "url:1",
    "DEAD_LETTERS_QUEUE": "url:2",
    "COGNITO_CLIENT_ID": "client",
    "SESSION_TOKEN_TTL_S": "900",
    "MAX_STREAM_S": "300",
    "NEXT_KEY_MIN_AGE_S": "600",
    "AWS_REGION": "eu-west-1",
}


NEEDS: dict[Any, list[str]] = {
    Deployment: ["TENANT_ID", "TABLE_NAME", "STACK_NAME"],
    TokenSettings: [
        "TENANT_ID",
        "PROJECT_ID",
        "SIGNING_KEY_SECRET",
        "COGNITO_CLIENT_ID",
        "SESSION_TOKEN_TTL_S",
    ],
    ChatSettings: ["TABLE_NAME", "PROVIDER_KEYS_SECRET", "MAX_STREAM_S", "AWS_REGION"],
    WebhookSettings: ["TENANT_ID", "KEY_ARN"],
    NotifySettings: ["TABLE_NAME", "DELIVERIES_QUEUE"],
    DeliverSettings: ["KEY_ARN", "DELIVERIES_QUEUE", "DEAD_LETTERS_QUEUE"],
    AdminSettings: [
        "TENANT_ID",
        "KEY_ARN",
        "PROJECT_ID",
        "PROVIDER_KEYS_SECRET",
        "COGNITO_CLIENT_ID",
    ],
    RotateSettings: ["TABLE_NAME", "NEXT_KEY_MIN_AGE_S"],
}


@pytest.mark.parametrize("kind", NEEDS)
def test_missing_or_malformed_setting_is_named(kind: Any) -> None:
    kind.from_env(FULL)
    for name in NEEDS[kind]:
        with pytest.raises(SettingsError, match=name):
            kind.from_env({**FULL, name: " "})


@pytest.mark.parametrize("value", ["ten", "-1", "0", "841", "3e2", "\u0663"])
def test_number_out_of_range_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="MAX_STREAM_S"):
        ChatSettings.from_env({**FULL, "MAX_STREAM_S": value})


# ---------------------------------------------------------------- Cognito, Bedrock

CLAIMS = {
    "token_use": "id",
    "aud": "client",
    "sub": "sub-1",
    "email": "jo@example.com",
    "cognito:groups": "pro,admins",
}


def test_session_gives_the_user_and_his_groups() -> None:
    assert cognito.believe_session(CLAIMS, client_id="client") == cognito.User(
        "sub-1", "jo@example.com", frozenset({"pro", "admins"})
    )


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("", set()),
        ("free", {"free"}),
        ("[free pro]", {"free", "pro"}),
        (",pro, ,max", {"pro", "max"}),
    ],
)
def test_groups_are_read_however_the_authorizer_prints_them(
    groups: str, expected: set[str]
) -> None:
    claims = {**CLAIMS, "cognito:groups": groups}
    assert cognito.believe_session(claims, client_id="client").groups == expected


NO_SESSIONS = [{"token_use": "access"}, {"aud": "other"}, {"sub": ""}, {"token_use": ""}]


@pytest.mark.parametrize("change", NO_SESSIONS, ids=str)
@pytest.mark.parametrize("believe", [cognito.believe_session, cognito.believe_admin])
def test_session_of_another_kind_or_client_is_refused(
    believe: Callable[..., cognito.User], change: dict[str, str]
) -> None:
    with pytest.raises(Unauthenticated):
        believe({**CLAIMS, **change}, client_id="client")


def test_group_never_comes_from_an_attribute_that_a_user_may_write() -> None:
    written = {"custom:tier": "max", "tier": "max", "custom:cognito:groups": "admins"}
    claims = {**CLAIMS, "cognito:groups": "", **written}
    assert cognito.believe_session(claims, client_id="client").groups == set()


@pytest.mark.parametrize("groups", ["", "pro", "Admins", "admins2", "administrators", "not-admins"])
def test_only_the_group_admins_may_operate(groups: str) -> None:
    with pytest.raises(Forbidden, match="admins"):
        cognito.believe_admin({**CLAIMS, "cognito:groups": groups}, client_id="client")
    claims = {**CLAIMS, "cognito:groups": f"{groups},admins"}
    assert cognito.believe_admin(claims, client_id="client").sub == "sub-1"


@pytest.mark.parametrize("token", [None, "session+/token=="])
def test_bedrock_bearer_equals_the_one_aws_own_generator_makes(token: str | None) -> None:
    key, secret = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    if token:
        env["AWS_SESSION_TOKEN"] = token

    def theirs() -> str:
        return str(BedrockTokenGenerator().get_token(Credentials(key, secret, token), "eu-west-1"))

    # Both sign the current second; a second may pass between them.
    assert any(bedrock.bearer(env, "eu-west-1", time.time()) == theirs() for _ in range(3))


def test_bedrock_bearer_is_made_anew_every_ten_minutes() -> None:
    env = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    role = bedrock.RoleBearer(env, "eu-west-1")
    first = role.at(1000)
    assert first.startswith("bedrock-api-key-")
    assert role.at(1599) == first
    assert role.at(1600) != first
