"""Limits and tiers: how much one end user, or a whole project, may use.

A tier is a named set of limits. Three are there from the start, with the contract's numbers
(contracts/behest.md, section 13); a project may change their numbers and add three of its own. An
unknown tier never fails open: it is refused where a token is made, and counts as the first tier
where a token is used.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

from weir.errors import BadRequest

NANO = 10**9

FREE, PRO, MAX = "free", "pro", "max"
BUILT_IN = {FREE: 1, PRO: 2, MAX: 3}
MOST_CUSTOM_TIERS = 3

Tier = int | str  # as a caller spells it: a number, digits, or a name


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit of that kind. 0: nothing is allowed. Money is integer nano-USD."""

    rpm: int | None = None
    tpm: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    nano_usd_per_month: int | None = None
    max_output_tokens: int | None = None
    concurrent_streams: int | None = None

    def overridden(self, document: Mapping[str, Any]) -> "Limits":
        """With what an operator has set; what he has not named stays. A field nobody knows raises
        ValueError: a limit that was misspelt must not be no limit.
        """
        changes = dict(document)
        if "usd_per_month" in changes:
            changes["nano_usd_per_month"] = nano_usd(changes.pop("usd_per_month"))
        unknown = changes.keys() - {field.name for field in fields(Limits)}
        if unknown:
            raise ValueError(f"unknown limits: {', '.join(sorted(unknown))}")
        return replace(self, **changes)

    def document(self) -> dict[str, Any]:
        """As an operator reads it: money in USD."""
        told = {field.name: getattr(self, field.name) for field in fields(Limits)}
        nano = told.pop("nano_usd_per_month")
        told["usd_per_month"] = None if nano is None else usd(nano)
        return told


@dataclass(frozen=True, slots=True)
class Pool:
    """What all users of a project, or all projects, may use together. Its counters are divided into
    `shards` items; `generation` counts how often divided ones have been given other limits or
    another number of shards: whoever counts by an older one is refused until he has read again.
    """

    limits: Limits
    shards: int = 1
    generation: int = 0


# Tokens without a tier (contract section 14: 60 requests a minute for the project, and a tenth of
# them, at least 3, for each user).
PROJECT = Limits(rpm=60)
WITHOUT_TIER = Limits(rpm=6, tokens_per_day=1_000_000, max_output_tokens=1024, concurrent_streams=3)
DEFAULTS = {
    FREE: Limits(
        rpm=10,
        requests_per_day=100,
        tokens_per_day=50_000,
        max_output_tokens=1024,
        concurrent_streams=3,
    ),
    PRO: Limits(
        rpm=60,
        requests_per_day=10_000,
        tokens_per_day=2_000_000,
        max_output_tokens=1024,
        concurrent_streams=3,
    ),
    MAX: Limits(
        rpm=300,
        requests_per_day=100_000,
        tokens_per_day=20_000_000,
        max_output_tokens=1024,
        concurrent_streams=3,
    ),
}


@dataclass(frozen=True, slots=True)
class TierLimits:
    """One tier of one project, resolved."""

    number: int
    name: str
    limits: Limits


class Tiers:
    """A project's tiers: the three built-in ones, and its own."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """`document` is {name: {"number", "limits"}} of what the operator has changed or added."""
        self.by_name: dict[str, TierLimits] = {}
        for name, number in BUILT_IN.items():
            changed = document.get(name, {}).get("limits", {})
            self.by_name[name] = TierLimits(number, name, DEFAULTS[name].overridden(changed))
        for name, told in document.items():
            if name not in BUILT_IN:
                # What a tier of his own does not set is as tight as the first tier's.
                limits = DEFAULTS[FREE].overridden(told.get("limits", {}))
                self.by_name[name] = TierLimits(told["number"], name, limits)

    def find(self, tier: object) -> TierLimits | None:
        """By number, digits or name. None for one that this project does not have."""
        if isinstance(tier, bool) or not isinstance(tier, int | str):
            return None
        spelled = str(tier)
        return next(
            (
                found
                for found in self.by_name.values()
                if spelled in (str(found.number), found.name)
            ),
            None,
        )

    def known(self) -> str:
        ordered = sorted(self.by_name.values(), key=lambda tier: tier.number)
        return ", ".join(f"{tier.number} ({tier.name})" for tier in ordered)

    def parse(self, value: object) -> Tier | None:
        """What a caller asks for, in its own spelling, which goes into the token."""
        if value is None:
            return None
        if self.find(value) is None:
            raise BadRequest(f"tier must be one of {self.known()}.", param="tier")
        assert isinstance(value, int | str)
        return value

    def highest_of(self, names: AbstractSet[str]) -> str | None:
        """The tier of a user who is in several groups."""
        mine = [tier for tier in self.by_name.values() if tier.name in names]
        return max(mine, key=lambda tier: tier.number).name if mine else None


def nano_usd(amount: float | int | str | Decimal | None) -> int | None:
    """Exact for what a limit may be: at most a million, with at most six decimals."""
    return None if amount is None else int(Decimal(str(amount)) * NANO)


def usd(nano: int) -> int | float:
    """For people and JSON; a whole amount stays an integer."""
    return nano // NANO if nano % NANO == 0 else nano / NANO
