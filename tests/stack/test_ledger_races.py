"""At every moment spent + reserved <= budget, whoever comes at once: real processes on the embedded
AWS, whose transactions are atomic. What it does not have by itself is put between: conflicts, and
reads of several items that are no snapshot.
"""

import contextlib
import itertools
import multiprocessing
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier as ProcessBarrier
from multiprocessing.synchronize import Event as ProcessEvent
from typing import Any

import pytest

from local import embedded_aws
from weir.aws import items, lean
from weir.aws.items import Key
from weir.aws.ledger import Ledger
from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.table import Table
from weir.errors import LedgerBusy, LimitReached, QuotaExceeded, Refusal
from weir.ledger.admission import Ask, Reservation, StaleConfiguration
from weir.ledger.rules import FIELDS, Amounts, Settlement
from weir.operator.documents import NewProject, ProjectChange, parsed
from weir.projects.limits import NANO, Limits, Pool
from weir.projects.project import Project

PROCESSES = 4
MOST_THREADS = 64  # of a process: 256 requests at once
NOON = 1_795_262_400  # 2026-11-21 12:00:00 UTC: for the ledger no minute ever ends
MONTH, MINUTE = "MONTH#202611", "MINUTE#202611211200"
TOKENS, COST = 100, NANO // 100 + 7  # of one request, at most; no limit is a multiple of it
NOTHING = Limits()
NO_POOL = Pool(NOTHING)
ASK_AGAIN_S = 240.0  # by then every request must have been decided

DIVIDED_S = 60.0  # by then somebody must have divided a pool anew
KNOWN_FOR_S = 0.5  # how long a process keeps what it knows of a pool

Item = Mapping[str, Any]
Said = tuple[type[Exception], str, str]  # kind, scope and limit of a refusal
Command = Callable[["Racer", Any], Any]


# ---------------------------------------------------------------- what stands before the table


class Passing:
    """A client as the ledger sees it, which counts."""

    def __init__(self, client: lean.Client) -> None:
        self._client = client
        self.calls: list[tuple[str, int]] = []  # with the number of their items

    def __getattr__(self, name: str) -> Any:
        def call(**asked: Any) -> Any:
            self.calls.append((name, len(asked.get("TransactItems", ())) or 1))
            return getattr(self._client, name)(**asked)

        return call


class Measuring(Passing):
    """Notes what the store says that it charges."""

    def __init__(self, client: lean.Client) -> None:
        super().__init__(client)
        self.units: list[float] = []

    def transact_write_items(self, **asked: Any) -> Any:
        self.calls.append(("transact_write_items", len(asked["TransactItems"])))
        answer = self._client.transact_write_items(**asked, ReturnConsumedCapacity="TOTAL")
        self.units.append(sum(each["CapacityUnits"] for each in answer["ConsumedCapacity"]))
        return answer


class Conflicting(Passing):
    """Half of the transactions meet another one at one of their items."""

    def transact_write_items(self, **asked: Any) -> Any:
        if random.random() < 0.5:
            reasons = [{"Code": "None"} for _ in asked["TransactItems"]]
            random.choice(reasons)["Code"] = "TransactionConflict"
            raise lean.AwsError("cancelled", 400, "TransactionCanceledException", reasons)
        return self._client.transact_write_items(**asked)


class Torn(Passing):
    """A BatchGetItem reads its items one after the other: others write meanwhile. DynamoDB
    promises no more.
    """

    def batch_get_item(self, **asked: Any) -> Any:
        ((table, told),) = asked["RequestItems"].items()
        found = [
            self._client.get_item(TableName=table, Key=key, ConsistentRead=True)
            for key in told["Keys"]
        ]
        return {"Responses": {table: [each["Item"] for each in found if "Item" in each]}}


class ConflictingAndTorn(Conflicting, Torn):
    pass


# ---------------------------------------------------------------- in the processes


@dataclass(frozen=True)
class Asked:
    """One request, as it can be sent to a process."""

    id: str
    subject: str = "u#ann"
    pid: str = "race"
    limits: Limits = NOTHING
    project: Pool = NO_POOL
    tenant: Pool = NO_POOL
    limited: frozenset[str] = frozenset({"nano_usd_per_month", "tokens_per_day"})

    def ask(self) -> Ask:
        return Ask(
            pid=self.pid,
            subject=self.subject,
            tier="free",
            completion_id=self.id,
            limits=self.limits,
            limited=self.limited,
            project=self.project,
            tenant=self.tenant,
            price=lambda tokens: Amounts(tokens, COST),
            afford=lambda limit, left: 0,
            output_tokens=TOKENS,
            choices=1,
            shrinkable=False,
            due=NOON + 360,
            row={"uid": self.subject},
        )


@dataclass(frozen=True)
class Round:
    table: str
    asked: Sequence[Asked]
    through: type[Passing] = Passing


@dataclass(frozen=True)
class Decided:
    """`refused`: None if it was admitted. `busy`: how often nothing was decided."""

    asked: Asked
    refused: Said | None
    busy: int


STALE: Said = (StaleConfiguration, "project", "")


@dataclass(frozen=True)
class Mix:
    """Requests of a project whose operator keeps changing it, until they are told to stop."""

    table: str
    pid: str
    threads: int


@dataclass(frozen=True)
class Admission:
    """By the configuration of which generation, and between which monotonic times."""

    began: float
    ended: float
    generation: int


@dataclass
class Racer:
    """A process's own: a client for each of its threads, and what its requests hold."""

    endpoint: str
    between: ProcessBarrier
    enough: ProcessEvent
    pool: ThreadPoolExecutor
    held: dict[str, dict[str, Reservation]] = field(default_factory=lambda: defaultdict(dict))
    _local: threading.local = field(default_factory=threading.local)

    def client(self) -> lean.Client:
        if not hasattr(self._local, "client"):
            self._local.client = lean.Client(new_api(self.endpoint))
        client: lean.Client = self._local.client
        return client

    def ledger(self, table: str, through: type[Passing] = Passing) -> Ledger:
        return Ledger(through(self.client()), table, lambda: NOON)

    def _until_all_are_there(self) -> None:
        self.between.wait()

    def all_at_once(self, do: Callable[[Any], Any], each: Sequence[Any]) -> list[Any]:
        """A thread for each; none begins before all threads of all processes are there."""
        if not each:
            self._until_all_are_there()
            return []
        line = threading.Barrier(len(each), action=self._until_all_are_there)

        def begin(one: Any) -> Any:
            self.client()
            line.wait(ASK_AGAIN_S)
            return do(one)

        return list(self.pool.map(begin, each))


def new_api(endpoint: str) -> lean.Api:
    # The store answers one after the other, and 256 wait for it.
    return lean.Api(
        "dynamodb", embedded_aws.REGION, endpoint, embedded_aws.ROOT, read_timeout_s=30.0
    )


def work(
    endpoint: str,
    root: dict[str, str],
    orders: Connection,
    between: ProcessBarrier,
    enough: ProcessEvent,
) -> None:
    embedded_aws.ROOT.update(root)  # this process has not started the embedded AWS
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        racer = Racer(endpoint, between, enough, pool)
        while (order := orders.recv()) is not None:
            command, given = order
            try:
                orders.send((command(racer, given), None))
            except Exception as error:
                between.abort()
                orders.send((None, repr(error)))


def ready(racer: Racer, _: None) -> None:
    racer.between.wait()


def decide(racer: Racer, told: Round) -> list[Decided]:
    held = racer.held[told.table]

    def admit(asked: Asked) -> Decided:
        ledger, give_up = racer.ledger(told.table, told.through), time.monotonic() + ASK_AGAIN_S
        for busy in itertools.count():
            try:
                held[asked.id] = ledger.admit(asked.ask())
                return Decided(asked, None, busy)
            except LedgerBusy:
                assert time.monotonic() < give_up, "never decided"
            except StaleConfiguration:
                return Decided(asked, STALE, busy)
            except (QuotaExceeded, LimitReached) as refusal:
                details = refusal.details
                assert details is not None
                said = (type(refusal), details["scope"], details["limit_name"])
                return Decided(asked, said, busy)
        raise AssertionError

    return list(racer.all_at_once(admit, told.asked))


def settle(racer: Racer, told: Round) -> int:
    """All that this process holds, each with a part of its worst case; how many there were."""

    def end(reservation: Reservation) -> None:
        chance = random.Random(reservation.id)
        answered = chance.random() < 0.75
        used = Settlement(
            chance.randrange(TOKENS + 1) * answered, chance.randrange(COST + 1) * answered, answered
        )
        assert settle_one(racer.ledger(told.table, told.through), reservation, used)

    held = list(racer.held.pop(told.table, {}).values())
    racer.all_at_once(end, held)
    return len(held)


def settle_one(ledger: Ledger, reservation: Reservation, used: Settlement) -> bool:
    row = {
        "tokens": used.tokens,
        "nano_usd": used.nano_usd,
        "outcome": "completed" if used.answered else "refused",
    }
    return ledger.settle(reservation, used, row)


def forget(racer: Racer, count: tuple[str, int]) -> int:
    """Settles so many of what this process holds, as if they had used nothing."""
    table, most = count
    held = racer.held[table]
    for completion_id in list(held)[:most]:
        reservation = held.pop(completion_id)
        assert settle_one(racer.ledger(table), reservation, Settlement(0, 0, answered=False))
    return len(held)


def mix(racer: Racer, told: Mix) -> tuple[list[Admission], int, int]:
    """Admits and settles at random. How often it was refused, and how often it was told that what
    it knew of the pool was too old.
    """
    made: list[Admission] = []
    refused, stale = Counter[str](), Counter[str]()

    def current(table: Table) -> Pool:
        (record,) = table.records([items.project(told.pid)])
        return Project.from_document(told.pid, record.document).pool

    def one(thread: int) -> None:
        chance = random.Random(os.getpid() * 100 + thread)
        ledger, table = racer.ledger(told.table), Table(racer.client(), told.table)
        name, held = f"{os.getpid()}.{thread}", list[Reservation]()
        pool, looked = current(table), time.monotonic()
        for count in itertools.count():
            over = racer.enough.is_set()
            if held and (over or chance.random() < 0.5):
                # Little of what was held: the money must last.
                used = Settlement(1, chance.randrange(COST // 10_000), answered=True)
                assert settle_one(ledger, held.pop(chance.randrange(len(held))), used)
            if over:
                if not held:
                    return
                continue
            if time.monotonic() > looked + KNOWN_FOR_S:
                pool, looked = current(table), time.monotonic()
            asked = Asked(f"{name}.{count}", subject=f"u#{thread}", pid=told.pid, project=pool)
            began = time.monotonic()
            try:
                held.append(ledger.admit(asked.ask()))
                made.append(Admission(began, time.monotonic(), pool.generation))
            except StaleConfiguration:
                pool, looked = current(table), time.monotonic()
                stale["times"] += 1
            except (QuotaExceeded, LedgerBusy):
                refused["times"] += 1

    racer.all_at_once(one, range(told.threads))
    return made, refused["times"], stale["times"]


# ---------------------------------------------------------------- the processes


class Racers:
    """Several processes, each with its own interpreter, connections and configuration."""

    def __init__(self, endpoint: str) -> None:
        context = multiprocessing.get_context("spawn")
        # Kept: a process that is still starting finds them by their names.
        self.enough = context.Event()
        self._between = context.Barrier(PROCESSES, timeout=ASK_AGAIN_S)
        self._pipes: list[Connection] = []
        self._children = []
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe()
            given = (endpoint, embedded_aws.ROOT, theirs, self._between, self.enough)
            child = context.Process(target=work, args=given, daemon=True)
            child.start()
            theirs.close()
            self._pipes.append(ours)
            self._children.append(child)
        self.do(ready, [None] * PROCESSES)

    def end(self) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(BrokenPipeError):
                pipe.send(None)
        for child, pipe in zip(self._children, self._pipes, strict=True):
            child.join(10)
            if child.is_alive():
                child.kill()
                child.join()
            child.close()
            pipe.close()

    def start(self, command: Command, given: Sequence[Any]) -> None:
        if self._between.broken:
            self._between.reset()
        for pipe, each in zip(self._pipes, given, strict=True):
            pipe.send((command, each))

    def answers(self) -> list[Any]:
        told = []
        for pipe in self._pipes:
            assert pipe.poll(ASK_AGAIN_S + 60), "a process does not answer"
            told.append(pipe.recv())
        for _, error in told:
            assert error is None, error
        return [answer for answer, _ in told]

    def do(self, command: Command, given: Sequence[Any]) -> list[Any]:
        self.start(command, given)
        return self.answers()

    def decide(
        self, table: str, asked: Sequence[Asked], through: type[Passing] = Passing
    ) -> list[Decided]:
        """All of them at once; what is admitted stays open."""
        dealt = [Round(table, asked[i::PROCESSES], through) for i in range(PROCESSES)]
        decided = [each for of_one in self.do(decide, dealt) for each in of_one]
        assert len(decided) == len(asked)
        return decided

    def settle(self, table: str, through: type[Passing] = Passing) -> int:
        return sum(self.do(settle, [Round(table, (), through)] * PROCESSES))


@pytest.fixture(scope="module")
def racers(endpoint: str) -> Iterator[Racers]:
    started = Racers(endpoint)
    try:
        yield started
    finally:
        started.end()


_numbers = itertools.count()


class Books:
    """One table, and what is in it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.table = f"race-{next(_numbers)}"
        self.aws = embedded_aws.client(endpoint, "dynamodb")
        self.aws.create_table(
            TableName=self.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")
            ],
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        )

    def all(self) -> dict[Key, Item]:
        pages = self.aws.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
        return {
            Key(item["pk"]["S"], item["sk"]["S"]): item for page in pages for item in page["Items"]
        }

    def close(self) -> None:
        self.aws.delete_table(TableName=self.table)


@pytest.fixture
def books(endpoint: str) -> Iterator[Books]:
    opened = Books(endpoint)
    yield opened
    opened.close()


def number(item: Item, name: str) -> int:
    return int(item[name]["N"]) if name in item else 0


def totals(found: Mapping[Key, Item], parts: Sequence[str]) -> Counter[str]:
    """What the counters of these items' pks add up to, by window and attribute."""
    total: Counter[str] = Counter()
    for key, item in found.items():
        if key.pk in parts:
            for name, value in item.items():
                if "N" in value and name not in ("ttl", "g"):
                    total[f"{key.sk} {name}"] += int(value["N"])
                elif "SS" in value:
                    total[f"{key.sk} {name}"] += len(value["SS"])
    return total


def shards(pid: str) -> list[str]:
    return [items.ledger(pid, str(shard)) for shard in range(items.MOST_SHARDS)]


def assert_balanced(books: Books, admitted: Sequence[Asked]) -> None:
    """Nothing is open or held, and each account has used what its usage rows add up to."""
    found = books.all()
    assert not [key for key in found if key.pk.startswith("OPEN#")]
    rows: dict[str, list[Item]] = defaultdict(list)
    for key, item in found.items():
        if key.pk.startswith("USAGE#"):
            rows[key.pk.removeprefix("USAGE#")].append(item)
    assert sum(map(len, rows.values())) == len(admitted)
    for pid in {each.pid for each in admitted}:
        mine = [each for each in admitted if each.pid == pid]
        for subject in {each.subject for each in mine}:
            of_subject = [each for each in mine if each.subject == subject]
            assert len(rows[f"{pid}#{subject}"]) == len(of_subject)
            counted = of_subject[0].limited | limits_in(of_subject[0].limits)
            parts = [items.ledger(pid, subject)]
            assert_used(totals(found, parts), rows[f"{pid}#{subject}"], counted)
        of_project = [row for at, some in rows.items() for row in some if at.startswith(f"{pid}#")]
        counted = limits_in(mine[0].project.limits)
        assert_used(totals(found, shards(pid)), of_project, counted)
    counted = limits_in(admitted[0].tenant.limits) if admitted else frozenset()
    everybody = [row for some in rows.values() for row in some]
    assert_used(totals(found, shards("")), everybody, counted)


def assert_used(total: Counter[str], rows: Sequence[Item], counted: frozenset[str]) -> None:
    tokens = sum(number(row, "tokens") for row in rows)
    answered = sum(row["outcome"]["S"] == "completed" for row in rows)
    wanted = {
        "rpm": (f"{MINUTE} requests", len(rows)),
        "tpm": (f"{MINUTE} tokens", tokens),
        "requests_per_day": (f"{MONTH} d21q", answered),
        "tokens_per_day": (f"{MONTH} d21t", tokens),
        "tokens_per_month": (f"{MONTH} tokens", tokens),
        "nano_usd_per_month": (f"{MONTH} nano_usd", sum(number(row, "nano_usd") for row in rows)),
    }
    used = {place: value for place, value in total.items() if value}
    assert used == {place: n for limit, (place, n) in wanted.items() if limit in counted and n}


def limits_in(limits: Limits) -> frozenset[str]:
    return frozenset(each.limit for each in FIELDS if getattr(limits, each.limit) is not None)


# ---------------------------------------------------------------- exactly as many as there is room

LEVELS = [("user", 1), ("project", 1), ("project", 4), ("project", 16), ("tenant", 4)]


def requests(
    count: int, level: str, limits: Limits, shard_count: int = 1, *, tag: str = "r"
) -> list[Asked]:
    """Of one user, or of seven in one pool."""
    pool = Pool(limits, shard_count)
    limited = limits_in(limits)
    if level == "user":
        return [Asked(f"{tag}{i}", limits=limits, limited=limited) for i in range(count)]
    return [
        Asked(
            f"{tag}{i}",
            subject=f"u#{i % 7}",
            pid=f"race{i % 3}" if level == "tenant" else "race",
            limited=limited,
            project=pool if level == "project" else NO_POOL,
            tenant=pool if level == "tenant" else NO_POOL,
        )
        for i in range(count)
    ]


def race(
    racers: Racers,
    books: Books,
    asked: Sequence[Asked],
    room: int,
    said: Said,
    through: type[Passing] = Passing,
) -> int:
    """Decides all at once, then settles all at once. How often the store was too busy."""
    decided = racers.decide(books.table, asked, through)
    admitted = [each.asked for each in decided if each.refused is None]
    assert len(admitted) == min(len(asked), room)
    assert {each.refused for each in decided if each.refused is not None} <= {said}
    found = books.all()
    assert sum(key.pk.startswith("OPEN#") for key in found) == len(admitted)
    assert racers.settle(books.table, through) == len(admitted)
    assert_balanced(books, admitted)
    return sum(each.busy for each in decided)


def money(level: str) -> Said:
    return (QuotaExceeded, level, "usd_per_month")


def budget(room: int) -> Limits:
    """For so many requests, and almost another one."""
    return Limits(nano_usd_per_month=room * COST + COST - 1)


# (requests, room): some of them are refused, or none.
SHORT = {(8, 3), (8, 8), (64, 24)}
LONG = {(8, 12), (64, 64), (64, 1), (256, 100), (256, 256)}
ROUNDS = {8: 3, 64: 1, 256: 1}


def in_time(level: tuple[str, int], requests_and_room: tuple[int, int]) -> Any:
    """Where each share is less than two requests, what is used is moved again and again."""
    is_long = requests_and_room in LONG or (level[1] == 16 and requests_and_room != (8, 3))
    return pytest.param(*level, *requests_and_room, marks=[pytest.mark.long] if is_long else [])


@pytest.mark.parametrize(
    ("level", "shard_count", "count", "room"),
    [in_time(level, each) for each in sorted(SHORT | LONG) for level in LEVELS],
)
def test_requests_at_once_get_exactly_what_the_budget_has_room_for(
    racers: Racers, endpoint: str, level: str, shard_count: int, count: int, room: int
) -> None:
    for _ in range(ROUNDS[count]):
        with contextlib.closing(Books(endpoint)) as books:
            asked = requests(count, level, budget(room), shard_count)
            race(racers, books, asked, room, money(level))


@pytest.mark.long
def test_256_requests_at_once_get_exactly_what_the_budget_has_room_for(
    racers: Racers, books: Books
) -> None:
    race(racers, books, requests(256, "project", budget(100), 4), 100, money("project"))


@pytest.mark.long
@pytest.mark.parametrize(("level", "shard_count"), LEVELS)
def test_many_rounds_of_requests_at_once_get_exactly_what_the_budget_has_room_for(
    racers: Racers, endpoint: str, level: str, shard_count: int
) -> None:
    for turn in range(40):
        count, room = (8, turn % 10) if turn % 4 else (64, turn * 2)
        with contextlib.closing(Books(endpoint)) as books:
            asked = requests(count, level, budget(room), shard_count)
            race(racers, books, asked, room, money(level))


# ---------------------------------------------------------------- the other limits

# With who is told what when there is no more.
BOTH = [("user", 1), ("project", 4)]
OTHERS = [
    ("rpm", 1, LimitReached),
    ("requests_per_day", 1, QuotaExceeded),
    ("tokens_per_day", TOKENS, QuotaExceeded),
    ("concurrent_streams", 1, LimitReached),
]


@pytest.mark.parametrize(("name", "of_one", "kind"), OTHERS)
@pytest.mark.parametrize(
    ("level", "shard_count"),
    [pytest.param(*each, marks=[pytest.mark.long] if each not in BOTH else []) for each in LEVELS],
)
def test_32_requests_at_once_get_exactly_what_a_limit_has_room_for(
    racers: Racers,
    books: Books,
    name: str,
    of_one: int,
    kind: type[Refusal],
    level: str,
    shard_count: int,
) -> None:
    limits = replace(NOTHING, **{name: 10 * of_one + of_one - 1})
    asked = requests(32, level, limits, shard_count)
    race(racers, books, asked, 10, (kind, level, name))


def test_all_limits_of_all_levels_at_once_admit_what_the_tightest_has_room_for(
    racers: Racers, books: Books
) -> None:
    many = Limits(100, 10**6, 100, 10**6, 10**6, 100 * COST, None, 100)
    pool = replace(many, nano_usd_per_month=11 * COST)
    asked = [
        Asked(
            f"r{i}",
            subject=f"u#{i % 4}",
            limits=replace(many, rpm=3),
            limited=limits_in(many),
            project=Pool(pool, 4),
            tenant=Pool(many, 2),
        )
        for i in range(48)
    ]
    decided = racers.decide(books.table, asked)
    admitted = [each.asked for each in decided if each.refused is None]
    # Each of four users has room for 3, and the project for 11.
    assert len(admitted) == 11
    assert max(Counter(each.subject for each in admitted).values()) == 3
    assert {each.refused for each in decided} <= {
        None,
        (LimitReached, "user", "rpm"),
        (QuotaExceeded, "project", "usd_per_month"),
    }
    assert racers.settle(books.table) == 11
    assert_balanced(books, admitted)


# ---------------------------------------------------------------- subjects never seen before


@pytest.mark.parametrize("limits", [Limits(rpm=3), Limits(concurrent_streams=3), budget(3)])
def test_8_first_requests_of_a_subject_get_exactly_its_3(
    racers: Racers, books: Books, limits: Limits
) -> None:
    admitted = []
    for count in range(4):
        asked = [
            replace(each, subject=f"u#new{count}")
            for each in requests(8, "user", limits, tag=f"r{count}.")
        ]
        decided = racers.decide(books.table, asked)
        admitted += [each.asked for each in decided if each.refused is None]
        assert len(admitted) == 3 * (count + 1)
    assert racers.settle(books.table) == 12
    assert_balanced(books, admitted)


def test_60_subjects_seen_first_at_once_by_all_processes_get_3_each(
    racers: Racers, books: Books
) -> None:
    asked = [
        replace(each, subject=f"u#{i // PROCESSES}")
        for i, each in enumerate(requests(60 * PROCESSES, "user", budget(3)))
    ]
    decided = racers.decide(books.table, asked)
    admitted = [each.asked for each in decided if each.refused is None]
    assert Counter(each.subject for each in admitted) == {f"u#{i}": 3 for i in range(60)}
    assert racers.settle(books.table) == 180
    assert_balanced(books, admitted)


# ---------------------------------------------------------------- a store that is in the way


@pytest.mark.parametrize(
    ("level", "shard_count"),
    [("user", 1), ("project", 4), pytest.param("project", 16, marks=pytest.mark.long)],
)
@pytest.mark.parametrize("room", [24, 32])
def test_conflicts_in_half_of_the_calls_admit_nobody_too_many_and_refuse_nobody_too_early(
    racers: Racers, books: Books, level: str, shard_count: int, room: int
) -> None:
    asked = requests(32, level, budget(room), shard_count)
    race(racers, books, asked, room, money(level), Conflicting)


@pytest.mark.parametrize("room", [12, 16])
def test_reads_that_are_no_snapshot_admit_nobody_too_many_and_refuse_nobody_too_early(
    racers: Racers, books: Books, room: int
) -> None:
    race(racers, books, requests(16, "project", budget(room), 4), room, money("project"), Torn)


@pytest.mark.long
@pytest.mark.parametrize("room", [12, 48, 64])
def test_conflicts_and_torn_reads_together_refuse_nobody_too_early(
    racers: Racers, endpoint: str, room: int
) -> None:
    for shard_count in (2, 4):
        with contextlib.closing(Books(endpoint)) as books:
            asked = requests(64, "project", budget(room), shard_count)
            race(racers, books, asked, room, money("project"), ConflictingAndTorn)


def test_refusal_by_a_divided_pool_is_not_put_together_from_different_moments(
    endpoint: str, books: Books
) -> None:
    """One shard is full and the other has room for one request, and then it is the other way
    round: there was room at every moment.
    """
    torn = 0

    class Overtaken(Passing):
        def batch_get_item(self, **asked: Any) -> Any:
            nonlocal torn
            ((table, told),) = asked["RequestItems"].items()
            found = []
            for key in told["Keys"]:
                answer = self._client.get_item(TableName=table, Key=key, ConsistentRead=True)
                found.append(answer["Item"])
                if not overtaken:
                    full = number(answer["Item"], "nano_usd") == 4 * COST
                    torn += full
                    overtaken.append(True)
                    for shard in (0, 1) if full else ():
                        put(shard, 3 + shard)
            return {"Responses": {table: found}}

    def put(shard: int, times: int) -> None:
        key = Key(items.ledger(pid, str(shard)), MONTH).item()
        item = {**key, "nano_usd": {"N": str(times * COST)}}
        books.aws.put_item(TableName=books.table, Item=item)

    with contextlib.closing(new_api(endpoint)) as api:
        for count in range(16):  # of which half go to the shard that is full
            pid, overtaken = f"p{count}", list[bool]()
            put(0, 4)
            put(1, 3)
            pool = Pool(Limits(nano_usd_per_month=8 * COST), 2)
            ledger = Ledger(Overtaken(lean.Client(api)), books.table, lambda: NOON)
            ledger.admit(Asked(f"r{count}", pid=pid, project=pool).ask())
    assert torn


# ---------------------------------------------------------------- an operator who changes it


def usd(times: int) -> float:
    """A budget for so many requests, in the six decimals that an operator may give."""
    return -(-times * COST // 1000) / 10**6


def test_lowered_limit_admits_nobody_before_there_is_room_and_then_nobody_by_the_old_one(
    racers: Racers, books: Books
) -> None:
    """Twelve of twenty are open when it is lowered to six."""
    operator = operator_of(books)
    create(operator, "race", 20, 4)
    before = pool_of(books, "race")

    def newcomers(count: int, pool: Pool, tag: str) -> list[Asked]:
        asked = requests(count, "project", NOTHING, tag=tag)
        return [replace(each, project=pool) for each in asked]

    decided = racers.decide(books.table, newcomers(12, before, "first"))
    assert {each.refused for each in decided} == {None}
    change(operator, "race", 6, 4)
    after = pool_of(books, "race")
    assert after.generation == before.generation + 1
    refused = racers.decide(books.table, newcomers(16, after, "none"))
    assert {each.refused for each in refused} == {money("project")}
    assert sum(racers.do(forget, [(books.table, 2)] * PROCESSES)) == 4
    decided = racers.decide(books.table, newcomers(16, after, "two"))
    assert len([each for each in decided if each.refused is None]) == 2
    # By the limit that they still know, there would be room for them.
    unaware = racers.decide(books.table, newcomers(16, before, "old"))
    assert {each.refused for each in unaware} == {STALE}
    assert racers.settle(books.table) == 6


def operator_of(books: Books) -> Operator:
    keys = ProviderKeys(None, "none")
    return Operator(Table(books.aws, books.table), keys, actor="tests", clock=lambda: NOON)


def create(operator: Operator, pid: str, times: int, shard_count: int) -> None:
    operator.create_project(
        parsed(NewProject, {"pid": pid, "name": pid, **told_limits(times, shard_count)})
    )


def change(operator: Operator, pid: str, times: int, shard_count: int) -> None:
    operator.update_project(pid, parsed(ProjectChange, told_limits(times, shard_count)))


def told_limits(times: int, shard_count: int) -> dict[str, Any]:
    return {"limits": {"rpm": None, "usd_per_month": usd(times)}, "ledger_shards": shard_count}


def pool_of(books: Books, pid: str) -> Pool:
    (record,) = Table(books.aws, books.table).records([items.project(pid)])
    return Project.from_document(pid, record.document).pool


# Each has, or comes after one that has, more than one shard: only those have generations.
CHANGES = [(6, 4), (20, 16), (8, 2), (14, 1), (5, 4), (20, 4), (3, 16), (12, 2)]


@dataclass(frozen=True)
class Sample:
    """Read between the monotonic times `began` and `ended`. By `generations` the shards were
    divided.
    """

    began: float
    ended: float
    total: int
    held: int
    generations: frozenset[int]


class Sampler:
    """What all shards of a pool have at one moment, again and again."""

    def __init__(self, endpoint: str, table: str, pid: str) -> None:
        self.samples: list[Sample] = []
        self._api = new_api(endpoint)
        self._ledger = Ledger(lean.Client(self._api), table, lambda: NOON)
        self._keys = [Key(part, MONTH) for part in shards(pid)]
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ends.wait(0.01):
            began = time.monotonic()
            found = self._ledger.read(self._keys)
            total, held = (
                sum(number(item, name) for item in found)
                for name in ("nano_usd", "nano_usd_reserved")
            )
            generations = frozenset(number(item, "g") for item in found)
            self.samples.append(Sample(began, time.monotonic(), total, held, generations))

    def wait_for(self, generation: int) -> None:
        """Until somebody has divided anew what is used."""
        give_up = time.monotonic() + DIVIDED_S
        while not (self.samples and self.samples[-1].generations == {generation}):
            assert time.monotonic() < give_up, f"never divided anew: {self.samples[-1:]}"
            time.sleep(0.01)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.set()
        self._thread.join()
        self._api.close()


def run_mixed(
    racers: Racers, books: Books, changed: Sequence[tuple[int, int]], threads: int
) -> None:
    operator = operator_of(books)
    create(operator, "race", *CHANGES[-1])
    first = pool_of(books, "race")
    limits = {first.generation: usd_nano(first)}
    racers.enough.clear()
    with Sampler(books.endpoint, books.table, "race") as sampler:
        racers.start(mix, [Mix(books.table, "race", threads)] * PROCESSES)
        try:
            for times, shard_count in changed:
                time.sleep(0.2)
                change(operator, "race", times, shard_count)
                pool = pool_of(books, "race")
                assert pool.generation == max(limits) + 1
                limits[pool.generation] = usd_nano(pool)
                sampler.wait_for(pool.generation)
            time.sleep(0.2)
        finally:
            racers.enough.set()
            answers = racers.answers()
    made = [admission for of_one, _, _ in answers for admission in of_one]
    assert_never_above(sampler.samples, made, limits)
    assert_never_by_an_older_one(sampler.samples, made)
    # It was about something: the budget was hit, and the changes were met.
    assert min(sum(refused for _, refused, _ in answers), len(made)) > 20
    assert sum(stale for _, _, stale in answers) > 0
    assert len({each.generation for each in made}) > len(limits) / 2
    found = books.all()
    assert not [key for key in found if key.pk.startswith("OPEN#")]
    rows = [item for key, item in found.items() if key.pk.startswith("USAGE#race#")]
    assert len(rows) == len(made)
    used = totals(found, shards("race"))
    assert used[f"{MONTH} nano_usd"] == sum(number(row, "nano_usd") for row in rows)
    assert used[f"{MONTH} nano_usd_reserved"] == 0


def usd_nano(pool: Pool) -> int:
    assert pool.limits.nano_usd_per_month is not None
    return pool.limits.nano_usd_per_month


def assert_never_above(
    samples: Sequence[Sample], made: Sequence[Admission], limits: Mapping[int, int]
) -> None:
    """From one sample to the next it grows at most to a limit by which somebody was admitted then:
    shares of two limits are never added up.
    """
    assert len(samples) > 20
    assert samples[0].total <= limits[0]
    for before, after in itertools.pairwise(samples):
        by = {
            each.generation
            for each in made
            if each.ended >= before.began and each.began <= after.ended
        }
        assert after.total <= max([before.total, *(limits[generation] for generation in by)])
        assert 0 <= after.held <= after.total


def assert_never_by_an_older_one(samples: Sequence[Sample], made: Sequence[Admission]) -> None:
    """Once it has been divided by a generation, in all shards at once."""
    for sample in samples:
        (generation,) = sample.generations
        later = [each.generation for each in made if each.began > sample.ended]
        assert min(later, default=generation) >= generation


def test_pool_never_exceeds_the_limit_in_force_while_its_limit_and_shards_keep_changing(
    racers: Racers, books: Books
) -> None:
    run_mixed(racers, books, CHANGES[:5], threads=3)


@pytest.mark.long
def test_pool_never_exceeds_the_limit_in_force_through_many_changes_and_with_many_threads(
    racers: Racers, books: Books
) -> None:
    run_mixed(racers, books, CHANGES * 4, threads=8)


# ---------------------------------------------------------------- however many subjects there are

EVERYTHING = Limits(10**6, 10**9, 10**6, 10**9, 10**9, 10**15, None, 10**4)


@pytest.mark.parametrize("subjects", [500, pytest.param(100_000, marks=pytest.mark.long)])
def test_admission_and_settling_cost_the_same_for_ten_subjects_and_for_very_many(
    endpoint: str, books: Books, subjects: int
) -> None:
    """One round trip each, of as many items and capacity units. The embedded AWS charges a
    transaction as DynamoDB does: 2 units for each begun KB of each item, checks included.
    """
    with contextlib.closing(new_api(endpoint)) as api:
        know(books, range(10))
        among_ten = [costs(books, api, "u#new"), costs(books, api, "u#3")]
        know(books, range(10, subjects))
        among_many = [costs(books, api, "u#newer"), costs(books, api, f"u#{subjects - 1}")]
    assert among_ten == among_many
    assert among_ten == [[("transact_write_items", 11, 22.0)] * 2] * 2


def know(books: Books, numbers: Iterable[int]) -> None:
    """Subjects that have used something in this month."""
    for some in batches(numbers, 25):
        puts = [
            {
                "PutRequest": {
                    "Item": {
                        **Key(items.ledger("race", f"u#{n}"), MONTH).item(),
                        "nano_usd": {"N": str(n)},
                        "nano_usd_reserved": {"N": "0"},
                    }
                }
            }
            for n in some
        ]
        assert not books.aws.batch_write_item(RequestItems={books.table: puts})["UnprocessedItems"]


def batches(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    left = iter(numbers)
    while some := list(itertools.islice(left, size)):
        yield some


def costs(books: Books, api: lean.Api, subject: str) -> list[tuple[str, int, float]]:
    """Of one request with every limit at every level: each call, its items and its units."""
    client = Measuring(lean.Client(api))
    ledger = Ledger(client, books.table, lambda: NOON)
    asked = Asked(
        f"of-{subject}",
        subject=subject,
        limits=EVERYTHING,
        limited=limits_in(EVERYTHING),
        project=Pool(EVERYTHING, 4),
        tenant=Pool(EVERYTHING, 16),
    )
    used = Settlement(TOKENS // 2, COST // 2, answered=True)
    assert settle_one(ledger, ledger.admit(asked.ask()), used)
    return [(*call, units) for call, units in zip(client.calls, client.units, strict=True)]
