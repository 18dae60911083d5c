"""A tier's limits in the words of Behest's control plane: the bodies of /v1/projects/{pid}/tiers.

Its override fields have the names of contracts/behest.md, section 13. Of limits that it has no name
for, the name is Weir's own. Fields that are not limits of a tier here are refused by name: a
guardrail that someone believes to be on must not be off.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)

from weir.operator.documents import Document, LimitsDocument, TierName, may_be_set, parsed
from weir.operator.views import View
from weir.projects.limits import ALL_FIELDS, BUILT_IN
from weir.projects.limits import Field as Limit

_SPELLED = {"rpm": "rpm_limit"}

# Fields of the contract that are not set for a tier here, and what is instead.
NOT_OF_A_TIER = {
    "provider_model": "the project's default_model and models say it",
    "system_prompt": "the project's system_prompt says it",
    "memory_enabled": "it is not set by tier",
    "memory_window": "it is not set by tier",
    "retention_days": "it is not set by tier",
    "store_tool_calls": "it is not set by tier",
    "pii_mode": "there is no PII filter",
    "pii_entities": "there is no PII filter",
    "sentinel_mode": "there is no content filter",
    "sentinel_blocklist": "there is no content filter",
}


def spelled(limit: Limit) -> str:
    """Return the contract's name of a limit."""
    return _SPELLED.get(limit.public, limit.public)


def _with_the_contracts_names(
    member: Callable[[Limit], Any],
) -> Callable[[type[BaseModel]], type[Any]]:
    def derived(model: type[BaseModel]) -> type[Any]:
        members: dict[str, Any] = {spelled(limit): member(limit) for limit in ALL_FIELDS}
        return create_model(
            model.__name__,
            __base__=model,
            __module__=model.__module__,
            __doc__=model.__doc__,
            **members,
        )

    return derived


def _without_what_is_off(told: Any) -> Any:
    """Drop fields that are not a tier's here and switch nothing on. Raise ValueError for others."""
    if not isinstance(told, Mapping):
        return told
    for name, instead in NOT_OF_A_TIER.items():
        if name in told and not _switches_nothing_on(told[name]):
            raise ValueError(f"{name} cannot be set for a tier: {instead}")
    return {name: value for name, value in told.items() if name not in NOT_OF_A_TIER}


def _switches_nothing_on(value: Any) -> bool:
    return value is None or value is False or value in ("disabled", [])


@_with_the_contracts_names(may_be_set)
class TierOverrides(Document):
    """Limits that differ from the tier's defaults. null: no limit of that kind; absent: the
    default, which is that of `free` for a tier of the project's own.
    """

    def limits(self) -> LimitsDocument:
        stored = self.stored()
        told = {
            limit.public: stored[spelled(limit)] for limit in ALL_FIELDS if spelled(limit) in stored
        }
        return parsed(LimitsDocument, told)

    @model_serializer(mode="wrap")
    def _as_it_was_said(self, dump: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        """What was not named must not be shown as null, which is no limit. No return type: in the
        API's document it would take the place of the fields.
        """
        return {name: v for name, v in dump(self).items() if name in self.model_fields_set}


Overrides = Annotated[TierOverrides, BeforeValidator(_without_what_is_off)]


class NewTier(Document):
    name: TierName
    overrides: Overrides = Field(default_factory=TierOverrides)


class TierChange(Document):
    """The whole of a tier's overrides: those that are not named are taken back."""

    overrides: Overrides


@_with_the_contracts_names(lambda limit: limit.number | None)
class Resolved(View):
    """null: no limit of that kind."""


class ProjectTier(View):
    """`custom`: it is one of the project's own."""

    id: int
    name: str
    custom: bool
    overrides: TierOverrides


class ProjectTiers(View):
    data: list[ProjectTier]


class ResolvedTier(View):
    """With its defaults filled in."""

    id: int
    name: str
    limits: Resolved


def _renamed(limits: Mapping[str, Any]) -> dict[str, Any]:
    return {spelled(limit): limits[limit.public] for limit in ALL_FIELDS if limit.public in limits}


def shown(tier: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ProjectTier of a tier as the operator's verbs return it."""
    changed = {name: tier["limits"][name] for name in tier["changed"]}
    return {
        "id": tier["number"],
        "name": tier["name"],
        "custom": tier["name"] not in BUILT_IN,
        "overrides": _renamed(changed),
    }


def resolved(tier: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ResolvedTier of a tier as the operator's verbs return it."""
    return {"id": tier["number"], "name": tier["name"], "limits": _renamed(tier["limits"])}
