"""Sign user tokens on this server, without a call to the gateway."""

from __future__ import annotations

import base64
import binascii
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from weir_client._errors import BadRequest, ConfigurationError

PREFIX = "behest_pk_"
TTL_S = range(60, 86_401)
RESERVED_USERS = frozenset({"admin", "dashboard-service", "system"})
NOT_A_KEY = (
    "The key is neither an API key (behest_sk_live_… or sk_live_…) nor a private key as"
    " `weir signing create` prints it (the base64 of a PEM)."
)
NEEDS_PYJWT = "Signing tokens needs PyJWT: pip install 'weir-client[signing]'."
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)


class Signer:
    """Sign tokens of one project with a signing key of its own."""

    def __init__(self, private_key: Any, *, kid: str, tenant_id: str, project_id: str) -> None:
        self._private_key = private_key
        self.kid = kid
        self.tenant_id = tenant_id
        self.project_id = project_id

    @classmethod
    def load(
        cls,
        secret: str,
        *,
        kid: Callable[[], str],
        tenant_id: Callable[[], str],
        project_id: Callable[[], str],
    ) -> Signer:
        """Return a signer for a private key in any form in which environments carry it.

        The forms are: the base64 of a PEM, or a PEM, whose line breaks may be written as `\\n` or
        as spaces; each with or without the prefix `behest_pk_`.

        Raises:
            ConfigurationError: It is no RSA private key, or PyJWT is not installed.
        """
        pem = _pem(secret.removeprefix(PREFIX))
        try:
            from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
            from cryptography.hazmat.primitives.serialization import load_pem_private_key
        except ImportError as error:
            raise ConfigurationError(NEEDS_PYJWT) from error
        try:
            private_key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            raise ConfigurationError(NOT_A_KEY) from None  # the cause could quote the key
        if not isinstance(private_key, RSAPrivateKey):
            raise ConfigurationError("The signing key must be an RSA key.")
        return cls(private_key, kid=kid(), tenant_id=tenant_id(), project_id=project_id())

    def sign(
        self, *, user_id: str, ttl: int, session_id: str, tier: int | str | None
    ) -> dict[str, Any]:
        """Return what mint would answer: the token with its lifetime and session.

        Raises:
            BadRequest: Mint would refuse the user or the lifetime, too.
            ConfigurationError: PyJWT is not installed.
        """
        try:
            import jwt
        except ImportError as error:
            raise ConfigurationError(NEEDS_PYJWT) from error
        if user_id.lower() in RESERVED_USERS:
            raise BadRequest(f"The user id {user_id!r} is reserved.", param="user_id")
        if ttl not in TTL_S:
            raise BadRequest("ttl must be whole seconds from 60 to 86400.", param="ttl")
        now = int(time.time())
        claims: dict[str, Any] = {
            "tid": self.tenant_id,
            "pid": self.project_id,
            "uid": user_id,
            "role": "user",
            "scp": [],
            "iss": "behest",
            "aud": "behest",
            "iat": now,
            "nbf": now,
            "exp": now + ttl,
            "jti": str(uuid.uuid4()),
            "sid": session_id,
        }
        if tier is not None:
            claims["tier"] = tier
        token = jwt.encode(claims, self._private_key, algorithm="RS256", headers={"kid": self.kid})
        return {
            "token": token,
            "token_type": "Bearer",
            "project_id": self.project_id,
            "tenant_id": self.tenant_id,
            "session_id": session_id,
            "ttl": ttl,
            "expires_at": now + ttl,
        }


def _pem(text: str) -> bytes:
    if "-----BEGIN" not in text:
        try:
            text = base64.b64decode("".join(text.split()), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigurationError(NOT_A_KEY) from None
    found = _PEM.search(text)
    if found is None:
        raise ConfigurationError(NOT_A_KEY)
    # Escaped line breaks, spaces and indentation all become the line breaks that parsers want.
    body = "\n".join(found[2].replace("\\n", " ").replace("\\r", " ").split())
    return f"-----BEGIN {found[1]}-----\n{body}\n-----END {found[1]}-----\n".encode()
