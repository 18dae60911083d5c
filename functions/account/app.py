"""What a caller may know and do about his own access: which models there are, what he has used and
has left, usage added up, and stopping a request of his that is still running.
"""

import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlencode

from aws_lambda_powertools.event_handler import Response

from weir.aws import items, lean
from weir.aws.api_keys import ApiKeys
from weir.aws.callers import Callers
from weir.aws.customers import Customers
from weir.aws.edge import Edge
from weir.aws.ledger import Ledger
from weir.aws.questions import Questions
from weir.aws.refused_origins import RefusedOrigins
from weir.aws.snapshots import Snapshots
from weir.aws.table import Table
from weir.aws.threads import Threads
from weir.aws.usage import Usage
from weir.chat import transcripts
from weir.customers.customer import COUNTED, Customer
from weir.customers.names import EXTERNAL, parse_reference
from weir.errors import BadRequest, Forbidden, NotFound
from weir.identity import api_keys, bindings, ringside
from weir.identity.api_keys import ApiKey
from weir.identity.tokens import Claims
from weir.ledger import rules
from weir.projects import model_refs
from weir.projects.catalogue import Model
from weir.projects.snapshot import Snapshot
from weir.settings import Caches, Deployment
from weir.usage import answers
from weir.usage.question import (
    MOST_OF_A_KEY,
    MOST_OF_A_USER,
    OF_BILLING,
    OF_USAGE,
    Question,
    understand,
)
from weir.usage.reading import Found, find

_deployment = Deployment.from_env(os.environ)
_table = Table(lean.client("dynamodb"), _deployment.table_name)
_ledger = Ledger(lean.client("dynamodb"), _deployment.table_name, time.time)
_usage = Usage(lean.client("dynamodb"), _deployment.table_name)
_customers = Customers(lean.client("dynamodb"), _deployment.table_name, time.time)
_questions = Questions(lean.client("dynamodb"), _deployment.table_name)
_callers = Callers(_deployment, _table, time.time, Caches.from_env(os.environ))
_snapshots = Snapshots(_table, time.time)
_refused_origins = RefusedOrigins(_table)
_api_keys = ApiKeys(_table)

# Of a model, and of a thread: `/` may be written as it is.
_NAMES_UNDER = {
    "/v1/models/": (),
    "/v1/threads/": ("/messages", "/export"),
    "/v1/customers/": ("/usage",),
}
# Deleting takes a call for 25 turns; Lambda ends the function after 25 s.
DELETE_WITHIN_S = 15

edge = Edge(
    "account",
    _snapshots.readable_by,
    too_long="The answer would be too long. Ask for it with a smaller limit.",
    names_under=_NAMES_UNDER,
    spelled=ringside.spelled,
)
logger, app = edge.logger, edge.app


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.resolve(event, context)


@app.get("/v1/models")
def models() -> dict[str, Any]:
    snapshot = _believed()
    if _by_reference():
        offered = snapshot.project.offered(snapshot.catalogue)
        return {"object": "list", "data": [_priced_view(model) for model in offered]}
    listed = [_view(model.name, model) for model in snapshot.project.offered(snapshot.catalogue)]
    default = _default(snapshot)
    return {"object": "list", "data": [*([_view("default", default)] if default else []), *listed]}


@app.get("/v1/models/<name>")
def model(name: str) -> dict[str, Any]:
    snapshot = _believed()
    name = unquote(name)
    if _by_reference():
        return _priced_view(
            model_refs.choose(snapshot.project, snapshot.catalogue, name, stream=False)
        )
    offered = {model.name for model in snapshot.project.offered(snapshot.catalogue)}
    found = _default(snapshot) if name == "default" else snapshot.catalogue.find(name)
    if found is None or found.name not in offered:
        raise NotFound(f"This project offers no model {name[:200]!r}.")
    return _view(name, found)


@app.get("/v1/me")
def me() -> dict[str, Any]:
    if ringside.speaks_it(edge.request):
        return _customers_own()
    claims, snapshot = _user()
    at, project = int(time.time()), snapshot.project
    account = rules.of_subject(
        items.user(claims.uid), project.limits_of(claims.tier), project.limited_fields
    )
    used = _ledger.used_by(claims.pid, account.part, at)
    return {
        "object": "me",
        "user_id": claims.uid,
        "project_id": claims.pid,
        "tier": claims.tier,
        **rules.own_state(account, *used, at),
    }


def _customers_own() -> dict[str, Any]:
    """What a widget shows: what is left, and when its token ends (contracts/ringside.md, 4.14)."""
    request, at = edge.request, int(time.time())
    if not ringside.is_client_token(request):
        raise Forbidden("This is for client tokens: a server reads GET /v1/customers/{id}.")
    claims, customer = _customer_of_page(bindings.ANY)
    account = rules.of_subject(claims.subject, customer.limits, COUNTED)
    state = rules.own_state(account, *_ledger.used_by(claims.pid, claims.subject, at), at)
    bound = claims.bindings
    assert bound is not None
    return {
        "object": "me",
        "customer": customer.id,
        "external_id": customer.external_id,
        **state,
        "token": {
            "id": bound.token_id,
            "expires_at": claims.expires_at,
            "scope": sorted(bound.scopes),
            "origins": sorted(bound.origins),
        },
    }


@app.post("/v1/chat/completions/<completion_id>/cancel")
def cancel(completion_id: str) -> dict[str, Any]:
    """It stops within about a second, at the provider, too; what it has used is charged."""
    if ringside.is_client_token(edge.request):
        claims, _ = _customer_of_page(bindings.CHAT)
    else:
        claims, _ = _user()
    completion_id = unquote(completion_id)
    subject = _customers.named(edge.request, claims) or claims.subject
    if not _ledger.cancel(claims.pid, subject, completion_id):
        raise NotFound(f"You have no running request {completion_id[:200]!r}.")
    return {"id": completion_id, "object": "chat.completion.cancelled", "cancelled": True}


@app.get("/v1/threads")
def list_threads() -> Response[str]:
    query, threads = edge.request.query, _threads()
    transcripts.refuse_others(query, "limit", "cursor", "search")
    limit = transcripts.parse_limit(query, transcripts.MOST_THREADS)
    cursor, search = transcripts.parse_cursor(query), transcripts.one(query, "search")
    records, after = threads.page(limit, cursor, search)
    return _page([transcripts.thread_view(record) for record in records], after)


@app.delete("/v1/threads")
def delete_threads() -> Response[str]:
    """All that is kept of the user, and only if the call says so."""
    threads, query = _threads(), edge.request.query
    transcripts.refuse_others(query, "confirm")
    if transcripts.one(query, "confirm") != "all":
        raise BadRequest(
            "This deletes all of your threads. If you mean it: DELETE /v1/threads?confirm=all",
            param="confirm",
        )
    threads.delete_all(_time_is_up())
    return Response(204)


@app.get("/v1/threads/<thread_id>")
def thread(thread_id: str) -> dict[str, Any]:
    return transcripts.thread_view(_threads().record(unquote(thread_id)))


@app.patch("/v1/threads/<thread_id>")
def rename_thread(thread_id: str) -> dict[str, Any]:
    threads, title = _threads(), transcripts.parse_title(edge.request.json_object())
    return transcripts.thread_view(threads.rename(unquote(thread_id), title))


@app.delete("/v1/threads/<thread_id>")
def delete_thread(thread_id: str) -> Response[str]:
    """204 for one that is not there, too: pages take it off their list before they call."""
    _threads().delete(unquote(thread_id), _time_is_up())
    return Response(204)


@app.get("/v1/threads/<thread_id>/messages")
def messages(thread_id: str) -> Response[str]:
    query, threads = edge.request.query, _threads()
    transcripts.refuse_others(query, "limit", "cursor")
    most = transcripts.parse_limit(query, transcripts.MOST_MESSAGES)
    name, cursor = unquote(thread_id), transcripts.parse_cursor(query)
    return _page(*threads.messages(name, threads.record(name), most, cursor))


@app.get("/v1/threads/<thread_id>/export")
def export(thread_id: str) -> Response[str]:
    """A thread with its messages in one document; a very long one in several."""
    query, threads = edge.request.query, _threads()
    transcripts.refuse_others(query, "cursor")
    name, cursor = unquote(thread_id), transcripts.parse_cursor(query)
    record = threads.record(name)
    found, after = threads.messages(name, record, transcripts.MOST_EXPORTED, cursor)
    document = {
        "object": "thread.export",
        "thread": transcripts.thread_view(record),
        "messages": found,
        "next_cursor": None if after is None else transcripts.cursor(after),
    }
    named = {"Content-Disposition": 'attachment; filename="thread.json"'}
    return Response(200, "application/json", _json(document), headers=named)


def _threads() -> Threads:
    """Of the caller, whose user token was sent."""
    claims, snapshot = _user()
    now_ms = int(time.time() * 1000)
    client, name = lean.client("dynamodb"), _deployment.table_name
    return Threads(client, name, snapshot.project, items.user(claims.uid), now_ms)


def _time_is_up() -> Callable[[], bool]:
    end = time.monotonic() + DELETE_WITHIN_S
    return lambda: time.monotonic() > end


def _page(views: Sequence[Mapping[str, Any]], after: str | None) -> Response[str]:
    """A bare list, as clients expect it: where it goes on stands in the headers."""
    headers = {}
    if after is not None:
        request, cursor = edge.request, transcripts.cursor(after)
        query = {name: values[-1] for name, values in request.query.items()} | {"cursor": cursor}
        # Relative to the address that was called (RFC 8288, section 3.1): a stage may come before.
        headers = {"Link": f'<?{urlencode(query)}>; rel="next"', "X-Next-Cursor": cursor}
    return Response(200, "application/json", _json(views), headers=headers)


@app.get("/v1/usage")
def usage() -> Response[str]:
    question, pid, found = _found(OF_USAGE)
    if not question.csv:
        return _answer(answers.document(question, pid, found))
    text, cursor = answers.table(question, found)
    named = {
        "Content-Type": "text/csv; charset=utf-8; header=present",
        "Content-Disposition": 'attachment; filename="usage.csv"',
    }
    if cursor:
        named["X-Next-Cursor"] = cursor
    return Response(200, body=text, headers=named)


@app.get("/v1/billing/usage")
def billing() -> Response[str]:
    question, pid, found = _found(OF_BILLING, group_by="model")
    return _answer(answers.billing(question, pid, found))


@app.get("/v1/customers/<ref>/usage")
def customer_usage(ref: str) -> Response[str]:
    """Of one customer; with a client token of scope `usage`, the token's own."""
    request, ref = edge.request, unquote(ref)
    if ringside.is_client_token(request):
        claims, customer = _customer_of_page(bindings.USAGE)
        if ref not in (customer.id, EXTERNAL + customer.external_id):
            raise bindings.customer_mismatch()
        pid, caller, most = claims.pid, claims.subject, MOST_OF_A_USER
    else:
        key, snapshot = _key(api_keys.READ)
        pid, caller, most = snapshot.project.pid, items.api_key(key.key_id), MOST_OF_A_KEY
        customer = _customers.find(pid, parse_reference(ref))
    query = {**request.query, "customer_id": [customer.id]}
    question, found = _asked(query, pid, None, caller, most, OF_USAGE)
    return _answer(answers.document(question, pid, found))


def _found(names: Collection[str], group_by: str | None = None) -> tuple[Question, str, Found]:
    """Return the question, its project and what was found. A user of role `user` sees only their
    own usage.
    """
    request, query = edge.request, dict(edge.request.query)
    if api_keys.looks_like(request.bearer()):
        key, snapshot = _key(api_keys.READ)
        pid, only = snapshot.project.pid, None
        caller, most = items.api_key(key.key_id), MOST_OF_A_KEY
        named = query.get("customer_id", [""])[-1]
        if named.startswith(EXTERNAL):
            query["customer_id"] = [_customers.find(pid, parse_reference(named)).id]
    else:
        claims, _ = _user()
        pid, only = claims.pid, None if claims.role == "admin" else claims.uid
        caller, most = items.user(claims.uid), MOST_OF_A_USER
    question, found = _asked(query, pid, only, caller, most, names, group_by)
    return question, pid, found


def _asked(
    query: Mapping[str, Sequence[str]],
    pid: str,
    only: str | None,
    caller: str,
    most: int,
    names: Collection[str],
    group_by: str | None = None,
) -> tuple[Question, Found]:
    """Answer a question of a caller who may ask `most` in a minute."""
    now_ms = int(time.time() * 1000)
    question = understand(
        query,
        now_ms,
        only=only,
        names=names,
        group_by=group_by,
        accept=edge.request.headers.get("accept", ""),
    )
    _questions.count(pid, caller, most, now_ms // 1000)
    return question, find(question, pid, _usage, now_ms)


def _believed() -> Snapshot:
    """Of the project whose user token, or whose API key (any scope), was sent."""
    return _key()[1] if api_keys.looks_like(edge.request.bearer()) else _user()[1]


def _key(scope: str | None = None) -> tuple[ApiKey, Snapshot]:
    """Return the API key that was sent, and its project. None: whatever its scopes."""
    scopes = [] if scope is None else [scope]
    key = _api_keys.believe(edge.request, int(time.time()), *scopes)
    return key, _snapshots.of(key.pid)


def _user() -> tuple[Claims, Snapshot]:
    """Return whose user token was sent, or for whom an API key with scope `api:chat`, and their
    project.
    """
    request, now = edge.request, int(time.time())
    claims = _callers.believe(request, now)
    snapshot = _snapshots.of_caller(claims)
    _refused_origins.check(request, snapshot.project, now)
    return claims, snapshot


def _customer_of_page(scope: str) -> tuple[Claims, Customer]:
    """Return whose client token was sent, which must have this scope, and the customer."""
    request, now = edge.request, int(time.time())
    claims = _callers.believe(request, now, scope)
    snapshot = _snapshots.of_token(claims)
    _refused_origins.check(request, snapshot.project, now)
    return claims, _customers.of_page(request, claims)


def _by_reference() -> bool:
    """Whether the caller names models as `fc:provider/model`."""
    return ringside.speaks_it(edge.request)


def _default(snapshot: Snapshot) -> Model | None:
    name = snapshot.project.default_model
    found = snapshot.catalogue.find(name) if name else None
    return None if found is None or found.killed else found


def _view(name: str, model: Model) -> dict[str, Any]:
    """OpenAI's model object, and three members more."""
    return {
        "id": name,
        "object": "model",
        "created": model.created_at,
        "owned_by": model.owned_by,
        "kind": model.kind,
        "context_window": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
    }


def _priced_view(model: Model) -> dict[str, Any]:
    """The same by its reference, and with what it costs: USD for a million tokens."""
    first = model.candidates[0]
    prices = {
        "input_usd_per_million": first.input_nano_usd / 1000,
        "cached_input_usd_per_million": first.cached_input_nano_usd / 1000,
        "output_usd_per_million": first.output_nano_usd / 1000,
    }
    return {**_view(model_refs.reference(model), model), "pricing": prices}


def _answer(body: Any) -> Response[str]:
    return Response(200, "application/json", _json(body))


def _json(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"))
