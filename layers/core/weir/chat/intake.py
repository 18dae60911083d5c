"""A provider's body, whatever its form: bytes in, normal chunks out, or one normal completion.

What was asked for does not decide what comes. Some answer a request to stream with one JSON
document, some answer any request with a stream, and some name neither rightly. So the first bytes
decide.
"""

import json
from collections.abc import Iterator
from typing import Any

from weir.chat import sse
from weir.chat.failures import event_is_failure, refusal_in_answer
from weir.chat.masking import Mask
from weir.chat.normaliser import Normaliser, unreadable
from weir.chat.outcome import Outcome, State
from weir.errors import Refusal, UpstreamFailed
from weir.web.request import finite, refuse_constant

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_BLANK = b" \t\r\n\xef\xbb\xbf"

# Made once: json.loads with arguments would make one for every chunk.
_DECODER = json.JSONDecoder(parse_constant=refuse_constant, parse_float=finite)


class Intake:
    """Of one answer. A body that is longer than its bound is refused."""

    def __init__(
        self,
        normaliser: Normaliser,
        mask: Mask,
        outcome: Outcome,
        *,
        most_document_bytes: int,
        most_stream_bytes: int,
    ) -> None:
        self._normaliser = normaliser
        self._mask = mask
        self._outcome = outcome
        self._size = 0
        self._most_document_bytes = most_document_bytes
        self._most_stream_bytes = most_stream_bytes
        self._head = b""
        self._events: sse.EventReader | None = None
        self._document: list[bytes] | None = None
        self.done = False  # `[DONE]` has come

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the chunks that these bytes complete. Raise the refusal for what fails or cannot be
        read; what was yielded before stays right.
        """
        self._size += len(data)
        streams = self._events is not None
        if self._size > (self._most_stream_bytes if streams else self._most_document_bytes):
            self._outcome.state = State.SPEAKING  # so much was said, and is paid for
            raise unreadable("it is too large")
        if self._events is not None:
            yield from self._chunks(self._events, data)
        elif self._document is not None:
            self._document.append(data)
        else:
            self._head += data
            self._decide()
            if self._events is not None:
                data, self._head = self._head, b""
                yield from self._chunks(self._events, data)

    def end(self) -> Iterator[dict[str, Any]]:
        """Yield what the end of the body completes: the chunks of a whole answer. A stream that is
        cut in the middle of an event raises UpstreamFailed.
        """
        if self._document is not None:
            yield from split(self.completion())
        elif self._events is None:
            if self._head.strip(_BLANK):
                raise unreadable("it is neither JSON nor an event stream")
        else:
            last = self._events.unfinished()
            if last is not None and last.data.strip() == b"[DONE]":
                self.done = True
            elif last is not None and last.data.strip():
                raise UpstreamFailed("The provider's stream was cut in the middle of a frame.")

    @property
    def is_document(self) -> bool:
        return self._document is not None

    def completion(self) -> dict[str, Any]:
        """Return the whole answer of a body that is one JSON document."""
        assert self._document is not None
        return self._normaliser.completion(_parsed(b"".join(self._document)))

    def _decide(self) -> None:
        """By the first bytes; undecided until there are enough of them."""
        head = self._head.lstrip(_BLANK)
        if not head:
            return
        if head[:1] in (b"{", b"["):
            self._document, self._head = [self._head.lstrip(_BLANK)], b""
        elif head.startswith(_FIELDS):
            self._events = sse.EventReader()
        elif not any(field.startswith(head) for field in _FIELDS):
            raise unreadable("it is neither JSON nor an event stream")

    def _chunks(self, events: sse.EventReader, data: bytes) -> Iterator[dict[str, Any]]:
        try:
            found = events.feed(data)
        except sse.EventTooLarge:
            self._outcome.state = State.SPEAKING  # so much was said, and is paid for
            raise unreadable("one event is too large") from None
        for event in found:
            text = event.data.strip()
            if not text:
                continue  # a sign of life
            if text == b"[DONE]":
                self.done = True
                return
            if event_is_failure(event.name):
                silent = self._outcome.content_chunks == 0
                raise refusal_in_answer(_failure(event), self._mask, before_any_word=silent)
            chunk = self._normaliser.chunk(_parsed(event.data))
            if chunk is not None:
                yield chunk


def split(completion: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a whole answer as the chunks of a stream: what is said, then how it ends."""
    common = {name: completion[name] for name in ("id", "created", "model")}
    common["object"] = "chat.completion.chunk"
    begins, ends = [], []
    for choice in completion["choices"]:
        delta = {name: value for name, value in choice["message"].items() if value is not None}
        if "tool_calls" in delta:
            delta["tool_calls"] = [
                {"index": place, **call} for place, call in enumerate(delta["tool_calls"])
            ]
        kept = {name: choice[name] for name in ("logprobs",) if name in choice}
        begins.append({"index": choice["index"], "delta": delta, "finish_reason": None, **kept})
        ends.append(
            {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}
        )
    yield {**common, "choices": begins}
    yield {**common, "choices": ends}
    if isinstance(completion.get("usage"), dict):
        yield {**common, "choices": [], "usage": completion["usage"]}


class Accumulator:
    """Chunks of a stream, put together into one whole answer, as clients do it."""

    def __init__(self) -> None:
        self._first: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] | None = None

    def add(self, chunk: dict[str, Any]) -> None:
        self._first = self._first or chunk
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        for choice in chunk["choices"]:
            whole = self._choices.setdefault(
                choice["index"],
                {
                    "index": choice["index"],
                    "message": {"role": "assistant", "content": None},
                    "finish_reason": None,
                },
            )
            _merge(whole["message"], choice["delta"])
            for name, value in choice.items():
                if name == "logprobs" and isinstance(value, dict):
                    _merge(whole.setdefault(name, {}), value)
                elif name not in ("index", "delta") and value is not None:
                    whole[name] = value

    def completion(self) -> dict[str, Any]:
        kept = {n: v for n, v in self._first.items() if n not in ("choices", "usage", "object")}
        usage = {} if self._usage is None else {"usage": self._usage}
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {**kept, "object": "chat.completion", "choices": choices, **usage}


def _merge(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if value is None:
            continue
        there = whole.get(name)
        if name == "tool_calls":
            calls = whole.setdefault(name, [])
            for call in value:
                while len(calls) <= call["index"]:
                    calls.append({})
                _merge(calls[call["index"]], {n: v for n, v in call.items() if n != "index"})
        elif isinstance(there, str) and isinstance(value, str) and name not in _SAID_ONCE:
            whole[name] = there + value
        elif isinstance(there, dict) and isinstance(value, dict):
            _merge(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            there.extend(value)
        else:
            whole[name] = dict(value) if isinstance(value, dict) else value


_SAID_ONCE = frozenset({"role", "id", "type", "name"})


def _failure(event: sse.Event) -> object:
    """What an `event: error` says; some say it as plain text."""
    try:
        return _parsed(event.data)
    except Refusal:
        return event.data.decode("utf-8", "replace")


def _parsed(data: bytes) -> object:
    try:
        return _DECODER.decode(data.decode())
    except (ValueError, RecursionError):
        raise unreadable("it is not JSON") from None
