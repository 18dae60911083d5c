"""What a provider's failure is to our caller, who must not mistake it for a fault of their own."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from weir.chat.masking import NOTHING_MASKED, Mask
from weir.errors import Refusal, TooLarge, UpstreamBusy, UpstreamFailed, UpstreamRejected

_MAX_TEXT = 1000  # characters of a provider's message that are passed on
_WORD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def refusal_of_upstream(
    status: int, headers: Mapping[str, str], body: bytes, mask: Mask = NOTHING_MASKED
) -> Refusal:
    """What a provider's failure is to our caller, who must never mistake it for a fault of his own.

    A 401 or 403 from the provider means that *our* key is bad: as a 401 it would make a page throw
    away a good token. `headers` has lower-case names.
    """
    told = mask.value(_upstream_error(body))
    evidence = {"upstream_status": status}
    if status in (401, 403):
        return UpstreamFailed(
            "The provider refused the gateway's credentials. The operator must set a working key.",
            code="upstream_credentials_refused",
            details=evidence,
            retryable=False,
        )
    if status == 413:
        return TooLarge("The provider says that the request is too large.", details=evidence)
    if status in (400, 422):
        return UpstreamRejected(
            _text(told.get("message")) or "The provider refused the request.",
            code=_word(told.get("code")),
            param=_word(told.get("param")),
            details=evidence,
        )
    if status == 404:
        return UpstreamFailed(
            "The provider does not know this model or path. The operator must check the model's "
            "catalogue entry and its upstream's address.",
            details=evidence,
            retryable=False,
        )
    if status == 429:
        if told.get("code") == "insufficient_quota" or told.get("type") == "insufficient_quota":
            return UpstreamBusy(
                "The gateway's account with the provider has no quota left.",
                code="upstream_quota_exceeded",
                details=evidence,
                retryable=False,
            )
        return UpstreamBusy(
            "The provider is limiting the gateway's requests. Try again later.",
            details=evidence,
            retry_after_s=_retry_after(headers.get("retry-after")),
        )
    return UpstreamFailed(
        f"The provider answered with status {status}.",
        details=evidence,
        retryable=status >= 500,
    )


def _upstream_error(body: bytes) -> dict[str, Any]:
    """The `error` object of a provider's body, or nothing: some answer HTML."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _word(value: object) -> str | None:
    """A provider's code or field name, if it is one: it goes into our logs, too."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _text(value: object) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _retry_after(value: str | None) -> int:
    """Whole seconds, at least one: the HTTP-date form is not worth a parser here."""
    if value is not None and _SECONDS.fullmatch(value.strip()):
        return max(1, min(math.ceil(float(value)), 3600))
    return 1


def failure_in(value: object) -> object | None:
    return (value.get("error") or None) if isinstance(value, dict) else None


def event_is_failure(name: str) -> bool:
    return name == "error"


def refusal_in_answer(
    failure: object, mask: Mask = NOTHING_MASKED, *, before_any_word: bool
) -> Refusal:
    told = failure.get("message") if isinstance(failure, dict) else failure
    message = mask.text(told)[:1000] if isinstance(told, str) and told else "no reason given"
    return UpstreamFailed(f"The provider failed: {message}")
