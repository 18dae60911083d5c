"""What a provider needs back: its first answer, as a client has seen it, goes into the second
request, and arrives with what that provider takes, and nothing that it would refuse.
"""

import json
from typing import Any

import pytest

from weir.chat.masking import NOTHING_MASKED
from weir.chat.normaliser import Normaliser
from weir.chat.outcome import Outcome
from weir.chat.request import ChatRequest, Target, understand
from weir.projects.catalogue import Candidate, Upstream
from weir.projects.extras import BY_HOST
from weir.projects.upstream_kinds import KINDS

SIGNATURE = {"google": {"thought_signature": "c2lnbmF0dXJl"}}
DETAILS = [{"type": "reasoning.encrypted", "data": "ZGF0YQ==", "index": 0}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def upstream(address: str, kind: str = "openai") -> Upstream:
    return Upstream(
        f"{kind}-{address}", kind, {"base_url": f"https://{address}"} if address else {}
    )


def answered(message: dict[str, Any]) -> dict[str, Any]:
    """The message as the caller sees it."""
    normaliser = Normaliser("chatcmpl-0", 0, 1, NOTHING_MASKED, Outcome())
    answer = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    said = normaliser.completion(answer)["choices"][0]["message"]
    assert isinstance(said, dict)
    return said


def second_turn(said: dict[str, Any], *upstreams: Upstream) -> ChatRequest:
    turns = [
        {"role": "user", "content": "hi"},
        said,
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    return understand({"messages": turns, "tools": TOOLS}, Target(1024, upstreams=upstreams))


def arriving(request: ChatRequest, to: Upstream) -> dict[str, Any]:
    """The assistant's message of the first turn, as this provider gets it."""
    told = json.loads(request.body_for(Candidate(to, "m", 1, 1, 1, "max_tokens"), 9))
    message = told["messages"][1]
    assert isinstance(message, dict)
    return message


ANSWER = {"role": "assistant", "content": None, "tool_calls": [CALL]}
# Address, kind; what the provider says beside ANSWER; what of it arrives.
TURNS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("", "bedrock", {"reasoning_content": "hm"}, {}),
    ("x.openai.azure.com", "azure", {"reasoning_content": "hm"}, {}),
    ("api.openai.com/v1", "openai", {"annotations": [], "reasoning_content": "hm"}, {}),
    (
        "generativelanguage.googleapis.com/v1beta/openai",
        "openai",
        {"extra_content": SIGNATURE, "tool_calls": [{**CALL, "extra_content": SIGNATURE}]},
        {"extra_content": SIGNATURE, "tool_calls": [{**CALL, "extra_content": SIGNATURE}]},
    ),
    ("api.deepseek.com", "openai", {"reasoning_content": "hm"}, {"reasoning_content": "hm"}),
    ("api.groq.com/openai/v1", "openai", {"reasoning": "hm"}, {}),
    (
        "openrouter.ai/api/v1",
        "openai",
        {"reasoning": "hm", "reasoning_details": DETAILS},
        {"reasoning": "hm", "reasoning_details": DETAILS},
    ),
    # Its thinking reaches the caller as reasoning_content, which it would refuse.
    (
        "api.mistral.ai/v1",
        "openai",
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "I call f."},
            ]
        },
        {"content": "I call f."},
    ),
    (
        "vllm.example:8000/v1",
        "openai",
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm"},
    ),
]


def test_every_kind_and_every_known_host_has_its_two_turns() -> None:
    addressed = {name for name, kind in KINDS.items() if not kind.in_process}
    assert {kind for _, kind, _, _ in TURNS} == addressed
    assert {address.partition("/")[0] for address, *_ in TURNS} >= BY_HOST.keys()


@pytest.mark.parametrize(("address", "kind", "beside", "arrives"), TURNS, ids=str)
def test_second_turn_brings_back_what_the_provider_takes(
    address: str, kind: str, beside: dict[str, Any], arrives: dict[str, Any]
) -> None:
    to = upstream(address, kind)
    request = second_turn(answered({**ANSWER, **beside}), to)
    assert arriving(request, to) == {**ANSWER, **arrives}


def test_fallback_of_another_kind_gets_what_it_takes_itself() -> None:
    gemini, openai = upstream("generativelanguage.googleapis.com"), upstream("api.openai.com")
    ours = upstream("vllm.example")
    said = {**ANSWER, "extra_content": SIGNATURE, "reasoning_content": "hm" * 500, "x": 1}
    for order in ((gemini, openai, ours), (openai, ours, gemini)):
        request = second_turn(said, *order)
        assert arriving(request, openai) == ANSWER
        assert arriving(request, gemini) == {**ANSWER, "extra_content": SIGNATURE}
        assert arriving(request, ours) == {n: v for n, v in said.items() if n != "x"}
        # The bound holds for whichever answers, and only what none of them gets is named.
        assert request.text_bytes == max(map(len, request.by_history.values()))
        assert request.text_bytes > 1000
        assert request.dropped == ("messages.x",)


def test_history_that_no_provider_takes_is_named() -> None:
    said = {**ANSWER, "reasoning_content": "hm"}
    request = second_turn(said, upstream("api.openai.com"), upstream("api.mistral.ai"))
    assert request.dropped == ("messages.reasoning_content",)
    assert request.text_bytes == len(request.common)


THINKING: dict[str, Any] = {
    "type": "thinking",
    "thinking": [{"type": "text", "text": "hm"}],
    "closed": True,
}
TEXT = {"type": "text", "text": "I call f."}


def test_thinking_part_goes_back_to_who_takes_it_and_is_left_out_for_others() -> None:
    mistral, openai = upstream("api.mistral.ai"), upstream("api.openai.com")
    both = {**ANSWER, "content": [{**THINKING, "x": 1}, TEXT]}
    request = second_turn(both, openai, mistral)
    assert arriving(request, mistral)["content"] == [THINKING, TEXT]
    assert arriving(request, openai)["content"] == [TEXT]
    alone = second_turn({**ANSWER, "content": [THINKING]}, openai)
    assert arriving(alone, openai)["content"] == ""
    signed = {"type": "thinking", "thinking": "hm", "signature": "s"}
    request = second_turn({**ANSWER, "content": [signed]}, mistral)
    assert arriving(request, mistral)["content"] == [signed]


def test_thinking_part_carries_text_and_nothing_else() -> None:
    image = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
    part = {**THINKING, "thinking": [image, *THINKING["thinking"]]}
    to = upstream("api.mistral.ai")
    request = second_turn({**ANSWER, "content": [part]}, to)
    assert arriving(request, to)["content"] == [THINKING]


@pytest.mark.parametrize(
    "member",
    [
        {"reasoning_content": {"type": "image_url"}},
        {"reasoning": ["x"]},
        {"extra_content": "x"},
        {"reasoning_details": "x"},
    ],
    ids=str,
)
def test_history_of_another_type_is_dropped(member: dict[str, Any]) -> None:
    to = upstream("vllm.example")
    request = second_turn({**ANSWER, **member}, to)
    assert arriving(request, to) == ANSWER
    assert request.dropped == (f"messages.{next(iter(member))}",)
