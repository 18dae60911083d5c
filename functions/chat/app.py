"""POST /v1/chat/completions: believe the token, relay the question, stream the answer.

Runs on the streaming runtime: a handler returns (status, headers, first chunk, the rest).
"""

import logging
import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

from weir import callers, chat, relay
from weir.aws import clients
from weir.aws.public_keys import PublicKeys
from weir.aws.table import Table
from weir.aws.vault import Vault
from weir.errors import Internal, Refusal, TooLarge
from weir.events import Request, answer_headers, refusal_answer
from weir.settings import MAX_CHAT_BODY_BYTES, MAX_OUTPUT_TOKENS, ChatSettings
from weir.tokens import Claims
from weir.upstreams import bedrock
from weir.upstreams.openai_compatible import Provider

Answer = tuple[int, dict[str, str], bytes, Iterator[bytes]]

# The runtime needs a moment to end the response before Lambda ends the runtime.
LAMBDA_MARGIN_S = 5

log = logging.getLogger("chat")

_settings = ChatSettings.from_env(os.environ)
_deployment = _settings.deployment
_public_keys = PublicKeys(Table(clients.client("dynamodb"), _settings.table_name), time.monotonic)
_model = chat.Model(_settings.upstream_model, _settings.output_cap_parameter, MAX_OUTPUT_TOKENS)
_vault = Vault(clients.client("secretsmanager"))
_provider = Provider(_settings.upstream_base_url or bedrock.base_url(_settings.region))
_role_bearer = bedrock.RoleBearer(clients.session(), _settings.region)


def handler(event: dict[str, Any], context: Any) -> Answer:
    request = Request.from_event(event)
    try:
        return _answer(request, context)
    except Refusal as refusal:
        return _refuse(refusal, request)
    except clients.AWS_ERRORS:
        log.exception("the store failed")
        return _refuse(clients.unavailable(), request)
    except Exception:
        log.exception("failed")
        return _refuse(Internal(), request)


def _answer(request: Request, context: Any) -> Answer:
    now = int(time.time())
    if len(request.body) > MAX_CHAT_BODY_BYTES:
        raise TooLarge(f"The body may have at most {MAX_CHAT_BODY_BYTES} bytes.")
    claims = callers.believe(request, _deployment, lambda kid: _public_keys.find(kid, now), now=now)
    asked = chat.understand(request.json_object(), _model)
    completion_id = chat.completion_id(request.headers.get("x-client-request-id"), uuid.uuid4().hex)
    # Admission (one store round trip) belongs here, and settlement into `_logged`'s finally.
    left_s = context.get_remaining_time_in_millis() / 1000 - LAMBDA_MARGIN_S
    timing = relay.Timing(time.monotonic, time.monotonic() + min(_settings.max_stream_s, left_s))
    upstream = _provider.open(asked.upstream_body, _bearer(now), stream=asked.stream)
    frames = _logged(asked, upstream, completion_id, timing, claims, request)
    first = next(frames)  # what fails up to here is a plain HTTP error
    return 200, _headers(request, claims, completion_id, stream=asked.stream), first, frames


def _bearer(now: int) -> str:
    if _settings.upstream_base_url is None:
        return _role_bearer.at(now)
    return _vault.provider_key(_settings.provider_keys_secret, now)


def _logged(
    asked: chat.ChatRequest,
    upstream: relay.Upstream,
    completion_id: str,
    timing: relay.Timing,
    claims: Claims,
    request: Request,
) -> Iterator[bytes]:
    outcome = relay.Outcome()
    try:
        if asked.stream:
            yield from relay.stream(asked, upstream, completion_id, timing, outcome)
        else:
            yield relay.complete(upstream, completion_id, timing, outcome)
    finally:
        if outcome.outcome == "upstream_credentials_refused":
            _vault.forget(_settings.provider_keys_secret)  # a new key counts at once
        log.info(
            "chat",
            extra={
                "outcome": outcome.outcome,
                "completion_id": completion_id,
                "uid": claims.uid,
                "sid": claims.sid,
                "model": _model.name,
                "stream": asked.stream,
                "chunks": outcome.chunks,
                "first_byte_s": outcome.first_byte_s,
                "total_s": outcome.total_s,
                "usage": outcome.usage,
                "request_id": request.request_id,
            },
        )


def _headers(
    request: Request, claims: Claims, completion_id: str, *, stream: bool
) -> dict[str, str]:
    extra = {"X-Completion-Id": completion_id}
    for name, value in (
        ("X-Session-Id", request.headers.get("x-session-id") or claims.sid),
        ("X-Thread-Id", request.headers.get("x-thread-id")),
    ):
        if value and value.isascii() and value.isprintable():  # what a header can carry
            extra[name] = value
    if stream:
        extra["Content-Type"] = "text/event-stream; charset=utf-8"
        extra["Cache-Control"] = "no-store, no-transform"
        extra["X-Accel-Buffering"] = "no"
    return answer_headers(request, _deployment.origins, extra)


def _refuse(refusal: Refusal, request: Request) -> Answer:
    level = logging.ERROR if refusal.status >= 500 else logging.INFO
    told = {"status": refusal.status, "code": refusal.code, "details": refusal.details}
    log.log(level, "refused", extra={**told, "request_id": request.request_id})
    status, headers, body = refusal_answer(refusal, request, _deployment.origins)
    return status, headers, body.encode(), iter(())
