"""POST /v1/token over HTTP: a token of another sign-in becomes a user token that chats.

The stack fetches keys from public addresses only, and no setting says otherwise: so its table is
given the issuer's keys as the function itself would have kept them.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt
import pytest
from openai import OpenAI

from tests.issuers import ENTRY, JWKS_URI, jwk, jwks, token
from tests.stack.admin import Admin, bearer, mint, soon
from tests.stack.conftest import ORIGIN, Stack, ask, envelope
from weir.aws.issuer_keys import IssuerKeys
from weir.identity.exchange import GRANT_TYPE, ID_TOKEN
from weir.identity.key_sets import MAX_FRESH_S, parse

PID, OTHER = "sign-in", "sign-in-elsewhere"
PAGE = "https://sign-in-page.example"
BUDGET = {"limits": {"usd_per_month": 10}}


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Admin:
    """Two projects that trust the same issuer, and the issuer's keys in the table."""
    keys = parse(jwks(jwk("RS256"), jwk("ES256"), jwk("EdDSA")), MAX_FRESH_S)
    name = stack.outputs()["TableName"]
    IssuerKeys(stack.aws("dynamodb"), name, lambda _: keys, time.time).find(
        JWKS_URI, "RS256-one", "RS256"
    )
    operator = Admin(stack)
    default = operator("GET", "projects/default")["default_model"]
    for pid in (PID, OTHER):
        operator.project(pid, origins=[PAGE], default_model=default, **BUDGET)
    algs = ["RS256", "ES256", "EdDSA"]
    operator("PUT", f"projects/{PID}/issuers/clerk", {**ENTRY, "algs": algs})
    operator("PUT", f"projects/{OTHER}/issuers/own", {**ENTRY, "prefix_user_ids": False})
    soon(lambda: exchange(stack, token(now(), sub="first")).status_code == 200)
    return operator


def now() -> int:
    return int(time.time())


def exchange(
    stack: Stack, subject_token: str, pid: str = PID, origin: str | None = PAGE, **more: str
) -> httpx.Response:
    fields = {
        "grant_type": GRANT_TYPE,
        "subject_token": subject_token,
        "subject_token_type": ID_TOKEN,
        "audience": pid,
        **more,
    }
    headers = {} if origin is None else {"Origin": origin}
    return stack.http.post("/v1/token", data=fields, headers=headers)


def exchanged(stack: Stack, subject_token: str, pid: str = PID, **how: Any) -> dict[str, Any]:
    reply = exchange(stack, subject_token, pid, **how)
    assert reply.status_code == 200, reply.text
    told = reply.json()
    assert isinstance(told, dict)
    return told


def chat(stack: Stack, user_token: str, origin: str = PAGE) -> httpx.Response:
    return stack.http.post("/v1/chat/completions", headers=bearer(user_token, origin), json=ask())


def refused(reply: httpx.Response, status: int, error: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    told = reply.json()
    assert told["error"] == error, told
    assert reply.headers["cache-control"] == "no-store"
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_user_of_another_sign_in_chats_without_a_backend(
    stack: Stack, admin: Admin, kind: str
) -> None:
    reply = exchange(stack, token(now(), kind))
    assert reply.headers["access-control-allow-origin"] == PAGE
    told = reply.json()
    assert chat(stack, told["token"]).status_code == 200
    me = stack.http.get("/v1/me", headers=bearer(told["token"], PAGE)).json()
    assert (me["user_id"], me["project_id"]) == ("clerk:user_2abc", PID)


def test_openai_sdk_streams_with_the_token(stack: Stack, admin: Admin) -> None:
    told = exchanged(stack, token(now()))
    client = OpenAI(api_key=told["access_token"], base_url=f"{stack.env['BEHEST_BASE_URL']}/v1")
    stream = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    assert any(chunk.choices and chunk.choices[0].delta.content for chunk in stream)


def test_projects_users_and_issuers_are_kept_apart(stack: Stack, admin: Admin) -> None:
    """The same person in two projects, and somebody whom a server mints under that very name."""
    here, there = (exchanged(stack, token(now()), pid)["token"] for pid in (PID, OTHER))
    told = [jwt.decode(each, options={"verify_signature": False}) for each in (here, there)]
    assert [(each["pid"], each["uid"]) for each in told] == [
        (PID, "clerk:user_2abc"),
        (OTHER, "user_2abc"),
    ]
    minted = mint(stack, admin.key(OTHER), "user_2abc")
    assert chat(stack, minted).status_code == 200
    ids = [
        stack.http.get("/v1/me", headers=bearer(each, PAGE)).json()["user_id"]
        for each in (here, there, minted)
    ]
    assert ids == ["clerk:user_2abc", "user_2abc", "user_2abc"]
    refused(exchange(stack, token(now(), sub="clerk:user_2abc"), OTHER), 400, "invalid_request")
    refused(exchange(stack, token(now()), "default", ORIGIN), 400, "invalid_request")


def test_threads_stay_with_their_user_whatever_made_the_token(stack: Stack, admin: Admin) -> None:
    """Two projects; a user of an issuer, one of a server's mint, and the same name of either."""
    minted = {pid: mint(stack, admin.key(pid), "user_2abc") for pid in (PID, OTHER)}
    named_like_the_issuers = mint(stack, admin.key(PID), "clerk:user_2abc")
    tokens = {
        "of the issuer": exchanged(stack, token(now()))["token"],
        "of the issuer, elsewhere": exchanged(stack, token(now()), OTHER)["token"],
        "of another user of it": exchanged(stack, token(now(), sub="user_3"))["token"],
        "minted": minted[PID],
        "minted elsewhere": minted[OTHER],
        "minted under the issuer's prefix": named_like_the_issuers,
    }
    # A server may mint for any of its project's users, those of an issuer included.
    same = [
        {"of the issuer", "minted under the issuer's prefix"},
        {"of the issuer, elsewhere", "minted elsewhere"},
    ]
    for owner, theirs in tokens.items():
        thread = f"crossed-{list(tokens).index(owner)}"
        headers = {**bearer(theirs, PAGE), "X-Thread-Id": thread}
        assert stack.http.post("/v1/chat/completions", headers=headers, json=ask()).is_success
        may = next((each for each in same if owner in each), {owner})
        reads = {
            name
            for name, other in tokens.items()
            if stack.http.get(f"/v1/threads/{thread}", headers=bearer(other, PAGE)).is_success
        }
        assert reads == may, owner


def test_page_that_is_not_listed_gets_no_token_and_no_headers(stack: Stack, admin: Admin) -> None:
    for origin in ("https://evil.example", ORIGIN, PAGE + ":443", "null"):
        reply = exchange(stack, token(now()), origin=origin)
        refused(reply, 403, "unauthorized_client")
        # Of another project's page it may say that it was refused, and no more.
        assert reply.headers.get("access-control-allow-origin") in (None, ORIGIN)
        assert "access_token" not in reply.json()


def test_forged_and_expired_tokens_are_refused(stack: Stack, admin: Admin) -> None:
    good = token(now())
    for forged, reason in (
        (token(now(), name="evil", header={"kid": "RS256-one"}), "bad_signature"),
        (token(now(), exp=now() - 61), "token_expired"),
        (token(now(), aud="another"), "bad_aud"),
        (token(now(), iss="https://evil.example"), "untrusted_issuer"),
        (good + "x", "malformed"),
        (stack.mint()["token"], "untrusted_issuer"),
    ):
        assert refused(exchange(stack, forged), 400, "invalid_request")["reason"] == reason


def test_unknown_key_of_an_issuer_that_cannot_be_reached_is_refused_in_time(
    stack: Stack, admin: Admin
) -> None:
    """It is looked for, within the bounds; the keys that are known go on serving."""
    began = time.monotonic()
    told = refused(exchange(stack, token(now(), name="unknown")), 400, "invalid_request")
    assert told["reason"] == "unknown_kid"
    assert time.monotonic() - began < 15
    assert exchange(stack, token(now())).status_code == 200


def test_first_sign_ins_at_once_are_all_served_and_counted_once(stack: Stack, admin: Admin) -> None:
    subject = token(now(), sub="many-tabs")
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: exchange(stack, subject), range(8)))
    assert [reply.status_code for reply in replies] == [200] * 8
    name = stack.outputs()["TableName"]
    marker = {"pk": {"S": f"KNOWN#{PID}#u#clerk:many-tabs"}, "sk": {"S": "KNOWN"}}
    assert "Item" in stack.aws("dynamodb").get_item(TableName=name, Key=marker)


def test_blocked_user_is_refused_at_the_exchange_and_on_chat(stack: Stack, admin: Admin) -> None:
    subject = token(now(), sub="blocked")
    own = exchanged(stack, subject)["token"]
    off = {"scope": "user", "project": PID, "user_id": "clerk:blocked", "off": True}
    admin("PUT", "kill-switches", off, 204)
    refused(exchange(stack, subject), 403, "access_denied")
    envelope(chat(stack, own), 403, "forbidden")


def test_wrong_requests_are_oauth_errors(stack: Stack, admin: Admin) -> None:
    subject = token(now())
    refused(exchange(stack, subject, grant_type="password"), 400, "unsupported_grant_type")
    refused(exchange(stack, subject, scope="openid"), 400, "invalid_scope")
    refused(exchange(stack, subject, "nowhere"), 400, "invalid_target")
    reply = stack.http.post("/v1/token", json={"grant_type": GRANT_TYPE})
    refused(reply, 400, "invalid_request")
    refused(stack.http.post("/v1/token", content="x" * 40_000), 413, "invalid_request")
    envelope(stack.http.get("/v1/token"), 404, "not_found")


def test_operator_is_told_why_a_token_is_not_exchanged(stack: Stack, admin: Admin) -> None:
    """Over the admin API, which fetches the keys anew: here they cannot be had."""
    judged = admin("POST", f"projects/{PID}/issuers/verdict", {"token": token(now())})
    assert judged["accepted"] is False
    assert (judged["passed"], judged["failed"]) == (["form", "iss", "alg"], "kid")
    judged = admin("POST", f"projects/{PID}/issuers/verdict", {"token": "x"})
    assert (judged["passed"], judged["failed"]) == ([], "form")


def test_issuer_that_is_removed_is_trusted_no_longer(stack: Stack, admin: Admin) -> None:
    admin("DELETE", f"projects/{OTHER}/issuers/own", status=204)
    soon(lambda: exchange(stack, token(now()), OTHER).status_code == 400)
    told = refused(exchange(stack, token(now()), OTHER), 400, "invalid_request")
    assert told["reason"] == "untrusted_issuer"
    assert exchange(stack, token(now())).status_code == 200
