"""Whatever providers send, mixed and cut at random, a client gets an answer that it can read, and
no success that was not one.
"""

import json
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.answers import checked_stream, checked_whole
from tests.provider.oddities import Oddity, oddity
from tests.unit.chat.script import Script, Step
from weir.chat import relay
from weir.chat.completion import Billed, billed
from weir.chat.outcome import Ending, Outcome, State
from weir.chat.relay import Answering, Timing
from weir.errors import Refusal, UpstreamUnavailable

randoms = st.randoms(use_true_random=False)


def steps_of(odd: Oddity, random: Random) -> list[Step]:
    """Its bytes in pieces, after some silence; the connection may break at its end."""
    body, steps = odd.body, list[Step]([random.choice([0.0, 0.1, 6.0, 20.0])])
    while body:
        size = random.choice([1, 7, 50, 400, len(body)])
        steps.append(body[:size])
        body = body[size:]
    if odd.cut_at is not None and random.random() < 0.5:
        steps.append(UpstreamUnavailable("reset"))
    return steps


def answering(odd: Oddity, script: Script, *, usage_wanted: bool) -> Answering:
    return Answering(
        "ours",
        1,
        100_000,
        choices=odd.choices,
        usage_wanted=usage_wanted,
        receipt=lambda outcome: {"cost_usd": 0.1},
        cancelled=script.cancelled,
    )


def judge(odd: Oddity, outcome: Outcome, *, succeeded: bool) -> None:
    assert succeeded or not odd.must_succeed(), "an oddity was taken for a failure"
    assert odd.may_succeed() or not succeeded, "a success that was not one"
    assert succeeded == (outcome.outcome == "completed")
    assert succeeded == ((outcome.state, outcome.ending) == (State.FINISHED, Ending.COMPLETED))
    if outcome.content_chunks:
        assert billed(outcome) is not Billed.NOTHING, "what was said is paid for"


@settings(max_examples=200, deadline=None)
@given(randoms, st.booleans())
def test_stream_of_any_oddities_is_readable_and_rightly_judged(
    random: Random, usage_wanted: bool
) -> None:
    odd = oddity(random)
    script, outcome = Script(*steps_of(odd, random)), Outcome()
    timing = Timing(script.monotonic, deadline=script.now + 3000)
    writes, refused = [], False
    try:
        for write in relay.stream(
            answering(odd, script, usage_wanted=usage_wanted), script, timing, outcome
        ):
            assert write.endswith(b"\n\n")
            writes.append(write)
    except Refusal:
        refused = True
        assert not writes, "what fails after the first byte is an error frame"
    sent = b"".join(writes)
    succeeded = False if refused else checked_stream(sent, usage_wanted=usage_wanted)[0]
    judge(odd, outcome, succeeded=succeeded)
    if succeeded:
        said: dict[int, str] = {}
        for frame in sent.split(b"\n\n"):
            for choice in json.loads(frame[6:])["choices"] if frame.startswith(b"data: {") else ():
                text = choice["delta"].get("content") or ""
                said[choice["index"]] = said.get(choice["index"], "") + text
        assert {index: text for index, text in said.items() if text} == odd.said()
    assert script.closed


@settings(max_examples=150, deadline=None)
@given(randoms)
def test_whole_answer_of_any_oddities_is_readable_and_rightly_judged(random: Random) -> None:
    odd = oddity(random)
    script, outcome = Script(*steps_of(odd, random)), Outcome()
    timing = Timing(script.monotonic, deadline=script.now + 3000)
    try:
        sent = relay.complete(answering(odd, script, usage_wanted=True), script, timing, outcome)
    except Refusal:
        judge(odd, outcome, succeeded=False)
    else:
        judge(odd, outcome, succeeded=True)
        checked_whole(sent)
        said = {c["index"]: c["message"]["content"] for c in json.loads(sent)["choices"]}
        said = {index: text for index, text in said.items() if text}
        # JSON puts two halves of a character together that came one by one.
        assert said == {index: _joined(text) for index, text in odd.said().items()}
    assert script.closed


def _joined(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
