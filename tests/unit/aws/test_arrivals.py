"""New users of other issuers: counted once each, and no more in an hour than the project allows."""

import threading
from collections import Counter
from typing import Any

import pytest

from tests.issuers import ENTRY
from tests.unit.aws.small_dynamodb import Between, SmallDynamoDB
from tests.unit.conftest import NOW
from weir.aws.arrivals import HOUR_S, Arrivals
from weir.aws.contention import AwsError
from weir.errors import LedgerBusy, LimitReached
from weir.identity.issuers import Issuer

HOUR = NOW - NOW % HOUR_S


def store() -> Any:
    return SmallDynamoDB()


def issuer(most: int = 2, name: str = "clerk") -> Issuer:
    return Issuer.from_document(name, {**ENTRY, "new_users_per_hour": most})


def test_user_is_new_once_and_a_known_user_costs_one_read() -> None:
    store = Between(SmallDynamoDB(), lambda operation, asked, carry_out: carry_out())
    arrivals = Arrivals(store, "t")
    assert arrivals.admit("shop", issuer(), "clerk:a", HOUR)
    store.calls.clear()
    assert not any(arrivals.admit("shop", issuer(), "clerk:a", HOUR + n) for n in range(9))
    assert store.calls == ["get_item"] * 9


def test_new_users_above_the_limit_wait_for_the_next_hour_and_known_ones_do_not() -> None:
    arrivals = Arrivals(store(), "t")
    for user_id in ("clerk:a", "clerk:b"):
        assert arrivals.admit("shop", issuer(), user_id, HOUR)
    with pytest.raises(LimitReached) as refusal:
        arrivals.admit("shop", issuer(), "clerk:c", HOUR + 600)
    assert refusal.value.retry_after_s == HOUR_S - 600
    assert not arrivals.admit("shop", issuer(), "clerk:a", HOUR + 600)
    assert arrivals.admit("shop", issuer(), "clerk:c", HOUR + HOUR_S)


def test_projects_and_issuers_are_counted_apart() -> None:
    arrivals = Arrivals(store(), "t")
    one = issuer(most=1)
    assert arrivals.admit("shop", one, "clerk:a", HOUR)
    assert arrivals.admit("blog", one, "clerk:a", HOUR)
    assert arrivals.admit("shop", issuer(most=1, name="auth0"), "auth0:a", HOUR)
    for pid in ("shop", "blog"):
        with pytest.raises(LimitReached):
            arrivals.admit(pid, one, "clerk:b", HOUR)


def test_limit_of_zero_lets_only_known_users_in() -> None:
    arrivals = Arrivals(store(), "t")
    assert arrivals.admit("shop", issuer(), "clerk:a", HOUR)
    with pytest.raises(LimitReached):
        arrivals.admit("shop", issuer(most=0), "clerk:b", HOUR)
    assert not arrivals.admit("shop", issuer(most=0), "clerk:a", HOUR)


@pytest.mark.parametrize("users", [1, 40])
def test_of_many_at_once_no_more_get_in_and_each_is_counted_once(users: int) -> None:
    store, lock = SmallDynamoDB(), threading.Lock()
    threads, together = 40, threading.Barrier(40)

    def one_at_a_time(operation: str, _asked: Any, carry_out: Any) -> Any:
        if operation == "get_item":
            with lock:
                seen = carry_out()
            together.wait(10)  # all have looked before any writes
            return seen
        with lock:
            return carry_out()

    arrivals = Arrivals(Between(store, one_at_a_time), "t")
    outcomes: Counter[object] = Counter()

    def come(number: int) -> None:
        try:
            outcomes[arrivals.admit("shop", issuer(most=5), f"clerk:{number % users}", HOUR)] += 1
        except LimitReached:
            outcomes["refused"] += 1

    running = [threading.Thread(target=come, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    expected = {1: {True: 1, False: 39}, 40: {True: 5, "refused": 35}}[users]
    assert outcomes == expected


def conflict() -> AwsError:
    reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
    return AwsError("cancelled", 400, "TransactionCanceledException", reasons)


def test_conflict_is_tried_again_and_is_no_refusal() -> None:
    left = [conflict(), conflict()]

    def around(operation: str, _asked: Any, carry_out: Any) -> Any:
        if operation == "transact_write_items" and left:
            raise left.pop()
        return carry_out()

    store = SmallDynamoDB()
    assert Arrivals(Between(store, around), "t").admit("shop", issuer(), "clerk:a", HOUR)
    assert len(store.items) == 2


def test_store_that_stays_busy_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weir.aws.arrivals.WITHIN_S", 0.01)

    def around(operation: str, _asked: Any, carry_out: Any) -> Any:
        if operation == "transact_write_items":
            raise conflict()
        return carry_out()

    store = SmallDynamoDB()
    with pytest.raises(LedgerBusy):
        Arrivals(Between(store, around), "t").admit("shop", issuer(), "clerk:a", HOUR)
    assert not store.items
