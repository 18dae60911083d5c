"""POST /v1/chat/completions: believe the token, admit the request, relay it, settle it.

Runs on the streaming runtime: a handler returns (status, headers, first chunk, the rest). What is
decided on the way is decided in `weir/chat`; here it meets the store, the providers and the clock.
"""

import functools
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from weir.aws import lean, settling
from weir.aws.callers import Callers
from weir.aws.cancellation import Cancellation
from weir.aws.ledger import Ledger
from weir.aws.refused_origins import RefusedOrigins
from weir.aws.snapshots import Snapshots
from weir.aws.table import Table
from weir.aws.vault import Vault
from weir.chat import completion, headers, records, relay
from weir.chat.completion import Chat, Running
from weir.errors import Internal, LedgerBusy, Refusal, TooLarge, store_unavailable
from weir.identity import ringside
from weir.identity.bindings import CHAT
from weir.identity.tokens import USER, Claims
from weir.ledger.admission import StaleConfiguration, StaleCustomer
from weir.projects.catalogue import Candidate
from weir.settings import ChatSettings, most_body_bytes
from weir.upstreams.providers import Providers
from weir.web.request import Request

Answer = tuple[int, dict[str, str], bytes, Iterator[bytes]]

# The runtime needs a moment to end the response before Lambda ends the runtime.
LAMBDA_MARGIN_S = 5

log = logging.getLogger("chat")

_settings = ChatSettings.from_env(os.environ)
_deployment = _settings.deployment
_dynamodb = lean.client("dynamodb")
_table = Table(_dynamodb, _deployment.table_name)
_ledger = Ledger(_dynamodb, _deployment.table_name, time.time, usage_kept_s=_settings.usage_kept_s)
_callers = Callers(_deployment, _table, time.time, _settings.caches)
_snapshots = Snapshots(_table, time.time)
_refused_origins = RefusedOrigins(_table)
_providers = Providers(
    Vault(lean.client("secretsmanager"), _settings.caches.secrets_s),
    _settings.provider_keys_secret,
    region=_settings.region,
    role=os.environ,
)


@functools.cache
def _watched() -> Ledger:
    """With a connection of its own, for the thread that looks. Most answers end before it does."""
    return Ledger(lean.new_client("dynamodb"), _deployment.table_name, time.time)


@functools.cache
def _conversations() -> Any:
    """Imported when a request first names a thread: most processes never see one."""
    from weir.aws.conversations import Conversations

    return Conversations(_dynamodb, _deployment.table_name, _deployment.stack_name)


@functools.cache
def _customers() -> Any:
    """Imported when a request is first for one."""
    from weir.aws.customers import Customers

    return Customers(_dynamodb, _deployment.table_name, time.time)


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
    claims = _callers.believe(request, now, CHAT)
    most = most_body_bytes(page=claims.bindings is not None, server=claims.issued_at is None)
    if len(request.body) > most:
        raise TooLarge(f"The body may have at most {most} bytes.")
    _refused_origins.check(request, _snapshots.of_token(claims).project, now)
    body = request.json_object()
    left_s = context.get_remaining_time_in_millis() / 1000 - LAMBDA_MARGIN_S
    stream_s = min(_settings.max_stream_s, left_s)
    timing = relay.Timing(time.monotonic, time.monotonic() + stream_s)
    # A reader that does not read must not hold the request open for longer.
    context.end_response_within(int(stream_s * 1000))
    try:
        running = _admitted(request, claims, body, at_ms)
        frames = _relayed(running, timing)
        first = next(frames)  # what fails up to here is a plain HTTP error
    finally:
        _providers.forgo()
    return 200, headers.of_answer(running), first, frames


def _admitted(request: Request, claims: Claims, body: dict[str, Any], at_ms: int) -> Running:
    """With its worst case held, in one round trip to the store. What it continues is a part of its
    price, so that is read before, in another.
    """
    project, kept = _snapshots.of(claims.pid).project, None
    if claims.kind == USER:
        named = completion.conversation_of(request, claims, project)
        subject = claims.subject
        kept = _conversations().read(claims.pid, subject, project, *named, at_ms) if named else None
    for _ in range(2):
        snapshot, whom = _snapshots.of_token(claims), None
        if claims.kind != USER:
            whom, snapshot = _customers().of_request(request, claims, body, snapshot, at_ms)
        chat = completion.understood(
            request,
            claims if whom is None else whom.claims,
            snapshot,
            body,
            at_ms=at_ms,
            random_hex=os.urandom(16).hex(),
            conversation=kept,
            whom=whom,
        )
        try:
            ask = completion.asked_of_the_ledger(chat, _settings.max_stream_s)
            _providers.prepare(chat.model.candidates[0].upstream)
            return Running.admitted(chat, _ledger.admit(ask))
        except StaleConfiguration:
            _snapshots.forget(claims.pid)
        except StaleCustomer as stale:
            _customers().keep(claims.pid, chat.claims.uid, stale.found)
    raise LedgerBusy


def _relayed(running: Running, timing: relay.Timing) -> Iterator[bytes]:
    chat = running.chat
    cancelled = Cancellation(
        lambda: _watched().is_cancelled(chat.claims.pid, chat.subject, chat.completion_id)
    )
    try:
        yield from completion.relayed(
            running,
            timing,
            open_upstream=lambda candidate, body: _open(candidate, body, chat),
            settle=_settle,
            cancelled=cancelled,
        )
    finally:
        if not cancelled.end():
            _watched.cache_clear()


def _open(candidate: Candidate, body: bytes, chat: Chat) -> relay.Upstream:
    return _providers.open(candidate.upstream, candidate.model, body, stream=chat.asked.stream)


def _settle(running: Running) -> None:
    if any("upstream_credentials_refused" in attempt for attempt in running.attempts):
        _providers.forget_keys()  # a new key counts at once
    charge = settling.settle(
        running, _ledger, _table, stack=_deployment.stack_name, log=log, line="chat"
    )
    if running.reply is not None:
        _conversations().keep(running, charge)


def _refuse(refusal: Refusal, request: Request) -> Answer:
    level = logging.ERROR if refusal.status >= 500 else logging.INFO
    at_ms, stack = int(time.time() * 1000), _deployment.stack_name
    told = records.of_refusal(refusal, request.request_id, stack=stack, at_ms=at_ms)
    log.log(level, "refused", extra=told)
    status, head, body = ringside.spelled(refusal, request, _snapshots.readable_by())
    return status, head, body.encode(), iter(())
