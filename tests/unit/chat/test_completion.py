"""Who pays for what: the rules of a chat, without a table, an event or a provider."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from weir.chat import completion, relay
from weir.chat.completion import BILLED, Billed, Chat, Running
from weir.chat.masking import NOTHING_MASKED
from weir.chat.outcome import Ending, Outcome, State
from weir.chat.threads import Conversation
from weir.chat.turns import Turn, digest, turn_id
from weir.errors import BadRequest, Cancelled, NotReady, Refusal, UpstreamFailed, UpstreamRejected
from weir.identity.tokens import Claims
from weir.ledger.admission import Reservation
from weir.projects.catalogue import Catalogue
from weir.projects.limits import Limits, Pool
from weir.projects.project import Project
from weir.projects.snapshot import Shared, Snapshot
from weir.revocation import Issued
from weir.web.origins import Origins
from weir.web.request import Request

CANDIDATE = {
    "model": "m",
    "input_nano_usd": 100,
    "cached_input_nano_usd": 10,
    "output_nano_usd": 400,
    "output_cap_parameter": "max_tokens",
}
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
AT_MS, MAX_STREAM_S = 1_795_000_000_123, 300


def chat(*upstreams: str, hidden: bool = False, thinking: int | None = None, **body: Any) -> Chat:
    names = upstreams or ("main",)
    allowed, project = body.pop("allowed", {}), body.pop("project", {})
    user_cap, image_max_tokens = body.pop("user_cap", None), body.pop("image_max_tokens", None)
    cap = {"parameter": "thinking_budget", "max_tokens": thinking}
    own = {**CANDIDATE, **({"thinking_cap": cap} if thinking else {})}
    document = {
        "upstreams": {
            name: {
                "kind": "openai",
                "base_url": f"https://{name}.example/v1",
                "allowed_fields": allowed.get("upstream"),
            }
            for name in names
        },
        "models": {
            "m-large": {
                "candidates": [{**own, "upstream": name} for name in names],
                "context_tokens": 10_000,
                "max_output_tokens": 1_000,
                "overhead_tokens": 50,
                "hidden_reasoning": hidden,
                "image_max_tokens": image_max_tokens,
                "allowed_fields": allowed.get("model"),
            }
        },
    }
    told = {
        "default_model": "m-large",
        "user_limits": {"max_output_tokens": user_cap},
        "allowed_fields": allowed.get("project"),
        **project,
    }
    snapshot = Snapshot(
        Project.from_document("p", told),
        Shared(False, Pool(Limits()), Origins(), Catalogue(document)),
    )
    claims = Claims("t", "p", "ann", "user", "s-token", None, "j", 0)
    return completion.understood(
        Request(
            "r-1", "POST", "/v1/chat/completions", body.pop("headers", {}), source="203.0.113.7"
        ),
        claims,
        snapshot,
        {"messages": [{"role": "user", "content": "hi"}], **body},
        at_ms=AT_MS,
        random_hex="00ff",
    )


def admitted(one: Chat) -> Running:
    ask = completion.asked_of_the_ledger(one, MAX_STREAM_S)
    reservation = Reservation(
        id="0" * 32,
        due=ask.due,
        pid=ask.pid,
        subject=ask.subject,
        completion_id=ask.completion_id,
        at=AT_MS // 1000,
        amounts=ask.price(ask.output_tokens),
        output_tokens=ask.output_tokens,
        held=[],
        row=ask.row,
    )
    return Running.admitted(one, reservation)


def ended(running: Running, state: State, ending: Ending, **more: Any) -> completion.Charge:
    running.outcome = Outcome(state=state, ending=ending, **more)
    return completion.charge(running)


def test_address_counts_only_where_the_project_limits_it_and_no_header_says_which() -> None:
    headers = {"x-forwarded-for": "198.51.100.1", "forwarded": "for=198.51.100.1"}
    told = completion.asked_of_the_ledger(
        chat(headers=headers, project={"rpm_per_address": 5}), MAX_STREAM_S
    )
    assert (told.address, told.address_rpm) == ("203.0.113.7", 5)
    told = completion.asked_of_the_ledger(chat(headers=headers), MAX_STREAM_S)
    assert (told.address, told.address_rpm) == ("", None)


# ---------------------------------------------------------------- what is passed on


def test_user_has_one_identifier_in_a_project_and_another_in_every_other() -> None:
    ann = Claims("t", "p", "ann", "user", "s-token", None, "j", 0)
    others = [replace(ann, uid="bob"), replace(ann, pid="q"), replace(ann, tid="u")]
    shifted = [replace(ann, pid="pa", uid="nn"), replace(ann, tid="tp", pid="")]
    told = [completion.safety_identifier(each) for each in (ann, *others, *shifted)]
    assert len(set(told)) == 6
    assert told[0] == completion.safety_identifier(replace(ann, sid="s-2", tier="pro", jti="k"))
    assert all(len(each) == 64 and "ann" not in each for each in told)
    assert chat().asked.safety_identifier == told[0]


def test_ledger_is_told_which_token_was_sent_and_that_an_api_key_is_none() -> None:
    """Its id and session are the token's own, whatever a header says."""
    one = chat(headers={"x-session-id": "another"})
    issued = replace(one, claims=replace(one.claims, issued_at=7))
    assert completion.asked_of_the_ledger(issued, 1).token == Issued(7, "j", "s-token")
    assert completion.asked_of_the_ledger(one, 1).token is None


@pytest.mark.parametrize("where", ["project", "model", "upstream"])
def test_further_field_is_passed_on_if_project_model_or_upstreams_allow_it(where: str) -> None:
    with pytest.raises(BadRequest, match="allowed_fields"):
        chat("a", "b", guided_regex="x")
    one = chat("a", "b", guided_regex="x", allowed={where: ["guided_regex"]})
    for candidate in one.model.candidates:
        assert json.loads(one.asked.body_for(candidate, 9))["guided_regex"] == "x"


# ---------------------------------------------------------------- who pays


@pytest.mark.parametrize(("state", "ending"), BILLED, ids=lambda each: each.value)
@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
def test_every_row_of_the_table_is_charged_as_it_says(
    state: State, ending: Ending, hidden: bool
) -> None:
    running = admitted(chat(hidden=hidden, max_tokens=100, stream=True))
    charge = ended(running, state, ending, content_bytes=9, content_chunks=2)
    one = running.chat
    tokens = (charge.row["input_tokens"], charge.row["output_tokens"])
    expected = {
        Billed.NOTHING: (0, 0),
        Billed.AS_REPORTED: (one.input_estimate, 3),
        Billed.AT_MOST: (one.input_bound, 100 if hidden or ending is Ending.CUT else 3),
    }[BILLED[state, ending]]
    assert tokens == expected
    assert charge.row["nano_usd"] == expected[0] * 100 + expected[1] * 400
    assert charge.settlement.tokens == sum(expected)
    assert charge.settlement.answered is (BILLED[state, ending] is not Billed.NOTHING)
    assert charge.row["nano_usd"] <= running.reservation.amounts.nano_usd
    assert charge.excess_nano_usd == 0


@pytest.mark.parametrize(("state", "ending"), BILLED, ids=lambda each: each.value)
def test_final_usage_is_what_is_charged_wherever_anything_is(state: State, ending: Ending) -> None:
    running = admitted(chat(max_tokens=100))
    told = {"usage": USAGE, "usage_is_final": True, "content_bytes": 9, "content_chunks": 2}
    charge = ended(running, state, ending, **told)
    nothing = BILLED[state, ending] is Billed.NOTHING
    tokens = (charge.row["input_tokens"], charge.row["output_tokens"], charge.row["estimated"])
    assert tokens == ((0, 0, False) if nothing else (20, 5, False))


def test_what_cannot_be_would_be_billed_on_the_safe_side() -> None:
    for state in State:
        for ending in Ending:
            assert completion.billed(Outcome(state=state, ending=ending)) is BILLED.get(
                (state, ending), Billed.AT_MOST
            )


def test_usage_that_came_before_the_end_is_a_lower_bound() -> None:
    running = admitted(chat(max_tokens=100))
    less = {**USAGE, "completion_tokens": 1, "total_tokens": 21}
    for usage, output in ((USAGE, 5), (less, 3)):
        told = {"usage": usage, "content_bytes": 9, "content_chunks": 2}
        charge = ended(running, State.SPEAKING, Ending.STOPPED, **told)
        assert charge.row["output_tokens"] == 100  # it does not stream: nobody saw it all
        streaming = admitted(chat(max_tokens=100, stream=True))
        charge = ended(streaming, State.SPEAKING, Ending.STOPPED, **told)
        assert charge.row["output_tokens"] == output


def test_provider_that_says_words_and_reports_no_output_has_not_counted() -> None:
    running = admitted(chat(max_tokens=100))
    usage = {"prompt_tokens": 20, "completion_tokens": 0, "total_tokens": 20}
    told = {"usage": usage, "usage_is_final": True}
    charge = ended(running, State.FINISHED, Ending.COMPLETED, **told, content_bytes=30,
                   content_chunks=4)  # fmt: skip
    assert (charge.row["output_tokens"], charge.row["estimated"]) == (10, True)
    charge = ended(running, State.FINISHED, Ending.COMPLETED, **told)
    assert (charge.row["output_tokens"], charge.row["estimated"]) == (0, False)


def test_usage_above_what_was_held_is_charged_as_reported_and_stands_in_the_row() -> None:
    running = admitted(chat(max_tokens=10))
    usage = {"prompt_tokens": 20, "completion_tokens": 50_000, "total_tokens": 50_020}
    charge = ended(running, State.FINISHED, Ending.COMPLETED, usage=usage, usage_is_final=True)
    held = running.reservation.amounts.nano_usd
    assert charge.row["nano_usd"] == 20 * 100 + 50_000 * 400
    assert charge.row["excess_nano_usd"] == charge.excess_nano_usd == charge.row["nano_usd"] - held


def test_estimate_is_never_below_what_was_seen_nor_above_what_was_held() -> None:
    running = admitted(chat(max_tokens=100, stream=True))
    for seen, output in ((299, 100), (300, 100), (3_000_000, 100), (150, 50)):
        told = {"content_bytes": seen, "content_chunks": 1}
        charge = ended(running, State.FINISHED, Ending.COMPLETED, **told)
        assert charge.row["output_tokens"] == output


# ---------------------------------------------------------------- admission's question


def test_request_asks_for_its_worst_case_and_for_a_deadline_after_its_longest_answer() -> None:
    one = chat(max_tokens=100, n=2, headers={"x-thread-id": "t" * 200, "fc-tag": "night"})
    ask = completion.asked_of_the_ledger(one, MAX_STREAM_S)
    assert (ask.output_tokens, ask.choices, ask.shrinkable) == (200, 2, False)
    assert ask.due == AT_MS // 1000 + MAX_STREAM_S + 60
    price = ask.price(200)
    assert price.nano_usd == one.input_bound * 100 + 200 * 400
    assert price.tokens == one.input_estimate + 200
    assert ask.row["session_id"] == "s-token"
    assert ask.row["thread_id"] == "t" * 128
    assert ask.row["tag"] == "night"


@pytest.mark.parametrize("header", ["x-session-id", "x-thread-id"])
def test_label_is_kept_with_128_characters_and_refused_above_255(header: str) -> None:
    name = header.removeprefix("x-").replace("-", "_")
    for length, kept in ((127, 127), (128, 128), (129, 128), (255, 128)):
        one = chat(headers={header: "é" * length})
        assert completion.asked_of_the_ledger(one, MAX_STREAM_S).row[name] == "é" * kept
    with pytest.raises(BadRequest):
        completion.asked_of_the_ledger(chat(headers={header: "x" * 256}), MAX_STREAM_S)


def test_output_is_made_smaller_only_if_the_caller_named_no_cap() -> None:
    assert completion.asked_of_the_ledger(chat(), MAX_STREAM_S).shrinkable
    assert not completion.asked_of_the_ledger(chat(max_tokens=5), MAX_STREAM_S).shrinkable


# ---------------------------------------------------------------- who answers


class Says:
    """An upstream with a whole answer."""

    mask = NOTHING_MASKED

    def __init__(self, *pieces: bytes | Refusal) -> None:
        self.pieces = list(pieces)
        self.closed = False

    def receive(self, timeout_s: float) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Refusal):
            raise piece
        return piece

    def close(self) -> None:
        self.closed = True


CHOICE = {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}
WHOLE = json.dumps({"choices": [CHOICE], "usage": USAGE}).encode()


def answers(running: Running, *tries: Says | Refusal) -> tuple[Iterator[bytes], list[Running]]:
    """The answer, and what has been settled once it has ended."""
    left, settled = list(tries), []

    def open_upstream(candidate: object, body: bytes) -> relay.Upstream:
        now = left.pop(0)
        if isinstance(now, Refusal):
            raise now
        return now

    clock: Callable[[], float] = lambda: 0.0  # noqa: E731
    frames = completion.relayed(
        running,
        relay.Timing(clock, 100),
        open_upstream=open_upstream,
        settle=lambda one: settled.append(replace(one, attempts=list(one.attempts))),
        cancelled=lambda: False,
    )
    return frames, settled


def test_next_candidate_is_asked_until_one_answers() -> None:
    running = admitted(chat("a", "b", "c"))
    unset = NotReady("no key", code="upstream_not_configured")
    frames, settled = answers(running, Says(UpstreamFailed("no")), unset, Says(WHOLE))
    assert json.loads(next(frames))["choices"][0]["message"]["content"] == "yes"
    assert list(frames) == []
    assert running.attempts == ["a=upstream_error", "b=upstream_not_configured", "c=ok"]
    (once,) = settled
    assert completion.charge(once).row["upstream"] == "c"
    assert completion.charge(once).row["nano_usd"] == 20 * 100 + 5 * 400


def test_request_that_is_itself_at_fault_is_asked_of_nobody_else() -> None:
    running = admitted(chat("a", "b"))
    frames, settled = answers(running, Says(UpstreamRejected("bad field")), Says(WHOLE))
    with pytest.raises(UpstreamRejected):
        next(frames)
    assert [completion.charge(one).row["nano_usd"] for one in settled] == [0]


def test_upstream_that_may_bill_is_the_last_one_asked() -> None:
    running = admitted(chat("a", "b"))
    broken = Says(WHOLE[:-5], UpstreamFailed("cut", code="upstream_unavailable"))
    frames, settled = answers(running, broken, Says(WHOLE))
    with pytest.raises(UpstreamFailed):
        next(frames)
    (once,) = settled
    assert once.attempts == ["a=upstream_unavailable"]
    assert completion.charge(once).row["nano_usd"] == running.reservation.amounts.nano_usd
    assert broken.closed


def test_reader_that_leaves_settles_once_as_stopped() -> None:
    running = admitted(chat(stream=True))
    delta = {"choices": [{"index": 0, "delta": {"content": "one two"}}]}
    frames, settled = answers(running, Says(*[b"data: %b\n\n" % json.dumps(delta).encode()] * 9))
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    (once,) = settled
    assert (once.outcome.state, once.outcome.ending) == (State.SPEAKING, Ending.STOPPED)
    assert completion.charge(once).row["outcome"] == "cancelled"


def test_each_choice_gets_its_part_of_the_output_cap() -> None:
    running = admitted(chat(max_tokens=50, n=2))
    bodies: list[bytes] = []

    def open_upstream(candidate: object, body: bytes) -> relay.Upstream:
        bodies.append(body)
        return Says(WHOLE)

    next(
        completion.relayed(
            running,
            relay.Timing(lambda: 0.0, 100),
            open_upstream=open_upstream,
            settle=lambda one: None,
            cancelled=lambda: False,
        )
    )
    assert json.loads(bodies[0])["max_tokens"] == running.output_cap == 50


def test_answer_is_dated_when_its_request_came() -> None:
    frames, _ = answers(admitted(chat()), Says(WHOLE))
    assert json.loads(next(frames))["created"] == AT_MS // 1000


# ---------------------------------------------------------------- the receipt


def shown(running: Running, state: State, ending: Ending, **more: Any) -> dict[str, Any]:
    return completion.receipt(running, Outcome(state=state, ending=ending, **more))


SEEN = {"content_bytes": 9, "content_chunks": 2}


def test_receipt_is_what_the_provider_reports_while_it_speaks_and_at_its_end() -> None:
    running = admitted(chat(max_tokens=100, stream=True))
    for state, ending in ((State.SPEAKING, Ending.STOPPED), (State.FINISHED, Ending.COMPLETED)):
        receipt = shown(running, state, ending, usage=USAGE, **SEEN)
        assert receipt == {**USAGE, "cost_usd": (20 * 100 + 5 * 400) / 10**9}


def test_receipt_of_a_provider_that_is_silent_about_it_is_our_estimate_of_a_whole_answer() -> None:
    running = admitted(chat(max_tokens=100, stream=True))
    for state, ending in ((State.SPEAKING, Ending.STOPPED), (State.FINISHED, Ending.COMPLETED)):
        receipt = shown(running, state, ending, **SEEN)
        assert (receipt["prompt_tokens"], receipt["completion_tokens"]) == (
            running.chat.input_estimate,
            3,
        )
        assert receipt["estimated"] is True


def test_receipt_of_an_answer_that_was_cut_off_is_what_is_charged_for_it() -> None:
    running = admitted(chat(max_tokens=100, stream=True))
    cut = {"usage": USAGE, **SEEN}
    receipt = shown(running, State.SPEAKING, Ending.CUT, **cut)
    charge = ended(running, State.SPEAKING, Ending.CUT, **cut)
    assert receipt["cost_usd"] == charge.row["nano_usd"] / 10**9
    assert receipt["completion_tokens"] == 100


# ---------------------------------------------------------------- what its end adds


def overrun_of(running: Running, output: int) -> int:
    usage = {"prompt_tokens": 20, "completion_tokens": output, "total_tokens": 20 + output}
    told = {"usage": usage, "usage_is_final": True}
    return ended(running, State.FINISHED, Ending.COMPLETED, **told).overrun


def test_worst_case_is_raised_by_what_an_answer_cost_above_it_and_by_nothing_else() -> None:
    running = admitted(chat(max_tokens=100))
    assert overrun_of(running, 5) == 0
    assert overrun_of(running, 100) == 0
    raised = overrun_of(running, 1_000)
    assert raised > 100
    known = {running.candidate.name: raised}
    shared = replace(running.chat.snapshot.shared, overruns=known)
    running.chat = replace(running.chat, snapshot=replace(running.chat.snapshot, shared=shared))
    assert overrun_of(running, 1_000) == 0
    assert overrun_of(running, 2_000) > raised


def test_times_of_a_row_are_milliseconds_and_absent_if_there_was_none() -> None:
    running = admitted(chat())
    charge = ended(running, State.FINISHED, Ending.COMPLETED, first_byte_s=0.25, total_s=1.5)
    assert (charge.row["first_byte_ms"], charge.row["total_ms"]) == (250, 1500)
    charge = ended(running, State.REFUSED, Ending.BROKEN)
    assert charge.row["first_byte_ms"] is None


def test_what_is_not_charged_counts_neither_tokens_nor_money_nor_thinking() -> None:
    charge = ended(admitted(chat()), State.REFUSED, Ending.BROKEN)
    names = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "nano_usd")
    assert [charge.row[name] for name in names] == [0, 0, 0, 0, 0]


def test_single_token_that_a_provider_reports_is_believed() -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
    told = {"usage": usage, "usage_is_final": True, "content_bytes": 90, "content_chunks": 9}
    charge = ended(admitted(chat()), State.FINISHED, Ending.COMPLETED, **told)
    assert (charge.row["output_tokens"], charge.row["estimated"]) == (1, False)


# ---------------------------------------------------------------- what a thread adds


def continued(one: Chat, *, turns_kept: int, bytes_of_each: int) -> Chat:
    """The same request in a thread with so many turns."""
    kept = [
        Turn(turn_id(AT_MS - 1000 + n, "r"), [user, answer], [digest(user), digest(answer)], 1)
        for n in range(turns_kept)
        for user in [{"role": "user", "content": f"{n:0{bytes_of_each}d}"}]
        for answer in [{"role": "assistant", "content": f"a{n}"}]
    ]
    return completion.understood(
        one.request,
        one.claims,
        one.snapshot,
        {"messages": [{"role": "user", "content": "hi"}]},
        at_ms=AT_MS,
        random_hex="00ff",
        conversation=Conversation("thread", "t1", {}, 1, kept, True),
    )


def turns_sent(one: Chat) -> int:
    messages = json.loads(one.asked.body_for(one.model.candidates[0], 1))["messages"]
    return sum(message["role"] == "assistant" for message in messages)


def test_history_is_held_and_charged_as_the_input_that_it_is() -> None:
    alone, together = chat(), continued(chat(), turns_kept=3, bytes_of_each=500)
    assert turns_sent(together) == 3
    assert together.input_bound > alone.input_bound + 1_500
    assert admitted(together).reservation.amounts.nano_usd >= (
        admitted(alone).reservation.amounts.nano_usd + 1_500 * 100
    )


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        ({}, 8),  # 9,000 tokens are left of the context, about three bytes each
        ({"tokens_per_day": 3_000}, 1),
        ({"tpm": 2_100}, 1),
        ({"tpm": 900}, 0),
        ({"usd_per_month": 0.0009}, 1),
    ],
    ids=str,
)
def test_history_is_only_as_long_as_lets_the_request_be_admitted(
    change: dict[str, Any], sent: int
) -> None:
    one = chat()
    project = replace(one.snapshot.project, limits=Limits().overridden(change))
    limited = replace(one, snapshot=replace(one.snapshot, project=project))
    assert turns_sent(continued(limited, turns_kept=20, bytes_of_each=3_000)) == sent


def test_answer_that_was_cancelled_before_its_first_word_is_charged_as_stopped() -> None:
    running = admitted(chat(max_tokens=100))
    role = {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    settled: list[int] = []
    frames = completion.relayed(
        running,
        relay.Timing(lambda: 0.0, 100),
        open_upstream=lambda candidate, body: Says(b"data: %b\n\n" % json.dumps(role).encode()),
        settle=lambda one: settled.append(completion.charge(one).row["nano_usd"]),
        cancelled=lambda: True,
    )
    with pytest.raises(Cancelled):
        next(frames)
    assert (running.outcome.state, running.outcome.ending) == (State.BEGUN, Ending.STOPPED)
    assert settled == [running.reservation.amounts.nano_usd]
