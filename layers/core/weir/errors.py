"""Every refusal Weir can answer with, and the one envelope they are told in.

    Refusal                      status  code (error.code)
    ├── BadRequest                  400  validation_error
    │   └── UpstreamRejected        400  the provider's own, or validation_error
    ├── ExchangeRefused             400  invalid_request / invalid_target / invalid_scope /
    │                                    unsupported_grant_type  (POST /v1/token only: RFC 8693)
    ├── Unauthenticated             401  invalid_token         (details.reason says which of many)
    │   └── TokenExpired            401  invalid_token         (top-level code: token_expired)
    ├── QuotaExceeded               402  quota_exceeded        (top-level code: budget_exceeded)
    ├── Forbidden                   403  forbidden / api_key_in_browser
    │   ├── OriginNotAllowed        403  origin_not_allowed
    │   └── Killed                  403  forbidden             (details: reason killed, scope which)
    ├── NotFound                    404  not_found
    ├── Conflict                    409  conflict
    │   ├── ExternalIdTaken         409  external_id_taken
    │   └── IdempotencyInProgress   409  idempotency_in_progress
    ├── Cancelled                   409  cancelled
    ├── TooLarge                    413  request_too_large
    ├── IdempotencyKeyReused        422  idempotency_key_reused
    ├── LimitReached                429  rate_limited          (top-level code: rate_limit_exceeded)
    ├── UpstreamUnavailable         502  upstream_unavailable  (no connection, or it broke)
    ├── UpstreamFailed              502  upstream_error / upstream_invalid_response /
    │                                    upstream_credentials_refused  (it answered, uselessly)
    ├── UpstreamBusy                503  upstream_rate_limited / upstream_quota_exceeded
    ├── NotReady                    503  not_ready / upstream_not_configured /
    │   │                               project_not_configured / store_unavailable
    │   └── LedgerBusy              503  ledger_busy
    ├── UpstreamTimeout             504  upstream_timeout
    ├── DeadlineExceeded            504  stream_deadline_exceeded
    └── Internal                    500  server_error          (our own bug)

Rules raise these; only the edge of a door and `relay` catch them. A refusal carries evidence, never
a secret: whatever is put into one is shown to the caller, but for its `log`.

The envelope is the union that three client generations and the OpenAI SDKs read: they want
`error.code`, `error.message` and `error.type` nested, the oldest wants `code` and `message` at the
top level too, and crashes on a 401 without them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class Refusal(Exception):
    """An answer other than the one asked for.

    `details` and `param` go into the envelope; `headers` onto the response (`Retry-After` is an
    integer of seconds: two published clients fail on anything else), `extra_headers` among them.
    `log` is evidence for the log alone: a caller never sees it.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    code: str = "server_error"
    legacy_code: ClassVar[str | None] = (
        None  # the top-level code, where older clients expect another
    )
    retryable: bool = False
    elsewhere: ClassVar[bool] = False  # whether another provider might answer instead

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
        retryable: bool | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.details = dict(details or {})
        self.log: dict[str, Any] = {}
        self.retry_after_s = retry_after_s
        self.extra_headers = dict(extra_headers or {})
        self.top_level_code: str | None = None  # instead of `legacy_code`
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable

    @property
    def headers(self) -> dict[str, str]:
        headers = dict(self.extra_headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'  # RFC 6750, section 3
        if not self.retryable and self.status in (402, 409, 429, 500, 502, 503, 504):
            # The OpenAI SDKs retry these by themselves unless told that it cannot help. Not a 402,
            # but others may.
            headers["x-should-retry"] = "false"
        return headers

    def error(self) -> dict[str, Any]:
        """The nested part alone: what a stream that has begun tells in its last frame."""
        return {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }

    def envelope(self, request_id: str) -> dict[str, Any]:
        return {
            "error": {**self.error(), "details": self.details, "request_id": request_id},
            "code": self.top_level_code or self.legacy_code or self.code,
            "message": self.message,
            "retryable": self.retryable,
            "trace_id": request_id,
        }


class BadRequest(Refusal):
    status = 400
    type = "invalid_request_error"
    code = "validation_error"


class UpstreamRejected(BadRequest):
    """The provider says the request itself is wrong; its words are passed on."""


class ExchangeRefused(Refusal):
    """A token exchange that is not granted. `code` is the `error` of RFC 8693, section 2.2.2: a
    subject token that is not accepted is an `invalid_request`. `reason` is the stable machine word.
    """

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"

    def __init__(self, message: str, *, reason: str = "invalid", code: str | None = None) -> None:
        super().__init__(message, code=code, details={"reason": reason})
        self.reason = reason


class Unauthenticated(Refusal):
    """`reason` is the stable machine word; the message is for a person."""

    status = 401
    type = "authentication_error"
    code = "invalid_token"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, details={"reason": reason})
        self.reason = reason


class TokenExpired(Unauthenticated):
    legacy_code = "token_expired"

    def __init__(self) -> None:
        super().__init__("The token has expired. Fetch a new one.", reason="token_expired")


class QuotaExceeded(Refusal):
    """A quota or a budget has no room until its day or month ends, or an operator raises it."""

    status = 402
    type = "billing_error"
    code = "quota_exceeded"
    legacy_code = "budget_exceeded"


class Forbidden(Refusal):
    status = 403
    type = "permission_error"
    code = "forbidden"


class OriginNotAllowed(Forbidden):
    code = "origin_not_allowed"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"The origin {origin[:200]!r} is not one of this project's allowed origins. Scheme, "
            "host and port must match exactly. `weir cors check` tells the operator why it "
            "fails and how to allow it.",
            details={"origin": origin[:200]},
        )


class Killed(Forbidden):
    """An operator has pulled a kill switch: `scope` is tenant, project, model or user."""

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"The operator has switched this {scope} off.",
            details={"reason": "killed", "scope": scope},
        )


class NotFound(Refusal):
    status = 404
    type = "not_found_error"
    code = "not_found"


class Conflict(Refusal):
    """What is asked does not fit what is there: another's change, or something that uses it."""

    status = 409
    type = "conflict_error"
    code = "conflict"


class ExternalIdTaken(Conflict):
    """There is a customer of this external id, or there was one until a day ago: then
    `existing_id` is None.
    """

    code = "external_id_taken"

    def __init__(self, existing_id: str | None) -> None:
        super().__init__(
            "There is a customer with this external_id already, or one was deleted within a day.",
            param="external_id",
            details={} if existing_id is None else {"existing_id": existing_id},
        )
        self.existing_id = existing_id


class IdempotencyInProgress(Conflict):
    type = "idempotency_error"
    code = "idempotency_in_progress"
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key is still running. Try again in a second.",
            retry_after_s=1,
        )


class IdempotencyKeyReused(Refusal):
    status = 422
    type = "idempotency_error"
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used with another body within a day. Use a new one, or send "
            "the same body.",
            param="Idempotency-Key",
        )


class Cancelled(Refusal):
    """The caller asked for it."""

    status = 409
    code = "cancelled"

    def __init__(self) -> None:
        super().__init__("The request was cancelled.")


class TooLarge(Refusal):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class LimitReached(Refusal):
    """Too much at once, or in this minute: there is room again after `retry_after_s`."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limited"
    legacy_code = "rate_limit_exceeded"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: int,
        details: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            message, retry_after_s=retry_after_s, details=details, extra_headers=extra_headers
        )


class UpstreamUnavailable(Refusal):
    status = 502
    type = "upstream_error"
    code = "upstream_unavailable"
    retryable = True
    elsewhere = True


class UpstreamFailed(Refusal):
    status = 502
    type = "upstream_error"
    code = "upstream_error"
    retryable = True
    elsewhere = True


class UpstreamBusy(Refusal):
    status = 503
    type = "upstream_error"
    code = "upstream_rate_limited"
    retryable = True
    elsewhere = True


class NotReady(Refusal):
    status = 503
    code = "not_ready"
    retryable = True


class LedgerBusy(NotReady):
    """Conflicting writes to one counter, for as long as it is worth trying. Nothing is reserved."""

    code = "ledger_busy"

    def __init__(self) -> None:
        super().__init__(
            "Too many requests of one user or project came at the same moment. "
            "Try again in a second.",
            retry_after_s=1,
        )


def store_unavailable() -> NotReady:
    """What a caller is told of a failed call to AWS. The failure itself goes to the log."""
    return NotReady(
        "The gateway cannot reach its own store. Try again in a second.",
        code="store_unavailable",
        retry_after_s=1,
    )


class UpstreamTimeout(Refusal):
    status = 504
    type = "upstream_error"
    code = "upstream_timeout"
    retryable = True
    elsewhere = True


class DeadlineExceeded(Refusal):
    status = 504
    code = "stream_deadline_exceeded"


class Internal(Refusal):
    """Our own bug. The cause is logged and never told."""

    def __init__(self) -> None:
        super().__init__(
            "Something went wrong in the gateway. The request id finds it in the logs."
        )
