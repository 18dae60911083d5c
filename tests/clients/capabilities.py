"""What people do with a client beside streaming, and what has to come of it.

use.py and use.mjs report what a client showed (`Shown`). What it did on the wire is seen at the
gateway (`front.Front`) and at the provider.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.clients.front import Attempt

RETRY_AFTER_S = 4  # that the provider wants; longer than any client would wait by itself
TOO_MANY_STREAMS_S = 2  # that the gateway wants when a user has too many streams
# A moment is enough. The rest is for a machine that has other things to do.
LEFT_WITHIN_S = 3.0
CALL = 'weather {"city": "Ulm"}'  # has the mock model call the function


@dataclass(frozen=True)
class Shown:
    text: str = ""
    calls: tuple[str, ...] = ()  # the city of each call of the tool
    object: Any = None
    stopped_at: float | None = None  # time.time() when the reader had enough
    errors: tuple[dict[str, Any], ...] = ()

    @staticmethod
    def parse(reported: dict[str, Any]) -> Shown:
        return Shown(
            reported["text"],
            tuple(reported["calls"]),
            reported["object"],
            reported["stopped_at"],
            tuple(reported["errors"]),
        )


@dataclass(frozen=True)
class Use:
    shown: Shown
    attempts: tuple[Attempt, ...] = field(default=())
    left_at: float | None = None  # time.time() when the provider saw that its reader had left


@dataclass(frozen=True)
class Capability:
    """`content` is what the user's message says, for a client and a point of the provider."""

    name: str
    content: Callable[[str], str]
    check: Callable[[Use], None]
    user: str = "unlimited"  # or "echo", "too fast", "out of quota"


def _answered(text: str) -> Callable[[Use], None]:
    def check(use: Use) -> None:
        assert not use.shown.errors, use
        assert use.shown.text == text, use

    return check


def _called(use: Use) -> None:
    _answered("sunny in Ulm")(use)
    assert use.shown.calls == ("Ulm",), use


def _parsed(use: Use) -> None:
    assert not use.shown.errors, use
    assert use.shown.object == {"city": "Ulm", "degrees": 0}, use


def _waited(status: int, seconds: float) -> Callable[[Use], None]:
    def check(use: Use) -> None:
        _answered("Hello!")(use)
        assert [attempt.status for attempt in use.attempts] == [status, 200], use
        first, second = use.attempts
        assert second.at - first.at >= seconds, use

    return check


def _gave_up(use: Use) -> None:
    assert [attempt.status for attempt in use.attempts] == [402], use
    assert use.shown.errors, use
    assert use.shown.errors[0]["code"] in ("quota_exceeded", "budget_exceeded"), use


def _left(use: Use) -> None:
    assert use.shown.text.startswith("begun"), use
    assert use.shown.stopped_at is not None, use
    assert use.left_at is not None, use
    assert use.left_at - use.shown.stopped_at < LEFT_WITHIN_S, use


def _cancelled(use: Use) -> None:
    _left(use)
    assert [error["code"] for error in use.shown.errors[:1]] == ["cancelled"], use


def _says(text: str) -> Callable[[str], str]:
    return lambda _: text


def _fails_first(point: str) -> str:
    first = {"do": "fail", "status": 429, "retry_after": RETRY_AFTER_S}  # a 503 of the gateway
    return json.dumps({"do": "whole", "first": first, "for": point})


def _talks(point: str) -> str:
    return json.dumps({"do": "steps", "steps": [{"text": "begun"}, {"talk": point}]})


CAPABILITIES = (
    Capability("whole", _says("Hello there"), _answered("Hello there"), "echo"),
    Capability("tools", _says(CALL), _called, "echo"),
    Capability("structured", _says("Ulm"), _parsed, "echo"),
    Capability("wait after 503", _fails_first, _waited(503, RETRY_AFTER_S)),
    Capability(
        "wait after 429", _says('{"do": "whole"}'), _waited(429, TOO_MANY_STREAMS_S), "too fast"
    ),
    Capability("no retry of 402", _says('{"do": "whole"}'), _gave_up, "out of quota"),
    Capability("stop", _talks, _left),
    Capability("cancel", _talks, _cancelled),
)
# Those after which the provider is left.
ENDINGS = ("stop", "cancel")
