"""Two projects of one deployment know nothing of each other, and what befalls one leaves the other.

Everything of the second project carries a canary, which no answer to the first may contain.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.provider import FakeProvider
from tests.stack.admin import UNLIMITED, Admin, bearer, mint, model, soon
from tests.stack.conftest import Stack, ask, envelope, start

CANARY = "bravo-canary"


@dataclass(frozen=True)
class Side:
    pid: str
    origin: str
    tier: str
    prompt: str
    key: str


@dataclass(frozen=True)
class Two:
    stack: Stack
    admin: Admin
    a: Side
    b: Side

    def chat(self, token: str, origin: str | None = None, **more: Any) -> httpx.Response:
        return self.stack.http.post(
            "/v1/chat/completions", headers=bearer(token, origin), json=ask(**more)
        )

    def mint(self, side: Side, user_id: str = "u_1") -> httpx.Response:
        return self.stack.http.post(
            "/v1/auth/mint", headers=bearer(side.key), json={"user_id": user_id}
        )

    def token(self, side: Side, user_id: str = "u_1", **more: Any) -> str:
        return mint(self.stack, side.key, user_id, **more)

    def switch(self, scope: str, off: bool, **what: str) -> None:
        self.admin("PUT", "kill-switches", {"scope": scope, "off": off, **what}, 204)


@pytest.fixture(scope="module")
def two(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """In a stack of their own: nothing has been read, and so nothing is cached, before they are
    there.
    """
    with start(
        tmp_path_factory.mktemp("two"),
        upstream=provider.url,
    ) as stack:
        admin = Admin(stack)
        upstream = {"kind": "openai", "base_url": provider.url}
        admin("PUT", f"upstreams/{CANARY}-upstream", upstream)
        admin("PUT", f"upstreams/{CANARY}-upstream/key", {"key": "bravo-secret-key"})
        admin("PUT", "models/alpha-model", model("local", "fake-large", aliases=["alpha-alias"]))
        admin("PUT", "models/shared-model", model("local", "fake-large"))
        private = model(f"{CANARY}-upstream", "fake-large", aliases=[f"{CANARY}-alias"])
        admin("PUT", f"models/{CANARY}-model", private)
        yield Two(
            stack,
            admin,
            side(admin, "alpha"),
            side(admin, CANARY),
        )


def side(admin: Admin, word: str) -> Side:
    origin = f"https://{word}.{word[0]}-pages.example"
    tier, prompt = f"{word}-tier", f"You are {word}."
    admin.project(
        word,
        name=f"{word} name",
        origins=[origin],
        preview_origins=[f"https://*.{word}-preview.example"],
        models=[f"{word}-model", "shared-model"],
        default_model=f"{word}-model",
        system_prompt=prompt,
        **UNLIMITED,
    )
    admin("PUT", f"projects/{word}/tiers/{tier}", {"rpm": 100})
    blocked = {"project": word, "user_id": f"{word}-bad", "reason": f"{word}-reason"}
    admin("PUT", "kill-switches", {"scope": "user", "off": True, **blocked}, 204)
    return Side(word, origin, tier, prompt, admin.key(word))


def told(reply: httpx.Response) -> str:
    """All that a caller can read of an answer."""
    return reply.text + repr(reply.headers)


def claims(token: str) -> dict[str, Any]:
    said = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert isinstance(said, dict)
    return said


# ---------------------------------------------------------------- each with its own


@pytest.mark.parametrize("preview", [False, True], ids=["listed", "preview"])
def test_token_serves_pages_of_its_own_project_only(two: Two, preview: bool) -> None:
    for mine in (two.a, two.b):
        token = two.token(mine)
        for theirs in (two.a, two.b):
            origin = theirs.origin
            if preview:
                origin = f"https://pr-7.{theirs.pid}-preview.example"
            replies = (
                two.chat(token, origin),
                two.stack.http.get("/v1/models", headers=bearer(token, origin)),
                two.stack.http.get("/v1/models/default", headers=bearer(token, origin)),
            )
            for reply in replies:
                # The page of another project may read why: its preflight was allowed, too.
                assert reply.headers["access-control-allow-origin"] == origin
                if mine is theirs:
                    assert reply.status_code == 200, reply.text
                else:
                    error = envelope(reply, 403, "origin_not_allowed")
                    assert error["details"] == {"origin": origin}


def test_preflight_knows_the_pages_of_both_and_no_others(two: Two) -> None:
    for origin, status in (
        (two.a.origin, 204),
        (two.b.origin, 204),
        ("https://charlie.example", 403),
        (two.a.origin.replace("https", "http"), 403),
    ):
        reply = two.stack.http.options(
            "/v1/chat/completions",
            headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
        )
        assert reply.status_code == status, origin
        assert (reply.headers.get("access-control-allow-origin") == origin) == (status == 204)
        assert CANARY not in told(reply) or origin == two.b.origin


def test_key_makes_tokens_of_its_own_project_whatever_is_sent_with_it(two: Two) -> None:
    reply = two.stack.http.post(
        "/v1/auth/mint",
        headers={**bearer(two.a.key), "X-Project-Id": two.b.pid, "X-Behest-Project": two.b.pid},
        json={"user_id": "u_1", "pid": two.b.pid, "project_id": two.b.pid, "project": two.b.pid},
    )
    assert reply.status_code == 200
    assert CANARY not in told(reply)
    said = claims(reply.json()["token"])
    assert (said["pid"], reply.json()["project_id"]) == (two.a.pid, two.a.pid)
    assert CANARY not in json.dumps(said)


def test_list_of_models_names_the_projects_own_only(two: Two) -> None:
    expected = ["default", "alpha-model", "shared-model"]
    for headers in (
        bearer(two.token(two.a)),
        bearer(two.a.key),
        bearer(two.token(two.a), two.a.origin),
    ):
        reply = two.stack.http.get("/v1/models", headers=headers)
        assert [each["id"] for each in reply.json()["data"]] == expected
        assert CANARY not in told(reply)
    theirs = two.stack.http.get("/v1/models", headers=bearer(two.b.key)).json()["data"]
    assert {each["id"] for each in theirs} == {"default", f"{CANARY}-model", "shared-model"}


def test_default_is_each_projects_own_model_and_prompt(two: Two, provider: FakeProvider) -> None:
    for mine, other in ((two.a, two.b), (two.b, two.a)):
        assert two.chat(two.token(mine)).status_code == 200
        asked, sent = provider.requests[-1], provider.headers[-1]
        assert asked["messages"][0] == {"role": "system", "content": mine.prompt}
        assert other.prompt not in json.dumps(asked)
        key = "bravo-secret-key" if mine is two.b else "provider-secret-key"
        assert sent["authorization"] == f"Bearer {key}"


NOBODYS = "no-such"


@pytest.mark.parametrize("what", ["model", "alias", "one model", "one alias", "tier"])
def test_what_is_anothers_is_answered_as_what_nobody_has(two: Two, what: str) -> None:
    token = two.token(two.a)

    def reply_to(word: str) -> httpx.Response:
        http = two.stack.http
        if what == "tier":
            body = {"user_id": "u_1", "tier": f"{word}-tier"}
            return http.post("/v1/auth/mint", headers=bearer(two.a.key), json=body)
        if what.startswith("one"):
            return http.get(f"/v1/models/{word}-{what.split()[1]}", headers=bearer(token))
        return two.chat(token, model=f"{word}-{what}")

    theirs, nobodys = reply_to(CANARY), reply_to(NOBODYS)
    status = 404 if what.startswith("one") else 400
    error = envelope(theirs, status, "not_found" if status == 404 else "validation_error")
    other = envelope(nobodys, status, "not_found" if status == 404 else "validation_error")
    error.pop("request_id")
    other.pop("request_id")
    # What was asked for may be repeated; nothing else is said of it.
    assert json.loads(json.dumps(error).replace(CANARY, NOBODYS)) == other
    assert CANARY not in json.dumps(other)


def test_numbers_of_tiers_are_each_projects_own(two: Two) -> None:
    """Both have their fourth tier; the fifth is nobody's."""
    for mine in (two.a, two.b):
        assert claims(two.token(mine, tier=4))["tier"] == 4
        body = {"user_id": "u_1", "tier": 5}
        reply = two.stack.http.post("/v1/auth/mint", headers=bearer(mine.key), json=body)
        message = envelope(reply, 400, "validation_error")["message"]
        assert f"4 ({mine.tier})" in message
        assert (CANARY in message) == (mine is two.b)


def test_key_of_one_project_is_not_found_under_the_other(two: Two) -> None:
    keys = {
        side.pid: two.admin("GET", f"projects/{side.pid}/keys")["data"] for side in (two.a, two.b)
    }
    for mine, other in ((two.a, two.b), (two.b, two.a)):
        key_id = keys[mine.pid][0]["key_id"]
        assert key_id not in json.dumps(keys[other.pid])
        reply = two.admin.send("DELETE", f"projects/{other.pid}/keys/{key_id}")
        envelope(reply, 404, "not_found")
        assert two.mint(mine).status_code == 200
        reply = two.admin.send("DELETE", f"projects/{other.pid}/tiers/{mine.tier}")
        envelope(reply, 404, "not_found")
    assert len(two.admin("GET", f"projects/{two.a.pid}/tiers")["data"]) == 4


def test_no_answer_to_the_first_contains_anything_of_the_second(two: Two) -> None:
    http, token = two.stack.http, two.token(two.a)
    chat, mint_ = "/v1/chat/completions", "/v1/auth/mint"
    page = bearer(token, two.a.origin)
    replies = [
        http.post(chat, headers=page, json=ask()),
        http.post(chat, headers=page, json=ask(stream=True)),
        http.post(chat, headers=page, json=ask(model="x")),
        http.post(chat, headers=page, json=ask({"do": "fail", "status": 500})),
        http.post(chat, headers=page, content=b"{"),
        http.post(chat, headers=bearer(token, "https://charlie.example"), json=ask()),
        http.post(chat, headers=bearer("x", two.a.origin), json=ask()),
        http.post(chat, headers=bearer(two.a.key), json=ask()),
        http.post(chat, headers=bearer(two.a.key, two.a.origin), json=ask()),
        http.get("/v1/models", headers=page),
        http.get("/v1/models/default", headers=page),
        http.get("/v1/models/x", headers=page),
        http.post(mint_, headers=bearer(two.a.key), json={"user_id": "u", "tier": "x"}),
        http.post(mint_, headers=bearer(two.a.key), json={"user_id": "alpha-bad"}),
        http.post(mint_, headers=bearer(two.a.key), json={"user_id": "u"}),
        http.get("/.well-known/jwks.json"),
        *(
            http.get("/v1/cors", headers={"Origin": origin})
            for origin in (two.a.origin, "https://b-pages.example", "https://example", "null", "x")
        ),
        *(
            http.options("/v1/models", headers={"Origin": origin})
            for origin in (two.a.origin, "https://b-pages.example")
        ),
    ]
    for reply in replies:
        assert CANARY not in told(reply), reply.request


def test_operator_of_the_first_sees_the_second_only_where_he_asks_for_all(two: Two) -> None:
    for path in ("", "/keys", "/tiers"):
        reply = two.admin.send("GET", f"projects/{two.a.pid}{path}")
        assert reply.status_code == 200
        assert CANARY not in told(reply)
    verdict = two.admin("GET", f"projects/{two.a.pid}/origins/verdict?origin={two.b.origin}")
    assert (verdict["allowed"], verdict["reason"]) == (False, "listed_elsewhere")


def test_refused_page_is_noted_where_it_called_and_not_where_it_is_listed(two: Two) -> None:
    http, token = two.stack.http, two.token(two.a)

    def noted(side: Side) -> list[str]:
        told = two.admin("GET", f"projects/{side.pid}/origins/refused")["data"]
        return [each["origin"] for each in told]

    def refused_and_noted() -> bool:  # a process notes one in five seconds
        reply = http.get("/v1/models", headers=bearer(token, two.b.origin))
        envelope(reply, 403, "origin_not_allowed")
        return two.b.origin in noted(two.a)

    soon(refused_and_noted)
    assert two.b.origin not in noted(two.b)


# ---------------------------------------------------------------- off, and on again


def test_blocked_user_is_refused_on_the_very_next_request_and_his_namesake_is_not(two: Two) -> None:
    tokens = {side.pid: two.token(side, "same") for side in (two.a, two.b)}
    for off in (True, False, True, False):
        two.switch("user", off, project=two.b.pid, user_id="same")
        expected = 403 if off else 200
        for reply in (
            two.chat(tokens[two.b.pid]),
            two.mint(two.b, "same"),
            two.stack.http.get("/v1/models", headers=bearer(tokens[two.b.pid])),
        ):
            assert reply.status_code == expected, reply.text
            if off:
                error = envelope(reply, 403, "forbidden")
                assert error["details"] == {"reason": "killed", "scope": "user"}
        assert two.chat(tokens[two.a.pid]).status_code == 200
        assert two.mint(two.a, "same").status_code == 200
        assert two.mint(two.b, "Same").status_code == 200, "an id is exactly itself"


def test_revoked_key_makes_no_token_from_that_moment_on(two: Two) -> None:
    made = two.admin("POST", f"projects/{two.b.pid}/keys", {"scopes": ["mint", "api:read"]}, 201)
    token = mint(two.stack, made["secret"])
    assert two.stack.http.get("/v1/models", headers=bearer(made["secret"])).status_code == 200
    two.admin("DELETE", f"projects/{two.b.pid}/keys/{made['key_id']}", None, 204)
    for reply in (
        two.stack.http.post(
            "/v1/auth/mint", headers=bearer(made["secret"]), json={"user_id": "u_1"}
        ),
        two.stack.http.get("/v1/models", headers=bearer(made["secret"])),
    ):
        error = envelope(reply, 401, "invalid_token")
        assert error["details"] == {"reason": "unknown_api_key"}
    soon(lambda: two.chat(token).status_code == 401)  # what it has made goes with it
    assert two.mint(two.b).status_code == two.mint(two.a).status_code == 200


def test_every_switch_counts_within_5_s_for_what_it_names_and_for_nothing_else(two: Two) -> None:
    """In as few steps as can be: each lasts as long as a process may keep what it has read."""
    a, b = two.token(two.a), two.token(two.b)

    def seen() -> tuple[int, ...]:
        """By the second project: mint, chat, models; by the first: chat, with the shared model."""
        models = two.stack.http.get("/v1/models", headers=bearer(b))
        return (
            two.mint(two.b).status_code,
            two.chat(b).status_code,
            models.status_code,
            two.chat(a).status_code,
            two.chat(a, model="shared-model").status_code,
        )

    assert seen() == (200, 200, 200, 200, 200)

    two.admin("PATCH", f"projects/{two.b.pid}", {"status": "suspended"})
    two.switch("model", True, model="shared-model")
    soon(lambda: seen() == (401, 401, 401, 200, 403))
    for reply in (two.mint(two.b), two.chat(b, two.b.origin)):
        error = envelope(reply, 401, "invalid_token")
        assert error["details"] == {"reason": "project_suspended"}
    assert reply.headers["access-control-allow-origin"] == two.b.origin
    error = envelope(two.chat(a, model="shared-model"), 403, "forbidden")
    assert error["details"] == {"reason": "killed", "scope": "model"}
    soon(lambda: listed(two, a) == ["default", "alpha-model"])
    assert two.mint(two.a).status_code == 200

    two.admin("PATCH", f"projects/{two.b.pid}", {"status": "active"})
    two.switch("model", False, model="shared-model")
    two.switch("project", True, project=two.b.pid, reason="abuse")
    soon(lambda: seen() == (403, 403, 403, 200, 200))
    for reply in (two.mint(two.b), two.chat(b, two.b.origin)):
        error = envelope(reply, 403, "forbidden")
        assert error["details"] == {"reason": "killed", "scope": "project"}
        assert "abuse" not in reply.text, "the operator's reason is his own"
    assert two.mint(two.a).status_code == 200

    two.switch("project", False, project=two.b.pid)
    two.switch("tenant", True, reason="all of it")
    soon(lambda: seen() == (403, 403, 403, 403, 403) and two.mint(two.a).status_code == 403)
    error = envelope(two.chat(a), 403, "forbidden")
    assert error["details"] == {"reason": "killed", "scope": "tenant"}
    off = two.admin("GET", "kill-switches")["data"]
    assert [each["scope"] for each in off if each["scope"] != "user"] == ["tenant"]

    two.switch("tenant", False)
    soon(lambda: seen() == (200, 200, 200, 200, 200) and two.mint(two.a).status_code == 200)
    assert two.admin("GET", f"projects/{two.b.pid}")["killed"] is None


def listed(two: Two, token: str) -> list[str]:
    data = two.stack.http.get("/v1/models", headers=bearer(token)).json()["data"]
    return [each["id"] for each in data]
