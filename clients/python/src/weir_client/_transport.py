"""Hold the rules of a call that both clients share: errors, retries, paths and parameters."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

import openai

from weir_client._errors import (
    BadRequest,
    ConnectionFailed,
    RequestTimeout,
    StreamCut,
    WeirError,
    from_frame,
    from_response,
)

VERSION = "0.1.0"
USER_AGENT = f"weir-client/{VERSION} (Python)"
CHAT = "/v1/chat/completions"
JSON_TIMEOUT_S = 30
# A chat that does not stream is silent until its end; a stream sends a heartbeat every 15 seconds.
CHAT_TIMEOUT_S = 600
STREAM_TIMEOUT_S = 60
CONNECT_TIMEOUT_S = 5
CANCEL_TIMEOUT_S = 5
# A longer wait is the application's decision: it may rather tell its user when to come back.
LONGEST_WAIT_S = 10

# openai 3 speaks through httpx2, older ones through httpx. Both may be installed.
_http = importlib.import_module(
    next(base for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client").__module__
)
HttpTimeout: type[Exception] = _http.TimeoutException
HttpFailure: type[Exception] = _http.RequestError


def timeout(read_s: float) -> openai.Timeout:
    """Return a timeout of `read_s` seconds of silence and a short one for connecting."""
    return openai.Timeout(read_s, connect=min(CONNECT_TIMEOUT_S, read_s))


def no_answer(error: Exception) -> WeirError:
    """Return the error for a request that got no HTTP answer."""
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(error, (HttpTimeout, openai.APITimeoutError)):
        return RequestTimeout("The gateway did not answer in time.")
    return ConnectionFailed(f"The gateway could not be reached: {cause or error}", retryable=True)


def translated(error: openai.OpenAIError) -> WeirError:
    """Return our error for one that the openai package raised before an answer began."""
    if isinstance(error, openai.APIStatusError):
        return from_response(error.status_code, error.response.headers, error.response.content)
    if isinstance(error, openai.APIConnectionError):
        return no_answer(error)
    return BadRequest(str(error))


def broken(error: Exception, request_id: str | None) -> WeirError:
    """Return our error for a stream that failed after it had begun."""
    if isinstance(error, (openai.APITimeoutError, HttpTimeout)):
        return RequestTimeout("The answer fell silent.", request_id=request_id)
    if isinstance(error, openai.APIError) and not isinstance(error, openai.APIConnectionError):
        return from_frame(error.body or {"message": error.message}, request_id)
    return StreamCut("The connection broke before the answer had ended.", request_id=request_id)


def wait_before_retry(error: WeirError, attempt: int, max_retries: int) -> float | None:
    """Return how many seconds to wait before the next attempt, or None to give up.

    `attempt` counts from 0. A request that timed out is not sent again: it may still run, and each
    repetition of a chat is charged.
    """
    if attempt >= max_retries or not error.retryable:
        return None
    wait: float = 0.5 * 2**attempt if error.retry_after is None else error.retry_after
    return wait if wait <= LONGEST_WAIT_S else None


def segment(value: str, name: str) -> str:
    """Return `value` as one segment of a path. Raises BadRequest if no path can carry it."""
    if not isinstance(value, str) or value in ("", ".", ".."):
        raise BadRequest(f"{name} must be a text that is not empty, '.' or '..'.", param=name)
    return quote(value, safe="")


def header_values(given: Mapping[str, str | None]) -> dict[str, str]:
    """Return headers, without those that are None. Raises BadRequest if no header can carry one."""
    headers = {name: value for name, value in given.items() if value is not None}
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise BadRequest(f"{name} must be printable ASCII, and is {value!r}.", param=name)
    return headers


def customer_reference(external_id: str | None, customer_id: str | None) -> str:
    """Return how a path names a customer. Raises BadRequest unless exactly one id is given."""
    if (external_id is None) == (customer_id is None):
        raise BadRequest("Name the customer by external_id or by id.", param="external_id")
    if customer_id is not None:
        return segment(customer_id, "id")
    # The gateway takes one `ext:` off, and so does this: both spellings are the same customer.
    bare = external_id.removeprefix("ext:") if isinstance(external_id, str) else ""
    return "ext:" + segment(bare, "external_id")


def parameters(given: Mapping[str, Any]) -> dict[str, str]:
    """Return query parameters, without those that are None. Times are sent in UTC."""
    return {name: _parameter(value) for name, value in given.items() if value is not None}


def _parameter(value: Any) -> str:
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return aware.astimezone(timezone.utc).isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
