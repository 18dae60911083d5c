"""The rules of webhooks: what an endpoint may be, when a threshold is reached, what is signed."""

import hashlib
import hmac
import itertools
from typing import Any, get_args

import pytest

from weir.errors import BadRequest
from weir.operator.documents import EventName
from weir.projects.limits import NANO
from weir.webhooks import endpoints, schedule, signature, thresholds
from weir.webhooks.endpoints import Endpoint
from weir.webhooks.events import SUBSCRIPTIONS, Event, event_id
from weir.webhooks.thresholds import FULL, LOW, NO_ROOM, SPENT, Budget, Reached

URL = "https://app.example.com/hooks"


def endpoint(**more: Any) -> Endpoint:
    told: dict[str, Any] = {
        "id": "wh_1",
        "url": URL,
        "events": ("wallet.low",),
        "description": "",
        "enabled": True,
        "created_at": 1,
        "secret": "sealed",
        "secret_created_at": 1,
    }
    return Endpoint(**{**told, **more})


# ---------------------------------------------------------------- endpoints


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "http://app.example.com/",
        "https://user@app.example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "https://2130706433/",
        "https://localhost/",
        "https://db.internal/",
        "https://app.example.com/#a",
        "ftp://app.example.com/",
    ],
)
def test_url_that_is_no_public_https_one_is_refused_by_its_code(url: object) -> None:
    with pytest.raises(BadRequest) as refused:
        endpoints.parse_new({"url": url, "events": ["wallet.low"]})
    assert (refused.value.code, refused.value.param) == ("invalid_url", "url")


@pytest.mark.parametrize("events", [None, [], "wallet.low", ["wallet.high"], [7], [["wallet.low"]]])
def test_events_that_there_are_not_are_refused_with_the_list(events: object) -> None:
    with pytest.raises(BadRequest) as refused:
        endpoints.parse_new({"url": URL, "events": events})
    assert refused.value.param == "events"
    assert refused.value.details["allowed"] == list(SUBSCRIPTIONS)


@pytest.mark.parametrize("missing", ["url", "events"])
def test_what_is_missing_is_named(missing: str) -> None:
    told = {"url": URL, "events": ["wallet.low"]}
    del told[missing]
    with pytest.raises(BadRequest) as refused:
        endpoints.parse_new(told)
    assert refused.value.param == missing


@pytest.mark.parametrize("value", [7, "a\nb", "a" * 201, "\u202e"])
def test_description_is_one_plain_line(value: object) -> None:
    with pytest.raises(BadRequest) as refused:
        endpoints.parse_change({"description": value})
    assert refused.value.param == "description"


@pytest.mark.parametrize("value", ["true", 1, None])
def test_enabled_is_true_or_false(value: object) -> None:
    with pytest.raises(BadRequest) as refused:
        endpoints.parse_change({"enabled": value})
    assert refused.value.param == "enabled"


def test_events_that_are_named_twice_count_once_and_unknown_members_are_ignored() -> None:
    told = {"url": URL, "events": ["wallet.low", "wallet.low"], "metadata": {}}
    assert endpoints.parse_new(told) == {
        "url": URL,
        "events": ("wallet.low",),
        "description": "",
        "enabled": True,
    }


def test_either_name_of_an_exhausted_customer_budget_brings_it() -> None:
    for name in ("customer.budget_exceeded", "budget.exceeded"):
        assert endpoint(events=(name,)).wants("customer.budget_exceeded")
    assert not endpoint().wants("customer.budget_exceeded")


def test_a_test_reaches_every_endpoint_but_a_disabled_one() -> None:
    assert endpoint().wants("webhook.test")
    assert not endpoint(enabled=False).wants("webhook.test")


def test_operators_document_lists_the_events_that_there_are() -> None:
    assert get_args(EventName) == tuple(SUBSCRIPTIONS)


def test_endpoint_survives_the_table_and_is_shown_without_its_secrets() -> None:
    one = endpoint(old_secret="old-sealed", old_secret_until=9)
    assert Endpoint.from_document("wh_1", one.document()) == one
    assert "sealed" not in str(one.view())


def test_old_secret_signs_until_its_time_is_over() -> None:
    one = endpoint(old_secret="old", old_secret_until=100)
    assert one.sealed_secrets(99) == ["sealed", "old"]
    assert one.sealed_secrets(100) == ["sealed"]


def test_page_goes_on_after_its_last_id_even_if_that_is_gone() -> None:
    assert endpoints.page(["a", "c", "d"], 2, None) == (["a", "c"], "c")
    assert endpoints.page(["a", "d"], 2, "c") == (["d"], None)
    assert endpoints.page([], 2, None) == ([], None)


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize(
    ("spent", "held", "found"),
    [
        (0, 100, []),
        (79, 21, []),
        (79, 22, [Reached(FULL, NO_ROOM)]),  # every request is refused, with much left
        (80, 20, [Reached(LOW)]),
        (80, 21, [Reached(LOW), Reached(FULL, NO_ROOM)]),
        (99, 1, [Reached(LOW)]),
        (99, 2, [Reached(LOW), Reached(FULL, NO_ROOM)]),
        (99, 0, [Reached(LOW)]),  # of models that cost nothing
        (100, 0, [Reached(LOW), Reached(FULL, SPENT)]),
        (150, 0, [Reached(LOW), Reached(FULL, SPENT)]),
    ],
)
def test_thresholds_of_a_budget_of_100(spent: int, held: int, found: list[Reached]) -> None:
    assert thresholds.reached(100, spent, held) == found


def test_budget_of_nothing_is_used_up_by_nothing() -> None:
    assert thresholds.reached(0, 0, 0) == [Reached(LOW), Reached(FULL, SPENT)]


@pytest.mark.parametrize(
    ("is_customers", "low", "full"),
    [
        (True, "wallet.low", "customer.budget_exceeded"),
        (False, "project.budget_low", "project.budget_exceeded"),
    ],
)
def test_event_is_named_by_whose_budget_it_is(is_customers: bool, low: str, full: str) -> None:
    budget = Budget(NANO, is_customers, {})
    assert thresholds.event_type(budget, LOW) == low
    assert thresholds.event_type(budget, FULL) == full


def test_event_says_whose_budget_it_is_and_what_is_left_of_it() -> None:
    budget = Budget(10 * NANO, True, {"customer": "cust_1"})
    found = Reached(FULL, NO_ROOM)
    assert thresholds.event_data(budget, found, 9_750_000_000, "2026-11", 42) == {
        "customer": "cust_1",
        "reason": "no_room",
        "threshold_percent": 100,
        "budget_usd": 10,
        "spent_usd": 9.75,
        "remaining_usd": 0.25,
        "period": "2026-11",
        "resets_at": 42,
    }
    assert thresholds.event_data(budget, Reached(LOW), 8 * NANO, "", 0)["reason"] == "budget_80"


# ---------------------------------------------------------------- signatures, schedule, events


def test_signature_is_of_the_time_a_dot_and_the_raw_body() -> None:
    value = signature.header_value(["whsec_a", "whsec_b"], 1_700_000_000, b'{"a":1}')
    time, *digests = value.split(",")
    assert time == "t=1700000000"
    assert digests == [
        "v1=" + hmac.new(secret, b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
        for secret in (b"whsec_a", b"whsec_b")
    ]


def attempts(chance: float) -> list[int]:
    """When a delivery is tried that always fails, in seconds."""
    made, at = [0], 0
    while (wait := schedule.wait_s(at, chance)) is not None:
        at += wait
        made.append(at)
    return made


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_schedule_backs_off_for_a_day_and_ends(chance: float) -> None:
    made = attempts(chance)
    waits = [after - before for before, after in itertools.pairwise(made)]
    assert made[1] <= 12
    assert sum(at <= 3600 for at in made) >= 8  # the first hour's outage is not given up
    assert max(waits) <= schedule.MOST_WAIT_S * 1.2 <= 43_200  # for which SQS hides a message
    assert schedule.GIVE_UP_S <= made[-1] <= schedule.GIVE_UP_S * 1.1
    assert 14 <= len(made) <= 20


def test_waits_double_until_they_are_long() -> None:
    assert [schedule.wait_s(at, 0) for at in (0, 5, 10, 40, 3600)] == [10, 10, 10, 40, 3600]
    assert schedule.wait_s(40_000, 0) == schedule.MOST_WAIT_S
    assert schedule.wait_s(86_400, 0) is None


def test_ids_of_events_sort_by_time_and_bodies_stay_the_same() -> None:
    assert event_id(1, "f" * 12) < event_id(2, "0" * 12)
    event = Event(event_id(1, "a" * 12), "wallet.low", 1, {"customer": "é"})
    assert Event.from_document(event.document()).body() == event.body()
