"""Key sets of other issuers: which keys are used, and for how long they are kept."""

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.issuers import encoded, jwk, jwks
from weir.identity.key_sets import (
    DEFAULT_FRESH_S,
    MAX_FRESH_S,
    MIN_FRESH_S,
    KeySetUnavailable,
    fresh_for_s,
    parse,
)

GOOD = jwk("RS256")


def test_each_key_verifies_with_the_algorithm_of_its_type_alone() -> None:
    keys = parse(jwks(jwk("RS256"), jwk("ES256"), jwk("EdDSA")))
    for kind in ("RS256", "ES256", "EdDSA"):
        key = keys.find(f"{kind}-one", kind)
        assert key is not None
        assert key.algorithm == kind
        for other in {"RS256", "ES256", "EdDSA", "HS256", "none"} - {kind}:
            assert keys.find(f"{kind}-one", other) is None


def test_what_is_kept_reads_as_the_same_keys_and_has_no_more_than_they_need() -> None:
    published = jwks(jwk("RS256", x5c=["certificate"], d="private"), jwk("ES256"), jwk("EdDSA"))
    keys = parse(published)
    assert parse(keys.document()) == keys
    assert "certificate" not in str(keys.document())
    assert "private" not in str(keys.document())


@pytest.mark.parametrize(
    "unusable",
    [
        jwk("RSA-1024"),
        jwk("ES384"),
        jwk("ES256K"),
        jwk("ES384", crv="P-256"),
        {**jwk("ES256"), "y": jwk("ES256", "two")["x"]},  # not on the curve
        jwk("RS256", use="enc"),
        jwk("RS256", alg="RS512"),
        jwk("RS256", alg="HS256"),
        jwk("RS256", e=encoded(b"\x01")),
        jwk("RS256", e=encoded(b"\x02")),
        jwk("RS256", e="AQAB="),
        jwk("RS256", n=None),
        jwk("RS256", n=7),
        jwk("RS256", kid=7),
        jwk("RS256", kid=""),
        jwk("EdDSA", crv="Ed448"),
        jwk("EdDSA", x=encoded(b"short")),
        {**jwk("RS256"), "key_ops": ["encrypt"]},
        {**jwk("RS256"), "key_ops": "verify"},
        {"kty": "oct", "kid": "RS256-one", "k": encoded(b"secret" * 6), "alg": "HS256"},
        {"kty": "RSA"},
        {},
        "RSA",
        None,
    ],
    ids=lambda key: str(key)[:40],
)
def test_key_that_is_weak_malformed_or_for_something_else_is_as_if_it_was_not_there(
    unusable: Any,
) -> None:
    with pytest.raises(KeySetUnavailable, match="no key"):
        parse({"keys": [unusable]})
    assert len(parse({"keys": [unusable, jwk("ES256")]}).keys) == 1


@pytest.mark.parametrize("document", [None, [], "keys", {}, {"keys": {}}, {"keys": "x"}])
def test_what_is_no_key_set_is_none(document: Any) -> None:
    with pytest.raises(KeySetUnavailable, match="not a JSON Web Key Set"):
        parse(document)


@pytest.mark.parametrize(
    ("bits", "exponent", "usable"),
    [
        *((2047, 65537, False), (2048, 65537, True), (8192, 65537, True), (8193, 65537, False)),
        *((2048, 1, False), (2048, 2, False), (2048, 3, True), (2048, 65536, False)),
        *((2048, 2**32 - 1, True), (2048, 2**32 + 1, False)),
    ],
)
def test_rsa_key_has_a_modulus_and_an_exponent_within_bounds(
    bits: int, exponent: int, usable: bool
) -> None:
    n, e = ((1 << (bits - 1)) + 1, exponent)
    octets = [number.to_bytes((number.bit_length() + 7) // 8, "big") for number in (n, e)]
    told = jwk("RS256", n=encoded(octets[0]), e=encoded(octets[1]))
    assert len(parse(jwks(told, jwk("ES256"))).keys) == 1 + usable


@pytest.mark.parametrize("name", ["x", "y"])
def test_coordinate_of_p256_has_32_octets(name: str) -> None:
    own = jwk("ES256")
    octets = base64.urlsafe_b64decode(own[name] + "=")
    with pytest.raises(KeySetUnavailable):
        parse(jwks({**own, name: encoded(b"\x00" + octets)}))


def test_longest_id_of_a_key() -> None:
    assert parse(jwks(jwk("RS256", kid="k" * 255))).keys
    with pytest.raises(KeySetUnavailable):
        parse(jwks(jwk("RS256", kid="k" * 256)))


def test_keys_are_told_by_their_ids() -> None:
    keys = parse(jwks(jwk("RS256", kid=None), jwk("ES256")))
    assert keys.told() == "without an id (RS256), ES256-one (ES256)"


def test_fifty_keys_are_read() -> None:
    assert len(parse({"keys": [GOOD] * 50}).keys) == 50


def test_set_with_too_many_keys_is_not_read() -> None:
    with pytest.raises(KeySetUnavailable, match="at most 50"):
        parse({"keys": [GOOD] * 51})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "crv", "x", "y", "key_ops"]), JSON), JSON)
@settings(deadline=None)
def test_whatever_an_issuer_publishes_is_read_or_refused(members: Any, beside: Any) -> None:
    key = {**GOOD, **members}
    assert 1 <= len(parse({"keys": [key, beside, GOOD]}).keys) <= 2


def test_token_without_a_kid_is_verified_only_if_there_is_no_choice() -> None:
    assert parse(jwks(jwk("RS256", kid=None), jwk("ES256"))).find(None, "RS256") is not None
    two = parse(jwks(jwk("RS256"), jwk("RS256", "two")))
    assert two.find(None, "RS256") is None
    assert two.find("RS256-two", "RS256") is not None
    twins = parse(jwks(jwk("RS256"), jwk("RS256", "two", kid="RS256-one")))
    assert twins.find("RS256-one", "RS256") is None


@pytest.mark.parametrize(
    ("cache_control", "age", "expected"),
    [
        ("", "", DEFAULT_FRESH_S),
        ("public", "", DEFAULT_FRESH_S),
        ("public, max-age=3600, must-revalidate", "", 3600),
        ("max-age=3600", "600", 3000),
        ("Max-Age=3600", "", 3600),
        ("max-age=3600", "-5", 3600),
        ("max-age=10", "", MIN_FRESH_S),
        ("max-age=3600", "99999", 60),
        ("max-age=3600", "9999999999", 60),
        ("max-age=3600", "99999999999", 3600),
        ("max-age=9999999", "", 86_400),
        ("s-maxage=5", "", 600),
        ("max-age=0", "", MIN_FRESH_S),
        ("no-store", "", MIN_FRESH_S),
        ("no-cache, max-age=3600", "", MIN_FRESH_S),
        ("max-age=9999999999", "", MAX_FRESH_S),
        ("max-age=x", "", DEFAULT_FRESH_S),
    ],
)
def test_keys_are_kept_as_long_as_the_issuer_says_within_bounds(
    cache_control: str, age: str, expected: int
) -> None:
    assert fresh_for_s(cache_control, age) == expected
