"""Idempotency-Key: what one may be, and what tells one request from another."""

import pytest

from weir.customers.idempotency import digest, fingerprint, parse_key
from weir.errors import BadRequest


def test_key_may_be_quoted_as_the_draft_wants_it() -> None:
    assert parse_key("upsert-42") == parse_key('"upsert-42"') == parse_key(" upsert-42 ")
    assert parse_key('"') == '"'
    assert parse_key("x" * 255) == "x" * 255
    assert parse_key(None) is None


@pytest.mark.parametrize("wrong", ["", '""', "a b", "a\tb", "ä", "x" * 256, "a\x7fb"])
def test_key_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse_key(wrong)
    assert refusal.value.code == "invalid_idempotency_key"


def test_order_of_members_makes_no_other_body() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


def test_parts_of_a_place_cannot_be_moved() -> None:
    assert digest("POST /v1/customers", "ab") != digest("POST /v1/customersa", "b")
