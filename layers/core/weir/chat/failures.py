"""What a provider's failure is to our caller, who must not mistake it for a fault of their own.

Rules of this file
* No failure of a provider is a 401 or 403 of ours: a page would throw away a good token. Nor does
  it carry a code of ours, by which clients decide what to do.
* The provider's words go to the caller where they are about the request, or explain why an answer
  failed that had begun with a 200; never those about the operator's account. What the caller does
  not see is logged. Words about the request are not logged: they may quote it.
* Nothing raises, whatever a provider sends.
"""

import re
from collections.abc import Mapping

from weir.chat import reports, waits
from weir.chat.faults import OF_THE_REQUEST, Fault, fault_of
from weir.chat.masking import NOTHING_MASKED, Mask
from weir.chat.reports import Report
from weir.errors import Refusal, TooLarge, UpstreamBusy, UpstreamFailed, UpstreamRejected

MAX_TEXT = 1000  # characters of a provider's message that a caller sees
MAX_LOGGED = 500

# Passes by itself: time-outs, a conflict (the OpenAI SDKs retry it, too), a failed dependency
# (Bedrock: the model's error), and a request that the provider's own proxy gave up.
_RETRYABLE = frozenset({408, 409, 423, 424, 425, 499})
_REQUEST_IDS = (
    *("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "x-ms-request-id"),
    *("mistral-correlation-id", "nvcf-reqid", "x-ds-trace-id", "cf-ray"),
)


def refusal_of_upstream(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    mask: Mask = NOTHING_MASKED,
    *,
    now: float = 0.0,
) -> Refusal:
    """Return what an HTTP answer other than 200 is to our caller. `headers` has lower-case names;
    `now` is Unix time: without it, a wait until a date is not understood.
    """
    report = reports.read_body(body, mask)
    fault = fault_of(status, report)
    wait_s = _wait_s(headers, report, now)
    if fault in OF_THE_REQUEST:
        refusal = _of_the_request(fault, report)
    else:
        refusal = _of_the_gateway(fault, wait_s) or _failed(status, wait_s)
    if headers.get("x-should-retry") == "false":  # as OpenAI and Anthropic say it
        refusal.retryable = False
    _add_evidence(refusal, status, report)
    for name in _REQUEST_IDS:
        request_id = reports.id_of(headers.get(name), mask)
        if request_id:
            refusal.log["upstream_request_id"] = request_id
            break
    return refusal


def refusal_in_answer(
    failure: object, mask: Mask = NOTHING_MASKED, *, before_any_word: bool
) -> Refusal:
    """Return what a failure reported within a 200 is to our caller: what it would have been as a
    status. `failure` is what `detection.failure_in` returned, or the text of an event that is not
    JSON. A wait is kept only before any word was sent: afterwards no header can carry it.
    """
    report = reports.read(failure, mask)
    fault = fault_of(report.status, report)
    wait_s = _wait_s({}, report, now=0.0)
    words = _words_beyond_the_account(report.message)
    if fault in OF_THE_REQUEST:
        refusal = _of_the_request(fault, report)
    else:
        refusal = _of_the_gateway(fault, wait_s, words) or UpstreamFailed(
            f"The provider failed: {words or 'no reason given'}",
            retryable=_passes(report.status),
            retry_after_s=wait_s,
        )
    if not before_any_word:
        refusal.retry_after_s = None
    _add_evidence(refusal, report.status, report)
    return refusal


# ---------------------------------------------------------------- telling it


def _of_the_request(fault: Fault, report: Report) -> Refusal:
    """Pass the provider's words on: only the caller can mend the request."""
    if fault is Fault.TOO_LARGE:
        words = _words_beyond_the_account(report.message)
        return TooLarge(words or "The provider says that the request is too large.")
    code, details = _their_code(report.code), None
    if fault is Fault.FILTERED:
        # xAI's words name the team and the key.
        words = _words_beyond_the_account(report.message)
        words = words or "The provider does not allow this content."
        code = code or "content_filter"
        details = {"filtered": list(report.filtered)} if report.filtered else None
    else:
        words = _words(report.message) or "The provider refused the request."
        if fault is Fault.TOO_LONG:
            code = "context_length_exceeded"
    return UpstreamRejected(words, code=code, param=report.param, details=details)


def _of_the_gateway(fault: Fault, wait_s: int | None, words: str = "") -> Refusal | None:
    """What the operator can mend, or what passes by itself; None for any other failure."""
    if fault is Fault.KEY:
        return UpstreamFailed(
            "The provider refused the gateway's credentials. The operator must set a working key.",
            code="upstream_credentials_refused",
            retryable=False,
        )
    if fault is Fault.MODEL:
        return UpstreamFailed(
            "The provider does not know this model or path. The operator must check the model's "
            "catalogue entry and its upstream's address.",
            retryable=False,
        )
    if fault is Fault.CREDIT:
        return UpstreamBusy(
            "The gateway's account with the provider has no quota left.",
            code="upstream_quota_exceeded",
            retryable=False,
        )
    if fault is Fault.ABOVE_LIMIT:
        return UpstreamBusy(
            "The request is larger than what the provider allows the gateway in a minute.",
            retryable=False,
        )
    if fault in (Fault.LIMITED, Fault.OVERLOADED):
        overloaded = fault is Fault.OVERLOADED
        state = "is overloaded" if overloaded else "is limiting the gateway's requests"
        message = f"The provider {state}{f': {words}' if words else '. Try again later.'}"
        return UpstreamBusy(message, retry_after_s=wait_s or 1)
    return None


def _failed(status: int, wait_s: int | None) -> Refusal:
    if 300 <= status < 400:
        message = (
            f"The provider answered with a redirect ({status}), which is not followed. The "
            "operator must check its address."
        )
    else:
        message = f"The provider answered with status {status}."
    passes = _passes(status)
    return UpstreamFailed(message, retryable=passes, retry_after_s=wait_s if passes else None)


def _passes(status: int | None) -> bool:
    return status is None or status >= 500 or status in _RETRYABLE


def _wait_s(headers: Mapping[str, object], report: Report, now: float) -> int | None:
    """The most exact one first. A reset is when all of a limit is there again, so it comes last."""
    wait = waits.first(
        waits.in_headers(headers, now),
        waits.in_headers(report.headers, now),
        report.wait_s,
        waits.in_words(report.message),
        waits.until_reset(headers, now),
        waits.until_reset(report.headers, now),
    )
    return None if wait is None else waits.whole_seconds(wait)


def _words(message: str) -> str:
    """Return a provider's words for the caller, without the ids of the operator's account."""
    account = r"\b(org|proj|acct|team)[-_][A-Za-z0-9]{16,}"
    return re.sub(account, "***", message[: 10 * MAX_TEXT])[:MAX_TEXT]


def _words_beyond_the_account(message: str) -> str:
    """Return them unless they are about the operator's account."""
    about_it = r"(?i)\b(organi[sz]ation|account|billing|balance|credits?|api[ _-]?key|team|quota)\b"
    words = _words(message)
    return "" if re.search(about_it, words) else words


def _their_code(code: str | None) -> str | None:
    """Return the provider's code, unless it is one of ours that means something else here: a client
    would fetch a new token for `invalid_token`.
    """
    is_ours = code is None or code.startswith("upstream_") or code in _OUR_CODES
    return None if is_ours else code


_OUR_CODES = frozenset(
    {
        *("invalid_token", "token_expired", "forbidden", "api_key_in_browser", "killed"),
        *("origin_not_allowed", "not_found", "conflict", "request_too_large", "server_error"),
        *("quota_exceeded", "budget_exceeded", "rate_limited", "rate_limit_exceeded"),
        *("not_ready", "ledger_busy", "store_unavailable", "project_not_configured"),
        *("completed", "cancelled", "abandoned", "stream_deadline_exceeded"),
    }
)


def _add_evidence(refusal: Refusal, status: int | None, report: Report) -> None:
    if status is not None:
        refusal.details["upstream_status"] = refusal.log["upstream_status"] = status
    refusal.log["upstream_code"] = report.code or report.type
    refusal.log["upstream_request_id"] = report.request_id
    if refusal.message != _words(report.message):
        refusal.log["upstream_message"] = report.message[:MAX_LOGGED] or None
    refusal.log = {name: value for name, value in refusal.log.items() if value is not None}
