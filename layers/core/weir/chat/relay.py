"""The relay: a provider's answer in, ours out, as it comes.

Rules of this file
* A client never sees half a frame, a frame twice, an empty 200, or a success that was not one.
* Upstream bytes are parsed and written again, never passed on: providers use CRLF, comments, cuts
  and dialects that the clients in the field cannot read (`intake`, `normaliser`).
* `[DONE]` means success: it follows a `finish_reason` of every choice, or it is not sent.
* Whatever fails before the first byte is raised (and becomes a plain HTTP error); after it, it is
  one error frame and the end.
* The upstream is closed whenever we stop, for whatever reason.

No I/O and no clock of its own: the upstream, `monotonic` and `cancelled` are passed in.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from weir.chat import sse
from weir.chat.cap import Cap
from weir.chat.intake import Accumulator, Intake
from weir.chat.json_lines import compact
from weir.chat.masking import Mask
from weir.chat.normaliser import Normaliser
from weir.chat.outcome import Ending, Outcome, State
from weir.chat.repeats import Repeats
from weir.errors import Cancelled, DeadlineExceeded, Refusal, UpstreamFailed, UpstreamTimeout

COMMIT_AFTER_S = 5.0  # a provider silent for this long is committed to as 200, with heartbeats
HEARTBEAT_EVERY_S = 15.0  # under the 30 s that proxies on the way like to cut at
UPSTREAM_SILENCE_S = 300.0  # reasoning models think for minutes; counted on socket bytes
# An answer that does not stream sends nothing until it is whole, and API Gateway cuts a connection
# that is silent for five minutes.
WHOLE_ANSWER_S = 285.0
CANCEL_CHECK_S = 0.5  # a cancelled request has stopped the provider within about a second
LET_END_S = 0.05  # after `[DONE]`: a connection whose body has ended can be used again
# A finished answer whose stream goes on: for its usage, and for `[DONE]` when that has come, too.
LET_TELL_USAGE_S = 5.0
LET_SAY_DONE_S = 0.25

# A whole answer is held in memory: its size is bounded by what its tokens can take. A token may
# have 128 bytes, which JSON may escape; log probabilities take some 100 for each alternative.
DOCUMENT_BASE_BYTES = 256_000
DOCUMENT_BYTES_PER_TOKEN = 800
LOGPROBS_BYTES_PER_TOKEN = 4_000
MOST_DOCUMENT_BYTES = 32_000_000
# A stream is not held. It may have a chunk of some 500 bytes for each character of each token.
STREAM_BASE_BYTES = 32_000_000
STREAM_BYTES_PER_TOKEN = 16_000


class Upstream(Protocol):
    """One open request to a provider. `mask` hides its credential, which it may quote."""

    mask: Mask

    def receive(self, timeout_s: float) -> bytes | None:
        """The next bytes; None if none came in time; b"" at the end. Raises a Refusal."""

    def close(self) -> None:
        """Stop it now, whatever it does. May be called more than once."""


# Makes the `usage` that a client is told; None leaves the provider's own.
Receipt = Callable[[Outcome], dict[str, Any] | None]


# Hears what a client is sent: chunks, or a whole answer; and the mask of the provider's key.
Hear = Callable[[dict[str, Any], Mask], None]


def no_receipt(outcome: Outcome) -> None:
    return None


def unheard(said: dict[str, Any], mask: Mask) -> None:
    return None


def never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Timing:
    """When things are given up on, in seconds; `deadline` is a reading of the same `monotonic`."""

    monotonic: Callable[[], float]
    deadline: float
    commit_after_s: float = COMMIT_AFTER_S
    heartbeat_every_s: float = HEARTBEAT_EVERY_S
    upstream_silence_s: float = UPSTREAM_SILENCE_S
    let_tell_usage_s: float = LET_TELL_USAGE_S
    let_say_done_s: float = LET_SAY_DONE_S


@dataclass(frozen=True, slots=True)
class Answering:
    """What the relay has to know of a request. `output_tokens` is what was admitted, for all of its
    `choices` together; `created` (Unix seconds) is for providers that do not say when.

    `receipt` makes the `usage` that a client is told, if it asked for it; what it reads of the
    outcome is complete but for `total_s`, and for `outcome` before the end. `model` is told as the
    answer's; None: what the provider calls it. `cancelled` is called
    for every arrival, and twice a second in silence: it must be quick. `hear` is called for all
    that the client is sent of the answer, in order.
    """

    completion_id: str
    created: int
    output_tokens: int
    choices: int = 1
    usage_wanted: bool = False
    logprobs: bool = False
    model: str | None = None
    receipt: Receipt = no_receipt
    cancelled: Callable[[], bool] = never
    hear: Hear = unheard

    @property
    def most_document_bytes(self) -> int:
        a_token = DOCUMENT_BYTES_PER_TOKEN + LOGPROBS_BYTES_PER_TOKEN * self.logprobs
        return min(DOCUMENT_BASE_BYTES + self.output_tokens * a_token, MOST_DOCUMENT_BYTES)

    @property
    def most_stream_bytes(self) -> int:
        return STREAM_BASE_BYTES + self.output_tokens * STREAM_BYTES_PER_TOKEN


def stream(
    answering: Answering, upstream: Upstream, timing: Timing, outcome: Outcome
) -> Iterator[bytes]:
    """Whole frames, as soon as they are whole.

    Start it (`next`) before the answer is handed on: a generator that never started would never run
    its `finally`.
    """
    frames = _Frames(answering, upstream.mask, outcome)
    watch = Watch(timing)
    try:
        for data in arrivals(upstream, watch, outcome, answering.cancelled, frames.let_go_after):
            out, failure = (sse.HEARTBEAT, None) if data is None else frames.feed(data)
            if out:
                now = timing.monotonic()
                if not watch.committed:
                    outcome.first_byte_s = now - watch.started
                watch.speak(now)
                yield out
            if failure is not None:
                outcome.ending = Ending.BROKEN
                raise failure
            if frames.done:
                if outcome.ending is not Ending.CUT:
                    with contextlib.suppress(Refusal):  # the answer is whole, whatever comes now
                        upstream.receive(LET_END_S)
                break
        else:
            yield frames.end()
    except Refusal as refusal:
        outcome.fail(refusal)
        if not watch.committed:
            raise
        yield sse.frame(compact(error_chunk(refusal)))
    finally:
        outcome.total_s = timing.monotonic() - watch.started
        upstream.close()


def completed(
    answering: Answering, upstream: Upstream, timing: Timing, outcome: Outcome
) -> Iterator[bytes]:
    """Yield what `complete` returns."""
    yield complete(answering, upstream, timing, outcome)


def complete(answering: Answering, upstream: Upstream, timing: Timing, outcome: Outcome) -> bytes:
    """The whole answer of a request that does not stream, as one JSON object."""
    watch = Watch(
        replace(timing, deadline=min(timing.deadline, timing.monotonic() + WHOLE_ANSWER_S))
    )
    whole = _Whole(answering, upstream.mask, outcome)
    try:
        for data in arrivals(upstream, watch, outcome, answering.cancelled, whole.let_go_after):
            watch.sign_of_life_at = float("inf")  # nobody waits for heartbeats
            if data is not None:
                whole.feed(data)
                if whole.done:
                    break
        return whole.end()
    except Refusal as refusal:
        outcome.fail(refusal)
        raise
    finally:
        outcome.total_s = outcome.first_byte_s = timing.monotonic() - watch.started
        upstream.close()


def error_chunk(refusal: Refusal) -> dict[str, Any]:
    """What ends a stream that has failed: `error` and nothing beside it.

    Every published client takes this form for a failure. With a list of `choices` beside it, even
    an empty one, the AI SDK reads a chunk that says nothing (docs/clients.md).
    """
    return {"error": refusal.error()}


class Watch:
    """When the upstream was last heard, and when the client is to hear from us."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.started = self.heard = timing.monotonic()
        self.committed = False
        self.sign_of_life_at = self.started + timing.commit_after_s

    def speak(self, now: float) -> None:
        self.committed = True
        self.sign_of_life_at = now + self.timing.heartbeat_every_s


def arrivals(
    upstream: Upstream,
    watch: Watch,
    outcome: Outcome,
    cancelled: Callable[[], bool],
    let_go_after: Callable[[Timing], float | None],
) -> Iterator[bytes | None]:
    """The upstream's bytes until its end, and None whenever a sign of life is due.

    An answer that is over ends it after `let_go_after` seconds, whatever its connection does.
    """
    timing = watch.timing
    now = watch.started
    outcome.state = State.UNHEARD
    let_go_at = float("inf")
    while True:
        silent_at = watch.heard + timing.upstream_silence_s
        wait_until = min(
            watch.sign_of_life_at, silent_at, timing.deadline, now + CANCEL_CHECK_S, let_go_at
        )
        data = _received(upstream, max(0.0, wait_until - now), outcome, let_go_after, timing)
        now = timing.monotonic()
        if data == b"":
            return
        if data is not None:
            watch.heard = now
            yield data
            now = timing.monotonic()
            let_go_s = let_go_after(timing) if outcome.state is State.FINISHED else None
            if let_go_s is None:
                let_go_at = float("inf")
            else:
                let_go_at = min(let_go_at, now + let_go_s, timing.deadline)
        elif now >= silent_at:
            raise UpstreamTimeout("The provider fell silent.")
        if cancelled():  # after what has come: it is paid for
            raise Cancelled
        if now >= let_go_at:
            return
        if now >= timing.deadline:
            raise DeadlineExceeded("The answer took longer than this deployment allows.")
        if now >= watch.sign_of_life_at:
            yield None
            now = timing.monotonic()


def _received(
    upstream: Upstream,
    timeout_s: float,
    outcome: Outcome,
    let_go_after: Callable[[Timing], float | None],
    timing: Timing,
) -> bytes | None:
    """As Upstream.receive. A connection that breaks after the answer was over has ended."""
    try:
        data = upstream.receive(timeout_s)
    except Refusal:
        if let_go_after(timing) is not None:
            return b""
        outcome.ending = Ending.BROKEN
        if outcome.state is State.UNHEARD:
            outcome.state = State.REFUSED
        raise
    if outcome.state is State.UNHEARD and data is not None:
        outcome.state = State.BEGUN
    return data


class _Reading:
    """What reading a stream and reading a whole answer have in common."""

    def __init__(self, answering: Answering, mask: Mask, outcome: Outcome) -> None:
        self._answering = answering
        self._mask = mask
        self._outcome = outcome
        self._normaliser = Normaliser(
            answering.completion_id,
            answering.created,
            answering.choices,
            mask,
            outcome,
            model=answering.model,
        )
        self._intake = Intake(
            self._normaliser,
            mask,
            outcome,
            most_document_bytes=answering.most_document_bytes,
            most_stream_bytes=answering.most_stream_bytes,
        )
        self._cap = Cap(answering.output_tokens)
        self.done = False

    def let_go_after(self, timing: Timing) -> float | None:
        """Seconds for which a finished answer's stream is still listened to; None: it goes on."""
        if not self._normaliser.is_over:
            return None
        final = self._outcome.usage_is_final
        return timing.let_say_done_s if final else timing.let_tell_usage_s

    def _is_used_up(self) -> bool:
        """Whether the provider has surely produced more than was admitted."""
        outcome = self._outcome
        if outcome.state is State.FINISHED:
            return False
        return self._cap.is_passed(self._normaliser.texts, outcome.usage)

    def _require_whole(self) -> None:
        if self._outcome.state is not State.FINISHED:
            self._outcome.ending = Ending.BROKEN
            raise UpstreamFailed("The provider's stream ended before the answer was finished.")


class _Frames(_Reading):
    """Upstream bytes to our frames, and the judgement whether the answer is whole."""

    def __init__(self, answering: Answering, mask: Mask, outcome: Outcome) -> None:
        super().__init__(answering, mask, outcome)
        self._usage_told = False
        hear = None if answering.hear is unheard else answering.hear
        self._repeats = Repeats(self._normaliser, mask, outcome, hear)
        self._intake.known = self._repeats.frame

    def feed(self, data: bytes) -> tuple[bytes, Refusal | None]:
        """Frames for one write, and the failure that follows them, if one does."""
        out: list[bytes] = []
        try:
            for chunk in self._intake.feed(data):
                if isinstance(chunk, bytes):
                    out.append(chunk)
                elif self._is_for_the_caller(chunk):
                    out.append(self._line(chunk))
                    self._repeats.learn(self._intake.event, chunk)
                if self._is_used_up():
                    out += self._cut()
                    break
            else:
                if self._intake.done:
                    out += self._end_well()
        except Refusal as refusal:
            return b"".join(out), refusal
        return b"".join(out), None

    def end(self) -> bytes:
        """The body ended without `[DONE]`: a stream that was whole gets it from us."""
        try:
            chunks = [
                chunk
                for chunk in self._intake.end()
                if isinstance(chunk, bytes) or self._is_for_the_caller(chunk)
            ]
        except Refusal:
            self._outcome.ending = Ending.BROKEN
            raise
        out = [chunk if isinstance(chunk, bytes) else self._line(chunk) for chunk in chunks]
        return b"".join([*out, *self._end_well()])

    def _is_for_the_caller(self, chunk: dict[str, Any]) -> bool:
        """Put our receipt in the place of the provider's usage, or take it out."""
        if not self._answering.usage_wanted:
            chunk.pop("usage", None)
            # Clients that did not ask for it index choices[0] of every chunk.
            has_more = bool(chunk["choices"])
            self._outcome.chunks += has_more
            return has_more
        self._outcome.chunks += 1
        if isinstance(chunk.get("usage"), dict):
            self._usage_told = self._outcome.usage_is_final
            receipt = self._answering.receipt(self._outcome)
            if receipt is not None:
                chunk["usage"] = receipt
        return True

    def _end_well(self) -> list[bytes]:
        self._require_whole()
        self._outcome.complete()
        return self._last_frames()

    def _cut(self) -> list[bytes]:
        """End the answer ourselves: what was admitted is used up."""
        ends = [
            self._line(self._normaliser.end_of(index, "length"))
            for index in self._normaliser.unfinished
        ]
        self._outcome.cut()
        return [*ends, *self._last_frames()]

    def _last_frames(self) -> list[bytes]:
        self.done = True
        usage = None
        is_told = self._usage_told and self._outcome.usage_is_final
        if self._answering.usage_wanted and not is_told:
            usage = self._answering.receipt(self._outcome)
        told = [] if usage is None else [self._line(self._normaliser.usage_chunk(usage))]
        return [*told, sse.DONE]

    def _line(self, chunk: dict[str, Any]) -> bytes:
        self._answering.hear(chunk, self._mask)
        return sse.frame(_masked(chunk, self._mask))


class _Whole(_Reading):
    """Upstream bytes to one completion."""

    def __init__(self, answering: Answering, mask: Mask, outcome: Outcome) -> None:
        super().__init__(answering, mask, outcome)
        self._accumulator = Accumulator()

    def feed(self, data: bytes) -> None:
        with self._breaking():
            for chunk in self._intake.feed(data):
                assert isinstance(chunk, dict)  # this intake knows no frames
                self._accumulator.add(chunk)
                if self._is_used_up():
                    for index in self._normaliser.unfinished:
                        self._accumulator.add(self._normaliser.end_of(index, "length"))
                    self._outcome.cut()
                    self.done = True
                    return
            self.done = self._intake.done
            if self._outcome.state is State.BEGUN and not self._intake.is_stream:
                self._outcome.state = State.SPEAKING  # how much of it is done cannot be known

    def end(self) -> bytes:
        with self._breaking():
            if self._intake.is_document:
                answer = self._intake.completion()
            else:
                if not self.done:
                    for chunk in self._intake.end():
                        assert isinstance(chunk, dict)
                        self._accumulator.add(chunk)
                if self._outcome.ending is not Ending.CUT:
                    self._require_whole()
                answer = self._accumulator.completion()
        if self._outcome.ending is not Ending.CUT:
            self._outcome.complete()
        told = self._answering.receipt(self._outcome)
        if told is not None:
            answer["usage"] = told
        self._answering.hear(answer, self._mask)
        return _masked(answer, self._mask)

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        try:
            yield
        except Refusal:
            self._outcome.ending = Ending.BROKEN
            raise


def _masked(value: dict[str, Any], mask: Mask) -> bytes:
    """As one line of JSON, without the provider's credential."""
    line = compact(value)
    return compact(mask.value(value)) if mask.is_needed(line) else line
