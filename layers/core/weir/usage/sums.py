"""Usage, added up: what the requests of a project took, by day, user, model, session, thread, tag.

Each request leaves one row (`weir/aws/ledger/`). From these, off every request's way, four kinds
of sums are kept, so that no question has to read all rows:

    detail    a day, one user, model, session, thread and tag: what is grouped and filtered by
    days      a day and a model, of the whole project: what an invoice and a chart are made of
    users     a month and a user: who spends most
    minutes   a minute and a model, of the whole project: when it happened

A sum is added to, never written over, so the order in which rows come does not matter.
"""

import hashlib
import operator
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, NamedTuple, TypeVar

from weir.projects.limits import NANO

DETAIL, DAYS, USERS, MINUTES = "detail", "days", "users", "minutes"
DAY_S = 86_400

# What a detail's rows have in common; the names are those of a row's attributes.
DIMENSIONS = ("subject", "model", "session_id", "thread_id", "tag")

# More than any request takes. What is beyond would make sums that DynamoDB cannot hold.
MOST_COUNT = 10**18
MOST_AT_MS = 10**13 - 1  # a row's key has 13 digits for it


@dataclass(frozen=True, slots=True)
class Totals:
    """Of so many requests. Tokens as billed, `cached` a part of `input`, `reasoning` of `output`.
    `estimated` are requests whose provider told no usage, `failed` those that did not complete.
    """

    requests: int = 0
    failed: int = 0
    estimated: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    nano_usd: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(getattr(self, n) + getattr(other, n) for n in TOTALS))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def told(self) -> dict[str, Any]:
        """As a caller reads it: money in USD."""
        told = {name: getattr(self, name) for name in COUNTS}
        return {**told, "tokens": self.tokens, "cost_usd": self.nano_usd / NANO}


TOTALS = tuple(field.name for field in fields(Totals))
COUNTS = tuple(name for name in TOTALS if name != "nano_usd")

_values = operator.attrgetter(*TOTALS)
_Name = TypeVar("_Name", str, int)


class Tally(Generic[_Name]):
    """Totals by name, added to. Making one `Totals` for each addition would take most of the time
    of a long answer.
    """

    def __init__(self) -> None:
        self._by_name: dict[_Name, tuple[int, ...]] = {}

    def add(self, name: _Name, taken: Totals) -> None:
        before, values = self._by_name.get(name), _values(taken)
        self._by_name[name] = values if before is None else tuple(map(operator.add, before, values))

    def sums(self) -> dict[_Name, Totals]:
        return {name: Totals(*values) for name, values in self._by_name.items()}

    def total(self) -> Totals:
        return Totals(*map(sum, zip(*self._by_name.values(), strict=True)))


def by_cost(sums: Mapping[str, Totals], most: int | None = None) -> list[tuple[str, Totals]]:
    """Return the `most` most expensive sums (None: all). Among sums that cost the same, those with
    more tokens come first, then those with more requests, then by name.
    """

    def order(named: tuple[str, Totals]) -> tuple[int, int, int, str]:
        name, totals = named
        return -totals.nano_usd, -totals.tokens, -totals.requests, name

    return sorted(sums.items(), key=order)[:most]


class Place(NamedTuple):
    """Where a row is added: a kind of sum, the project, the period, and what tells the sums of one
    period apart.
    """

    kind: str
    pid: str
    period: str
    name: str


@dataclass(frozen=True, slots=True)
class Row:
    """One request's usage. `at_ms` is when it began, Unix milliseconds; `told` are the values of
    DIMENSIONS that it has.
    """

    pid: str
    at_ms: int
    told: Mapping[str, str]
    totals: Totals

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "Row":
        """Raises KeyError, TypeError or ValueError for what is none. What is one can be added."""
        counted = {
            "requests": 1,
            "failed": int(attributes["outcome"] != "completed"),
            "estimated": int(attributes["estimated"] is True),
        }
        taken = {name: _count(attributes[name]) for name in TOTALS if name not in counted}
        told = {name: _text(attributes[name]) for name in DIMENSIONS if attributes.get(name)}
        if "subject" not in told or "model" not in told:
            raise KeyError("subject and model")
        at_ms = _count(attributes["at_ms"], MOST_AT_MS)
        return cls(_text(attributes["pid"]), at_ms, told, Totals(**counted, **taken))

    @property
    def month_began(self) -> int:
        """Unix seconds: the first moment of its month, UTC."""
        day = self.at_ms // 1000 // DAY_S
        return (day - time.gmtime(day * DAY_S).tm_mday + 1) * DAY_S

    def places(self) -> dict[Place, Mapping[str, str]]:
        """Where it is added, with what the sum says of itself."""
        at = time.gmtime(self.at_ms // 1000)
        day, model = time.strftime("%Y%m%d", at), self.told["model"]
        subject = digest(self.told["subject"])
        group = digest(*(self.told.get(name, "") for name in DIMENSIONS))
        return {
            Place(DETAIL, self.pid, day, f"{subject}#{group}"): self.told,
            Place(DAYS, self.pid, day, model): {"model": model},
            Place(USERS, self.pid, day[:6], subject): {"subject": self.told["subject"]},
            Place(MINUTES, self.pid, day, f"{time.strftime('%H%M', at)}#{model}"): {"model": model},
        }


def added_up(rows: Iterable[Row]) -> dict[Place, tuple[Mapping[str, str], Totals]]:
    """One sum for each place."""
    sums: dict[Place, tuple[Mapping[str, str], Totals]] = {}
    for row in rows:
        for place, told in row.places().items():
            _, before = sums.get(place, (told, Totals()))
            sums[place] = told, before + row.totals
    return sums


def digest(*parts: str) -> str:
    """Names may be longer than a key may be. Their lengths tell ("ab", "c") from ("a", "bc")."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def _count(value: object, most: int = MOST_COUNT) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"not a count: {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {type(value).__name__}")
    return value
