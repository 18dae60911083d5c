"""What a caller may know and do about his own access: which models there are, what he has used and
has left, usage added up, and stopping a request of his that is still running.
"""

import json
import os
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response

from weir.aws import items, lean
from weir.aws.edge import Edge
from weir.aws.key_use import KeyUse
from weir.aws.ledger import Ledger
from weir.aws.public_keys import PublicKeys
from weir.aws.questions import Questions
from weir.aws.refused_origins import RefusedOrigins
from weir.aws.snapshots import Snapshots
from weir.aws.table import Table
from weir.aws.usage import Usage
from weir.errors import NotFound
from weir.identity import api_keys, callers
from weir.identity.api_keys import ApiKey
from weir.identity.tokens import Claims
from weir.ledger import rules
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
_questions = Questions(lean.client("dynamodb"), _deployment.table_name)
_public_keys = PublicKeys(_table, time.time, Caches.from_env(os.environ))
_snapshots = Snapshots(_table, time.time)
_refused_origins = RefusedOrigins(_table)
_key_use = KeyUse(_table)

edge = Edge("account", _snapshots.readable_by, models_under="/v1/models/")
logger, app = edge.logger, edge.app


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.resolve(event, context)


@app.get("/v1/models")
def models() -> dict[str, Any]:
    snapshot = _believed()
    listed = [_view(model.name, model) for model in snapshot.project.offered(snapshot.catalogue)]
    default = _default(snapshot)
    return {"object": "list", "data": [*([_view("default", default)] if default else []), *listed]}


@app.get("/v1/models/<name>")
def model(name: str) -> dict[str, Any]:
    snapshot = _believed()
    name = unquote(name)
    offered = {model.name for model in snapshot.project.offered(snapshot.catalogue)}
    found = _default(snapshot) if name == "default" else snapshot.catalogue.find(name)
    if found is None or found.name not in offered:
        raise NotFound(f"This project offers no model {name[:200]!r}.")
    return _view(name, found)


@app.get("/v1/me")
def me() -> dict[str, Any]:
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


@app.post("/v1/chat/completions/<completion_id>/cancel")
def cancel(completion_id: str) -> dict[str, Any]:
    """It stops within about a second, at the provider, too; what it has used is charged."""
    claims, _ = _user()
    completion_id = unquote(completion_id)
    if not _ledger.cancel(claims.pid, items.user(claims.uid), completion_id):
        raise NotFound(f"You have no running request {completion_id[:200]!r}.")
    return {"id": completion_id, "object": "chat.completion.cancelled", "cancelled": True}


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
    return Response(200, body=answers.refuse_too_long(text), headers=named)


@app.get("/v1/billing/usage")
def billing() -> Response[str]:
    question, pid, found = _found(OF_BILLING, group_by="model")
    return _answer(answers.billing(question, pid, found))


def _found(names: Collection[str], group_by: str | None = None) -> tuple[Question, str, Found]:
    """Return the question, its project and what was found. A user of role `user` sees only their
    own usage.
    """
    request, now_ms = edge.request, int(time.time() * 1000)
    if api_keys.looks_like(request.bearer()):
        key, snapshot = _key(api_keys.READ)
        pid, only = snapshot.project.pid, None
        caller, most = items.api_key(key.key_id), MOST_OF_A_KEY
    else:
        claims, _ = _user()
        pid, only = claims.pid, None if claims.role == "admin" else claims.uid
        caller, most = items.user(claims.uid), MOST_OF_A_USER
    question = understand(
        request.query,
        now_ms,
        only=only,
        names=names,
        group_by=group_by,
        accept=request.headers.get("accept", ""),
    )
    _questions.count(pid, caller, most, now_ms // 1000)
    return question, pid, find(question, pid, _usage, now_ms)


def _believed() -> Snapshot:
    """Of the project whose user token, or whose API key (any scope), was sent."""
    return _key()[1] if api_keys.looks_like(edge.request.bearer()) else _user()[1]


def _key(scope: str | None = None) -> tuple[ApiKey, Snapshot]:
    """Return the API key that was sent, and its project. None: whatever its scopes."""
    request, now = edge.request, int(time.time())
    request.refuse_browser()
    key_hash = api_keys.unverified_hash(request.bearer())
    key = api_keys.believe(_table.api_key(key_hash), key_hash, scope)
    _key_use.note(key, now)
    return key, _snapshots.of(key.pid)


def _user() -> tuple[Claims, Snapshot]:
    """Whose user token was sent, and his project."""
    request, now = edge.request, int(time.time())
    claims = callers.believe(request, _deployment, lambda kid: _public_keys.find(kid, now), now=now)
    snapshot = _snapshots.of(claims.pid, claims.uid)
    _refused_origins.check(request, snapshot.project, now)
    return claims, snapshot


def _default(snapshot: Snapshot) -> Model | None:
    name = snapshot.project.default_model
    found = snapshot.catalogue.find(name) if name else None
    return None if found is None or found.killed else found


def _view(name: str, model: Model) -> dict[str, Any]:
    """OpenAI's model object, and two members more."""
    return {
        "id": name,
        "object": "model",
        "created": model.created_at,
        "owned_by": model.owned_by,
        "context_window": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
    }


def _answer(body: Any) -> Response[str]:
    text = answers.refuse_too_long(json.dumps(body, separators=(",", ":")))
    return Response(200, "application/json", text)
