"""Table, vault and rotation against moto, in process. Races are not its business."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.conftest import NOW, minted
from weir.aws.api_keys import ApiKeys
from weir.aws.clients import AWS_ERRORS, client
from weir.aws.items import NO_RECORD, REFUSED_SLOTS, Key, Record, record_item, refused_item
from weir.aws.public_keys import PublicKeys
from weir.aws.rotation import Rotation, RotationError
from weir.aws.table import Change, Stale, Table
from weir.aws.vault import Vault
from weir.errors import Forbidden, NotReady, Unauthenticated
from weir.identity import api_keys, tokens
from weir.identity.keyring import RETIRED_FOR_S, KeyRing, Kid, PublicKey, jwks
from weir.identity.tenant_keys import TenantKey
from weir.operator.audit import Entry
from weir.settings import Caches
from weir.web.request import Request

SECRET = "signing-keys"
CACHES = Caches()
MONTH = 30 * 86_400


@pytest.fixture
def secrets(aws: None) -> Any:
    client("secretsmanager").create_secret(Name=SECRET, SecretString="{}")
    return client("secretsmanager")


class Driver:
    """Calls the four steps as Secrets Manager does."""

    def __init__(self, secrets: Any, table: Table) -> None:
        self.secrets, self.table = secrets, table
        self.rotation = Rotation(secrets, table, next_key_min_age_s=600, secrets_cached_s=60)
        self.count = 0

    def new_id(self) -> str:
        self.count += 1
        return f"{self.count:02}"

    def rotate(self, version: str, now: int, *, stop_after: int = 4, each: int = 1) -> None:
        padded = version.ljust(32, "0")
        rotation = self.rotation
        steps: list[Callable[[], None]] = [
            lambda: rotation.create_secret(SECRET, padded, now=now, new_id=self.new_id),
            lambda: rotation.set_secret(SECRET, padded, now=now),
            lambda: rotation.test_secret(SECRET, padded, now=now),
            lambda: rotation.finish_secret(SECRET, padded, now=now),
        ]
        for step in steps[:stop_after]:
            for _ in range(each):
                step()

    def ring(self) -> KeyRing:
        found = self.secrets.get_secret_value(SecretId=SECRET, VersionStage="AWSCURRENT")
        return KeyRing.from_secret(found["SecretString"])

    def listed(self) -> dict[str, PublicKey]:
        return {key.kid: key for key in self.table.public_keys()}


@pytest.fixture
def driver(secrets: Any, table: Table) -> Driver:
    return Driver(secrets, table)


def test_first_rotation_makes_and_publishes_both_keys(driver: Driver) -> None:
    driver.rotate("a", NOW)
    ring = driver.ring()
    assert ring.current.kid != ring.next.kid
    assert set(driver.listed()) == {ring.current.kid, ring.next.kid}
    assert all(key.not_after is None for key in driver.listed().values())


def test_next_becomes_current_and_the_old_current_stays_listed_for_a_day(driver: Driver) -> None:
    driver.rotate("a", NOW)
    first = driver.ring()
    driver.rotate("b", NOW + MONTH)
    second = driver.ring()
    assert second.current == first.next
    retired = driver.listed()[first.current.kid]
    assert retired.not_after is not None
    assert retired.not_after >= NOW + MONTH + RETIRED_FOR_S
    published = jwks(driver.table.public_keys(), NOW + MONTH)["keys"]
    assert len(published) == 3
    later = jwks(driver.table.public_keys(), NOW + MONTH + 2 * RETIRED_FOR_S)["keys"]
    assert {key["kid"] for key in later} == {second.current.kid, second.next.kid}


def test_what_the_ring_publishes_is_public_only(driver: Driver) -> None:
    driver.rotate("a", NOW)
    for key in jwks(driver.table.public_keys(), NOW)["keys"]:
        assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}
    scan = client("dynamodb").scan(TableName="t")
    assert "PRIVATE" not in json.dumps(scan["Items"])


def test_every_step_may_run_twice(driver: Driver) -> None:
    driver.rotate("a", NOW, each=2)
    ring = driver.ring()
    driver.rotate("b", NOW + MONTH, each=2)
    assert driver.ring().current == ring.next
    assert len(driver.listed()) == 3


@pytest.mark.parametrize("done", [1, 2, 3])
def test_rotation_that_died_after_any_step_leaves_working_keys_and_can_begin_anew(
    driver: Driver, done: int
) -> None:
    driver.rotate("a", NOW)
    before = driver.ring()
    driver.rotate("b", NOW + MONTH, stop_after=done)
    assert driver.ring() == before
    assert all(driver.listed()[k].not_after is None for k in (before.current.kid, before.next.kid))
    driver.rotate("c", NOW + MONTH + 60)
    assert driver.ring().current == before.next
    alive = {k for k, key in driver.listed().items() if key.not_after is None}
    assert alive == {driver.ring().current.kid, driver.ring().next.kid}


def test_key_published_a_moment_ago_may_not_sign_yet(driver: Driver) -> None:
    driver.rotate("a", NOW)
    with pytest.raises(RotationError, match="600"):
        driver.rotate("b", NOW + 599)
    driver.rotate("c", NOW + 600)


def test_unreadable_secret_is_never_replaced(driver: Driver) -> None:
    driver.secrets.put_secret_value(SecretId=SECRET, SecretString='{"current": "damaged"}')
    with pytest.raises(NotReady):
        driver.rotate("a", NOW)


def test_key_that_is_not_listed_fails_the_test_step(driver: Driver) -> None:
    driver.rotate("a", NOW, stop_after=1)
    with pytest.raises(RotationError, match="not listed"):
        driver.rotation.test_secret(SECRET, "a".ljust(32, "0"), now=NOW)


def test_signing_keys_never_show_in_a_repr(driver: Driver) -> None:
    driver.rotate("a", NOW)
    assert "PRIVATE" not in repr(driver.ring())


# ---------------------------------------------------------------- verifier's copy


class Counted:
    def __init__(self, table: Table) -> None:
        self.table, self.reads, self.reads_of_tenants, self.clock_s = table, 0, 0, 0.0

    def public_keys(self) -> list[PublicKey]:
        self.reads += 1
        return self.table.public_keys()

    def tenant_keys(self) -> list[TenantKey]:
        self.reads_of_tenants += 1
        return self.table.tenant_keys()

    def clock(self) -> float:
        return self.clock_s


def copy_of(counted: Counted) -> PublicKeys:
    return PublicKeys(counted, counted.clock, CACHES)  # type: ignore[arg-type]


def test_known_key_costs_one_read_in_five_seconds(table: Table, public_key: PublicKey) -> None:
    table.publish(public_key)
    counted = Counted(table)
    keys = copy_of(counted)
    for _ in range(100):
        assert keys.find(public_key.kid, NOW) == public_key
    assert counted.reads == 1
    counted.clock_s = CACHES.keys_s
    keys.find(public_key.kid, NOW)
    assert counted.reads == 2


def test_fresh_key_is_found_and_made_up_kids_do_not_become_load(
    table: Table, public_key: PublicKey
) -> None:
    counted = Counted(table)
    keys = copy_of(counted)
    for number in range(100):
        with pytest.raises(Unauthenticated):
            keys.find(Kid(f"made-up-{number}"), NOW)
    assert counted.reads == 1
    table.publish(public_key)
    counted.clock_s = 1.0
    assert keys.find(public_key.kid, NOW) == public_key


def test_retired_key_is_not_believed_after_its_time(table: Table, public_key: PublicKey) -> None:
    table.publish(public_key)
    table.retire([public_key.kid], NOW + 10)
    table.retire([public_key.kid], NOW + 1000)  # keeps its first time
    table.publish(public_key)  # changes nothing
    keys = copy_of(Counted(table))
    assert keys.find(public_key.kid, NOW + 9)
    with pytest.raises(Unauthenticated):
        keys.find(public_key.kid, NOW + 10)


def test_failed_read_leaves_the_old_keys_in_place(table: Table, public_key: PublicKey) -> None:
    table.publish(public_key)
    counted = Counted(table)
    keys = copy_of(counted)
    keys.find(public_key.kid, NOW)
    counted.clock_s = CACHES.keys_s + 1
    counted.table = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        keys.find(public_key.kid, NOW)
    counted.table = table
    assert keys.find(public_key.kid, NOW)


def test_failed_first_read_never_makes_a_good_token_look_bad(
    table: Table, public_key: PublicKey
) -> None:
    table.publish(public_key)
    counted = Counted(table)
    keys = copy_of(counted)
    counted.table = None  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(AttributeError):
            keys.find(public_key.kid, NOW)
    counted.table = table
    assert keys.find(public_key.kid, NOW) == public_key


# ---------------------------------------------------------------- API keys

SENT = "behest_sk_live_" + "0123456789abcdef" * 2


def test_key_is_found_by_its_hash_alone_and_dies_when_revoked(table: Table) -> None:
    key = api_keys.describe(SENT, pid="default", name="my server", now=NOW)
    table.add_api_key(key)
    assert table.api_key(key.hash) == key
    assert SENT not in json.dumps(client("dynamodb").scan(TableName="t")["Items"])
    assert table.api_key_hash("default", key.key_id) == key.hash
    assert table.api_keys("default") == [key]
    assert table.api_keys("other") == []

    table.revoke_api_key(key.hash, NOW + 1)
    with pytest.raises(Stale):
        table.revoke_api_key(key.hash, NOW + 2)
    revoked = table.api_key(key.hash)
    assert revoked is not None
    assert revoked.revoked_at == NOW + 1
    with pytest.raises(Unauthenticated):
        api_keys.believe(revoked, key.hash)


def test_revoking_an_unknown_key_makes_no_item(table: Table) -> None:
    with pytest.raises(Stale):
        table.revoke_api_key(api_keys.hash_of("nobody"), NOW)
    assert client("dynamodb").scan(TableName="t")["Count"] == 0


NO_KEYS = ["", "bh_live_x", api_keys.PREFIX, SENT + "0", SENT.upper(), SENT[:-1] + "g", SENT + "\n"]


@pytest.mark.parametrize("sent", NO_KEYS)
def test_what_is_not_formed_like_a_key_never_reaches_the_table(sent: str) -> None:
    with pytest.raises(Unauthenticated):
        api_keys.unverified_hash(sent)


def test_unknown_key_and_wrong_scope_are_refused(table: Table) -> None:
    key = api_keys.describe(SENT, pid="default", name="", now=NOW, scopes=["mint", "api:read"])
    assert api_keys.believe(key, key.hash) is key
    with pytest.raises(Unauthenticated):
        api_keys.believe(None, key.hash)
    table.add_api_key(key)
    keys = ApiKeys(table)
    sent = Request("r", "POST", "/", {"authorization": f"Bearer {SENT}"})
    for enough in ((), ("mint",), ("api:chat", "api:read")):
        assert keys.believe(sent, NOW, *enough).key_id == key.key_id
    with pytest.raises(Unauthenticated) as refusal:
        keys.believe(sent, NOW, "api:chat", "api:write")
    assert refusal.value.reason == "missing_scope"
    with pytest.raises(Forbidden):
        keys.believe(replace(sent, headers={**sent.headers, "origin": "https://a"}), NOW)


# ---------------------------------------------------------------- records


class Answering:
    """Answers a call with the next of these, and keeps what it was asked."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers, self.asked = list(answers), list[Any]()

    def batch_get_item(self, RequestItems: Any) -> dict[str, Any]:
        self.asked.append(RequestItems["t"]["Keys"])
        return self.answers.pop(0)

    def batch_write_item(self, RequestItems: Any) -> dict[str, Any]:
        self.asked.append(RequestItems["t"])
        return self.answers.pop(0)

    def query(self, **_: Any) -> dict[str, Any]:
        return {"Items": [Key("CONTENT#p#u#jo", f"MESSAGE#{n}").item() for n in range(2)]}


A, B = Key("TENANT", "A"), Key("TENANT", "B")


def test_records_come_in_the_order_asked_for_and_what_is_not_there_has_version_0(
    table: Table,
) -> None:
    table.commit([Change(B, {"name": "b 🌊"}, 0)], [])
    assert table.records([A, B]) == [NO_RECORD, Record({"name": "b 🌊"}, 1)]
    assert table.records([B, A])[0].version == 1


def test_keys_that_the_table_did_not_get_to_are_asked_for_again() -> None:
    left = {"t": {"Keys": [A.item()], "ConsistentRead": True}}
    client: Any = Answering(
        {"Responses": {"t": [record_item(B, {}, 7)]}, "UnprocessedKeys": left},
        {"Responses": {}, "UnprocessedKeys": left},
        {"Responses": {"t": [record_item(A, {"x": 1}, 3)]}, "UnprocessedKeys": {}},
    )
    assert Table(client, "t").records([A, B]) == [Record({"x": 1}, 3), Record({}, 7)]
    assert client.asked == [[A.item(), B.item()], [A.item()], [A.item()]]


def test_table_that_never_gets_to_it_is_a_failing_store_and_no_empty_record() -> None:
    left = {"t": {"Keys": [A.item()], "ConsistentRead": True}}
    client: Any = Answering(*[{"Responses": {}, "UnprocessedKeys": left}] * 9)
    with pytest.raises(AWS_ERRORS):
        Table(client, "t").records([A])
    assert len(client.asked) < 9


def test_content_that_the_table_did_not_get_to_is_removed_again_or_not_said_to_be_removed() -> None:
    left = {"t": [{"DeleteRequest": {"Key": Key("CONTENT#p#u#jo", "MESSAGE#1").item()}}]}
    client: Any = Answering({"UnprocessedItems": left}, {"UnprocessedItems": {}})
    assert Table(client, "t").erase_content("p", "u#jo") == {"message": 2}
    assert client.asked[1] == left["t"]
    client = Answering(*[{"UnprocessedItems": left}] * 9)
    with pytest.raises(AWS_ERRORS):
        Table(client, "t").erase_content("p", "u#jo")


@pytest.mark.parametrize(("read_at", "there"), [(0, True), (2, True), (1, False), (7, False)])
def test_record_is_written_only_over_the_version_that_was_read(
    table: Table, read_at: int, there: bool
) -> None:
    if there:
        table.commit([Change(A, {"n": 1}, 0)], [])
    before = table.records([A, B])
    with pytest.raises(Stale):
        table.commit([Change(B, {"n": 2}, 0), Change(A, {"n": 2}, read_at)], [entry(1)])
    assert table.records([A, B]) == before
    assert table.audit_trail(9, None) == ([], False)
    table.commit([Change(A, {"n": 3}, before[0].version)], [entry(1)])
    assert table.records([A])[0] == Record({"n": 3}, before[0].version + 1)
    assert table.audit_trail(9, None) == ([entry(1)], False)


def test_change_of_any_version_replaces_and_no_content_removes(table: Table) -> None:
    table.commit([Change(A, {"n": 1}, None)], [])
    table.commit([Change(A, {"n": 2}, None)], [])
    assert table.records([A])[0].document == {"n": 2}
    table.commit([Change(A, None, None)], [])
    table.commit([Change(A, None, None)], [])
    assert table.records([A]) == [NO_RECORD]


# ---------------------------------------------------------------- audit trail, refused origins


def entry(number: int) -> Entry:
    return Entry(
        at_ms=NOW * 1000 + number,
        entry_id=f"{number:08x}",
        actor="cognito:sub jo@example.com",
        action="project.update",
        target="default",
        before=None if number % 2 else {"name": "ü"},
        after={"name": number},
    )


def test_audit_trail_is_read_in_pages_from_the_newest_without_gap_or_repetition(
    table: Table,
) -> None:
    for number in range(7):
        table.commit([], [entry(number)])
    read: list[Entry] = []
    cursor, more = None, True
    while more:
        page, more = table.audit_trail(3, cursor)
        assert len(page) <= 3
        read += page
        cursor = page[-1].document()["id"]
    assert read == [entry(number) for number in reversed(range(7))]
    assert table.audit_trail(3, "0000000000000#00000000") == ([], False)


def test_entry_is_never_written_over(table: Table) -> None:
    table.commit([], [entry(1)])
    with pytest.raises(Stale):
        table.commit([Change(A, {}, 0)], [entry(1)])
    assert table.records([A]) == [NO_RECORD]


def test_refused_origins_are_told_latest_first_and_are_bounded(table: Table) -> None:
    for number in range(300):
        table.remember_refused_origin("p", f"https://evil-{number}.example", NOW + number)
    told = table.refused_origins("p")
    assert 32 < len(told) <= REFUSED_SLOTS == 64
    assert told[0] == ("https://evil-299.example", NOW + 299)
    assert told == sorted(told, key=lambda pair: -pair[1])
    assert table.refused_origins("") == table.refused_origins("q") == []


def test_origin_refused_again_is_told_once_with_its_last_time(table: Table) -> None:
    for now in (NOW, NOW + 5):
        table.remember_refused_origin("", "https://evil.example", now)
    assert table.refused_origins("") == [("https://evil.example", NOW + 5)]


@pytest.mark.parametrize("origin", ["x" * 100_000, "", "null", "\udcff", "é" * 500])
def test_little_is_kept_of_a_refused_origin_whatever_was_sent(table: Table, origin: str) -> None:
    item = refused_item("p", origin, NOW)
    assert len(item["origin"]["S"]) <= 200
    assert int(item["ttl"]["N"]) > NOW


# ---------------------------------------------------------------- vault


def test_secret_is_read_once_a_minute_and_again_when_forgotten(secrets: Any) -> None:
    store = Vault(secrets, 60)
    assert store.read(SECRET, NOW) == "{}"
    secrets.put_secret_value(SecretId=SECRET, SecretString="new")
    assert store.read(SECRET, NOW + 60 - 1) == "{}"
    assert store.read(SECRET, NOW + 60) == "new"
    secrets.put_secret_value(SecretId=SECRET, SecretString="newer")
    store.forget(SECRET)
    assert store.read(SECRET, NOW + 60) == "newer"


def test_secret_that_does_not_exist_is_not_ready(secrets: Any) -> None:
    with pytest.raises(NotReady):
        Vault(secrets, 60).read("no-such-secret", NOW)


def test_empty_signing_secret_is_not_ready_and_is_not_quoted() -> None:
    for text in ("{}", "", "{", '{"current":{}}', "-----BEGIN PRIVATE KEY-----"):
        with pytest.raises(NotReady) as refused:
            KeyRing.from_secret(text)
        assert refused.value.headers["Retry-After"] == "5"
        assert refused.value.__cause__ is None


def test_signature_by_the_ring_is_believed_through_the_table(driver: Driver) -> None:
    driver.rotate("a", NOW)
    token = minted(driver.ring().current, now=NOW)
    key = copy_of(Counted(driver.table)).find(tokens.unverified_kid(token), NOW)
    assert isinstance(key, PublicKey)
    signed = tokens.signed_claims(token, key)
    assert tokens.judge(signed, issuer="urn:weir:tenant-1", tid="tenant-1", now=NOW).uid == "u"
