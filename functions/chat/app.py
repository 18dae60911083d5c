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
from weir.aws import lean, provider_keys
from weir.aws.public_keys import PublicKeys
from weir.aws.refused_origins import RefusedOrigins
from weir.aws.snapshots import Snapshot, Snapshots
from weir.aws.table import Table
from weir.aws.vault import Vault
from weir.catalogue import BEDROCK, Candidate, Model, Upstream
from weir.errors import Internal, NotReady, Refusal, TooLarge, store_unavailable
from weir.events import Request, answer_headers, refusal_answer
from weir.origins import Origins
from weir.settings import MAX_CHAT_BODY_BYTES, ChatSettings
from weir.tokens import Claims
from weir.upstreams import bedrock
from weir.upstreams.openai_compatible import Provider

Answer = tuple[int, dict[str, str], bytes, Iterator[bytes]]

# The runtime needs a moment to end the response before Lambda ends the runtime.
LAMBDA_MARGIN_S = 5

log = logging.getLogger("chat")

_settings = ChatSettings.from_env(os.environ)
_deployment = _settings.deployment
_table = Table(lean.client("dynamodb"), _deployment.table_name)
_public_keys = PublicKeys(_table, time.time)
_snapshots = Snapshots(_table, time.time)
_refused_origins = RefusedOrigins(_table)
_vault = Vault(lean.client("secretsmanager"))
_providers: dict[str, Provider] = {}  # by base URL; each keeps a connection
_role_bearers: dict[str, bedrock.RoleBearer] = {}  # by region


def handler(event: dict[str, Any], context: Any) -> Answer:
    request = Request.from_event(event)
    try:
        return _answer(request, context)
    except Refusal as refusal:
        return _refuse(refusal, request)
    except lean.AwsError:
        log.exception("the store failed")
        return _refuse(store_unavailable(), request)
    except Exception:
        log.exception("failed")
        return _refuse(Internal(), request)


def _answer(request: Request, context: Any) -> Answer:
    now = int(time.time())
    if len(request.body) > MAX_CHAT_BODY_BYTES:
        raise TooLarge(f"The body may have at most {MAX_CHAT_BODY_BYTES} bytes.")
    claims = callers.believe(request, _deployment, lambda kid: _public_keys.find(kid, now), now=now)
    snapshot = _snapshots.of(claims.pid, claims.uid)
    _refused_origins.check(request, snapshot.project, now)
    body = request.json_object()
    model = snapshot.project.choose(body.get("model"), snapshot.catalogue)
    candidate = model.candidates[0]
    asked = chat.understand(body, _target(model, candidate, snapshot, claims))
    completion_id = chat.completion_id(request.headers.get("x-client-request-id"), uuid.uuid4().hex)
    # Admission (one store round trip) belongs here, and settlement into `_logged`'s finally.
    left_s = context.get_remaining_time_in_millis() / 1000 - LAMBDA_MARGIN_S
    timing = relay.Timing(time.monotonic, time.monotonic() + min(_settings.max_stream_s, left_s))
    upstream = _open(candidate.upstream, asked, now)
    frames = _logged(asked, upstream, completion_id, timing, claims, model, request)
    first = next(frames)  # what fails up to here is a plain HTTP error
    headers = _headers(
        request, claims, completion_id, snapshot.project.origins, stream=asked.stream
    )
    return 200, headers, first, frames


def _target(model: Model, candidate: Candidate, snapshot: Snapshot, claims: Claims) -> chat.Target:
    cap = snapshot.most_output_tokens(claims.tier)
    return chat.Target(
        candidate.model,
        candidate.output_cap_parameter,
        model.max_output_tokens if cap is None else min(cap, model.max_output_tokens),
        images=model.image_max_tokens is not None,
        system_prompt=snapshot.project.system_prompt,
    )


def _open(upstream: Upstream, asked: chat.ChatRequest, now: int) -> relay.Upstream:
    if upstream.kind == BEDROCK:
        region = upstream.region or _settings.region
        base_url, bearer = bedrock.base_url(region), _role_bearer(region, now)
    else:
        assert upstream.base_url is not None
        base_url, bearer = upstream.base_url, _provider_key(upstream.name, upstream.base_url, now)
    if base_url not in _providers:
        _providers[base_url] = Provider(base_url)
    return _providers[base_url].open(asked.upstream_body, bearer, stream=asked.stream)


def _role_bearer(region: str, now: int) -> str:
    if region not in _role_bearers:
        _role_bearers[region] = bedrock.RoleBearer(os.environ, region)
    return _role_bearers[region].at(now)


def _provider_key(upstream: str, base_url: str, now: int) -> str:
    secret = _vault.read(_settings.provider_keys_secret, now)
    key = provider_keys.key_for(secret, upstream, base_url)
    if key is None:
        _vault.forget(_settings.provider_keys_secret)  # once it is set, it counts at once
        raise NotReady(
            f"This gateway has no key for {upstream!r}. The operator sets it: "
            f"weir upstreams set-key {upstream}.",
            code="upstream_not_configured",
            retryable=False,
        )
    return key


def _logged(
    asked: chat.ChatRequest,
    upstream: relay.Upstream,
    completion_id: str,
    timing: relay.Timing,
    claims: Claims,
    model: Model,
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
                "project": claims.pid,
                "uid": claims.uid,
                "sid": claims.sid,
                "model": model.name,
                "stream": asked.stream,
                "chunks": outcome.chunks,
                "first_byte_s": outcome.first_byte_s,
                "total_s": outcome.total_s,
                "usage": outcome.usage,
                "request_id": request.request_id,
            },
        )


def _headers(
    request: Request, claims: Claims, completion_id: str, origins: Origins, *, stream: bool
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
    return answer_headers(request, origins, extra)


def _refuse(refusal: Refusal, request: Request) -> Answer:
    level = logging.ERROR if refusal.status >= 500 else logging.INFO
    told = {"status": refusal.status, "code": refusal.code, "details": refusal.details}
    log.log(level, "refused", extra={**told, "request_id": request.request_id})
    status, headers, body = refusal_answer(refusal, request, _snapshots.readable_by())
    return status, headers, body.encode(), iter(())
