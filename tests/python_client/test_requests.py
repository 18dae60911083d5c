"""Paths, parameters and pages of the calls that are no chat; and webhooks."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone

import httpx2
import pytest

from tests.python_client.fake import KEY, URL, Gateway
from weir_client import BadRequest, InvalidSignature, Weir, webhooks

USAGE = {"totals": {"requests": 1, "cost_usd": 0.5}, "breakdown": [], "data": []}
CUSTOMER = {"id": "cust_1", "external_id": "u", "created_at": 1, "updated_at": 1}
THREAD = {"id": "t", "created_at": "2026-01-01", "updated_at": "2026-01-01"}
SALES = Weir(key="sk_live_" + "a" * 43, base_url=URL)


def customers(gateway: Gateway) -> Weir:
    return gateway.weir(key="sk_live_" + "a" * 43)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("user_42", "/live/v1/customers/ext:user_42"),
        ("ext:user_42", "/live/v1/customers/ext:user_42"),
        ("a/../ext:admin", "/live/v1/customers/ext:a%2F..%2Fext%3Aadmin"),
        ("5?x=#", "/live/v1/customers/ext:5%3Fx%3D%23"),
        ("auth0|abc", "/live/v1/customers/ext:auth0%7Cabc"),
    ],
)
def test_an_external_id_cannot_leave_its_place_in_the_path(given: str, path: str) -> None:
    gateway = Gateway(httpx2.Response(200, json=CUSTOMER))
    customers(gateway).customers.get(given)
    assert gateway.requests[-1].url.raw_path.decode() == path


@pytest.mark.parametrize("external_id", ["", ".", "..", None, 7])
def test_an_id_that_no_path_can_carry_is_refused(external_id: object) -> None:
    gateway = Gateway()
    with pytest.raises(BadRequest):
        customers(gateway).customers.get(external_id)  # type: ignore[arg-type]
    assert not gateway.requests


def test_a_repeated_creation_finds_its_own_first_attempt() -> None:
    def lost(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("broke", request=request)

    gateway = Gateway(lost, httpx2.Response(201, json=CUSTOMER))
    customers(gateway).customers.create("u", budget_usd=5)
    first, second = (request.headers["idempotency-key"] for request in gateway.requests)
    assert first == second
    assert json.loads(gateway.requests[1].content) == {"external_id": "u", "budget_usd": 5}


def test_origins_are_a_list_and_not_a_text() -> None:
    with pytest.raises(BadRequest):
        SALES.client_tokens.mint("u", origin_allowlist="https://a.test")


def test_pages_are_followed_to_the_last_one() -> None:
    gateway = Gateway(
        httpx2.Response(200, json=[THREAD], headers={"X-Next-Cursor": "c1"}),
        httpx2.Response(200, json=[]),
    )
    assert [thread.id for thread in gateway.weir().threads.list(user_id="u", search="x")] == ["t"]
    assert dict(gateway.requests[-1].url.params) == {"search": "x", "cursor": "c1"}
    gateway = Gateway(
        httpx2.Response(200, json={"data": [CUSTOMER], "next_cursor": "c1"}),
        httpx2.Response(200, json={"data": [CUSTOMER], "next_cursor": None}),
    )
    assert len(list(customers(gateway).customers.list(status="active"))) == 2


def test_an_export_is_put_together_from_its_parts() -> None:
    message = {"id": "m", "role": "user", "content": "hi", "created_at": "2026-01-01"}
    part = {"thread": THREAD, "messages": [message]}
    gateway = Gateway(
        httpx2.Response(200, json={**part, "next_cursor": "c1"}),
        httpx2.Response(200, json={**part, "next_cursor": None}),
    )
    assert len(gateway.weir().threads.export("t", user_id="u").messages) == 2


def test_times_are_sent_in_utc_and_encoded() -> None:
    gateway = Gateway(httpx2.Response(200, json=USAGE))
    begin = datetime(2026, 4, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    used = gateway.weir().usage.get(user_id="u", from_=begin, to=date(2026, 4, 30))
    assert used.totals.cost_usd == 0.5
    sent = gateway.requests[-1].url
    assert sent.query == b"from=2026-04-01T00%3A00%3A00%2B00%3A00&to=2026-04-30"
    assert gateway.requests[-1].headers["authorization"] == "Bearer token-1"


def test_a_projects_usage_is_read_with_the_api_key() -> None:
    gateway = Gateway(httpx2.Response(200, json=USAGE))
    gateway.weir().usage.get(group_by="user")
    assert gateway.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_an_address_that_is_no_gateway_is_named_so() -> None:
    gateway = Gateway(httpx2.Response(200, text="<html>hello</html>"))
    with pytest.raises(BadRequest, match="not as a gateway"):
        gateway.weir().me(user_id="u")


def test_a_redirect_does_not_carry_the_key_away() -> None:
    gateway = Gateway(httpx2.Response(307, headers={"Location": "https://evil.test/"}))
    with pytest.raises(BadRequest):
        Gateway.weir(gateway, max_retries=0).usage.get()
    assert len(gateway.requests) == 1


SECRET = "whsec_abc"
BODY = b'{"id":"evt_1","type":"wallet.low","created_at":1,"data":{"percent":80}}'


def signed(body: bytes = BODY, secret: str = SECRET, at: float | None = None) -> str:
    moment = str(int(time.time() if at is None else at))
    made = hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256)
    return f"t={moment},v1={made.hexdigest()}"


def test_a_signed_webhook_is_read() -> None:
    event = webhooks.verify(SECRET, signed(), BODY)
    assert (event.type, event.data) == ("wallet.low", {"percent": 80})


def test_a_webhook_is_read_while_a_replaced_secret_still_signs() -> None:
    old = signed(secret="whsec_old").split("v1=")[1]
    header = signed().replace(",v1=", f",v1={old},v1=")
    assert webhooks.verify(SECRET, header, BODY).id == "evt_1"


@pytest.mark.parametrize(
    ("header", "body"),
    [
        pytest.param(lambda: signed(secret="whsec_other"), BODY, id="another secret"),
        pytest.param(signed, BODY.replace(b"80", b"81"), id="another body"),
        pytest.param(lambda: signed(at=time.time() - 301), BODY, id="too old"),
        pytest.param(lambda: signed(at=time.time() + 320), BODY, id="of the future"),
        pytest.param(lambda: None, BODY, id="none"),
        pytest.param(str, BODY, id="empty"),
        pytest.param(lambda: "t=x,v1=y", BODY, id="no time"),
        pytest.param(lambda: "t=²,v1=y", BODY, id="no digit"),
        pytest.param(lambda: signed().replace("v1", "v0"), BODY, id="another version"),
        pytest.param(lambda: signed() + "é", BODY, id="more than a signature"),
    ],
)
def test_any_other_webhook_is_refused(header: Callable[[], str | None], body: bytes) -> None:
    with pytest.raises(InvalidSignature):
        webhooks.verify(SECRET, header(), body)
