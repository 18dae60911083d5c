"""What a client has to make of an answer: the provider's behaviour, and the one right outcome.

A client shows its user exactly one of two things: an answer that is whole, or an error. `Answer`
and `Failure` say which. An answer that was cut and looks whole is the worst that can happen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.provider import USAGE

WORDS = "two words "


@dataclass(frozen=True)
class Answer:
    text: str = WORDS
    finish: str = "stop"
    tools: tuple[tuple[str, str], ...] = ()  # name and arguments of each call


@dataclass(frozen=True)
class Failure:
    code: str
    text: str = ""  # the part of an answer that came before
    legacy_code: str | None = None  # the envelope's top-level `code`: openai 1.0 shows that one


@dataclass(frozen=True)
class Scenario:
    name: str
    provider: dict[str, Any]
    expected: Answer | Failure
    usage: bool = False  # whether the client requests the token counts
    tools: bool = False  # whether it offers a tool
    user: str = "unlimited"  # or "too fast", "out of quota"

    def request(self) -> dict[str, Any]:
        """Return what a runner needs to know: not what is expected."""
        return {
            "name": self.name,
            "content": json.dumps(self.provider),
            "usage": self.usage,
            "tools": self.tools,
            "user": self.user,
        }


@dataclass(frozen=True)
class Outcome:
    """What a client showed, as run.py and run.mjs report it."""

    text: str = ""
    ended: bool = False  # the client said that the answer is complete
    finish: str | None = None
    total_tokens: int | None = None
    tools: tuple[tuple[str, str], ...] = ()
    errors: tuple[dict[str, Any], ...] = field(default=())  # `code`, `message`, `type`

    @staticmethod
    def parse(reported: dict[str, Any]) -> Outcome:
        errors = tuple(reported.pop("errors"))
        tools = tuple((name, arguments) for name, arguments in reported.pop("tools"))
        return Outcome(**reported, errors=errors, tools=tools)


def check(scenario: Scenario, outcome: Outcome, *, hidden: frozenset[str] = frozenset()) -> None:
    """Fail unless the client showed the right outcome, and only that one.

    `hidden` names what this client has no way to show: "code", "finish" or "usage".
    """
    expected = scenario.expected
    assert outcome.text == expected.text, outcome
    if isinstance(expected, Failure):
        assert outcome.errors, f"half an answer was taken for a whole one: {outcome}"
        assert not outcome.ended, f"an error and an answer: {outcome}"
        if "code" not in hidden:
            codes = {expected.code, expected.legacy_code}
            assert outcome.errors[0]["code"] in codes - {None}, outcome
        return
    assert not outcome.errors, outcome
    assert outcome.ended, outcome
    assert outcome.tools == expected.tools, outcome
    if "finish" not in hidden:
        assert outcome.finish == expected.finish, outcome
    if scenario.usage and "usage" not in hidden:
        assert outcome.total_tokens == USAGE["total_tokens"], outcome


def _frame(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _chunk(*choices: dict[str, Any], **more: Any) -> str:
    named = {"id": "theirs", "object": "chat.completion.chunk", "created": 1, "model": "fake-large"}
    return _frame({**named, "choices": list(choices), **more})


def _choice(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish, **more}


def _end(finish: str) -> str:
    return _chunk(_choice({}, finish))


def _frames(*frames: str, **more: Any) -> dict[str, Any]:
    return {"do": "frames", "frames": list(frames), **more}


ROLE = _chunk(_choice({"role": "assistant", "content": ""}))
TWO = _chunk(_choice({"content": "two "}))
WORD = _chunk(_choice({"content": "words "}))
NULL = _chunk(_choice(None))
STOP = _end("stop")
COUNTS = _chunk(usage=USAGE)
DONE = "data: [DONE]\n\n"
ERROR = _frame({"error": {"message": "boom", "type": "server_error", "param": None, "code": None}})
PING = 'event: ping\ndata: {"type": "ping"}\n\n'
EMPTY = "data:\n\n"
FILTERED = _frame(
    {"id": "", "object": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": []}
)
SILENCE_S = 6  # longer than the five seconds after which a 200 is committed to, with a heartbeat
ARGUMENTS = '{"city":"Ulm"}'
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
CALLED = Answer("", "tool_calls", (("weather", ARGUMENTS),))
CONTEXT = "This model's maximum context length is 4096 tokens."
BROKEN = Failure("upstream_error", WORDS)
NOTHING = Failure("upstream_error")


def _crlf(frame: str) -> str:
    return frame.replace("\n", "\r\n")


def _call(call: dict[str, Any]) -> str:
    return _chunk(_choice({"role": "assistant", "tool_calls": [call]}))


def _bare(choice: dict[str, Any]) -> str:
    return _frame({"choices": [choice]})


WHOLE = (
    Scenario("complete", _frames(ROLE, TWO, WORD, STOP, COUNTS, DONE), Answer()),
    Scenario("usage", _frames(ROLE, TWO, WORD, STOP, COUNTS, DONE), Answer(), usage=True),
    Scenario(
        "usage beside the finish",
        _frames(ROLE, TWO, WORD, _chunk(_choice({}, "stop"), usage=USAGE), DONE),
        Answer(),
        usage=True,
    ),
    Scenario("length", _frames(ROLE, TWO, WORD, _end("length"), DONE), Answer(finish="length")),
    Scenario(
        "content filter",
        _frames(ROLE, TWO, WORD, _end("content_filter"), DONE),
        Answer(finish="content_filter"),
    ),
    Scenario("late", _frames(ROLE, TWO, WORD, STOP, DONE, delay_s=SILENCE_S), Answer()),
    Scenario(
        "tool call",
        _frames(_call({"index": 0, **CALL}), _end("tool_calls"), DONE),
        CALLED,
        tools=True,
    ),
)
DIALECTS = (
    Scenario(
        "tool call without index",
        _frames(_call(CALL), _end("tool_calls"), DONE),
        CALLED,
        tools=True,
    ),
    Scenario("no [DONE]", _frames(ROLE, TWO, WORD, STOP), Answer()),
    Scenario(
        "null delta",
        _frames(ROLE, TWO, NULL, WORD, _chunk(_choice(None, "stop")), DONE),
        Answer(),
    ),
    Scenario("ping objects", _frames(PING, ROLE, TWO, PING, WORD, STOP, PING, DONE), Answer()),
    Scenario("empty data", _frames(EMPTY, ROLE, TWO, EMPTY, WORD, STOP, EMPTY, DONE), Answer()),
    Scenario("prompt filter", _frames(FILTERED, ROLE, TWO, WORD, STOP, DONE), Answer()),
    Scenario(
        "comments and CRLF",
        _frames(": hello\r\n\r\n", _crlf(ROLE), _crlf(TWO), _crlf(WORD), _crlf(STOP), _crlf(DONE)),
        Answer(),
    ),
    Scenario(
        "neither object nor role",
        _frames(
            _bare(_choice({"content": "two "})),
            _bare(_choice({"content": "words "})),
            _bare(_choice({}, "stop")),
            DONE,
        ),
        Answer(),
    ),
)
FAILURES = (
    Scenario("error after two words", _frames(ROLE, TWO, WORD, ERROR), BROKEN),
    Scenario("end after two words", _frames(ROLE, TWO, WORD), BROKEN),
    Scenario("[DONE] after two words", _frames(ROLE, TWO, WORD, DONE), BROKEN),
    Scenario(
        "finish_reason error",
        _frames(ROLE, TWO, WORD, _chunk(_choice({}, "error", error={"message": "boom"})), DONE),
        BROKEN,
    ),
    Scenario("error after the role", _frames(ROLE, ERROR), NOTHING),
    Scenario("error after a heartbeat", _frames(ERROR, delay_s=SILENCE_S), NOTHING),
    Scenario("end after a heartbeat", _frames(delay_s=SILENCE_S), NOTHING),
)
# Before the first byte: plain HTTP.
REFUSALS = (
    Scenario("error at once", _frames(ERROR), NOTHING),
    Scenario(
        "context",
        {"do": "fail", "status": 400, "message": CONTEXT, "code": "context_length_exceeded"},
        Failure("context_length_exceeded"),
    ),
    Scenario(
        "busy provider",
        {"do": "fail", "status": 429, "retry_after": 1},
        Failure("upstream_rate_limited"),
    ),
    Scenario("429", {}, Failure("rate_limited", "", "rate_limit_exceeded"), user="too fast"),
    Scenario("402", {}, Failure("quota_exceeded", "", "budget_exceeded"), user="out of quota"),
)
SCENARIOS = (*WHOLE, *DIALECTS, *FAILURES, *REFUSALS)
