"""Which fields and members of a chat request are passed on, dropped or refused."""

import json
from typing import Any

import pytest

from weir.chat import fields
from weir.chat.fields import CHECKED, CONSTRAINTS, listed
from weir.chat.request import ChatRequest, Target, understand
from weir.errors import BadRequest
from weir.projects.allowed_fields import NEVER_ALLOWED, allowed_fields
from weir.projects.catalogue import Candidate, Upstream
from weir.projects.extras import SAMPLING

ASK = [{"role": "user", "content": "hi"}]


def upstream(host: str = "models.example", *allowed: str, kind: str = "openai") -> Upstream:
    base_url = {"base_url": f"https://{host}/v1"}
    return Upstream(host, kind, base_url, allowed_fields({"allowed_fields": allowed}))


OURS, OPENAI = upstream(), upstream("api.openai.com")


def asked(body: dict[str, Any], *upstreams: Upstream, allowed: frozenset[str] = frozenset()) -> Any:
    target = Target(1024, upstreams=upstreams, allowed_fields=allowed, safety_identifier="5afe")
    return understand({"messages": ASK, **body}, target)


def sent(request: ChatRequest, to: Upstream = OURS) -> dict[str, Any]:
    body = request.body_for(Candidate(to, "m", 1, 1, 1, "max_tokens"), 9)
    upstream = json.loads(body)
    assert isinstance(upstream, dict)
    return upstream


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "$defs": {}}
# What the published SDKs send: openai (Python and JS), the AI SDK, LangChain.
ORDINARY: dict[str, list[Any]] = {
    "temperature": [0, 0.7, 2],
    "top_p": [0, 1, 0.5],
    "frequency_penalty": [-2, 0.1],
    "presence_penalty": [2.0],
    "stop": ["END", ["a", "b"], [], ["x"] * 16],
    "seed": [0, -1, 2**63 - 1],
    "logit_bias": [{}, {"50256": -100, "1": 1.5}],
    "logprobs": [True, False],
    "top_logprobs": [0, 20],
    "response_format": [
        {"type": "text"},
        {"type": "json_object"},
        {
            "type": "json_schema",
            "json_schema": {"name": "n", "description": "d", "schema": SCHEMA, "strict": True},
        },
        {"type": "json_schema", "json_schema": {"name": "n"}},
    ],
    "tools": [
        [],
        [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": SCHEMA,
                    "strict": False,
                },
            },
            {
                "type": "custom",
                "custom": {"name": "c", "description": "d", "format": {"type": "text"}},
            },
        ],
    ],
    "tool_choice": [
        "none",
        "auto",
        "required",
        "any",
        {"type": "function", "function": {"name": "f"}},
        {"type": "custom", "custom": {"name": "c"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        },
    ],
    "parallel_tool_calls": [True, False],
    "functions": [[{"name": "f", "description": "d", "parameters": SCHEMA}]],
    "function_call": ["none", "auto", {"name": "f"}],
    "reasoning_effort": ["none", "minimal", "low", "medium", "high", "xhigh", "max", "default"],
    "verbosity": ["low", "medium", "high"],
}
WRONG: dict[str, list[Any]] = {
    "temperature": [-0.1, 2.1, "1", True, [], 10**400],
    "top_p": [-0.1, 1.1, "1"],
    "frequency_penalty": [-2.1, 2.1, False],
    "presence_penalty": [-3, 3, {}],
    "stop": [7, [7], {"a": 1}, ["x"] * 17, True, [None]],
    "seed": [1.5, "1", True, 2**63, -(2**63) - 1],
    "logit_bias": [[], {"1": 101}, {"1": -101}, {"1": "1"}, {"1": None}, {"1": True}, 7],
    "logprobs": [5, "true", 1],
    "top_logprobs": [-1, 21, 1.0, True],
    "response_format": [
        "json",
        {},
        {"type": "grammar", "grammar": "x"},
        {"type": ["text"]},
        {"type": "json_object", "schema": SCHEMA},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": []},
        {"type": "json_schema", "json_schema": {"schema": "x"}},
        {"type": "json_schema", "json_schema": {"strict": 1}},
    ],
    "tools": [
        [{"type": "function"}],
        [{"type": "function", "function": {}}],
        [{"type": "function", "name": "f", "parameters": SCHEMA}],
        [{"type": "function", "function": {"name": 7}}],
        [{"type": "function", "function": {"name": "f", "parameters": "x"}}],
        [{"type": "function", "function": {"name": "f", "strict": "yes"}}],
    ],
    "tool_choice": [
        "always",
        7,
        [],
        {},
        {"type": "web_search"},
        {"type": "function"},
        {"type": "function", "function": {"name": "$web_search"}},
        {"type": "allowed_tools"},
        {"type": "allowed_tools", "allowed_tools": {"mode": "x", "tools": []}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp"}]}},
    ],
    "parallel_tool_calls": [1, "true"],
    "functions": [{}, [{"name": 7}], [{}]],
    "function_call": ["required", 7, {}, {"name": "$web_search"}],
    "reasoning_effort": ["", "x" * 33, 7, {"effort": "low"}, "LOW!"],
    "verbosity": [1, ["low"]],
    "stream_options": [{"include_usage": 1}, {"include_obfuscation": "no"}],
}


def test_every_field_has_its_cases() -> None:
    assert ORDINARY.keys() == CHECKED.keys()
    assert WRONG.keys() == {*CHECKED, "stream_options"}


@pytest.mark.parametrize(
    ("name", "value"), [(n, value) for n, values in ORDINARY.items() for value in values], ids=str
)
def test_documented_field_is_passed_on_as_it_is(name: str, value: Any) -> None:
    for to in (OURS, OPENAI):
        request = asked({name: value}, to)
        assert sent(request, to)[name] == value
        assert request.dropped == ()


@pytest.mark.parametrize(
    ("name", "value"), [(n, value) for n, values in WRONG.items() for value in values], ids=str
)
def test_field_of_another_type_or_out_of_its_range_is_refused_by_name(
    name: str, value: Any
) -> None:
    with pytest.raises(BadRequest) as refused:
        asked({name: value, "stream": True}, OURS)
    assert refused.value.param == name


@pytest.mark.parametrize("name", [*CHECKED, "n", "stream", "max_tokens", "web_search_options", "x"])
def test_null_is_as_good_as_absent(name: str) -> None:
    request = asked({name: None}, OURS)
    assert sent(request) == sent(asked({}, OURS))
    assert request.dropped == ()


HARMLESS = {
    "metadata": {"a": "b"},
    "store": True,
    "user": "u-1",
    "safety_identifier": "mine",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "service_tier": "auto",
    "modalities": ["text"],
    "session_id": "s",
    "token": "t",
    "user_id": "u",
    "tier": "pro",
    "signal": {},
    "headers": {"a": "b"},
    "something_new": {"deep": [1, None, "ü"]},
    "priority": -100,
    "deferred": True,
    "id_slot": 0,
    "chat_template": "{{ x }}",
    "kv_transfer_params": {"remote_host": "10.0.0.1"},
}


def test_what_is_harmless_to_lose_is_dropped_and_named() -> None:
    request = asked(HARMLESS, OURS)
    assert request.dropped == tuple(HARMLESS)
    assert sent(request) == sent(asked({}, OURS))


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_constraint_that_would_be_lost_is_refused_with_the_setting_that_allows_it(
    name: str,
) -> None:
    with pytest.raises(BadRequest, match=f"allowed_fields with {name}") as refused:
        asked({name: {"type": "object"}}, OURS)
    assert refused.value.param == name
    allowed = frozenset({name})
    for request in (
        asked({name: {"type": "object"}}, OURS, OPENAI, allowed=allowed),
        asked({name: {"type": "object"}}, upstream("a", name), upstream("b", name, "other")),
    ):
        assert sent(request)[name] == {"type": "object"}


def test_constraint_that_one_fallback_does_not_know_is_refused() -> None:
    with pytest.raises(BadRequest):
        asked({"guided_regex": "a+"}, upstream("a", "guided_regex"), OURS)


@pytest.mark.parametrize("name", sorted(SAMPLING))
def test_sampling_beyond_openai_goes_where_every_upstream_takes_it(name: str) -> None:
    assert sent(asked({name: 1}, OURS))[name] == 1
    for upstreams in ((OPENAI,), (OURS, OPENAI), ()):
        request = asked({name: 1}, *upstreams)
        assert name not in sent(request)
        assert request.dropped == (name,)
    with pytest.raises(BadRequest) as refused:
        asked({name: {"a": 1}}, OURS)
    assert refused.value.param == name


def test_operator_may_allow_what_is_checked_otherwise() -> None:
    odd = {"response_format": {"type": "grammar"}, "temperature": 3, "logit_bias": []}
    request = asked(odd, OURS, allowed=frozenset(odd))
    assert {name: sent(request)[name] for name in odd} == odd


@pytest.mark.parametrize("name", sorted(NEVER_ALLOWED))
def test_name_that_nobody_may_allow_is_ignored_where_it_is_stored(name: str) -> None:
    assert allowed_fields({"allowed_fields": [name, "mirostat"]}) == {"mirostat"}


def test_user_is_named_by_us_and_only_to_openai_itself() -> None:
    mine = {"user": "u-1", "safety_identifier": "mine", "store": True}
    azure = upstream("x.openai.azure.com", kind="azure")
    request = asked(mine, OPENAI, azure, OURS)
    told = sent(request, OPENAI)
    assert (told["safety_identifier"], told["store"]) == ("5afe", False)
    for other in (azure, OURS, upstream("api.openai.com.evil.example")):
        assert not sent(request, other).keys() & mine.keys()
    assert "user" not in told


def test_stream_options_are_ours_but_for_what_changes_only_the_frames() -> None:
    options = {"include_usage": False, "include_obfuscation": False, "continuous_usage_stats": True}
    request = asked({"stream": True, "stream_options": options}, OURS)
    assert sent(request)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert request.dropped == ("stream_options.continuous_usage_stats",)
    assert "stream_options" not in sent(asked({"stream_options": options}, OURS))


def test_members_beside_a_tools_description_are_dropped_and_named() -> None:
    tool = {"type": "function", "function": {"name": "f", "x_run": True}, "server_url": "x"}
    chosen = {"type": "function", "function": {"name": "f"}, "id": "x"}
    request = asked({"tools": [tool], "tool_choice": chosen}, OURS)
    assert sent(request)["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert sent(request)["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert request.dropped == ("tools.server_url", "tools.x_run", "tool_choice.id")


# ---------------------------------------------------------------- messages

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CUSTOM_CALL = {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "a", "name": "n"},
        {"role": "developer", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": "a", "name": "ann"},
        {"role": "assistant", "content": "a", "refusal": "no"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL, CUSTOM_CALL]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "function_call": CALL["function"]},
        {"role": "tool", "content": "a", "tool_call_id": "c1"},
        {"role": "tool", "content": [{"type": "text", "text": "a"}], "tool_call_id": "c1"},
        {"role": "function", "content": "a", "name": "f"},
    ],
    ids=str,
)
def test_documented_message_is_passed_on_as_it_is(message: dict[str, Any]) -> None:
    request = asked({"messages": [message]}, OPENAI)
    assert sent(request, OPENAI)["messages"] == [message]
    assert request.dropped == ()


def test_message_that_an_sdk_dumps_whole_loses_only_what_is_not_a_members() -> None:
    dumped = {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": [{**CALL, "index": 0}],
    }
    request = asked({"messages": [dumped]}, OPENAI)
    (told,) = sent(request, OPENAI)["messages"]
    assert told == {"role": "assistant", "content": "a", "tool_calls": [CALL]}
    assert request.dropped == ("messages.annotations", "messages.tool_calls.index")


@pytest.mark.parametrize(
    "message",
    [
        {"content": "a"},
        {"role": "root", "content": "a"},
        {"role": ["user"], "content": "a"},
        {"role": "user", "content": "a", "name": 7},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "user", "content": [{"type": "text", "text": {"a": 1}}]},
        {"role": "user", "content": [{"type": "thinking", "thinking": "x"}]},
        {"role": "assistant", "content": "a", "refusal": {}},
        {"role": "assistant", "tool_calls": "x"},
        {"role": "assistant", "tool_calls": ["x"]},
        {"role": "assistant", "tool_calls": [{**CALL, "type": "web_search"}]},
        {"role": "assistant", "tool_calls": [{**CALL, "id": 7}]},
        {"role": "assistant", "tool_calls": [{**CALL, "function": "f"}]},
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]},
        {"role": "assistant", "function_call": "f"},
        {"role": "tool", "content": "a", "tool_call_id": 7},
    ],
    ids=str,
)
def test_message_of_another_form_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        asked({"messages": [*ASK, message]}, OURS)
    assert refused.value.param == "messages"


def test_members_that_are_no_content_are_dropped_from_messages() -> None:
    image = {"url": "https://pics.example/a.png", "fps": 2}
    told = [
        {"role": "user", "content": "a", "prefix": True, "tool_calls": [CALL], "weight": 0},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "path": "/etc/passwd"},
                {"type": "image_url", "image_url": image, "uuid": "u"},
            ],
        },
        {"role": "user", "content": "a", "reasoning_content": "x" * 99},
    ]
    request = asked({"messages": told}, OURS)
    assert sent(request)["messages"] == [
        {"role": "user", "content": "a"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "https://pics.example/a.png"}},
            ],
        },
        {"role": "user", "content": "a"},
    ]
    assert request.dropped == (
        "messages.prefix",
        "messages.tool_calls",
        "messages.weight",
        "messages.content.path",
        "messages.content.uuid",
        "messages.content.image_url.fps",
        "messages.reasoning_content",
    )


# ---------------------------------------------------------------- X-Weir-Dropped


def test_header_lists_twenty_names_and_counts_the_others() -> None:
    assert listed([]) == ""
    assert listed(["user", "messages.name"]) == "user, messages.name"
    assert listed(f"f{n}" for n in range(23)).endswith("f18, f19, +3")
    odd = ["a b", "a,b", "ü", "a\r\nSet-Cookie: x", "", "x" * 65, "\ud83c", "x" * 64]
    assert listed(odd) == f"{'x' * 64}, +7"
    assert listed(["ü"]) == "+1"
    assert fields.MOST_NAMED == 20
