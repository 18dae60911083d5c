"""The door of deliveries: what becomes of a message, by what became of the attempt."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.conftest import LAMBDA, unattended_door
from weir.aws.webhooks import outbox
from weir.aws.webhooks.deliveries import (
    AGAIN,
    DELIVERED,
    DROPPED,
    GIVEN_UP,
    Message,
    Outcome,
)
from weir.aws.webhooks.outbox import Queue

ENVIRONMENT = {
    "KEY_ARN": "key",
    "DELIVERIES_QUEUE": "q",
    "DEAD_LETTERS_QUEUE": "dead",
    "AWS_DEFAULT_REGION": "us-east-1",
}
(BODY,) = outbox.messages(
    outbox.Posted("p", outbox.new_event("webhook.test", {}, 5), "wh_1"),
    [SimpleNamespace(id="wh_1", wants=lambda _: True)],  # type: ignore[list-item]
)


class Sqs:
    def __init__(self) -> None:
        self.hidden: list[dict[str, Any]] = []
        self.dead: list[dict[str, Any]] = []
        self.fails = False

    def change_message_visibility(self, **asked: Any) -> None:
        self.hidden.append(asked)

    def send_message(self, **asked: Any) -> None:
        if self.fails:
            raise OSError
        self.dead.append(asked)


class Door:
    def __init__(self, module: ModuleType) -> None:
        self.sqs, self.seen = Sqs(), list[Message]()
        self.outcome: Outcome | Exception = Outcome(DELIVERED)
        self._module = module
        vars(module)["_sqs"] = self.sqs
        vars(module)["_dead_letters"] = Queue(self.sqs, "dead")
        vars(module)["_deliveries"] = SimpleNamespace(attempt=self._attempt)

    def _attempt(self, message: Message) -> Outcome:
        self.seen.append(message)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def answer(self, body: str = BODY) -> list[str]:
        """Return the messages that are not done with."""
        record = {
            "messageId": "m-1",
            "receiptHandle": "r-1",
            "body": body,
            "attributes": {"SentTimestamp": "1795262400500"},
        }
        told = self._module.handler({"Records": [record]}, SimpleNamespace(**LAMBDA))
        return [each["itemIdentifier"] for each in told["batchItemFailures"]]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    return Door(unattended_door(monkeypatch, "deliver", ENVIRONMENT))


@pytest.mark.parametrize("what", [DELIVERED, DROPPED])
def test_message_that_is_done_with_goes(door: Door, what: str) -> None:
    door.outcome = Outcome(what)
    assert door.answer() == []
    assert (door.sqs.hidden, door.sqs.dead) == ([], [])
    assert door.seen[0].since == 1_795_262_400.5


def test_message_that_is_tried_again_stays_hidden_until_then(door: Door) -> None:
    door.outcome = Outcome(AGAIN, "why", 77)
    assert door.answer() == ["m-1"]
    assert door.sqs.hidden == [{"QueueUrl": "q", "ReceiptHandle": "r-1", "VisibilityTimeout": 77}]


def test_message_that_is_given_up_lies_among_the_dead_letters(door: Door) -> None:
    door.outcome = Outcome(GIVEN_UP, "why")
    assert door.answer() == []
    assert door.sqs.dead == [{"QueueUrl": "dead", "MessageBody": BODY}]


def test_message_that_cannot_be_buried_comes_again(door: Door) -> None:
    door.outcome, door.sqs.fails = Outcome(GIVEN_UP, "why"), True
    assert door.answer() == ["m-1"]


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"pid":1}'])
def test_message_that_is_none_comes_again_until_sqs_buries_it(door: Door, body: str) -> None:
    assert door.answer(body) == ["m-1"]
    assert door.seen == []


def test_attempt_that_fails_here_comes_again_after_the_time_out(door: Door) -> None:
    door.outcome = OSError("the store")
    assert door.answer() == ["m-1"]
    assert door.sqs.hidden == []
