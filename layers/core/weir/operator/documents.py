"""What an operator may write: every record of the configuration, validated.

These are the bodies of the admin API (its OpenAPI document is made from them), what the `weir`
command sends, and the parts of an exported file. A field nobody knows is refused: a limit or a
price that was misspelt must not be no limit and no price. What a request reads of it, without
pydantic, is in `catalogue`, `projects` and `limits`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)

from weir import identifiers
from weir.errors import BadRequest
from weir.operator.mocks import check_candidate
from weir.projects.allowed_fields import MOST_ALLOWED_FIELDS, reason_not_allowed
from weir.projects.limits import ALL_FIELDS, BUILT_IN, MOST_COUNT, PROJECT
from weir.projects.limits import Field as Limit
from weir.projects.model_kinds import CHAT, EMBEDDING, SPELLED
from weir.projects.project import NEW_CUSTOMERS_PER_HOUR
from weir.projects.upstream_kinds import KINDS, SETTINGS, Setting, described
from weir.web import origins
from weir.web.public_addresses import MAX_URL, parse_public_url

MOST_ORIGINS = 100
MOST_ALIASES = 20
MOST_CANDIDATES = 5
MOST_ISSUERS = 10

# A record is one item of the table; what it was and is, another (the audit trail): 400 KB each.
MAX_DOCUMENT_BYTES = 180_000
FILE_FORMAT = "weir-configuration/1"


@cache
def _public_suffixes() -> Any:
    from publicsuffixlist import PublicSuffixList  # reads its list: only for who needs it

    return PublicSuffixList()


def _preview_origin(text: str) -> str:
    return origins.parse_preview_origin(text, _public_suffixes().is_public)


def _at_most_six_decimals(amount: float | None) -> float | None:
    if amount is not None and -Decimal(str(amount)).as_tuple().exponent > 6:  # type: ignore[operator]
        raise ValueError("at most six decimals")
    return amount


def _sorted(names: list[str]) -> list[str]:
    return sorted(set(names))


def _line(text: str) -> str:
    # A lone surrogate, which JSON can spell, is no text.
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise ValueError("control characters and surrogates are not allowed")
    return text


def _identifier(text: str) -> str:
    if not identifiers.is_identifier(text):
        raise ValueError(f"must have {identifiers.RULE}")
    return text


def _lines(text: str) -> str:
    """With the line ends of Unix, and tabs."""
    text = text.replace("\r\n", "\n")
    _line(text.replace("\n", "").replace("\t", ""))
    return text


def _public_url(text: str) -> str:
    return parse_public_url(text)


def _issuer_url(text: str) -> str:
    if "?" in text:
        raise ValueError("an issuer's URL has no query (OpenID Connect Core, section 2)")
    return parse_public_url(text)


def _claim_name(text: str) -> str:
    # Supabase's and Clerk's: a page may write them.
    if text.split(".")[0] in ("user_metadata", "unsafe_metadata", "unsafeMetadata"):
        raise ValueError("users can write this themselves: use what only the operator can write")
    return _line(text)


def _allowable(names: list[str]) -> list[str]:
    if reason := reason_not_allowed(names):
        raise ValueError(reason)
    return names


Pid = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
# Parts between slashes, none of them empty, `.` or `..`: it stands in the path of a URL.
_MODEL_NAME = "[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9][A-Za-z0-9._:-]*)*"
_REFERENCE = "fc:[a-z0-9-]{1,32}/[A-Za-z0-9._:/-]{1,128}"
ModelName = Annotated[str, StringConstraints(max_length=128, pattern=f"^{_MODEL_NAME}$")]
Alias = Annotated[str, StringConstraints(max_length=164, pattern=f"^({_MODEL_NAME}|{_REFERENCE})$")]
UpstreamName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
TierName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Origin = Annotated[
    str,
    Field(max_length=300, examples=["https://app.example.com"]),
    AfterValidator(origins.parse_origin),
]
PreviewOrigin = Annotated[
    str,
    Field(max_length=300, examples=["https://*.preview.example.com"]),
    AfterValidator(_preview_origin),
]
Text = Annotated[str, AfterValidator(_line)]
Name = Annotated[Text, Field(min_length=1, max_length=100)]
Reason = Annotated[Text, Field(max_length=300)]
UserId = Annotated[
    str,
    Field(min_length=1, max_length=identifiers.MAX_IDENTIFIER),
    AfterValidator(_identifier),
]
Price = Annotated[int, Field(ge=0, le=10**9, description="nano-USD for one token")]
Shards = Annotated[int, Field(ge=1, le=16)]
AllowedFields = Annotated[
    list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]],
    Field(max_length=MOST_ALLOWED_FIELDS),
    AfterValidator(_sorted),
    AfterValidator(_allowable),
]


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    def stored(self) -> dict[str, Any]:
        """As it is kept: what was said, and nothing that was not."""
        return self.model_dump(exclude_unset=True, mode="json")


B = TypeVar("B", bound=BaseModel)
D = TypeVar("D", bound=Document)
M = TypeVar("M", bound=BaseModel)


def with_a_member_for_each_limit(
    annotated: Callable[[Limit], Any],
) -> Callable[[type[B]], type[B]]:
    """Derive a model from the table of limits; `annotated` gives a member's type."""

    def derived(model: type[B]) -> type[B]:
        members: dict[str, Any] = {field.public: annotated(field) for field in ALL_FIELDS}
        return create_model(
            model.__name__,
            __base__=model,
            __module__=model.__module__,
            __doc__=model.__doc__,
            **members,
        )

    return derived


def may_be_set(limit: Limit) -> Any:
    """Return the type and the default of a member for one limit."""
    bounds = Field(ge=limit.least, le=limit.most)
    number: Any = Annotated[int, bounds]
    if limit.of_unit.money:
        number = Annotated[float, bounds, AfterValidator(_at_most_six_decimals)]
    return number | None, Field(default=None, description=limit.told)


@with_a_member_for_each_limit(may_be_set)
class LimitsDocument(Document):
    """null: no limit of that kind; 0: nothing is allowed; absent: the default."""

    @model_serializer(mode="wrap")
    def _as_it_was_said(self, dump: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        """A limit that was not named must not be told as null: sent back, it would be no limit.
        No return type: in the API's document it would take the place of the fields.
        """
        return {name: v for name, v in dump(self).items() if name in self.model_fields_set}


class TierDocument(Document):
    """A tier as it is kept: `number` is assigned, 4 to 6, for a project's own."""

    number: Annotated[int, Field(ge=1, le=6)]
    limits: LimitsDocument = LimitsDocument()


Audience = Annotated[Text, Field(min_length=1, max_length=MAX_URL)]
Audiences = Annotated[list[Audience], Field(max_length=20), AfterValidator(_sorted)]
ClaimName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_claim_name)]
PromptName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
IssuerName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class IssuerDocument(Document):
    """Whose tokens a project exchanges for its own. One of `audiences` and `authorized_parties`
    must be set: an issuer makes tokens for many, and only those made for this app count.
    """

    issuer: Annotated[str, AfterValidator(_issuer_url)] = Field(
        description="`iss` of its tokens, exactly, with a slash at the end if they have one",
        examples=["https://example.eu.auth0.com/"],
    )
    jwks_uri: Annotated[str, AfterValidator(_public_url)] = Field(
        description="where its public keys are",
        examples=["https://example.eu.auth0.com/.well-known/jwks.json"],
    )
    algs: Annotated[
        list[Literal["RS256", "ES256", "EdDSA"]],
        Field(min_length=1, max_length=3),
        AfterValidator(_sorted),
    ] = Field(description="with which it signs")
    audiences: Audiences = Field(default=[], description="one of which `aud` must name")
    authorized_parties: Audiences = Field(
        default=[], description="one of which `azp` must be: of Clerk's tokens, the page's origin"
    )
    uid_claim: ClaimName = Field(
        default="sub", description="names the user; a.b is the member b of the claim a"
    )
    tier_claim: ClaimName | None = Field(
        default=None,
        description="names the tier, or several, of which the highest counts; what the project "
        "does not have counts as the lowest. null: the limits without tier hold",
    )
    session_claim: ClaimName | None = Field(
        default=None, description="names the session; null: a page may name it, or it is new"
    )
    prefix_user_ids: bool = Field(
        default=True,
        description="a user's id begins with the issuer's name and a colon. false, for one issuer "
        "of a project: it is what the issuer says, as the project's own server would mint it",
    )
    allow_anonymous: bool = Field(
        default=False, description="also users without an account (Supabase, Firebase)"
    )
    new_users_per_hour: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=100, description="of users that the project has not seen before"
    )
    ttl: Annotated[int, Field(ge=60, le=3600)] | None = Field(
        default=None,
        description="seconds that a token lives; null: as one of the stack's user pool",
    )

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if not self.audiences and not self.authorized_parties:
            raise ValueError("one of audiences and authorized_parties must be set")
        return self

    def stored(self) -> dict[str, Any]:
        # The whole of it: a later release's defaults must not change whom an operator trusts.
        return self.model_dump(mode="json", exclude_none=True)


class ForeignToken(Document):
    token: Annotated[str, Field(min_length=1, max_length=100_000)] = Field(
        description="is judged, and neither kept nor repeated"
    )


class ProjectChange(Document):
    """Fields that are absent stay as they are. null takes a field back to its default, where it is
    allowed.
    """

    name: Name | None = None
    origins: Annotated[list[Origin], Field(max_length=MOST_ORIGINS), AfterValidator(_sorted)] = []
    preview_origins: Annotated[
        list[PreviewOrigin], Field(max_length=MOST_ORIGINS), AfterValidator(_sorted)
    ] = []
    models: Annotated[list[ModelName], Field(max_length=500), AfterValidator(_sorted)] | None = (
        Field(default=None, description="names of the catalogue that may be used; null: all")
    )
    default_model: Alias | None = None
    system_prompt: Annotated[str, Field(max_length=16_000), AfterValidator(_lines)] | None = Field(
        default=None, description="put before the caller's messages"
    )
    allowed_fields: AllowedFields | None = Field(
        default=None,
        description="further fields of a chat request that are passed on as they are; null: none",
    )
    memory_enabled: bool = Field(
        default=False,
        description="whether a session is remembered: a request that names no thread and brings no "
        "history gets what was said before in its session",
    )
    memory_window: Annotated[int, Field(ge=0, le=200)] = Field(
        default=20, description="how many turns of a thread or session are sent with a request"
    )
    retention_days: Annotated[int, Field(ge=0, le=3650)] | None = Field(
        default=None,
        description="for how long what is said in a thread is kept; 0: nothing is kept; "
        "null: until it is deleted",
    )
    store_tool_calls: bool = Field(
        default=True, description="whether tool calls and their results are kept"
    )
    limits: LimitsDocument | None = Field(
        default=None,
        description="of all users together; those not named stay, null takes all back",
    )
    user_limits: LimitsDocument | None = Field(
        default=None,
        description="of a user without a tier; those not named stay, null takes all back",
    )
    customer_limits: LimitsDocument | None = Field(
        default=None,
        description="of a customer that is created without limits of its own; those not named "
        "stay, null takes all back",
    )
    new_customers_per_hour: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=NEW_CUSTOMERS_PER_HOUR, description="how many customers may be created"
    )
    prompts: dict[PromptName, Annotated[str, Field(max_length=8_000), AfterValidator(_lines)]] = (
        Field(
            default={},
            max_length=10,
            description="system prompts that a client token may name, by their names: in the place "
            "of whatever its page says as system or developer",
        )
    )
    rpm_per_address: Annotated[int, Field(ge=1, le=MOST_COUNT)] | None = Field(
        default=None,
        description="chat requests a minute from one network address, whoever sends them; null: "
        "any number",
    )
    ledger_shards: Shards = Field(
        default=1,
        description="into how many items the counters of all its users together are divided; "
        "more: more requests at the same moment",
    )
    status: Literal["active", "suspended"] = Field(
        default="active", description="suspended: its API keys and tokens are refused with 401"
    )


class NewProject(ProjectChange):
    pid: Pid


class ProjectDocument(ProjectChange):
    """A whole project, in an exported file."""

    tiers: dict[TierName, TierDocument] = {}
    issuers: dict[IssuerName, IssuerDocument] = {}

    def stored(self) -> dict[str, Any]:
        return {name: value for name, value in super().stored().items() if value not in (None, {})}

    @model_validator(mode="after")
    def _numbers(self) -> Self:
        own = [tier.number for name, tier in self.tiers.items() if name not in BUILT_IN]
        wrong = [n for n, tier in self.tiers.items() if tier.number != BUILT_IN.get(n, tier.number)]
        if wrong or len(set(own)) < len(own) or any(number <= 3 for number in own):
            raise ValueError("tiers: free is 1, pro 2, max 3; others are 4, 5 and 6, each once")
        return self


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}")
    return kind


def _setting(setting: Setting) -> Any:
    """The type and the default of a document's member."""
    rules = StringConstraints(pattern=setting.pattern, max_length=setting.max_length)
    told = Field(default=None, description=described(setting), examples=[setting.example])
    return Annotated[str, rules] | None, told


def with_settings(member: Callable[[Setting], Any]) -> Callable[[type[M]], type[M]]:
    """Decorate a model of an upstream: it gets a member for each setting that some kind has."""

    def decorate(model: type[M]) -> type[M]:
        return create_model(
            model.__name__,
            __base__=model,
            __module__=model.__module__,
            __doc__=model.__doc__,
            **{name: member(setting) for name, setting in SETTINGS.items()},
        )

    return decorate


UpstreamKind = Annotated[
    str, AfterValidator(_known_kind), Field(json_schema_extra={"enum": list(KINDS)})
]


@with_settings(_setting)
class UpstreamDocument(Document):
    """A provider, with the settings that its kind takes."""

    kind: UpstreamKind = Field(
        description="; ".join(f"{name}: {kind.summary}" for name, kind in KINDS.items())
    )
    allowed_fields: AllowedFields | None = Field(
        default=None, description="fields of a chat request beyond OpenAI's that it takes"
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        given = self.model_dump(exclude={"kind", "allowed_fields"}, exclude_none=True)
        for name, value in KINDS[self.kind].parse(given).items():
            setattr(self, name, value)
        return self


class ThinkingCap(Document):
    """A bound of its own for what a model thinks, where the output cap does not bound it."""

    parameter: Literal[
        "thinking_budget", "max_thinking_tokens", "max_reasoning_tokens", "reasoning_budget"
    ] = Field(description="the upstream's own name of the bound")
    max_tokens: Annotated[int, Field(ge=1, le=10**7)] = Field(description="for each choice")


class CandidateDocument(Document):
    """One way to have a model answered, and its price."""

    upstream: UpstreamName
    model: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")] = Field(
        description="the upstream's own name of the model"
    )
    input_nano_usd: Price
    cached_input_nano_usd: Price
    output_nano_usd: Price
    output_cap_parameter: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    thinking_cap: ThinkingCap | None = Field(
        default=None,
        description="sent with each request and reserved beyond the output cap; null: the output "
        "cap bounds what the model thinks, too",
    )


class ModelDocument(Document):
    """A catalogue entry. Prices are asked for, never assumed.

    Embedding and moderation models answer with no text of their own: their output is free and has
    no cap, so only what their input costs has to be said.
    """

    kind: Literal["chat", "embedding", "moderation"] = Field(
        default="chat",
        description="on which route it answers: /v1/chat/completions, /v1/embeddings or "
        "/v1/moderations",
    )
    dimensions: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None,
        description="of an embedding model: how many numbers a vector has unless a request wants "
        "fewer; known, an answer that would be too large is refused before it costs anything",
    )
    aliases: Annotated[list[Alias], Field(max_length=MOST_ALIASES), AfterValidator(_sorted)] = (
        Field(default=[], description="further names, and fc:provider/model references")
    )
    candidates: Annotated[
        list[CandidateDocument], Field(min_length=1, max_length=MOST_CANDIDATES)
    ] = Field(description="upstreams in order of fallback")
    context_tokens: Annotated[int, Field(ge=1, le=10**8)]
    max_input_tokens: Annotated[int, Field(ge=1, le=10**8)] | None = Field(
        default=None,
        description="the prices hold up to so many input tokens: what might be longer is refused; "
        "null: they hold to the end of the context",
    )
    max_output_tokens: Annotated[int, Field(ge=0, le=10**7)] = Field(
        description="at least 1 of a chat model, else 0"
    )
    overhead_tokens: Annotated[int, Field(ge=0, le=10**6)] = Field(
        description="input tokens that the provider adds beyond the bytes of a request; of other "
        "than chat models, beyond the bytes of each input"
    )
    image_max_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = Field(
        default=None, description="the most that an image may cost; null: images are refused"
    )
    hidden_reasoning: bool = Field(
        default=True,
        description="the model may produce output that it does not show: a request that is stopped "
        "before the provider has told its usage is charged for all of its output cap; false: for "
        "what it had said",
    )
    allowed_fields: AllowedFields | None = Field(
        default=None,
        description="further fields of a chat request that are passed on as they are; null: none",
    )
    source: Annotated[str, StringConstraints(pattern=r"^https://[!-~]{1,490}$")] | None = Field(
        default=None, description="where prices and limits were read"
    )
    as_of: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_output(cls, told: Any) -> Any:
        """What there is only one answer to need not be said. The price of the input must be."""
        if not isinstance(told, dict) or told.get("kind", CHAT) == CHAT:
            return told
        filled = {"max_output_tokens": 0, **told}
        if isinstance(told.get("candidates"), list):
            filled["candidates"] = [
                {"output_nano_usd": 0, "cached_input_nano_usd": each["input_nano_usd"], **each}
                if isinstance(each, dict) and "input_nano_usd" in each
                else each
                for each in told["candidates"]
            ]
        return filled

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        if self.dimensions is not None and self.kind != EMBEDDING:
            raise ValueError("dimensions: only an embedding model has them")
        if self.kind == CHAT:
            if self.max_output_tokens == 0:
                raise ValueError("max_output_tokens must be at least 1")
            return self
        what = SPELLED[self.kind]
        if self.max_output_tokens:
            raise ValueError(f"max_output_tokens: {what} writes nothing; leave it out, or 0")
        if self.image_max_tokens is not None:
            raise ValueError(f"image_max_tokens: {what} takes text only")
        if any(each.output_nano_usd or each.thinking_cap for each in self.candidates):
            raise ValueError(f"candidates: {what} has no output that costs, nor does it think")
        return self

    def stored(self) -> dict[str, Any]:
        # The whole of it: a later release's defaults must not change what an operator has priced.
        # A chat model's kind is left out, as entries have it that are older than the word.
        told = self.model_dump(mode="json", exclude_none=True)
        return told if self.kind != CHAT else {n: v for n, v in told.items() if n != "kind"}


class TenantDocument(Document):
    limits: LimitsDocument | None = Field(
        default=None,
        description="of all projects together; those not named stay, null takes all back",
    )
    ledger_shards: Shards = Field(
        default=1,
        description="into how many items the counters of all projects together are divided; "
        "more: more requests at the same moment",
    )


class ConfigurationFile(Document):
    """What `weir export` writes. No key, no kill switch, no user."""

    format: Literal["weir-configuration/1"]
    tenant: TenantDocument = TenantDocument()
    upstreams: dict[UpstreamName, UpstreamDocument] = {}
    models: dict[ModelName, ModelDocument] = {}
    projects: dict[Pid, ProjectDocument] = {}

    @model_serializer(mode="wrap")
    def _as_it_was_said(self, _dump: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        """What nobody has set must not be told as null: imported again, it would be a change."""
        return {
            "format": self.format,
            "tenant": self.tenant.stored(),
            "upstreams": {name: each.stored() for name, each in self.upstreams.items()},
            "models": {name: each.stored() for name, each in self.models.items()},
            "projects": {pid: each.stored() for pid, each in self.projects.items()},
        }


class NewApiKey(Document):
    """`mint`: make and revoke tokens for users. `api:read`: list models, read usage. `api:chat`:
    chat without a token, for the user whom the header X-End-User-Id names. `role` is the highest
    that a token made with it may have, and has unless mint is asked for less.

    `contract` is that of the server which uses the key; the key begins with `sk_live_` for
    `ringside`. Its scopes there: `api:client_tokens`: make client tokens, and customers for them.
    `api:chat`: chat for customers. `api:read` and `api:write`: read, and change, customers.
    `api:webhooks`: webhook endpoints.
    """

    name: Annotated[Text, Field(max_length=100)] = ""
    scopes: Annotated[
        list[
            Literal[
                "mint", "api:read", "api:chat", "api:client_tokens", "api:write", "api:webhooks"
            ]
        ],
        Field(min_length=1, max_length=10),
        AfterValidator(_sorted),
    ] = ["mint"]
    role: Literal["user", "admin"] = "user"
    contract: Literal["behest", "ringside"] = "behest"

    @model_validator(mode="after")
    def _of_its_contract(self) -> Self:
        of_ringside = self.contract == "ringside"
        other = {"mint"} if of_ringside else {"api:client_tokens", "api:write"}
        if wrong := sorted(other.intersection(self.scopes)):
            raise ValueError(f"a key of the contract {self.contract} has no scope {wrong[0]}")
        return self


class CustomerChange(Document):
    """Fields that are absent stay as they are. null: no limit of that kind; no name; all models."""

    name: Annotated[Text, Field(max_length=256)] | None = None
    budget_usd: Annotated[float, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="a month; 0: nothing may be spent"
    )
    rate_limit_rpm: Annotated[int, Field(ge=0, le=100_000)] | None = None
    rate_limit_tpm: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    allowed_models: Annotated[list[str], Field(max_length=50)] | None = Field(
        default=None, description="such as fc:openai/gpt-4o-mini, or fc:openai/*"
    )
    metadata: dict[str, Any] | None = None
    status: Literal["active", "blocked"] = "active"


class NewCustomer(CustomerChange):
    external_id: Annotated[str, Field(min_length=1, max_length=260)]


EventName = Literal[
    "wallet.low",
    "customer.budget_exceeded",
    "budget.exceeded",
    "project.budget_low",
    "project.budget_exceeded",
    "webhook.test",
]


class NewWebhook(Document):
    """`url` is on the public internet, https only. `budget.exceeded` is another name of
    `customer.budget_exceeded`.
    """

    url: str = Field(max_length=MAX_URL, examples=["https://app.example.com/hooks/weir"])
    events: Annotated[list[EventName], Field(min_length=1, max_length=20)]
    description: Annotated[Text, Field(max_length=200)] = ""


class WebhookChange(Document):
    """What is named is changed. `enabled` false: it is told nothing, and what is on its way is
    dropped.
    """

    url: str = Field(default="", max_length=MAX_URL)
    events: Annotated[list[EventName], Field(min_length=1, max_length=20)] = []
    description: Annotated[Text, Field(max_length=200)] = ""
    enabled: bool = True


class Replay(Document):
    """`event_id` null: all that were given up, up to 100."""

    event_id: Annotated[str, StringConstraints(pattern=r"^evt_[0-9a-f]{24}$")] | None = None


class NewSigningKey(Document):
    """Exactly one of `project` and `every_project`. Without `public_key` a pair is made, and its
    private half is in the answer.
    """

    name: Annotated[Text, Field(max_length=100)] = ""
    project: Pid | None = None
    every_project: bool = False
    public_key: str | dict[str, Any] | None = Field(
        default=None,
        description="PEM, or a JWK (RFC 7517); RSA of 2048 to 4096 bits with the exponent 65537",
    )

    @model_validator(mode="after")
    def _for_one_or_all(self) -> Self:
        if (self.project is None) != self.every_project:
            raise ValueError("name a project, or set every_project, but not both")
        return self


class ProviderKey(Document):
    key: Annotated[str, StringConstraints(pattern=r"^[!-~]{8,1000}$")] = Field(
        description="is stored in Secrets Manager, and never shown again"
    )


class KillSwitch(Document):
    """`off` true switches it off, false on again."""

    scope: Literal["tenant", "project", "model", "user"]
    project: Pid | None = None
    model: ModelName | None = None
    user_id: UserId | None = None
    off: bool
    reason: Reason = ""

    @model_validator(mode="after")
    def _named(self) -> Self:
        names = {"project": self.project, "model": self.model, "user_id": self.user_id}
        needed = {
            "tenant": set[str](),
            "project": {"project"},
            "model": {"model"},
            "user": {"project", "user_id"},
        }[self.scope]
        if {name for name, value in names.items() if value is not None} != needed:
            raise ValueError(
                f"scope {self.scope!r} takes {' and '.join(sorted(needed)) or 'no name'}, exactly"
            )
        return self


class ResetOverrun(Document):
    """`candidate`: the name of an upstream, a slash, and the model's name there."""

    candidate: Annotated[str, StringConstraints(min_length=3, max_length=600)]


class EraseUser(Document):
    user_id: UserId


class RevokeTokens(Document):
    """With `session_id` the tokens of that session, with `jti` that one token, with neither all
    tokens of the user; always those that were issued until now.
    """

    user_id: UserId
    session_id: UserId | None = None
    jti: UserId | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.session_id is not None and self.jti is not None:
            raise ValueError("takes session_id or jti, not both")
        return self


# ---------------------------------------------------------------- what concerns several records


def check_catalogue(catalogue: Mapping[str, Any]) -> None:
    """Names and aliases are unique, and every candidate's upstream is there."""
    upstreams, models = catalogue.get("upstreams", {}), catalogue.get("models", {})
    owners: dict[str, str] = {}
    for name, model in models.items():
        for spelled in (name, *model.get("aliases", ())):
            if spelled == "default":
                raise BadRequest("'default' means a project's default model.", param="name")
            other = owners.setdefault(spelled, name)
            if other != name:
                raise BadRequest(
                    f"{spelled!r} is a name of the model {other!r} already.", param="aliases"
                )
        for candidate in model["candidates"]:
            if candidate["upstream"] not in upstreams:
                raise BadRequest(
                    f"There is no upstream {candidate['upstream']!r}; there are: "
                    f"{', '.join(sorted(upstreams)) or 'none'}.",
                    param="candidates.upstream",
                )
            kind, of_model = upstreams[candidate["upstream"]]["kind"], model.get("kind", CHAT)
            if kind in KINDS and not KINDS[kind].serves(of_model):
                raise BadRequest(
                    f"{candidate['upstream']!r} is an upstream of kind {kind}, which serves no "
                    f"{of_model} models.",
                    param="candidates.upstream",
                )
            check_candidate(upstreams[candidate["upstream"]], candidate)


def check_project(project: Mapping[str, Any], catalogue: Mapping[str, Any]) -> None:
    """The models it names are in the catalogue, its default is one that it offers, and whom it
    trusts cannot spend without end.
    """
    check_issuers(project)
    models = catalogue.get("models", {})
    names = {alias: name for name, told in models.items() for alias in (name, *told["aliases"])}
    listed = project.get("models")
    missing = [name for name in listed or () if name not in models]
    if missing:
        raise BadRequest(
            f"The catalogue has no model {', '.join(map(repr, missing))}.", param="models"
        )
    default = project.get("default_model")
    if default is None:
        return
    if default not in names:
        raise BadRequest(f"The catalogue has no model {default!r}.", param="default_model")
    if models[names[default]].get("kind", CHAT) != CHAT:
        raise BadRequest(
            f"{default!r} is no chat model, and only chats have a default.", param="default_model"
        )
    if listed is not None and names[default] not in listed:
        raise BadRequest(
            f"The default model {default!r} is not one of the project's models.",
            param="default_model",
        )


def check_issuers(project: Mapping[str, Any]) -> None:
    """No two issuers can be taken for each other, and the project has a budget."""
    issuers = project.get("issuers") or {}
    if not issuers:
        return
    if PROJECT.overridden(project.get("limits") or {}).nano_usd_per_month is None:
        raise BadRequest(
            "A project that trusts other issuers needs a budget of its own: whoever can sign in "
            "there can spend. Set one: weir projects update PID --limit usd_per_month=50.",
            param="limits.usd_per_month",
        )
    if len(issuers) > MOST_ISSUERS:
        raise BadRequest(f"A project trusts at most {MOST_ISSUERS} issuers.", param="issuers")
    owners: dict[str, str] = {}
    for name, told in sorted(issuers.items()):
        other = owners.setdefault(told["issuer"], name)
        if other != name:
            raise BadRequest(
                f"{other!r} and {name!r} would both be {told['issuer']}.", param="issuer"
            )
    without = sorted(n for n, told in issuers.items() if not told.get("prefix_user_ids", True))
    if len(without) > 1:
        raise BadRequest(
            f"Of {' and '.join(without)} at most one may go without a prefix: one's users could "
            "be taken for the other's.",
            param="prefix_user_ids",
        )


def refusal_of(errors: Iterable[Mapping[str, Any]]) -> BadRequest:
    """Of pydantic's complaints. What was sent is not repeated: it may be a secret."""
    told = [(_place(error["loc"]), _sentence(error)) for error in errors]
    place, message = told[0]
    more = [f"{place or 'body'}: {message}" for place, message in told]
    return BadRequest(
        f"{place}: {message}." if place else f"{message}.",
        param=place or None,
        details={"reason": "invalid", "problems": more[:20]},
    )


def parsed(kind: type[D], told: object) -> D:
    """Raises BadRequest."""
    try:
        return kind.model_validate(told)
    except ValidationError as error:
        raise refusal_of(error.errors(include_url=False, include_input=False)) from None


# A pattern says nothing to most people.
_PATTERNS = {
    r"^[a-z0-9][a-z0-9-]{0,62}$": "lower-case letters, digits and hyphens, at most 63, beginning "
    "with a letter or digit",
    r"^[a-z0-9][a-z0-9-]{0,31}$": "lower-case letters, digits and hyphens, at most 32, beginning "
    "with a letter or digit",
    r"^[a-z][a-z0-9-]{0,31}$": "lower-case letters, digits and hyphens, at most 32, beginning "
    "with a letter",
    r"^[a-z0-9][a-z0-9_-]{0,63}$": "lower-case letters, digits and _ -, at most 64, beginning with "
    "a letter or digit",
    r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$": "a field's name: letters, digits and _ . -, at most 64, "
    "beginning with a letter or _",
    f"^{_MODEL_NAME}$": "letters, digits and . _ : - /, at most 128, beginning with a letter or "
    "digit, also after each /",
    f"^({_MODEL_NAME}|{_REFERENCE})$": "a model's name (letters, digits and . _ : - /, beginning "
    "with a letter or digit, also after each /), or fc:provider/model",
    r"^[!-~]{1,200}$": "1 to 200 printable characters without spaces",
    r"^[!-~]{8,1000}$": "8 to 1,000 printable characters without spaces",
    r"^https://[!-~]{1,490}$": "an address that begins with https://, of at most 498 characters",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$": "a day, such as 2026-01-31",
    **{setting.pattern: setting.meaning for setting in SETTINGS.values() if setting.pattern},
}


def _sentence(error: Mapping[str, Any]) -> str:
    kind, location = error["type"], tuple(error["loc"])
    if kind == "string_pattern_mismatch" and error["ctx"]["pattern"] in _PATTERNS:
        return _PATTERNS[error["ctx"]["pattern"]]
    if kind in ("int_type", "int_from_float", "int_parsing"):
        if str(location[-1]).endswith("_nano_usd"):
            return "a whole number of nano-USD for one token; $0.15 for a million tokens is 150"
        return "must be a whole number"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "must be a JSON object" if _place(location) else "the document must be a JSON object"
    return str(error["msg"]).removeprefix("Value error, ").rstrip(".")


def _place(location: Iterable[object]) -> str:
    return ".".join(str(part)[:100] for part in location if part != "body")
