"""weir issuers: the form that it fills in for known providers, and what it says of a token."""

import json
import time
from typing import Any

import pytest

from cli import issuers
from tests.issuers import AUDIENCE, ENTRY, ISSUER, JWKS_URI, jwk, jwks, token
from tests.unit.cli.test_cli import Weir, configured, deployment, fresh, weir
from weir.identity.key_sets import KeySet, KeySetUnavailable, parse
from weir.upstreams.key_sets import KeySetFetcher

__all__ = ["configured", "deployment", "fresh", "weir"]  # fixtures


@pytest.fixture
def budgeted(configured: Weir) -> Weir:
    answer = configured(
        *("projects", "update", "default", "--limit", "usd_per_month=50"),
        *("--origin", "https://app.example.com", "--origin", "http://localhost:5173"),
    )
    assert answer.code == 0, answer.err
    return configured


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(_: KeySetFetcher, jwks_uri: str) -> KeySet:
        if jwks_uri != JWKS_URI:
            raise KeySetUnavailable("It is down.")
        return parse(jwks(jwk("RS256")))

    def discovered(_: KeySetFetcher, issuer: str) -> str:
        if issuer != ISSUER:
            raise KeySetUnavailable("It publishes nothing.")
        return JWKS_URI

    monkeypatch.setattr(KeySetFetcher, "__call__", fetch)
    monkeypatch.setattr(KeySetFetcher, "discovered", discovered)


FORMS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "clerk": (
        ("--domain", "clerk.example.com"),
        {
            "issuer": "https://clerk.example.com",
            "jwks_uri": "https://clerk.example.com/.well-known/jwks.json",
            "authorized_parties": ["http://localhost:5173", "https://app.example.com"],
            "session_claim": "sid",
        },
    ),
    "auth0": (
        ("--domain", "example.eu.auth0.com", "--audience", "https://api.example.com"),
        {
            "issuer": "https://example.eu.auth0.com/",
            "jwks_uri": "https://example.eu.auth0.com/.well-known/jwks.json",
            "audiences": ["https://api.example.com"],
        },
    ),
    "supabase": (
        ("--project-ref", "abcdefghijklmnop"),
        {
            "issuer": "https://abcdefghijklmnop.supabase.co/auth/v1",
            "jwks_uri": "https://abcdefghijklmnop.supabase.co/auth/v1/.well-known/jwks.json",
            "algs": ["ES256", "RS256"],
            "audiences": ["authenticated"],
            "session_claim": "session_id",
        },
    ),
    "firebase": (
        ("--project-id", "my-app-1234"),
        {
            "issuer": "https://securetoken.google.com/my-app-1234",
            "jwks_uri": "https://www.googleapis.com/service_accounts/v1/jwk/"
            "securetoken@system.gserviceaccount.com",
            "audiences": ["my-app-1234"],
        },
    ),
    "cognito": (
        ("--user-pool-id", "eu-central-1_AbCdEfGhI", "--client-id", "1h2j3k4l"),
        {
            "issuer": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
            "jwks_uri": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI"
            "/.well-known/jwks.json",
            "audiences": ["1h2j3k4l"],
        },
    ),
    "oidc": (
        ("--issuer", ISSUER, "--audience", AUDIENCE),
        {"issuer": ISSUER, "jwks_uri": JWKS_URI, "audiences": [AUDIENCE]},
    ),
}


@pytest.mark.parametrize("provider", FORMS)
def test_form_of_a_known_provider_is_filled_in(budgeted: Weir, provider: str) -> None:
    words, expected = FORMS[provider]
    made = budgeted("--json", "issuers", "add", provider, *words).json()
    assert {name: made[name] for name in expected} == expected
    assert made["name"] == provider
    assert made["prefix_user_ids"] is True
    listed = budgeted("issuers", "list")
    assert expected["issuer"] in listed.out


def test_every_known_provider_has_a_test() -> None:
    assert set(FORMS) == set(issuers.PROVIDERS)


def test_what_the_form_says_can_be_said_otherwise(budgeted: Weir) -> None:
    made = budgeted(
        *("--json", "issuers", "add", "oidc", "--issuer", "https://id.example.com"),
        *("--jwks-uri", "https://keys.example.com/set", "--audience", "a", "--audience", "b"),
        *("--authorized-party", "client", "--alg", "EdDSA", "--uid-claim", "oid"),
        *("--tier-claim", "plan", "--session-claim", "sid", "--no-prefix", "--allow-anonymous"),
        *("--new-users-per-hour", "7", "--ttl", "300", "--name", "own"),
    ).json()
    assert made == {
        "name": "own",
        "issuer": "https://id.example.com",
        "jwks_uri": "https://keys.example.com/set",
        "algs": ["EdDSA"],
        "audiences": ["a", "b"],
        "authorized_parties": ["client"],
        "uid_claim": "oid",
        "tier_claim": "plan",
        "session_claim": "sid",
        "prefix_user_ids": False,
        "allow_anonymous": True,
        "new_users_per_hour": 7,
        "ttl": 300,
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("auth0", "--domain", "example.eu.auth0.com"), "--audience or --authorized-party"),
        (("oidc", "--issuer", "https://unknown.example.com"), "--jwks-uri"),
        (("cognito", "--user-pool-id", "pool", "--client-id", "c"), "looks like"),
        (("clerk", "--domain", "127.0.0.1"), "public DNS name"),
        (("clerk", "--domain", "clerk.example.com", "--name", "Clerk:"), "cannot name"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    budgeted: Weir, words: tuple[str, ...], says: str
) -> None:
    answer = budgeted("issuers", "add", *words)
    assert answer.code == 1
    assert says in answer.err


def test_project_without_a_budget_is_told_how_to_set_one(configured: Weir) -> None:
    answer = configured("issuers", "add", "supabase", "--project-ref", "abc")
    assert answer.code == 1
    assert "--limit usd_per_month=50" in answer.err


def test_issuer_is_removed_once_it_is_meant(budgeted: Weir) -> None:
    assert budgeted("issuers", "add", "supabase", "--project-ref", "abc").code == 0
    assert budgeted("issuers", "remove", "supabase").code == 1
    assert budgeted("issuers", "remove", "supabase", "--yes").code == 0
    assert budgeted("--json", "issuers", "list").json() == {"data": []}


@pytest.fixture
def trusting(budgeted: Weir) -> Weir:
    answer = budgeted("issuers", "add", "oidc", "--issuer", ISSUER, "--audience", AUDIENCE)
    assert answer.code == 0, answer.err
    return budgeted


def test_good_token_is_said_to_be_and_whose_it_is(trusting: Weir) -> None:
    own = token(int(time.time()))
    for answer in (
        trusting("issuers", "test", own),
        trusting("issuers", "test", "-", stdin=own + "\n"),
    ):
        assert answer.code == 0, answer.err
        assert "oidc:user_2abc" in answer.out
        assert "FAILS" not in answer.out
        assert own[:20] not in answer.out + answer.err


@pytest.mark.parametrize(
    ("forge", "passes", "says"),
    [
        (lambda now: "not a token", 0, "three base64url parts"),
        (lambda now: token(now, iss="https://other.example.com"), 1, "does not trust the issuer"),
        (lambda now: token(now, "ES256"), 2, "algorithm must be RS256"),
        (lambda now: token(now, name="two"), 3, "there are: RS256-one (RS256)"),
        (lambda now: token(now, name="two", header={"kid": "RS256-one"}), 4, "signature"),
        (lambda now: token(now, exp=now - 999), 5, "expired"),
        (lambda now: token(now, aud="another"), 6, "audiences"),
        (lambda now: token(now, is_anonymous=True), 8, "anonymously"),
        (lambda now: token(now, sub=None), 9, "names the user"),
    ],
)
def test_bad_token_is_said_to_fail_at_the_first_check_that_it_fails(
    trusting: Weir, forge: Any, passes: int, says: str
) -> None:
    forged = forge(int(time.time()))
    answer = trusting("issuers", "test", forged)
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert [line.startswith("ok") for line in lines] == [True] * passes + [False]
    assert lines[-1].startswith("FAILS")
    assert says in lines[-1]
    assert forged not in answer.out + answer.err
    told = json.loads(trusting("--json", "issuers", "test", forged).out)
    assert (told["accepted"], len(told["passed"])) == (False, passes)


def test_keys_that_cannot_be_had_are_a_check_that_fails(
    trusting: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_: KeySetFetcher, jwks_uri: str) -> KeySet:
        raise KeySetUnavailable("sign-in.example.com cannot be reached.")

    monkeypatch.setattr(KeySetFetcher, "__call__", down)
    answer = trusting("issuers", "test", token(int(time.time())))
    assert answer.code == 1
    assert "cannot be reached" in answer.out.splitlines()[-1]


def test_entry_of_the_tests_is_one_that_may_be_written() -> None:
    assert ENTRY["issuer"] == ISSUER
