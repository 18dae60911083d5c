"""A provider that speaks OpenAI chat completions, reached over HTTP with a bearer.

A request runs in a thread of its own and hands over what it reads, so that the relay can send a
heartbeat or give up while the provider is silent. An answer that is no longer wanted is stopped by
shutting its socket: it must cost no more from now on, not from its next byte on.

A process serves one request at a time, as Lambda's do, so a `Provider` has one call at a time.
"""

import contextlib
import queue
import socket
import ssl
import threading
import time
from typing import Any

import httpx

from weir.chat import refusal_of_upstream
from weir.errors import Refusal, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable

# Under relay.COMMIT_AFTER_S: a provider that cannot be reached is a plain 504, not a broken stream.
CONNECT_TIMEOUT_S = 4.0
WRITE_TIMEOUT_S = 30.0
# The relay gives up first; this only frees a thread that nobody waits for any more.
READ_TIMEOUT_S = 900.0
# A connection idle for longer is not used again: providers drop them, and a frozen process cannot
# notice. Wall-clock time, because that goes on while a function is frozen.
KEEPALIVE_S = 10.0
MAX_ERROR_BYTES = 64_000


class Provider:
    """One provider's address, and the connection to it that a process keeps."""

    def __init__(self, base_url: str) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._tls = self._url.startswith("https:")
        self._ssl: ssl.SSLContext | bool = False
        self._client: httpx.Client | None = None
        self._wire = _Wire()

    def open(self, body: bytes, bearer: str, *, stream: bool) -> "Call":
        """Starts the request and returns at once."""
        if self._client is None or time.time() - self._wire.last_used > KEEPALIVE_S:
            self._client = self._fresh_client()
        headers = {
            "Authorization": f"Bearer {bearer}",
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if stream else "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "weir",
        }
        request = self._client.build_request("POST", self._url, headers=headers, content=body)
        return Call(self._client, request, self._wire, bearer.encode(), stream=stream)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _fresh_client(self) -> httpx.Client:
        self.close()
        if self._tls and self._ssl is False:
            self._ssl = httpx.create_ssl_context(trust_env=False)  # the slow part: made once
        return httpx.Client(
            verify=self._ssl,
            trust_env=False,
            timeout=httpx.Timeout(
                connect=CONNECT_TIMEOUT_S,
                write=WRITE_TIMEOUT_S,
                read=READ_TIMEOUT_S,
                pool=CONNECT_TIMEOUT_S,
            ),
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_S),
        )


class _Wire:
    """The connection in use: a call may inherit it from the one before, and must still cut it."""

    stream: Any = None
    last_used = 0.0

    def cut(self) -> None:
        sock = self.stream.get_extra_info("socket") if self.stream is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                # The plain socket's shutdown, also under TLS: SSLSocket's own would pull the TLS
                # state from under the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Call:
    """One request to a provider, running. Satisfies `relay.Upstream`."""

    def __init__(
        self,
        client: httpx.Client,
        request: httpx.Request,
        wire: _Wire,
        secret: bytes,
        *,
        stream: bool,
    ) -> None:
        self.secret = secret
        self._client = client
        self._request = request
        self._stream = stream
        self._arrived: queue.SimpleQueue[bytes | Refusal] = queue.SimpleQueue()
        self._wire = wire
        self._dialled = False
        self._closed = False
        request.extensions["trace"] = self._trace
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def receive(self, timeout_s: float) -> bytes | None:
        try:
            arrived = self._arrived.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(arrived, Refusal):
            raise arrived
        return arrived

    def close(self) -> None:
        """Ends the request wherever it is; on return the connection is closed or idle."""
        self._closed = True
        self._wire.last_used = time.time()
        if self._thread.is_alive():
            self._wire.cut()
            self._thread.join(CONNECT_TIMEOUT_S + 1)

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's trace extension: tells the socket, and is a chance to stop before sending."""
        if event == "connection.connect_tcp.started":
            self._dialled = True
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._wire.stream = info["return_value"]
        if self._closed and event == "http11.send_request_headers.started":
            raise httpx.CloseError("no longer wanted")

    def _run(self) -> None:
        try:
            self._exchange()
        except Refusal as refusal:
            self._arrived.put(refusal)
        except httpx.ConnectTimeout:
            self._arrived.put(UpstreamTimeout("The provider could not be reached in time."))
        except httpx.TimeoutException:
            self._arrived.put(UpstreamTimeout("The provider stopped answering."))
        except httpx.ConnectError:
            self._arrived.put(UpstreamUnavailable("The provider cannot be reached."))
        except (httpx.TransportError, OSError):
            self._arrived.put(UpstreamUnavailable("The connection to the provider broke."))
        except BaseException:
            # A fault of ours must not leave the relay waiting for a thread that is gone.
            self._arrived.put(UpstreamFailed("The request to the provider failed."))
            raise

    def _send(self) -> httpx.Response:
        try:
            return self._client.send(self._request, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # Nothing of an answer came, on a connection left from an earlier request: the provider
            # closed it while it was idle, and never saw this one (RFC 9112, section 9.3.1).
            if self._dialled or self._closed:
                raise
            return self._client.send(self._request, stream=True)

    def _exchange(self) -> None:
        response = self._send()
        with contextlib.closing(response):
            if response.status_code != 200:
                raise _refusal(response, self.secret)
            _check_media_type(response, stream=self._stream)
            for data in response.iter_raw():
                if self._closed:
                    return
                if data:
                    self._arrived.put(data)
        self._arrived.put(b"")


def _refusal(response: httpx.Response, secret: bytes) -> Refusal:
    body = b""
    for data in response.iter_raw():
        body += data
        if len(body) > MAX_ERROR_BYTES:
            break
    body = body.replace(secret, b"***")
    return refusal_of_upstream(response.status_code, response.headers, body)


def _check_media_type(response: httpx.Response, *, stream: bool) -> None:
    media_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
    expected = "text/event-stream" if stream else "application/json"
    if media_type != expected:
        raise UpstreamFailed(
            f"The provider answered with {media_type[:100] or 'no content type'} "
            f"instead of {expected}.",
            code="upstream_invalid_response",
        )
