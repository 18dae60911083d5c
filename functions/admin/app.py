"""The admin API: what an operator sets, for users of the Cognito group `admins`.

Its document is generated from this file: docs/openapi.json (`make openapi`).
"""

import os
import time
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from pydantic import BeforeValidator, Field, StringConstraints

from weir.aws import clients, lean
from weir.aws.edge import Edge
from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.table import Table
from weir.aws.usage import Usage
from weir.aws.webhooks.seal import Sealer
from weir.errors import BadRequest, TooLarge
from weir.identity.cognito import believe_admin
from weir.operator import documents, tiers, views
from weir.operator.known_models import load
from weir.revocation import Revocation
from weir.settings import MAX_ADMIN_BODY_BYTES, AdminSettings
from weir.usage import answers
from weir.usage.question import understand
from weir.usage.reading import MOST_READ_BY_THE_OPERATOR, find
from weir.web.origins import MOST_TOLD, Origins, diagnose
from weir.web.request import Request, no_name_twice, parse_json

_settings = AdminSettings.from_env(os.environ)
_table = Table(clients.client("dynamodb"), _settings.deployment.table_name)
# botocore takes ten times as long to parse a page of sums.
_usage = Usage(lean.client("dynamodb"), _settings.deployment.table_name)
_sealer = Sealer(clients.client("kms"), _settings.key)
_provider_keys = ProviderKeys(clients.client("secretsmanager"), _settings.provider_keys_secret)

OF_USAGE = {
    "month",
    "from",
    "to",
    "granularity",
    "group_by",
    "user_id",
    "session_id",
    "thread_id",
    "model",
    "tag",
}
QUERIES = {"origin", "dry_run", "limit", "cursor", *OF_USAGE}

edge = Edge(
    "admin",
    # No page may read an answer: an operator's session is worth too much for a page of others.
    readable_by=Origins,
    store_errors=clients.AWS_ERRORS,
    not_found="No such route. Check the method and the path.",
    too_long="The answer would be too long for the API. Use the `weir` command.",
    validate=True,
    names_under={"/admin/v1/models/": ()},
)
logger, app = edge.logger, edge.app

Pid = Annotated[documents.Pid, Path()]
ModelName = Annotated[documents.ModelName, BeforeValidator(unquote), Path()]
UpstreamName = Annotated[documents.UpstreamName, Path()]
TierName = Annotated[documents.TierName, Path()]
TierId = Annotated[str, Path(), StringConstraints(pattern=r"^([a-z][a-z0-9-]{0,31}|[1-6])$")]
TenantKid = Annotated[str, Path(), StringConstraints(pattern=r"^sk_[0-9a-f]{32}$")]
IssuerName = Annotated[documents.IssuerName, Path()]
CustomerRef = Annotated[str, BeforeValidator(unquote), Path(), Field(max_length=300)]
_CUSTOMER_ID = StringConstraints(pattern=r"^cust_[0-9A-HJKMNP-TV-Z]{26}$")
CustomerId = Annotated[str, _CUSTOMER_ID]
_TOKEN_ID = StringConstraints(pattern=r"^ct_[0-9A-HJKMNP-TV-Z]{42}$")
ClientTokenId = Annotated[str, _TOKEN_ID]
ClientTokenPath = Annotated[str, Path(), _TOKEN_ID]
PageSize = Annotated[int, Query(), Field(ge=1, le=100)]
WebhookId = Annotated[str, Path(), StringConstraints(pattern=r"^wh_[0-9a-f]{24}$")]
EventId = Annotated[str, StringConstraints(pattern=r"^evt_[0-9a-f]{24}$")]
KeyId = Annotated[str, Path(), StringConstraints(pattern=r"^key_[0-9a-f]{16}$")]
Asked = Annotated[str | None, Query()]
Cursor = Annotated[str, StringConstraints(pattern=r"^[0-9]{13}#[0-9a-f]{8}$")]


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.resolve(event, context, _admit)


def _admit(request: Request) -> None:
    """Raise unless an operator sent it and the body and query are what they seem to be."""
    user = believe_admin(request.claims, client_id=_settings.cognito_client_id)
    if len(request.body) > MAX_ADMIN_BODY_BYTES:
        raise TooLarge(f"The body may have at most {MAX_ADMIN_BODY_BYTES} bytes.")
    unknown = sorted(set(request.query) - QUERIES)
    if unknown:  # `dryrun` for `dry_run` must not import
        name = unknown[0][:100]
        raise BadRequest(f"There is no query parameter {name!r}.", param=name)
    if request.body:
        # Strictly, and whatever its media type says.
        parse_json(request.body, object_pairs_hook=no_name_twice)
    actor = f"cognito:{user.sub} {user.email}".strip()
    operator = Operator(_table, _provider_keys, actor=actor, sealer=_sealer)
    app.append_context(operator=operator)  # type: ignore[no-untyped-call]


View = TypeVar("View", bound=views.View)


def _view(kind: type[View], **told: Any) -> View:
    return kind.model_validate(told)


def _operator() -> Operator:
    operator: Operator = app.context["operator"]
    return operator


# ---------------------------------------------------------------- projects


@app.get("/admin/v1/projects", tags=["projects"])
def list_projects() -> views.Projects:
    """Every project."""
    members = views.ListedProject.model_fields
    told = [{n: each[n] for n in members} for each in _operator().projects()]
    return _view(views.Projects, data=told)


@app.post("/admin/v1/projects", status_code=201, tags=["projects"])
def create_project(project: documents.NewProject) -> views.Project:
    """Make a project."""
    return views.Project(**_operator().create_project(project))


@app.get("/admin/v1/projects/<pid>", tags=["projects"])
def show_project(pid: Pid) -> views.Project:
    """One project."""
    return views.Project(**_operator().project(pid))


@app.patch("/admin/v1/projects/<pid>", tags=["projects"])
def update_project(pid: Pid, change: documents.ProjectChange) -> views.Project:
    """Change what is named; suspend with {"status": "suspended"}. Counts within 5 seconds."""
    return views.Project(**_operator().update_project(pid, change))


# ---------------------------------------------------------------- API keys


@app.get("/admin/v1/projects/<pid>/keys", tags=["keys"])
def list_keys(pid: Pid) -> views.ApiKeys:
    """A project's API keys, newest first, without their secrets."""
    return _view(views.ApiKeys, data=[key.document() for key in _operator().keys(pid)])


@app.post("/admin/v1/projects/<pid>/keys", status_code=201, tags=["keys"])
def create_key(pid: Pid, new: documents.NewApiKey) -> views.CreatedApiKey:
    """Make an API key. Its secret is in this answer and nowhere else."""
    secret, key = _operator().create_key(
        pid, name=new.name, scopes=new.scopes, role=new.role, contract=new.contract
    )
    return views.CreatedApiKey(**key.document(), secret=secret)


@app.delete("/admin/v1/projects/<pid>/keys/<key_id>", status_code=204, tags=["keys"])
def revoke_key(pid: Pid, key_id: KeyId) -> Response[None]:
    """Revoke an API key, at once and for good. Tokens it has made are refused within 5 seconds."""
    _operator().revoke_key(pid, key_id)
    return _nothing()


# ---------------------------------------------------------------- tenants' signing keys


@app.get("/admin/v1/signing-keys", tags=["signing keys"])
def list_signing_keys() -> views.SigningKeys:
    """Keys with which tenants' servers sign tokens themselves, newest first; revoked ones for a
    month.
    """
    return _view(views.SigningKeys, data=[key.document() for key in _operator().tenant_keys()])


@app.post("/admin/v1/signing-keys", status_code=201, tags=["signing keys"])
def create_signing_key(new: documents.NewSigningKey) -> views.CreatedSigningKey:
    """Make a signing key, or upload its public half. A private half that is made here is in this
    answer and nowhere else.
    """
    private = None
    if new.public_key is None:
        private, key = _operator().create_tenant_key(new.project, name=new.name)
    else:
        key = _operator().upload_tenant_key(new.project, new.public_key, name=new.name)
    return views.CreatedSigningKey(**key.document(), private_key=private)


@app.delete("/admin/v1/signing-keys/<kid>", status_code=204, tags=["signing keys"])
def revoke_signing_key(kid: TenantKid) -> Response[None]:
    """Revoke a signing key for good. Tokens that it has signed are refused within 5 seconds."""
    _operator().revoke_tenant_key(kid)
    return _nothing()


# ---------------------------------------------------------------- tiers


@app.get("/admin/v1/projects/<pid>/tiers", tags=["tiers"])
def list_tiers(pid: Pid) -> views.Tiers:
    """A project's tiers, resolved."""
    return _view(views.Tiers, data=_operator().tiers(pid))


@app.put("/admin/v1/projects/<pid>/tiers/<name>", tags=["tiers"])
def set_tier(pid: Pid, name: TierName, limits: documents.LimitsDocument) -> views.Tier:
    """Change the limits that are named. A new name becomes a tier of the project's own (3)."""
    return views.Tier(**_operator().set_tier(pid, name, limits))


@app.delete("/admin/v1/projects/<pid>/tiers/<name>", status_code=204, tags=["tiers"])
def reset_tier(pid: Pid, name: TierName) -> Response[None]:
    """Take free, pro or max back to its defaults; remove a tier of the project's own."""
    _operator().reset_tier(pid, name)
    return _nothing()


# ---------------------------------------------------------------- issuers


@app.get("/admin/v1/projects/<pid>/issuers", tags=["issuers"])
def list_issuers(pid: Pid) -> views.Issuers:
    """Other issuers that a project trusts."""
    return _view(views.Issuers, data=_operator().issuers(pid))


@app.put("/admin/v1/projects/<pid>/issuers/<name>", tags=["issuers"])
def put_issuer(pid: Pid, name: IssuerName, issuer: documents.IssuerDocument) -> views.Issuer:
    """Trust an issuer, or replace what is said of it. The project must have a usd_per_month."""
    return views.Issuer(**_operator().put_issuer(pid, name, issuer))


@app.delete("/admin/v1/projects/<pid>/issuers/<name>", status_code=204, tags=["issuers"])
def remove_issuer(pid: Pid, name: IssuerName) -> Response[None]:
    """Trust it no longer, within 5 seconds. Tokens of its users live until they expire."""
    _operator().remove_issuer(pid, name)
    return _nothing()


@app.post("/admin/v1/projects/<pid>/issuers/verdict", tags=["issuers"])
def judge_foreign_token(pid: Pid, given: documents.ForeignToken) -> views.ForeignTokenVerdict:
    """Whether a token of an issuer would be exchanged now, and if not, which check it fails."""
    from weir.upstreams.key_sets import KeySetFetcher  # with httpcore

    judged = _operator().judge_token(
        pid,
        given.token,
        KeySetFetcher().find,
        pool_users=pid == _settings.session_project,
    )
    return _view(views.ForeignTokenVerdict, **judged.document())


# ---------------------------------------------------------------- webhooks


@app.get("/admin/v1/projects/<pid>/webhooks", tags=["webhooks"])
def list_webhooks(pid: Pid) -> views.WebhookEndpoints:
    """Where a project's servers are told of events, and whether they answer."""
    data, _ = _operator().webhooks(pid).page()
    return _view(views.WebhookEndpoints, data=data)


@app.post("/admin/v1/projects/<pid>/webhooks", status_code=201, tags=["webhooks"])
def create_webhook(pid: Pid, new: documents.NewWebhook) -> views.WebhookEndpointWithSecret:
    """Make an endpoint, at most 10 of a project. Its secret is shown only now."""
    endpoint, secret = _operator().webhooks(pid).create(new.stored())
    return _view(views.WebhookEndpointWithSecret, **endpoint, secret=secret)


@app.patch("/admin/v1/projects/<pid>/webhooks/<webhook>", tags=["webhooks"])
def update_webhook(
    pid: Pid, webhook: WebhookId, change: documents.WebhookChange
) -> views.WebhookEndpoint:
    """Change what is named of an endpoint."""
    return _view(
        views.WebhookEndpoint, **_operator().webhooks(pid).update(webhook, change.stored())
    )


@app.delete("/admin/v1/projects/<pid>/webhooks/<webhook>", status_code=204, tags=["webhooks"])
def remove_webhook(pid: Pid, webhook: WebhookId) -> Response[None]:
    """Tell it nothing any more. What is on its way is dropped."""
    _operator().webhooks(pid).remove(webhook)
    return _nothing()


@app.post("/admin/v1/projects/<pid>/webhooks/<webhook>/rotate_secret", tags=["webhooks"])
def rotate_webhook_secret(pid: Pid, webhook: WebhookId) -> views.WebhookEndpointWithSecret:
    """Make a new secret. The old one signs beside it for a day."""
    endpoint, secret = _operator().webhooks(pid).rotate(webhook)
    return _view(views.WebhookEndpointWithSecret, **endpoint, secret=secret)


@app.post("/admin/v1/projects/<pid>/webhooks/<webhook>/test", status_code=202, tags=["webhooks"])
def test_webhook(pid: Pid, webhook: WebhookId) -> views.Event:
    """Send it an event of type webhook.test. The list of endpoints shows what became of it."""
    return _view(views.Event, **_operator().webhooks(pid).test(webhook))


@app.get("/admin/v1/projects/<pid>/webhooks/<webhook>/deliveries", tags=["webhooks"])
def list_failed_deliveries(
    pid: Pid,
    webhook: WebhookId,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[EventId | None, Query()] = None,
) -> views.FailedDeliveries:
    """What was given up in the last 30 days, newest first."""
    data, more = _operator().webhooks(pid).failed(webhook, limit, cursor)
    return _view(views.FailedDeliveries, data=data, next_cursor=more)


@app.post("/admin/v1/projects/<pid>/webhooks/<webhook>/replay", status_code=202, tags=["webhooks"])
def replay_deliveries(pid: Pid, webhook: WebhookId, given: documents.Replay) -> views.Replayed:
    """Deliver again what was given up: one event, or up to 100."""
    replayed = _operator().webhooks(pid).replay(webhook, given.event_id)
    return _view(views.Replayed, replayed=replayed)


# The same in the words of Behest's control plane: contracts/behest.md, section 13.


@app.get("/v1/projects/<pid>/tiers", tags=["tiers"])
def list_project_tiers(pid: Pid) -> tiers.ProjectTiers:
    """A project's tiers, with what the project has set of each."""
    return _view(tiers.ProjectTiers, data=[tiers.shown(each) for each in _operator().tiers(pid)])


@app.post("/v1/projects/<pid>/tiers", status_code=201, tags=["tiers"])
def create_project_tier(pid: Pid, new: tiers.NewTier) -> tiers.ProjectTier:
    """Make a tier of the project's own. There may be 3."""
    made = _operator().create_tier(pid, new.name, new.overrides.limits())
    return _view(tiers.ProjectTier, **tiers.shown(made))


@app.get("/v1/projects/<pid>/tiers/<tier>", tags=["tiers"])
def show_project_tier(pid: Pid, tier: TierId) -> tiers.ProjectTier:
    """One tier, with what the project has set of it."""
    return _view(tiers.ProjectTier, **tiers.shown(_operator().tier(pid, tier)))


@app.put("/v1/projects/<pid>/tiers/<tier>", tags=["tiers"])
def replace_project_tier(pid: Pid, tier: TierId, change: tiers.TierChange) -> tiers.ProjectTier:
    """Replace a tier's overrides. Those that are not named are taken back."""
    replaced = _operator().replace_tier(pid, tier, change.overrides.limits())
    return _view(tiers.ProjectTier, **tiers.shown(replaced))


@app.delete("/v1/projects/<pid>/tiers/<tier>", status_code=204, tags=["tiers"])
def remove_project_tier(pid: Pid, tier: TierId) -> Response[None]:
    """Remove a tier of the project's own; take free, pro or max back to its defaults."""
    _operator().reset_tier(pid, _operator().tier(pid, tier)["name"])
    return _nothing()


@app.get("/v1/projects/<pid>/tiers/<tier>/resolved", tags=["tiers"])
def show_resolved_tier(pid: Pid, tier: TierId) -> tiers.ResolvedTier:
    """One tier's limits, with its defaults filled in."""
    return _view(tiers.ResolvedTier, **tiers.resolved(_operator().tier(pid, tier)))


# ---------------------------------------------------------------- customers


@app.get("/admin/v1/projects/<pid>/customers", tags=["customers"])
def list_customers(
    pid: Pid, limit: PageSize = 20, cursor: CustomerId | None = None
) -> views.Customers:
    """Customers of a project, the newest first."""
    found, after = _operator().customers(pid, limit, cursor)
    data = [each.fields() for each in found]
    return _view(views.Customers, data=data, has_more=after is not None, next_cursor=after)


@app.post("/admin/v1/projects/<pid>/customers", status_code=201, tags=["customers"])
def create_customer(pid: Pid, new: documents.NewCustomer) -> views.Customer:
    """Make a customer. What is not named is as the project's customer_limits say."""
    return _view(views.Customer, **_operator().create_customer(pid, new.stored()).fields())


@app.get("/admin/v1/projects/<pid>/customers/<ref>", tags=["customers"])
def show_customer(pid: Pid, ref: CustomerRef) -> views.Customer:
    """One customer, by its id or ext: and its external id."""
    return _view(views.Customer, **_operator().customer(pid, ref).fields())


@app.patch("/admin/v1/projects/<pid>/customers/<ref>", tags=["customers"])
def change_customer(pid: Pid, ref: CustomerRef, change: documents.CustomerChange) -> views.Customer:
    """Change what is named, from the next request on."""
    changed = _operator().change_customer(pid, ref, change.stored())
    return _view(views.Customer, **changed.fields())


@app.delete("/admin/v1/projects/<pid>/customers/<ref>", status_code=204, tags=["customers"])
def delete_customer(pid: Pid, ref: CustomerRef) -> Response[None]:
    """Remove a customer for good, with its tokens."""
    _operator().delete_customer(pid, ref)
    return _nothing()


@app.get("/admin/v1/projects/<pid>/customers/<ref>/client-tokens", tags=["customers"])
def list_client_tokens(
    pid: Pid, ref: CustomerRef, limit: PageSize = 20, cursor: ClientTokenId | None = None
) -> views.ClientTokens:
    """Records of a customer's tokens: those that live, and for a day those that have lived."""
    found, after = _operator().client_tokens(pid, ref, limit, cursor)
    return _view(views.ClientTokens, data=found, has_more=after is not None, next_cursor=after)


@app.delete(
    "/admin/v1/projects/<pid>/customers/<ref>/client-tokens", status_code=204, tags=["customers"]
)
def revoke_client_tokens(pid: Pid, ref: CustomerRef) -> Response[None]:
    """Refuse all tokens of a customer that were made until now."""
    _operator().revoke_client_tokens(pid, ref)
    return _nothing()


@app.delete(
    "/admin/v1/projects/<pid>/client-tokens/<token_id>", status_code=204, tags=["customers"]
)
def revoke_client_token(pid: Pid, token_id: ClientTokenPath) -> Response[None]:
    """Refuse one token from the next request on."""
    _operator().revoke_client_token(pid, token_id)
    return _nothing()


# ---------------------------------------------------------------- origins


@app.get("/admin/v1/projects/<pid>/origins/verdict", tags=["origins"])
def judge_origin(
    pid: Pid, origin: Annotated[str, Query(), Field(min_length=1, max_length=300)]
) -> views.OriginVerdict:
    """Whether a page of this origin may call the project, and if not, why."""
    _operator().project(pid)
    lists = _operator().origins()
    verdict = diagnose(origin, lists.pop(pid), lists)
    return views.OriginVerdict(
        origin=origin[:MOST_TOLD],
        allowed=verdict.allowed,
        reason=verdict.reason,
        message=verdict.message,
        closest=verdict.closest,
        suggestion=verdict.suggestion,
    )


@app.get("/admin/v1/projects/<pid>/origins/refused", tags=["origins"])
def list_refused_origins(pid: Pid) -> views.RefusedOrigins:
    """Pages that were refused by this project, although some project lists their origin."""
    _operator().project(pid)
    return _refused_origins(pid)


@app.get("/admin/v1/origins/refused", tags=["origins"])
def list_origins_refused_at_preflight() -> views.RefusedOrigins:
    """Pages that were refused at their preflight: no project lists their origin."""
    return _refused_origins("")


def _refused_origins(pid: str) -> views.RefusedOrigins:
    found = _operator().refused_origins(pid)
    return _view(
        views.RefusedOrigins, data=[{"origin": origin, "last_at": at} for origin, at in found]
    )


# ---------------------------------------------------------------- catalogue


@app.get("/admin/v1/models", tags=["models"])
def list_models() -> views.Models:
    """The catalogue, by name."""
    return _view(views.Models, data=_operator().catalogue()["models"])


@app.get("/admin/v1/known-models", tags=["models"])
def list_known_models() -> dict[str, documents.ModelDocument]:
    """The starting list of this release, to be copied from: prices with their sources."""
    return load().models


@app.get("/admin/v1/models/<name>", tags=["models"])
def show_model(name: ModelName) -> views.Model:
    """One model."""
    return views.Model(**_operator().model(name))


@app.put("/admin/v1/models/<name>", tags=["models"])
def put_model(name: ModelName, model: documents.ModelDocument) -> views.Model:
    """Make or replace a model."""
    return views.Model(**_operator().put_model(name, model))


@app.delete("/admin/v1/models/<name>", status_code=204, tags=["models"])
def remove_model(name: ModelName) -> Response[None]:
    """Remove a model that no project names."""
    _operator().remove_model(name)
    return _nothing()


@app.get("/admin/v1/overruns", tags=["models"])
def list_overruns() -> views.Overruns:
    """Candidates that have cost more than their worst case, with what is reserved for them now."""
    return _view(views.Overruns, data=_operator().overruns())


@app.post("/admin/v1/overruns/reset", status_code=204, tags=["models"])
def reset_overrun(which: documents.ResetOverrun) -> Response[None]:
    """Reserve no more than the output cap for a candidate again. Counts within 5 seconds."""
    _operator().reset_overrun(which.candidate)
    return _nothing()


@app.get("/admin/v1/upstreams", tags=["upstreams"])
def list_upstreams() -> views.Upstreams:
    """Providers, by name."""
    return _view(views.Upstreams, data=_operator().catalogue()["upstreams"])


@app.get("/admin/v1/upstreams/<name>", tags=["upstreams"])
def show_upstream(name: UpstreamName) -> views.Upstream:
    """One provider."""
    return views.Upstream(**_operator().upstream(name))


@app.put("/admin/v1/upstreams/<name>", tags=["upstreams"])
def put_upstream(name: UpstreamName, upstream: documents.UpstreamDocument) -> views.Upstream:
    """Make or replace a provider. A new address takes its key away: set it again."""
    return views.Upstream(**_operator().put_upstream(name, upstream))


@app.delete("/admin/v1/upstreams/<name>", status_code=204, tags=["upstreams"])
def remove_upstream(name: UpstreamName) -> Response[None]:
    """Remove a provider that serves no model, and its key."""
    _operator().remove_upstream(name)
    return _nothing()


@app.put("/admin/v1/upstreams/<name>/key", tags=["upstreams"])
def set_provider_key(name: UpstreamName, given: documents.ProviderKey) -> views.Upstream:
    """Set the provider's API key. It counts within a minute."""
    return views.Upstream(**_operator().set_provider_key(name, given.key))


@app.delete("/admin/v1/upstreams/<name>/key", status_code=204, tags=["upstreams"])
def remove_provider_key(name: UpstreamName) -> Response[None]:
    """Remove the provider's API key."""
    _operator().remove_provider_key(name)
    return _nothing()


# ---------------------------------------------------------------- kill switches, users


@app.get("/admin/v1/kill-switches", tags=["kill switches"])
def list_kill_switches() -> views.KillSwitches:
    """Everything that is switched off now."""
    return _view(views.KillSwitches, data=_operator().switches())


@app.put("/admin/v1/kill-switches", status_code=204, tags=["kill switches"])
def switch(asked: documents.KillSwitch) -> Response[None]:
    """Switch the tenant, a project, a model or a user off, or on again. A user is refused on his
    next request; the rest counts within 5 seconds.
    """
    operator = _operator()
    how: dict[str, Any] = {"off": asked.off, "reason": asked.reason}
    if asked.scope == "tenant":
        operator.switch_tenant(**how)
    elif asked.scope == "project":
        operator.switch_project(asked.project or "", **how)
    elif asked.scope == "model":
        operator.switch_model(asked.model or "", **how)
    else:
        operator.switch_user(asked.project or "", asked.user_id or "", **how)
    return _nothing()


@app.post("/admin/v1/projects/<pid>/users/erase", tags=["users"])
def erase_user(pid: Pid, whom: documents.EraseUser) -> views.Erased:
    """Remove what a user has said and been told. It cannot be undone."""
    return views.Erased(removed=_operator().erase_user(pid, whom.user_id))


@app.post("/admin/v1/projects/<pid>/users/revoke", status_code=204, tags=["users"])
def revoke_tokens(pid: Pid, what: documents.RevokeTokens) -> Response[None]:
    """Refuse a user's tokens, those of one session, or one token, from the next request on. The
    user may sign in again: to keep them out, switch them off.
    """
    _operator().revoke(pid, Revocation(what.user_id, what.session_id, what.jti))
    return _nothing()


# ---------------------------------------------------------------- usage


@app.get("/admin/v1/projects/<pid>/usage", tags=["usage"])
def show_usage(
    pid: Pid,
    month: Annotated[str | None, Query(), Field(pattern=r"^[0-9]{4}-?[0-9]{2}$")] = None,
    from_: Annotated[str | None, Query(alias="from")] = None,
    to: Asked = None,
    granularity: Annotated[Literal["minute", "hour", "day"], Query()] = "day",
    group_by: Annotated[
        Literal["user", "customer", "session", "thread", "model", "tag", "day"] | None, Query()
    ] = None,
    user_id: Asked = None,
    session_id: Asked = None,
    thread_id: Asked = None,
    model: Asked = None,
    tag: Asked = None,
    limit: Annotated[int, Query(), Field(ge=1, le=10_000)] = 1_000,
    cursor: Annotated[str | None, Query(), Field(pattern="^[A-Za-z0-9_-]*$")] = None,
) -> views.Usage:
    """What a project's requests took, added up. A few seconds behind the requests."""
    _operator().project(pid)
    told = {
        "month": month,
        "from": from_,
        "to": to,
        "granularity": granularity,
        "group_by": group_by,
        "user_id": user_id,
        "session_id": session_id,
        "thread_id": thread_id,
        "model": model,
        "tag": tag,
        "limit": str(limit),
        "cursor": cursor,
    }
    query = {name: [value] for name, value in told.items() if value is not None}
    now_ms = int(time.time() * 1000)
    question = understand(query, now_ms, only=None)
    found = find(question, pid, _usage, now_ms, MOST_READ_BY_THE_OPERATOR)
    return _view(views.Usage, **answers.document(question, pid, found))


# ---------------------------------------------------------------- the deployment


@app.get("/admin/v1/tenant", tags=["tenant"])
def show_tenant() -> views.Tenant:
    """What holds for all projects together."""
    return views.Tenant(**_operator().tenant())


@app.patch("/admin/v1/tenant", tags=["tenant"])
def update_tenant(change: documents.TenantDocument) -> views.Tenant:
    """Change what is named."""
    return views.Tenant(**_operator().update_tenant(change))


@app.get("/admin/v1/configuration", tags=["tenant"])
def export_configuration() -> documents.ConfigurationFile:
    """Everything an operator has set, without keys, kill switches and users."""
    return documents.ConfigurationFile.model_validate(_operator().exported())


@app.put("/admin/v1/configuration", tags=["tenant"])
def import_configuration(
    file: documents.ConfigurationFile, dry_run: Annotated[bool, Query()] = False
) -> views.Imported:
    """Make what the file names equal to the file, all or nothing. What it does not name stays."""
    changes = _operator().imported(file, dry_run=dry_run)
    return _view(views.Imported, applied=not dry_run, changes=changes)


@app.get("/admin/v1/audit", tags=["audit"])
def show_audit_trail(
    limit: Annotated[int, Query(), Field(ge=1, le=100)] = 20,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> views.AuditTrail:
    """Who changed what, newest first."""
    found, more = _operator().audit_trail(limit, cursor)
    page = [entry.document() for entry in found]
    return _view(
        views.AuditTrail,
        data=page,
        has_more=more,
        next_cursor=page[-1]["id"] if more else None,
    )


# ---------------------------------------------------------------- answers


@app.exception_handler(RequestValidationError)  # type: ignore[untyped-decorator]
def refuse_invalid(error: RequestValidationError) -> Response[str]:
    return edge.refuse(documents.refusal_of(error.errors()))


def _nothing() -> Response[None]:
    return Response(204)
