"""Answers composed of the oddities of many providers at random, and what must become of them.

An `Oddity` knows what its provider has meant: which choices it has begun and finished, what it has
said, and where it has failed. So a test can tell a success that was not one from an oddity that is
harmless, however the two are mixed and wherever the bytes are cut.
"""

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

Chunk = dict[str, Any]

NOISE = [
    b": ping\n\n",
    b":\n\n",
    b"data:\n\n",
    b"data: \n\n",
    b"retry: 3000\n\n",
    b'event: ping\ndata: {"type":"ping"}\n\n',
    b"event: keepalive\ndata: 7\n\n",
    b'data: {"type":"ping"}\n\n',
    b'data: {"choices":[]}\n\n',
    b'data: {"choices":null,"usage":null}\n\n',
    b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n',
    b'data: {"id":"x","object":"chat.completion.chunk"}\n\n',
]
FINISHES = ["stop", "length", "STOP", "eos", "end_turn", "max_tokens", "tool_use", "SAFETY", 7, {}]
UNFINISHED = [None, "", "null", "None"]
BROKEN_OFF = ["error", "ERROR", "abort", "network_error"]
FAILURES = [
    b'data: {"error":{"message":"boom","code":500}}\n\n',
    b'data: {"error":"overloaded"}\n\n',
    b'data: {"error":{}}\n\n',
    b'data: [{"error":{"code":429,"message":"slow down"}}]\n\n',
    b'data: {"object":"error","message":"boom"}\n\n',
    b'data: {"detail":"Internal server error"}\n\n',
    b"event: error\ndata: worker died\n\n",
    b'event: error\ndata: {"message":"boom"}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"error":{"message":"boom"}}]}\n\n',
    b"data: {not json}\n\n",
    b'data: {"choices":[],"x":NaN}\n\n',
    b"data: 42\n\n",
    b'data: {"choices":{"index":0}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"x":' + b"[" * 500 + b"]" * 500 + b"}}]}\n\n",
]
NO_ANSWERS = [
    b"",
    b"\n\n",
    b"<html>a proxy's page</html>",
    b"upstream connect error",
    b"{}",
    b"[]",
    b'{"choices":[]}',
    b'{"error":{"message":"boom"}}',
    b'{"message":"boom"}',
    b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"error"}]}',
    b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"message":',
    b"data: [DONE]\n\n",
    b": nothing\n\n",
]
WORDS = ["a", "Hello ", "ü", "😀", "\u2028", '"\\', "\ud83d", "x" * 50]


@dataclass
class _Part:
    sent: bytes
    begins: frozenset[int] = frozenset()
    finishes: frozenset[int] = frozenset()
    fails: bool = False
    done: bool = False
    said: dict[int, str] = field(default_factory=dict)


@dataclass
class Oddity:
    """A provider's body. `usage` is the last that it tells, wherever it is cut."""

    parts: list[_Part]
    choices: int
    usage: dict[str, Any] | None
    whole: bool = False
    cut_at: int | None = None

    @property
    def body(self) -> bytes:
        return b"".join(part.sent for part in self.parts)[: self.cut_at]

    def may_succeed(self) -> bool:
        """Whether all that it has begun is finished, and nothing has failed before its end."""
        begun, finished = set[int](), set[int]()
        for part in self._arrived():
            if part.fails:
                return False
            begun |= part.begins
            finished |= part.finishes
        return bool(finished) and begun == finished

    def must_succeed(self) -> bool:
        """Whether it may, and is not cut."""
        return self.cut_at is None and self.may_succeed()

    def said(self) -> dict[int, str]:
        said: dict[int, str] = {}
        for part in self._arrived():
            for index, text in part.said.items():
                said[index] = said.get(index, "") + text
        return said

    def _arrived(self) -> list[_Part]:
        at, arrived = 0, []
        for part in self.parts:
            at += len(part.sent)
            end = at - (len(part.sent) - len(part.sent.rstrip(b"\r\n")))
            if self.cut_at is not None and end > self.cut_at:
                break
            arrived.append(part)
            if part.done:
                break
        return arrived


def oddity(random: Random) -> Oddity:
    choices = random.choice([1, 1, 1, 2])
    kind = random.random()
    if kind < 0.1:
        made = Oddity([_Part(random.choice(NO_ANSWERS), fails=True)], choices, None)
    elif kind < 0.25:
        made = _document(random, choices)
    else:
        made = _stream(random, choices)
    if random.random() < 0.2 and made.body:
        made.cut_at = random.randrange(len(made.body))
    return made


def _document(random: Random, choices: int) -> Oddity:
    said = {index: random.choice(WORDS) for index in range(choices)}
    all_ = [
        {**_message(random, text), "index": index, "finish_reason": random.choice(FINISHES)}
        for index, text in said.items()
    ]
    usage = _usage(random)
    body = _compact({"choices": all_, **({"usage": usage} if usage else {})})
    indexes = frozenset(said)
    part = _Part(random.choice([b"", b"\n", b"\xef\xbb\xbf"]) + body, indexes, indexes, said=said)
    return Oddity([part], choices, usage, whole=True)


def _message(random: Random, text: str) -> Chunk:
    forms: list[Chunk] = [
        {"message": {"role": "assistant", "content": text}},
        {"message": {"content": [{"type": "text", "text": text}]}},
        {"text": text},
        {"message": None, "text": text},
        {"message": text},
    ]
    return random.choice(forms)


def _stream(random: Random, choices: int) -> Oddity:
    parts = [_words(random, random.randrange(choices)) for _ in range(random.randrange(1, 6))]
    begun = sorted(frozenset().union(*(part.begins for part in parts)))
    for index in begun:
        if random.random() < 0.95:
            parts.append(_finish(random, index))
    usage = _usage(random)
    if usage is not None:
        parts.append(_Part(_frame(_told(random, usage))))
    ends = random.random()
    if ends < 0.7:
        parts.append(_Part(b"data: [DONE]\n\n", done=True))
    if ends < 0.1:
        parts.append(_Part(_frame({"choices": [{"index": 0, "delta": {"content": "late"}}]})))
    if random.random() < 0.25:
        failure = _Part(random.choice(FAILURES), fails=True)
        parts.insert(random.randrange(len(parts) + 1), failure)
    for _ in range(random.randrange(4)):
        parts.insert(random.randrange(len(parts) + 1), _Part(random.choice(NOISE)))
    line_end = random.choice([b"\n", b"\n", b"\r\n", b"\r"])
    for part in parts:
        part.sent = part.sent.replace(b"\n", line_end)
    if random.random() < 0.1:
        parts[0].sent = b"\xef\xbb\xbf" + parts[0].sent
    return Oddity(parts, choices, usage)


def _words(random: Random, index: int) -> _Part:
    text, begins = random.choice(WORDS), frozenset({index})
    silent: list[Chunk] = [
        {"delta": None, "content_filter_offsets": {"check_offset": 1}},
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {"role": "", "reasoning_content": text}},
        {"delta": {"reasoning": {"text": text}}},
        {"delta": {"content": [{"type": "thinking", "thinking": [{"text": text}]}]}},
        {"delta": {"tool_calls": None}},
        {"delta": {"tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}},
        {"delta": {"tool_calls": [{"index": 0, "id": None, "function": None}]}},
        {"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}] * 2}},
    ]
    spoken: list[Chunk] = [
        {"delta": {"content": text}},
        {"delta": {"role": "assistant", "content": text, "reasoning": None}},
        {"delta": {"content": [{"type": "text", "text": text}]}},
        {"delta": {"content": {"text": text}}},
        {"delta": text},
        {"message": {"role": "assistant", "content": text}},
        {"text": text},
        {"delta": {"content": text}, "error": {"code": "", "message": None}},
    ]
    speaks = random.random() < 0.7
    choice = {**random.choice(spoken if speaks else silent), "index": index}
    if random.random() < 0.5:
        choice["finish_reason"] = random.choice(UNFINISHED)
    names = {"id": "theirs", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    named = {name: names[name] for name in names if random.random() < 0.7}
    pretty = random.random() < 0.1
    said = {index: text} if speaks else {}
    return _Part(_frame({**named, "choices": [choice]}, pretty=pretty), begins, said=said)


def _finish(random: Random, index: int) -> _Part:
    here = frozenset({index})
    if random.random() < 0.1:
        choice = {"index": index, "delta": {}, "finish_reason": random.choice(BROKEN_OFF)}
        return _Part(_frame({"choices": [choice]}), here, fails=True)
    choice = {"index": index, "finish_reason": random.choice(FINISHES)}
    if random.random() < 0.7:
        choice["delta"] = random.choice([{}, None, {"content": ""}])
    return _Part(_frame({"choices": [choice]}), here, here)


def _usage(random: Random) -> dict[str, Any] | None:
    """Now and then a provider tells more output than it may have had, or nothing to go by."""
    output = random.choice([0, 3, 3, 3, 5_000])
    usage = {"prompt_tokens": 7, "completion_tokens": output, "total_tokens": 7 + output}
    return random.choice([usage, usage, usage, None, {"prompt_tokens": None}])


def _told(random: Random, usage: dict[str, Any]) -> Chunk:
    forms: list[Chunk] = [
        {"choices": [], "usage": usage},
        {"choices": None, "usage": usage},
        {"usage": usage},
        {"choices": [], "x_groq": {"usage": usage}},
    ]
    return random.choice(forms)


def _frame(chunk: Chunk, *, pretty: bool = False) -> bytes:
    if not pretty:
        return b"data: " + _compact(chunk) + b"\n\n"
    lines = json.dumps(chunk, indent=1).split("\n")
    return b"".join(b"data: " + line.encode() + b"\n" for line in lines) + b"\n"


def _compact(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")
