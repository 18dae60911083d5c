"""A chat widget as the Ringside contract's own sample has it, in a browser: its server's two calls,
its `fetch`, and its naive loop over the stream, which must come out right on loopback
(contracts/ringside.md, sections 10 and 12).
"""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from playwright.sync_api import Page

from tests.stack.conftest import Stack

# What the sample does with what it reads: it splits at blank lines, and keeps what comes after.
LOOP = """async ({url, token, scheme, body}) => {
  const answer = await fetch(url, {
    method: "POST",
    headers: { Authorization: `${scheme} ${token}`, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) return { status: answer.status, error: await answer.json() };
  const reader = answer.body.getReader(), decoder = new TextDecoder();
  let said = "", rest = "", reads = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    reads += 1;
    rest += decoder.decode(value, { stream: true });
    for (const frame of rest.split("\\n\\n")) {
      const data = frame.match(/^data: (.*)$/m)?.[1];
      if (!data || data === "[DONE]") continue;
      said += JSON.parse(data).choices?.[0]?.delta?.content ?? "";
    }
    rest = rest.split("\\n\\n").slice(-1)[0];
  }
  return { status: answer.status, said, reads, rest };
}"""


def server_calls(stack: Stack, user_id: str, origin: str) -> tuple[httpx.Response, httpx.Response]:
    """The sample's mint route: it pastes what the page says into a body, a header and a path."""
    base, external_id = stack.env["FC_BASE_URL"], f"ext:user_{user_id}"
    auth = {"Authorization": f"Bearer {stack.env['FC_API_KEY']}"}
    create = httpx.post(
        f"{base}/customers",
        headers={**auth, "Idempotency-Key": f"upsert-{user_id}"},
        json={"external_id": external_id, "budget_usd": 5.0, "rate_limit_rpm": 30},
    )
    # As JavaScript's fetch does: what looks like a way up in the path is one.
    path = urljoin(f"{base}/", f"./customers/{external_id}/client_tokens")
    mint = httpx.post(
        path,
        headers=auth,
        json={
            "ttl_seconds": 900,
            "scope": ["chat"],
            "origin_allowlist": [origin],
            "bind_ip": True,
        },
    )
    return create, mint


def chat(stack: Stack, page: Page, token: str, scheme: str = "Client", **how: Any) -> Any:
    content = json.dumps(how) if how else "hi"
    return page.evaluate(
        LOOP,
        {
            "url": f"{stack.env['FC_BASE_URL']}/chat/completions",
            "token": token,
            "scheme": scheme,
            "body": {
                "model": stack.env["FC_MODEL"],
                "messages": [{"role": "user", "content": content}],
                "stream": True,
            },
        },
    )


@pytest.fixture
def origin(stack: Stack, page: Page) -> str:
    page.goto("/")
    return stack.env["ALLOWED_ORIGIN"]


@pytest.mark.parametrize("scheme", ["Client", "Bearer"])
def test_seeds_widget_streams_an_answer_word_by_word(
    stack: Stack, page: Page, origin: str, scheme: str
) -> None:
    create, mint = server_calls(stack, f"7-{scheme}", origin)
    assert (create.status_code, mint.status_code) == (201, 201), mint.text
    told = mint.json()
    assert abs(told["expires_at"] - time.time() - 900) < 5
    got = chat(stack, page, told["token"], scheme, do="stream", chunks=40, gap_s=0.02)
    assert got["status"] == 200, got
    assert got["reads"] > 10
    plain = httpx.post(
        f"{stack.env['FC_BASE_URL']}/chat/completions",
        headers={"Authorization": f"Client {told['token']}", "Origin": origin},
        json={
            "model": stack.env["FC_MODEL"],
            "messages": [
                {"role": "user", "content": json.dumps({"do": "stream", "chunks": 40, "gap_s": 0})}
            ],
            "stream": True,
        },
    )
    frames = [f.removeprefix("data: ") for f in plain.text.split("\n\n") if f.startswith("data: {")]
    deltas = [json.loads(frame)["choices"] for frame in frames]
    assert got["said"] == "".join(c[0]["delta"].get("content") or "" for c in deltas if c)


def test_second_page_load_of_a_user_is_the_same_customer(
    stack: Stack, page: Page, origin: str
) -> None:
    first, _ = server_calls(stack, "again", origin)
    second, mint = server_calls(stack, "again", origin)
    assert second.json()["id"] == first.json()["id"] == mint.json()["customer"]
    assert second.headers["idempotent-replayed"] == "true"


def test_visitor_without_an_id_shares_no_budget_with_others(
    stack: Stack, page: Page, origin: str
) -> None:
    """The sample's page forgets its Content-Type, so its server reads no id."""
    create, mint = server_calls(stack, "undefined", origin)
    for reply in (create, mint):
        assert (reply.status_code, reply.json()["code"]) == (400, "invalid_external_id")


def test_id_with_a_way_up_in_it_creates_nobody(stack: Stack, page: Page, origin: str) -> None:
    """The mint after it is for `ext:user_admin`, whom only that server could have protected; it is
    refused unless there is such a customer.
    """
    create, mint = server_calls(stack, "a/../ext:user_admin", origin)
    assert (create.status_code, create.json()["code"]) == (400, "invalid_external_id")
    assert (mint.status_code, mint.json()["code"]) == (404, "customer_not_found")
    for cut in ("5?x=", "5#"):
        create, _ = server_calls(stack, cut, origin)
        assert create.json()["code"] == "invalid_external_id"


def test_page_can_read_why_it_was_refused(stack: Stack, page: Page, origin: str) -> None:
    got = chat(stack, page, "not.a.token")
    assert (got["status"], got["error"]["code"]) == (401, "client_token_invalid")
    _, mint = server_calls(stack, "elsewhere", "http://localhost:1")
    assert mint.json()["code"] == "invalid_origin"
