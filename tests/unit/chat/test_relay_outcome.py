"""What the relay notes of an answer, beside what it sends."""

import json

import pytest

from tests.unit.chat.script import Script
from tests.unit.chat.test_relay import DONE, USAGE, USAGE_CHUNK, answering, chunk, objects, run
from weir.chat import relay
from weir.chat.outcome import Ending, Outcome, State
from weir.chat.relay import Timing
from weir.errors import UpstreamUnavailable


def receipt(outcome: Outcome) -> dict[str, object]:
    return {"receipt": outcome.usage_is_final}


def whole(script: Script, outcome: Outcome, **how: object) -> dict[str, object]:
    timing = Timing(script.monotonic, deadline=script.now + 300)
    answer: dict[str, object] = json.loads(
        relay.complete(answering(script, **how), script, timing, outcome)
    )
    return answer


def test_chunks_that_the_caller_gets_are_counted() -> None:
    for usage_wanted, number in ((False, 2), (True, 3)):
        outcome = Outcome()
        script = Script(chunk("a"), chunk("b", "stop"), USAGE_CHUNK + DONE)
        run(script, usage_wanted=usage_wanted, outcome=outcome)
        assert outcome.chunks == number


def test_usage_is_shown_once_at_the_end_whether_the_provider_reports_it_or_not() -> None:
    for last in (USAGE_CHUNK + DONE, DONE):
        script = Script(chunk("a", "stop"), last)
        told = [o for o in objects(run(script, usage_wanted=True, receipt=receipt)) if "usage" in o]
        assert [o["usage"] for o in told] == [{"receipt": last != DONE}]


def test_usage_of_a_chunk_before_the_end_is_not_the_one_at_the_end() -> None:
    script = Script(chunk("a", usage=USAGE), chunk("b", "stop"), DONE)
    told = [o for o in objects(run(script, usage_wanted=True, receipt=receipt)) if "usage" in o]
    assert len(told) == 2


def test_whole_answer_that_broke_within_its_document_may_have_been_spoken() -> None:
    """How much of it the provider had written, and bills, cannot be seen."""
    document = json.dumps({"choices": [{"index": 0, "message": {"content": "a"}}]}).encode()
    outcome = Outcome()
    with pytest.raises(UpstreamUnavailable):
        whole(Script(document[:-9], UpstreamUnavailable("cut")), outcome)
    assert (outcome.state, outcome.ending) == (State.SPEAKING, Ending.BROKEN)


def test_stream_in_place_of_a_whole_answer_that_broke_before_its_first_word_was_not_spoken() -> (
    None
):
    outcome = Outcome()
    with pytest.raises(UpstreamUnavailable):
        whole(Script(chunk(), UpstreamUnavailable("cut")), outcome)
    assert (outcome.state, outcome.ending) == (State.BEGUN, Ending.BROKEN)


def test_answer_that_was_finished_is_never_cut() -> None:
    """The provider has ended it by itself; its usage may say more than was admitted."""
    outcome = Outcome()
    more = {**USAGE, "completion_tokens": 9_000, "total_tokens": 9_003}
    script = Script(chunk("a", "stop", usage=more), DONE)
    timing = Timing(script.monotonic, deadline=script.now + 300)
    list(relay.stream(answering(script, output_tokens=5), script, timing, outcome))
    assert outcome.ending is Ending.COMPLETED


def test_characters_at_which_some_readers_end_a_line_leave_as_escapes() -> None:
    sent = b"".join(run(Script(chunk("a\x85b\u2028c\u2029d\u0086\u2030e", "stop"), DONE)))
    assert b"a\\u0085b\\u2028c\\u2029d" in sent
    assert "\u0086\u2030e".encode() in sent


def test_whole_answer_that_was_cut_off_reads_nothing_more() -> None:
    script = Script(chunk("word " * 400), chunk("never read", "stop"), DONE)
    outcome = Outcome()
    whole(script, outcome, output_tokens=1)
    assert outcome.ending is Ending.CUT
    assert chunk("never read", "stop") in script.steps
