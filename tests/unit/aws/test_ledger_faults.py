"""The ledger while calls fail, get lost, come late or collide: nobody pays for what he was refused,
and whoever was served pays once.
"""

import contextlib
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.aws.small_dynamodb import Between, SmallDynamoDB
from tests.unit.aws.test_ledger import NOON, SPENT, ask
from weir.aws import contention
from weir.aws.contention import AwsError
from weir.aws.items import Key
from weir.aws.ledger import Ledger, admission
from weir.aws.ledger.admission import UNDO_TRIES
from weir.aws.ledger.books import CONFLICTS_S, SETTLE_S
from weir.errors import LedgerBusy, LimitReached, QuotaExceeded
from weir.ledger.admission import Reservation, StaleConfiguration
from weir.ledger.rules import Settlement
from weir.projects.limits import NANO, Limits, Pool

CENT = NANO // 100  # the worst case of a request of `ask`
LONG_AFTER = NOON + 3_600
USER = Limits(
    tpm=10**6,
    requests_per_day=9,
    tokens_per_day=10**6,
    nano_usd_per_month=NANO,
    concurrent_streams=2,
)
POOL = Limits(tokens_per_month=10**6, nano_usd_per_month=NANO, concurrent_streams=5)
ROW = {"outcome": "completed", "nano_usd": SPENT.nano_usd, "output_tokens": 40, "input_tokens": 10}

NOTHING = Settlement(0, 0, answered=False)
TIMEOUT = AwsError("timed out")
FAILURES = {
    "timeout": TIMEOUT,
    "500": AwsError("failed", 500, "InternalServerError"),
    "throttled": AwsError("throttled", 400, "ThrottlingException"),
    "in progress": AwsError("in progress", 400, "TransactionInProgressException"),
}


class Time:
    """A monotonic clock that only sleeping and calling move on."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s

    def sleep(self, seconds: float) -> None:
        self.s += seconds


def ledger_of(client: Any, time: Time | None = None) -> Ledger:
    time = time or Time()
    return Ledger(client, "t", lambda: NOON, monotonic=time, sleep=time.sleep)


def totals(store: SmallDynamoDB) -> dict[str, int]:
    """Of all of the ledger's counters, whosever; and how much is open."""
    found = {"open": 0, "streams": 0, "rows": 0, "rows_nano_usd": 0, "rows_tokens": 0}
    for (pk, sk), item in store.items.items():
        if pk.startswith("OPEN#"):
            found["open"] += "doc" in item
        elif pk.startswith("USAGE#"):
            found["rows"] += 1
            found["rows_nano_usd"] += int(item["nano_usd"]["N"])
            found["rows_tokens"] += int(item["input_tokens"]["N"]) + int(item["output_tokens"]["N"])
        else:
            whose = "user" if "#u#" in pk else "project" if pk.startswith("LEDGER#p#") else "tenant"
            found["streams"] += len(item.get("open", {}).get("SS", ()))
            for name, value in item.items():
                if "N" in value and name not in ("g", "ttl"):
                    name = f"{whose} {sk.partition('#')[0]} {name}"
                    found[name] = found.get(name, 0) + int(value["N"])
    return found


def assert_books_balance(store: SmallDynamoDB) -> int:
    """Nothing is held by anybody, and everybody has used what the rows say. How many there are."""
    found = totals(store)
    assert found["open"] == found["streams"] == 0
    for whose in ("user", "project", "tenant"):
        assert found.get(f"{whose} MONTH nano_usd_reserved", 0) == 0
        assert found.get(f"{whose} MONTH nano_usd", 0) == found["rows_nano_usd"]
        assert found.get(f"{whose} NOW streams", 0) == 0
    assert found.get("user MINUTE tokens", 0) == found["rows_tokens"]
    assert found.get("user MONTH d21t", 0) == found["rows_tokens"]
    assert found.get("user MONTH d21q", 0) == found["rows"]
    assert found.get("project MONTH tokens", 0) == found["rows_tokens"]
    return found["rows"]


def one_of_all() -> Any:
    """Dearer than one shard's share, so that room must be made for it first."""
    return ask(
        limits=USER,
        project=Pool(Limits(**{**POOL_TOLD, "nano_usd_per_month": 3 * CENT}), 4),
        tenant=Pool(POOL),
    )


POOL_TOLD = {name: getattr(POOL, name) for name in Limits.__slots__}


class OneFault:
    """Fails the k-th call: before or after it was carried out."""

    def __init__(self, k: int, error: Exception, *, carried_out: bool) -> None:
        self._k, self._error, self._carried_out = k, error, carried_out
        self.seen = 0

    def __call__(self, _operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        self.seen += 1
        if self.seen - 1 != self._k:
            return carry_out()
        if self._carried_out:
            carry_out()
        raise self._error

    @property
    def struck(self) -> bool:
        return self.seen > self._k


def live(ledger: Ledger) -> Reservation | None:
    """What the door does. None: the caller was told that it failed."""
    try:
        reservation = ledger.admit(one_of_all())
    except (AwsError, LedgerBusy):
        return None
    try:
        ledger.settle(reservation, SPENT, ROW)
    except AwsError:
        return reservation
    return reservation


@pytest.mark.parametrize("carried_out", [False, True], ids=["not carried out", "carried out"])
@pytest.mark.parametrize("error", FAILURES.values(), ids=FAILURES)
def test_whichever_call_fails_the_request_is_settled_once_or_never_was(
    error: Exception, carried_out: bool
) -> None:
    outcomes = set()
    for k in range(20):
        store, fault = SmallDynamoDB(), OneFault(k, error, carried_out=carried_out)
        client = Between(store, fault)
        served = live(ledger_of(client))
        ledger_of(store).sweep(LONG_AFTER, lambda: False)
        rows = assert_books_balance(store)
        assert rows == (1 if served else 0), f"call {k} of {client.calls}"
        outcomes.add(bool(served))
        if served:
            assert totals(store)["rows_nano_usd"] == SPENT.nano_usd
        if not fault.struck:
            assert k >= 5  # refused, read, moved, admitted, settled
            break
    else:
        pytest.fail("it never came to an end")
    assert outcomes == {True, False}


@pytest.mark.parametrize("carried_out", [False, True], ids=["not carried out", "carried out"])
def test_whichever_two_calls_fail_nobody_pays_twice_and_whoever_was_refused_pays_nothing(
    carried_out: bool,
) -> None:
    for first in range(6):
        for second in range(first + 1, 12):
            store = SmallDynamoDB()
            seen = 0

            def around(
                _operation: str,
                _asked: Any,
                carry_out: Callable[[], Any],
                bad: tuple[int, int] = (first, second),
            ) -> Any:
                nonlocal seen
                seen += 1
                if seen - 1 not in bad:
                    return carry_out()
                if carried_out:
                    carry_out()
                raise TIMEOUT

            served = live(ledger_of(Between(store, around)))
            ledger_of(store).sweep(LONG_AFTER, lambda: False)
            assert assert_books_balance(store) == (1 if served else 0), (first, second)


@pytest.mark.parametrize("when", range(5))
@pytest.mark.parametrize("error", [FAILURES["timeout"], FAILURES["in progress"]])
def test_admission_that_comes_after_it_was_given_up_holds_and_costs_nothing(
    when: int, error: Exception
) -> None:
    """It arrives before the `when`-th of the calls that undo it, or after all of them."""
    store = SmallDynamoDB()
    late: list[Callable[[], Any]] = []
    codes: list[str | None] = []

    def around(operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        if operation == "transact_write_items" and len(client.calls) == 1:
            late.append(carry_out)
            raise error
        if late and len(client.calls) == when + 2:
            arrive()
        return carry_out()

    def arrive() -> None:
        try:
            late.pop()()
        except AwsError as refused:
            codes.append(refused.code)

    client = Between(store, around)
    with pytest.raises(AwsError):
        ledger_of(client).admit(ask(limits=USER, project=Pool(POOL), tenant=Pool(POOL)))
    if late:
        arrive()
    assert codes in ([], ["TransactionCanceledException"])
    assert assert_books_balance(store) == 0
    ledger_of(store).sweep(LONG_AFTER, lambda: False)
    assert assert_books_balance(store) == 0
    assert not [key for key in store.items if key[0].startswith("OPEN#")]


def test_settling_that_was_carried_out_twice_counts_once() -> None:
    """Its first try was slow, and arrives when the second has been answered."""
    store = SmallDynamoDB()
    late: list[Callable[[], Any]] = []
    reservation = ledger_of(store).admit(ask(limits=USER, project=Pool(POOL), tenant=Pool(POOL)))

    def around(_operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        if not late:
            late.append(carry_out)
            raise TIMEOUT
        return carry_out()

    assert ledger_of(Between(store, around)).settle(reservation, SPENT, ROW)
    late[0]()
    assert assert_books_balance(store) == 1


def test_throttled_settling_is_tried_again_before_the_worst_case_is_charged() -> None:
    store, time = SmallDynamoDB(), Time()
    reservation = ledger_of(store).admit(ask(limits=USER, project=Pool(POOL), tenant=Pool(POOL)))

    def around(_operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        if time.s < SETTLE_S / 2:
            raise FAILURES["throttled"]
        return carry_out()

    assert ledger_of(Between(store, around), time).settle(reservation, SPENT, ROW)
    assert assert_books_balance(store) == 1
    assert totals(store)["rows_nano_usd"] == SPENT.nano_usd


def test_settling_gives_up_on_a_store_that_stays_away_and_the_sweeper_settles() -> None:
    store, time = SmallDynamoDB(), Time()
    reservation = ledger_of(store).admit(ask(limits=USER, project=Pool(POOL), tenant=Pool(POOL)))

    def around(_operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        raise TIMEOUT

    with pytest.raises(AwsError):
        ledger_of(Between(store, around), time).settle(reservation, SPENT, ROW)
    assert SETTLE_S <= time.s <= SETTLE_S + 1
    ledger_of(store).sweep(LONG_AFTER, lambda: False)
    assert assert_books_balance(store) == 1
    assert totals(store)["rows_nano_usd"] == CENT


def test_what_is_wrong_with_the_request_itself_is_told_at_once() -> None:
    def around(_operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        raise AwsError("no", 400, "AccessDeniedException")

    store = SmallDynamoDB()
    client = Between(store, around)
    with pytest.raises(AwsError, match="no"):
        ledger_of(client).admit(ask())
    reservation = ledger_of(store).admit(ask())
    with pytest.raises(AwsError, match="no"):
        ledger_of(client).settle(reservation, SPENT, ROW)
    assert len(client.calls) == 2


@pytest.mark.parametrize("carried_out", [False, True], ids=["not carried out", "carried out"])
def test_sweep_whose_calls_fail_is_completed_by_the_next(carried_out: bool) -> None:
    for k in range(40):
        store = SmallDynamoDB()
        for number in range(3):
            ledger_of(store).admit(
                ask(subject=f"u#{number}", limits=USER, project=Pool(POOL), tenant=Pool(POOL))
            )
        fault = OneFault(k, TIMEOUT, carried_out=carried_out)
        with contextlib.suppress(AwsError):  # the list could not be read
            ledger_of(Between(store, fault)).sweep(LONG_AFTER, lambda: False)
        ledger_of(store).sweep(LONG_AFTER, lambda: False)
        assert assert_books_balance(store) == 3
        assert totals(store)["rows_nano_usd"] == 3 * CENT
        if not fault.struck:
            return
    pytest.fail("it never came to an end")


# ---------------------------------------------------------------- collisions


class Conflicts:
    """Answers a part of all transactions as DynamoDB does if others are at the same items."""

    def __init__(self, seed: int, part: float, time: Time) -> None:
        self._random, self._part, self._time = random.Random(seed), part, time

    def __call__(self, operation: str, asked: Any, carry_out: Callable[[], Any]) -> Any:
        self._time.s += 0.005
        if operation == "transact_write_items" and self._random.random() < self._part:
            reasons = [{"Code": "None"} for _ in asked["TransactItems"]]
            for _ in range(self._random.randint(1, 3)):
                reasons[self._random.randrange(len(reasons))] = {"Code": "TransactionConflict"}
            raise AwsError("conflict", 400, "TransactionCanceledException", reasons)
        return carry_out()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shards", [1, 4, 16])
@pytest.mark.parametrize("field", ["nano_usd_per_month", "concurrent_streams", "tokens_per_month"])
def test_half_of_all_calls_in_conflict_refuse_nobody_who_fits_and_admit_nobody_who_does_not(
    seed: int, shards: int, field: str
) -> None:
    most = 7
    each = {"nano_usd_per_month": CENT, "tokens_per_month": 100, "concurrent_streams": 1}[field]
    pool = Pool(Limits(**{field: most * each}), shards)
    store, time, chance = SmallDynamoDB(), Time(), random.Random(seed)
    ledger = ledger_of(Between(store, Conflicts(seed, 0.5, time)), time)
    holding: list[Reservation] = []
    spent = refused = 0
    for number in range(60):
        if holding and chance.random() < 0.3:
            reservation, settled = holding.pop(chance.randrange(len(holding))), NOTHING
            if chance.random() < 0.2:
                worst = reservation.amounts
                settled = Settlement(worst.tokens, worst.nano_usd, answered=True)
                spent += field != "concurrent_streams"
            assert ledger.settle(reservation, settled, None)
        began = time.s
        try:
            holding.append(ledger.admit(ask(subject=f"u#{number}", limits=Limits(), project=pool)))
        except (QuotaExceeded, LimitReached):
            assert len(holding) + spent == most
            refused += 1
        except LedgerBusy:
            assert time.s - began > CONFLICTS_S
        assert len(holding) + spent <= most
    assert refused


def test_ledger_is_busy_after_a_second_of_conflicts_and_nothing_is_held() -> None:
    store, time = SmallDynamoDB(), Time()
    ledger = ledger_of(Between(store, Conflicts(1, 1.0, time)), time)
    with pytest.raises(LedgerBusy) as told:
        ledger.admit(ask(limits=USER, project=Pool(POOL, 4), tenant=Pool(POOL)))
    assert CONFLICTS_S < time.s < CONFLICTS_S + 0.5
    assert told.value.headers["Retry-After"] == "1"
    assert not store.items


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError"])
def test_conflict_beside_a_limit_that_refuses_is_a_refusal(code: str) -> None:
    """Conditions that fail are told of the item as it is: no later try could pass them."""
    store = SmallDynamoDB()
    ledger_of(store).admit(ask(limits=Limits(rpm=1)))

    def around(_operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        try:
            return carry_out()
        except AwsError as error:
            reasons = [dict(each) for each in error.reasons]
            reasons[0]["Code"] = code
            raise AwsError("cancelled", 400, error.code, reasons) from None

    with pytest.raises(LimitReached):
        ledger_of(Between(store, around)).admit(ask(limits=Limits(rpm=1)))


def test_undoing_that_collides_with_the_admission_it_undoes_is_tried_again() -> None:
    """The admission is under way: until it is there, its item can be neither deleted nor put."""
    store = SmallDynamoDB()
    late: list[Callable[[], Any]] = []
    single = AwsError("conflict", 400, "TransactionConflictException")

    def around(operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        if not late:
            late.append(carry_out)
            raise TIMEOUT
        if operation == "put_item" and len(client.calls) == 3:
            raise single
        if len(client.calls) == 4:
            late[0]()
        return carry_out()

    client = Between(store, around)
    with pytest.raises(AwsError, match="timed out"):
        ledger_of(client).admit(ask(limits=USER, project=Pool(POOL), tenant=Pool(POOL)))
    assert client.calls[3] == "transact_write_items"
    assert assert_books_balance(store) == 0


def test_undoing_that_was_sent_twice_gives_back_nothing_that_was_never_held() -> None:
    """The admission never arrives. What is put in its place does, but its answer is lost, and the
    client sends it again.
    """
    store = SmallDynamoDB()

    def around(operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        if len(client.calls) == 1:
            raise TIMEOUT
        if operation == "put_item":
            carry_out()
        return carry_out()

    client = Between(store, around)
    with pytest.raises(AwsError, match="timed out"):
        ledger_of(client).admit(ask(limits=USER, project=Pool(POOL), tenant=Pool(POOL)))
    assert client.calls.count("put_item") == UNDO_TRIES
    ((pk, _),) = store.items  # no counter was touched
    assert pk.startswith("OPEN#")
    assert assert_books_balance(store) == 0


@pytest.mark.parametrize("code", ["ValidationError", "ItemCollectionSizeLimitExceeded"])
def test_transaction_with_a_part_that_is_wrong_is_an_error_at_once_and_nothing_is_held(
    code: str,
) -> None:
    """It was cancelled, so nothing is to be undone; and no other try can succeed."""

    def around(operation: str, asked: Any, carry_out: Callable[[], Any]) -> Any:
        if operation != "transact_write_items":
            return carry_out()
        reasons = [*({"Code": "None"} for _ in asked["TransactItems"][1:]), {"Code": code}]
        raise AwsError("cancelled", 400, "TransactionCanceledException", reasons)

    store = SmallDynamoDB()
    client = Between(store, around)
    with pytest.raises(AwsError, match="cancelled"):
        ledger_of(client).admit(ask(limits=USER, project=Pool(POOL), tenant=Pool(POOL)))
    assert not store.items
    reservation = ledger_of(store).admit(ask())
    with pytest.raises(AwsError, match="cancelled"):
        ledger_of(client).settle(reservation, SPENT, ROW)
    assert len(client.calls) == 2


def test_cancelling_that_collides_with_a_request_is_tried_again_for_a_second() -> None:
    store, time = SmallDynamoDB(), Time()
    one = ledger_of(store).admit(ask())
    busy_until = 0.5

    def around(_operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        time.s += 0.005
        if time.s < busy_until:
            raise AwsError("conflict", 400, "TransactionConflictException")
        return carry_out()

    ledger = ledger_of(Between(store, around), time)
    assert ledger.cancel("p", one.subject, one.completion_id)
    busy_until, time.s = 100.0, 0.0
    with pytest.raises(LedgerBusy):
        ledger.cancel("p", one.subject, one.completion_id)
    assert CONFLICTS_S < time.s < CONFLICTS_S + 0.5


@pytest.mark.parametrize("most", [1, 3, 20])
def test_items_that_come_in_parts_are_read_until_all_are_there(most: int) -> None:
    """DynamoDB may hand back a part of the keys when it is short of capacity."""
    store = SmallDynamoDB()
    keys = [Key("LEDGER#p#u#ann", f"MINUTE#{number}") for number in range(4)]
    for key in keys[:3]:
        store.put_item(Item={**key.item(), "requests": {"N": "1"}})

    def around(_operation: str, asked: Any, carry_out: Callable[[], Any]) -> Any:
        told = asked["RequestItems"]["t"]
        left = told["Keys"][most:]
        told["Keys"] = told["Keys"][:most]
        answer = carry_out()
        answer["UnprocessedKeys"] = {"t": {**told, "Keys": left}} if left else {}
        return answer

    found = ledger_of(Between(store, around)).read(keys)
    assert ["requests" in item for item in found] == [True, True, True, False]


def test_items_of_which_some_never_come_are_an_error_and_not_taken_for_empty() -> None:
    def around(_operation: str, asked: Any, carry_out: Callable[[], Any]) -> Any:
        return {**carry_out(), "UnprocessedKeys": asked["RequestItems"]}

    with pytest.raises(AwsError):
        ledger_of(Between(SmallDynamoDB(), around)).used_by("p", "u#ann", NOON)


# ---------------------------------------------------------------- others in between


@pytest.mark.parametrize("before_the_read", [True, False])
def test_caller_who_knows_an_older_configuration_undoes_no_division(before_the_read: bool) -> None:
    """Another divides the pool anew before he reads, or between his read and his write."""
    store, budget = SmallDynamoDB(), Limits(nano_usd_per_month=8 * CENT)
    newer: list[Reservation] = []

    def divide() -> None:
        one = ask(subject="u#bob", limits=Limits(), project=Pool(budget, 4, 2))
        newer.append(ledger_of(store).admit(one))
        ledger_of(store).settle(newer[0], NOTHING, None)

    def around(operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        if operation != "batch_get_item" or newer:
            return carry_out()
        if before_the_read:
            divide()
        answer = carry_out()
        if not before_the_read:
            divide()
        return answer

    with pytest.raises(StaleConfiguration):
        ledger_of(Between(store, around)).admit(ask(limits=Limits(), project=Pool(budget, 4, 1)))
    assert len(newer) == 1
    assert [item["g"] for item in store.items.values() if "g" in item] == [{"N": "2"}] * 16
    assert totals(store)["project MONTH nano_usd"] == 0


def test_what_is_moved_while_the_shards_are_read_refuses_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is seen in both: where it was, and where it is then."""
    monkeypatch.setattr(admission, "os", SimpleNamespace(urandom=bytes))  # meets the first shard
    store, moved = SmallDynamoDB(), False
    pool = Pool(Limits(nano_usd_per_month=2 * CENT), 2)
    keys = [Key(f"LEDGER#p#{shard}", "MONTH#202611").item() for shard in range(2)]
    store.put_item(Item={**keys[0], "nano_usd": {"N": str(CENT)}})

    def around(operation: str, _asked: Any, carry_out: Callable[[], Any]) -> Any:
        nonlocal moved
        if operation != "batch_get_item" or moved:
            return carry_out()
        first, moved = store.get_item(Key=keys[0])["Item"], True
        store.put_item(Item={**keys[0], "nano_usd": {"N": "0"}})
        store.put_item(Item={**keys[1], "nano_usd": {"N": str(CENT)}})
        return {"Responses": {"t": [first, store.get_item(Key=keys[1])["Item"]]}}

    ledger_of(Between(store, around)).admit(ask(limits=Limits(), project=pool))
    assert moved
    assert totals(store)["project MONTH nano_usd"] == 2 * CENT


def test_admission_that_the_client_sent_twice_to_a_store_that_forgot_the_first_is_one() -> None:
    store = SmallDynamoDB()

    def around(_operation: str, asked: Any, carry_out: Callable[[], Any]) -> Any:
        carry_out()
        return store.transact_write_items(**{**asked, "ClientRequestToken": None})

    limits = Limits(rpm=1, nano_usd_per_month=CENT)
    one = ledger_of(Between(store, around)).admit(ask(limits=limits))
    ledger_of(store).settle(one, SPENT, ROW)
    found = totals(store)
    assert (found["rows"], found["user MINUTE requests"]) == (1, 1)
    assert found["user MONTH nano_usd"] == SPENT.nano_usd


class Crowd:
    """Callers who come between each other's calls, an operator among them who changes the limits
    and shards of their project.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._callers: list[Pool] = []
        self._most_used: list[int] = []  # since each of them came
        self._newest = 0  # generation by which anybody was admitted
        self._pools = [Pool(Limits(nano_usd_per_month=12 * CENT, concurrent_streams=8), 4)]
        self.store = SmallDynamoDB()
        self._ledger = ledger_of(Between(self.store, self._around))
        self._open: list[Reservation] = []
        self._spent = 0
        self.admitted = 0

    def admit(self) -> None:
        """With what is configured, or was a moment ago."""
        pool = self._chance.choice(self._pools[-2:])
        self._callers.append(pool)
        self._most_used.append(self._used())
        one = ask(subject=f"u#{self._chance.random()}", limits=Limits(), project=pool)
        try:
            self._open.append(self._ledger.admit(one))
            self.admitted += 1
        except QuotaExceeded:  # at one moment at least it did not fit
            assert pool.limits.nano_usd_per_month is not None
            assert self._most_used[-1] + CENT > pool.limits.nano_usd_per_month
        except (StaleConfiguration, LimitReached, LedgerBusy):
            pass
        self._callers.pop()
        self._most_used.pop()

    def something(self) -> None:
        what = self._chance.random()
        if what < 0.5:
            self.admit()
        elif what < 0.9:
            self._settle()
        elif what > 0.95:
            self._change()

    def _settle(self) -> None:
        if not self._open:
            return
        one = self._open.pop(self._chance.randrange(len(self._open)))
        if self._chance.random() < 0.7:
            self._ledger.settle(one, NOTHING, None)
        else:
            self._ledger.settle(one, SPENT, ROW)
            self._spent += SPENT.nano_usd

    def _change(self) -> None:
        most, shards = self._chance.choice([4, 8, 12, 20]), self._chance.choice([2, 3, 4, 16])
        limits = Limits(nano_usd_per_month=most * CENT, concurrent_streams=8)
        self._pools.append(Pool(limits, shards, len(self._pools)))

    def _around(self, operation: str, asked: Any, carry_out: Callable[[], Any]) -> Any:
        if self._is_interrupted():
            self.something()
        before = self._used()
        if operation == "batch_get_item" and self._is_interrupted():
            return self._read_in_two(asked["RequestItems"]["t"]["Keys"])
        answer = carry_out()
        used = self._used()
        self._most_used = [max(each, used) for each in self._most_used]
        if used > before:
            pool = self._callers[-1]
            most = pool.limits.nano_usd_per_month
            assert most is not None
            assert used <= most
            assert pool.generation >= self._newest
            self._newest = pool.generation
        return answer

    def _is_interrupted(self) -> bool:
        return len(self._callers) == 1 and self._chance.random() < 0.4

    def _read_in_two(self, keys: list[Any]) -> dict[str, Any]:
        """The items of one call are read one after the other."""
        half = self._chance.randint(1, len(keys) - 1)
        first = self.store.batch_get_item(RequestItems={"t": {"Keys": keys[:half]}})
        self.something()
        rest = self.store.batch_get_item(RequestItems={"t": {"Keys": keys[half:]}})
        return {"Responses": {"t": first["Responses"]["t"] + rest["Responses"]["t"]}}

    def _used(self) -> int:
        return totals(self.store).get("project MONTH nano_usd", 0)

    def check(self) -> None:
        found = totals(self.store)
        held = sum(each.amounts.nano_usd for each in self._open)
        assert found.get("project MONTH nano_usd", 0) == held + self._spent
        assert found.get("project MONTH nano_usd_reserved", 0) == held
        assert found.get("project NOW streams", 0) == len(self._open) <= 8


@pytest.mark.parametrize("seed", range(20))
def test_callers_between_each_others_calls_never_admit_more_than_their_limit(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = SimpleNamespace(urandom=random.Random(seed).randbytes)
    monkeypatch.setattr(admission, "os", chance)
    monkeypatch.setattr(contention, "os", chance)
    crowd = Crowd(seed)
    for _ in range(50):
        crowd.admit()
        crowd.something()
        crowd.check()
    assert crowd.admitted > 5
