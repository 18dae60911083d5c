"""When a token of another issuer is believed, and whose it is: every forgery that is known."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.issuers import (
    AUDIENCE,
    ENTRY,
    ISSUER,
    claims,
    jwk,
    jwks,
    part,
    private_key,
    signed,
    signed_with_secret,
    token,
)
from tests.unit.identity.test_key_sets import JSON
from weir.errors import ExchangeRefused
from weir.identity.issuers import CHECKS, Identity, Issuer, believe
from weir.identity.key_sets import VerificationKey, parse
from weir.identity.verdict import verdict
from weir.projects.project import Project

NOW = 1_800_000_000
OTHER = {
    **ENTRY,
    "issuer": "https://other.example.com",
    "jwks_uri": "https://other.example.com/keys",
}
# Each issuer's own keys: of the second one the key is another, under the same id.
PUBLISHED = {
    ENTRY["jwks_uri"]: jwks(jwk("RS256"), jwk("ES256"), jwk("EdDSA")),
    OTHER["jwks_uri"]: jwks(jwk("RS256", "two", kid="RS256-one"), jwk("RS256", "three")),
}


def find_key(issuer: Issuer, kid: str | None, algorithm: str) -> VerificationKey:
    key = parse(PUBLISHED[issuer.jwks_uri]).find(kid, algorithm)
    if key is None:
        raise ExchangeRefused("no such key", reason="unknown_kid")
    return key


def project(*, budget: float | None = 50, **issuers: Any) -> Project:
    limits = {} if budget is None else {"usd_per_month": budget}
    tiers = {"gold": {"number": 4, "limits": {}}}
    document = {"issuers": issuers or {"clerk": ENTRY}, "limits": limits, "tiers": tiers}
    return Project.from_document("shop", document)


def believed(subject_token: str, *, pool_users: bool = False, **issuers: Any) -> Identity:
    return believe(subject_token, project(**issuers), find_key, now=NOW, pool_users=pool_users)


def refused(subject_token: str, *, pool_users: bool = False, **issuers: Any) -> str:
    with pytest.raises(ExchangeRefused) as refusal:
        believed(subject_token, pool_users=pool_users, **issuers)
    assert not subject_token or subject_token[:40] not in refusal.value.message
    return refusal.value.reason


# ---------------------------------------------------------------- what is believed


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_token_that_the_issuer_signed_is_believed(kind: str) -> None:
    who = believed(token(NOW, kind), clerk={**ENTRY, "algs": [kind]})
    assert (who.user_id, who.tier, who.session_id) == ("clerk:user_2abc", None, None)


@pytest.mark.parametrize(
    "header",
    [
        {"typ": None},
        {"typ": "at+jwt"},
        {"typ": "application/at+jwt"},
        {"typ": "jwt"},
        {"cty": "JWT", "x5t": "thumbprint", "cat": "cl_B7d4PD111AAA"},
        # Never looked at: the keys are the issuer's own.
        {"jku": "https://evil.example/jwks.json", "x5u": "https://evil.example/cert"},
        {"jwk": jwk("RS256", "evil")},
    ],
    ids=lambda header: "-".join(map(str, header)),
)
def test_header_members_that_providers_send_do_no_harm(header: dict[str, Any]) -> None:
    assert believed(token(NOW, header=header)).user_id == "clerk:user_2abc"


@pytest.mark.parametrize(
    "more",
    [
        {"aud": ["https://example.com/userinfo", AUDIENCE]},
        {"exp": NOW - 59},
        {"exp": 2**53 - 1},
        {"jti": 7},  # not ours to judge
        {"exp": NOW + 0.5},
        {"nbf": NOW + 60, "iat": NOW + 60},
        {"iat": None},
        {"email_verified": False, "nested": {"a": [1, {"b": None}]}},
    ],
    ids=str,
)
def test_claims_at_the_edge_of_what_is_accepted(more: dict[str, Any]) -> None:
    assert believed(token(NOW, **more)).user_id == "clerk:user_2abc"


# ---------------------------------------------------------------- forged tokens


def _public_pem() -> bytes:
    return bytes(
        private_key("RS256")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _signed(header: Any, told: Any = None, kind: str = "RS256", name: str = "one") -> str:
    text = told if isinstance(told, str) else json.dumps(told or claims(NOW))
    return signed(header, text, kind, name)


KID = {"typ": "JWT", "kid": "RS256-one"}
FORGED: dict[str, tuple[Callable[[], str], str]] = {
    "none": (
        lambda: f"{part(json.dumps({**KID, 'alg': 'none'}))}.{part(json.dumps(claims(NOW)))}.",
        "malformed",
    ),
    "none with a signature": (lambda: _signed({**KID, "alg": "none"}), "wrong_algorithm_or_type"),
    "None": (lambda: _signed({**KID, "alg": "None"}), "wrong_algorithm_or_type"),
    "no alg": (lambda: _signed(KID), "wrong_algorithm_or_type"),
    "alg is a list": (lambda: _signed({**KID, "alg": ["RS256"]}), "wrong_algorithm_or_type"),
    "HS256 with the public key as the secret": (
        lambda: signed_with_secret({**KID, "alg": "HS256"}, json.dumps(claims(NOW)), _public_pem()),
        "wrong_algorithm_or_type",
    ),
    "RS256 that is HS256 with the public key": (
        lambda: signed_with_secret({**KID, "alg": "RS256"}, json.dumps(claims(NOW)), _public_pem()),
        "bad_signature",
    ),
    "RS384": (lambda: _signed({**KID, "alg": "RS384"}), "wrong_algorithm_or_type"),
    "ES256, which this issuer does not use": (
        lambda: token(NOW, "ES256"),
        "wrong_algorithm_or_type",
    ),
    "RS256 that names a key of another type": (
        lambda: token(NOW, header={"kid": "ES256-one"}),
        "unknown_kid",
    ),
    "somebody else's key": (lambda: _signed({**KID, "alg": "RS256"}, name="evil"), "bad_signature"),
    "a key in its own header": (
        lambda: _signed({**KID, "alg": "RS256", "jwk": jwk("RS256", "evil")}, name="evil"),
        "bad_signature",
    ),
    "an unknown kid": (lambda: token(NOW, header={"kid": "unknown"}), "unknown_kid"),
    "kid of another issuer": (lambda: token(NOW, name="three"), "unknown_kid"),
    "kid that is a path": (lambda: token(NOW, header={"kid": "../../dev/null"}), "unknown_kid"),
    "kid that is no text": (lambda: token(NOW, header={"kid": 1}), "malformed"),
    "longest kid": (lambda: token(NOW, header={"kid": "k" * 255}), "unknown_kid"),
    "kid without end": (lambda: token(NOW, header={"kid": "k" * 256}), "malformed"),
    "no kid, and the signature of an outsider": (
        lambda: _signed({"alg": "RS256"}, name="evil"),
        "bad_signature",
    ),
    "crit": (lambda: token(NOW, header={"crit": ["exp"]}), "unknown_header"),
    "b64": (lambda: token(NOW, header={"b64": True}), "unknown_header"),
    "another typ": (lambda: token(NOW, header={"typ": "logout+jwt"}), "wrong_algorithm_or_type"),
    "a typ that is no text": (lambda: token(NOW, header={"typ": 1}), "wrong_algorithm_or_type"),
    "another issuer": (lambda: token(NOW, iss="https://evil.example"), "untrusted_issuer"),
    "the issuer with a slash": (lambda: token(NOW, iss=ISSUER + "/"), "untrusted_issuer"),
    "the issuer in capitals": (lambda: token(NOW, iss=ISSUER.upper()), "untrusted_issuer"),
    "a list of issuers": (lambda: token(NOW, iss=[ISSUER]), "untrusted_issuer"),
    "no issuer": (lambda: token(NOW, iss=None), "untrusted_issuer"),
    "another audience": (lambda: token(NOW, aud="another-app"), "bad_aud"),
    "an audience that begins the same": (lambda: token(NOW, aud=AUDIENCE + "-2"), "bad_aud"),
    "no audience": (lambda: token(NOW, aud=None), "bad_aud"),
    "no audience in a list": (lambda: token(NOW, aud=[]), "bad_aud"),
    "an audience that is an object": (lambda: token(NOW, aud={AUDIENCE: 1}), "bad_aud"),
    "a list in the list of audiences": (lambda: token(NOW, aud=[[AUDIENCE]]), "bad_aud"),
    "expired": (lambda: token(NOW, exp=NOW - 60), "token_expired"),
    "no exp": (lambda: token(NOW, exp=None), "bad_exp"),
    "exp as text": (lambda: token(NOW, exp=str(NOW + 600)), "bad_exp"),
    "exp true": (lambda: token(NOW, exp=True), "bad_exp"),
    "exp as large as no time is": (lambda: token(NOW, exp=2**53), "bad_exp"),
    "exp beyond all numbers": (lambda: token(NOW, exp=1e308), "bad_exp"),
    "nbf ahead": (lambda: token(NOW, nbf=NOW + 61), "bad_nbf"),
    "nbf as text": (lambda: token(NOW, nbf="0"), "bad_nbf"),
    "iat ahead": (lambda: token(NOW, iat=NOW + 61), "bad_iat"),
    "a claim twice": (
        lambda: _signed({**KID, "alg": "RS256"}, json.dumps(claims(NOW))[:-1] + ',"sub":"boss"}'),
        "malformed",
    ),
    "a claim twice, within another": (
        lambda: _signed(
            {**KID, "alg": "RS256"}, json.dumps(claims(NOW))[:-1] + ',"m":{"a":1,"a":2}}'
        ),
        "malformed",
    ),
    "alg twice": (
        lambda: _signed('{"alg":"none","kid":"RS256-one","alg":"RS256"}', claims(NOW)),
        "malformed",
    ),
    "NaN": (
        lambda: _signed({**KID, "alg": "RS256"}, json.dumps(claims(NOW))[:-1] + ',"x":NaN}'),
        "malformed",
    ),
    "claims that are a list": (lambda: _signed({**KID, "alg": "RS256"}, "[]"), "malformed"),
    "nested without end": (lambda: _signed({**KID, "alg": "RS256"}, "[" * 5000), "malformed"),
    "no text": (lambda: "e30.gICA.AAAA", "malformed"),
    "four parts": (lambda: token(NOW) + ".AAAA", "malformed"),
    "two parts": (lambda: token(NOW).rpartition(".")[0], "malformed"),
    "padding": (lambda: token(NOW) + "=", "malformed"),
    "a line end": (lambda: token(NOW) + "\n", "malformed"),
    "another spelling of the signature": (lambda: _respelled(token(NOW)), "malformed"),
    "another signature": (lambda: token(NOW)[:-8] + "AAAAAAAA", "malformed or bad_signature"),
    "too long": (lambda: token(NOW, x="x" * 16_384), "malformed"),
    "nothing": (lambda: "", "malformed"),
}


def _respelled(told: str) -> str:
    """The last character of 256 octets has four bits that mean nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return told[:-1] + alphabet[alphabet.index(told[-1]) + 1]


def test_longest_token_is_read_and_a_longer_one_is_not() -> None:
    def of_length(length: int) -> str:
        start = (length - len(token(NOW, x=""))) * 3 // 4
        tried = (
            token(NOW, header={"pad": "p" * pad}, x="x" * (start - pad + more))
            for pad in (0, 1, 2)
            for more in range(-16, 4)
        )
        return next(each for each in tried if len(each) == length)

    assert believed(of_length(16_384)).user_id == "clerk:user_2abc"
    assert refused(of_length(16_385)) == "malformed"


@pytest.mark.parametrize("name", FORGED)
def test_forged_token_is_refused(name: str) -> None:
    forge, reason = FORGED[name]
    assert refused(forge()) in reason


def test_key_of_one_issuer_does_not_sign_for_another() -> None:
    """Both are trusted, and the ids of their keys are the same."""
    both: dict[str, Any] = {"one": ENTRY, "two": OTHER}
    assert believed(token(NOW), **both).user_id == "one:user_2abc"
    theirs = token(NOW, name="two", header={"kid": "RS256-one"}, iss=OTHER["issuer"])
    assert believed(theirs, **both).user_id == "two:user_2abc"
    assert refused(token(NOW, iss=OTHER["issuer"]), **both) == "bad_signature"
    assert refused(token(NOW, name="two", header={"kid": "RS256-one"}), **both) == "bad_signature"


def test_issuer_of_one_project_counts_for_nothing_in_another() -> None:
    assert refused(token(NOW), two=OTHER) == "untrusted_issuer"


def test_authorized_party_is_demanded_where_it_is_set() -> None:
    entry = {**ENTRY, "audiences": [], "authorized_parties": ["https://app.example.com"]}
    assert believed(token(NOW, aud=None, azp="https://app.example.com"), clerk=entry).user_id
    for azp in (None, "https://evil.example", ["https://app.example.com"], ""):
        assert refused(token(NOW, azp=azp), clerk=entry) == "bad_azp"
    both = {**entry, "audiences": [AUDIENCE]}
    assert refused(token(NOW, aud="other", azp="https://app.example.com"), clerk=both) == "bad_aud"
    assert refused(token(NOW, azp="https://evil.example"), clerk=both) == "bad_azp"


def test_entry_that_binds_to_nobody_is_an_error_not_an_open_door() -> None:
    with pytest.raises(ValueError, match="neither"):
        believed(token(NOW), clerk={**ENTRY, "audiences": []})


def test_project_without_a_budget_trusts_nobody() -> None:
    with pytest.raises(ExchangeRefused) as refusal:
        believe(token(NOW), project(budget=None), find_key, now=NOW, pool_users=False)
    assert refusal.value.reason == "untrusted_issuer"


# ---------------------------------------------------------------- who it is


@pytest.mark.parametrize(
    "more", [{"is_anonymous": True}, {"firebase": {"sign_in_provider": "anonymous"}}]
)
def test_anonymous_user_is_refused_unless_the_project_allows_it(more: dict[str, Any]) -> None:
    assert refused(token(NOW, **more)) == "anonymous_user"
    allowing = {**ENTRY, "allow_anonymous": True}
    assert believed(token(NOW, **more), clerk=allowing).user_id == "clerk:user_2abc"


@pytest.mark.parametrize(
    "more",
    [{"is_anonymous": False}, {"firebase": {"sign_in_provider": "google.com"}}, {"firebase": "x"}],
)
def test_user_with_an_account_is_not_anonymous(more: dict[str, Any]) -> None:
    assert believed(token(NOW, **more)).user_id == "clerk:user_2abc"


@pytest.mark.parametrize("sub", [None, "", 7, ["a"], {"a": 1}, True, "a\nb", "a\u202eb", "x" * 250])
def test_claim_that_names_nobody_is_refused(sub: Any) -> None:
    assert refused(token(NOW, sub=sub)) == "bad_user_id"


def test_longest_user_id_counts_its_prefix() -> None:
    assert len(believed(token(NOW, sub="x" * 249)).user_id) == 255


NO_PREFIX = {**ENTRY, "prefix_user_ids": False}


@pytest.mark.parametrize("sub", ["auth0|5f7c", "user_2abc", "jo@example.com", "Clerk:x", ":x", "1"])
def test_issuer_without_a_prefix_names_users_as_the_server_does(sub: str) -> None:
    assert believed(token(NOW, sub=sub), clerk=NO_PREFIX).user_id == sub


@pytest.mark.parametrize("sub", ["two:user_2abc", "clerk:x", "anything-at-all:", "a:b:c"])
def test_issuer_without_a_prefix_names_no_user_of_another_issuer(sub: str) -> None:
    """Neither of one that is trusted now, nor of one that may be later."""
    assert refused(token(NOW, sub=sub), clerk=NO_PREFIX, two=OTHER) == "bad_user_id"


@pytest.mark.parametrize("sub", ["admin", "Dashboard-Service", "SYSTEM"])
def test_issuer_without_a_prefix_names_no_reserved_user(sub: str) -> None:
    assert refused(token(NOW, sub=sub), clerk=NO_PREFIX) == "bad_user_id"
    assert believed(token(NOW, sub=sub)).user_id == f"clerk:{sub}"


@pytest.mark.parametrize(
    "sub", ["0f3a2b1c-1111-4222-8333-444455556666", "0F3A2B1C-1111-4222-8333-444455556666"]
)
def test_issuer_without_a_prefix_names_no_user_of_the_stacks_own_pool(sub: str) -> None:
    told = token(NOW, sub=sub)
    assert refused(told, clerk=NO_PREFIX, pool_users=True) == "bad_user_id"
    assert believed(told, clerk=NO_PREFIX, pool_users=False).user_id == sub
    assert believed(told, clerk=ENTRY, pool_users=True).user_id == f"clerk:{sub}"


def test_two_issuers_never_name_the_same_user() -> None:
    names = ["a", "a-b", "b"]
    subs = ["x", "b:x", "a:x", "a-b:x", "-b:x", ":x", "x:", "a:b:x"]
    seen: dict[str, tuple[str, str]] = {}
    for name in names:
        for sub in subs:
            told = token(NOW, sub=sub)
            trusted: dict[str, Any] = {name: ENTRY}
            user_id = believed(told, **trusted).user_id
            assert seen.setdefault(user_id, (name, sub)) == (name, sub)


@pytest.mark.parametrize(
    ("claim", "told", "tier"),
    [
        ("plan", {"plan": "pro"}, "pro"),
        ("plan", {"plan": 3}, "max"),
        ("plan", {"plan": "2"}, "pro"),
        ("plan", {"plan": "gold"}, "gold"),
        ("plan", {"plan": "platinum"}, "free"),
        ("plan", {"plan": True}, "free"),
        ("plan", {"plan": {"name": "max"}}, "free"),
        ("plan", {}, "free"),
        ("cognito:groups", {"cognito:groups": ["free", "max", "other", 4]}, "max"),
        ("cognito:groups", {"cognito:groups": ["other"]}, "free"),
        ("app_metadata.plan", {"app_metadata": {"plan": "max"}}, "max"),
        ("app_metadata.plan", {"app_metadata": "max"}, "free"),
        ("https://example.com/plan", {"https://example.com/plan": "pro"}, "pro"),
        (None, {"tier": "max", "plan": "max"}, None),
    ],
)
def test_tier_is_one_that_the_project_has_or_the_lowest(
    claim: str | None, told: dict[str, Any], tier: str | None
) -> None:
    entry = {**ENTRY, "tier_claim": claim}
    assert believed(token(NOW, **told), clerk=entry).tier == tier


@pytest.mark.parametrize(
    ("told", "session"),
    [({"sid": "sess_1"}, "sess_1"), ({"sid": 1}, None), ({"sid": "a\nb"}, None), ({}, None)],
)
def test_session_comes_from_its_claim_if_that_names_one(
    told: dict[str, Any], session: str | None
) -> None:
    entry = {**ENTRY, "session_claim": "sid"}
    assert believed(token(NOW, **told), clerk=entry).session_id == session
    assert believed(token(NOW, **told)).session_id is None


NAMES = ("iss", "aud", "azp", "sub", "exp", "nbf", "iat", "plan", "sid", "is_anonymous", "firebase")


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
@settings(deadline=None)
def test_whatever_claims_a_trusted_issuer_signs_are_believed_or_refused(told: Any) -> None:
    entry = {
        **ENTRY,
        "authorized_parties": ["page"],
        "tier_claim": "plan",
        "session_claim": "firebase.sid",
    }
    own = _signed({**KID, "alg": "RS256"}, {**claims(NOW), "azp": "page", **told})
    judged = verdict(own, project(clerk=entry), find_key, now=NOW, pool_users=True)
    assert (judged.identity is None) == (judged.failed is not None)


@given(JSON, JSON)
@settings(deadline=None)
def test_whatever_stands_in_a_header_is_understood_or_refused(kid: Any, alg: Any) -> None:
    own = _signed({"kid": kid, "alg": alg, "typ": alg}, claims(NOW))
    judged = verdict(own, project(), find_key, now=NOW, pool_users=True)
    assert judged.failed in ("form", "alg")


# ---------------------------------------------------------------- for an operator


def test_verdict_tells_the_checks_in_order_and_which_one_failed() -> None:
    good = verdict(token(NOW), project(), find_key, now=NOW, pool_users=False)
    assert good.passed == tuple(CHECKS)
    assert good.document()["user_id"] == "clerk:user_2abc"
    bad = verdict(token(NOW, aud="another"), project(), find_key, now=NOW, pool_users=False)
    assert bad.passed == ("form", "iss", "alg", "kid", "signature", "exp")
    assert (bad.failed, bad.reason) == ("aud", "bad_aud")
    assert bad.document()["accepted"] is False


@pytest.mark.parametrize("name", FORGED)
def test_verdict_refuses_what_an_exchange_refuses(name: str) -> None:
    forge, reason = FORGED[name]
    judged = verdict(forge(), project(), find_key, now=NOW, pool_users=False)
    assert judged.identity is None
    assert judged.reason is not None
    assert judged.reason in reason
    assert judged.failed in CHECKS
