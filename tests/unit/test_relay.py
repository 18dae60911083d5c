"""What a client sees for everything an upstream can do. Time is scripted."""

import json
from collections.abc import Iterator

import pytest

from weir import relay
from weir.chat import ChatRequest
from weir.errors import (
    DeadlineExceeded,
    Refusal,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from weir.relay import Outcome, Timing

Step = bytes | float | Refusal


class Script:
    """An upstream that does as written: bytes arrive, a number is seconds of silence."""

    secret = b"sk-CANARY"

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.now = 1000.0
        self.closed = 0

    def monotonic(self) -> float:
        return self.now

    def receive(self, timeout_s: float) -> bytes | None:
        while self.steps:
            step = self.steps[0]
            if isinstance(step, float):
                if step > timeout_s:
                    self.steps[0] = step - timeout_s
                    self.now += timeout_s
                    return None
                self.now += step
                timeout_s -= step
                self.steps.pop(0)
                continue
            self.steps.pop(0)
            if isinstance(step, Refusal):
                raise step
            return step
        return b""

    def close(self) -> None:
        self.closed += 1


def chunk(content: str | None = None, finish: str | None = None, **more: object) -> bytes:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "theirs", "object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
USAGE_CHUNK = b'data: {"id":"theirs","choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\n"
DONE = b"data: [DONE]\n\n"


def run(
    script: Script, *, usage_wanted: bool = False, outcome: Outcome | None = None
) -> list[bytes]:
    request = ChatRequest(True, usage_wanted, b"")
    timing = Timing(script.monotonic, deadline=script.now + 300)
    return list(relay.stream(request, script, "ours", timing, outcome or Outcome()))


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


def test_done_without_its_blank_line_counts() -> None:
    assert text(run(Script(chunk("a", "stop"), b"data: [DONE]"))).endswith("data: [DONE]\n\n")


BROKEN_ENDS = {
    "bare end": [chunk("a")],
    "done without a finish reason": [chunk("a"), DONE],
    "half a frame": [chunk("a"), chunk("b")[:20]],
    "half a frame after the finish": [chunk("a", "stop"), chunk("b")[:20]],
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
    assert last["choices"] == []
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
    assert "CANARY" not in json.dumps(whole(b'{"choices":[],"x":"sk-CANARY"}'))


def test_choices_null_become_a_list_that_clients_can_index() -> None:
    writes = run(Script(b'data: {"choices":null}\n\n', chunk("a", "stop"), DONE))
    assert objects(writes)[0]["choices"] == []


FIRST_BYTES: dict[str, Step] = {
    "error in a 200": b'data: {"error":{"message":"boom"}}\n\n',
    "garbage": b"data: <html>\n\n",
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
    request = ChatRequest(True, False, b"")
    timing = Timing(script.monotonic, deadline=script.now + 300)
    writes = []
    for write in relay.stream(request, script, "ours", timing, Outcome()):
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
    request = ChatRequest(True, False, b"")
    timing = Timing(script.monotonic, deadline=script.now + 10_000)
    started = script.now
    writes = list(relay.stream(request, script, "ours", timing, Outcome()))
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
    request = ChatRequest(True, False, b"")
    stream = relay.stream(
        request, script, "ours", Timing(script.monotonic, script.now + 300), outcome
    )
    next(stream)
    assert isinstance(stream, Iterator)
    stream.close()  # type: ignore[attr-defined]
    assert script.closed == 1
    assert outcome.outcome == "cancelled"


def whole(*steps: Step, outcome: Outcome | None = None) -> dict[str, object]:
    script = Script(*steps)
    timing = Timing(script.monotonic, deadline=script.now + 300)
    answer = json.loads(relay.complete(script, "ours", timing, outcome or Outcome()))
    assert script.closed
    assert isinstance(answer, dict)
    return answer


def test_answer_that_does_not_stream_is_one_object_with_our_id() -> None:
    outcome = Outcome()
    body = json.dumps({"id": "theirs", "choices": [{"index": 0}], "usage": USAGE}).encode()
    answer = whole(body[:10], 20.0, body[10:], outcome=outcome)
    assert answer == {"id": "ours", "choices": [{"index": 0}], "usage": USAGE}
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
        relay.complete(script, "ours", timing, Outcome())
    assert script.now - began < 300, "API Gateway cuts what is silent for five minutes"


def test_endless_answer_is_cut_off() -> None:
    with pytest.raises(UpstreamFailed):
        whole(*[b"x" * 1_000_000] * 40)
