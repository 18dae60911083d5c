"""Threads over HTTP: what a page writes, what it finds after a reload, and that nobody else does.

The chat function's store is behind a proxy, which counts its calls and lets some of them fail.
"""

import base64
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from openai import OpenAI

from tests.provider import USAGE, FakeProvider
from tests.stack.admin import UNLIMITED, Admin, bearer, mint, model
from tests.stack.conftest import ORIGIN, Stack, ask, envelope
from tests.stack.store import Call, StoreProxy, balanced, start_behind, table

ROUTE = "/v1/chat/completions"
COST = USAGE["prompt_tokens"] * 100 + USAGE["completion_tokens"] * 400  # nano-USD


@dataclass
class Place:
    stack: Stack
    proxy: StoreProxy
    provider: FakeProvider
    admin: Admin
    keys: dict[str, str]
    users: Iterator[str] = field(default_factory=lambda: (f"u_{n}" for n in range(1000)))

    def user(self, pid: str = "chatty") -> "User":
        uid = next(self.users)
        return User(self, pid, uid, mint(self.stack, self.keys[pid], uid, session_id=f"s_{uid}"))

    def calls(self) -> list[str]:
        """What the chat function has called since the last time, without its configuration."""
        self.proxy.quiet()
        calls, self.proxy.calls[:] = list(self.proxy.calls), []
        return [call.kind for call in calls if not _is_of_the_configuration(call)]


@dataclass(frozen=True)
class User:
    place: Place
    pid: str
    uid: str
    token: str

    def chat(self, messages: Any, thread: str | None = None, **more: Any) -> httpx.Response:
        headers = bearer(self.token) | more.pop("headers", {})
        if thread is not None:
            headers["X-Thread-Id"] = thread
        sent = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        body = {"messages": sent, **more}
        return self.place.stack.http.post(ROUTE, headers=headers, json=body)

    def say(self, messages: Any, thread: str | None = None, **more: Any) -> list[Any]:
        """Return what the provider got."""
        reply = self.chat(messages, thread, **more)
        assert reply.status_code == 200, reply.text
        got = self.place.provider.requests[-1]["messages"]
        assert isinstance(got, list)
        return got

    def send(self, method: str, path: str, status: int = 200, **more: Any) -> httpx.Response:
        headers = bearer(self.token, ORIGIN)
        reply = self.place.stack.http.request(method, f"/v1/{path}", headers=headers, **more)
        assert reply.status_code == status, reply.text
        return reply

    def get(self, path: str, **query: Any) -> Any:
        return self.send("GET", path, params=query).json()

    def texts(self, thread: str) -> list[str]:
        return [message["content"] for message in self.get(f"threads/{thread}/messages")]


@pytest.fixture(scope="module")
def place(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    proxy = StoreProxy()
    with start_behind(proxy, tmp_path_factory.mktemp("threads"), provider.url) as stack:
        admin = Admin(stack)
        seeing = {**model("local", "fake-large"), "image_max_tokens": 100}
        admin("PUT", "models/seeing", {**seeing, "candidates": _priced(seeing)})
        projects: dict[str, dict[str, Any]] = {
            "chatty": {},
            "other": {},
            "short": {"memory_window": 2},
            "silent": {"retention_days": 0},
            "mindful": {"memory_enabled": True},
        }
        keys = {}
        for pid, told in projects.items():
            told = {"default_model": "seeing", "origins": [ORIGIN], **UNLIMITED, **told}
            admin.project(pid, **told)
            keys[pid] = admin.key(pid)
        yield Place(stack, proxy, provider, admin, keys)
    proxy.close()


def _is_of_the_configuration(call: Call) -> bool:
    """It is kept for 5 s, as the signing keys are."""
    of_keys = {"S": "KEYRING"} in call.asked.get("ExpressionAttributeValues", {}).values()
    return call.kind == "BatchGetItem" or of_keys


def _priced(told: dict[str, Any]) -> list[dict[str, Any]]:
    prices = {"input_nano_usd": 100, "cached_input_nano_usd": 100, "output_nano_usd": 400}
    return [{**candidate, **prices} for candidate in told["candidates"]]


@pytest.fixture
def jo(place: Place) -> Iterator[User]:
    user = place.user()
    place.calls()
    yield user
    place.proxy.quiet()
    place.proxy.forget()


def on_the_wire(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


# ---------------------------------------------------------------- vector 8 of the contract


def test_full_history_after_a_single_message_leaves_no_duplicates(jo: User) -> None:
    assert jo.say("first", "t1") == on_the_wire("first")
    whole = on_the_wire("first", "Hello!", "second")
    assert jo.say(whole, "t1") == whole
    assert jo.texts("t1") == ["first", "Hello!", "second", "Hello!"]
    assert jo.say("third", "t1") == [*whole, *on_the_wire("", "Hello!", "third")[1:]]
    assert len(jo.texts("t1")) == 6


def test_list_is_an_array_with_the_newest_first_and_what_the_contract_names(jo: User) -> None:
    jo.say("Plan a trip to Lisbon", "t1")
    jo.say("Something else", "t2", headers={"X-Session-Id": "mine"})
    assert [thread["id"] for thread in jo.get("threads")] == ["t2", "t1"]
    jo.say("and then?", "t1")
    first, second = jo.get("threads")
    assert (first["id"], second["id"]) == ("t1", "t2")
    assert first["title"] == "Plan a trip to Lisbon"
    assert first["messages_count"] == 4
    assert first["created_at"] < first["last_message_at"] == first["updated_at"]
    assert first["cost_usd"] == pytest.approx(2 * COST / 1e9)
    assert first["tokens"] == 2 * USAGE["total_tokens"]
    assert (first["session_id"], second["session_id"]) == (f"s_{jo.uid}", "mine")
    assert jo.get("threads/t1") == first


def test_messages_have_what_the_contract_names(jo: User) -> None:
    jo.say("hi", "t1")
    asked, answered = jo.get("threads/t1/messages")
    assert (asked["role"], asked["content"], asked["usage"]) == ("user", "hi", None)
    assert (answered["role"], answered["content"], answered["model"]) == (
        "assistant",
        "Hello!",
        "seeing",
    )
    assert answered["finish_reason"] == "stop"
    assert answered["usage"] == {**USAGE, "cost_usd": COST / 1e9}
    assert asked["id"].startswith("msg_")
    assert asked["id"] != answered["id"]
    assert answered["created_at"].endswith("Z")


def test_thread_of_somebody_else_is_a_404_everywhere_and_stays_as_it_is(
    jo: User, place: Place
) -> None:
    jo.say("mine", "t1")
    namesake = User(place, "other", jo.uid, mint(place.stack, place.keys["other"], jo.uid))
    for stranger in (place.user(), place.user("other"), namesake):
        for path in ("threads/t1", "threads/t1/messages", "threads/t1/export"):
            envelope(stranger.send("GET", path, 404), 404, "not_found")
        reply = stranger.send("PATCH", "threads/t1", 404, json={"title": "x"})
        envelope(reply, 404, "not_found")
        stranger.send("DELETE", "threads/t1", 204)
        stranger.send("DELETE", "threads?confirm=all", 204)
        assert stranger.get("threads") == []
        assert stranger.say("what was that?", "t1") == on_the_wire("what was that?")
    assert jo.texts("t1") == ["mine", "Hello!"]


def test_deleted_thread_is_gone_and_its_name_begins_anew(jo: User) -> None:
    jo.say("first", "t1")
    reply = jo.send("DELETE", "threads/t1", 204)
    assert reply.content == b""
    envelope(jo.send("GET", "threads/t1", 404), 404, "not_found")
    envelope(jo.send("GET", "threads/t1/messages", 404), 404, "not_found")
    assert jo.get("threads") == []
    jo.send("DELETE", "threads/t1", 204)
    assert jo.say("again", "t1") == on_the_wire("again")
    assert jo.texts("t1") == ["again", "Hello!"]
    assert of(jo, "TURN#") == 2


@pytest.mark.parametrize(
    "name",
    ["my thread", "a/b", "2026/04/12 trip", "100%25 sure?&#", "messages", "t" * 200],
)
@pytest.mark.parametrize("encoded", [True, False])
def test_id_may_have_spaces_slashes_and_200_characters(jo: User, name: str, encoded: bool) -> None:
    if not encoded and set(name) & set("%?#"):
        pytest.skip("not an address")
    header = {"X-Thread-Id": name.encode()}
    jo.say("hi", headers=header)
    written = quote(name, safe="") if encoded else name
    assert jo.get(f"threads/{written}")["id"] == jo.get("threads")[0]["id"]
    assert jo.texts(written) == ["hi", "Hello!"]
    assert jo.get(f"threads/{written}/export")["messages"][0]["content"] == "hi"
    jo.send("PATCH", f"threads/{written}", json={"title": "Mine"})
    jo.send("DELETE", f"threads/{written}", 204)
    assert jo.get("threads") == []


# ---------------------------------------------------------------- what is kept


def test_stream_that_was_cancelled_leaves_what_was_sent(jo: User, place: Place) -> None:
    body = ask({"do": "stream", "chunks": 200, "gap_s": 0.05}, stream=True)
    headers = {**bearer(jo.token), "X-Thread-Id": "t1", "X-Client-Request-Id": "stop-me"}
    with place.stack.http.stream("POST", ROUTE, headers=headers, json=body) as reply:
        lines = reply.iter_lines()
        while "content" not in next(lines):
            pass
        jo.send("POST", "chat/completions/stop-me/cancel")
        list(lines)
    _, answered = jo.get("threads/t1/messages")
    assert answered["content"].startswith("w0")
    assert answered["finish_reason"] == "cancelled"


def test_stream_that_the_provider_broke_off_leaves_what_was_sent(jo: User) -> None:
    reply = jo.chat(json.dumps({"do": "cut", "how": "end"}), "t1", stream=True)
    assert '"error"' in reply.text
    _, answered = jo.get("threads/t1/messages")
    assert answered["content"]
    assert answered["finish_reason"] == "upstream_error"


def test_request_that_failed_leaves_no_thread(jo: User) -> None:
    reply = jo.chat(json.dumps({"do": "fail", "status": 500}), "t1")
    assert reply.status_code == 502
    assert jo.get("threads") == []


def test_providers_key_is_not_kept(jo: User) -> None:
    jo.say(json.dumps({"do": "stream", "text": "provider-secret-key"}), "t1", stream=True)
    client, name = table(jo.place.stack)
    found = client.query(
        TableName=name,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"CONTENT#{jo.pid}#u#{jo.uid}"}},
    )["Items"]
    answers = [m["content"] for m in jo.get("threads/t1/messages") if m["role"] == "assistant"]
    assert len(found) == 3
    assert "provider-secret-key" not in answers[0]


def test_large_image_is_a_marker_to_its_owner_and_words_to_the_model(jo: User) -> None:
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60_000)).decode()
    url = f"data:image/png;base64,{png}"
    content = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]
    reply = jo.chat([{"role": "user", "content": content}], "t1")
    assert reply.status_code == 200, reply.text
    first = jo.get("threads/t1/messages")[0]
    assert first["content"].startswith("look\n[an image (image/png) of 60,")
    assert first["parts"][1]["type"] == "omitted"
    got = jo.say("and?", "t1")
    assert "which was not kept" in got[0]["content"]


def test_history_is_a_part_of_the_price(jo: User, place: Place) -> None:
    jo.say("word " * 500, "t1")
    jo.say("and?", "t1")
    admitted = [call for call in place.proxy.calls if call.kind == "admit"]
    held = [json.loads(_reservation(call))["nano_usd"] for call in admitted]
    assert held[1] > held[0], "2,500 bytes of history at 100 nano-USD each"


def _reservation(call: Any) -> str:
    (text,) = [
        part["Put"]["Item"]["doc"]["S"]
        for part in call.asked["TransactItems"]
        if part.get("Put", {}).get("Item", {}).get("pk", {}).get("S", "").startswith("OPEN#")
    ]
    return str(text)


def test_window_bounds_what_is_sent(place: Place) -> None:
    sam = place.user("short")
    for number in range(4):
        sam.say(f"q{number}", "t1")
    assert sam.say("q4", "t1") == on_the_wire("q2", "Hello!", "q3", "Hello!", "q4")
    assert len(sam.texts("t1")) == 10


def test_project_that_keeps_nothing_keeps_nothing(place: Place) -> None:
    sam = place.user("silent")
    place.calls()
    sam.say("first", "t1")
    assert "Query" not in place.calls()
    assert sam.say("second", "t1") == on_the_wire("second")
    assert sam.get("threads") == []
    assert of(sam) == 0


# ---------------------------------------------------------------- sessions


def test_session_is_remembered_where_the_project_says_so_and_never_listed(place: Place) -> None:
    sam = place.user("mindful")
    sam.say("first")
    assert sam.say("second") == on_the_wire("first", "Hello!", "second")
    whole = on_the_wire("first", "Hello!", "second", "Hello!", "third")
    assert sam.say(whole) == whole, "a history of the client's own is not doubled"
    assert sam.say("fourth")[-3:] == on_the_wire("third", "Hello!", "fourth")
    assert sam.say("elsewhere", headers={"X-Session-Id": "another"}) == on_the_wire("elsewhere")
    assert sam.say("in a thread", "t1") == on_the_wire("in a thread")
    assert [thread["id"] for thread in sam.get("threads")] == ["t1"]


def test_session_of_another_users_name_is_ones_own(place: Place) -> None:
    sam, eve = place.user("mindful"), place.user("mindful")
    sam.say("secret", headers={"X-Session-Id": "shared"})
    assert eve.say("what?", headers={"X-Session-Id": "shared"}) == on_the_wire("what?")


def test_session_is_not_remembered_by_default(jo: User, place: Place) -> None:
    jo.say("first")
    assert jo.say("second") == on_the_wire("second")
    assert of(jo) == 0


# ---------------------------------------------------------------- the calls


def test_request_without_a_thread_makes_no_further_call(jo: User, place: Place) -> None:
    jo.say("warm")
    place.calls()
    jo.say("hi")
    assert place.calls() == ["admit", "settle"]


def test_thread_of_2000_turns_is_continued_with_one_read_and_one_write(
    jo: User, place: Place
) -> None:
    jo.say("first", "long")
    fill(jo, "long", 2_000)
    jo.say("warm")
    place.calls()
    got = jo.say("on we go", "long")
    assert place.calls() == ["Query", "admit", "settle", "TransactWriteItems"]
    assert len(got) == 2 * 20 + 1
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        reply = jo.send("GET", "threads/long/messages", params={"cursor": cursor} if cursor else {})
        found += reply.json()
        cursor = reply.headers.get("x-next-cursor")
        pages += 1
        assert len(reply.json()) <= 1_000
    assert (len(found), pages) == (4_004, 5)
    assert len({message["id"] for message in found}) == len(found)
    assert [found[0]["content"], found[-2]["content"]] == ["first", "on we go"]
    exported = jo.get("threads/long/export")
    assert len(exported["messages"]) == 4_004
    assert exported["next_cursor"] is None
    jo.send("DELETE", "threads/long", 204)
    assert of(jo) == 0


def fill(user: User, thread: str, turns: int) -> None:
    """With turns that are older than the one that is there, as they would be stored."""
    client, name = table(user.place.stack)
    items = of_items(user, "TURN#")
    (turn,) = [item for item in items if not item["sk"]["S"].endswith("RECORD")]
    (record,) = [item for item in items if item["sk"]["S"].endswith("RECORD")]
    prefix, at_ms = turn["sk"]["S"].rsplit("#", 3)[0], int(turn["sk"]["S"].split("#")[2])
    document = json.loads(turn["doc"]["S"])
    document["messages"][0]["content"] = "filled"
    made = [
        {
            **turn,
            "sk": {"S": f"{prefix}#{at_ms + 1:013d}#{n:032x}#00"},
            "doc": {"S": json.dumps(document)},
        }
        for n in range(turns)
    ]
    for start in range(0, len(made), 25):
        batch = [{"PutRequest": {"Item": item}} for item in made[start : start + 25]]
        client.batch_write_item(RequestItems={name: batch})
    assert record


def of_items(user: User, prefix: str = "") -> list[dict[str, Any]]:
    client, name = table(user.place.stack)
    found = client.get_paginator("query").paginate(
        TableName=name,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"CONTENT#{user.pid}#u#{user.uid}"}},
    )
    items = [item for page in found for item in page["Items"]]
    return [item for item in items if item["sk"]["S"].startswith(prefix)]


def of(user: User, prefix: str = "") -> int:
    """How many items of their content there are."""
    return len(of_items(user, prefix))


def test_write_that_fails_changes_neither_answer_nor_charge(jo: User, place: Place) -> None:
    jo.say("first", "t1")

    def delete() -> None:
        jo.send("DELETE", "threads/t1", 204)

    for deleted in (False, True):
        if deleted:
            place.proxy.before("TransactWriteItems", delete)
        else:
            lose(place, "TransactWriteItems")
        reply = jo.chat("a-canary", "t1", stream=True)
        assert reply.status_code == 200
        assert reply.text.endswith("data: [DONE]\n\n")
    place.proxy.quiet()
    books = balanced(place.stack)
    assert [row["nano_usd"] for row in books.rows(jo.pid, jo.uid)] == [COST] * 3
    assert jo.get("threads") == [], "a thread that was deleted meanwhile stays so"
    log = place.stack.log("ChatFunction")
    assert '"TurnsNotKept": 1' in log or '"TurnsNotKept":1' in log
    assert "the turn was not kept" in log
    assert "a-canary" not in log


def lose(place: Place, kind: str) -> None:
    """The next call of this kind, and the same on another connection."""
    again = place.proxy
    place.proxy.before(kind, lambda: again.before(kind, lambda: None, lost=True), lost=True)


def test_read_that_fails_is_a_503_and_nothing_is_held(jo: User, place: Place) -> None:
    jo.say("first", "t1")
    place.calls()
    lose(place, "Query")
    reply = jo.chat("second", "t1")
    place.proxy.forget()
    envelope(reply, 503, "store_unavailable")
    assert "admit" not in place.calls()
    assert len(balanced(place.stack).rows(jo.pid, jo.uid)) == 1


def test_two_tabs_at_once_lose_no_message(jo: User, place: Place) -> None:
    jo.say("first", "t1")
    count = 6
    together = threading.Barrier(count)

    def tab(number: int) -> None:
        together.wait()
        reply = jo.chat(f"tab {number}", "t1", stream=True)
        assert reply.text.endswith("data: [DONE]\n\n")

    tabs = [threading.Thread(target=tab, args=(number,)) for number in range(count)]
    for each in tabs:
        each.start()
    for each in tabs:
        each.join()
    texts = jo.texts("t1")
    assert sorted(text for text in texts if text.startswith("tab")) == [
        f"tab {number}" for number in range(count)
    ]
    (thread,) = jo.get("threads")
    assert (thread["messages_count"], len(texts)) == (2 * count + 2, 2 * count + 2)
    assert of(jo, "THREAD#") == 1
    assert all(asked != "Hello!" for asked in texts[::2]), "a turn stays together"


# ---------------------------------------------------------------- the routes


def test_list_comes_in_pages_that_a_page_can_follow(jo: User) -> None:
    for number in range(5):
        jo.say(f"thread {number}", f"t{number}")
    found, query = [], {"limit": "2"}
    while True:
        reply = jo.send("GET", "threads", params=query)
        found += [thread["id"] for thread in reply.json()]
        assert "x-next-cursor" in reply.headers["access-control-expose-headers"]
        if "x-next-cursor" not in reply.headers:
            break
        assert reply.headers["link"].startswith("<?limit=2&cursor=")
        assert reply.headers["link"].endswith('>; rel="next"')
        query["cursor"] = reply.headers["x-next-cursor"]
    assert found == ["t4", "t3", "t2", "t1", "t0"]
    assert [t["id"] for t in jo.get("threads", search="READ 3")] == ["t3"]


@pytest.mark.parametrize(
    "path",
    ["threads?limit=0", "threads?limit=201", "threads?limit=x", "threads?cursor=%25", "threads?x=1",
     "threads?cursor=YWJj", "threads/t1/messages?limit=1001", "threads/t1/messages?cursor=YWJj"],
)  # fmt: skip
def test_wrong_question_is_a_400_that_names_the_parameter(jo: User, path: str) -> None:
    jo.say("hi", "t1")
    error = envelope(jo.send("GET", path, 400), 400, "validation_error")
    assert error["param"] in ("limit", "cursor", "x")


def test_messages_come_in_pages_of_exactly_the_limit(jo: User) -> None:
    for number in range(3):
        jo.say(f"q{number}", "t1")
    texts, query = [], {"limit": "3"}
    sizes = []
    while True:
        reply = jo.send("GET", "threads/t1/messages", params=query)
        texts += [message["content"] for message in reply.json()]
        sizes.append(len(reply.json()))
        if "x-next-cursor" not in reply.headers:
            break
        query["cursor"] = reply.headers["x-next-cursor"]
    assert sizes == [3, 3]
    assert texts == ["q0", "Hello!", "q1", "Hello!", "q2", "Hello!"]


def test_renamed_thread_keeps_its_title(jo: User) -> None:
    jo.say("hi", "t1")
    assert jo.send("PATCH", "threads/t1", json={"title": " Lisbon "}).json()["title"] == "Lisbon"
    jo.say("more", "t1")
    assert [thread["title"] for thread in jo.get("threads")] == ["Lisbon"]
    for body in (
        {"title": ""},
        {"title": 1},
        {"title": "a\nb"},
        {"title": "x" * 201},
        {"name": "x"},
        {},
    ):
        envelope(jo.send("PATCH", "threads/t1", 400, json=body), 400, "validation_error")


def test_all_threads_are_deleted_only_if_it_is_said(jo: User) -> None:
    jo.say("hi", "t1")
    jo.say("hi", "t2")
    assert (
        envelope(jo.send("DELETE", "threads", 400), 400, "validation_error")["param"] == "confirm"
    )
    assert len(jo.get("threads")) == 2
    jo.send("DELETE", "threads?confirm=all", 204)
    assert jo.get("threads") == []
    assert of(jo) == 0


def test_operator_who_erases_a_user_erases_their_threads(jo: User, place: Place) -> None:
    jo.say("hi", "t1")
    removed = place.admin("POST", f"projects/{jo.pid}/users/erase", {"user_id": jo.uid})["removed"]
    assert removed == {"turn": 1, "thread": 1}
    assert jo.get("threads") == []


def test_openai_sdk_continues_a_thread_by_a_header(jo: User, place: Place) -> None:
    base_url = place.stack.env["BEHEST_BASE_URL"] + "/v1"
    with OpenAI(api_key=jo.token, base_url=base_url) as sdk:
        for text in ("first", "second"):
            stream = sdk.chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": text}],
                stream=True,
                extra_headers={"X-Thread-Id": "t1"},
            )
            assert "".join(c.choices[0].delta.content or "" for c in stream)
            soon(functools.partial(_is_kept, jo, text))
    assert jo.texts("t1")[::2] == ["first", "second"]


def _is_kept(user: User, text: str) -> bool:
    """The answer has ended before its turn is kept."""
    headers = bearer(user.token, ORIGIN)
    reply = user.place.stack.http.get("/v1/threads/t1/messages", headers=headers)
    return reply.status_code == 200 and text in [m["content"] for m in reply.json()]


def soon(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)
