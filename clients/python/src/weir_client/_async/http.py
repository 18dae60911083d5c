"""Send requests with a credential, and raise WeirError for every failure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import openai

from weir_client import _transport
from weir_client._concurrency import async_sleep
from weir_client._errors import BadRequest, WeirError, from_response
from weir_client._settings import Settings

T = TypeVar("T")


class AsyncHttp:
    """Hold the one pool of connections, which the openai client shares."""

    def __init__(
        self,
        settings: Settings,
        *,
        http_client: Any,
        timeout: float,
        max_retries: int,
    ) -> None:
        self.settings = settings
        self.max_retries = max_retries
        self._timeout = timeout
        self._own = http_client is None
        self.client = http_client or openai.DefaultAsyncHttpxClient(follow_redirects=False)
        self.openai = openai.AsyncOpenAI(
            api_key="set for each request",
            base_url=settings.base_url + "/v1",
            http_client=self.client,
            max_retries=0,  # `with_retries` knows which failures waiting can help
            default_headers={"User-Agent": _transport.USER_AGENT},
        )
        # Of the environment: they belong to an account at OpenAI.
        self.openai.organization = self.openai.project = None

    async def aclose(self) -> None:
        """Close the connections, unless the caller brought them."""
        if self._own:
            await self.client.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        credential: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        retry: bool = True,
    ) -> Any:
        """Return the answer (an httpx response, already read).

        Raises:
            WeirError: No answer came, or one with another status than 2xx.
        """

        async def once() -> Any:
            try:
                answer = await self.client.request(
                    method,
                    self.settings.base_url + path,
                    headers={
                        "Authorization": f"Bearer {credential}",
                        "User-Agent": _transport.USER_AGENT,
                        **(headers or {}),
                    },
                    json=None if body is None else dict(body),
                    params=_transport.parameters(query or {}) or None,
                    timeout=_transport.timeout(timeout or self._timeout),
                    follow_redirects=False,  # it would carry the credential somewhere else
                )
            except _transport.HttpFailure as error:
                raise _transport.no_answer(error) from error
            if not answer.is_success:
                raise from_response(answer.status_code, answer.headers, answer.content)
            return answer

        return await self.with_retries(once) if retry else await once()

    async def pages(
        self, get: Callable[[Mapping[str, Any]], Awaitable[Any]], query: Mapping[str, Any]
    ) -> AsyncIterator[Any]:
        """Yield the entries of a list, page after page.

        `get` fetches the page for some parameters. Its answer is a bare array with its cursor in
        `X-Next-Cursor`, or an object with `data` and `next_cursor`.
        """
        cursor: str | None = None
        while True:
            answer = await get({**query, "cursor": cursor})
            page = answer.json()
            if isinstance(page, dict):
                entries, cursor = page.get("data") or [], page.get("next_cursor")
            else:
                entries, cursor = page, answer.headers.get("x-next-cursor")
            for entry in entries:
                yield entry
            if not cursor:
                return

    async def with_retries(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns; repeat it after failures that a short wait can help."""
        attempt = 0
        while True:
            try:
                return await call()
            except WeirError as error:
                wait = _transport.wait_before_retry(error, attempt, self.max_retries)
                if wait is None:
                    raise
            attempt += 1
            await async_sleep(wait)


def json_object(answer: Any) -> dict[str, Any]:
    """Return the answer's JSON object. Raises BadRequest if a proxy answered something else."""
    try:
        told = answer.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise BadRequest("The address answers, but not as a gateway.", param="base_url")
    return told
