"""Fields of a chat request that an operator may allow by name (`allowed_fields`), and those that
nobody can, because the money of a request would no longer be bounded.

An operator allows a field for a project, a model or an upstream. The rule is the same for all
three, and it is applied again when a request is read: a name that a later release adds to the list
here is not passed on, whatever an earlier release has stored.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# Names under which providers take a bound for what a model thinks (`thinking_cap` of a candidate).
THINKING_PARAMETERS = (
    "thinking_budget",
    "max_thinking_tokens",
    "max_reasoning_tokens",
    "reasoning_budget",
)

# Of these Weir itself decides what a provider gets, or checks each member because of its price.
OWN_FIELDS = frozenset(
    {
        "messages",
        "model",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "user",
        "safety_identifier",
        "store",
        # Names of a bound on what a model thinks, which is a part of what is reserved.
        *THINKING_PARAMETERS,
    }
)

# With these some provider does what has no known price: it adds to the input or searches the web,
# answers with sound, or predicts output that is billed although it is thrown away.
UNPRICED_FIELDS = frozenset(
    {
        "audio",
        "cached_content",
        "compound_custom",
        "data_sources",
        "enable_search",
        "mcp_servers",
        "modalities",
        "plugins",
        "prediction",
        "search_options",
        "search_parameters",
        "search_settings",
        "web_search",
        "web_search_options",
    }
)

# With these some provider produces more, or more expensive, output than the cap that Weir sends:
# other names of the cap or of `n`, other models or hosts, faster service, more tokens for an image,
# templates that repeat text, and objects within which any of these may be set.
COSTLY_FIELDS = UNPRICED_FIELDS | frozenset(
    {
        "best_of",
        "cache_control",
        "candidate_count",
        "chat_template",
        "extra_body",
        "fallbacks",
        "generation_config",
        "ignore_eos",
        "inference_geo",
        "kv_transfer_params",
        "logits_processors",
        "max_gen_len",
        "max_length",
        "max_new_tokens",
        "max_output_tokens",
        "max_tokens_to_sample",
        "min_tokens",
        "mm_processor_kwargs",
        "models",
        "n_predict",
        "num_predict",
        "num_return_sequences",
        "options",
        "preset",
        "provider",
        "route",
        "safety_model",
        "service_tier",
        "speed",
        "use_beam_search",
    }
)

NEVER_ALLOWED = OWN_FIELDS | COSTLY_FIELDS
MOST_ALLOWED_FIELDS = 50


def allowed_fields(document: Mapping[str, Any]) -> frozenset[str]:
    """Return the names that a stored project, model or upstream allows."""
    names = document.get("allowed_fields")
    return frozenset(names).difference(NEVER_ALLOWED) if names else frozenset()


def reason_not_allowed(names: Iterable[str]) -> str | None:
    """Say why an operator cannot allow one of these names; None if they can allow all of them."""
    for name in names:
        if name in OWN_FIELDS:
            return f"{name}: Weir itself decides what the provider gets as {name}"
        if name in COSTLY_FIELDS:
            return (
                f"{name}: cannot be allowed, because a request that has it may cost more than "
                "is held for it"
            )
    return None
