"""Token exchange (RFC 8693): another issuer's token in, a user token out. What a request may say,
and how it is answered. The one route outside the envelope: its errors are OAuth's.
"""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from weir import identifiers
from weir.errors import (
    BadRequest,
    ExchangeRefused,
    Forbidden,
    LimitReached,
    NotReady,
    OriginNotAllowed,
    Refusal,
    TooLarge,
    Unauthenticated,
)
from weir.identity.tokens import Token, session_reply
from weir.web.origins import Origins
from weir.web.request import Request, answer_headers

MAX_BODY_BYTES = 32_000
FORM = "application/x-www-form-urlencoded"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105 - a name, not a secret
ACCESS_TOKEN, JWT, ID_TOKEN = (_TOKEN_TYPE + name for name in ("access_token", "jwt", "id_token"))

_MOST_FIELDS = 40
_PID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # nothing else is looked for in the table
# RFC 8693, section 2.1: these may come several times. No other may (RFC 6749, section 3.2).
_REPEATED = ("audience", "resource")


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """The body of `POST /v1/token` (RFC 8693, section 2.1). `project` None: the stack's own. Of
    what OAuth lets a client send, what is not needed here is ignored (RFC 6749, section 3.2).
    """

    subject_token: str
    project: str | None
    issued_token_type: str
    session_id: str | None

    @classmethod
    def parse(cls, request: Request) -> "ExchangeRequest":
        """Raise ExchangeRefused, TooLarge."""
        fields = _fields(request)
        single = {name: values[0] for name, values in fields.items()}
        if single.get("grant_type") != GRANT_TYPE:
            if "grant_type" in single:
                raise ExchangeRefused(
                    f"grant_type must be {GRANT_TYPE}.", code="unsupported_grant_type"
                )
            raise _invalid("grant_type is missing")
        token = single.get("subject_token")
        if token is None:
            raise _invalid("subject_token is missing")
        if single.get("subject_token_type") not in (JWT, ID_TOKEN, ACCESS_TOKEN):
            raise _invalid(f"subject_token_type must be {JWT}, {ID_TOKEN} or {ACCESS_TOKEN}")
        if "actor_token" in single or "actor_token_type" in single:
            raise _invalid("actor_token is not supported: nobody acts for another here")
        if "scope" in single:
            raise ExchangeRefused("There are no scopes: leave scope away.", code="invalid_scope")
        issued = single.get("requested_token_type", ACCESS_TOKEN)
        if issued not in (ACCESS_TOKEN, JWT):
            raise _invalid(f"requested_token_type must be {ACCESS_TOKEN} or {JWT}")
        session_id = single.get("session_id")
        if session_id is not None and not identifiers.is_identifier(session_id):
            raise _invalid(f"session_id must have {identifiers.RULE}")
        return cls(token, _project(fields), issued, session_id)


def reply(token: Token, issued_token_type: str) -> dict[str, Any]:
    """Return RFC 8693's answer (section 2.2.1), with the members that published clients read."""
    return {
        "access_token": token.value,
        "issued_token_type": issued_token_type,
        "token_type": "Bearer",
        "expires_in": token.ttl_s,
        **session_reply(token),
    }


def refusal_answer(
    refusal: Refusal, request: Request, allowed: Origins
) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of an error of this route (RFC 6749, section 5.2). `reason`
    and `request_id` are ours.
    """
    status, error = _error(refusal)
    document = {
        "error": error,
        "error_description": _described(refusal.message),
        "reason": refusal.details.get("reason") or refusal.code,
        "request_id": request.request_id,
    }
    headers = {n: v for n, v in refusal.headers.items() if n != "WWW-Authenticate"}
    return status, answer_headers(request, allowed, headers | NO_CACHE), json.dumps(document)


NO_CACHE = {"Pragma": "no-cache"}  # RFC 6749, section 5.1; Cache-Control every answer has


def _error(refusal: Refusal) -> tuple[int, str]:
    """Return the status, and OAuth's code: RFC 6749, sections 5.2 and 4.1.2.1; RFC 8693, 2.2.2."""
    if isinstance(refusal, ExchangeRefused):
        return refusal.status, refusal.code
    if isinstance(refusal, OriginNotAllowed):
        return refusal.status, "unauthorized_client"
    if isinstance(refusal, Forbidden):  # something is switched off, or the user blocked
        return refusal.status, "access_denied"
    if isinstance(refusal, Unauthenticated):  # of the project: there is none, or it is suspended
        return 400, "invalid_target"
    if isinstance(refusal, BadRequest | TooLarge):
        return refusal.status, "invalid_request"
    if isinstance(refusal, LimitReached | NotReady):
        return refusal.status, "temporarily_unavailable"
    return refusal.status, "server_error"


def _described(message: str) -> str:
    """Return it in the characters that error_description may have (RFC 6749, section 5.2)."""
    return re.sub(r"[^\x20-\x7e]|[\"\\]", "'", message)


def _fields(request: Request) -> dict[str, list[str]]:
    if len(request.body) > MAX_BODY_BYTES:
        raise TooLarge(f"The body may have at most {MAX_BODY_BYTES} bytes.")
    media_type = request.headers.get("content-type", FORM).partition(";")[0].strip().lower()
    if media_type != FORM:
        raise _invalid(f"the body must be {FORM} (new URLSearchParams in a page)")
    try:
        pairs = parse_qsl(
            request.body.decode(),
            strict_parsing=bool(request.body),
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise _invalid(f"the body is not valid {FORM}, in UTF-8") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:  # without a value it counts as absent (RFC 6749, section 3.2)
        fields.setdefault(name, []).append(value)
    twice = [name for name in fields if len(fields[name]) > 1 and name not in _REPEATED]
    if twice:
        raise _invalid("a parameter stands twice")
    return fields


def _project(fields: dict[str, list[str]]) -> str | None:
    audiences = set(fields.get("audience", ()))
    if "resource" in fields or len(audiences) > 1 or not all(map(_PID.fullmatch, audiences)):
        raise ExchangeRefused(
            "A token is for one project: name its id as audience, once, and no resource.",
            code="invalid_target",
        )
    return audiences.pop() if audiences else None


def _invalid(what: str) -> ExchangeRefused:
    return ExchangeRefused(f"{what}.")
