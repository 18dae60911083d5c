"""Customers and their client tokens over HTTP: contracts/ringside.md, section 14, row by row."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, NamedTuple

import httpx
import pytest

from tests.stack.admin import Admin, bearer
from tests.stack.conftest import Stack

PID, OTHER = "fc", "fc-elsewhere"
PAGE = "https://widget.example"
EVERY = ["api:client_tokens", "api:chat", "api:write", "api:read"]
SEEDS_CUSTOMER = {"external_id": "ext:user_7", "budget_usd": 5.0, "rate_limit_rpm": 30}
SEEDS_TOKEN = {"ttl_seconds": 900, "scope": ["chat"], "origin_allowlist": [PAGE], "bind_ip": True}


class Shop(NamedTuple):
    """A project's server, with an API key of all scopes, and its pages."""

    stack: Stack
    admin: Admin
    key: str
    model: str

    def send(
        self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.stack.http.request(
            method,
            f"/v1/{path}",
            headers={**bearer(key or self.key), **named},
            content=None if body is None else json.dumps(body),
        )

    def __call__(
        self, method: str, path: str, body: Any = None, status: int = 200, **more: Any
    ) -> Any:
        reply = self.send(method, path, body, **more)
        assert reply.status_code == status, f"{method} {path}: {reply.text}"
        return reply.json()

    def customer(self, external_id: str, **told: Any) -> dict[str, Any]:
        made = self("POST", "customers", {"external_id": external_id, **told}, 201)
        assert isinstance(made, dict)
        return made

    def token(self, external_id: str, **told: Any) -> str:
        body = {**SEEDS_TOKEN, **told}
        return str(self("POST", f"customers/ext:{external_id}/client_tokens", body, 201)["token"])

    def chat(
        self, token: str, body: Any = None, origin: str | None = PAGE, **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        asked = {"model": self.model, "messages": [{"role": "user", "content": "hi"}]}
        return self.stack.http.post(
            "/v1/chat/completions",
            headers={
                "Authorization": f"Client {token}",
                **({} if origin is None else {"Origin": origin}),
                **named,
            },
            json={**asked, "max_tokens": 16, **(body or {})},
        )


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Shop:
    admin = Admin(stack)
    default = admin("GET", "projects/default")["default_model"]
    for pid in (PID, OTHER):
        admin.project(
            pid,
            origins=[PAGE, "https://other.example"],
            default_model=default,
            limits={"usd_per_month": 1000, "rpm": None},
            customer_limits={"rpm": None},
            new_customers_per_hour=10_000,
        )
    key = admin.key(PID, contract="ringside", scopes=EVERY)
    listed = stack.http.get("/v1/models", headers=bearer(key)).json()["data"]
    return Shop(stack, admin, key, str(listed[0]["id"]))


def code(reply: httpx.Response) -> tuple[int, str]:
    told = reply.json()
    assert told["code"] == told["error"]["code"], told
    return reply.status_code, told["error"]["code"]


# ---------------------------------------------------------------- rows 1 to 4: customers


def test_row_1_a_repeated_create_is_the_same_customer(shop: Shop) -> None:
    first = shop.send("POST", "customers", SEEDS_CUSTOMER, Idempotency_Key="upsert-7")
    assert first.status_code == 201, first.text
    assert first.json()["external_id"] == "user_7"
    again = shop.send("POST", "customers", SEEDS_CUSTOMER, Idempotency_Key='"upsert-7"')
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.json() == first.json()
    other = {**SEEDS_CUSTOMER, "budget_usd": 6}
    reply = shop.send("POST", "customers", other, Idempotency_Key="upsert-7")
    assert code(reply) == (422, "idempotency_key_reused")


def test_row_2_a_duplicate_without_key_is_a_conflict(shop: Shop) -> None:
    made = shop.customer("twice")
    reply = shop.send("POST", "customers", {"external_id": "ext:twice"})
    assert code(reply) == (409, "external_id_taken")
    assert reply.json()["error"]["details"]["existing_id"] == made["id"]


@pytest.mark.parametrize("key", [None, "one-key"])
def test_row_3_twenty_parallel_first_creates_make_one_customer(shop: Shop, key: str | None) -> None:
    barrier, body = Barrier(20), {"external_id": f"parallel-{key or 0}"}

    def create(_: int) -> httpx.Response:
        barrier.wait()
        named = {"Idempotency_Key": key} if key else {}
        return shop.send("POST", "customers", body, **named)

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(create, range(20)))
    expected = {201} if key else {201, 409}
    assert {reply.status_code for reply in replies} == expected, [r.text for r in replies]
    ids = {
        told.get("id") or told["error"]["details"]["existing_id"]
        for told in (reply.json() for reply in replies)
    }
    assert len(ids) == 1
    (listed,) = shop("GET", f"customers?external_id={body['external_id']}")["data"]
    assert {listed["id"]} == ids


def test_row_4_both_forms_of_an_external_id_reach_one_customer(shop: Shop) -> None:
    made = shop.customer("ext:formed")
    assert shop("GET", "customers/ext:formed") == shop("GET", f"customers/{made['id']}")
    assert shop("GET", f"customers/{made['id'].replace('cust_', 'cus_')}")["id"] == made["id"]
    assert shop("POST", "customers/ext:formed/client_tokens", SEEDS_TOKEN, 201)


# ---------------------------------------------------------------- rows 5 to 8: tokens


def test_rows_5_and_6_a_token_lives_as_long_as_its_backend_says(shop: Shop) -> None:
    shop.customer("lives")
    told = shop("POST", "customers/ext:lives/client_tokens", SEEDS_TOKEN, 201)
    assert abs(told["expires_at"] - time.time() - 900) < 5
    assert told["token"] == told["jwt"]
    for ttl in (59, 3601, True, "60", 1.5):
        body = {**SEEDS_TOKEN, "ttl_seconds": ttl}
        reply = shop.send("POST", "customers/ext:lives/client_tokens", body)
        assert code(reply) == (400, "invalid_request")
    flat = shop("POST", "client_tokens", {"customer": "ext:lives", "origin": PAGE}, 201)
    assert flat["expires_in"] == 60


def test_row_8_the_seeds_browser_loop_reads_the_answer(shop: Shop) -> None:
    shop.customer("streams")
    with shop.stack.http.stream(
        "POST",
        "/v1/chat/completions",
        headers={"Authorization": f"Client {shop.token('streams')}", "Origin": PAGE},
        json={
            "model": shop.model,
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "max_tokens": 16,
        },
    ) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["access-control-allow-origin"] == PAGE
        frames = reply.read().decode().split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2] if frame[0] == "d"]
    assert {chunk["model"] for chunk in chunks} == {shop.model}


def test_row_10_a_page_cannot_name_a_customer(shop: Shop) -> None:
    made = shop.customer("pinned", rate_limit_rpm=1)
    token = shop.token("pinned")
    mismatch = (403, "client_token_customer_mismatch")
    for body in ({"user": "pinned"}, {"user": made["id"]}, {"customer": "cust_x"}):
        reply = shop.chat(token, body)
        assert code(reply) == mismatch
        assert reply.headers["access-control-allow-origin"] == PAGE
    assert code(shop.chat(token, FC_Customer="ext:nobody")) == mismatch
    assert shop.chat(token).status_code == 200  # nothing was counted: there is one a minute


def test_row_12_a_token_is_for_its_pages(shop: Shop) -> None:
    shop.customer("paged")
    token = shop.token("paged")
    for origin in ("https://other.example", None, "null"):
        assert code(shop.chat(token, origin=origin)) == (403, "client_token_origin_mismatch")
    reply = shop.chat(token, origin="https://other.example")
    assert reply.headers["access-control-allow-origin"] == "https://other.example"


def test_row_13_a_token_is_bound_to_an_address(shop: Shop) -> None:
    shop.customer("bound")
    assert shop.chat(shop.token("bound"), X_Forwarded_For="203.0.113.9").status_code == 200
    pinned = shop.token("bound", ip="203.0.113.7")
    assert code(shop.chat(pinned)) == (403, "client_token_ip_mismatch")
    forged = shop.chat(pinned, X_Forwarded_For="203.0.113.7")
    assert code(forged) == (403, "client_token_ip_mismatch")
    assert shop.chat(shop.token("bound", ip="127.0.0.1")).status_code == 200
    assert shop.chat(shop.token("bound", bind_ip=False)).status_code == 200
    reply = shop.send(
        "POST", "customers/ext:bound/client_tokens", {**SEEDS_TOKEN, "ip": "10.0.0.1"}
    )
    assert code(reply) == (400, "invalid_request")
