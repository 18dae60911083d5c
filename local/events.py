"""What a REST API makes of an HTTP request and of a function's answer (AWS: "Lambda proxy
integrations").

Pure: request in, event out; payload in, status and headers out.
"""

from __future__ import annotations

import json
import re
import time
import uuid
import zlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from local.http1 import Headers
from local.template import Route

# API Gateway refuses these in a query unless they are percent-encoded (RFC 3986 has no place for
# them).
RAW_QUERY = re.compile(r'["<>\\^`{|}]')
# They concern one connection, or are made anew, and so never reach a function (AWS: "important
# notes for REST APIs").
NOT_FORWARDED = {
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
# And these in a function's answer come out under another name.
REMAPPED = {
    "authorization",
    "connection",
    "content-length",
    "content-md5",
    "date",
    "expect",
    "host",
    "max-forwards",
    "proxy-authenticate",
    "server",
    "te",
    "trailer",
    "upgrade",
    "user-agent",
    "www-authenticate",
}


class BadAnswer(Exception):
    """The function's answer is not what a proxy integration takes; API Gateway says 502 to it."""


@dataclass(frozen=True)
class Place:
    """Where the API stands: the same for every request."""

    account: str
    api_id: str
    stage: str
    region: str
    deployment_id: str


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    source_ip: str
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    received: float = field(default_factory=time.time)

    @property
    def extended_request_id(self) -> str:
        return self.request_id.replace("-", "")[:11] + "FCoAMEV0w="

    @property
    def trace_id(self) -> str:
        digits = self.request_id.replace("-", "")
        return f"Root=1-{int(self.received):08x}-{digits[:24]}"

    def header(self, name: str) -> str | None:
        return next((value for key, value in reversed(self.headers) if key.lower() == name), None)


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target, in whichever of its forms."""
    if not target.startswith("/"):
        target = (
            "/" + target.partition("://")[2].partition("/")[2] if "://" in target else "/" + target
        )
    path, _, query = target.partition("?")
    return path, query


def match(path: str, routes: tuple[Route, ...]) -> dict[str, tuple[Route, dict[str, str]]]:
    """The routes of the best matching resource by method, with their path parameters (decoded, as
    REST APIs do).
    """
    segments = path.split("/")[1:]
    best: tuple[int, ...] = ()
    found: dict[str, tuple[Route, dict[str, str]]] = {}
    for route in routes:
        matched = _match(segments, route.path.split("/")[1:])
        if matched is None:
            continue
        rank, parameters = matched
        if not found or rank < best:
            best, found = rank, {}
        if rank == best:
            found[route.method] = (route, parameters)
    return found


def _match(
    segments: list[str], pattern: list[str]
) -> tuple[tuple[int, ...], dict[str, str]] | None:
    """Literal segments go before `{one}`, and that before `{rest+}`."""
    rank: list[int] = []
    parameters: dict[str, str] = {}
    for index, part in enumerate(pattern):
        if part.startswith("{") and part.endswith("+}"):
            if index >= len(segments) or segments[index:] == [""]:
                return None
            parameters[part[1:-2]] = unquote("/".join(segments[index:]))
            return (*rank, 2), parameters
        if index >= len(segments):
            return None
        if part.startswith("{") and part.endswith("}"):
            if not segments[index]:
                return None
            parameters[part[1:-1]] = unquote(segments[index])
            rank.append(1)
        elif part == segments[index]:
            rank.append(0)
        else:
            return None
    return (tuple(rank), parameters) if len(pattern) == len(segments) else None


def event(
    request: Request,
    route: Route,
    parameters: dict[str, str],
    claims: dict[str, str] | None,
    body: bytes,
    place: Place,
) -> dict[str, Any]:
    single, multi = _headers(request)
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(request.query, keep_blank_values=True):
        query.setdefault(name, []).append(value)
    return {
        "resource": route.path,
        "path": request.path,
        "httpMethod": request.method,
        "headers": single,
        "multiValueHeaders": multi,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": parameters or None,
        "stageVariables": None,
        "requestContext": _context(request, route, claims, place),
        # An API without binary media types hands every body on as text.
        "body": body.decode("utf-8", "replace") if body else None,
        "isBase64Encoded": False,
    }


def _headers(request: Request) -> tuple[dict[str, str], dict[str, list[str]]]:
    forwarded = [
        (name, value) for name, value in request.headers if name.lower() not in NOT_FORWARDED
    ]
    given = request.header("x-forwarded-for")
    forwarded = [
        (name, value) for name, value in forwarded if not name.lower().startswith("x-forwarded-")
    ]
    forwarded += [
        ("X-Amzn-Trace-Id", request.trace_id),
        ("X-Forwarded-For", f"{given}, {request.source_ip}" if given else request.source_ip),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Proto", "https"),
    ]
    spelling: dict[str, str] = {}
    multi: dict[str, list[str]] = {}
    for name, value in forwarded:
        multi.setdefault(spelling.setdefault(name.lower(), name), []).append(value)
    return {name: values[-1] for name, values in multi.items()}, multi


def _context(
    request: Request, route: Route, claims: dict[str, str] | None, place: Place
) -> dict[str, Any]:
    identity = dict.fromkeys(
        (
            "accessKey",
            "accountId",
            "caller",
            "cognitoAuthenticationProvider",
            "cognitoAuthenticationType",
            "cognitoIdentityId",
            "cognitoIdentityPoolId",
            "principalOrgId",
            "user",
            "userArn",
        )
    )
    context: dict[str, Any] = {
        "accountId": place.account,
        "apiId": place.api_id,
        "deploymentId": place.deployment_id,
        "domainName": f"{place.api_id}.execute-api.{place.region}.amazonaws.com",
        "domainPrefix": place.api_id,
        "extendedRequestId": request.extended_request_id,
        "httpMethod": request.method,
        "identity": {
            **identity,
            "sourceIp": request.source_ip,
            "userAgent": request.header("user-agent"),
        },
        "path": f"/{place.stage}{request.path}",
        "protocol": "HTTP/1.1",
        "requestId": request.request_id,
        "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(request.received)),
        "requestTimeEpoch": int(request.received * 1000),
        "resourceId": f"{zlib.crc32(route.path.encode()):08x}"[:6],
        "resourcePath": route.path,
        "stage": place.stage,
    }
    if claims is not None:
        context["authorizer"] = {"claims": claims}
    return context


# --- the answer ---------------------------------------------------------------------------------


def buffered_answer(payload: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of what a buffered function returned."""
    try:
        answer = json.loads(payload)
    except ValueError:
        raise BadAnswer(f"not JSON: {payload[:200]!r}") from None
    if not isinstance(answer, dict):
        raise BadAnswer(f"not an object: {payload[:200]!r}")
    known = {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}
    if unknown := set(answer) - known:
        raise BadAnswer(f"unknown keys: {', '.join(sorted(unknown))}")
    body = answer.get("body")
    if body is not None and not isinstance(body, str):
        raise BadAnswer(f"the body is {type(body).__name__}, not a string")
    # An API without binary media types hands a body in base64 on as it is.
    return *status_and_headers(answer), (body or "").encode()


def status_and_headers(answer: dict[str, Any]) -> tuple[int, list[tuple[str, str]]]:
    """Of a proxy answer or of a stream's prelude. Raises BadAnswer."""
    status = answer.get("statusCode", 200)
    if isinstance(status, str) and status.isdigit():
        status = int(status)
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise BadAnswer(f"statusCode {status!r}")
    multi, single, cookies = (
        default if answer.get(name) is None else answer[name]
        for name, default in (("multiValueHeaders", {}), ("headers", {}), ("cookies", []))
    )
    if not (isinstance(multi, dict) and isinstance(single, dict) and isinstance(cookies, list)):
        raise BadAnswer("headers must be objects, cookies a list")
    headers = [(name, value) for name, values in multi.items() for value in _list(name, values)]
    taken = {name.lower() for name in multi}
    headers += [(name, value) for name, value in single.items() if name.lower() not in taken]
    headers += [("Set-Cookie", cookie) for cookie in cookies]
    return status, [
        _outgoing(name, value) for name, value in headers if name.lower() != "transfer-encoding"
    ]


def _list(name: str, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise BadAnswer(f"multiValueHeaders: {name} is not a list")
    return values


def _outgoing(name: str, value: Any) -> tuple[str, str]:
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, (str, int, float)) or not re.fullmatch(
        r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name
    ):
        raise BadAnswer(f"header {name!r}: {value!r}")
    text = str(value).strip()
    if any(ord(character) < 32 and character != "\t" for character in text):
        raise BadAnswer(f"header {name!r}: {value!r}")
    return (f"x-amzn-Remapped-{name}" if name.lower() in REMAPPED else name), text


def with_defaults(headers: Headers, request: Request) -> list[tuple[str, str]]:
    """The headers that API Gateway adds to every answer."""
    names = {name.lower() for name, _ in headers}
    added = [
        ("x-amzn-RequestId", request.request_id),
        ("x-amz-apigw-id", request.extended_request_id),
        ("X-Amzn-Trace-Id", request.trace_id),
    ]
    if "content-type" not in names:
        added.insert(0, ("Content-Type", "application/json"))
    return [*headers, *(pair for pair in added if pair[0].lower() not in names)]
