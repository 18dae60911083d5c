"""Deliveries: at least once, tried again for a day, and never at the cost of another endpoint."""

import hashlib
import hmac
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.aws.small_dynamodb import SmallDynamoDB
from weir.aws import items
from weir.aws.contention import AwsError
from weir.aws.webhooks import deliveries, outbox
from weir.aws.webhooks.deliveries import (
    AGAIN,
    DELIVERED,
    DROPPED,
    GIVEN_UP,
    TRIAL_S,
    Deliveries,
    Message,
    Outcome,
)
from weir.aws.webhooks.seal import Opener
from weir.webhooks.schedule import GIVE_UP_S

NOON = 1_795_262_400
URL = "https://a.example.com/"


class Kms:
    """Opens what begins with the context that it is asked with."""

    def __init__(self) -> None:
        self.calls = 0

    def decrypt(self, **asked: Any) -> dict[str, bytes]:
        self.calls += 1
        assert asked["EncryptionContext"] == {
            "weir:project": "p",
            "weir:webhook_endpoint": "wh_1",
        }
        return {"Plaintext": b"whsec_" + asked["CiphertextBlob"]}


class Place:
    """An endpoint, a clock, and a receiver: `answer` says what it answers."""

    def __init__(self) -> None:
        self.now: float = NOON
        self.store: Any = SmallDynamoDB()
        self.kms = Kms()
        self.answer: Callable[[], str | None] = lambda: None
        self.got: list[tuple[bytes, str]] = []
        self.endpoint()

    def endpoint(self, **more: Any) -> None:
        told = {
            "url": URL,
            "description": "",
            "enabled": True,
            "created_at": 1,
            "secret": "bmV3",  # "new"
            "secret_created_at": 1,
            "events": ["wallet.low"],
            **more,
        }
        record = items.record_item(items.webhooks("p"), {"endpoints": {"wh_1": told}}, 1)
        self.store.items[record["pk"]["S"], record["sk"]["S"]] = record

    def worker(self) -> Deliveries:
        def send(url: str, body: bytes, signature: str) -> str | None:
            assert url == URL
            self.got.append((body, signature))
            return self.answer()

        opener = Opener(self.kms, "key")
        return Deliveries(self.store, "t", opener, send, lambda: self.now, lambda: 0.0)

    def attempt(self, message: Message | None = None) -> Outcome:
        return self.worker().attempt(message or self.message())

    def message(self, since: float = NOON) -> Message:
        return Message("p", "wh_1", outbox.new_event("wallet.low", {"a": 1}, NOON), since)

    def state(self) -> dict[str, Any]:
        return deliveries.states(self.store, "t", "p", ["wh_1"])["wh_1"].view()

    def failures(self) -> list[dict[str, Any]]:
        return [item for key, item in self.store.items.items() if "FAILED#" in key[1]]


@pytest.fixture
def place() -> Place:
    return Place()


def no() -> str | None:
    return "It answers with status 500."


def test_accepted_event_is_delivered_and_noted(place: Place) -> None:
    assert place.attempt().what == DELIVERED
    assert place.state() == {
        "last_delivered_at": NOON,
        "failing_since": None,
        "last_failed_at": None,
        "last_failure": None,
    }


def test_each_attempt_is_signed_anew_with_the_time_of_it(place: Place) -> None:
    place.answer = no
    message = place.message()
    worker = place.worker()
    for at in (NOON, NOON + 600):
        place.now = at
        worker.attempt(message)
    (body, first), (again, second) = place.got
    assert body == again == message.event.body()
    for at, value in ((NOON, first), (NOON + 600, second)):
        digest = hmac.new(b"whsec_new", f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        assert value == f"t={at},v1={digest}"
    assert place.kms.calls == 1  # the secret is opened once


def test_old_secret_signs_beside_the_new_one_while_it_may(place: Place) -> None:
    place.endpoint(old_secret="b2xk", old_secret_until=NOON + 10)
    place.attempt()
    place.now = NOON + 10
    place.attempt()
    assert [value.count("v1=") for _, value in place.got] == [2, 1]


@pytest.mark.parametrize("change", [{"enabled": False}, None], ids=["disabled", "removed"])
def test_endpoint_that_wants_nothing_any_more_is_told_nothing(
    place: Place, change: dict[str, Any] | None
) -> None:
    if change is None:
        del place.store.items["WEBHOOKS#p", "WEBHOOKS"]
    else:
        place.endpoint(**change)
    assert place.attempt().what == DROPPED
    assert place.got == []


def test_receiver_that_answers_500_for_an_hour_is_told_once_it_has_recovered(place: Place) -> None:
    recovers = NOON + 3600
    place.answer = lambda: no() if place.now < recovers else None
    message, worker, attempts = place.message(), place.worker(), 0
    while (outcome := worker.attempt(message)).what == AGAIN:
        attempts += 1
        place.now += outcome.wait_s
    assert outcome.what == DELIVERED
    assert {body for body, _ in place.got} == {message.event.body()}
    assert 5 <= attempts <= 12
    assert place.now - recovers <= 3600  # told within as long as it was down
    assert place.state()["failing_since"] is None
    assert place.failures() == []


def test_receiver_that_fails_for_a_day_is_given_up_with_a_record(place: Place) -> None:
    place.answer = no
    message, worker = place.message(), place.worker()
    while (outcome := worker.attempt(message)).what == AGAIN:
        place.now += outcome.wait_s
    assert outcome.what == GIVEN_UP
    assert place.now - NOON >= GIVE_UP_S
    (failure,) = place.failures()
    assert failure["failure"]["S"] == "It answers with status 500."
    assert (failure["since"]["N"], failure["given_up_at"]["N"]) == (str(NOON), str(int(place.now)))
    assert place.state()["failing_since"] == NOON


def test_worker_that_is_killed_after_it_has_sent_sends_the_same_event_again(place: Place) -> None:
    message = place.message()

    def killed() -> str | None:
        raise SystemExit

    place.answer = killed
    with pytest.raises(SystemExit):
        place.attempt(message)
    place.answer = lambda: None
    assert place.attempt(message).what == DELIVERED
    (first, _), (second, _) = place.got
    assert first == second


def test_two_workers_with_one_message_deliver_one_event(place: Place) -> None:
    message, both = place.message(), threading.Barrier(2)

    def accept() -> str | None:
        both.wait(10)
        return None

    place.answer = accept
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: place.attempt(message).what, range(2)))
    assert found == [DELIVERED, DELIVERED]
    assert len({body for body, _ in place.got}) == 1


def test_while_an_endpoint_fails_one_attempt_at_a_time_is_made(place: Place) -> None:
    place.answer = no
    place.attempt()  # from now on it fails
    place.got.clear()
    inside: list[Outcome] = []

    def hangs() -> str | None:
        if not inside:
            inside.append(place.attempt())
        return no()

    place.answer = hangs
    place.attempt()
    assert len(place.got) == 1
    assert inside[0].what == AGAIN
    assert inside[0].wait_s >= TRIAL_S
    place.got.clear()
    place.attempt()  # the attempt that failed keeps nobody away
    assert len(place.got) == 1


def test_attempt_that_died_keeps_others_away_for_a_moment_only(place: Place) -> None:
    place.answer = no
    place.attempt()

    def killed() -> str | None:
        raise SystemExit

    place.answer = killed
    with pytest.raises(SystemExit):
        place.attempt()
    place.got.clear()
    place.answer = lambda: None
    assert place.attempt().what == AGAIN
    place.now += TRIAL_S + 1
    assert place.attempt().what == DELIVERED


def test_put_off_until_the_day_is_over_is_given_up_too(place: Place) -> None:
    place.answer = no
    place.attempt()
    place.store.items["DELIVERIES#p", "STATE#wh_1"]["trial_until"] = {"N": str(NOON + 10**6)}
    place.now = NOON + GIVE_UP_S
    outcome = place.attempt()
    assert outcome == Outcome(GIVEN_UP, "It answers with status 500.")
    assert len(place.failures()) == 1


def test_delivered_event_is_not_sent_again_for_want_of_a_note(place: Place) -> None:
    def fails(**_asked: Any) -> Any:
        raise AwsError("no", 500)

    place.store.update_item = fails
    assert place.attempt().what == DELIVERED


def test_store_that_fails_beforehand_sends_nothing(place: Place) -> None:
    def fails(**_asked: Any) -> Any:
        raise AwsError("no", 500)

    place.store.batch_get_item = fails
    with pytest.raises(AwsError):
        place.attempt()
    assert place.got == []


def test_why_it_failed_is_kept_within_bounds(place: Place) -> None:
    place.answer = lambda: "x" * 10_000
    place.attempt()
    assert len(place.state()["last_failure"]) == deliveries.MOST_TOLD


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"pid":"p","endpoint":"wh_1","event":{}}', "7"])
def test_message_that_is_none_is_not_understood(body: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Message.of(body, NOON)
