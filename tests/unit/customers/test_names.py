"""How a customer is named: contracts/ringside.md, section 2.5."""

import pytest

from weir.customers.names import (
    Reference,
    is_customer_id,
    parse_external_id,
    parse_reference,
    ulid,
)
from weir.errors import BadRequest
from weir.identity.tokens import is_user_id

ID = "cust_" + ulid(1_781_000_000_000, bytes(10))


def test_ids_sort_by_the_time_they_were_made() -> None:
    """github.com/ulid/spec: 01ARYZ6S41… is 1469918176385 ms."""
    assert ulid(1469918176385, b"\xff" * 10) == "01ARYZ6S41ZZZZZZZZZZZZZZZZ"
    made = [ulid(at, b"\x80" * 10) for at in (1, 2, 31, 32, 1_781_000_000_000)]
    assert made == sorted(made)
    assert {len(each) for each in made} == {26}


def test_both_forms_of_a_body_name_the_same() -> None:
    assert parse_external_id("ext:user_7") == parse_external_id("user_7") == "user_7"
    assert parse_external_id("ext:ext:a") == "ext:a"  # one prefix, not more


def test_ids_are_compared_in_one_form_of_unicode() -> None:
    assert parse_external_id("Ame\u0301lie") == "Am\u00e9lie"


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "",
            "ext:",
            " a",
            "a ",
            ".",
            "..",
            "a/b",
            "a%2Fb",
            "a?b",
            "a#b",
            "a\\b",
            "a\nb",
            "x" * 256,
        ),
        *("user_undefined", "null", "NaN", "[object Object]", "None", "user_NULL"),
        *(None, 7, ["a"], True),
    ],
)
def test_external_id_that_would_be_somebody_elses_is_refused(wrong: object) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse_external_id(wrong)
    assert (refusal.value.code, refusal.value.param) == ("invalid_external_id", "external_id")


@pytest.mark.parametrize("good", ["a", "jo@example.com", "auth0|5f7c", "x" * 255, "ext", "Zoë Ⅷ"])
def test_external_ids_that_people_have_are_taken(good: str) -> None:
    assert parse_external_id(good) == good.replace("Zoë", "Zo\u00eb")


def test_reference_is_an_id_or_an_external_id() -> None:
    assert parse_reference(ID) == Reference(ID, None)
    assert parse_reference("cus_" + ID.removeprefix("cust_")) == Reference(ID, None)
    assert parse_reference("ext:user_7") == Reference(None, "user_7")
    for nobody in ("user_7", "cust_short", "", ID + "X", ID.lower()):
        assert parse_reference(nobody) == Reference(None, None)


def test_no_user_can_have_a_customers_id() -> None:
    """Usage names both, side by side."""
    assert is_customer_id(ID)
    assert not is_user_id(ID)
    assert is_user_id(ID.lower())
