"""Client tokens: what may be asked for, what is signed, and which are believed."""

import base64
import json
from typing import Any

import jwt
import pytest

from tests.unit.conftest import NOW
from weir.customers.customer import Customer, created
from weir.errors import BadRequest, Forbidden, TokenExpired, Unauthenticated
from weir.identity import callers, client_tokens
from weir.identity.bindings import ANY, CHAT, Bindings, IpBinding
from weir.identity.client_tokens import ClientTokenRequest, customer_of, token_id
from weir.identity.keyring import PublicKey, SigningKey
from weir.identity.tenant_keys import TenantKey
from weir.identity.tokens import Claims
from weir.projects.limits import CUSTOMER, NANO, TokenLimits
from weir.settings import Deployment
from weir.web.request import Request

CUST = "cust_01J00000000000000000000000"
ID = token_id(CUST, bytes(range(10)))
PAGE = "https://app.example.com"
SEED: dict[str, Any] = {
    "ttl_seconds": 900,
    "scope": ["chat"],
    "origin_allowlist": [PAGE],
    "bind_ip": True,
}
BOUND = Bindings(ID, frozenset({"chat"}), frozenset({PAGE}), IpBinding.FIRST)


def customer(**told: Any) -> Customer:
    return created({"external_id": "user_7", **told}, CUST, NOW, CUSTOMER)


def parsed(body: dict[str, Any], who: Customer | None = None, **how: Any) -> ClientTokenRequest:
    how = {"default_ttl_s": 900, "here": False, **how}
    return ClientTokenRequest.parse(body, who or customer(), **how)


# ---------------------------------------------------------------- what may be asked for


def test_seeds_request_is_understood() -> None:
    wish = parsed(SEED)
    assert (wish.ttl_s, wish.scopes, wish.origins) == (900, ("chat",), (PAGE,))
    assert (wish.ip, wish.address) == (IpBinding.FIRST, None)
    assert wish.limits == TokenLimits()


def test_vendors_other_page_is_understood_too() -> None:
    """Docs page S3: customer, origin, allowed_endpoints, a minute."""
    body = {"origin": PAGE + "/", "allowed_endpoints": ["/v1/chat/completions", "embeddings"]}
    wish = parsed(body, default_ttl_s=60)
    assert (wish.ttl_s, wish.scopes, wish.origins) == (60, ("chat", "embeddings"), (PAGE,))


@pytest.mark.parametrize(
    ("told", "ip", "address"),
    [
        ({}, IpBinding.FIRST, None),
        ({"bind_ip": False}, IpBinding.OFF, None),
        ({"bind_ip": False, "ip": "93.184.216.34"}, IpBinding.OFF, None),
        ({"ip": "93.184.216.34"}, IpBinding.PIN_4, "93.184.216.34"),
        ({"client_ip": "93.184.216.34"}, IpBinding.PIN_4, "93.184.216.34"),
        ({"ip": "::ffff:93.184.216.34"}, IpBinding.PIN_4, "93.184.216.34"),
        ({"ip": "2606:2800:21f::9"}, IpBinding.PIN_6, "2606:2800:21f::/64"),
    ],
)
def test_token_is_bound_to_the_address_that_is_named(
    told: dict[str, Any], ip: IpBinding, address: str | None
) -> None:
    wish = parsed({**SEED, "bind_ip": None, **told})
    assert (wish.ip, wish.address) == (ip, address)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "::1", "fe80::1", "169.254.1.1", "", "x", 7, "1.2.3.4:80"]
)
def test_proxys_address_is_refused(address: object) -> None:
    with pytest.raises(BadRequest) as refusal:
        parsed({**SEED, "ip": address})
    assert refusal.value.param == "ip"


def test_backend_on_the_gateways_own_machine_names_its_browsers() -> None:
    assert parsed({**SEED, "ip": "127.0.0.1"}, here=True).address == "127.0.0.1"
    with pytest.raises(BadRequest):
        parsed({**SEED, "ip": "10.0.0.1"}, here=True)


@pytest.mark.parametrize(
    ("told", "code", "param"),
    [
        *(({"ttl_seconds": t}, "validation_error", "ttl_seconds") for t in (59, 3601, "9", True)),
        *(({"scope": s}, "validation_error", "scope") for s in ([], "chat", ["chat"] * 9)),
        *(({"scope": [s]}, "unsupported_scope", "scope") for s in ("threads", "admin", 7, None)),
        *(
            ({"origin_allowlist": o}, "invalid_origin", "origin_allowlist")
            for o in (
                None,
                list[Any](),
                ["*"],
                ["null"],
                ["http://a.example"],
                [7],
                [PAGE] * 11,
                {"a": 1},
            )
        ),
        ({"origin": "https://b.example"}, "validation_error", "origin"),
        ({"bind_ip": "yes"}, "validation_error", "bind_ip"),
        *(({"max_requests": n}, "validation_error", "max_requests") for n in (0, -1, 1.5)),
        ({"max_spend_usd": -1}, "validation_error", "max_spend_usd"),
        ({"max_output_tokens": 1025}, "validation_error", "max_output_tokens"),
        ({"models": []}, "validation_error", "models"),
        ({"models": ["fc:a/b"] * 21}, "validation_error", "models"),
        ({"metadata": {"a": "x" * 1024}}, "validation_error", "metadata"),
        ({"prompt_id": 7}, "validation_error", "prompt_id"),
    ],
)
def test_field_that_is_wrong_is_named(told: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parsed({**SEED, **told})
    assert refusal.value.code == code
    assert refusal.value.param == param


def test_token_only_narrows_what_its_customer_may() -> None:
    who = customer(allowed_models=["fc:openai/*", "fc:mock/echo"], max_output_tokens=100)
    assert parsed({**SEED, "models": ["fc:openai/gpt-4o"]}, who).models == ("fc:openai/gpt-4o",)
    assert parsed({**SEED, "models": ["fc:openai/gpt-4*"]}, who).models
    for outside in ("fc:other/x", "fc:*", "fc:mock/*", "*"):
        with pytest.raises(BadRequest):
            parsed({**SEED, "models": [outside]}, who)
    assert parsed({**SEED, "max_output_tokens": 100}, who).max_output_tokens == 100
    with pytest.raises(BadRequest):
        parsed({**SEED, "max_output_tokens": 101}, who)


# ---------------------------------------------------------------- what is signed and believed


def minted(key: SigningKey, bindings: Bindings = BOUND, now: int = NOW, ttl_s: int = 900) -> str:
    return client_tokens.mint(
        key,
        issuer="urn:weir:tenant-1",
        tid="tenant-1",
        pid="default",
        customer_id=CUST,
        key_id="key_0123456789abcdef",
        bindings=bindings,
        ttl_s=ttl_s,
        now=now,
    )


def request(token: str, scheme: str = "Client", origin: str | None = PAGE) -> Request:
    headers = {"authorization": f"{scheme} {token}"}
    return Request("r", "POST", "/", headers | ({} if origin is None else {"origin": origin}))


@pytest.fixture
def believe(public_key: PublicKey, deployment: Deployment) -> Any:
    def believe(token: str, *, now: int = NOW, scope: str | None = CHAT, **how: Any) -> Claims:
        return callers.believe(
            request(token, **how), deployment, lambda kid: public_key, now=now, scope=scope
        )

    return believe


def test_token_says_nothing_of_who_the_customer_is(signing_key: SigningKey) -> None:
    claims = jwt.decode(minted(signing_key), options={"verify_signature": False})
    assert claims == {
        "iss": "urn:weir:tenant-1",
        "aud": "ringside:client",
        "tid": "tenant-1",
        "acct": "default",
        "sub": CUST,
        "key": "key_0123456789abcde",
        "scope": ["chat"],
        "ori": [PAGE],
        "ipb": "first",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 900,
        "jti": ID,
    }


@pytest.mark.parametrize("scheme", ["Client", "client", "Bearer", "BEARER"])
def test_token_is_believed_under_both_schemes(
    believe: Any, signing_key: SigningKey, scheme: str
) -> None:
    narrow = Bindings(
        ID,
        frozenset({"chat", "usage"}),
        frozenset({PAGE}),
        IpBinding.PIN_6,
        ("fc:mock/echo",),
        100,
        TokenLimits(3, NANO),
        "support",
    )
    claims = believe(minted(signing_key, narrow), scheme=scheme)
    assert claims.bindings == narrow
    assert (claims.subject, claims.pid, claims.tier) == (f"c#{CUST}", "default", None)
    assert (claims.issued_at, claims.expires_at) == (NOW, NOW + 900)


def test_token_is_for_its_pages_and_its_scopes(believe: Any, signing_key: SigningKey) -> None:
    token = minted(signing_key)
    for origin in (None, "null", PAGE + "/", PAGE.upper(), "https://evil.example"):
        with pytest.raises(Forbidden) as refusal:
            believe(token, origin=origin)
        assert refusal.value.code == "client_token_origin_mismatch"
    for scope in ("usage", None):
        with pytest.raises(Forbidden) as refusal:
            believe(token, scope=scope)
        assert refusal.value.code == "client_token_scope_denied"
    assert believe(token, scope=ANY)


def test_token_ends_on_the_second_it_names(believe: Any, signing_key: SigningKey) -> None:
    token = minted(signing_key, ttl_s=60)
    assert believe(token, now=NOW + 59)
    with pytest.raises(TokenExpired):
        believe(token, now=NOW + 60)
    assert believe(token, now=NOW - 60)
    with pytest.raises(Unauthenticated):
        believe(token, now=NOW - 61)


DEMANDED = client_tokens._CHECKS.keys() - client_tokens._OPTIONAL


def forged(signing: SigningKey, /, **claims: Any) -> str:
    """Signed by us, but saying what we would not."""
    told = jwt.decode(minted(signing), options={"verify_signature": False}) | claims
    told = {name: value for name, value in told.items() if value != "absent"}
    return jwt.encode(
        told, signing.rsa(), "RS256", headers={"kid": signing.kid, "typ": "fc-client+jwt"}
    )


@pytest.mark.parametrize(
    "claims",
    [
        *({name: "absent"} for name in sorted(DEMANDED)),
        {"iss": "urn:weir:another"},
        {"aud": "behest"},
        {"aud": ["ringside:client"]},
        {"tid": "another"},
        {"sub": "user_7"},
        {"sub": "cust_01J00000000000000000000001"},
        {"jti": "ct_x"},
        {"scope": []},
        {"scope": "chat"},
        {"scope": ["chat", "admin"]},
        {"ori": []},
        {"ipb": "none"},
        {"ipb": 4},
        {"exp": NOW + 3601},
        {"exp": float(NOW + 900)},
        {"iat": True},
        {"mdl": []},
        {"mdl": "fc:a/b"},
        {"mxr": -1},
        {"mxs": 1.5},
        {"pmt": ""},
        {"role": "admin"},
        {"uid": "u"},
    ],
)
def test_claim_that_is_wrong_makes_the_token_wrong(
    believe: Any, signing_key: SigningKey, claims: dict[str, Any]
) -> None:
    assert believe(forged(signing_key))
    with pytest.raises(Unauthenticated):
        believe(forged(signing_key, **claims))


def with_header(token: str, **header: Any) -> str:
    head, *rest = token.split(".")
    told = json.loads(base64.urlsafe_b64decode(head + "==")) | header
    raw = base64.urlsafe_b64encode(json.dumps(told, separators=(",", ":")).encode())
    return ".".join([raw.rstrip(b"=").decode(), *rest])


def test_forged_tokens_are_refused(
    believe: Any, signing_key: SigningKey, other_key: SigningKey
) -> None:
    token = minted(signing_key)
    for wrong in (
        with_header(token, alg="none"),
        with_header(token, alg="HS256"),
        with_header(token, typ="JWT"),
        with_header(token, crit=["exp"]),
        minted(other_key),
        token[:-4] + "AAAA",
        token + ".x",
        "a.b.c",
    ):
        with pytest.raises(Unauthenticated):
            believe(wrong)


def test_user_token_is_no_client_token_and_the_other_way_round(
    believe: Any, signing_key: SigningKey
) -> None:
    from tests.unit.conftest import minted as user_token

    theirs = user_token(signing_key, now=NOW)
    assert believe(theirs, scheme="Bearer").bindings is None
    with pytest.raises(Unauthenticated):
        believe(theirs)
    claims = jwt.decode(minted(signing_key), options={"verify_signature": False})
    headers = {"kid": signing_key.kid, "typ": "JWT"}
    with pytest.raises(Unauthenticated):
        believe(jwt.encode(claims, signing_key.rsa(), "RS256", headers=headers), scheme="Bearer")
    theirs_claims = jwt.decode(theirs, options={"verify_signature": False})
    headers = {"kid": signing_key.kid, "typ": "fc-client+jwt"}
    with pytest.raises(Unauthenticated):
        believe(jwt.encode(theirs_claims, signing_key.rsa(), "RS256", headers=headers))


def test_no_server_signs_client_tokens_itself(
    signing_key: SigningKey, public_key: PublicKey, deployment: Deployment
) -> None:
    tenants = TenantKey(public_key, None, "server")
    with pytest.raises(Unauthenticated):
        callers.believe(
            request(minted(signing_key)), deployment, lambda kid: tenants, now=NOW, scope=CHAT
        )


def test_token_that_outgrows_its_header_is_refused_at_mint(signing_key: SigningKey) -> None:
    many = frozenset(f"https://{n}.{'x' * 60}.example.com" for n in range(20))
    with pytest.raises(BadRequest) as refusal:
        minted(signing_key, Bindings(ID, BOUND.scopes, many, IpBinding.OFF))
    assert refusal.value.param == "origin_allowlist"


def test_id_of_a_token_names_its_customer() -> None:
    assert customer_of(ID) == CUST
    assert ID.startswith("ct_01J00000000000000000000000")
    for nobodys in ("ct_", "ct_x", ID + "0", ID[:-1], "cust_" + ID[3:], ID.lower()):
        assert customer_of(nobodys) is None
