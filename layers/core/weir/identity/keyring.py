"""The key ring: which RSA keys sign the tokens made here, and which are still believed.

Two private keys exist at a time, *current* (signs) and *next* (already published, so that every
verifier knows it before its first signature). They live in one secret. Every public half lives in
the table; a retired one stays listed until the last token it signed must have ended.

Nothing here makes keys, reads a clock or stores anything: `weir/aws/rotation.py` does.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NewType

from cryptography.hazmat.primitives.asymmetric import rsa

from weir.errors import NotReady

Kid = NewType("Kid", str)

# A token lives for at most a day, so nothing signed by a retired key is worth believing after that.
RETIRED_FOR_S = 86_400


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A verification key as RFC 7517 spells it. `signs_since` is set when it becomes *current*,
    `not_after` when it is retired, `distrusted_at` when an operator has struck it out. All are Unix
    seconds.
    """

    kid: Kid
    n: str
    e: str
    created_at: int
    not_after: int | None = None
    signs_since: int | None = None
    distrusted_at: int | None = None

    @property
    def role(self) -> str:
        """Its part in the ring: next, current, retired or distrusted."""
        if self.distrusted_at is not None:
            return "distrusted"
        if self.not_after is not None:
            return "retired"
        return "next" if self.signs_since is None else "current"

    def believed_at(self, now: int) -> bool:
        return self.not_after is None or now < self.not_after

    def jwk(self) -> dict[str, str]:
        return {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.kid,
            "n": self.n,
            "e": self.e,
        }

    def rsa(self) -> rsa.RSAPublicKey:
        return rsa.RSAPublicNumbers(_integer(self.e), _integer(self.n)).public_key()


@dataclass(frozen=True, slots=True)
class SigningKey:
    kid: Kid
    private_key: str  # PKCS#8 PEM

    def __repr__(self) -> str:
        return (
            f"SigningKey(kid={self.kid!r})"  # the private half never reaches a log or a traceback
        )

    def rsa(self) -> rsa.RSAPrivateKey:
        # Brings X.509 and SSH with it: not for those who only verify.
        from cryptography.hazmat.primitives import serialization

        # Whether its numbers belong together was settled when we made it; checking it again would
        # take 40 ms of every mint.
        key = serialization.load_pem_private_key(
            self.private_key.encode(), password=None, unsafe_skip_rsa_key_validation=True
        )
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError(f"signing key {self.kid} is not RSA")
        return key

    def public(self, created_at: int) -> PublicKey:
        return public_key(self.kid, self.rsa().public_key().public_numbers(), created_at)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The content of the signing-key secret."""

    current: SigningKey
    next: SigningKey

    def to_secret(self) -> str:
        return json.dumps(
            {
                "current": {"kid": self.current.kid, "private_key": self.current.private_key},
                "next": {"kid": self.next.kid, "private_key": self.next.private_key},
            }
        )

    @classmethod
    def from_secret(cls, text: str) -> "KeyRing":
        """Raises NotReady for the empty secret of a deployment before its first rotation."""
        try:
            document: dict[str, Any] = json.loads(text)
            return cls(
                *(SigningKey(Kid(document[n]["kid"]), document[n]["private_key"]) for n in _NAMES)
            )
        except (ValueError, KeyError, TypeError):
            raise NotReady(
                "The signing keys are still being made; the first rotation runs right after the "
                "deployment. Try again in a few seconds.",
                details={"reason": "no_signing_keys"},
                retry_after_s=5,
            ) from None  # the cause could quote the secret


_NAMES = ("current", "next")


def public_key(kid: Kid, numbers: rsa.RSAPublicNumbers, created_at: int) -> PublicKey:
    return PublicKey(kid, _base64url(numbers.n), _base64url(numbers.e), created_at)


def jwks(keys: Iterable[PublicKey], now: int) -> dict[str, list[dict[str, str]]]:
    """RFC 7517, section 5: every key that is still believed."""
    listed = sorted((key for key in keys if key.believed_at(now)), key=lambda key: key.kid)
    return {"keys": [key.jwk() for key in listed]}


def _base64url(number: int) -> str:
    octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _integer(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")
