"""What is revoked in the middle of a session is refused on the next request, and nothing else is.

Each test has users of its own. Those who stand beside the one who is revoked are crossed: another
user with the same session, the same user with another session, a user of another project with the
same names.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest

from tests.provider import FakeProvider
from tests.stack.admin import UNLIMITED, Admin, bearer, mint, soon
from tests.stack.conftest import Stack, ask, envelope, start

PIDS = ("one", "two")
ANN, BOB = "ann", "bob"


@dataclass(frozen=True)
class World:
    stack: Stack
    admin: Admin
    keys: dict[str, str]

    def token(self, who: str = ANN, session: str = "s_1", pid: str = "one") -> str:
        return mint(self.stack, self.keys[pid], who, session_id=session)

    def revoke(self, body: Any, pid: str = "one", **more: Any) -> httpx.Response:
        headers = bearer(self.keys[pid])
        return self.stack.http.post("/v1/auth/revoke", headers=headers, json=body, **more)

    def chat(self, credential: str, **headers: str) -> httpx.Response:
        return self.stack.http.post(
            "/v1/chat/completions", headers={**bearer(credential), **headers}, json=ask()
        )

    def answers(self, credential: str) -> bool:
        """Chat and the account's routes agree on a token; a refusal is the one of revocation."""
        replies = [
            self.chat(credential),
            self.stack.http.get("/v1/me", headers=bearer(credential)),
            self.stack.http.get("/v1/models", headers=bearer(credential)),
            self.stack.http.get("/v1/usage", headers=bearer(credential)),
        ]
        if all(reply.status_code == 200 for reply in replies):
            return True
        for reply in replies:
            assert envelope(reply, 401, "invalid_token")["details"] == {"reason": "token_revoked"}
        cancel = self.stack.http.post("/v1/chat/completions/any/cancel", headers=bearer(credential))
        envelope(cancel, 401, "invalid_token")
        return False


@pytest.fixture(scope="module")
def world(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with start(
        tmp_path_factory.mktemp("revocation"),
        upstream=provider.url,
    ) as stack:
        admin = Admin(stack)
        default = admin("GET", "projects/default")["default_model"]
        for pid in PIDS:
            admin.project(pid, default_model=default, **UNLIMITED)
        yield World(stack, admin, {pid: admin.key(pid) for pid in PIDS})


def others(world: World) -> dict[str, str]:
    """Tokens that no revocation of ann's session s_1 concerns."""
    return {
        "another session": world.token(session="s_2"),
        "another user": world.token(BOB),
        "another project": world.token(pid="two"),
    }


def payload(token: str) -> dict[str, Any]:
    claims = jwt.decode(token, options={"verify_signature": False})
    assert isinstance(claims, dict)
    return claims


BY = ["operator", "backend"]


@pytest.mark.parametrize("by", BY)
def test_revoked_token_is_refused_and_every_other_works(world: World, by: str) -> None:
    token, beside = world.token(), {"the same session": world.token(), **others(world)}
    assert world.answers(token)
    if by == "operator":
        what = {"user_id": ANN, "jti": payload(token)["jti"]}
        world.admin("POST", "projects/one/users/revoke", what, 204)
    else:
        assert world.revoke({"token": token}).json() == {"revoked": True}
    assert not world.answers(token)
    for name, other in beside.items():
        assert world.answers(other), name
    assert world.answers(world.token()), "a new one of the same session"


@pytest.mark.parametrize("by", BY)
def test_revoked_session_takes_its_tokens_and_may_begin_again(world: World, by: str) -> None:
    tokens, beside = [world.token(), world.token()], others(world)
    assert all(map(world.answers, tokens))
    what = {"user_id": ANN, "session_id": "s_1"}
    if by == "operator":
        world.admin("POST", "projects/one/users/revoke", what, 204)
    else:
        assert world.revoke(what).json() == {"revoked": True}
    again = world.token()
    assert not any(map(world.answers, tokens))
    for name, other in beside.items():
        assert world.answers(other), name
    assert world.answers(again), "made at once, of the same session"


@pytest.mark.parametrize("by", BY)
def test_user_is_signed_out_of_everything_and_may_sign_in_at_once(world: World, by: str) -> None:
    tokens, beside = [world.token(), world.token(session="s_2")], others(world)
    del beside["another session"]
    assert all(map(world.answers, tokens))
    for _ in range(2):  # a token that was made in the second of the first goes with the second
        if by == "operator":
            world.admin("POST", "projects/one/users/revoke", {"user_id": ANN}, 204)
        else:
            assert world.revoke({"user_id": ANN}).json() == {"revoked": True}
        again = world.token()
        assert not any(map(world.answers, tokens))
        assert world.answers(again)
        tokens.append(again)
    for name, other in beside.items():
        assert world.answers(other), name


def test_revoked_key_takes_its_tokens_within_5_s_and_those_of_no_other_key(world: World) -> None:
    made = world.admin("POST", "projects/one/keys", {}, 201)
    token = mint(world.stack, made["secret"], "carol", session_id="s_1")
    of_another_key = world.token("carol")
    assert payload(token)["jti"].startswith(made["key_id"].removeprefix("key_")[:8])
    assert world.answers(token)
    world.admin("DELETE", f"projects/one/keys/{made['key_id']}", None, 204)
    # No change of the project brings it back, nor is it configuration.
    shown = world.admin("PATCH", "projects/one", {"name": "renamed"})
    exported = world.admin("GET", "configuration")
    assert "revoked_keys" not in {**shown, **exported["projects"]["one"]}
    world.admin("PUT", "configuration", {**exported, "projects": {"one": {"name": "again"}}})
    assert world.admin("GET", "projects/one")["name"] == "again"
    world.admin("PATCH", "projects/one", {"default_model": shown["default_model"], **UNLIMITED})
    soon(lambda: world.chat(token).status_code == 401)
    assert not world.answers(token)
    assert world.answers(of_another_key)


def test_block_is_a_block_whatever_else_is_revoked(world: World) -> None:
    token = world.token("dave")
    switch = {"scope": "user", "project": "one", "user_id": "dave"}
    world.admin("PUT", "kill-switches", {**switch, "off": True}, 204)
    assert world.revoke({"user_id": "dave"}).status_code == 200, "a backend may sign him out"
    for reply in (world.chat(token), world.stack.http.get("/v1/me", headers=bearer(token))):
        assert envelope(reply, 403, "forbidden")["details"]["reason"] == "killed"
    world.admin("PUT", "kill-switches", {**switch, "off": False}, 204)
    assert not world.answers(token), "who is let in again must sign in again"
    assert world.answers(world.token("dave"))


def test_running_answer_comes_to_its_end_and_the_next_request_is_refused(world: World) -> None:
    token = world.token("erin")

    def stream() -> str:
        body = ask({"do": "stream", "chunks": 5, "gap_s": 0.3}, stream=True)
        with world.stack.http.stream(
            "POST", "/v1/chat/completions", headers=bearer(token), json=body
        ) as reply:
            assert reply.status_code == 200
            text = ""
            for chunk in reply.iter_text():
                if not text:
                    assert world.revoke({"user_id": "erin"}).status_code == 200
                    assert not world.answers(token)
                text += chunk
        return text

    assert stream().endswith("data: [DONE]\n\n")


# ---------------------------------------------------------------- the backend's route


def test_backend_revokes_in_its_own_project_only(world: World) -> None:
    token = world.token("frank")
    envelope(world.revoke({"token": token}, pid="two"), 403, "forbidden")
    assert world.revoke({"user_id": "frank"}, pid="two").status_code == 200
    assert world.answers(token), "that was a namesake"


def test_token_that_is_no_good_is_no_error(world: World) -> None:
    """RFC 7009, section 2.2. What it names is not revoked: anyone can write that."""
    token = world.token("grace")
    head, body, signature = token.split(".")
    for bad in ("x", f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body}."):
        assert world.revoke({"token": bad}).json() == {"revoked": False}
    assert world.answers(token)


def test_form_as_oauth_clients_send_it_is_understood(world: World) -> None:
    token = world.token("heidi")
    reply = world.stack.http.post(
        "/v1/auth/revoke",
        headers=bearer(world.keys["one"]),
        data={"token": token, "token_type_hint": "access_token"},
    )
    assert (reply.status_code, reply.json()) == (200, {"revoked": True})
    assert not world.answers(token)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "token"),
        ({"user_id": "u", "sesion_id": "s"}, "sesion_id"),
        ({"user_id": "u\u202e"}, "user_id"),
    ],
)
def test_bad_revocation_names_the_field(world: World, body: Any, param: str) -> None:
    assert envelope(world.revoke(body), 400, "validation_error")["param"] == param


def test_only_a_key_that_may_mint_may_revoke_and_no_page(world: World) -> None:
    reader = world.admin.key("one", scopes=["api:read", "api:chat"])
    post, body = world.stack.http.post, {"user_id": "ivan"}
    token = world.token("ivan")
    for credential, reason in ((reader, "missing_scope"), (token, "malformed")):
        reply = post("/v1/auth/revoke", headers=bearer(credential), json=body)
        assert envelope(reply, 401, "invalid_token")["details"] == {"reason": reason}
    page = bearer(world.keys["one"], "https://app.example.com")
    envelope(post("/v1/auth/revoke", headers=page, json=body), 403, "api_key_in_browser")
    assert world.answers(token)


def test_many_at_once_revoke_all_that_they_name(world: World) -> None:
    """They write one record: none may undo another's."""
    tokens = [world.token("judy", f"s_{number}") for number in range(8)]
    together = threading.Barrier(len(tokens))

    def revoke(number: int) -> int:
        together.wait()
        body = {"user_id": "judy", "session_id": f"s_{number}"}
        return world.revoke(body).status_code

    with ThreadPoolExecutor(len(tokens)) as pool:
        assert set(pool.map(revoke, range(len(tokens)))) == {200}
    assert not any(world.chat(token).status_code == 200 for token in tokens)


# ---------------------------------------------------------------- API keys on chat


def test_server_chats_with_a_key_for_the_user_whom_it_names(world: World) -> None:
    key = world.admin.key("one", scopes=["api:chat", "api:read"])
    for named, uid in (({"X-End-User-Id": "auth0|k"}, "auth0|k"), ({}, "default")):
        assert world.chat(key, **named).status_code == 200
        me = world.stack.http.get("/v1/me", headers={**bearer(key), **named}).json()
        assert (me["user_id"], me["project_id"], me["tier"]) == (uid, "one", None)
    default = world.admin("GET", "projects/one")["default_model"]
    world.admin.project("limited", default_model=default, user_limits={"requests_per_day": 1})
    key = world.admin.key("limited", scopes=["api:chat"])
    for uid, statuses in (("kim", [200, 402]), ("kai", [200])):
        user = {"X-End-User-Id": uid}
        assert [world.chat(key, **user).status_code for _ in statuses] == statuses


def test_key_on_chat_is_refused_from_a_page_without_its_scope_and_once_revoked(
    world: World,
) -> None:
    made = world.admin("POST", "projects/one/keys", {"scopes": ["api:chat"]}, 201)
    key, user = made["secret"], {"X-End-User-Id": "leo"}
    assert world.chat(key, **user).status_code == 200
    page = world.chat(key, Origin="https://app.example.com")
    envelope(page, 403, "api_key_in_browser")
    for bad in ("admin", "x" * 256):
        error = envelope(world.chat(key, **{"X-End-User-Id": bad}), 400, "validation_error")
        assert error["param"] == "X-End-User-Id"
    minting = world.chat(world.keys["one"], **user)
    error = envelope(minting, 401, "invalid_token")
    assert error["details"] == {"reason": "api_key_on_chat"}
    assert "/v1/auth/mint" in error["message"]
    world.admin("DELETE", f"projects/one/keys/{made['key_id']}", None, 204)
    for reply in (
        world.chat(key, **user),
        world.stack.http.get("/v1/me", headers={**bearer(key), **user}),
    ):
        error = envelope(reply, 401, "invalid_token")
        assert error["details"] == {"reason": "unknown_api_key"}


def test_server_is_refused_for_a_blocked_user_and_not_for_one_who_is_signed_out(
    world: World,
) -> None:
    key = world.admin.key("one", scopes=["api:chat"])
    user = {"X-End-User-Id": "mallory"}
    assert world.revoke({"user_id": "mallory"}).status_code == 200
    assert world.chat(key, **user).status_code == 200
    switch = {"scope": "user", "project": "one", "user_id": "mallory", "off": True}
    world.admin("PUT", "kill-switches", switch, 204)
    envelope(world.chat(key, **user), 403, "forbidden")
    assert world.chat(key, **{"X-End-User-Id": "niaj"}).status_code == 200


def test_header_beside_a_token_is_ignored(world: World) -> None:
    token = world.token("olivia")
    assert world.chat(token, **{"X-End-User-Id": "admin"}).status_code == 200
    me = world.stack.http.get("/v1/me", headers={**bearer(token), "X-End-User-Id": "peggy"})
    assert me.json()["user_id"] == "olivia"


def test_role_of_a_token_is_the_keys_unless_less_is_asked_for(world: World) -> None:
    admin_key = world.admin.key("one", role="admin")
    for key, more, role in (
        (admin_key, {}, "admin"),
        (admin_key, {"role": "user"}, "user"),
        (world.keys["one"], {}, "user"),
        (world.keys["one"], {"role": "admin"}, "user"),
    ):
        assert payload(mint(world.stack, key, **more))["role"] == role


def test_audit_trail_says_what_an_operator_revoked(world: World) -> None:
    for what, action in (
        ({"user_id": "rupert", "jti": "j_9"}, "token.revoke"),
        ({"user_id": "rupert", "session_id": "s_9"}, "session.revoke"),
        ({"user_id": "rupert"}, "user.sign-out"),
    ):
        world.admin("POST", "projects/one/users/revoke", what, 204)
        (entry,) = world.admin("GET", "audit?limit=1")["data"]
        assert (entry["action"], entry["target"]) == (action, "one/rupert")
        assert what.items() - {("user_id", "rupert")} <= entry["after"].items()
    both = {"user_id": "rupert", "session_id": "s", "jti": "j"}
    assert world.admin.send("POST", "projects/one/users/revoke", both).status_code == 400
    lost = world.admin.send("POST", "projects/none/users/revoke", {"user_id": "u"})
    assert lost.status_code == 404
