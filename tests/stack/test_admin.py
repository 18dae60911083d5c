"""The admin API as an operator uses it, over HTTP: what he sets counts, and nothing is lost."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.provider import FakeProvider
from tests.stack.admin import ADMIN, UNLIMITED, Admin, bearer, mint, model, soon
from tests.stack.conftest import ORIGIN, Stack, ask, envelope

CANARY = "canary-provider-key-9Z8Y"


@pytest.fixture(scope="module")
def admin(stack: Stack, provider: FakeProvider) -> Admin:
    """With what takes its seconds until every process knows it: models."""
    one = Admin(stack)
    one("PUT", "models/later", model("local", "fake-later", aliases=["fc:local/later"]))
    one("PUT", "upstreams/moving", {"kind": "openai", "base_url": provider.url})
    one("PUT", "upstreams/moving/key", {"key": CANARY})
    one("PUT", "models/moved", model("moving", "fake-moved"))
    return one


def chat(stack: Stack, token: str, origin: str | None = None, **more: Any) -> httpx.Response:
    headers = bearer(token, origin)
    return stack.http.post("/v1/chat/completions", headers=headers, json=ask(**more))


# ---------------------------------------------------------------- what is set counts


def test_new_project_chats_after_four_calls(stack: Stack, admin: Admin) -> None:
    made = admin("POST", "projects", {"pid": "shop", "default_model": "fake-large"}, 201)
    assert made == admin("GET", "projects/shop")
    assert (made["status"], made["origins"], made["models"]) == ("active", [], None)
    (in_list,) = [p for p in admin("GET", "projects")["data"] if p["pid"] == "shop"]
    assert in_list.items() <= made.items()
    assert "system_prompt" not in in_list, "a list of long texts would not fit into an answer"
    key = admin("POST", "projects/shop/keys", {"name": "server"}, 201)
    assert key["secret"].startswith(key["display"])
    (listed,) = admin("GET", "projects/shop/keys")["data"]
    assert listed == {name: value for name, value in key.items() if name != "secret"}
    token = mint(stack, key["secret"])
    assert chat(stack, token).json()["choices"][0]["message"]["content"] == "Hello!"
    assert admin("GET", "projects/shop/keys")["data"][0]["last_used_at"] is not None


def test_change_of_origins_models_prompt_and_tiers_counts_within_5_s(
    stack: Stack, admin: Admin, provider: FakeProvider
) -> None:
    before = {"origins": ["https://before.example"], "default_model": "fake-large"}
    admin.project("changing", **before, **UNLIMITED)
    key = admin.key("changing")
    token = mint(stack, key)
    assert chat(stack, token, "https://before.example").status_code == 200
    admin(
        "PATCH",
        "projects/changing",
        {
            "origins": ["https://AFTER.example:443/"],
            "models": ["later"],
            "default_model": "fc:local/later",
            "system_prompt": "You are later.",
        },
    )
    admin("PUT", "projects/changing/tiers/gold", {"max_output_tokens": 7})

    def counts() -> bool:
        before = chat(stack, token, "https://before.example").status_code
        return (before, chat(stack, token, "https://after.example").status_code) == (403, 200)

    def gold() -> bool:
        body = {"user_id": "u_1", "tier": "gold"}
        reply = stack.http.post("/v1/auth/mint", headers=bearer(key), json=body)
        return reply.status_code == 200

    soon(counts)
    soon(gold)
    assert provider.requests[-1]["model"] == "fake-later"
    assert provider.requests[-1]["messages"][0]["content"] == "You are later."
    other = mint(stack, key, "u_2", tier="gold")  # whose requests nobody has counted yet
    assert chat(stack, other, max_tokens=50).status_code == 200
    assert provider.requests[-1]["max_completion_tokens"] == 7
    envelope(chat(stack, token, model="fake-large"), 400, "validation_error")
    (tier,) = [t for t in admin("GET", "projects/changing/tiers")["data"] if t["name"] == "gold"]
    assert (tier["number"], tier["changed"]) == (4, ["max_output_tokens"])
    assert tier["limits"]["rpm"] == 10, "what it does not set is the first tier's"


FULL = {
    "name": "Full",
    "origins": ["https://full.example"],
    "preview_origins": ["https://*.full.example"],
    "models": ["fake-large"],
    "default_model": "fake-large",
    "system_prompt": "You are full.",
    "limits": {"rpm": 1, "usd_per_month": 2.5},
    "user_limits": {"rpm": 2, "tpm": None},
    "status": "suspended",
    "ledger_shards": 4,
}


@pytest.mark.parametrize("field", FULL)
def test_patch_changes_what_it_names_and_leaves_the_rest(admin: Admin, field: str) -> None:
    other: dict[str, Any] = {
        "name": "Other",
        "origins": [],
        "preview_origins": [],
        "models": None,
        "default_model": None,
        "system_prompt": None,
        "limits": None,
        "user_limits": {"tpm": 5},
        "status": "active",
        "ledger_shards": 1,
    }
    becomes = {**other, "limits": {}, "user_limits": {"rpm": 2, "tpm": 5}}
    before = admin.project("full", **FULL)
    assert {name: before[name] for name in FULL} == FULL
    after = admin("PATCH", "projects/full", {field: other[field]})
    assert after == {**before, field: becomes[field]}
    assert admin("PATCH", "projects/full", {}) == after


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "projects", {"pid": "full"}, None),
        ("DELETE", "models/fake-large", None, None),
        ("DELETE", "upstreams/local", None, None),
        ("PUT", "projects/full/tiers/fourth", {}, None),
    ],
)
def test_what_does_not_fit_what_is_there_is_a_conflict(
    admin: Admin, method: str, path: str, body: Any, param: str | None
) -> None:
    admin.project("full", **FULL)
    for name in ("one", "two", "three"):
        admin("PUT", f"projects/full/tiers/{name}", {"rpm": 1})
    before = admin.everything()
    reply = admin.send(method, path, body)
    assert envelope(reply, 409, "conflict")["param"] == param
    assert reply.headers["x-should-retry"] == "false"
    assert admin.everything() == before


# ---------------------------------------------------------------- what cannot be understood


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("PATCH", "projects/full", {"orgins": []}, "orgins"),
        ("PATCH", "projects/full", {"limits": {"rpmm": 1}}, "limits.rpmm"),
        ("PATCH", "projects/full", {"limits": {"rpm": "5"}}, "limits.rpm"),
        ("PATCH", "projects/full", {"limits": {"rpm": True}}, "limits.rpm"),
        ("PATCH", "projects/full", {"limits": {"rpm": -1}}, "limits.rpm"),
        ("PATCH", "projects/full", {"limits": {"usd_per_month": 1e-7}}, "limits.usd_per_month"),
        ("PATCH", "projects/full", {"origins": ["https://a.example/path"]}, "origins.0"),
        ("PATCH", "projects/full", {"origins": ["https://*.example"]}, "origins.0"),
        ("PATCH", "projects/full", {"origins": ["null"]}, "origins.0"),
        ("PATCH", "projects/full", {"preview_origins": ["https://*.co.uk"]}, "preview_origins.0"),
        ("PATCH", "projects/full", {"models": ["nobodys"]}, "models"),
        ("PATCH", "projects/full", {"default_model": "nobodys"}, "default_model"),
        ("PATCH", "projects/full", {"pid": "other"}, "pid"),
        ("PATCH", "projects/full", {"created_at": 1}, "created_at"),
        ("PATCH", "projects/full", {"killed": None}, "killed"),
        ("POST", "projects", {}, "pid"),
        ("POST", "projects", {"pid": "Upper"}, "pid"),
        ("POST", "projects", {"pid": "a#b"}, "pid"),
        ("POST", "projects/full/keys", {"scopes": ["admin"]}, "scopes.0"),
        ("POST", "projects/full/keys", {"scopes": []}, "scopes"),
        ("POST", "projects/full/keys", {"role": "root"}, "role"),
        ("PUT", "models/new", {"candidates": []}, "candidates"),
        ("PUT", "upstreams/new", {"kind": "openai", "base_url": "http://x.example"}, None),
        ("PUT", "upstreams/local/key", {"key": "with space in it"}, "key"),
        ("PUT", "kill-switches", {"scope": "user", "off": True, "project": "full"}, None),
        ("GET", "audit?limit=0", None, "query.limit"),
        ("GET", "audit?cursor=x", None, "query.cursor"),
    ],
)  # fmt: skip
def test_wrong_field_is_named_and_nothing_is_changed(
    admin: Admin, method: str, path: str, body: Any, param: str | None
) -> None:
    admin.project("full", **FULL)
    before = admin.everything()
    error = envelope(admin.send(method, path, body), 400, "validation_error")
    assert error["param"] == param, error
    assert ".." not in error["message"]
    assert admin.everything() == before


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b'{"name": "x"} {}', 400),
        (b"{'name': 'x'}", 400),
        (b'{"limits": {"usd_per_month": NaN}}', 400),
        (b'{"limits": {"usd_per_month": Infinity}}', 400),
        (b'{"limits": {"usd_per_month": 1e999}}', 400),
        (b'{"limits": {"rpm": ' + b"9" * 5000 + b"}}", 400),
        (b"[" * 10_000, 400),
        (b"[" * 10_000 + b"]" * 10_000, 400),
        (b'{"name": ' * 10_000 + b"1" + b"}" * 10_000, 400),
        (b'{"name": ' + b"[" * 500 + b"]" * 500 + b"}", 400),
        (b'{"name": "\\ud800"}', 400),
        (b'{"system_prompt": "\\udc00 and \\ud83d"}', 400),
        (b'{"\\ud800": 1}', 400),
        (b'{"name": "\\u0000"}', 400),
        (b'{"name": "a\\u001bb"}', 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b"", 400),
        (b'{"name": "' + b"x" * 1_100_000 + b'"}', 413),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_body_that_cannot_be_read_is_refused_in_the_envelope(
    admin: Admin, content: bytes, status: int
) -> None:
    before = admin.project("full", **FULL)
    reply = admin.send("PATCH", "projects/full", content=content)
    envelope(reply, status, "request_too_large" if status == 413 else "validation_error")
    assert "\ud800" not in reply.text
    assert admin("GET", "projects/full") == before


@pytest.mark.parametrize(
    "media_type",
    ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "x", None],
)
def test_body_is_json_whatever_it_is_called(admin: Admin, media_type: str | None) -> None:
    """curl -d says that it is a form."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    content = json.dumps({"name": f"Sent as {media_type}, with ümläuts"}).encode()
    admin.project("full", **FULL)
    reply = admin.send("PATCH", "projects/full", content=content, headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["name"] == f"Sent as {media_type}, with ümläuts"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "nothing"),
        ("GET", "projects/nobody"),
        ("GET", "projects/nobody/keys"),
        ("GET", "projects/nobody/tiers"),
        ("GET", "projects/nobody/origins/refused"),
        ("GET", "models/nobodys"),
        ("GET", "upstreams/nobodys"),
        ("DELETE", "projects/full"),
        ("DELETE", "projects/full/keys/key_0000000000000000"),
        ("DELETE", "models/nobodys"),
        ("DELETE", "upstreams/nobodys/key"),
        ("POST", "configuration"),
        ("OPTIONS", "projects"),
    ],
)
def test_what_is_not_there_is_a_404(admin: Admin, method: str, path: str) -> None:
    admin.project("full", **FULL)
    envelope(admin.send(method, path), 404, "not_found")


# ---------------------------------------------------------------- several at once


def test_two_operators_at_once_lose_no_update_and_the_union_of_origins_is_right(
    stack: Stack, admin: Admin
) -> None:
    """Eight writers of two projects; each field has one writer, whose last word must stand."""
    admins = [admin, Admin(stack, "second@example.com")]
    pids = ["left", "right"]
    for pid in pids:
        admin.project(pid)
    rounds, workers = 8, 8
    together = threading.Barrier(workers)
    values: dict[str, Callable[[str, int], Any]] = {
        "origins": lambda pid, n: ["https://a.example", f"https://{pid}{n}.example"][n % 2 :],
        "preview_origins": lambda pid, n: [f"https://*.{pid}{n}.example"],
        "name": lambda pid, n: f"{pid} {n}",
        "user_limits": lambda pid, n: {"rpm": n},
    }

    def write(worker: int) -> None:
        pid, field = pids[worker % 2], list(values)[worker // 2]
        for number in range(rounds):
            together.wait(timeout=15)
            told = {field: values[field](pid, number)}
            for _ in range(10):  # a collision is told, and the operator tries again
                reply = admins[worker % 2].send("PATCH", f"projects/{pid}", told)
                if reply.status_code != 409:
                    break
            assert reply.status_code == 200, reply.text
            assert reply.json()[field] == told[field]

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(write, range(workers)))

    for pid in pids:
        left = admin("GET", f"projects/{pid}")
        expected = {field: value(pid, rounds - 1) for field, value in values.items()}
        assert {field: left[field] for field in values} == expected
    item = stack.aws("dynamodb").get_item(
        TableName=stack.outputs()["TableName"],
        Key={"pk": {"S": "TENANT"}, "sk": {"S": "ORIGINS"}},
        ConsistentRead=True,
    )["Item"]
    projects = [admin("GET", f"projects/{p['pid']}") for p in admin("GET", "projects")["data"]]
    assert json.loads(item["doc"]["S"]) == {
        field: sorted({origin for project in projects for origin in project[field]})
        for field in ("origins", "preview_origins")
    }
    actors = {entry["actor"].split()[-1] for entry in admin("GET", "audit?limit=100")["data"]}
    assert {ADMIN, "second@example.com"} <= actors


# ---------------------------------------------------------------- export, import, audit


def test_exported_file_is_imported_without_a_change_and_a_changed_one_as_a_whole(
    admin: Admin,
) -> None:
    admin.project("full", **{**FULL, "limits": {"rpm": None}})
    exported = admin("GET", "configuration")
    assert exported["projects"]["full"]["limits"] == {"rpm": None}, "no limit, said so"
    assert exported["projects"]["full"]["user_limits"] == FULL["user_limits"]
    before = admin.everything()
    assert admin("PUT", "configuration", exported) == {"applied": True, "changes": []}
    assert admin.everything() == before

    changed = {
        "format": exported["format"],
        "projects": {
            "full": {**exported["projects"]["full"], "name": "Imported"},
            "new-one": {"origins": ["https://new-one.example"], "tiers": {"pro": {"number": 2}}},
        },
    }
    dry = admin("PUT", "configuration?dry_run=true", changed)
    assert dry["applied"] is False
    assert [change["target"] for change in dry["changes"]] == ["full", "new-one"]
    assert admin.everything() == before

    broken = {**changed, "projects": {**changed["projects"], "bad": {"models": ["nobodys"]}}}
    envelope(admin.send("PUT", "configuration", broken), 400, "validation_error")
    assert admin.everything() == before, "all or nothing"

    applied = admin("PUT", "configuration", changed)
    assert applied["applied"] is True
    for planned, done in zip(dry["changes"], applied["changes"], strict=True):
        assert {**planned["after"], "created_at": 0} == {**done["after"], "created_at": 0}
    assert admin("GET", "projects/full")["name"] == "Imported"
    assert admin("GET", "projects/new-one")["origins"] == ["https://new-one.example"]


def test_import_leaves_keys_switches_and_users_as_they_are(stack: Stack, admin: Admin) -> None:
    admin.project("kept", default_model="fake-large")
    key = admin.key("kept")
    off = {"scope": "user", "project": "kept", "user_id": "bad", "off": True, "reason": "spam"}
    admin("PUT", "kill-switches", off, 204)
    switches, upstreams = admin("GET", "kill-switches"), admin("GET", "upstreams")
    admin("PUT", "configuration", admin("GET", "configuration"))
    assert admin("GET", "kill-switches") == switches
    assert admin("GET", "upstreams") == upstreams
    assert chat(stack, mint(stack, key)).status_code == 200
    admin("PUT", "kill-switches", {**off, "off": False}, 204)


def test_audit_trail_is_paged_names_the_operator_and_has_every_change_once(admin: Admin) -> None:
    admin.project("trail")
    for number in range(5):
        admin("PATCH", "projects/trail", {"name": f"n{number}"})
    admin("PATCH", "projects/trail", {"name": "n4"})  # nothing changes: nothing to tell
    pages, cursor = [], ""
    for _ in range(3):
        page = admin("GET", f"audit?limit=2{cursor}")
        assert (len(page["data"]), page["has_more"]) == (2, True)
        assert page["next_cursor"] == page["data"][-1]["id"]
        pages += page["data"]
        cursor = "&cursor=" + page["next_cursor"].replace("#", "%23")
    assert [entry["after"].get("name") for entry in pages] == ["n4", "n3", "n2", "n1", "n0", None]
    assert [entry["action"] for entry in pages] == ["project.update"] * 5 + ["project.create"]
    assert pages[0]["before"] == {"name": "n3"}
    assert pages == admin("GET", "audit?limit=6")["data"]
    for entry in pages:
        assert entry["actor"].startswith("cognito:")
        assert entry["actor"].endswith(f" {ADMIN}")
        assert entry["target"] == "trail"
    whole = admin("GET", "audit?limit=100")
    while whole["has_more"]:
        cursor = whole["next_cursor"].replace("#", "%23")
        whole = admin("GET", f"audit?limit=100&cursor={cursor}")
    assert whole["next_cursor"] is None


# ---------------------------------------------------------------- secrets


def test_providers_key_is_shown_nowhere_but_for_its_last_four_characters(
    stack: Stack, admin: Admin
) -> None:
    admin("PUT", "upstreams/secretive", {"kind": "openai", "base_url": "https://s.example/v1"})
    assert admin("GET", "upstreams/secretive")["key_last4"] is None
    told = admin("PUT", "upstreams/secretive/key", {"key": CANARY})
    assert told["key_last4"] == CANARY[-4:]
    admin("PUT", "upstreams/secretive/key", {"key": CANARY})
    # One that is refused is not repeated either.
    for wrong in (f"{CANARY} and more", CANARY * 100):
        reply = admin.send("PUT", "upstreams/secretive/key", {"key": wrong})
        envelope(reply, 400, "validation_error")
        assert CANARY not in reply.text
    key = admin.key("shop") if admin.send("GET", "projects/shop").is_success else None
    said = [
        admin.send("GET", path).text
        for path in (
            "upstreams",
            "upstreams/secretive",
            "configuration",
            "audit?limit=100",
            "models",
            "projects",
            "tenant",
            "kill-switches",
            "projects/default/keys",
        )
    ]
    said += [log.read_text(errors="replace") for log in (stack.directory / "logs").glob("*.log")]
    for text in said:
        assert CANARY not in text
        assert key is None or key not in text
        assert stack.env["BEHEST_KEY"] not in text
        assert "provider-secret-key" not in text
        assert admin.token not in text
    assert json.loads(said[1])["key_last4"] == CANARY[-4:]
    _, again, *_ = [
        entry
        for entry in admin("GET", "audit?limit=100")["data"]
        if entry["action"] == "upstream.key.set" and entry["target"] == "secretive"
    ]
    assert again["after"] == {"key_last4": CANARY[-4:]}
    admin("DELETE", "upstreams/secretive/key", None, 204)
    assert admin("GET", "upstreams/secretive")["key_last4"] is None
    admin("DELETE", "upstreams/secretive", None, 204)


@pytest.fixture
def elsewhere() -> Iterator[FakeProvider]:
    """A provider on another host."""
    fake = FakeProvider()
    yield fake
    fake.close()


def test_key_is_never_sent_to_another_host_than_it_was_set_for(
    stack: Stack, admin: Admin, provider: FakeProvider, elsewhere: FakeProvider
) -> None:
    admin.project("mover", default_model="moved", **UNLIMITED)
    token = mint(stack, admin.key("mover"))
    soon(lambda: chat(stack, token).status_code == 200)  # the new model is in the catalogue
    assert provider.headers[-1]["authorization"] == f"Bearer {CANARY}"

    moved = admin("PUT", "upstreams/moving", {"kind": "openai", "base_url": elsewhere.url})
    assert moved["key_last4"] is None
    soon(lambda: chat(stack, token).status_code == 503)
    for _ in range(3):
        envelope(chat(stack, token), 503, "upstream_not_configured")
    assert elsewhere.requests == []

    admin("PUT", "upstreams/moving/key", {"key": "another-key-1234"})
    assert chat(stack, token).status_code == 200, "a key that was missing counts at once"
    assert [sent["authorization"] for sent in elsewhere.headers] == ["Bearer another-key-1234"]
    assert CANARY not in json.dumps(elsewhere.headers)


# ---------------------------------------------------------------- why a page may not call


@pytest.mark.parametrize(
    ("origin", "allowed", "reason"),
    [
        (ORIGIN, True, "allowed"),
        ("https://localhost:5173", False, "scheme"),
        ("http://localhost:9", False, "port"),
        ("http://[::1]:5173", False, "host"),
        ("https://nobody.test", False, "not_listed"),
        ("null", False, "null_origin"),
        ("http://localhost:5173/", False, "trailing_slash"),
        (None, False, "no_origin"),
    ],
)
def test_page_is_told_about_its_own_origin_and_no_other(
    stack: Stack, admin: Admin, origin: str | None, allowed: bool, reason: str
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    reply = stack.http.get("/v1/cors", headers=headers)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in reply.headers
    assert reply.headers["cache-control"] == "no-store"
    told = reply.json()
    assert set(told) == {"origin", "allowed", "reason", "message"}
    assert (told["origin"], told["allowed"], told["reason"]) == (origin, allowed, reason)
    lists = [project["origins"] for project in admin("GET", "projects")["data"]]
    for other in {each for origins in lists for each in origins}:
        assert other not in reply.text or other.startswith("http://"), "of this machine at most"
