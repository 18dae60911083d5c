"""Usage as callers read it: what the chats of two users took, added up in every way, and who may
see it.
"""

import csv
import io
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.provider import USAGE
from tests.stack.admin import UNLIMITED, Admin, bearer, mint, model
from tests.stack.conftest import ORIGIN, Stack, ask, envelope
from tests.stack.store import Books

PID, OTHER = "usage-shop", "usage-other"
CANARY = "usage-canary"
SUMMED_WITHIN_S = 5
MODELS = ("usage-large", "usage-small")
COUNTS = ("requests", "input_tokens", "output_tokens")
# User, session, thread, tag, model.
CHATS = [
    ("ann", "s-1", None, "red", MODELS[0]),
    ("ann", "s-1", "t-1", "red", MODELS[1]),
    ("ann", "s-2", None, None, MODELS[0]),
    ("bob", "s-3", "t-2", "blue", MODELS[1]),
    ("bob", "s-3", None, "red", MODELS[1]),
    ("bob", "=s-4+1", None, "red", MODELS[0]),
    ("bob", "s-3", "t-2", "blue", MODELS[1]),
]


@dataclass(frozen=True)
class Shop:
    stack: Stack
    admin: Admin
    tokens: dict[str, str]
    admins: str  # a user token of role admin
    reads: str  # API keys: of scope api:read, and of scope mint
    mints: str

    def get(self, path: str, credential: str, **more: Any) -> httpx.Response:
        origin = more.pop("origin", None)
        return self.stack.http.get(
            path,
            headers=bearer(credential, origin) | more.pop("headers", {}),
            params={name.rstrip("_"): value for name, value in more.items()},
        )

    def usage(self, credential: str | None = None, **query: Any) -> dict[str, Any]:
        reply = self.get("/v1/usage", credential or self.reads, **query)
        assert reply.status_code == 200, reply.text
        told = reply.json()
        assert isinstance(told, dict)
        return told

    def chat(self, user: str, session: str, thread: str | None, tag: str | None, name: str) -> None:
        said = {"X-Session-Id": session, "X-Thread-Id": thread, "FC-Tag": tag}
        named = {name: value for name, value in said.items() if value is not None}
        headers = bearer(self.tokens[user]) | named
        body = ask(model=name)
        reply = self.stack.http.post("/v1/chat/completions", headers=headers, json=body)
        assert reply.status_code == 200, reply.text

    def rows(self) -> list[dict[str, Any]]:
        """Of this project, once all of them are in their sums."""
        give_up = time.monotonic() + SUMMED_WITHIN_S
        while True:
            rows = Books(self.stack).of(f"USAGE#{PID}#")
            if rows and all(each.get("summed") for each in rows):
                return rows
            assert time.monotonic() < give_up, "usage was not added up in time"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Shop:
    admin = Admin(stack)
    for name in MODELS:
        admin("PUT", f"models/{name}", {**model("local", "fake-large")})
    for pid in (PID, OTHER):
        admin.project(pid, origins=[ORIGIN], **UNLIMITED)
    key = admin.key(PID, role="admin")
    made = Shop(
        stack,
        admin,
        {user: mint(stack, key, user, role="user") for user in ("ann", "bob")},
        mint(stack, key, "boss", role="admin"),
        admin.key(PID, scopes=["api:read"]),
        key,
    )
    for chat in CHATS:
        made.chat(*chat)
    others = mint(stack, admin.key(OTHER), CANARY)
    stack.http.post(
        "/v1/chat/completions",
        headers=bearer(others) | {"X-Session-Id": CANARY, "FC-Tag": CANARY},
        json=ask(model=MODELS[0]),
    )
    made.rows()
    return made


def expected(rows: list[dict[str, Any]], attribute: str) -> dict[Any, tuple[int, int]]:
    """Requests and nano-USD by this attribute of the rows."""
    requests: Counter[Any] = Counter()
    money: Counter[Any] = Counter()
    for row in rows:
        requests[row.get(attribute)] += 1
        money[row.get(attribute)] += row["nano_usd"]
    return {key: (requests[key], money[key]) for key in requests}


def nano(told: dict[str, Any]) -> int:
    return round(float(told["cost_usd"]) * 1e9)


# ---------------------------------------------------------------- adding up


@pytest.mark.parametrize(
    ("group_by", "attribute"),
    [
        ("user", "uid"),
        ("session", "session_id"),
        ("thread", "thread_id"),
        ("tag", "tag"),
        ("model", "model"),
    ],
)
def test_every_grouping_adds_up_to_the_rows(shop: Shop, group_by: str, attribute: str) -> None:
    rows = shop.rows()
    for who, credential, user in (
        ("the project", shop.reads, None),
        ("an admin", shop.admins, None),
        ("of one user", shop.reads, "bob"),
        ("himself", shop.tokens["bob"], "bob"),
    ):
        named = {"user_id": user} if who == "of one user" else {}
        told = shop.usage(credential, group_by=group_by, **named)
        theirs = [row for row in rows if user in (None, row["uid"])]
        found = {each["key"]: (each["requests"], nano(each)) for each in told["data"]}
        assert found == expected(theirs, attribute), who
        assert told["total_requests"] == len(theirs)
        assert nano(told["totals"]) == sum(row["nano_usd"] for row in theirs) > 0
        assert told["prompt_tokens"] == USAGE["prompt_tokens"] * len(theirs)
        assert told["completion_tokens"] == USAGE["completion_tokens"] * len(theirs)


@pytest.mark.parametrize("granularity", ["minute", "hour", "day"])
def test_breakdown_adds_up_to_the_rows_in_the_shape_that_the_published_clients_read(
    shop: Shop, granularity: str
) -> None:
    rows = shop.rows()
    # As one of them sends it: its + is raw, and arrives as a space.
    begins = time.strftime("%Y-%m-%dT00:00:00+00:00", time.gmtime(rows[0]["at_ms"] / 1000))
    for credential, query in ((shop.reads, ""), (shop.reads, "&user_id=ann"), (shop.admins, "")):
        reply = shop.stack.http.get(
            f"/v1/usage?from={begins}&granularity={granularity}{query}", headers=bearer(credential)
        )
        assert reply.status_code == 200, reply.text
        told = reply.json()
        theirs = [row for row in rows if not query or row["uid"] == "ann"]
        assert told["totals"]["tokens"] == 12 * len(theirs)
        assert nano(told["totals"]) == sum(row["nano_usd"] for row in theirs)
        for name in ("tokens", "requests"):
            assert sum(each[name] for each in told["breakdown"]) == told["totals"][name]
        assert sum(map(nano, told["breakdown"])) == nano(told["totals"])
        assert all(each["timestamp"].endswith("Z") for each in told["breakdown"])


def test_filters_choose_the_rows_that_they_name(shop: Shop) -> None:
    rows = shop.rows()
    for name, value in (
        ("session_id", "s-3"),
        ("thread_id", "t-2"),
        ("tag", "red"),
        ("model", MODELS[1]),
        ("tag", "nobody's"),
    ):
        chosen = [row for row in rows if row.get(name) == value]
        told = shop.usage(**{name: value})
        assert told["total_requests"] == len(chosen), name
        assert nano(told["totals"]) == sum(row["nano_usd"] for row in chosen), name


def test_billing_and_the_operators_answer_say_the_same(shop: Shop) -> None:
    rows = shop.rows()
    told = shop.get("/v1/billing/usage", shop.reads).json()
    usage = shop.usage(group_by="model")
    assert told["project_id"] == PID
    assert told["window"] == {"from": usage["from"], "to": usage["to"]}
    assert told["platform"] == {
        **{name: usage["totals"][name] for name in (*COUNTS, "cost_usd")},
        "by_model": [
            {"model": each["key"], "requests": each["requests"], "cost_usd": each["cost_usd"]}
            for each in usage["data"]
        ],
    }
    assert set(told["byok"]) == set(told["platform"])
    assert not any(told["byok"].values())
    month = time.strftime("%Y%m", time.gmtime(rows[0]["at_ms"] / 1000))
    path = f"projects/{PID}/usage"
    by_month = shop.admin("GET", f"{path}?group_by=model&month={month}")
    assert {**by_month, "to": usage["to"]} == usage
    own = shop.admin("GET", f"{path}?user_id=ann&granularity=hour&group_by=session")
    assert own == shop.usage(shop.tokens["ann"], granularity="hour", group_by="session")
    refused = shop.admin.send("GET", f"{path}?month={month}&from=2026-01-01")
    assert envelope(refused, 400, "validation_error")["param"] == "month"
    envelope(shop.admin.send("GET", "projects/no-such/usage"), 404, "not_found")


def test_csv_is_one_line_for_each_group_and_begins_no_formula(shop: Shop) -> None:
    rows = shop.rows()
    for asked in ({"format": "csv"}, {"headers": {"Accept": "text/csv"}}):
        reply = shop.get("/v1/usage", shop.reads, group_by="session", origin=None, **asked)
        assert reply.headers["content-type"].startswith("text/csv")
        lines = list(csv.DictReader(io.StringIO(reply.text, newline="")))
        found = {line["key"]: int(line["requests"]) for line in lines}
        sessions = Counter(row["session_id"] for row in rows)
        assert found == {("'" + key if key[0] == "=" else key): n for key, n in sessions.items()}
        total = sum(round(float(line["cost_usd"]) * 1e9) for line in lines)
        assert total == sum(row["nano_usd"] for row in rows)
    page = shop.get("/v1/usage", shop.reads, group_by="session", format="csv", limit=1)
    assert page.headers["x-next-cursor"]
    # A page may read it, too.
    reply = shop.get("/v1/usage", shop.tokens["ann"], format="csv", origin=ORIGIN)
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    wrong = shop.get("/v1/usage", shop.reads, format="csv", group_by="colour")
    envelope(wrong, 400, "validation_error")


# ---------------------------------------------------------------- who may see it


def test_user_sees_himself_and_nobody_else(shop: Shop) -> None:
    ann = shop.tokens["ann"]
    mine = shop.usage(ann)
    assert (mine["user_id"], mine["total_requests"]) == ("ann", 3)
    assert shop.usage(ann, user_id="ann") == mine
    assert [each["key"] for each in shop.usage(ann, group_by="user")["data"]] == ["ann"]
    for path in ("/v1/usage", "/v1/billing/usage"):
        for query in ({"user_id": "bob"}, {"customer_id": "cust_1"}):
            reply = shop.get(path, ann, **query)
            assert envelope(reply, 403, "forbidden")["param"] == next(iter(query))
            assert "bob" not in reply.text
    billed = shop.get("/v1/billing/usage", ann).json()
    assert billed["platform"]["requests"] == 3


def test_headers_make_nobody_an_admin(shop: Shop) -> None:
    promising = {"X-Role": "admin", "X-End-User-Id": "bob", "X-Project-Id": OTHER}
    told = shop.get("/v1/usage", shop.tokens["ann"], headers=promising).json()
    assert (told["user_id"], told["project_id"], told["total_requests"]) == ("ann", PID, 3)


def test_whoever_may_see_a_project_sees_no_other(shop: Shop) -> None:
    for credential in (shop.reads, shop.admins):
        for query in (
            {},
            {"user_id": CANARY},
            {"session_id": CANARY},
            {"tag": CANARY},
            {"customer_id": "cust_1"},
            *({"group_by": group} for group in ("user", "session", "tag", "customer")),
        ):
            told = shop.get("/v1/usage", credential, **query)
            assert told.status_code == 200, told.text
            body = told.json()
            assert CANARY not in {each["key"] for each in body["data"]}
            assert body["project_id"] == PID
            assert body["total_requests"] in (0, len(shop.rows()))
        for name in ("project_id", "pid", "project"):
            reply = shop.get("/v1/usage", credential, **{name: OTHER})
            assert envelope(reply, 400, "validation_error")["param"] == name
    theirs = shop.admin("GET", f"projects/{OTHER}/usage?group_by=user")
    assert [each["key"] for each in theirs["data"]] == [CANARY]


def test_key_that_cannot_read_or_that_a_page_holds_sees_nothing(shop: Shop) -> None:
    for path in ("/v1/usage", "/v1/billing/usage"):
        error = envelope(shop.get(path, shop.mints), 401, "invalid_token")
        assert error["details"] == {"reason": "missing_scope"}
        envelope(shop.get(path, shop.reads, origin=ORIGIN), 403, "api_key_in_browser")
        envelope(shop.get(path, "behest_sk_live_" + "0" * 32), 401, "invalid_token")
        envelope(shop.get(path, shop.admin.token), 401, "invalid_token")
        envelope(
            shop.get(path, shop.admins, origin="https://evil.example"), 403, "origin_not_allowed"
        )
        preflight = shop.stack.http.options(
            path, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
        )
        assert preflight.headers["access-control-allow-origin"] == ORIGIN


def test_blocked_user_sees_nothing(shop: Shop) -> None:
    token = mint(shop.stack, shop.mints, "cy", role="user")
    assert shop.usage(token)["total_requests"] == 0
    who = {"scope": "user", "project": PID, "user_id": "cy"}
    shop.admin("PUT", "kill-switches", {**who, "off": True}, 204)
    try:
        for path in ("/v1/usage", "/v1/billing/usage"):
            error = envelope(shop.get(path, token), 403, "forbidden")
            assert error["details"] == {"reason": "killed", "scope": "user"}
    finally:
        shop.admin("PUT", "kill-switches", {**who, "off": False}, 204)


# ---------------------------------------------------------------- pages; last, for it adds to them


def test_pages_meet_every_group_once_while_new_usage_arrives(shop: Shop) -> None:
    before = {row["session_id"] for row in shop.rows()}
    met: list[str] = []
    cursor = ""
    while True:
        told = shop.usage(group_by="session", limit=1, cursor=cursor)
        met += [each["key"] for each in told["data"]]
        if not told["has_more"]:
            break
        cursor = told["next_cursor"]
        if len(met) < 3:  # the one that was last becomes the dearest, and there is a new one
            for session in (min(before - set(met)), f"later-{len(met)}"):
                shop.chat("ann", session, None, None, MODELS[0])
            shop.rows()
    assert len(met) == len(set(met))
    assert before <= set(met)
    with_others = shop.get("/v1/usage", shop.tokens["ann"], group_by="session", cursor=cursor)
    assert envelope(with_others, 400, "validation_error")["param"] == "cursor"
    garbage = shop.get("/v1/usage", shop.reads, cursor="garbage")
    assert envelope(garbage, 400, "validation_error")["param"] == "cursor"
