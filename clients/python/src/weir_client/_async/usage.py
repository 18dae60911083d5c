"""Read what was used and what it cost."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from weir_client._async.auth import AsyncAuth
from weir_client._async.http import AsyncHttp, json_object
from weir_client._models import Usage
from weir_client._tokens import Identity

Moment = datetime | date | str | int
Granularity = Literal["day", "hour", "minute"]
GroupBy = Literal["user", "customer", "session", "thread", "model", "tag", "day"]


class AsyncUsageReports:
    """Ask about one user, or about the whole project."""

    def __init__(self, http: AsyncHttp, auth: AsyncAuth) -> None:
        self._http = http
        self._auth = auth

    async def get(
        self,
        *,
        user_id: str | None = None,
        customer_id: str | None = None,
        from_: Moment | None = None,
        to: Moment | None = None,
        granularity: Granularity | None = None,
        group_by: GroupBy | None = None,
        session_id: str | None = None,
        thread_id: str | None = None,
        model: str | None = None,
        tag: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Usage:
        """Return sums of a window of time, by default from the first of the month to now.

        Args:
            user_id: Of this user, read with a token of theirs: any key that mints can do it. None
                for the whole project, which needs an API key with the scope `api:read`.
            from_: The window's begin: a date, or a time. Times without a zone are UTC.
            to: Its end, not included; a bare date counts in full.
            group_by: What `data` is added up by.
        """
        query = {
            "customer_id": customer_id,
            "from": from_,
            "to": to,
            "granularity": granularity,
            "group_by": group_by,
            "session_id": session_id,
            "thread_id": thread_id,
            "model": model,
            "tag": tag,
            "limit": limit,
            "cursor": cursor,
        }
        if user_id is not None:
            answer = await self._auth.get_as(Identity(user_id), "/v1/usage", query)
        else:
            key = self._auth.api_key("Reading the project's usage")
            answer = await self._http.send("GET", "/v1/usage", credential=key, query=query)
        return Usage.model_validate(json_object(answer))
