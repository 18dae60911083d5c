"""Tiers under the control plane's paths, and requests by network address, on the running stack."""

import itertools
from typing import Any

import httpx
import pytest

from tests.behest.conftest import CHAT, until
from tests.stack.admin import UNLIMITED, Admin, bearer, mint
from tests.stack.conftest import Stack, ask, envelope

PID = "tiered"
TIERS = f"/v1/projects/{PID}/tiers"


@pytest.fixture(scope="module", autouse=True)
def project(admin: Admin) -> None:
    admin.project(PID, default_model="fake-large", **UNLIMITED)


def send(admin: Admin, method: str, path: str, body: Any = None) -> httpx.Response:
    return admin.http.request(method, TIERS + path, headers=bearer(admin.token), json=body)


def test_tier_is_made_read_replaced_and_removed(admin: Admin) -> None:
    made = send(admin, "POST", "", {"name": "team", "overrides": {"rpm_limit": 7}})
    tier = {"id": 4, "name": "team", "custom": True, "overrides": {"rpm_limit": 7}}
    assert (made.status_code, made.json()) == (201, tier)
    for named in ("/4", "/team"):
        assert send(admin, "GET", named).json() == tier
    resolved = send(admin, "GET", "/4/resolved").json()
    assert (resolved["id"], resolved["name"]) == (4, "team")
    assert resolved["limits"]["rpm_limit"] == 7
    assert resolved["limits"]["tokens_per_day"] == 50_000  # as `free`
    changed = {"tokens_per_day": None, "tokens_per_month": 9}
    replaced = send(admin, "PUT", "/team", {"overrides": changed})
    assert (replaced.status_code, replaced.json()["overrides"]) == (200, changed)
    assert send(admin, "GET", "/team/resolved").json()["limits"]["rpm_limit"] == 10
    assert admin("GET", f"projects/{PID}/tiers")["data"][3]["changed"] == sorted(changed)
    assert send(admin, "DELETE", "/4").status_code == 204
    envelope(send(admin, "GET", "/4"), 404, "not_found")
    envelope(send(admin, "DELETE", "/team"), 404, "not_found")
    actions = [entry["action"] for entry in admin("GET", "audit?limit=3")["data"]]
    assert actions == ["tier.reset", "tier.set", "tier.set"]


def test_fourth_tier_of_its_own_and_a_taken_name_are_409s(admin: Admin) -> None:
    for name in ("a", "b", "c"):
        assert send(admin, "POST", "", {"name": name}).status_code == 201
    for name in ("d", "a", "free"):
        envelope(send(admin, "POST", "", {"name": name}), 409, "conflict")
    listed = send(admin, "GET", "").json()["data"]
    assert [(each["id"], each["custom"]) for each in listed[2:4]] == [(3, False), (4, True)]
    for name in ("a", "b", "c"):
        send(admin, "DELETE", f"/{name}")


def test_built_in_tier_is_overridden_and_goes_back(admin: Admin) -> None:
    assert send(admin, "PUT", "/2", {"overrides": {"rpm_limit": 61}}).json()["name"] == "pro"
    assert send(admin, "GET", "/pro/resolved").json()["limits"]["rpm_limit"] == 61
    assert send(admin, "DELETE", "/2").status_code == 204
    assert send(admin, "GET", "/pro").json()["overrides"] == {}


@pytest.mark.parametrize(
    ("overrides", "names"),
    [({"pii_mode": "enforce"}, "pii_mode"), ({"rpm": 5}, "rpm"), ({"rpm_limit": -1}, "rpm_limit")],
    ids=str,
)
def test_override_that_would_not_hold_is_refused_by_name(
    admin: Admin, overrides: dict[str, Any], names: str
) -> None:
    error = envelope(send(admin, "PUT", "/1", {"overrides": overrides}), 400, "validation_error")
    assert names in f"{error['param']} {error['message']}"


def test_nobody_but_an_operator_sees_tiers(stack: Stack, admin: Admin) -> None:
    token = mint(stack, admin.key(PID, role="admin"), role="admin")
    for credential in (token, stack.sign_in()["IdToken"], stack.env["BEHEST_KEY"]):
        reply = stack.http.get(TIERS, headers=bearer(credential))
        assert reply.status_code in (401, 403), reply.text


def test_key_list_is_under_the_older_prefix_too(stack: Stack) -> None:
    older = stack.http.get("/auth/.well-known/jwks.json")
    assert older.json() == stack.http.get("/.well-known/jwks.json").json()
    assert older.headers["cache-control"] == "public, max-age=300"


def test_requests_of_all_users_from_one_address_share_its_limit(stack: Stack, admin: Admin) -> None:
    admin.project("addressed", default_model="fake-large", **UNLIMITED)
    key = admin.key("addressed")
    first = mint(stack, key, "before")
    assert stack.http.post(CHAT, headers=bearer(first), json=ask()).status_code == 200
    admin("PATCH", "projects/addressed", {"rpm_per_address": 2})
    users = itertools.count()

    def reply() -> httpx.Response:
        user = next(users)
        headers = bearer(mint(stack, key, f"u{user}")) | {"X-Forwarded-For": f"198.51.100.{user}"}
        return stack.http.post(CHAT, headers=headers, json=ask())

    def refusal() -> httpx.Response | None:
        seen = reply()
        return seen if seen.status_code == 429 else None

    refused = until(refusal)
    error = envelope(refused, 429, "rate_limited")
    assert (error["details"]["scope"], error["details"]["limit"]) == ("address", {"rpm": 2})
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    admin("PATCH", "projects/addressed", {"rpm_per_address": None})
    until(lambda: all(reply().status_code == 200 for _ in range(3)))
