"""What a chat request may cost, and what it did cost.

Tokens are whole numbers as the provider bills them; money is integer nano-USD. What is not known is
bounded from above before the request, and never taken for nothing after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weir.projects.catalogue import Candidate, Model
from weir.projects.limits import NANO

MOST_TOKENS = 10**9  # of one request: no provider says more, and no money buys more
MOST_OVERRUN = 1_600  # percent: beyond that a model is better taken out of service
NO_OVERRUNS: Mapping[str, int] = {}
BYTES_OF_A_TOKEN = 3  # of text, about: low for prose in English, high for other scripts


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as billed: `cached` is a part of `input`, `reasoning` of `output`. `estimated`: the
    provider has not told them.
    """

    input: int
    cached: int
    output: int
    reasoning: int
    estimated: bool = False

    @property
    def total(self) -> int:
        return self.input + self.output


# ---------------------------------------------------------------- before the request


def most_input(model: Model, text_bytes: int, images: int) -> int:
    """Upper bound of the input tokens, whether the model takes so many or not: a token is at least
    one byte. Raises ValueError for images that have no price.
    """
    return text_bytes + model.overhead_tokens + _image_tokens(model, images)


def input_bound(model: Model, text_bytes: int, images: int) -> int:
    """Upper bound of the input tokens that are billed: beyond its context the provider refuses."""
    return min(most_input(model, text_bytes, images), model.context_tokens)


def input_estimate(model: Model, text_bytes: int, images: int) -> int:
    """For quotas of tokens, and where a provider does not tell what it has billed."""
    likely = likely_input(model, text_bytes, images)
    return max(1, min(likely, input_bound(model, text_bytes, images)))


def likely_input(model: Model, text_bytes: int, images: int) -> int:
    """Estimate the input tokens, whether the model takes so many or not."""
    return _tokens_of(text_bytes) + _image_tokens(model, images)


def worst_case(
    candidates: Sequence[Candidate],
    input_tokens: int,
    output_tokens: int,
    overruns: Mapping[str, int] = NO_OVERRUNS,
    *,
    choices: int = 1,
) -> int:
    """Return the most, in nano-USD, that so many tokens cost with whichever candidate answers.

    `overruns` says, by the name of a candidate, how much of its output must be reserved, in percent
    of the cap: see `overrun`. What a candidate may think beyond its cap comes on top, for each of
    `choices`.
    """
    return max(
        _most_for_input(each, input_tokens, overruns)
        + -(-most_output(each, output_tokens, choices) * _percent_of_a_token(each, overruns) // 100)
        for each in candidates
    )


def most_output(candidate: Candidate, output_tokens: int, choices: int) -> int:
    """Return the output that a candidate may produce under a cap, what it may think included."""
    return output_tokens + choices * candidate.thinking_tokens


def overrun(candidate: Candidate, input_tokens: int, output_tokens: int, nano_usd: int) -> int:
    """Return how much of the output cap had to be reserved, in percent, for a worst case of what an
    answer cost: 100 if the worst case was enough, at most MOST_OVERRUN. Input that was above its
    bound raises it, too. Of a candidate whose output is free it is a percentage of the input's
    bound.
    """
    for_input = input_tokens * _dearest_input(candidate)
    if not candidate.output_nano_usd:
        above, most = nano_usd, for_input
    else:
        above, most = nano_usd - for_input, output_tokens * candidate.output_nano_usd
    return min(max(100, -(-above * 100 // most)), MOST_OVERRUN) if most else 100


def affordable_output(
    candidates: Sequence[Candidate],
    input_tokens: int,
    nano_usd: int,
    overruns: Mapping[str, int] = NO_OVERRUNS,
    *,
    choices: int = 1,
) -> int:
    """Return the most output tokens whose worst case is within `nano_usd`: 0 if the input alone
    costs more, MOST_TOKENS where output costs nothing.
    """
    most = MOST_TOKENS
    for each in candidates:
        left = nano_usd - _most_for_input(each, input_tokens, overruns)
        if left < 0:
            return 0
        if each.output_nano_usd:
            fit = left * 100 // _percent_of_a_token(each, overruns)
            most = min(most, max(0, fit - choices * each.thinking_tokens))
    return most


# ---------------------------------------------------------------- after it


def read_usage(told: object) -> Usage | None:
    """A provider's usage object; None if it does not say what was billed."""
    if not isinstance(told, dict):
        return None
    prompt, completion = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    if not prompt or completion is None:  # no prompt is empty: who says so has not counted
        return None
    # Gemini and others tell the tokens of thinking, which they bill as output, in the total only.
    untold = max(0, (_count(told.get("total_tokens")) or 0) - prompt - completion)
    cached = _detail(told, "prompt_tokens_details", "cached_tokens")
    if cached is None:
        cached = _count(told.get("prompt_cache_hit_tokens"))  # DeepSeek
    reasoning = _detail(told, "completion_tokens_details", "reasoning_tokens") or 0
    output = completion + untold
    return Usage(
        input=prompt,
        cached=min(cached or 0, prompt),
        output=output,
        reasoning=min(max(reasoning, untold), output),
    )


def estimated(input_tokens: int, content_bytes: int, chunks: int, output_cap: int) -> Usage:
    """Of a provider that told no usage: what it sent, but no more than the cap it was given (of all
    choices together). A chunk is at least one token.
    """
    output = min(output_cap, max(chunks, _tokens_of(content_bytes)))
    return Usage(input=input_tokens, cached=0, output=output, reasoning=0, estimated=True)


def not_less_than(told: Usage | None, counted: Usage) -> Usage:
    """What we have counted, where a provider has told its usage before the end, or never."""
    if told is None:
        return counted
    most_input, most_output = max(counted.input, told.input), max(counted.output, told.output)
    return replace(counted, input=most_input, output=most_output)


def cost(usage: Usage, candidate: Candidate) -> int:
    """nano-USD."""
    return (
        (usage.input - usage.cached) * candidate.input_nano_usd
        + usage.cached * candidate.cached_input_nano_usd
        + usage.output * candidate.output_nano_usd
    )


def usage_object(usage: Usage, nano_usd: int, told: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `usage` that a client is shown: the provider's own and what it cost; our estimate where
    the provider told none, or none that can be read.
    """
    if told is None or usage.estimated:
        told = {
            "prompt_tokens": usage.input,
            "completion_tokens": usage.output,
            "total_tokens": usage.total,
            "estimated": True,
        }
    return {**told, "cost_usd": nano_usd / NANO}


def _most_for_input(candidate: Candidate, input_tokens: int, overruns: Mapping[str, int]) -> int:
    """nano-USD. Where output is free, only the input can have been above its bound."""
    percent = 100 if candidate.output_nano_usd else overruns.get(candidate.name, 100)
    return -(-input_tokens * _dearest_input(candidate) * percent // 100)


def _percent_of_a_token(candidate: Candidate, overruns: Mapping[str, int]) -> int:
    """nano-USD, times 100."""
    return candidate.output_nano_usd * overruns.get(candidate.name, 100)


def _dearest_input(candidate: Candidate) -> int:
    return max(candidate.input_nano_usd, candidate.cached_input_nano_usd)


def _image_tokens(model: Model, images: int) -> int:
    if not images:
        return 0
    if model.image_max_tokens is None:
        raise ValueError(f"{model.name}: images have no price")
    return images * model.image_max_tokens


def _tokens_of(text_bytes: int) -> int:
    return -(-text_bytes // BYTES_OF_A_TOKEN)


def _detail(told: Mapping[str, Any], group: str, name: str) -> int | None:
    details = told.get(group)
    return _count(details.get(name)) if isinstance(details, dict) else None


def _count(value: object) -> int | None:
    """A provider's number if it can be one: what is charged must not be what it never sent."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        return None
    return value
