"""The mock provider says what docs/mock.md promises, in the form and at the pace of a provider."""

import json
import subprocess
import sys
from typing import Any

import pytest

from weir.chat import relay
from weir.chat.cap import Cap
from weir.chat.outcome import Outcome
from weir.errors import Refusal, UpstreamBusy, UpstreamFailed, UpstreamRejected
from weir.projects.upstream_kinds import MOCK_MODELS
from weir.upstreams import mock, mock_answers
from weir.upstreams.mock import MockCall

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {}}}
    for name in ("get_weather", "get_time")
]


class Clock:
    """Time passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds < 1e6
        self.now += seconds


def asked(said: Any = "Hello there, world", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": said}], **more}


def call(model: str, body: dict[str, Any], clock: Clock | None = None) -> MockCall:
    clock = clock or Clock()
    text = json.dumps(body).encode()
    return MockCall(model, text, clock=lambda: 7.9, monotonic=clock, sleep=clock.sleep)


def sent(model: str, body: dict[str, Any]) -> list[bytes]:
    open_ = call(model, body)
    return list(iter(lambda: open_.receive(60) or b"", b""))


def whole(body: dict[str, Any], model: str = "echo") -> dict[str, Any]:
    (document,) = sent(model, body)
    told = json.loads(document)
    assert isinstance(told, dict)
    return told


def said(body: dict[str, Any]) -> tuple[str, str, int]:
    """Text, finish_reason and completion tokens of an answer with one choice, which are the same
    whether it streams or not.
    """
    told = whole(body)
    (choice,) = told["choices"]
    chunks = streamed({**body, "stream": True, "stream_options": {"include_usage": True}})
    deltas = [each["choices"][0]["delta"].get("content") or "" for each in chunks[:-1]]
    assert "".join(deltas) == choice["message"]["content"]
    assert chunks[-2]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert chunks[-1]["usage"] == told["usage"]
    text = choice["message"]["content"]
    return text, choice["finish_reason"], told["usage"]["completion_tokens"]


def streamed(body: dict[str, Any], model: str = "echo") -> list[dict[str, Any]]:
    *frames, done = sent(model, {"stream": True, **body})
    assert done == b"data: [DONE]\n\n"
    assert all(each.startswith(b"data: ") and each.endswith(b"}\n\n") for each in frames)
    return [json.loads(each.removeprefix(b"data: ")) for each in frames]


# ---------------------------------------------------------------- what echo says


def test_every_model_of_the_catalogue_has_a_behaviour() -> None:
    assert mock._BEHAVIOURS.keys() == set(MOCK_MODELS)


def test_stream_has_role_words_finish_and_usage_each_in_a_piece_of_its_own() -> None:
    chunks = streamed(asked(stream_options={"include_usage": True}))
    first, *words, finish, usage = chunks
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    ]
    assert [each["choices"][0]["delta"]["content"] for each in words] == [
        *("Hello", " there", ",", " world")
    ]
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert (usage["choices"], usage["usage"]) == (
        [],
        {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9},
    )
    heads = {(c["id"], c["created"], c["model"], c["object"]) for c in chunks}
    assert heads == {("chatcmpl-mock", 7, "echo", "chat.completion.chunk")}


def test_usage_is_in_a_stream_only_if_it_is_asked_for() -> None:
    assert "usage" not in streamed(asked())[-1]


def test_same_request_has_the_same_bytes() -> None:
    body = asked("Grüße 🌊 世界", n=3, stream=True, max_tokens=5)
    assert sent("echo", body) == sent("echo", body)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([("user", "first"), ("assistant", "x"), ("user", "last")], "last"),
        ([("user", "question"), ("assistant", "x"), ("tool", "result")], "result"),
        ([("system", "only this")], "Hello!"),
        ([("user", "  ")], "Hello!"),
        ([("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], "a b"),
        ([("user", [{"type": "image_url", "image_url": {"url": "data:,"}}])], "Hello!"),
        ([("user", "\ud83d half")], "\ud83d half"),
    ],
)
def test_last_message_of_the_user_or_a_tool_is_echoed(
    messages: list[tuple[str, Any]], text: str
) -> None:
    body = {"messages": [{"role": role, "content": content} for role, content in messages]}
    assert said(body)[:2] == (text, "stop")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    ("cap", "text", "finish"),
    [(2, "Hello there", "length"), (4, "Hello there, world", "stop"), (9, None, "stop")],
)
def test_cap_is_kept_and_told(name: str, cap: int, text: str | None, finish: str) -> None:
    told = said(asked(**{name: cap}))
    assert told == (text or "Hello there, world", finish, min(cap, 4))


@pytest.mark.parametrize("stop", [",", [" w", ","], ["nowhere", ","]])
def test_answer_ends_before_a_stop_sequence(stop: Any) -> None:
    assert said(asked(stop=stop)) == ("Hello there", "stop", 2)


def test_each_choice_is_the_same_and_counts() -> None:
    told = whole(asked(n=2))
    assert [each["index"] for each in told["choices"]] == [0, 1]
    assert told["choices"][0]["message"] == told["choices"][1]["message"]
    assert told["usage"]["completion_tokens"] == 8
    ends = [c["choices"][0] for c in streamed(asked(n=2)) if c["choices"][0]["finish_reason"]]
    assert [each["index"] for each in ends] == [0, 1]


# What a tokenizer finds few tokens in, and what it finds many in.
TEXTS = [
    *("a-b-c-d.e.f", "a1b2c3d4", "x" * 2_000, "1" * 500, "word  word   word", "don't can't"),
    *("世界" * 100, "🌊" * 40, "ÃÂ" * 200, "-" * 3_000, " \n" * 3_000 + "a", "{}[]()" * 100 + "a"),
    *(
        '{"a": "\\u00e9\\n", "b": [1, 2.5]}',
        "<|end|> </h1>",
        "สวัสดีชาวโลก" * 9,
        "a_b__c",
        "\u2019a\u2019",
    ),
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("path", ["content", "tool_calls.0.function.arguments"])
def test_no_answer_has_more_tokens_than_it_says(text: str, path: str) -> None:
    tokens = mock_answers.answer_to(asked(f"a {text}")).tokens
    assert "".join(tokens) == f"a {text}".strip()
    cap = Cap(1)
    cap.is_passed([((0, path), "".join(tokens))], None)
    assert cap.least_tokens() <= len(tokens)


# ---------------------------------------------------------------- tools and structured output


@pytest.mark.parametrize(
    ("said_", "choice", "name", "arguments"),
    [
        ("hi", {"type": "function", "function": {"name": "get_time"}}, "get_time", "{}"),
        ('{"city":"Paris"}', "required", "get_weather", '{"city":"Paris"}'),
        ('get_time {"zone": "UTC"}', None, "get_time", '{"zone": "UTC"}'),
        ("get_time", "auto", "get_time", "{}"),
        ('get_time {"zone"', "auto", "get_time", "{}"),
    ],
)
def test_tool_is_called_if_it_must_be_or_its_name_begins_the_message(
    said_: str, choice: Any, name: str, arguments: str
) -> None:
    body = asked(said_, tools=TOOLS, **({"tool_choice": choice} if choice else {}))
    (answer,) = whole(body)["choices"]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    ]
    chunks = streamed(body)
    calls = [
        each for chunk in chunks for each in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert (calls[0]["id"], calls[0]["function"]["name"]) == ("call_1", name)
    assert "".join(each["function"]["arguments"] for each in calls) == arguments
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "body",
    [
        asked("get_weather today?", tools=TOOLS),
        asked("get_weather", tools=TOOLS, tool_choice="none"),
        asked("get_weather"),
        {
            "messages": [
                {"role": "user", "content": "get_weather"},
                {"role": "tool", "content": "get_weather"},
            ],
            "tools": TOOLS,
        },
    ],
)
def test_tool_is_not_called_otherwise_nor_again_after_its_result(body: dict[str, Any]) -> None:
    assert whole(body)["choices"][0]["finish_reason"] == "stop"


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["b", "a"]},
        "count": {"type": ["integer", "null"], "minimum": 3},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 2},
        "parent": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
        "good": {"type": "boolean"},
    },
    "$defs": {"tag": {"const": "x"}},
}


def of_schema(schema: Any, said_: str = "hi") -> Any:
    how = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    return json.loads(said(asked(said_, response_format=how))[0])


def test_structured_output_has_the_schemas_members() -> None:
    assert of_schema(SCHEMA) == {
        **{"name": "hi", "kind": "b", "count": 3, "tags": ["x", "x"], "parent": None},
        "good": False,
    }
    assert of_schema(SCHEMA, '{"as": "it is"}') == {"as": "it is"}


@pytest.mark.parametrize(
    ("said_", "answer"), [("hi", {"content": "hi"}), ('{"a": 1}', {"a": 1}), ("[1]", None)]
)
def test_json_object_is_one(said_: str, answer: Any) -> None:
    text, *_ = said(asked(said_, response_format={"type": "json_object"}))
    assert json.loads(text) == (answer or {"content": said_})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {name: {"$ref": "#"} for name in "abcdefgh"}},
        {"properties": {"a" * 1_000: {"$ref": "#"}, "b": {"$ref": "#"}}},
        {"type": "array", "minItems": 10**9, "items": {"const": "x" * 10_000}},
        {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}},
        {"$ref": "#"},
    ],
)
def test_schema_without_an_end_has_an_answer_of_bounded_size(schema: Any) -> None:
    how = {"type": "json_schema", "json_schema": {"schema": schema}}
    tokens = mock_answers.answer_to(asked("x" * 10_000, response_format=how)).tokens
    assert len("".join(tokens)) < 4 * mock_answers.MOST_SIZE


# ---------------------------------------------------------------- pace and failures


def test_slow_sends_a_word_each_tenth_of_a_second_and_nothing_before() -> None:
    clock = Clock()
    open_ = call("slow", asked(stream=True), clock)
    assert open_.receive(0.04) is None
    assert clock.now == pytest.approx(1000.04)
    arrivals = []
    while open_.receive(60):
        arrivals.append(round(clock.now - 1000, 6))
    assert arrivals == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_slow_answer_that_does_not_stream_comes_when_its_last_word_would() -> None:
    clock = Clock()
    assert call("slow", asked(), clock).receive(60)
    assert clock.now == pytest.approx(1000.4)


def test_silent_says_nothing_for_as_long_as_it_is_waited_for() -> None:
    clock = Clock()
    open_ = call("silent", asked(stream=True), clock)
    assert [open_.receive(0.5), open_.receive(300.0)] == [None, None]
    assert clock.now == 1300.5
    open_.close()


def test_call_that_is_closed_says_no_more() -> None:
    open_ = call("echo", asked(stream=True))
    assert open_.receive(1)
    open_.close()
    open_.close()
    assert open_.receive(1) == b""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "kind", "status"),
    [
        ("error-400", UpstreamRejected, 400),
        ("error-429", UpstreamBusy, 429),
        ("error-500", UpstreamFailed, 500),
        ("removed-in-this-release", UpstreamFailed, 404),
    ],
)
def test_errors_are_those_of_a_provider(
    model: str, kind: type[Refusal], status: int, stream: bool
) -> None:
    with pytest.raises(kind) as refused:
        sent(model, asked(stream=stream))
    assert refused.value.log["upstream_status"] == status
    assert refused.value.retry_after_s == (2 if status == 429 else None)


@pytest.mark.parametrize(
    "body", [asked(stop=[1]), asked(tools=[1]), asked(response_format={"type": "json_schema"})]
)
def test_request_that_no_provider_could_read_is_refused_as_one_would(body: dict[str, Any]) -> None:
    with pytest.raises(UpstreamRejected):
        sent("echo", body)


def test_broken_stream_ends_in_an_error_after_half_of_its_words() -> None:
    *chunks, failed = sent("error-mid-stream", asked(stream=True))
    text = b"".join(chunks).decode()
    assert [word in text for word in ("Hello", " there", " world")] == [True, True, False]
    assert json.loads(failed.removeprefix(b"data: "))["error"]["type"] == "server_error"
    with pytest.raises(UpstreamFailed):
        sent("error-mid-stream", asked())


# ---------------------------------------------------------------- through the relay


def test_mock_is_imported_only_when_it_is_asked() -> None:
    loaded = "import sys, weir.upstreams.providers; print('weir.upstreams.mock' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


@pytest.mark.parametrize("model", ["echo", "slow"])
def test_relay_takes_its_streams_for_whole_answers(model: str) -> None:
    clock, outcome = Clock(), Outcome()
    upstream = call(model, asked(stream=True, stream_options={"include_usage": True}), clock)
    answering = relay.Answering("id", 1, 4, usage_wanted=True)
    timing = relay.Timing(clock, clock.now + 300)
    out = b"".join(relay.stream(answering, upstream, timing, outcome))
    assert out.endswith(b"data: [DONE]\n\n")
    assert outcome.outcome == "completed"
    assert (outcome.usage or {})["completion_tokens"] == 4


def test_relay_cancels_a_slow_one_between_two_words() -> None:
    clock, outcome = Clock(), Outcome()
    upstream = call("slow", asked(stream=True), clock)
    answering = relay.Answering("id", 1, 4, cancelled=lambda: clock.now > 1000.25)
    frames = b"".join(relay.stream(answering, upstream, relay.Timing(clock, 2000), outcome))
    assert (b'" there"' in frames, b'" world"' in frames) == (True, False)
    assert b"cancelled" in frames
