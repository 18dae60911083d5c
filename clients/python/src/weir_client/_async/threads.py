"""Read, rename and delete the stored conversations of a user."""

from __future__ import annotations

from collections.abc import AsyncIterator

from weir_client import _transport
from weir_client._async.auth import AsyncAuth
from weir_client._async.http import json_object
from weir_client._models import Thread, ThreadExport, ThreadMessage
from weir_client._tokens import Identity

THREADS = "/v1/threads"


class AsyncThreads:
    """Reach the threads of one user at a time. Another user's thread raises NotFound."""

    def __init__(self, auth: AsyncAuth) -> None:
        self._auth = auth

    async def list(self, *, user_id: str, search: str | None = None) -> AsyncIterator[Thread]:
        """Yield the user's threads, the last used one first. `search` looks into titles."""
        found = self._auth.list_as(Identity(user_id), THREADS, {"search": search})
        async for thread in found:
            yield Thread.model_validate(thread)

    async def get(self, thread_id: str, *, user_id: str) -> Thread:
        """Return one thread."""
        answer = await self._auth.get_as(Identity(user_id), _path(thread_id))
        return Thread.model_validate(json_object(answer))

    async def rename(self, thread_id: str, title: str, *, user_id: str) -> Thread:
        """Return the thread with its new title, of 1 to 200 characters."""
        answer = await self._auth.send_as(
            Identity(user_id), "PATCH", _path(thread_id), body={"title": title}
        )
        return Thread.model_validate(json_object(answer))

    async def delete(self, thread_id: str, *, user_id: str) -> None:
        """Delete one thread, if it exists."""
        await self._auth.send_as(Identity(user_id), "DELETE", _path(thread_id))

    async def delete_all(self, *, user_id: str) -> None:
        """Delete all threads and remembered sessions of the user."""
        await self._auth.send_as(Identity(user_id), "DELETE", THREADS, query={"confirm": "all"})

    async def messages(self, thread_id: str, *, user_id: str) -> AsyncIterator[ThreadMessage]:
        """Yield the thread's messages, the oldest first."""
        found = self._auth.list_as(Identity(user_id), _path(thread_id) + "/messages", {})
        async for message in found:
            yield ThreadMessage.model_validate(message)

    async def export(self, thread_id: str, *, user_id: str) -> ThreadExport:
        """Return the thread with all of its messages."""
        who, path = Identity(user_id), _path(thread_id) + "/export"
        part = json_object(await self._auth.get_as(who, path))
        whole = {"thread": part["thread"], "messages": part["messages"]}
        while part.get("next_cursor"):
            cursor = {"cursor": part["next_cursor"]}
            part = json_object(await self._auth.get_as(who, path, cursor))
            whole["messages"] += part["messages"]
        return ThreadExport.model_validate(whole)


def _path(thread_id: str) -> str:
    return f"{THREADS}/{_transport.segment(thread_id, 'thread_id')}"
