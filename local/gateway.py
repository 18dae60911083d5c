"""The front: what API Gateway does with a request before a function sees it, and with the answer
after.

Routes, authorizers, timeouts and the gateway's own error responses are the template's. It emulates
no throttling and no usage plans; these carry none of our logic.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate

from local import events
from local.authorizer import CognitoAuthorizer, Expired, Unauthorized
from local.events import BadAnswer, Place, Request
from local.http1 import BodyTooLarge, Exchange
from local.pool import Busy, Pool
from local.sandbox import InvocationFailed, Stream
from local.template import Api, Route

# Request line and header values together (AWS: "quotas for REST APIs").
MAX_HEAD = 10_240
MAX_BODY = 10 * 1024 * 1024
# Lambda's limit for an event, counted with everything that JSON had to escape.
MAX_EVENT = 6 * 1024 * 1024
# A stream of a regional API may be silent for so long.
STREAM_IDLE_S = 300.0

# Status and message of API Gateway's own errors, unless the template says otherwise.
OWN_ERRORS = {
    "BAD_REQUEST_PARAMETERS": (400, "Bad Request"),
    "HEADERS_TOO_LARGE": (431, "HTTP header is larger than 10240 bytes."),
    "UNAUTHORIZED": (401, "Unauthorized"),
    "EXPIRED_TOKEN": (403, "The incoming token has expired"),
    "MISSING_AUTHENTICATION_TOKEN": (403, "Missing Authentication Token"),
    "REQUEST_TOO_LARGE": (413, "Request Too Long"),
    "INTEGRATION_FAILURE": (504, "Internal server error"),
    "INTEGRATION_TIMEOUT": (504, "Endpoint request timed out"),
    "BAD_ANSWER": (502, "Internal server error"),
}


class Refused(Exception):
    """API Gateway's own error, by the name of its response type."""

    def __init__(self, response_type: str) -> None:
        super().__init__(response_type)
        self.response_type = response_type


class Gateway:
    def __init__(
        self,
        api: Api,
        place: Place,
        pools: Mapping[str, Pool],
        authorizers: Mapping[str, CognitoAuthorizer],
        log: Callable[[str], None],
    ) -> None:
        self._api, self._place = api, place
        self._pools, self._authorizers = pools, authorizers
        self._log = log

    async def __call__(self, exchange: Exchange) -> None:
        path, query = events.split_target(exchange.target)
        if path == "/healthz":  # of the local gateway only
            await exchange.respond(
                200, [("Content-Type", "application/json")], b'{"status":"ready"}'
            )
            return
        request = Request(exchange.method, path, query, exchange.headers, exchange.peer)
        status = 0
        try:
            status = await self._serve(exchange, request)
        except Refused as refusal:
            status = await self._refuse(exchange, request, refusal.response_type)
        finally:
            took_ms = (time.time() - request.received) * 1000
            how = str(status) if status else "the client left"
            self._log(f"{request.request_id} {request.method} {path} {how} {took_ms:.0f} ms")

    async def _serve(self, exchange: Exchange, request: Request) -> int:
        head = (
            len(exchange.method)
            + len(exchange.target)
            + sum(len(value) for _, value in exchange.headers)
        )
        if head > MAX_HEAD:
            raise Refused("HEADERS_TOO_LARGE")
        if events.RAW_QUERY.search(request.query):
            raise Refused("BAD_REQUEST_PARAMETERS")
        route, parameters = self._route(request)
        claims = await self._claims(request, route)
        try:
            body = await exchange.read(MAX_BODY)
        except BodyTooLarge:
            raise Refused("REQUEST_TOO_LARGE") from None
        told = events.event(request, route, parameters, claims, body, self._place)
        event = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )
        if len(event) > MAX_EVENT:
            raise Refused("REQUEST_TOO_LARGE")
        answer = await self._invoke(route, event)
        if isinstance(answer, Stream):
            return await self._stream(exchange, request, route, answer)
        return await self._whole(exchange, request, route, answer)

    def _route(self, request: Request) -> tuple[Route, dict[str, str]]:
        methods = events.match(request.path, self._api.routes)
        found = methods.get(request.method) or methods.get("ANY")
        if found is None:
            raise Refused("MISSING_AUTHENTICATION_TOKEN")  # API Gateway's name for "no such route"
        return found

    async def _claims(self, request: Request, route: Route) -> dict[str, str] | None:
        if route.authorizer is None:
            return None
        try:
            authorizer = self._authorizers[route.authorizer]
            return await authorizer.claims(request.header("authorization"), route.scopes)
        except Unauthorized:
            raise Refused("UNAUTHORIZED") from None
        except Expired:
            raise Refused("EXPIRED_TOKEN") from None

    async def _invoke(self, route: Route, event: bytes) -> bytes | Stream:
        try:
            return await asyncio.wait_for(
                self._pools[route.function].invoke(event), route.timeout_s
            )
        except Busy:
            raise Refused("INTEGRATION_FAILURE") from None
        except TimeoutError:
            raise Refused("INTEGRATION_TIMEOUT") from None
        except InvocationFailed:
            raise Refused("BAD_ANSWER") from None

    async def _whole(
        self, exchange: Exchange, request: Request, route: Route, payload: bytes
    ) -> int:
        try:
            if route.streams:
                raise BadAnswer(
                    "a route that streams needs a streamed answer, and this one came in one piece"
                )
            status, headers, body = events.buffered_answer(payload)
        except BadAnswer as error:
            print(f"{route.function}: {error}", file=sys.stderr)
            raise Refused("BAD_ANSWER") from None
        await exchange.respond(status, [*_dated(), *events.with_defaults(headers, request)], body)
        return status

    async def _stream(
        self, exchange: Exchange, request: Request, route: Route, stream: Stream
    ) -> int:
        try:
            if not route.streams:
                raise BadAnswer("the answer is streamed, and the route is not")
            status, headers = events.status_and_headers(stream.prelude)
        except BadAnswer as error:
            stream.abort()
            print(f"{route.function}: {error}", file=sys.stderr)
            raise Refused("BAD_ANSWER") from None
        # Nicer than Lambda, which never tells a function that its client has left.
        exchange.on_gone(stream.abort)
        now = asyncio.get_running_loop().time
        end = now() + request.received + route.timeout_s - time.time()
        try:
            async with asyncio.timeout_at(min(end, now() + STREAM_IDLE_S)) as limit:
                await exchange.start(status, [*_dated(), *events.with_defaults(headers, request)])
                async for piece in stream.chunks():
                    limit.reschedule(min(end, now() + STREAM_IDLE_S))
                    await exchange.write(piece)
                await exchange.end()
        except (InvocationFailed, TimeoutError) as error:
            # The status has left: all that can still be told is that the answer is not whole.
            exchange.cut()
            if not exchange.gone.is_set():
                print(f"{route.function}: {error or 'the stream took too long'}", file=sys.stderr)
        finally:
            stream.abort()
        return 0 if exchange.gone.is_set() else status

    async def _refuse(self, exchange: Exchange, request: Request, response_type: str) -> int:
        default_status, message = OWN_ERRORS[response_type]
        responses = self._api.gateway_responses
        general = f"DEFAULT_{default_status // 100}XX"
        told = responses.get(response_type) or responses.get(general)
        values = {
            "context.requestId": request.request_id,
            "context.extendedRequestId": request.extended_request_id,
            "context.error.message": message,
            "context.error.messageString": json.dumps(message),
            "context.error.responseType": response_type if response_type in responses else general,
        }
        status, headers, body = default_status, [], '{"message":$context.error.messageString}'
        if told is not None:
            status = told.status or default_status
            body = told.body or body
            headers = [
                (name, values.get(value, value.strip("'"))) for name, value in told.headers.items()
            ]
        text = re.sub(r"\$([A-Za-z]\w*(?:\.\w+)*)", lambda found: values[found[1]], body)
        await exchange.respond(
            status, [*_dated(), *events.with_defaults(headers, request)], text.encode()
        )
        return status


def _dated() -> list[tuple[str, str]]:
    return [("Date", formatdate(usegmt=True))]
