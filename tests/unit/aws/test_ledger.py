"""The ledger over a table: what is admitted and refused, and that the books balance."""

import calendar
import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.aws.small_dynamodb import Between, SmallDynamoDB
from weir import revocation
from weir.aws import items, revoking
from weir.aws.clients import client
from weir.aws.items import Key
from weir.aws.ledger import Ledger
from weir.aws.ledger.books import reservation_item
from weir.aws.table import SubjectChange, Table
from weir.errors import (
    Conflict,
    Killed,
    LimitReached,
    QuotaExceeded,
    Refusal,
    Unauthenticated,
)
from weir.ledger.admission import Ask, Reservation, StaleConfiguration, Swept
from weir.ledger.rules import Amounts, Field, Settlement
from weir.projects.limits import NANO, Limits, Pool
from weir.revocation import Issued, Revocation, Revocations

NOON = 1_795_262_400  # 2026-11-21 12:00:00 UTC
FREE = Limits(rpm=3, tokens_per_day=1_000, nano_usd_per_month=NANO, concurrent_streams=2)
EVERYTHING = Limits(10**6, 10**9, 10**6, 10**9, 10**9, 10**15, None, 10**4)
NO_POOL = Pool(Limits())


class Clock:
    def __init__(self) -> None:
        self.now: float = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> SmallDynamoDB:
    """Stands in for moto, which is slow."""
    store = SmallDynamoDB()
    monkeypatch.setitem(globals(), "client", lambda _service: store)
    return store


@pytest.fixture
def ledger(small: SmallDynamoDB, clock: Clock) -> Ledger:
    return with_clock(clock)(small)


@pytest.fixture
def ledger_over_moto(aws: None, clock: Clock) -> Ledger:
    return with_clock(clock)(client("dynamodb"))


def with_clock(clock: Clock) -> Callable[[Any], Ledger]:
    """What is slow here is the machine: a try counts as a hundredth of a second."""
    ticks = itertools.count(0, 0.01)
    return lambda it: Ledger(
        it, "t", clock, monotonic=lambda: next(ticks), sleep=lambda seconds: None
    )


def ask(
    *,
    subject: str = "u#ann",
    limits: Limits = FREE,
    project: Pool = NO_POOL,
    tenant: Pool = NO_POOL,
    completion_id: str = "",
    estimate: int = 10,
    output: int = 90,
    usd_of_a_token: float = 0.0001,
    choices: int = 1,
    shrinkable: bool = False,
    limited: frozenset[str] = frozenset(),
    address: str = "",
    address_rpm: int | None = None,
) -> Ask:
    """Of 10 input and 90 output tokens, that cost a cent together."""
    rate = round(usd_of_a_token * NANO)

    def afford(field: Field, left: int) -> int:
        if field.unit == "nano_usd":
            return left // rate - estimate
        return left - estimate if field.unit == "tokens" else 0

    ask.count += 1  # type: ignore[attr-defined]
    return Ask(
        pid="p",
        subject=subject,
        tier="free",
        completion_id=completion_id or f"chatcmpl-{ask.count}",  # type: ignore[attr-defined]
        limits=limits,
        limited=limited,
        project=project,
        tenant=tenant,
        price=lambda tokens: Amounts(estimate + tokens, (estimate + tokens) * rate),
        afford=afford,
        output_tokens=output,
        choices=choices,
        shrinkable=shrinkable,
        due=NOON + 360,
        row={"uid": subject[2:], "model": "m"},
        address=address,
        address_rpm=address_rpm,
    )


ask.count = 0  # type: ignore[attr-defined]
SPENT = Settlement(tokens=50, nano_usd=NANO // 200, answered=True)


def every(prefix: str = "") -> dict[Key, dict[str, Any]]:
    found = client("dynamodb").scan(TableName="t")["Items"]
    return {
        Key(item["pk"]["S"], item["sk"]["S"]): {
            name: int(value["N"]) if "N" in value else next(iter(value.values()))
            for name, value in item.items()
            if name not in ("pk", "sk", "ttl")
        }
        for item in found
        if item["pk"]["S"].startswith(prefix)
    }


def refused(ledger: Ledger, one: Ask) -> Refusal:
    with pytest.raises(Refusal) as told:
        ledger.admit(one)
    return told.value


def test_admitted_request_holds_its_worst_case_and_settling_leaves_what_it_took(
    ledger_over_moto: Ledger,
) -> None:
    ledger = ledger_over_moto
    subject, month = items.ledger("p", "u#ann"), items.month(NOON)
    reservation = ledger.admit(ask(completion_id="one"))
    assert every("LEDGER#") == {
        Key(subject, "NOW"): {"open": ["one"]},
        Key(subject, "MINUTE#202611211200"): {"requests": 1},
        Key(subject, month): {
            "d21t": 100,
            "nano_usd": NANO // 100,
            "nano_usd_reserved": NANO // 100,
        },
    }
    assert len(every("OPEN#")) == 1
    assert ledger.settle(reservation, SPENT, {"nano_usd": NANO // 200, "outcome": "completed"})
    assert every("LEDGER#") == {
        Key(subject, "NOW"): {},
        Key(subject, "MINUTE#202611211200"): {"requests": 1},
        Key(subject, month): {"d21t": 50, "nano_usd": NANO // 200, "nano_usd_reserved": 0},
    }
    assert every("OPEN#") == {}
    (row,) = every("USAGE#").values()
    assert row["nano_usd"] == NANO // 200
    assert (row["completion_id"], row["uid"], row["model"]) == ("one", "ann", "m")


def test_second_settling_changes_nothing(ledger_over_moto: Ledger) -> None:
    ledger = ledger_over_moto
    reservation = ledger.admit(ask())
    assert ledger.settle(reservation, SPENT, {})
    before = every("")
    assert not ledger.settle(reservation, SPENT, {})
    assert not ledger.settle(reservation, Settlement(0, 0, answered=False), {}, by="w")
    assert every("") == before


@pytest.mark.parametrize(
    ("limits", "name", "kind", "resets_at", "used"),
    [
        (Limits(rpm=2), "rpm", LimitReached, NOON + 60, 2),
        (Limits(tpm=250), "tpm", LimitReached, NOON + 60, 200),
        (Limits(concurrent_streams=2), "concurrent_streams", LimitReached, NOON + 2, 2),
        (Limits(requests_per_day=2), "requests_per_day", QuotaExceeded, NOON + 43_200, 2),
        (Limits(tokens_per_day=299), "tokens_per_day", QuotaExceeded, NOON + 43_200, 200),
        (
            Limits(tokens_per_month=299),
            "tokens_per_month",
            QuotaExceeded,
            NOON + 821_600 - 800,
            200,
        ),
        (
            Limits(nano_usd_per_month=NANO * 3 // 100 - 1),
            "usd_per_month",
            QuotaExceeded,
            NOON + 820_800,
            0.02,
        ),
    ],
)
@pytest.mark.parametrize("scope", ["user", "project", "tenant"])
@pytest.mark.parametrize("shards", [1, 4])
def test_third_request_is_refused_by_the_limit_that_two_have_used_up(
    ledger_over_moto: Ledger,
    limits: Limits,
    name: str,
    kind: type[Refusal],
    resets_at: int,
    used: float,
    scope: str,
    shards: int,
) -> None:
    ledger = ledger_over_moto
    free = Limits()
    asks: dict[str, dict[str, Any]] = {
        "user": {"limits": limits},
        "project": {"limits": free, "project": Pool(limits, shards)},
        "tenant": {"limits": free, "tenant": Pool(limits, shards)},
    }
    asked = asks[scope]
    for who in ("u#ann", "u#bob"):
        ledger.admit(ask(subject="u#ann" if scope == "user" else who, **asked))
    before = every("")
    told = refused(ledger, ask(subject="u#ann" if scope == "user" else "u#cid", **asked))
    assert isinstance(told, kind)
    assert told.details["limit_name"] == name
    assert told.details["scope"] == scope
    assert told.details["resets_at"] == resets_at
    assert told.headers["Retry-After"] == str(resets_at - NOON)
    is_counted = name in ("rpm", "concurrent_streams", "requests_per_day")
    if scope == "user" or (scope == "project" and is_counted):
        assert list(told.details["usage"].values()) == [used]
    else:  # what others have spent
        assert told.details.keys() == {"limit_name", "scope", "resets_at"}
    if shards == 1:
        assert every("") == before
    assert sum(each.get("nano_usd", 0) for each in every("LEDGER#").values()) == sum(
        each.get("nano_usd", 0) for each in before.values()
    )


def counting(
    ledger: Callable[[Any], Ledger], client_: Any
) -> tuple[Ledger, Callable[[], list[int]]]:
    """A ledger, and how many parts each call has had since one last asked; 0 for a read."""
    parts: list[int] = []

    def around(_operation: str, asked: Any, carry_out: Callable[[], Any]) -> Any:
        parts.append(len(asked.get("TransactItems", ())))
        return carry_out()

    def since() -> list[int]:
        told = parts[:]
        parts.clear()
        return told

    return ledger(Between(client_, around)), since


# ---------------------------------------------------------------- users


def test_blocked_user_is_refused_and_holds_nothing(ledger: Ledger) -> None:
    key = items.subject("p", "u#ann")
    kept = {"blocked": {"reason": "", "at": 0, "by": ""}}
    client("dynamodb").put_item(TableName="t", Item=items.record_item(key, kept, 1))
    before = every()
    with pytest.raises(Killed):
        ledger.admit(ask(project=Pool(EVERYTHING), tenant=Pool(EVERYTHING)))
    assert every() == before
    ledger.admit(ask(subject="u#bob"))


AT = NOON - 100  # when the token was issued


def table_of(store: Any) -> Table:
    return Table(store, "t")


def note(what: Revocation, now: int, store: Any = None) -> None:
    """Revoke it as of `now`."""
    revoking.revoke(table_of(store or client("dynamodb")), "p", what, now)


def token_of(sid: str | None = "s_1", jti: str | None = "j_1", at: int = AT) -> Issued:
    return Issued(at, jti, sid)


def passes(ledger: Ledger, token: Issued | None, subject: str = "u#ann") -> bool:
    try:
        ledger.admit(replace(ask(subject=subject, limits=UNLIMITED), token=token))
    except Unauthenticated as refusal:
        return refusal.reason != "token_revoked"
    return True


ALL, SESSION, TOKEN = (
    Revocation("ann"),
    Revocation("ann", session_id="s_1"),
    Revocation("ann", jti="j_1"),
)
# What is revoked, as of when; the token, and whether it still passes.
REVOKED: list[tuple[Revocation, int, Issued | None, bool]] = [
    (ALL, AT - 1, token_of(), True),
    (ALL, AT, token_of(), False),
    (ALL, AT + 1, token_of(), False),
    (ALL, AT, token_of(sid=None, jti=None), False),
    (ALL, AT - 1, token_of(sid=None, jti=None), True),
    (ALL, AT, None, True),  # an API key is no token
    (SESSION, AT - 1, token_of(), True),
    (SESSION, AT, token_of(), False),
    (SESSION, AT, token_of(jti="j_2"), False),
    (SESSION, AT, token_of(sid="s_2"), True),
    (SESSION, AT, token_of(sid=None), True),
    (SESSION, AT, None, True),
    (TOKEN, AT - 1, token_of(), False),  # for good: no other token has its id
    (TOKEN, AT, token_of(), False),
    (TOKEN, AT, token_of(jti="j_2"), True),
    (TOKEN, AT, token_of(jti="s_1", sid="j_1"), True),
    (TOKEN, AT, token_of(jti=None), True),
    (TOKEN, AT, None, True),
]


@pytest.mark.parametrize(("what", "at", "token", "expected"), REVOKED)
def test_revoked_token_is_not_admitted_and_every_other_is(
    small: SmallDynamoDB, ledger: Ledger, what: Revocation, at: int, token: Any, expected: bool
) -> None:
    note(what, at, small)
    before = dict(small.items)
    assert passes(ledger, token) is expected
    assert expected or small.items == before, "what is refused holds nothing"
    assert passes(ledger, token_of(), "u#bob"), "another user's token of the same names"
    found = items.record_of(small.items[items.subject("p", "u#ann")])
    try:  # where the record is read, the same rule holds
        Revocations(found.document).judge(token)
    except Unauthenticated:
        assert not expected
    else:
        assert expected


def test_conditions_of_a_revocation_hold_in_dynamodbs_own_words(ledger_over_moto: Ledger) -> None:
    for what, other in (
        (TOKEN, token_of(jti="j_2")),
        (SESSION, token_of("s_2", "j_3")),
        (ALL, token_of("s_1", "j_4", AT + 2)),
    ):
        assert passes(ledger_over_moto, other)
        note(what, AT)
        assert not passes(ledger_over_moto, token_of())
        assert passes(ledger_over_moto, other)


def test_block_is_what_a_user_reads_who_is_blocked_and_signed_out(
    small: SmallDynamoDB, ledger: Ledger
) -> None:
    note(ALL, NOON, small)
    table, key = table_of(small), items.subject("p", "u#ann")
    (before,) = table.records([key])
    blocked = {**before.document, "blocked": {"reason": "", "at": 0, "by": ""}}
    table.commit([SubjectChange(key, before, blocked, NOON)], [])
    with pytest.raises(Killed):
        passes(ledger, token_of())
    (before,) = table.records([key])
    table.commit([SubjectChange(key, before, {"not_before": NOON}, NOON)], [])
    assert not passes(ledger, token_of()), "what was revoked stays revoked once the block is lifted"


def test_id_of_an_open_request_is_taken_until_that_is_settled(ledger_over_moto: Ledger) -> None:
    ledger = ledger_over_moto
    first = ledger.admit(ask(completion_id="mine"))
    before = every()
    with pytest.raises(Conflict, match="'mine'"):
        ledger.admit(ask(completion_id="mine", limits=Limits(concurrent_streams=1)))
    assert every() == before
    ledger.admit(ask(completion_id="mine", subject="u#bob"))
    ledger.settle(first, SPENT, None)
    ledger.admit(ask(completion_id="mine"))


def test_cancelling_is_of_ones_own_open_request_and_is_forgotten_with_it(
    ledger_over_moto: Ledger,
) -> None:
    ledger = ledger_over_moto
    reservation = ledger.admit(ask(completion_id="one"))
    assert not ledger.cancel("p", "u#ann", "two")
    assert not ledger.cancel("p", "u#bob", "one")
    assert not ledger.is_cancelled("p", "u#ann", "one")
    assert ledger.cancel("p", "u#ann", "one")
    assert ledger.is_cancelled("p", "u#ann", "one")
    ledger.settle(reservation, SPENT, None)
    assert not ledger.cancel("p", "u#ann", "one")
    again = ledger.admit(ask(completion_id="one"))
    assert not ledger.is_cancelled("p", "u#ann", "one")
    ledger.settle(again, SPENT, None)


def test_what_was_used_with_one_tier_counts_with_another(ledger: Ledger) -> None:
    limited = frozenset({"tokens_per_day", "concurrent_streams"})
    ledger.admit(ask(limits=Limits(), limited=limited))
    told = refused(ledger, ask(limits=Limits(tokens_per_day=199), limited=limited))
    assert told.details["usage"] == {"tokens_today": 100}
    ledger.admit(ask(limits=Limits(tokens_per_day=200), limited=limited))
    assert refused(ledger, ask(limits=Limits(concurrent_streams=2), limited=limited))
    ledger.admit(ask(limits=Limits(concurrent_streams=3), limited=limited))


def test_settling_after_midnight_corrects_the_month_and_the_day_it_was_admitted_in(
    ledger: Ledger, clock: Clock
) -> None:
    clock.now = calendar.timegm((2026, 11, 30, 23, 59, 59))
    pool = Pool(EVERYTHING)
    reservation = ledger.admit(ask(limits=EVERYTHING, project=pool, tenant=pool))
    keys = set(every("LEDGER#"))
    assert {key.sk for key in keys} == {"NOW", "MINUTE#202611302359", "MONTH#202611"}
    clock.now += 61
    ledger.settle(reservation, SPENT, {})
    after = every("LEDGER#")
    assert set(after) == keys
    for key, counted in after.items():
        expected: dict[str, dict[str, Any]] = {
            "NOW": {} if key.pk.endswith("ann") else {"streams": 0},
            "MINUTE#202611302359": {"requests": 1, "tokens": 50},
            "MONTH#202611": {
                "d30q": 1,
                "d30t": 50,
                "tokens": 50,
                "nano_usd": NANO // 200,
                "nano_usd_reserved": 0,
            },
        }
        assert counted == expected[key.sk]
    ledger.admit(ask(limits=EVERYTHING, project=pool, tenant=pool))
    assert every("LEDGER#")[Key(items.ledger("p", "u#ann"), "MONTH#202612")]["tokens"] == 100


def test_new_minute_day_and_month_each_have_room_again(ledger: Ledger, clock: Clock) -> None:
    clock.now = calendar.timegm((2026, 11, 29, 23, 59, 30))
    for limits, step in (
        (Limits(rpm=1), 30),
        (Limits(tokens_per_day=100), 86_400),
        (Limits(tokens_per_month=100), 86_400),
    ):
        ledger.admit(ask(limits=limits))
        told = refused(ledger, ask(limits=limits))
        clock.now += step - 1
        assert told.details["resets_at"] > clock.now
        assert refused(ledger, ask(limits=limits))
        clock.now += 1
    assert refused(ledger, ask(limits=Limits(tokens_per_month=100)))
    clock.now = calendar.timegm((2027, 1, 1, 0, 0, 0))
    ledger.admit(ask(limits=Limits(tokens_per_month=100)))


@pytest.mark.parametrize("scope", ["user", "project", "tenant"])
def test_of_several_limits_the_one_that_passes_soonest_is_told(ledger: Ledger, scope: str) -> None:
    order = ["concurrent_streams", "rpm", "tpm", "requests_per_day", "nano_usd_per_month"]
    for number, name in enumerate(order):
        limits = Limits(**dict.fromkeys(order[number:], 0))
        asks = {
            "user": ask(limits=limits),
            "project": ask(limits=Limits(), project=Pool(limits)),
            "tenant": ask(limits=Limits(), tenant=Pool(limits)),
        }
        told = refused(ledger, asks[scope])
        assert told.details["limit_name"] == name.replace("nano_usd", "usd")
    assert every() == {}


def test_sooner_limit_of_the_project_is_told_before_a_later_one_of_the_user(ledger: Ledger) -> None:
    both = ask(limits=Limits(tokens_per_day=0), project=Pool(Limits(rpm=0)))
    assert refused(ledger, both).details["scope"] == "project"
    same = ask(limits=Limits(rpm=0), project=Pool(Limits(rpm=0)))
    assert refused(ledger, same).details["scope"] == "user"


# ---------------------------------------------------------------- too little is left

SHRINKING = [
    (Limits(nano_usd_per_month=NANO // 100 + NANO // 200), "usd_per_month"),
    (Limits(tokens_per_day=150), "tokens_per_day"),
    (Limits(tokens_per_month=150), "tokens_per_month"),
    (Limits(tpm=150), "tpm"),
]


@pytest.mark.parametrize(("limits", "name"), SHRINKING, ids=[name for _, name in SHRINKING])
@pytest.mark.parametrize("scope", ["user", "project", "tenant"])
def test_output_shrinks_to_what_is_left_in_one_more_round_trip(
    clock: Clock, limits: Limits, name: str, scope: str
) -> None:
    ledger, since = counting(with_clock(clock), SmallDynamoDB())
    free = Limits()
    asks: dict[str, dict[str, Any]] = {
        "user": {"limits": limits},
        "project": {"limits": free, "project": Pool(limits)},
        "tenant": {"limits": free, "tenant": Pool(limits)},
    }
    asked = asks[scope]
    ledger.admit(ask(**asked))
    since()
    assert refused(ledger, ask(**asked)).details["limit_name"] == name
    assert len(since()) == 1
    one = ledger.admit(ask(**asked, shrinkable=True))
    assert (one.output_tokens, one.amounts.tokens) == (40, 50)
    assert len(since()) == 2
    assert refused(ledger, ask(**asked, shrinkable=True)).details["limit_name"] == name


@pytest.mark.parametrize(
    ("left", "choices", "output"),
    [(26, 1, 16), (25, 1, None), (58, 3, 48), (60, 3, 48), (57, 3, None), (99, 1, 89)],
)
def test_output_never_shrinks_below_16_tokens_for_each_choice(
    ledger: Ledger, left: int, choices: int, output: int | None
) -> None:
    one = ask(limits=Limits(tokens_per_day=left), choices=choices, shrinkable=True)
    if output is None:
        assert isinstance(refused(ledger, one), QuotaExceeded)
        assert every() == {}
    else:
        assert ledger.admit(one).output_tokens == output


def test_output_shrinks_to_the_least_of_what_several_limits_leave(ledger: Ledger) -> None:
    limits, pool = Limits(tokens_per_day=80), Pool(Limits(nano_usd_per_month=NANO // 200))
    assert ledger.admit(ask(limits=limits, project=pool, shrinkable=True)).output_tokens == 40


def test_no_output_is_small_enough_for_a_limit_on_requests(ledger: Ledger) -> None:
    limits = Limits(rpm=0, tokens_per_day=50)
    told = refused(ledger, ask(limits=limits, shrinkable=True))
    assert told.details["limit_name"] == "rpm"


def test_output_shrinks_to_what_all_shards_together_leave(ledger: Ledger) -> None:
    pool = Pool(Limits(nano_usd_per_month=NANO // 200), 16)
    one = ledger.admit(ask(limits=Limits(), project=pool, shrinkable=True))
    assert one.amounts.nano_usd == NANO // 200


# ---------------------------------------------------------------- what it costs


def size(item: dict[str, Any]) -> int:
    """Bytes. Source: DynamoDB's developer guide, "DynamoDB item sizes and formats"."""

    def of(value: dict[str, Any]) -> int:
        ((kind, told),) = value.items()
        if kind == "N":
            return len(told.lstrip("-")) // 2 + 2
        return sum(len(one.encode()) for one in told) if kind == "SS" else len(str(told).encode())

    return sum(len(name) + of(value) for name, value in item.items())


LONGEST = {
    "uid": "u" * 255,
    "session_id": "s" * 128,
    "thread_id": "t" * 128,
    "tag": "g" * 64,
    "model": "m" * 128,
    "tier": "t" * 32,
    "request_id": "0" * 36,
}
ORDINARY = {
    **LONGEST,
    "uid": "0" * 36,
    "session_id": "0" * 36,
    "thread_id": "0" * 36,
    "tag": "shop",
}
ORDINARY |= {"model": "gpt-oss-120b", "tier": "free"}


def test_counters_stay_below_1_kb_through_a_month_of_daily_use(clock: Clock) -> None:
    """Beyond it, each write of an item costs twice as much."""
    store = SmallDynamoDB()
    ledger = with_clock(clock)(store)
    pool = Pool(EVERYTHING, 2, 1)
    clock.now = calendar.timegm((2026, 12, 1, 0, 0, 30))
    largest = 0
    for number in range(31 * 2):
        open_ = [
            ledger.admit(
                replace(
                    ask(limits=EVERYTHING, project=pool, tenant=pool, subject="u#" + "u" * 255),
                    pid="p" * 63,
                    completion_id=f"{number}-{which}".ljust(128, "x"),
                    price=lambda tokens: Amounts(10**8, 10**13),
                    row=LONGEST,
                )
            )
            for which in range(3)
        ]
        ledger.cancel(open_[0].pid, open_[0].subject, open_[0].completion_id)
        counters = [item for key, item in store.items.items() if key[0].startswith("LEDGER#")]
        largest = max(largest, *(size(item) for item in counters))
        for one in open_:
            ledger.settle(one, SPENT, None)
        clock.now += 12 * 3600
    assert 700 < largest < 1024
    month = store.items[items.ledger("p" * 63, "u#" + "u" * 255), "MONTH#202612"]
    days = {name for name in month if name.startswith("d")}
    assert days <= {f"d{day}{kind}" for day in (29, 30, 31) for kind in "qt"}


@pytest.mark.parametrize("name", ["requests_per_day", "tokens_per_day"])
def test_days_that_are_over_are_removed_whichever_limit_of_a_day_is_counted(
    small: SmallDynamoDB, ledger: Ledger, clock: Clock, name: str
) -> None:
    for _ in range(5):
        ledger.admit(ask(limits=Limits(**{name: 10**6})))
        clock.now += 86_400
    month = small.items[items.ledger("p", "u#ann"), "MONTH#202611"]
    kind = {"requests_per_day": "q", "tokens_per_day": "t"}[name]
    assert {each for each in month if each.startswith("d")} == {f"d24{kind}", f"d25{kind}"}


def test_counters_expire_well_after_their_window_and_open_requests_never(
    small: SmallDynamoDB, ledger: Ledger, clock: Clock
) -> None:
    """DynamoDB must not delete what is still counted, or may yet be settled."""
    pool = Pool(EVERYTHING, 2, 1)
    one = ledger.admit(ask(limits=EVERYTHING, project=pool, tenant=pool))
    for settled in (False, True):
        counters = {key: each for key, each in small.items.items() if key[0].startswith("LEDGER#")}
        assert len({pk for pk, _ in counters}) >= 3
        for (_, sk), item in counters.items():
            kept_s = int(item["ttl"]["N"]) - NOON if "ttl" in item else None
            window = sk.partition("#")[0]
            assert kept_s == {"NOW": None, "MINUTE": 2 * 3600, "MONTH": 75 * 86_400}[window]
        if not settled:
            clock.now += 300
            ledger.settle(one, SPENT, None)


def held_item(row: dict[str, Any]) -> dict[str, Any]:
    pool = Pool(EVERYTHING, 16, 3)
    one = ask(limits=EVERYTHING, project=pool, tenant=pool, subject=items.user(row["uid"]))
    store = SmallDynamoDB()
    one = replace(one, row=row, completion_id="chatcmpl-" + "0" * 32)
    return reservation_item(with_clock(Clock())(store).admit(one))


def test_reservation_is_below_1_kb_ordinarily_and_below_2_at_most() -> None:
    assert size(held_item(ORDINARY)) < 1024
    assert size(held_item(LONGEST)) < 2048


def test_admitting_and_settling_cost_the_same_the_first_time_and_the_300th(
    clock: Clock,
) -> None:
    """A part of a transaction costs two units of capacity. Each is one round trip."""
    ledger, since = counting(with_clock(clock), SmallDynamoDB())
    pool = Pool(EVERYTHING)
    costs = []
    for number in range(300):
        one = ledger.admit(ask(limits=EVERYTHING, project=pool, tenant=pool))
        (admitting,) = since()
        assert ledger.settle(one, SPENT, {"nano_usd": 1})
        (settling,) = since()
        costs.append((admitting, settling))
        clock.now += number % 100
    assert set(costs) == {(11, 11)}
    assert 2 * 11 <= 25


@pytest.mark.parametrize("uid", ["u" * 36, "\U0001f600" * 255])
def test_user_with_all_that_can_be_revoked_is_admitted_for_25_units_at_most(uid: str) -> None:
    """A check of an item costs two units for each KB of it."""
    store = SmallDynamoDB()
    for number in range(revocation.MOST_NOTED):
        note(Revocation(uid, session_id=f"s_{number}"), NOON, store)
    item = store.items[items.subject("p", items.user(uid))]
    assert 11 - 2 + 2 * -(-size(item) // 1024) <= 25
    with pytest.raises(Conflict, match="all of the user's tokens"):
        note(Revocation(uid, jti="j"), NOON, store)
    note(Revocation(uid), NOON, store)
    assert size(store.items[items.subject("p", items.user(uid))]) < size(item) / 1.5


def test_request_without_limits_writes_nothing_but_that_it_is_open(clock: Clock) -> None:
    ledger, since = counting(with_clock(clock), SmallDynamoDB())
    one = ledger.admit(ask(limits=Limits()))
    ledger.settle(one, SPENT, {})
    assert since() == [3, 3]  # not blocked, reserved, open; released, written down, not open


def test_requests_of_several_users_from_one_address_share_its_limit(
    ledger_over_moto: Ledger, clock: Clock
) -> None:
    ledger = ledger_over_moto
    here: dict[str, Any] = {"address": "203.0.113.7", "address_rpm": 2}
    first = ledger.admit(ask(subject="u#ann", **here))
    ledger.admit(ask(subject="u#bob", **here))
    told = refused(ledger, ask(subject="u#cy", **here))
    assert (told.status, told.details["scope"], told.details["limit_name"]) == (
        429,
        "address",
        "rpm",
    )
    assert not [key for key in every("LEDGER#") if "u#cy" in key.pk]
    ledger.admit(ask(subject="u#cy", address="203.0.113.8", address_rpm=2))
    ledger.settle(first, SPENT, {})
    refused(ledger, ask(subject="u#ann", **here))  # a try counts, whatever became of it
    clock.now += 60
    ledger.admit(ask(subject="u#ann", **here))


def test_address_is_one_more_item_of_admission_and_none_of_settling(clock: Clock) -> None:
    ledger, since = counting(with_clock(clock), SmallDynamoDB())
    one = ledger.admit(ask(limits=Limits(), address="203.0.113.7", address_rpm=2))
    ledger.settle(one, SPENT, {})
    assert since() == [4, 3]
    ledger.admit(ask(limits=Limits(), address="203.0.113.7"))
    assert since() == [3]  # unset, it costs nothing


# ---------------------------------------------------------------- pools in shards

MONEY = Limits(nano_usd_per_month=8 * NANO // 100)  # for 8 requests
UNLIMITED = Limits()


def of_pool(name: str) -> list[int]:
    found = every("LEDGER#p#")
    return [each[name] for key, each in found.items() if "#u#" not in key.pk and name in each]


def admit(ledger: Ledger, project: Pool, times: int = 1) -> list[Reservation]:
    return [
        ledger.admit(ask(subject=f"u#{number}", limits=UNLIMITED, project=project))
        for number in range(times)
    ]


@pytest.mark.parametrize("shards", [2, 4, 16])
def test_pool_in_shards_admits_exactly_what_fits(ledger: Ledger, shards: int) -> None:
    admit(ledger, Pool(MONEY, shards), 8)
    assert refused(ledger, ask(limits=UNLIMITED, project=Pool(MONEY, shards)))
    assert sum(of_pool("nano_usd")) == sum(of_pool("nano_usd_reserved")) == 8 * NANO // 100


def test_one_request_may_take_what_is_left_in_all_shards(ledger: Ledger) -> None:
    admit(ledger, Pool(MONEY, 16), 3)
    dear = ask(limits=UNLIMITED, project=Pool(MONEY, 16), output=490)
    assert ledger.admit(dear).amounts.nano_usd == 5 * NANO // 100
    assert refused(ledger, ask(limits=UNLIMITED, project=Pool(MONEY, 16)))


def test_items_made_by_moving_what_is_used_expire_as_the_others_do(ledger: Ledger) -> None:
    admit(ledger, Pool(Limits(tpm=800, nano_usd_per_month=NANO // 12), 16, 1), 5)
    for item in client("dynamodb").scan(TableName="t")["Items"]:
        if item["pk"]["S"].startswith("LEDGER#") and item["sk"]["S"] != "NOW":
            assert int(item["ttl"]["N"]) > NOON


def test_once_a_pool_is_divided_anew_nobody_counts_by_what_was_configured_before(
    ledger: Ledger,
) -> None:
    old, new = Pool(MONEY, 4), Pool(MONEY, 4, 1)
    admit(ledger, old, 2)
    admit(ledger, new)
    before = every()
    for _ in range(4):
        with pytest.raises(StaleConfiguration):
            admit(ledger, old)
    assert every() == before


def test_whoever_knows_the_new_configuration_first_divides_anew_what_is_used(
    small: SmallDynamoDB, clock: Clock
) -> None:
    ledger, since = counting(with_clock(clock), small)
    admit(ledger, Pool(MONEY, 4), 3)
    since()
    admit(ledger, Pool(MONEY, 16, 1))
    assert since() == [4, 0, 16, 4]  # refused, read, divided, admitted
    assert of_pool("g") == [1] * 16
    assert sum(of_pool("nano_usd")) == 4 * NANO // 100
    admit(ledger, Pool(MONEY, 16, 1), 4)
    assert refused(ledger, ask(limits=UNLIMITED, project=Pool(MONEY, 16, 1)))


def test_pool_lowered_below_what_is_used_admits_again_when_enough_is_given_back(
    ledger: Ledger,
) -> None:
    holding = admit(ledger, Pool(MONEY, 4), 8)
    lower = Pool(Limits(nano_usd_per_month=3 * NANO // 100), 4, 1)
    for count in range(6):
        assert refused(ledger, ask(limits=UNLIMITED, project=lower)), count
        ledger.settle(holding.pop(), Settlement(0, 0, answered=False), None)
    admit(ledger, lower)
    assert refused(ledger, ask(limits=UNLIMITED, project=lower))
    assert sum(of_pool("nano_usd")) == 3 * NANO // 100


def test_raised_pool_admits_what_it_has_been_raised_by(ledger: Ledger) -> None:
    admit(ledger, Pool(MONEY, 4), 8)
    higher = Pool(Limits(nano_usd_per_month=10 * NANO // 100), 4, 1)
    admit(ledger, higher, 2)
    assert refused(ledger, ask(limits=UNLIMITED, project=higher))


def test_pool_divided_into_4_and_put_together_again_loses_nothing(ledger: Ledger) -> None:
    holding = []
    for generation, shards in ((0, 1), (1, 4), (2, 1), (3, 16)):
        assert sum(of_pool("nano_usd")) == 2 * generation * NANO // 100
        holding += admit(ledger, Pool(MONEY, shards, generation), 2)
    whole = Pool(MONEY, 1, 4)
    assert refused(ledger, ask(limits=UNLIMITED, project=whole))
    for one in holding:  # admitted in shards that are no more
        ledger.settle(one, SPENT, {})
    assert sum(of_pool("nano_usd")) == 4 * NANO // 100
    assert sum(of_pool("nano_usd_reserved")) == 0
    admit(ledger, whole, 4)
    assert refused(ledger, ask(limits=UNLIMITED, project=whole))


# ---------------------------------------------------------------- the sweeper

LATER = NOON + 361


def never() -> bool:
    return False


def test_request_that_is_overdue_is_settled_at_its_worst_case(ledger: Ledger) -> None:
    pool = Pool(EVERYTHING)
    ledger.admit(ask(limits=EVERYTHING, project=pool, tenant=pool, completion_id="one"))
    assert ledger.sweep(NOON + 360, never) == Swept(0, 0, 0, 0)
    assert ledger.sweep(LATER + 9, never) == Swept(1, 0, 10, NANO // 100)
    assert every("OPEN#") == {}
    (row,) = every("USAGE#").values()
    expected = {
        "outcome": "abandoned",
        "estimated": True,
        "input_tokens": 10,
        "output_tokens": 90,
        "nano_usd": NANO // 100,
        "completion_id": "one",
        "uid": "ann",
        "model": "m",
        "pid": "p",
    }
    assert expected.items() <= row.items()
    for counted in every("LEDGER#").values():
        assert not counted.get("open")
        assert counted.get("streams", 0) == counted.get("nano_usd_reserved", 0) == 0
        assert counted.get("nano_usd", NANO // 100) == NANO // 100
    assert ledger.sweep(LATER + 9, never) == Swept(0, 0, 0, 0)


def test_sweeper_leaves_what_is_not_due(ledger: Ledger) -> None:
    ledger.admit(ask())
    ledger.admit(replace(ask(subject="u#bob"), due=LATER + 100))
    assert ledger.sweep(LATER, never).settled == 1
    assert len(every("OPEN#")) == 1


def test_reservation_that_nobody_understands_does_not_stop_the_others(ledger: Ledger) -> None:
    for number in range(4):
        ledger.admit(ask(subject=f"u#{number}"))
    for shard in range(items.OPEN_SHARDS):
        key = Key(f"OPEN#{shard}", f"{NOON:010d}#first")
        client("dynamodb").put_item(TableName="t", Item={**key.item(), "doc": {"S": "nonsense"}})
    swept = ledger.sweep(LATER, never)
    assert (swept.settled, swept.failed) == (4, 8)
    assert len(every("OPEN#")) == 8


def test_what_an_undone_admission_has_left_is_swept_away_and_charges_nobody(
    ledger: Ledger,
) -> None:
    key = items.reservation("0" * 32, NOON)
    client("dynamodb").put_item(TableName="t", Item=key.item())
    assert ledger.sweep(LATER, never).settled == 0
    assert every() == {}


def test_more_than_a_page_of_reservations_is_swept(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weir.aws.ledger.settlement.SWEPT_AT_ONCE", 2)
    store = SmallDynamoDB()
    ledger = with_clock(clock)(store)
    for number in range(40):
        ledger.admit(ask(subject=f"u#{number}"))
    assert ledger.sweep(LATER, never).settled == 40


def test_sweeper_stops_between_two_reservations_when_its_time_is_up(ledger: Ledger) -> None:
    for number in range(5):
        ledger.admit(ask(subject=f"u#{number}"))
    answers = iter([False, False, True])
    assert ledger.sweep(LATER, lambda: next(answers)).settled == 2
    assert len(every("OPEN#")) == 3
    assert ledger.sweep(LATER, never).settled == 3


def test_two_sweepers_at_once_settle_once_and_one_counts_it(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.admit(ask())
    chance = SimpleNamespace(urandom=random.Random(1).randbytes)
    monkeypatch.setattr("weir.aws.ledger.settlement.os", chance)
    swept: list[int] = []

    def around(operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        if operation == "transact_write_items":
            swept.append(ledger.sweep(LATER, never).settled)
        return carry_out()

    other = with_clock(clock)(Between(client("dynamodb"), around))
    assert other.sweep(LATER, never).settled == 0
    assert swept == [1]
    assert len(every("USAGE#")) == 1
    month = every("LEDGER#")[Key(items.ledger("p", "u#ann"), items.month(NOON))]
    assert month["nano_usd"] == NANO // 100


def test_answer_that_ends_after_it_was_swept_is_not_charged_again(ledger: Ledger) -> None:
    reservation = ledger.admit(ask())
    ledger.sweep(LATER, never)
    before = every()
    assert not ledger.settle(reservation, SPENT, {"outcome": "completed"})
    assert every() == before
