"""Limits and tiers: how much one end user, or a whole project, may use.

`Limits` is the table of all kinds of limits, and `Amounts` the table of the units that they count:
each field is a row. The ledger, what an operator may write, the flags of `weir`, the headers and
GET /v1/me are derived from them. docs/ledger.md says how to add a kind.

A tier is a named set of limits. Three are there from the start, with the contract's numbers
(contracts/behest.md, section 13); a project may change their numbers and add three of its own. An
unknown tier never fails open: it is refused where a token is made, and counts as the first tier
where a token is used.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, NamedTuple

from weir.errors import BadRequest

NANO = 10**9

FREE, PRO, MAX = "free", "pro", "max"
BUILT_IN = {FREE: 1, PRO: 2, MAX: 3}
MOST_CUSTOM_TIERS = 3

Tier = int | str  # as a caller spells it: a number, digits, or a name


# ---------------------------------------------------------------- the kinds of limits

# For how long a counter counts; what passes soonest comes first. In UTC. LIFE is a token's.
NOW, MINUTE, DAY, MONTH, LIFE = "NOW", "MINUTE", "DAY", "MONTH", "LIFE"
PERIODS = (NOW, MINUTE, DAY, MONTH)
ONE_REQUEST = "REQUEST"  # nothing is counted

MOST_COUNT = 10**12  # that an operator may set
HELD_USD = "nano_usd_reserved"


class Unit(NamedTuple):
    """How one unit is counted and told."""

    letter: str  # ends the name of a day's counter: d21q are the requests of the 21st
    billed: bool = False  # a Settlement says what was taken; of others all is, if it was answered
    in_headers: bool = False  # a user's limits of it are in the headers of rate limits
    shown_to_all: bool = False  # every user may know how much of a project's limit is used
    money: bool = False  # integer nano-USD, which people read and write as USD


class Field(NamedTuple):
    """One kind of limit, and the counter it is about. `code` is what a reservation remembers."""

    code: str
    limit: str  # its name in Limits
    period: str
    unit: str  # its name in Amounts
    told: str  # in a sentence: "10 requests a minute"
    usage: str  # what is used, as the contract calls it (contracts/behest.md, section 14)
    reserved: str  # a second counter, of what open requests hold of it; mostly there is none
    least: int  # that an operator may set; of money, in USD
    most: int

    @property
    def window(self) -> str:
        """The item of its counter: a month's days are in one."""
        return MONTH if self.period == DAY else self.period

    @property
    def of_unit(self) -> Unit:
        return UNITS[self.unit]

    @property
    def public(self) -> str:
        """Its name for people."""
        return self.limit.removeprefix("nano_") if self.of_unit.money else self.limit

    @property
    def number(self) -> type[int] | type[float]:
        """What people write."""
        return float if self.of_unit.money else int

    def stored(self, told: Any) -> int | None:
        """Of what an operator has set."""
        return nano_usd(told) if self.of_unit.money else told

    def shown(self, value: int | None) -> int | float | None:
        """To an operator; money in USD, and a whole amount stays an integer."""
        return value if value is None or not self.of_unit.money else usd(value)

    def amount(self, value: int) -> int | float:
        """To a caller; money in USD, never an integer."""
        return value / NANO if self.of_unit.money else value


def _kind(
    code: str,
    period: str,
    unit: str,
    told: str,
    usage: str,
    *,
    reserved: str = "",
    least: int = 0,
    most: int = MOST_COUNT,
) -> Any:
    """A row of Limits: see Field."""
    row = Field(code, "", period, unit, told, usage, reserved, least, most)
    return field(default=None, metadata={"row": row})


@dataclass(frozen=True, slots=True)
class Amounts:
    """What one request takes at most, by unit: one stream, one request, so many of the others. Each
    field is a unit that limits may count.
    """

    tokens: int = field(metadata={"row": Unit("t", billed=True, in_headers=True)})
    nano_usd: int = field(metadata={"row": Unit("n", billed=True, money=True)})
    requests: int = field(
        default=1, metadata={"row": Unit("q", in_headers=True, shown_to_all=True)}
    )
    streams: int = field(default=1, metadata={"row": Unit("s", shown_to_all=True)})

    def of(self, field: Field) -> int:
        amount: int = getattr(self, field.unit)
        return amount

    def document(self) -> dict[str, int]:
        """As a reservation keeps them: those that every request takes are left out."""
        told = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {name: amount for name, (amount, default) in told.items() if amount != default}

    def fit(self, *limits: "Limits") -> bool:
        """Return whether they are within each limit of tokens and money if nothing else is used."""
        billed = [each for each in FIELDS if each.of_unit.billed]
        return all(
            most is None or self.of(each) <= most
            for each in billed
            for most in (getattr(of_one, each.limit) for of_one in limits)
        )

    @classmethod
    def from_document(cls, told: Mapping[str, Any]) -> "Amounts":
        """`told` may say more than amounts."""
        return cls(**{name: told[name] for name in UNITS if name in told})


UNITS: dict[str, Unit] = {each.name: each.metadata["row"] for each in fields(Amounts)}


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit of that kind. 0: nothing is allowed. Money is integer nano-USD. Each field is
    a kind of limit, with its code, period, unit, words, and the name of what is used of it.
    """

    rpm: int | None = _kind("r", MINUTE, "requests", "requests a minute", "requests_this_minute")
    tpm: int | None = _kind("p", MINUTE, "tokens", "tokens a minute", "tokens_this_minute")
    requests_per_day: int | None = _kind("q", DAY, "requests", "requests a day", "requests_today")
    tokens_per_day: int | None = _kind("d", DAY, "tokens", "tokens a day", "tokens_today")
    tokens_per_month: int | None = _kind(
        "t", MONTH, "tokens", "tokens a month", "tokens_this_month"
    )
    nano_usd_per_month: int | None = _kind(
        "n", MONTH, "nano_usd", "USD a month", "usd_this_month", reserved=HELD_USD, most=10**6
    )
    max_output_tokens: int | None = _kind(
        "", ONE_REQUEST, "tokens", "of one request", "", least=1, most=10**7
    )
    concurrent_streams: int | None = _kind(
        "s", NOW, "streams", "requests at once", "open_streams", most=10_000
    )

    def overridden(self, document: Mapping[str, Any]) -> "Limits":
        """With what an operator has set; what he has not named stays. A field nobody knows raises
        ValueError: a limit that was misspelt must not be no limit.
        """
        unknown = document.keys() - BY_PUBLIC_NAME.keys()
        if unknown:
            raise ValueError(f"unknown limits: {', '.join(sorted(unknown))}")
        told = {BY_PUBLIC_NAME[name]: value for name, value in document.items()}
        return replace(self, **{field.limit: field.stored(value) for field, value in told.items()})

    def document(self) -> dict[str, Any]:
        """As an operator reads it: money in USD."""
        return {field.public: field.shown(getattr(self, field.limit)) for field in ALL_FIELDS}


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """What may be used with one token as long as it lives. No operator sets them but the backend
    that mints the token; beside them the limits of whom the token is for hold.
    """

    max_requests: int | None = _kind("x", LIFE, "requests", "requests", "requests")
    nano_usd: int | None = _kind("y", LIFE, "nano_usd", "USD", "usd", reserved=HELD_USD)


def _rows(kind: type) -> tuple[Field, ...]:
    return tuple(each.metadata["row"]._replace(limit=each.name) for each in fields(kind))


ALL_FIELDS = _rows(Limits)
TOKEN_FIELDS = _rows(TokenLimits)
BY_PUBLIC_NAME = {field.public: field for field in ALL_FIELDS}
# Those with a counter, in the order in which they are judged.
FIELDS = tuple(field for period in PERIODS for field in ALL_FIELDS if field.period == period)
BY_CODE = {field.code: field for field in (*FIELDS, *TOKEN_FIELDS)}


# ---------------------------------------------------------------- who has which


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
# What a customer gets that is created without limits of its own (contracts/ringside.md, 4.1).
CUSTOMER = Limits(rpm=30, nano_usd_per_month=5 * NANO, max_output_tokens=1024, concurrent_streams=3)
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
