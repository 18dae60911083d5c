"""Keys of other issuers: when they are fetched, by whom, and what serves while one is down."""

from typing import Any

import pytest

from tests.issuers import JWKS_URI, jwk, jwks
from tests.unit.aws.small_dynamodb import Between, SmallDynamoDB
from tests.unit.conftest import NOW
from weir.aws import issuer_keys
from weir.aws.issuer_keys import FETCH_EVERY_S, STALE_FOR_S, IssuerKeys
from weir.errors import ExchangeRefused, NotReady
from weir.identity.key_sets import KeySet, KeySetUnavailable, parse

FRESH_S = 600


class Issuer:
    """What it publishes now; None: it is down."""

    def __init__(self) -> None:
        self.published: dict[str, Any] | None = jwks(jwk("RS256"))
        self.asked = 0

    def __call__(self, jwks_uri: str) -> KeySet:
        assert jwks_uri == JWKS_URI
        self.asked += 1
        if self.published is None:
            raise KeySetUnavailable("It is down.")
        return parse(self.published, FRESH_S)


class World:
    def __init__(self) -> None:
        self.now = float(NOW - NOW % FETCH_EVERY_S)
        self.issuer = Issuer()
        self.store: Any = SmallDynamoDB()
        self.calls: list[str] = []

    def process(self) -> IssuerKeys:
        client = Between(self.store, self._noted)
        return IssuerKeys(client, "t", self.issuer, lambda: self.now)

    def _noted(self, operation: str, _asked: Any, carry_out: Any) -> Any:
        self.calls.append(operation)
        return carry_out()


@pytest.fixture
def world() -> World:
    return World()


def has(keys: IssuerKeys, kid: str = "RS256-one") -> bool:
    try:
        return keys.find(JWKS_URI, kid, "RS256").kid == kid
    except ExchangeRefused:
        return False


def test_keys_are_fetched_once_and_serve_every_process(world: World) -> None:
    first = world.process()
    assert all(has(first) for _ in range(20))
    assert all(has(world.process()) for _ in range(20))
    assert world.issuer.asked == 1


def test_process_that_has_the_key_asks_nobody(world: World) -> None:
    keys = world.process()
    assert has(keys)
    world.calls.clear()
    world.now += 60
    assert all(has(keys) for _ in range(20))
    assert (world.calls, world.issuer.asked) == ([], 1)


def test_keys_are_fetched_anew_when_the_issuer_says_so(world: World) -> None:
    keys = world.process()
    assert has(keys)
    world.issuer.published = jwks(jwk("RS256", "two"))
    world.now += FRESH_S - 1
    assert has(keys)
    world.now += 1
    assert not has(keys)
    assert has(keys, "RS256-two")
    assert world.issuer.asked == 2


def test_rotated_key_is_found_at_once(world: World) -> None:
    keys = world.process()
    assert has(keys)
    world.issuer.published = jwks(jwk("RS256"), jwk("RS256", "two"))
    world.now += FETCH_EVERY_S
    assert has(keys, "RS256-two")
    assert has(keys)
    assert world.issuer.asked == 2


def test_made_up_key_ids_are_one_fetch_in_a_while_for_all_processes_together(world: World) -> None:
    processes = [world.process() for _ in range(5)]
    assert all(has(keys) for keys in processes)
    world.now += FETCH_EVERY_S
    world.issuer.asked = 0
    for number in range(100):
        assert not has(processes[number % 5], f"made-up-{number}")
    assert world.issuer.asked == 1
    world.calls.clear()
    for number in range(100):
        assert not has(processes[number % 5], f"made-up-{number}")
    assert world.calls == []
    world.now += 10 * FETCH_EVERY_S
    for number in range(100):
        assert not has(processes[number % 5], f"made-up-{number}")
    assert world.issuer.asked == 2


def test_issuer_that_is_down_logs_nobody_out_for_a_day(world: World) -> None:
    keys = world.process()
    assert has(keys)
    world.issuer.published = None
    world.now += FRESH_S + STALE_FOR_S - 1
    assert has(keys)
    assert has(world.process())
    world.now += 1
    for process in (keys, world.process()):
        with pytest.raises(NotReady) as refusal:
            process.find(JWKS_URI, "RS256-one", "RS256")
        assert refusal.value.status == 503
    world.issuer.published = jwks(jwk("RS256"))
    world.now += FETCH_EVERY_S
    assert has(keys)


def test_issuer_that_is_down_is_asked_once_in_a_while(world: World) -> None:
    keys = world.process()
    assert has(keys)
    world.issuer.published = None
    world.now += FRESH_S
    world.issuer.asked = 0
    assert all(has(keys) for _ in range(50))
    assert world.issuer.asked == 1
    world.now += FETCH_EVERY_S
    assert all(has(keys) for _ in range(50))
    assert world.issuer.asked == 2


def test_first_users_do_not_wait_for_one_another(world: World) -> None:
    """Several processes may ask at once for what nobody has yet; none is turned away."""
    first, second = world.process(), world.process()
    second._claim(JWKS_URI, world.now)  # and has no answer yet
    assert has(first)


def test_issuer_that_never_answered_is_asked_once_in_a_while_by_a_process(world: World) -> None:
    world.issuer.published = None
    keys = world.process()
    for _ in range(20):
        with pytest.raises(NotReady):
            keys.find(JWKS_URI, "RS256-one", "RS256")
    assert world.issuer.asked == 1


def test_keys_that_are_no_longer_readable_are_fetched_anew(world: World) -> None:
    assert has(world.process())
    (item,) = world.store.items.values()
    item["doc"] = {"S": '{"keys":[]}'}
    assert has(world.process())
    assert world.issuer.asked == 2


def test_key_of_another_type_is_not_found(world: World) -> None:
    with pytest.raises(ExchangeRefused):
        world.process().find(JWKS_URI, "RS256-one", "ES256")


def test_clock_that_was_set_back_does_not_keep_keys_for_ever(world: World) -> None:
    keys = world.process()
    assert has(keys)
    world.issuer.published = jwks(jwk("RS256", "two"))
    world.now -= 10 * FETCH_EVERY_S
    assert has(keys)  # as fresh as it was told
    world.now += FRESH_S + 10 * FETCH_EVERY_S
    assert has(keys, "RS256-two")


def test_process_keeps_a_bounded_number_of_sets(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "MOST_SETS", 3)
    keys = IssuerKeys(
        world.store, "t", lambda uri: parse(jwks(jwk("RS256")), FRESH_S), lambda: world.now
    )
    for number in range(10):
        keys.find(f"https://{number}.example.com/keys", "RS256-one", "RS256")
    assert len(keys._kept) == 3
