"""User tokens: what may be asked for, what is signed, and when a token is believed.

Verifying is two steps with two types. `signed_claims` judges the signature alone (RS256 by a key of
our ring, nothing else: RFC 8725, sections 3.1 and 3.2). `judge` judges every claim in one table,
against a `now` that is passed in. Only then are there `Claims`.

A token's lifetime ends on the second it names. There is no leeway for `exp`: minter and verifier
are the same deployment. `iat` and `nbf` may lie a minute ahead, because two hosts' clocks may. A
token that a tenant's own server has signed has that leeway at its end, too.
"""

import base64
import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NewType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from weir import identifiers
from weir.customers.names import is_customer_id
from weir.errors import BadRequest, TokenExpired, Unauthenticated
from weir.identifiers import is_identifier
from weir.identity.bindings import Bindings
from weir.identity.keyring import Kid, PublicKey, SigningKey
from weir.projects.limits import Tier
from weir.revocation import Issued

AUDIENCE = "behest"  # the contract's name for "a Behest user token"; section 3.4
TOKEN_TYPE = "JWT"  # noqa: S105 - a media type, not a secret
CLIENT_TOKEN_TYPE = "fc-client+jwt"  # noqa: S105 - of weir/identity/client_tokens.py

MIN_TTL_S, MAX_TTL_S, DEFAULT_TTL_S = 60, 86_400, 3600
MAX_TOKEN_BYTES = 2048  # at mint; headers of 10 KB in all are what API Gateway takes
CLOCK_SKEW_S = 60

# Names of the contract's own services (section 4.1).
RESERVED_USER_IDS = frozenset({"admin", "dashboard-service", "system"})

# Of what an id is: an end user, a customer, or an API key that calls for neither.
USER, CUSTOMER, SERVER = "u", "c", "k"

SignedClaims = NewType("SignedClaims", dict[str, Any])

# What the published SDKs write into tokens that they sign themselves (contract section 22, C7).
LOCAL_ISSUERS = frozenset({"https://api.behest.ai", "https://api.behest.app", "behest"})

# Older SDKs' words for the same two roles; section 22, C13.
_ROLES = {
    "user": "user",
    "regular": "user",
    "service": "user",
    "admin": "admin",
    "dashboard-service": "admin",
}

_UUID_4 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-4([0-9a-f]{3})-[0-9a-f]{4}-[0-9a-f]{12}")
_COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class MintRequest:
    """The body of `POST /v1/auth/mint` (contract section 4.1). Unknown fields are ignored. `tier`
    is as it came: which ones there are is the project's to say. `role` None: the API key's own.
    """

    user_id: str
    role: str | None
    ttl_s: int
    tier: object
    session_id: str | None

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> "MintRequest":
        return cls(
            user_id=_user_id(body.get("user_id")),
            role=_role(body.get("role")),
            ttl_s=_ttl(body.get("ttl")),
            tier=body.get("tier"),
            session_id=_session_id(body.get("session_id")),
        )


@dataclass(frozen=True, slots=True)
class Claims:
    """What a believed token says; or for whom an API key with scope `api:chat` calls, which has
    no `issued_at`. `tier` keeps the type its caller used. `issued_at` is when the token counts as
    issued, and `client_id` the API key that made it or was sent: the start of its id, KEY_STEM.
    `kind` says what `uid` is the id of. `bindings` are those of a client token; None: it is none.
    """

    tid: str
    pid: str
    uid: str
    role: str
    sid: str | None
    tier: Tier | None
    jti: str | None
    expires_at: int
    issued_at: int | None = None
    client_id: str | None = None
    kind: str = USER
    bindings: Bindings | None = None

    @property
    def subject(self) -> str:
        """Return the key of who spends, in the ledger."""
        return f"{self.kind}#{self.uid}"

    @property
    def issued(self) -> Issued | None:
        """Return what a revocation looks at in the token; None if it was an API key."""
        return None if self.issued_at is None else Issued(self.issued_at, self.jti, self.sid)


@dataclass(frozen=True, slots=True)
class Token:
    """A freshly signed token; times in Unix seconds."""

    value: str
    ttl_s: int
    expires_at: int
    session_id: str


def mint(
    key: SigningKey,
    *,
    issuer: str,
    tid: str,
    pid: str,
    uid: str,
    role: str,
    ttl_s: int,
    tier: Tier | None,
    session_id: str,
    jti: str,
    now: int,
) -> Token:
    """Sign a user token. Its claims and their order are the contract's, which its SDK tests assert;
    `jti` is a `token_id`. `now` is its `iat`.
    """
    claims: dict[str, Any] = {
        "tid": tid,
        "pid": pid,
        "uid": uid,
        "role": role,
        "scp": [],
        "iss": issuer,
        "aud": AUDIENCE,
        "iat": now,
        "nbf": now,
        "exp": now + ttl_s,
        "jti": jti,
        "sid": session_id,
    }
    if tier is not None:
        claims["tier"] = tier
    value = sign(key, claims, TOKEN_TYPE)
    if len(value) > MAX_TOKEN_BYTES:
        raise BadRequest(
            f"user_id and session_id together make a token of {len(value)} bytes; "
            f"at most {MAX_TOKEN_BYTES} fit. Use shorter ids.",
            param="user_id",
        )
    return Token(value, ttl_s, now + ttl_s, session_id)


def sign(key: SigningKey, claims: dict[str, Any], token_type: str) -> str:
    """Return the claims as a compact JWS (RFC 7515, section 3.1), by RS256."""
    import jwt  # only who mints needs it, and it takes 90 ms of a cold start

    headers = {"typ": token_type, "kid": key.kid}
    return jwt.encode(claims, _private(key), algorithm="RS256", headers=headers)


@functools.lru_cache(maxsize=1)
def _private(key: SigningKey) -> RSAPrivateKey:
    """Keep the current key as OpenSSL has it: SDKs mint before every chat."""
    return key.rsa()


def token_id(random_uuid: str, key_id: str | None) -> str:
    """Return a `jti`: a UUID (RFC 9562, version 4) that begins with the id of the API key which
    makes the token, and is random beyond that. The contract's claims have no other place for it.
    """
    if key_id is None:
        return random_uuid
    stem = key_id.removeprefix("key_")
    return f"{stem[:8]}-{stem[8:12]}-4{stem[12:15]}{random_uuid[18:]}"


def _maker(jti: str) -> str | None:
    """Return what `token_id` has put in: of a token that no key has made, the name of none."""
    found = _UUID_4.fullmatch(jti)
    return None if found is None else "key_" + "".join(found.groups())


def mint_reply(token: Token, *, tid: str, pid: str) -> dict[str, Any]:
    """The union of every name that a published client looks for (contract section 4.3)."""
    return {
        "jwt": token.value,
        "access_token": token.value,
        "token": token.value,
        "token_type": "Bearer",
        "project_id": pid,
        "tenant_id": tid,
        "session_id": token.session_id,
        "sessionId": token.session_id,
        "ttl": token.ttl_s,
        "expires_in": token.ttl_s,
        "expires_at": token.expires_at,
        "expiresAt": token.expires_at,
    }


def session_reply(token: Token) -> dict[str, Any]:
    """What an app's own `/api/behest/token` route answers (contract section 11.5)."""
    return {
        "token": token.value,
        "ttl": token.ttl_s,
        "sessionId": token.session_id,
        "expiresAt": token.expires_at,
    }


def unverified_kid(unverified_token: str) -> Kid:
    """Return the key id of what may be a user token: see `unverified_header`."""
    kid, token_type = unverified_header(unverified_token)
    if token_type != TOKEN_TYPE:
        raise Unauthenticated("This is no user token.", reason="wrong_algorithm_or_type")
    return kid


def unverified_header(unverified_token: str) -> tuple[Kid, str]:
    """Return the key id and the type of a token that is at least shaped like one of ours. Says
    nothing about its truth.

    Every header must be accounted for: `crit`, `jku`, `x5u`, `jwk` and their like are refused, not
    ignored, and `alg` is not a choice the sender has.
    """
    if len(unverified_token) > 2 * MAX_TOKEN_BYTES or not _COMPACT_JWS.fullmatch(unverified_token):
        raise Unauthenticated("This is not a token of this gateway.", reason="malformed")
    segments = unverified_token.split(".")
    try:
        octets = [_octets(segment) for segment in segments]
        header = json.loads(octets[0])
    except (ValueError, RecursionError):
        raise Unauthenticated("This is not a token of this gateway.", reason="malformed") from None
    for segment, octet in zip(segments, octets, strict=True):
        # One token, one spelling: base64 leaves unused bits that could differ.
        if base64.urlsafe_b64encode(octet).rstrip(b"=").decode() != segment:
            raise Unauthenticated("This is not a token of this gateway.", reason="malformed")
    if (
        not isinstance(header, dict)
        or header.get("alg") != "RS256"
        or header.get("typ") not in (TOKEN_TYPE, CLIENT_TOKEN_TYPE)
    ):
        raise Unauthenticated(
            "Only RS256 tokens of this gateway are accepted.", reason="wrong_algorithm_or_type"
        )
    kid = header.get("kid")
    if not isinstance(kid, str) or set(header) != {"alg", "typ", "kid"}:
        raise Unauthenticated("The token's header has unknown members.", reason="unknown_header")
    return Kid(kid), header["typ"]


def signed_claims(unverified_token: str, key: PublicKey) -> SignedClaims:
    """Judge the signature and nothing else: the caller must still `judge` the claims.

    Raise Unauthenticated. RS256 is RSASSA-PKCS1-v1_5 with SHA-256 over the first two segments as
    they came (RFC 7518, section 3.3; RFC 7515, section 5.2). `unverified_kid` has judged the header
    by then. Why not PyJWT: docs/decisions/0028.
    """
    signed, _, signature = unverified_token.rpartition(".")
    try:
        key.rsa().verify(_octets(signature), signed.encode(), PKCS1v15(), SHA256())
        claims = json.loads(_octets(signed.partition(".")[2]))
    except (InvalidSignature, ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise Unauthenticated("The token's signature is not ours.", reason="bad_signature")
    return SignedClaims(claims)


def _octets(segment: str) -> bytes:
    """Raise ValueError for what is no base64url (RFC 7515, section 2)."""
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def judge(claims: SignedClaims, *, issuer: str, tid: str, now: int) -> Claims:
    """Every claim is demanded, of its exact type; a claim nobody knows is a refusal."""
    require_claims(claims, _CLAIM_TABLE)
    if claims["iss"] != issuer:
        raise bad_claim("iss")
    if claims["aud"] != AUDIENCE:
        raise bad_claim("aud")
    if claims["tid"] != tid:
        raise bad_claim("tid")
    if claims["exp"] <= now:
        raise TokenExpired
    if max(claims["iat"], claims["nbf"]) > now + CLOCK_SKEW_S:
        raise bad_claim("nbf")
    if claims["exp"] - claims["iat"] > MAX_TTL_S:
        raise bad_claim("exp")
    return Claims(
        tid=claims["tid"],
        pid=claims["pid"],
        uid=claims["uid"],
        role=claims["role"],
        sid=claims["sid"],
        tier=claims.get("tier"),
        jti=claims["jti"],
        expires_at=claims["exp"],
        issued_at=claims["iat"],
        client_id=_maker(claims["jti"]),
    )


def judge_local(
    claims: SignedClaims, *, issuer: str, tid: str, pid: str | None, now: int
) -> Claims:
    """Judge a token that a tenant's own server has signed with its signing key, which may sign for
    the project `pid`, or for every one if that is None.

    Two generations of SDKs sign: the newer one writes every claim that mint does, the older one
    only tid, pid, uid, iss, aud, iat, nbf and exp. Both are complete lists: any other claim is
    refused. Whatever `role` says, the token is a user's: a signing key is no admin key.
    """
    require_claims(claims, _LOCAL_CLAIM_TABLE)
    if claims["iss"] != issuer and claims["iss"] not in LOCAL_ISSUERS:
        raise bad_claim("iss")
    if claims["aud"] not in (AUDIENCE, [AUDIENCE]):
        raise bad_claim("aud")
    if claims["tid"] != tid:
        raise bad_claim("tid")
    if pid is not None and claims["pid"] != pid:
        raise bad_claim("pid")
    if claims["exp"] + CLOCK_SKEW_S <= now:
        raise TokenExpired
    if max(claims["iat"], claims["nbf"]) > now + CLOCK_SKEW_S:
        raise bad_claim("nbf")
    if not 0 < claims["exp"] - claims["iat"] <= MAX_TTL_S:
        raise bad_claim("exp")
    return Claims(
        tid=claims["tid"],
        pid=claims["pid"],
        uid=claims["uid"],
        role="user",
        sid=claims.get("sid"),
        tier=claims.get("tier"),
        jti=claims.get("jti"),
        expires_at=claims["exp"],
        # By the least favourable of clocks: nothing that was issued before a revocation may count
        # as issued after it.
        issued_at=claims["iat"] - CLOCK_SKEW_S,
    )


def require_claims(claims: SignedClaims, table: Mapping[str, Callable[[object], bool]]) -> None:
    """Raise unless every claim is of its kind, and in the table."""
    wrong = next((n for n, holds in table.items() if not holds(claims.get(n))), None)
    if wrong is None:
        wrong = next((name for name in claims if name not in table), None)
    if wrong is not None:
        raise bad_claim(wrong)


def is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


_CLAIM_TABLE: dict[str, Callable[[object], bool]] = {
    "tid": is_text,
    "pid": is_identifier,
    "uid": lambda value: is_user_id(value),
    "role": lambda value: value in ("user", "admin"),
    "scp": lambda value: value == [],
    "iss": is_text,
    "aud": is_text,
    "iat": is_time,
    "nbf": is_time,
    "exp": is_time,
    "jti": is_identifier,
    "sid": is_identifier,
    "tier": lambda value: _is_tier(value),
}

# What only the newer SDKs write. A null is as good as none.
_LOCAL_CLAIM_TABLE: dict[str, Callable[[object], bool]] = {
    **_CLAIM_TABLE,
    "role": lambda value: value is None or isinstance(value, str),
    "scp": lambda value: value is None or value == [],
    "aud": lambda value: isinstance(value, str | list),
    "jti": lambda value: value is None or is_identifier(value),
    "sid": lambda value: value is None or is_identifier(value),
}


def bad_claim(name: str) -> Unauthenticated:
    return Unauthenticated(f"The token's `{name}` is not acceptable here.", reason=f"bad_{name}")


def _is_tier(value: object) -> bool:
    """Only its form: which tiers there are is the project's to say, and changes."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value is None
    return 1 <= len(str(value)) <= 64 and identifiers.is_plain(str(value))


def is_user_id(value: object) -> bool:
    """Return whether a token may be made for this user, and is believed if it names them."""
    return (
        isinstance(value, str)
        and is_identifier(value)
        and value.lower() not in RESERVED_USER_IDS
        and not is_customer_id(value)  # usage names both, side by side
    )


def granted_role(requested: str | None, key_role: str) -> str:
    """Return the role of a new token: the key's own if none was requested, and never above that. A
    wish beyond it is clamped, because SDKs always send one.
    """
    return key_role if requested is None or key_role != "admin" else requested


def _user_id(value: object) -> str:
    if not isinstance(value, str) or not is_identifier(value):
        raise BadRequest(f"user_id is required: a string of {identifiers.RULE}.", param="user_id")
    if not is_user_id(value):
        raise BadRequest(f"user_id {value!r} is reserved.", param="user_id")
    return value


def _role(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in _ROLES:
        raise BadRequest(f"role must be one of {', '.join(_ROLES)}.", param="role")
    return _ROLES[value]


def _ttl(value: object) -> int:
    if value is None:
        return DEFAULT_TTL_S
    if isinstance(value, bool) or not isinstance(value, int) or not MIN_TTL_S <= value <= MAX_TTL_S:
        raise BadRequest(
            f"ttl must be an integer of {MIN_TTL_S} to {MAX_TTL_S} seconds.", param="ttl"
        )
    return value


def _session_id(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not is_identifier(value):
        raise BadRequest(f"session_id must be a string of {identifiers.RULE}.", param="session_id")
    return value
