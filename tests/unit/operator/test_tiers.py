"""A tier's limits in the words of Behest's control plane."""

from typing import Any

import pytest

from weir.errors import BadRequest
from weir.operator import tiers
from weir.operator.documents import parsed
from weir.projects.limits import ALL_FIELDS


def test_names_of_the_contract_are_read_as_the_limits_they_mean() -> None:
    told = parsed(
        tiers.NewTier,
        {
            "name": "team",
            "overrides": {"rpm_limit": 120, "tokens_per_day": None, "usd_per_month": 20.5},
        },
    )
    limits = told.overrides.limits().stored()
    assert limits == {"rpm": 120, "tokens_per_day": None, "usd_per_month": 20.5}


def test_every_limit_has_one_name_and_only_rpm_has_another_than_here() -> None:
    names = {limit.public: tiers.spelled(limit) for limit in ALL_FIELDS}
    assert len(set(names.values())) == len(names)
    assert [name for name, spelled in names.items() if name != spelled] == ["rpm"]


@pytest.mark.parametrize("name", sorted(tiers.NOT_OF_A_TIER))
def test_field_that_is_not_a_tiers_here_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadRequest) as told:
        parsed(tiers.TierChange, {"overrides": {name: "enforce"}})
    assert told.value.param == "overrides"
    assert name in told.value.message


@pytest.mark.parametrize("off", [None, "disabled", False, []])
def test_field_that_switches_nothing_on_is_accepted(off: Any) -> None:
    told = parsed(tiers.TierChange, {"overrides": {"pii_mode": off, "rpm_limit": 5}})
    assert told.overrides.limits().stored() == {"rpm": 5}


def test_zero_is_no_false() -> None:
    with pytest.raises(BadRequest):
        parsed(tiers.TierChange, {"overrides": {"retention_days": 0}})


@pytest.mark.parametrize(
    "body",
    [{"overrides": {"rpm": 5}}, {"overrides": {"rpm_limt": 5}}, {"rpm_limit": 5}, {}, []],
    ids=str,
)
def test_field_that_is_misspelt_or_misplaced_is_refused(body: Any) -> None:
    with pytest.raises(BadRequest):
        parsed(tiers.TierChange, body)
