"""Threads in the table: what is read and written in how many calls, and what is over."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.chat.test_completion import admitted, chat
from weir.aws import items
from weir.aws.clients import client
from weir.aws.contention import AwsError
from weir.aws.conversations import Conversations
from weir.aws.threads import Threads
from weir.chat import completion, threads
from weir.chat.masking import NOTHING_MASKED
from weir.chat.replies import Reply
from weir.chat.threads import Addition, Conversation
from weir.errors import BadRequest, NotFound, NotReady
from weir.projects.project import Project

AT_MS = 1_795_000_000_000
DAY_MS = 86_400_000
PROJECT = Project.from_document("p", {})
KEPT = Project.from_document("p", {"retention_days": 3})
REMEMBERING = Project.from_document("p", {"memory_enabled": True})


class Counted:
    """The table's client; counts its calls, and lets something happen before a transaction."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.before: list[Callable[[], object]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**asked: Any) -> Any:
            self.calls[name] += 1
            if name == "transact_write_items" and self.before:
                self.before.pop()()
            return getattr(client("dynamodb"), name)(**asked)

        return call


class Place:
    def __init__(self) -> None:
        self.store = Counted()
        self.now_ms = AT_MS
        self.project = PROJECT
        self.count = 0
        store: Any = self.store
        self.conversations = Conversations(
            store, "t", "weir-test", clock=lambda: self.now_ms / 1000, sleep=lambda _: None
        )

    def read(self, name: str = "t1", kind: str = "thread") -> Conversation:
        return self.conversations.read("p", "u#ann", self.project, kind, name, self.now_ms)

    def say(
        self,
        text: Any,
        name: str = "t1",
        kind: str = "thread",
        conversation: Conversation | None = None,
        reply: Reply | None = None,
    ) -> None:
        self.count += 1
        self.now_ms += 1000
        read = conversation or self.read(name, kind)
        merge = threads.merge(read, [{"role": "user", "content": text}], at_ms=self.now_ms)
        kept_ms = threads.kept_ms(self.project, kind)
        addition = Addition(read, merge, "s", True, kept_ms)
        running = admitted(replace(chat(), at_ms=self.now_ms, addition=addition))
        running.reservation = replace(running.reservation, id=f"{self.count:032x}")
        running.reply = reply or heard("answer")
        self.conversations.keep(running, completion.charge(running))

    def threads(self) -> Threads:
        store: Any = self.store
        return Threads(store, "t", self.project, "u#ann", self.now_ms, lambda _: None)

    def listed(self) -> list[str]:
        return [record["id"] for record in self.threads().page(200, None, None)[0]]

    def texts(self, name: str = "t1") -> list[str]:
        record = self.threads().record(name)
        found, _ = self.threads().messages(name, record, 1000, None)
        return [message["content"] for message in found]


def heard(text: str) -> Reply:
    reply = Reply()
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    reply.hear({"choices": [choice]}, NOTHING_MASKED)
    return reply


@pytest.fixture
def place(aws: None) -> Place:
    return Place()


def stored(prefix: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client("dynamodb").scan(TableName="t")["Items"]
    return [item for item in found if item["sk"]["S"].startswith(prefix)]


def test_thread_is_read_by_one_query_and_written_by_one_transaction(place: Place) -> None:
    for number in range(3):
        place.store.calls.clear()
        place.say(f"q{number}")
        assert place.store.calls == {"query": 1, "transact_write_items": 1}
    place.store.calls.clear()
    assert place.listed() == ["t1"]
    assert place.store.calls == {"query": 1}
    assert place.texts() == ["q0", "answer", "q1", "answer", "q2", "answer"]


def test_list_has_each_thread_once_with_the_one_used_last_first(place: Place) -> None:
    for name in ("t1", "t2", "t3", "t1"):
        place.say("hi", name)
    assert place.listed() == ["t1", "t3", "t2"]
    assert len(stored("THREAD#")) == 3


def test_two_requests_that_have_read_the_same_keep_both_turns(place: Place) -> None:
    place.say("first")
    read = place.read()
    place.say("left", conversation=read)
    place.say("right", conversation=read)
    assert place.texts()[::2] == ["first", "left", "right"]
    assert place.threads().record("t1")["messages"] == 6
    assert len(stored("THREAD#")) == 1


def test_two_requests_that_begin_a_thread_together_keep_both_turns(place: Place) -> None:
    read = place.read()
    for text in ("left", "right"):
        place.say(text, conversation=read)
    assert place.texts()[::2] == ["left", "right"]


def test_thread_that_was_deleted_while_it_was_answered_stays_so(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.say("first")
    read = place.read()
    place.threads().delete("t1", lambda: False)
    place.say("late", conversation=read)
    assert stored() == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_turns_that_a_deletion_did_not_reach_are_not_of_the_next_thread(place: Place) -> None:
    for number in range(3):
        place.say(f"q{number}")
    with pytest.raises(NotReady):
        place.threads().delete("t1", lambda: True)
    assert place.listed() == []
    assert len(stored("TURN#")) == 3
    with pytest.raises(NotFound):
        place.threads().record("t1")
    assert place.read().turns == []
    place.say("anew")
    assert place.texts() == ["anew", "answer"]
    assert len(place.read().turns) == 1
    place.threads().delete("t1", lambda: False)
    assert stored() == []


def test_what_is_over_is_neither_read_nor_listed_though_it_lies_there(place: Place) -> None:
    place.say("old")
    place.now_ms += 2 * DAY_MS
    place.say("new")
    place.project = KEPT
    assert place.texts() == ["old", "answer", "new", "answer"]
    place.now_ms += 1 * DAY_MS
    assert place.texts() == ["new", "answer"]
    assert [turn.messages[0]["content"] for turn in place.read().turns] == ["new"]
    place.now_ms += 2 * DAY_MS
    assert (place.read().turns, place.listed()) == ([], [])
    with pytest.raises(NotFound):
        place.threads().record("t1")
    place.say("begins again")
    assert place.texts() == ["begins again", "answer"]
    assert place.listed() == ["t1"]
    assert len(stored("THREAD#")) == 1, "its old place in the list is free"


def test_items_say_when_dynamodb_may_delete_them(place: Place) -> None:
    place.say("for good")
    assert not any("ttl" in item for item in stored())
    place.project = KEPT
    place.say("for a while")
    found = {item["sk"]["S"].partition("#")[0]: item for item in stored() if "ttl" in item}
    assert set(found) == {"TURN", "THREAD"}
    assert {int(item["ttl"]["N"]) for item in found.values()} == {place.now_ms // 1000 + 3 * 86_400}


def test_session_is_kept_for_a_day_and_is_in_no_list(place: Place) -> None:
    place.project = REMEMBERING
    place.store.calls.clear()
    place.say("hi", "s1", "session")
    assert place.store.calls == {"query": 1, "transact_write_items": 1}
    assert [turn.messages[0]["content"] for turn in place.read("s1", "session").turns] == ["hi"]
    assert place.read("s1", "thread").turns == []
    assert place.listed() == []
    (item,) = stored()
    assert int(item["ttl"]["N"]) == place.now_ms // 1000 + 86_400
    place.now_ms += DAY_MS
    assert place.read("s1", "session").turns == []


def test_write_that_fails_is_logged_without_a_word_of_what_was_said(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a-canary")

    monkeypatch.setattr(place.conversations, "_transact", fail)
    place.say("a-canary", reply=heard("a-canary"))
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    told = vars(line)
    assert (told["message"], told["error"]) == ("the turn was not kept", "ValueError")
    assert told["TurnsNotKept"] == 1
    assert "a-canary" not in str(told)
    assert stored() == []


def test_conflict_with_another_transaction_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    conflict = AwsError("", 400, "TransactionCanceledException", [{"Code": "TransactionConflict"}])
    failures = [conflict, conflict]
    as_it_is = place.conversations._transact

    def transact(parts: Any) -> None:
        if failures:
            raise failures.pop()
        as_it_is(parts)

    monkeypatch.setattr(place.conversations, "_transact", transact)
    place.say("hi")
    assert place.texts() == ["hi", "answer"]


def test_rename_meets_a_new_turn_and_keeps_both(place: Place) -> None:
    place.say("hi")
    place.store.before.append(lambda: place.say("more"))
    place.threads().rename("t1", "Lisbon")
    record = place.threads().record("t1")
    assert (record["title"], record["messages"]) == ("Lisbon", 4)
    assert [each["title"] for each in place.threads().page(9, None, None)[0]] == ["Lisbon"]


def test_pages_of_messages_are_exact_and_miss_none(place: Place) -> None:
    for number in range(5):
        place.say(f"q{number}")
    record, found, after, sizes = place.threads().record("t1"), [], None, []
    while True:
        views, after = place.threads().messages("t1", record, 3, after)
        found += [view["content"] for view in views]
        sizes.append(len(views))
        if after is None:
            break
    assert found == place.texts()
    assert sizes == [3, 3, 3, 1]


def test_search_finds_titles_in_any_case(place: Place) -> None:
    for name in ("Lisbon in May", "Porto", "LISBON in winter"):
        place.say(name, name)
    found, after = place.threads().page(200, None, "lisbon")
    assert [record["id"] for record in found] == ["LISBON in winter", "Lisbon in May"]
    assert after is None


@pytest.mark.parametrize("cursor", ["TURN#x", "", "RECORD"])
def test_cursor_that_leads_elsewhere_is_refused(place: Place, cursor: str) -> None:
    place.say("hi")
    with pytest.raises(BadRequest):
        place.threads().page(2, cursor, None)
    with pytest.raises(BadRequest):
        place.threads().messages("t1", place.threads().record("t1"), 2, f"{cursor}!0")


def test_everything_of_a_user_goes_and_nothing_of_another(place: Place) -> None:
    place.say("hi", "t1")
    place.say("hi", "s1", "session")
    other = {**items.Key(items.content("p", "u#bob"), "TURN#x").item(), "doc": {"S": "{}"}}
    client("dynamodb").put_item(TableName="t", Item=other)
    place.threads().delete_all(lambda: False)
    assert stored() == [other]
