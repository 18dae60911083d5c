"""What may be asked, what the provider is told, and what his failures are to the caller."""

import json
from typing import Any

import pytest

from weir import chat
from weir.chat import Target, understand
from weir.errors import BadRequest

TARGET = Target("m-large", "max_completion_tokens", 1024)
ASK = [{"role": "user", "content": "hi"}]


def told(**body: Any) -> dict[str, Any]:
    upstream = json.loads(understand({"messages": ASK, **body}, TARGET).upstream_body)
    assert isinstance(upstream, dict)
    return upstream


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
    body = {"messages": ASK, "max_completion_tokens": 5}
    upstream = json.loads(understand(body, Target("m", "max_tokens", 1024)).upstream_body)
    assert upstream["max_tokens"] == 5
    assert "max_completion_tokens" not in upstream


def test_tools_images_and_unknown_fields_pass_and_strays_do_not() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    passing = {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "temperature": 0,
        "something_new": {"deep": [1, None, "ü"]},
        "messages": [{"role": "developer", "content": parts}],
    }
    upstream = told(**passing, **dict.fromkeys(chat.STRAY_FIELDS, "x"))
    assert {name: upstream[name] for name in passing} == passing
    assert not set(chat.STRAY_FIELDS) & set(upstream)


def test_projects_instructions_come_before_the_callers() -> None:
    mine = [{"role": "system", "content": "Speak French."}, *ASK]
    target = Target("m", "max_tokens", 1024, system_prompt="Be kind. 🌊")
    upstream = json.loads(understand({"messages": mine}, target).upstream_body)
    assert upstream["messages"] == [{"role": "system", "content": "Be kind. 🌊"}, *mine]
    assert len(mine) == 2


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


TEXT = {"role": "user", "content": [{"type": "text", "text": "hi"}]}


def test_image_is_refused_where_it_has_no_price() -> None:
    pictured = {"messages": [TEXT, {"role": "user", "content": [IMAGE]}]}
    assert understand(pictured, Target("m", "max_tokens", 1024))
    with pytest.raises(BadRequest, match="takes no images") as refused:
        understand(pictured, Target("m", "max_tokens", 1024, images=False))
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
        understand(
            {"messages": [TEXT, {"role": "user", "content": [part]}]},
            Target("m", "max_tokens", 1024),
        )


@pytest.mark.parametrize("field", sorted(chat.COSTLY_FIELDS))
def test_field_that_could_cost_more_than_the_cap_is_dropped(field: str) -> None:
    assert field not in told(**{field: 99})


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
    assert json.loads(request.upstream_body)["stream_options"]["include_usage"] is True
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
    assert chat.completion_id("my-id_1", "00ff") == "my-id_1"
    assert chat.completion_id(None, "00ff") == "chatcmpl-00ff"
    for bad in ("a b", "x" * 129, "ü", "a/b"):
        with pytest.raises(BadRequest):
            chat.completion_id(bad, "00ff")


def error(**parts: Any) -> bytes:
    return json.dumps({"error": parts}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (400, {}, error(message="bad temperature", param="temperature"), (400, "validation_error")),
        (400, {}, error(code="context_length_exceeded"), (400, "context_length_exceeded")),
        (422, {}, b"<html>", (400, "validation_error")),
        (401, {}, error(message="Wrong key sk-secret"), (502, "upstream_credentials_refused")),
        (403, {}, b"", (502, "upstream_credentials_refused")),
        (404, {}, error(message="no such model"), (502, "upstream_error")),
        (413, {}, b"", (413, "request_too_large")),
        (429, {}, b"", (503, "upstream_rate_limited")),
        (429, {}, error(code="insufficient_quota"), (503, "upstream_quota_exceeded")),
        (500, {}, error(message="stack trace"), (502, "upstream_error")),
        (503, {}, b"\xff\xfe", (502, "upstream_error")),
        (302, {}, b"", (502, "upstream_error")),
        (418, {}, b"[]", (502, "upstream_error")),
        (400, {}, b'{"error":"plain"}', (400, "validation_error")),
        (400, {}, b"[" * 100_000, (400, "validation_error")),
    ],
)  # fmt: skip
def test_providers_failure_is_told_as_what_it_is_to_our_caller(
    status: int, headers: dict[str, str], body: bytes, expected: tuple[int, str]
) -> None:
    refusal = chat.refusal_of_upstream(status, headers, body)
    assert (refusal.status, refusal.code) == expected
    assert refusal.status not in (401, 403)
    assert "sk-secret" not in json.dumps(refusal.envelope("r"))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, "1"),
        ("7", "7"),
        ("0", "1"),
        ("2.5", "3"),
        ("1e9", "1"),
        ("99999", "3600"),
        ("Fri, 01 Jan 2027 00:00:00 GMT", "1"),
        ("\u0663", "1"),  # a digit, but not an ASCII one
    ],
)
def test_retry_after_of_a_busy_provider_is_a_whole_number(header: str | None, seconds: str) -> None:
    headers = {} if header is None else {"retry-after": header}
    assert chat.refusal_of_upstream(429, headers, b"").headers["Retry-After"] == seconds


def test_providers_code_and_param_are_passed_on_only_if_they_are_words() -> None:
    for odd in ("Bearer sk-CANARY", "x" * 65, "a b", 7, None, "<b>"):
        refusal = chat.refusal_of_upstream(400, {}, error(code=odd, param=odd))
        assert (refusal.code, refusal.param) == ("validation_error", None)
    refusal = chat.refusal_of_upstream(400, {}, error(code="bad_x", param="messages[0].content"))
    assert (refusal.code, refusal.param) == ("bad_x", "messages[0].content")


def test_client_is_told_not_to_retry_what_cannot_help() -> None:
    assert chat.refusal_of_upstream(401, {}, b"").headers["x-should-retry"] == "false"
    assert "x-should-retry" not in chat.refusal_of_upstream(500, {}, b"").headers
