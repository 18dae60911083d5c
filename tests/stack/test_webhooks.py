"""Webhooks end to end: chats that use up a project's budget, and a receiver that verifies, with the
very lines of docs/webhooks.md, what it is told.

No setting lets the deliver function call this machine, so its processes are started with another
resolver, dialler and certificate authority, as the unit tests pass them in. All else is real.
"""

import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.provider import FakeProvider
from tests.stack.admin import COUNTS_WITHIN_S, UNLIMITED, Admin
from tests.stack.conftest import ROOT, Stack, ask, envelope, start
from tests.unit.upstreams.served import HOST, Served, certificate
from weir.aws import items
from weir.aws.ledger.books import reservation_item
from weir.aws.webhooks.outbox import Queue
from weir.aws.webhooks.watch import Watch, no_budget
from weir.ledger.admission import Reservation
from weir.ledger.rules import Amounts
from weir.projects.limits import NANO

URL = f"https://{HOST}/hooks"
PID = "hooks-shop"
A_CHAT_USD = (7 * 1 + 5 * 2) / 1e6  # FakeProvider's usage at the prices of conftest.upstream_at
TOLD_WITHIN_S = 60

# In the runner: the deliver function's processes run what follows first.
_IN_THE_RUNNER = """
import dataclasses, os, sys
sys.path.append({root!r})
from local import functions
as_it_is = functions.program
def with_a_hook(function, *more):
    program = as_it_is(function, *more)
    if function.logical_id != "DeliverFunction":
        return program
    python, *_, handler = program.argv
    run = "import runpy; runpy.run_path({hook!r}); runpy.run_module('awslambdaric', None, "
    run += "'__main__', True)"
    return dataclasses.replace(program, argv=(python, "-S", "-c", run, handler))
functions.program = with_a_hook
"""
_IN_THE_FUNCTION = """
import ssl
from weir.upstreams import guarded
guarded.GuardedClient.__init__.__kwdefaults__.update(
    resolve=lambda host, port: ["93.184.216.34"] if host == {host!r} else ["10.0.0.1"],
    dial=lambda address, port, timeout: guarded.dial("127.0.0.1", {port}, timeout),
    tls=ssl.create_default_context(cafile={trusted!r}),
)
"""


class Receiver:
    """Answers with `status`; keeps what it got."""

    def __init__(self, pem: Path) -> None:
        self.status = "200 OK"
        self.hangs = threading.Event()
        self._served = Served(pem, self._answer)
        self.port = self._served.port

    def _answer(self, spoken: ssl.SSLSocket) -> None:
        if self.hangs.is_set():
            self._served.over.wait(15)
            return
        spoken.sendall(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())

    def got(self) -> list[tuple[str, bytes]]:
        """Return the signature and the body of each call."""
        found = []
        for request in self._served.requests:
            head, _, body = request.partition(b"\r\n\r\n")
            header = re.search(r"(?i)x-fc-signature: (.*)", head.decode())
            assert header is not None
            found.append((header[1].strip(), body))
        return found

    def events(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        events = [json.loads(body) for _, body in self.got()]
        return [e for e in events if endpoint in (None, e["data"].get("endpoint"))]

    def close(self) -> None:
        self._served.close()


@dataclass(frozen=True)
class Shop:
    stack: Stack
    admin: Admin
    key: str
    receiver: Receiver

    def send(self, method: str, path: str = "", body: Any = None, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        return self.stack.http.request(
            method, f"/v1/webhook_endpoints{path}", headers=headers, json=body, **more
        )

    def __call__(self, method: str, path: str = "", body: Any = None, status: int = 200) -> Any:
        reply = self.send(method, path, body)
        assert reply.status_code == status, reply.text
        assert "access-control-allow-origin" not in reply.headers
        return reply.json() if reply.content else None


def until(condition: Callable[[], Any], within_s: float = 20) -> Any:
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def shop(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("webhooks")
    pem = certificate(directory, HOST)
    receiver = Receiver(pem)
    hook, at_start = directory / "hook.py", directory / "at-start"
    at_start.mkdir()
    told = _IN_THE_RUNNER.format(root=str(ROOT), hook=str(hook))
    (at_start / "sitecustomize.py").write_text(told)
    hook.write_text(_IN_THE_FUNCTION.format(host=HOST, port=receiver.port, trusted=str(pem)))
    with start(directory / "stack", upstream=provider.url, PYTHONPATH=str(at_start)) as stack:
        admin = Admin(stack)
        admin.project(PID, origins=[], default_model="fake-large")
        new = {"name": "hooks", "scopes": ["api:webhooks", "api:chat"]}
        key = admin("POST", f"projects/{PID}/keys", new, 201)["secret"]
        yield Shop(stack, admin, key, receiver)
    receiver.close()


@pytest.fixture
def endpoint(shop: Shop) -> Iterator[dict[str, Any]]:
    made = shop("POST", "", {"url": URL, "events": ["project.budget_low"]}, 201)
    yield made
    shop.send("DELETE", f"/{made['id']}")
    shop.receiver.status = "200 OK"
    shop.receiver.hangs.clear()


def verifier() -> Callable[[str, str, bytes], bool]:
    """Return the function that docs/webhooks.md shows."""
    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/webhooks.md").read_text(), re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102
    verify: Callable[[str, str, bytes], bool] = names["is_from_weir"]
    return verify


# ---------------------------------------------------------------- thresholds, end to end


def test_budget_that_is_used_up_by_chats_is_told_at_80_and_100_percent_once_each(
    shop: Shop,
) -> None:
    events = ["project.budget_low", "project.budget_exceeded"]
    made = shop("POST", "", {"url": URL, "events": events}, 201)
    budget = round(A_CHAT_USD * 250, 6)  # the worst case of one is some thirty times that
    limits = {**UNLIMITED["limits"], "usd_per_month": budget}
    shop.admin("PATCH", f"projects/{PID}", {**UNLIMITED, "limits": limits})
    time.sleep(COUNTS_WITHIN_S)

    def chat() -> int:
        return shop.stack.http.post(
            "/v1/chat/completions",
            headers={"Authorization": f"Bearer {shop.key}", "X-End-User-Id": "u_1"},
            json=ask(max_tokens=5),
        ).status_code

    statuses: list[int] = []
    while not statuses or (statuses[-1] == 200 and len(statuses) < 400):
        statuses.append(chat())
    refused_at = time.monotonic()
    assert statuses[-1] == 402
    assert len(statuses) > 200  # so that 80 % are spent

    def told() -> list[dict[str, Any]]:
        return [e for e in shop.receiver.events() if e["type"] in events]

    until(lambda: len(told()) >= 2, TOLD_WITHIN_S)
    took_s = time.monotonic() - refused_at
    assert took_s < TOLD_WITHIN_S
    low, full = sorted(told(), key=lambda event: int(event["data"]["threshold_percent"]))
    assert (low["type"], full["type"]) == tuple(events)
    assert low["data"]["budget_usd"] == full["data"]["budget_usd"] == budget
    assert full["data"]["reason"] in ("no_room", "spent")
    assert full["data"]["project"] == PID
    verify = verifier()
    for header, body in shop.receiver.got():
        assert verify(made["secret"], header, body)
        assert not verify(made["secret"], header, body + b" ")
        assert not verify("whsec_other", header, body)
    # What has been told is not told again, whatever comes now.
    assert chat() == 402
    time.sleep(3)
    assert len(told()) == 2
    shop("DELETE", f"/{made['id']}", status=204)


# ---------------------------------------------------------------- deliveries


def test_test_event_arrives_and_the_endpoint_says_so(shop: Shop, endpoint: dict[str, Any]) -> None:
    sent = shop("POST", f"/{endpoint['id']}/test", status=202)
    (got,) = until(lambda: shop.receiver.events(endpoint["id"]))
    assert got == {name: sent[name] for name in ("id", "type", "created_at", "data")}
    assert until(lambda: shop("GET", f"/{endpoint['id']}")["last_delivered_at"])


def test_rotated_secret_and_the_old_one_both_verify(shop: Shop, endpoint: dict[str, Any]) -> None:
    rotated = shop("POST", f"/{endpoint['id']}/rotate_secret")
    shop("POST", f"/{endpoint['id']}/test", status=202)
    until(lambda: shop.receiver.events(endpoint["id"]))
    header, body = next(call for call in shop.receiver.got() if endpoint["id"].encode() in call[1])
    assert rotated["secret"] != endpoint["secret"]
    assert verifier()(rotated["secret"], header, body)
    assert verifier()(endpoint["secret"], header, body)


def test_failing_receiver_is_shown_and_told_again_with_the_same_id(
    shop: Shop, endpoint: dict[str, Any]
) -> None:
    shop.receiver.status = "500 No"
    shop("POST", f"/{endpoint['id']}/test", status=202)
    failing = until(lambda: shop("GET", f"/{endpoint['id']}")["last_failure"])
    assert failing == "It answers with status 500."
    shop.receiver.status = "200 OK"
    until(lambda: shop("GET", f"/{endpoint['id']}")["last_delivered_at"])
    first, *others = shop.receiver.events(endpoint["id"])
    assert others
    assert {event["id"] for event in others} == {first["id"]}
    assert shop("GET", f"/{endpoint['id']}")["failing_since"] is None


def test_receiver_that_hangs_holds_up_no_other_endpoint(
    shop: Shop, endpoint: dict[str, Any]
) -> None:
    """The other one leads to a private address, which is refused without a connection."""
    other = shop("POST", "", {"url": "https://b.example.com/", "events": ["wallet.low"]}, 201)
    shop.receiver.hangs.set()
    for _ in range(3):
        shop("POST", f"/{endpoint['id']}/test", status=202)
    until(lambda: len(shop.receiver.events(endpoint["id"])) >= 1)
    began = time.monotonic()
    shop("POST", f"/{other['id']}/test", status=202)
    why = until(lambda: shop("GET", f"/{other['id']}")["last_failure"])
    assert why == "b.example.com leads to an address that is not public."
    assert time.monotonic() - began < 8  # the first has not even timed out
    shop("DELETE", f"/{other['id']}", status=204)


# ---------------------------------------------------------------- the API


def test_page_that_has_got_hold_of_a_key_can_do_nothing(shop: Shop) -> None:
    reply = shop.send("GET", headers={"Origin": "https://app.example.com"})
    envelope(reply, 403, "api_key_in_browser")
    assert "access-control-allow-origin" not in reply.headers
    preflight = shop.stack.http.options(
        "/v1/webhook_endpoints", headers={"Origin": "https://app.example.com"}
    )
    assert preflight.status_code == 404


def test_key_without_the_scope_is_refused_and_told_which(shop: Shop) -> None:
    new = {"name": "other", "scopes": ["api:read"]}
    key = shop.admin("POST", f"projects/{PID}/keys", new, 201)["secret"]
    reply = shop.send("GET", headers={"Authorization": f"Bearer {key}"})
    error = envelope(reply, 403, "insufficient_scope")
    assert error["param"] == "api:webhooks"


def test_key_of_another_project_finds_nothing(shop: Shop, endpoint: dict[str, Any]) -> None:
    shop.admin.project("hooks-other", origins=[])
    new = {"name": "other", "scopes": ["api:webhooks"]}
    key = shop.admin("POST", "projects/hooks-other/keys", new, 201)["secret"]
    headers = {"Authorization": f"Bearer {key}"}
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/rotate_secret"),
        ("POST", "/test"),
        ("GET", "/deliveries"),
        ("POST", "/replay"),
    ):
        reply = shop.send(method, f"/{endpoint['id']}{path}", {}, headers=headers)
        envelope(reply, 404, "not_found")
    assert shop.send("GET", headers=headers).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"url": "http://a.example.com/", "events": ["wallet.low"]}, "invalid_url", "url"),
        ({"url": "https://localhost/", "events": ["wallet.low"]}, "invalid_url", "url"),
        ({"url": URL, "events": ["budget.low"]}, "validation_error", "events"),
        ({"url": URL}, "validation_error", "events"),
        ([], "validation_error", None),
    ],
)
def test_endpoint_that_cannot_be_is_refused(
    shop: Shop, body: Any, code: str, param: str | None
) -> None:
    error = envelope(shop.send("POST", "", body), 400, code)
    assert error["param"] == param


def test_list_has_pages(shop: Shop, endpoint: dict[str, Any]) -> None:
    other = shop("POST", "", {"url": URL, "events": ["wallet.low"]}, 201)
    first = shop("GET", "?limit=1")
    assert (len(first["data"]), first["has_more"]) == (1, True)
    second = shop("GET", f"?limit=1&cursor={first['next_cursor']}")
    ids = {first["data"][0]["id"], second["data"][0]["id"]}
    assert ids == {endpoint["id"], other["id"]}
    assert "secret" not in first["data"][0]
    envelope(shop.send("GET", "?limit=0"), 400, "validation_error")
    envelope(shop.send("GET", f"/{endpoint['id']}/deliveries?status=x"), 400, "validation_error")
    shop("DELETE", f"/{other['id']}", status=204)


def test_admin_api_does_the_same(shop: Shop) -> None:
    path = f"projects/{PID}/webhooks"
    made = shop.admin("POST", path, {"url": URL, "events": ["budget.exceeded"]}, 201)
    assert made["secret"].startswith("whsec_")
    one = f"{path}/{made['id']}"
    changed = shop.admin("PATCH", one, {"description": "billing"})
    assert (changed["description"], changed["url"]) == ("billing", URL)
    assert made["id"] in {each["id"] for each in shop.admin("GET", path)["data"]}
    assert shop.admin("POST", f"{one}/rotate_secret")["secret"] != made["secret"]
    event = shop.admin("POST", f"{one}/test", status=202)
    until(lambda: event["id"] in {each["id"] for each in shop.receiver.events(made["id"])})
    assert shop.admin("GET", f"{one}/deliveries") == {"data": [], "next_cursor": None}
    assert shop.admin("POST", f"{one}/replay", {}, 202) == {"replayed": []}
    shop.admin("DELETE", one, status=204)
    shop.admin("DELETE", one, status=404)
    error = shop.admin.send("POST", path, {"url": "http://a.example.com/", "events": ["x"]})
    assert error.status_code == 400
    actions = {entry["action"] for entry in shop.admin("GET", "audit")["data"]}
    assert {"webhook.create", "webhook.rotate_secret", "webhook.remove"} <= actions


# ---------------------------------------------------------------- races, on the real store


def test_concurrent_batches_write_each_threshold_once(shop: Shop) -> None:
    """Eight processes' worth of the same batch, at once, on the store that decides."""
    dynamodb, name = shop.stack.aws("dynamodb"), shop.stack.outputs()["TableName"]
    pid, at = "hooks-race", int(time.time())
    shop.admin.project(pid, origins=[], limits={"usd_per_month": 1}, ledger_shards=4)
    new = {"url": URL, "events": ["project.budget_low", "project.budget_exceeded"]}
    shop.admin("POST", f"projects/{pid}/webhooks", new, 201)
    for shard, usd in enumerate((0.2, 0.3, 0.25, 0.25)):
        key = items.Key(items.ledger(pid, str(shard)), items.month(at)).item()
        dynamodb.put_item(TableName=name, Item={**key, "nano_usd": {"N": str(int(usd * NANO))}})
    held = [["project", "0", "n"]]
    settled = reservation_item(
        Reservation("0" * 32, at + 60, pid, "u#a", "c", at, Amounts(1, 1), 1, held, {})
    )
    both = threading.Barrier(8)
    queue = Queue(SimpleNamespace(send_message=lambda **_: None), "q")

    def batch(_: int) -> int:
        watch = Watch(shop.stack.aws("dynamodb"), name, queue, no_budget, time.time)
        both.wait(30)
        return watch.note([settled] * 3)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(batch, range(8))) == 2
    found = dynamodb.query(
        TableName=name,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"OUTBOX#{pid}"}},
    )
    assert found["Count"] == 2
