"""What the admin API answers: configuration as it is now, with what nobody sets by hand."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from weir.operator.documents import (
    CandidateDocument,
    EventName,
    IssuerDocument,
    LimitsDocument,
    TierDocument,
    with_a_member_for_each_limit,
    with_settings,
)
from weir.projects.upstream_kinds import KINDS


class View(BaseModel):
    # A member that is not documented is a mistake of ours.
    model_config = ConfigDict(extra="forbid")


class Off(View):
    """Somebody has switched it off. `at` is Unix seconds."""

    reason: str
    at: int
    by: str


class Project(View):
    pid: str
    name: str | None
    status: Literal["active", "suspended"]
    origins: list[str]
    preview_origins: list[str]
    models: list[str] | None
    default_model: str | None
    system_prompt: str | None
    allowed_fields: list[str]
    memory_enabled: bool
    memory_window: int
    retention_days: int | None
    store_tool_calls: bool
    limits: LimitsDocument
    user_limits: LimitsDocument
    customer_limits: LimitsDocument
    new_customers_per_hour: int
    prompts: dict[str, str]
    rpm_per_address: int | None
    ledger_shards: int
    tiers: dict[str, TierDocument]
    issuers: dict[str, IssuerDocument]
    killed: Off | None
    created_at: int


class ListedProject(View):
    """What a list tells; the rest is told of one project."""

    pid: str
    name: str | None
    status: Literal["active", "suspended"]
    origins: list[str]
    default_model: str | None
    killed: Off | None
    created_at: int


class Projects(View):
    data: list[ListedProject]


@with_a_member_for_each_limit(lambda limit: limit.number | None)
class ResolvedLimits(View):
    """null: no limit of that kind."""


class Tier(View):
    """`changed` are the limits that this project has set."""

    number: int
    name: str
    limits: ResolvedLimits
    changed: list[str]


class Tiers(View):
    data: list[Tier]


class Issuer(IssuerDocument):
    """`name` begins its users' ids."""

    name: str


class Issuers(View):
    data: list[Issuer]


class Customer(View):
    """Limits are null where there is none. Times are Unix seconds."""

    id: str
    external_id: str
    name: str | None
    budget_usd: float | None
    rate_limit_rpm: int | None
    rate_limit_tpm: int | None
    max_output_tokens: int | None
    allowed_models: list[str] | None
    status: Literal["active", "blocked"]
    metadata: dict[str, Any]
    created_at: int
    updated_at: int


class Customers(View):
    data: list[Customer]
    has_more: bool
    next_cursor: str | None


class ClientToken(View):
    """The record of one, without the token. `max_spend_usd` and its like are null where the
    customer's own limits hold.
    """

    object: Literal["client_token"]
    id: str
    customer: str
    external_id: str
    status: Literal["active", "expired", "revoked"]
    scope: list[str]
    origin_allowlist: list[str]
    bind_ip: bool
    ip_bound: bool
    models: list[str] | None
    max_output_tokens: int | None
    max_requests: int | None
    max_spend_usd: float | None
    prompt_id: str | None
    metadata: dict[str, Any]
    key_id: str
    created_at: int
    expires_at: int
    revoked_at: int | None


class ClientTokens(View):
    data: list[ClientToken]
    has_more: bool
    next_cursor: str | None


class ForeignTokenVerdict(View):
    """Whether a token would be exchanged, and for whom. `passed` are the checks that it passed, in
    order; `failed` is the one that it did not, `reason` and `message` say why.
    """

    accepted: bool
    passed: list[str]
    failed: str | None
    reason: str | None
    message: str | None
    issuer: str | None
    user_id: str | None
    tier: str | None
    session_id: str | None


class WebhookEndpoint(View):
    """Times are Unix seconds. `failing_since` null: the last attempt was accepted, or there was
    none yet. Until `old_secret_until` the secret before this one signs, too.
    """

    id: str
    object: Literal["webhook_endpoint"]
    url: str
    description: str
    enabled: bool
    events: list[EventName]
    created_at: int
    secret_created_at: int
    old_secret_until: int | None
    last_delivered_at: int | None = None
    failing_since: int | None = None
    last_failed_at: int | None = None
    last_failure: str | None = None


class WebhookEndpoints(View):
    data: list[WebhookEndpoint]


class WebhookEndpointWithSecret(WebhookEndpoint):
    """`secret` is shown only now."""

    secret: str


class Event(View):
    """As an endpoint gets it. `created_at` is Unix seconds."""

    id: str
    type: str
    created_at: int
    data: dict[str, Any]


class FailedDelivery(View):
    """An event that was not accepted for a day. Times are Unix seconds."""

    object: Literal["webhook_delivery"]
    status: Literal["failed"]
    event: Event
    first_attempt_at: int
    given_up_at: int
    last_failure: str


class FailedDeliveries(View):
    """`next_cursor` is null on the last page."""

    data: list[FailedDelivery]
    next_cursor: str | None


class Replayed(View):
    """Ids of events that are on their way again."""

    replayed: list[str]


class ApiKey(View):
    """`display` is the start of the secret. Times are Unix seconds; `last_used_at` is exact to five
    minutes.
    """

    key_id: str
    project: str
    name: str
    display: str
    scopes: list[str]
    role: Literal["user", "admin"]
    created_at: int
    last_used_at: int | None
    revoked_at: int | None


class ApiKeys(View):
    data: list[ApiKey]


class CreatedApiKey(ApiKey):
    """`secret` is shown only now."""

    secret: str


class SigningKey(View):
    """A tenant's signing key. `project` null: it signs for every project. Times are Unix
    seconds.
    """

    kid: str
    project: str | None
    name: str
    bits: int
    created_at: int
    revoked_at: int | None


class SigningKeys(View):
    data: list[SigningKey]


class CreatedSigningKey(SigningKey):
    """`private_key` is the value of BEHEST_KEY: base64 of a PKCS#8 PEM, shown only now. null: the
    public half was uploaded.
    """

    private_key: str | None


class Model(View):
    kind: str = "chat"
    dimensions: int | None = None
    aliases: list[str]
    candidates: list[CandidateDocument]
    context_tokens: int
    max_input_tokens: int | None = None
    max_output_tokens: int
    overhead_tokens: int
    image_max_tokens: int | None = None
    hidden_reasoning: bool = True
    allowed_fields: list[str] | None = None
    source: str | None = None
    as_of: str | None = None
    created_at: int
    killed: Off | None = None


class Models(View):
    data: dict[str, Model]


@with_settings(lambda _: (str | None, None))
class Upstream(View):
    """`key_last4`: the end of its key; null: it has none."""

    kind: str = Field(json_schema_extra={"enum": list(KINDS)})
    allowed_fields: list[str] | None = None
    key_last4: str | None = None


class Upstreams(View):
    data: dict[str, Upstream]


class SwitchedOff(Off):
    """Of what: `project` for a project or a user, `model`, `user_id`."""

    scope: Literal["tenant", "project", "model", "user"]
    project: str | None = None
    model: str | None = None
    user_id: str | None = None


class KillSwitches(View):
    """Everything that is switched off now."""

    data: list[SwitchedOff]


class Overrun(View):
    """A candidate that has cost more than its worst case: so many percent of its output cap are
    reserved since then.
    """

    candidate: str
    percent: int


class Overruns(View):
    data: list[Overrun]


class Tenant(View):
    limits: LimitsDocument
    ledger_shards: int
    killed: Off | None


class OriginVerdict(View):
    """Whether a page of `origin` may call; `suggestion` is what to list so that it may."""

    origin: str
    allowed: bool
    reason: str
    message: str
    closest: str | None
    suggestion: str | None


class RefusedOrigin(View):
    """`last_at` is Unix seconds."""

    origin: str
    last_at: int


class RefusedOrigins(View):
    """Latest first; the last month's, at most 64."""

    data: list[RefusedOrigin]


class AuditEntry(View):
    """`before` and `after` hold what differs; null: was not there, or is not there any more."""

    id: str
    at: int
    actor: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditTrail(View):
    """Newest first."""

    data: list[AuditEntry]
    has_more: bool
    next_cursor: str | None


class ImportedChange(View):
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Imported(View):
    """`applied` is false for a dry run."""

    applied: bool
    changes: list[ImportedChange]


class Erased(View):
    """How many items of each kind were removed."""

    removed: dict[str, int]


class Counted(View):
    """Of so many requests: `failed` did not complete, of `estimated` the provider told no usage.
    `cached_tokens` are a part of `input_tokens`, `reasoning_tokens` of `output_tokens`; `tokens`
    are input and output.
    """

    requests: int
    failed: int
    estimated: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    tokens: int
    cost_usd: float


class CountedBucket(Counted):
    """`timestamp` is when the minute, hour or day begins."""

    timestamp: str


class CountedGroup(Counted):
    """`key` null: of those that have none."""

    key: str | None


class Usage(View):
    """From `from` to before `to`. Minutes, hours and days without usage are left out. `data` is
    empty without `group_by`; with it, it is what `has_more` and `next_cursor` are about.
    """

    object: Literal["usage"]
    project_id: str
    user_id: str | None
    customer_id: str | None
    from_: str = Field(alias="from")
    to: str
    granularity: Literal["minute", "hour", "day"]
    group_by: Literal["user", "customer", "session", "thread", "model", "tag", "day"] | None
    totals: Counted
    breakdown: list[CountedBucket]
    data: list[CountedGroup]
    has_more: bool
    next_cursor: str | None
    total_cost_usd: float
    total_requests: int
    prompt_tokens: int
    completion_tokens: int
