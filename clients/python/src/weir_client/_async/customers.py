"""Manage customers and the tokens of their pages, with an API key `sk_live_…`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from weir_client import _transport
from weir_client._async.auth import AsyncAuth
from weir_client._async.http import AsyncHttp, json_object
from weir_client._errors import BadRequest
from weir_client._models import ClientToken, ClientTokenRecord, Customer, Usage

CUSTOMERS = "/v1/customers"


class AsyncWithApiKey:
    """Send requests with the API key itself."""

    def __init__(self, http: AsyncHttp, auth: AsyncAuth) -> None:
        self._http = http
        self._auth = auth

    async def _send(self, method: str, path: str, **more: Any) -> Any:
        key = self._auth.api_key("This")
        return await self._http.send(method, path, credential=key, **more)

    async def _list(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[Any]:
        async def get(parameters: Mapping[str, Any]) -> Any:
            return await self._send("GET", path, query=parameters)

        async for entry in self._http.pages(get, query):
            yield entry


class AsyncCustomers(AsyncWithApiKey):
    """Create, read, change and delete customers.

    A customer is named by the external id, which is your own id of the user, or by `id="cust_…"`.
    Fields are those of the gateway's documentation: `budget_usd`, `rate_limit_rpm`, `name`, ….
    """

    async def create(
        self, external_id: str, *, idempotency_key: str | None = None, **fields: Any
    ) -> Customer:
        """Return a new customer. Raises Conflict if there is one; `put` does not mind."""
        answer = await self._send(
            "POST",
            CUSTOMERS,
            body={"external_id": external_id, **fields},
            # A repetition after a broken connection must find its own first attempt.
            headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
        )
        return Customer.model_validate(json_object(answer))

    async def put(self, external_id: str, **fields: Any) -> Customer:
        """Return the customer, created or changed. What `fields` does not name stays."""
        path = f"{CUSTOMERS}/{_transport.customer_reference(external_id, None)}"
        answer = await self._send("PUT", path, body=fields)
        return Customer.model_validate(json_object(answer))

    async def get(self, external_id: str | None = None, *, id: str | None = None) -> Customer:
        """Return one customer."""
        answer = await self._send("GET", _customer(external_id, id))
        return Customer.model_validate(json_object(answer))

    async def list(self, *, status: str | None = None) -> AsyncIterator[Customer]:
        """Yield all customers, the newest first."""
        async for customer in self._list(CUSTOMERS, {"status": status, "limit": 100}):
            yield Customer.model_validate(customer)

    async def update(
        self, external_id: str | None = None, *, id: str | None = None, **fields: Any
    ) -> Customer:
        """Return the customer with the named fields changed. Counts on their next request."""
        answer = await self._send("PATCH", _customer(external_id, id), body=fields)
        return Customer.model_validate(json_object(answer))

    async def delete(self, external_id: str | None = None, *, id: str | None = None) -> None:
        """Delete the customer and refuse their tokens."""
        await self._send("DELETE", _customer(external_id, id))

    async def usage(
        self, external_id: str | None = None, *, id: str | None = None, **query: Any
    ) -> Usage:
        """Return what the customer has used. `query` as for `usage.get`."""
        if "from_" in query:
            query["from"] = query.pop("from_")
        answer = await self._send("GET", _customer(external_id, id) + "/usage", query=query)
        return Usage.model_validate(json_object(answer))


class AsyncClientTokens(AsyncWithApiKey):
    """Mint, list and revoke the tokens that customers' pages use."""

    async def mint(
        self,
        external_id: str | None = None,
        *,
        id: str | None = None,
        origin_allowlist: Sequence[str],
        ttl_seconds: int = 900,
        **fields: Any,
    ) -> ClientToken:
        """Return a new token for one customer's page.

        Args:
            external_id: The customer, from your own verified session.
            origin_allowlist: The origins of your pages, from your own settings.
            ttl_seconds: 60 to 3600.
            fields: `scope`, `ip`, `bind_ip`, `models`, `max_requests`, `max_spend_usd`, ….
        """
        if isinstance(origin_allowlist, str):
            raise BadRequest("origin_allowlist is a list of origins.", param="origin_allowlist")
        body = {"origin_allowlist": list(origin_allowlist), "ttl_seconds": ttl_seconds, **fields}
        answer = await self._send("POST", _tokens(external_id, id), body=body)
        return ClientToken.model_validate(json_object(answer))

    async def list(
        self,
        external_id: str | None = None,
        *,
        id: str | None = None,
        active: bool | None = None,
    ) -> AsyncIterator[ClientTokenRecord]:
        """Yield the records of a customer's tokens."""
        async for record in self._list(_tokens(external_id, id), {"active": active}):
            yield ClientTokenRecord.model_validate(record)

    async def revoke(self, token_id: str) -> None:
        """Refuse one token from its next request on."""
        await self._send("DELETE", f"/v1/client_tokens/{_transport.segment(token_id, 'token_id')}")

    async def revoke_all(self, external_id: str | None = None, *, id: str | None = None) -> None:
        """Refuse all tokens that the customer has now."""
        await self._send("DELETE", _tokens(external_id, id))


def _customer(external_id: str | None, customer_id: str | None) -> str:
    return f"{CUSTOMERS}/{_transport.customer_reference(external_id, customer_id)}"


def _tokens(external_id: str | None, customer_id: str | None) -> str:
    return _customer(external_id, customer_id) + "/client_tokens"
