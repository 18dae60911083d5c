"""How large an answer may be, and how long it took."""

import pytest

from tests.unit.chat.script import Script
from tests.unit.chat.test_relay import DONE, USAGE_CHUNK, answering, chunk, run
from weir.chat import relay
from weir.chat.outcome import Outcome
from weir.chat.relay import Answering, Timing


@pytest.mark.parametrize(
    ("output_tokens", "logprobs", "most_bytes"),
    [
        (0, False, 256_000),
        (1, False, 256_800),
        (1000, False, 1_056_000),
        (1000, True, 5_056_000),
        (39_680, False, 32_000_000),
        (39_681, False, 32_000_000),
        (10**9, True, 32_000_000),
    ],
)
def test_whole_answer_may_have_what_its_tokens_can_take_and_32_megabytes_at_most(
    output_tokens: int, logprobs: bool, most_bytes: int
) -> None:
    assert Answering("ours", 1, output_tokens, logprobs=logprobs).most_document_bytes == most_bytes


def test_stream_may_have_what_its_tokens_can_take() -> None:
    assert Answering("ours", 1, 0).most_stream_bytes == 32_000_000
    assert Answering("ours", 1, 1000).most_stream_bytes == 48_000_000


def test_plain_answer_tells_no_usage_and_has_no_log_probabilities_and_goes_on() -> None:
    plain = Answering("ours", 1, 10)
    assert (plain.choices, plain.usage_wanted, plain.logprobs) == (1, False, False)
    assert plain.cancelled() is False
    assert plain.receipt(Outcome()) is None


def test_stream_is_timed_from_its_start_to_its_first_byte_and_to_its_end() -> None:
    outcome = Outcome()
    run(Script(2.0, chunk("a"), 3.0, chunk("b", "stop"), USAGE_CHUNK + DONE), outcome=outcome)
    assert outcome.first_byte_s == 2.0
    assert outcome.total_s == 5.0


def test_whole_answer_is_timed_at_its_end() -> None:
    script, outcome = Script(2.0, chunk("a", "stop"), USAGE_CHUNK + DONE), Outcome()
    timing = Timing(script.monotonic, deadline=script.now + 300)
    relay.complete(answering(script), script, timing, outcome)
    assert (outcome.first_byte_s, outcome.total_s) == (2.0, 2.0)


def test_provider_that_was_cut_off_is_not_listened_to_again() -> None:
    script = Script(chunk("word " * 400), chunk("never read"), chunk(None, "stop") + DONE)
    timing = Timing(script.monotonic, deadline=script.now + 300)
    list(relay.stream(answering(script, output_tokens=1), script, timing, Outcome()))
    assert chunk("never read") in script.steps


def test_connection_of_an_answer_that_is_whole_is_listened_to_for_its_end() -> None:
    script = Script(chunk("a", "stop") + DONE, b"")
    run(script)
    assert script.steps == []
