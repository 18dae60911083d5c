"""Keys that sign tokens, as the store and the operator's verbs keep them, against moto."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.unit.aws.test_store import CACHES, MONTH, SECRET, Counted, Driver, copy_of
from tests.unit.conftest import NOW, minted
from weir.aws import codecs, items
from weir.aws.clients import client
from weir.aws.minted import FIRST_BLOCK, HOURS, MOST_BLOCK, Minted
from weir.aws.operator import Operator
from weir.aws.rotation import RotationError, make_signing_key
from weir.aws.table import Table
from weir.errors import BadRequest, Conflict, NotFound, Unauthenticated
from weir.identity import tenant_keys, tokens
from weir.identity.keyring import Kid, PublicKey, SigningKey, jwks
from weir.identity.tenant_keys import MOST_TENANT_KEYS, TenantKey
from weir.operator.audit import Entry

HOUR_S = 3600


def tenant_kid(number: int) -> Kid:
    return tenant_keys.kid_of(f"{number:032x}")


def entries(operator: Operator, action: str) -> list[Entry]:
    """Of the audit trail. All of a test are of one moment, and so in no order."""
    found, _ = operator.audit_trail(100)
    return [entry for entry in found if entry.action == action]


@pytest.fixture
def uploaded(configured: Operator, public_key: PublicKey) -> TenantKey:
    return configured.upload_tenant_key("default", public_key.jwk(), name="backend")


# ---------------------------------------------------------------- the operator's verbs


def test_created_key_is_kept_without_its_private_half(configured: Operator, table: Table) -> None:
    private, key = configured.create_tenant_key("default", name="backend")
    assert tenant_keys.is_tenant_kid(key.kid)
    assert table.tenant_keys() == [key]
    (entry,) = entries(configured, "signing_key.create")
    assert (entry.target, entry.after) == (key.kid, key.document())
    kept = json.dumps(client("dynamodb").scan(TableName="t")["Items"])
    assert private[200:240] not in kept
    assert "PRIVATE" not in kept


def test_key_for_every_project_and_one_for_a_single_one_are_kept_apart(
    configured: Operator, table: Table
) -> None:
    _, every = configured.create_tenant_key(None, name="")
    _, one = configured.create_tenant_key("default", name="")
    assert {key.kid: key.pid for key in table.tenant_keys()} == {
        every.kid: None,
        one.kid: "default",
    }


def test_key_of_a_project_that_is_not_there_is_not_made(configured: Operator, table: Table) -> None:
    with pytest.raises(NotFound):
        configured.create_tenant_key("nowhere", name="")
    assert table.tenant_keys() == []


def test_revoked_key_is_not_listed_to_verifiers_and_stays_revoked(
    configured: Operator, table: Table, uploaded: TenantKey
) -> None:
    keys = copy_of(Counted(table))
    assert [key["kid"] for key in jwks(keys.listed(), NOW)["keys"]] == [uploaded.kid]
    assert configured.revoke_tenant_key(uploaded.kid)
    assert not configured.revoke_tenant_key(uploaded.kid)
    assert jwks(copy_of(Counted(table)).listed(), NOW)["keys"] == []
    (key,) = configured.tenant_keys()
    assert key.revoked_at == NOW
    (entry,) = entries(configured, "signing_key.revoke")
    assert (entry.target, entry.after) == (uploaded.kid, {"revoked_at": NOW})


def test_unknown_key_cannot_be_revoked(configured: Operator) -> None:
    with pytest.raises(NotFound):
        configured.revoke_tenant_key(tenant_kid(7))


def test_same_public_half_is_not_taken_twice_not_even_after_it_was_revoked(
    configured: Operator, public_key: PublicKey, uploaded: TenantKey
) -> None:
    with pytest.raises(Conflict, match=uploaded.kid):
        configured.upload_tenant_key(None, public_key.jwk(), name="again")
    configured.revoke_tenant_key(uploaded.kid)
    with pytest.raises(Conflict, match="revoked"):
        configured.upload_tenant_key(None, public_key.jwk(), name="again")


def test_unusable_public_half_leaves_nothing(configured: Operator, table: Table) -> None:
    with pytest.raises(BadRequest):
        configured.upload_tenant_key("default", {"kty": "oct"}, name="")
    assert table.tenant_keys() == []


def test_keys_are_as_many_as_are_read_at_once_and_no_more(
    configured: Operator, table: Table, public_key: PublicKey
) -> None:
    for number in range(MOST_TENANT_KEYS):
        public = PublicKey(tenant_kid(number), f"n{number}", "AQAB", NOW)
        item = codecs.tenant_key_item(TenantKey(public, None, ""))
        client("dynamodb").put_item(TableName="t", Item=item)
    with pytest.raises(Conflict, match=str(MOST_TENANT_KEYS)):
        configured.upload_tenant_key(None, public_key.jwk(), name="one more")


# ---------------------------------------------------------------- verifier's copy


def test_revoked_key_dies_within_the_cache(
    configured: Operator, table: Table, uploaded: TenantKey
) -> None:
    counted = Counted(table)
    keys = copy_of(counted)
    assert keys.find(uploaded.kid, NOW) == uploaded
    configured.revoke_tenant_key(uploaded.kid)
    counted.clock_s = CACHES.keys_s
    with pytest.raises(Unauthenticated):
        keys.find(uploaded.kid, NOW)


def test_token_costs_one_read_whichever_kind_of_key_has_signed_it(
    table: Table, uploaded: TenantKey, other_key: SigningKey
) -> None:
    table.publish(other_key.public(created_at=NOW))
    counted = Counted(table)
    keys = copy_of(counted)
    for _ in range(10):
        keys.find(uploaded.kid, NOW)
    assert (counted.reads, counted.reads_of_tenants) == (0, 1)
    for _ in range(10):
        keys.find(other_key.kid, NOW)
    assert (counted.reads, counted.reads_of_tenants) == (1, 1)


def test_made_up_kids_of_one_kind_do_not_keep_a_fresh_key_of_the_other_from_being_found(
    configured: Operator, table: Table, public_key: PublicKey
) -> None:
    counted = Counted(table)
    keys = copy_of(counted)
    made_up: list[Callable[[int], Kid]] = [tenant_kid, lambda n: Kid(f"ring_{n}")]
    for number in range(50):
        for kid in made_up:
            with pytest.raises(Unauthenticated):
                keys.find(kid(number + 1000), NOW)
    assert (counted.reads, counted.reads_of_tenants) == (1, 1)
    table.publish(public_key)
    uploaded = configured.upload_tenant_key(None, public_key.jwk(), name="")
    counted.clock_s = 1.0
    for number in range(50):  # a flood of the one kind, right before
        with pytest.raises(Unauthenticated):
            keys.find(tenant_kid(number + 2000), NOW)
    assert keys.find(public_key.kid, NOW) == public_key
    counted.clock_s = 2.0
    for number in range(50):
        with pytest.raises(Unauthenticated):
            keys.find(Kid(f"made-up-{number}"), NOW)
    assert keys.find(uploaded.kid, NOW) == uploaded


def test_planted_key_never_stands_for_one_of_the_other_kind(
    table: Table, public_key: PublicKey
) -> None:
    """Whoever could write to one partition gains nothing in the other."""
    ring_kid, kid = Kid("ring_planted"), tenant_kid(1)
    among_tenants = codecs.tenant_key_item(TenantKey(public_key, None, ""))
    among_tenants["sk"] = {"S": f"KID#{ring_kid}"}
    in_the_ring = {**codecs.public_key_item(public_key), "sk": {"S": f"KID#{kid}"}}
    for item in (among_tenants, in_the_ring):
        client("dynamodb").put_item(TableName="t", Item=item)
    keys = copy_of(Counted(table))
    for planted in (ring_kid, kid):
        with pytest.raises(Unauthenticated):
            keys.find(planted, NOW)
    assert keys.listed() == []


# ---------------------------------------------------------------- how many tokens may be alive


class Writes:
    """A client that counts its writes, and may fail."""

    def __init__(self) -> None:
        self.count, self.fails = 0, False
        self._client = client("dynamodb")

    def update_item(self, **call: Any) -> Any:
        if self.fails:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem")
        self.count += 1
        return self._client.update_item(**call)

    def batch_get_item(self, **call: Any) -> Any:
        return self._client.batch_get_item(**call)


@pytest.fixture
def writes(table: Table) -> Writes:
    return Writes()


def process(writes: Writes) -> Minted:
    return Minted(writes, "t")  # type: ignore[arg-type]


KID = Kid("ring_1")


def test_count_is_never_below_what_was_signed_and_seldom_costs_a_write(writes: Writes) -> None:
    one = process(writes)
    for signed in range(1, 1001):
        one.count(KID, NOW)
        assert signed <= one.outstanding(KID, NOW) <= signed + MOST_BLOCK
    assert writes.count < 15


def test_process_that_signs_once_counts_little(writes: Writes) -> None:
    for _ in range(5):
        process(writes).count(KID, NOW)
    assert process(writes).outstanding(KID, NOW) == 5 * FIRST_BLOCK


def test_tokens_of_the_last_day_are_counted_and_older_ones_are_not(writes: Writes) -> None:
    one = process(writes)
    one.count(KID, NOW)
    # The block's last token, an hour later, lives for a day.
    for later in (0, 24 * HOUR_S, 25 * HOUR_S - 1):
        assert one.outstanding(KID, NOW + later) == FIRST_BLOCK, later
    assert one.outstanding(KID, NOW + HOURS * HOUR_S) == 0


def test_block_is_not_used_for_more_than_an_hour_nor_by_a_clock_that_was_set_back(
    writes: Writes,
) -> None:
    one = process(writes)
    one.count(KID, NOW)
    one.count(KID, NOW + HOUR_S - 1)
    assert writes.count == 1
    one.count(KID, NOW + HOUR_S)
    assert writes.count == 2
    one.count(KID, NOW - 1)
    assert writes.count == 3


def test_each_key_is_counted_by_itself(writes: Writes) -> None:
    one = process(writes)
    one.count(KID, NOW)
    one.count(Kid("ring_2"), NOW)
    assert one.outstanding(KID, NOW) == one.outstanding(Kid("ring_2"), NOW) == FIRST_BLOCK


def test_token_that_cannot_be_counted_is_not_signed(writes: Writes) -> None:
    one = process(writes)
    writes.fails = True
    with pytest.raises(ClientError):
        one.count(KID, NOW)
    writes.fails = False
    one.count(KID, NOW)
    assert one.outstanding(KID, NOW) == FIRST_BLOCK


# ---------------------------------------------------------------- the ring


@pytest.fixture
def driver(table: Table) -> Driver:
    client("secretsmanager").create_secret(Name=SECRET, SecretString="{}")
    return Driver(client("secretsmanager"), table)


def roles(driver: Driver) -> dict[str, str]:
    return {kid: key.role for kid, key in driver.listed().items()}


def test_ring_tells_which_key_signs_which_is_next_and_which_is_retired(driver: Driver) -> None:
    driver.rotate("a", NOW)
    first = driver.ring()
    assert roles(driver) == {first.current.kid: "current", first.next.kid: "next"}
    driver.rotate("b", NOW + MONTH, each=2)
    second = driver.ring()
    assert roles(driver) == {
        first.current.kid: "retired",
        second.current.kid: "current",
        second.next.kid: "next",
    }
    assert driver.listed()[second.current.kid].signs_since == NOW + MONTH


def test_key_that_signs_now_cannot_be_distrusted(
    operator: Operator, driver: Driver, writes: Writes
) -> None:
    driver.rotate("a", NOW)
    with pytest.raises(Conflict) as refused:
        operator.distrust(driver.ring().current.kid, process(writes), force=True)
    assert refused.value.details == {"reason": "signs_now"}


def test_retired_key_with_living_tokens_is_distrusted_only_by_force(
    operator: Operator, driver: Driver, writes: Writes
) -> None:
    driver.rotate("a", NOW - MONTH)
    old = driver.ring().current
    driver.rotate("b", NOW)
    one = process(writes)
    one.count(old.kid, NOW - HOUR_S)
    with pytest.raises(Conflict) as refused:
        operator.distrust(old.kid, one)
    assert refused.value.details == {"reason": "living_tokens", "at_most": FIRST_BLOCK}
    keys = copy_of(Counted(driver.table))
    assert keys.find(old.kid, NOW)

    assert operator.distrust(old.kid, one, force=True)
    with pytest.raises(Unauthenticated):
        copy_of(Counted(driver.table)).find(old.kid, NOW)
    assert not operator.distrust(old.kid, one, force=True)
    (entry,) = entries(operator, "ring.distrust")
    assert entry.target == old.kid


def test_retired_key_without_living_tokens_needs_no_force(
    operator: Operator, driver: Driver, writes: Writes
) -> None:
    driver.rotate("a", NOW - MONTH)
    old = driver.ring().current
    driver.rotate("b", NOW)
    assert operator.distrust(old.kid, process(writes))


def test_unknown_key_cannot_be_distrusted(operator: Operator, writes: Writes) -> None:
    with pytest.raises(NotFound):
        operator.distrust("ring_x", process(writes))


def test_leaked_ring_is_replaced_whole_without_waiting(
    operator: Operator, driver: Driver, writes: Writes
) -> None:
    """Both private halves lie in one secret: who has read it has both."""
    driver.rotate("a", NOW - 60)
    leaked = driver.ring()
    with pytest.raises(RotationError, match="600"):
        driver.rotate("b", NOW)
    assert operator.distrust(leaked.next.kid, process(writes))
    driver.rotate("c", NOW, each=2)
    assert operator.distrust(leaked.current.kid, process(writes), force=True)

    ring = driver.ring()
    assert {leaked.current.kid, leaked.next.kid} & {ring.current.kid, ring.next.kid} == set()
    keys = copy_of(Counted(driver.table))
    for kid in (leaked.current.kid, leaked.next.kid):
        with pytest.raises(Unauthenticated):
            keys.find(kid, NOW)
    token = minted(ring.current, now=NOW)
    key = keys.find(tokens.unverified_kid(token), NOW)
    assert isinstance(key, PublicKey)
    assert tokens.signed_claims(token, key)
    with pytest.raises(RotationError, match="600"):
        driver.rotate("d", NOW + 599)
    driver.rotate("e", NOW + 600)


def test_key_of_the_ring_never_gets_a_tenants_kid(driver: Driver) -> None:
    driver.rotate("a", NOW)
    assert not any(tenant_keys.is_tenant_kid(kid) for kid in driver.listed())


def test_items_lie_where_the_rights_of_the_functions_are_for(driver: Driver) -> None:
    driver.rotate("a", NOW)
    key = make_signing_key(tenant_kid(1)).public(created_at=NOW)
    assert codecs.tenant_key_item(TenantKey(key, None, ""))["pk"] == {"S": "SIGNINGKEYS"}
    assert items.minted("ring_1", 5) == ("MINTED#ring_1", "5")
