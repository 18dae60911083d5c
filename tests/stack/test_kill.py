"""kill -9 of the chat function's process at every moment of a request: nothing is lost.

Whatever the moment, the client sees no success that was not one, and the request is settled exactly
once: by itself if it came so far, else by the sweeper at its worst case, and not at all if it was
never admitted.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.provider import USAGE, FakeProvider
from tests.stack.admin import Admin, bearer, mint, model
from tests.stack.conftest import Stack, ask, envelope
from tests.stack.store import Books, StoreProxy, balanced, kill_chat, start_behind, table
from weir.aws.ledger import Ledger
from weir.ledger.admission import Swept

PID = "killed"
ROUTE = "/v1/chat/completions"
LONG_AFTER_S = 10_000  # every deadline has passed
COST = USAGE["prompt_tokens"] * 100 + USAGE["completion_tokens"] * 400
# Every kind of counter at every level, so that each has its part in the balance.
LIMITS = {
    "rpm": 10_000,
    "tpm": 10**9,
    "requests_per_day": 10_000,
    "tokens_per_day": 10**9,
    "tokens_per_month": 10**9,
    "usd_per_month": 1000,
    "concurrent_streams": 20,
    "max_output_tokens": 1024,
}


def wait_until(holds: Callable[[], bool], within_s: float = 20) -> None:
    give_up = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@dataclass
class Place:
    stack: Stack
    proxy: StoreProxy
    provider: FakeProvider
    key: str
    users: Iterator[str] = field(default_factory=lambda: (f"u_{n}" for n in range(1000)))
    shown: str = ""  # to the client that asked last
    frames: int = 0  # that a client is to have seen before the process is killed

    def kill(self) -> None:
        """Not before the client has what was sent until now: who dies later is killed later."""
        wait_until(lambda: self.shown.count("\n\n") >= self.frames)
        kill_chat(self.stack)

    def ledger(self) -> Ledger:
        return Ledger(*table(self.stack), time.time)

    def sweep(self, later_s: int = LONG_AFTER_S) -> Swept:
        return self.ledger().sweep(int(time.time()) + later_s, lambda: False)

    def token(self, uid: str) -> str:
        return mint(self.stack, self.key, uid)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    provider, proxy = FakeProvider(), StoreProxy()
    with start_behind(proxy, tmp_path_factory.mktemp("killed"), provider.url) as stack:
        admin = Admin(stack)
        admin("PUT", "models/priced", model("local", "fake-large"))
        admin("PATCH", "tenant", {"limits": LIMITS, "ledger_shards": 3})
        admin.project(
            PID, default_model="priced", limits=LIMITS, user_limits=LIMITS, ledger_shards=2
        )
        yield Place(stack, proxy, provider, admin.key(PID))
    for server in (provider, proxy):
        server.close()


@pytest.fixture(autouse=True)
def _books_balance(place: Place) -> Iterator[None]:
    """After every test: each counter is what the usage rows add up to, and nothing is held."""
    place.provider.points = {"kill": place.kill}
    place.frames = 0
    place.sweep()  # what a test that failed has left
    yield
    balanced(place.stack)


@dataclass(frozen=True)
class Seen:
    """By the client. `whole`: HTTP says that nothing is missing. Status 0: there was none."""

    status: int
    text: str
    whole: bool


def request(place: Place, uid: str, body: dict[str, Any], token: str | None = None) -> Seen:
    status, place.shown = 0, ""
    steps = json.loads(body["messages"][0]["content"]).get("steps", [])
    if KILL in steps:
        sent = steps[: steps.index(KILL)]
        place.frames = sum("text" in step or "finish" in step for step in sent)
    headers = bearer(token or place.token(uid))
    try:
        with place.stack.http.stream("POST", ROUTE, headers=headers, json=body) as reply:
            status = reply.status_code
            for piece in reply.iter_text():
                place.shown += piece
        return Seen(status, place.shown, whole=True)
    except httpx.TransportError:
        return Seen(status, place.shown, whole=False)


# ---------------------------------------------------------------- the moments

Step = dict[str, Any]
KILL: Step = {"point": "kill"}
WORDS: list[Step] = [{"text": f"w{number} "} for number in range(6)]
ENDING: list[Step] = [{"finish": "stop"}, {"usage": True}, {"done": True}]
GOOD: list[Step] = [*WORDS, *ENDING]
NEVER, SWEPT, ITSELF = "never admitted", "swept", "settled by itself"


@dataclass(frozen=True)
class Moment:
    """When it is killed: at a step of the provider's, or at a call to the store. What the client
    has of the answer by then: nothing, a part of it, or all, and who settles it.
    """

    client: str
    settled: str
    steps: list[Step] = field(default_factory=lambda: GOOD)
    arm: Callable[[Place], None] = lambda place: None
    stream: bool = True


def lost(kind: str) -> Callable[[Place], None]:
    return lambda place: place.proxy.before(kind, place.kill, lost=True)


def late(kind: str) -> Callable[[Place], None]:
    """What a dead process has sent arrives all the same."""
    return lambda place: place.proxy.before(kind, place.kill)


def unanswered(kind: str) -> Callable[[Place], None]:
    return lambda place: place.proxy.after(kind, place.kill)


def silence(seconds: float) -> Callable[[Place], None]:
    def arm(place: Place) -> None:
        place.provider.points["silence"] = lambda: time.sleep(seconds)

    return arm


MOMENTS: dict[str, Moment] = {
    "before admission reaches the store": Moment("nothing", NEVER, arm=lost("admit")),
    "while admission is on its way": Moment("nothing", SWEPT, arm=late("admit")),
    "before admission is answered": Moment("nothing", SWEPT, arm=unanswered("admit")),
    "right after admission": Moment("nothing", SWEPT, [KILL, *GOOD]),
    "while the provider is silent": Moment(
        "nothing", SWEPT, [{"point": "silence"}, KILL, *GOOD], silence(0.7)
    ),
    "after the first chunk": Moment("a part", SWEPT, [*WORDS[:1], KILL, *WORDS[1:], *ENDING]),
    "mid-stream": Moment("a part", SWEPT, [*WORDS[:4], KILL, *WORDS[4:], *ENDING]),
    "after the last word": Moment("a part", SWEPT, [*WORDS, KILL, *ENDING]),
    "before [DONE]": Moment("a part", SWEPT, [*WORDS, *ENDING[:2], KILL, *ENDING[2:]]),
    "after [DONE], before settling": Moment("all", SWEPT, arm=lost("settle")),
    "while settling is on its way": Moment("all", ITSELF, arm=late("settle")),
    "before settling is answered": Moment("all", ITSELF, arm=unanswered("settle")),
    "a whole answer, before it has come": Moment("nothing", SWEPT, [KILL], stream=False),
    "a whole answer, before settling": Moment("all", SWEPT, arm=lost("settle"), stream=False),
    "a whole answer, while settling": Moment("all", ITSELF, arm=late("settle"), stream=False),
}


def how_to_answer(moment: Moment) -> dict[str, Any]:
    if moment.stream:
        return {"do": "steps", "steps": moment.steps}
    return {"do": "whole", "point": "kill"} if KILL in moment.steps else {"do": "whole"}


@pytest.mark.parametrize("name", MOMENTS)
def test_killed_request_is_settled_once_and_its_client_is_told_no_success(
    place: Place, name: str
) -> None:
    moment, uid = MOMENTS[name], next(place.users)
    moment.arm(place)
    how = how_to_answer(moment)
    seen = request(place, uid, ask(how, stream=moment.stream, max_tokens=100))
    check_client(moment, seen)

    place.proxy.quiet()
    before = Books(place.stack)
    held = before.reservations(PID)
    assert len(held) == (moment.settled == SWEPT)
    early = place.sweep(later_s=0)
    assert (early.settled, early.failed) == (0, 0), "swept before its deadline"
    sweeps = [place.sweep(), place.sweep()]
    assert [each.settled for each in sweeps] == [len(held), 0]
    assert [each.failed for each in sweeps] == [0, 0]

    after = balanced(place.stack)
    rows = after.rows(PID, uid)
    assert len(rows) == (moment.settled != NEVER)
    if moment.settled == SWEPT:
        assert (rows[0]["outcome"], rows[0]["nano_usd"]) == ("abandoned", held[0]["nano_usd"])
        assert rows[0]["estimated"]
        assert held[0]["nano_usd"] > 100 * 400, "less than its output may cost"
    elif moment.settled == ITSELF:
        assert rows[0]["outcome"] == "completed"
        assert (rows[0]["nano_usd"], rows[0]["estimated"]) == (COST, False)
    assert after.counter(PID, uid, "nano_usd") == sum(row["nano_usd"] for row in rows)
    assert after.counter(PID, uid, "nano_usd_reserved") == 0
    assert after.counter(PID, uid, "q") == len(rows)
    assert after.open_ids(PID, uid) == set()

    again = request(place, uid, ask({"do": "steps", "steps": GOOD}, stream=True, max_tokens=100))
    assert again.status == 200
    assert again.text.endswith("data: [DONE]\n\n")
    assert len(balanced(place.stack).rows(PID, uid)) == len(rows) + 1


def check_client(moment: Moment, seen: Seen) -> None:
    if moment.client == "nothing":
        assert seen.status >= 500, seen
        assert seen.whole
        assert json.loads(seen.text)["error"]["code"] == "server_error"
    elif moment.client == "a part":
        assert seen.status == 200
        assert "[DONE]" not in seen.text
        assert not seen.whole, "an answer that was cut looks whole"
        assert all(frame.startswith("data: {") for frame in seen.text.split("\n\n") if frame)
        assert seen.text.endswith("\n\n"), "half a frame"
    elif moment.stream:
        assert seen.status == 200
        assert seen.text.endswith("data: [DONE]\n\n")
        assert seen.text.count("[DONE]") == 1
        assert all(word["text"] in seen.text for word in WORDS)
    elif seen.status == 200:
        assert json.loads(seen.text)["choices"][0]["message"]["content"] == "Hello!"
    else:  # it was settled before it was handed on
        assert seen.status >= 500


@pytest.mark.long
def test_killed_after_the_first_heartbeat_is_settled_once(place: Place) -> None:
    """5 s of silence are a 200 and a heartbeat, and then nothing more comes."""
    uid = next(place.users)
    silence(6)(place)
    steps = [{"point": "silence"}, KILL, *GOOD]
    seen = request(place, uid, ask({"do": "steps", "steps": steps}, stream=True, max_tokens=100))
    assert seen == Seen(200, ": ping\n\n", whole=False)
    assert place.sweep().settled == 1
    assert balanced(place.stack).row(PID, uid)["outcome"] == "abandoned"


# ---------------------------------------------------------------- around the sweeper


def test_killed_users_slot_is_his_again_once_swept(place: Place) -> None:
    uid = next(place.users)
    fewer = Admin(place.stack)
    fewer.project(
        "one-slot", default_model="priced", user_limits={**LIMITS, "concurrent_streams": 1}
    )
    token = mint(place.stack, fewer.key("one-slot"), uid)
    how = {"do": "steps", "steps": [*WORDS[:2], KILL, *ENDING]}

    def ask_it(told: dict[str, Any]) -> httpx.Response:
        body = ask(told, stream=True, max_tokens=100)
        return place.stack.http.post(ROUTE, headers=bearer(token), json=body)

    killed = request(place, uid, ask(how, stream=True, max_tokens=100), token)
    assert not killed.whole
    error = envelope(ask_it({}), 429, "rate_limited")
    assert error["details"]["limit_name"] == "concurrent_streams"
    assert place.sweep().settled == 1
    assert ask_it({}).text.endswith("data: [DONE]\n\n")
    rows = balanced(place.stack).rows("one-slot", uid)
    assert [row["outcome"] for row in rows] == ["abandoned", "completed"]


def test_request_that_is_swept_while_it_settles_is_settled_once(place: Place) -> None:
    """It was not killed, it was slow: longer than its deadline."""
    uid = next(place.users)
    swept: list[Swept] = []
    place.proxy.before("settle", lambda: swept.append(place.sweep()))
    seen = request(place, uid, ask({"do": "steps", "steps": GOOD}, stream=True, max_tokens=100))
    assert seen.text.endswith("data: [DONE]\n\n")
    assert [each.settled for each in swept] == [1]
    assert balanced(place.stack).row(PID, uid)["outcome"] == "abandoned"
    assert "settled before" in place.stack.log("ChatFunction")


def test_killed_while_another_is_in_the_way_of_its_settling_is_swept(place: Place) -> None:
    """Its first try to settle was a conflict, and there is no second."""
    uid = next(place.users)
    tried = threading.Event()

    def at_first() -> None:
        place.proxy.before("settle", place.kill, lost=True)  # the next try
        tried.set()

    place.proxy.conflict("settle")
    place.proxy.after("settle", at_first)
    seen = request(place, uid, ask({"do": "steps", "steps": GOOD}, stream=True, max_tokens=100))
    assert tried.is_set()
    assert "[DONE]" in seen.text
    assert place.sweep().settled == 1
    assert balanced(place.stack).row(PID, uid)["outcome"] == "abandoned"


def test_two_sweepers_at_once_settle_it_once(place: Place) -> None:
    uids = [next(place.users) for _ in range(4)]
    steps = [*WORDS[:2], {"point": "all here"}, *ENDING]
    together = threading.Barrier(len(uids) + 1)
    place.provider.points["all here"] = lambda: together.wait(30)
    body = ask({"do": "steps", "steps": steps}, stream=True, max_tokens=100)
    clients = [threading.Thread(target=request, args=(place, uid, body)) for uid in uids]
    for client in clients:
        client.start()
    # Once all of them are in the middle of their answers.
    wait_until(lambda: len(Books(place.stack).reservations(PID)) == len(uids))
    wait_until(lambda: together.n_waiting == len(uids))
    kill_chat(place.stack)
    together.wait(30)
    for client in clients:
        client.join(30)
    settled: list[int] = []
    sweepers = [
        threading.Thread(target=lambda: settled.append(place.sweep().settled)) for _ in range(3)
    ]
    for sweeper in sweepers:
        sweeper.start()
    for sweeper in sweepers:
        sweeper.join(30)
    assert sum(settled) == len(uids)
    books = balanced(place.stack)
    assert [books.row(PID, uid)["outcome"] for uid in uids] == ["abandoned"] * len(uids)


# ---------------------------------------------------------------- the function that sweeps


def killed_mid_stream(place: Place) -> str:
    uid = next(place.users)
    how = {"do": "steps", "steps": [*WORDS[:2], KILL, *ENDING]}
    assert not request(place, uid, ask(how, stream=True, max_tokens=100)).whole
    return uid


def run_schedules(stack: Stack) -> None:
    transport = httpx.HTTPTransport(uds=str(stack.directory / "control.sock"))
    with httpx.Client(transport=transport, timeout=60) as control:
        reply = control.post("http://weir/schedules")
    assert (reply.status_code, reply.json()) == (200, {"ran": ["SweepFunction"]})


def make_due(stack: Stack) -> None:
    """As if time had passed: a reservation's deadline is in its key."""
    client, name = table(stack)
    for item in Books(stack).of("OPEN#"):
        overdue = f"{int(time.time()) - 30:010d}{item['sk'][10:]}"
        key = {"pk": {"S": item["pk"]}, "sk": {"S": item["sk"]}}
        moved = {**key, "sk": {"S": overdue}, "doc": {"S": item["doc"]}}
        client.transact_write_items(
            TransactItems=[
                {"Delete": {"TableName": name, "Key": key}},
                {"Put": {"TableName": name, "Item": moved}},
            ]
        )


def test_sweep_function_settles_what_is_due_and_leaves_what_is_not(place: Place) -> None:
    """Under its own role, and as EventBridge calls it."""
    uid = killed_mid_stream(place)
    run_schedules(place.stack)
    assert len(Books(place.stack).reservations(PID)) == 1, "swept before its deadline"
    make_due(place.stack)
    run_schedules(place.stack)
    assert balanced(place.stack).row(PID, uid)["outcome"] == "abandoned"
    lines = [json.loads(line) for line in place.stack.log("SweepFunction").splitlines()]
    told = [line for line in lines if line.get("SweptReservations") == 1]
    assert len(told) == 1
    assert 30 <= told[0]["OldestReservationSeconds"] < 60


@pytest.mark.long
def test_killed_request_is_swept_by_itself_within_two_minutes_of_its_deadline(place: Place) -> None:
    """Nobody asks for it: MaxStreamSeconds and a minute pass, and the schedule comes round."""
    began = time.monotonic()
    uid = killed_mid_stream(place)
    books = balanced(place.stack, within_s=10 + 60 + 120)
    assert books.row(PID, uid)["outcome"] == "abandoned"
    assert time.monotonic() - began > 10 + 60
