"""What a backend asks to be revoked: the body of `POST /v1/auth/revoke`.

RFC 7009's `token` and `token_type_hint`, and for what a backend knows without the token: `user_id`,
alone (sign the user out everywhere) or with `session_id`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weir import identifiers
from weir.errors import BadRequest, Forbidden
from weir.identity import api_keys
from weir.identity.tokens import Claims
from weir.revocation import Revocation

_FIELDS = ("token", "token_type_hint", "user_id", "session_id")


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """Either the token to revoke, unverified, or `what` is named otherwise."""

    token: str | None
    what: Revocation | None

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> "RevokeRequest":
        """Raises BadRequest that names the field. Unknown fields are refused: a misspelt
        `session_id` must not sign its user out everywhere.
        """
        for name in body:
            if name not in _FIELDS:
                raise BadRequest(
                    f"There is no field {name[:100]!r}. The fields are {', '.join(_FIELDS)}.",
                    param=name[:100],
                )
        named = {name: _identifier(body, name) for name in ("user_id", "session_id")}
        token = body.get("token")
        if (token is None) == (named["user_id"] is None) or (token and named["session_id"]):
            raise BadRequest(
                "Name either `token`, or `user_id`, with or without `session_id`.", param="token"
            )
        if token is None:
            return cls(None, Revocation(named["user_id"] or "", named["session_id"]))
        if not isinstance(token, str) or not token:
            raise BadRequest("token must be a string.", param="token")
        if api_keys.looks_like(token):
            raise BadRequest(
                "This is an API key. The operator revokes it: weir keys revoke.", param="token"
            )
        return cls(token, None)


def revocation_of(claims: Claims, pid: str) -> Revocation:
    """Return the revocation of one token. Raises Forbidden unless it is of project `pid`,
    BadRequest for a token without an id.
    """
    if claims.pid != pid:
        raise Forbidden("The token is of another project than the API key.")
    if claims.jti is None:
        raise BadRequest("The token has no id (jti). Name its user_id instead.", param="token")
    return Revocation(claims.uid, jti=claims.jti)


def _identifier(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not identifiers.is_identifier(value):
        raise BadRequest(f"{name} must be a string of {identifiers.RULE}.", param=name)
    return value
