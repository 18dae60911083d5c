"""A provider that does not keep the output cap that it was sent, in each way: what the client gets,
when the provider is stopped, and what is charged.
"""

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.chat.test_completion import admitted, chat
from weir.chat import completion, relay
from weir.chat.completion import Charge, Running
from weir.chat.masking import NOTHING_MASKED
from weir.chat.outcome import Ending
from weir.errors import UpstreamFailed
from weir.ledger.rules import FIELDS

CAP, CHUNKS = 1_000, 20_000
INPUT, OUTPUT = 100, 400  # nano-USD a token, as in the catalogue of `chat`


class Endless:
    """A provider that sends one frame after the other, and counts how many were taken."""

    mask = NOTHING_MASKED

    def __init__(self, frames: Iterator[bytes]) -> None:
        self._frames = frames
        self.taken = 0
        self.closed = False

    def receive(self, timeout_s: float) -> bytes:
        self.taken += 1
        return next(self._frames, b"")

    def close(self) -> None:
        self.closed = True


def frame(index: int = 0, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if finish else {"content": "w123 "}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


def reported(completion_tokens: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": 20, "completion_tokens": completion_tokens}}


def run(
    frames: Iterator[bytes], **body: Any
) -> tuple[list[dict[str, Any]], str, Endless, Running, Charge]:
    """Return the chunks, the last frame, and what was settled."""
    asked = {"stream": True, "max_tokens": CAP, "stream_options": {"include_usage": True}}
    running = admitted(chat(**{**asked, **body}))
    provider = Endless(frames)
    settled: list[Charge] = []
    answer = completion.relayed(
        running,
        relay.Timing(lambda: 0.0, 100),
        open_upstream=lambda candidate, sent: provider,
        settle=lambda one: settled.append(completion.charge(one)),
        cancelled=lambda: False,
    )
    written = b"".join(answer).decode().split("\n\n")[:-1]
    chunks = [json.loads(each[6:]) for each in written if each.startswith("data: {")]
    (charge,) = settled
    assert provider.closed
    return chunks, written[-1], provider, running, charge


def ends(chunks: list[dict[str, Any]]) -> list[tuple[int, str]]:
    found = [choice for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    return [(choice["index"], choice["finish_reason"]) for choice in found]


NO_USAGE: dict[str, Any] = {}
# What each chunk reports; how many chunks are taken at most; the output tokens that are charged.
LIES = {
    "reports nothing": (lambda n: NO_USAGE, 1_000, CAP),
    "reports what it produces": (lambda n: reported(2 * n), 501, CAP + 2),
    "reports far more, at once": (lambda n: reported(50 * CAP), 1, 50 * CAP),
    "reports less than is seen": (lambda n: reported(n // 100), 1_000, CAP),
    "reports 0": (lambda n: reported(0), 1_000, CAP),
    "reports what it has thought in the total only": (
        lambda n: {"usage": {"prompt_tokens": 20, "completion_tokens": 0, "total_tokens": 2 * CAP}},
        1,
        2 * CAP - 20,
    ),
}


@pytest.mark.parametrize(("report", "most_taken", "output"), LIES.values(), ids=LIES)
def test_answer_beyond_its_cap_is_stopped(report: Any, most_taken: int, output: int) -> None:
    chunks, last, provider, running, charge = run(frame(**report(n)) for n in range(1, CHUNKS + 1))
    assert provider.taken <= most_taken
    assert ends(chunks) == [(0, "length")]
    assert last == "data: [DONE]"
    assert any("usage" in chunk for chunk in chunks)
    assert running.outcome.ending is Ending.CUT
    assert charge.row["outcome"] == "output_cap_enforced"
    assert charge.row["output_tokens"] == output
    held = running.reservation.amounts.nano_usd
    assert charge.excess_nano_usd == max(0, charge.row["nano_usd"] - held)
    assert (charge.excess_nano_usd > 0) is (output > CAP)
    if not report(1):
        assert charge.row["nano_usd"] <= held


def test_usage_that_is_reported_at_the_end_only_is_charged_and_the_excess_stands_in_the_row() -> (
    None
):
    def frames() -> Iterator[bytes]:
        yield from (frame() for _ in range(100))
        yield frame(finish="stop")
        yield b"data: " + json.dumps({"choices": [], **reported(5 * CAP)}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    chunks, last, _, _, charge = run(frames())
    assert (ends(chunks), last) == ([(0, "stop")], "data: [DONE]")
    assert charge.row["nano_usd"] == 20 * INPUT + 5 * CAP * OUTPUT
    assert charge.row["excess_nano_usd"] == charge.excess_nano_usd > 0


def test_excess_raises_the_candidates_worst_case_and_none_below_what_is_known() -> None:
    def frames() -> Iterator[bytes]:
        yield frame()
        yield frame(finish="stop", **reported(5 * CAP))
        yield b"data: [DONE]\n\n"

    _, _, _, running, charge = run(frames())
    # The input was below its bound, so a little less than five times the output was needed.
    assert 400 < charge.overrun <= 500
    name = running.candidate.name
    known = replace(running.chat.snapshot.shared, overruns={name: charge.overrun})
    snapshot = replace(running.chat.snapshot, shared=known)
    again = replace(running.chat, snapshot=snapshot)
    held = completion.asked_of_the_ledger(again, 300).price(CAP).nano_usd
    assert held >= charge.row["nano_usd"]
    # What was admitted before the ratio was known ends after it: in flight, and told already.
    running.chat = again
    assert completion.charge(running).overrun == 0


def test_thinking_that_the_cap_does_not_bound_is_bounded_reserved_and_admitted() -> None:
    running = admitted(chat(thinking=400, n=2, max_tokens=100, thinking_budget=20_000))
    one = running.chat
    (candidate,) = one.model.candidates
    sent = one.asked.body_for(candidate, running.output_cap)
    assert sent.count(b"thinking_budget") == 1
    assert json.loads(sent)["thinking_budget"] == 400
    assert json.loads(sent)["max_tokens"] == 100
    held = running.reservation.amounts
    assert held.nano_usd == one.input_bound * INPUT + (200 + 2 * 400) * OUTPUT
    assert held.tokens == one.input_estimate + 200 + 2 * 400
    assert running.most_output == 1_000
    ask = completion.asked_of_the_ledger(one, 300)
    (money,) = [field for field in FIELDS if field.unit == "nano_usd"]
    room = ask.afford(money, held.nano_usd)
    assert room == 200, "what the money buys beside the thinking"


@pytest.mark.parametrize(("thinking", "cut"), [(None, True), (1_000, False)])
def test_relay_admits_what_may_be_thought(thinking: int | None, cut: bool) -> None:
    done = b"data: [DONE]\n\n"
    frames = [frame(**reported(CAP + 500)), frame(finish="stop", **reported(CAP + 500)), done]
    chunks, _, _, _, charge = run(iter(frames), thinking=thinking)
    assert ends(chunks) == [(0, "length" if cut else "stop")]
    assert (charge.excess_nano_usd > 0) is cut


def test_answer_within_its_worst_case_raises_nothing() -> None:
    done = b"data: [DONE]\n\n"
    _, _, _, _, charge = run(iter([frame(), frame(finish="stop", **reported(CAP)), done]))
    assert (charge.excess_nano_usd, charge.overrun) == (0, 0)


def test_each_choice_that_is_not_finished_gets_its_end() -> None:
    def frames() -> Iterator[bytes]:
        yield frame(1)
        yield frame(1, finish="stop")
        while True:
            yield frame(0)
            yield frame(2)

    chunks, last, _, _, _ = run(frames(), n=3, max_tokens=100)
    assert sorted(ends(chunks)) == [(0, "length"), (1, "stop"), (2, "length")]
    assert last == "data: [DONE]"


def test_stream_that_is_read_for_a_whole_answer_is_stopped_too() -> None:
    (answer,), _, provider, _, charge = whole(frame() for _ in range(CHUNKS))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert provider.taken <= 1_000
    assert charge.row["output_tokens"] == CAP


def whole(
    frames: Iterator[bytes],
) -> tuple[list[dict[str, Any]], str, Endless, Running, Charge]:
    running = admitted(chat(max_tokens=CAP))
    provider = Endless(frames)
    settled: list[Charge] = []
    answer = completion.relayed(
        running,
        relay.Timing(lambda: 0.0, 100),
        open_upstream=lambda candidate, sent: provider,
        settle=lambda one: settled.append(completion.charge(one)),
        cancelled=lambda: False,
    )
    answers = [json.loads(each) for each in answer]
    return answers, "", provider, running, settled[0]


def test_whole_answer_of_29_mb_is_refused_before_it_fills_the_memory() -> None:
    piece = b"w123 " * 13_000
    start = b'{"choices":[{"index":0,"message":{"content":"'
    pieces = iter([start, *[piece] * 450])
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamFailed, match="too large"):
            whole(pieces)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
    assert len(list(pieces)) > 400, "the rest was not read"
