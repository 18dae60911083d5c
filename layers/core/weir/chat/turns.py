"""What is kept of a conversation: for each request one turn, its new messages and the answer.

A turn is one item of the table, so it must stay below 400 KB whatever was sent. A part of more than
MOST_PART_BYTES (an image as a `data:` address, a long text) is kept as a marker, which says what
was left out and how large it was; if a turn is still too large, its largest messages become
markers.

Each message is kept with a digest of what was sent, by which it is recognised when a client sends
it again, even if only a marker of it is left.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

MOST_PART_BYTES = 65_536
# DynamoDB's limit is 409,600 bytes for an item; digests, usage and names come on top of this.
MOST_TURN_BYTES = 300_000
OMITTED = "omitted"  # the type of a part that is a marker

SYSTEM = frozenset({"system", "developer"})
COMPLETE = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_TOOLS = frozenset({"tool", "function"})
CALLS = ("tool_calls", "function_call")
# Members that a provider may want back with a tool call, and that a reader has no use for.
THOUGHT = ("extra_content", "reasoning_content", "reasoning", "reasoning_details")
_TEXTS = ("content", "refusal", "name", "tool_call_id")
_THINKING = frozenset({"thinking", "redacted_thinking", "reasoning"})


@dataclass(frozen=True, slots=True)
class Turn:
    """What one request has added to a conversation. `messages` are as they are kept, in order, and
    `digests` of what was sent, one for each. The last `replies` (0 or 1) messages are the answer.

    `id` begins with the request's time (Unix milliseconds, 13 digits), so ids sort in the order of
    time. `usage` has OpenAI's members and `cost_usd`.
    """

    id: str
    messages: Sequence[Message]
    digests: Sequence[str]
    replies: int = 0
    completion_id: str = ""
    model: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None

    @property
    def at_ms(self) -> int:
        return int(self.id[:13])

    @property
    def inputs(self) -> Sequence[Message]:
        return self.messages[: len(self.messages) - self.replies]

    @property
    def input_digests(self) -> Sequence[str]:
        return self.digests[: len(self.digests) - self.replies]

    @property
    def is_complete(self) -> bool:
        """Return whether the answer came to its end."""
        return self.finish_reason in COMPLETE

    def text(self) -> str:
        """Return the JSON that is stored. All but the id, which is the item's key."""
        return compact({name: getattr(self, name) for name in _STORED})

    @classmethod
    def parse(cls, turn_id: str, text: str) -> "Turn":
        """Read what `text` has written. Members that a later release has added are left out."""
        stored = json.loads(text)
        known = {name: stored[name] for name in _STORED if name in stored}
        return cls(turn_id, **known)


_STORED = tuple(Turn.__slots__[1:])


def compact(value: Any) -> str:
    """Return one line of JSON that can be UTF-8: a lone surrogate stays an escape."""
    text = _encode(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def turn_id(at_ms: int, request: str, number: int = 0) -> str:
    """`request` tells requests of one millisecond apart; `number` the turns of one request."""
    return f"{at_ms:013d}#{request}#{number:02d}"


# ---------------------------------------------------------------- recognising a message


def digest(message: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits that are the same for the same message in another spelling.

    Clients collapse blanks, write contents as strings or as parts, leave out members that are null,
    and format the arguments of tool calls anew. What a model thinks is not part of it: many clients
    do not send it back.
    """
    texts, others = _said(message.get("content"))
    refusal = message.get("refusal")
    texts += [refusal] if isinstance(refusal, str) else []
    normal = [
        message.get("role"),
        " ".join("".join(texts).split()),
        others,
        [_normal_call(call) for call in calls_of(message)],
        message.get("tool_call_id"),
    ]
    text = json.dumps(normal, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def calls_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tool calls of an assistant's message; an old `function_call` as one of them."""
    calls = message.get("tool_calls")
    found = [each for each in calls if isinstance(each, dict)] if isinstance(calls, list) else []
    if not found and isinstance(message.get("function_call"), dict):
        found = [{"function": message["function_call"]}]
    return found


def _said(content: Any) -> tuple[list[str], list[Any]]:
    """Return the texts of a content, and what else there is."""
    if isinstance(content, str):
        return [content], []
    texts: list[str] = []
    others: list[Any] = []
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal") and isinstance(part.get(kind), str):
            texts.append(part[kind])
        elif kind == "image_url" and isinstance(part["image_url"], dict):
            others.append(part["image_url"].get("url"))
        elif kind not in _THINKING:
            others.append(part)
    return texts, others


def _normal_call(call: Mapping[str, Any]) -> list[Any]:
    kind = "custom" if "custom" in call else "function"
    called = call.get(kind)
    if not isinstance(called, dict):
        return [kind, called]
    sent = called.get("input" if kind == "custom" else "arguments")
    with contextlib.suppress(ValueError, RecursionError):  # of an answer that was broken off
        sent = json.loads(sent) if isinstance(sent, str) and kind == "function" else sent
    return [kind, called.get("name"), sent or None]


# ---------------------------------------------------------------- what is kept of a message


def is_of_tools(message: Mapping[str, Any]) -> bool:
    """Return whether a message is nothing but a tool call or its result."""
    if message.get("role") in _TOOLS:
        return True
    return bool(calls_of(message)) and not any(_said(message.get("content"))[0])


def kept(message: Mapping[str, Any], *, tool_calls: bool = True) -> Message:
    """Return what is stored of a message: known members, with markers for what is too large."""
    content = message.get("content")
    if isinstance(content, list):
        # An empty list is refused by several providers.
        content = [_kept_part(part) for part in content if not _is_thought(part)] or ""
    elif isinstance(content, str) and _size(content) > MOST_PART_BYTES:
        content = [_marker("text", content)]
    stored: Message = {"role": message.get("role"), "content": content}
    for name in _TEXTS[1:]:
        if isinstance(message.get(name), str):
            stored[name] = message[name]
    if tool_calls and calls_of(message):
        for name in CALLS + THOUGHT:
            value = message.get(name)
            if value is not None and (name in CALLS or _size(compact(value)) <= MOST_PART_BYTES):
                stored[name] = value
        if "tool_calls" in stored:
            stored["tool_calls"] = [_kept_call(call) for call in calls_of(message)]
        elif _size(compact(stored["function_call"])) > MOST_PART_BYTES:
            del stored["function_call"]
    return stored


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _THINKING


def _kept_part(part: Any) -> Any:
    if not isinstance(part, dict) or _size(compact(part)) <= MOST_PART_BYTES:
        return part
    if part.get("type") == "image_url" and isinstance(part.get("image_url"), dict):
        return _marker("image", str(part["image_url"].get("url")))
    return _marker("text", str(part.get("text") or ""))


def _kept_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    size = _size(compact(call))
    if size <= MOST_PART_BYTES:
        return call
    kind = "custom" if "custom" in call else "function"
    called = call[kind] if isinstance(call.get(kind), dict) else {}
    left = compact({"omitted_bytes": size})
    member = "input" if kind == "custom" else "arguments"
    members = {name: call[name] for name in ("id", "type") if name in call}
    return {**members, kind: {"name": str(called.get("name") or "")[:200], member: left}}


def _marker(of: str, left_out: str) -> dict[str, Any]:
    """`bytes` is the length of a text, or of an image itself, not of its address."""
    marker: dict[str, Any] = {"type": OMITTED, "of": of, "bytes": _size(left_out)}
    if of == "image" and left_out.startswith("data:"):
        head, _, data = left_out.partition(",")
        marker |= {"media_type": head[5:].partition(";")[0][:100], "bytes": len(data) * 3 // 4}
    return marker


def in_words(marker: Mapping[str, Any]) -> str:
    """Return what a reader, or the model, is shown in place of what was left out."""
    what = "an image" if marker.get("of") == "image" else "a text"
    kind = f" ({marker['media_type']})" if marker.get("media_type") else ""
    return f"[{what}{kind} of {marker.get('bytes', 0):,} bytes, which was not kept]"


def fitted(messages: Iterable[Message], most_bytes: int = MOST_TURN_BYTES) -> list[Message]:
    """Return the messages with as many of the largest made markers as it takes to fit."""
    fitting = list(messages)
    sizes = [_size(compact(message)) for message in fitting]
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        if sum(sizes) <= most_bytes:
            break
        message = fitting[place]
        marker = {"type": OMITTED, "of": "text", "bytes": sizes[place]}
        small = {"role": message["role"], "content": [marker]}
        if isinstance(message.get("tool_call_id"), str):
            small["tool_call_id"] = message["tool_call_id"][:100]
        fitting[place] = small
        sizes[place] = _size(compact(small))
    return fitting


def packed(messages: Sequence[Message]) -> list[int]:
    """Return the lengths of the runs of messages that each fit into one item, cut before a user's
    message. Nearly always one: a client may begin a thread with a long history of its own.
    """
    runs, size = [0], 0
    for message in messages:
        of_it = _size(compact(message))
        if message["role"] == "user" and runs[-1] and size + of_it > MOST_TURN_BYTES // 2:
            runs.append(0)
            size = 0
        runs[-1] += 1
        size += of_it
    return runs


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


# Made once: json.dumps with arguments would make one for every message.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
