"""Rotation of the signing keys: Secrets Manager's four steps, under Amazon's names.

*next* was published one rotation ago, so every verifier knows it: it becomes *current*, and a
new *next* is made and published. The very first rotation makes both. Each step may be run again
after a crash at any point, and then changes nothing that is done. Source: Secrets Manager user
guide, "Lambda rotation functions".
"""

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from weir.aws.table import Table
from weir.identity import tokens
from weir.identity.keyring import RETIRED_FOR_S, KeyRing, Kid, SigningKey

RSA_BITS = 2048


class RotationError(Exception):
    """Fails the step; Secrets Manager tries again later, and the old keys go on working."""


class Rotation:
    def __init__(
        self, secrets: Any, table: Table, *, next_key_min_age_s: int, secrets_cached_s: int
    ) -> None:
        """`secrets_cached_s` is for how long a minting process keeps its copy of the ring."""
        self._secrets = secrets
        self._table = table
        self._next_key_min_age_s = next_key_min_age_s
        self._secrets_cached_s = secrets_cached_s

    def create_secret(
        self, secret_id: str, version: str, *, now: int, new_id: Callable[[], str]
    ) -> None:
        """Make the pending ring, once for a `version` (the rotation's ClientRequestToken)."""
        if self._text(secret_id, VersionId=version, VersionStage="AWSPENDING") is not None:
            return
        text = self._text(secret_id, VersionStage="AWSCURRENT")
        fresh = make_signing_key(Kid(f"ring_{new_id()}"))
        first = text is None or text.strip() in ("", "{}")
        due = None if text is None or first else self._due(KeyRing.from_secret(text).next, now)
        if due is None:
            due = make_signing_key(Kid(f"ring_{new_id()}"))
        ring = KeyRing(current=due, next=fresh)
        self._secrets.put_secret_value(
            SecretId=secret_id,
            ClientRequestToken=version,
            SecretString=ring.to_secret(),
            VersionStages=["AWSPENDING"],
        )

    def set_secret(self, secret_id: str, version: str, *, now: int) -> None:
        """Publish both public halves: for *current* that was done when it was *next*."""
        ring = self._pending(secret_id, version)
        for key in (ring.current, ring.next):
            self._table.publish(key.public(created_at=now))

    def test_secret(self, secret_id: str, version: str, *, now: int) -> None:
        """What these keys sign must be believed by what is published."""
        ring = self._pending(secret_id, version)
        listed = {key.kid: key for key in self._table.public_keys()}
        for key in (ring.current, ring.next):
            if key.kid not in listed or not listed[key.kid].believed_at(now):
                raise RotationError(f"the public half of {key.kid} is not listed")
            probe = tokens.mint(
                key,
                issuer="rotation",
                tid="rotation",
                pid="rotation",
                uid="rotation",
                role="user",
                ttl_s=tokens.MIN_TTL_S,
                tier=None,
                session_id="rotation",
                jti="rotation",
                now=now - tokens.MIN_TTL_S,  # already over: nobody could use it
            )
            tokens.signed_claims(probe.value, listed[key.kid])

    def finish_secret(self, secret_id: str, version: str, *, now: int) -> None:
        """Sign with the new ring from now on, and retire what is not on it."""
        stages = self._secrets.describe_secret(SecretId=secret_id)["VersionIdsToStages"]
        current = next((v for v, labels in stages.items() if "AWSCURRENT" in labels), None)
        if current != version:
            self._secrets.update_secret_version_stage(
                SecretId=secret_id,
                VersionStage="AWSCURRENT",
                MoveToVersionId=version,
                **({"RemoveFromVersionId": current} if current else {}),
            )
        text = self._text(secret_id, VersionId=version)
        if text is None:
            raise RotationError("the new version has no value")
        ring = KeyRing.from_secret(text)
        kept = {ring.current.kid, ring.next.kid}
        self._table.signs_from(ring.current.kid, now)
        self._table.retire(
            (key.kid for key in self._table.public_keys() if key.kid not in kept),
            # A minting process may sign with its copy of the old ring for a moment yet.
            not_after=now + self._secrets_cached_s + RETIRED_FOR_S,
        )

    def _due(self, key: SigningKey, now: int) -> SigningKey | None:
        """Return *next*, which becomes *current*; None if an operator has distrusted it: then both
        are made anew, and sign at once. Waiting for every verifier to have seen them would leave
        *current*, which lay in the same secret, to whoever has it.
        """
        published = next((k for k in self._table.public_keys() if k.kid == key.kid), None)
        if published is None:
            raise RotationError(f"the next signing key {key.kid} was never published")
        if published.distrusted_at is not None:
            return None
        age_s = now - published.created_at
        if age_s < self._next_key_min_age_s:
            raise RotationError(
                f"the next signing key was published {age_s} s ago; it may sign after "
                f"{self._next_key_min_age_s} s, when every verifier has seen it"
            )
        return key

    def _pending(self, secret_id: str, version: str) -> KeyRing:
        text = self._text(secret_id, VersionId=version, VersionStage="AWSPENDING")
        if text is None:
            raise RotationError("createSecret has not made this version yet")
        return KeyRing.from_secret(text)

    def _text(self, secret_id: str, **which: str) -> str | None:
        try:
            return str(self._secrets.get_secret_value(SecretId=secret_id, **which)["SecretString"])
        except self._secrets.exceptions.ResourceNotFoundException:
            return None


def make_signing_key(kid: Kid) -> SigningKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return SigningKey(kid, pem.decode())
