"""Client tokens in the ledger: bound at first use, revoked at once, and never used beyond their
own caps; customers' records, whose version an admission demands.
"""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.aws.small_dynamodb import SmallDynamoDB
from tests.unit.aws.test_ledger import NOON, Clock, ask, with_clock
from weir.aws import items
from weir.aws.client_tokens import MINTS_OF_A_CUSTOMER, ClientTokens
from weir.aws.customers import Changed, Customers
from weir.aws.ledger import Ledger
from weir.customers.customer import DELETED, Customer, changed, created
from weir.customers.names import Reference
from weir.errors import (
    ExternalIdTaken,
    Forbidden,
    LimitReached,
    NotFound,
    QuotaExceeded,
    Unauthenticated,
)
from weir.identity.bindings import IpBinding
from weir.identity.client_tokens import ClientTokenRequest
from weir.ledger.admission import Ask, StaleCustomer, TokenUse
from weir.ledger.rules import Settlement
from weir.projects.limits import CUSTOMER, NANO, Limits
from weir.revocation import Issued

FREE = Limits(concurrent_streams=100)
NEVER = 10**6


@pytest.fixture
def store() -> Any:
    return SmallDynamoDB()


@pytest.fixture
def customers(store: Any) -> Customers:
    return Customers(store, "t", lambda: NOON)


@pytest.fixture
def ledger(store: Any) -> Ledger:
    return with_clock(Clock())(store)


@pytest.fixture
def jo(customers: Customers) -> Customer:
    one = created({"external_id": "jo"}, customers.new_id(NOON * 1000), NOON, CUSTOMER)
    customers.create("p", one, NOON, NEVER)
    return one


def token(store: Any, customer: Customer, **told: Any) -> TokenUse:
    body = {"origin_allowlist": ["https://a.example"], **told}
    wish = ClientTokenRequest.parse(body, customer, default_ttl_s=900, here=False)
    made = ClientTokens(store, "t").add("p", customer.id, wish, "key_1", NOON)
    first = wish.ip is IpBinding.FIRST
    address = None if wish.ip is IpBinding.OFF else "93.184.216.34"
    return TokenUse(made, wish.limits, address, "ip", first)


def asked(customer: Customer, use: TokenUse | None = None, **how: Any) -> Ask:
    told = ask(subject=items.customer(customer.id), limits=FREE, **how)
    return replace(told, etag=customer.etag, client_token=use, token=Issued(NOON, "j", None))


def at(use: TokenUse, address: str) -> TokenUse:
    return replace(use, address=address)


# ---------------------------------------------------------------- the token's record


def test_token_is_bound_to_the_address_of_its_first_use(
    ledger: Ledger, store: Any, jo: Customer
) -> None:
    use = token(store, jo)
    ledger.admit(asked(jo, use))
    ledger.admit(asked(jo, use))
    with pytest.raises(Forbidden) as refusal:
        ledger.admit(asked(jo, at(use, "198.51.100.7")))
    assert refusal.value.code == "client_token_ip_mismatch"


def test_address_of_a_request_that_was_refused_binds_nothing(
    ledger: Ledger, store: Any, jo: Customer
) -> None:
    use = token(store, jo)
    told = asked(jo, at(use, "198.51.100.7"))
    with pytest.raises(QuotaExceeded):
        ledger.admit(replace(told, limits=Limits(nano_usd_per_month=0, concurrent_streams=1)))
    assert ledger.admit(asked(jo, use))


def test_pinned_token_works_from_its_address_only(ledger: Ledger, store: Any, jo: Customer) -> None:
    use = token(store, jo, ip="93.184.216.34")
    assert ledger.admit(asked(jo, use))
    with pytest.raises(Forbidden):
        ledger.admit(asked(jo, at(use, "198.51.100.7")))
    other = replace(use, address="2606:2800:21f::/64", attribute="other_ip", first=True)
    assert ledger.admit(asked(jo, other))
    with pytest.raises(Forbidden):
        ledger.admit(asked(jo, at(other, "2606:2800:220::/64")))
    assert ledger.admit(asked(jo, use))


def test_token_that_was_revoked_or_never_made_is_refused(
    ledger: Ledger, store: Any, jo: Customer
) -> None:
    tokens, use = ClientTokens(store, "t"), token(store, jo, bind_ip=False)
    assert ledger.admit(asked(jo, use))
    tokens.revoke("p", use.token_id, NOON)
    tokens.revoke("p", use.token_id, NOON + 1)
    for wrong in (use, replace(use, token_id=use.token_id[:-1] + "Z")):
        with pytest.raises(Unauthenticated) as refusal:
            ledger.admit(asked(jo, wrong))
        assert refusal.value.reason == "token_revoked"
    with pytest.raises(NotFound):
        tokens.revoke("p", "ct_nothing", NOON)
    with pytest.raises(NotFound):
        tokens.revoke("another", use.token_id, NOON)


def test_token_is_used_as_often_as_it_says(ledger: Ledger, store: Any, jo: Customer) -> None:
    use = token(store, jo, bind_ip=False, max_requests=2)
    one = ledger.admit(asked(jo, use))
    ledger.admit(asked(jo, use))
    with pytest.raises(QuotaExceeded) as refusal:
        ledger.admit(asked(jo, use))
    assert refusal.value.details == {"scope": "token", "limit_name": "max_requests"}
    assert refusal.value.retry_after_s is None
    ledger.settle(one, Settlement(0, 0, answered=False), None)  # nobody got anything
    assert ledger.admit(asked(jo, use))


def test_token_spends_what_it_may_and_no_more(ledger: Ledger, store: Any, jo: Customer) -> None:
    """A request holds a cent and takes a tenth of it."""
    use = token(store, jo, bind_ip=False, max_spend_usd=0.02)
    held = [ledger.admit(asked(jo, use)) for _ in range(2)]
    with pytest.raises(QuotaExceeded):
        ledger.admit(asked(jo, use))
    for each in held:
        ledger.settle(each, Settlement(10, NANO // 1000, answered=True), None)
    assert ledger.admit(asked(jo, use))
    with pytest.raises(QuotaExceeded):
        ledger.admit(asked(jo, use))
    told = ClientTokens(store, "t").record("p", use.token_id)
    assert told is not None
    assert told["used"]["nano_usd"] == NANO // 100 + 2 * (NANO // 1000)


def test_answer_shrinks_to_what_a_token_may_spend(ledger: Ledger, store: Any, jo: Customer) -> None:
    use = token(store, jo, bind_ip=False, max_spend_usd=0.005)
    held = ledger.admit(asked(jo, use, shrinkable=True))
    assert held.output_tokens == 40


def test_wrong_address_is_told_before_an_exhausted_limit(
    ledger: Ledger, store: Any, jo: Customer
) -> None:
    use = token(store, jo)
    ledger.admit(asked(jo, use))
    told = asked(jo, at(use, "198.51.100.7"))
    with pytest.raises(Forbidden):
        ledger.admit(replace(told, limits=Limits(rpm=0, concurrent_streams=1)))


def test_mints_of_a_minute_are_bounded(store: Any) -> None:
    tokens = ClientTokens(store, "t")
    for _ in range(MINTS_OF_A_CUSTOMER):
        tokens.count("p", "c#x", MINTS_OF_A_CUSTOMER, NOON)
    with pytest.raises(LimitReached) as refusal:
        tokens.count("p", "c#x", MINTS_OF_A_CUSTOMER, NOON + 59)
    assert (refusal.value.code, refusal.value.retry_after_s) == ("mint_rate_limited", 1)
    tokens.count("p", "c#y", MINTS_OF_A_CUSTOMER, NOON)
    tokens.count("p", "c#x", MINTS_OF_A_CUSTOMER, NOON + 60)


# ---------------------------------------------------------------- the customer's record


def test_admission_goes_by_the_record_that_is_there(
    ledger: Ledger, customers: Customers, jo: Customer
) -> None:
    assert ledger.admit(asked(jo))
    after = customers.change("p", jo, changed(jo, {"budget_usd": 1}, NOON, CUSTOMER))
    with pytest.raises(StaleCustomer) as stale:
        ledger.admit(asked(jo))
    again = customers.keep("p", jo.id, stale.value.found)
    assert again == after
    assert ledger.admit(asked(after))


def test_customer_that_is_not_there_is_no_customer(ledger: Ledger, jo: Customer) -> None:
    nobody = replace(jo, id="cust_01J00000000000000000000000")
    with pytest.raises(StaleCustomer) as stale:
        ledger.admit(asked(nobody))
    assert stale.value.found == {}


def test_all_tokens_of_a_customer_are_refused_at_once(
    ledger: Ledger, customers: Customers, jo: Customer
) -> None:
    customers.sign_out("p", jo.id, NOON)
    with pytest.raises(Unauthenticated):
        ledger.admit(asked(jo))
    issued_at = customers.issued_after("p", jo.id, NOON)
    assert issued_at == NOON + 1  # in the same second, and still good
    assert ledger.admit(replace(asked(jo), token=Issued(issued_at, "j", None)))
    customers.sign_out("p", jo.id, NOON)
    assert customers.issued_after("p", jo.id, NOON) == NOON + 2


def test_change_by_somebody_else_is_not_overwritten(customers: Customers, jo: Customer) -> None:
    customers.change("p", jo, changed(jo, {"name": "Jo"}, NOON, CUSTOMER))
    with pytest.raises(Changed):
        customers.change("p", jo, changed(jo, {"name": "Joe"}, NOON, CUSTOMER))
    with pytest.raises(Changed):
        customers.delete("p", jo, NOON)


def test_external_id_is_free_a_day_after_its_customer_was_deleted(
    customers: Customers, jo: Customer
) -> None:
    by_name = Reference(None, "jo")
    assert customers.find("p", by_name) == customers.find("p", Reference(jo.id, None)) == jo
    customers.delete("p", jo, NOON)
    for named in (by_name, Reference(jo.id, None)):
        with pytest.raises(NotFound):
            customers.find("p", named)
    gone = customers.read("p", jo.id)
    assert gone is not None
    assert gone.status == DELETED
    again = replace(jo, id=customers.new_id(NOON * 1000 + 1))
    with pytest.raises(ExternalIdTaken):
        customers.create("p", again, NOON + 86_400, NEVER)
    customers.create("p", again, NOON + 86_401, NEVER)
    assert customers.find("p", by_name) == again


def test_external_id_is_of_one_project(customers: Customers, jo: Customer) -> None:
    with pytest.raises(ExternalIdTaken) as taken:
        customers.create("p", replace(jo, id=customers.new_id(NOON)), NOON, NEVER)
    assert taken.value.existing_id == jo.id
    customers.create("another", replace(jo, id=customers.new_id(NOON)), NOON, NEVER)
    with pytest.raises(NotFound):
        customers.find("another", Reference(jo.id, None))


def test_new_customers_of_an_hour_are_bounded(customers: Customers) -> None:
    def create(name: str, at: int) -> None:
        one = created({"external_id": name}, customers.new_id(at * 1000), at, CUSTOMER)
        customers.create("p", one, at, 2)

    create("a", NOON)
    create("b", NOON)
    with pytest.raises(LimitReached) as refusal:
        create("c", NOON + 600)
    assert refusal.value.retry_after_s == 3000
    with pytest.raises(NotFound):
        customers.find("p", Reference(None, "c"))
    create("c", NOON + 3600)


def test_customers_are_listed_the_newest_first(customers: Customers) -> None:
    made = []
    for n in range(5):
        one = created({"external_id": f"n{n}"}, customers.new_id(NOON + n), NOON, CUSTOMER)
        customers.create("p", one, NOON, NEVER)
        made.append(one)
    found, after = customers.page("p", 2, None)
    rest, end = customers.page("p", 10, after)
    assert [*found, *rest] == made[::-1]
    assert end is None


def test_what_a_process_knows_serves_for_seconds_and_a_refusal_is_read(
    store: Any, customers: Customers, jo: Customer
) -> None:
    clock = Clock()
    elsewhere = Customers(store, "t", clock)
    assert elsewhere.known("p", jo.id) == jo
    blocked = customers.change("p", jo, changed(jo, {"status": "blocked"}, NOON, CUSTOMER))
    assert elsewhere.known("p", jo.id) == jo  # the ledger will tell
    clock.now += 5
    assert elsewhere.known("p", jo.id) == blocked
    active = customers.change("p", blocked, changed(blocked, {"status": "active"}, NOON, CUSTOMER))
    assert elsewhere.known("p", jo.id) == active
