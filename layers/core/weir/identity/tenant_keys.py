"""Tenant signing keys: RSA keys with which a customer's own server signs user tokens, without a
call to mint (contract section 6).

Only the public half is kept here. Such a key and a key of the ring can never stand for each other:
they lie in partitions of their own, and the form of a `kid` says in which one to look.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from weir.errors import BadRequest
from weir.identity.keyring import Kid, PublicKey, SigningKey, public_key

MOST_TENANT_KEYS = 50  # revoked ones included: all of them are read at once
MIN_BITS, MAX_BITS = 2048, 4096  # RFC 7518, section 3.3; above, a token outgrows its header
EXPONENT = 65_537
REVOKED_KEPT_S = 30 * 86_400  # so that a list shows it, and it is not uploaded once more

_PREFIX = "sk_"  # older SDKs sign only if their key's id begins so
_RANDOM_DIGITS = 32
_DIGITS = frozenset("0123456789abcdef")

# RFC 7518, section 6.3.2, and the `k` of a symmetric key (6.4.1).
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_MOST_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class TenantKey:
    """`pid` None: it may sign for every project. `public.not_after` is when it was revoked."""

    public: PublicKey
    pid: str | None
    name: str

    @property
    def kid(self) -> Kid:
        return self.public.kid

    @property
    def revoked_at(self) -> int | None:
        return self.public.not_after

    def believed_at(self, now: int) -> bool:
        return self.public.believed_at(now)

    def document(self) -> dict[str, Any]:
        """Return it as it may be shown, and as the audit trail keeps it."""
        return {
            "kid": self.kid,
            "project": self.pid,
            "name": self.name,
            "bits": self.public.rsa().key_size,
            "created_at": self.public.created_at,
            "revoked_at": self.revoked_at,
        }


def kid_of(random_hex: str) -> Kid:
    """Return the `kid` made of 32 random lower-case hexadecimal digits."""
    kid = _PREFIX + random_hex
    if not is_tenant_kid(kid):
        raise ValueError("a tenant key's kid is made of 32 lower-case hexadecimal digits")
    return Kid(kid)


def is_tenant_kid(kid: str) -> bool:
    """Return whether only a tenant key can have this `kid`, and never a key of the ring."""
    # No pattern: compiling one would be part of every cold start.
    digits = kid.removeprefix(_PREFIX)
    return kid == _PREFIX + digits and len(digits) == _RANDOM_DIGITS and _DIGITS.issuperset(digits)


def private_half(key: SigningKey) -> str:
    """Return the value of BEHEST_KEY: bare base64 of the PKCS#8 PEM, on one line. The published
    SDKs load no other documented form (contract section 6).
    """
    return base64.b64encode(key.private_key.encode()).decode()


def uploaded(kid: Kid, given: str | Mapping[str, Any], *, now: int) -> PublicKey:
    """Read a public half that somebody else has made: PEM (SubjectPublicKeyInfo or PKCS#1), or a
    JWK (RFC 7517) as an object or its text. Raises BadRequest, which never repeats what was given:
    it may be a private key.
    """
    number = _of_text(given) if isinstance(given, str) else _of_jwk(given)
    bits, exponent = number.n.bit_length(), number.e
    if not MIN_BITS <= bits <= MAX_BITS:
        raise _refused(f"the key has {bits} bits; {MIN_BITS} to {MAX_BITS} are taken")
    if exponent != EXPONENT:
        raise _refused(f"the key's public exponent must be {EXPONENT}")
    if number.n % 2 == 0:
        raise _refused("the modulus is even: this is no RSA key")
    return public_key(kid, number, created_at=now)


def _of_text(text: str) -> rsa.RSAPublicNumbers:
    text = text.strip()
    if len(text) > _MOST_CHARACTERS:
        raise _refused("that is too long for a public key")
    if text.startswith("{"):
        try:
            jwk = json.loads(text)
        except (ValueError, RecursionError):
            raise _refused("the JWK is not JSON") from None
        return _of_jwk(jwk)
    if "PRIVATE KEY" in text:
        raise _private()
    if "BEGIN CERTIFICATE" in text:
        raise _refused(
            "that is a certificate. Its public key: openssl x509 -in FILE -pubkey -noout"
        )
    if "PUBLIC KEY" not in text:
        raise _refused("neither a PEM public key (-----BEGIN PUBLIC KEY-----) nor a JWK")
    # Bring X.509 and SSH with them: not for those who only verify.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _refused("the PEM cannot be read") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise _refused("not an RSA key: tokens are signed with RS256")
    return key.public_numbers()


def _of_jwk(jwk: Mapping[str, Any]) -> rsa.RSAPublicNumbers:
    if _PRIVATE_MEMBERS & jwk.keys():
        raise _private()
    if "keys" in jwk:
        raise _refused("that is a set of keys; give one of them")
    if jwk.get("kty") != "RSA":
        raise _refused("the JWK's kty must be RSA")
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", "RS256") != "RS256":
        raise _refused("the JWK is for another use: use must be sig and alg RS256, or absent")
    return rsa.RSAPublicNumbers(e=_number(jwk, "e"), n=_number(jwk, "n"))


def _number(jwk: Mapping[str, Any], name: str) -> int:
    value = jwk.get(name)
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,1400}", value):
        raise _refused(f"the JWK's {name} must be unpadded base64url")
    try:
        octets = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except ValueError:
        raise _refused(f"the JWK's {name} must be unpadded base64url") from None
    return int.from_bytes(octets, "big")


def _private() -> BadRequest:
    return _refused(
        "that is a private key. It has left its server: make a new pair, and upload its public "
        "half (openssl pkey -in FILE -pubout)"
    )


def _refused(why: str) -> BadRequest:
    return BadRequest(
        f"The public key is not taken: {why}.",
        param="public_key",
        details={"reason": "unusable_public_key"},
    )
