"""What a request for a token exchange may say, and OAuth's errors."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.unit.web.test_edge import MAKE, every_refusal
from weir import errors
from weir.errors import ExchangeRefused, Refusal, TooLarge
from weir.identity import exchange
from weir.identity.exchange import ACCESS_TOKEN, GRANT_TYPE, ID_TOKEN, JWT, ExchangeRequest
from weir.identity.tokens import Token
from weir.web.origins import Origins
from weir.web.request import Request

GOOD: dict[str, Any] = {
    "grant_type": GRANT_TYPE,
    "subject_token": "a.b.c",
    "subject_token_type": ID_TOKEN,
}
Pairs = list[tuple[str, str]]


def request(body: str | bytes, content_type: str | None = exchange.FORM) -> Request:
    headers = {} if content_type is None else {"content-type": content_type}
    raw = body.encode() if isinstance(body, str) else body
    return Request("req-1", "POST", "/v1/token", headers, raw)


def parsed(more: dict[str, Any] | Pairs | None = None, **how: Any) -> ExchangeRequest:
    """`more` are further fields; None takes one away. A list is the whole body."""
    told: Any = more
    if not isinstance(more, list):
        told = {name: v for name, v in {**GOOD, **(more or {})}.items() if v is not None}
    return ExchangeRequest.parse(request(urlencode(told), **how))


def test_three_fields_are_enough() -> None:
    assert parsed() == ExchangeRequest("a.b.c", None, ACCESS_TOKEN, None)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"subject_token_type": JWT}, ExchangeRequest("a.b.c", None, ACCESS_TOKEN, None)),
        ({"subject_token_type": ACCESS_TOKEN}, ExchangeRequest("a.b.c", None, ACCESS_TOKEN, None)),
        ({"audience": "shop"}, ExchangeRequest("a.b.c", "shop", ACCESS_TOKEN, None)),
        ({"requested_token_type": JWT}, ExchangeRequest("a.b.c", None, JWT, None)),
        ({"session_id": "tab 1"}, ExchangeRequest("a.b.c", None, ACCESS_TOKEN, "tab 1")),
        # RFC 6749, section 3.2: without a value it is absent, and what is unknown is ignored.
        ({"scope": "", "audience": ""}, ExchangeRequest("a.b.c", None, ACCESS_TOKEN, None)),
        ({"client_id": "x", "hello": "y"}, ExchangeRequest("a.b.c", None, ACCESS_TOKEN, None)),
    ],
    ids=str,
)
def test_what_else_may_be_said(more: dict[str, Any], expected: ExchangeRequest) -> None:
    assert parsed(more) == expected


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": ID_TOKEN}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"actor_token_type": JWT}, "invalid_request"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"resource": "https://api.example.com"}, "invalid_target"),
        ({"audience": "https://api.example.com"}, "invalid_target"),
        ({"audience": "x" * 64}, "invalid_target"),
        ({"audience": "Shop"}, "invalid_target"),
        ({"session_id": "a\nb"}, "invalid_request"),
        ({"session_id": "x" * 256}, "invalid_request"),
        ([*GOOD.items(), ("audience", "one"), ("audience", "two")], "invalid_target"),
        ([*GOOD.items(), ("subject_token", "x")], "invalid_request"),
        ([*GOOD.items(), ("grant_type", GRANT_TYPE)], "invalid_request"),
        ([*GOOD.items(), ("hello", "1"), ("hello", "2")], "invalid_request"),
        ([*GOOD.items(), *((f"f{n}", "x") for n in range(50))], "invalid_request"),
    ],
    ids=str,
)
def test_wrong_request_is_an_oauth_error(more: Any, error: str) -> None:
    with pytest.raises(ExchangeRefused) as refusal:
        parsed(more)
    assert (refusal.value.status, refusal.value.code) == (400, error)


def test_same_audience_twice_is_one() -> None:
    assert parsed([*GOOD.items(), ("audience", "one"), ("audience", "one")]).project == "one"


@pytest.mark.parametrize("body", [b"\xff\xfe=x", b"a=%ff", b"grant_type", b"{}"])
def test_body_that_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(ExchangeRefused, match="not valid"):
        ExchangeRequest.parse(request(body))


def test_empty_body_is_refused() -> None:
    with pytest.raises(ExchangeRefused, match="grant_type is missing"):
        ExchangeRequest.parse(request(b""))


def test_json_is_refused_with_what_to_send_instead() -> None:
    with pytest.raises(ExchangeRefused, match="URLSearchParams"):
        ExchangeRequest.parse(request(json.dumps(GOOD), "application/json"))


@pytest.mark.parametrize("media_type", [None, exchange.FORM + "; charset=UTF-8", exchange.FORM])
def test_media_type_of_a_form_or_none(media_type: str | None) -> None:
    assert parsed(content_type=media_type).subject_token == "a.b.c"


def test_body_of_the_most_bytes_is_read_and_a_longer_one_is_not() -> None:
    body = urlencode(GOOD) + "&x="
    longest = body + "y" * (32_000 - len(body))
    assert ExchangeRequest.parse(request(longest)).subject_token == "a.b.c"
    with pytest.raises(TooLarge):
        ExchangeRequest.parse(request(longest + "y"))


def test_forty_fields_are_read_and_one_more_is_not() -> None:
    forty = [*GOOD.items(), *((f"f{n}", "x") for n in range(37))]
    assert parsed(forty).subject_token == "a.b.c"
    with pytest.raises(ExchangeRefused):
        parsed([*forty, ("one", "more")])


def test_answer_has_what_the_standard_and_what_published_clients_ask_for() -> None:
    assert exchange.reply(Token("t", 900, 1000, "s"), ACCESS_TOKEN) == {
        "access_token": "t",
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 900,
        "token": "t",
        "ttl": 900,
        "sessionId": "s",
        "expiresAt": 1000,
    }


@pytest.mark.parametrize("kind", every_refusal(), ids=lambda kind: kind.__name__)
def test_every_refusal_is_an_oauth_error_with_cors_and_without_cache(kind: type[Refusal]) -> None:
    """RFC 6749, section 5.2: its codes, and the characters of a description."""
    refusal = MAKE.get(kind, lambda: kind('a "quoted" \\ ünicode\nmessage'))()
    page = "https://app.example.com"
    sent = Request("req-1", "POST", "/v1/token", {"origin": page})
    status, headers, body = exchange.refusal_answer(refusal, sent, Origins(frozenset({page})))
    told = json.loads(body)
    assert set(told) == {"error", "error_description", "reason", "request_id"}
    assert told["error"] in {
        *("invalid_request", "invalid_target", "invalid_scope", "unsupported_grant_type"),
        *("unauthorized_client", "access_denied", "temporarily_unavailable", "server_error"),
    }
    assert all(" " <= c <= "~" and c not in '"\\' for c in told["error_description"])
    assert headers["Cache-Control"] == "no-store"
    assert headers["Access-Control-Allow-Origin"] == page
    assert "WWW-Authenticate" not in headers
    assert status == refusal.status or (status, refusal.status) == (400, 401)


@pytest.mark.parametrize(
    ("refusal", "status", "error"),
    [
        (errors.OriginNotAllowed("https://evil.example"), 403, "unauthorized_client"),
        (errors.Killed("user"), 403, "access_denied"),
        (errors.Unauthenticated("m", reason="project_suspended"), 400, "invalid_target"),
        (errors.LimitReached("m", retry_after_s=7), 429, "temporarily_unavailable"),
        (errors.NotReady("m", retry_after_s=7), 503, "temporarily_unavailable"),
        (errors.TooLarge("m"), 413, "invalid_request"),
        (errors.Internal(), 500, "server_error"),
    ],
    ids=str,
)
def test_error_says_what_a_client_can_do(refusal: Refusal, status: int, error: str) -> None:
    told = exchange.refusal_answer(refusal, request(""), Origins())
    assert (told[0], json.loads(told[2])["error"]) == (status, error)
    assert json.loads(told[2])["reason"] == refusal.details.get("reason", refusal.code)
    assert told[1].get("Retry-After") == ("7" if status in (429, 503) else None)
