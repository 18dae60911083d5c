"""Turn every failure into a WeirError that says what the caller can do.

WeirError
├── ConfigurationError     a setting is missing or wrong; raised before anything is sent
├── BadRequest             400, 413, 422: correct the request
├── AuthenticationError    401: the API key or the signing key is not accepted
├── BudgetExceeded         402: a budget, or a quota of a day or month, has no room
├── PermissionDeniedError  403: the user is blocked, or the key lacks a scope
├── NotFound               404
├── Conflict               409
│   └── Cancelled          409, or within a stream: the answer was cancelled
├── RateLimited            429: wait `retry_after`
├── Unavailable            5xx: the gateway or the provider failed
│   └── StreamCut          the answer ended without a finish reason
├── ConnectionFailed       no answer came
│   └── RequestTimeout     no answer came in time
└── InvalidSignature       a webhook that this gateway did not sign
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Relative to the repository. A fork that publishes its documents puts their address here.
DOCS = "docs/errors.md"


class WeirError(Exception):
    """Describe a failed call.

    Attributes:
        status: HTTP status; None if there was no answer, or within a stream.
        code: The gateway's `error.code`, or a code of this package's own.
        reason: `error.details.reason`: for a 401, which check failed.
        param: The field of the request that is wrong.
        details: `error.details`; for limits, which one refused and when it resets.
        request_id: Finds the request in the gateway's logs.
        retry_after: Seconds to wait before the same request may succeed.
        retryable: Whether waiting can help at all.
    """

    code = "error"
    section = ""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        type: str | None = None,
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        retry_after: int | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        if code is not None:
            self.code = code
        self.type = type
        self.param = param
        self.details = dict(details or {})
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = retryable

    @property
    def reason(self) -> str | None:
        """Return `details.reason`, the machine-readable cause, if there is one."""
        reason = self.details.get("reason")
        return reason if isinstance(reason, str) else None

    @property
    def docs_url(self) -> str:
        """Return where the documentation explains this error."""
        return DOCS + self.section

    def __str__(self) -> str:
        known = [self.code, self.reason, self.request_id and f"request {self.request_id}"]
        return f"{self.message} ({', '.join(part for part in known if part)})"


class ConfigurationError(WeirError):
    """A setting is missing or wrong. Nothing was sent."""

    code = "configuration"


class BadRequest(WeirError):
    """The request is wrong: `param` names the field."""

    code = "validation_error"


class AuthenticationError(WeirError):
    """The credential is not accepted: `reason` says which check failed."""

    code = "invalid_token"
    section = "#401"


class BudgetExceeded(WeirError):
    """A budget, or a quota of a day or month, has no room: `details` says which, and until when."""

    code = "quota_exceeded"
    section = "#limits"

    @property
    def resets_at(self) -> int | None:
        """Return when the limit is renewed, in Unix seconds; None if no waiting helps."""
        resets_at = self.details.get("resets_at")
        return resets_at if isinstance(resets_at, int) else None


class PermissionDeniedError(WeirError):
    """The user is blocked, the project is switched off, or the key lacks a scope (`param`)."""

    code = "forbidden"


class NotFound(WeirError):
    """There is no such thing, or it is another user's."""

    code = "not_found"


class Conflict(WeirError):
    """It exists already, is in use, or was changed meanwhile."""

    code = "conflict"


class Cancelled(Conflict):
    """The answer was cancelled."""

    code = "cancelled"


class RateLimited(WeirError):
    """Too many requests or tokens in this minute, or answers at once: wait `retry_after`."""

    code = "rate_limited"
    section = "#limits"


class Unavailable(WeirError):
    """The gateway or the provider failed."""

    code = "server_error"
    section = "#a-providers-failure"


class StreamCut(Unavailable):
    """The answer ended without a finish reason, so it is not whole."""

    code = "stream_cut"
    section = ""


class ConnectionFailed(WeirError):
    """The gateway could not be reached, or the connection broke before it answered."""

    code = "connection_failed"


class RequestTimeout(ConnectionFailed):
    """No answer came in time."""

    code = "request_timeout"


class InvalidSignature(WeirError):
    """The webhook was not signed with this secret, was changed, or is too old."""

    code = "invalid_signature"


_BY_STATUS: dict[int, type[WeirError]] = {
    401: AuthenticationError,
    402: BudgetExceeded,
    403: PermissionDeniedError,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}
# For failures within a stream, which have no status.
_BY_CODE: dict[str, type[WeirError]] = {
    "invalid_token": AuthenticationError,
    "quota_exceeded": BudgetExceeded,
    "budget_exceeded": BudgetExceeded,
    "forbidden": PermissionDeniedError,
    "conflict": Conflict,
    "rate_limited": RateLimited,
    "concurrency_limited": RateLimited,
}
_RETRYABLE_STATUS = {429, 502, 503, 504}


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> WeirError:
    """Return the error that an HTTP answer reports. `headers` must ignore case."""
    try:
        envelope = json.loads(body)
    except ValueError:
        envelope = None
    if not isinstance(envelope, dict):
        envelope = {}
    error = envelope.get("error")
    known = error if isinstance(error, dict) else {}
    retryable = envelope.get("retryable")
    if not isinstance(retryable, bool):
        retryable = status in _RETRYABLE_STATUS and headers.get("x-should-retry") != "false"
    wait = headers.get("retry-after", "")
    message = known.get("message") or envelope.get("message")
    kind = _kind(status, known.get("code"))
    return kind(
        str(message or f"The gateway answered with status {status}."),
        status=status,
        code=_text(known.get("code")),
        type=_text(known.get("type")),
        param=_text(known.get("param")),
        details=_details(known),
        request_id=_text(known.get("request_id")) or headers.get("x-request-id"),
        retry_after=int(wait) if wait.isdecimal() else None,
        retryable=retryable,
    )


def from_frame(error: Any, request_id: str | None) -> WeirError:
    """Return the failure that a stream's last frame reports. `error` is its `error` member."""
    known = error if isinstance(error, dict) else {"message": error}
    code = _text(known.get("code"))
    kind = Cancelled if code == "cancelled" else _BY_CODE.get(code or "", Unavailable)
    if kind is Unavailable and known.get("type") == "invalid_request_error":
        kind = BadRequest
    return kind(
        str(known.get("message") or "The answer failed."),
        code=code,
        type=_text(known.get("type")),
        param=_text(known.get("param")),
        details=_details(known),
        request_id=request_id,
    )


def _kind(status: int, code: Any) -> type[WeirError]:
    if code == "cancelled":
        return Cancelled
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return BadRequest if status < 500 else Unavailable


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _details(error: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `details`; with the customers' contract, also what it has beside them."""
    details = error.get("details")
    known = dict(details) if isinstance(details, dict) else {}
    budget = error.get("budget")
    if isinstance(budget, dict):
        known = {**budget, **known}
    return known
