"""The headers that tell a browser which pages may call. Fetch standard, section "CORS".

Nothing is reflected that is not on a list, and credentials mode is never allowed: callers send a
bearer token, not cookies. Standard library only: the preflight function has nothing else.
"""

import re
from collections.abc import Mapping

from weir.web.origins import Origins

MAX_AGE_S = 7200  # Chromium's upper bound for a cached preflight

ALLOW_METHODS = "GET, POST, PATCH, DELETE, OPTIONS"

# What a page's script may read. Without `retry-after` and `x-should-retry` the OpenAI browser SDK
# ignores both and retries against the limit.
EXPOSE_HEADERS = (
    "x-request-id, x-trace-id, retry-after, retry-after-ms, x-should-retry, "
    "link, x-next-cursor, "
    "x-session-id, x-thread-id, x-completion-id, x-weir-upstreams, x-weir-dropped, "
    "x-ringside-model-used, x-ringside-budget-reset, "
    "ratelimit, ratelimit-policy, "
    "x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens"
)

# For the one answer that every page may read: why it may not read any other.
EVERYBODY = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSE_HEADERS}

# Offered when a preflight names none; otherwise the names asked for are echoed, because the OpenAI
# SDK's `x-stainless-*` family grows from release to release. `*` would not cover Authorization.
ALLOW_HEADERS = (
    "authorization, content-type, accept, x-session-id, x-thread-id, x-client-request-id, fc-tag"
)

_HEADER_NAMES = re.compile(
    r"\s*[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}\s*(,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}\s*){0,63}"
)


def response_headers(origin: str | None, allowed: Origins) -> dict[str, str]:
    """For every answer, errors included: without them a page sees only "Failed to fetch"."""
    headers = {"Vary": "Origin"}
    if origin is not None and origin in allowed:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = EXPOSE_HEADERS
    return headers


def preflight_headers(request: Mapping[str, str], allowed: Origins) -> dict[str, str] | None:
    """Headers of a 204, or None if the page's origin is not allowed.

    `request` has lower-case names. A preflight carries no token, so `allowed` is the union over all
    projects; the real request is judged by its own project's list.
    """
    vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    origin = request.get("origin")
    if origin is None:  # not a browser
        return {"Vary": vary, "Allow": ALLOW_METHODS}
    if origin not in allowed:
        return None
    asked = request.get("access-control-request-headers", "")
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": ALLOW_METHODS,
        "Access-Control-Allow-Headers": asked if _HEADER_NAMES.fullmatch(asked) else ALLOW_HEADERS,
        "Access-Control-Max-Age": str(MAX_AGE_S),
        "Vary": vary,
    }
