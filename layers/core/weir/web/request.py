"""An API Gateway REST proxy event, read once into a plain request; and the headers of a reply.

Nothing AWS-shaped goes further in than this file. Source: API Gateway developer guide, "Input
format of a Lambda function for proxy integration".
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weir import identifiers
from weir.errors import BadRequest, Forbidden, OriginNotAllowed, Refusal, Unauthenticated
from weir.web import cors
from weir.web.origins import Origins

# Schemes of the Authorization header. `Client` is the Ringside contract's, for client tokens.
BEARER, CLIENT = "bearer", "client"


@dataclass(frozen=True, slots=True)
class Request:
    """`headers` has lower-case names; `claims` is what API Gateway's authorizer verified; `query`
    has all values of each name; `source` is the address of the connection to API Gateway, which no
    header can change.
    """

    request_id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    claims: Mapping[str, str] = field(default_factory=dict)
    authorizations: int = 1
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "Request":
        context = event["requestContext"]
        headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
        several = event.get("multiValueHeaders") or {}
        return cls(
            request_id=context["requestId"],
            method=event["httpMethod"],
            path=event["path"],
            headers=headers,
            body=_body(event),
            claims=(context.get("authorizer") or {}).get("claims") or {},
            authorizations=sum(
                len(values) for name, values in several.items() if name.lower() == "authorization"
            ),
            query=event.get("multiValueQueryStringParameters")
            or {n: [value] for n, value in (event.get("queryStringParameters") or {}).items()},
            source=(context.get("identity") or {}).get("sourceIp") or "",
        )

    @property
    def origin(self) -> str | None:
        return self.headers.get("origin")

    def bearer(self) -> str:
        """The unverified credential (RFC 6750, section 2.1; the scheme's case does not matter)."""
        return self.credential(BEARER)[1]

    def credential(self, *schemes: str) -> tuple[str, str]:
        """Return scheme, in lower case, and unverified credential (RFC 9110, section 11.6.2)."""
        header = self.headers.get("authorization", "")
        if not header:
            raise Unauthenticated(
                "No credential. Send it as `Authorization: Bearer <token>`.", reason="missing"
            )
        scheme, _, credential = header.partition(" ")
        if self.authorizations > 1 or scheme.lower() not in schemes or not credential.strip():
            known = " or ".join(f"`{each.capitalize()} <token>`" for each in schemes)
            raise Unauthenticated(
                f"The Authorization header must be {known}, once.", reason="malformed"
            )
        return scheme.lower(), credential.strip()

    def require_origin(self, allowed: Origins) -> None:
        """Refuse a page that is not listed. No Origin at all is a server: not our question here."""
        if self.origin is not None and self.origin not in allowed:
            raise OriginNotAllowed(self.origin)

    def refuse_browser(self) -> None:
        """For credentials that no page may hold."""
        if self.origin is not None:
            raise Forbidden(
                "An API key was sent from a web page, so everyone who opens that page can read it. "
                "Revoke it, and call this route from a server only.",
                code="api_key_in_browser",
            )

    def label(self, name: str) -> str | None:
        """Return the id of a session or thread that a header names; None without one.

        Raise BadRequest for one that a token could not name: logs and usage repeat it, and so does
        the answer, of which API Gateway reads at most 16 KB of status and headers.
        """
        value = self.headers.get(name.lower())
        if value and not identifiers.is_identifier(value):
            raise BadRequest(f"{name} must have {identifiers.RULE}.", param=name)
        return value or None

    def json_object(self, **hooks: Any) -> dict[str, Any]:
        """Return the body as a JSON object. Its media type is not looked at: documented calls omit
        it. `hooks` are those of `parse_json`.
        """
        value = parse_json(self.body, **hooks)
        if not isinstance(value, dict):
            raise BadRequest("The body must be a JSON object.", details={"reason": "invalid_json"})
        return value

    def fields(self, **hooks: Any) -> dict[str, Any]:
        """Return the members of a JSON object or the fields of a form, as OAuth's clients send it.
        `hooks` are those of `parse_json`.
        """
        is_form = "x-www-form-urlencoded" in self.headers.get("content-type", "")
        if is_form and not self.body.lstrip().startswith(b"{"):
            return _form(self.body)
        return self.json_object(**hooks)


def _form(body: bytes) -> dict[str, str]:
    """Read application/x-www-form-urlencoded; a name stands once (RFC 6749, section 3.2)."""
    from urllib.parse import parse_qsl  # for the few requests that need it

    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise BadRequest("The body is no form.", details={"reason": "invalid_form"}) from error
    return no_name_twice(pairs)


def parse_json(body: bytes, **hooks: Any) -> Any:
    """Strict JSON (RFC 8259): no NaN or Infinity, which Python would read and write back."""
    try:
        return json.loads(body, parse_constant=refuse_constant, parse_float=finite, **hooks)
    except (ValueError, RecursionError) as error:
        where = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise BadRequest(
            f"The body is not valid JSON{where}.", details={"reason": "invalid_json"}
        ) from error


def answer_headers(
    request: Request, allowed: Origins, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What every answer of every door carries."""
    return {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "X-Request-Id": request.request_id,
        "X-Trace-Id": request.request_id,
        **cors.response_headers(request.origin, allowed),
        **(extra or {}),
    }


def refusal_answer(
    refusal: Refusal, request: Request, allowed: Origins
) -> tuple[int, dict[str, str], str]:
    body = json.dumps(refusal.envelope(request.request_id), separators=(",", ":"))
    return refusal.status, answer_headers(request, allowed, refusal.headers), body


def _body(event: Mapping[str, Any]) -> bytes:
    text = event.get("body") or ""
    if event.get("isBase64Encoded"):
        return base64.b64decode(text)
    return str(text).encode("utf-8", "surrogatepass")


def no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`: of two members with one name Python takes the last."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise BadRequest(
            "A name stands twice in one object of the body.", details={"reason": "invalid_json"}
        )
    return members


def refuse_constant(name: str) -> float:
    """For `parse_constant`: Python reads NaN and Infinity, which are not JSON."""
    raise ValueError(f"{name} is not JSON")


def finite(text: str) -> float:
    """For `parse_float`: 1e999 is JSON, but an infinity to Python, which JSON cannot say."""
    number = float(text)
    return number if math.isfinite(number) else refuse_constant(text)
