"""A Cognito session, as API Gateway's authorizer hands it over: which user, which tier.

The authorizer has verified signature, issuer and expiry. What it does not judge is checked here:
that it is an ID token, and one made for our own client. The tier comes from a group, because a user
may write his own attributes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from weir.errors import Forbidden, Unauthenticated

ADMINS = "admins"  # who may call the admin API


@dataclass(frozen=True, slots=True)
class User:
    sub: str
    email: str
    groups: frozenset[str]


def believe_session(claims: Mapping[str, str], *, client_id: str) -> User:
    if claims.get("token_use") != "id":
        raise Unauthenticated(
            "Send the Cognito ID token; this is another kind of token.", reason="wrong_token_use"
        )
    if claims.get("aud") != client_id or not claims.get("sub"):
        raise Unauthenticated(
            "The Cognito token was made for another client.", reason="wrong_audience"
        )
    return User(
        sub=claims["sub"],
        email=claims.get("email", ""),
        groups=_groups(claims.get("cognito:groups", "")),
    )


def _groups(told: str) -> frozenset[str]:
    """API Gateway joins a list by commas; some print it as Java does, in brackets with blanks."""
    if told.startswith("[") and told.endswith("]"):
        return frozenset(re.split(r"[,\s]+", told[1:-1])) - {""}
    return frozenset(name.strip() for name in told.split(",")) - {""}


def believe_admin(claims: Mapping[str, str], *, client_id: str) -> User:
    """One of the deployment's operators."""
    user = believe_session(claims, client_id=client_id)
    if ADMINS not in user.groups:
        raise Forbidden("Only users of the Cognito group 'admins' may do this.")
    return user
