"""What the ledger promises, through the whole running gateway: limits, money, stopping, falling
back.
"""

import itertools
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from local import template
from tests.provider import USAGE, FakeProvider
from tests.stack.admin import Admin, bearer, mint, model
from tests.stack.conftest import ORIGIN, ROOT, Stack, ask, envelope
from tests.stack.store import Books, StoreProxy, balanced, kill_chat, start_behind

ROUTE = "/v1/chat/completions"
NANO = 10**9
PROMPT, OUTPUT = USAGE["prompt_tokens"], USAGE["completion_tokens"]
COST = PROMPT * 100 + OUTPUT * 400  # with provider a
COST_OF_B = PROMPT * 1000 + OUTPUT * 3000
NO_LIMITS = {
    "rpm": None,
    "requests_per_day": None,
    "tokens_per_day": None,
    "concurrent_streams": None,
}
EXPOSED = ("retry-after", "ratelimit", "ratelimit-policy", "x-ratelimit-limit-requests")


@dataclass(frozen=True)
class Project:
    pid: str
    key: str


@dataclass(frozen=True)
class User:
    project: Project
    uid: str
    token: str

    @property
    def pid(self) -> str:
        return self.project.pid


@dataclass
class Place:
    """Provider `a` answers model `one`; `two` is answered by `a`, or else by `b`, and `away` by one
    that is not there, or else by `b`.
    """

    stack: Stack
    proxy: StoreProxy
    admin: Admin
    a: FakeProvider
    b: FakeProvider
    names: Iterator[str] = field(default_factory=lambda: (f"p-{n}" for n in itertools.count()))
    uids: Iterator[str] = field(default_factory=lambda: (f"u_{n}" for n in itertools.count()))
    unlimited: Project | None = None

    def project(self, **told: Any) -> Project:
        """One that no process knows yet: what it may is what is told here, from the first."""
        pid = next(self.names)
        limits = {"default_model": "one", "limits": NO_LIMITS, "user_limits": NO_LIMITS}
        self.admin.project(pid, **{**limits, "origins": [ORIGIN], **told})
        return Project(pid, self.admin.key(pid))

    def user(self, **told: Any) -> User:
        """Who has not been here yet. His project is his own if it is told what it may."""
        if told or self.unlimited is None:
            project = self.project(**told)
            self.unlimited = self.unlimited if told else project
        else:
            project = self.unlimited
        uid = next(self.uids)
        return User(project, uid, self.token(project, uid))

    def token(self, project: Project, uid: str = "ann", **more: Any) -> str:
        return mint(self.stack, project.key, uid, **more)

    def post(self, token: str, body: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.stack.http.post(ROUTE, headers={**bearer(token), **named}, json=body)

    def cancel(self, token: str, completion_id: str) -> httpx.Response:
        return self.stack.http.post(f"{ROUTE}/{completion_id}/cancel", headers=bearer(token))

    def me(self, token: str, **headers: str) -> dict[str, Any]:
        reply = self.stack.http.get("/v1/me", headers={**bearer(token), **headers})
        assert reply.status_code == 200, reply.text
        told = reply.json()
        assert isinstance(told, dict)
        return told

    def books(self) -> Books:
        return Books(self.stack)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    a, b, proxy = FakeProvider(), FakeProvider(), StoreProxy()
    with start_behind(proxy, tmp_path_factory.mktemp("ledger"), a.url) as stack:
        admin = Admin(stack)
        with socket.create_server(("127.0.0.1", 0)) as free:
            nobody = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        for name, url in (("a", a.url), ("b", b.url), ("nobody", nobody)):
            admin("PUT", f"upstreams/{name}", {"kind": "openai", "base_url": url})
            admin("PUT", f"upstreams/{name}/key", {"key": f"secret-key-of-{name}"})
        (first,) = model("a", "a-large")["candidates"]
        absent = {**first, "upstream": "nobody"}
        second = {**first, "upstream": "b", "input_nano_usd": 1000, "output_nano_usd": 3000}
        for name, candidates in (
            ("one", [first]),
            ("two", [first, second]),
            ("away", [absent, second]),
        ):
            admin("PUT", f"models/{name}", {**model("a", "a"), "candidates": candidates})
        yield Place(stack, proxy, admin, a, b)
    for server in (a, b, proxy):
        server.close()


@pytest.fixture(autouse=True)
def _books_balance(place: Place) -> Iterator[None]:
    """After every test: each counter is what the usage rows add up to, and nothing is held."""
    for provider in (place.a, place.b):
        provider.does, provider.points = {}, {}
        provider.requests.clear()
        provider.left.clear()
    place.proxy.calls.clear()
    yield
    balanced(place.stack)


class Asked(threading.Thread):
    """A request under way, and what its client has seen by now. Who is told 503 ledger_busy was
    neither admitted nor refused, and asks again.
    """

    def __init__(self, place: Place, token: str, body: dict[str, Any], **headers: str) -> None:
        super().__init__(daemon=True)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._http, self._headers, self._body = place.stack.http, {**bearer(token), **named}, body
        self.status, self.text = 0, ""
        self.headers: httpx.Headers | None = None
        self.leaves = threading.Event()
        self.start()

    def run(self) -> None:
        while self._is_busy():
            time.sleep(0.1)

    def _is_busy(self) -> bool:
        self.text = ""
        with self._http.stream("POST", ROUTE, headers=self._headers, json=self._body) as reply:
            if reply.status_code == 503 and "ledger_busy" in reply.read().decode():
                return True
            self.headers, self.status = reply.headers, reply.status_code
            for piece in reply.iter_text():
                self.text += piece
                if self.leaves.is_set():
                    break
        return False

    def ended(self) -> "Asked":
        self.join(30)
        assert not self.is_alive(), "it does not end"
        return self


def until(holds: Callable[[], bool], within_s: float = 20) -> None:
    give_up = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def frames(text: str) -> list[dict[str, Any]]:
    return [json.loads(frame[6:]) for frame in text.split("\n\n") if frame.startswith("data: {")]


def early_in_a_minute() -> None:
    """What counts by the minute must not begin at the end of one."""
    second = time.time() % 60
    if second > 50:
        time.sleep(60.1 - second)


Step = dict[str, Any]
HOLD: Step = {"point": "hold"}
WORDS: list[Step] = [{"text": f"w{number} "} for number in range(3)]
ENDING: list[Step] = [{"finish": "stop"}, {"usage": True}, {"done": True}]
SLOW = {"do": "stream", "chunks": 180, "gap_s": 0.05}  # 9 s


def steps(*what: Step) -> dict[str, Any]:
    return {"do": "steps", "steps": list(what)}


@pytest.fixture
def hold(place: Place) -> Iterator[threading.Event]:
    """Providers wait for it at the point `hold`."""
    gate = threading.Event()
    for provider in (place.a, place.b):
        provider.points["hold"] = lambda: gate.wait(30)
    yield gate
    gate.set()


# ---------------------------------------------------------------- by the minute


def test_eleventh_request_of_a_minute_is_told_when_to_come_back(place: Place) -> None:
    project = place.project()
    token = place.token(project, tier="free")
    early_in_a_minute()
    for _ in range(10):
        reply = place.post(token, ask(), Origin=ORIGIN)
        assert reply.status_code == 200, reply.text
        assert '"rpm";q=10;w=60' in reply.headers["ratelimit-policy"]
        assert reply.headers["x-ratelimit-limit-requests"] == "10"
        assert "x-ratelimit-remaining-requests" not in reply.headers, "nobody knows it for free"
        exposed = reply.headers["access-control-expose-headers"].split(", ")
        assert set(EXPOSED) <= set(exposed)

    asked_at = time.time()
    reply = place.post(token, ask(), Origin=ORIGIN)
    error = envelope(reply, 429, "rate_limited")
    assert reply.json()["code"] == "rate_limit_exceeded"
    assert reply.json()["retryable"]
    assert error["type"] == "rate_limit_error"
    resets_at = error["details"].pop("resets_at")
    assert error["details"] == {
        "scope": "user",
        "limit_name": "rpm",
        "limit": {"rpm": 10},
        "usage": {"requests_this_minute": 10},
        "tier": "free",
    }
    assert resets_at % 60 == 0
    wait = reply.headers["retry-after"]
    assert re.fullmatch("[0-9]+", wait)
    assert 1 <= int(wait) <= 60
    assert abs(asked_at + int(wait) - resets_at) < 2
    assert reply.headers["ratelimit"] == f'"rpm";r=0;t={wait}'
    assert '"rpm";q=10;w=60' in reply.headers["ratelimit-policy"]
    assert reply.headers["x-ratelimit-limit-requests"] == "10"
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert reply.headers["x-ratelimit-reset-requests"] == f"{wait}s"
    assert "x-should-retry" not in reply.headers
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert set(EXPOSED) <= set(reply.headers["access-control-expose-headers"].split(", "))
    assert len(place.a.requests) == 10

    base_url = place.stack.env["BEHEST_BASE_URL"] + "/v1"
    with (
        OpenAI(api_key=token, base_url=base_url, max_retries=0) as sdk,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        sdk.chat.completions.create(model="default", **ask())
    assert refused.value.code == "rate_limited"
    # Another user of the same project has his own minute.
    assert place.post(place.token(project, "bob", tier="free"), ask()).status_code == 200


def test_requests_at_once_are_bounded_and_a_slot_is_free_once_its_answer_has_ended(
    place: Place, hold: threading.Event
) -> None:
    token = place.user(user_limits={**NO_LIMITS, "concurrent_streams": 2}).token
    running = [Asked(place, token, ask(steps(HOLD, *WORDS, *ENDING), stream=True)) for _ in "ab"]
    until(lambda: place.a.busy == 2)
    reply = place.post(token, ask())
    error = envelope(reply, 429, "rate_limited")
    assert error["details"]["limit_name"] == "concurrent_streams"
    assert error["details"]["usage"] == {"open_streams": 2}
    assert reply.headers["retry-after"] == "2"
    hold.set()
    assert [each.ended().status for each in running] == [200, 200]
    assert place.post(token, ask()).status_code == 200


# ---------------------------------------------------------------- money


def worst_case(place: Place, body: dict[str, Any], gate: threading.Event) -> int:
    """What such a request holds, in nano-USD: as a probe in a project without a limit holds it."""
    limits = {**NO_LIMITS, "usd_per_month": 1000}
    project = place.project(user_limits=limits)
    probe = Asked(place, place.token(project), body)
    until(lambda: place.a.busy == 1)
    (held,) = place.books().reservations(project.pid)
    gate.set()
    assert probe.ended().status == 200
    until(lambda: place.a.busy == 0)
    gate.clear()
    place.a.requests.clear()
    return int(held["nano_usd"])


def usd(nano: int) -> float:
    """Rounded up to what a limit may be: six decimals."""
    return math.ceil(nano / 1000) / 10**6


@dataclass(frozen=True)
class Budget:
    """Whose it is, and what may be in the way."""

    of: str = "user"
    shards: int = 1
    conflicts: bool = False


BUDGETS = {
    "a user's": Budget(),
    "a project's": Budget("project"),
    "a project's, in 4 shards": Budget("project", 4),
    "a user's, with conflicts": Budget(conflicts=True),
    "a project's, with conflicts": Budget("project", 2, conflicts=True),
}

LONG = {"a project's", "a project's, with conflicts"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] if n in LONG else []) for n in BUDGETS]
)
def test_of_eight_streams_at_once_a_budget_for_three_admits_exactly_three(
    place: Place, hold: threading.Event, name: str
) -> None:
    """None of them ends before all are decided."""
    budget, many, fit = BUDGETS[name], 8, 3
    body = ask(steps(HOLD, *WORDS, *ENDING), stream=True, max_tokens=100)
    worst = worst_case(place, body, hold)
    limit = usd(fit * worst)
    assert fit * worst <= limit * NANO < (fit + 1) * worst
    limited = {**NO_LIMITS, "usd_per_month": limit}
    whose = "user_limits" if budget.of == "user" else "limits"
    project = place.project(**{whose: limited}, ledger_shards=budget.shards)
    users = ["ann"] * many if budget.of == "user" else [f"u_{n}" for n in range(many)]
    tokens = [place.token(project, uid) for uid in users]
    place.proxy.in_the_way = budget.conflicts
    try:
        asked = [Asked(place, token, body) for token in tokens]
        until(lambda: place.a.busy + sum(each.status > 0 for each in asked) == many)
        assert place.a.busy == fit, [each.text for each in asked]
        held = place.books().reservations(project.pid)
        assert sum(each["nano_usd"] for each in held) == fit * worst
        hold.set()
        statuses = sorted(each.ended().status for each in asked)
        place.proxy.quiet()
    finally:
        place.proxy.in_the_way = False
    assert statuses == [200] * fit + [402] * (many - fit)
    assert len(place.a.requests) == fit
    for each in asked:
        if each.status == 200:
            assert each.text.endswith("data: [DONE]\n\n")
        else:
            check_money_refusal(json.loads(each.text), budget.of, limit, fit * worst)
    books = balanced(place.stack)
    rows = [row for uid in set(users) for row in books.rows(project.pid, uid)]
    assert [row["nano_usd"] for row in rows] == [COST] * fit
    # What was held and not spent is there again.
    assert place.post(tokens[0], body).status_code == 200


def check_money_refusal(told: dict[str, Any], scope: str, limit: float, held: int) -> None:
    error = told["error"]
    assert (told["code"], error["code"]) == ("budget_exceeded", "quota_exceeded")
    assert (error["type"], told["retryable"]) == ("billing_error", False)
    details = error["details"]
    assert (details["scope"], details["limit_name"]) == (scope, "usd_per_month")
    reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(details["resets_at"]))
    assert reset[8:] == "01T00:00:00Z", "a month does not begin then"
    assert f"It resets at {reset}." in error["message"]
    if scope == "user":
        assert details["limit"] == {"usd_per_month": limit}
        assert details["usage"] == {"usd_this_month": held / NANO}
        assert f"may use {limit:f}".rstrip("0") in error["message"]
        assert f"{held / NANO:.6f}".rstrip("0") in error["message"]
    else:  # what others have spent is not his business
        assert not {"limit", "usage"} & details.keys()


def test_refusal_for_money_is_typed_in_the_sdk_and_not_asked_again(place: Place) -> None:
    who = place.user(user_limits={**NO_LIMITS, "usd_per_month": 0.00001})
    base_url = place.stack.env["BEHEST_BASE_URL"] + "/v1"
    with (
        OpenAI(api_key=who.token, base_url=base_url, max_retries=2) as sdk,
        pytest.raises(openai.APIStatusError) as refused,
    ):
        sdk.chat.completions.create(model="default", max_tokens=100, **ask())
    assert (refused.value.status_code, refused.value.code) == (402, "quota_exceeded")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert place.proxy.kinds().count("admit") == 1, "it was asked again"
    assert place.a.requests == []
    assert place.books().reservations(who.pid) == []


def test_little_money_makes_the_answer_shorter_unless_its_length_was_asked_for(
    place: Place, hold: threading.Event
) -> None:
    body = ask(steps(HOLD, *WORDS, *ENDING), stream=True)
    whole_input = worst_case(place, {**body, "max_tokens": 100}, hold) - 100 * 400
    limit = usd(whole_input + 60 * 400)
    who = place.user(user_limits={**NO_LIMITS, "usd_per_month": limit})
    token = who.token

    envelope(place.post(token, {**body, "max_tokens": 1000}), 402, "quota_exceeded")
    envelope(place.post(token, {**body, "max_completion_tokens": 1000}), 402, "quota_exceeded")
    assert place.a.requests == []

    running = Asked(place, token, body)
    until(lambda: place.a.busy == 1)
    (held,) = place.books().reservations(who.pid)
    hold.set()
    assert running.ended().status == 200
    cap = place.a.requests[0]["max_completion_tokens"]
    assert 50 < cap < 64, "not what fits"
    assert held["output_tokens"] == cap
    left = round(limit * NANO) - held["nano_usd"]
    assert 0 <= left < 400, "a token more would have fitted, or one less"
    # The same prompt once more: now even the least answer is too dear.
    poor = place.project(user_limits={**NO_LIMITS, "usd_per_month": usd(whole_input + 10 * 400)})
    envelope(place.post(place.token(poor), body), 402, "quota_exceeded")


# ---------------------------------------------------------------- the receipt


@pytest.mark.parametrize("stream", [True, False])
def test_receipt_is_what_the_usage_row_says(place: Place, stream: bool) -> None:
    who = place.user()
    token = who.token
    wanted = {"stream_options": {"include_usage": True}} if stream else {}
    reply = place.post(token, ask(stream=stream, **wanted), X_Thread_Id="th_7", FC_Tag="night")
    usage = frames(reply.text)[-1]["usage"] if stream else reply.json()["usage"]
    row = balanced(place.stack).row(who.pid, who.uid)
    assert usage == {**USAGE, "cost_usd": row["nano_usd"] / NANO}
    assert row["nano_usd"] == COST
    told = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "estimated")
    assert [row[name] for name in told] == [PROMPT, 0, OUTPUT, 0, False]
    assert (row["model"], row["upstream"], row["outcome"]) == ("one", "a", "completed")
    assert (row["thread_id"], row["tag"], row["uid"]) == ("th_7", "night", who.uid)
    assert row["completion_id"] == reply.headers["x-completion-id"]
    assert row["request_id"] == reply.headers["x-request-id"]
    assert 0 <= row["first_byte_ms"] <= row["total_ms"] < 5000
    assert "Hello" not in json.dumps(row, default=str)


def test_receipt_is_not_shown_to_whom_has_not_asked(place: Place) -> None:
    who = place.user()
    reply = place.post(who.token, ask(stream=True))
    assert all("usage" not in frame for frame in frames(reply.text))
    assert "cost_usd" not in reply.text
    assert balanced(place.stack).row(who.pid, who.uid)["nano_usd"] == COST


@pytest.mark.parametrize("stream", [True, False])
def test_provider_that_tells_no_usage_is_paid_by_our_own_count(place: Place, stream: bool) -> None:
    who = place.user()
    how: dict[str, Any] = steps({"text": "x" * 300}, {"finish": "stop"}, {"done": True})
    if not stream:
        how = {"do": "whole", "text": "x" * 300, "usage": None}
    wanted = {"stream_options": {"include_usage": True}} if stream else {}
    reply = place.post(who.token, ask(how, stream=stream, **wanted))
    usage = frames(reply.text)[-1]["usage"] if stream else reply.json()["usage"]
    row = balanced(place.stack).row(who.pid, who.uid)
    assert (row["estimated"], row["output_tokens"]) == (True, 100)
    assert row["input_tokens"] > 0
    assert row["nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 400
    assert usage == {
        "prompt_tokens": row["input_tokens"],
        "completion_tokens": 100,
        "total_tokens": row["input_tokens"] + 100,
        "estimated": True,
        "cost_usd": row["nano_usd"] / NANO,
    }


# ---------------------------------------------------------------- being stopped


def test_cancelled_stream_ends_at_the_provider_and_is_charged_for_what_was_said(
    place: Place,
) -> None:
    who = place.user()
    token, other = who.token, place.token(who.project, "bob")
    running = Asked(place, token, ask(SLOW, stream=True, max_tokens=500))
    until(lambda: running.text.count("\n\n") >= 3)
    assert running.headers is not None
    completion_id = running.headers["x-completion-id"]
    envelope(place.cancel(other, completion_id), 404, "not_found")
    envelope(place.cancel(token, "chatcmpl-unknown"), 404, "not_found")
    stranger = place.token(place.project(), who.uid)
    envelope(place.cancel(stranger, completion_id), 404, "not_found")
    assert running.is_alive()

    reply = place.cancel(token, completion_id)
    assert reply.status_code == 200, reply.text
    assert reply.json()["id"] == completion_id
    assert place.a.left.wait(2.5), "the provider still speaks"
    running.ended()
    said = frames(running.text)
    assert [frame["error"]["code"] for frame in said if "error" in frame] == ["cancelled"]
    assert set(said[-1]) == {"error"}
    assert "[DONE]" not in running.text
    row = balanced(place.stack).row(who.pid, who.uid)
    assert (row["outcome"], row["estimated"]) == ("cancelled", True)
    words = len(said) - 1
    assert words <= row["output_tokens"] <= 500
    assert row["nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 400
    envelope(place.cancel(token, completion_id), 404, "not_found")  # it has ended


def test_finished_request_cannot_be_cancelled(place: Place) -> None:
    token = place.user().token
    reply = place.post(token, ask())
    balanced(place.stack)
    envelope(place.cancel(token, reply.headers["x-completion-id"]), 404, "not_found")


@pytest.mark.parametrize("stream", [True, False])
def test_chosen_id_cancels_before_the_first_word_and_is_one_requests_alone(
    place: Place, stream: bool
) -> None:
    who = place.user()
    token = who.token
    body = ask({"do": "silent"}, stream=stream, max_tokens=100)
    running = Asked(place, token, body, X_Client_Request_Id="mine-1")
    until(lambda: place.a.busy == 1)
    reply = place.post(token, ask(), X_Client_Request_Id="mine-1")
    envelope(reply, 409, "conflict")
    assert reply.headers["x-should-retry"] == "false"
    assert len(place.a.requests) == 1, "the second has reached the provider"
    # Another user's id is another id.
    bobs = place.post(place.token(who.project, "bob"), ask(), X_Client_Request_Id="mine-1")
    assert bobs.status_code == 200

    assert place.cancel(token, "mine-1").status_code == 200
    assert place.a.left.wait(2.5)
    running.ended()
    assert running.status == 409
    assert json.loads(running.text)["error"]["code"] == "cancelled"
    row = balanced(place.stack).row(who.pid, who.uid)
    assert (row["outcome"], row["estimated"], row["completion_id"]) == ("cancelled", True, "mine-1")
    assert row["nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 400 > 0
    assert 0 <= row["output_tokens"] <= 100, "it may have been thinking, up to its cap"
    # Once it has ended the id is free.
    assert place.post(token, ask(), X_Client_Request_Id="mine-1").status_code == 200


def test_vanished_client_stops_the_provider_and_is_charged_for_what_was_said(place: Place) -> None:
    who = place.user(user_limits={**NO_LIMITS, "usd_per_month": 1})
    running = Asked(place, who.token, ask(SLOW, stream=True, max_tokens=500))
    until(lambda: running.text.count("\n\n") >= 3)
    running.leaves.set()
    assert place.a.left.wait(2.5), "the provider still speaks"
    row = balanced(place.stack).row(who.pid, who.uid)
    assert (row["outcome"], row["estimated"]) == ("cancelled", True)
    assert 3 <= row["output_tokens"] <= 500
    assert place.books().counter(who.pid, who.uid, "nano_usd") == row["nano_usd"] > 0


@pytest.mark.long
def test_answer_that_takes_too_long_is_ended_and_charged_for_what_was_said(place: Place) -> None:
    who = place.user()
    body = ask({**SLOW, "chunks": 400}, stream=True, max_tokens=500)
    reply = place.post(who.token, body)
    assert frames(reply.text)[-1]["error"]["code"] == "stream_deadline_exceeded"
    row = balanced(place.stack).row(who.pid, who.uid)
    assert (row["outcome"], row["estimated"]) == ("stream_deadline_exceeded", True)
    said = len(frames(reply.text)) - 1
    assert 100 < said <= row["output_tokens"] <= 500


# ---------------------------------------------------------------- another provider

FALLBACKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "500": ("two", {"do": "fail", "status": 500}, "a=upstream_error, b=ok"),
    "429": ("two", {"do": "fail", "status": 429}, "a=upstream_rate_limited, b=ok"),
    "401": ("two", {"do": "fail", "status": 401}, "a=upstream_credentials_refused, b=ok"),
    "no connection": ("away", {}, "nobody=upstream_unavailable, b=ok"),
    "broken connection": ("two", {"do": "reset"}, "a=upstream_unavailable, b=ok"),
    "an error as a 200's first event": (
        "two",
        {"do": "frames", "frames": ['data: {"error":{"message":"boom"}}\n\n']},
        "a=upstream_error, b=ok",
    ),
    "overload as a 200's first event": (
        "two",
        {"do": "frames", "frames": ['data: {"error":{"message":"overloaded"}}\n\n']},
        "a=upstream_rate_limited, b=ok",
    ),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_second_provider_answers_for_the_first_at_its_own_price(place: Place, name: str) -> None:
    wanted, place.a.does, attempts = FALLBACKS[name]
    who = place.user(user_limits={**NO_LIMITS, "requests_per_day": 10})
    body = ask(model=wanted, stream=True, stream_options={"include_usage": True}, max_tokens=50)
    reply = place.post(who.token, body)
    assert reply.status_code == 200, reply.text
    assert reply.text.endswith("data: [DONE]\n\n")
    assert reply.headers["x-weir-upstreams"] == attempts
    assert len(place.b.requests) == 1
    assert place.b.requests[0]["max_completion_tokens"] == 50
    assert place.b.headers[-1]["authorization"] == "Bearer secret-key-of-b"
    books = balanced(place.stack)
    row = books.row(who.pid, who.uid)
    assert (row["upstream"], row["outcome"], row["nano_usd"]) == ("b", "completed", COST_OF_B)
    assert frames(reply.text)[-1]["usage"]["cost_usd"] == COST_OF_B / NANO
    assert books.counter(who.pid, who.uid, "q") == 1


def test_whole_answers_fall_back_too(place: Place) -> None:
    place.a.does = {"do": "fail", "status": 503}
    who = place.user()
    reply = place.post(who.token, ask(model="two"))
    assert reply.status_code == 200
    assert reply.headers["x-weir-upstreams"] == "a=upstream_error, b=ok"
    assert reply.json()["usage"]["cost_usd"] == COST_OF_B / NANO
    assert balanced(place.stack).row(who.pid, who.uid)["upstream"] == "b"


def test_first_provider_that_answers_is_the_only_one_asked(place: Place) -> None:
    who = place.user()
    reply = place.post(who.token, ask(model="two", stream=True))
    assert reply.headers["x-weir-upstreams"] == "a=ok"
    assert place.b.requests == []
    assert balanced(place.stack).row(who.pid, who.uid)["nano_usd"] == COST


def test_request_that_is_wrong_itself_is_not_tried_elsewhere(place: Place) -> None:
    place.a.does = {"do": "fail", "status": 400, "message": "temperature!"}
    who = place.user(user_limits={**NO_LIMITS, "requests_per_day": 10})
    reply = place.post(who.token, ask(model="two", stream=True))
    assert envelope(reply, 400, "validation_error")["message"] == "temperature!"
    assert place.b.requests == []
    books = balanced(place.stack)
    row = books.row(who.pid, who.uid)
    assert (row["upstream"], row["outcome"], row["nano_usd"]) == ("a", "validation_error", 0)
    assert books.counter(who.pid, who.uid, "q") == 0


@pytest.mark.parametrize("stream", [True, False])
def test_when_both_fail_the_last_ones_error_is_told_and_nothing_is_charged(
    place: Place, stream: bool
) -> None:
    place.a.does = {"do": "fail", "status": 429}
    place.b.does = {"do": "fail", "status": 500}
    limits = {**NO_LIMITS, "requests_per_day": 1, "usd_per_month": 1, "tokens_per_day": 10_000}
    who = place.user(user_limits={**limits, "rpm": 100})
    token = who.token
    for _ in range(2):  # its one request of the day is given back
        reply = place.post(token, ask(model="two", stream=stream))
        envelope(reply, 502, "upstream_error")
    assert (len(place.a.requests), len(place.b.requests)) == (2, 2)
    books = balanced(place.stack)
    for row in books.rows(who.pid, who.uid):
        assert (row["upstream"], row["outcome"], row["nano_usd"]) == ("b", "upstream_error", 0)
        assert (row["input_tokens"], row["output_tokens"]) == (0, 0)
    for name in ("q", "t", "nano_usd", "nano_usd_reserved"):
        assert books.counter(who.pid, who.uid, name) == 0
    place.b.does = {}
    assert place.post(token, ask(model="two")).status_code == 200
    envelope(place.post(token, ask(model="two")), 402, "quota_exceeded")


def test_provider_that_thinks_for_longer_than_five_seconds_is_committed_to(place: Place) -> None:
    place.a.does = {"do": "silent", "seconds": 5.5}
    who = place.user()
    reply = place.post(who.token, ask(model="two", stream=True))
    assert reply.status_code == 200
    assert reply.text.startswith(": ping\n\n")
    assert reply.text.endswith("data: [DONE]\n\n")
    assert reply.headers["x-weir-upstreams"] == "a=ok"
    assert place.b.requests == []
    row = balanced(place.stack).row(who.pid, who.uid)
    assert (row["upstream"], row["nano_usd"]) == ("a", COST)


# ---------------------------------------------------------------- what fails is not charged


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ({"do": "fail", "status": 500}, 502, "upstream_error"),
        ({"do": "fail", "status": 401}, 502, "upstream_credentials_refused"),
        ({"do": "html"}, 502, "upstream_invalid_response"),
        ({"do": "reset"}, 502, "upstream_unavailable"),
    ],
    ids=str,
)
def test_failure_before_the_first_word_costs_nothing(
    place: Place, how: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    who = place.user(user_limits={**NO_LIMITS, "requests_per_day": 10, "rpm": 10})
    reply = place.post(who.token, ask(how, stream=stream))
    envelope(reply, status, code)
    books = balanced(place.stack)
    row = books.row(who.pid, who.uid)
    assert (row["outcome"], row["nano_usd"], row["output_tokens"]) == (code, 0, 0)
    assert books.counter(who.pid, who.uid, "q") == 0
    # But the minute's request stays taken: a storm of failures has an end.
    minute = [i for i in books.of(f"LEDGER#{who.pid}#u#{who.uid}", "MINUTE#") if i["requests"]]
    assert sum(item["requests"] for item in minute) == 1


@pytest.mark.parametrize("how", ["reset", "close", "end"])
def test_answer_that_is_cut_is_charged_for_what_was_said(place: Place, how: str) -> None:
    who = place.user(user_limits={**NO_LIMITS, "requests_per_day": 10})
    body = ask({"do": "cut", "how": how}, stream=True, max_tokens=50)
    reply = place.post(who.token, body)
    assert "[DONE]" not in reply.text
    code = frames(reply.text)[-1]["error"]["code"]
    books = balanced(place.stack)
    row = books.row(who.pid, who.uid)
    assert (row["outcome"], row["estimated"]) == (code, True)
    assert 1 <= row["output_tokens"] <= 50
    assert row["nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 400
    assert books.counter(who.pid, who.uid, "q") == 1


def test_blocked_user_is_refused_at_once_and_nothing_is_held(place: Place) -> None:
    who = place.user()
    token = who.token
    assert place.post(token, ask()).status_code == 200
    switch = {"scope": "user", "project": who.pid, "user_id": who.uid, "reason": "spam"}
    place.admin("PUT", "kill-switches", {**switch, "off": True}, 204)
    before = balanced(place.stack).of(f"LEDGER#{who.pid}#")
    error = envelope(place.post(token, ask()), 403, "forbidden")
    assert error["details"] == {"reason": "killed", "scope": "user"}
    books = place.books()
    assert books.of("OPEN#") == []
    assert books.of(f"LEDGER#{who.pid}#") == before
    assert len(place.a.requests) == 1
    assert place.post(place.token(who.project, "bob"), ask()).status_code == 200
    place.admin("PUT", "kill-switches", {**switch, "reason": "", "off": False}, 204)
    assert place.post(token, ask()).status_code == 200


# ---------------------------------------------------------------- GET /v1/me


def test_me_tells_what_is_held_and_spent_as_the_table_has_it(
    place: Place, hold: threading.Event
) -> None:
    limits = {"rpm": 20, "requests_per_day": 50, "tokens_per_day": 50_000, "usd_per_month": 2.5}
    who = place.user(user_limits={**limits, "concurrent_streams": 3})
    token = who.token
    early_in_a_minute()

    def check(streams: int, requests: int) -> dict[str, Any]:
        told, books = place.me(token), place.books()
        spent = books.counter(who.pid, who.uid, "nano_usd")
        held = books.counter(who.pid, who.uid, "nano_usd_reserved")
        budget: dict[str, Any] = told["budget"]
        assert budget == {
            "limit_usd": 2.5,
            "spent_usd": (spent - held) / NANO,
            "reserved_usd": held / NANO,
            "remaining_usd": (2_500_000_000 - spent) / NANO,
            "resets_at": budget["resets_at"],
        }
        assert budget["resets_at"] > time.time()
        assert told["rate_limit"]["rpm"] == 20
        assert told["rate_limit"]["remaining"] == 20 - requests
        used = {each["limit_name"]: each["used"] for each in told["limits"]}
        assert used == {
            "concurrent_streams": streams,
            "rpm": requests,
            "requests_per_day": requests,
            "tokens_per_day": books.counter(who.pid, who.uid, "t"),
            "usd_per_month": spent / NANO,
        }
        assert all(
            each["left"] == pytest.approx(each["limit"] - each["used"]) for each in told["limits"]
        )
        return budget

    assert check(0, 0)["spent_usd"] == 0
    running = Asked(place, token, ask(steps(HOLD, *WORDS, *ENDING), stream=True, max_tokens=100))
    until(lambda: place.a.busy == 1)
    during = check(1, 1)
    assert during["spent_usd"] == 0
    assert during["reserved_usd"] > 100 * 400 / NANO
    hold.set()
    assert running.ended().status == 200
    balanced(place.stack)
    after = check(0, 1)
    assert (after["spent_usd"], after["reserved_usd"]) == (COST / NANO, 0)
    # Another user's numbers are his own.
    assert place.me(place.token(who.project, "bob"))["budget"]["spent_usd"] == 0


def test_me_without_a_limit_of_money_has_no_budget(place: Place) -> None:
    told = place.me(place.user(user_limits={**NO_LIMITS, "rpm": 5}).token)
    assert told["budget"] is None
    assert told["rate_limit"]["rpm"] == 5
    told = place.me(place.user().token)
    assert (told["budget"], told["rate_limit"], told["limits"]) == (None, None, [])


def test_pages_may_read_me_and_cancel_as_they_may_chat(place: Place) -> None:
    who = place.user()
    token = who.token
    http = place.stack.http
    for method, path, status in (
        ("GET", "/v1/me", 200),
        ("POST", f"{ROUTE}/chatcmpl-unknown/cancel", 404),
    ):
        reply = http.request(method, path, headers=bearer(token, ORIGIN))
        assert reply.status_code == status
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        reply = http.request(method, path, headers=bearer(token, "https://evil.example"))
        envelope(reply, 403, "origin_not_allowed")
        assert "access-control-allow-origin" not in reply.headers
        reply = http.request(method, path, headers={"Origin": ORIGIN})
        envelope(reply, 401, "invalid_token")
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": method}
        reply = http.options(path, headers=asked)
        assert reply.status_code == 204
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        for credential in (who.project.key, "garbage"):
            reply = http.request(method, path, headers=bearer(credential))
            assert reply.status_code == 401


# ---------------------------------------------------------------- round trips


def warm(place: Place, token: str) -> None:
    """On return there is one process, and it has just served this user."""
    kill_chat(place.stack)
    # Until the gateway has noticed, it may hand a request to a process that is gone.
    until(lambda: place.post(token, ask()).status_code == 200)
    time.sleep(0.2)  # it says that it is idle after the answer has left
    place.proxy.quiet()
    place.proxy.calls.clear()


@pytest.mark.parametrize("stream", [True, False])
def test_warm_request_asks_the_store_once_before_its_provider_and_once_after(
    place: Place, stream: bool
) -> None:
    """Counted where the chat function's calls pass, between it and DynamoDB."""
    times: dict[str, float] = {}

    def note(name: str) -> Callable[[], None]:
        return lambda: times.__setitem__(name, time.monotonic())

    place.a.points.update(asked=note("asked"), said=note("said"))
    how: dict[str, Any] = steps(
        {"point": "asked"}, *WORDS, *ENDING[:2], {"point": "said"}, *ENDING[2:]
    )
    if not stream:
        how = {"do": "whole", "point": "asked"}
    token = place.user(user_limits={**NO_LIMITS, "usd_per_month": 1, "rpm": 99}).token
    warm(place, token)
    assert place.post(token, ask(how, stream=stream)).status_code == 200
    place.proxy.quiet()
    assert place.proxy.kinds() == ["admit", "settle"]
    admit, settle = place.proxy.calls
    assert admit.came_at < times["asked"] < settle.came_at
    if stream:
        assert times["said"] < settle.came_at


def test_looking_for_a_cancellation_is_one_small_read_a_second(place: Place) -> None:
    body = ask({"do": "stream", "chunks": 70, "gap_s": 0.05}, stream=True)
    token = place.user().token
    warm(place, token)
    assert place.post(token, body).status_code == 200
    place.proxy.quiet()
    kinds = place.proxy.kinds()
    assert (kinds[0], kinds[-1]) == ("admit", "settle")
    assert set(kinds[1:-1]) == {"GetItem"}
    assert 2 <= kinds.count("GetItem") <= 4


# ---------------------------------------------------------------- nothing is spent beside it

# Every route of the template but preflights: its function, and whether it can spend money.
ROUTES: dict[tuple[str, str], tuple[str, bool]] = {
    ("POST", "/v1/chat/completions"): ("ChatFunction", True),
    ("POST", "/v1/embeddings"): ("EmbeddingsFunction", True),
    ("POST", "/v1/moderations"): ("EmbeddingsFunction", True),
    ("POST", "/v1/chat/completions/{id}/cancel"): ("AccountFunction", False),
    ("GET", "/v1/me"): ("AccountFunction", False),
    ("GET", "/v1/usage"): ("AccountFunction", False),
    ("GET", "/v1/billing/usage"): ("AccountFunction", False),
    ("GET", "/v1/models"): ("AccountFunction", False),
    ("GET", "/v1/models/{name+}"): ("AccountFunction", False),
    ("GET", "/v1/threads"): ("AccountFunction", False),
    ("DELETE", "/v1/threads"): ("AccountFunction", False),
    ("GET", "/v1/threads/{id+}"): ("AccountFunction", False),
    ("PATCH", "/v1/threads/{id+}"): ("AccountFunction", False),
    ("DELETE", "/v1/threads/{id+}"): ("AccountFunction", False),
    ("POST", "/v1/auth/mint"): ("TokenFunction", False),
    ("POST", "/v1/auth/revoke"): ("TokenFunction", False),
    ("POST", "/auth/v1/auth/mint"): ("TokenFunction", False),
    ("POST", "/api/behest/token"): ("TokenFunction", False),
    ("POST", "/v1/token"): ("TokenFunction", False),
    ("GET", "/.well-known/jwks.json"): ("TokenFunction", False),
    ("GET", "/auth/.well-known/jwks.json"): ("TokenFunction", False),
    ("POST", "/v1/customers"): ("CustomersFunction", False),
    ("GET", "/v1/customers"): ("CustomersFunction", False),
    ("GET", "/v1/customers/{ref}"): ("CustomersFunction", False),
    ("PUT", "/v1/customers/{ref}"): ("CustomersFunction", False),
    ("PATCH", "/v1/customers/{ref}"): ("CustomersFunction", False),
    ("POST", "/v1/customers/{ref}"): ("CustomersFunction", False),
    ("DELETE", "/v1/customers/{ref}"): ("CustomersFunction", False),
    ("POST", "/v1/customers/{ref}/client_tokens"): ("CustomersFunction", False),
    ("GET", "/v1/customers/{ref}/client_tokens"): ("CustomersFunction", False),
    ("DELETE", "/v1/customers/{ref}/client_tokens"): ("CustomersFunction", False),
    ("DELETE", "/v1/customers/{ref}/client_tokens/{id}"): ("CustomersFunction", False),
    ("POST", "/v1/client_tokens"): ("CustomersFunction", False),
    ("DELETE", "/v1/client_tokens/{id}"): ("CustomersFunction", False),
    ("GET", "/v1/customers/{ref}/usage"): ("AccountFunction", False),
    ("POST", "/v1/webhook_endpoints"): ("WebhooksFunction", False),
    ("GET", "/v1/webhook_endpoints"): ("WebhooksFunction", False),
    ("GET", "/v1/webhook_endpoints/{id}"): ("WebhooksFunction", False),
    ("PATCH", "/v1/webhook_endpoints/{id}"): ("WebhooksFunction", False),
    ("DELETE", "/v1/webhook_endpoints/{id}"): ("WebhooksFunction", False),
    ("POST", "/v1/webhook_endpoints/{id}/rotate_secret"): ("WebhooksFunction", False),
    ("POST", "/v1/webhook_endpoints/{id}/test"): ("WebhooksFunction", False),
    ("GET", "/v1/webhook_endpoints/{id}/deliveries"): ("WebhooksFunction", False),
    ("POST", "/v1/webhook_endpoints/{id}/replay"): ("WebhooksFunction", False),
    ("GET", "/v1/cors"): ("PreflightFunction", False),
    ("ANY", "/admin/v1/{proxy+}"): ("AdminFunction", False),
    ("ANY", "/v1/projects/{pid}/tiers"): ("AdminFunction", False),
    ("ANY", "/v1/projects/{pid}/tiers/{proxy+}"): ("AdminFunction", False),
    ("ANY", "/"): ("PreflightFunction", False),
    ("ANY", "/{proxy+}"): ("PreflightFunction", False),
}
WITHOUT_A_ROUTE = {
    *("RotateFunction", "SweepFunction", "MeterFunction", "NotifyFunction", "DeliverFunction")
}
TEMPLATE = template.load(ROOT / "template.yaml")
FUNCTIONS = {
    name: resource["Properties"]
    for name, resource in TEMPLATE["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
}


def test_every_route_and_function_is_known_here_with_whether_it_can_spend() -> None:
    """Who adds one says so here, and the tests below hold it to that."""
    found = {
        (event["Properties"]["Method"], event["Properties"]["Path"]): name
        for name, properties in FUNCTIONS.items()
        for event in properties.get("Events", {}).values()
        if event["Type"] == "Api"
    }
    preflights = {route for route in found if route[0] == "OPTIONS"}
    assert {found.pop(route) for route in preflights} == {"PreflightFunction"}
    assert found == {route: function for route, (function, _) in ROUTES.items()}
    assert set(FUNCTIONS) == set(found.values()) | WITHOUT_A_ROUTE
    other = {
        event["Type"]
        for properties in FUNCTIONS.values()
        for event in properties.get("Events", {}).values()
    }
    # The table's stream carries what was spent, and no function has an address of its own.
    assert other == {"Api", "Schedule", "DynamoDB", "SQS"}
    assert not [name for name, told in FUNCTIONS.items() if "FunctionUrlConfig" in told]


@pytest.mark.parametrize("stream", [True, False])
def test_no_provider_is_asked_without_a_reservation(place: Place, stream: bool) -> None:
    who = place.user()
    token = who.token
    held: list[int] = []
    place.a.points["asked"] = lambda: held.append(len(place.books().reservations(who.pid)))
    how = steps({"point": "asked"}, *WORDS, *ENDING)
    body = ask(how if stream else {"do": "whole", "point": "asked"}, stream=stream)
    names = {
        **{"id": "chatcmpl-1", "id+": "t1", "name+": "one", "pid": "default", "ref": "ext:u"},
        "proxy+": "chat/completions",
    }
    asked = {route: told for route, told in ROUTES.items() if told[0] != "EmbeddingsFunction"}
    for (method, path), (_, spends) in asked.items():  # the others: test_embeddings.py
        held.clear()
        place.stack.http.request(
            "POST" if method == "ANY" else method,
            path.format(**names),
            headers=bearer(token),
            json=body,
        )
        assert held == ([1] if spends else []), path
    assert len(place.a.requests) == sum(spends for _, spends in asked.values())


def may(action: str, statement: dict[str, Any]) -> bool:
    """With wildcards, as IAM reads them."""
    told = statement["Action"]
    patterns = [told] if isinstance(told, str) else told
    return any(
        re.fullmatch(re.escape(each).replace(r"\*", ".*"), action, re.IGNORECASE)
        for each in patterns
    )


def policies(function: str) -> list[Any]:
    """Those that the template writes for it, or for the role of its own that it has."""
    if "Role" not in FUNCTIONS[function]:
        found: list[Any] = FUNCTIONS[function]["Policies"]
        return found
    role = TEMPLATE["Resources"][FUNCTIONS[function]["Role"]["Fn::GetAtt"][0]]["Properties"]
    # The two that every Lambda function's role has from SAM, too: its log and its traces.
    managed = [json.dumps(arn) for arn in role["ManagedPolicyArns"]]
    assert len(managed) == 2
    assert "AWSLambdaBasicExecutionRole" in managed[0]
    assert "AWSXRayDaemonWriteAccess" in managed[1]
    return [policy["PolicyDocument"] for policy in role["Policies"]]


def statements(function: str) -> list[dict[str, Any]]:
    """Of its role, those under a condition of the template's included. A policy by name would hide
    what it allows.
    """
    found = []
    for policy in policies(function):
        assert isinstance(policy, dict)
        assert set(policy) == {"Version", "Statement"}, policy
        for each in policy["Statement"]:
            statement = each["Fn::If"][1] if "Fn::If" in each else each
            if statement["Effect"] == "Deny":  # takes away from what the others allow
                continue
            assert statement["Effect"] == "Allow"
            assert "NotAction" not in statement
            found.append(statement)
    return found


def who_may(action: str, resource: Callable[[Any], bool], pk: str | None = None) -> set[str]:
    """The functions whose roles may do so; with `pk`, to an item of that key."""

    def allows(statement: dict[str, Any]) -> bool:
        if not may(action, statement) or not resource(statement["Resource"]):
            return False
        condition = statement.get("Condition", {})
        keys = [
            pattern
            for operator in condition.values()
            for pattern in operator.get("dynamodb:LeadingKeys", ())
        ]
        if pk is None or not keys:
            return True
        return any(re.fullmatch(re.escape(k).replace(r"\*", ".*"), pk) for k in keys)

    return {name for name in FUNCTIONS if any(map(allows, statements(name)))}


def the(logical_id: str) -> Callable[[Any], bool]:
    return lambda resource: resource == "*" or logical_id in json.dumps(resource)


def test_only_the_chat_functions_role_can_spend() -> None:
    keys = who_may("secretsmanager:GetSecretValue", the("ProviderKeysSecret"))
    # The admin function changes one key among others: it reads them all to write them all.
    assert keys == {"ChatFunction", "EmbeddingsFunction", "AdminFunction"}
    for action in (
        "bedrock:InvokeModel",
        "bedrock:InvokeModelWithResponseStream",
        "bedrock:CallWithBearerToken",
    ):
        assert who_may(action, lambda _: True) == {"ChatFunction"}


def test_no_role_can_change_a_counter_but_of_those_who_count() -> None:
    counts = who_may("dynamodb:UpdateItem", the("Table"), "LEDGER#default#u#ann")
    assert counts == {"ChatFunction", "EmbeddingsFunction", "SweepFunction", "AccountFunction"}
    settle = {"ChatFunction", "EmbeddingsFunction", "SweepFunction"}
    # The sweeper's rights are for a whole transaction: whether AWS judges its parts by their own
    # keys only is not known here.
    assert who_may("dynamodb:PutItem", the("Table"), "OPEN#3") == settle
    assert who_may("dynamodb:PutItem", the("Table"), "USAGE#default#u#ann") == settle
    assert who_may("dynamodb:DeleteItem", the("Table"), "OPEN#3") == settle
