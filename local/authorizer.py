"""The Cognito authorizer of a REST API: judges an ID token, or an access token on a route that asks
for scopes.

The pool's keys come from the embedded AWS; the issuer is Amazon's name for the pool, as in the
token.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import Any

import jwt

REFETCH_S = 5.0


class Unauthorized(Exception):
    """UNAUTHORIZED to API Gateway."""


class Expired(Exception):
    """EXPIRED_TOKEN to API Gateway."""


class CognitoAuthorizer:
    def __init__(self, endpoint: str, region: str, pool_id: str) -> None:
        self._jwks_url = f"{endpoint}/{pool_id}/.well-known/jwks.json"
        self._issuer = f"https://cognito-idp.{region}.amazonaws.com/{pool_id}"
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")

    async def claims(self, header: str | None, scopes: tuple[str, ...]) -> dict[str, str]:
        """The claims as a function sees them, each a string. Raises Unauthorized or Expired."""
        token = (header or "").removeprefix("Bearer ").strip()
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid")))
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                issuer=self._issuer,
                # As REST APIs do: any client of the pool will do. Which one is the function's
                # question.
                options={"require": ["exp", "iss", "token_use"], "verify_aud": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise Expired from error
        except jwt.PyJWTError as error:
            raise Unauthorized from error
        if claims["token_use"] != ("access" if scopes else "id"):
            raise Unauthorized
        if scopes and not set(scopes) & set(str(claims.get("scope", "")).split()):
            raise Unauthorized
        return {name: as_text(name, value) for name, value in claims.items()}

    async def _key(self, kid: str) -> jwt.PyJWK:
        if kid not in self._keys and time.monotonic() - self._fetched > REFETCH_S:
            self._fetched = time.monotonic()
            self._keys = await asyncio.to_thread(self._fetch)
        if kid not in self._keys:
            raise Unauthorized
        return self._keys[kid]

    def _fetch(self) -> dict[str, jwt.PyJWK]:
        with urllib.request.urlopen(self._jwks_url, timeout=5) as answer:  # noqa: S310 (our own endpoint)
            keys = jwt.PyJWKSet.from_dict(json.load(answer)).keys
        return {key.key_id: key for key in keys if key.key_id}


def as_text(name: str, value: Any) -> str:
    """REST APIs flatten claims: a list's items joined by commas, these two times as Java prints a
    date.
    """
    if name in ("exp", "iat") and isinstance(value, int):
        return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)
