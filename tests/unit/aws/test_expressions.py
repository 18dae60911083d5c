"""Expressions as DynamoDB reads them."""

from typing import Any

import pytest

from tests.unit.aws.small_dynamodb import SmallDynamoDB
from weir.aws.contention import AwsError, condition_failed
from weir.aws.expressions import ABSENT, Expression, attributes
from weir.aws.items import Key

KEY = Key("P", "S")


@pytest.fixture
def store() -> SmallDynamoDB:
    """As strict as AWS about names and values that nothing uses."""
    store = SmallDynamoDB()
    store.put_item(Item={**KEY.item(), "count": {"N": "5"}, "open": {"SS": ["a", "b"]}})
    return store


def passes(store: SmallDynamoDB, expression: Expression) -> bool:
    try:
        store.update_item(Key=KEY.item(), **expression.built())
    except AwsError as error:
        if not condition_failed(error):
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("attribute", "amount", "most", "fits"),
    [
        ("count", 3, 8, True),
        ("count", 3, 7, False),
        ("count", 3, None, True),
        ("count", -5, 0, True),
        ("absent", 3, 3, True),
        ("absent", 3, 2, False),  # there is nothing to compare with
        ("absent", 1, 0, False),
    ],
)
def test_counter_is_added_to_if_it_is_then_no_more_than_the_most(
    store: SmallDynamoDB, attribute: str, amount: int, most: int | None, fits: bool
) -> None:
    expression = Expression()
    expression.add(attribute, amount, most=most)
    before = store.items[KEY]
    was = int(before.get(attribute, {"N": "0"})["N"])
    assert passes(store, expression) == fits
    after = store.items[KEY]
    if fits:
        assert int(after[attribute]["N"]) == was + amount
    else:
        assert after == before


@pytest.mark.parametrize(("most", "fits"), [(3, True), (2, False), (1, False)])
def test_set_has_fewer_members_than_the_most(store: SmallDynamoDB, most: int, fits: bool) -> None:
    for attribute, expected in (("open", fits), ("absent", True)):
        expression = Expression()
        expression.add("count", 1)
        expression.require_fewer(attribute, most)
        assert passes(store, expression) == expected


def test_member_is_in_the_set_or_is_not(store: SmallDynamoDB) -> None:
    for member, absent in (("a", False), ("c", True)):
        for asked in (True, False):
            expression = Expression()
            expression.set("seen", "yes")
            expression.require_member("open", member, absent=asked)
            assert passes(store, expression) == (asked == absent)


def test_every_condition_must_hold(store: SmallDynamoDB) -> None:
    for value, expected in ((5, True), (4, False), (None, False)):
        expression = Expression()
        expression.set("version", 1)
        expression.require_present("open")
        expression.require_absent("gone")
        expression.require_equal("count", value)
        assert passes(store, expression) == expected


def test_clauses_of_one_kind_are_put_together(store: SmallDynamoDB) -> None:
    expression = Expression()
    expression.set("name", "n")
    expression.add("count", 1)
    expression.delete("open", ["a"])
    expression.set("ttl", 9)
    expression.add("size", 2)
    expression.remove(["d01q", "d02q"])
    assert passes(store, expression)
    assert store.items[KEY] == {
        **KEY.item(),
        "name": {"S": "n"},
        "ttl": {"N": "9"},
        "count": {"N": "6"},
        "size": {"N": "2"},
        "open": {"SS": ["b"]},
    }


def test_members_that_would_be_empty_are_left_out() -> None:
    """DynamoDB refuses them."""
    assert Expression(ABSENT).built() == {"ConditionExpression": "attribute_not_exists(pk)"}
    removing = Expression()
    removing.remove(["d01q"])
    assert removing.built() == {"UpdateExpression": "REMOVE d01q"}


def test_attribute_is_set_only_where_it_is_not_yet() -> None:
    expression = Expression()
    expression.set_once("ttl", 9)
    assert expression.built() == {
        "UpdateExpression": "SET #a0 = if_not_exists(#a0, :v0)",
        "ExpressionAttributeNames": {"#a0": "ttl"},
        "ExpressionAttributeValues": {":v0": {"N": "9"}},
    }


def test_attributes_have_the_type_of_their_value_and_none_is_left_out() -> None:
    values: dict[str, Any] = {"a": True, "b": 1, "c": 1.5, "d": "x", "e": None, "f": ["y"]}
    assert attributes(values) == {
        "a": {"BOOL": True},
        "b": {"N": "1"},
        "c": {"N": "1.5"},
        "d": {"S": "x"},
        "f": {"S": "['y']"},
    }
