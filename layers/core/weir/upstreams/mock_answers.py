"""What the mock provider says: a request in, the bytes of an OpenAI answer out.

The same request has the same answer. docs/mock.md states the rules for the people who use it; the
shapes are those of OpenAI's API reference, "Create chat completion".

A token is a word or a number of at most 16 characters, or any other sign, with the blank before it.
No counter of tokens may find more in a text than that: `weir.chat.cap` would cut the answer.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

_PIECE = r"\s?(?:[0-9]{1,16}|[^\W\d_]{1,16}|\S)|\s{1,64}"
NOTHING_SAID = "Hello!"  # to a request that says nothing
# An instance of a schema: it may refer to itself, and to the same long text again and again.
MOST_DEPTH, MOST_SIZE, MOST_STRING = 50, 50_000, 200
DONE = b"data: [DONE]\n\n"


class Call(NamedTuple):
    """A call of one of the request's tools; its arguments are the tokens of the answer."""

    id: str
    name: str


class Answer(NamedTuple):
    """The same for each of `choices`. `tokens` together are the text or a call's arguments."""

    tokens: tuple[str, ...]
    finish: str
    prompt_tokens: int
    choices: int = 1
    call: Call | None = None

    @property
    def usage(self) -> dict[str, int]:
        completion = len(self.tokens) * self.choices
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }


def answer_to(asked: Mapping[str, Any]) -> Answer:
    """Return what is said to a chat completion request that the gateway has written."""
    messages = asked["messages"]
    heard = (each for each in reversed(messages) if each["role"] in ("user", "tool"))
    last: Mapping[str, Any] = next(heard, {})
    text = text_of(last).strip() or NOTHING_SAID
    prompt = len(messages) + sum(_tokens_in(each) for each in messages)
    choices = asked.get("n") or 1
    name = _function_called(asked, text if last.get("role") == "user" else "")
    call = None if name is None else Call(f"call_{len(messages)}", name)
    if name is not None:
        said, finish = _object_in(text.removeprefix(name)) or "{}", "tool_calls"
    else:
        said, finish = _formatted(text, asked.get("response_format")), "stop"
        said = _until_stop(said, asked.get("stop"))
    caps = [asked[cap] for cap in ("max_completion_tokens", "max_tokens") if asked.get(cap)]
    found = (each[0] for each in re.finditer(_PIECE, said))
    tokens = tuple(islice(found, min(caps)) if caps else found)
    if len(said) > sum(map(len, tokens)):
        finish = "length"
    return Answer(tokens, finish, prompt, choices, call)


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, whose content may have parts of other types, too."""
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def _tokens_in(message: Mapping[str, Any]) -> int:
    return sum(1 for _ in re.finditer(_PIECE, text_of(message)))


def _until_stop(text: str, stop: str | list[str] | None) -> str:
    for sequence in [stop] if isinstance(stop, str) else stop or ():
        if sequence:
            text = text.partition(sequence)[0]
    return text


# ---------------------------------------------------------------- tools


def _function_called(asked: Mapping[str, Any], text: str) -> str | None:
    """Return the function that `tool_choice` forces, or whose name begins the user's message."""
    names = [
        tool["function"]["name"] for tool in asked.get("tools") or () if tool["type"] == "function"
    ]
    choice = asked.get("tool_choice")
    if isinstance(choice, dict):
        named = choice.get("function", {}).get("name")
        return named if named in names else None
    if not names or choice == "none":
        return None
    begins = text.partition("{")[0].strip()
    if begins in names:
        return begins
    return names[0] if choice == "required" else None


def _object_in(text: str) -> str | None:
    """Return the text if it is a JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return text.strip() if isinstance(found, dict) else None


# ---------------------------------------------------------------- structured output


def _formatted(text: str, response_format: Mapping[str, Any] | None) -> str:
    """Return the text as the format wants it: as it is if it is a JSON object already."""
    kind = (response_format or {}).get("type")
    if kind not in ("json_object", "json_schema") or _object_in(text):
        return text
    if kind == "json_object":
        return _json({"content": text})
    schema = (response_format or {})["json_schema"].get("schema") or {}
    return _json(_Instance(schema, text).value)


class _Instance:
    """A value that has a JSON schema's types and members: each string is the beginning of `text`,
    each number the least one, each list as short as may be. What else it asks for is ignored.
    """

    def __init__(self, schema: Mapping[str, Any], text: str) -> None:
        self._root = schema
        self._text = text[:MOST_STRING]
        self._left = MOST_SIZE
        self.value = self._of(schema)

    def _of(self, schema: Any, depth: int = 0) -> Any:
        self._left -= 10
        if not isinstance(schema, dict) or self._left < 0 or depth > MOST_DEPTH:
            return None
        if "$ref" in schema:
            return self._of(self._at(schema["$ref"]), depth + 1)
        if "const" in schema:
            return self._as_given(schema["const"])
        for name in ("enum", "anyOf", "oneOf", "allOf"):
            if isinstance(found := schema.get(name), list) and found:
                return self._as_given(found[0]) if name == "enum" else self._of(found[0], depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else None)
        return self._of_type(kind[0] if isinstance(kind, list) and kind else kind, schema, depth)

    def _of_type(self, kind: Any, schema: Mapping[str, Any], depth: int) -> Any:
        if kind == "object":
            members = schema.get("properties")
            named = members if isinstance(members, dict) else {}
            self._left -= sum(map(len, named))
            return {name: self._of(each, depth + 1) for name, each in named.items()}
        if kind == "array":
            least = schema.get("minItems", 0)
            made: list[Any] = []
            while isinstance(least, int) and len(made) < least and self._left > 0:
                made.append(self._of(schema.get("items"), depth + 1))
            return made
        if kind in ("integer", "number"):
            least = schema.get("minimum", 0)
            return least if isinstance(least, int | float) else 0
        if kind == "string":
            return self._as_given(self._text)
        return False if kind == "boolean" else None

    def _as_given(self, value: Any) -> Any:
        self._left -= len(_json(value))
        return value if self._left >= 0 else None

    def _at(self, reference: Any) -> Any:
        """Return what a reference within the document points to; None if that is nothing."""
        at: Any = self._root
        for step in str(reference).removeprefix("#").split("/")[1:]:
            at = at.get(step) if isinstance(at, dict) else None
        return at


# ---------------------------------------------------------------- as bytes


def streamed(answer: Answer, head: Mapping[str, Any], *, usage: bool) -> Iterator[bytes]:
    """Yield a stream, frame by frame. `head` has id, created and model."""
    indexes = range(answer.choices)
    for index in indexes:
        delta: dict[str, Any] = {"role": "assistant", "content": ""}
        if answer.call is not None:
            delta = {"role": "assistant", "content": None, "tool_calls": [_call(answer.call, "")]}
            delta["tool_calls"][0]["index"] = 0
        yield _chunk(head, index, delta)
    for token in answer.tokens:
        delta = {"content": token}
        if answer.call is not None:
            delta = {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}
        for index in indexes:
            yield _chunk(head, index, delta)
    for index in indexes:
        yield _chunk(head, index, {}, answer.finish)
    if usage:
        yield frame({**head, **_CHUNK, "choices": [], "usage": answer.usage})
    yield DONE


def whole(answer: Answer, head: Mapping[str, Any]) -> bytes:
    """Return the answer of a request that does not stream."""
    text = "".join(answer.tokens)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if answer.call is not None:
        message |= {"content": None, "tool_calls": [_call(answer.call, text)]}
    choices = [
        {"index": index, "message": message, "finish_reason": answer.finish}
        for index in range(answer.choices)
    ]
    told = {**head, "object": "chat.completion", "choices": choices, "usage": answer.usage}
    return _json(told).encode("utf-8", "backslashreplace")


def frame(told: object) -> bytes:
    """Return one event of a stream."""
    return b"data: " + _json(told).encode("utf-8", "backslashreplace") + b"\n\n"


_CHUNK = {"object": "chat.completion.chunk"}


def _chunk(
    head: Mapping[str, Any], index: int, delta: Mapping[str, Any], finish: str | None = None
) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return frame({**head, **_CHUNK, "choices": [choice]})


def _call(call: Call, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _json(told: object) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
