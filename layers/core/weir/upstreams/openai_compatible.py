"""A provider that speaks OpenAI chat completions, reached over HTTP.

A request is opened in a thread of its own, so that the relay can send a heartbeat or give up while
the provider is silent. Once a chunked answer has begun, the relay's own thread reads it from the
socket: a thread in between would cost each chunk a switch. An answer that is no longer wanted is
stopped by shutting its socket: it must cost no more from now on, not from its next byte on.

The standard library's client dials, speaks TLS, sends and reads every head; its socket is at hand,
and it is imported anyway (docs/decisions/0004). A process serves one request at a time, as Lambda
does, so a `Provider` has one connection and one call at a time.
"""

import contextlib
import http.client
import queue
import threading
import time
from urllib.parse import urlsplit

from weir.chat.masking import Mask
from weir.connections.ahead import Ahead
from weir.connections.channel import Channel
from weir.connections.http1 import Connection
from weir.errors import Refusal, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from weir.projects.upstream_kinds import Destination
from weir.upstreams.chunked import ChunkedDecoder
from weir.upstreams.encodings import Inflater, inflater_for

# Under relay.COMMIT_AFTER_S: a provider that cannot be reached is a plain 504, not a broken stream.
CONNECT_TIMEOUT_S = 4.0
# The relay gives up first; this only frees a thread that nobody waits for any more.
READ_TIMEOUT_S = 900.0
# After a longer silence nobody can know whether the provider had begun to work on a request.
SENT_AGAIN_WITHIN_S = 0.5
MAX_ERROR_BYTES = 64_000
READ_SIZE = 65_536
MOST_INFORMATIONAL = 20  # answers of status 1xx before the real one


class _Response(http.client.HTTPResponse):
    """Skips all informational answers (RFC 9110, section 15.2), which http.client does for 100
    only.
    """

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MOST_INFORMATIONAL):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("no answer but informational ones")


class Provider:
    """One provider's address, and the connection to it that a process keeps."""

    def __init__(self, base_url: str) -> None:
        address = urlsplit(base_url.rstrip("/"))
        self._base_path = address.path
        self._netloc, self._is_tls = address.netloc, address.scheme == "https"
        self._connection = self._new_connection()
        self._ahead: Ahead | None = None

    def _new_connection(self) -> Connection:
        connection = Connection(self._netloc, is_tls=self._is_tls)
        connection.response_class = _Response
        connection.timeout = CONNECT_TIMEOUT_S
        return connection

    def prepare(self) -> None:
        """Begin to dial if there is no connection that surely can be used; return at once. Then
        `open` or `forgo` follows.
        """
        if self._ahead is None and self._connection.may_be_gone():
            self._ahead = Ahead(self._connection)

    def forgo(self) -> None:
        """Let no thread of `prepare` go on: nothing will be asked now."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.stop():
            self._connection = self._new_connection()

    def open(self, to: Destination, body: bytes, *, stream: bool) -> "Call":
        """Starts the request and returns at once."""
        headers = {
            to.header[0]: to.header[1],
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if stream else "application/json",
            "User-Agent": "weir",
        }
        path = self._base_path + to.path
        return Call(self, path, body, headers, Mask(to.secret))

    def close(self) -> None:
        self._connection.close()

    # ------------------------------------------------------------ used by its call

    def connect(self) -> tuple[Channel, bool]:
        """Return the connection's channel, and whether it is left from an earlier request: kept if
        its far end surely is there, else new. Raise OSError.
        """
        ahead, self._ahead = self._ahead, None
        is_kept = self._connection.make_ready() if ahead is None else ahead.result()
        assert self._connection.sock is not None
        self._connection.sock.settimeout(READ_TIMEOUT_S)
        return self._connection.sock, is_kept

    def send(self, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._connection.request("POST", path, body, headers)
        return self._connection.getresponse()

    def was_used(self) -> None:
        self._connection.was_used()


class Call:
    """One request to a provider, running. Satisfies `relay.Upstream`."""

    def __init__(
        self,
        provider: Provider,
        path: str,
        body: bytes,
        headers: dict[str, str],
        mask: Mask,
    ) -> None:
        self.mask = mask
        self._provider = provider
        self._path = path
        self._arrived: queue.SimpleQueue[bytes | Refusal | _ChunkedBody] = queue.SimpleQueue()
        self._body: _ChunkedBody | None = None
        self._inflater: Inflater | None = None
        self._channel: Channel | None = None
        self._whole = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, args=(body, headers), daemon=True)
        self._thread.start()

    def receive(self, timeout_s: float) -> bytes | None:
        give_up = time.monotonic() + timeout_s
        while True:
            if self._inflater is not None and self._inflater.has_more:
                data: bytes | None = b""
            else:
                data = self._receive(max(0.0, give_up - time.monotonic()))
                if data is None or self._inflater is None:
                    return data
                if not data:
                    if not self._inflater.ended:
                        raise UpstreamUnavailable("The provider's answer broke off.")
                    return b""
            assert data is not None
            if content := self._inflater.feed(data):
                return content

    def _receive(self, timeout_s: float) -> bytes | None:
        if self._body is None:
            try:
                arrived = self._arrived.get(timeout=timeout_s)
            except queue.Empty:
                return None
            if isinstance(arrived, Refusal):
                raise arrived
            if isinstance(arrived, bytes):
                return arrived
            self._body = arrived
        return self._body.receive(timeout_s)

    def close(self) -> None:
        """Ends the request wherever it is; on return the connection is closed or idle."""
        self._closed = True
        # A thread that has handed over all it had may still be on its way out: it is left in peace.
        handed_over = self._whole or self._body is not None
        if not handed_over and self._thread.is_alive() and self._channel is not None:
            self._channel.shut_down()
        self._thread.join(2 * CONNECT_TIMEOUT_S + 1)  # it may dial and speak TLS, each that long
        if self._whole or (self._body is not None and self._body.leaves_the_connection_usable()):
            self._provider.was_used()
        else:
            self._provider.close()

    def _run(self, body: bytes, headers: dict[str, str]) -> None:
        try:
            self._exchange(body, headers)
        except Refusal as refusal:
            self._arrived.put(refusal)
        except TimeoutError:
            self._arrived.put(UpstreamTimeout("The provider stopped answering."))
        except (OSError, http.client.HTTPException):
            self._arrived.put(UpstreamUnavailable("The connection to the provider broke."))
        except BaseException:
            # A fault of ours must not leave the relay waiting for a thread that is gone.
            self._arrived.put(UpstreamFailed("The request to the provider failed."))
            raise

    def _exchange(self, body: bytes, headers: dict[str, str]) -> None:
        response = self._send(body, headers)
        assert self._channel is not None
        inflater = inflater_for(response.getheader("content-encoding", ""))
        if response.status == 200:
            self._inflater = inflater
        if response.status == 200 and response.chunked:
            self._arrived.put(_ChunkedBody(self._channel, response))
            return
        with response:
            if response.status != 200:
                told = response.read(MAX_ERROR_BYTES)
                if inflater is not None:
                    told = inflater.feed(told)[:MAX_ERROR_BYTES]
                from weir.chat.failures import refusal_of_upstream  # few processes need it

                named = {name.lower(): value for name, value in response.getheaders()}
                raise refusal_of_upstream(response.status, named, told, self.mask, now=time.time())
            while data := response.read1(READ_SIZE):
                self._arrived.put(data)
            if response.length:  # of a body whose length was told, what has not come
                raise http.client.IncompleteRead(b"")
            self._whole = not response.will_close
        self._arrived.put(b"")

    def _send(self, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        reused = self._connect()
        began = time.monotonic()
        try:
            return self._provider.send(self._path, body, headers)
        except ConnectionError:
            # Nothing of an answer came, and at once, on a connection left from an earlier request:
            # the provider closed it while it was idle, and never saw this one (RFC 9112, section
            # 9.3.1). One that was cut later may have been worked on, and would be billed twice.
            at_once = time.monotonic() - began < SENT_AGAIN_WITHIN_S
            if not reused or self._closed or not at_once:
                raise
        self._provider.close()
        self._connect()
        return self._provider.send(self._path, body, headers)

    def _connect(self) -> bool:
        """Return whether the connection is left from an earlier request."""
        try:
            self._channel, reused = self._provider.connect()
        except TimeoutError:
            raise UpstreamTimeout("The provider could not be reached in time.") from None
        except OSError as error:
            raise UpstreamUnavailable("The provider cannot be reached.") from error
        if self._closed:  # while it connected: nothing must be asked for any more
            raise ConnectionAbortedError
        return reused


class _ChunkedBody:
    """An answer that has begun, read by whoever asks for it."""

    def __init__(self, channel: Channel, response: http.client.HTTPResponse) -> None:
        self._channel = channel
        self._response = response  # holds the connection open
        self._decoder = ChunkedDecoder()
        self._raw = _buffered(channel, response)

    def receive(self, timeout_s: float) -> bytes | None:
        """All the content that has arrived: what a burst brings leaves in one write."""
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                content = self._decoder.feed(self._raw)
                self._raw = b""
                if content or self._decoder.ended:
                    return content
                raw = self._channel.receive(max(0.0, give_up - time.monotonic()))
            except (OSError, ValueError) as error:
                raise UpstreamUnavailable("The connection to the provider broke.") from error
            if raw is None:
                return None
            if not raw:
                raise UpstreamUnavailable("The connection to the provider broke.")
            self._raw = raw

    def leaves_the_connection_usable(self) -> bool:
        usable = self._decoder.ended and not self._decoder.rest and not self._response.will_close
        self._response.close()
        return usable


def _buffered(channel: Channel, response: http.client.HTTPResponse) -> bytes:
    """What the client has read beyond the head, without waiting for more."""
    channel.settimeout(0)
    with contextlib.suppress(TimeoutError):
        return bytes(response.fp.peek())
    return b""
