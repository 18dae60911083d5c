"""Before a request its worst case is never too low, and what a provider told of it is never more
than read: money is hard.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.ledger import costs
from weir.ledger.costs import Usage, affordable_output, read_usage, worst_case
from weir.projects.catalogue import Candidate, Model, Upstream

UPSTREAM = Upstream("main", "openai", {"base_url": "https://api.provider.example/v1"})


def candidate(
    input_: int = 100, cached: int = 10, output: int = 400, *, thinking: int = 0
) -> Candidate:
    return Candidate(
        UPSTREAM, "m", input_, cached, output, "max_tokens", "thinking_budget", thinking
    )


def model(*, context: int = 1000, overhead: int = 7, image: int | None = 85) -> Model:
    return Model("m", (), (candidate(),), context, 100, overhead, image, None, False, 0)


PRICE = st.integers(0, 10**6)
TOKENS = st.integers(0, 10**7)
CANDIDATES = st.lists(st.builds(candidate, PRICE, PRICE, PRICE), min_size=1, max_size=4)

# ---------------------------------------------------------------- before the request


@given(CANDIDATES, TOKENS, TOKENS, st.data())
def test_nothing_within_the_bounds_costs_more_than_the_worst_case(
    candidates: list[Candidate], most_input: int, most_output: int, data: st.DataObject
) -> None:
    input_ = data.draw(st.integers(0, most_input))
    output = data.draw(st.integers(0, most_output))
    usage = Usage(input_, data.draw(st.integers(0, input_)), output, 0)
    worst = worst_case(candidates, most_input, most_output)
    assert all(costs.cost(usage, each) <= worst for each in candidates)


@given(CANDIDATES, TOKENS, TOKENS)
def test_worst_case_is_reached_by_some_candidate(
    candidates: list[Candidate], input_: int, output: int
) -> None:
    usages = Usage(input_, 0, output, 0), Usage(input_, input_, output, 0)
    assert worst_case(candidates, input_, output) in {
        costs.cost(usage, each) for usage in usages for each in candidates
    }


def test_thinking_beyond_the_cap_is_held_for_each_choice() -> None:
    thinker = candidate(thinking=50)
    assert costs.most_output(thinker, 100, 3) == 100 + 3 * 50
    assert worst_case([thinker], 10, 100) == 10 * 100 + 150 * 400
    assert worst_case([thinker], 10, 100, choices=3) == 10 * 100 + 250 * 400


def test_money_buys_the_thinking_of_each_choice_before_any_answer() -> None:
    thinker = candidate(thinking=50)
    money = 10 * 100 + 250 * 400
    assert affordable_output([thinker], 10, money) == 200
    assert affordable_output([thinker], 10, money, choices=3) == 100
    assert affordable_output([thinker], 10, money, choices=6) == 0


OVERRUNS = st.fixed_dictionaries({"main/m": st.integers(100, costs.MOST_OVERRUN)})


def test_overrun_multiplies_the_output_of_its_candidate_alone() -> None:
    other = Candidate(UPSTREAM, "other", 100, 10, 400, "max_tokens")
    assert worst_case([other], 10, 100, {"main/m": 250}) == 10 * 100 + 100 * 400
    assert worst_case([other, candidate()], 10, 100, {"main/m": 250}) == 10 * 100 + 250 * 400


@given(PRICE, PRICE, TOKENS, st.integers(1, 10**6), st.integers(0, 10**15))
def test_after_an_overrun_the_worst_case_would_have_been_enough(
    price: int, output_price: int, input_: int, cap: int, nano_usd: int
) -> None:
    one = candidate(price, price, output_price)
    percent = costs.overrun(one, input_, cap, nano_usd)
    assert 100 <= percent <= costs.MOST_OVERRUN
    # What is free can have no excess.
    if percent < costs.MOST_OVERRUN and (output_price or price * input_):
        assert worst_case([one], input_, cap, {one.name: percent}) >= nano_usd


def test_overrun_is_bounded_and_where_output_is_free_it_is_of_the_input() -> None:
    assert costs.overrun(candidate(), 10, 100, 10 * 100 + 320 * 400) == 320
    assert costs.overrun(candidate(), 10, 100, 10 * 100 + 100 * 400) == 100
    assert costs.overrun(candidate(), 10, 100, 0) == 100
    assert costs.overrun(candidate(), 10, 100, 10**12) == 1_600
    assert costs.overrun(candidate(output=0), 10, 0, 10 * 100 * 3 - 1) == 300
    assert costs.overrun(candidate(output=0), 10, 0, 10 * 100) == 100
    assert costs.overrun(candidate(0, 0, 0), 10, 0, 0) == 100


@given(CANDIDATES, TOKENS, st.integers(0, 10**13), OVERRUNS)
def test_money_buys_what_its_worst_case_with_an_overrun_allows(
    candidates: list[Candidate], input_: int, more: int, overruns: dict[str, int]
) -> None:
    money = worst_case(candidates, input_, 0, overruns) + more
    output = affordable_output(candidates, input_, money, overruns)
    assert worst_case(candidates, input_, output, overruns) <= money
    if output < costs.MOST_TOKENS:
        assert worst_case(candidates, input_, output + 1, overruns) > money


@given(CANDIDATES, TOKENS, st.integers(0, 10**13))
def test_money_buys_all_the_output_it_can_and_not_a_token_more(
    candidates: list[Candidate], input_: int, more: int
) -> None:
    money = worst_case(candidates, input_, 0) + more
    output = affordable_output(candidates, input_, money)
    assert worst_case(candidates, input_, output) <= money
    if output < costs.MOST_TOKENS:
        assert worst_case(candidates, input_, output + 1) > money


@given(CANDIDATES, TOKENS, st.integers(1, 10**13))
def test_nothing_can_be_had_where_the_input_alone_is_too_dear(
    candidates: list[Candidate], input_: int, less: int
) -> None:
    money = worst_case(candidates, input_, 0) - less
    assert affordable_output(candidates, input_, money) == 0


def test_output_that_costs_nothing_is_bounded_by_no_money() -> None:
    free = candidate(output=0)
    assert affordable_output([free], 10, 1000) == costs.MOST_TOKENS
    assert affordable_output([free, candidate(output=400)], 10, 1400) == 1


def test_no_candidate_has_no_price_instead_of_none() -> None:
    with pytest.raises(ValueError, match="empty"):
        worst_case([], 1, 1)


@given(
    text_bytes=st.integers(1, 10**7),
    images=st.integers(0, 100),
    context=st.integers(1, 10**7),
    overhead=st.integers(0, 1000),
)
def test_estimate_of_the_input_is_at_least_one_token_and_within_the_bound(
    text_bytes: int, images: int, context: int, overhead: int
) -> None:
    of = model(context=context, overhead=overhead)
    assert costs.input_estimate(of, text_bytes, images) >= 1
    assert costs.input_estimate(of, text_bytes, images) <= costs.input_bound(of, text_bytes, images)


def test_input_is_bounded_by_its_bytes_its_images_and_the_overhead() -> None:
    assert costs.input_bound(model(), 100, 0) == 100 + 7
    assert costs.input_bound(model(), 100, 2) == 100 + 7 + 2 * 85
    assert costs.input_estimate(model(), 100, 0) == 34
    assert costs.input_estimate(model(), 100, 2) == 34 + 2 * 85


def test_input_is_bounded_by_the_context_beyond_which_providers_refuse() -> None:
    assert costs.input_bound(model(context=1000), 5000, 0) == 1000
    assert costs.input_estimate(model(context=1000), 5000, 0) == 1000
    assert costs.most_input(model(context=1000), 5000, 0) == 5007


def test_images_without_a_price_are_never_free() -> None:
    for count in (costs.input_bound, costs.input_estimate):
        with pytest.raises(ValueError, match="images have no price"):
            count(model(image=None), 10, 1)


# ---------------------------------------------------------------- after it

PLAIN = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (PLAIN, Usage(100, 0, 40, 0)),
        ({**PLAIN, "completion_tokens": 0, "total_tokens": 100}, Usage(100, 0, 0, 0)),
        ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0}},
         Usage(100, 60, 40, 0)),
        ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": 30}}, Usage(100, 0, 40, 30)),
        # DeepSeek
        ({**PLAIN, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36},
         Usage(100, 64, 40, 0)),
        ({**PLAIN, "prompt_cache_hit_tokens": 64, "prompt_tokens_details": {"cached_tokens": 5}},
         Usage(100, 5, 40, 0)),
        # Gemini: 25 tokens of thinking, in the total only
        ({**PLAIN, "total_tokens": 165}, Usage(100, 0, 65, 25)),
        # xAI: the same, and it says how many
        ({**PLAIN, "total_tokens": 165, "completion_tokens_details": {"reasoning_tokens": 25}},
         Usage(100, 0, 65, 25)),
        # totals that say nothing
        ({**PLAIN, "total_tokens": 120}, Usage(100, 0, 40, 0)),
        ({**PLAIN, "total_tokens": None}, Usage(100, 0, 40, 0)),
        ({**PLAIN, "total_tokens": 10**9 + 1}, Usage(100, 0, 40, 0)),
        ({**PLAIN, "total_tokens": 165.0}, Usage(100, 0, 40, 0)),
        # parts are never more than the whole
        ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 101}}, Usage(100, 100, 40, 0)),
        ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": 41}}, Usage(100, 0, 40, 40)),
        # details that are none
        ({**PLAIN, "prompt_tokens_details": None, "completion_tokens_details": []},
         Usage(100, 0, 40, 0)),
        ({**PLAIN, "prompt_tokens_details": {"cached_tokens": True},
          "completion_tokens_details": {"reasoning_tokens": -1}}, Usage(100, 0, 40, 0)),
    ],
    ids=str,
)  # fmt: skip
def test_providers_own_count_is_read(told: Any, usage: Usage) -> None:
    assert read_usage(told) == usage


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
@pytest.mark.parametrize("value", [..., None, True, "40", 40.0, -1, 10**9 + 1, [40]], ids=str)
def test_count_that_cannot_be_one_is_no_count(name: str, value: object) -> None:
    told = {n: v for n, v in {**PLAIN, name: value}.items() if v is not ...}
    assert read_usage(told) is None


@pytest.mark.parametrize("told", [None, [], "usage", 7, {}, {**PLAIN, "prompt_tokens": 0}], ids=str)
def test_provider_that_has_not_counted_is_not_believed(told: object) -> None:
    assert read_usage(told) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
NAMES = ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_cache_hit_tokens"]
NUMBERS = st.integers(-5, 200) | st.integers(10**9 - 5, 10**9 + 5) | JSON


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(NAMES, NUMBERS),
            "prompt_tokens_details": JSON | st.fixed_dictionaries({"cached_tokens": NUMBERS}),
            "completion_tokens_details": JSON
            | st.fixed_dictionaries({"reasoning_tokens": NUMBERS}),
        },
    )
)
def test_whatever_a_provider_tells_parts_stay_within_the_whole(told: dict[str, Any]) -> None:
    usage = read_usage(told)
    if usage is not None:
        assert 0 <= usage.cached <= usage.input <= costs.MOST_TOKENS
        assert 0 <= usage.reasoning <= usage.output <= costs.MOST_TOKENS
        assert usage.input == told["prompt_tokens"]
        assert usage.output >= told["completion_tokens"]
        assert costs.cost(usage, candidate()) > 0


def test_cached_input_has_its_own_price_and_thinking_that_of_output() -> None:
    usage = Usage(input=100, cached=60, output=40, reasoning=30)
    assert costs.cost(usage, candidate(100, 10, 400)) == 40 * 100 + 60 * 10 + 40 * 400
    assert usage.total == 140


@pytest.mark.parametrize(
    ("content_bytes", "chunks", "cap", "output"),
    [(300, 10, 1000, 100), (301, 10, 1000, 101), (0, 0, 1000, 0), (9, 7, 1000, 7), (9, 7, 5, 5)],
)
def test_output_that_nobody_counted_is_counted_by_what_was_sent(
    content_bytes: int, chunks: int, cap: int, output: int
) -> None:
    assert costs.estimated(12, content_bytes, chunks, cap) == Usage(12, 0, output, 0, True)


def test_client_is_shown_the_providers_own_count_and_the_cost() -> None:
    told = {**PLAIN, "prompt_tokens_details": {"cached_tokens": 60}, "something_new": 1}
    kept = json.loads(json.dumps(told))
    shown = costs.usage_object(Usage(100, 60, 40, 0), 20_600, told)
    assert shown == {**kept, "cost_usd": 0.0000206}
    assert told == kept


@pytest.mark.parametrize("told", [None, {}, {"prompt_tokens": "many", "total_tokens": None}])
def test_client_is_shown_an_estimate_where_the_provider_told_none(
    told: dict[str, Any] | None,
) -> None:
    usage = costs.estimated(12, 9, 7, 100)
    assert costs.usage_object(usage, 1_500_000_000, told) == {
        "prompt_tokens": 12,
        "completion_tokens": 7,
        "total_tokens": 19,
        "estimated": True,
        "cost_usd": 1.5,
    }


@pytest.mark.parametrize(
    ("reported", "counted", "billed"),
    [((20, 5), (9, 3), (20, 5)), ((9, 3), (20, 5), (20, 5)), ((20, 3), (9, 5), (20, 5))],
)
def test_count_of_ours_raises_what_was_reported_before_the_end_and_never_lowers_it(
    reported: tuple[int, int], counted: tuple[int, int], billed: tuple[int, int]
) -> None:
    ours = costs.Usage(counted[0], 0, counted[1], 0, estimated=True)
    usage = costs.not_less_than(costs.Usage(reported[0], 1, reported[1], 0), ours)
    assert (usage.input, usage.output, usage.estimated) == (*billed, True)
    assert costs.not_less_than(None, ours) == ours
