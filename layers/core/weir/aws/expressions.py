"""DynamoDB's expressions, and the parts of a transaction that carry them, built in one place.

Attributes are always spelled as placeholders: many of their names are reserved words. Source:
Amazon DynamoDB developer guide, "Using expressions in DynamoDB".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from weir.aws.items import Item, Key
from weir.aws.store import Part

# Conditions on an item as a whole.
ABSENT = "attribute_not_exists(pk)"
PRESENT = "attribute_exists(pk)"

Value = bool | int | float | str | list[str]  # a list is a set of strings


class Expression:
    """An update, a condition, or both, built term by term."""

    def __init__(self, *conditions: str) -> None:
        """`conditions` name no attribute but the key's."""
        self._clauses: dict[str, list[str]] = {}
        self._conditions = list(conditions)
        self._names: dict[str, str] = {}
        self._values: Item = {}

    # ------------------------------------------------------------ the update

    def set(self, attribute: str, value: Value) -> None:
        self._clause("SET", f"{self._name(attribute)} = {self._value(value)}")

    def set_once(self, attribute: str, value: Value) -> None:
        """Set it where it is not there yet."""
        name = self._name(attribute)
        self._clause("SET", f"{name} = if_not_exists({name}, {self._value(value)})")

    def add(self, attribute: str, value: int | list[str], *, most: int | None = None) -> None:
        """Add a number to a counter, or members to a set. With `most`: only if the counter is then
        no more than that.
        """
        name = self._name(attribute)
        self._clause("ADD", f"{name} {self._value(value)}")
        if most is None or not isinstance(value, int):
            return
        fits = f"{name} <= {self._value(most - value)}"
        # Where nothing is used yet there is no counter, and a comparison with it fails.
        self.require(f"(attribute_not_exists({name}) OR {fits})" if most >= value else fits)

    def raise_to(self, attribute: str, value: int) -> None:
        """Set a number, only if that makes it larger or it is not there yet."""
        name, placeholder = self._name(attribute), self._value(value)
        self._clause("SET", f"{name} = {placeholder}")
        self.require(f"(attribute_not_exists({name}) OR {name} < {placeholder})")

    def lower_to(self, attribute: str, value: int) -> None:
        """Set a number, only if that makes it smaller or it is not there yet."""
        name, placeholder = self._name(attribute), self._value(value)
        self._clause("SET", f"{name} = {placeholder}")
        self.require(f"(attribute_not_exists({name}) OR {placeholder} < {name})")

    def delete(self, attribute: str, members: list[str]) -> None:
        """Take members out of a set; a set without members is no longer there."""
        self._clause("DELETE", f"{self._name(attribute)} {self._value(members)}")

    def remove(self, attributes: Iterable[str]) -> None:
        """Remove attributes, whose names must not be reserved words: placeholders for many of them
        would be most of the request.
        """
        for attribute in attributes:
            self._clause("REMOVE", attribute)

    def remove_named(self, attribute: str) -> None:
        """Remove one attribute, whatever its name."""
        self._clause("REMOVE", self._name(attribute))

    # ------------------------------------------------------------ the condition

    def require(self, condition: str) -> None:
        self._conditions.append(condition)

    def require_equal(self, attribute: str, value: int | str | None) -> None:
        """None: the attribute is not there."""
        if value is None:
            self.require_absent(attribute)
        else:
            self.require(f"{self._name(attribute)} = {self._value(value)}")

    def require_new_or_below(self, attribute: str, bound: int) -> None:
        """There is no item, or its number is smaller."""
        self.require(f"({ABSENT} OR {self._name(attribute)} < {self._value(bound)})")

    def require_equal_if_present(self, attribute: str, value: str) -> None:
        """It is this, or not there."""
        name = self._name(attribute)
        self.require(f"(attribute_not_exists({name}) OR {name} = {self._value(value)})")

    def require_below(self, attribute: str, bound: int) -> None:
        """The number is smaller, or not there."""
        name = self._name(attribute)
        self.require(f"(attribute_not_exists({name}) OR {name} < {self._value(bound)})")

    def require_absent(self, attribute: str) -> None:
        self.require(f"attribute_not_exists({self._name(attribute)})")

    def require_present(self, attribute: str) -> None:
        self.require(f"attribute_exists({self._name(attribute)})")

    def require_member(self, attribute: str, member: str, *, absent: bool = False) -> None:
        """The member is in the set; `absent`: it is not."""
        test = f"contains({self._name(attribute)}, {self._value(member)})"
        self.require(f"NOT {test}" if absent else test)

    def require_fewer(self, attribute: str, most: int) -> None:
        """The set has fewer members than `most`, which must be above 0: a set that is not there has
        no size, and passes.
        """
        name = self._name(attribute)
        fits = f"size({name}) < {self._value(most)}"
        self.require(f"(attribute_not_exists({name}) OR {fits})")

    # ------------------------------------------------------------ the whole

    @property
    def changes_nothing(self) -> bool:
        """Whether it is only a condition."""
        return not self._clauses

    def built(self) -> dict[str, Any]:
        """Return the members of the call, or of the part of a transaction."""
        update = " ".join(f"{verb} {', '.join(terms)}" for verb, terms in self._clauses.items())
        members = {
            "UpdateExpression": update,
            "ConditionExpression": " AND ".join(self._conditions),
            "ExpressionAttributeNames": {to: name for name, to in self._names.items()},
            "ExpressionAttributeValues": self._values,
        }
        return {name: value for name, value in members.items() if value}

    def _name(self, attribute: str) -> str:
        return self._names.setdefault(attribute, f"#a{len(self._names)}")

    def _value(self, value: Value) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = typed(value)
        return placeholder

    def _clause(self, verb: str, term: str) -> None:
        self._clauses.setdefault(verb, []).append(term)


# ---------------------------------------------------------------- parts of a transaction


def update(table: str, key: Key, expression: Expression) -> Part:
    return {"Update": {"TableName": table, "Key": key.item(), **expression.built()}}


def put(table: str, item: Item, when: Expression | None = None) -> Part:
    """Without a condition it replaces whatever is there."""
    return {"Put": {"TableName": table, "Item": item, **(when.built() if when else {})}}


def delete(table: str, key: Key, when: Expression | None = None) -> Part:
    return {"Delete": {"TableName": table, "Key": key.item(), **(when.built() if when else {})}}


def check(table: str, key: Key, when: Expression) -> Part:
    return {"ConditionCheck": {"TableName": table, "Key": key.item(), **when.built()}}


# ---------------------------------------------------------------- values


def typed(value: Value) -> Item:
    """Return the value as DynamoDB spells it."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": str(value)}
    return {"SS": value} if isinstance(value, list) else {"S": value}


def attributes(values: Mapping[str, object]) -> Item:
    """Return attributes of an item: numbers, truth values, all else as text. None is left out."""
    return {
        name: typed(value if isinstance(value, bool | int | float) else str(value))
        for name, value in values.items()
        if value is not None
    }
