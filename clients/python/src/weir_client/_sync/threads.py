# Generated from _async by make_sync.py: change that, and run it.
"""Read, rename and delete the stored conversations of a user."""

from __future__ import annotations

from collections.abc import Iterator

from weir_client import _transport
from weir_client._models import Thread, ThreadExport, ThreadMessage
from weir_client._sync.auth import Auth
from weir_client._sync.http import json_object
from weir_client._tokens import Identity

THREADS = "/v1/threads"


class Threads:
    """Reach the threads of one user at a time. Another user's thread raises NotFound."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def list(self, *, user_id: str, search: str | None = None) -> Iterator[Thread]:
        """Yield the user's threads, the last used one first. `search` looks into titles."""
        found = self._auth.list_as(Identity(user_id), THREADS, {"search": search})
        for thread in found:
            yield Thread.model_validate(thread)

    def get(self, thread_id: str, *, user_id: str) -> Thread:
        """Return one thread."""
        answer = self._auth.get_as(Identity(user_id), _path(thread_id))
        return Thread.model_validate(json_object(answer))

    def rename(self, thread_id: str, title: str, *, user_id: str) -> Thread:
        """Return the thread with its new title, of 1 to 200 characters."""
        answer = self._auth.send_as(
            Identity(user_id), "PATCH", _path(thread_id), body={"title": title}
        )
        return Thread.model_validate(json_object(answer))

    def delete(self, thread_id: str, *, user_id: str) -> None:
        """Delete one thread, if it exists."""
        self._auth.send_as(Identity(user_id), "DELETE", _path(thread_id))

    def delete_all(self, *, user_id: str) -> None:
        """Delete all threads and remembered sessions of the user."""
        self._auth.send_as(Identity(user_id), "DELETE", THREADS, query={"confirm": "all"})

    def messages(self, thread_id: str, *, user_id: str) -> Iterator[ThreadMessage]:
        """Yield the thread's messages, the oldest first."""
        found = self._auth.list_as(Identity(user_id), _path(thread_id) + "/messages", {})
        for message in found:
            yield ThreadMessage.model_validate(message)

    def export(self, thread_id: str, *, user_id: str) -> ThreadExport:
        """Return the thread with all of its messages."""
        who, path = Identity(user_id), _path(thread_id) + "/export"
        part = json_object(self._auth.get_as(who, path))
        whole = {"thread": part["thread"], "messages": part["messages"]}
        while part.get("next_cursor"):
            cursor = {"cursor": part["next_cursor"]}
            part = json_object(self._auth.get_as(who, path, cursor))
            whole["messages"] += part["messages"]
        return ThreadExport.model_validate(whole)


def _path(thread_id: str) -> str:
    return f"{THREADS}/{_transport.segment(thread_id, 'thread_id')}"
