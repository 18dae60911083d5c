"""Tokens that a tenant's own server has signed, and the public halves that are taken for it."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conftest import NOW
from weir.aws.rotation import make_signing_key
from weir.errors import BadRequest, TokenExpired, Unauthenticated
from weir.identity import callers, tenant_keys, tokens
from weir.identity.keyring import Kid, PublicKey, SigningKey
from weir.identity.tenant_keys import TenantKey
from weir.settings import Deployment
from weir.web.request import Request

KID = tenant_keys.kid_of("0123456789abcdef" * 2)
OWN_ISSUER = "urn:weir:tenant-1"
DAY_S = 86_400


@pytest.fixture(scope="session")
def tenant_pair() -> SigningKey:
    return make_signing_key(KID)


@pytest.fixture
def tenant_key(tenant_pair: SigningKey) -> TenantKey:
    return TenantKey(tenant_pair.public(created_at=NOW), "shop", "backend")


Believe = Callable[..., tokens.Claims]


@pytest.fixture
def believe(tenant_key: TenantKey, public_key: PublicKey, deployment: Deployment) -> Believe:
    there: dict[Kid, PublicKey | TenantKey] = {KID: tenant_key, public_key.kid: public_key}

    def judge(token: str, now: int = NOW) -> tokens.Claims:
        request = Request("r", "POST", "/", {"authorization": f"Bearer {token}"})
        return callers.believe(request, deployment, there.__getitem__, now=now)

    return judge


def legacy(**changes: Any) -> dict[str, Any]:
    """What `sign_behest_jwt` of behest-ai, and `signBehestJWT` of its TypeScript twin, write."""
    full = {
        "tid": "tenant-1",
        "pid": "shop",
        "uid": "u_1",
        "iss": "behest",
        "aud": "behest",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 3600,
    }
    return {name: value for name, value in {**full, **changes}.items() if value is not ...}


def newer(**changes: Any) -> dict[str, Any]:
    """What `Behest(...).auth.mint()` of behest-ai 1.5 writes in sign mode."""
    full = {
        "tid": "tenant-1",
        "pid": "shop",
        "uid": "u_1",
        "role": "user",
        "scp": [],
        "iss": "https://api.behest.ai",
        "aud": "behest",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 900,
        "jti": "5f0c1f5c-3f1d-4f3e-9a55-0e7a4d0a7a11",
        "sid": "s_1",
    }
    return {name: value for name, value in {**full, **changes}.items() if value is not ...}


def sign(pair: SigningKey, claims: dict[str, Any], kid: str | None = None) -> str:
    headers = {"kid": kid or pair.kid, "typ": "JWT"}
    return jwt.encode(claims, pair.private_key, algorithm="RS256", headers=headers)


# ---------------------------------------------------------------- what is believed


def test_private_half_is_what_the_published_sdks_load(
    tenant_pair: SigningKey, believe: Believe
) -> None:
    printed = tenant_keys.private_half(tenant_pair)
    assert printed.isascii()
    assert not any(character.isspace() for character in printed)
    # As behest-ai reads BEHEST_KEY: no prefix, base64, a PEM within.
    pem = base64.b64decode(printed, validate=True).decode()
    assert pem.startswith("-----BEGIN PRIVATE KEY-----\n")  # PKCS#8: the TypeScript SDK's only one
    headers = {"kid": KID, "typ": "JWT"}
    token = jwt.encode(newer(), pem, algorithm="RS256", headers=headers)
    assert believe(token).uid == "u_1"


def test_token_of_the_newer_sdks_is_believed_with_all_that_it_says(
    tenant_pair: SigningKey, believe: Believe
) -> None:
    believed = believe(sign(tenant_pair, newer(tier=2)))
    assert (believed.pid, believed.uid, believed.sid) == ("shop", "u_1", "s_1")
    assert (believed.tier, believed.expires_at) == (2, NOW + 900)


def test_token_of_the_older_sdks_is_believed_without_session_tier_and_id(
    tenant_pair: SigningKey, believe: Believe
) -> None:
    believed = believe(sign(tenant_pair, legacy()))
    assert (believed.uid, believed.role) == ("u_1", "user")
    assert (believed.sid, believed.tier, believed.jti) == (None, None, None)


@pytest.mark.parametrize("role", ["admin", "dashboard-service", "user", "regular", "root", ""])
def test_token_is_a_users_whatever_role_it_claims(
    tenant_pair: SigningKey, believe: Believe, role: str
) -> None:
    assert believe(sign(tenant_pair, newer(role=role))).role == "user"


@pytest.mark.parametrize(
    "issuer", ["https://api.behest.ai", "https://api.behest.app", "behest", OWN_ISSUER]
)
def test_issuers_of_every_sdk_are_believed(
    tenant_pair: SigningKey, believe: Believe, issuer: str
) -> None:
    assert believe(sign(tenant_pair, newer(iss=issuer))).uid == "u_1"


@pytest.mark.parametrize("tier", [1, "2", "pro", None])
def test_tier_keeps_the_type_that_it_was_written_with(
    tenant_pair: SigningKey, believe: Believe, tier: object
) -> None:
    assert believe(sign(tenant_pair, newer(tier=tier))).tier == tier


def test_audience_may_be_a_list_of_it_alone(tenant_pair: SigningKey, believe: Believe) -> None:
    assert believe(sign(tenant_pair, newer(aud=["behest"]))).uid == "u_1"


def test_clock_of_another_host_may_be_a_minute_off(
    tenant_pair: SigningKey, believe: Believe
) -> None:
    ahead = sign(tenant_pair, newer(iat=NOW + 60, nbf=NOW + 60, exp=NOW + 960))
    assert believe(ahead).uid == "u_1"
    token = sign(tenant_pair, newer())
    assert believe(token, now=NOW + 900 + 59).uid == "u_1"
    with pytest.raises(TokenExpired):
        believe(token, now=NOW + 900 + 60)


def test_token_may_live_for_a_day_and_no_longer(tenant_pair: SigningKey, believe: Believe) -> None:
    assert believe(sign(tenant_pair, legacy(exp=NOW + DAY_S))).uid == "u_1"
    with pytest.raises(Unauthenticated) as refused:
        believe(sign(tenant_pair, legacy(exp=NOW + DAY_S + 1)))
    assert refused.value.reason == "bad_exp"


def test_key_for_every_project_signs_for_any(
    tenant_pair: SigningKey, public_key: PublicKey, deployment: Deployment
) -> None:
    key = TenantKey(tenant_pair.public(created_at=NOW), None, "")
    token = sign(tenant_pair, newer(pid="another"))
    request = Request("r", "POST", "/", {"authorization": f"Bearer {token}"})
    assert callers.believe(request, deployment, lambda _: key, now=NOW).pid == "another"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("shape", [legacy, newer])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pid": "another"}, "bad_pid"),
        ({"tid": "tenant-2"}, "bad_tid"),
        ({"iss": "https://evil.example"}, "bad_iss"),
        ({"iss": "urn:weir:tenant-2"}, "bad_iss"),
        ({"aud": "ringside:client"}, "bad_aud"),
        ({"aud": ["behest", "x"]}, "bad_aud"),
        ({"aud": []}, "bad_aud"),
        ({"uid": "admin"}, "bad_uid"),
        ({"uid": "Dashboard-Service"}, "bad_uid"),
        ({"uid": "a\u202eb"}, "bad_uid"),
        ({"uid": ""}, "bad_uid"),
        ({"uid": 42}, "bad_uid"),
        ({"iat": NOW + 61, "nbf": NOW}, "bad_nbf"),
        ({"nbf": NOW + 61}, "bad_nbf"),
        ({"exp": NOW}, "bad_exp"),
        ({"iat": NOW - DAY_S, "exp": NOW + 3600}, "bad_exp"),
        ({"exp": float(NOW + 900)}, "bad_exp"),
        ({"exp": str(NOW + 900)}, "bad_exp"),
        ({"sid": ""}, "bad_sid"),
        ({"sid": "a\nb"}, "bad_sid"),
        ({"jti": 7}, "bad_jti"),
        ({"tier": "x" * 65}, "bad_tier"),
        ({"tier": True}, "bad_tier"),
        ({"tier": 2.0}, "bad_tier"),
        ({"role": 1}, "bad_role"),
        ({"role": ["admin"]}, "bad_role"),
        ({"scp": ["admin"]}, "bad_scp"),
        ({"scp": "admin"}, "bad_scp"),
        ({"unknown": 1}, "bad_unknown"),
        *(({name: ...}, f"bad_{name}") for name in legacy()),
    ],
    ids=str,
)
def test_claim_that_is_missing_wrong_or_unknown_is_refused(
    tenant_pair: SigningKey,
    believe: Believe,
    shape: Callable[..., dict[str, Any]],
    changes: dict[str, Any],
    reason: str,
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        believe(sign(tenant_pair, shape(**changes)))
    assert refused.value.reason == reason


def test_tenant_key_cannot_sign_for_a_key_of_the_ring(
    tenant_pair: SigningKey, public_key: PublicKey, believe: Believe
) -> None:
    ours = newer(iss=OWN_ISSUER, role="admin", pid="default")
    with pytest.raises(Unauthenticated) as refused:
        believe(sign(tenant_pair, ours, kid=public_key.kid))
    assert refused.value.reason == "bad_signature"


def test_key_of_the_ring_cannot_sign_for_a_tenant_key(
    signing_key: SigningKey, believe: Believe
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        believe(sign(signing_key, newer(), kid=KID))
    assert refused.value.reason == "bad_signature"


@pytest.mark.parametrize("shape", [legacy, newer])
def test_key_of_the_ring_may_not_say_what_a_tenant_key_may(
    signing_key: SigningKey, believe: Believe, shape: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        believe(sign(signing_key, shape()))
    assert refused.value.reason.startswith("bad_")


@pytest.mark.parametrize("alg", ["none", "HS256", "RS384", "PS256"])
def test_no_other_algorithm_is_accepted(tenant_key: TenantKey, believe: Believe, alg: str) -> None:
    """For HS256 the public key is the secret (RFC 8725, section 2.1)."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    signed = f"{part({'alg': alg, 'typ': 'JWT', 'kid': KID})}.{part(newer())}"
    pem = tenant_key.public.rsa().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    for signature in (base64.urlsafe_b64encode(mac).rstrip(b"=").decode(), "AA"):
        with pytest.raises(Unauthenticated):
            believe(f"{signed}.{signature}")


@given(st.dictionaries(st.sampled_from([*newer(), "tier"]), st.none() | st.integers() | st.text()))
def test_no_claims_whatever_crash_the_judge(junk: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        tokens.judge_local(
            tokens.SignedClaims(junk), issuer=OWN_ISSUER, tid="tenant-1", pid=None, now=NOW
        )


# ---------------------------------------------------------------- kids


@pytest.mark.parametrize(
    "kid",
    [
        "ring_" + "0" * 32,
        "sk_" + "0" * 31,
        "sk_" + "0" * 33,
        "sk_" + "A" * 32,
        "sk_" + "0" * 32 + "\n",
        "SK_" + "0" * 32,
        "kid_7h4m2p",
        "",
    ],
)
def test_only_one_form_of_kid_is_a_tenant_keys(kid: str) -> None:
    assert tenant_keys.is_tenant_kid(KID)
    assert not tenant_keys.is_tenant_kid(kid)


# ---------------------------------------------------------------- public halves that are uploaded


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def test_public_half_is_taken_as_pem_of_either_kind_and_as_jwk(tenant_pair: SigningKey) -> None:
    public = tenant_pair.public(created_at=NOW)
    pkcs1 = public.rsa().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    jwk = public.jwk()
    plain = {name: jwk[name] for name in ("kty", "n", "e")}
    crlf = pem_of(tenant_pair.rsa()).replace("\n", "\r\n") + "\n"
    forms: list[Any] = [pem_of(tenant_pair.rsa()), crlf, pkcs1.decode(), jwk, plain]
    for form in [*forms, json.dumps(jwk), {**plain, "key_ops": ["verify"], "kid": "mine"}]:
        assert tenant_keys.uploaded(KID, form, now=NOW) == public


def refused(given: Any) -> BadRequest:
    with pytest.raises(BadRequest) as refusal:
        tenant_keys.uploaded(KID, given, now=NOW)
    assert refusal.value.param == "public_key"
    assert refusal.value.details == {"reason": "unusable_public_key"}
    return refusal.value


def number(value: int) -> str:
    octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("n", "e", "why"),
    [
        (2**2047 - 1, 65_537, "2047 bits"),
        (2**1024 - 1, 65_537, "1024 bits"),
        (2**4096 + 1, 65_537, "4097 bits"),
        (2**2048 - 1, 3, "65537"),
        (2**2048 - 1, 1, "65537"),
        (2**2048 - 2, 65_537, "even"),
    ],
)
def test_weak_key_is_refused_with_the_reason(n: int, e: int, why: str) -> None:
    assert why in refused({"kty": "RSA", "n": number(n), "e": number(e)}).message


def test_private_key_is_refused_in_every_form_and_not_repeated(tenant_pair: SigningKey) -> None:
    encrypted = tenant_pair.rsa().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    public = tenant_pair.public(created_at=NOW).jwk()
    secret = {**public, "d": "c2VjcmV0"}
    for form in (tenant_pair.private_key, encrypted.decode(), secret, json.dumps(secret)):
        said = refused(form)
        assert "private key" in said.message
        assert "c2VjcmV0" not in str(said.envelope("r"))
        assert tenant_pair.private_key[100:140] not in str(said.envelope("r"))


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        "{",
        "{" * 5000,
        "{}",
        "x" * 20_000,
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        {},
        {"keys": []},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "oct", "k": "AA"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "n": "!!", "e": "AQAB"},
        {"kty": "RSA", "n": "A", "e": "AQAB"},
        {"kty": "RSA", "n": "AA=", "e": "AQAB"},
        {"kty": "RSA", "n": number(2**2048 - 1), "e": "AQAB", "use": "enc"},
        {"kty": "RSA", "n": number(2**2048 - 1), "e": "AQAB", "alg": "RS512"},
        {"kty": "RSA", "n": number(2**2048 - 1), "e": "AQAB", "alg": ["RS256"]},
    ],
    ids=lambda given: str(given)[:40],
)
def test_what_is_no_rsa_public_key_is_refused(given: Any) -> None:
    refused(given)


def test_key_of_another_kind_is_refused() -> None:
    assert "RS256" in refused(pem_of(ec.generate_private_key(ec.SECP256R1()))).message
