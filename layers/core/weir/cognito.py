"""A Cognito session, as API Gateway's authorizer hands it over: which user, which tier.

The authorizer has verified signature, issuer and expiry. What it does not judge is checked here:
that it is an ID token, and one made for our own client. The tier comes from a group, because a user
may write his own attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from weir.errors import Unauthenticated
from weir.tokens import tier_of_groups


@dataclass(frozen=True, slots=True)
class User:
    sub: str
    tier: str | None  # None: the project's defaults


def believe_session(claims: Mapping[str, str], *, client_id: str) -> User:
    if claims.get("token_use") != "id":
        raise Unauthenticated(
            "Send the Cognito ID token; this is another kind of token.", reason="wrong_token_use"
        )
    if claims.get("aud") != client_id or not claims.get("sub"):
        raise Unauthenticated(
            "The Cognito token was made for another client.", reason="wrong_audience"
        )
    return User(sub=claims["sub"], tier=tier_of_groups(claims.get("cognito:groups", "")))
