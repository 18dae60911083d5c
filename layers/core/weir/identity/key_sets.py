"""Key sets of other issuers (RFC 7517): the public keys that verify their tokens.

A key verifies with exactly one algorithm, which its type decides, never the token (RFC 8725,
section 3.1): RSA with RS256, P-256 with ES256, Ed25519 with EdDSA. Keys of other types and for
other purposes are skipped; a set without a usable key is an error, never an empty set.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ALGORITHMS = ("RS256", "ES256", "EdDSA")

MAX_KEYS = 50
MAX_KID = 255  # characters

# What an issuer's Cache-Control may ask for, and what holds if it asks for nothing.
MIN_FRESH_S, MAX_FRESH_S, DEFAULT_FRESH_S = 60, 86_400, 600

_RSA_BITS = range(2048, 8193)  # below: weak; above: a signature would take long to verify
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_MAX_AGE = re.compile(r"max-age\s*=\s*\"?([0-9]{1,10})")


PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class KeySetUnavailable(Exception):
    """An issuer's keys cannot be had: it is down, too slow, or sends something else. The message is
    a sentence for an operator.
    """


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, and the one algorithm that it verifies with. `jwk` has only what is needed."""

    kid: str | None
    algorithm: str
    jwk: Mapping[str, str]

    def public_key(self) -> PublicKey:
        """Return it for `cryptography`. Raise ValueError for one that is no key."""
        return _LOADED[self.algorithm](self.jwk)


@dataclass(frozen=True, slots=True)
class KeySet:
    """`fresh_for_s` is for how long it need not be fetched again."""

    keys: tuple[VerificationKey, ...]
    fresh_for_s: int = DEFAULT_FRESH_S

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key of that id which verifies with that algorithm. Without an id: the only
        such key (OpenID Connect Core, section 10.1). None if there is none, or several.
        """
        found = [
            key
            for key in self.keys
            if key.algorithm == algorithm and (kid is None or key.kid == kid)
        ]
        return found[0] if len(found) == 1 else None

    def told(self) -> str:
        """Return the keys' ids, for a person."""
        return ", ".join(f"{key.kid or 'without an id'} ({key.algorithm})" for key in self.keys)

    def document(self) -> dict[str, Any]:
        """Return it as a key set that `parse` reads."""
        return {"keys": [dict(key.jwk) for key in self.keys]}


def parse(document: object, fresh_for_s: int = DEFAULT_FRESH_S) -> KeySet:
    """Read a JSON Web Key Set. Raise KeySetUnavailable if it is none, or has no usable key."""
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise KeySetUnavailable("The answer is not a JSON Web Key Set.")
    if len(listed) > MAX_KEYS:
        raise KeySetUnavailable(f"The key set has {len(listed)} keys; at most {MAX_KEYS} are read.")
    keys = tuple(key for key in map(_usable, listed) if key is not None)
    if not keys:
        raise KeySetUnavailable(
            f"The key set has no key for {', '.join(ALGORITHMS)} (RSA of 2,048 bits or more, "
            "P-256, Ed25519)."
        )
    return KeySet(keys, fresh_for_s)


def fresh_for_s(cache_control: str, age: str = "") -> int:
    """Return for how long an answer may be kept, from its headers Cache-Control and Age (RFC 9111),
    within our own bounds.
    """
    told = cache_control.lower()
    if "no-store" in told or "no-cache" in told:
        return MIN_FRESH_S
    found = _MAX_AGE.search(told)
    if found is None:
        return DEFAULT_FRESH_S
    passed = int(age) if age.isascii() and age.isdigit() and len(age) <= 10 else 0
    return max(MIN_FRESH_S, min(MAX_FRESH_S, int(found[1]) - passed))


def _usable(jwk: object) -> VerificationKey | None:
    """Return the key, or None if it is for something else, or weak, or malformed."""
    if not isinstance(jwk, Mapping):
        return None
    kid = jwk.get("kid")
    algorithm = _algorithm(jwk.get("kty"), jwk.get("crv"))
    fits = (
        algorithm is not None
        and (kid is None or (isinstance(kid, str) and 1 <= len(kid) <= MAX_KID))
        and jwk.get("use", "sig") == "sig"
        and jwk.get("alg", algorithm) == algorithm
        and _may_verify(jwk.get("key_ops"))
    )
    if not fits or algorithm is None:
        return None
    members = {name: jwk[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in jwk}
    if not all(isinstance(value, str) for value in members.values()):
        return None
    told = members if kid is None else {**members, "kid": kid}
    key = VerificationKey(kid, algorithm, told)
    try:
        key.public_key()
    except (ValueError, KeyError):
        return None
    return key


def _may_verify(key_ops: object) -> bool:
    return key_ops is None or (isinstance(key_ops, list) and "verify" in key_ops)


def _algorithm(kty: object, crv: object) -> str | None:
    """Return the algorithm of a type and curve (RFC 7518, section 6; RFC 8037)."""
    types = (("RSA", None, "RS256"), ("EC", "P-256", "ES256"), ("OKP", "Ed25519", "EdDSA"))
    return next((name for each, curve, name in types if (each, curve) == (kty, crv)), None)


def _rsa(jwk: Mapping[str, str]) -> rsa.RSAPublicKey:
    n, e = (int.from_bytes(_octets(jwk[name]), "big") for name in ("n", "e"))
    if n.bit_length() not in _RSA_BITS or not (3 <= e < 2**32 and e % 2):
        raise ValueError("the RSA key is weak, or too long")
    return rsa.RSAPublicNumbers(e, n).public_key()


def _p256(jwk: Mapping[str, str]) -> ec.EllipticCurvePublicKey:
    x, y = (_octets(jwk[name]) for name in ("x", "y"))
    if len(x) != 32 or len(y) != 32:
        raise ValueError("a coordinate of P-256 has 32 octets")
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1()
    )
    return numbers.public_key()  # checks that the point is on the curve


def _ed25519(jwk: Mapping[str, str]) -> ed25519.Ed25519PublicKey:
    return ed25519.Ed25519PublicKey.from_public_bytes(_octets(jwk["x"]))


_LOADED: dict[str, Callable[[Mapping[str, str]], PublicKey]] = {
    "RS256": _rsa,
    "ES256": _p256,
    "EdDSA": _ed25519,
}


def _octets(text: str) -> bytes:
    if not _BASE64URL.fullmatch(text):  # Python skips what is not of the alphabet
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
