"""The ledger's rules, without a table."""

import calendar
import datetime
import json
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weir.errors import LimitReached, QuotaExceeded
from weir.ledger import rules
from weir.ledger.rules import BY_CODE, FIELDS, Account, Amounts, Field, Settlement
from weir.projects.limits import NANO, TOKEN_FIELDS, UNITS, Limits, Pool

DAY = 86_400
NOON = calendar.timegm((2026, 11, 21, 12, 0, 30, 0, 0, 0))
SOME = Amounts(**{**dict.fromkeys(UNITS, 1), "tokens": 100, "nano_usd": NANO // 100})
ALL_LIMITS = {field.limit: 10 for field in FIELDS}
TIMES = st.integers(1_577_836_800, 4_102_444_799)  # 2020 to 2099, with every kind of leap year
COUNTS = st.integers(0, 10**15)
SHARDS = st.integers(1, 16)


def unix(*moment: int) -> int:
    return calendar.timegm((*moment, 0, 0, 0))


def utc(at: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)


def account_of(scope: str, limits: Limits, shards: int = 1, shard: int = 0) -> Account:
    if scope == rules.USER:
        return rules.of_subject("u#ann", limits, frozenset())
    return rules.of_pool(scope, Pool(limits, shards), shard)


# ---------------------------------------------------------------- moving between shards


@given(COUNTS, SHARDS)
def test_shares_add_up_to_the_limit_and_differ_by_one_at_most(limit: int, shards: int) -> None:
    shares = [rules.share(limit, shards, shard) for shard in range(shards)]
    assert sum(shares) == limit
    assert max(shares) - min(shares) <= 1


@given(
    st.one_of(st.integers(0, 40), COUNTS),
    SHARDS,
    st.one_of(st.integers(0, 40), COUNTS),
    st.integers(0, 15),
    st.one_of(st.integers(0, 40), COUNTS),
)
def test_spreading_makes_room_exactly_if_the_whole_has_it(
    limit: int, shards: int, total: int, target: int, amount: int
) -> None:
    target %= shards
    after = rules.spread(limit, shards, total, target, amount)
    if total + amount > limit:
        assert after is None
        return
    assert after is not None
    shares = [rules.share(limit, shards, shard) for shard in range(shards)]
    assert len(after) == shards
    assert sum(after) == total
    assert all(used <= most for used, most in zip(after, shares, strict=True))
    assert after[target] + amount <= shares[target]


@given(COUNTS, SHARDS, COUNTS, st.integers(0, 15))
def test_spreading_leaves_each_shard_about_its_part_of_what_is_free(
    limit: int, shards: int, total: int, target: int
) -> None:
    assume(total <= limit)
    after = rules.spread(limit, shards, total, target % shards, 0)
    assert after is not None
    for shard, used in enumerate(after):
        most = rules.share(limit, shards, shard)
        fair = (limit - total) * most // limit if limit else 0
        assert abs(most - used - fair) <= shards


@st.composite
def divided_pools(draw: st.DrawFn) -> tuple[Account, list[dict[str, int]], Amounts, int]:
    """A pool, what its shards have used, those that it has no more among them, and a request."""
    small = st.integers(0, 300)
    limits = Limits(
        requests_per_day=draw(st.none() | small),
        tokens_per_day=draw(st.none() | small),
        tokens_per_month=draw(st.none() | small),
        nano_usd_per_month=draw(st.none() | small),
    )
    account = rules.of_pool(rules.PROJECT, Pool(limits, draw(SHARDS), 1), draw(small))
    at = draw(TIMES)
    used: list[dict[str, int]] = [{} for _ in range(16)]
    told = st.tuples(st.integers(0, 15), st.sampled_from(FIELDS), st.integers(-20, 60))
    for shard, field, number in draw(st.lists(told, max_size=25)):
        used[shard][rules.attribute(field, at)] = number
    return account, used, Amounts(draw(small), draw(small)), at


@given(divided_pools())
def test_redistributing_moves_every_counter_and_changes_no_sum(
    divided: tuple[Account, list[dict[str, int]], Amounts, int],
) -> None:
    account, used, amounts, at = divided
    wanted, refused = rules.redistributed(account, rules.MONTH, used, amounts, at)
    assert len(wanted) == len(used)
    told = {field.limit: total for field, total in refused}
    for field in account.windows().get(rules.MONTH, []):
        name = rules.attribute(field, at)
        total, limit = sum(each.get(name, 0) for each in used), account.limit(field)
        assert limit is not None
        if total + amounts.of(field) > limit:
            assert told.pop(field.limit) == total
            continue
        after = [each[name] for each in wanted]
        assert sum(after) == total
        assert not any(after[account.shards :])
        share = account.share(field)
        assert share is not None
        assert after[account.shard] + amounts.of(field) <= share
    assert not told
    allowed = {rules.attribute(field, at) for field in account.fields}
    assert all(each.keys() <= allowed for each in wanted)


# ---------------------------------------------------------------- taking and giving back


def taken(account: Account, amounts: Amounts, at: int) -> dict[str, dict[str, int]]:
    """What admission adds, as the module's first lines have it."""
    added: dict[str, dict[str, int]] = {}
    for window, fields in account.windows().items():
        for field in fields:
            changes = added.setdefault(window, {})
            changes[rules.attribute(field, at)] = amounts.of(field)
            if field.unit == "nano_usd":
                changes[rules.HELD_USD] = amounts.nano_usd
    return added


def summed(*all_changes: dict[str, dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for changes in all_changes:
        for window, added in changes.items():
            for name, value in added.items():
                total[f"{window} {name}"] = total.get(f"{window} {name}", 0) + value
    return {name: value for name, value in total.items() if value}


@given(
    st.sets(st.sampled_from([field.limit for field in FIELDS])),
    COUNTS,
    COUNTS,
    TIMES,
    st.sampled_from([rules.USER, rules.PROJECT, rules.TENANT]),
)
def test_request_that_took_nothing_leaves_nothing_but_its_try_in_this_minute(
    limited: set[str], tokens: int, nano_usd: int, at: int, scope: str
) -> None:
    account = account_of(scope, Limits(**dict.fromkeys(limited, 10)))
    amounts = Amounts(tokens, nano_usd)
    codes = rules.held(account)[2]
    given_back = rules.correction(codes, amounts, Settlement(0, 0, answered=False), at)
    left = {"MINUTE requests": 1} if "rpm" in limited else {}
    assert summed(taken(account, amounts, at), given_back) == left


@given(COUNTS, COUNTS, COUNTS, COUNTS, TIMES)
def test_answered_request_leaves_what_it_took_and_holds_nothing(
    tokens: int, nano_usd: int, took_tokens: int, took_usd: int, at: int
) -> None:
    account = account_of(rules.PROJECT, Limits(**ALL_LIMITS))
    amounts = Amounts(tokens, nano_usd)
    settled = Settlement(took_tokens, took_usd, answered=True)
    corrected = rules.correction(rules.held(account)[2], amounts, settled, at)
    day = f"{utc(at).day:02d}"
    expected = {
        "MINUTE requests": 1,
        "MINUTE tokens": took_tokens,
        f"MONTH d{day}q": 1,
        f"MONTH d{day}t": took_tokens,
        "MONTH tokens": took_tokens,
        "MONTH nano_usd": took_usd,
    }
    assert summed(taken(account, amounts, at), corrected) == {
        name: value for name, value in expected.items() if value
    }


def test_correction_that_is_nothing_writes_no_item() -> None:
    exact = Settlement(SOME.tokens, SOME.nano_usd, answered=True)
    assert rules.correction("rpqdt", SOME, exact, unix(2026, 11, 21, 12, 0, 0)) == {}
    assert rules.correction("", SOME, exact, 0) == {}


def test_every_code_is_one_letter_of_one_field() -> None:
    """A reservation remembers them as one word."""
    assert len(BY_CODE) == len(FIELDS) + len(TOKEN_FIELDS)
    assert all(len(field.code) == 1 for field in FIELDS)
    assert {field.limit for field in FIELDS} | {"max_output_tokens"} == set(Limits.__slots__)


def test_no_two_limits_share_a_counter() -> None:
    counters = [(field.window, rules.attribute(field, NOON)) for field in FIELDS]
    counters += [(field.window, field.reserved) for field in FIELDS if field.reserved]
    assert len(set(counters)) == len(counters)


def test_settlement_says_what_was_taken_of_every_unit_that_is_billed() -> None:
    billed = {name for name, unit in UNITS.items() if unit.billed}
    assert billed | {"answered"} == set(Settlement.__slots__)


def test_limits_are_judged_in_the_order_in_which_they_pass() -> None:
    passes = [{"NOW": 0, "MINUTE": 60, "DAY": DAY, "MONTH": 28 * DAY}[f.period] for f in FIELDS]
    assert passes == sorted(passes)
    assert "".join(field.code for field in FIELDS if field.code in "srpqdtn") == "srpqdtn"


def test_user_of_a_tier_without_a_limit_is_counted_if_anybody_in_his_project_has_it() -> None:
    account = rules.of_subject("u#ann", Limits(rpm=5), frozenset({"tokens_per_day"}))
    assert [field.limit for field in account.fields] == ["rpm", "tokens_per_day"]
    assert account.over(account.fields, {"d21t": 10**12}, SOME, unix(2026, 11, 21, 0, 0, 0)) == []


# ---------------------------------------------------------------- times


@given(TIMES, st.sampled_from(FIELDS))
def test_counter_of_a_day_has_the_day_of_utc_and_others_have_none(at: int, field: Field) -> None:
    name = rules.attribute(field, at)
    day = f"d{utc(at).day:02d}"
    assert name == (f"{day}{UNITS[field.unit].letter}" if field.period == "DAY" else field.unit)


@pytest.mark.parametrize(
    ("code", "window", "name"),
    [
        ("s", "NOW", "streams"),
        ("r", "MINUTE", "requests"),
        ("p", "MINUTE", "tokens"),
        ("q", "MONTH", "d21q"),
        ("d", "MONTH", "d21t"),
        ("t", "MONTH", "tokens"),
        ("n", "MONTH", "nano_usd"),
    ],
)
def test_counter_has_the_name_that_it_has_in_tables_that_are_deployed(
    code: str, window: str, name: str
) -> None:
    field = BY_CODE[code]
    assert (field.window, rules.attribute(field, NOON)) == (window, name)


@given(TIMES)
def test_yesterday_today_and_tomorrow_stay_and_every_other_day_goes(at: int) -> None:
    near = {(utc(at) + datetime.timedelta(days=shift)).day for shift in (-1, 0, 1)}
    gone = rules.other_days(at)
    letters = {UNITS[field.unit].letter for field in FIELDS if field.period == "DAY"}
    assert letters >= {"q", "t"}
    assert sorted(gone) == sorted(
        f"d{day:02d}{letter}" for day in range(1, 32) if day not in near for letter in letters
    )


@given(TIMES, st.sampled_from(FIELDS))
def test_window_resets_at_its_end_and_not_before(at: int, field: Field) -> None:
    reset, now = rules.resets_at(field, at), utc(at)
    ends = {
        "MINUTE": now.replace(second=0) + datetime.timedelta(minutes=1),
        "NOW": now + datetime.timedelta(seconds=rules.STREAM_RETRY_S),
        "MONTH": (now.replace(day=1) + datetime.timedelta(days=32)).replace(
            day=1, hour=0, minute=0, second=0
        ),
    }
    midnight = now.replace(hour=0, minute=0, second=0) + datetime.timedelta(days=1)
    end = midnight if field.period == "DAY" else ends[field.period]
    assert reset == int(end.timestamp()) > at


@pytest.mark.parametrize(
    ("moment", "day_ends", "month_ends"),
    [
        ((2026, 12, 31, 23, 59, 59), (2027, 1, 1), (2027, 1, 1)),
        ((2027, 1, 1, 0, 0, 0), (2027, 1, 2), (2027, 2, 1)),
        ((2028, 2, 28, 12, 0, 0), (2028, 2, 29), (2028, 3, 1)),
        ((2028, 2, 29, 23, 59, 59), (2028, 3, 1), (2028, 3, 1)),
        ((2027, 2, 28, 23, 59, 59), (2027, 3, 1), (2027, 3, 1)),
        ((2100, 2, 28, 0, 0, 0), (2100, 3, 1), (2100, 3, 1)),
        ((2400, 2, 28, 0, 0, 0), (2400, 2, 29), (2400, 3, 1)),
        ((2026, 11, 30, 23, 59, 59), (2026, 12, 1), (2026, 12, 1)),
    ],
)
def test_days_and_months_end_where_the_calendar_says(
    moment: tuple[int, ...], day_ends: tuple[int, ...], month_ends: tuple[int, ...]
) -> None:
    at = unix(*moment)
    assert rules.resets_at(BY_CODE["q"], at) == unix(*day_ends, 0, 0, 0)
    assert rules.resets_at(BY_CODE["n"], at) == unix(*month_ends, 0, 0, 0)


# ---------------------------------------------------------------- what a caller is told


@pytest.mark.parametrize("scope", [rules.USER, rules.PROJECT, rules.TENANT])
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.limit)
@settings(max_examples=15)
@given(at=TIMES, used=st.integers(0, 10**18), limit=st.integers(0, 10**18))
def test_refusal_says_which_limit_and_when_to_come_back(
    scope: str, field: Field, at: int, used: int, limit: int
) -> None:
    account = account_of(scope, Limits(**{field.limit: limit}))
    told = rules.refusal(account, field, used, SOME, at, "free")
    money = field.unit == "nano_usd"
    name = "usd_per_month" if money else field.limit
    assert type(told) is (LimitReached if field.window in ("NOW", "MINUTE") else QuotaExceeded)
    assert told.details["scope"] == scope
    assert told.details["limit_name"] == name
    assert told.details.get("tier") == ("free" if scope == rules.USER else None)
    if SOME.of(field) <= limit:
        assert told.details.pop("resets_at") == rules.resets_at(field, at)
        assert told.retry_after_s is not None
        assert told.retry_after_s >= 1
        assert at + told.retry_after_s >= rules.resets_at(field, at)
    else:  # it would be refused then, too
        assert told.retry_after_s is None
    if scope == rules.USER or (scope == rules.PROJECT and field.unit in ("requests", "streams")):
        scale = NANO if money else 1
        assert told.details["limit"] == {name: limit / scale if money else limit}
        assert told.details["usage"] == {field.usage: used / scale if money else used}
    else:  # what others have spent
        own = f"{SOME.nano_usd / NANO}" if money else f"{SOME.of(field)}"
        text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "", told.message)
        assert set(re.findall(r"[\d.]*\d", text)) <= {own}
        assert told.details.keys() == {"scope", "limit_name"}
    assert told.retryable == (type(told) is LimitReached and SOME.of(field) <= limit)
    json.dumps(told.details, allow_nan=False)
    if scope != rules.USER:
        assert not told.extra_headers
    assert all(value.isascii() and value.isprintable() for value in told.headers.values())


@pytest.mark.parametrize(
    ("scope", "limits", "used", "message"),
    [
        (
            "user",
            Limits(rpm=10),
            10,
            "This user may use 10 requests a minute; 10 are used or reserved. "
            "It resets at 2026-11-21T12:01:00Z.",
        ),
        (
            "user",
            Limits(tpm=150),
            60,
            "This user may use 150 tokens a minute; 60 are used or reserved, and this request may "
            "take 100. It resets at 2026-11-21T12:01:00Z.",
        ),
        (
            "user",
            Limits(nano_usd_per_month=5 * NANO),
            4_995_000_000,
            "This user may use 5 USD a month; 4.995 are used or reserved, and this request may "
            "take 0.01. It resets at 2026-12-01T00:00:00Z.",
        ),
        (
            "user",
            Limits(concurrent_streams=3),
            3,
            "This user may use 3 requests at once; 3 are used or reserved.",
        ),
        (
            "project",
            Limits(requests_per_day=7),
            7,
            "This project may use 7 requests a day; 7 are used or reserved. "
            "It resets at 2026-11-22T00:00:00Z.",
        ),
        (
            "tenant",
            Limits(nano_usd_per_month=5 * NANO),
            5 * NANO,
            "This deployment has reached its limit of USD a month, and this request may take 0.01. "
            "It resets at 2026-12-01T00:00:00Z.",
        ),
    ],
)
def test_refusal_is_a_sentence_for_a_person(
    scope: str, limits: Limits, used: int, message: str
) -> None:
    account = account_of(scope, limits)
    told = rules.refusal(account, account.fields[0], used, SOME, NOON, None)
    assert told.message == message


def test_refused_address_learns_its_limit_and_nothing_of_the_user() -> None:
    account = rules.of_address("a#203.0.113.7", 2)
    told = rules.refusal(account, BY_CODE["r"], 2, SOME, NOON, "free")
    assert type(told) is LimitReached
    assert told.message.startswith("This network address may use 2 requests a minute; 2 are used")
    assert told.details == {
        "scope": "address",
        "limit_name": "rpm",
        "limit": {"rpm": 2},
        "usage": {"requests_this_minute": 2},
        "resets_at": NOON + 30,
    }
    assert (told.retry_after_s, told.extra_headers) == (30, {})


def test_refused_user_learns_what_remains_in_both_spellings() -> None:
    account = account_of("user", Limits(rpm=10, tokens_per_day=1_000))
    told = rules.refusal(account, BY_CODE["d"], 950, SOME, NOON, None).headers
    assert told == {
        "Retry-After": "43170",
        "RateLimit-Policy": '"rpm";q=10;w=60, "tokens_per_day";q=1000;w=86400',
        "RateLimit": '"tokens_per_day";r=50;t=43170',
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "43170s",
        "x-should-retry": "false",
    }


@pytest.mark.parametrize("limits", [Limits(rpm=10, tpm=99), Limits(rpm=10, tokens_per_day=99)])
def test_request_larger_than_the_whole_limit_is_given_no_time_to_wait_for(limits: Limits) -> None:
    """LangChain and the AI SDK wait for as long as any header says, then fail all the same."""
    account = account_of("user", limits)
    (field,) = [each for each in account.fields if each.unit == "tokens"]
    refused = rules.refusal(account, field, 0, SOME, NOON, None)
    assert refused.message.endswith("Waiting does not help: that is more than the whole limit.")
    assert "resets_at" not in refused.details
    assert {name: value for name, value in refused.headers.items() if name[:1] == "x"} == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-limit-tokens": "99",
        "x-ratelimit-remaining-tokens": "99",
        "x-should-retry": "false",
    }
    assert refused.headers.keys().isdisjoint({"Retry-After", "RateLimit"})


def test_refused_user_never_learns_of_less_than_nothing_left() -> None:
    account = account_of("user", Limits(tpm=100))
    told = rules.refusal(account, BY_CODE["p"], 250, SOME, NOON, None)
    assert told.headers["RateLimit"] == '"tpm";r=0;t=30'


def structured_list(text: str) -> list[tuple[str, dict[str, int]]]:
    """A List of Strings with Integer parameters: RFC 9651, sections 3.1, 3.1.2, 3.3.1, 3.3.3."""
    members = []
    for member in text.split(", "):
        found = re.fullmatch(
            r'"([\x20\x21\x23-\x5b\x5d-\x7e]*)"((?:;[a-z*][a-z0-9_.*-]*=\S+)*)', member
        )
        assert found, member
        parameters = dict(each.split("=") for each in found[2].split(";")[1:])
        assert all(re.fullmatch(r"-?\d{1,15}", value) for value in parameters.values())
        members.append((found[1], {name: int(value) for name, value in parameters.items()}))
    return members


LIMIT = st.none() | st.integers(0, 10**15 - 1)


@given(st.builds(Limits, LIMIT, LIMIT, LIMIT, LIMIT, LIMIT, LIMIT, st.none(), LIMIT), TIMES)
def test_policy_is_a_structured_list_of_the_limits_that_a_client_can_heed(
    limits: Limits, at: int
) -> None:
    headers = rules.policy_headers(limits, at)
    month = calendar.monthrange(utc(at).year, utc(at).month)[1] * DAY
    windows = {
        "rpm": 60,
        "tpm": 60,
        "requests_per_day": DAY,
        "tokens_per_day": DAY,
        "tokens_per_month": month,
    }
    expected = [
        (name, {"q": getattr(limits, name), "w": seconds})
        for name, seconds in windows.items()
        if getattr(limits, name) is not None
    ]
    policy = headers.pop("RateLimit-Policy", None)
    assert (structured_list(policy) if policy else []) == expected
    for unit, names in (
        ("requests", ["rpm", "requests_per_day"]),
        ("tokens", ["tpm", "tokens_per_day", "tokens_per_month"]),
    ):
        shortest = next((n for n in names if getattr(limits, n) is not None), None)
        limit, reset = (headers.pop(f"x-ratelimit-{x}-{unit}", None) for x in ("limit", "reset"))
        if shortest is None:
            assert limit is reset is None
            continue
        assert limit == str(getattr(limits, shortest))
        assert reset is not None
        assert re.fullmatch(r"[1-9]\d*s", reset)  # a duration of Go, as OpenAI's are
        assert int(reset[:-1]) <= windows[shortest]
    assert not headers


@pytest.mark.parametrize("scope", [rules.USER, rules.PROJECT, rules.TENANT])
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.limit)
@pytest.mark.parametrize("shards", [1, 5])
def test_limit_of_0_refuses_the_first_request(scope: str, field: Field, shards: int) -> None:
    account = account_of(scope, Limits(**{field.limit: 0}), shards, 3)
    assert account.over(account.fields, {}, SOME, NOON) == [field]
    if scope != rules.USER and field.window == rules.MONTH:
        after = rules.redistributed(account, field.window, [{}] * 5, SOME, NOON)
        assert after[1] == [(field, 0)]


@given(st.integers(0, 10), st.integers(0, 20), st.integers(1, 5))
def test_limit_refuses_exactly_what_would_exceed_it(limit: int, used: int, amount: int) -> None:
    account = account_of("user", Limits(tpm=limit))
    over = account.over(account.fields, {"tokens": used}, Amounts(amount, 0), NOON)
    assert bool(over) == (used + amount > limit)


def test_counter_that_is_not_there_counts_nothing() -> None:
    account = account_of("user", Limits(tpm=5))
    assert account.over(account.fields, {}, Amounts(5, 0), NOON) == []


def test_own_state_never_tells_less_than_nothing() -> None:
    """A counter may be below 0: what began before midnight is given back to a day that is gone."""
    account = account_of("user", Limits(tokens_per_day=100))
    for used, told_used, left in ((-5, 0, 100), (30, 30, 70), (130, 130, 0)):
        (told,) = rules.own_state(account, {}, {}, {"d21t": used}, NOON)["limits"]
        assert (told["used"], told["left"]) == (told_used, left)


def test_own_state_of_who_has_used_nothing_yet_is_the_whole_limit() -> None:
    account = account_of("user", Limits(tpm=5, nano_usd_per_month=7))
    own = rules.own_state(account, {}, {}, {}, NOON)
    assert [(each["used"], each["left"]) for each in own["limits"]] == [(0, 5), (0, 7 / NANO)]
    assert (own["budget"]["spent_usd"], own["budget"]["reserved_usd"]) == (0, 0)


def test_reservation_below_nothing_is_shown_as_none() -> None:
    account = account_of("user", Limits(nano_usd_per_month=7))
    budget = rules.own_state(account, {}, {}, {"nano_usd_reserved": -3}, NOON)["budget"]
    assert budget["reserved_usd"] == 0


@pytest.mark.parametrize(("need", "says"), [(1, False), (2, True)])
def test_refusal_says_what_a_request_may_take_if_it_is_more_than_one(need: int, says: bool) -> None:
    account = account_of("user", Limits(tpm=10))
    refused = rules.refusal(account, BY_CODE["p"], 10, Amounts(need, 0), NOON, None)
    assert ("this request may take" in refused.message) is says


def test_own_state_says_the_minutes_requests_and_the_months_money_again() -> None:
    """And takes no other limit of requests or money for them."""
    account = account_of("user", Limits(**ALL_LIMITS))
    month = {"d21q": 9, "nano_usd": 7, "nano_usd_reserved": 3}
    told = rules.own_state(account, {}, {"requests": 4}, month, NOON)
    assert told["rate_limit"] == {"rpm": 10, "remaining": 6, "reset_in": 30}
    assert told["budget"] == {
        "limit_usd": 10 / NANO,
        "spent_usd": 4 / NANO,
        "reserved_usd": 3 / NANO,
        "remaining_usd": 3 / NANO,
        "resets_at": unix(2026, 12, 1, 0, 0, 0),
    }
    others = Limits(**{**ALL_LIMITS, "rpm": None, "nano_usd_per_month": None})
    told = rules.own_state(account_of("user", others), {}, {}, {}, NOON)
    assert (told["rate_limit"], told["budget"]) == (None, None)
