"""A gateway within the process, for what the running one cannot be made to do on demand."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import openai

from weir_client import AsyncWeir, Weir

KEY = "behest_sk_live_" + "0" * 32
URL = "https://gateway.test/live"
HELLO: list[Any] = [{"role": "user", "content": "hi"}]

Reply = Callable[[httpx2.Request], httpx2.Response]


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """The frames of a stream; an exception among them breaks the connection."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = parts
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Gateway:
    """Answers mint by itself and everything else as the test has scripted it, in order.

    `minted` counts tokens; a token's text says which it is.
    """

    def __init__(self, *replies: Reply | httpx2.Response) -> None:
        self.replies = list(replies)
        self.requests: list[httpx2.Request] = []
        self.mint: Reply = self._mint
        self.minted = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        path = request.url.path.removeprefix("/live")
        if path == "/v1/auth/mint":
            return self.mint(request)
        if path.endswith("/cancel"):
            return httpx2.Response(200, json={"cancelled": True})
        reply = self.replies.pop(0)
        return reply if isinstance(reply, httpx2.Response) else reply(request)

    def _mint(self, request: httpx2.Request) -> httpx2.Response:
        self.minted += 1
        asked = json.loads(request.content)
        return httpx2.Response(
            200,
            json={
                "token": f"token-{self.minted}",
                "jwt": f"token-{self.minted}",
                "ttl": asked["ttl"],
                "session_id": asked["session_id"],
                "expires_at": 0,
                "project_id": "shop",
            },
        )

    def paths(self) -> list[str]:
        return [request.url.path.removeprefix("/live/v1") for request in self.requests]

    def bodies(self, path: str) -> list[Any]:
        return [
            json.loads(request.content)
            for request in self.requests
            if request.url.path == "/live/v1" + path
        ]

    def weir(self, **more: Any) -> Weir:
        client = openai.DefaultHttpxClient(transport=httpx2.MockTransport(self))
        return Weir(**{"key": KEY, "base_url": URL, "http_client": client, **more})

    def async_weir(self, **more: Any) -> AsyncWeir:
        async def handle(request: httpx2.Request) -> httpx2.Response:
            return self(request)

        client = openai.DefaultAsyncHttpxClient(transport=httpx2.MockTransport(handle))
        return AsyncWeir(**{"key": KEY, "base_url": URL, "http_client": client, **more})


def chunk(text: str = "", finish_reason: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish_reason}
    return frame({"choices": [choice]})


def frame(told: dict[str, Any]) -> bytes:
    common = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**common, **told}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
USAGE = frame(
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
)


def stream(*parts: bytes | Exception) -> httpx2.Response:
    headers = {"Content-Type": "text/event-stream", "X-Request-Id": "req-1"}
    return httpx2.Response(200, headers=headers, stream=Body(*parts))


def answer(text: str = "hello", finish_reason: str | None = "stop") -> httpx2.Response:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    told = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m"}
    return httpx2.Response(200, json={**told, "choices": [choice]})


def failure(
    status: int,
    code: str,
    *,
    retryable: bool = False,
    headers: dict[str, str] | None = None,
    **error: Any,
) -> httpx2.Response:
    told = {
        "error": {"message": "No.", "code": code, "request_id": "req-9", **error},
        "code": code,
        "message": "No.",
        "retryable": retryable,
    }
    return httpx2.Response(status, json=told, headers=headers or {})
