"""What a request adds to a thread and what it continues, whatever style of client sends it."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weir.chat import additions, history, threads, turns
from weir.chat.masking import NOTHING_MASKED
from weir.chat.replies import Reply
from weir.chat.threads import Addition, Conversation, Merge
from weir.chat.turns import Message, Turn

AT_MS = 1_795_000_000_000


def user(text: Any) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str | None, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def call(name: str, call_id: str = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": '{"a":1}'}}


def result(text: str, call_id: str = "call_1") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


class Thread:
    """One thread as the gateway keeps it, and the requests that come for it."""

    def __init__(self, *, window: int = 1_000, tool_calls: bool = True) -> None:
        self.turns: list[Turn] = []
        self.document: dict[str, Any] = {}
        self.window, self.tool_calls, self.count = window, tool_calls, 0

    def ask(
        self,
        messages: list[Message],
        answer: Message | None,
        finish_reason: str | None = "stop",
        **how: Any,
    ) -> list[Message]:
        """Return what the provider gets."""
        self.count += 1
        at_ms = AT_MS + self.count * how.pop("apart_ms", 10)
        last = self.turns[-self.window :]
        conversation = Conversation(
            "thread", "t", self.document, 0, last, len(last) == len(self.turns)
        )
        merge = threads.merge(
            conversation, messages, at_ms=at_ms, tool_calls=self.tool_calls, **how
        )
        sent = history.with_history(messages, merge, 500, images=True, fits=lambda *_: True)
        self.add(conversation, merge, at_ms, answer, finish_reason, how.get("completion_id"))
        return messages if sent is None else sent

    def add(
        self,
        conversation: Conversation,
        merge: Merge,
        at_ms: int,
        answer: Message | None,
        finish_reason: str | None,
        completion_id: str | None,
    ) -> None:
        reply = Reply()
        if answer is not None:
            choice = {"index": 0, "message": answer, "finish_reason": finish_reason}
            reply.hear({"choices": [choice]}, NOTHING_MASKED)
        addition = Addition(conversation, merge, "s", self.tool_calls, None)
        stored = additions.added_turns(
            addition,
            reply,
            at_ms=at_ms,
            request=f"{self.count:032x}",
            completion_id=completion_id or f"chatcmpl-{self.count}",
            row={"model": "m", "outcome": "cancelled"},
            usage={},
        )
        if stored:
            self.document = additions.record(
                addition, self.document, stored, at_ms=at_ms, now_ms=at_ms, tokens=1, nano_usd=2
            )
        by_id = {turn.id: turn for turn in [*self.turns, *stored]}
        self.turns = [
            Turn.parse(turn.id, turn.text()) for _, turn in sorted(by_id.items())
        ]  # as it comes back from the table

    @property
    def messages(self) -> list[Message]:
        return [message for turn in self.turns for message in turn.messages]

    @property
    def texts(self) -> list[Any]:
        return [message["content"] for message in self.messages]


@pytest.fixture
def thread() -> Thread:
    """With two turns: q0, a0, q1, a1."""
    one = Thread()
    one.ask([user("q0")], assistant("a0"))
    one.ask([user("q1")], assistant("a1"))
    return one


TWO = [user("q0"), assistant("a0"), user("q1"), assistant("a1")]


def test_newest_message_alone_gets_the_history_before_it(thread: Thread) -> None:
    assert thread.ask([user("q2")], assistant("a2")) == [*TWO, user("q2")]
    assert thread.texts == ["q0", "a0", "q1", "a1", "q2", "a2"]


def test_whole_history_goes_out_as_it_came_and_only_its_end_is_added(thread: Thread) -> None:
    system = {"role": "system", "content": "be brief"}
    sent = [system, *TWO, user("q2")]
    assert thread.ask(sent, assistant("a2")) == sent
    assert thread.texts == ["q0", "a0", "q1", "a1", "q2", "a2"]


def test_history_comes_behind_the_callers_system_message(thread: Thread) -> None:
    system = {"role": "developer", "content": "be brief"}
    assert thread.ask([system, user("q2")], assistant("a2")) == [system, *TWO, user("q2")]
    assert {message["role"] for message in thread.messages} == {"user", "assistant"}


def test_shortened_history_of_the_clients_own_goes_out_as_it_came(thread: Thread) -> None:
    sent = [*TWO[2:], user("q2")]
    assert thread.ask(sent, assistant("a2")) == sent
    assert thread.texts == ["q0", "a0", "q1", "a1", "q2", "a2"]


def test_last_answer_alone_before_the_new_message_is_no_history_of_its_own(thread: Thread) -> None:
    assert thread.ask([TWO[3], user("q2")], assistant("a2")) == [*TWO, user("q2")]
    assert thread.texts == ["q0", "a0", "q1", "a1", "q2", "a2"]


def test_another_answer_takes_the_place_of_the_last_one(thread: Thread) -> None:
    assert thread.ask(TWO[:3], assistant("a1 again")) == TWO[:3]
    assert thread.texts == ["q0", "a0", "q1", "a1 again"]
    assert thread.document["messages"] == 4


def test_first_request_sent_twice_is_kept_once() -> None:
    one = Thread()
    for answer in ("a", "b"):
        assert one.ask([user("q0")], assistant(answer)) == [user("q0")]
    assert one.texts == ["q0", "b"]


def test_message_that_a_user_repeats_is_a_new_one(thread: Thread) -> None:
    thread.ask([user("go on")], assistant("a2"))
    sent = thread.ask([user("go on")], assistant("a3"))
    assert sent == [*TWO, user("go on"), assistant("a2"), user("go on")]
    assert thread.texts[-4:] == ["go on", "a2", "go on", "a3"]


def test_request_with_the_id_of_the_last_one_is_the_same_request(thread: Thread) -> None:
    thread.ask([user("q2")], assistant("a2"), completion_id="mine")
    sent = thread.ask([user("q2")], assistant("a2 again"), completion_id="mine")
    assert sent == [*TWO, user("q2")]
    assert thread.texts[-4:] == ["q1", "a1", "q2", "a2 again"]
    thread.ask([user("another")], assistant("a3"), completion_id="mine")
    assert thread.texts[-4:] == ["q2", "a2 again", "another", "a3"], "the id alone is not enough"


def test_request_that_a_library_sends_again_is_the_same_for_two_minutes(thread: Thread) -> None:
    thread.ask([user("q2")], assistant("a2"))
    thread.ask([user("q2")], assistant("a2 again"), is_retry=True)
    assert thread.texts[-4:] == ["q1", "a1", "q2", "a2 again"]
    thread.ask([user("q2")], assistant("later"), is_retry=True, apart_ms=200_000)
    assert thread.texts[-4:] == ["q2", "a2 again", "q2", "later"]


def test_answer_that_was_broken_off_is_replaced_when_the_message_comes_again(
    thread: Thread,
) -> None:
    thread.ask([user("q2")], assistant("a ha"), finish_reason=None)
    assert thread.turns[-1].finish_reason == "cancelled"
    thread.ask([user("q2")], assistant("a whole one"))
    assert thread.texts[-4:] == ["q1", "a1", "q2", "a whole one"]


def test_edited_history_is_believed_and_its_last_message_is_added(thread: Thread) -> None:
    sent = [user("q0 edited"), TWO[1], user("q1")]
    edited = [user("q0"), TWO[1], user("q1 edited")]
    assert thread.ask(edited, assistant("b1")) == edited
    assert thread.texts == ["q0", "a0", "q1", "a1", "q1 edited", "b1"]
    assert thread.ask(sent, assistant("c1")) == sent
    assert thread.texts[-2:] == ["q1", "c1"]
    follows = [*edited, assistant("b1"), user("q2")]
    assert thread.ask(follows, assistant("b2")) == follows
    assert thread.texts[-2:] == ["q2", "b2"]


def test_another_answer_is_recognised_among_answers_that_are_all_the_same() -> None:
    one, said = Thread(), [user("q0"), assistant("OK"), user("q1")]
    one.ask(said[:1], assistant("OK"))
    one.ask(said, assistant("OK"))
    assert one.ask(said, assistant("fine")) == said
    assert one.texts == ["q0", "OK", "q1", "fine"]


def test_message_repeated_in_an_edited_history_is_a_new_one_and_another_answer_is_not(
    thread: Thread,
) -> None:
    edited = [user("q0 edited"), TWO[1], user("go on")]
    thread.ask(edited, assistant("b1"))
    again = [*edited, assistant("b1"), user("go on")]
    thread.ask(again, assistant("b2"))
    assert thread.texts[-4:] == ["go on", "b1", "go on", "b2"]
    thread.ask(again, assistant("b3"))
    assert thread.texts[-4:] == ["go on", "b1", "go on", "b3"]


def test_tools_are_kept_once_and_sent_with_their_calls(thread: Thread) -> None:
    calls = assistant(None, tool_calls=[call("look"), call("see", "call_2")])
    results = [result("r1"), result("r2", "call_2")]
    thread.ask([user("q2")], calls, "tool_calls")
    assert thread.ask(results, assistant("a2")) == [*TWO, user("q2"), calls, *results]
    assert thread.messages[4:] == [user("q2"), calls, *results, assistant("a2")]
    whole = [*TWO, user("q2"), calls, *results, assistant("a2"), user("q3")]
    assert thread.ask(whole, assistant("a3")) == whole
    assert len(thread.messages) == 11


def test_tool_call_without_its_result_is_not_sent(thread: Thread) -> None:
    thread.ask([user("q2")], assistant("let me see", tool_calls=[call("look")]), "tool_calls")
    sent = thread.ask([user("never mind")], assistant("fine"))
    assert sent[4:] == [user("q2"), assistant("let me see"), user("never mind")]


def test_result_with_the_call_before_it_still_gets_the_question(thread: Thread) -> None:
    calls = assistant(None, tool_calls=[call("look")])
    thread.ask([user("q2")], calls, "tool_calls")
    assert thread.ask([calls, result("r")], assistant("a2")) == [
        *TWO,
        user("q2"),
        calls,
        result("r"),
    ]


def test_project_that_keeps_no_tool_calls_keeps_the_words_around_them() -> None:
    one = Thread(tool_calls=False)
    calls = assistant(None, tool_calls=[call("look")])
    one.ask([user("q0")], calls, "tool_calls")
    one.ask([user("q0"), calls, result("r")], assistant("a0"))
    assert one.messages == [user("q0"), assistant("a0")]
    one.ask([user("q0"), calls, result("r"), assistant("a0"), user("q1")], assistant("a1"))
    assert one.texts == ["q0", "a0", "q1", "a1"]


@pytest.mark.parametrize(
    "spelled",
    [
        [{"type": "text", "text": "q1"}],
        [{"type": "text", "text": "q"}, {"type": "text", "text": "1 "}],
        " q1\r\n",
    ],
    ids=str,
)
def test_message_in_another_spelling_is_the_same(thread: Thread, spelled: Any) -> None:
    sent = [*TWO[:2], user(spelled), {"role": "assistant", "content": "a1 ", "refusal": None}]
    thread.ask([*sent, user("q2")], assistant("a2"))
    assert thread.texts == ["q0", "a0", "q1", "a1", "q2", "a2"]


def test_arguments_of_a_tool_call_may_be_formatted_anew(thread: Thread) -> None:
    thread.ask([user("q2")], assistant(None, tool_calls=[call("look")]), "tool_calls")
    other = call("look")
    other["function"]["arguments"] = '{ "a": 1 }'
    sent = [*TWO, user("q2"), assistant("", tool_calls=[other]), result("r")]
    thread.ask(sent, assistant("a2"))
    assert len(thread.messages) == 8


def test_thread_that_begins_with_a_history_keeps_all_of_it() -> None:
    one = Thread()
    one.ask([*TWO, user("q2")], assistant("a2"))
    assert one.texts == ["q0", "a0", "q1", "a1", "q2", "a2"]
    one.ask([user("q3")], assistant("a3"))
    assert one.texts[-2:] == ["q3", "a3"]


def test_request_without_an_answer_leaves_nothing(thread: Thread) -> None:
    thread.ask([user("q2")], None)
    assert thread.messages == TWO
    thread.ask([*TWO, user("q2"), user("q3")], assistant("a3"))
    assert thread.texts[-3:] == ["q2", "q3", "a3"]


STYLES = ["whole", "newest", "shortened"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["turn", "turn", "tools", "again", "retry", "cut"]),
        st.sampled_from(STYLES),
    ),
    max_size=12,
)


@given(steps=STEPS, how=st.sampled_from([(3, False), (1_000, False), (1_000, True)]))
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_any_mixture_of_clients_leaves_each_message_once(
    steps: list[tuple[str, str]], how: tuple[int, bool]
) -> None:
    """`said` is the conversation as its user sees it. `same`: some texts come again and again; what
    is read then reaches back to where they began, or nobody could tell a new turn from an old one.
    """
    window, same = how
    one = Thread(window=window)
    said: list[Message] = []
    asked: tuple[list[Message], list[Message], str | None] | None = None

    def ask(
        new: list[Message], style: str, answer: Message, reason: str | None, **how: Any
    ) -> None:
        nonlocal said
        before = said
        sent = {"whole": [*before, *new], "shortened": [*before[-4:], *new], "newest": new}[style]
        got = one.ask(sent, answer, reason, **how)
        if style == "whole":
            assert got == sent
        if style == "newest":
            assert got[-len(new) :] == new
            limit = got[: -len(new)]
            assert limit == before[len(before) - len(limit) :]
            if window == 1_000:
                assert got == [*before, *new]
        said = [*before, *new, answer]

    for number, (step, style) in enumerate(steps, 1):
        request_id = f"id-{number}"
        answer = assistant("OK" if same else f"a{number}")
        if step in ("turn", "cut", "tools") or asked is None:
            new = [user("go on" if same and number > 1 and step == "turn" else f"q{number}")]
            before = said
            if step == "tools":
                calls = assistant(None, tool_calls=[call("look", f"call_{number}")])
                ask(new, style, calls, "tool_calls", completion_id=request_id)
                new, before = [result("r", f"call_{number}")], said
                request_id += "b"
            reason = None if step == "cut" else "stop"
            ask(new, style, answer, reason, completion_id=request_id)
            asked = (before, new, request_id)
        else:  # the last request comes once more, by its id or as a client that sends everything
            said = asked[0]
            names: dict[str, Any] = {"completion_id": asked[2]}
            if step == "again" and style != "newest" and len(said) > 0:
                names = {"completion_id": f"{request_id}-again"}
                asked = (asked[0], asked[1], names["completion_id"])
            ask(
                asked[1],
                "whole" if step == "again" and style != "newest" else style,
                answer,
                "stop",
                **names,
            )
        assert one.messages == said


def test_two_requests_at_once_keep_both_turns(thread: Thread) -> None:
    was = list(thread.turns)
    conversation = Conversation("thread", "t", thread.document, 0, was, True)
    for text in ("left", "right"):
        thread.count += 1
        merge = threads.merge(conversation, [user(text)], at_ms=AT_MS + 100)
        thread.add(conversation, merge, AT_MS + 100, assistant(text.upper()), "stop", None)
    assert thread.texts[4:] == ["left", "LEFT", "right", "RIGHT"]
    assert thread.document["messages"] == 8


def test_history_has_no_more_turns_than_the_window_and_no_more_than_fit(thread: Thread) -> None:
    conversation = Conversation("thread", "t", {}, 0, thread.turns, True)
    merge = threads.merge(conversation, [user("q2")], at_ms=AT_MS + 100)

    def sent(window: int, most: int) -> list[Message] | None:
        return history.with_history(
            [user("q2")], merge, window, images=True, fits=lambda size, _: size <= most
        )

    assert sent(2, 10_000) == [*TWO, user("q2")]
    assert sent(1, 10_000) == [*TWO[2:], user("q2")]
    assert sent(2, len(turns.compact(TWO[2:]))) == [*TWO[2:], user("q2")]
    assert sent(0, 10_000) is None
    assert sent(2, 10) is None


# ---------------------------------------------------------------- what is kept


def test_large_parts_become_markers_that_are_sent_as_words() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 80_000}}
    small = {"type": "image_url", "image_url": {"url": "https://pictures.example/cat.png"}}
    sent = [user([{"type": "text", "text": "look"}, image, small]), user("x" * 70_000)]
    one = Thread()
    one.ask(sent, assistant("nice"))
    marker = {"type": "omitted", "of": "image", "bytes": 60_000, "media_type": "image/png"}
    assert one.texts[0] == [{"type": "text", "text": "look"}, marker, small]
    assert one.texts[1] == [{"type": "omitted", "of": "text", "bytes": 70_000}]
    got = one.ask([user("and?")], assistant("well"))
    words = "[an image (image/png) of 60,000 bytes, which was not kept]"
    assert got[0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "text", "text": words},
        small,
    ]
    assert got[1]["content"] == "[a text of 70,000 bytes, which was not kept]"
    one.ask(
        [*sent, assistant("nice"), user("and?"), assistant("well"), user("so")], assistant("so")
    )
    assert len(one.messages) == 7, "it is recognised by its digest"


@pytest.mark.parametrize(
    "messages",
    [
        [user([{"type": "text", "text": "x" * 60_000}] * 60)],
        [user([{"type": "text", "text": "é"}] * 60_000)],
        [user("\x01" * 60_000)] * 20,
        [assistant(None, tool_calls=[call("c" * 60_000, f"{n}") for n in range(40)])],
        [result("r", "i" * 60_000)] * 40,
        [{"role": "user", "content": "\ud800" * 50_000}] * 10,
        [user("u"), assistant("a" * 60_000)] * 60,
        [user("x")] * 130_000,
    ],
    ids=["parts", "tiny parts", "escapes", "calls", "ids", "surrogates", "history", "many"],
)
def test_item_stays_below_what_dynamodb_takes_whatever_comes(messages: list[Message]) -> None:
    one = Thread()
    one.ask(messages, assistant("fine"))
    sizes = [len(turn.text().encode()) for turn in one.turns]
    assert max(sizes) < 390_000
    assert sum(sizes) < 4_000_000
    assert len(one.turns) < 90
    assert one.texts[-1] == "fine"
    assert len(one.messages) == len(one.document and [d for t in one.turns for d in t.digests])


def test_history_that_was_sent_is_kept_in_several_turns_if_it_is_long() -> None:
    one = Thread()
    sent = [m for n in range(40) for m in (user(f"{n} " * 2_000), assistant(f"{n}" * 6_000))]
    one.ask([*sent, user("last")], assistant("fine"))
    assert len(one.turns) > 1
    assert one.messages == [*sent, user("last"), assistant("fine")]
    assert {t.replies for t in one.turns[:-1]} == {0}


def test_title_is_the_first_message_cut_between_words() -> None:
    long = "Plan a trip to Lisbon\nfor two people, with a hotel near the river and a day in Sintra"
    one = Thread()
    one.ask([user(long)], assistant("a"))
    assert one.document["title"] == (
        "Plan a trip to Lisbon for two people, with a hotel near the river and a day in…"
    )
    assert len(one.document["title"]) <= 80


def test_reply_is_put_together_from_what_was_streamed() -> None:
    reply = Reply()
    for delta in ({"role": "assistant", "content": "Hel"}, {"content": "lo"}):
        reply.hear({"choices": [{"index": 0, "delta": delta}]}, NOTHING_MASKED)
    assert reply.message() == assistant("Hello")
    reply.hear({"choices": [{"index": 1, "delta": {"content": "no"}}]}, NOTHING_MASKED)
    reply.hear({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, NOTHING_MASKED)
    assert (reply.message(), reply.finish_reason) == (assistant("Hello"), "stop")


def test_half_a_tool_call_is_not_kept() -> None:
    reply = Reply()
    delta = {"content": "I look", "tool_calls": [{"index": 0, **call("lo")}]}
    reply.hear({"choices": [{"index": 0, "delta": delta}]}, NOTHING_MASKED)
    assert reply.message() == assistant("I look")
    reply.hear(
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}, NOTHING_MASKED
    )
    assert reply.message() == assistant("I look", tool_calls=[call("lo")])


def test_turn_survives_its_item() -> None:
    turn = Turn(turns.turn_id(AT_MS, "r"), [user("\ud800é")], ["d"], model="m", usage={"a": 1.5})
    assert Turn.parse(turn.id, turn.text()) == turn
    assert replace(turn, replies=1).inputs == []


def test_chat_that_names_no_thread_imports_nothing_of_them() -> None:
    told = "import sys, weir.chat.completion, weir.chat.headers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, check=True, text=True)
    ours = {"threads", "turns", "history", "additions", "replies", "transcripts"}
    imported = set(done.stdout.split())
    assert "weir.chat.relay" in imported
    assert not {f"weir.chat.{name}" for name in ours} & imported
