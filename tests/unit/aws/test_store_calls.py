"""The calls that we type ourselves, because botocore has no types, are those that AWS has."""

import inspect
from typing import Any

import pytest
from botocore import xform_name
from botocore.session import Session

from weir.aws.lean import Client
from weir.aws.store import Store

OPERATIONS: dict[str, Any] = {
    xform_name(name): name for name in Session().get_service_model("dynamodb").operation_names
}
CALLS = [name for name in vars(Store) if not name.startswith("_")]


def test_there_are_calls() -> None:
    assert {"get_item", "transact_write_items", "scan"} <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_call_has_the_members_that_aws_knows_and_all_that_it_requires(name: str) -> None:
    shape: Any = Session().get_service_model("dynamodb").operation_model(OPERATIONS[name])
    members = inspect.signature(getattr(Store, name)).parameters
    ours = {each for each in members if each != "self"}
    assert ours <= set(shape.input_shape.members)
    assert set(shape.input_shape.required_members) <= ours


@pytest.mark.parametrize("name", CALLS)
def test_lean_client_sends_the_operation_that_the_call_is_named_after(name: str) -> None:
    sent: list[tuple[str, Any]] = []

    class Noted:
        def call(self, operation: str, payload: Any) -> dict[str, Any]:
            sent.append((operation, payload))
            return {}

    noted: Any = Noted()
    getattr(Client(noted), name)(TableName="t")
    assert sent == [(OPERATIONS[name], {"TableName": "t"})]
