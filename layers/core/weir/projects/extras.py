"""What a provider takes beyond OpenAI's documented chat completion request.

Fields of the request that only some providers know, and members of an assistant's message that a
provider returns and needs, or at least accepts, in the next turn's history. A host that is not in
`BY_HOST` gets all of the history: it is most likely a server of the operator's own (vLLM,
llama.cpp, Ollama), and these ignore what they do not know.
"""

from typing import NamedTuple

# How tokens are sampled. None changes how many there are, or what one costs.
SAMPLING = frozenset({"top_k", "min_p", "repetition_penalty"})

# Of an assistant's message, and `extra_content` of its tool calls, too. `thinking` stands for parts
# of that type in the content.
HISTORY = frozenset(
    {"extra_content", "reasoning", "reasoning_content", "reasoning_details", "thinking"}
)


class Extras(NamedTuple):
    """`fields` of the request; `history`: members of messages, of HISTORY. `identity`: the provider
    knows `safety_identifier` and `store`.
    """

    fields: frozenset[str] = frozenset()
    history: frozenset[str] = frozenset()
    identity: bool = False


NO_EXTRAS = Extras()
ANY_SERVER = Extras(SAMPLING, HISTORY)

# By the host of a base URL: the providers that are known to refuse what they do not know, or that
# know more than most.
BY_HOST = {
    "api.openai.com": Extras(identity=True),
    # Thought signatures.
    "generativelanguage.googleapis.com": Extras(history=frozenset({"extra_content"})),
    "api.mistral.ai": Extras(history=frozenset({"thinking"})),
    "api.deepseek.com": Extras(history=frozenset({"reasoning_content"})),
    # It takes `reasoning`, but only for some of its models, and refuses it for the others.
    "api.groq.com": NO_EXTRAS,
    "openrouter.ai": Extras(
        SAMPLING | {"include_reasoning", "structured_outputs", "top_a"},
        frozenset({"reasoning", "reasoning_content", "reasoning_details"}),
    ),
}


def of_host(base_url: str) -> Extras:
    """Return what is known of the provider at this address."""
    host = base_url.partition("://")[2].partition("/")[0].partition(":")[0].lower()
    return BY_HOST.get(host, ANY_SERVER)
