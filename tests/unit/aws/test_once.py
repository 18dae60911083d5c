"""A request with an Idempotency-Key is carried out once, whoever comes at once."""

import itertools
import threading
from typing import Any

import pytest

from tests.unit.aws.small_dynamodb import SmallDynamoDB
from weir.aws import items
from weir.aws.once import Answered, Once
from weir.customers.idempotency import KEPT_S, LOCKED_S
from weir.errors import BadRequest, IdempotencyInProgress, IdempotencyKeyReused

NOW = 1_800_000_000


def once(store: Any, waits: list[float] | None = None) -> Once:
    ticks = itertools.count(0, 0.5)
    said = waits if waits is not None else []
    return Once(store, "t", monotonic=lambda: next(ticks), sleep=said.append)


def test_second_request_gets_the_first_ones_answer() -> None:
    store, done = SmallDynamoDB(), []

    def do() -> Answered:
        done.append(1)
        return Answered(201, {"n": len(done)})

    first = once(store).answer("p", "d", "f", NOW, do)
    again = once(store).answer("p", "d", "f", NOW + KEPT_S - 1, do)
    assert (first.is_replay, again.is_replay) == (False, True)
    assert (again.status, again.document) == (201, {"n": 1})
    assert once(store).answer("p", "d", "f", NOW + KEPT_S + 1, do).document == {"n": 2}
    assert once(store).answer("other", "d", "f", NOW, do).document == {"n": 3}


def test_another_body_with_the_same_key_is_refused() -> None:
    store = SmallDynamoDB()
    once(store).answer("p", "d", "f", NOW, lambda: Answered(201, {}))
    with pytest.raises(IdempotencyKeyReused) as refusal:
        once(store).answer("p", "d", "g", NOW, lambda: Answered(201, {}))
    assert (refusal.value.status, refusal.value.code) == (422, "idempotency_key_reused")


def test_what_has_failed_is_not_kept() -> None:
    store = SmallDynamoDB()

    def fail() -> Answered:
        raise BadRequest("no")

    with pytest.raises(BadRequest):
        once(store).answer("p", "d", "f", NOW, fail)
    assert not once(store).answer("p", "d", "g", NOW, lambda: Answered(201, {})).is_replay


def test_request_that_is_running_is_waited_for() -> None:
    store = SmallDynamoDB()
    waits: list[float] = []
    begun, may_end = threading.Event(), threading.Event()

    def slow() -> Answered:
        begun.set()
        may_end.wait(10)
        return Answered(201, {"who": "first"})

    first = threading.Thread(target=lambda: once(store).answer("p", "d", "f", NOW, slow))
    first.start()
    begun.wait(10)
    with pytest.raises(IdempotencyInProgress) as refusal:
        once(store, waits).answer("p", "d", "f", NOW, lambda: Answered(201, {}))
    assert (refusal.value.status, refusal.value.retry_after_s) == (409, 1)
    assert waits
    may_end.set()
    first.join(10)
    assert once(store).answer("p", "d", "f", NOW, slow).document == {"who": "first"}


def test_lock_of_a_process_that_died_ends() -> None:
    store = SmallDynamoDB()

    assert once(store)._lock(items.once("p", "d"), "f", NOW)
    with pytest.raises(IdempotencyInProgress):
        once(store).answer("p", "d", "f", NOW + LOCKED_S - 1, lambda: Answered(201, {}))
    assert (
        not once(store)
        .answer("p", "d", "f", NOW + LOCKED_S + 1, lambda: Answered(201, {}))
        .is_replay
    )
