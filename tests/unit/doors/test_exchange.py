"""POST /v1/token in process: the order of its checks, what it writes, what mint does not pay."""

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest

from tests.issuers import ENTRY, jwk, jwks, token
from tests.unit.conftest import LAMBDA, ORIGIN
from tests.unit.doors.test_token import ENVIRONMENT, ROOT, door
from weir.aws import issuer_keys
from weir.aws.operator import Operator
from weir.errors import ExchangeRefused
from weir.identity.exchange import GRANT_TYPE, ID_TOKEN, JWT
from weir.identity.key_sets import KeySet, KeySetUnavailable, parse
from weir.operator.documents import IssuerDocument, NewProject, ProjectChange, parsed

__all__ = ["door"]  # a fixture


@pytest.fixture(autouse=True)
def trusting(configured: Operator) -> None:
    """The project `default` trusts an issuer, `blog` none, `shop` the same one."""
    budget = {"limits": {"usd_per_month": 50}}
    configured.update_project("default", parsed(ProjectChange, budget))
    for pid in ("blog", "shop"):
        configured.create_project(parsed(NewProject, {"pid": pid, "origins": [ORIGIN], **budget}))
    for pid in ("default", "shop"):
        configured.put_issuer(pid, "clerk", parsed(IssuerDocument, ENTRY))


@pytest.fixture(autouse=True)
def published(door: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The issuer's keys; returns which addresses were asked."""
    asked: list[str] = []

    def fetch(jwks_uri: str) -> KeySet:
        asked.append(jwks_uri)
        return parse(jwks(jwk("RS256"), jwk("ES256")))

    monkeypatch.setattr(door, "_fetch", fetch)
    return asked


def send(door: ModuleType, fields: Any, origin: str | None = ORIGIN) -> tuple[int, Any, Any]:
    """Status, headers and body."""
    body = fields if isinstance(fields, str) else urlencode(fields)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if origin is not None:
        headers["Origin"] = origin
    path = "/v1/token"
    event = {
        "httpMethod": "POST",
        "path": path,
        "headers": headers,
        "requestContext": {"requestId": "req-1", "httpMethod": "POST", "resourcePath": path},
        "body": body,
    }
    answer = door.handler(event, SimpleNamespace(**LAMBDA))
    told = {name.lower(): values[0] for name, values in answer["multiValueHeaders"].items()}
    return answer["statusCode"], told, json.loads(answer["body"])


def wish(subject_token: str | None = None, **more: str) -> dict[str, str]:
    return {
        "grant_type": GRANT_TYPE,
        "subject_token": subject_token or token(int(time.time())),
        "subject_token_type": ID_TOKEN,
        **more,
    }


def refused(door: ModuleType, fields: Any, status: int, error: str, **how: Any) -> dict[str, Any]:
    code, headers, told = send(door, fields, **how)
    assert (code, told["error"]) == (status, error), told
    assert set(told) == {"error", "error_description", "reason", "request_id"}
    assert headers["cache-control"] == "no-store"
    return {**told, "headers": headers}


def test_token_of_the_issuer_becomes_a_user_token(door: ModuleType) -> None:
    status, headers, told = send(door, wish())
    assert status == 200, told
    assert (headers["cache-control"], headers["pragma"]) == ("no-store", "no-cache")
    assert headers["access-control-allow-origin"] == ORIGIN
    assert told["token"] == told["access_token"]
    assert (told["expires_in"], told["ttl"], told["token_type"]) == (900, 900, "Bearer")
    assert told["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    claims = jwt.decode(told["token"], options={"verify_signature": False})
    assert (claims["uid"], claims["pid"], claims["role"]) == ("clerk:user_2abc", "default", "user")
    assert "tier" not in claims
    assert claims["sid"] == told["sessionId"]


def test_keys_are_fetched_once_whoever_comes(door: ModuleType, published: list[str]) -> None:
    for number in range(5):
        assert send(door, wish(token(int(time.time()), sub=f"user_{number}")))[0] == 200
    assert published == [ENTRY["jwks_uri"]]


def test_what_the_operator_set_holds(door: ModuleType, configured: Operator) -> None:
    entry = {**ENTRY, "ttl": 120, "tier_claim": "plan", "session_claim": "sid"}
    configured.put_issuer("default", "clerk", parsed(IssuerDocument, entry))
    own = token(int(time.time()), plan="pro", sid="sess_9", role="admin", tier="max", uid="x")
    _, _, told = send(door, wish(own, session_id="of the page", requested_token_type=JWT))
    claims = jwt.decode(told["token"], options={"verify_signature": False})
    assert (claims["tier"], claims["sid"], told["ttl"]) == ("pro", "sess_9", 120)
    assert (claims["role"], claims["uid"]) == ("user", "clerk:user_2abc")
    assert told["issued_token_type"] == JWT
    _, _, told = send(door, wish(token(int(time.time())), session_id="of the page"))
    assert told["sessionId"] == "of the page"


def test_token_lives_for_an_hour_at_most_whatever_the_stack_gives_its_own_users(
    door: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_settings", replace(door._settings, session_token_ttl_s=86_400))
    assert send(door, wish())[2]["ttl"] == 3600


def test_audience_names_the_project(door: ModuleType) -> None:
    _, _, told = send(door, wish(audience="shop"))
    claims = jwt.decode(told["token"], options={"verify_signature": False})
    assert (claims["pid"], claims["uid"]) == ("shop", "clerk:user_2abc")
    told = refused(door, wish(audience="blog"), 400, "invalid_request")
    assert told["reason"] == "untrusted_issuer"
    assert refused(door, wish(audience="none"), 400, "invalid_target")["reason"] == (
        "unknown_project"
    )


def test_page_that_is_not_listed_is_refused_before_its_token_is_looked_at(
    door: ModuleType, monkeypatch: pytest.MonkeyPatch, published: list[str]
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the token was looked at")

    monkeypatch.setattr("weir.identity.issuers.believe", never)
    told = refused(door, wish(), 403, "unauthorized_client", origin="https://evil.example")
    assert "access-control-allow-origin" not in told["headers"]
    assert published == []


def test_script_without_an_origin_may_exchange(door: ModuleType) -> None:
    assert send(door, wish(), origin=None)[0] == 200


def test_forged_token_is_refused_and_nothing_is_written(
    door: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weir.aws.arrivals import Arrivals

    monkeypatch.setattr(Arrivals, "admit", lambda *_: pytest.fail("a user was counted"))
    good = token(int(time.time()))
    told = refused(door, wish(good[:-8] + "AAAAAAAA"), 400, "invalid_request")
    assert told["reason"] in ("bad_signature", "malformed")
    assert good[:20] not in json.dumps(told)


def test_blocked_user_gets_no_token_and_another_does(
    door: ModuleType, configured: Operator
) -> None:
    configured.switch_user("default", "clerk:user_2abc", off=True, reason="abuse")
    refused(door, wish(), 403, "access_denied")
    assert send(door, wish(token(int(time.time()), sub="user_3")))[0] == 200
    assert send(door, wish(audience="shop"))[0] == 200


@pytest.mark.parametrize("scope", ["project", "tenant"])
def test_what_is_switched_off_makes_no_token(
    door: ModuleType, configured: Operator, scope: str
) -> None:
    if scope == "project":
        configured.switch_project("default", off=True)
    else:
        configured.switch_tenant(off=True)
    refused(door, wish(), 403, "access_denied")


def test_suspended_project_makes_no_token(door: ModuleType, configured: Operator) -> None:
    configured.update_project("default", parsed(ProjectChange, {"status": "suspended"}))
    told = refused(door, wish(), 400, "invalid_target")
    assert told["reason"] == "project_suspended"


def test_issuer_that_is_removed_is_trusted_no_longer(
    door: ModuleType, configured: Operator
) -> None:
    assert send(door, wish())[0] == 200
    configured.remove_issuer("default", "clerk")
    door._snapshots.forget("default")  # as five seconds would
    assert refused(door, wish(), 400, "invalid_request")["reason"] == "untrusted_issuer"


def test_more_new_users_than_the_hour_allows_wait_and_known_ones_do_not(
    door: ModuleType, configured: Operator
) -> None:
    entry = {**ENTRY, "new_users_per_hour": 1}
    configured.put_issuer("default", "clerk", parsed(IssuerDocument, entry))
    now = int(time.time())
    assert send(door, wish(token(now, sub="a")))[0] == 200
    told = refused(door, wish(token(now, sub="b")), 429, "temporarily_unavailable")
    assert 1 <= int(told["headers"]["retry-after"]) <= 3600
    assert send(door, wish(token(now, sub="a")))[0] == 200


def test_issuer_that_is_down_is_a_503(door: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(jwks_uri: str) -> KeySet:
        raise KeySetUnavailable("It is down.")

    monkeypatch.setattr(door, "_fetch", down)
    told = refused(door, wish(), 503, "temporarily_unavailable")
    assert told["reason"] == "issuer_keys_unavailable"
    assert told["headers"]["retry-after"] == "5"


def test_bug_is_an_oauth_error_too(door: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_exchanged", lambda: 1 / 0)
    told = refused(door, wish(), 500, "server_error")
    assert "division" not in json.dumps(told)


@pytest.mark.parametrize(
    "fields", ["", "{}", "grant_type=password", {"grant_type": GRANT_TYPE, "audience": "shop"}]
)
def test_wrong_request_is_readable_for_the_page(door: ModuleType, fields: Any) -> None:
    status, headers, told = send(door, fields)
    assert (status, headers["access-control-allow-origin"]) == (400, ORIGIN)
    assert told["error"] in ("invalid_request", "unsupported_grant_type")


def test_subject_token_is_in_no_log(door: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(door.logger.handlers[0], "stream", log)
    good = token(int(time.time()))
    for subject_token in (good, good[:-8] + "AAAAAAAA", good.replace(".", "!")):
        send(door, wish(subject_token))
    assert '"exchanged"' in log.getvalue()
    assert '"refused"' in log.getvalue()
    for part in good.split("."):
        assert part[-24:] not in log.getvalue()


def test_mint_does_not_pay_for_the_exchange() -> None:
    """What only it needs is not loaded with the function, but when the first token comes."""
    program = (
        "import runpy, sys; runpy.run_path('functions/token/app.py');"
        "print(*(n for n in sys.modules if n in ('httpcore', 'h11', 'weir.identity.issuers',"
        "'weir.identity.key_sets', 'weir.aws.issuer_keys', 'weir.aws.arrivals',"
        "'weir.upstreams.key_sets', 'weir.identity.exchange')))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**ENVIRONMENT, "PYTHONPATH": "layers/core", "AWS_ACCESS_KEY_ID": "x"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == ""


def test_process_that_has_the_keys_asks_nobody_for_them(
    door: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(door, wish())[0] == 200
    monkeypatch.setattr(
        issuer_keys.IssuerKeys, "_renewed", lambda *_: pytest.fail("the keys were looked for")
    )
    assert send(door, wish())[0] == 200


def test_known_user_costs_two_reads(door: ModuleType) -> None:
    """Whether they are blocked, and whether they were here before."""
    assert send(door, wish())[0] == 200
    called: list[str] = []
    events = door.lean.client("dynamodb").meta.events
    note = events.register("before-call.dynamodb", lambda model, **_: called.append(model.name))
    assert note is None
    assert send(door, wish())[0] == 200
    assert called == ["BatchGetItem", "GetItem"]


def test_refusal_class_says_invalid_unless_told_otherwise() -> None:
    assert ExchangeRefused("m").reason == "invalid"
