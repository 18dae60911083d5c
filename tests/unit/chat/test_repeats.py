"""A stream is the same, byte for byte, whether its chunks are written by templates or read anew."""

import json
from dataclasses import asdict, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.provider.oddities import oddity
from tests.unit.chat.script import Script
from weir.chat import relay
from weir.chat.intake import none_known
from weir.chat.outcome import Outcome
from weir.chat.relay import Answering, Timing
from weir.chat.repeats import Repeats
from weir.errors import Refusal

KEY = "sk-CANARY"  # of the script's mask

TEXTS = [
    *("", "a", " the", "Hello", "ü", "😀", "\u2028", "\x85", "\x7f", '"', "\\", "\n\n", "\x00\x1f"),
    *("\ud83d", "\udc00", "x" * 300, "[{" * 150, "text of the template", "pad of the template"),
    *(
        KEY,
        KEY[:4],
        KEY[4:],
        "data: [DONE]",
        '"content":"a"',
        "\u0301",
        "\ufeff",
        "9" * 25,
        "<|x|>",
    ),
]
SPELT = [  # strings as a provider may spell them, between the quotation marks
    *(rb"\u0041", rb"\/", rb"\ud83d\ude00", rb"\ud83d", b"\xff", b"\xe2\x80", b"\t", b"\x01"),
    *(b"\xc2\x85", b"\xe2\x80\xa8", rb"\u2028", rb"a\nb", b"sk-CAN\\u0041RY", b"\xed\xa0\x80"),
    *(b'a","role":"user', b'x"},"x":{"content":"', b"\\", b'\\"', b'a" ,"content":"b'),
]
NO_STRINGS = [b"5", b"null", b'["a"]', b'{"text":"a"}', b"NaN", b""]
DELTAS: list[dict[str, Any]] = [
    {},
    {"role": "assistant"},
    {"role": None},
    {"role": "user"},
    {"refusal": None},
    {"refusal": []},
    {"content": None},
    {"content": "a"},
    {"content": ["a"]},
    {"content": []},
    {"reasoning": "a"},
    {"reasoning_details": [{"text": "a"}]},
    {"tool_calls": None},
    {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]},
]
CALLS: list[dict[str, Any]] = [
    {"index": 0},
    {"index": 1},
    {"index": 2000},
    {"index": None},
    {"id": "c"},
    {"id": ""},
    {"id": None, "type": "function"},
    {"function": {"name": "f", "arguments": "TEXT"}},
    {"function": {"name": "f", "arguments": ""}},
    {"function": {"name": None, "arguments": "TEXT"}},
    {"id": "d", "index": 0, "function": {"name": "g", "arguments": "TEXT"}},
    {"custom": {"input": "TEXT"}},
]
CHOICES: list[dict[str, Any]] = [
    {},
    {"logprobs": None},
    {"logprobs": {"content": [{"token": "a", "logprob": -1.5e-07, "top_logprobs": []}]}},
    {"finish_reason": ""},
    {"finish_reason": "stop"},
    {"message": {"content": "a"}},
    {"message": "a", "text": "b"},
    {"error": {}},
    {"index": 1},
    {"index": "0"},
    {"content": "a"},
]
MEMBERS: list[dict[str, Any]] = [
    {"id": "theirs", "created": 7, "model": "m"},
    {"model": "m2"},
    {"created": 8},
    {"usage": None},
    {"usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    {"obfuscation": "abc"},
    {"obfuscation": 7},
    {"p": "ab"},
    {"error": None},
    {"content": "a"},
    {"content": "TEXT"},
    {"x": {"p": "PAD", "obfuscation": "PAD"}},
    {"x": {"p": "PAD"}, "p": "pad of the template"},
    {"x": 12345678901234567890123, "y": 1e-7, "z": [1.0, -0.0, 1e22]},
    {"x": {"delta": {"content": "a"}}},
    {"system_fingerprint": KEY},
]


def shape_of(random: Random) -> dict[str, Any]:
    """Return a chunk in which the text is TEXT and the pad, if there is one, PAD."""
    name = random.choice(["content"] * 3 + ["reasoning_content", "reasoning", "other"])
    said = "text of the template" if random.random() < 0.03 else "TEXT"
    delta = {**_some(random, DELTAS), name: said}
    if random.random() < 0.25:
        call = {"index": 0, "function": {"arguments": said}, **_some(random, CALLS)}
        calls = random.choice([call, [call, call], *[[call]] * 8])
        delta = {**_some(random, DELTAS), "tool_calls": calls, **_some(random, DELTAS)}
    choice = {"index": 0, "delta": delta, **_some(random, CHOICES)}
    choices = [choice, choice] if random.random() < 0.05 else [choice]
    chunk = {**_some(random, MEMBERS), "choices": choices, **_some(random, MEMBERS)}
    for pad in sorted({"obfuscation", "p"} & chunk.keys()):
        if random.random() < 0.7:
            chunk[pad] = "PAD"
    return chunk


def _some(random: Random, of: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one or two of them, but more often none."""
    picked: dict[str, Any] = {}
    for each in random.sample(of, random.choice([0, 0, 1, 2])):
        picked |= each
    return picked


def stream_of(random: Random) -> list[bytes]:
    """Return a stream in which the same few chunks come again and again, with other texts."""
    shapes = [_spelt(random, shape_of(random)) for _ in range(random.choice([1, 1, 2, 3]))]
    events, shape = [], shapes[0]
    for _ in range(random.randrange(2, 25)):
        if random.random() < 0.15:
            shape = random.choice(shapes)
        event = shape
        if random.random() < 0.05:
            event = event.replace(b'"TEXT"', random.choice(NO_STRINGS))
        event = event.replace(b"TEXT", _text(random)).replace(b"PAD", _text(random))
        if random.random() < 0.03:  # something is cut out
            at = random.randrange(len(event))
            event = event[:at] + event[at + random.choice([1, 5]) :]
        events.append(b"data: " + event + b"\n\n")
    ends = random.choice([b"stop", b"length", b"error", b""])
    events.append(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"%b"}]}\n\n' % ends)
    return [*events, random.choice([b"data: [DONE]\n\n", b""])]


def _spelt(random: Random, chunk: dict[str, Any]) -> bytes:
    separators = random.choice([(",", ":"), (", ", ": "), (" ,", " : ")])
    line = json.dumps(chunk, separators=separators).encode()
    if random.random() < 0.1:  # a member twice
        line = line.replace(b'"delta"', b'"delta":{"content":"TEXT"},"delta"', 1)
    return line


def _text(random: Random) -> bytes:
    if random.random() < 0.15:
        return random.choice(SPELT)
    text = random.choice(TEXTS)
    line = json.dumps(text, ensure_ascii=random.random() < 0.5)[1:-1]
    return line.encode("utf-8", "surrogatepass")


def in_pieces(random: Random, events: list[bytes]) -> list[bytes]:
    way = random.random()
    if way < 0.5:
        return events
    body = b"".join(events)
    size = random.choice([7, 400, len(body) or 1])
    return [body[at : at + size] for at in range(0, len(body), size)]


def relayed(pieces: list[bytes], how: dict[str, Any], *, hears: bool) -> tuple[Any, ...]:
    """Return all that can be seen of a stream: frames, a refusal, the outcome, what was heard."""
    heard: list[str] = []
    script, outcome, frames, failure = Script(*pieces), Outcome(), list[bytes](), ""
    answering = Answering("ours", 1, receipt=lambda outcome: {"cost_usd": 1e-7}, **how)
    if hears:
        answering = replace(answering, hear=lambda said, mask: heard.append(json.dumps(said)))
    try:
        for frame in relay.stream(answering, script, Timing(script.monotonic, 2000.0), outcome):
            frames.append(frame)
    except Refusal as refusal:
        failure = repr(refusal)
    return frames, failure, asdict(outcome), heard


def any_stream(random: Random) -> tuple[list[bytes], dict[str, Any], bool]:
    pieces = [oddity(random).body] if random.random() < 0.1 else stream_of(random)
    how = {
        "output_tokens": random.choice([3, 100, 100_000]),
        "choices": random.choice([1, 1, 2]),
        "usage_wanted": random.random() < 0.5,
        "model": random.choice([None, None, "named"]),
    }
    hears = random.random() < 0.3
    return in_pieces(random, pieces), how, hears


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_stream_is_the_same_with_templates_and_without(random: Random) -> None:
    pieces, how, hears = any_stream(random)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Repeats, "frame", lambda self, data: none_known(data))
        expected = relayed(pieces, how, hears=hears)
    assert relayed(pieces, how, hears=hears) == expected
