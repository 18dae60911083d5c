"""The ledger over a table: what is admitted and refused, and that the books balance."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from weir.aws import items
from weir.aws.clients import client
from weir.aws.items import Key
from weir.aws.ledger import Ask, Ledger, Reservation, StaleConfiguration
from weir.errors import Conflict, Killed, LimitReached, QuotaExceeded, Refusal
from weir.ledger import Amounts, Field, Settlement
from weir.limits import NANO, Limits, Pool

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
def ledger(aws: None, clock: Clock) -> Ledger:
    return Ledger(client("dynamodb"), "t", clock, sleep=lambda seconds: None)


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
    shrinkable: bool = False,
    limited: frozenset[str] = frozenset(),
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
        choices=1,
        shrinkable=shrinkable,
        due=NOON + 360,
        row={"uid": subject[2:], "model": "m"},
    )


ask.count = 0  # type: ignore[attr-defined]
SPENT = Settlement(tokens=50, nano_usd=NANO // 200, answered=True)


def every(prefix: str) -> dict[Key, dict[str, Any]]:
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
    ledger: Ledger,
) -> None:
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


def test_second_settling_changes_nothing(ledger: Ledger) -> None:
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
    ledger: Ledger,
    limits: Limits,
    name: str,
    kind: type[Refusal],
    resets_at: int,
    used: float,
    scope: str,
    shards: int,
) -> None:
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
    if scope == "user" or name != "usd_per_month":
        assert list(told.details["usage"].values()) == [used]
    else:
        assert "usage" not in told.details
        assert "0.0" not in told.message
    if shards == 1:
        assert every("") == before
    assert sum(each.get("nano_usd", 0) for each in every("LEDGER#").values()) == sum(
        each.get("nano_usd", 0) for each in before.values()
    )
