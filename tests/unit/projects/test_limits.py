"""Tiers have the contract's numbers, an unknown one never fails open, and money is exact."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.errors import BadRequest
from weir.projects.limits import (
    DEFAULTS,
    NANO,
    WITHOUT_TIER,
    Amounts,
    Limits,
    Tiers,
    nano_usd,
    usd,
)
from weir.projects.project import Project

OWN = {
    "pro": {"number": 2, "limits": {"rpm": 70}},
    "team": {"number": 4, "limits": {"rpm": 500, "tokens_per_day": None}},
}


@pytest.mark.parametrize(
    ("tier", "rpm", "requests_per_day", "tokens_per_day"),
    [
        ("free", 10, 100, 50_000),
        ("pro", 60, 10_000, 2_000_000),
        ("max", 300, 100_000, 20_000_000),
    ],
)
def test_tier_has_the_contracts_numbers(
    tier: str, rpm: int, requests_per_day: int, tokens_per_day: int
) -> None:
    found = Tiers({}).find(tier)
    assert found is not None
    limits = found.limits
    assert (limits.rpm, limits.requests_per_day) == (rpm, requests_per_day)
    assert limits.tokens_per_day == tokens_per_day
    assert limits.max_output_tokens is not None


@pytest.mark.parametrize(
    ("spellings", "name"),
    [([1, "1", "free"], "free"), ([2, "2", "pro"], "pro"), ([3, "3", "max"], "max"),
     ([4, "4", "team"], "team")],
)  # fmt: skip
def test_tier_is_found_by_number_digits_or_name_and_keeps_its_spelling(
    spellings: list[int | str], name: str
) -> None:
    tiers = Tiers(OWN)
    for spelled in spellings:
        found = tiers.find(spelled)
        assert found is not None
        assert found.name == name
        kept = tiers.parse(spelled)
        assert (kept, type(kept)) == (spelled, type(spelled))


UNKNOWN = [0, 4, 5, -1, 10**30, "0", "4", "01", " 1", "1 ", "+1", "\u0661", "", "gold", "FREE",
           "Pro", "free ", "free\n", True, False, 1.0, 2.5, [], ["max"],
           {}, {"max": 1}]  # fmt: skip


@pytest.mark.parametrize("tier", UNKNOWN, ids=repr)
def test_unknown_tier_is_refused_by_name_and_counts_as_the_first_one(tier: Any) -> None:
    with pytest.raises(BadRequest, match=r"1 \(free\), 2 \(pro\), 3 \(max\)") as refused:
        Tiers({}).parse(tier)
    assert refused.value.param == "tier"
    # In a token that is still alive after its tier has been removed:
    assert Project.from_document("p", {}).limits_of(tier) == DEFAULTS["free"]


def test_no_tier_is_the_projects_limits_of_a_user_without_one() -> None:
    assert Tiers({}).parse(None) is None
    assert Project.from_document("p", {}).limits_of(None) == WITHOUT_TIER
    project = Project.from_document("p", {"user_limits": {"rpm": 3}})
    assert project.limits_of(None) == WITHOUT_TIER.overridden({"rpm": 3})


def test_tier_that_went_while_its_token_lives_counts_as_the_first_as_the_project_has_set_it() -> (
    None
):
    document = {"tiers": {"free": {"number": 1, "limits": {"rpm": 2}}}}
    assert Project.from_document("p", document).limits_of("team").rpm == 2


@pytest.mark.parametrize(
    ("groups", "tier"),
    [
        (set(), None),
        ({"free"}, "free"),
        ({"free", "max", "pro"}, "max"),
        ({"free", "pro"}, "pro"),
        ({"admins"}, None),
        ({"maximum", "Max", "3"}, None),
        ({"max", "team"}, "team"),
    ],
)
def test_tier_is_the_highest_of_a_users_groups(groups: set[str], tier: str | None) -> None:
    assert Tiers(OWN).highest_of(groups) == tier


def test_tier_of_ones_own_is_as_tight_as_the_first_where_nothing_is_set() -> None:
    found = Tiers(OWN).find("team")
    assert found is not None
    assert found.limits == DEFAULTS["free"].overridden({"rpm": 500, "tokens_per_day": None})
    assert found.limits.requests_per_day == 100


def test_built_in_tier_keeps_its_numbers_where_nothing_is_set() -> None:
    found = Tiers(OWN).find("pro")
    assert found is not None
    assert found.limits == DEFAULTS["pro"].overridden({"rpm": 70})


def test_null_is_no_limit_and_zero_is_nothing_at_all() -> None:
    limits = DEFAULTS["free"].overridden({"rpm": None, "tokens_per_day": 0, "usd_per_month": None})
    assert (limits.rpm, limits.tokens_per_day) == (None, 0)
    assert limits.nano_usd_per_month is None
    assert limits.requests_per_day == 100  # absent: stays


@pytest.mark.parametrize("name", ["RPM", "rpm ", "request_per_day", "usd_per_day", "nano_usd", ""])
def test_misspelt_limit_is_not_no_limit(name: str) -> None:
    with pytest.raises(ValueError, match="unknown limits"):
        DEFAULTS["free"].overridden({name: 1})


@pytest.mark.parametrize(
    ("amount", "nano"),
    [(0, 0), (1, NANO), (0.1, 100_000_000), (0.000001, 1000), (1_000_000, 10**15),
     (999_999.999999, 999_999_999_999_000), ("0.3", 300_000_000), (None, None)],
)  # fmt: skip
def test_usd_is_kept_in_whole_nano_usd(amount: Any, nano: int | None) -> None:
    assert nano_usd(amount) == nano
    assert Limits().overridden({"usd_per_month": amount}).nano_usd_per_month == nano


@given(st.integers(0, 10**12))
def test_money_of_six_decimals_is_exact_there_and_back(micro: int) -> None:
    """As JSON brings it: a float."""
    amount = float(Decimal(micro) / 10**6)
    nano = nano_usd(amount)
    assert nano == micro * 1000
    assert usd(nano) == amount
    assert Limits(nano_usd_per_month=nano).document()["usd_per_month"] == amount


def test_whole_amount_is_told_as_an_integer() -> None:
    assert repr(usd(20 * NANO)) == "20"
    assert Limits().document()["usd_per_month"] is None
    assert "nano_usd_per_month" not in Limits().document()


def test_amounts_are_kept_under_the_names_of_reservations_that_are_open_already() -> None:
    kept = {"tokens": 5, "nano_usd": 0}
    assert Amounts(5, 0).document() == kept
    read = Amounts.from_document({**kept, "id": "ab", "output_tokens": 3})
    assert (read, read.requests, read.streams) == (Amounts(5, 0), 1, 1)
