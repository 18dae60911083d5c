"""weir customers and weir client-tokens, over a table."""

from typing import Any

import pytest

from tests.unit.cli.test_cli import Weir, configured, deployment, fresh, weir
from weir.aws.client_tokens import ClientTokens
from weir.aws.clients import client
from weir.aws.customers import Customers
from weir.customers.names import Reference
from weir.identity.client_tokens import ClientTokenRequest

__all__ = ["configured", "deployment", "fresh", "weir"]  # fixtures

NOW = 1_900_000_000


def jo(configured: Weir, *words: str) -> dict[str, Any]:
    made = configured("--json", "customers", "create", "user_7", *words).json()
    assert isinstance(made, dict)
    return made


def token(customer_id: str) -> str:
    store = client("dynamodb")
    found = Customers(store, "t", lambda: NOW).find("default", Reference(customer_id, None))
    body = {"origin_allowlist": ["https://a.example"]}
    wish = ClientTokenRequest.parse(body, found, default_ttl_s=900, here=False)
    return ClientTokens(store, "t").add("default", found.id, wish, "key_1", NOW)


def test_customer_is_made_changed_and_removed(configured: Weir) -> None:
    made = jo(configured, "--budget-usd", "2.5", "--name", "Jo", "--allow-model", "fc:main/*")
    assert (made["external_id"], made["budget_usd"], made["rate_limit_rpm"]) == ("user_7", 2.5, 30)
    assert made["allowed_models"] == ["fc:main/*"]
    for ref in ("user_7", "ext:user_7", made["id"]):
        assert configured("--json", "customers", "show", ref).json() == made
    words = ("--rate-limit-rpm", "none", "--budget-usd", "9")
    changed = configured("--json", "customers", "update", "user_7", *words).json()
    assert (changed["rate_limit_rpm"], changed["budget_usd"], changed["name"]) == (None, 9, "Jo")
    assert configured("--json", "customers", "block", "user_7").json()["status"] == "blocked"
    assert "blocked" in configured("customers", "list").out
    assert configured("--json", "customers", "unblock", "user_7").json()["status"] == "active"
    gone = configured("customers", "delete", "user_7", "--yes")
    assert gone.code == 0, gone.err
    assert configured("customers", "show", "user_7").code == 1
    actions = [entry["action"] for entry in configured("--json", "audit").json()["data"]]
    assert actions[:2] == ["customer.delete", "customer.change"]
    assert "customer.create" in actions


def test_customers_are_listed_the_newest_first_as_far_as_wanted(configured: Weir) -> None:
    for n in range(3):
        assert configured("customers", "create", f"user-{n}").code == 0
    told = configured("--json", "customers", "list", "--limit", "2").json()["data"]
    assert len(told) == 2
    assert "There are more" in configured("customers", "list", "--limit", "2").err
    assert len(configured("--json", "customers", "list").json()["data"]) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "user_undefined"), "had no id for this user"),
        (("create", "user_7", "--budget-usd", "none"), "allows no customer without a budget"),
        (("update", "user_7"), "Say what to change"),
        (("show", "user_8"), "no such customer"),
        (("list", "--limit", "0"), "from 1 to 10,000"),
    ],
)
def test_what_is_wrong_is_said(configured: Weir, words: tuple[str, ...], said: str) -> None:
    answer = configured("customers", *words)
    assert answer.code != 0
    assert said in answer.err


def test_second_customer_of_one_id_is_refused(configured: Weir) -> None:
    jo(configured)
    answer = configured("customers", "create", "ext:user_7")
    assert answer.code == 1
    assert "external_id already" in answer.err


def test_tokens_are_listed_and_refused(configured: Weir) -> None:
    made = jo(configured)
    one, two = token(made["id"]), token(made["id"])
    listed = configured("--json", "client-tokens", "list", "user_7").json()["data"]
    assert {each["id"] for each in listed} == {one, two}
    assert configured("client-tokens", "revoke", one).code == 0
    listed = configured("--json", "client-tokens", "list", "user_7").json()["data"]
    assert {each["id"]: each["status"] for each in listed} == {one: "revoked", two: "active"}
    assert configured("client-tokens", "revoke-all", made["id"], "--yes").code == 0
    assert configured("client-tokens", "revoke", "ct_nothing").code == 1
