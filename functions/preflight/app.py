"""OPTIONS on every browser route: may this page call at all? Answered before any authentication."""

import os
from typing import Any

from weir import cors
from weir.errors import OriginNotAllowed
from weir.events import Request, refusal_answer

_ALLOWED = cors.parse_origins(os.environ["ALLOWED_ORIGINS"])


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    request = Request.from_event(event)
    allowed = cors.preflight_headers(request.headers, _ALLOWED)
    if allowed is None:
        refusal = OriginNotAllowed(request.origin or "")
        status, headers, body = refusal_answer(refusal, request, _ALLOWED)
        return {"statusCode": status, "headers": headers, "body": body}
    trace = {"X-Request-Id": request.request_id, "X-Trace-Id": request.request_id}
    return {"statusCode": 204, "headers": {**allowed, **trace}, "body": ""}
