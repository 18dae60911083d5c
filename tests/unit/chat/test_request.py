"""What may be asked, and what the provider is told."""

import json
from typing import Any

import pytest

from weir.chat import request
from weir.chat.request import ChatRequest, Target, check_length, understand
from weir.errors import BadRequest
from weir.projects.allowed_fields import COSTLY_FIELDS, UNPRICED_FIELDS
from weir.projects.catalogue import Candidate, Model, Upstream

UPSTREAM = Upstream("main", "openai", {"base_url": "https://api.provider.example/v1"})
CANDIDATE = Candidate(UPSTREAM, "m-large", 100, 10, 400, "max_completion_tokens")
OLDER = Candidate(UPSTREAM, "m", 100, 10, 400, "max_tokens")
TARGET = Target(1024)
ASK = [{"role": "user", "content": "hi"}]
PNG = "data:image/png;base64,iVBORw0KGgo="


def sent(request: ChatRequest, candidate: Candidate = CANDIDATE) -> dict[str, Any]:
    upstream = json.loads(request.body_for(candidate, request.output_cap))
    assert isinstance(upstream, dict)
    return upstream


def told(**body: Any) -> dict[str, Any]:
    return sent(understand({"messages": ASK, **body}, TARGET))


@pytest.mark.parametrize("asked", [..., None, "", "default", "my-alias", 7], ids=str)
def test_provider_is_told_its_own_name_of_the_model_whatever_the_caller_said(asked: Any) -> None:
    assert told(**({} if asked is ... else {"model": asked}))["model"] == "m-large"


@pytest.mark.parametrize(
    ("asked", "cap"),
    [
        ({}, 1024),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 10}, 10),
        ({"max_tokens": 20, "max_completion_tokens": 10}, 10),
        ({"max_tokens": None}, 1024),
        ({"max_tokens": 1_000_000}, 1024),
        ({"n": 4}, 256),
        ({"n": 1024}, 1),
    ],
    ids=str,
)
def test_output_is_capped_under_the_models_own_parameter(asked: dict[str, Any], cap: int) -> None:
    upstream = told(**asked)
    assert upstream["max_completion_tokens"] == cap
    assert "max_tokens" not in upstream


def test_cap_is_sent_as_max_tokens_where_the_provider_wants_it() -> None:
    upstream = sent(understand({"messages": ASK, "max_completion_tokens": 5}, TARGET), OLDER)
    assert upstream["max_tokens"] == 5
    assert "max_completion_tokens" not in upstream


@pytest.mark.parametrize("body", [{"n": 4}, {"n": 4, "max_tokens": 10}, {"n": 3}, {}], ids=str)
def test_all_choices_together_stay_within_the_models_cap(body: dict[str, Any]) -> None:
    request = understand({"messages": ASK, **body}, TARGET)
    assert request.choices == body.get("n", 1)
    assert request.output_tokens(request.output_cap) <= 1024
    assert request.output_tokens(7) == 7 * request.choices


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({}, False),
        ({"max_tokens": None}, False),
        ({"n": 2}, False),
        ({"max_tokens": 9_999}, True),
        ({"max_completion_tokens": 1}, True),
    ],
    ids=str,
)
def test_it_is_known_whether_the_caller_named_a_cap(body: dict[str, Any], asked: bool) -> None:
    assert understand({"messages": ASK, **body}, TARGET).cap_asked is asked


def test_one_request_can_be_sent_to_any_candidate_with_any_cap() -> None:
    request = understand({"messages": ASK, "model": "x", "top_p": 1, "max_tokens": 9}, TARGET)
    odd = Candidate(UPSTREAM, 'a"b\\c', 1, 1, 1, "max_tokens")
    for candidate, cap in ((CANDIDATE, 9), (OLDER, 3), (odd, 1024), (CANDIDATE, 9)):
        body = request.body_for(candidate, cap)
        assert json.loads(body) == {
            "messages": ASK,
            "top_p": 1,
            "model": candidate.model,
            candidate.output_cap_parameter: cap,
        }
        assert body.count(b'"model"') == 1


def test_what_openai_documents_passes_unchanged() -> None:
    parts = [{"type": "image_url", "image_url": {"url": PNG}}]
    passing = {
        "tools": [
            {"type": "function", "function": {"name": "f", "strict": True}},
            {"type": "custom", "custom": {"name": "pay_$", "format": {"type": "text"}}},
        ],
        "tool_choice": "auto",
        "functions": [{"name": "g"}],
        "response_format": {"type": "json_object"},
        "temperature": 0,
        "messages": [{"role": "developer", "content": parts}],
    }
    upstream = told(**passing)
    assert {name: upstream[name] for name in passing} == passing


def test_projects_instructions_come_before_the_callers_messages() -> None:
    target = Target(1024, system_prompt="Be kind. 🌊")
    upstream = sent(understand({"messages": ASK}, target))
    assert upstream["messages"] == [{"role": "system", "content": "Be kind. 🌊"}, *ASK]
    assert len(ASK) == 1


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize(
    ("content", "together"),
    [
        ("Speak French.", "Be kind.\n\nSpeak French."),
        ("", "Be kind."),
        (None, "Be kind."),
        (
            [{"type": "text", "text": "Speak French."}],
            [{"type": "text", "text": "Be kind.\n\n"}, {"type": "text", "text": "Speak French."}],
        ),
    ],
    ids=str,
)
def test_projects_instructions_and_the_callers_are_one_message(
    role: str, content: Any, together: Any
) -> None:
    mine = [{"role": role, "content": content}, *ASK, {"role": "system", "content": "late"}]
    before = json.dumps(mine)
    upstream = sent(understand({"messages": mine}, Target(1024, system_prompt="Be kind.")))
    assert upstream["messages"] == [{"role": role, "content": together}, *mine[1:]]
    assert json.dumps(mine) == before, "the caller's own is not changed"


IMAGE = {"type": "image_url", "image_url": {"url": PNG}}
TEXT = {"role": "user", "content": [{"type": "text", "text": "hi"}]}


def test_image_is_refused_where_it_has_no_price() -> None:
    pictured = {"messages": [TEXT, {"role": "user", "content": [IMAGE]}]}
    assert understand(pictured, TARGET).images == 1
    with pytest.raises(BadRequest, match="takes no images") as refused:
        understand(pictured, Target(1024, images=False))
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "video_url", "video_url": {"url": "https://x.example/a.mp4"}},
        {"image_url": "https://x.example/a.png"},
        "text",
        None,
    ],
    ids=str,
)
def test_content_whose_price_nobody_knows_is_refused(part: object) -> None:
    with pytest.raises(BadRequest, match="takes no content of type"):
        understand({"messages": [TEXT, {"role": "user", "content": [part]}]}, TARGET)


@pytest.mark.parametrize("content", [{"type": "input_audio"}, IMAGE, 7, True], ids=str)
def test_content_is_text_or_a_list_of_parts(content: object) -> None:
    with pytest.raises(BadRequest, match="a string or a list of parts"):
        understand({"messages": [{"role": "user", "content": content}]}, TARGET)


@pytest.mark.parametrize("image", [None, "https://x.example/a.png", {}, {"url": 7}, []], ids=str)
def test_image_without_an_address_is_refused(image: object) -> None:
    part = {"type": "image_url", "image_url": image}
    with pytest.raises(BadRequest, match="an object with a url") as refused:
        understand({"messages": [{"role": "user", "content": [part]}]}, TARGET)
    assert refused.value.param == "messages"


def pictured(url: str, times: int = 1) -> ChatRequest:
    part = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    return understand({"messages": [TEXT, {"role": "user", "content": [part] * times}]}, TARGET)


def test_images_count_apart_from_the_text_whatever_their_size() -> None:
    small, large = pictured(PNG, 3), pictured(PNG[:-1] + "A" * 100_000, 3)
    assert small.images == large.images == 3
    assert small.text_bytes == large.text_bytes == len(small.common) - 3 * len(PNG)
    assert json.loads(large.common)["messages"][1]["content"][2]["image_url"]["detail"] == "low"


@pytest.mark.parametrize("more", ['"' * 50, "ü" * 50])
def test_what_an_address_needs_beyond_its_characters_counts_as_text(more: str) -> None:
    address = "https://x.example/"
    assert pictured(address + more).text_bytes > pictured(address).text_bytes


def test_address_outside_an_image_goes_nowhere() -> None:
    long = {"url": "https://x.example/" + "a" * 1000}
    for body in (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "", "image_url": long}]}
            ]
        },
        {"messages": ASK, "image_url": long},
        {"messages": [{**ASK[0], "image_url": long}]},
    ):
        request = understand(body, TARGET)
        assert (request.images, request.text_bytes) == (0, len(request.common))
        assert b"x.example" not in request.common


def test_text_is_counted_in_the_bytes_that_are_sent() -> None:
    plain = understand({"messages": [{"role": "user", "content": ""}]}, TARGET).text_bytes
    for text, size in (("hi", 2), ("ü", 2), ("🌊", 4), ("\n", 2), ("\ud83c", 6)):
        request = understand({"messages": [{"role": "user", "content": text}]}, TARGET)
        assert request.text_bytes - plain == size, text
        assert sent(request)["messages"][0]["content"] == text
    prompted = understand({"messages": ASK}, Target(1024, system_prompt="Be kind." * 100))
    assert prompted.text_bytes == len(prompted.common) > 800


def model(*, most: int | None, context: int = 1_000_000, image: int | None = 100) -> Model:
    return Model("m", (), (CANDIDATE,), context, 1024, 50, image, most, False, 0)


def sized(text_bytes: int, images: int = 0) -> ChatRequest:
    return ChatRequest(False, False, b"{}", text_bytes, images)


@pytest.mark.parametrize(
    ("most", "context", "text_bytes", "images"),
    [
        (2_000, 1_000_000, 1_950, 0),  # and 50 tokens of overhead
        (2_000, 2_000, 1_950, 0),
        (2_000, 1_000_000, 1_750, 2),
    ],
)
def test_request_at_the_limit_of_its_length_passes_and_one_byte_more_does_not(
    most: int, context: int, text_bytes: int, images: int
) -> None:
    check_length(model(most=most, context=context), sized(text_bytes, images))
    with pytest.raises(BadRequest) as refused:
        check_length(model(most=most, context=context), sized(text_bytes + 1, images))
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")


def test_what_is_too_long_for_the_model_is_left_to_its_provider() -> None:
    check_length(model(most=None, context=2_000), sized(10_000_000))


def test_refusal_of_what_would_be_dearer_says_how_much_fits() -> None:
    with pytest.raises(BadRequest, match=r"has 2,500 bytes of text; at most 1,950 fit, because"):
        check_length(model(most=2_000), sized(2_500))
    with pytest.raises(BadRequest, match=r"at most 1,850 fit beside its images.* beyond 2,000"):
        check_length(model(most=2_000), sized(2_500, 1))
    with pytest.raises(BadRequest, match="at most 0 fit beside its images"):
        check_length(model(most=2_000), sized(10, 99))


@pytest.mark.parametrize("field", sorted(COSTLY_FIELDS - UNPRICED_FIELDS))
def test_field_that_could_cost_more_than_the_cap_is_dropped_and_named(field: str) -> None:
    request = understand({"messages": ASK, field: 99}, TARGET)
    assert field not in sent(request)
    assert request.dropped == (field,)


@pytest.mark.parametrize("field", sorted(UNPRICED_FIELDS))
def test_what_has_no_known_price_is_refused_for_good(field: str) -> None:
    with pytest.raises(BadRequest, match="No setting allows it") as refused:
        told(**{field: 99})
    assert refused.value.param == field
    assert field not in told(**{field: False})


FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("tools", [FUNCTION, {"type": "web_search"}]),
        ("tools", [{"type": "builtin_function", "function": {"name": "f"}}]),
        ("tools", [{"function": {"name": "f"}}]),
        ("tools", [{"type": ["function"]}]),
        ("tools", ["web_search"]),
        ("tools", {"type": "web_search"}),
        ("tools", "web_search"),
        ("tools", [{"type": "function", "function": {"name": "$web_search"}}]),
        ("tools", [{"type": "function", "name": "$web_search"}]),
        ("tools", [{"type": "custom", "custom": {"name": "$web_search"}}]),
        ("functions", [{"name": "f"}, {"name": "$web_search"}]),
        ("functions", {"name": "$web_search"}),
    ],
    ids=str,
)
def test_tool_that_the_provider_runs_itself_is_refused(param: str, value: object) -> None:
    with pytest.raises(BadRequest) as refused:
        told(**{param: value})
    assert refused.value.param == param


def test_no_tools_at_all_may_be_said_as_null_or_as_an_empty_list() -> None:
    assert told(tools=None, functions=[])["functions"] == []


MARK = {"cache_control": {"type": "ephemeral"}}


def test_marks_that_have_a_cache_written_are_removed_wherever_a_provider_looks() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    marked = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", **MARK}], **MARK},
            {
                "role": "assistant",
                "tool_calls": [{**call, **MARK, "function": {**call["function"], **MARK}}],  # type: ignore[dict-item]
            },
        ],
        "tools": [{"type": "function", "function": {"name": "f", **MARK}, **MARK}],
        "functions": [{"name": "g", **MARK}],
    }
    before = json.dumps(marked)
    upstream = told(**marked)
    assert "cache_control" not in json.dumps(upstream)
    assert upstream["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "tool_calls": [call]},
    ]
    assert (upstream["tools"], upstream["functions"]) == ([FUNCTION], [{"name": "g"}])
    assert json.dumps(marked) == before, "the caller's own is not changed"


def test_what_is_only_called_like_such_a_mark_stays() -> None:
    schema = {"type": "object", "properties": {"cache_control": {"type": "string"}}}
    body = {
        "messages": [{"role": "user", "content": 'Say {"cache_control":1}.'}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
    }
    upstream = told(**body)
    assert {name: upstream[name] for name in body} == body


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (None, False),
        ({}, False),
        ({"include_usage": False}, False),
        ({"include_usage": True}, True),
    ],
)
def test_usage_is_always_asked_for_on_a_stream(options: Any, wanted: bool) -> None:
    body = {"messages": ASK, "stream": True, "stream_options": options}
    request = understand(body, TARGET)
    assert sent(request)["stream_options"]["include_usage"] is True
    assert (request.stream, request.usage_wanted) == (True, wanted)


def test_other_stream_options_pass() -> None:
    assert told(stream=True, stream_options={"include_obfuscation": False})["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"n": 0}, "n"),
        ({"n": 1025}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    ],
    ids=str,
)
def test_bad_field_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        understand({"messages": ASK, **body}, TARGET)
    assert refused.value.param == param


def test_caller_may_choose_the_completions_id() -> None:
    assert request.completion_id("my-id_1", "00ff") == "my-id_1"
    assert request.completion_id(None, "00ff") == "chatcmpl-00ff"
    for bad in ("a b", "x" * 129, "ü", "a/b"):
        with pytest.raises(BadRequest):
            request.completion_id(bad, "00ff")
