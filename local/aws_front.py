"""What stands before the embedded AWS, in its own process: an ASGI application around ministack's.

ministack takes the key id `test`, twelve digits, or no credential at all for its root user, checks
no signature of theirs, and allows every page to read the answer. So nothing passes that is not
listed here:

* its state of health, and the public keys of a user pool;
* signing in, which needs no credential on AWS either: by Cognito's API, or by its own pages;
* a request with a signature that `believes` has verified. Only in the Authorization header: whoever
  may call can sign, and nothing here hands out signed addresses.

A page may do the second only, and the keys; of the origins of this run only. Any page may send its
visitor to the sign-in page, which returns only to the addresses that the user pool's client lists.
Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, parse_qsl

from local.peers import HERE, host_name, sent_by_a_browser

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Mapping[str, str]
# Key id, scope, headers, body.
Believes = Callable[[str, Scope, Headers, bytes], bool]

# Actions that Cognito answers without AWS credentials. Signing up and resetting a password are left
# out: their codes go by mail, and there is none here.
SIGN_IN = frozenset(
    f"AWSCognitoIdentityProviderService.{action}"
    for action in (
        "InitiateAuth",
        "RespondToAuthChallenge",
        "GetTokensFromRefreshToken",
        "AssociateSoftwareToken",
        "VerifySoftwareToken",
        "GetUser",
        "RevokeToken",
        "GlobalSignOut",
    )
)
# Cognito's own pages: the browser itself goes there, and their form posts to where it came from.
VISITED = frozenset({"/oauth2/authorize", "/logout"})
SIGN_IN_FORM = "/login"
# What a page fetches: tokens for a code, and their end (RFC 7009), which ministack knows only as an
# action of the API.
TOKENS, REVOKE = "/oauth2/token", "/oauth2/revoke"
REVOKE_ACTION = "AWSCognitoIdentityProviderService.RevokeToken"
FORM = "application/x-www-form-urlencoded"
HEALTH = "/_ministack/health"
PUBLIC_KEYS = re.compile(r"/[a-z0-9-]+_[A-Za-z0-9]+/\.well-known/jwks\.json")
# No shorter key ids are taken: not `test`, and not the twelve digits of an account.
SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\w{16,128})/[0-9]{8}/[a-z0-9-]+/[a-z0-9-]+/aws4_request,"
    r" ?SignedHeaders=[a-z0-9;-]+, ?Signature=[0-9a-f]{64}",
    re.ASCII,
)
# Signature versions 2 and 4 in a query, in lower case.
QUERY_CREDENTIALS = frozenset({"awsaccesskeyid", "signature"})
QUERY_PREFIX = "x-amz-"
# DynamoDB takes 16 MB; nothing here is larger.
MAX_BODY = 17 * 1024 * 1024

# What AWS's SDKs and Amplify send beside what every page may.
PAGE_HEADERS = (
    "content-type, cache-control, x-amz-target, x-amz-user-agent, amz-sdk-invocation-id,"
    " amz-sdk-request"
)
EXPOSED = "x-amzn-errormessage, x-amzn-errortype, x-amzn-requestid"


class Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Front:
    app: App
    origins: Collection[str]
    believes: Believes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:  # a WebSocket
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        cors: list[tuple[bytes, bytes]] = []
        headers: Headers = {}
        try:
            headers = _headers(scope)
            by_page = sent_by_a_browser(headers) and not _of_sign_in_pages(scope, headers)
            if by_page:
                cors = self._cors(headers)
            if by_page and scope["method"] == "OPTIONS":
                await _respond(send, 204, [*cors, *_preflight()], b"")
                return
            body = await _body(receive)
            passed, body = self._judge(scope, headers, body, by_page=by_page)
        except Refused as refusal:
            print(f"refused {scope['method']} {scope['path']!r}: {refusal}", flush=True)
            media_type, told = _error(headers, str(refusal))
            await _respond(send, refusal.status, [*cors, (b"content-type", media_type)], told)
            return
        await self.app(passed, _again(body, receive), _with_cors(send, cors))

    def _cors(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        origin = headers.get("origin")
        if origin not in self.origins or origin is None:
            raise Refused(403, "a page that may not")
        return [
            (b"access-control-allow-origin", origin.encode()),
            (b"access-control-expose-headers", EXPOSED.encode()),
            (b"vary", b"Origin"),
        ]

    def _judge(
        self, scope: Scope, headers: Headers, body: bytes, *, by_page: bool
    ) -> tuple[Scope, bytes]:
        """Return the scope and the body that ministack is to see; raise Refused."""
        path: str = scope["path"]
        call = (scope["method"], path, scope["query_string"])
        if call == ("GET", path, b"") and PUBLIC_KEYS.fullmatch(path):
            return _bare(scope, headers, b""), b""
        if call == ("GET", HEALTH, b"") and not by_page:
            return _bare(scope, headers, b""), b""
        signed = "authorization" in headers or "x-amz-security-token" in headers
        if call == ("POST", "/", b"") and headers.get("x-amz-target") in SIGN_IN and not signed:
            return _bare(scope, headers, body), body
        hosted = None if signed else _hosted_sign_in(scope, headers, body, by_page=by_page)
        if hosted is not None:
            return hosted
        if by_page:
            raise Refused(403, "a page may sign in, and nothing else")
        authorization = SIGNED.fullmatch(headers.get("authorization", ""))
        if authorization is None:
            raise Refused(403, "no signature, or not version 4 in the Authorization header")
        if path.startswith(("/_", "//")) or not path.startswith("/"):
            raise Refused(403, "not an address of AWS")
        if _names_credentials(scope["query_string"]) or _names_credentials(_form(headers, body)):
            raise Refused(403, "credentials in a query or a form")
        if not self.believes(authorization[1], scope, headers, body):
            raise Refused(403, "an unknown key, or a wrong signature")
        return scope, body


def _headers(scope: Scope) -> Headers:
    """Return the headers by lower-case name. A header that comes twice would be read as one thing
    here and as another behind, so it is refused; so is another machine's name.
    """
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        if (
            headers.setdefault(name.decode("latin-1").lower(), text := value.decode("latin-1"))
            is not text
        ):
            raise Refused(400, "a header that comes twice")
    if host_name(headers.get("host", "")) not in HERE:
        raise Refused(421, "not for this machine")
    return headers


async def _body(receive: Receive) -> bytes:
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "the client left")
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > MAX_BODY:
            raise Refused(413, "too large")
        if not message.get("more_body", False):
            return b"".join(pieces)


def _form(headers: Headers, body: bytes) -> bytes:
    is_form = "form" in headers.get("content-type", "")
    return body if is_form else b""


def _names_credentials(query: bytes) -> bool:
    names = (name.lower() for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    return any(name.startswith(QUERY_PREFIX) or name in QUERY_CREDENTIALS for name in names)


def _of_sign_in_pages(scope: Scope, headers: Headers) -> bool:
    """Whether a browser goes to a sign-in page, or sends that page's form: no other page's script
    can read the answer, and none can send the form in its name.
    """
    if scope["method"] == "GET":
        return scope["path"] in VISITED and headers.get("sec-fetch-mode", "") == "navigate"
    own = headers.get("origin") == f"http://{headers.get('host', '')}"
    return scope["method"] == "POST" and scope["path"] == SIGN_IN_FORM and own


def _hosted_sign_in(
    scope: Scope, headers: Headers, body: bytes, *, by_page: bool
) -> tuple[Scope, bytes] | None:
    """Return what ministack is to see of a request to Cognito's own pages or to its OAuth
    endpoints; None for any other. What they take stands in the query or in a form, never in both.
    """
    path, query = scope["path"], scope["query_string"]
    if scope["method"] == "GET" and path in VISITED and not by_page:
        return None if _names_credentials(query) else (_bare(scope, headers, b""), b"")
    is_form = headers.get("content-type", "").partition(";")[0] == FORM
    if scope["method"] != "POST" or query or not is_form or _names_credentials(body):
        return None
    if path == TOKENS or (path == SIGN_IN_FORM and not by_page):
        return _bare(scope, headers, body, FORM), body
    if path == REVOKE:
        body = _revocation(body)
        at_root = {**scope, "path": "/", "raw_path": b"/"}
        return _bare(at_root, {**headers, "x-amz-target": REVOKE_ACTION}, body), body
    return None


def _revocation(body: bytes) -> bytes:
    """Return RFC 7009's form as the body of Cognito's RevokeToken."""
    form = parse_qs(body.decode("latin-1"))
    first = {name: form.get(name, [""])[0] for name in ("token", "client_id")}
    return json.dumps({"Token": first["token"], "ClientId": first["client_id"]}).encode()


def _bare(
    scope: Scope, headers: Headers, body: bytes, media_type: str = "application/x-amz-json-1.1"
) -> Scope:
    """Return the scope with no header but those by which ministack understands it."""
    kept = {name: headers[name] for name in ("host", "x-amz-target") if name in headers}
    if body:
        kept |= {"content-type": media_type, "content-length": str(len(body))}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in kept.items()]
    return {**scope, "headers": pairs}


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that begins with the body that has been read."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> dict[str, Any]:
        return messages.pop() if messages else await receive()

    return again


def _with_cors(send: Send, cors: list[tuple[bytes, bytes]]) -> Send:
    """Return a `send` that replaces ministack's CORS headers by `cors`."""

    async def changed(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value)
                for name, value in message.get("headers", ())
                if not name.lower().startswith(b"access-control-")
            ]
            message = {**message, "headers": [*kept, *cors]}
        await send(message)

    return changed


def _preflight() -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", PAGE_HEADERS.encode()),
        (b"access-control-max-age", b"7200"),
    ]


def _error(headers: Headers, why: str) -> tuple[bytes, bytes]:
    """In the form that the caller's protocol expects, so that an SDK can show it."""
    code, message = "AccessDeniedException", f"The embedded AWS refuses this: {why}."
    if "json" in headers.get("content-type", ""):
        return b"application/json", json.dumps({"__type": code, "message": message}).encode()
    return b"text/xml", (
        f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        "</ErrorResponse>"
    ).encode()


async def _respond(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})
