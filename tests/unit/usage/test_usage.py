"""Usage rows and their sums: what belongs where, and that each row is added once, whatever happens.

Rules first, then the shell over a table. Many rows at once: tests/stack/test_usage_rollup.py.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.aws.small_dynamodb import SmallDynamoDB
from weir.aws import items
from weir.aws import usage as shell
from weir.aws.clients import client
from weir.aws.contention import AwsError
from weir.aws.items import Key
from weir.aws.operator import Operator
from weir.aws.usage import Crowded, Unreadable, Usage, kept, row_of
from weir.usage import sums as rules
from weir.usage.sums import DAYS, DETAIL, MINUTES, USERS, Place, Row, Totals

NOON_MS = 1_795_262_400_000  # 2026-11-21 12:00:00 UTC
KEPT = kept(800 * 86_400)
_numbers = itertools.count()


def attributes(**more: Any) -> dict[str, Any]:
    """Of a usage row, as the ledger leaves it."""
    row = {
        "pid": "default",
        "subject": "u#ann",
        "uid": "ann",
        "session_id": "s-1",
        "model": "m-large",
        "upstream": "main",
        "at_ms": NOON_MS,
        "total_ms": 900,
        "outcome": "completed",
        "estimated": False,
        "input_tokens": 10,
        "cached_tokens": 4,
        "output_tokens": 5,
        "reasoning_tokens": 2,
        "nano_usd": 1234,
    }
    return {**row, **more}


def item(**more: Any) -> dict[str, Any]:
    told = attributes(**more)
    number = f"{next(_numbers):032x}"
    typed: dict[str, Any] = {}
    for name, value in told.items():
        kind = "BOOL" if isinstance(value, bool) else "N" if isinstance(value, int) else "S"
        typed[name] = {kind: value if kind == "BOOL" else str(value)}
    return {**items.usage(told["pid"], told["subject"], told["at_ms"], number).item(), **typed}


def ms(*at: int) -> int:
    return int(datetime(*at, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


# ---------------------------------------------------------------- rules


def test_row_counts_one_request_and_keeps_what_it_can_be_found_by() -> None:
    row = Row.of(attributes(outcome="upstream_error", estimated=True, tag="night", thread_id=""))
    assert row.totals == Totals(1, 1, 1, 10, 4, 5, 2, 1234)
    assert row.told == {
        "subject": "u#ann",
        "model": "m-large",
        "session_id": "s-1",
        "tag": "night",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"pid": 7},
        {"subject": ""},
        {"model": ""},
        {"tag": 7},
        {"nano_usd": -1},
        {"nano_usd": 1.5},
        {"output_tokens": "5"},
        {"output_tokens": True},
        {"input_tokens": 10**18 + 1},  # no sum of such could be held by DynamoDB
        {"at_ms": 10**13},  # no key has room for it
        {"at_ms": None},
    ],
    ids=str,
)
def test_what_is_no_usage_row_is_refused_before_anything_is_added(wrong: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Row.of(attributes(**wrong))


@pytest.mark.parametrize("name", ["outcome", "estimated", "pid", "at_ms", "nano_usd", "subject"])
def test_row_that_lacks_what_is_counted_is_refused(name: str) -> None:
    told = attributes()
    del told[name]
    with pytest.raises(KeyError):
        Row.of(told)


def periods(at_ms: int) -> tuple[str, str, str, str]:
    """Of the detail and the days, the users, and the minute."""
    places = {place.kind: place for place in Row.of(attributes(at_ms=at_ms)).places()}
    assert places[MINUTES].period == places[DAYS].period
    minute = places[MINUTES].name.partition("#")[0]
    return places[DETAIL].period, places[DAYS].period, places[USERS].period, minute


@pytest.mark.parametrize(
    ("last", "first"),
    [
        (("20261121", "202611"), ("20261122", "202611")),
        (("20261130", "202611"), ("20261201", "202612")),
        (("20261231", "202612"), ("20270101", "202701")),
        (("20280228", "202802"), ("20280229", "202802")),  # a leap year
        (("20280229", "202802"), ("20280301", "202803")),
        (("20270228", "202702"), ("20270301", "202703")),
    ],
    ids=str,
)
def test_day_and_month_end_with_their_last_millisecond_in_utc(
    last: tuple[str, str], first: tuple[str, str]
) -> None:
    midnight = ms(*(int(first[0][a:b]) for a, b in ((0, 4), (4, 6), (6, 8))))
    assert periods(midnight - 1) == (last[0], last[0], last[1], "2359")
    assert periods(midnight) == (first[0], first[0], first[1], "0000")


@pytest.mark.parametrize(
    ("at", "began"),
    [
        ((2026, 11, 1), (2026, 11, 1)),
        ((2026, 11, 30, 23, 59, 59), (2026, 11, 1)),
        ((2028, 2, 29, 12), (2028, 2, 1)),
        ((2027, 1, 1), (2027, 1, 1)),
    ],
    ids=str,
)
def test_row_knows_when_its_month_began(at: tuple[int, ...], began: tuple[int, ...]) -> None:
    assert Row.of(attributes(at_ms=ms(*at))).month_began * 1000 == ms(*began)


def test_sums_go_some_time_after_their_months_end_whichever_row_comes_first() -> None:
    until = {kept(86_400)(Row.of(attributes(at_ms=ms(2026, 11, day)))) for day in (1, 15, 30)}
    assert len(until) == 1
    assert until.pop() * 1000 >= ms(2026, 12, 2)


def test_rows_of_one_place_become_one_sum_and_others_stay_apart() -> None:
    rows = [
        Row.of(attributes(**more))
        for more in ({}, {}, {"model": "m-small"}, {"subject": "u#bob"}, {"tag": "night"})
    ]
    sums = rules.added_up(rows)
    counts: dict[str, list[int]] = {kind: [] for kind in (DETAIL, DAYS, USERS, MINUTES)}
    for place, (_, totals) in sums.items():
        counts[place.kind].append(totals.requests)
        assert totals.nano_usd == totals.requests * 1234
    assert {kind: sorted(of) for kind, of in counts.items()} == {
        DETAIL: [1, 1, 1, 2],
        DAYS: [1, 4],
        USERS: [1, 4],
        MINUTES: [1, 4],
    }


def test_projects_stay_apart_everywhere() -> None:
    rows = [Row.of(attributes(pid=pid)) for pid in ("a", "b")]
    assert len(rules.added_up(rows)) == 8


def test_names_that_run_into_each_other_are_told_apart() -> None:
    assert rules.digest("ab", "c") != rules.digest("a", "bc")
    assert rules.digest("", "a") != rules.digest("a", "")
    sums = rules.added_up(
        Row.of(attributes(session_id=s, thread_id=t)) for s, t in (("x", ""), ("", "x"))
    )
    assert sum(place.kind == DETAIL for place in sums) == 2


def test_sum_is_told_with_its_money_in_usd() -> None:
    told = (Row.of(attributes()).totals + Totals(nano_usd=1_000_000_000)).told()
    assert (told["requests"], told["tokens"], told["cost_usd"]) == (1, 15, 1.000001234)
    assert "nano_usd" not in told


# ---------------------------------------------------------------- adding up


Before = Callable[[int, Sequence[dict[str, Any]]], None]


class Small(SmallDynamoDB):
    """With what sums use beyond the ledger. For many parts moto is too slow: a second for each."""

    def transact_write_items(self, **asked: Any) -> dict[str, Any]:
        parts = [
            {kind: self._plain(of) for kind, of in part.items()} for part in asked["TransactItems"]
        ]
        return super().transact_write_items(**{**asked, "TransactItems": parts})

    def _plain(self, of: dict[str, Any]) -> dict[str, Any]:
        text = of["UpdateExpression"]
        found = re.search(r"(#\w+) = if_not_exists\(\1, (:\w+)\), ", text)
        if found is None:
            return of
        name, value = found.groups()
        key = of["Key"]["pk"]["S"], of["Key"]["sk"]["S"]
        names, values = dict(of["ExpressionAttributeNames"]), dict(of["ExpressionAttributeValues"])
        if names[name] in self.items.get(key, {}):
            del names[name], values[value]
            plain = text.replace(found[0], "")
        else:
            plain = text.replace(found[0], f"{name} = {value}, ")
        return {
            **of,
            "UpdateExpression": plain,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }


@pytest.fixture
def small() -> Small:
    return Small()


@pytest.fixture
def store(aws: None) -> Any:
    return client("dynamodb")


class Watched:
    """A client before which something may happen: `before` gets the number of the transaction.
    `after`: the same when it has been carried out.
    """

    def __init__(
        self, store: Any, before: Before | None = None, after: Before | None = None
    ) -> None:
        self._client = store
        self._before, self._after = before, after
        self.sizes: list[int] = []
        self.tokens: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def transact_write_items(self, **asked: Any) -> Any:
        parts = asked["TransactItems"]
        self.sizes.append(len(parts))
        self.tokens.append(asked["ClientRequestToken"])
        if self._before:
            self._before(len(self.sizes), parts)
        answer = self._client.transact_write_items(**asked)
        if self._after:
            self._after(len(self.sizes), parts)
        return answer


def cancelled(*codes: str | None) -> AwsError:
    reasons = [{"Code": code or "None"} for code in codes]
    return AwsError("cancelled", 400, "TransactionCanceledException", reasons)


def adding(store: Any) -> Usage:
    return Usage(store, "t", sleep=lambda seconds: None)


def put(store: Any, rows: Iterable[dict[str, Any]]) -> dict[Key, Row]:
    """Into the table; as they come out of its stream."""
    found = {}
    for each in rows:
        store.put_item(TableName="t", Item=each)
        key, row = row_of(each)
        found[key] = row
    return found


def sums(store: Any) -> dict[str, dict[str, Any]]:
    """All of them, as they lie in the table."""
    return {
        f"{each['pk']['S']} {each['sk']['S']}": each
        for each in store.scan(TableName="t")["Items"]
        if each["pk"]["S"].startswith("ROLLUP#")
    }


def expected(rows: Mapping[Key, Row]) -> dict[Place, Totals]:
    return {place: totals for place, (_, totals) in rules.added_up(rows.values()).items()}


def kept_sums(store: Any, rows: Mapping[Key, Row]) -> dict[Place, Totals]:
    """What the table has of the places where these rows belong; and it has no others."""
    there = sums(store)
    found = {}
    for place in expected(rows):
        key = items.rollup(*place)
        found[place] = shell._totals(there.pop(f"{key.pk} {key.sk}", {}))
    assert not there
    return found


def some_rows(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Of a few projects, users and models, around a month's end."""
    chance = random.Random(seed)
    midnight = ms(2026, 12, 1)
    return [
        item(
            pid=chance.choice(("a", "b")),
            subject=f"u#{chance.randrange(5)}",
            model=chance.choice(("m-large", "m-small")),
            tag=chance.choice(("", "night")),
            at_ms=midnight + chance.randrange(-2, 2),
            outcome=chance.choice(("completed", "cancelled")),
            estimated=chance.random() < 0.5,
            input_tokens=chance.randrange(1000),
            nano_usd=chance.randrange(10**9),
        )
        for _ in range(count)
    ]


def test_sum_says_of_whom_it_is_and_when_it_may_go(store: Any) -> None:
    assert adding(store).add(put(store, [item(tag="night")]), lambda row: 12345) == 1
    there = sums(store)
    detail = there.pop(next(key for key in there if "#20261121 " in key))
    assert {name: detail[name]["S"] for name in rules.DIMENSIONS if name in detail} == {
        "subject": "u#ann",
        "model": "m-large",
        "session_id": "s-1",
        "tag": "night",
    }
    month = there.pop(next(key for key in there if "#202611 " in key))
    assert month["subject"] == {"S": "u#ann"}
    day = there.pop("ROLLUP#default 20261121#m-large")
    minute = there.pop("ROLLUP#default#20261121#M 1200#m-large")
    assert not there
    for each in (detail, month, day, minute):
        assert shell._totals(each) == Totals(1, 0, 0, 10, 4, 5, 2, 1234)
        assert each["ttl"] == {"N": "12345"}


def test_rows_that_come_twice_in_any_order_and_any_parts_are_added_once(small: Small) -> None:
    rows = put(small, some_rows(60))
    chance, order = random.Random(2), list(rows)
    usage_ = adding(small)
    added = 0
    for _ in range(3):
        chance.shuffle(order)
        for start in range(0, len(order), 7):
            added += usage_.add({key: rows[key] for key in order[start : start + 7]}, KEPT)
    assert added == 60
    assert kept_sums(small, rows) == expected(rows)


def test_no_transaction_has_more_than_100_parts_and_no_row_is_left_out(small: Small) -> None:
    """The worst batch: every row has sums of its own."""
    rows = put(
        small,
        (item(subject=f"u#{n}", model=f"m-{n}", at_ms=NOON_MS + 60_000 * n) for n in range(100)),
    )
    watched = Watched(small)
    assert adding(watched).add(rows, KEPT) == 100
    assert watched.sizes == [100] * 5
    assert kept_sums(small, rows) == expected(rows)


def test_rows_of_one_user_share_one_transaction(small: Small) -> None:
    """And of the 97th its mark would be the 101st part."""
    watched = Watched(small)
    adding(watched).add(put(small, (item() for _ in range(97))), KEPT)
    assert watched.sizes == [100, 5]


def test_whoever_meets_others_at_the_same_sums_tries_again_under_a_new_name(small: Small) -> None:
    """A transaction's token may not be used for other words."""
    rows = put(small, some_rows(10))

    def conflict(number: int, parts: Sequence[dict[str, Any]]) -> None:
        if number == 1:
            raise cancelled(*[None] * (len(parts) - 1), "TransactionConflict")
        if number == 2:
            raise AwsError("in progress", 400, "TransactionInProgressException")

    watched = Watched(small, before=conflict)
    assert adding(watched).add(rows, KEPT) == 10
    assert len(set(watched.tokens)) == 3
    assert all(len(token) <= 36 for token in watched.tokens)
    assert kept_sums(small, rows) == expected(rows)


def test_conflict_without_end_is_told_and_nothing_is_added(small: Small) -> None:
    def conflict(number: int, parts: Sequence[dict[str, Any]]) -> None:
        raise cancelled("TransactionConflict", *[None] * (len(parts) - 1))

    watched = Watched(small, before=conflict)
    with pytest.raises(Crowded):
        adding(watched).add(put(small, [item()]), KEPT)
    assert len(watched.sizes) == shell.TRIES
    assert not sums(small)


def test_rows_that_somebody_else_adds_meanwhile_are_left_to_him(small: Small) -> None:
    rows = put(small, some_rows(10))
    theirs = dict(list(rows.items())[:6])

    def race(number: int, parts: Sequence[dict[str, Any]]) -> None:
        if number == 1:
            adding(small).add(theirs, KEPT)

    assert adding(Watched(small, before=race)).add(rows, KEPT) == 4
    assert kept_sums(small, rows) == expected(rows)


def test_lost_answer_is_an_error_and_asking_again_adds_nothing_twice(small: Small) -> None:
    rows = put(small, some_rows(10))

    def lose(number: int, parts: Sequence[dict[str, Any]]) -> None:
        raise AwsError("TransactWriteItems failed: TimeoutError")

    with pytest.raises(AwsError):
        adding(Watched(small, after=lose)).add(rows, KEPT)
    assert adding(small).add(rows, KEPT) == 0
    assert kept_sums(small, rows) == expected(rows)


def test_store_that_fails_half_way_leaves_the_rest_for_the_next_time(small: Small) -> None:
    rows = put(small, (item(subject=f"u#{at}", model=f"m-{at}") for at in range(50)))

    def fail(number: int, parts: Sequence[dict[str, Any]]) -> None:
        if number == 2:
            raise AwsError("HTTP 500", 500, "InternalServerError")

    with pytest.raises(AwsError):
        adding(Watched(small, before=fail)).add(rows, KEPT)
    before = sum(totals.requests for totals in kept_sums(small, rows).values())
    assert 0 < before < 4 * 50
    assert adding(small).add(rows, KEPT) == 50 - before // 4
    assert kept_sums(small, rows) == expected(rows)


def test_part_that_dynamodb_refuses_is_an_error_at_once_and_not_tried_in_vain(small: Small) -> None:
    def refuse(number: int, parts: Sequence[dict[str, Any]]) -> None:
        raise cancelled(*[None] * (len(parts) - 1), "ValidationError")

    watched = Watched(small, before=refuse)
    with pytest.raises(AwsError):
        adding(watched).add(put(small, [item()]), KEPT)
    assert len(watched.sizes) == 1


def test_row_that_is_gone_is_not_made_anew_and_not_added(store: Any) -> None:
    rows = put(store, [item(), item()])
    gone = next(iter(rows))
    store.delete_item(TableName="t", Key=gone.item())
    assert adding(store).add(rows, KEPT) == 1
    assert "Item" not in store.get_item(TableName="t", Key=gone.item())
    assert {totals.requests for totals in kept_sums(store, rows).values()} == {1}


def test_late_row_does_not_shorten_how_long_a_sum_is_kept(store: Any) -> None:
    for until in (2_000, 1_000):
        adding(store).add(put(store, [item()]), lambda row, until=until: until)  # type: ignore[misc]
    assert {each["ttl"]["N"] for each in sums(store).values()} == {"2000"}


def test_each_sum_is_kept_by_its_own_rows_not_by_those_beside_it(small: Small) -> None:
    november, december = ms(2026, 11, 30), ms(2026, 12, 1)
    adding(small).add(put(small, [item(at_ms=november), item(at_ms=december)]), KEPT)
    for name, each in sums(small).items():
        of = november if "202611" in name else december
        assert int(each["ttl"]["N"]) == KEPT(Row.of(attributes(at_ms=of)))


def test_nothing_to_add_asks_the_store_for_nothing(small: Small) -> None:
    watched = Watched(small)
    assert adding(watched).add({}, KEPT) == 0
    assert not watched.sizes


# ---------------------------------------------------------------- reading


def test_days_are_read_from_the_first_to_the_last_and_with_both(store: Any) -> None:
    rows = put(store, (item(at_ms=ms(2026, 11, day)) for day in (19, 20, 21, 22, 23)))
    adding(store).add(rows, KEPT)
    found = [day for day, model, _ in adding(store).days("default", "20261120", "20261122")]
    assert found == ["20261120", "20261121", "20261122"]
    assert not list(adding(store).days("default", "20261122", "20261120"))
    assert not list(adding(store).days("other", "20261120", "20261122"))


def test_what_was_added_is_read_by_user_minute_and_group(store: Any) -> None:
    rows = put(
        store,
        [
            item(),
            item(at_ms=NOON_MS + 60_000, subject="u#bob", thread_id="t-9"),
            item(at_ms=NOON_MS + 60_000, subject="u#bob", model="m-small"),
        ],
    )
    adding(store).add(rows, KEPT)
    reading = adding(store)
    users = {subject: totals.requests for subject, totals in reading.users("default", "202611")}
    assert users == {"u#ann": 1, "u#bob": 2}
    minutes = [(m, model, t.requests) for m, model, t in reading.minutes("default", "20261121")]
    assert minutes == [("1200", "m-large", 1), ("1201", "m-large", 1), ("1201", "m-small", 1)]
    assert len(list(reading.details("default", "20261121"))) == 3
    bobs = [told for told, _ in reading.details("default", "20261121", "u#bob")]
    assert {told.get("thread_id") for told in bobs} == {"t-9", None}
    assert {told["subject"] for told in bobs} == {"u#bob"}


def test_rows_of_a_subject_are_read_up_to_before_the_end(store: Any) -> None:
    put(store, (item(at_ms=NOON_MS + more, input_tokens=more) for more in (0, 1, 2)))
    put(store, [item(subject="u#bob")])
    found = adding(store).rows("default", "u#ann", NOON_MS, NOON_MS + 2)
    assert [row["input_tokens"] for row in found] == [0, 1]
    assert not list(adding(store).rows("default", "u#ann", NOON_MS + 2, NOON_MS))


def test_row_in_the_stream_needs_only_what_is_added() -> None:
    """Others may be of kinds that nobody knows yet."""
    more = {"first_byte_ms": {"N": "1.5"}, "attempts": {"L": []}}
    assert row_of({**item(), **more})[1] == Row.of(attributes())


@pytest.mark.parametrize(
    "wrong",
    [{"nano_usd": {"N": "1.5"}}, {"model": {"SS": ["a"]}}, {"tag": "x"}, {"pk": {"N": "1"}}],
    ids=str,
)
def test_item_that_is_no_usage_row_is_unreadable_and_not_repeated(wrong: dict[str, Any]) -> None:
    with pytest.raises(Unreadable) as raised:
        row_of({**item(), **wrong})
    assert "Error" in str(raised.value)
    assert " " not in str(raised.value)


# ---------------------------------------------------------------- what was given up


def test_recount_adds_what_was_given_up_and_nothing_twice(operator: Operator, store: Any) -> None:
    """The operator's clock stands at 2027-01-15."""
    rows = put(store, some_rows(9))
    adding(store).add(dict(list(rows.items())[:3]), KEPT)
    assert operator.recount(adding(store)).added == 6
    assert operator.recount(adding(store)) == (0, [])
    assert kept_sums(store, rows) == expected(rows)


def test_recount_leaves_alone_what_may_yet_be_added_and_tells_what_cannot(
    operator: Operator, store: Any
) -> None:
    now_ms = int(operator._clock() * 1000)
    put(store, [item(at_ms=now_ms - 3_601_000), item(at_ms=now_ms - 3_599_000)])
    broken = {**item(), "nano_usd": {"S": "much"}}
    store.put_item(TableName="t", Item=broken)
    told = operator.recount(adding(store))
    assert (told.added, told.unreadable) == (1, [Key(broken["pk"]["S"], broken["sk"]["S"])])
    assert operator.recount(adding(store), older_than_s=0).added == 1


def test_recount_reads_every_page_of_the_table(operator: Operator, store: Any) -> None:
    rows = put(store, some_rows(6))

    class Paged(Watched):
        def scan(self, **asked: Any) -> Any:
            return store.scan(**asked, Limit=2)

    assert operator.recount(adding(Paged(store))).added == 6
    assert kept_sums(store, rows) == expected(rows)
