"""The relay: a provider's answer in, ours out, as it comes.

Rules of this file
* A client never sees half a frame, a frame twice, an empty 200, or a success that was not one.
* Upstream bytes are parsed and written again, never passed on: providers use CRLF, comments and
  cuts that the clients in the field cannot read.
* `[DONE]` means success: it follows a `finish_reason` of every choice, or it is not sent.
* Whatever fails before the first byte is raised (and becomes a plain HTTP error); after it, it is
  one error frame and the end.
* The upstream is closed whenever we stop, for whatever reason.

No I/O and no clock of its own: the upstream and `monotonic` are passed in.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from weir import sse
from weir.chat import ChatRequest
from weir.errors import DeadlineExceeded, Refusal, UpstreamFailed, UpstreamTimeout
from weir.events import finite, refuse_constant

COMMIT_AFTER_S = 5.0  # a provider silent for this long is committed to as 200, with heartbeats
HEARTBEAT_EVERY_S = 15.0  # under the 30 s that proxies on the way like to cut at
UPSTREAM_SILENCE_S = 300.0  # reasoning models think for minutes; counted on socket bytes
MAX_ANSWER_BYTES = 32_000_000  # of an upstream: far above what any output cap allows
# An answer that does not stream sends nothing until it is whole, and API Gateway cuts a connection
# that is silent for five minutes.
WHOLE_ANSWER_S = 285.0
LET_END_S = 0.05  # after `[DONE]`: a connection whose body has ended can be used again


class Upstream(Protocol):
    """One open request to a provider. `secret` is its credential: a provider that quotes it back
    must not make us tell it.
    """

    secret: bytes

    def receive(self, timeout_s: float) -> bytes | None:
        """The next bytes; None if none came in time; b"" at the end. Raises a Refusal."""

    def close(self) -> None:
        """Stop it now, whatever it does. May be called more than once."""


@dataclass(slots=True)
class Outcome:
    """What became of a request; filled while it runs, for the log."""

    outcome: str = "cancelled"  # completed | cancelled | the code of the error that ended it
    chunks: int = 0
    first_byte_s: float | None = None
    total_s: float | None = None
    usage: dict[str, Any] | None = None  # the provider's own count


@dataclass(frozen=True, slots=True)
class Timing:
    """When things are given up on, in seconds; `deadline` is a reading of the same `monotonic`."""

    monotonic: Callable[[], float]
    deadline: float
    commit_after_s: float = COMMIT_AFTER_S
    heartbeat_every_s: float = HEARTBEAT_EVERY_S
    upstream_silence_s: float = UPSTREAM_SILENCE_S


def stream(
    request: ChatRequest, upstream: Upstream, completion_id: str, timing: Timing, outcome: Outcome
) -> Iterator[bytes]:
    """Whole frames, as soon as they are whole.

    Start it (`next`) before the answer is handed on: a generator that never started would never run
    its `finally`.
    """
    frames = _Frames(request, upstream.secret, completion_id, outcome)
    watch = _Watch(timing)
    try:
        for data in _arrivals(upstream, watch):
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


def complete(upstream: Upstream, completion_id: str, timing: Timing, outcome: Outcome) -> bytes:
    """The whole answer of a request that does not stream, as one JSON object."""
    watch = _Watch(
        replace(timing, deadline=min(timing.deadline, timing.monotonic() + WHOLE_ANSWER_S))
    )
    pieces: list[bytes] = []
    size = 0
    try:
        for data in _arrivals(upstream, watch):
            watch.spoke = timing.monotonic()  # nobody waits for heartbeats
            size += len(data or b"")
            if size > MAX_ANSWER_BYTES:
                raise _unreadable("it is too large")
            pieces.append(data or b"")
        answer = _object(b"".join(pieces).replace(upstream.secret, b"***"))
        if answer.get("error"):
            raise _reported(answer)
        if not isinstance(answer.get("choices"), list):
            raise _unreadable("it has no choices")
        answer["id"] = completion_id
        outcome.usage = _usage(answer)
        outcome.outcome = "completed"
        return _compact(answer)
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


def _arrivals(upstream: Upstream, watch: _Watch) -> Iterator[bytes | None]:
    """The upstream's bytes until its end, and None whenever a sign of life is due."""
    timing = watch.timing
    now = watch.started
    while True:
        silent_at = watch.heard + timing.upstream_silence_s
        wait_until = min(watch.next_sign_of_life(), silent_at, timing.deadline)
        data = upstream.receive(max(0.0, wait_until - now))
        now = timing.monotonic()
        if data == b"":
            return
        if data is not None:
            watch.heard = now
            yield data
            now = timing.monotonic()
        elif now >= silent_at:
            raise UpstreamTimeout("The provider fell silent.")
        if now >= timing.deadline:
            raise DeadlineExceeded("The answer took longer than this deployment allows.")
        if now >= watch.next_sign_of_life():
            yield None
            now = timing.monotonic()


class _Frames:
    """Upstream bytes to our frames, and the judgement whether the answer is whole."""

    def __init__(
        self, request: ChatRequest, secret: bytes, completion_id: str, outcome: Outcome
    ) -> None:
        self._reader = sse.EventReader()
        self._secret = secret
        self._usage_wanted = request.usage_wanted
        self._id = completion_id
        self._outcome = outcome
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
        chunk = _object(event.data.replace(self._secret, b"***"))
        if event.name == "error" or chunk.get("error"):
            raise _reported(chunk)
        for choice in chunk.get("choices") or ():
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            self._begun.add(index)
            if choice.get("finish_reason"):
                self._finished.add(index)
        usage = _usage(chunk)
        if usage is not None:
            self._outcome.usage = usage
        if not self._usage_wanted:
            if usage is not None and not chunk.get("choices"):
                return b""  # clients that did not ask for it index choices[0] of every chunk
            chunk.pop("usage", None)
        if "choices" in chunk and chunk["choices"] is None:
            chunk["choices"] = []  # clients index it
        chunk["id"] = self._id
        self._outcome.chunks += 1
        return sse.frame(_compact(chunk))

    def _end_well(self) -> bytes:
        if not self._finished or self._begun - self._finished:
            raise UpstreamFailed("The provider's stream ended before the answer was finished.")
        self.done = True
        return sse.DONE


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


def _reported(chunk: dict[str, Any]) -> Refusal:
    """A failure told inside a 200."""
    error = chunk.get("error")
    told = error.get("message") if isinstance(error, dict) else error or chunk.get("message")
    message = told[:1000] if isinstance(told, str) and told else "no reason given"
    return UpstreamFailed(f"The provider failed: {message}")


def _unreadable(why: str) -> Refusal:
    return UpstreamFailed(
        f"The provider's answer cannot be read: {why}.", code="upstream_invalid_response"
    )


def _compact(value: dict[str, Any]) -> bytes:
    # A lone surrogate cannot be UTF-8; its JSON escape can.
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace")


# Made once: json.loads and json.dumps with arguments would make one for every chunk.
_DECODER = json.JSONDecoder(parse_constant=refuse_constant, parse_float=finite)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
