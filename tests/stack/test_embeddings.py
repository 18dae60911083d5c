"""Embeddings and moderations through the whole running gateway: as OpenAI's own client sends them,
and as the ledger counts them.
"""

import base64
import itertools
import json
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.provider import FakeProvider
from tests.provider.inputs import tokens, vector
from tests.stack.admin import (
    EMBEDDED_NANO_USD,
    UNLIMITED,
    Admin,
    bearer,
    mint,
    set_up_embeddings,
)
from tests.stack.conftest import ORIGIN, Stack, envelope
from tests.stack.store import Books

NANO = 10**9


@dataclass
class Place:
    stack: Stack
    admin: Admin
    numbers: Iterator[int]

    def token(self, **told: Any) -> str:
        """Of a user in a project of their own."""
        pid = f"vectors-{next(self.numbers)}"
        self.admin.project(pid, **{**UNLIMITED, "origins": [ORIGIN], **told})
        return mint(self.stack, self.admin.key(pid))

    def post(self, token: str, what: str = "embeddings", **body: Any) -> httpx.Response:
        model = {"embeddings": "embed", "moderations": "judge"}[what]
        return self.stack.http.post(
            f"/v1/{what}", headers=bearer(token, ORIGIN), json={"model": model, **body}
        )

    def rows(self, token: str, count: int = 1) -> list[dict[str, Any]]:
        """Of the token's user. A request is settled when its answer has been given."""
        give_up = time.monotonic() + 10
        while True:
            rows = Books(self.stack).rows(pid_of(token), "u_1")
            if len(rows) >= count or time.monotonic() > give_up:
                assert len(rows) == count
                return rows
            time.sleep(0.05)


def pid_of(token: str) -> str:
    part = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["pid"])


@pytest.fixture(scope="module")
def place(stack: Stack, provider: FakeProvider) -> Place:
    admin = Admin(stack)
    set_up_embeddings(admin, provider.url)
    return Place(stack, admin, itertools.count())


@pytest.fixture
def client(place: Place) -> Iterator[OpenAI]:
    url = place.stack.env["BEHEST_BASE_URL"] + "/v1"
    with OpenAI(api_key=place.token(), base_url=url, max_retries=0) as sdk:
        yield sdk


def test_openais_client_gets_its_vectors_in_order(client: OpenAI, provider: FakeProvider) -> None:
    texts = ["one", "two words"]
    answer = client.embeddings.create(model="embed", input=texts)
    assert provider.requests[-1]["encoding_format"] == "base64"  # the client's own default
    assert [each.embedding for each in answer.data] == [vector(text) for text in texts]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens(texts)
    as_floats = client.embeddings.create(
        model="embed", input=texts[0], encoding_format="float", dimensions=3
    )
    assert as_floats.data[0].embedding == vector("one", 3)


def test_openais_client_gets_its_judgement_without_naming_a_model(client: OpenAI) -> None:
    answer = client.moderations.create(input=["I will kill you", "hello"])
    assert [each.flagged for each in answer.results] == [True, False]
    assert answer.results[0].categories.violence
    assert answer.results[0].category_scores.violence == 0.9
    assert answer.id.startswith("modr-")
    parts: Any = [{"type": "text", "text": "to kill"}, {"type": "text", "text": "time"}]
    (one,) = client.moderations.create(model="judge", input=parts).results
    assert one.flagged


def test_openais_client_raises_typed_errors(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="embed", input=[[1, 2, 3]])
    assert (refused.value.code, refused.value.param) == ("invalid_input", "input")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.embeddings.create(model="judge", input="x")
    assert wrong.value.param == "model"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(
            model="embed", messages=[{"role": "user", "content": "hello"}]
        )
    assert "POST /v1/embeddings" in wrong.value.message


def test_answer_is_readable_for_a_page_and_settled_with_a_usage_row(place: Place) -> None:
    token = place.token()
    reply = place.post(token, input="three short words", user="me")
    assert reply.status_code == 200, reply.text
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert reply.headers["x-weir-dropped"] == "user"
    assert reply.headers["x-weir-upstreams"] == "vectors=ok"
    assert reply.json()["usage"] == {
        "prompt_tokens": 3,
        "total_tokens": 3,
        "cost_usd": 3 * EMBEDDED_NANO_USD / NANO,
    }
    (row,) = place.rows(token)
    assert (row["model"], row["upstream"], row["outcome"]) == ("embed", "vectors", "completed")
    assert (row["input_tokens"], row["output_tokens"]) == (3, 0)
    assert (row["nano_usd"], row["estimated"]) == (3 * EMBEDDED_NANO_USD, False)
    me = place.stack.http.get("/v1/me", headers=bearer(token)).json()
    assert me["object"] == "me"


def test_a_free_judgement_is_counted_in_tokens_and_costs_nothing(place: Place) -> None:
    token = place.token()
    reply = place.post(token, "moderations", input="what a day")
    assert reply.status_code == 200, reply.text
    usage = reply.json()["usage"]
    assert (usage["cost_usd"], usage["estimated"]) == (0, True)
    assert usage["prompt_tokens"] > 0
    (row,) = place.rows(token)
    assert (row["model"], row["nano_usd"], row["estimated"]) == ("judge", 0, True)


def test_server_may_call_with_an_api_key_of_the_scope_api_chat_and_no_other(place: Place) -> None:
    place.admin.project("vectors-of-a-server", **UNLIMITED)
    body = {"model": "embed", "input": "hello"}

    def post(*scopes: str) -> httpx.Response:
        headers = bearer(place.admin.key("vectors-of-a-server", scopes=scopes))
        headers["X-End-User-Id"] = "u_of_server"
        return place.stack.http.post("/v1/embeddings", headers=headers, json=body)

    assert post("api:chat").status_code == 200
    assert post("mint").status_code in (401, 403)


@pytest.mark.parametrize("what", ["embeddings", "moderations"])
def test_page_of_another_origin_may_read_that_it_may_not_call(place: Place, what: str) -> None:
    token = place.token()
    preflight = place.stack.http.options(
        f"/v1/{what}", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    reply = place.stack.http.post(
        f"/v1/{what}", headers=bearer(token, "https://evil.example"), json={"input": "x"}
    )
    envelope(reply, 403, "origin_not_allowed")
    assert envelope(place.stack.http.post(f"/v1/{what}", json={}), 401, "invalid_token")


def test_of_sixteen_at_once_on_a_budget_for_five_five_are_answered(
    place: Place, provider: FakeProvider
) -> None:
    """Held open until all are decided, so that no settled request makes room for another."""
    text = json.dumps({"point": "decided", "pad": "x" * 100, "usage": None})
    worst = (len(json.dumps(text))) * EMBEDDED_NANO_USD
    gate = threading.Event()
    provider.points["decided"] = gate.wait
    token = place.token(
        limits={**UNLIMITED["limits"], "usd_per_month": (5 * worst + worst // 2) / NANO},
    )
    barrier = threading.Barrier(16)
    refused = threading.Semaphore(0)

    def one(_: int) -> httpx.Response:
        barrier.wait(20)
        reply = place.post(token, input=text)
        if reply.status_code != 200:
            refused.release()
        return reply

    with ThreadPoolExecutor(16) as pool:
        replies = [pool.submit(one, n) for n in range(16)]
        for _ in range(11):
            assert refused.acquire(timeout=20)
        gate.set()
        found = [reply.result() for reply in replies]
    assert Counter(reply.status_code for reply in found) == {200: 5, 402: 11}
    for reply in found:
        if reply.status_code == 402:
            envelope(reply, 402, "quota_exceeded")
    assert all(row["estimated"] and row["nano_usd"] > 0 for row in place.rows(token, 5))


@pytest.mark.parametrize(
    ("how", "status", "code", "billed"),
    [
        ({"do": "fail", "status": 401}, 502, "upstream_credentials_refused", False),
        ({"do": "fail", "status": 429}, 503, "upstream_rate_limited", False),
        ({"do": "html"}, 502, "upstream_invalid_response", False),
        ({"do": "body", "body": "{}"}, 502, "upstream_invalid_response", False),
        ({"do": "body", "body": '{"error": {"message": "no"}}'}, 502, "upstream_error", False),
        ({"do": "body", "body": '{"data": [{"embed'}, 502, "upstream_invalid_response", True),
        ({"do": "body", "body": '{"data": [{"embedding": [NaN]}]}'}, 502, None, True),
        ({"do": "body", "body": '{"data": [{"embedding": ["1"]}]}'}, 502, None, True),
        ({"do": "whole"}, 502, "upstream_invalid_response", True),
    ],
)
def test_what_a_provider_sends_wrongly_is_masked_and_billed_only_if_it_may_have_worked(
    place: Place, how: dict[str, Any], status: int, code: str | None, billed: bool
) -> None:
    token = place.token()
    reply = place.post(token, input=json.dumps(how))
    envelope(reply, status, code or "upstream_invalid_response")
    (row,) = place.rows(token)
    assert (row["nano_usd"] > 0) == billed
    assert "provider-secret-key" not in reply.text


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_two_thousand_vectors_arrive_though_they_have_more_than_six_megabytes(
    place: Place, encoding: str
) -> None:
    texts = [f"text {n}" for n in range(2048)]
    reply = place.post(place.token(), input=texts, dimensions=1024, encoding_format=encoding)
    assert reply.status_code == 200, reply.text[:500]
    assert len(reply.content) > 10_000_000
    told = reply.json()["data"]
    assert [each["index"] for each in told] == list(range(2048))
    last = told[-1]["embedding"]
    if encoding == "base64":
        last = list(struct.unpack("<1024f", base64.b64decode(last)))
    assert last == vector(texts[-1], 1024)
