"""A customer: what may be written of one, what its callers read, and what it may use.

Its limits are those of the ledger, under the contract's names: contracts/ringside.md, section 4.1.
They are the customer's own, and stand in the place of a tier's; the project's limits hold beside
them for all customers together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from weir.customers.names import parse_external_id
from weir.errors import BadRequest, Forbidden
from weir.identifiers import is_plain
from weir.projects.limits import ALL_FIELDS, NANO, Limits

ACTIVE, BLOCKED, DELETED = "active", "blocked", "deleted"

MAX_NAME = 256  # characters
MAX_METADATA_BYTES = 16_384
MOST_METADATA = 50
MOST_MODELS = 50
MAX_MODEL = 200
MAX_BUDGET_USD = 10**6
DECIMALS = 9  # of USD: money is integer nano-USD

# Always counted, limited or not: a limit that is set later must know what was used before.
COUNTED = frozenset({"rpm", "tpm", "nano_usd_per_month", "concurrent_streams"})

_ALIASES = {"monthly_budget_usd": "budget_usd"}
_RPM, _TPM, _OUTPUT = "rate_limit_rpm", "rate_limit_tpm", "max_output_tokens"
_COUNTS = {_RPM: ("rpm", 0, 100_000), _TPM: ("tpm", 0, 10**8), _OUTPUT: (_OUTPUT, 1, 10**7)}


@dataclass(frozen=True, slots=True)
class Customer:
    """`etag` names this version of the record: an admission demands that it is still the one.
    `allowed_models` None: all that the project offers; a `*` at an entry's end stands for any rest.
    Times are Unix seconds.
    """

    id: str
    external_id: str
    limits: Limits
    created_at: int
    updated_at: int
    name: str | None = None
    allowed_models: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] | None = None
    status: str = ACTIVE
    etag: str = "1"

    @property
    def is_active(self) -> bool:
        return self.status == ACTIVE

    def require_active(self) -> None:
        """Raise Forbidden for one that the operator has blocked."""
        if self.status != ACTIVE:
            raise Forbidden("This customer is blocked.", code="customer_blocked")

    def may_use(self, model: str) -> bool:
        """Return whether a model, named as `fc:provider/model`, is one that it may use."""
        return self.allowed_models is None or is_listed(model, self.allowed_models)

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "external_id": self.external_id,
            "limits": {
                field.limit: value
                for field in ALL_FIELDS
                if (value := getattr(self.limits, field.limit)) is not None
            },
            "name": self.name,
            "allowed_models": self.allowed_models,
            "metadata": self.metadata,
            "status": self.status,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }

    @classmethod
    def from_document(cls, customer_id: str, told: Mapping[str, Any], etag: str) -> "Customer":
        models = told.get("allowed_models")
        return cls(
            id=customer_id,
            external_id=told["external_id"],
            limits=Limits(**told["limits"]),
            created_at=told["created_at"],
            updated_at=told["updated_at"],
            name=told.get("name"),
            allowed_models=None if models is None else tuple(models),
            metadata=told.get("metadata"),
            status=told.get("status", ACTIVE),
            etag=etag,
        )

    def view(self, spent_nano_usd: int, resets_at: int, period: str) -> dict[str, Any]:
        """As its project's server reads it, in this period of its budget (`2026-06`)."""
        return {
            **self.fields(),
            "object": "customer",
            "spend_usd_mtd": usd(spent_nano_usd),
            "budget_period": period,
            "budget_resets_at": resets_at,
        }

    def fields(self) -> dict[str, Any]:
        """Return what is kept of it, under the contract's names."""
        budget = self.limits.nano_usd_per_month
        return {
            "id": self.id,
            "external_id": self.external_id,
            "name": self.name,
            "budget_usd": None if budget is None else usd(budget),
            _RPM: self.limits.rpm,
            _TPM: self.limits.tpm,
            _OUTPUT: self.limits.max_output_tokens,
            "allowed_models": None if self.allowed_models is None else list(self.allowed_models),
            "status": self.status,
            "metadata": dict(self.metadata or {}),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


def is_listed(model: str, listed: tuple[str, ...]) -> bool:
    return any(
        model.startswith(each[:-1]) if each.endswith("*") else model == each for each in listed
    )


def created(
    body: Mapping[str, Any],
    customer_id: str,
    now: int,
    defaults: Limits,
    external_id: str | None = None,
) -> Customer:
    """Return the customer that a request wants to make; raise BadRequest. `defaults` are the
    project's. `external_id`: of the path, which the body may repeat but not contradict.
    """
    told = body.get("external_id", external_id)
    named = parse_external_id(told)
    if external_id is not None and named != external_id:
        raise BadRequest("external_id is not that of the path.", param="external_id")
    fresh = Customer(customer_id, named, defaults, now, now)
    return changed(fresh, body, now, defaults)


def changed(before: Customer, body: Mapping[str, Any], now: int, defaults: Limits) -> Customer:
    """Return the customer with the fields that a request names; raise BadRequest. Fields that are
    not known are ignored, so that a newer client is not refused.
    """
    fields = _without_aliases(body)
    after = replace(
        before,
        limits=_limits(before.limits, fields, defaults),
        updated_at=now,
    )
    if "name" in fields:
        after = replace(after, name=_name(fields["name"]))
    if "metadata" in fields:
        after = replace(after, metadata=parse_metadata(fields["metadata"], MAX_METADATA_BYTES))
    if "allowed_models" in fields:
        after = replace(after, allowed_models=parse_models(fields["allowed_models"]))
    if "status" in fields:
        if fields["status"] not in (ACTIVE, BLOCKED):
            raise BadRequest(f"status must be {ACTIVE} or {BLOCKED}.", param="status")
        after = replace(after, status=fields["status"])
    return after


def normalised(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body in one spelling, so that two that mean the same are the same."""
    fields = _without_aliases(body)
    if isinstance(fields.get("external_id"), str):
        fields["external_id"] = fields["external_id"].removeprefix("ext:")
    return fields


def _without_aliases(body: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in body.items() if name not in _ALIASES}
    for alias, name in _ALIASES.items():
        if alias not in body:
            continue
        if name in body and body[name] != body[alias]:
            raise BadRequest(f"{alias} and {name} are the same field: name one.", param=alias)
        fields[name] = body[alias]
    return fields


def _limits(before: Limits, fields: Mapping[str, Any], defaults: Limits) -> Limits:
    changes: dict[str, int | None] = {}
    if "budget_usd" in fields:
        budget = parse_usd(fields["budget_usd"], "budget_usd", MAX_BUDGET_USD)
        if budget is None and defaults.nano_usd_per_month is not None:
            raise BadRequest(
                "budget_usd must be a number: this project allows no customer without a budget. "
                "(The operator can: customer_limits with usd_per_month null.)",
                param="budget_usd",
            )
        changes["nano_usd_per_month"] = budget
    for name, (limit, least, most) in _COUNTS.items():
        if name in fields:
            changes[limit] = parse_count(fields[name], name, least, most)
    return replace(before, **changes)


def parse_usd(value: object, name: str, most: int) -> int | None:
    """Return integer nano-USD of a JSON number. null is no cap of this kind."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise BadRequest(f"{name} must be a number from 0 to {most:,}, or null.", param=name)
    nano = Decimal(str(value)) * NANO
    if nano != nano.to_integral_value():
        raise BadRequest(f"{name} may have at most {DECIMALS} decimals.", param=name)
    return int(nano)


def parse_count(value: object, name: str, least: int, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRequest(
            f"{name} must be an integer from {least} to {most:,}, or null.", param=name
        )
    return value


def parse_metadata(value: object, most_bytes: int) -> dict[str, Any]:
    import json

    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MOST_METADATA:
        raise BadRequest(
            f"metadata must be an object of at most {MOST_METADATA} members.", param="metadata"
        )
    if len(json.dumps(value)) > most_bytes:
        raise BadRequest(f"metadata may have at most {most_bytes:,} bytes.", param="metadata")
    return value


def parse_models(value: object, name: str = "allowed_models") -> tuple[str, ...] | None:
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) > MOST_MODELS
        or not all(isinstance(each, str) and 0 < len(each) <= MAX_MODEL for each in value)
        or not all(is_plain(each) and "*" not in each[:-1] for each in value)
    ):
        raise BadRequest(
            f"{name} must be a list of at most {MOST_MODELS} model references, such as "
            "fc:openai/gpt-4o-mini or fc:openai/*.",
            param=name,
        )
    return tuple(value)


def _name(value: object) -> str | None:
    if value is not None and not (
        isinstance(value, str) and len(value) <= MAX_NAME and is_plain(value)
    ):
        raise BadRequest(f"name must be a text of at most {MAX_NAME} characters.", param="name")
    return value


def usd(nano: int) -> int | float:
    """For JSON: rounded to nothing, without zeros at its end."""
    return nano // NANO if nano % NANO == 0 else nano / NANO
