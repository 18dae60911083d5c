"""What may be written of a customer, and what its server reads."""

from typing import Any

import pytest

from weir.customers.customer import Customer, changed, created, normalised
from weir.errors import BadRequest, Forbidden
from weir.projects.limits import CUSTOMER, NANO, Limits

NOW = 1_781_000_000
ID = "cust_01J00000000000000000000000"
SEED: dict[str, Any] = {"external_id": "ext:user_7", "budget_usd": 5.0, "rate_limit_rpm": 30}


def made(**told: Any) -> Customer:
    return created({**SEED, **told}, ID, NOW, CUSTOMER)


def test_seeds_customer_is_made_as_it_says() -> None:
    one = made()
    assert (one.external_id, one.limits.rpm) == ("user_7", 30)
    assert one.limits.nano_usd_per_month == 5 * NANO
    told = one.view(NANO // 2, NOW + 9, "2026-06")
    assert told == {
        "object": "customer",
        "id": ID,
        "external_id": "user_7",
        "name": None,
        "budget_usd": 5,
        "rate_limit_rpm": 30,
        "rate_limit_tpm": None,
        "max_output_tokens": 1024,
        "allowed_models": None,
        "spend_usd_mtd": 0.5,
        "budget_period": "2026-06",
        "budget_resets_at": NOW + 9,
        "status": "active",
        "metadata": {},
        "created_at": NOW,
        "updated_at": NOW,
    }


def test_record_is_read_as_it_was_written() -> None:
    one = made(
        name="Jo", metadata={"plan": "pro"}, allowed_models=["fc:openai/*"], rate_limit_tpm=9
    )
    assert Customer.from_document(ID, one.document(), one.etag) == one


def test_without_limits_a_customer_gets_the_projects() -> None:
    one = created({"external_id": "a"}, ID, NOW, CUSTOMER)
    assert (
        one.limits
        == CUSTOMER
        == Limits(rpm=30, nano_usd_per_month=5 * NANO, max_output_tokens=1024, concurrent_streams=3)
    )


def test_what_a_change_does_not_name_stays() -> None:
    before = made(name="Jo", metadata={"a": 1})
    after = changed(before, {"budget_usd": 0.000000001, "later": "ignored"}, NOW + 1, CUSTOMER)
    assert after.limits.nano_usd_per_month == 1
    assert (after.name, after.metadata, after.limits.rpm) == ("Jo", {"a": 1}, 30)
    assert (after.created_at, after.updated_at) == (NOW, NOW + 1)
    assert changed(before, {"name": None, "metadata": None}, NOW, CUSTOMER).metadata == {}


def test_no_budget_is_for_projects_that_allow_it() -> None:
    with pytest.raises(BadRequest):
        made(budget_usd=None)
    free = Limits(rpm=30)
    one = created({**SEED, "budget_usd": None}, ID, NOW, free)
    assert one.limits.nano_usd_per_month is None
    assert one.view(0, NOW, "")["budget_usd"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("budget_usd", wrong) for wrong in (-1, 1e6 + 1, "5", True, 0.1234567891, ["5"])),
        *(("rate_limit_rpm", wrong) for wrong in (-1, 1.5, "30", True, 100_001)),
        *(("rate_limit_tpm", wrong) for wrong in (-1, 10**8 + 1)),
        *(("max_output_tokens", wrong) for wrong in (0, 10**7 + 1)),
        *(("name", wrong) for wrong in (7, "x" * 257, "a\nb")),
        *(("metadata", wrong) for wrong in ("a", [1], {str(n): n for n in range(51)})),
        ("metadata", {"a": "x" * 16_384}),
        *(("allowed_models", wrong) for wrong in ("fc:a/b", [7], ["a*b"], [""], ["x"] * 51)),
        *(("status", wrong) for wrong in ("deleted", None, "")),
    ],
)
def test_field_that_is_wrong_is_named(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as refusal:
        changed(made(), {field: value}, NOW, CUSTOMER)
    assert refusal.value.param == field


def test_alias_is_the_same_field() -> None:
    assert made(budget_usd=3, monthly_budget_usd=3).limits.nano_usd_per_month == 3 * NANO
    with pytest.raises(BadRequest) as refusal:
        made(budget_usd=3, monthly_budget_usd=4)
    assert refusal.value.param == "monthly_budget_usd"
    assert normalised({"monthly_budget_usd": 3, "external_id": "ext:a"}) == normalised(
        {"external_id": "a", "budget_usd": 3}
    )


def test_path_and_body_name_the_same_customer() -> None:
    assert created({}, ID, NOW, CUSTOMER, "user_7").external_id == "user_7"
    with pytest.raises(BadRequest):
        created({"external_id": "ext:user_8"}, ID, NOW, CUSTOMER, "user_7")


def test_blocked_one_is_refused() -> None:
    made().require_active()
    blocked = changed(made(), {"status": "blocked"}, NOW, CUSTOMER)
    with pytest.raises(Forbidden) as refusal:
        blocked.require_active()
    assert refusal.value.code == "customer_blocked"


def test_star_at_the_end_stands_for_any_rest() -> None:
    one = made(allowed_models=["fc:openai/*", "fc:mock/echo"])
    assert one.may_use("fc:openai/gpt-4o-mini")
    assert one.may_use("fc:mock/echo")
    assert not one.may_use("fc:mock/echo-2")
    assert not one.may_use("fc:openai-eu/gpt-4o")
    assert made().may_use("fc:anything/at-all")
    assert not made(allowed_models=[]).may_use("fc:mock/echo")
