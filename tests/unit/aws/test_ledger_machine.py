"""The ledger beside a naive one: plain counters, one of each, and a list of what is open. Whatever
one caller and one operator do, in whatever order, both admit and refuse the same, and the books
balance after each step.
"""

import random
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from moto import mock_aws

from tests.unit.aws.small_dynamodb import SmallDynamoDB
from tests.unit.aws.test_ledger import Clock, ask
from tests.unit.conftest import make_table
from weir.aws import items
from weir.aws.clients import client
from weir.aws.items import Record
from weir.aws.ledger import Ledger, admission
from weir.aws.ledger.books import reservation_of
from weir.aws.operator.records import Touched
from weir.errors import LimitReached, QuotaExceeded, Refusal
from weir.ledger import rules
from weir.ledger.admission import Ask, Reservation
from weir.ledger.rules import FIELDS, PROJECT, TENANT, USER, Account, Field, Settlement
from weir.projects.limits import NANO, Limits, Pool

NANO_OF_A_TOKEN = 3
ESTIMATE = 10
LEAST = rules.LEAST_OUTPUT_TOKENS
START = 1_796_082_900  # 2026-11-30 23:55:00 UTC: a day and a month are about to end
DUE_S = 360

TIERS = (
    Limits(rpm=4, tokens_per_day=700, nano_usd_per_month=6_000, concurrent_streams=2),
    Limits(tpm=600, requests_per_day=12, tokens_per_month=4_000, concurrent_streams=6),
    Limits(),
)
LIMITED = frozenset(
    field.limit for field in FIELDS if any(getattr(tier, field.limit) is not None for tier in TIERS)
)
POOLS = {
    PROJECT: Limits(rpm=8, requests_per_day=30, nano_usd_per_month=4_500, concurrent_streams=5),
    TENANT: Limits(
        tpm=1_500, tokens_per_day=2_500, tokens_per_month=5_000, nano_usd_per_month=9_000
    ),
}
# What an operator makes of a limit: nothing, a little, about as much, plenty.
FACTORS = st.sampled_from([0.0, 0.3, 0.7, 1.0, 1.6, 4.0])

Counter = tuple[str, str, str]  # whose, of which period, of what


@dataclass(frozen=True)
class Open:
    reservation: Reservation
    counters: dict[Counter, Field]


class LedgerMachine(RuleBasedStateMachine):
    """With one caller there is nobody in the way, so 402 and 429 are exact, however many shards."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self._make_store()
        self.clock, self.slept = Clock(), 0.0
        self.clock.now = START
        self.ledger = Ledger(
            self.store, "t", self.clock, monotonic=lambda: self.slept, sleep=self._sleep
        )
        self.pools = {scope: Pool(limits) for scope, limits in POOLS.items()}
        self.used: dict[Counter, int] = {}
        self.held: dict[Counter, int] = {}
        # How much more than it held has been charged: other shards cannot have known.
        self.excess: dict[Counter, int] = {}
        self.divided_at: dict[str, int] = {}
        self.open: dict[str, Open] = {}
        self.rows = {"nano_usd": 0, "tokens": 0, "count": 0}
        self._os = vars(admission)["os"]

    def _make_store(self) -> Any:
        return SmallDynamoDB()

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds

    def teardown(self) -> None:
        vars(admission)["os"] = self._os
        super().teardown()

    @initialize(
        seed=st.integers(0, 10**6),
        shards=st.tuples(st.sampled_from([1, 1, 3, 4, 16]), st.sampled_from([1, 4])),
    )
    def begin(self, seed: int, shards: tuple[int, int]) -> None:
        chance = random.Random(seed)
        vars(admission)["os"] = SimpleNamespace(urandom=chance.randbytes)
        for scope, number in zip(POOLS, shards, strict=True):
            self.pools[scope] = replace(self.pools[scope], shards=number)

    # ------------------------------------------------------------ the naive ledger

    @property
    def at(self) -> int:
        return int(self.clock.now)

    def accounts(self, one: Ask) -> list[Account]:
        return [
            rules.of_subject(one.subject, one.limits, one.limited),
            rules.of_pool(PROJECT, one.project, 0),
            rules.of_pool(TENANT, one.tenant, 0),
        ]

    def counter(self, account: Account, field: Field) -> Counter:
        whose = account.part if account.scope == USER else account.scope
        period = {
            "NOW": "NOW", "MINUTE": items.minute(self.at), "MONTH": items.month(self.at)
        }[field.window]  # fmt: skip
        return whose, period, rules.attribute(field, self.at)

    def over(self, one: Ask, output: int) -> list[tuple[Account, Field, int]]:
        """Who refuses it, with what is left."""
        amounts = one.price(output)
        return [
            (account, field, limit - used)
            for account in self.accounts(one)
            for field in account.fields
            if (limit := account.limit(field)) is not None
            and (used := self.used.get(self.counter(account, field), 0)) + amounts.of(field) > limit
        ]

    def is_sure(self, one: Ask, output: int, account: Account, field: Field) -> bool:
        """Not within the minute in which a pool was divided anew, for only its months and what is
        open are divided anew; and not about what was charged beyond what was held.
        """
        if account.scope == USER:
            return True
        if field.window == "MINUTE" and self.divided_at.get(account.scope) == self.at // 60:
            return False
        counter = self.counter(account, field)
        used = self.used.get(counter, 0) - self.excess.get(counter, 0)
        limit = account.limit(field)
        assert limit is not None
        one_item = account.shards == 1 and account.generation == 0
        return one_item or used + one.price(output).of(field) > limit

    # ------------------------------------------------------------ what happens

    requests = Bundle("requests")

    @rule(
        target=requests,
        subject=st.sampled_from(["u#ann", "u#bob", "u#1"]),
        tier=st.sampled_from(TIERS),
        output=st.sampled_from([0, 20, 90, 150, 400, 900]),
        shrinkable=st.booleans(),
    )
    def admit(self, subject: str, tier: Limits, output: int, shrinkable: bool) -> Any:
        one = ask(
            subject=subject,
            limits=tier,
            limited=LIMITED,
            project=self.pools[PROJECT],
            tenant=self.pools[TENANT],
            estimate=ESTIMATE,
            output=output,
            usd_of_a_token=NANO_OF_A_TOKEN / NANO,
            shrinkable=shrinkable,
        )
        return self._admit(replace(one, due=self.at + DUE_S))

    @rule(target=requests)
    def admit_all_that_is_left_of_the_projects_money(self) -> Any:
        """Whichever shard it meets, room must be moved there from all others."""
        budget, month = self.pools[PROJECT].limits.nano_usd_per_month, items.month(self.at)
        assert budget is not None
        left = budget - self.used.get((PROJECT, month, "nano_usd"), 0)
        output = left // NANO_OF_A_TOKEN - ESTIMATE
        return multiple() if output < 0 else self.admit("u#rich", TIERS[2], output, False)

    def _admit(self, one: Ask) -> Any:
        output = one.output_tokens
        over = self.over(one, output)
        sure = all(self.is_sure(one, output, account, field) for account, field, _ in over)
        fits = min((one.afford(field, left) for _, field, left in over), default=output)
        told: Refusal | None = None
        try:
            reservation = self.ledger.admit(one)
        except (LimitReached, QuotaExceeded) as refusal:
            told = refusal
        if told:
            assert over, f"refused, but there is room: {told.details}"
            assert not (one.shrinkable and fits >= LEAST)
            if sure:
                account, field, _ = min(over, key=lambda each: FIELDS.index(each[1]))
                assert told.details["limit_name"] == field.limit.replace("nano_usd", "usd")
                assert told.details["scope"] == account.scope
            return multiple()
        if sure:
            assert not over or (one.shrinkable and fits >= LEAST)
            assert reservation.output_tokens == (fits if over else output)
            assert not self.over(one, reservation.output_tokens)
        return self._admitted(one, reservation)

    def _admitted(self, one: Ask, reservation: Reservation) -> str:
        counters = {
            self.counter(account, field): field
            for account in self.accounts(one)
            for field in account.fields
        }
        for counter, field in counters.items():
            amount = reservation.amounts.of(field)
            self.used[counter] = self.used.get(counter, 0) + amount
            if field.unit == "nano_usd":
                self.held[counter] = self.held.get(counter, 0) + amount
        self.open[one.completion_id] = Open(reservation, counters)
        return one.completion_id

    @rule(one=consumes(requests), took=st.sampled_from([0.0, 0.2, 0.9, 1.0, 1.0, 1.3]))
    def settle(self, one: str, took: float) -> None:
        """A request that has been swept meanwhile is settled no more."""
        was_open = one in self.open
        if not was_open:
            return
        reservation = self.open[one].reservation
        tokens = int(reservation.amounts.tokens * took)
        settled = Settlement(tokens, tokens * NANO_OF_A_TOKEN, answered=took > 0)
        row = {"nano_usd": settled.nano_usd, "input_tokens": tokens, "output_tokens": 0}
        assert self.ledger.settle(reservation, settled, row)
        self._settled(one, settled)
        assert not self.ledger.settle(reservation, settled, row, by="w")

    @rule(one=requests)
    def cancel(self, one: str) -> None:
        """It stays open until it is settled."""
        reservation = self._known(one)
        if reservation is None:
            return
        asked = ("p", reservation.subject, one)
        assert self.ledger.cancel(*asked)
        assert self.ledger.is_cancelled(*asked)
        assert not self.ledger.cancel("p", "u#eve", one)

    def _known(self, one: str) -> Reservation | None:
        return self.open[one].reservation if one in self.open else None

    @rule()
    def sweep(self) -> None:
        due = [one for one, it in self.open.items() if it.reservation.at + DUE_S < self.at]
        swept = self.ledger.sweep(self.at, lambda: False)
        worst = [self.open[one].reservation.amounts for one in due]
        assert swept.settled == len(due)
        assert swept.failed == 0
        assert swept.nano_usd == sum(each.nano_usd for each in worst)
        for one, amounts in zip(due, worst, strict=True):
            self._settled(one, Settlement(amounts.tokens, amounts.nano_usd, answered=True))

    def _settled(self, one: str, settled: Settlement) -> None:
        done = self.open.pop(one)
        held = done.reservation.amounts
        for counter, field in done.counters.items():
            change = 0
            if field.unit == "tokens":
                change = settled.tokens - held.tokens
            elif field.unit == "nano_usd":
                change = settled.nano_usd - held.nano_usd
                self.held[counter] -= held.nano_usd
            elif field.window == "NOW" or (field.code == "q" and not settled.answered):
                change = -1
            self.used[counter] += change
            self.excess[counter] = self.excess.get(counter, 0) + max(0, change)
        self.rows["nano_usd"] += settled.nano_usd
        self.rows["tokens"] += settled.tokens
        self.rows["count"] += 1

    @rule(
        scope=st.sampled_from([PROJECT, TENANT]),
        factor=FACTORS,
        shards=st.none() | st.sampled_from([1, 2, 4, 16]),
    )
    def configure(self, scope: str, factor: float, shards: int | None) -> None:
        """Raises or lowers a pool's limits, or divides it into other shards, or both."""
        was = self.pools[scope]
        limits = {
            field.limit: int(limit * factor)
            for field in FIELDS
            if (limit := getattr(POOLS[scope], field.limit)) is not None
        }
        shards = shards or was.shards
        before = {"limits": was.limits.document(), "ledger_shards": was.shards}
        touched = Touched(
            items.project("p") if scope == PROJECT else items.TENANT,
            Record({**before, "ledger_generation": was.generation}, 1),
            {
                "limits": Limits(**limits).document(),
                "ledger_shards": shards,
                "ledger_generation": was.generation,
            },
            "",
            "",
        )
        generation = touched.written()["ledger_generation"]
        self.pools[scope] = Pool(Limits(**limits), shards, generation)
        if generation > was.generation:
            self.divided_at[scope] = self.at // 60

    @rule(seconds=st.sampled_from([1, 7, 61, 300, 400, 3_700]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def wait_until_just_before_midnight(self) -> None:
        self.clock.now = self.at - self.at % 86_400 + 86_399

    @precondition(lambda self: not self.open)
    @rule()
    def wait_until_the_next_month(self) -> None:
        self.clock.now = rules.resets_at(rules.BY_CODE["n"], self.at)

    # ------------------------------------------------------------ what holds

    @invariant()
    def both_have_counted_the_same(self) -> None:
        stored, open_ids, reserved = self._stored()
        assert open_ids == set(self.open) == reserved
        month, today = items.month(self.at), rules.attribute(rules.BY_CODE["q"], self.at)[:3]
        for counter, used in self.used.items():
            whose, period, name = counter
            is_gone = name[0] == "d" and (period, name[:3]) != (month, today)  # removed in time
            if not is_gone and not (whose[0] == "u" and name == "streams"):
                assert stored.get(counter, 0) == used, counter
        for (whose, month, _), held in self.held.items():
            assert stored.get((whose, month, rules.HELD_USD), 0) == held
            of_this = [
                each.reservation.amounts.nano_usd
                for each in self.open.values()
                if (whose, month, "nano_usd") in each.counters
            ]
            assert sum(of_this) == held

    @invariant()
    def what_is_used_is_what_the_rows_say_and_what_is_held(self) -> None:
        held = sum(each.reservation.amounts.nano_usd for each in self.open.values())
        for scope in POOLS:
            used = sum(
                value
                for (whose, _, name), value in self._stored()[0].items()
                if whose == scope and name == "nano_usd"
            )
            assert used == self.rows["nano_usd"] + held

    def _stored(self) -> tuple[dict[Counter, int], set[str], set[str]]:
        """The counters, of all shards together; the requests that are open, by their users and by
        the reservations.
        """
        found: dict[Counter, int] = {}
        open_ids: set[str] = set()
        reserved: set[str] = set()
        for item in self._items():
            kind, _, rest = item["pk"]["S"].partition("#")
            if kind == "OPEN":
                reserved.add(reservation_of(item).completion_id)
            if kind != "LEDGER":
                continue
            pid, _, part = rest.partition("#")
            open_ids |= set(item.get("open", {}).get("SS", ()))
            whose = part if part.startswith("u#") else PROJECT if pid else TENANT
            for name, value in item.items():
                if "N" in value and name not in ("g", "ttl"):
                    counter = (whose, item["sk"]["S"], name)
                    found[counter] = found.get(counter, 0) + int(value["N"])
        return found, open_ids, reserved

    def _items(self) -> list[dict[str, Any]]:
        return list(self.store.items.values())


class MotoMachine(LedgerMachine):
    """moto's transactions and expressions, which are not ours."""

    def _make_store(self) -> Any:
        self._mock = mock_aws()
        self._mock.start()
        dynamodb = client("dynamodb")
        make_table(dynamodb)
        return dynamodb

    def _items(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.store.scan(TableName="t")["Items"]
        return found

    def teardown(self) -> None:
        self._mock.stop()
        super().teardown()


def run(machine: type[LedgerMachine], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_ledger_and_a_naive_one_agree_in_whatever_order_things_happen() -> None:
    run(LedgerMachine, 60, 40)


def test_they_agree_over_another_store() -> None:
    run(MotoMachine, 3, 10)


@pytest.mark.long
def test_they_agree_for_very_long() -> None:
    run(LedgerMachine, 1_000, 60)
