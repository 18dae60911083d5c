"""API keys: a server's long-lived secret. Shown once, stored only as its SHA-256.

128 random bits need no slow hash: there is nothing to guess (contract section 3.1).
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NewType

from weir.errors import Unauthenticated
from weir.revocation import KEPT_S

KeyHash = NewType("KeyHash", str)

PREFIX = "behest_sk_live_"  # the published SDKs choose their mode by exactly this
# Of the Ringside contract. Its keys' callers are answered in its words, and name models its way.
RINGSIDE_LIVE, RINGSIDE_TEST = "sk_live_", "sk_test_"
BEHEST, RINGSIDE = "behest", "ringside"
PREFIXES = {BEHEST: PREFIX, RINGSIDE: RINGSIDE_LIVE}

MINT = "mint"  # make tokens for users
READ = "api:read"  # list models, read usage
CHAT = "api:chat"  # chat without a token, for a user whom a header names
CLIENT_TOKENS = "api:client_tokens"  # make client tokens, and the customers that they are for
WRITE = "api:write"  # create, change and delete customers
WEBHOOKS = "api:webhooks"  # change webhook endpoints, replay deliveries

_FORM = re.compile(f"(?:{PREFIX}|{RINGSIDE_LIVE}|{RINGSIDE_TEST})[0-9a-f]{{32}}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. `display` is the only part of the secret that is kept readable."""

    key_id: str
    hash: KeyHash
    pid: str
    role: str
    scopes: frozenset[str]
    name: str
    display: str
    created_at: int
    revoked_at: int | None = None
    last_used_at: int | None = None

    def document(self) -> dict[str, Any]:
        """As it may be shown, and kept in the audit trail."""
        return {
            "key_id": self.key_id,
            "project": self.pid,
            "name": self.name,
            "display": self.display,
            "scopes": sorted(self.scopes),
            "role": self.role,
            "created_at": self.created_at,
            "last_used_at": self.last_used_at,
            "revoked_at": self.revoked_at,
        }


def form(random_hex: str, prefix: str = PREFIX) -> str:
    """The secret, from 32 random hexadecimal digits."""
    secret = prefix + random_hex
    if not _FORM.fullmatch(secret):
        raise ValueError("an API key is made of 32 lower-case hexadecimal digits")
    return secret


def hash_of(secret: str) -> KeyHash:
    return KeyHash(hashlib.sha256(secret.encode()).hexdigest())


def key_id_of(key_hash: KeyHash) -> str:
    """A short name for the key that reveals nothing: the start of its hash."""
    return "key_" + key_hash[:16]


def describe(
    secret: str,
    *,
    pid: str,
    name: str,
    now: int,
    scopes: Iterable[str] = (MINT,),
    role: str = "user",
) -> ApiKey:
    """The record of a new key. `role` is the highest that it may mint."""
    key_hash = hash_of(secret)
    return ApiKey(
        key_id=key_id_of(key_hash),
        hash=key_hash,
        pid=pid,
        role=role,
        scopes=frozenset(scopes),
        name=name,
        display=secret[: secret.rindex("_") + 5],
        created_at=now,
    )


def still_to_refuse(revoked: Mapping[str, int], now: int) -> dict[str, int]:
    """Return those of a project's revoked keys, with their moments (Unix s), of which a token may
    not have expired.
    """
    return {key_id: at for key_id, at in revoked.items() if at > now - KEPT_S}


def is_one(credential: str) -> bool:
    """Return whether this has the form of an API key."""
    return _FORM.fullmatch(credential) is not None


def is_of_ringside(credential: str) -> bool:
    """Return whether it is written as that contract's API keys are."""
    return credential.startswith((RINGSIDE_LIVE, RINGSIDE_TEST))


def looks_like(credential: str) -> bool:
    """Whether somebody put an API key where a token belongs."""
    return credential.startswith(("behest_sk_", "sk_live_", "sk_test_", "bh_live_"))


def unverified_hash(credential: str) -> KeyHash:
    """The lookup key for an unverified credential; only the hash ever reaches the table."""
    if not _FORM.fullmatch(credential):
        raise Unauthenticated(
            f"This is not an API key: one looks like {PREFIX} and 32 hexadecimal digits.",
            reason="malformed",
        )
    return hash_of(credential)


def believe(found: ApiKey | None, looked_up: KeyHash) -> ApiKey:
    """The key itself, or a refusal that does not tell an unknown key from a revoked one."""
    if (
        found is None
        or not hmac.compare_digest(found.hash, looked_up)
        or found.revoked_at is not None
    ):
        raise Unauthenticated("The API key is unknown or revoked.", reason="unknown_api_key")
    return found


def lacks(scope: str) -> Unauthenticated:
    return Unauthenticated(f"The API key lacks the scope {scope!r}.", reason="missing_scope")
