"""A chat for a customer: who may name one, and what a page may send."""

from typing import Any

import pytest

from weir.chat.customers import (
    named_by_server,
    narrowed,
    refuse_another,
    token_use,
)
from weir.customers.names import Reference
from weir.errors import BadRequest, Forbidden
from weir.identity.bindings import Bindings, IpBinding
from weir.ledger.admission import TokenUse
from weir.projects.limits import TokenLimits
from weir.projects.project import Project
from weir.web.request import Request

CUST = "cust_01J00000000000000000000000"
HI = {"role": "user", "content": "hi"}


def request(source: str = "", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("r", "POST", "/", named, source=source)


def bindings(ip: IpBinding = IpBinding.OFF, prompt_id: str | None = None) -> Bindings:
    return Bindings("ct_x", frozenset(), frozenset(), ip, prompt_id=prompt_id)


# ---------------------------------------------------------------- who is named


def test_server_names_a_customer_in_one_of_two_places() -> None:
    by_name = Reference(None, "u_1")
    assert named_by_server(request(fc_customer="ext:u_1"), {}) == (by_name, False)
    assert named_by_server(request(), {"user": "u_1"}) == (by_name, True)
    assert named_by_server(request(), {"user": "ext:u_1"}) == (by_name, True)
    assert named_by_server(request(), {"user": CUST}) == (Reference(CUST, None), True)
    assert named_by_server(request(fc_customer="ext:u_1"), {"user": "u_1"}) == (by_name, False)
    assert named_by_server(request(), {"user": None}) is None
    assert named_by_server(request(), {"user": ""}) is None


@pytest.mark.parametrize(
    ("header", "user", "code"),
    [
        ("ext:u_1", "u_2", "customer_conflict"),
        (CUST, "u_2", "customer_conflict"),
        ("", 7, "validation_error"),
        ("ext:undefined", None, "invalid_external_id"),
        ("", "user_undefined", "invalid_external_id"),
    ],
)
def test_server_that_names_nobody_clearly_is_refused(header: str, user: Any, code: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        named_by_server(request(fc_customer=header), {"user": user})
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("body", "header"),
    [
        ({"user": CUST}, CUST),
        ({"user": "u_1"}, CUST),
        ({"user": ""}, CUST),
        ({"customer": "another"}, CUST),
        ({"customer_id": ["x"]}, CUST),
        ({}, "ext:u_1"),
        ({}, "ext:whoever"),
    ],
)
def test_page_names_nobody(body: dict[str, Any], header: str) -> None:
    with pytest.raises(Forbidden) as refusal:
        refuse_another(request(fc_customer=header), body, CUST)
    assert refusal.value.code == "client_token_customer_mismatch"
    assert CUST not in refusal.value.message


def test_page_may_name_who_it_is_for() -> None:
    refuse_another(request(), {"user": None, "messages": []}, CUST)
    refuse_another(request(fc_customer=CUST), {"customer": CUST}, CUST)


# ---------------------------------------------------------------- what a page may send


def test_fields_for_servers_are_left_out_of_a_pages_request() -> None:
    body = {"messages": [HI], "store": True, "metadata": None, "temperature": 1, "n": 1}
    kept, left_out = narrowed(body, bindings(), Project.from_document("p", {}))
    assert kept == {"messages": [HI], "temperature": 1, "n": 1}
    assert left_out == ("store",)
    with pytest.raises(BadRequest):
        narrowed({**body, "n": 2}, bindings(), Project.from_document("p", {}))


def test_servers_prompt_stands_in_the_place_of_the_pages() -> None:
    project = Project.from_document("p", {"prompts": {"support": "Only parcels."}})
    messages = [
        {"role": "system", "content": "pirate"},
        HI,
        {"role": "developer", "content": "louder"},
        {"role": "assistant", "content": "Yes?"},
    ]
    kept, left_out = narrowed({"messages": messages}, bindings(prompt_id="support"), project)
    assert kept["messages"] == [
        {"role": "system", "content": "Only parcels."},
        HI,
        {"role": "assistant", "content": "Yes?"},
    ]
    assert left_out == ("messages.system",)
    kept, left_out = narrowed({"messages": [HI]}, bindings(prompt_id="support"), project)
    assert (len(kept["messages"]), left_out) == (2, ())
    with pytest.raises(BadRequest):
        narrowed({"messages": messages[:1]}, bindings(prompt_id="support"), project)
    with pytest.raises(Forbidden) as refusal:
        narrowed({"messages": [HI]}, bindings(prompt_id="gone"), project)
    assert refusal.value.code == "prompt_not_found"


# ---------------------------------------------------------------- two families of addresses


@pytest.mark.parametrize(
    ("ip", "source", "attribute", "first"),
    [
        (IpBinding.FIRST, "93.184.216.34", "ip", True),
        (IpBinding.FIRST, "2606:2800:21f::9", "ip", True),
        (IpBinding.PIN_4, "93.184.216.34", "ip", False),
        (IpBinding.PIN_4, "::ffff:93.184.216.34", "ip", False),
        (IpBinding.PIN_4, "2606:2800:21f::9", "other_ip", True),
        (IpBinding.PIN_6, "2606:2800:21f::9", "ip", False),
        (IpBinding.PIN_6, "93.184.216.34", "other_ip", True),
    ],
)
def test_caller_of_the_other_family_is_bound_at_first_use(
    ip: IpBinding, source: str, attribute: str, first: bool
) -> None:
    found = token_use(request(source), bindings(ip))
    counted = "2606:2800:21f::/64" if ":" in source.removeprefix("::ffff:") else "93.184.216.34"
    assert found == TokenUse("ct_x", TokenLimits(), counted, attribute, first)


def test_token_without_binding_looks_at_no_address() -> None:
    assert token_use(request("10.0.0.1"), bindings()) == TokenUse("ct_x", TokenLimits())
