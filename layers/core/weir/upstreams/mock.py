"""The mock provider: answers within the process, without a network, a key or a model.

Its answers come as bytes, as a provider's do, and go through the same relay. What it says is in
`mock_answers`; here is when it says it, and how it fails: one entry of `_BEHAVIOURS` for each of
`upstream_kinds.MOCK_MODELS`.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import NamedTuple

from weir.chat.masking import NOTHING_MASKED
from weir.errors import Refusal
from weir.upstreams.mock_answers import Answer, answer_to, frame, streamed, whole

WORD_EVERY_S = 0.1


class _Behaviour(NamedTuple):
    """How a model differs from `echo`: a pause before each piece of its answer, an HTTP status
    instead of one, an answer that breaks off, or none at all.
    """

    gap_s: float = 0.0
    status: int = 200
    breaks: bool = False
    silent: bool = False


_BEHAVIOURS = {
    "echo": _Behaviour(),
    "slow": _Behaviour(gap_s=WORD_EVERY_S),
    "silent": _Behaviour(silent=True),
    "error-400": _Behaviour(status=400),
    "error-429": _Behaviour(status=429),
    "error-500": _Behaviour(status=500),
    "error-mid-stream": _Behaviour(breaks=True),
}
_ERRORS: Mapping[int, Mapping[str, str]] = {
    400: {"message": "The mock refuses this request.", "type": "invalid_request_error"},
    404: {"message": "The mock has no such model.", "type": "invalid_request_error"},
    429: {"message": "The mock is limiting requests.", "type": "rate_limit_error"},
    500: {"message": "The mock has failed.", "type": "server_error"},
}
_HEADERS = {429: {"retry-after": "2"}}


class MockCall:
    """One request that is being answered. Satisfies `relay.Upstream`.

    `clock` is in Unix seconds; `monotonic` and `sleep` measure and make the pauses.
    """

    mask = NOTHING_MASKED

    def __init__(
        self,
        model: str,
        body: bytes,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._paced = _paced(model, body, int(clock()))
        self._due = monotonic()
        self._next: bytes | None = None

    def receive(self, timeout_s: float) -> bytes | None:
        if self._next is None:
            pause_s, self._next = next(self._paced, (0.0, b""))
            self._due += pause_s
        early_s = self._due - self._monotonic()
        if early_s > 0:
            self._sleep(min(early_s, timeout_s))
            if early_s > timeout_s:
                return None
        piece, self._next = self._next, None
        return piece

    def close(self) -> None:
        self._paced.close()
        self._next = None


def _paced(model: str, body: bytes, now: int) -> Generator[tuple[float, bytes]]:
    """Yield each piece of the answer after the pause in seconds that comes before it."""
    behaviour = _BEHAVIOURS.get(model, _Behaviour(status=404))
    asked = json.loads(body)
    stream = asked.get("stream")
    if behaviour.silent:
        yield float("inf"), b""
    if behaviour.status != 200:
        raise _refusal(behaviour.status)
    if behaviour.breaks and not stream:
        raise _refusal(500)
    try:
        answer = answer_to(asked)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _refusal(400) from None  # as a provider does: not all of a request is checked before
    head = {"id": "chatcmpl-mock", "created": now, "model": model}
    if not stream:
        yield behaviour.gap_s * len(answer.tokens), whole(answer, head)
        return
    options = asked.get("stream_options") or {}
    frames = streamed(answer, head, usage=bool(options.get("include_usage")))
    for piece in _broken_off(frames, answer) if behaviour.breaks else frames:
        yield behaviour.gap_s, piece


def _broken_off(frames: Iterator[bytes], answer: Answer) -> Iterator[bytes]:
    """Half of the words, and an error in the form that most providers use."""
    said = answer.choices * (1 + (len(answer.tokens) + 1) // 2)
    for _, piece in zip(range(said), frames, strict=False):
        yield piece
    yield frame({"error": {**_ERRORS[500], "code": None}})


def _refusal(status: int) -> Refusal:
    from weir.chat.failures import refusal_of_upstream  # few processes need it

    told = json.dumps({"error": {**_ERRORS[status], "code": None}}).encode()
    return refusal_of_upstream(status, _HEADERS.get(status, {}), told)
