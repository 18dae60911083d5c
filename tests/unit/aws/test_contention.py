"""What a failed call means, and how often and how long it is tried again."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from weir.aws import contention
from weir.aws.contention import AwsError, Busy

CANCELLED = "TransactionCanceledException"


def lean(code: str | None, status: int | None = 400, *reasons: str) -> Exception:
    return AwsError("failed", status, code, [{"Code": each} for each in reasons])


def botocore(code: str | None, _status: int | None = 400, *reasons: str) -> Exception:
    answer: Any = {
        "Error": {"Code": code},
        "CancellationReasons": [{"Code": each} for each in reasons],
    }
    return ClientError(answer, "TransactWriteItems")


WRONG, OVERLOADED, BUSY, NO_ANSWER = "wrong", "overloaded", "busy", "no answer"


def meaning(error: Exception) -> str:
    """Each error has exactly one."""
    found = {
        BUSY: contention.is_busy(error),
        OVERLOADED: contention.is_overload(error),
    }
    named = [name for name, is_so in found.items() if is_so]
    assert len(named) <= 1
    if named:
        return named[0]
    return WRONG if contention.is_wrong(error) else NO_ANSWER


@pytest.mark.parametrize("raised", [lean, botocore])
@pytest.mark.parametrize(
    ("code", "reasons", "means"),
    [
        ("ThrottlingException", (), OVERLOADED),
        ("ProvisionedThroughputExceededException", (), OVERLOADED),
        ("InternalServerError", (), OVERLOADED),
        ("TransactionConflictException", (), BUSY),
        (CANCELLED, ("None", "TransactionConflict"), BUSY),
        (CANCELLED, ("ThrottlingError", "None"), BUSY),
        (CANCELLED, ("ProvisionedThroughputExceeded",), BUSY),
        (CANCELLED, ("ConditionalCheckFailed", "None"), WRONG),
        (CANCELLED, ("ConditionalCheckFailed", "TransactionConflict"), WRONG),
        (CANCELLED, ("None", "ValidationError"), WRONG),
        (CANCELLED, (), WRONG),
        ("ConditionalCheckFailedException", (), WRONG),
        ("ValidationException", (), WRONG),
        ("AccessDeniedException", (), WRONG),
        ("IdempotentParameterMismatchException", (), WRONG),
        # The same transaction, sent before, may be carried out yet.
        ("TransactionInProgressException", (), NO_ANSWER),
    ],
)
def test_error_of_either_client_means_the_same(
    raised: Callable[..., Exception], code: str, reasons: tuple[str, ...], means: str
) -> None:
    assert meaning(raised(code, 400, *reasons)) == means


def test_what_has_no_code_is_judged_by_its_status() -> None:
    assert meaning(AwsError("timed out")) == NO_ANSWER
    assert meaning(AwsError("a proxy's page", 502)) == OVERLOADED
    assert meaning(AwsError("a proxy's page", 403)) == WRONG
    assert meaning(TypeError()) == WRONG


def test_others_are_met_at_a_condition_or_in_a_conflict_but_not_by_throttling() -> None:
    for code in ("ConditionalCheckFailed", "TransactionConflict"):
        assert contention.met_others(lean(CANCELLED, 400, "None", code))
    for code in ("ThrottlingError", "ValidationError", "None"):
        assert not contention.met_others(lean(CANCELLED, 400, code))


class Tried:
    """A call that fails with these errors, one after the other, and then returns 7; the time stands
    still but for what is waited and `call_s` for each call.
    """

    def __init__(self, *errors: Exception, call_s: float = 0.0) -> None:
        self._errors, self._call_s = list(errors), call_s
        self.now, self.calls, self.waits = 0.0, 0, list[float]()

    def call(self) -> int:
        self.calls += 1
        self.now += self._call_s
        if self._errors:
            raise self._errors.pop(0)
        return 7

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def retried(self, **bound: Any) -> int:
        return contention.retried(
            self.call,
            lambda error: isinstance(error, Busy),
            first_wait_s=0.02,
            most_wait_s=0.2,
            sleep=self._sleep,
            monotonic=lambda: self.now,
            **bound,
        )


@pytest.fixture(autouse=True)
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "os", SimpleNamespace(urandom=lambda size: b"\xff" * size))


def test_waits_double_up_to_the_longest() -> None:
    tried = Tried(*(Busy() for _ in range(6)))
    assert tried.retried(tries=7) == 7
    assert tried.waits == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.2, 0.2])


def test_waits_are_random(monkeypatch: pytest.MonkeyPatch) -> None:
    fifth = SimpleNamespace(urandom=lambda size: b"\x33" * size)
    monkeypatch.setattr(contention, "os", fifth)
    assert contention.jittered_s(1, 0.02, 0.2) == pytest.approx(0.004)
    assert contention.jittered_s(10**6, 0.02, 0.2) == pytest.approx(0.04)


def test_what_no_longer_stands_in_the_way_is_not_waited_for() -> None:
    tried = Tried(Busy(at_once=True), Busy(), Busy(at_once=True))
    assert tried.retried(tries=4) == 7
    assert tried.waits == pytest.approx([0.04])


def test_last_error_is_raised_when_the_tries_are_used_up() -> None:
    errors = [Busy() for _ in range(3)]
    tried = Tried(*errors)
    with pytest.raises(Busy) as raised:
        tried.retried(tries=3)
    assert raised.value is errors[-1]
    assert (tried.calls, len(tried.waits)) == (3, 2)


@pytest.mark.parametrize("at_once", [False, True])
def test_nothing_is_tried_again_once_the_time_is_up(at_once: bool) -> None:
    tried = Tried(*(Busy(at_once=at_once) for _ in range(1000)), call_s=0.01)
    with pytest.raises(Busy):
        tried.retried(within_s=1.0)
    assert 1.0 < tried.now < 1.0 + 0.2 + 2 * 0.01


def test_giving_up_is_told_as_the_caller_wants_it_and_keeps_its_cause() -> None:
    class Crowded(Exception):
        pass

    with pytest.raises(Crowded) as raised:
        Tried(Busy(), Busy()).retried(tries=2, given_up=Crowded)
    assert isinstance(raised.value.__cause__, Busy)


def test_error_that_does_not_pass_is_raised_at_once_even_on_the_last_try() -> None:
    tried = Tried(Busy(), ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        tried.retried(tries=2, given_up=KeyError)
    assert tried.calls == 2
