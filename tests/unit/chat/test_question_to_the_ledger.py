"""What a chat asks of the ledger, exactly: tokens and money, and what fits into what is left."""

from dataclasses import replace

import pytest

from tests.unit.chat.test_completion import MAX_STREAM_S, chat
from weir.chat import completion
from weir.chat.completion import Chat
from weir.errors import BadRequest
from weir.ledger.admission import Ask
from weir.projects.limits import BY_PUBLIC_NAME


def of_two_thinkers(choices: int = 1) -> Chat:
    """Of two candidates one may think 30 tokens for each choice beyond its cap."""
    one = chat("a", "b", n=choices)
    thinker, other = one.model.candidates
    candidates = (replace(thinker, thinking_parameter="budget", thinking_tokens=30), other)
    return replace(one, model=replace(one.model, candidates=candidates))


def ask_of(one: Chat) -> Ask:
    return completion.asked_of_the_ledger(one, MAX_STREAM_S)


@pytest.mark.parametrize("choices", [1, 2])
def test_quota_holds_the_input_the_output_and_what_any_candidate_may_think(choices: int) -> None:
    one = of_two_thinkers(choices)
    assert ask_of(one).price(100).tokens == one.input_estimate + 100 + choices * 30


@pytest.mark.parametrize("choices", [1, 2])
def test_quota_of_tokens_leaves_for_the_output_what_input_and_thinking_do_not_take(
    choices: int,
) -> None:
    one = of_two_thinkers(choices)
    tokens = BY_PUBLIC_NAME["tokens_per_day"]
    assert ask_of(one).afford(tokens, 500) == 500 - one.input_estimate - choices * 30


def test_money_leaves_for_the_output_what_its_worst_case_allows() -> None:
    one = of_two_thinkers()
    left = one.input_bound * 100 + 70 * 400
    assert ask_of(one).afford(BY_PUBLIC_NAME["usd_per_month"], left) == 70 - 30


def test_requests_and_streams_leave_no_output_to_be_made_smaller() -> None:
    for name in ("rpm", "concurrent_streams"):
        assert ask_of(chat()).afford(BY_PUBLIC_NAME[name], 10**6) == 0


@pytest.mark.parametrize(("tag", "kept"), [(None, None), ("", None), ("t" * 64, "t" * 64)])
def test_tag_of_up_to_64_characters_is_kept(tag: str | None, kept: str | None) -> None:
    headers = {} if tag is None else {"fc-tag": tag}
    assert ask_of(chat(headers=headers)).row["tag"] == kept


@pytest.mark.parametrize("tag", ["t" * 65, "a\tb", "a\u202eb"])
def test_longer_or_unprintable_tag_is_refused(tag: str) -> None:
    with pytest.raises(BadRequest, match="FC-Tag"):
        ask_of(chat(headers={"fc-tag": tag}))


@pytest.mark.parametrize(("of_the_tier", "cap"), [(None, 1000), (10, 10), (5000, 1000)])
def test_output_cap_is_the_least_of_the_models_and_the_limits(
    of_the_tier: int | None, cap: int
) -> None:
    assert chat(user_cap=of_the_tier).asked.output_cap == cap


def test_images_are_refused_by_a_model_that_has_no_price_for_them() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}}
    messages = [{"role": "user", "content": [image]}]
    with pytest.raises(BadRequest, match="image"):
        chat(messages=messages)
    assert chat(messages=messages, image_max_tokens=85).asked.images == 1
