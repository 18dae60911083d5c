"""A project as a request reads it: is it open, which pages may call, which models, which limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weir.errors import BadRequest, Killed, NotReady, Unauthenticated
from weir.projects.allowed_fields import allowed_fields
from weir.projects.catalogue import Catalogue, Model
from weir.projects.limits import CUSTOMER, FIELDS, FREE, PROJECT, WITHOUT_TIER, Limits, Pool, Tiers
from weir.projects.model_kinds import CHAT, ROUTE_OF, SPELLED
from weir.web.origins import Origins

MEMORY_WINDOW = 20  # turns
NEW_CUSTOMERS_PER_HOUR = 500
# Characters of an API key's id that the tokens which it has made name (weir/identity/tokens.py).
KEY_STEM = len("key_") + 15
DEFAULT_MODEL_NAMES = (None, "", "default")


@dataclass(frozen=True, slots=True)
class Project:
    """`models` None: the whole catalogue. `limits` are the project's own, all users together, and
    `pool` what is needed to count by them. `limited_fields` names the limits of any of its users:
    they are counted for each user, because his next token may have another tier. `revoked_keys` are
    ids of API keys that were revoked so recently that a token of theirs may still be unexpired.
    At most `memory_window` turns of a thread, or of a session if `memory_enabled`, are sent with a
    request; what is kept of either is kept for `retention_days` (None: until it is deleted, 0: not
    at all).
    `rpm_per_address`: how many requests a minute may come from one network address; None: any.
    `customer_limits` are those of a customer that is created without any; of new customers there
    may be `new_customers_per_hour`. `prompts`: system prompts that a client token may name.
    `issuers` is as the operator wrote it: weir/identity/issuers.py reads it for the few requests
    that need it.
    """

    pid: str
    name: str
    origins: Origins
    models: frozenset[str] | None
    default_model: str | None
    system_prompt: str | None
    limits: Limits
    pool: Pool
    limits_without_tier: Limits
    tiers: Tiers
    limited_fields: frozenset[str]
    suspended: bool
    killed: bool
    allowed_fields: frozenset[str] = frozenset()
    revoked_keys: frozenset[str] = frozenset()
    memory_enabled: bool = False
    memory_window: int = MEMORY_WINDOW
    retention_days: int | None = None
    store_tool_calls: bool = True
    rpm_per_address: int | None = None
    customer_limits: Limits = CUSTOMER
    new_customers_per_hour: int = NEW_CUSTOMERS_PER_HOUR
    prompts: Mapping[str, str] = field(default_factory=dict)
    issuers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, pid: str, told: Mapping[str, Any]) -> "Project":
        models = told.get("models")
        limits = PROJECT.overridden(told.get("limits", {}))
        without_tier = WITHOUT_TIER.overridden(told.get("user_limits", {}))
        tiers = Tiers(told.get("tiers", {}))
        of_users = [without_tier, *(tier.limits for tier in tiers.by_name.values())]
        return cls(
            pid=pid,
            name=told.get("name") or pid,
            origins=Origins.from_document(told),
            models=None if models is None else frozenset(models),
            default_model=told.get("default_model"),
            system_prompt=told.get("system_prompt"),
            limits=limits,
            pool=Pool(limits, told.get("ledger_shards", 1), told.get("ledger_generation", 0)),
            limits_without_tier=without_tier,
            tiers=tiers,
            limited_fields=frozenset(
                field.limit
                for field in FIELDS
                if any(getattr(each, field.limit) is not None for each in of_users)
            ),
            suspended=told.get("status", "active") != "active",
            killed=told.get("killed") is not None,
            allowed_fields=allowed_fields(told),
            revoked_keys=frozenset(key[:KEY_STEM] for key in told.get("revoked_keys", ())),
            memory_enabled=told.get("memory_enabled", False),
            memory_window=told.get("memory_window", MEMORY_WINDOW),
            retention_days=told.get("retention_days"),
            store_tool_calls=told.get("store_tool_calls", True),
            rpm_per_address=told.get("rpm_per_address"),
            customer_limits=CUSTOMER.overridden(told.get("customer_limits", {})),
            new_customers_per_hour=told.get("new_customers_per_hour", NEW_CUSTOMERS_PER_HOUR),
            prompts=told.get("prompts", {}),
            issuers=told.get("issuers", {}),
        )

    def require_open(self) -> None:
        """A suspended project's keys and tokens count for nothing; a killed one answers nobody."""
        if self.suspended:
            raise Unauthenticated("The project is suspended.", reason="project_suspended")
        if self.killed:
            raise Killed("project")

    def require_live_key(self, key_id: str | None) -> None:
        """Raise Unauthenticated for a token whose API key is revoked. None: no key made it."""
        if key_id is not None and key_id[:KEY_STEM] in self.revoked_keys:
            raise Unauthenticated(
                "The API key that made this token has been revoked. Fetch a new token.",
                reason="token_revoked",
            )

    def limits_of(self, tier: object) -> Limits:
        """Of one user with this tier. A tier that has gone since his token was made counts as the
        first one.
        """
        if tier is None:
            return self.limits_without_tier
        found = self.tiers.find(tier) or self.tiers.by_name[FREE]
        return found.limits

    def offered(self, catalogue: Catalogue) -> list[Model]:
        """What a caller may ask for by name, in order of name."""
        return [
            model
            for name, model in sorted(catalogue.models.items())
            if (self.models is None or name in self.models) and not model.killed
        ]

    def choose(self, asked: object, catalogue: Catalogue, kind: str = CHAT) -> Model:
        """Return the model of this kind that a request names. Without a name it is the project's
        default for a chat; of another kind, the only one that the project offers.
        """
        if asked in DEFAULT_MODEL_NAMES:
            return self._default(catalogue) if kind == CHAT else self._only(catalogue, kind)
        found = catalogue.find(asked) if isinstance(asked, str) else None
        if found is None or not self.offers(found):
            raise self._not_offered(catalogue, kind)
        return usable(found, kind)

    def offers(self, model: Model) -> bool:
        return self.models is None or model.name in self.models

    def _not_offered(self, catalogue: Catalogue, kind: str) -> BadRequest:
        names = [model.name for model in self.offered(catalogue) if model.kind == kind]
        what = "absent, 'default' or a model" if kind == CHAT else SPELLED[kind]
        # OpenAI answers 404; Behest's clients expect 400. The word is OpenAI's: clients look
        # for it anywhere in the error.
        return BadRequest(
            f"model must be {what} that this project offers: {', '.join(names[:20]) or 'none'}.",
            param="model",
            details={
                "reason": "model_not_found",
                "allowed": ([*(["default"] if kind == CHAT else []), *names])[:101],
            },
        )

    def _only(self, catalogue: Catalogue, kind: str) -> Model:
        found = [model for model in self.offered(catalogue) if model.kind == kind]
        if len(found) != 1:
            raise self._not_offered(catalogue, kind)
        return found[0]

    def _default(self, catalogue: Catalogue) -> Model:
        found = catalogue.find(self.default_model) if self.default_model else None
        if found is None:
            raise NotReady(
                "This project has no default model. The operator sets one: "
                f"weir projects update {self.pid} --default-model NAME.",
                code="upstream_not_configured",
                retryable=False,
            )
        if found.kind != CHAT:
            raise NotReady(
                f"This project's default model is {SPELLED.get(found.kind, 'no chat model')}. The "
                f"operator sets another: weir projects update {self.pid} --default-model NAME.",
                code="upstream_not_configured",
                retryable=False,
            )
        return _alive(found)


def _where(kind: str) -> str:
    return f" Use {ROUTE_OF[kind]}." if kind in ROUTE_OF else ""


def usable(model: Model, kind: str) -> Model:
    """Return a model that is of the kind and not switched off. Raise BadRequest, Killed."""
    if model.kind != kind:
        raise BadRequest(
            f"{model.name!r} is {SPELLED.get(model.kind, 'no chat model')}, and this route "
            f"needs {SPELLED[kind]}.{_where(model.kind)}",
            param="model",
            details={"reason": "wrong_kind_of_model", "kind": model.kind},
        )
    return _alive(model)


def _alive(model: Model) -> Model:
    if model.killed:
        raise Killed("model")
    return model
