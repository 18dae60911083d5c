"""When the table is asked whether a running answer is to be stopped."""

import threading

import pytest

from weir.aws import cancellation
from weir.aws.cancellation import Cancellation


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_first_look_comes_after_a_second_and_each_other_one_a_second_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, looked, waited = Clock(), threading.Event(), []
    answers = [False, False, True]
    monkeypatch.setattr(cancellation, "time", clock)

    def look() -> bool:
        looked.set()
        return answers.pop(0)

    cancelled = Cancellation(look)

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return False

    monkeypatch.setattr(cancelled._ended, "wait", wait)
    clock.now += 0.99
    assert not cancelled()
    assert not looked.is_set(), "most answers end before the first look"
    clock.now += 0.01
    assert not cancelled() or looked.is_set()
    thread = cancelled._thread
    assert thread is not None
    thread.join(5)
    assert cancelled()
    assert waited == [1.0, 1.0]
    assert cancelled.end()


def test_look_that_fails_does_not_end_the_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(cancellation, "time", clock)
    outcomes: list[object] = [OSError("no store"), True]

    def look() -> bool:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return bool(outcome)

    cancelled = Cancellation(look)
    monkeypatch.setattr(cancelled._ended, "wait", lambda seconds: False)
    clock.now += 2
    cancelled()
    assert cancelled._thread is not None
    cancelled._thread.join(5)
    assert cancelled()
