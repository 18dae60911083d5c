"""OPTIONS on every path: may this page call at all? Answered before any authentication.
GET /v1/cors tells a page that was refused why, and a path that is no route gets its 404 here.
"""

import json
import logging
import os
import time
from typing import Any

from weir.aws import lean, logs
from weir.aws.lean import AwsError
from weir.aws.shared_origins import SharedOrigins
from weir.errors import Internal, OriginNotAllowed, Refusal, store_unavailable
from weir.web import cors, routes
from weir.web.origins import MOST_TOLD, Origins, diagnose
from weir.web.request import Request, answer_headers, refusal_answer

logs.escape_root()
log = logging.getLogger("preflight")

# Verdicts that name a host which the caller has not named.
_OF_ANOTHER_HOST = ("host", "pattern")

_origins = SharedOrigins(lean.client("dynamodb"), os.environ["TABLE_NAME"], time.time)


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    request = Request.from_event(event)
    try:
        return _answer(request)
    except Exception:
        log.exception("failed", extra={"request_id": request.request_id})
        return _refuse(Internal(), request, Origins())


def _answer(request: Request) -> dict[str, Any]:
    try:
        allowed = _origins.current()
    except AwsError:
        log.exception("the store failed", extra={"request_id": request.request_id})
        return _refuse(store_unavailable(), request, Origins())
    if request.method == "OPTIONS":
        return _preflight(request, allowed)
    if request.path == "/v1/cors":
        return _doctor(request, allowed)
    return _refuse(routes.no_such_route(request.method, request.path), request, allowed)


def _preflight(request: Request, allowed: Origins) -> dict[str, Any]:
    headers = cors.preflight_headers(request.headers, allowed)
    if headers is None:
        origin = request.origin or ""
        _note_refused(origin)
        return _refuse(OriginNotAllowed(origin), request, allowed)
    return {"statusCode": 204, "headers": {**headers, **_trace(request)}, "body": ""}


def _doctor(request: Request, allowed: Origins) -> dict[str, Any]:
    """Judge the caller's own origin and the path in its query. Any page may read the answer."""
    verdict = diagnose(request.origin, allowed)
    origin = request.origin and request.origin[:MOST_TOLD]
    reason, message = verdict.reason, verdict.message
    if reason in _OF_ANOTHER_HOST and not (verdict.closest or "").startswith("http://"):
        # It may be another project's: who asks for https://com shall not learn of a customer.
        # (http:// is listed for this very machine only.)
        reason, message = "not_listed", f"{origin!r} is not listed. `weir cors check` tells more."
    path = request.query.get("path", [""])[-1].partition("?")[0]
    if verdict.allowed and path and not routes.is_route(path):
        reason, message = "no_such_route", routes.no_such_route("", path).message
    told = {
        "origin": origin,
        "allowed": verdict.allowed,
        "reason": reason,
        "message": message,
    }
    headers = {**answer_headers(request, Origins()), **cors.EVERYBODY}
    return {"statusCode": 200, "headers": headers, "body": json.dumps(told)}


def _note_refused(origin: str) -> None:
    try:
        _origins.note_refused(origin, int(time.time()))
    except AwsError:  # a note only: the page is refused all the same
        log.exception("a refused origin was not noted")


def _refuse(refusal: Refusal, request: Request, allowed: Origins) -> dict[str, Any]:
    status, headers, body = refusal_answer(refusal, request, allowed)
    return {"statusCode": status, "headers": headers, "body": body}


def _trace(request: Request) -> dict[str, str]:
    return {"X-Request-Id": request.request_id, "X-Trace-Id": request.request_id}
