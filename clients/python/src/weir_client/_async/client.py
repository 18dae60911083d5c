"""Gather what a server does with a gateway in one object."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from typing_extensions import Self

from weir_client import _settings, _transport
from weir_client._async.auth import AsyncAuth
from weir_client._async.chat import AsyncChat
from weir_client._async.customers import AsyncClientTokens, AsyncCustomers
from weir_client._async.http import AsyncHttp, json_object
from weir_client._async.threads import AsyncThreads
from weir_client._async.usage import AsyncUsageReports
from weir_client._async.webhook_endpoints import AsyncWebhookEndpoints
from weir_client._models import Me
from weir_client._tokens import Identity


class AsyncWeir:
    """Call a gateway from a server. Make one for the process, and share it.

    Each setting is an argument or a variable; WEIR_ names win over BEHEST_ names:

        key         WEIR_KEY, BEHEST_KEY: an API key, or the private key of local signing
        base_url    WEIR_BASE_URL, BEHEST_BASE_URL
        kid         WEIR_KID, BEHEST_KID (local signing only, as are the next two)
        tenant_id   WEIR_TENANT_ID, BEHEST_TENANT_ID
        project_id  WEIR_PROJECT_ID, BEHEST_PROJECT_ID

    Args:
        timeout: Seconds until a call other than chat is given up.
        max_retries: How often a call is repeated after a failure that a short wait can help.
        http_client: Connections of your own, for a proxy or a certificate: an
            `openai.DefaultAsyncHttpxClient`. You close it.

    Raises:
        ConfigurationError: A setting is missing or wrong.
    """

    def __init__(
        self,
        *,
        key: str | None = None,
        base_url: str | None = None,
        kid: str | None = None,
        tenant_id: str | None = None,
        project_id: str | None = None,
        timeout: float = _transport.JSON_TIMEOUT_S,
        max_retries: int = 2,
        http_client: Any = None,
    ) -> None:
        self._settings = _settings.read(
            key=key, base_url=base_url, kid=kid, tenant_id=tenant_id, project_id=project_id
        )
        self._http = AsyncHttp(
            self._settings, http_client=http_client, timeout=timeout, max_retries=max_retries
        )
        self.auth = AsyncAuth(self._http)
        self.chat = AsyncChat(self._http, self.auth)
        self.threads = AsyncThreads(self.auth)
        self.usage = AsyncUsageReports(self._http, self.auth)
        self.customers = AsyncCustomers(self._http, self.auth)
        self.client_tokens = AsyncClientTokens(self._http, self.auth)
        self.webhook_endpoints = AsyncWebhookEndpoints(self._http, self.auth)

    @property
    def base_url(self) -> str:
        """Return the gateway's address, without `/v1`."""
        return self._settings.base_url

    async def me(self, *, user_id: str, tier: int | str | None = None) -> Me:
        """Return a user's limits, and what is left of them."""
        answer = await self.auth.get_as(Identity(user_id, tier), "/v1/me")
        return Me.model_validate(json_object(answer))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r}, mode={self._settings.mode!r})"
