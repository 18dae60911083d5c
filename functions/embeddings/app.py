"""POST /v1/embeddings and POST /v1/moderations: believe the token, admit the request, have it
answered, settle it.

Runs on the streaming runtime, because vectors may be more than the 6 MB that a buffered function
can answer with. What is decided on the way is decided in `weir/embeddings` and `weir/chat`.
"""

import functools
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from weir.aws import lean, settling
from weir.aws.callers import Callers
from weir.aws.ledger import Ledger
from weir.aws.refused_origins import RefusedOrigins
from weir.aws.snapshots import Snapshots
from weir.aws.table import Table
from weir.aws.vault import Vault
from weir.chat import completion, headers, records, relay
from weir.chat.completion import Running
from weir.embeddings import routes
from weir.embeddings.routes import ROUTES, Route
from weir.errors import Internal, LedgerBusy, Refusal, TooLarge, store_unavailable
from weir.identity import ringside
from weir.identity.tokens import USER, Claims
from weir.ledger.admission import StaleConfiguration, StaleCustomer
from weir.projects.catalogue import Candidate
from weir.settings import ChatSettings, most_body_bytes
from weir.upstreams.providers import Providers
from weir.web.request import Request

Answer = tuple[int, dict[str, str], bytes, Iterator[bytes]]

# The runtime needs a moment to end the response before Lambda ends the runtime.
LAMBDA_MARGIN_S = 5

log = logging.getLogger("embeddings")

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
def _customers() -> Any:
    """Imported when a request is first for one."""
    from weir.aws.customers import Customers

    return Customers(_dynamodb, _deployment.table_name, time.time)


def handler(event: dict[str, Any], context: Any) -> Answer:
    request = Request.from_event(event)
    try:
        return _answer(ROUTES[event["resource"]], request, context)
    except Refusal as refusal:
        return _refuse(refusal, request)
    except lean.AwsError:
        log.exception("the store failed")
        return _refuse(store_unavailable(), request)
    except Exception:
        log.exception("failed")
        return _refuse(Internal(), request)


def _answer(route: Route, request: Request, context: Any) -> Answer:
    at_ms = int(time.time() * 1000)
    now = at_ms // 1000
    claims = _callers.believe(request, now, route.name)
    most = most_body_bytes(page=claims.bindings is not None, server=claims.issued_at is None)
    if len(request.body) > most:
        raise TooLarge(f"The body may have at most {most} bytes.")
    _refused_origins.check(request, _snapshots.of_token(claims).project, now)
    body = request.json_object()
    left_s = context.get_remaining_time_in_millis() / 1000 - LAMBDA_MARGIN_S
    answer_s = min(_settings.max_stream_s, left_s)
    timing = relay.Timing(time.monotonic, time.monotonic() + answer_s)
    # A reader that does not read must not hold the request open for longer.
    context.end_response_within(int(answer_s * 1000))
    running = _admitted(route, request, claims, body, at_ms)
    pieces = routes.relayed(
        route,
        running,
        timing,
        open_upstream=lambda candidate, sent: _open(route, candidate, sent),
        settle=lambda running: _settle(route, running),
    )
    first = next(pieces)  # what fails up to here is a plain HTTP error
    return 200, headers.of_answer(running), first, pieces


def _admitted(
    route: Route, request: Request, claims: Claims, body: dict[str, Any], at_ms: int
) -> Running:
    """With its worst case held, in one round trip to the store."""
    for _ in range(2):
        snapshot, whom = _snapshots.of_token(claims), None
        if claims.kind != USER:
            whom, snapshot = _customers().of_request(request, claims, body, snapshot, at_ms)
        chat = routes.understood(
            route,
            request,
            claims if whom is None else whom.claims,
            snapshot,
            body,
            at_ms=at_ms,
            random_hex=os.urandom(16).hex(),
            whom=whom,
        )
        try:
            ask = completion.asked_of_the_ledger(chat, _settings.max_stream_s)
            return Running.admitted(chat, _ledger.admit(ask))
        except StaleConfiguration:
            _snapshots.forget(claims.pid)
        except StaleCustomer as stale:
            _customers().keep(claims.pid, chat.claims.uid, stale.found)
    raise LedgerBusy


def _open(route: Route, candidate: Candidate, body: bytes) -> relay.Upstream:
    return _providers.open(
        candidate.upstream, candidate.model, body, stream=False, kind_of_model=route.kind
    )


def _settle(route: Route, running: Running) -> None:
    if any("upstream_credentials_refused" in attempt for attempt in running.attempts):
        _providers.forget_keys()  # a new key counts at once
    settling.settle(
        running, _ledger, _table, stack=_deployment.stack_name, log=log, line=route.name
    )


def _refuse(refusal: Refusal, request: Request) -> Answer:
    level = logging.ERROR if refusal.status >= 500 else logging.INFO
    at_ms, stack = int(time.time() * 1000), _deployment.stack_name
    told = records.of_refusal(refusal, request.request_id, stack=stack, at_ms=at_ms)
    log.log(level, "refused", extra=told)
    status, head, body = ringside.spelled(refusal, request, _snapshots.readable_by())
    return status, head, body.encode(), iter(())
