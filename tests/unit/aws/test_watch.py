"""Budgets whose thresholds are reached: told once, of what all shards have spent, and queued."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.aws.small_dynamodb import SmallDynamoDB
from weir.aws import items
from weir.aws.ledger.books import reservation_item
from weir.aws.webhooks import outbox
from weir.aws.webhooks.outbox import Queue
from weir.aws.webhooks.watch import Watch, no_budget
from weir.ledger.admission import Reservation
from weir.ledger.rules import Amounts
from weir.projects.limits import NANO
from weir.webhooks.thresholds import Budget

NOON = 1_795_262_400  # 2026-11-21 12:00:00 UTC
DECEMBER = 1_796_083_200
ALL = ["wallet.low", "customer.budget_exceeded", "project.budget_low", "project.budget_exceeded"]


class Locked(SmallDynamoDB):
    """For several threads; those that write wait for each other first, if there is a `barrier`."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self.barrier: threading.Barrier | None = None
        self.reads = 0

    def batch_get_item(self, **asked: Any) -> dict[str, Any]:
        self.reads += 1
        with self._lock:
            return super().batch_get_item(**asked)

    def put_item(self, **asked: Any) -> dict[str, Any]:
        if self.barrier is not None:
            self.barrier.wait(10)
        with self._lock:
            return super().put_item(**asked)


def locked() -> Any:
    """Not a whole Store, but all of it that is used."""
    return Locked()


class Place:
    """A project, a customer, and what they have spent."""

    def __init__(self) -> None:
        self.store = locked()
        self.sent: list[dict[str, Any]] = []
        sqs = SimpleNamespace(
            send_message=lambda **message: self.sent.append(json.loads(message["MessageBody"]))
        )
        self.customer: Budget | None = Budget(NANO, True, {"customer": "cust_1"})
        self.watch = Watch(
            self.store,
            "t",
            Queue(sqs, "q"),
            lambda pid, subject: self.customer,
            lambda: NOON,
        )
        self.project(usd_per_month=1)
        self.endpoints({"wh_1": ALL})

    def put(self, item: dict[str, Any]) -> None:
        self.store.items[item["pk"]["S"], item["sk"]["S"]] = item

    def project(self, shards: int = 1, generation: int = 0, **limits: Any) -> None:
        document = {
            "limits": limits,
            "ledger_shards": shards,
            "ledger_generation": generation,
        }
        self.put(items.record_item(items.project("p"), document, 1))

    def endpoints(self, wanted: dict[str, list[str]], **more: Any) -> None:
        told = {
            name: {
                "url": "https://a.example.com/",
                "description": "",
                "enabled": True,
                "created_at": 1,
                "secret": "sealed",
                "secret_created_at": 1,
                "events": events,
                **more,
            }
            for name, events in wanted.items()
        }
        self.put(items.record_item(items.webhooks("p"), {"endpoints": told}, 1))

    def spend(self, usd: float, part: str = "0", held: float = 0, at: int = NOON) -> None:
        key = items.Key(items.ledger("p", part), items.month(at))
        counters = {"nano_usd": usd + held, "nano_usd_reserved": held}
        values = {name: {"N": str(round(value * NANO))} for name, value in counters.items()}
        self.put({**key.item(), **values})

    def note(self, *settled: dict[str, Any]) -> int:
        return self.watch.note(settled or [reservation()])

    def told(self) -> list[dict[str, Any]]:
        """Return the events of the outbox, in the order of their types."""
        found = [
            outbox.posted_of(item).event.document()
            for key, item in self.store.items.items()
            if key[0] == "OUTBOX#p"
        ]
        return sorted(found, key=lambda event: str(event["type"]))

    def types(self) -> list[str]:
        return [event["type"] for event in self.told()]


@pytest.fixture
def place() -> Place:
    return Place()


def reservation(
    *, subject: str = "c#cust_1", held: float = 0.0, at: int = NOON, codes: str = "rn"
) -> dict[str, Any]:
    """As the stream's record has it: the image of what has just been removed."""
    return reservation_item(
        Reservation(
            id="0" * 32,
            due=at + 60,
            pid="p",
            subject=subject,
            completion_id="c",
            at=at,
            amounts=Amounts(10, round(held * NANO)),
            output_tokens=5,
            held=[["user", subject, codes], ["project", "0", codes], ["tenant", "3", codes]],
            row={},
        )
    )


def test_budget_of_a_project_is_told_at_80_and_at_100_percent_once_each(place: Place) -> None:
    place.customer = None
    place.spend(0.79)
    assert place.note() == 0
    place.spend(0.8)
    assert place.note() == 1
    assert place.note() == 0
    place.spend(1)
    assert place.note() == 1
    place.spend(1.2)
    assert place.note() == 0
    full, low = place.told()
    assert (low["type"], full["type"]) == ("project.budget_low", "project.budget_exceeded")
    assert full["data"] == {
        "project": "p",
        "reason": "spent",
        "threshold_percent": 100,
        "budget_usd": 1,
        "spent_usd": 1,
        "remaining_usd": 0,
        "period": "2026-11",
        "resets_at": DECEMBER,
    }


def test_what_open_requests_hold_is_not_spent(place: Place) -> None:
    place.spend(0.5, held=0.5)
    assert place.note() == 0


def test_jump_over_both_thresholds_tells_both(place: Place) -> None:
    place.customer = None
    place.spend(1.5)
    assert place.note() == 2
    assert place.types() == ["project.budget_exceeded", "project.budget_low"]


def test_budget_of_a_customer_is_told_by_its_own_names(place: Place) -> None:
    place.spend(1, part="c#cust_1")
    assert place.note() == 2
    full, low = place.told()
    assert (full["type"], low["type"]) == ("customer.budget_exceeded", "wallet.low")
    assert low["data"]["customer"] == "cust_1"
    assert low["data"]["reason"] == "budget_80"


def test_user_without_a_budget_of_an_account_is_not_looked_at(place: Place) -> None:
    place.spend(5, part="u#ann")
    assert place.note(reservation(subject="u#ann")) == 0


def test_what_no_request_can_spend_any_more_is_told_as_exhausted(place: Place) -> None:
    """The last cents may never be spent: a request is admitted only if its worst case fits."""
    place.customer = None
    place.spend(0.7)
    assert place.note(reservation(held=0.3)) == 0
    place.spend(0.71)
    assert place.note(reservation(held=0.3)) == 1
    (told,) = place.told()
    assert (told["type"], told["data"]["reason"]) == ("project.budget_exceeded", "no_room")


def test_smallest_request_of_the_month_decides_whether_there_is_room(place: Place) -> None:
    """Those that are small may go on, whatever a large one held since, in whatever process."""
    place.customer = None
    place.spend(0.5)
    assert place.note(reservation(held=0.4), reservation(held=0.1)) == 0
    place.spend(0.75)
    assert place.note(reservation(held=0.4)) == 0
    assert place.note(reservation(held=0.2)) == 0
    place.spend(0.79)
    assert place.note(reservation(held=0.05)) == 0
    place.spend(0.96)
    assert place.note(reservation(held=0.9)) == 2


def test_least_that_another_batch_has_kept_meanwhile_stays(place: Place) -> None:
    place.customer = None
    key = items.watch("p", "", items.month(NOON))
    place.put({**key.item(), "least_held": {"N": "5"}})
    read = place.store.batch_get_item

    def stale(**asked: Any) -> dict[str, Any]:
        answer: dict[str, Any] = read(**asked)
        found = answer["Responses"]["t"]
        answer["Responses"]["t"] = [item for item in found if item["pk"]["S"] != key.pk]
        return answer

    place.store.batch_get_item = stale
    place.note(reservation(held=0.5))
    assert place.store.items[key]["least_held"] == {"N": "5"}


def test_sum_over_four_shards_decides(place: Place) -> None:
    place.customer = None
    place.project(shards=4, usd_per_month=1)
    for shard, usd in enumerate((0.25, 0.25, 0.15, 0.14)):
        place.spend(usd, part=str(shard))
    assert place.note() == 0
    place.spend(0.15, part="3")
    assert place.note() == 1
    assert place.told()[0]["data"]["spent_usd"] == 0.8


def test_shards_that_are_no_longer_used_count_too(place: Place) -> None:
    place.customer = None
    place.project(shards=1, generation=1, usd_per_month=1)
    place.spend(0.4)
    place.spend(0.4, part="15")
    assert place.note() == 1


def test_what_moves_between_shards_while_they_are_read_is_not_counted_twice(place: Place) -> None:
    place.customer = None
    place.project(shards=2, usd_per_month=1)
    place.spend(0.5)
    read, seen = place.store.batch_get_item, list[bool]()

    def torn(**asked: Any) -> dict[str, Any]:
        answer: dict[str, Any] = read(**asked)
        if "LEDGER#p#1" in str(asked) and not seen:
            seen.append(True)
            moved = {**answer["Responses"]["t"][0]}
            moved.update(items.Key(items.ledger("p", "1"), items.month(NOON)).item())
            answer["Responses"]["t"].append(moved)
        return answer

    place.store.batch_get_item = torn
    assert place.note() == 0
    assert seen


def test_each_threshold_is_told_once_however_many_batches_see_it_at_once(place: Place) -> None:
    place.spend(1)
    place.spend(1, part="c#cust_1")
    place.store.barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8) as threads:
        written = list(threads.map(lambda _: place.note(), range(8)))
    assert sum(written) == 4
    assert place.types() == sorted(ALL)


def test_another_budget_that_is_reached_is_told_again_and_the_first_is_not(place: Place) -> None:
    place.customer = None
    place.spend(0.9)
    place.note()
    place.project(usd_per_month=2)
    assert place.note() == 0
    place.spend(1.7)
    assert place.note() == 1
    assert [event["data"]["budget_usd"] for event in place.told()] == [1, 2]
    place.project(usd_per_month=1)
    assert place.note() == 1  # 100 % of the first, which had not been reached
    assert place.note() == 0


def test_another_month_is_told_again(place: Place) -> None:
    place.customer = None
    place.spend(0.9)
    place.note()
    place.spend(0.9, at=DECEMBER)
    assert place.note(reservation(at=DECEMBER)) == 1
    assert sorted(event["data"]["period"] for event in place.told()) == ["2026-11", "2026-12"]


def test_request_of_last_month_that_is_settled_now_looks_at_last_month(place: Place) -> None:
    place.customer = None
    place.spend(0.9, at=NOON - 30 * 86_400)
    assert place.note(reservation(at=NOON - 30 * 86_400)) == 1
    assert place.told()[0]["data"]["period"] == "2026-10"


def test_nobody_who_wants_it_means_nothing_is_read_of_the_ledger(place: Place) -> None:
    place.spend(1)
    place.endpoints({})
    assert place.note() == 0
    assert place.store.reads == 1


def test_endpoint_that_is_made_later_is_told_with_the_next_request(place: Place) -> None:
    place.customer = None
    place.spend(0.9)
    place.endpoints({"wh_1": ["project.budget_exceeded"]})
    assert place.note() == 0
    place.endpoints({"wh_1": ALL})
    assert place.note() == 1


def test_requests_that_count_no_money_are_not_looked_at(place: Place) -> None:
    place.spend(1)
    assert place.note(reservation(codes="rt")) == 0
    assert place.store.reads == 0


@pytest.mark.parametrize(
    "item",
    [{}, {"doc": {"S": "{"}}, {**reservation(), "sk": {"S": "0000000001#x"}}],
    ids=["undone admission", "no JSON", "elsewhere"],
)
def test_what_is_no_reservation_holds_nobody_back(place: Place, item: dict[str, Any]) -> None:
    place.customer = None
    place.spend(0.9)
    assert place.note(item, reservation()) == 1


def test_project_that_is_gone_or_has_no_budget_is_told_nothing(place: Place) -> None:
    place.spend(1)
    place.customer = None
    place.project(rpm=5)
    assert place.note() == 0
    del place.store.items["PROJECTS", "p"]
    assert place.note() == 0


def test_subjects_have_no_budget_where_there_are_no_customers(place: Place) -> None:
    place.spend(1, part="c#cust_1")
    queue = Queue(SimpleNamespace(), "q")
    assert Watch(place.store, "t", queue, no_budget, lambda: NOON).note([reservation()]) == 0


# ---------------------------------------------------------------- to the queue


def posted(event_type: str = "project.budget_low", to: str | None = None) -> outbox.Posted:
    return outbox.Posted("p", outbox.new_event(event_type, {"a": 1}, NOON), to)


def test_event_is_queued_once_for_each_endpoint_that_wants_it(place: Place) -> None:
    place.endpoints({"wh_1": ALL, "wh_2": ["wallet.low"], "wh_3": ["project.budget_low"]})
    one = posted()
    assert place.watch.hand_over([one]) == 2
    assert place.sent == [
        {"pid": "p", "endpoint": name, "event": one.event.document()} for name in ("wh_1", "wh_3")
    ]


def test_event_for_one_endpoint_goes_to_no_other(place: Place) -> None:
    place.endpoints({"wh_1": ALL, "wh_2": ALL})
    assert place.watch.hand_over([posted("webhook.test", to="wh_2")]) == 1
    assert [message["endpoint"] for message in place.sent] == ["wh_2"]


def test_event_survives_the_outbox(place: Place) -> None:
    event = outbox.new_event("wallet.low", {"customer": "é"}, NOON)
    assert outbox.add(place.store, "t", "p", "x", event, to="wh_1")
    assert not outbox.add(place.store, "t", "p", "x", event)
    item = place.store.items["OUTBOX#p", "x"]
    assert outbox.posted_of(item) == outbox.Posted("p", event, "wh_1")
    assert int(item["ttl"]["N"]) > NOON + 31 * 86_400
