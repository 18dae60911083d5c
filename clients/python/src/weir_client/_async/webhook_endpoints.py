"""Say which addresses are called on which events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from weir_client import _transport
from weir_client._async.customers import AsyncWithApiKey
from weir_client._async.http import json_object
from weir_client._models import WebhookEndpoint, WebhookEvent

ENDPOINTS = "/v1/webhook_endpoints"


class AsyncWebhookEndpoints(AsyncWithApiKey):
    """Manage webhook endpoints, with an API key of the scope `api:webhooks`."""

    async def create(
        self, url: str, events: Sequence[str], *, description: str | None = None
    ) -> WebhookEndpoint:
        """Return a new endpoint with its `secret`, which is shown only now."""
        body: dict[str, Any] = {"url": url, "events": [*events]}
        if description is not None:
            body["description"] = description
        answer = await self._send("POST", ENDPOINTS, body=body)
        return WebhookEndpoint.model_validate(json_object(answer))

    async def get(self, endpoint_id: str) -> WebhookEndpoint:
        """Return one endpoint."""
        answer = await self._send("GET", _path(endpoint_id))
        return WebhookEndpoint.model_validate(json_object(answer))

    async def list(self) -> AsyncIterator[WebhookEndpoint]:
        """Yield the project's endpoints."""
        async for endpoint in self._list(ENDPOINTS, {}):
            yield WebhookEndpoint.model_validate(endpoint)

    async def update(self, endpoint_id: str, **fields: Any) -> WebhookEndpoint:
        """Return the endpoint with the named fields changed: `url`, `events`, `enabled`, …."""
        answer = await self._send("PATCH", _path(endpoint_id), body=fields)
        return WebhookEndpoint.model_validate(json_object(answer))

    async def delete(self, endpoint_id: str) -> None:
        """Remove an endpoint; what is on its way to it is dropped."""
        await self._send("DELETE", _path(endpoint_id))

    async def rotate_secret(self, endpoint_id: str) -> WebhookEndpoint:
        """Return the endpoint with a new `secret`. The old one signs beside it for a day."""
        answer = await self._send("POST", _path(endpoint_id) + "/rotate_secret")
        return WebhookEndpoint.model_validate(json_object(answer))

    async def test(self, endpoint_id: str) -> WebhookEvent:
        """Send the endpoint an event of type `webhook.test`, and return it."""
        answer = await self._send("POST", _path(endpoint_id) + "/test")
        return WebhookEvent.model_validate(json_object(answer))


def _path(endpoint_id: str) -> str:
    return f"{ENDPOINTS}/{_transport.segment(endpoint_id, 'endpoint_id')}"
