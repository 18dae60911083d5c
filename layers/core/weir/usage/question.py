"""Questions about usage, as they arrive in a query string.

Queries are read leniently, because published clients do not encode them (contract of the SDKs,
section 12.1): a `+` that has become a space, an `&` inside `user_id`. A question that cannot be
answered exactly is refused.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from weir import identifiers
from weir.errors import BadRequest, Forbidden, LimitReached
from weir.usage import windows
from weir.usage.pages import Cursor, Place
from weir.usage.times import DAY_MS, HOUR_MS, LAST_MS, MINUTE_MS, midnight, next_midnight

BUCKETS = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}
DEFAULT_LIMIT, MOST_LIMIT = 1_000, 10_000

# Questions that a caller may ask in a minute: each may read tens of thousands of sums. An API key
# asks for all the users of a dashboard.
MOST_OF_A_USER, MOST_OF_A_KEY = 30, 120

FILTERS = ("session_id", "thread_id", "model", "tag")
# What usage may be grouped by, and the attribute of a sum that has it.
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

OF_BILLING = (*windows.PARAMETERS, "user_id", "customer_id")
OF_USAGE = (*OF_BILLING, *FILTERS, "granularity", "group_by", "limit", "cursor", "format")

# `re` compiles a pattern when it is first used.
_LIMIT = r"(?a)[1-9]\d{0,4}"
_CUSTOMER = r"(?s)(?:cust?_|ext:).+"


@dataclass(frozen=True, slots=True)
class Question:
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

    def digest(self) -> str:
        """Return what all pages of one answer have in common, in short: the window is apart."""
        parts = [self.granularity, self.subject, sorted(self.filters.items()), self.group_by]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def understand(
    query: Mapping[str, Sequence[str]],
    now_ms: int,
    *,
    only: str | None,
    names: Collection[str] = OF_USAGE,
    group_by: str | None = None,
    accept: str = "",
) -> Question:
    """Return the question that a query asks. Raises BadRequest, Forbidden.

    `query` has all values of each name. `only` is the one user whose usage the caller may see;
    None: they may see the whole project. `names` are the parameters that the route has; `group_by`
    holds where that is not among them. `accept` is the header.
    """
    given = _given(query, names)
    cursor = Cursor.parse(given["cursor"]) if "cursor" in given else None
    granularity = _choice(given, "granularity", BUCKETS) or "day"
    as_csv = _choice(given, "format", ("json", "csv"))
    if as_csv is None and "format" in names and "text/csv" in accept and "json" not in accept:
        as_csv = "csv"
    from_ms, to_ms = cursor.window if cursor else windows.window(given, granularity, now_ms)
    user_id, customer_id = _subject(given, only)
    question = Question(
        *windows.bounded(from_ms, to_ms, granularity),
        granularity=granularity,
        user_id=user_id,
        customer_id=customer_id,
        filters={name: given[name] for name in FILTERS if name in given},
        group_by=_group_by(given) or group_by,
        limit=_limit(given, MOST_LIMIT if as_csv == "csv" else DEFAULT_LIMIT),
        csv=as_csv == "csv",
        place=cursor.place if cursor else None,
    )
    if cursor and cursor.question != question.digest():
        raise BadRequest("The cursor belongs to another question.", param="cursor")
    return question if question.subject is not None else _of_a_project(question)


def too_many_questions(most: int, now: int) -> LimitReached:
    """Return the refusal of a caller who has asked `most` questions in the minute of `now`."""
    return LimitReached(
        f"At most {most} questions about usage may be asked in a minute. Keep answers for a while.",
        retry_after_s=60 - now % 60,
        details={
            "limit_name": "usage_questions_per_minute",
            "limit": {"usage_questions_per_minute": most},
        },
    )


def _given(query: Mapping[str, Sequence[str]], names: Collection[str]) -> dict[str, str]:
    """Return one value for each name, without those that are empty."""
    given, stray = {}, []
    for name, values in query.items():
        different = {str(value or "").strip() for value in values}
        if name not in names:
            stray.append(name)
            if any(different):
                raise _unknown(name)
        elif len(different) > 1:
            raise BadRequest(f"{name} is there more than once.", param=name)
        elif value := "".join(different):
            given[name] = value
    if stray and (len(stray) > 1 or "user_id" not in given):
        raise _unknown(stray[0])
    if stray:  # a published client sends the user "a&b" as user_id=a&b
        given["user_id"] += f"&{stray[0]}"
    return given


def _unknown(name: str) -> BadRequest:
    return BadRequest(
        f"There is no query parameter {name[:100]!r}. An & inside a value is written %26.",
        param=name[:100],
    )


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
    if not re.fullmatch(_LIMIT, text) or int(text) > MOST_LIMIT:
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
        if value is not None and not identifiers.is_identifier(value):
            raise BadRequest(f"{name} must have {identifiers.RULE}.", param=name)
    if customer is not None and not re.fullmatch(_CUSTOMER, customer):
        raise BadRequest("customer_id begins with cust_ or ext:.", param="customer_id")
    return user, customer


def _spelled(user_id: str) -> str:
    """Return an id as it looks after an unencoded `+` has become a space."""
    return user_id.strip().replace("+", " ")


def _of_a_project(question: Question) -> Question:
    """Round the window outwards to what is kept of all users together: minutes by model, days by
    everything. Raise BadRequest if the question needs more than that.
    """
    if question.granularity == "day":
        from_ms, to_ms = midnight(question.from_ms), next_midnight(question.to_ms)
    else:
        finer = [name for name in question.filters if name != "model"]
        if finer or (question.group_by or "day") not in ("model", "day"):
            named = finer[0] if finer else "group_by"
            raise BadRequest(
                f"With granularity {question.granularity}, a project's usage is known by model "
                f"only: {named} needs user_id, or granularity day.",
                param=named,
            )
        from_ms = question.from_ms - question.from_ms % MINUTE_MS
        to_ms = -(-question.to_ms // MINUTE_MS) * MINUTE_MS
    return replace(question, from_ms=from_ms, to_ms=min(to_ms, LAST_MS))
