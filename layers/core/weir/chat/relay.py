"""The relay: a provider's answer in, ours out, as it comes.

Rules of this file
* A client never sees half a frame, a frame twice, an empty 200, or a success that was not one.
* Upstream bytes are parsed and written again, never passed on: providers use CRLF, comments and
  cuts that the clients in the field cannot read.
* `[DONE]` means success: it follows a `finish_reason` of every choice, or it is not sent.
* Whatever fails before the first byte is raised (and becomes a plain HTTP error); after it, it is
  one error frame and the end.
* The upstream is closed whenever we stop, for whatever reason.

No I/O and no clock of its own: the upstream, `monotonic` and `cancelled` are passed in.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from weir.chat import sse
from weir.chat.masking import Mask
from weir.chat.request import ChatRequest
from weir.errors import Cancelled, DeadlineExceeded, Refusal, UpstreamFailed, UpstreamTimeout
from weir.web.request import finite, refuse_constant

COMMIT_AFTER_S = 5.0  # a provider silent for this long is committed to as 200, with heartbeats
HEARTBEAT_EVERY_S = 15.0  # under the 30 s that proxies on the way like to cut at
UPSTREAM_SILENCE_S = 300.0  # reasoning models think for minutes; counted on socket bytes
MAX_ANSWER_BYTES = 32_000_000  # of an upstream: far above what any output cap allows
# An answer that does not stream sends nothing until it is whole, and API Gateway cuts a connection
# that is silent for five minutes.
WHOLE_ANSWER_S = 285.0
CANCEL_CHECK_S = 0.5  # a cancelled request has stopped the provider within about a second
LET_END_S = 0.05  # after `[DONE]`: a connection whose body has ended can be used again


class Upstream(Protocol):
    """One open request to a provider. `mask` hides its credential, which it may quote."""

    mask: Mask

    def receive(self, timeout_s: float) -> bytes | None:
        """The next bytes; None if none came in time; b"" at the end. Raises a Refusal."""

    def close(self) -> None:
        """Stop it now, whatever it does. May be called more than once."""


@dataclass(slots=True)
class Outcome:
    """What became of a request; filled while it runs, for the log and for what it has cost."""

    outcome: str = "cancelled"  # completed | cancelled | the code of the error that ended it
    chunks: int = 0
    first_byte_s: float | None = None
    total_s: float | None = None
    usage: dict[str, Any] | None = None  # the provider's own count: the last one it sent
    # What it may bill for: a 200 that has begun, or a request that it has and says nothing to.
    # Neither is true of one that it refused, or that never reached it.
    answered: bool = False
    silent: bool = False
    whole: bool = False  # every answer was finished, whatever came then
    usage_is_final: bool = False  # it was told when every answer was
    content_bytes: int = 0  # UTF-8, of all text that the provider said, its tool calls included
    content_chunks: int = 0  # that had some; of a whole answer, choices that had some


# Makes the `usage` that a client is told; None leaves the provider's own.
Receipt = Callable[[Outcome], dict[str, Any] | None]


def _no_receipt(outcome: Outcome) -> None:
    return None


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Timing:
    """When things are given up on, in seconds; `deadline` is a reading of the same `monotonic`."""

    monotonic: Callable[[], float]
    deadline: float
    commit_after_s: float = COMMIT_AFTER_S
    heartbeat_every_s: float = HEARTBEAT_EVERY_S
    upstream_silence_s: float = UPSTREAM_SILENCE_S


def stream(
    request: ChatRequest,
    upstream: Upstream,
    completion_id: str,
    timing: Timing,
    outcome: Outcome,
    receipt: Receipt = _no_receipt,
    cancelled: Callable[[], bool] = _never,
) -> Iterator[bytes]:
    """Whole frames, as soon as they are whole.

    `receipt` makes the `usage` that a client is told, if it asked for it; what it reads of the
    outcome is complete but for `total_s`, and for `outcome` before the end. `cancelled` is called
    for every arrival, and twice a second in silence: it must be quick.

    Start it (`next`) before the answer is handed on: a generator that never started would never run
    its `finally`.
    """
    frames = _Frames(request, upstream.mask, completion_id, outcome, receipt)
    watch = _Watch(timing)
    try:
        for data in _arrivals(upstream, watch, outcome, cancelled):
            out, failure = (sse.HEARTBEAT, None) if data is None else frames.feed(data)
            if out:
                watch.spoke = timing.monotonic()
                if outcome.first_byte_s is None:
                    outcome.first_byte_s = watch.spoke - watch.started
                watch.committed = True
                yield out
            if failure is not None:
                raise failure
            if frames.done:
                with contextlib.suppress(Refusal):  # the answer is whole, whatever comes now
                    upstream.receive(LET_END_S)
                break
        else:
            yield frames.end()
        outcome.outcome = "completed"
    except Refusal as refusal:
        outcome.outcome = refusal.code
        if not watch.committed:
            raise
        yield sse.frame(_compact({"choices": [], "error": refusal.error()}))
    finally:
        outcome.total_s = timing.monotonic() - watch.started
        upstream.close()


def complete(
    upstream: Upstream,
    completion_id: str,
    timing: Timing,
    outcome: Outcome,
    receipt: Receipt = _no_receipt,
    cancelled: Callable[[], bool] = _never,
) -> bytes:
    """The whole answer of a request that does not stream, as one JSON object."""
    watch = _Watch(
        replace(timing, deadline=min(timing.deadline, timing.monotonic() + WHOLE_ANSWER_S))
    )
    pieces: list[bytes] = []
    size = 0
    try:
        for data in _arrivals(upstream, watch, outcome, cancelled):
            watch.spoke = timing.monotonic()  # nobody waits for heartbeats
            size += len(data or b"")
            if size > MAX_ANSWER_BYTES:
                raise _unreadable("it is too large")
            pieces.append(data or b"")
        answer = _object(b"".join(pieces))
        outcome.usage = _usage(answer)
        if answer.get("error"):
            raise _reported(answer, upstream.mask)
        if not isinstance(answer.get("choices"), list):
            raise _unreadable("it has no choices")
        for choice in answer["choices"]:
            said = _said(choice)
            outcome.content_bytes += said
            outcome.content_chunks += said > 0
        outcome.whole = True
        outcome.usage_is_final = outcome.usage is not None
        outcome.outcome = "completed"
        told = receipt(outcome)
        if told is not None:
            answer["usage"] = told
        answer["id"] = completion_id
        return _masked(answer, upstream.mask)
    except Refusal as refusal:
        outcome.outcome = refusal.code
        raise
    finally:
        outcome.total_s = outcome.first_byte_s = timing.monotonic() - watch.started
        upstream.close()


class _Watch:
    """When the upstream was last heard, and when the client last heard from us."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.started = self.heard = self.spoke = timing.monotonic()
        self.committed = False

    def next_sign_of_life(self) -> float:
        timing = self.timing
        return self.spoke + (timing.heartbeat_every_s if self.committed else timing.commit_after_s)


def _arrivals(
    upstream: Upstream, watch: _Watch, outcome: Outcome, cancelled: Callable[[], bool]
) -> Iterator[bytes | None]:
    """The upstream's bytes until its end, and None whenever a sign of life is due."""
    timing = watch.timing
    now = watch.started
    outcome.silent = True  # until it is heard: then it is right however we are stopped
    while True:
        silent_at = watch.heard + timing.upstream_silence_s
        wait_until = min(
            watch.next_sign_of_life(), silent_at, timing.deadline, now + CANCEL_CHECK_S
        )
        try:
            data = upstream.receive(max(0.0, wait_until - now))
        except Refusal:
            outcome.silent = False
            raise
        now = timing.monotonic()
        if data is not None:
            outcome.answered, outcome.silent = True, False
        if data == b"":
            return
        if data is not None:
            watch.heard = now
            yield data
            now = timing.monotonic()
        elif now >= silent_at:
            raise UpstreamTimeout("The provider fell silent.")
        if cancelled():  # after what has come: it is paid for
            raise Cancelled
        if now >= timing.deadline:
            raise DeadlineExceeded("The answer took longer than this deployment allows.")
        if now >= watch.next_sign_of_life():
            yield None
            now = timing.monotonic()


class _Frames:
    """Upstream bytes to our frames, and the judgement whether the answer is whole."""

    def __init__(
        self,
        request: ChatRequest,
        mask: Mask,
        completion_id: str,
        outcome: Outcome,
        receipt: Receipt,
    ) -> None:
        self._reader = sse.EventReader()
        self._mask = mask
        self._usage_wanted = request.usage_wanted
        self._id = completion_id
        self._outcome = outcome
        self._receipt = receipt
        self._usage_told = False
        self._last: dict[str, Any] = {}
        self._size = 0
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, Refusal | None]:
        """Frames for one write, and the failure that follows them, if one does."""
        self._size += len(data)
        out: list[bytes] = []
        try:
            if self._size > MAX_ANSWER_BYTES:
                raise _unreadable("it is too large")
            for event in self._reader.feed(data):
                out.append(self._frame(event))
                if self.done:
                    break
        except sse.EventTooLarge:
            return b"".join(out), _unreadable("one event is too large")
        except Refusal as refusal:
            return b"".join(out), refusal
        return b"".join(out), None

    def end(self) -> bytes:
        """The connection ended without `[DONE]`: a stream that was whole gets it from us."""
        last = self._reader.unfinished()
        if last is not None and last.data.strip() != b"[DONE]":
            raise UpstreamFailed("The provider's stream was cut in the middle of a frame.")
        return self._end_well()

    def _frame(self, event: sse.Event) -> bytes:
        if event.data.strip() == b"[DONE]":
            return self._end_well()
        chunk = self._last = _object(event.data)
        outcome, usage = self._outcome, _usage(chunk)
        if usage is not None:
            outcome.usage = usage
        if event.name == "error" or chunk.get("error"):
            raise _reported(chunk, self._mask)
        self._count(chunk.get("choices") or ())
        if usage is not None:
            outcome.usage_is_final = outcome.whole
        if not self._usage_wanted:
            if usage is not None and not chunk.get("choices"):
                return b""  # clients that did not ask for it index choices[0] of every chunk
            chunk.pop("usage", None)
        elif usage is not None:
            self._usage_told = True
            receipt = self._receipt(outcome)
            if receipt is not None:
                chunk["usage"] = receipt
        if "choices" in chunk and chunk["choices"] is None:
            chunk["choices"] = []  # clients index it
        chunk["id"] = self._id
        outcome.chunks += 1
        return sse.frame(_masked(chunk, self._mask))

    def _count(self, choices: Iterable[dict[str, Any]]) -> None:
        """What they say, and whether every answer that has begun is finished."""
        said = 0
        for choice in choices:
            said += _said(choice)
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            self._begun.add(index)
            if choice.get("finish_reason"):
                self._finished.add(index)
        outcome = self._outcome
        if said:
            outcome.content_bytes += said
            outcome.content_chunks += 1
        outcome.whole = bool(self._finished) and not self._begun - self._finished
        outcome.usage_is_final &= outcome.whole  # another answer may begin after the first

    def _end_well(self) -> bytes:
        if not self._outcome.whole:
            raise UpstreamFailed("The provider's stream ended before the answer was finished.")
        self._outcome.outcome = "completed"
        told = b""
        if self._usage_wanted and not self._usage_told:
            told = self._own_usage()
        self.done = True
        return told + sse.DONE

    def _own_usage(self) -> bytes:
        """What a client asked for and the provider did not send, formed as OpenAI forms it."""
        usage = self._receipt(self._outcome)
        if usage is None:
            return b""
        created, model = self._last.get("created"), self._last.get("model")
        chunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": created if isinstance(created, int) else 0,
            "model": model if isinstance(model, str) else "",
            "choices": [],
            "usage": usage,
        }
        return sse.frame(_masked(chunk, self._mask))


def _object(data: bytes) -> dict[str, Any]:
    """A chunk or a completion. What indexes it relies on `choices` being a list of objects."""
    try:
        value = _DECODER.decode(data.decode())
    except (ValueError, RecursionError):
        raise _unreadable("it is not JSON") from None
    if not isinstance(value, dict):
        raise _unreadable("it is not an object")
    choices = value.get("choices")
    if choices and not (isinstance(choices, list) and all(isinstance(c, dict) for c in choices)):
        raise _unreadable("its choices are not a list of objects")
    return value


def _usage(value: dict[str, Any]) -> dict[str, Any] | None:
    usage = value.get("usage")
    return usage if isinstance(usage, dict) else None


def _said(choice: dict[str, Any]) -> int:
    """UTF-8 bytes of the text in a choice's `delta` or `message`. Other types count nothing.

    A `message` beside a `delta` is taken to repeat it.
    """
    message = choice.get("delta")
    if message is None:
        message = choice.get("message")
    if not isinstance(message, dict):
        return 0
    size = 0
    for name, value in message.items():
        if name in _TEXTS:
            if isinstance(value, list):
                size += sum(_utf8(part.get("text")) for part in value if isinstance(part, dict))
            else:
                size += _utf8(value)
        elif name == "tool_calls" and isinstance(value, list):
            for call in value:
                if isinstance(call, dict):
                    size += _called(call.get("function")) + _called(call.get("custom"))
        elif name == "function_call":
            size += _called(value)
    return size


def _called(tool: object) -> int:
    if not isinstance(tool, dict):
        return 0
    return _utf8(tool.get("name")) + _utf8(tool.get("arguments")) + _utf8(tool.get("input"))


def _utf8(value: object) -> int:
    if not isinstance(value, str):
        return 0
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))


def _reported(chunk: dict[str, Any], mask: Mask) -> Refusal:
    """A failure told inside a 200."""
    error = chunk.get("error")
    told = error.get("message") if isinstance(error, dict) else error or chunk.get("message")
    message = mask.text(told)[:1000] if isinstance(told, str) and told else "no reason given"
    return UpstreamFailed(f"The provider failed: {message}")


def _unreadable(why: str) -> Refusal:
    return UpstreamFailed(
        f"The provider's answer cannot be read: {why}.", code="upstream_invalid_response"
    )


def _masked(value: dict[str, Any], mask: Mask) -> bytes:
    """As one line of JSON, without the provider's credential."""
    line = _compact(value)
    return _compact(mask.value(value)) if mask.is_needed(line) else line


def _compact(value: dict[str, Any]) -> bytes:
    # A lone surrogate cannot be UTF-8; its JSON escape can.
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace")


_TEXTS = frozenset({"content", "reasoning_content", "reasoning", "refusal"})

# Made once: json.loads and json.dumps with arguments would make one for every chunk.
_DECODER = json.JSONDecoder(parse_constant=refuse_constant, parse_float=finite)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
