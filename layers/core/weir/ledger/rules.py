"""The ledger's rules: what a request takes of which limits, who refuses it, what it leaves behind.

A request is admitted by all of its accounts or by none: its user's, its project's, the tenant's,
and that of the network address it came from, if the project limits addresses.
An account has counters in three windows: NOW (open requests), MINUTE and MONTH (UTC; the month's
days are in it). Each counter is what is used *and* held: admission adds the most that the request
can take, settling corrects it to what it took. So a condition is one comparison, `used <= limit -
amount`, and the limit comes from whoever asks: a tier that changes rewrites nothing.

Project and tenant are pools. A pool may be divided into shards, so that requests that come at once
do not meet in one item: each shard admits up to its share, and the shares add up to the limit. What
is used may be moved from shard to shard, because only its sum is somebody's.

No I/O, no clock. The items and calls are in `weir/aws/ledger/`.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weir.errors import LimitReached, QuotaExceeded, Refusal

# Words of the ledger, too: its items and its callers import them from here.
from weir.projects.limits import BY_CODE as BY_CODE
from weir.projects.limits import (
    BY_PUBLIC_NAME,
    NANO,
    TOKEN_FIELDS,
    UNITS,
    Limits,
    Pool,
    TokenLimits,
)
from weir.projects.limits import DAY as DAY
from weir.projects.limits import FIELDS as FIELDS
from weir.projects.limits import HELD_USD as HELD_USD
from weir.projects.limits import LIFE as LIFE
from weir.projects.limits import MINUTE as MINUTE
from weir.projects.limits import MONTH as MONTH
from weir.projects.limits import NOW as NOW
from weir.projects.limits import Amounts as Amounts
from weir.projects.limits import Field as Field

USER, ADDRESS, PROJECT, TENANT = "user", "address", "project", "tenant"
TOKEN = "token"  # noqa: S105 - of a client token, a scope like the others

LEAST_OUTPUT_TOKENS = 16  # below that an answer is of no use, and the request is refused
STREAM_RETRY_S = 2  # nobody knows when a stream ends

Used = Mapping[str, int]  # an item's counters, by attribute

_OF_DAYS = [UNITS[field.unit].letter for field in FIELDS if field.period == DAY]
_PASSING = {NOW, MINUTE}  # 429: waiting helps. The others are 402.
_WHOSE = {
    USER: "This user",
    ADDRESS: "This network address",
    PROJECT: "This project",
    TENANT: "This deployment",
}
# Windows that are touched whether anything is counted in them or not.
_ALWAYS = {USER: (NOW,), TOKEN: (LIFE,)}
_RATE_LIMIT, _BUDGET = BY_PUBLIC_NAME["rpm"], BY_PUBLIC_NAME["usd_per_month"]  # see own_state


@dataclass(frozen=True, slots=True)
class Account:
    """Whose counters. `part` is the key of a subject or an address, the number of a pool's shard,
    or a token's id. `limits` are of the whole pool, of a token TokenLimits. `fields` are what is
    counted, limited or not.
    """

    scope: str
    part: str
    limits: Limits | TokenLimits
    fields: tuple[Field, ...]
    shards: int = 1
    generation: int = 0

    @property
    def is_pool(self) -> bool:
        return self.scope in (PROJECT, TENANT)

    @property
    def shard(self) -> int:
        return int(self.part)

    def limit(self, field: Field) -> int | None:
        value: int | None = getattr(self.limits, field.limit)
        return value

    def share(self, field: Field) -> int | None:
        """What this shard may admit up to."""
        limit = self.limit(field)
        if limit is None or self.shards == 1:
            return limit
        return share(limit, self.shards, self.shard)

    def windows(self) -> dict[str, list[Field]]:
        """The items that a request touches, with what it counts there. A user's open requests are
        always listed: that is how one is cancelled. A token's record is always looked at: it may
        have been revoked.
        """
        windows: dict[str, list[Field]] = {each: [] for each in _ALWAYS.get(self.scope, ())}
        for field in self.fields:
            windows.setdefault(field.window, []).append(field)
        return windows

    def over(self, fields: Iterable[Field], used: Used, amounts: Amounts, at: int) -> list[Field]:
        """Those of `fields` that refuse it."""
        return [
            field
            for field in fields
            if (most := self.share(field)) is not None
            and used.get(attribute(field, at), 0) + amounts.of(field) > most
        ]


def of_subject(subject: str, limits: Limits, limited: frozenset[str]) -> Account:
    """`limited` names the limits that anybody in his project has: what a user of one tier takes
    must be known when he comes with a token of another.
    """
    counted = tuple(
        field
        for field in FIELDS
        if field.limit in limited or getattr(limits, field.limit) is not None
    )
    return Account(USER, subject, limits, counted)


def of_token(token_id: str, limits: TokenLimits) -> Account:
    """Return the account of a client token."""
    counted = tuple(field for field in TOKEN_FIELDS if getattr(limits, field.limit) is not None)
    return Account(TOKEN, token_id, limits, counted)


def of_address(part: str, rpm: int) -> Account:
    """Return the account of a network address, which has one limit: requests a minute."""
    return Account(ADDRESS, part, Limits(rpm=rpm), (_RATE_LIMIT,))


def of_pool(scope: str, pool: Pool, at_random: int) -> Account:
    limited = tuple(field for field in FIELDS if getattr(pool.limits, field.limit) is not None)
    shard = at_random % pool.shards
    return Account(scope, str(shard), pool.limits, limited, pool.shards, pool.generation)


def share(limit: int, shards: int, shard: int) -> int:
    """The shares of all shards add up to the limit."""
    return limit // shards + (shard < limit % shards)


def attribute(field: Field, at: int) -> str:
    """The counter's name in its item. A day's requests and tokens are d21q, d21t of its month."""
    if field.period == DAY:
        return f"d{time.gmtime(at).tm_mday:02d}{field.of_unit.letter}"
    return field.unit


def other_days(at: int) -> list[str]:
    """Counters of days that are over or far: a month's item must stay small. Yesterday's stay,
    because what began then may still be settled; tomorrow's, because clocks differ.
    """
    kept = {time.gmtime(at + shift).tm_mday for shift in (-86_400, 0, 86_400)}
    return [f"d{day:02d}{kind}" for day in range(1, 32) if day not in kept for kind in _OF_DAYS]


# ---------------------------------------------------------------- moving between shards


def spread(limit: int, shards: int, total: int, target: int, amount: int) -> list[int] | None:
    """What each shard is to have used, so that `target` has room for `amount`; None if the pool as
    a whole has not. Sums to `total`, and no shard exceeds its share.
    """
    room = limit - total
    if room < amount:
        return None
    shares = [share(limit, shards, shard) for shard in range(shards)]
    of_target = max(amount, room * shares[target] // limit if limit else 0)
    left, others = room - of_target, limit - shares[target]
    rooms = [left * each // others if others else 0 for each in shares]
    rooms[target] = 0
    rooms[target] = room - sum(rooms)
    return [most - free for most, free in zip(shares, rooms, strict=True)]


def redistributed(
    account: Account, window: str, used: Sequence[Used], amounts: Amounts, at: int
) -> tuple[list[dict[str, int]], list[tuple[Field, int]]]:
    """For all shards that ever were, `used` in order of their numbers: what each is to have used,
    by attribute; and the fields that refuse the request even so, with what is used of them.
    """
    wanted: list[dict[str, int]] = [{} for _ in used]
    refused: list[tuple[Field, int]] = []
    for field in account.windows().get(window, ()):
        limit, name = account.limit(field), attribute(field, at)
        total = sum(each.get(name, 0) for each in used)
        if limit is None:
            continue
        after = spread(limit, account.shards, total, account.shard, amounts.of(field))
        if after is None:
            refused.append((field, total))
            continue
        for shard in range(len(used)):
            wanted[shard][name] = after[shard] if shard < account.shards else 0
    return wanted, refused


# ---------------------------------------------------------------- settling


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a request took in the end, of the units that are billed. `answered`: somebody got
    something for it.
    """

    tokens: int
    nano_usd: int
    answered: bool


def held(account: Account) -> list[str]:
    """What a reservation remembers of an account: where, and which counters."""
    return [account.scope, account.part, "".join(field.code for field in account.fields)]


def correction(
    codes: str, held: Amounts, settled: Settlement, at: int
) -> dict[str, dict[str, int]]:
    """What settling adds to the counters of one account, by window and attribute. `at` is when it
    was admitted: what was taken from a day or month is given back to it, whatever day it is now.
    """
    added: dict[str, dict[str, int]] = {}
    for code in codes:
        field = BY_CODE[code]
        changes, most = added.setdefault(field.window, {}), held.of(field)
        changes[attribute(field, at)] = _taken(field, most, settled) - most
        if field.reserved:
            changes[field.reserved] = -most
    kept = {w: {n: v for n, v in changes.items() if v} for w, changes in added.items()}
    return {window: changes for window, changes in kept.items() if changes}


def _taken(field: Field, most: int, settled: Settlement) -> int:
    """What stays of the most that was held."""
    if field.period == NOW:
        return 0
    if field.of_unit.billed:
        taken: int = getattr(settled, field.unit)
        return taken
    # A try counts in its minute, whatever becomes of it: a storm of retries must have an end.
    return most if settled.answered or field.period == MINUTE else 0


# ---------------------------------------------------------------- what a caller is told


def resets_at(field: Field, at: int) -> int:
    """Unix seconds."""
    if field.window == NOW:
        return at + STREAM_RETRY_S
    if field.window == MINUTE:
        return at - at % 60 + 60
    if field.period == DAY:
        return at - at % 86_400 + 86_400
    this_day = time.gmtime(at).tm_mday
    return at - at % 86_400 + (_days_of_month(at) - this_day + 1) * 86_400


def refusal(
    account: Account, field: Field, used: int, amounts: Amounts, at: int, tier: object
) -> Refusal:
    """Return what a caller gets whom `field` refuses. `used` includes what open requests hold.

    A request that is larger than the whole limit has no time to wait for: some clients would wait
    for any that they find, whatever `x-should-retry` says.
    """
    if account.scope == TOKEN:
        return _token_is_used_up(account, field, amounts)
    limit = account.limit(field) or 0
    reset = resets_at(field, at)
    wait = max(1, reset - at)
    details: dict[str, Any] = {"scope": account.scope, "limit_name": field.public}
    if account.scope == USER and tier is not None:
        details["tier"] = tier
    whose = _WHOSE[account.scope]
    need = amounts.of(field)
    asks = f", and this request may take {_number(field, need)}" if need > 1 else ""
    if account.scope in (USER, ADDRESS) or (
        account.scope == PROJECT and field.of_unit.shown_to_all
    ):
        details["limit"] = {field.public: field.amount(limit)}
        details["usage"] = {field.usage: field.amount(used)}
        message = (
            f"{whose} may use {_number(field, limit)} {field.told}; "
            f"{_number(field, used)} are used or reserved{asks}."
        )
    else:  # what others have spent is none of a caller's business
        message = f"{whose} has reached its limit of {field.told}{asks}."
    too_large = need > limit
    passing = field.window in _PASSING
    if too_large:
        message += " Waiting does not help: that is more than the whole limit."
    else:
        details["resets_at"] = reset
    if field.window != NOW and not too_large:
        message += f" It resets at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(reset))}."
    kind: type[LimitReached | QuotaExceeded] = LimitReached if passing else QuotaExceeded
    headers = {}
    if account.scope == USER and isinstance(account.limits, Limits):
        headers = policy_headers(account.limits, at)
    if account.scope == USER:
        headers |= _remaining_headers(field, max(0, limit - used), wait)
    refused = kind(message, details=details, retry_after_s=wait, extra_headers=headers)
    if too_large:
        refused.retryable, refused.retry_after_s = False, None
        refused.extra_headers = _without_times(headers)
    return refused


def _token_is_used_up(account: Account, field: Field, amounts: Amounts) -> QuotaExceeded:
    """Nothing comes back to a token: its caller fetches another, or asks for less."""
    limit, need = account.limit(field) or 0, amounts.of(field)
    asks = f", and this request may take {_number(field, need)}" if need > 1 else ""
    return QuotaExceeded(
        f"This token may use {_number(field, limit)} {field.told}, which have been used or are "
        f"reserved{asks}. Fetch a new one.",
        details={"scope": TOKEN, "limit_name": field.limit},
    )


def policy_headers(limits: Limits, at: int) -> dict[str, str]:
    """A user's limits, in the spelling of OpenAI and of the IETF (draft-ietf-httpapi-ratelimit-
    headers). What remains is not told on success: nobody asks the store for it (GET /v1/me does).
    """
    headers: dict[str, str] = {}
    policies = []
    for field in FIELDS:
        limit = getattr(limits, field.limit)
        if limit is None or not field.of_unit.in_headers:
            continue
        seconds = _window_s(field, at)
        policies.append(f'"{field.limit}";q={limit};w={seconds}')
        name = f"x-ratelimit-limit-{field.unit}"
        if name not in headers:  # the shortest window
            headers[name] = str(limit)
            headers[f"x-ratelimit-reset-{field.unit}"] = f"{resets_at(field, at) - at}s"
    if policies:
        headers["RateLimit-Policy"] = ", ".join(policies)
    return headers


def _remaining_headers(field: Field, left: int, wait_s: int) -> dict[str, str]:
    if not field.of_unit.in_headers:
        return {}
    return {
        "RateLimit": f'"{field.limit}";r={left};t={wait_s}',
        f"x-ratelimit-remaining-{field.unit}": str(left),
        f"x-ratelimit-reset-{field.unit}": f"{wait_s}s",
    }


def _without_times(headers: Mapping[str, str]) -> dict[str, str]:
    """Of the rate limit headers, those that say nothing about when it begins again."""
    return {
        name: value
        for name, value in headers.items()
        if name != "RateLimit" and not name.startswith("x-ratelimit-reset-")
    }


def own_state(account: Account, now: Used, minute: Used, month: Used, at: int) -> dict[str, Any]:
    """A user's limits, with what is used (held by open requests included) and left of them, for GET
    /v1/me. `budget` and `rate_limit` say two of them again, as contracts/ringside.md, section 4.14,
    has them; null without such a limit.
    """
    windows = {NOW: now, MINUTE: minute, MONTH: month}
    told: dict[str, Any] = {"limits": [], "budget": None, "rate_limit": None}
    for field in FIELDS:
        limit = account.limit(field)
        if limit is None:
            continue
        counters = windows[field.window]
        used = max(0, counters.get(attribute(field, at), 0))
        left, reset = max(0, limit - used), resets_at(field, at)
        told["limits"].append(
            {
                "limit_name": field.public,
                "limit": field.amount(limit),
                "used": field.amount(used),
                "left": field.amount(left),
                "resets_at": None if field.window == NOW else reset,
            }
        )
        if field == _RATE_LIMIT:
            told["rate_limit"] = {"rpm": limit, "remaining": left, "reset_in": reset - at}
        if field == _BUDGET:
            reserved = max(0, counters.get(field.reserved, 0))
            told["budget"] = {
                "limit_usd": limit / NANO,
                "spent_usd": (used - reserved) / NANO,
                "reserved_usd": reserved / NANO,
                "remaining_usd": left / NANO,
                "resets_at": reset,
            }
    return told


def spent(month: Used) -> int:
    """Return the nano-USD that are spent, without what open requests hold."""
    return max(0, month.get("nano_usd", 0) - month.get(HELD_USD, 0))


def _window_s(field: Field, at: int) -> int:
    if field.window == MINUTE:
        return 60
    if field.period == DAY:
        return 86_400
    return _days_of_month(at) * 86_400


def _days_of_month(at: int) -> int:
    """Without `calendar`, whose import takes longer than a request's whole arithmetic."""
    now = time.gmtime(at)
    if now.tm_mon == 2:
        leap = now.tm_year % 4 == 0 and (now.tm_year % 100 != 0 or now.tm_year % 400 == 0)
        return 29 if leap else 28
    return 30 if now.tm_mon in (4, 6, 9, 11) else 31


def _number(field: Field, value: int) -> str:
    return f"{value / NANO:.6f}".rstrip("0").rstrip(".") if field.of_unit.money else str(value)
