"""What a provider sends, and what a client gets for it, byte for byte.

In golden/, NAME.in is a provider's body; NAME.stream.out is what a client gets that streams,
NAME.whole.out what one gets that does not. Both ask for the usage, and for two choices if the name
begins with `n2`. What fails before the first byte is shown as status, code and words.

A new .in file, or a change that is meant, gets its .out files by this; read the difference:

    WEIR_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/unit/chat/test_golden.py
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.answers import checked_stream, checked_whole
from tests.unit.chat.script import Script, Step
from weir.chat import relay
from weir.chat.outcome import Ending, Outcome, State
from weir.chat.relay import Answering, Timing
from weir.errors import Refusal
from weir.ledger import costs

GOLDEN = Path(__file__).with_name("golden")
NAMES = sorted(path.stem for path in GOLDEN.glob("*.in"))
WRITES = os.environ.get("WEIR_WRITE_GOLDEN") == "1"
CAP = 100_000  # output tokens: more than any of these answers has


def answering(script: Script, name: str = "") -> Answering:
    return Answering(
        "ours",
        1,
        CAP,
        choices=2 if name.startswith("n2") else 1,
        usage_wanted=True,
        receipt=receipt,
        cancelled=script.cancelled,
    )


def receipt(outcome: Outcome) -> dict[str, Any]:
    seen = costs.estimated(7, outcome.content_bytes, outcome.content_chunks, CAP)
    shown = costs.read_usage(outcome.usage)
    if shown is None or not outcome.usage_is_final:
        shown = costs.not_less_than(shown, seen)
    return costs.usage_object(shown, 1000 * shown.total, outcome.usage)


def streamed(*steps: Step, name: str = "", outcome: Outcome | None = None) -> bytes:
    script = Script(*steps)
    timing = Timing(script.monotonic, deadline=script.now + 300)
    answer = relay.stream(answering(script, name), script, timing, outcome or Outcome())
    return _or_refusal(answer)


def whole(*steps: Step, name: str = "", outcome: Outcome | None = None) -> bytes:
    script = Script(*steps)
    timing = Timing(script.monotonic, deadline=script.now + 300)

    def answer() -> Iterator[bytes]:
        yield relay.complete(answering(script, name), script, timing, outcome or Outcome())

    return _or_refusal(answer())


def _or_refusal(answer: Iterator[bytes]) -> bytes:
    try:
        return b"".join(answer)
    except Refusal as refusal:
        return f"{refusal.status} {refusal.code}\n{refusal.message}\n".encode()


WAYS = {"stream": streamed, "whole": whole}


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_client_gets_these_bytes_for_those_of_the_provider(name: str, way: str) -> None:
    body, told = (GOLDEN / f"{name}.in").read_bytes(), GOLDEN / f"{name}.{way}.out"
    outcome = Outcome()
    sent = WAYS[way](body, name=name, outcome=outcome)
    if WRITES:
        told.write_bytes(sent)
    assert sent == told.read_bytes()
    succeeded = not sent[:3].isdigit()
    if succeeded and way == "stream":
        succeeded, _ = checked_stream(sent, usage_wanted=True)
    elif succeeded:
        checked_whole(sent)
    ended = (outcome.state, outcome.ending)
    assert succeeded == (ended == (State.FINISHED, Ending.COMPLETED))
    assert succeeded == (outcome.outcome == "completed")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_any_cut_gives_the_same_bytes(name: str, way: str) -> None:
    body, told = (GOLDEN / f"{name}.in").read_bytes(), (GOLDEN / f"{name}.{way}.out").read_bytes()
    for size in (1, 7, 100):
        assert WAYS[way](*in_pieces(body, size), name=name) == told, f"pieces of {size}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name",
    ["cr", "crlf", "bom", "pretty-printed", "whole-pretty", "error-event-text", "half-frame"],
)
def test_a_cut_at_any_byte_gives_the_same_bytes(name: str, way: str) -> None:
    body, told = (GOLDEN / f"{name}.in").read_bytes(), (GOLDEN / f"{name}.{way}.out").read_bytes()
    for at in range(1, len(body)):
        assert WAYS[way](body[:at], body[at:], name=name) == told, f"cut at {at}"


# ---------------------------------------------------------------- too large for a file, or timed


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [65_536, 1_000_000, 6_000_000], ids=str)
def test_event_of_5_mb_is_refused_in_any_pieces_and_paid_for(way: str, size: int) -> None:
    body = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 5_000_000 + b'"}}]}\n\n'
    outcome = Outcome()
    sent = WAYS[way](*in_pieces(body, size), outcome=outcome)
    assert sent.startswith(b"502 upstream_invalid_response\n")
    assert b"too large" in sent
    assert (outcome.state, outcome.ending) == (State.SPEAKING, Ending.BROKEN)


@pytest.mark.parametrize("way", WAYS)
def test_nesting_that_json_allows_and_recursion_does_not_is_refused(way: str) -> None:
    for depth in (250, 400, 900, 20_000):
        nested = b'{"choices":[{"index":0,"delta":{"x":' + b"[" * depth + b"]" * depth + b"}}]}"
        sent = WAYS[way](b"data: " + nested + b"\n\n")
        assert sent.startswith(b"502 upstream_invalid_response\n"), depth


WORDS = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
TOLD = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\n'


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("body", "seconds"), [([WORDS, TOLD], 0.25), ([WORDS], 5.0), ([WORDS, 4.0, TOLD], 4.25)]
)
def test_finished_answer_does_not_wait_for_a_provider_that_pings_for_ever(
    way: str, body: list[Step], seconds: float
) -> None:
    pings: list[Step] = [step for _ in range(1000) for step in (0.1, b": ping\n\n")]
    script = Script(*body, *pings)
    sent, took = sent_and_took(way, script, 300)
    assert b"error" not in sent
    assert took == pytest.approx(seconds, abs=0.11)
    assert script.closed


@pytest.mark.parametrize("way", WAYS)
def test_deadline_does_not_spoil_an_answer_that_is_finished(way: str) -> None:
    sent, took = sent_and_took(way, Script(1.0, WORDS, 1e9), 3.0)
    assert b"error" not in sent
    assert took == 3.0


def sent_and_took(way: str, script: Script, deadline_s: float) -> tuple[bytes, float]:
    began, timing = script.now, Timing(script.monotonic, deadline=script.now + deadline_s)
    if way == "stream":
        sent = b"".join(relay.stream(answering(script), script, timing, Outcome()))
        assert sent.endswith(b"data: [DONE]\n\n")
    else:
        sent = relay.complete(answering(script), script, timing, Outcome())
    return sent, script.now - began


def test_every_output_belongs_to_an_input() -> None:
    outputs = {f"{name}.{way}.out" for name in NAMES for way in WAYS}
    assert {path.name for path in GOLDEN.glob("*.out")} == outputs
    assert len(NAMES) > 80
