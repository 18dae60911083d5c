# Generated from _async by make_sync.py: change that, and run it.
"""Chat on a user's behalf, with the types of the openai package."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from typing_extensions import Self

from weir_client import _transport
from weir_client._concurrency import shield
from weir_client._errors import BadRequest, ConnectionFailed, NotFound, StreamCut, WeirError
from weir_client._sync.auth import Auth
from weir_client._sync.http import Http, json_object
from weir_client._tokens import Identity

T = TypeVar("T")


class Stream:
    """Iterate over the chunks of an answer.

    Leaving the loop early, `close` and the end of `with` cancel an answer that still runs,
    so that it is not charged any further. Chunks without choices (usage) are left out unless
    `stream_options={"include_usage": True}` was passed.

    Attributes:
        id: The answer's id, which `cancel` takes.
        response: The httpx response, for its headers.
    """

    def __init__(
        self,
        source: openai.Stream[ChatCompletionChunk],
        *,
        id: str,
        choices: int,
        with_usage: bool,
        cancel: Callable[[], None],
    ) -> None:
        self.id = id
        self.response = source.response
        self._source = source
        self._running = set(range(choices))
        self._with_usage = with_usage
        self._cancel = cancel
        self._closed = False

    @property
    def request_id(self) -> str | None:
        """Return what finds the request in the gateway's logs."""
        return self.response.headers.get("x-request-id")

    def __next__(self) -> ChatCompletionChunk:
        """Return the next chunk.

        Raises:
            StreamCut: The answer ended without a finish reason.
            WeirError: The answer failed.
        """
        if self._closed:
            raise StopIteration
        try:
            while True:
                chunk = self._source.__next__()
                for choice in chunk.choices or ():
                    if choice.finish_reason:
                        self._running.discard(choice.index)
                if chunk.choices or self._with_usage:
                    return chunk
        except StopIteration:
            whole = not self._running
            self._end()
            if not whole:
                raise StreamCut(
                    "The answer ended without a finish reason.", request_id=self.request_id
                ) from None
            raise
        except (openai.OpenAIError, _transport.HttpFailure, ValueError) as error:
            if isinstance(error, openai.APIError) and error.body is not None:
                self._end()  # the gateway has ended it, and says why
            else:
                self.close()
            raise _transport.broken(error, self.request_id) from error
        except GeneratorExit:
            raise
        except BaseException:  # this task is being cancelled
            self.close()
            raise

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        """Yield the chunks that are left. A loop that ends early ends the answer."""
        try:
            while True:
                try:
                    chunk = self.__next__()
                except StopIteration:
                    return
                yield chunk
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the answer if it still runs, and give the connection back."""
        if self._closed:
            return
        with shield():
            if self._running:
                self._cancel()
            self._end()

    def _end(self) -> None:
        self._closed = True
        self._source.close()


class Completions:
    """Create answers, and cancel them."""

    def __init__(self, http: Http, auth: Auth) -> None:
        self._http = http
        self._auth = auth

    @overload
    def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam | dict[str, Any]],
        stream: Literal[True],
        user_id: str | None = None,
        customer: str | None = None,
        model: str = "default",
        tier: int | str | None = None,
        session_id: str | None = None,
        thread_id: str | None = None,
        tag: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Stream: ...

    @overload
    def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam | dict[str, Any]],
        stream: Literal[False] = False,
        user_id: str | None = None,
        customer: str | None = None,
        model: str = "default",
        tier: int | str | None = None,
        session_id: str | None = None,
        thread_id: str | None = None,
        tag: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> ChatCompletion: ...

    @overload
    def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam | dict[str, Any]],
        stream: bool,
        user_id: str | None = None,
        customer: str | None = None,
        model: str = "default",
        tier: int | str | None = None,
        session_id: str | None = None,
        thread_id: str | None = None,
        tag: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> ChatCompletion | Stream: ...

    def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam | dict[str, Any]],
        stream: bool = False,
        user_id: str | None = None,
        customer: str | None = None,
        model: str = "default",
        tier: int | str | None = None,
        session_id: str | None = None,
        thread_id: str | None = None,
        tag: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> ChatCompletion | Stream:
        """Return an answer, or with `stream=True` a stream of its chunks.

        Args:
            messages: The conversation; with `thread_id` the newest message is enough.
            user_id: The user whose limits and usage this is.
            customer: Instead of `user_id`, with an API key `sk_live_…`: `ext:user_42` or `cust_…`.
                None for the project itself.
            model: "default" is the project's default.
            tier: The tier whose limits the user has.
            session_id: A session of its own; see `auth.token` for the default.
            thread_id: The stored conversation that this continues.
            tag: A label for usage.
            request_id: The answer's id, if you want to choose it; for `cancel`.
            timeout: Seconds of silence after which to give up and cancel: 600, streaming 60.
            fields: Any other field of OpenAI's request.

        Raises:
            StreamCut: The answer has no finish reason.
            WeirError: See the package's errors.
        """
        id = request_id or f"chatcmpl-{uuid.uuid4().hex}"
        headers = _transport.header_values(
            {"X-Client-Request-Id": id, "X-Thread-Id": thread_id, "FC-Tag": tag}
        )
        silence_s = timeout or (
            _transport.STREAM_TIMEOUT_S if stream else _transport.CHAT_TIMEOUT_S
        )
        body = {"messages": list(messages), "model": model, **fields}

        def call(credential: str, more: Mapping[str, str]) -> ChatCompletion | Stream:
            def once() -> ChatCompletion | Stream:
                return self._ask(
                    {**headers, **more, **(extra_headers or {})},
                    credential,
                    body,
                    stream=stream,
                    timeout=_transport.timeout(silence_s),
                )

            return self._http.with_retries(once)

        if customer is not None or (user_id is None and self._http.settings.mode == "customers"):
            return self._as_customer(customer, call)
        who = _identity(user_id, tier, session_id)
        return self._auth.as_user(who, lambda token: call(token, {}))

    def cancel(self, id: str, *, user_id: str | None = None, customer: str | None = None) -> bool:
        """Stop an answer that is running, at the provider, too.

        Returns:
            False if none with this id is running: it has ended, or is another user's.
        """

        def call(credential: str, more: Mapping[str, str]) -> bool:
            path = f"{_transport.CHAT}/{_transport.segment(id, 'id')}/cancel"
            try:
                answer = self._http.send("POST", path, credential=credential, headers=more)
            except NotFound:
                return False
            return bool(json_object(answer).get("cancelled"))

        if customer is not None or (user_id is None and self._http.settings.mode == "customers"):
            return self._as_customer(customer, call)
        return self._auth.as_user(_identity(user_id, None, None), lambda token: call(token, {}))

    def _as_customer(self, customer: str | None, call: Callable[[str, Mapping[str, str]], T]) -> T:
        return call(
            self._auth.api_key("Chatting for a customer"),
            _transport.header_values({"FC-Customer": customer}),
        )

    def _ask(
        self,
        headers: Mapping[str, str],
        credential: str,
        body: Mapping[str, Any],
        *,
        stream: bool,
        timeout: openai.Timeout,
    ) -> ChatCompletion | Stream:
        id = headers["X-Client-Request-Id"]

        def cancel() -> None:
            self._cancel_quietly(id, credential, headers)

        fields: dict[str, Any] = dict(body)
        try:
            answer = self._http.openai.chat.completions.create(
                stream=stream,
                timeout=timeout,
                extra_headers={**headers, "Authorization": f"Bearer {credential}"},
                **fields,
            )
        except openai.OpenAIError as error:
            failure = _transport.translated(error)
            if isinstance(failure, ConnectionFailed):
                cancel()
            raise failure from error
        except TypeError as error:  # a field that the installed openai does not know
            raise BadRequest(f"{error}. Pass new fields in extra_body.") from error
        except GeneratorExit:
            raise
        except BaseException:  # this task is being cancelled
            with shield():
                cancel()
            raise
        if isinstance(answer, openai.Stream):
            options = body.get("stream_options") or {}
            return Stream(
                answer,
                id=id,
                choices=body.get("n") or 1,
                with_usage=bool(options.get("include_usage")),
                cancel=cancel,
            )
        if any(not choice.finish_reason for choice in answer.choices or ()):
            raise StreamCut("The answer has no finish reason.", request_id=answer._request_id)
        return answer

    def _cancel_quietly(self, id: str, credential: str, headers: Mapping[str, str]) -> None:
        """Cancel an answer that is not wanted any more. What fails here concerns no one."""
        path = f"{_transport.CHAT}/{_transport.segment(id, 'id')}/cancel"
        customer = {name: headers[name] for name in ("FC-Customer",) if name in headers}
        try:
            self._http.send(
                "POST",
                path,
                credential=credential,
                headers=customer,
                timeout=_transport.CANCEL_TIMEOUT_S,
                retry=False,
            )
        except WeirError:
            return


class Chat:
    """Hold `completions`, as the openai package does."""

    def __init__(self, http: Http, auth: Auth) -> None:
        self.completions = Completions(http, auth)


def _identity(user_id: str | None, tier: int | str | None, session_id: str | None) -> Identity:
    return Identity(user_id or "", tier, None, session_id)
