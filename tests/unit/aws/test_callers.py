"""Who calls, with the table behind it: what each kind of credential costs."""

import pytest

from tests.unit.aws.small_dynamodb import Between
from tests.unit.conftest import NOW, minted
from weir.aws.callers import Callers
from weir.aws.clients import client
from weir.aws.operator import Operator
from weir.aws.table import Table
from weir.errors import BadRequest, Forbidden, Refusal, Unauthenticated
from weir.identity.keyring import PublicKey, SigningKey
from weir.settings import Caches, Deployment
from weir.web.request import Request


@pytest.fixture
def store(configured: Operator, public_key: PublicKey) -> Between:
    Table(client("dynamodb"), "t").publish(public_key)
    return Between(client("dynamodb"), lambda _name, _asked, carry_out: carry_out())


@pytest.fixture
def callers(store: Between, deployment: Deployment) -> Callers:
    return Callers(deployment, Table(store, "t"), lambda: NOW, Caches())


def sent(credential: str, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("r", "POST", "/", {"authorization": f"Bearer {credential}", **named})


def key_of(operator: Operator, *scopes: str) -> tuple[str, str]:
    secret, key = operator.create_key("default", name="n", scopes=scopes, role="admin")
    return secret, key.key_id


def test_token_costs_no_round_trip_once_its_signing_key_is_known(
    callers: Callers, store: Between, signing_key: SigningKey
) -> None:
    token = minted(signing_key, now=NOW)
    callers.believe(sent(token), NOW)
    store.calls.clear()
    assert callers.believe(sent(token, x_end_user_id="admin"), NOW).uid == "u"
    assert store.calls == []


def test_api_key_costs_one_read_and_a_note_of_its_use_now_and_then(
    callers: Callers, store: Between, configured: Operator
) -> None:
    secret, key_id = key_of(configured, "api:chat")
    claims = callers.believe(sent(secret, x_end_user_id="auth0|k"), NOW)
    assert store.calls == ["get_item", "update_item"]
    for _ in range(3):
        store.calls.clear()
        assert callers.believe(sent(secret, x_end_user_id="auth0|k"), NOW + 1) == claims
        assert store.calls == ["get_item"]
    assert (claims.pid, claims.uid, claims.role, claims.tier) == (
        "default",
        "auth0|k",
        "user",
        None,
    )
    assert (claims.issued, claims.client_id) == (None, key_id)
    for nobody in ({}, {"x_end_user_id": ""}):
        assert callers.believe(sent(secret, **nobody), NOW).uid == "default"


REFUSED: list[tuple[tuple[str, ...], dict[str, str], type[Refusal], str]] = [
    (("mint", "api:read"), {}, Unauthenticated, "api_key_on_chat"),
    (("api:chat",), {"origin": "https://app.example.com"}, Forbidden, ""),
    (("api:chat",), {"x_end_user_id": "Admin"}, BadRequest, ""),
    (("api:chat",), {"x_end_user_id": "a\u202eb"}, BadRequest, ""),
    (("api:chat",), {"x_end_user_id": "x" * 256}, BadRequest, ""),
]


@pytest.mark.parametrize(("scopes", "headers", "kind", "reason"), REFUSED)
def test_key_that_may_not_is_refused_and_not_noted_as_used(
    callers: Callers,
    store: Between,
    configured: Operator,
    scopes: tuple[str, ...],
    headers: dict[str, str],
    kind: type[Refusal],
    reason: str,
) -> None:
    secret, _ = key_of(configured, *scopes)
    with pytest.raises(kind) as refused:
        callers.believe(sent(secret, **headers), NOW)
    assert refused.value.details.get("reason", "") == reason
    assert "update_item" not in store.calls
    if kind is BadRequest:
        assert refused.value.param == "X-End-User-Id"


def test_revoked_key_is_refused_on_its_next_request(callers: Callers, configured: Operator) -> None:
    secret, key_id = key_of(configured, "api:chat")
    callers.believe(sent(secret), NOW)
    configured.revoke_key("default", key_id)
    with pytest.raises(Unauthenticated) as refused:
        callers.believe(sent(secret), NOW)
    assert refused.value.reason == "unknown_api_key"


@pytest.mark.parametrize("credential", ["sk_live_x", "bh_live_1", "behest_sk_live_short"])
def test_what_only_looks_like_a_key_is_never_looked_up(
    callers: Callers, store: Between, credential: str
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        callers.believe(sent(credential), NOW)
    assert refused.value.reason == "api_key_on_chat"
    assert store.calls == []
