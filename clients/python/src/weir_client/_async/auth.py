"""Mint user tokens, keep them, and renew a refused one once."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from weir_client._async.http import AsyncHttp, json_object
from weir_client._concurrency import AsyncLock
from weir_client._errors import AuthenticationError, BadRequest, ConfigurationError, WeirError
from weir_client._models import Token
from weir_client._tokens import TTL_S, Entries, Identity

T = TypeVar("T")


class AsyncAuth:
    """Make tokens for users: by a call to mint, or with this server's signing key."""

    def __init__(self, http: AsyncHttp) -> None:
        self._http = http
        self._entries = Entries(AsyncLock)

    async def mint(
        self,
        *,
        user_id: str,
        tier: int | str | None = None,
        ttl: int = TTL_S,
        session_id: str | None = None,
        role: str | None = None,
    ) -> Token:
        """Return a new token for a user, to hand to their page.

        Args:
            user_id: From your own verified session, never from the request's body.
            tier: The tier whose limits the user has; None for the project's own.
            ttl: Lifetime in seconds, 60 to 86400.
            session_id: None for a new session.
            role: "admin" if the API key has that role; otherwise leave it out.
        """
        who = Identity(user_id, tier, role, session_id or str(uuid.uuid4()))
        return await self._new(who, ttl, str(who.session_id))

    async def token(
        self,
        *,
        user_id: str,
        tier: int | str | None = None,
        role: str | None = None,
        session_id: str | None = None,
    ) -> Token:
        """Return a token for calls from this server, from memory as long as it lives.

        Without `session_id` all calls for the same user, tier and role share one session, which no
        other user has. Use `mint` for a page: its tokens are not shared.
        """
        return await self._kept(Identity(user_id, tier, role, session_id))

    async def revoke(
        self,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        token: str | None = None,
    ) -> bool:
        """Refuse a user's tokens, those of one of their sessions, or one token, from now on.

        Returns:
            False if `token` has ended already or is none of this gateway.
        """
        named = {"user_id": user_id, "session_id": session_id, "token": token}
        answer = await self._http.send(
            "POST",
            "/v1/auth/revoke",
            credential=self.api_key("Revoking"),
            body={name: value for name, value in named.items() if value is not None},
        )
        if user_id is not None:
            self._entries.forget_user(user_id)
        return bool(json_object(answer).get("revoked"))

    def api_key(self, what: str) -> str:
        """Return the API key. Raises ConfigurationError if this server signs tokens instead."""
        if self._http.settings.api_key is None:
            raise ConfigurationError(f"{what} needs an API key, and the key signs tokens.")
        return self._http.settings.api_key

    async def as_user(self, who: Identity, call: Callable[[str], Awaitable[T]]) -> T:
        """Return what `call` returns for the user's token; renew a refused token once."""
        token = await self._kept(who)
        try:
            return await call(token.token)
        except AuthenticationError:
            self._entries.of(who).drop(token)
        renewed = await self._kept(who)
        return await call(renewed.token)

    async def get_as(self, who: Identity, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return the answer to a GET with the user's token."""
        return await self.send_as(who, "GET", path, query=query)

    async def send_as(self, who: Identity, method: str, path: str, **more: Any) -> Any:
        """Return the answer to a request with the user's token."""

        async def call(token: str) -> Any:
            return await self._http.send(method, path, credential=token, **more)

        return await self.as_user(who, call)

    async def list_as(
        self, who: Identity, path: str, query: Mapping[str, Any]
    ) -> AsyncIterator[Any]:
        """Yield the entries of a list that the user may read."""

        async def get(parameters: Mapping[str, Any]) -> Any:
            return await self.get_as(who, path, parameters)

        async for entry in self._http.pages(get, query):
            yield entry

    async def _kept(self, who: Identity) -> Token:
        entry = self._entries.of(who)
        token = entry.fresh(self._entries.clock())
        if token is not None:
            return token
        failures = entry.failures
        async with entry.lock:
            token = entry.fresh(self._entries.clock())
            if token is not None:
                return token
            # Those who wait share one failure; otherwise each would wait for its own in turn.
            entry.raise_if_failed_since(failures)
            asked_at = self._entries.clock()
            try:
                token = await self._new(who, TTL_S, entry.session_id)
            except WeirError as error:
                entry.failed(error)
                raise
            entry.hold(token, asked_at)
            return token

    async def _new(self, who: Identity, ttl: int, session_id: str) -> Token:
        settings = self._http.settings
        if settings.mode == "customers":
            raise ConfigurationError(
                "An API key sk_live_… has customers, not users: pass customer=, or use a key"
                " behest_sk_live_…."
            )
        if settings.signer is not None:
            if who.role not in (None, "user"):
                raise BadRequest("A signed token's role is always user.", param="role")
            signed = settings.signer.sign(
                user_id=who.user_id, ttl=ttl, session_id=session_id, tier=who.tier
            )
            return Token.model_validate(signed)
        wanted = {
            "user_id": who.user_id,
            "ttl": ttl,
            "session_id": session_id,
            "tier": who.tier,
            "role": who.role,
        }
        asked_at = int(time.time())
        answer = await self._http.send(
            "POST",
            "/v1/auth/mint",
            credential=self.api_key("Minting"),
            body={name: value for name, value in wanted.items() if value is not None},
        )
        told = json_object(answer)
        return Token.model_validate({"expires_at": asked_at + ttl, **told})
