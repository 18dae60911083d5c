"""Questions about usage, asked over HTTP: understood, read from the sums, and told.

Queries are read leniently, because published clients do not encode them (contract of the SDKs,
section 12.1): a `+` that has become a space, an `&` inside `user_id`. A question that cannot be
answered exactly is refused; no number is a guess.

Windows are half open, Unix milliseconds, UTC.
"""

import base64
import csv
import datetime
import hashlib
import io
import json
import operator
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from weir.errors import BadRequest, Forbidden, TooLarge
from weir.projects.limits import NANO
from weir.usage.sums import TOTALS, Row, Totals

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
BUCKETS = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}
MOST_DAYS = {"minute": 2, "hour": 31, "day": 400}
LAST_MS = 9_999_999_999_999  # 13 digits is what a row's key has; in the year 2286

DEFAULT_LIMIT, MOST_LIMIT = 1_000, 10_000
MOST_READ = 50_000  # rows or sums for one answer: seconds, and a function has 25
MOST_ANSWER_BYTES = 4_500_000  # Lambda takes 6 MB, escaped once more
MOST_ID = 255  # characters, as at mint

FILTERS = ("session_id", "thread_id", "model", "tag")
# By what may be grouped, and where a sum says it.
GROUPS = {
    "user": "subject",
    "customer": "subject",
    "session": "session_id",
    "thread": "thread_id",
    "model": "model",
    "tag": "tag",
    "day": "",
}
# The beginnings of subjects' keys (weir/aws/items.py).
SUBJECTS = {"user": "u#", "customer": "c#"}

OF_A_WINDOW = ("from", "to", "since", "until", "month")
OF_BILLING = (*OF_A_WINDOW, "user_id", "customer_id")
OF_USAGE = (*OF_BILLING, *FILTERS, "granularity", "group_by", "limit", "cursor", "format")

# What a first page of groups may tell if it does not tell all, and how each is remembered.
MOST_REMEMBERED, FINGERPRINT_BYTES = 200, 6

_TIME = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)"
    r"(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?"
    r"(?: ?(Z)|( ?[+-]| )(\d\d):?(\d\d)?)?)?",
    re.ASCII | re.IGNORECASE,
)
_EPOCH_S = re.compile(r"\d{9,10}(?:\.\d{1,9})?", re.ASCII)
_EPOCH_MS = re.compile(r"\d{11,13}", re.ASCII)
_MONTH = re.compile(r"(\d{4})-?(\d\d)", re.ASCII)
_LIMIT = re.compile(r"[1-9]\d{0,4}", re.ASCII)
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # what no user's id contains
_CUSTOMER = re.compile(r"(?:cust?_|ext:).+", re.DOTALL)
# With these a spreadsheet begins a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class Sums(Protocol):
    """`weir.aws.usage.Usage`, as far as it reads."""

    def days(self, pid: str, first: str, last: str) -> Iterator[tuple[str, str, Totals]]: ...

    def users(self, pid: str, month: str) -> Iterator[tuple[str, Totals]]: ...

    def minutes(self, pid: str, day: str) -> Iterator[tuple[str, str, Totals]]: ...

    def details(
        self, pid: str, day: str, subject: str | None = None
    ) -> Iterator[tuple[dict[str, str], Totals]]: ...

    def rows(
        self, pid: str, subject: str, from_ms: int, to_ms: int
    ) -> Iterator[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """How far a walk through many pages has come: past the key `after`, and past those whose
    fingerprints are in `told`.
    """

    after: str | None
    told: bytes = b""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that can be answered. Neither `user_id` nor `customer_id`: the whole project."""

    from_ms: int
    to_ms: int
    granularity: str = "day"
    user_id: str | None = None
    customer_id: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    group_by: str | None = None
    limit: int = DEFAULT_LIMIT
    csv: bool = False
    place: Place | None = None

    @property
    def subject(self) -> str | None:
        if self.customer_id is not None:
            return SUBJECTS["customer"] + self.customer_id
        return None if self.user_id is None else SUBJECTS["user"] + self.user_id

    def same(self) -> str:
        """What all pages of one walk have in common, in short."""
        told = [self.granularity, self.subject, sorted(self.filters.items()), self.group_by]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Found:
    """`buckets` by their beginning, as it is told; `groups` by their key, "" for none."""

    totals: Totals
    buckets: Mapping[str, Totals]
    groups: Mapping[str, Totals]


# ---------------------------------------------------------------- understanding


def understand(
    query: Mapping[str, Sequence[str]],
    now_ms: int,
    *,
    only: str | None,
    names: Collection[str] = OF_USAGE,
    group_by: str | None = None,
    accept: str = "",
) -> Asked:
    """`query`: all values of each name. `only`: the one user whose usage the caller may see; None:
    he may see the whole project. `names` are those that he may use, `group_by` holds where that is
    not among them. Raises BadRequest, Forbidden.
    """
    given = _given(query, names)
    walk = _Walk.of(given.get("cursor"))
    granularity = _choice(given, "granularity", BUCKETS) or "day"
    as_csv = _choice(given, "format", ("json", "csv"))
    if as_csv is None and "format" in names and "text/csv" in accept and "json" not in accept:
        as_csv = "csv"
    from_ms, to_ms = walk.window if walk else _window(given, granularity, now_ms)
    user_id, customer_id = _subject(given, only)
    asked = Asked(
        *_bounded(from_ms, to_ms, granularity),
        granularity=granularity,
        user_id=user_id,
        customer_id=customer_id,
        filters={name: given[name] for name in FILTERS if name in given},
        group_by=_group_by(given) or group_by,
        limit=_limit(given, MOST_LIMIT if as_csv == "csv" else DEFAULT_LIMIT),
        csv=as_csv == "csv",
        place=walk.place if walk else None,
    )
    if walk and walk.same != asked.same():
        raise BadRequest("The cursor belongs to another question.", param="cursor")
    return asked if asked.subject is not None else _of_a_project(asked)


def _given(query: Mapping[str, Sequence[str]], names: Collection[str]) -> dict[str, str]:
    """One value for each name; without those that are empty."""
    given, stray = {}, []
    for name, values in query.items():
        several = {str(value or "").strip() for value in values}
        if name not in names:
            stray.append(name)
            if any(several):
                raise BadRequest(
                    f"There is no query parameter {name[:100]!r}. An & inside a value is written "
                    "%26.",
                    param=name[:100],
                )
        elif len(several) > 1:
            raise BadRequest(f"{name} is there more than once.", param=name)
        elif value := "".join(several):
            given[name] = value
    if stray and (len(stray) > 1 or "user_id" not in given):
        raise BadRequest(
            f"There is no query parameter {stray[0][:100]!r}. An & inside a value is written %26.",
            param=stray[0][:100],
        )
    if stray:  # a published client sends the user "a&b" as user_id=a&b
        given["user_id"] += f"&{stray[0]}"
    return given


def _choice(given: Mapping[str, str], name: str, choices: Collection[str]) -> str | None:
    value = given.get(name)
    if value is not None and value not in choices:
        raise BadRequest(f"{name} must be one of {', '.join(choices)}.", param=name)
    return value


def _group_by(given: Mapping[str, str]) -> str | None:
    named = {"group_by": given["group_by"].removesuffix("_id")} if "group_by" in given else {}
    return _choice(named, "group_by", GROUPS)


def _limit(given: Mapping[str, str], default: int) -> int:
    text = given.get("limit")
    if text is None:
        return default
    if not _LIMIT.fullmatch(text) or int(text) > MOST_LIMIT:
        raise BadRequest(f"limit must be an integer of 1 to {MOST_LIMIT}.", param="limit")
    return int(text)


def _subject(given: Mapping[str, str], only: str | None) -> tuple[str | None, str | None]:
    user, customer = given.get("user_id"), given.get("customer_id")
    if only is not None:
        if customer is not None or (user is not None and _spelled(user) != _spelled(only)):
            raise Forbidden(
                "A token of role `user` sees its own user's usage only.",
                param="user_id" if customer is None else "customer_id",
            )
        return only, None
    if user is not None and customer is not None:
        raise BadRequest("Ask for user_id or for customer_id, not for both.", param="customer_id")
    for name, value in (("user_id", user), ("customer_id", customer)):
        if value is not None and (len(value) > MOST_ID or _UNFIT.search(value)):
            raise BadRequest(
                f"{name} has at most {MOST_ID} characters, and no control characters.", param=name
            )
    if customer is not None and not _CUSTOMER.fullmatch(customer):
        raise BadRequest("customer_id begins with cust_ or ext:.", param="customer_id")
    return user, customer


def _spelled(user_id: str) -> str:
    """A `+` that was not encoded has arrived as a space."""
    return user_id.strip().replace("+", " ")


def _window(given: Mapping[str, str], granularity: str, now_ms: int) -> tuple[int, int]:
    """As asked; if not, from the month's first (for minutes: from the day's beginning) to the end
    of today.
    """
    if "month" in given:
        if clash := [name for name in OF_A_WINDOW if name in given and name != "month"]:
            raise BadRequest(f"Ask for month or for {clash[0]}, not for both.", param="month")
        return _month(given["month"])
    for name, synonym in (("from", "since"), ("to", "until")):
        if name in given and synonym in given:
            raise BadRequest(f"{name} and {synonym} are the same: name one.", param=synonym)
    to_ms = _time(given, "to", "until", end=True)
    if to_ms is None:
        to_ms = _midnight(now_ms) + DAY_MS
    from_ms = _time(given, "from", "since")
    if from_ms is None:
        last = max(0, to_ms - 1)
        at = time.gmtime(last // 1000)
        days = 0 if granularity == "minute" else at.tm_mday - 1
        from_ms = _midnight(last) - days * DAY_MS
    return from_ms, to_ms


def _bounded(from_ms: int, to_ms: int, granularity: str) -> tuple[int, int]:
    if not 0 <= from_ms < to_ms <= LAST_MS:
        raise BadRequest("`from` must be before `to`, and both of this age.", param="from")
    if to_ms - from_ms > MOST_DAYS[granularity] * DAY_MS:
        raise BadRequest(
            f"With granularity {granularity} a window has at most {MOST_DAYS[granularity]} days.",
            param="granularity",
            details={"from": told_time(from_ms), "to": told_time(to_ms)},
        )
    return from_ms, to_ms


def _of_a_project(asked: Asked) -> Asked:
    """What is kept of all users together: minutes by model, days by everything."""
    whole = DAY_MS if asked.granularity == "day" else MINUTE_MS
    if asked.granularity != "day":
        by = "model", "day"
        finer = [name for name in asked.filters if name != "model"]
        if finer or (asked.group_by or "day") not in by:
            named = finer[0] if finer else "group_by"
            raise BadRequest(
                f"With granularity {asked.granularity}, a project's usage is known by model only: "
                f"{named} needs user_id, or granularity day.",
                param=named,
            )
    return _replaced(
        asked,
        from_ms=asked.from_ms - asked.from_ms % whole,
        to_ms=min(-(-asked.to_ms // whole) * whole, LAST_MS),
    )


def _replaced(asked: Asked, **changes: Any) -> Asked:
    told = {name: getattr(asked, name) for name in Asked.__slots__}
    return Asked(**{**told, **changes})


# ---------------------------------------------------------------- times


def _time(given: Mapping[str, str], *names: str, end: bool = False) -> int | None:
    """`end`: of a bare date, which counts in full."""
    name = next((name for name in names if name in given), None)
    if name is None:
        return None
    found = parse_time(given[name], end=end)
    if found is None:
        raise BadRequest(
            f"{name} must be a date (2026-04-01), a date and time (2026-04-01T09:30:00Z), or Unix "
            "seconds.",
            param=name,
        )
    return found


def parse_time(text: str, *, end: bool = False) -> int | None:
    """Unix milliseconds; None: not a time, or none of 1970 to 2286. `end`: of a bare date the end
    of that day. Without a zone it is UTC; a zone's `+` may have become a space.
    """
    if _EPOCH_MS.fullmatch(text):
        return int(text)
    if _EPOCH_S.fullmatch(text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 1000 + int((fraction + "000")[:3])
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, off_hours, off_minutes = (
        found.groups()
    )
    clock = [int(each or 0) for each in (hour, minute, second, off_hours, off_minutes)]
    if any(value >= most for value, most in zip(clock, (24, 60, 60, 24, 60), strict=True)):
        return None
    begins = _day_ms(int(year), int(month), int(day))
    if begins is None:
        return None
    if hour is None:
        at = begins + (DAY_MS if end else 0)
    else:
        offset = clock[3] * HOUR_MS + clock[4] * MINUTE_MS
        at = begins + clock[0] * HOUR_MS + clock[1] * MINUTE_MS + clock[2] * 1000
        at += int(((fraction or "") + "000")[:3])
        at += offset if (sign or "").strip() == "-" else -offset
    return at if 0 <= at <= LAST_MS else None


def _day_ms(year: int, month: int, day: int) -> int | None:
    try:
        days = datetime.date(year, month, day).toordinal()
    except ValueError:
        return None
    return (days - datetime.date(1970, 1, 1).toordinal()) * DAY_MS


def _month(text: str) -> tuple[int, int]:
    found = _MONTH.fullmatch(text)
    year, month = (int(found[1]), int(found[2])) if found else (0, 0)
    first = _day_ms(year, month, 1)
    after = _day_ms(year + month // 12, month % 12 + 1, 1)
    if first is None or after is None:
        raise BadRequest("month must be like 202611.", param="month")
    return first, after


def told_time(at_ms: int) -> str:
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000))
    return f"{text}.{at_ms % 1000:03d}Z" if at_ms % 1000 else f"{text}Z"


def _midnight(at_ms: int) -> int:
    return at_ms - at_ms % DAY_MS


def _day(at_ms: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(at_ms // 1000))


# ---------------------------------------------------------------- reading

# When it began, Unix milliseconds, exact to the bucket; what is known of it; how much it was.
_Piece = tuple[int, Mapping[str, str], Totals]


def find(asked: Asked, pid: str, sums: Sums, now_ms: int) -> Found:
    """Raises BadRequest if it is too much to be read for one answer."""
    months = _whole_months(asked, now_ms)
    buckets: _Counts[int] = _Counts()
    groups: _Counts[str] = _Counts()
    read, bucket_ms = 0, BUCKETS[asked.granularity]
    filters, group_by = asked.filters.items(), None if months else asked.group_by
    for at_ms, told, taken in _pieces(asked, pid, sums, now_ms, by_model=bool(months)):
        read = _one_more(read)
        if any(told.get(name) != value for name, value in filters):
            continue
        buckets.add(at_ms - at_ms % bucket_ms, taken)
        if group_by:
            groups.add(_key(group_by, at_ms, told), taken)
    for month in months:
        for subject, taken in sums.users(pid, month):
            read = _one_more(read)
            groups.add(_key(asked.group_by or "user", 0, {"subject": subject}), taken)
    # Months are read at another moment than their days: what is told by whom must add up.
    totals = (groups if months else buckets).total()
    starts = {told_time(at_ms): taken for at_ms, taken in buckets.sums().items()}
    return Found(totals, starts, groups.sums())


_counts = operator.attrgetter(*TOTALS)
_Name = TypeVar("_Name", str, int)


class _Counts(Generic[_Name]):
    """Sums by name. One `Totals` for each of so many pieces would take most of the time."""

    def __init__(self) -> None:
        self._by_name: dict[_Name, tuple[int, ...]] = {}

    def add(self, name: _Name, taken: Totals) -> None:
        before = self._by_name.get(name)
        counts = _counts(taken)
        self._by_name[name] = counts if before is None else tuple(map(operator.add, before, counts))

    def sums(self) -> dict[_Name, Totals]:
        return {name: Totals(*counts) for name, counts in self._by_name.items()}

    def total(self) -> Totals:
        return Totals(*map(sum, zip(*self._by_name.values(), strict=True)))


def _one_more(read: int) -> int:
    if read >= MOST_READ:
        raise BadRequest(
            "There is more usage in this window than one answer can add up. Ask for a shorter one.",
            param="from",
        )
    return read + 1


def _key(group_by: str, at_ms: int, told: Mapping[str, str]) -> str:
    if group_by == "day":
        return told_time(at_ms)[:10]
    value = told.get(GROUPS[group_by], "")
    if group_by in SUBJECTS:
        prefix = SUBJECTS[group_by]
        return value.removeprefix(prefix) if value.startswith(prefix) else ""
    return value


def _whole_months(asked: Asked, now_ms: int) -> list[str]:
    """If the question is who has spent what in whole months, these months: it has sums of its own.
    A month that has not ended yet is whole until now.
    """
    if asked.group_by not in SUBJECTS or asked.subject or asked.filters:
        return []
    if asked.granularity != "day" or _day(asked.from_ms)[6:] != "01":
        return []
    if asked.to_ms <= now_ms and _day(asked.to_ms)[6:] != "01":
        return []
    return list(dict.fromkeys(day[:6] for day in _days(asked.from_ms, asked.to_ms)))


def _pieces(asked: Asked, pid: str, sums: Sums, now_ms: int, *, by_model: bool) -> Iterator[_Piece]:
    subject, from_ms = asked.subject, asked.from_ms
    to_ms = min(asked.to_ms, _midnight(now_ms) + 2 * DAY_MS)  # clocks differ, but not by a day
    if from_ms >= to_ms:
        return
    if asked.granularity != "day":
        if subject is None:
            yield from _minutes(pid, sums, from_ms, to_ms)
        else:
            yield from _rows(pid, sums, subject, from_ms, to_ms)
    elif subject is not None:
        begins = -(-from_ms // DAY_MS) * DAY_MS
        # Of a day that has not ended, all is there until now.
        ends = _midnight(to_ms) if to_ms <= now_ms else -(-to_ms // DAY_MS) * DAY_MS
        if begins > ends:
            yield from _rows(pid, sums, subject, from_ms, to_ms)
            return
        yield from _rows(pid, sums, subject, from_ms, begins)
        yield from _details(pid, sums, subject, begins, ends)
        yield from _rows(pid, sums, subject, ends, to_ms)
    elif by_model or (
        (asked.group_by or "day") in ("model", "day") and asked.filters.keys() <= {"model"}
    ):
        for day, model, taken in sums.days(pid, _day(from_ms), _day(to_ms - 1)):
            yield _beginning(day), {"model": model}, taken
    else:
        yield from _details(pid, sums, None, from_ms, to_ms)


def _rows(pid: str, sums: Sums, subject: str, from_ms: int, to_ms: int) -> Iterator[_Piece]:
    if from_ms >= to_ms:
        return
    for attributes in sums.rows(pid, subject, from_ms, to_ms):
        try:
            row = Row.of(attributes)
        except (KeyError, TypeError, ValueError):
            continue  # in no sum, either
        yield row.at_ms, row.told, row.totals


def _details(
    pid: str, sums: Sums, subject: str | None, from_ms: int, to_ms: int
) -> Iterator[_Piece]:
    for day in _days(from_ms, to_ms):
        for told, taken in sums.details(pid, day, subject):
            yield _beginning(day), told, taken


def _minutes(pid: str, sums: Sums, from_ms: int, to_ms: int) -> Iterator[_Piece]:
    for day in _days(from_ms, to_ms):
        for minute, model, taken in sums.minutes(pid, day):
            at_ms = _beginning(day) + int(minute[:2]) * HOUR_MS + int(minute[2:]) * MINUTE_MS
            if from_ms <= at_ms < to_ms:
                yield at_ms, {"model": model}, taken


def _days(from_ms: int, to_ms: int) -> Iterator[str]:
    for at_ms in range(_midnight(from_ms), to_ms, DAY_MS):
        yield _day(at_ms)


def _beginning(day: str) -> int:
    return _day_ms(int(day[:4]), int(day[4:6]), int(day[6:])) or 0


# ---------------------------------------------------------------- telling


def document(asked: Asked, pid: str, found: Found) -> dict[str, Any]:
    """The answer as JSON; money in USD, from a sum of whole nano-USD."""
    page, cursor = _page(asked, found)
    if asked.group_by:
        buckets = sorted(found.buckets)
        data = [{"key": key or None, **found.groups[key].told()} for key in page]
    else:
        buckets, data = page, []
    totals = found.totals.told()
    return {
        "object": "usage",
        "project_id": pid,
        "user_id": asked.user_id,
        "customer_id": asked.customer_id,
        "from": told_time(asked.from_ms),
        "to": told_time(asked.to_ms),
        "granularity": asked.granularity,
        "group_by": asked.group_by,
        "totals": totals,
        "breakdown": [{"timestamp": at, **found.buckets[at].told()} for at in buckets],
        "data": data,
        "has_more": cursor is not None,
        "next_cursor": cursor,
        "total_cost_usd": totals["cost_usd"],
        "total_requests": totals["requests"],
        "prompt_tokens": totals["input_tokens"],
        "completion_tokens": totals["output_tokens"],
    }


def table(asked: Asked, found: Found) -> tuple[str, str | None]:
    """The answer as CSV (RFC 4180), a line for each bucket or group, and the next page's cursor."""
    page, cursor = _page(asked, found)
    sums = found.groups if asked.group_by else found.buckets
    counts = [name for name in TOTALS if name != "nano_usd"]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")
    lines.writerow(["key" if asked.group_by else "timestamp", *counts, "tokens", "cost_usd"])
    for key in page:
        one = sums[key]
        counted = [getattr(one, name) for name in counts]
        lines.writerow([_cell(key), *counted, one.tokens, _usd(one.nano_usd)])
    return text.getvalue(), cursor


def billing(asked: Asked, pid: str, found: Found) -> dict[str, Any]:
    """As the published guide has it. All keys of providers are the operator's own, and what they
    cost is told once, where its clients look: under `platform`.
    """
    models = sorted(found.groups.items(), key=lambda each: (-each[1].nano_usd, each[0]))
    return {
        "project_id": pid,
        "window": {"from": told_time(asked.from_ms), "to": told_time(asked.to_ms)},
        "platform": {
            **_billed(found.totals),
            "by_model": [
                {"model": name, "requests": one.requests, "cost_usd": one.nano_usd / NANO}
                for name, one in models
            ],
        },
        "byok": {**_billed(Totals()), "by_model": []},
    }


def refuse_too_long(text: str) -> str:
    if len(text) > MOST_ANSWER_BYTES:
        raise TooLarge("The answer would be too long. Ask for it with a smaller limit.")
    return text


def _billed(totals: Totals) -> dict[str, Any]:
    told = totals.told()
    return {name: told[name] for name in ("requests", "input_tokens", "output_tokens", "cost_usd")}


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _usd(nano_usd: int) -> str:
    return f"{nano_usd // NANO}.{nano_usd % NANO:09d}".rstrip("0").rstrip(".")


# ---------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True)
class _Walk:
    """What a cursor says. It gives no right: who may see what is not in it."""

    same: str
    window: tuple[int, int]
    place: Place

    @classmethod
    def of(cls, cursor: str | None) -> "_Walk | None":
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            version, same, from_ms, to_ms, after, told = json.loads(raw)
            remembered = base64.b64decode(told, validate=True)
        except (ValueError, TypeError, RecursionError):
            raise _bad_cursor() from None
        whole = all(isinstance(ms, int) and not isinstance(ms, bool) for ms in (from_ms, to_ms))
        if version != 1 or not whole or not isinstance(after, str | None):
            raise _bad_cursor()
        if len(remembered) > MOST_REMEMBERED * FINGERPRINT_BYTES:
            raise _bad_cursor()
        return cls(same, (from_ms, to_ms), Place(after, remembered))


def _bad_cursor() -> BadRequest:
    return BadRequest("That is no cursor of this gateway's.", param="cursor")


def _cursor(asked: Asked, place: Place) -> str:
    told = base64.b64encode(place.told).decode()
    walk = [1, asked.same(), asked.from_ms, asked.to_ms, place.after, told]
    raw = json.dumps(walk, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _page(asked: Asked, found: Found) -> tuple[list[str], str | None]:
    """The keys that this page tells, and the cursor of the next one.

    Buckets come as time goes. Groups come dearest first; but while somebody walks through many
    pages, new usage changes what is dear. So only the first page is chosen by cost. The next ones
    are chosen by key, without those that the first has told, which the cursor remembers.
    """
    place, limit = asked.place, asked.limit
    if asked.group_by is None or place is not None:
        sums = found.groups if asked.group_by else found.buckets
        after, told = (place.after, place.told) if place else (None, b"")
        left = sorted(_left(sums, after, told))
        page = left[:limit]
        more = Place(page[-1], told) if len(left) > limit else None
        if asked.group_by:
            page = _dearest(page, sums)
    else:
        page, more = _dearest(found.groups, found.groups), None
        if len(page) > limit:
            page = page[: min(limit, MOST_REMEMBERED)]
            more = Place(None, b"".join(map(_fingerprint, page)))
    return page, _cursor(asked, more) if more else None


def _left(keys: Iterable[str], after: str | None, told: bytes) -> Iterator[str]:
    step = FINGERPRINT_BYTES
    known = {told[at : at + step] for at in range(0, len(told), step)}
    for key in keys:
        if (after is None or key > after) and not (known and _fingerprint(key) in known):
            yield key


def _dearest(keys: Iterable[str], sums: Mapping[str, Totals]) -> list[str]:
    return sorted(keys, key=lambda key: (-sums[key].nano_usd, key))


def _fingerprint(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()[:FINGERPRINT_BYTES]
