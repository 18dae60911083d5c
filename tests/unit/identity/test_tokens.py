"""User tokens under attack: jwt_tool's playbook, RFC 8725, and what broke in products like this."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conftest import NOW
from weir.errors import BadRequest, Forbidden, TokenExpired, Unauthenticated
from weir.identity import callers, tokens
from weir.identity.keyring import Kid, PublicKey, SigningKey
from weir.identity.tenant_keys import TenantKey
from weir.revocation import Issued
from weir.settings import Deployment
from weir.web.request import Request

ISSUER = "urn:weir:tenant-1"


def claims(**changes: Any) -> dict[str, Any]:
    full = {
        "tid": "tenant-1",
        "pid": "default",
        "uid": "u_1",
        "role": "user",
        "scp": [],
        "iss": ISSUER,
        "aud": "behest",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 900,
        "jti": "j_1",
        "sid": "s_1",
        **changes,
    }
    return {name: value for name, value in full.items() if value is not ...}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(key: SigningKey, payload: dict[str, Any], **headers: Any) -> str:
    given_headers = {"typ": "JWT", "kid": key.kid, **headers}
    return jwt.encode(payload, key.private_key, algorithm="RS256", headers=given_headers)


@pytest.fixture
def believe(public_key: PublicKey, deployment: Deployment) -> Callable[..., tokens.Claims]:
    def find(kid: Kid) -> PublicKey:
        if kid != public_key.kid:
            raise Unauthenticated("unknown", reason="unknown_kid")
        return public_key

    def judge(token: str, now: int = NOW, **headers: str) -> tokens.Claims:
        request = Request("r", "POST", "/", {"authorization": f"Bearer {token}", **headers})
        return callers.believe(request, deployment, find, now=now)

    return judge


def test_minted_token_is_believed_and_has_the_contracts_claims_in_order(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims]
) -> None:
    token = tokens.mint(
        signing_key,
        issuer=ISSUER,
        tid="tenant-1",
        pid="default",
        uid="auth0|abc123",
        role="user",
        ttl_s=900,
        tier="pro",
        session_id="s_1",
        jti=tokens.token_id("00000000-0000-4000-8000-000000000000", "key_0123456789abcdef"),
        now=NOW,
    )
    payload = jwt.decode(token.value, options={"verify_signature": False})
    assert " ".join(payload) == "tid pid uid role scp iss aud iat nbf exp jti sid tier"
    assert (payload["exp"] - payload["iat"], payload["nbf"]) == (900, payload["iat"])
    assert jwt.get_unverified_header(token.value) == {"alg": "RS256", "typ": "JWT", "kid": "ring_1"}
    believed = believe(token.value)
    assert (believed.uid, believed.tier, believed.sid) == ("auth0|abc123", "pro", "s_1")
    assert (believed.issued_at, believed.client_id) == (NOW, "key_0123456789abcde")
    assert believed.issued == Issued(NOW, payload["jti"], "s_1")


def test_token_of_a_tenants_own_host_counts_as_issued_a_minute_earlier(
    signing_key: SigningKey, deployment: Deployment
) -> None:
    """Its clock may be ahead: what was signed before a revocation must not seem to be younger."""
    public = signing_key.public(NOW)
    token = sign(signing_key, claims())
    for key, at in ((TenantKey(public, None, ""), NOW - 60), (public, NOW)):
        believed = callers.believe_token(token, deployment, {public.kid: key}.__getitem__, now=NOW)
        assert believed.issued_at == at


def test_token_ends_on_the_second_it_names(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims]
) -> None:
    token = sign(signing_key, claims())
    assert believe(token, now=NOW + 899).uid == "u_1"
    with pytest.raises(TokenExpired):
        believe(token, now=NOW + 900)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": str(NOW + 900)},
        {"exp": NOW + 900.5},
        {"exp": 1e308},
        {"exp": float("nan")},
        {"exp": True},
        {"exp": -1},
        {"exp": None},
        {"exp": NOW + 86_401},  # lives longer than a day
        {"iat": NOW + 61, "exp": NOW + 900},
        {"nbf": NOW + 61},
        {"iss": "https://api.behest.ai"},
        {"iss": "urn:weir:tenant-2"},
        {"aud": "ringside:client"},
        {"aud": ["behest"]},
        {"aud": ["behest", "x"]},
        {"tid": "tenant-2"},
        {"pid": ""},
        {"pid": 7},
        {"pid": "\ud800"},
        {"uid": ""},
        {"uid": 42},
        {"role": "root"},
        {"scp": ["admin"]},
        {"tier": ""},
        {"tier": "x" * 65},
        {"tier": True},
        {"tier": 1.0},
        {"tier": ["max"]},
        {"tier": "pro\x1b[31m"},
        {"sid": 1},
        {"jti": "\ud800"},
        {"unknown": 1},
        *({name: ...} for name in claims()),
    ],
    ids=str,
)
def test_claim_that_is_missing_wrong_or_unknown_is_refused(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims], changes: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        believe(sign(signing_key, claims(**changes)))
    assert refused.value.reason.startswith("bad_")


# What no name that a caller chooses may have, in the middle of one that is fine otherwise.
UNFIT = {
    "C0": "a\x00b",
    "a line break": "a\nb",
    "an escape": "a\x1b[31mb",
    "DEL": "a\x7fb",
    "the first C1": "a\x80b",
    "the last C1": "a\x9fb",
    "a bidi override": "a\u202eb",
    "a bidi embedding": "a\u202ab",
    "a bidi isolate": "a\u2066b",
    "the end of an isolate": "a\u2069b",
    "a bidi mark": "a\u200fb",
    "the Arabic letter mark": "a\u061cb",
    "a line separator": "a\u2028b",
    "a paragraph separator": "a\u2029b",
    "a lone high surrogate": "a\ud800b",
    "a lone low surrogate": "a\udfffb",
    "too much": "x" * 256,
    "nothing": "",
}
NOT_OF_A_USER = {**UNFIT, "a reserved name": "admin", "another": "Dashboard-Service"}


@pytest.mark.parametrize("value", NOT_OF_A_USER.values(), ids=NOT_OF_A_USER)
def test_user_that_could_not_be_minted_for_is_not_believed_either(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims], value: str
) -> None:
    with pytest.raises(BadRequest) as at_mint:
        tokens.MintRequest.parse({"user_id": value})
    assert at_mint.value.param == "user_id"
    with pytest.raises(Unauthenticated) as in_a_token:
        believe(sign(signing_key, claims(uid=value)))
    assert in_a_token.value.reason == "bad_uid"


@pytest.mark.parametrize("value", UNFIT.values(), ids=UNFIT)
def test_session_that_could_not_be_minted_is_not_believed_either(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims], value: str
) -> None:
    with pytest.raises(BadRequest) as at_mint:
        tokens.MintRequest.parse({"user_id": "u", "session_id": value})
    assert at_mint.value.param == "session_id"
    with pytest.raises(Unauthenticated) as in_a_token:
        believe(sign(signing_key, claims(sid=value)))
    assert in_a_token.value.reason == "bad_sid"


@pytest.mark.parametrize("header", ["X-Session-Id", "X-Thread-Id"])
@pytest.mark.parametrize("value", UNFIT.values(), ids=UNFIT)
def test_session_or_thread_in_a_header_obeys_the_same_rule(header: str, value: str) -> None:
    request = Request("req-1", "POST", "/", {header.lower(): value})
    if not value:  # as good as none
        assert request.label(header) is None
        return
    with pytest.raises(BadRequest) as refused:
        request.label(header)
    assert refused.value.param == header


@pytest.mark.parametrize(
    "headers",
    [
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}},
        {"crit": ["b64"], "b64": False},
        {"cty": "JWT"},
        {"typ": "fc-client+jwt"},
        {"typ": "jwt"},
        {"kid": "../../dev/null"},
        {"kid": "ring_1' OR '1'='1"},
        {"kid": "ring_2"},
    ],
    ids=str,
)
def test_token_with_another_header_is_refused(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims], headers: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated):
        believe(sign(signing_key, claims(), **headers))


def test_token_signed_by_a_key_of_another_ring_is_refused(
    other_key: SigningKey, believe: Callable[..., tokens.Claims]
) -> None:
    impostor = SigningKey(Kid("ring_1"), other_key.private_key)
    with pytest.raises(Unauthenticated, match="signature"):
        believe(sign(impostor, claims()))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "RS384", "PS256", "ES256", ""])
def test_no_other_algorithm_is_accepted(
    public_key: PublicKey, believe: Callable[..., tokens.Claims], alg: str
) -> None:
    """For HS256 it is made with our public key as the secret (RFC 8725, section 2.1)."""
    signed = b64(json.dumps({"alg": alg, "typ": "JWT", "kid": "ring_1"}).encode())
    signed += "." + b64(json.dumps(claims()).encode())
    pem = public_key.rsa().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    for signature in (b64(mac), "AA"):
        with pytest.raises(Unauthenticated):
            believe(f"{signed}.{signature}")


def test_empty_signature_is_refused(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims]
) -> None:
    with pytest.raises(Unauthenticated):
        believe(sign(signing_key, claims()).rpartition(".")[0] + ".")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t + "A",
        lambda t: t + "=",
        lambda t: t + ".AAAA",
        lambda t: t + "\u00e9",
        lambda t: t.replace(".", "..", 1),
        lambda t: "." + t,
        lambda t: t[:-1],
        lambda t: t[: len(t) // 2] + "!" + t[len(t) // 2 :],
        lambda t: "x" * 5000,
        lambda t: "",
        lambda t: "a.b.c",
        lambda t: t.split(".")[0] + "." + b64(b"[]") + "." + t.split(".")[2],
        lambda t: b64(b'{"alg":"RS256"') + t[t.index(".") :],
        lambda t: b64(b"[" * 3000) + t[t.index(".") :],
    ],
)
def test_spoilt_token_is_refused_as_malformed_or_unsigned(
    signing_key: SigningKey,
    believe: Callable[..., tokens.Claims],
    spoil: Callable[[str], str],
) -> None:
    with pytest.raises(Unauthenticated):
        believe(spoil(sign(signing_key, claims())))


def test_every_other_spelling_of_the_last_character_is_refused(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims]
) -> None:
    """256 octets leave four unused bits in the last base64 character: one token, one spelling."""
    token = sign(signing_key, claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    believed = []
    for letter in alphabet:
        try:
            believe(token[:-1] + letter)
            believed.append(letter)
        except Unauthenticated:
            pass
    assert believed == [token[-1]]


def test_every_changed_character_is_noticed(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims]
) -> None:
    token = sign(signing_key, claims())
    for place in range(0, len(token), 7):
        letter = "A" if token[place] != "A" else "B"
        with pytest.raises(Unauthenticated):
            believe(token[:place] + letter + token[place + 1 :])


def test_duplicate_claims_are_no_way_in(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims]
) -> None:
    """The signature covers the octets: a second `uid` cannot be added by anyone but the signer."""
    header, payload, signature = sign(signing_key, claims()).split(".")
    raw = base64.urlsafe_b64decode(payload + "==")[:-1] + b',"uid":"admin"}'
    with pytest.raises(Unauthenticated):
        believe(f"{header}.{b64(raw)}.{signature}")


def test_project_and_tier_are_told_as_they_are_for_the_table_to_judge(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims]
) -> None:
    """Which there are changes while a token lives."""
    believed = believe(sign(signing_key, claims(pid="shop", tier="platinum")))
    assert (believed.pid, believed.tier) == ("shop", "platinum")


@pytest.mark.parametrize("key", ["behest_sk_live_" + "0" * 32, "sk_live_abc"])
def test_api_key_on_chat_is_refused_and_named_as_leaked_in_a_browser(
    believe: Callable[..., tokens.Claims], key: str
) -> None:
    with pytest.raises(Unauthenticated, match="mint"):
        believe(key)
    with pytest.raises(Forbidden) as refused:
        believe(key, origin="https://app.example.com")
    assert refused.value.code == "api_key_in_browser"


@given(st.text(max_size=300))
def test_no_text_whatever_crashes_the_parser(text: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens.unverified_kid(text)


@given(st.dictionaries(st.sampled_from([*claims(), "tier"]), st.none() | st.integers() | st.text()))
def test_no_claims_whatever_crash_the_judge(junk: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        tokens.judge(tokens.SignedClaims(junk), issuer=ISSUER, tid="tenant-1", now=NOW)


# ---------------------------------------------------------------- what may be asked for

SEEN_USER_IDS = [
    "u_1",
    "default",
    "anonymous",
    "user_2abc",
    "auth0|abc123",
    "f3b0c442-98fc-4c1c-9afb-f4c8996fb924",
    "jo@example.com",
    "Jürgen 🌊",
    "\u0645\u0631\u062d\u0628\u0627",  # Arabic: written from right to left without a mark
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family, held together by joiners
    "administrator",
    "x" * 255,
]


@pytest.mark.parametrize("user_id", SEEN_USER_IDS)
def test_user_ids_seen_in_the_field_are_accepted_and_believed(
    signing_key: SigningKey, believe: Callable[..., tokens.Claims], user_id: str
) -> None:
    assert tokens.MintRequest.parse({"user_id": user_id}).user_id == user_id
    assert believe(sign(signing_key, claims(uid=user_id, sid=user_id))).uid == user_id


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 256}, "user_id"),
        ({"user_id": 42}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"user_id": "admin"}, "user_id"),
        ({"user_id": "Dashboard-Service"}, "user_id"),
        ({"user_id": "u", "ttl": 59}, "ttl"),
        ({"user_id": "u", "ttl": 86_401}, "ttl"),
        ({"user_id": "u", "ttl": "900"}, "ttl"),
        ({"user_id": "u", "ttl": 900.0}, "ttl"),
        ({"user_id": "u", "ttl": True}, "ttl"),
        ({"user_id": "u", "role": "root"}, "role"),
        ({"user_id": "u", "role": 1}, "role"),
        ({"user_id": "u", "session_id": ""}, "session_id"),
        ({"user_id": "u", "session_id": 1}, "session_id"),
    ],
    ids=str,
)
def test_bad_mint_request_names_its_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        tokens.MintRequest.parse(body)
    assert refused.value.param == param


def test_defaults_of_a_mint_request_are_the_contracts() -> None:
    wish = tokens.MintRequest.parse({"user_id": "u", "unknown": 1})
    assert wish == tokens.MintRequest("u", None, 3600, None, None)


def test_role_is_clamped_to_the_keys() -> None:
    assert tokens.granted_role("admin", key_role="user") == "user"
    assert tokens.granted_role("admin", key_role="admin") == "admin"
    assert tokens.granted_role("user", key_role="admin") == "user"


@pytest.mark.parametrize("key_role", ["user", "admin"])
def test_role_that_is_not_asked_for_is_the_keys_own(key_role: str) -> None:
    wish = tokens.MintRequest.parse({"user_id": "u"})
    assert tokens.granted_role(wish.role, key_role) == key_role


def test_token_too_large_for_a_header_is_refused_at_mint(signing_key: SigningKey) -> None:
    with pytest.raises(BadRequest, match="shorter"):
        tokens.mint(
            signing_key,
            issuer=ISSUER,
            tid="t",
            pid="p",
            uid="🌊" * 255,
            role="user",
            ttl_s=60,
            tier=None,
            session_id="s",
            jti="j",
            now=NOW,
        )
