"""Trust in other issuers: when a token of somebody else's sign-in is believed, and whose it is.

A project lists the issuers that it trusts. A token of one is judged by that issuer's entry alone:
its keys, its algorithms, its audience. Nothing in the token chooses any of these; `jku`, `x5u` and
`jwk` in its header are never looked at (RFC 8725, sections 3.1 and 3.10).

Whose it is: an issuer's users get a prefix, the issuer's name and a colon, so no two issuers of a
project can name the same user. One issuer of a project may go without; then its users' ids are
those that the project's own server uses at mint. They can be neither another issuer's (nothing that
looks like a prefix is accepted) nor, in the project of the stack's user pool, those of the pool's
users (whose ids are UUIDs).

The checks run in the order of CHECKS. `believe` tells which have passed, for `weir issuers test`.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NewType

import jwt

from weir import identifiers
from weir.errors import BadRequest, ExchangeRefused
from weir.identity.key_sets import VerificationKey
from weir.identity.tokens import is_user_id
from weir.projects.limits import FREE, Tiers
from weir.projects.project import Project
from weir.web.request import finite, no_name_twice, refuse_constant

SEPARATOR = ":"
NAME = r"[a-z][a-z0-9-]{0,31}"  # of an issuer, within its project

MAX_SUBJECT_TOKEN = 16_384  # characters
CLOCK_SKEW_S = 60

DEFAULT_NEW_USERS_PER_HOUR = 100
MIN_TTL_S, MAX_TTL_S = 60, 3600

FORM, ISSUER, ALGORITHM, KEY, SIGNATURE = "form", "iss", "alg", "kid", "signature"
TIMES, AUDIENCE, PARTY, SIGN_IN, USER = "exp", "aud", "azp", "anonymous", "user"
CHECKS = {
    FORM: "it is a signed JWT, of one spelling",
    ISSUER: "the project trusts its issuer",
    ALGORITHM: "its algorithm is one of the issuer's, and its header asks for nothing unknown",
    KEY: "the issuer has published the key that it names",
    SIGNATURE: "the key verifies its signature",
    TIMES: "it has begun and not expired",
    AUDIENCE: "it was made for one of the audiences",
    PARTY: "it was made for one of the authorized parties",
    SIGN_IN: "its user has signed in with a name",
    USER: "it names a user",
}

_COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LIKE_A_PREFIX = re.compile(NAME + SEPARATOR)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# RFC 7519, section 5.1; RFC 9068, section 2.1. Without "application/", in lower case.
_TYPES = ("jwt", "at+jwt")

UnverifiedClaims = NewType("UnverifiedClaims", dict[str, Any])
VerifiedClaims = NewType("VerifiedClaims", dict[str, Any])


@dataclass(frozen=True, slots=True)
class Issuer:
    """One that a project trusts. `audiences`, `authorized_parties`: empty means not looked at, but
    one of the two never is. `ttl_s` None: the deployment's SessionTokenTtlSeconds.
    """

    name: str
    issuer: str
    jwks_uri: str
    algorithms: frozenset[str]
    audiences: frozenset[str]
    authorized_parties: frozenset[str]
    uid_claim: str
    tier_claim: str | None
    session_claim: str | None
    prefixed: bool
    allow_anonymous: bool
    new_users_per_hour: int
    ttl_s: int | None

    @classmethod
    def from_document(cls, name: str, told: Mapping[str, Any]) -> "Issuer":
        """`told` is an IssuerDocument as it is kept. Raise ValueError if it binds to nobody."""
        audiences = frozenset(told.get("audiences") or ())
        parties = frozenset(told.get("authorized_parties") or ())
        if not audiences and not parties:
            raise ValueError(f"the issuer {name!r} has neither audiences nor authorized parties")
        return cls(
            name=name,
            issuer=told["issuer"],
            jwks_uri=told["jwks_uri"],
            algorithms=frozenset(told["algs"]),
            audiences=audiences,
            authorized_parties=parties,
            uid_claim=told.get("uid_claim") or "sub",
            tier_claim=told.get("tier_claim"),
            session_claim=told.get("session_claim"),
            prefixed=told.get("prefix_user_ids", True),
            allow_anonymous=told.get("allow_anonymous", False),
            new_users_per_hour=told.get("new_users_per_hour", DEFAULT_NEW_USERS_PER_HOUR),
            ttl_s=told.get("ttl"),
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a believed token is of. `tier` is one that the project has; None: the issuer names none,
    and the limits without tier hold.
    """

    issuer: Issuer
    user_id: str
    tier: str | None
    session_id: str | None


FindKey = Callable[[Issuer, str | None, str], VerificationKey]


def trusted_by(project: Project) -> list[Issuer]:
    """Return the issuers that a project trusts. None if it has no budget: an operator cannot set
    it up like this, and who would get in must not spend without end.
    """
    if project.limits.nano_usd_per_month is None:
        return []
    return [Issuer.from_document(name, told) for name, told in sorted(project.issuers.items())]


def believe(
    token: str,
    project: Project,
    find_key: FindKey,
    *,
    now: int,
    pool_users: bool,
    passed: Callable[[str], object] = lambda check: None,
) -> Identity:
    """Return who a token of another issuer is of. Raise ExchangeRefused if it is not believed.

    `find_key` is given the issuer, `kid` and `alg`; it raises for a key that there is not.
    `pool_users`: the users of the stack's user pool are users of this project, too. `passed` is
    called with the name of each check that has been passed.
    """
    header, unverified = _parsed(token)
    passed(FORM)
    issuer = _issuer_of(unverified, trusted_by(project))
    passed(ISSUER)
    algorithm = _algorithm(header, issuer)
    passed(ALGORITHM)
    key = find_key(issuer, _kid(header), algorithm)
    passed(KEY)
    claims = _verified(token, key)
    passed(SIGNATURE)
    _require_times(claims, now)
    passed(TIMES)
    _require_audience(claims, issuer)
    passed(AUDIENCE)
    _require_party(claims, issuer)
    passed(PARTY)
    if not issuer.allow_anonymous and is_anonymous(claims):
        raise ExchangeRefused(
            "This user has signed in anonymously, which the project does not allow.",
            reason="anonymous_user",
        )
    passed(SIGN_IN)
    user_id = _user_id(claims, issuer, pool_users=pool_users)
    passed(USER)
    tier, session = _tier(claims, issuer, project.tiers), _session(claims, issuer)
    return Identity(issuer, user_id, tier, session)


# ---------------------------------------------------------------- before the signature


def _parsed(token: str) -> tuple[dict[str, Any], UnverifiedClaims]:
    """Return header and claims of what is at least a compact JWS (RFC 7515, section 3.1)."""
    if len(token) > MAX_SUBJECT_TOKEN or not _COMPACT_JWS.fullmatch(token):
        raise _malformed("it is not three base64url parts joined by dots")
    segments = token.split(".")
    try:
        octets = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in segments]
    except (binascii.Error, ValueError):
        raise _malformed("a part is not base64url") from None
    for part, octet in zip(segments, octets, strict=True):
        # One token, one spelling: base64 leaves unused bits that could differ.
        if base64.urlsafe_b64encode(octet).rstrip(b"=").decode() != part:
            raise _malformed("a part is not base64url as it is written")
    header, claims = _json_object(octets[0]), _json_object(octets[1])
    return header, UnverifiedClaims(claims)


def _json_object(octets: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            octets.decode(),
            object_pairs_hook=no_name_twice,  # RFC 7519, section 4: the last one, or a refusal
            parse_constant=refuse_constant,
            parse_float=finite,
        )
    except (ValueError, RecursionError, BadRequest):
        raise _malformed("header and claims must be JSON objects without a name twice") from None
    if not isinstance(value, dict):
        raise _malformed("header and claims must be JSON objects")
    return value


def _issuer_of(claims: UnverifiedClaims, issuers: Iterable[Issuer]) -> Issuer:
    """Return the one of that very name (RFC 8414, section 3.3: code point by code point)."""
    told = claims.get("iss")
    found = next((each for each in issuers if each.issuer == told), None)
    if found is None:
        raise ExchangeRefused(
            "The project does not trust the issuer of this token (iss). The operator adds it: "
            "weir issuers add. Scheme, host, path and a slash at the end must be the same.",
            reason="untrusted_issuer",
        )
    return found


def _algorithm(header: Mapping[str, Any], issuer: Issuer) -> str:
    algorithm, kind = header.get("alg"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise ExchangeRefused(
            f"The token's algorithm must be {' or '.join(sorted(issuer.algorithms))}.",
            reason="wrong_algorithm_or_type",
        )
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise ExchangeRefused(
            "The token's typ must be JWT or at+jwt.", reason="wrong_algorithm_or_type"
        )
    if "crit" in header or "b64" in header:
        raise ExchangeRefused(
            "The token's header demands an extension (crit) that is not understood.",
            reason="unknown_header",
        )
    return algorithm


def _kid(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 1 <= len(kid) <= 255):
        raise _malformed("kid must be a text of 1 to 255 characters")
    return kid


def _verified(token: str, key: VerificationKey) -> VerifiedClaims:
    """Judge the signature and nothing else."""
    try:
        claims = jwt.decode(
            token,
            key.public_key(),
            algorithms=[key.algorithm],
            options={
                "verify_signature": True,
                # All of these are judged below, in one place, strictly and by a passed-in clock.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise ExchangeRefused(
            "The token's signature is not its issuer's.", reason="bad_signature"
        ) from None
    return VerifiedClaims(claims)


# ---------------------------------------------------------------- after it


def _require_times(claims: VerifiedClaims, now: int) -> None:
    """RFC 7519, section 4.1: NumericDate may have a fraction."""
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if value is None and name != "exp":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
            raise _bad_claim(name, "must be a number of seconds since 1970")
    if claims["exp"] + CLOCK_SKEW_S <= now:
        raise ExchangeRefused(
            "The token has expired. Fetch a new one from its issuer.", reason="token_expired"
        )
    for name in ("nbf", "iat"):
        if claims.get(name) is not None and claims[name] > now + CLOCK_SKEW_S:
            raise _bad_claim(name, "lies in the future")


def _require_audience(claims: VerifiedClaims, issuer: Issuer) -> None:
    """RFC 7519, section 4.1.3: one of the token's audiences must be ours."""
    if not issuer.audiences:
        return
    told = claims.get("aud")
    named = [told] if isinstance(told, str) else told
    if not isinstance(named, list) or not any(
        isinstance(each, str) and each in issuer.audiences for each in named
    ):
        raise _bad_claim("aud", "names none of the audiences that the project accepts")


def _require_party(claims: VerifiedClaims, issuer: Issuer) -> None:
    """OpenID Connect Core, section 2. Of Clerk's tokens it is the page's origin."""
    told = claims.get("azp")
    if issuer.authorized_parties and not (
        isinstance(told, str) and told in issuer.authorized_parties
    ):
        raise _bad_claim("azp", "is none of the authorized parties that the project accepts")


def is_anonymous(claims: Mapping[str, Any]) -> bool:
    """Return whether a token says that its user has no account: as Supabase does, or Firebase."""
    firebase = claims.get("firebase")
    provider = firebase.get("sign_in_provider") if isinstance(firebase, Mapping) else None
    return bool(claims.get("is_anonymous")) or provider == "anonymous"


def _user_id(claims: VerifiedClaims, issuer: Issuer, *, pool_users: bool) -> str:
    name = issuer.uid_claim
    told = claim(claims, name)
    if not isinstance(told, str) or not told:
        raise _bad_user(name, "must be a text that names the user")
    user_id = f"{issuer.name}{SEPARATOR}{told}" if issuer.prefixed else told
    if not is_user_id(user_id):
        raise _bad_user(
            name, f"makes no user id: it must have {identifiers.RULE}, and not be reserved"
        )
    if issuer.prefixed:
        return user_id
    if _LIKE_A_PREFIX.match(user_id):
        raise _bad_user(
            name,
            "begins like the user id of another issuer (a name and a colon): let this issuer's "
            "users have a prefix",
        )
    if pool_users and _UUID.fullmatch(user_id):
        raise _bad_user(
            name,
            "is a UUID, as the ids of the stack's own user pool are: let this issuer's users have "
            "a prefix, or use another project",
        )
    return user_id


def _tier(claims: VerifiedClaims, issuer: Issuer, tiers: Tiers) -> str | None:
    """Return the tier of a claim: of several the highest, and the lowest if the project has none of
    that name. None: the issuer's entry names no claim.
    """
    if issuer.tier_claim is None:
        return None
    told = claim(claims, issuer.tier_claim)
    if isinstance(told, list):
        return tiers.highest_of({each for each in told if isinstance(each, str)}) or FREE
    found = tiers.find(told)
    return FREE if found is None else found.name


def _session(claims: VerifiedClaims, issuer: Issuer) -> str | None:
    told = None if issuer.session_claim is None else claim(claims, issuer.session_claim)
    return told if isinstance(told, str) and identifiers.is_identifier(told) else None


def claim(claims: Mapping[str, Any], name: str) -> object:
    """Return a claim by its name, or within others by names joined by dots: `app_metadata.tier`. A
    claim whose own name has dots, such as `https://example.com/tier`, comes first.
    """
    if name in claims:
        return claims[name]
    value: object = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _malformed(why: str) -> ExchangeRefused:
    return ExchangeRefused(f"subject_token is not a JWT: {why}.", reason="malformed")


def _bad_claim(name: str, why: str) -> ExchangeRefused:
    return ExchangeRefused(f"The token's {name} {why}.", reason=f"bad_{name}")


def _bad_user(name: str, why: str) -> ExchangeRefused:
    return ExchangeRefused(f"The token's {name} {why}.", reason="bad_user_id")
