"""Customers and their client tokens, for a project's own server: contracts/ringside.md, section 4.
No page may call these routes: they have no CORS headers and no preflight.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import jwt  # noqa: F401 - with the process, not with the first token: weir.identity.tokens
from aws_lambda_powertools.event_handler import Response

from weir.aws import items, lean
from weir.aws.api_keys import ApiKeys
from weir.aws.client_tokens import MINTS_OF_A_CUSTOMER, MINTS_OF_A_KEY, ClientTokens
from weir.aws.customers import Changed, Customers
from weir.aws.edge import Edge
from weir.aws.ledger import Ledger
from weir.aws.minted import Minted
from weir.aws.once import Answered, Once
from weir.aws.signer import Signer
from weir.aws.snapshots import Snapshots
from weir.aws.table import Table
from weir.aws.vault import Vault
from weir.customers import customer as customers
from weir.customers import idempotency, lists
from weir.customers.customer import Customer
from weir.customers.names import Reference, parse_external_id, parse_reference
from weir.errors import BadRequest, ExternalIdTaken, LedgerBusy, NotFound, NotReady, TooLarge
from weir.identity import client_tokens, ringside
from weir.identity.api_keys import CLIENT_TOKENS, READ, WRITE, ApiKey
from weir.ledger import rules
from weir.projects.project import Project
from weir.settings import MAX_MINT_BODY_BYTES, CustomersSettings
from weir.web import cursors
from weir.web.addresses import is_loopback
from weir.web.origins import Origins

_settings = CustomersSettings.from_env(os.environ)
_deployment = _settings.deployment
_client, _name = lean.client("dynamodb"), _deployment.table_name
_table = Table(_client, _name)
_customers = Customers(_client, _name, time.time)
_tokens = ClientTokens(_client, _name)
_once = Once(_client, _name)
_ledger = Ledger(_client, _name, time.time)
_snapshots = Snapshots(_table, time.time)
_api_keys = ApiKeys(_table)
_signer = Signer(
    Vault(lean.client("secretsmanager"), _settings.secrets_s),
    _settings.signing_key_secret,
    Minted(_client, _name),
)

TRIES = 5  # of a change that others were faster than

edge = Edge("customers", Origins, encoded=True, spelled=ringside.spelled)
logger, app = edge.logger, edge.app


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.resolve(event, context)


# ---------------------------------------------------------------- customers


@app.post("/v1/customers")
def create() -> Response[str]:
    """Once, however often it is sent with one Idempotency-Key within a day."""
    project, body = _project(_key(WRITE, CLIENT_TOKENS)), _body()
    once = idempotency.parse_key(edge.request.headers.get(idempotency.HEADER.lower()))

    def do() -> Answered:
        return Answered(201, _view(project, _created(project, body)))

    if once is None:
        answered = do()
    else:
        digest = idempotency.digest("POST /v1/customers", once)
        of_body = idempotency.fingerprint(customers.normalised(body))
        answered = _once.answer(project.pid, digest, of_body, _now(), do)
    headers = idempotency.REPLAYED if answered.is_replay else {}
    return edge.json(answered.document, answered.status, headers)


@app.get("/v1/customers")
def listed() -> Response[str]:
    query = edge.request.query
    lists.refuse_others(query, "external_id", "limit", "cursor", "status")
    wanted = lists.one(query, "external_id")
    project = _project(_key(READ, *((CLIENT_TOKENS,) if wanted else ())))
    if wanted is not None:
        found = _find_or_none(project, Reference(None, parse_external_id(wanted)))
        return edge.json(cursors.page_view(_views(project, found), None))
    limit, after = cursors.page_of(query)
    status = lists.one(query, "status")
    if status not in (None, customers.ACTIVE, customers.BLOCKED):
        raise BadRequest("status must be active or blocked.", param="status")
    records, more = _customers.page(project.pid, limit, after)
    shown = [each for each in records if status in (None, each.status)]
    return edge.json(cursors.page_view(_views(project, shown), more))


@app.get("/v1/customers/<ref>")
def show(ref: str) -> dict[str, Any]:
    project = _project(_key(READ, CLIENT_TOKENS))
    return _view(project, _customers.find(project.pid, _reference(ref)))


@app.patch("/v1/customers/<ref>")
@app.post("/v1/customers/<ref>")
def change(ref: str) -> dict[str, Any]:
    project, body = _project(_key(WRITE)), _body()
    return _view(project, _changed(project, _reference(ref), body))


@app.put("/v1/customers/<ref>")
def upsert(ref: str) -> Response[str]:
    """Create a customer, or make one what the body says; what it does not name stays."""
    project, body, named = _project(_key(WRITE)), _body(), _reference(ref)
    for is_there in (True, False, True):  # between two looks another request may have made it
        try:
            if is_there:
                return edge.json(_view(project, _changed(project, named, body)))
            return edge.json(_view(project, _created(project, body, named.external_id)), 201)
        except NotFound:
            if named.external_id is None:
                raise
        except ExternalIdTaken as taken:
            if taken.existing_id is None:  # it was deleted less than a day ago
                raise
    raise LedgerBusy


@app.delete("/v1/customers/<ref>")
def delete(ref: str) -> dict[str, Any]:
    """Its tokens are refused on their next request. What it has used stays in usage."""
    project = _project(_key(WRITE))
    for _ in range(TRIES):
        found = _customers.find(project.pid, _reference(ref))
        try:
            _customers.delete(project.pid, found, _now())
        except Changed:
            continue
        return {"id": found.id, "object": "customer", "deleted": True}
    raise LedgerBusy


def _created(project: Project, body: Mapping[str, Any], external_id: str | None = None) -> Customer:
    _require_budget(project)
    at_ms = int(time.time() * 1000)
    made = customers.created(
        body, _customers.new_id(at_ms), at_ms // 1000, project.customer_limits, external_id
    )
    _customers.create(project.pid, made, at_ms // 1000, project.new_customers_per_hour)
    return made


def _changed(project: Project, named: Reference, body: Mapping[str, Any]) -> Customer:
    if "external_id" in body and named.external_id != parse_external_id(body["external_id"]):
        raise BadRequest("An external_id cannot be changed.", param="external_id")
    for _ in range(TRIES):
        before = _customers.find(project.pid, named)
        after = customers.changed(before, body, _now(), project.customer_limits)
        try:
            return _customers.change(project.pid, before, after)
        except Changed:
            continue
    raise LedgerBusy


def _require_budget(project: Project) -> None:
    """Whoever can have customers made spends as many budgets: all together must have one, too."""
    if project.limits.nano_usd_per_month is None and (
        _snapshots.of(project.pid).tenant_pool.limits.nano_usd_per_month is None
    ):
        raise NotReady(
            "This project has no budget for all its customers together. The operator sets one: "
            f"weir projects update {project.pid} --limit usd_per_month=100",
            code="project_budget_required",
            retryable=False,
        )


def _find_or_none(project: Project, named: Reference) -> list[Customer]:
    try:
        return [_customers.find(project.pid, named)]
    except NotFound:
        return []


def _view(project: Project, found: Customer) -> dict[str, Any]:
    (view,) = _views(project, [found])
    return view


def _views(project: Project, found: Sequence[Customer]) -> list[dict[str, Any]]:
    """With what each has spent, in one round trip."""
    at = _now()
    subjects = [items.customer(each.id) for each in found]
    months = _ledger.used_this_month(project.pid, subjects, at)
    resets_at = rules.resets_at(rules.BY_CODE["n"], at)
    period = time.strftime("%Y-%m", time.gmtime(at))
    return [
        each.view(rules.spent(month), resets_at, period)
        for each, month in zip(found, months, strict=True)
    ]


# ---------------------------------------------------------------- client tokens


@app.post("/v1/customers/<ref>/client_tokens")
def mint(ref: str) -> Response[str]:
    key, body = _key(CLIENT_TOKENS), _body()
    return _minted_for(key, unquote(ref), body, client_tokens.DEFAULT_TTL_S)


@app.post("/v1/client_tokens")
def mint_flat() -> Response[str]:
    """The same; the customer is named in the body, and the token lives shorter by default."""
    key, body = _key(CLIENT_TOKENS), _body()
    named = body.get("customer")
    if not isinstance(named, str):
        raise BadRequest("customer is required: cust_… or ext:…", param="customer")
    return _minted_for(key, named, body, client_tokens.FLAT_DEFAULT_TTL_S)


@app.get("/v1/customers/<ref>/client_tokens")
def list_tokens(ref: str) -> Response[str]:
    """Without the tokens themselves, which are nowhere kept."""
    project, query = _project(_key(CLIENT_TOKENS)), edge.request.query
    lists.refuse_others(query, "active", "limit", "cursor")
    active = lists.one(query, "active") in ("true", "1")
    found = _customers.find(project.pid, _reference(ref))
    valid_from = _customers.issued_after(project.pid, found.id, 0)
    records, more = _tokens.page(project.pid, found.id, *cursors.page_of(query))
    views = [lists.token_view(each, found, _now(), valid_from) for each in records]
    if active:
        views = [view for view in views if view["status"] == "active"]
    return edge.json(cursors.page_view(views, more))


@app.delete("/v1/customers/<ref>/client_tokens")
def revoke_all(ref: str) -> dict[str, Any]:
    project = _project(_key(CLIENT_TOKENS))
    found = _customers.find(project.pid, _reference(ref))
    _customers.sign_out(project.pid, found.id, _now())
    return {"customer": found.id, "object": "client_token.list", "revoked": True}


@app.delete("/v1/customers/<ref>/client_tokens/<token_id>")
def revoke(ref: str, token_id: str) -> dict[str, Any]:
    project = _project(_key(CLIENT_TOKENS))
    found = _customers.find(project.pid, _reference(ref))
    if client_tokens.customer_of(token_id) != found.id:
        raise NotFound("This customer has no such client token.")
    return _revoked(project, token_id)


@app.delete("/v1/client_tokens/<token_id>")
def revoke_flat(token_id: str) -> dict[str, Any]:
    return _revoked(_project(_key(CLIENT_TOKENS)), token_id)


def _revoked(project: Project, token_id: str) -> dict[str, Any]:
    _tokens.revoke(project.pid, token_id, _now())
    return {"id": token_id, "object": "client_token", "revoked": True}


def _minted_for(
    key: ApiKey, ref: str, body: Mapping[str, Any], default_ttl_s: int
) -> Response[str]:
    project, now = _project(key), _now()
    found = _customer_to_mint_for(project, ref)
    wish = client_tokens.ClientTokenRequest.parse(
        body, found, default_ttl_s=default_ttl_s, here=is_loopback(edge.request.source)
    )
    lists.require_allowed(wish.origins, project)
    if wish.prompt_id is not None and wish.prompt_id not in project.prompts:
        raise BadRequest("The project has no prompt of this name.", param="prompt_id")
    _tokens.count(project.pid, items.api_key(key.key_id), MINTS_OF_A_KEY, now)
    _tokens.count(project.pid, items.customer(found.id), MINTS_OF_A_CUSTOMER, now)
    issued_at = _customers.issued_after(project.pid, found.id, now)
    signing = _signer.key(now)
    token_id = _tokens.add(project.pid, found.id, wish, key.key_id, issued_at)
    value = client_tokens.mint(
        signing,
        issuer=_deployment.issuer,
        tid=_deployment.tid,
        pid=project.pid,
        customer_id=found.id,
        key_id=key.key_id,
        bindings=wish.bindings(token_id),
        ttl_s=wish.ttl_s,
        now=issued_at,
    )
    seen = {"key_id": key.key_id, "customer": found.id, "ttl_s": wish.ttl_s, "id": token_id}
    logger.info("client token minted", extra=seen)
    return edge.json(client_tokens.reply(value, token_id, found, wish, issued_at), 201)


def _customer_to_mint_for(project: Project, ref: str) -> Customer:
    try:
        found = _customers.find(project.pid, parse_reference(ref))
    except NotFound:
        raise NotFound(
            "There is no such customer.", code="customer_not_found", param="customer"
        ) from None
    found.require_active()
    return found


# ---------------------------------------------------------------- what all of them need


def _key(*scopes: str) -> ApiKey:
    """Return the API key that was sent, which must have one of the scopes."""
    return _api_keys.believe(edge.request, _now(), *scopes)


def _project(key: ApiKey) -> Project:
    return _snapshots.of(key.pid).project


def _body() -> dict[str, Any]:
    request = edge.request
    if len(request.body) > MAX_MINT_BODY_BYTES:
        raise TooLarge(f"The body may have at most {MAX_MINT_BODY_BYTES} bytes.")
    return request.json_object() if request.body.strip() else {}


def _reference(ref: str) -> Reference:
    return parse_reference(unquote(ref))


def _now() -> int:
    return int(time.time())
