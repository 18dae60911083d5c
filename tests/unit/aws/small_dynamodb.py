"""As much of DynamoDB as the ledger uses, in memory: some hundred times as fast as moto, and with
the idempotency of transactions, which moto has not.

Source: Amazon DynamoDB, API reference of TransactWriteItems; developer guide on expressions.
Stricter than moto: a name or value that no expression uses, a path that two clauses touch, and an
item that two parts touch are refused, as AWS does.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from weir.aws.contention import AwsError

Item = dict[str, Any]
Test = Callable[[Item], bool]
_RANGE = re.compile(r"pk = :pk( AND sk (?P<operator>[<>]) (?P<name>:\w+))?")
_CLAUSES = re.compile(r"\b(SET|ADD|REMOVE|DELETE) ")
_TERMS = re.compile(r",(?![^(]*\))")  # commas within brackets divide no terms
_ONCE = re.compile(r"if_not_exists\(#\w+, (:\w+)\)")


class SmallDynamoDB:
    def __init__(self) -> None:
        # An attribute's value is replaced, never changed: a copy of an item need not be deep.
        self.items: dict[tuple[str, str], Item] = {}
        self._told: dict[str, str] = {}  # by the transaction's token
        self._done: set[str] = set()

    # ------------------------------------------------------------ reading

    def scan(self, **_asked: Any) -> dict[str, Any]:
        return {"Items": [dict(self.items[key]) for key in sorted(self.items)]}

    def get_item(self, **asked: Any) -> dict[str, Any]:
        item = self.items.get(_key(asked["Key"]))
        return {"Item": dict(item)} if item else {}

    def batch_get_item(self, **asked: Any) -> dict[str, Any]:
        ((name, of_table),) = asked["RequestItems"].items()
        found = [self.items.get(_key(key)) for key in of_table["Keys"]]
        return {"Responses": {name: [dict(item) for item in found if item]}}

    def query(self, **asked: Any) -> dict[str, Any]:
        values = dict(asked["ExpressionAttributeValues"])
        pk = values.pop(":pk")["S"]
        found = _RANGE.fullmatch(asked["KeyConditionExpression"])
        assert found, asked["KeyConditionExpression"]
        bound = values.pop(found["name"])["S"] if found["name"] else ""
        after = bound if found["operator"] == ">" else ""
        below = bound if found["operator"] == "<" else "\U0010ffff"
        after = asked.get("ExclusiveStartKey", {"sk": {"S": after}})["sk"]["S"]
        keys = sorted(key for key in self.items if key[0] == pk and after < key[1] < below)
        if not asked.get("ScanIndexForward", True):
            assert "ExclusiveStartKey" not in asked
            keys.reverse()
        page = keys[: asked["Limit"]]
        answer: dict[str, Any] = {"Items": [dict(self.items[key]) for key in page]}
        if len(page) == asked["Limit"]:
            answer["LastEvaluatedKey"] = {"pk": {"S": pk}, "sk": {"S": page[-1][1]}}
        return answer

    # ------------------------------------------------------------ writing

    def put_item(self, **asked: Any) -> dict[str, Any]:
        return self._one("Put", asked)

    def update_item(self, **asked: Any) -> dict[str, Any]:
        return self._one("Update", asked)

    def delete_item(self, **asked: Any) -> dict[str, Any]:
        return self._one("Delete", asked)

    def _one(self, kind: str, asked: dict[str, Any]) -> dict[str, Any]:
        part = _Part(kind, asked)
        before = self.items.get(part.key)
        if not part.holds(before):
            code = "ConditionalCheckFailedException"
            raise AwsError("the condition does not hold", 400, code)
        self._set(part.key, part.after(before))
        return {}

    def transact_write_items(self, **asked: Any) -> dict[str, Any]:
        token = asked.get("ClientRequestToken")
        assert token is None or 1 <= len(token) <= 36
        told = json.dumps(asked["TransactItems"])
        if token is not None and self._told.setdefault(token, told) != told:
            raise AwsError("other words", 400, "IdempotentParameterMismatchException")
        if token in self._done:
            return {}
        parts = [_Part(*next(iter(part.items()))) for part in asked["TransactItems"]]
        if not 1 <= len(parts) <= 100 or len({part.key for part in parts}) < len(parts):
            raise AwsError("parts", 400, "ValidationException")
        reasons: list[dict[str, Any]] = []
        for part in parts:
            before = self.items.get(part.key)
            if part.holds(before):
                reasons.append({"Code": "None"})
            else:
                reasons.append({"Code": "ConditionalCheckFailed"})
                if part.tells and before:
                    reasons[-1]["Item"] = dict(before)
        if any(reason["Code"] != "None" for reason in reasons):
            raise AwsError("cancelled", 400, "TransactionCanceledException", reasons)
        for part in parts:
            self._set(part.key, part.after(self.items.get(part.key)))
        if token is not None:
            self._done.add(token)
        return {}

    def _set(self, key: tuple[str, str], item: Item | None) -> None:
        if item is None:
            self.items.pop(key, None)
        else:
            self.items[key] = item


class Between:
    """A client, of this or of moto, that lets something happen with each call: `around` is
    given the operation's name, what is asked, and how to carry it out.
    """

    def __init__(self, store: Any, around: Callable[..., Any]) -> None:
        self._store, self._around = store, around
        self.calls: list[str] = []

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        carry_out = getattr(self._store, operation)

        def call(**asked: Any) -> Any:
            self.calls.append(operation)
            return self._around(operation, asked, lambda: carry_out(**asked))

        return call


class _Part:
    """One write of a transaction, understood."""

    def __init__(self, kind: str, asked: Mapping[str, Any]) -> None:
        self._kind, self._asked = kind, asked
        self.key = _key(asked["Item"] if kind == "Put" else asked["Key"])
        self._names = asked.get("ExpressionAttributeNames", {})
        self._values = asked.get("ExpressionAttributeValues", {})
        self.tells = asked.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        condition, update = asked.get("ConditionExpression", ""), asked.get("UpdateExpression", "")
        said = set(re.findall(r"[#:]\w+", f"{condition} {update}"))
        if said != {*self._names, *self._values}:
            raise AwsError("names or values unused or unknown", 400, "ValidationException")
        self._test = self._condition(condition) if condition else None
        self._update = update

    def holds(self, before: Item | None) -> bool:
        return self._test is None or self._test(before or {})

    def after(self, before: Item | None) -> Item | None:
        if self._kind == "Put":
            return dict(self._asked["Item"])
        if self._kind == "Delete":
            return None
        if self._kind == "ConditionCheck":
            return before
        item = dict(before or self._asked["Key"])
        said = _CLAUSES.split(self._update)[1:]
        touched: list[str] = []
        for verb, terms in zip(said[::2], said[1::2], strict=True):
            for term in _TERMS.split(terms):
                name, _, value = term.strip().replace(" = ", " ").partition(" ")
                name = self._names.get(name, name)
                touched.append(name)
                if once := _ONCE.fullmatch(value):
                    if name in item:
                        continue
                    value = once[1]
                _changed(item, verb, name, self._values.get(value))
        if len(set(touched)) < len(touched):
            raise AwsError("two clauses touch one path", 400, "ValidationException")
        return item

    # ------------------------------------------------------------ conditions

    def _condition(self, text: str) -> Test:
        tokens = re.findall(r"<=|[#:]?\w+|[(),=<]", text)
        test = self._either(tokens)
        assert not tokens, text
        return test

    def _either(self, tokens: list[str]) -> Test:
        tests = [self._both(tokens)]
        while tokens[:1] == ["OR"]:
            tokens.pop(0)
            tests.append(self._both(tokens))
        return lambda item: any(test(item) for test in tests)

    def _both(self, tokens: list[str]) -> Test:
        tests = [self._single(tokens)]
        while tokens[:1] == ["AND"]:
            tokens.pop(0)
            tests.append(self._single(tokens))
        return lambda item: all(test(item) for test in tests)

    def _single(self, tokens: list[str]) -> Test:
        first = tokens.pop(0)
        if first == "NOT":
            negated = self._single(tokens)
            return lambda item: not negated(item)
        if first == "(":
            inner = self._either(tokens)
            assert tokens.pop(0) == ")"
            return inner
        if first in ("attribute_exists", "attribute_not_exists"):
            (name,) = self._arguments(tokens)
            name = self._names.get(name, name)
            return lambda item: (name in item) == (first == "attribute_exists")
        if first == "contains":
            name, one = self._arguments(tokens)
            name, member = self._names.get(name, name), self._values[one]["S"]
            return lambda item: member in item.get(name, {}).get("SS", ())
        if first == "size":
            (name,) = self._arguments(tokens)
            name = self._names.get(name, name)
            return self._compared(tokens, lambda item: _size(item.get(name)))
        if first.startswith(":"):  # a value below an attribute
            assert tokens.pop(0) == "<"
            below, name = int(self._values[first]["N"]), self._names[tokens.pop(0)]
            return lambda item: (value := _number(item.get(name))) is not None and below < value
        name = self._names.get(first, first)
        if "S" in self._values.get(tokens[1], {}):
            equals, text = tokens.pop(0), self._values[tokens.pop(0)]
            assert equals == "="
            return lambda item: item.get(name) == text
        return self._compared(tokens, lambda item: _number(item.get(name)))

    def _compared(self, tokens: list[str], left: Callable[[Item], int | None]) -> Test:
        """What is not there compares with nothing."""
        operator, right = tokens.pop(0), int(self._values[tokens.pop(0)]["N"])
        compare: Callable[[int], bool] = {
            "=": lambda value: value == right,
            "<": lambda value: value < right,
            "<=": lambda value: value <= right,
        }[operator]
        return lambda item: (value := left(item)) is not None and compare(value)

    @staticmethod
    def _arguments(tokens: list[str]) -> list[str]:
        end = tokens.index(")")
        arguments = [token for token in tokens[1:end] if token != ","]
        del tokens[: end + 1]
        return arguments


def _changed(item: Item, verb: str, name: str, value: Any) -> None:
    if verb == "SET":
        item[name] = value
    elif verb == "REMOVE":
        item.pop(name, None)
    elif "N" in value:
        item[name] = {"N": str(int(item.get(name, {"N": "0"})["N"]) + int(value["N"]))}
    else:
        members = set(item.get(name, {"SS": []})["SS"])
        members = members | {*value["SS"]} if verb == "ADD" else members - {*value["SS"]}
        item[name] = {"SS": sorted(members)}
        if not members:
            del item[name]


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _number(value: Any) -> int | None:
    return int(value["N"]) if value else None


def _size(value: Any) -> int | None:
    return len(value["SS"]) if value else None
