"""A provider's body, whatever its form: bytes in, normal chunks out, or one normal completion.

What was asked for does not decide what comes. Some answer a request to stream with one JSON
document, some answer any request with a stream, and some name neither rightly. So the first bytes
decide.
"""

from collections.abc import Callable, Iterator
from typing import Any

from weir.chat import sse
from weir.chat.detection import event_is_failure
from weir.chat.json_lines import DECODER
from weir.chat.masking import Mask
from weir.chat.normaliser import Normaliser, unreadable
from weir.chat.outcome import Outcome, State
from weir.errors import Refusal, UpstreamFailed

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_BLANK = b" \t\r\n\xef\xbb\xbf"
_SIGNS_OF_LIFE = frozenset({"ping", "heartbeat", "keepalive", "keep-alive"})  # names of events
# Beyond this depth Python's recursion has an end, in places that differ by its version.
MOST_NESTED = 200


Chunk = dict[str, Any]


def none_known(data: bytes) -> bytes | None:
    return None


class Intake:
    """Of one answer. A body that is longer than its bound is refused.

    `known` is called with the data of each event that is a chunk. If it returns a frame, that is
    yielded in the place of the chunk, which is not read. `event` is the data of the last one.
    """

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
        self.known: Callable[[bytes], bytes | None] = none_known
        self.event = b""

    def feed(self, data: bytes) -> Iterator[Chunk | bytes]:
        """Yield the chunks that these bytes complete. Raise the refusal for what fails or cannot be
        read; what was yielded before stays right.
        """
        self._size += len(data)
        if self._events is None and self._document is None:
            self._head += data
            self._decide()
            data = self._head
            if self._events is not None or self._document is not None:
                self._head = b""
        streams = self._events is not None
        if self._size > (self._most_stream_bytes if streams else self._most_document_bytes):
            self._outcome.state = State.SPEAKING  # so much was said, and is paid for
            raise unreadable("it is too large")
        if self._events is not None:
            yield from self._chunks(self._read(self._events, data))
        elif self._document is not None:
            self._document.append(data)
            if self._outcome.state is State.BEGUN:
                self._outcome.state = State.SPEAKING  # how much of it is done cannot be known

    def end(self) -> Iterator[Chunk | bytes]:
        """Yield what the end of the body completes: the chunks of a whole answer, or the last event
        of a stream whose blank line is missing. One that is cut in the middle raises
        UpstreamFailed, unless the answer was finished before it.
        """
        if self._document is not None:
            yield from split(self.completion())
        elif self._events is None:
            if self._head.strip(_BLANK):
                raise unreadable("it is neither JSON nor an event stream")
        else:
            ended, last = self._events.end()
            if last is not None and _is_whole(last):
                ended.append(last)
            elif last is not None and not self._normaliser.is_over:
                raise UpstreamFailed("The provider's stream was cut in the middle of a frame.")
            yield from self._chunks(ended)

    @property
    def is_document(self) -> bool:
        return self._document is not None

    @property
    def is_stream(self) -> bool:
        return self._events is not None

    def completion(self) -> dict[str, Any]:
        """Return the whole answer of a body that is one JSON document."""
        assert self._document is not None
        return self._normaliser.completion(_parsed(b"".join(self._document).strip(_BLANK)))

    def _decide(self) -> None:
        """By the first bytes; undecided until there are enough of them."""
        head = self._head.lstrip(_BLANK)
        if not head:
            return
        if head[:1] in (b"{", b"["):
            self._document = []
        elif head.startswith(_FIELDS):
            self._events = sse.EventReader()
        elif not any(field.startswith(head) for field in _FIELDS):
            raise unreadable("it is neither JSON nor an event stream")

    def _read(self, events: sse.EventReader, data: bytes) -> list[sse.Event]:
        try:
            return events.feed(data)
        except sse.EventTooLarge:
            self._outcome.state = State.SPEAKING  # so much was said, and is paid for
            raise unreadable("one event is too large") from None

    def _chunks(self, events: list[sse.Event]) -> Iterator[Chunk | bytes]:
        for event in events:
            chunk = self._chunk(event)
            if chunk is not None:
                yield chunk
            elif self.done:
                return

    def _chunk(self, event: sse.Event) -> Chunk | bytes | None:
        text = event.data.strip()
        if not text or event.name in _SIGNS_OF_LIFE:
            return None
        if text == b"[DONE]":
            self.done = True
            return None
        if event.name != "message" and event_is_failure(event.name):
            silent = self._outcome.content_chunks == 0
            from weir.chat.failures import refusal_in_answer  # few processes need it

            raise refusal_in_answer(_failure(text), self._mask, before_any_word=silent)
        self.event = text
        return self.known(text) or self._normaliser.chunk(_parsed(text))


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
        self._model = ""
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] | None = None

    def add(self, chunk: dict[str, Any]) -> None:
        self._first = self._first or chunk
        self._model = chunk["model"]  # not every provider says it in the first chunk
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
        kept = {n: v for n, v in self._first.items() if n not in ("choices", "usage")}
        kept |= {"object": "chat.completion", "model": self._model}
        usage = {} if self._usage is None else {"usage": self._usage}
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {**kept, "choices": choices, **usage}


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
        elif isinstance(there, str) and isinstance(value, str):
            whole[name] = (value or there) if name in _SAID_ONCE else there + value
        elif isinstance(there, dict) and isinstance(value, dict):
            _merge(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            there.extend(value)
        else:
            whole[name] = dict(value) if isinstance(value, dict) else value


_SAID_ONCE = frozenset({"role", "id", "type"})


def _is_whole(event: sse.Event) -> bool:
    """Whether an event at the end of a stream is all there, though its blank line is not."""
    text = event.data.strip()
    if text in (b"", b"[DONE]") or event_is_failure(event.name):
        return True
    try:
        return isinstance(_parsed(text), dict | list)
    except Refusal:
        return False


def _failure(text: bytes) -> object:
    """What an `event: error` says; some say it as plain text."""
    try:
        return _parsed(text)
    except Refusal:
        return text.decode("utf-8", "replace")


def _parsed(data: bytes) -> object:
    """Read one JSON document without blanks around it. A byte that is no UTF-8 is replaced, as the
    standard of event streams says.
    """
    text = data.decode("utf-8", "replace")
    try:
        value, end = DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        raise unreadable("it is not JSON") from None
    if end != len(text):
        raise unreadable("it is not JSON")
    if len(text) > 2 * MOST_NESTED and _is_nested_deeply(value, text):
        raise unreadable("it is nested too deeply")
    return value


def _is_nested_deeply(value: object, text: str) -> bool:
    if text.count("[") + text.count("{") <= MOST_NESTED:
        return False
    level = [value]
    for _ in range(MOST_NESTED):
        holders = [each for each in level if isinstance(each, dict | list)]
        level = [
            each
            for holder in holders
            for each in (holder.values() if isinstance(holder, dict) else holder)
        ]
    return bool(level)
