"""What a failed call to AWS means, and how to try again.

    passing     the store was overloaded, or did not answer: it may work in a moment
    a conflict  another request was at the same items: nothing was carried out, and nothing refused
    a condition the store refused, because the item is not as the caller expected
    wrong       the request itself is invalid or not allowed: no other try can succeed

A call that got no answer may have been carried out; the caller must be able to tell or to repeat
it. Source: Amazon DynamoDB developer guide, "Error handling with DynamoDB"; API reference,
TransactWriteItems, for the reasons of a cancelled transaction.

Imports count: the preflight function needs this module. It works on `lean`'s errors and botocore's.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

# Codes of errors that pass by themselves.
_PASSING = {
    "InternalServerError",
    "InternalServiceError",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
}
# AWS reports it as if the request were wrong. But the client had sent the same transaction before,
# and got no answer: that one is still being carried out, or was.
_IN_PROGRESS = "TransactionInProgressException"
# A call for one item reports a conflict as an error; a transaction, as the reason of one of its
# parts, where throttling has other names, too.
_CONFLICT = "TransactionConflictException"
_CONFLICT_REASON = "TransactionConflict"
_BUSY_REASONS = {_CONFLICT_REASON, "ThrottlingError", "ProvisionedThroughputExceeded"}
_CONDITION = "ConditionalCheckFailedException"
CONDITION_REASON = "ConditionalCheckFailed"


class AwsError(Exception):
    """A call that failed: AWS refused it, or no usable answer came.

    `status` is the HTTP status, None if there was no answer. `code` is AWS's short name for the
    error, such as ConditionalCheckFailedException, None if unknown. `reasons` are those of a
    transaction that was cancelled, one for each of its parts. Never with AWS's own message: that of
    a wrong signature can repeat the signed headers, the session token among them.
    """

    def __init__(
        self,
        what: str,
        status: int | None = None,
        code: str | None = None,
        reasons: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(what)
        self.status = status
        self.code = code
        self.reasons = reasons


class Busy(Exception):
    """Neither carried out nor refused, because others were in the way. `at_once`: they no longer
    are, and the next try need not wait.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        super().__init__()
        self.at_once = at_once


# ---------------------------------------------------------------- what an error means


def code_of(error: Exception) -> str | None:
    """Return AWS's short name for an error; None if it has none."""
    if isinstance(error, AwsError):
        return error.code
    response: dict[str, dict[str, str]] = getattr(error, "response", {})
    return response.get("Error", {}).get("Code")


def reasons_of(error: Exception) -> Sequence[Mapping[str, Any]]:
    """Return why a transaction was cancelled, part by part; nothing if it was not."""
    if isinstance(error, AwsError):
        return error.reasons
    response: dict[str, Any] = getattr(error, "response", {})
    reasons: Sequence[Mapping[str, Any]] = response.get("CancellationReasons") or ()
    return reasons


def reason_codes(error: Exception) -> list[str | None]:
    return [reason.get("Code") for reason in reasons_of(error)]


def is_overload(error: Exception) -> bool:
    """Whether AWS answered that it cannot carry out the call now."""
    if code_of(error) in _PASSING:
        return True
    return isinstance(error, AwsError) and (error.status or 0) >= 500


def is_wrong(error: Exception) -> bool:
    """Whether AWS refused the call, which was certainly not carried out, or the error is not of a
    call at all. What remains is an overload, or an answer that never came. Of botocore's errors
    only those with a code are understood.
    """
    if code_of(error) in _PASSING or code_of(error) == _IN_PROGRESS:
        return False
    return not isinstance(error, AwsError) or 400 <= (error.status or 0) < 500


def is_conflict(error: Exception) -> bool:
    """Whether others were at the same item, for a call for one item."""
    return code_of(error) == _CONFLICT


def is_busy(error: Exception) -> bool:
    """Whether a transaction was cancelled, as a whole, because others were at its items or these
    are throttled: it was not carried out, and no condition refused it.
    """
    codes = reason_codes(error)
    if codes:
        return CONDITION_REASON not in codes and not _BUSY_REASONS.isdisjoint(codes)
    return is_conflict(error)


def is_under_way(error: Exception) -> bool:
    """Whether the same transaction, sent before, is still being carried out."""
    return code_of(error) == _IN_PROGRESS


def condition_failed(error: Exception) -> bool:
    """Whether the condition of a call for one item failed."""
    return code_of(error) == _CONDITION


def met_others(error: Exception) -> bool:
    """Whether somebody else changed, or is changing, an item of a transaction."""
    return not {CONDITION_REASON, _CONFLICT_REASON}.isdisjoint(reason_codes(error))


# ---------------------------------------------------------------- trying again


def jittered_s(tried: int, first_s: float, most_s: float) -> float:
    """Return a random wait, so that those who collide do not collide again: at most `first_s` after
    the first try, twice as much after each further one, never more than `most_s`.
    """
    return os.urandom(1)[0] / 255 * min(most_s, first_s * (1 << min(tried - 1, 16)))


def retried(
    call: Callable[[], T],
    again: Callable[[Exception], bool],
    *,
    tries: int | None = None,
    within_s: float | None = None,
    first_wait_s: float,
    most_wait_s: float,
    given_up: Callable[[], Exception] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> T:
    """Return what `call` returns. While it fails with an error for which `again` holds, wait and
    call it again: at most `tries` times, or until `within_s` have passed. Then raise `given_up()`,
    or by default the last error. Any other error is raised at once.
    """
    give_up = None if within_s is None else monotonic() + within_s
    tried = 0
    while True:
        tried += 1
        try:
            return call()
        except Exception as error:
            if not again(error):
                raise
            if tried == tries or (give_up is not None and monotonic() > give_up):
                if given_up is None:
                    raise
                raise given_up() from error
            waits = not (isinstance(error, Busy) and error.at_once)
        if waits:
            sleep(jittered_s(tried, first_wait_s, most_wait_s))
