"""POST /v1/chat/completions: believe the token, admit the request, relay it, settle it.

Runs on the streaming runtime: a handler returns (status, headers, first chunk, the rest).
"""

import functools
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from weir.aws import items, lean
from weir.aws.cancellation import Cancellation
from weir.aws.ledger import Ledger
from weir.aws.public_keys import PublicKeys
from weir.aws.refused_origins import RefusedOrigins
from weir.aws.snapshots import Snapshots
from weir.aws.table import Table
from weir.aws.vault import Vault
from weir.chat import relay
from weir.chat import request as chat
from weir.errors import (
    BadRequest,
    Internal,
    LedgerBusy,
    Refusal,
    TooLarge,
    UpstreamRejected,
    store_unavailable,
)
from weir.identity import callers
from weir.identity.tokens import Claims
from weir.ledger import costs, rules
from weir.ledger.admission import Ask, Reservation, StaleConfiguration
from weir.ledger.rules import Amounts, Field, Settlement
from weir.metrics import COUNT, MILLISECONDS, NO_UNIT, emf
from weir.projects.catalogue import Candidate, Model
from weir.projects.limits import NANO
from weir.projects.snapshot import Snapshot
from weir.settings import MAX_CHAT_BODY_BYTES, ChatSettings
from weir.upstreams.providers import Providers
from weir.web.request import Request, answer_headers, refusal_answer

Answer = tuple[int, dict[str, str], bytes, Iterator[bytes]]

# The runtime needs a moment to end the response before Lambda ends the runtime.
LAMBDA_MARGIN_S = 5
# After the longest answer its process is given up, and the sweeper settles for it.
SWEPT_AFTER_S = 60
BROKE = {"upstream_invalid_response", "upstream_unavailable"}
STOPPED_OR_WHOLE = {"completed", "cancelled", "stream_deadline_exceeded", "upstream_timeout"}
# What an upstream may be blamed for.
UPSTREAM_ERRORS = {
    "upstream_unavailable",
    "upstream_error",
    "upstream_invalid_response",
    "upstream_credentials_refused",
    "upstream_rate_limited",
    "upstream_quota_exceeded",
    "upstream_timeout",
}
MAX_LABEL = 128  # characters of a session or thread that are kept with the usage

log = logging.getLogger("chat")

_settings = ChatSettings.from_env(os.environ)
_deployment = _settings.deployment
_dynamodb = lean.client("dynamodb")
_table = Table(_dynamodb, _deployment.table_name)
_ledger = Ledger(_dynamodb, _deployment.table_name, time.time, usage_kept_s=_settings.usage_kept_s)
_public_keys = PublicKeys(_table, time.time)
_snapshots = Snapshots(_table, time.time)
_refused_origins = RefusedOrigins(_table)
_providers = Providers(
    Vault(lean.client("secretsmanager")),
    _settings.provider_keys_secret,
    region=_settings.region,
    role=os.environ,
)


@dataclass(slots=True)
class Chat:
    """One request that was admitted. `attempts` are the upstreams that were asked, and what came
    of it.
    """

    request: Request
    claims: Claims
    snapshot: Snapshot
    model: Model
    asked: chat.ChatRequest
    reservation: Reservation
    at_ms: int
    attempts: list[str] = field(default_factory=list)

    @property
    def completion_id(self) -> str:
        return self.reservation.completion_id

    @property
    def output_cap(self) -> int:
        return self.reservation.output_tokens // self.asked.choices


@functools.cache
def _watched() -> Ledger:
    """With a connection of its own, for the thread that looks. Most answers end before it does."""
    return Ledger(lean.new_client("dynamodb"), _deployment.table_name, time.time)


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
    at_ms = int(time.time() * 1000)
    now = at_ms // 1000
    if len(request.body) > MAX_CHAT_BODY_BYTES:
        raise TooLarge(f"The body may have at most {MAX_CHAT_BODY_BYTES} bytes.")
    claims = callers.believe(request, _deployment, lambda kid: _public_keys.find(kid, now), now=now)
    snapshot = _snapshots.of(claims.pid)
    _refused_origins.check(request, snapshot.project, now)
    body = request.json_object()
    left_s = context.get_remaining_time_in_millis() / 1000 - LAMBDA_MARGIN_S
    stream_s = min(_settings.max_stream_s, left_s)
    timing = relay.Timing(time.monotonic, time.monotonic() + stream_s)
    # A reader that does not read must not hold the request open for longer.
    context.end_response_within(int(stream_s * 1000))
    try:
        one = _admitted(request, claims, snapshot, body, at_ms)
    except StaleConfiguration:
        _snapshots.forget(claims.pid)
        try:
            one = _admitted(request, claims, _snapshots.of(claims.pid), body, at_ms)
        except StaleConfiguration:
            raise LedgerBusy from None
    frames = _relayed(one, timing)
    first = next(frames)  # what fails up to here is a plain HTTP error
    return 200, _headers(one), first, frames


def _admitted(
    request: Request, claims: Claims, snapshot: Snapshot, body: dict[str, Any], at_ms: int
) -> Chat:
    """With its worst case held, in one round trip to the store."""
    project = snapshot.project
    model = project.choose(body.get("model"), snapshot.catalogue)
    asked = chat.understand(body, _target(model, snapshot, claims))
    chat.check_length(model, asked)
    completion_id = chat.completion_id(
        request.headers.get("x-client-request-id"), os.urandom(16).hex()
    )
    size = (model, asked.text_bytes, asked.images)
    bound, estimate = costs.input_bound(*size), costs.input_estimate(*size)

    def price(output_tokens: int) -> Amounts:
        return Amounts(
            estimate + output_tokens, costs.worst_case(model.candidates, bound, output_tokens)
        )

    def afford(limit: Field, left: int) -> int:
        if limit.unit == "nano_usd":
            return costs.affordable_output(model.candidates, bound, left)
        return left - estimate if limit.unit == "tokens" else 0

    reservation = _ledger.admit(
        Ask(
            pid=claims.pid,
            subject=items.user(claims.uid),
            tier=claims.tier,
            completion_id=completion_id,
            limits=project.limits_of(claims.tier),
            limited=project.limited_fields,
            project=project.pool,
            tenant=snapshot.tenant_pool,
            price=price,
            afford=afford,
            output_tokens=asked.output_tokens(asked.output_cap),
            choices=asked.choices,
            shrinkable=not asked.cap_asked,
            due=at_ms // 1000 + _settings.max_stream_s + SWEPT_AFTER_S,
            row={
                "uid": claims.uid,
                "session_id": _label(request.label("X-Session-Id") or claims.sid),
                "thread_id": _label(request.label("X-Thread-Id")),
                "tag": _tag(request),
                "model": model.name,
                "tier": claims.tier,
                "request_id": request.request_id,
            },
        )
    )
    return Chat(request, claims, snapshot, model, asked, reservation, at_ms)


def _target(model: Model, snapshot: Snapshot, claims: Claims) -> chat.Target:
    cap = snapshot.most_output_tokens(claims.tier)
    return chat.Target(
        model.max_output_tokens if cap is None else min(cap, model.max_output_tokens),
        images=model.image_max_tokens is not None,
        system_prompt=snapshot.project.system_prompt,
    )


def _label(value: str | None) -> str | None:
    return value[:MAX_LABEL] if value else None


def _tag(request: Request) -> str | None:
    tag = request.headers.get("fc-tag")
    if tag and (len(tag) > 64 or not tag.isprintable()):
        raise BadRequest("FC-Tag must be at most 64 printable characters.", param="FC-Tag")
    return tag or None


def _relayed(one: Chat, timing: relay.Timing) -> Iterator[bytes]:
    """The answer of the first upstream that gives one. Whatever happens, the request is settled."""
    outcome, candidate = relay.Outcome(), one.model.candidates[0]
    subject = one.reservation.subject
    cancelled = Cancellation(
        lambda: _watched().is_cancelled(one.claims.pid, subject, one.completion_id)
    )

    def receipt(seen: relay.Outcome) -> dict[str, Any]:
        # Some tell it with every chunk: until the end, as they do.
        usage = costs.read_usage(seen.usage) or _usage(one, seen)
        return costs.usage_object(usage, costs.cost(usage, candidate), seen.usage)

    try:
        for place, candidate in enumerate(one.model.candidates, 1):
            outcome = relay.Outcome()
            try:
                body = one.asked.body_for(candidate, one.output_cap)
                upstream = _providers.open(
                    candidate.upstream, candidate.model, body, stream=one.asked.stream
                )
                one.attempts.append(f"{candidate.upstream.name}=ok")
                if one.asked.stream:
                    yield from relay.stream(
                        one.asked,
                        upstream,
                        one.completion_id,
                        timing,
                        outcome,
                        receipt,
                        cancelled,
                    )
                else:
                    yield relay.complete(
                        upstream, one.completion_id, timing, outcome, receipt, cancelled
                    )
                return
            except Refusal as refusal:  # before anything was sent to the caller
                if refusal.code == "upstream_credentials_refused":
                    _providers.forget_keys()  # a new key counts at once
                outcome.outcome = refusal.code
                del one.attempts[place - 1 :]
                one.attempts.append(f"{candidate.upstream.name}={refusal.code}")
                elsewhere = refusal.elsewhere or refusal.code == "upstream_not_configured"
                if not elsewhere or _is_billed(one, outcome) or place == len(one.model.candidates):
                    raise
    finally:
        try:
            _settle(one, outcome, candidate)
        finally:
            if not cancelled.end():
                _watched.cache_clear()


def _is_billed(one: Chat, outcome: relay.Outcome) -> bool:
    """Whether the provider has done something that it may be paid for: it has said something, or
    was at it when it was stopped. Of an answer that does not stream nobody knows how much of it was
    done before it broke. An answer that it failed to give before its first word is free.
    """
    said = outcome.content_chunks > 0 or outcome.usage is not None
    stopped = outcome.outcome in STOPPED_OR_WHOLE
    broke = not one.asked.stream and outcome.outcome in BROKE
    return said or outcome.silent or (outcome.answered and (stopped or broke))


def _usage(one: Chat, outcome: relay.Outcome) -> costs.Usage:
    """What the provider has billed; our own count, if it has not told. An answer that was stopped
    is counted on the safe side: its input at its bound, and all of its output cap where something
    may have been produced that was not seen.
    """
    told = costs.read_usage(outcome.usage)
    if told is not None and outcome.usage_is_final and (told.output or not outcome.content_chunks):
        return told
    size = (one.model, one.asked.text_bytes, one.asked.images)
    seen = (outcome.content_bytes, outcome.content_chunks)
    most = one.reservation.output_tokens
    if outcome.outcome == "completed":
        counted = costs.estimated(costs.input_estimate(*size), *seen, most)
    else:
        counted = costs.estimated(costs.input_bound(*size), *seen, most)
        if one.model.hidden_reasoning or not one.asked.stream:
            counted = replace(counted, output=most)
    return costs.not_less_than(told, counted)


def _settle(one: Chat, outcome: relay.Outcome, candidate: Candidate) -> None:
    """In one round trip. Never raises: the answer has been given, and a request that could not be
    settled is swept.
    """
    billed = _is_billed(one, outcome)
    usage = _usage(one, outcome) if billed else costs.Usage(0, 0, 0, 0)
    nano_usd = costs.cost(usage, candidate)
    row = {
        "upstream": candidate.upstream.name,
        "outcome": outcome.outcome,
        "input_tokens": usage.input,
        "cached_tokens": usage.cached,
        "output_tokens": usage.output,
        "reasoning_tokens": usage.reasoning,
        "nano_usd": nano_usd,
        "estimated": usage.estimated,
        "at_ms": one.at_ms,
        "first_byte_ms": _ms(outcome.first_byte_s),
        "total_ms": _ms(outcome.total_s),
    }
    settled = Settlement(usage.total, nano_usd, answered=billed)
    failed = False
    try:
        if not _ledger.settle(one.reservation, settled, row):
            log.warning("settled before", extra={"completion_id": one.completion_id})
    except Exception:
        log.exception("not settled", extra={"completion_id": one.completion_id})
        failed = True
    _tell(one, outcome, row, above=nano_usd > one.reservation.amounts.nano_usd, failed=failed)


def _tell(
    one: Chat, outcome: relay.Outcome, row: dict[str, Any], *, above: bool, failed: bool
) -> None:
    metrics = {
        "Requests": (1, COUNT),
        "Tokens": (row["input_tokens"] + row["output_tokens"], COUNT),
        # What could not be settled is charged, and counted, by the sweeper.
        "CostUsd": (0 if failed else row["nano_usd"] / NANO, NO_UNIT),
        "AboveWorstCase": (int(above), COUNT),
        "SettlementFailures": (int(failed), COUNT),
        "Fallbacks": (int(len(one.attempts) > 1), COUNT),
    }
    if row["first_byte_ms"] is not None:
        metrics["FirstByteMs"] = (row["first_byte_ms"], MILLISECONDS)
    named = {
        "completion_id": one.completion_id,
        "project": one.claims.pid,
        "chunks": outcome.chunks,
    }
    told = {**one.reservation.row, **row, "stream": one.asked.stream, "attempts": one.attempts}
    # As of now: a stream of minutes must not be counted where an alarm has looked already.
    at_ms, named_by = int(time.time() * 1000), {"Model": one.model.name}
    metric = emf("chat", _deployment.stack_name, at_ms, metrics, named_by)
    log.info("chat", extra={**named, **told, **metric})
    _tell_failures(one, outcome, at_ms)


def _tell_failures(one: Chat, outcome: relay.Outcome, at_ms: int) -> None:
    """A line for each upstream that failed, before its answer or within it."""
    for attempt in one.attempts:
        name, _, code = attempt.rpartition("=")
        code = outcome.outcome if code == "ok" else code
        if code in UPSTREAM_ERRORS:
            counted, named_by = {"UpstreamErrors": (1, COUNT)}, {"Upstream": name}
            told = {
                "code": code,
                "request_id": one.request.request_id,
                **emf("chat", _deployment.stack_name, at_ms, counted, named_by),
            }
            log.warning("upstream failed", extra=told)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _headers(one: Chat) -> dict[str, str]:
    limits = one.snapshot.project.limits_of(one.claims.tier)
    extra = {
        "X-Completion-Id": one.completion_id,
        "X-Weir-Upstreams": ", ".join(one.attempts),
        **rules.policy_headers(limits, one.reservation.at),
    }
    request = one.request
    for name, value in (
        ("X-Session-Id", request.label("X-Session-Id") or one.claims.sid),
        ("X-Thread-Id", request.label("X-Thread-Id")),
    ):
        if value and value.isascii() and value.isprintable():  # what a header can carry
            extra[name] = value
    if one.asked.stream:
        extra["Content-Type"] = "text/event-stream; charset=utf-8"
        extra["Cache-Control"] = "no-store, no-transform"
        extra["X-Accel-Buffering"] = "no"
    return answer_headers(request, one.snapshot.project.origins, extra)


def _refuse(refusal: Refusal, request: Request) -> Answer:
    level = logging.ERROR if refusal.status >= 500 else logging.INFO
    counted = {"Refusals": (1, COUNT), "LedgerBusy": (int(isinstance(refusal, LedgerBusy)), COUNT)}
    # A provider's own code is any word that it likes: a metric of each would have no end.
    code = type(refusal).code if isinstance(refusal, UpstreamRejected) else refusal.code
    at_ms, named_by = int(time.time() * 1000), {"Code": code}
    told = {
        "status": refusal.status,
        "code": refusal.code,
        "details": refusal.details,
        "request_id": request.request_id,
        **emf("chat", _deployment.stack_name, at_ms, counted, named_by),
    }
    log.log(level, "refused", extra=told)
    status, headers, body = refusal_answer(refusal, request, _snapshots.readable_by())
    return status, headers, body.encode(), iter(())
