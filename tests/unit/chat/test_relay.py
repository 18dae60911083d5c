"""What a client sees for everything an upstream can do. Time is scripted."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.chat.script import Script, Step
from weir.chat import relay
from weir.chat.failures import refusal_of_upstream
from weir.chat.masking import Mask
from weir.chat.outcome import Outcome, State
from weir.chat.relay import Answering, Receipt, Timing
from weir.errors import (
    Cancelled,
    DeadlineExceeded,
    LedgerBusy,
    LimitReached,
    QuotaExceeded,
    Refusal,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)

MANY = 100_000  # output tokens: more than any of these answers has


def chunk(content: str | None = None, finish: str | None = None, **more: object) -> bytes:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "theirs", "object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
USAGE_CHUNK = b'data: {"id":"theirs","choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\n"
DONE = b"data: [DONE]\n\n"


def whole_choice(content: str) -> dict[str, object]:
    """What a client sees of `chunk(content, "stop")`, if it is the first."""
    delta = {"content": content, "role": "assistant"}
    return {"index": 0, "delta": delta, "finish_reason": "stop"}


def no_receipt(outcome: Outcome) -> None:
    return None


def run(
    script: Script,
    *,
    usage_wanted: bool = False,
    outcome: Outcome | None = None,
    receipt: Receipt = no_receipt,
) -> list[bytes]:
    how = answering(script, usage_wanted=usage_wanted, receipt=receipt)
    timing = Timing(script.monotonic, deadline=script.now + 300)
    return list(relay.stream(how, script, timing, outcome or Outcome()))


def answering(script: Script, **how: Any) -> Answering:
    most = how.pop("output_tokens", MANY)
    return Answering("ours", 1, most, **{"cancelled": script.cancelled, **how})


def may_bill(outcome: Outcome) -> tuple[bool, bool]:
    """Whether the provider has answered, and whether it has the request and is silent."""
    answered = outcome.state in (State.BEGUN, State.SPEAKING, State.FINISHED)
    return answered, outcome.state is State.UNHEARD


def text(writes: list[bytes]) -> str:
    return b"".join(writes).decode()


def objects(writes: list[bytes]) -> list[dict[str, object]]:
    frames = text(writes).split("\n\n")
    return [json.loads(f[6:]) for f in frames if f.startswith("data: {")]


def test_each_arrival_leaves_at_once_as_whole_frames_with_our_id() -> None:
    writes = run(Script(chunk("Hel"), chunk("lo"), chunk(None, "stop") + DONE))
    assert len(writes) == 3
    assert all(write.endswith(b"\n\n") for write in writes)
    assert {o["id"] for o in objects(writes)} == {"ours"}
    assert text(writes).endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("cut", range(1, len(chunk("ü"))))
def test_half_a_frame_never_leaves(cut: int) -> None:
    stream = chunk("ü")
    writes = run(Script(stream[:cut], stream[cut:], chunk(None, "stop"), DONE))
    assert all(write.startswith(b"data: ") and write.endswith(b"\n\n") for write in writes)
    assert len(writes) == 3


def test_several_frames_that_arrive_together_leave_together() -> None:
    assert len(run(Script(chunk("a") + chunk("b") + chunk(None, "stop") + DONE))) == 1


def test_crlf_comments_and_pretty_printed_json_become_plain_frames() -> None:
    body = json.dumps(json.loads(chunk("hi", "stop")[6:]), indent=1)
    pretty = "".join(f"data: {line}\r\n" for line in body.split("\n")) + "\r\n"
    writes = run(
        Script(b": OPENROUTER PROCESSING\r\n\r\n", pretty.encode(), b"data: [DONE]\r\n\r\n")
    )
    assert b"\r" not in b"".join(writes)
    assert b"OPENROUTER" not in b"".join(writes)
    assert [len(w.split(b"\n\n")) for w in writes] == [2, 2]


def test_usage_is_stripped_for_a_client_that_did_not_ask_and_kept_for_us() -> None:
    outcome = Outcome()
    writes = run(Script(chunk("a", "stop", usage=None), USAGE_CHUNK, DONE), outcome=outcome)
    assert "usage" not in text(writes)
    assert all(o["choices"] for o in objects(writes))
    assert outcome.usage == USAGE


def test_usage_is_passed_to_a_client_that_asked() -> None:
    writes = run(Script(chunk("a", "stop"), USAGE_CHUNK, DONE), usage_wanted=True)
    assert objects(writes)[-1]["usage"] == USAGE
    assert objects(writes)[-1]["id"] == "ours"


def test_bare_end_after_a_finish_reason_is_completed() -> None:
    outcome = Outcome()
    assert text(run(Script(chunk("a", "stop")), outcome=outcome)).endswith("data: [DONE]\n\n")
    assert outcome.outcome == "completed"


@pytest.mark.parametrize("end", [[], [UpstreamUnavailable("reset")], [1e9]], ids=str)
@pytest.mark.parametrize("more", [b"", USAGE_CHUNK[:20], b"data: [DON"], ids=str)
def test_finished_answer_is_whole_wherever_its_connection_breaks(
    more: bytes, end: list[Step]
) -> None:
    outcome = Outcome()
    writes = run(Script(chunk("a", "stop") + more, *end), outcome=outcome)
    assert text(writes).endswith("data: [DONE]\n\n")
    assert outcome.outcome == "completed"
    assert whole(chunk("a", "stop") + more, *end)["choices"][0]["message"]["content"] == "a"


def test_connection_that_breaks_before_the_second_choice_has_begun_is_a_failure() -> None:
    steps: list[Step] = [chunk("a", "stop"), UpstreamUnavailable("reset")]
    script, outcome = Script(*steps), Outcome()
    timing = Timing(script.monotonic, deadline=script.now + 300)
    writes = list(relay.stream(answering(script, choices=2), script, timing, outcome))
    assert "[DONE]" not in text(writes)
    assert outcome.outcome == "upstream_unavailable"
    with pytest.raises(UpstreamUnavailable):
        relay.complete(answering(script := Script(*steps), choices=2), script, timing, Outcome())


def test_done_without_its_blank_line_counts() -> None:
    assert text(run(Script(chunk("a", "stop"), b"data: [DONE]"))).endswith("data: [DONE]\n\n")


BROKEN_ENDS = {
    "bare end": [chunk("a")],
    "done without a finish reason": [chunk("a"), DONE],
    "half a frame": [chunk("a"), chunk("b")[:20]],
    "garbage": [chunk("a"), b"data: {not json}\n\n"],
    "not an object": [chunk("a"), b"data: 42\n\n"],
    "choices are no list": [chunk("a"), b'data: {"choices":{"x":1}}\n\n'],
    "choices are no objects": [chunk("a"), b'data: {"choices":[1]}\n\n'],
    "infinity": [chunk("a"), b'data: {"choices":[],"x":1e999}\n\n'],
    "NaN": [chunk("a"), b'data: {"choices":[],"x":NaN}\n\n'],
    "error in a 200": [chunk("a"), b'data: {"error":{"message":"boom"}}\n\n'],
    "error as text": [chunk("a"), b'data: {"error":"boom"}\n\n'],
    "named error event": [chunk("a"), b'event: error\ndata: {"message":"boom"}\n\n'],
    "reset": [chunk("a"), UpstreamUnavailable("reset")],
    "error beside good frames": [chunk("a") + b'data: {"error":{"message":"boom"}}\n\n'],
    "second choice unfinished": [
        chunk("a"),
        b'data: {"choices":[{"index":1,"delta":{}}]}\n\n' + chunk(None, "stop"),
        DONE,
    ],
}


@pytest.mark.parametrize("steps", BROKEN_ENDS.values(), ids=BROKEN_ENDS)
def test_failure_after_the_first_byte_is_one_error_frame_and_no_done(steps: list[Step]) -> None:
    outcome, script = Outcome(), Script(*steps)
    writes = run(script, outcome=outcome)
    last = objects(writes)[-1]
    assert set(last) == {"error"}
    error = last["error"]
    assert isinstance(error, dict)
    assert set(error) == {"message", "type", "param", "code"}
    assert "[DONE]" not in text(writes)
    assert sum("error" in o for o in objects(writes)) == 1
    assert outcome.outcome == error["code"]
    assert script.closed


@pytest.mark.parametrize("then", [UpstreamUnavailable("reset"), b"more", b"", 1e9])
def test_nothing_follows_done_whatever_the_connection_does(then: Step) -> None:
    outcome = Outcome()
    writes = run(Script(chunk("a", "stop") + DONE, then), outcome=outcome)
    assert text(writes).endswith("data: [DONE]\n\n")
    assert "error" not in text(writes)
    assert outcome.outcome == "completed"


def test_secret_that_the_provider_quotes_is_not_told() -> None:
    quoting = b'data: {"error":{"message":"Incorrect API key: sk-CANARY"}}\n\n'
    writes = run(Script(chunk("sk-CANARY"), quoting))
    assert "CANARY" not in text(writes)
    assert "***" in text(writes)
    with pytest.raises(UpstreamFailed) as failed:
        run(Script(quoting))
    assert "CANARY" not in failed.value.message
    assert "CANARY" not in json.dumps(whole(b'{"choices":[{}],"x":"sk-CANARY"}'))


@pytest.mark.parametrize("credential", ["none", "x", "i", "choices"])
def test_placeholder_key_is_not_cut_out_of_answers(credential: str) -> None:
    words = 'There are none; nonetheless, "index":"x" is right.'
    script = Script(chunk(words, "stop"), DONE)
    script.mask = Mask(credential)
    (first, *_) = objects(run(script))
    assert first["choices"] == [whole_choice(words)]
    answer = {"choices": [{"index": 0, "message": {"content": words}, "finish_reason": "stop"}]}
    script = Script(json.dumps(answer).encode())
    script.mask = Mask(credential)
    timing = Timing(script.monotonic, deadline=script.now + 300)
    told = json.loads(relay.complete(answering(script), script, timing, Outcome()))
    assert told["choices"][0]["message"]["content"] == words


@pytest.mark.parametrize("nothing", ['{"choices":null}', '{"choices":[]}', '{"x":1}', "", " "])
def test_frame_that_says_nothing_is_swallowed(nothing: str) -> None:
    writes = run(Script(f"data: {nothing}\n\n".encode(), chunk("a", "stop"), DONE))
    (only,) = objects(writes)
    assert only["choices"] == [whole_choice("a")]


FIRST_BYTES: dict[str, Step] = {
    "error in a 200": b'data: {"error":{"message":"boom"}}\n\n',
    "garbage": b"data: <html>\n\n",
    "a page": b"<html>a proxy's page</html>",
    "plain text": b"upstream connect error",
    "JSON that is no answer": b"{}",
    "empty": b"",
    "done at once": DONE,
    "refused": UpstreamUnavailable("refused"),
}


@pytest.mark.parametrize("first", FIRST_BYTES.values(), ids=FIRST_BYTES)
def test_failure_before_the_first_byte_is_raised(first: Step) -> None:
    script, outcome = Script(first), Outcome()
    with pytest.raises(Refusal) as raised:
        run(script, outcome=outcome)
    assert raised.value.status == 502
    assert outcome.outcome == raised.value.code
    assert script.closed


def test_silent_upstream_is_committed_to_after_five_seconds_and_kept_alive() -> None:
    script = Script(40.0, chunk("a", "stop"), DONE)
    started, times = script.now, []
    timing = Timing(script.monotonic, deadline=script.now + 300)
    writes = []
    for write in relay.stream(answering(script), script, timing, Outcome()):
        writes.append(write)
        times.append(script.now - started)
    assert writes[:3] == [b": ping\n\n"] * 3
    assert times[:4] == [5.0, 20.0, 35.0, 40.0]


def test_failure_after_a_heartbeat_is_an_error_frame() -> None:
    writes = run(Script(6.0, UpstreamTimeout("gone")))
    assert writes[0] == b": ping\n\n"
    assert objects(writes)[-1]["error"]["code"] == "upstream_timeout"  # type: ignore[index]


def test_upstream_that_sends_only_comments_does_not_silence_us() -> None:
    comments: list[Step] = [s for _ in range(30) for s in (1.0, b": still here\n\n")]
    writes = run(Script(*comments, chunk("a", "stop"), DONE))
    assert writes.count(b": ping\n\n") >= 2


def test_upstream_silent_for_five_minutes_is_given_up() -> None:
    script = Script(chunk("a"), 290.0, chunk("b"), 1e9)
    timing = Timing(script.monotonic, deadline=script.now + 10_000)
    started = script.now
    writes = list(relay.stream(answering(script), script, timing, Outcome()))
    assert objects(writes)[-1]["error"]["code"] == "upstream_timeout"  # type: ignore[index]
    assert script.now - started == 590.0


def test_deadline_ends_a_stream_that_goes_on() -> None:
    steps: list[Step] = [s for _ in range(1000) for s in (1.0, chunk("a"))]
    script = Script(*steps)
    writes = run(script)
    assert objects(writes)[-1]["error"]["code"] == "stream_deadline_exceeded"  # type: ignore[index]
    assert script.closed
    assert script.now == 1300.0


def test_client_that_leaves_closes_the_upstream() -> None:
    script, outcome = Script(chunk("a"), chunk("b"), chunk("c", "stop"), DONE), Outcome()
    stream = relay.stream(
        answering(script), script, Timing(script.monotonic, script.now + 300), outcome
    )
    next(stream)
    assert isinstance(stream, Iterator)
    stream.close()  # type: ignore[attr-defined]
    assert script.closed == 1
    assert outcome.outcome == "cancelled"


def answer_of(script: Script, outcome: Outcome, receipt: Receipt = no_receipt) -> dict[str, Any]:
    timing = Timing(script.monotonic, deadline=script.now + 300)
    answer = json.loads(relay.complete(answering(script, receipt=receipt), script, timing, outcome))
    assert isinstance(answer, dict)
    return answer


def whole(*steps: Step, outcome: Outcome | None = None) -> dict[str, Any]:
    script = Script(*steps)
    answer = answer_of(script, outcome or Outcome())
    assert script.closed
    return answer


def test_answer_that_does_not_stream_is_one_object_with_our_id() -> None:
    outcome = Outcome()
    body = json.dumps({"id": "theirs", "choices": [{"index": 0}], "usage": USAGE}).encode()
    answer = whole(body[:10], 20.0, body[10:], outcome=outcome)
    message = {"role": "assistant", "content": None}
    assert answer == {
        "id": "ours",
        "object": "chat.completion",
        "created": 1,
        "model": "",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    assert (outcome.usage, outcome.outcome) == (USAGE, "completed")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"choices":',
        b"{}",
        b'{"choices":[],"x":1e999}',
        b'{"choices":null}',
        b'{"error":"x"}',
        b"\xff",
    ],
)
def test_unusable_answer_is_a_502(body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        whole(body)


def test_answer_that_never_comes_ends_at_the_deadline() -> None:
    script = Script(1e9)
    began, timing = script.now, Timing(script.monotonic, deadline=script.now + 840)
    with pytest.raises(DeadlineExceeded):
        relay.complete(answering(script), script, timing, Outcome())
    assert script.now - began < 300, "API Gateway cuts what is silent for five minutes"


def test_endless_answer_is_cut_off() -> None:
    with pytest.raises(UpstreamFailed):
        whole(*[b"x" * 1_000_000] * 40)


# ---------------------------------------------------------------- what it may have cost

SAID: dict[str, tuple[dict[str, object], int]] = {
    "content": ({"content": "abc"}, 3),
    "beyond ASCII, in bytes": ({"content": "ü€😀"}, 2 + 3 + 4),
    "a lone surrogate": ({"content": "\ud800"}, 3),
    "reasoning_content": ({"reasoning_content": "abc"}, 3),
    "reasoning": ({"reasoning": "abc"}, 3),
    "refusal": ({"refusal": "no"}, 2),
    "parts": ({"content": [{"type": "text", "text": "ab"}, {"text": "c"}, {"text": 7}, "x"]}, 4),
    "tool calls": (
        {
            "tool_calls": [
                {"id": "call_1", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"function": {"arguments": "é"}},
                {"custom": {"name": "g", "input": "xy"}},
            ]
        },
        1 + 7 + 2 + 1 + 2,
    ),
    "function call": ({"function_call": {"name": "f", "arguments": "{}"}}, 3),
    "several at once": ({"role": "assistant", "content": "a", "reasoning": "b"}, 2),
    "nothing said": ({"role": "assistant", "content": "", "refusal": None}, 0),
}


@pytest.mark.parametrize(("said", "size"), SAID.values(), ids=SAID)
def test_all_text_that_the_provider_says_is_counted(said: dict[str, object], size: int) -> None:
    had_some = int(size > 0)
    streamed, at_once = Outcome(), Outcome()
    body = json.dumps({"choices": [{"index": 0, "delta": said}]}).encode()
    run(Script(b"data: " + body + b"\n\n", chunk(None, "stop"), DONE), outcome=streamed)
    assert (streamed.content_bytes, streamed.content_chunks) == (size, had_some)
    whole(json.dumps({"choices": [{"index": 0, "message": said}]}).encode(), outcome=at_once)
    assert (at_once.content_bytes, at_once.content_chunks) == (size, had_some)


def test_chunks_count_once_and_whole_answers_by_choice() -> None:
    streamed, at_once = Outcome(), Outcome()
    two = [{"index": i, "delta": {"content": "ab"}, "finish_reason": "stop"} for i in (0, 1)]
    both = b"data: " + json.dumps({"choices": two}).encode() + b"\n\n"
    run(Script(chunk("a") + chunk("b") + both + DONE), outcome=streamed)
    assert (streamed.content_bytes, streamed.content_chunks) == (6, 3)
    choices = [{"message": {"content": text}} for text in ("a", "", "bc")]
    whole(json.dumps({"choices": choices}).encode(), outcome=at_once)
    assert (at_once.content_bytes, at_once.content_chunks) == (3, 2)


def test_message_beside_a_delta_is_not_counted_again() -> None:
    outcome = Outcome()
    choice = {"delta": {"content": "b"}, "message": {"content": "ab"}, "finish_reason": "stop"}
    run(Script(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"), outcome=outcome)
    assert outcome.content_bytes == 1


@pytest.mark.parametrize(
    ("said", "size"),
    [
        (None, 0),
        (7, 0),
        ("text", 4),
        (["text"], 0),
        ({"content": 7}, 0),
        ({"content": {"text": "x"}}, 1),
        ({"content": [["text"], None]}, 4),
        ({"tool_calls": {"function": {"name": "f"}}}, 1),
        ({"tool_calls": [1, None, [], {}, {"function": "f"}, {"function": {"arguments": {}}}]}, 3),
        ({"function_call": "f"}, 1),
        ({"function_call": {"name": 1}}, 0),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "abc"}]}, 3),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "ab"}]}]}, 2),
        ({"audio": {"id": "a", "data": "QUJD", "transcript": "x"}}, 5),
        ({"something_new": {"words": "abcd"}}, 4),
    ],
)
def test_text_of_odd_types_and_unknown_names_counts_and_breaks_nothing(
    said: object, size: int
) -> None:
    streamed, at_once = Outcome(), Outcome()
    body = json.dumps({"choices": [{"delta": said, "finish_reason": "stop"}]}).encode()
    writes = run(Script(b"data: " + body + b"\n\n", DONE), outcome=streamed)
    assert text(writes).endswith("data: [DONE]\n\n")
    whole(json.dumps({"choices": [{"message": said}]}).encode(), outcome=at_once)
    assert streamed.content_bytes == at_once.content_bytes == size


def test_usage_told_together_with_a_failure_is_kept_for_us() -> None:
    told = b'{"error":{"message":"boom"},"usage":' + json.dumps(USAGE).encode() + b"}"
    streamed, at_once = Outcome(), Outcome()
    run(Script(chunk("a"), b"data: " + told + b"\n\n"), outcome=streamed)
    with pytest.raises(UpstreamFailed):
        whole(told, outcome=at_once)
    assert streamed.usage == at_once.usage == USAGE


REFUSED_429 = refusal_of_upstream(429, {}, b"")
# What the provider does, and whether then (it answered, it was silent).
MAY_BILL: dict[str, tuple[list[Step], bool, bool]] = {
    "refused with a status": ([REFUSED_429], False, False),
    "refused with a status after a while": ([20.0, REFUSED_429], False, False),
    "connection lost before the first byte": ([UpstreamUnavailable("lost")], False, False),
    "connection lost after some bytes": ([chunk("a"), UpstreamUnavailable("lost")], True, False),
    "cut after some bytes": ([chunk("a"), chunk("b")[:9]], True, False),
    "an empty 200": ([b""], True, False),
    "garbage": ([b"data: <html>\n\n"], True, False),
    "a comment, then silence": ([b": on it\n\n", 1e9], True, False),
    "silent for ever": ([1e9], False, True),
    "whole": ([chunk("a", "stop"), DONE], True, False),
}


@pytest.mark.parametrize(("steps", "answered", "silent"), MAY_BILL.values(), ids=MAY_BILL)
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "at once"])
def test_outcome_says_whether_the_provider_may_bill(
    steps: list[Step], answered: bool, silent: bool, streamed: bool
) -> None:
    outcome, script = Outcome(), Script(*steps)
    assert may_bill(outcome) == (False, False)
    try:
        if streamed:
            run(script, outcome=outcome)
        else:
            answer_of(script, outcome)
    except Refusal:
        pass
    assert may_bill(outcome) == (answered, silent)


def test_provider_given_up_for_its_silence_may_bill() -> None:
    script, outcome = Script(1e9), Outcome()
    timing = Timing(script.monotonic, deadline=script.now + 10_000)
    writes = list(relay.stream(answering(script), script, timing, outcome))
    assert objects(writes)[-1]["error"]["code"] == "upstream_timeout"  # type: ignore[index]
    assert may_bill(outcome) == (False, True)


def test_provider_may_bill_for_a_client_that_left_before_the_first_byte() -> None:
    script, outcome = Script(1e9), Outcome()
    timing = Timing(script.monotonic, script.now + 300)
    stream = relay.stream(answering(script), script, timing, outcome)
    assert next(stream) == b": ping\n\n"
    stream.close()  # type: ignore[attr-defined]
    assert may_bill(outcome) == (False, True)


# ---------------------------------------------------------------- cancelling


def test_cancelled_before_the_first_byte_is_a_plain_refusal_within_half_a_second() -> None:
    script, outcome = Script(1e9), Outcome()
    script.cancelled_at = script.now + 2.1
    with pytest.raises(Cancelled) as raised:
        run(script, outcome=outcome)
    assert (raised.value.status, raised.value.code) == (409, "cancelled")
    assert raised.value.headers == {"x-should-retry": "false"}
    assert script.now <= script.cancelled_at + relay.CANCEL_CHECK_S
    assert script.closed
    assert (outcome.outcome, *may_bill(outcome)) == ("cancelled", False, True)


def test_cancelled_while_the_provider_streams_is_one_error_frame() -> None:
    steps: list[Step] = [s for _ in range(1000) for s in (0.01, chunk("ab"))]
    script, outcome = Script(*steps), Outcome()
    began = script.now
    script.cancelled_at = began + 3.0
    writes = run(script, outcome=outcome)
    assert objects(writes)[-1] == {
        "error": {
            "message": "The request was cancelled.",
            "type": "api_error",
            "param": None,
            "code": "cancelled",
        },
    }
    assert "[DONE]" not in text(writes)
    assert script.now - began == pytest.approx(3.0, abs=0.02)
    assert script.closed
    assert (outcome.outcome, *may_bill(outcome)) == ("cancelled", True, False)
    assert outcome.content_bytes == 2 * outcome.chunks, "what came until then is counted"


def test_cancelled_while_the_provider_is_silent_ends_within_half_a_second() -> None:
    script = Script(chunk("a"), 1e9)
    script.cancelled_at = script.now + 7.3
    writes = run(script)
    assert objects(writes)[-1]["error"]["code"] == "cancelled"  # type: ignore[index]
    assert script.now <= script.cancelled_at + relay.CANCEL_CHECK_S
    assert writes.count(b": ping\n\n") == 0, "asking is no reason for a heartbeat"


def test_cancelled_whole_answer_is_a_plain_refusal_within_half_a_second() -> None:
    script, outcome = Script(b'{"choices":', 1e9), Outcome()
    script.cancelled_at = script.now + 7.3
    with pytest.raises(Cancelled):
        answer_of(script, outcome)
    assert script.now <= script.cancelled_at + relay.CANCEL_CHECK_S
    assert script.closed
    assert (outcome.outcome, may_bill(outcome)[0]) == ("cancelled", True)


def test_answer_that_is_whole_is_not_cancelled_any_more() -> None:
    script, outcome = Script(chunk("a", "stop") + DONE), Outcome()
    script.cancelled_at = script.now
    assert text(run(script, outcome=outcome)).endswith("data: [DONE]\n\n")
    assert outcome.outcome == "completed"


def test_cancelling_is_asked_once_for_each_arrival() -> None:
    script = Script(*[chunk("a")] * 100, chunk(None, "stop"), DONE)
    run(script)
    assert 100 <= script.asked <= 102


# ---------------------------------------------------------------- receipts


def counted(outcome: Outcome) -> dict[str, Any]:
    return {"provider": outcome.usage, "bytes": outcome.content_bytes}


def of_usage(value: object) -> bytes:
    return chunk("ab", usage=value)


def test_receipt_takes_the_place_of_the_providers_usage() -> None:
    writes = run(Script(chunk("ab", "stop"), USAGE_CHUNK, DONE), usage_wanted=True, receipt=counted)
    assert [o["usage"] for o in objects(writes) if "usage" in o] == [
        {"provider": USAGE, "bytes": 2}
    ]
    assert text(writes).endswith("data: [DONE]\n\n")


def test_usage_in_every_chunk_is_replaced_in_every_chunk_and_not_told_once_more() -> None:
    outcome = Outcome()
    first, last = {"completion_tokens": 1}, {"completion_tokens": 2}
    writes = run(
        Script(of_usage(first), of_usage(last), chunk(None, "stop", usage=last), DONE),
        usage_wanted=True,
        receipt=counted,
        outcome=outcome,
    )
    assert [o["usage"] for o in objects(writes)] == [
        {"provider": first, "bytes": 2},
        {"provider": last, "bytes": 4},
        {"provider": last, "bytes": 4},
    ]
    assert outcome.usage == last


@pytest.mark.parametrize("end", [[DONE], []], ids=["done", "bare end"])
@pytest.mark.parametrize(
    ("more", "created", "model"),
    [
        ({"created": 17, "model": "gpt"}, 17, "gpt"),
        ({}, 1, ""),
        ({"created": None, "model": 3, "usage": None}, 1, ""),
    ],
)
def test_client_that_asked_gets_a_receipt_when_the_provider_sends_no_usage(
    more: dict[str, object], created: int, model: str, end: list[Step]
) -> None:
    script = Script(chunk("ab", "stop", **more), *end)
    writes = run(script, usage_wanted=True, receipt=counted)
    assert objects(writes)[-1] == {
        "id": "ours",
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [],
        "usage": {"provider": None, "bytes": 2},
    }
    assert text(writes).endswith("data: [DONE]\n\n")
    assert text(writes).count("[DONE]") == 1


@pytest.mark.parametrize("usage", [USAGE, None], ids=["with usage", "without"])
def test_client_that_did_not_ask_gets_no_receipt(usage: dict[str, int] | None) -> None:
    steps: list[Step] = [chunk("ab", "stop", usage=usage), DONE]
    writes = run(Script(*steps), receipt=counted)
    assert "usage" not in text(writes)
    assert len(objects(writes)) == 1


def test_without_a_receipt_the_providers_own_usage_is_told_and_none_is_made_up() -> None:
    assert objects(run(Script(chunk("a", "stop"), DONE), usage_wanted=True))[-1]["choices"]
    writes = run(Script(chunk("a", "stop"), USAGE_CHUNK, DONE), usage_wanted=True)
    assert objects(writes)[-1]["usage"] == USAGE


def test_stream_that_breaks_off_has_no_receipt() -> None:
    writes = run(Script(chunk("a")), usage_wanted=True, receipt=counted)
    assert "usage" not in text(writes)


@pytest.mark.parametrize("usage", [USAGE, None], ids=["with usage", "without"])
def test_whole_answer_always_has_the_receipt(usage: dict[str, int] | None) -> None:
    body: dict[str, object] = {"choices": [{"message": {"content": "ab"}}]}
    if usage is not None:
        body["usage"] = usage
    answer = answer_of(Script(json.dumps(body).encode()), Outcome(), counted)
    assert answer["usage"] == {"provider": usage, "bytes": 2}


# ---------------------------------------------------------------- refusals of the ledger


def test_only_failures_of_the_provider_may_be_tried_elsewhere() -> None:
    failures: list[Callable[[str], Refusal]] = [
        UpstreamUnavailable,
        UpstreamFailed,
        UpstreamBusy,
        UpstreamTimeout,
    ]
    assert all(make("m").elsewhere for make in failures)
    assert REFUSED_429.elsewhere
    assert not refusal_of_upstream(400, {}, b"").elsewhere
    ours = [Cancelled(), LedgerBusy(), DeadlineExceeded("m"), QuotaExceeded("m")]
    assert not any(refusal.elsewhere for refusal in ours)


def test_reached_limit_says_when_to_come_again_and_what_the_limit_is() -> None:
    limits = {"X-RateLimit-Limit-Requests": "3"}
    refusal = LimitReached("m", retry_after_s=7, extra_headers=limits)
    assert refusal.headers == {"Retry-After": "7", **limits}
    told = refusal.envelope("r")
    assert (told["error"]["code"], told["code"]) == ("rate_limited", "rate_limit_exceeded")
    assert told["retryable"]


def test_used_up_quota_is_a_402_that_no_retry_helps() -> None:
    limits = {"X-RateLimit-Limit-Tokens": "3"}
    refusal = QuotaExceeded("m", retry_after_s=3600, extra_headers=limits)
    assert refusal.headers == {"x-should-retry": "false", "Retry-After": "3600", **limits}
    told = refusal.envelope("r")
    assert (told["error"]["code"], told["code"]) == ("quota_exceeded", "budget_exceeded")
    assert not told["retryable"]


def test_busy_ledger_asks_to_come_again_in_a_second() -> None:
    assert LedgerBusy().headers == {"Retry-After": "1"}
    assert (LedgerBusy().status, LedgerBusy().code) == (503, "ledger_busy")


def test_stream_that_says_nothing_for_ever_has_a_bound_of_size() -> None:
    comment = b":" + b"." * 999_997 + b"\n\n"
    script = Script(chunk("a"), *[comment] * 40)
    timing = Timing(script.monotonic, deadline=script.now + 300)
    writes = list(relay.stream(answering(script, output_tokens=1), script, timing, Outcome()))
    assert objects(writes)[-1]["error"]["code"] == "upstream_invalid_response"  # type: ignore[index]
    assert script.steps, "it was not read to its end"
    within = Script(chunk("a"), *[comment] * 31, chunk(None, "stop"), DONE)
    timing = Timing(within.monotonic, deadline=within.now + 300)
    writes = list(relay.stream(answering(within, output_tokens=1), within, timing, Outcome()))
    assert text(writes).endswith("data: [DONE]\n\n")
