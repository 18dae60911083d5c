"""How errors are told to callers of the Ringside contract: in its codes (contracts/ringside.md,
section 11), which differ from Behest's. Which contract a caller speaks is seen from the credential.

The envelope is the same, and so are the statuses, but for two: an API key without a scope is a 403
there.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from weir.errors import (
    BadRequest,
    Forbidden,
    Killed,
    LimitReached,
    OriginNotAllowed,
    QuotaExceeded,
    Refusal,
    Unauthenticated,
)
from weir.identity import api_keys
from weir.identity.tokens import CLIENT_TOKEN_TYPE
from weir.web.origins import Origins
from weir.web.request import CLIENT, Request, refusal_answer

_EXPIRED, _REVOKED = "token_expired", "token_revoked"
_TOKEN_CODES = {
    _EXPIRED: "client_token_expired",
    _REVOKED: "client_token_revoked",
    "unknown_project": "client_token_revoked",
    "project_suspended": "client_token_revoked",
}
# Codes of ours that stand for something the contract has another word for.
_CODES = {
    "server_error": "internal_error",
    "upstream_error": "upstream_unavailable",
    "upstream_invalid_response": "upstream_unavailable",
    "upstream_credentials_refused": "upstream_unavailable",
    "upstream_rate_limited": "upstream_quota_exceeded",
}


def speaks_it(request: Request) -> bool:
    """Return whether a request's credential is of this contract, as far as can be seen."""
    return is_client_token(request) or api_keys.is_of_ringside(_credential(request)[1])


def is_client_token(request: Request) -> bool:
    scheme, credential = _credential(request)
    return scheme == CLIENT or _type_of(credential) == CLIENT_TOKEN_TYPE


def spelled(
    refusal: Refusal, request: Request, allowed: Origins
) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of a refusal, in the words of the caller's contract."""
    if not speaks_it(request):
        return refusal_answer(refusal, request, allowed)
    told = in_its_words(refusal, request)
    status, headers, body = refusal_answer(told, request, allowed)
    if is_client_token(request) and status == 401:
        expired = told.code == _TOKEN_CODES[_EXPIRED]
        headers["WWW-Authenticate"] = f'Client error="{"expired" if expired else "invalid"}_token"'
    if isinstance(refusal, QuotaExceeded):
        body = json.dumps(_with_budget(json.loads(body), refusal, request), separators=(",", ":"))
    return status, headers, body


def in_its_words(refusal: Refusal, request: Request) -> Refusal:
    """Return the refusal with the code that the contract has for it."""
    code = _code(refusal, request)
    if isinstance(refusal, Unauthenticated) and refusal.reason == "missing_scope":
        lacks = refusal.message.split("'")[1]
        return Forbidden(refusal.message, code="insufficient_scope", param=lacks)
    if code != refusal.code:
        refusal.details.setdefault("reason", refusal.code)
        refusal.code = code
    refusal.top_level_code = code
    return refusal


def _code(refusal: Refusal, request: Request) -> str:
    of_a_page = is_client_token(request)
    if isinstance(refusal, Unauthenticated):
        if of_a_page:
            return _TOKEN_CODES.get(refusal.reason, "client_token_invalid")
        return "invalid_api_key"
    if isinstance(refusal, OriginNotAllowed) and of_a_page:
        return "client_token_origin_mismatch"
    if isinstance(refusal, Killed) and refusal.details.get("scope") == "user":
        return "customer_blocked"
    if isinstance(refusal, QuotaExceeded):
        return "budget_exceeded"
    if isinstance(refusal, LimitReached):
        of_streams = refusal.details.get("limit_name") == "concurrent_streams"
        return "concurrency_limited" if of_streams else refusal.code
    if isinstance(refusal, BadRequest) and refusal.code == BadRequest.code:
        is_json = refusal.details.get("reason") == "invalid_json"
        return "invalid_json" if is_json else "invalid_request"
    return _CODES.get(refusal.code, refusal.code)


def _with_budget(
    document: dict[str, Any], refusal: QuotaExceeded, request: Request
) -> dict[str, Any]:
    """Say how much is left: to a server all, to a page only when it is renewed."""
    error, details = document["error"], refusal.details
    error["aliases"] = ["customer_budget_exceeded"]
    budget: dict[str, Any] = {"resets_at": details.get("resets_at")}
    if not is_client_token(request) and details.get("limit_name") == "usd_per_month":
        limit = (details.get("limit") or {}).get("usd_per_month")
        used = (details.get("usage") or {}).get("usd_this_month")
        if limit is not None and used is not None:
            left = max(0, round(limit - used, 9))
            budget |= {"limit_usd": limit, "spent_usd": used, "remaining_usd": left}
    elif is_client_token(request):
        error["message"] = document["message"] = "The budget for this is used up."
        error["details"] = {n: v for n, v in details.items() if n not in ("limit", "usage")}
    error["budget"] = budget
    return document


def _credential(request: Request) -> tuple[str, str]:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    return scheme.lower(), credential.strip()


def _type_of(credential: str) -> object:
    """Return `typ` of what may be a JWT, which nobody has verified."""
    first = credential.partition(".")[0][:1_000]
    try:
        header: Mapping[str, Any] = json.loads(
            base64.urlsafe_b64decode(first + "=" * (-len(first) % 4))
        )
        return header.get("typ")
    except (binascii.Error, ValueError, AttributeError, RecursionError):
        return None
