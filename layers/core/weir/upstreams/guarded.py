"""HTTPS to where somebody else said: an issuer's keys, a receiver of webhooks.

Whoever may write a project's configuration chooses the address, and the other side chooses what its
name resolves to and what it answers. So a call must not become a way into the network that the
function runs in, nor a way to keep it busy (server-side request forgery):

* https only, by the public certificate authorities, for the name as it was written; no redirect is
  followed, no proxy is taken from the environment.
* Every address that the name has must be public, and one of those very addresses is dialled: the
  name is resolved once, so it cannot be one thing when checked and another when dialled.
* A call ends at a moment on the wall clock that is fixed beforehand, from the look-up of the name
  to the last byte, however slowly they drip.

httpcore, the transport of httpx, follows no redirects and knows no proxies unless told to, and
lets the connection be made here (docs/decisions/0025). The names, the addresses and the trusted
authorities come in through the constructor, for tests; no project's setting changes them.
"""

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpcore

from weir.connections import trust
from weir.web.public_addresses import is_public, parse_public_url

CONNECT_S = 2.0  # to resolve the name; to dial and to speak TLS, each

Resolve = Callable[[str, int], Iterable[str]]  # the addresses of a host
Dial = Callable[[str, int, float], httpcore.NetworkStream]  # address, port, seconds


class Unreachable(Exception):
    """There is no answer: the sentence says why."""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name, as the system resolves it. Raise OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def dial(address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
    return httpcore.SyncBackend().connect_tcp(address, port, timeout=timeout_s)


class GuardedClient:
    """Makes each call on a connection of its own."""

    def __init__(
        self,
        *,
        resolve: Resolve = resolve,
        dial: Dial = dial,
        tls: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve
        self._dial = dial
        self._tls = tls
        self._monotonic = monotonic

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        content: bytes | None = None,
        *,
        total_s: float,
    ) -> Iterator[httpcore.Response]:
        """Yield the answer before its body is read. Raise Unreachable, from the body of the `with`
        as well; what that raises by itself goes through.
        """
        try:
            parse_public_url(url)
        except ValueError as error:
            raise Unreachable(f"{url[:200]}: {error}.") from None
        host = urlsplit(url).hostname or ""
        until = self._monotonic() + total_s
        network = _PublicNetwork(self._resolve, self._dial, until, self._monotonic)
        pool = httpcore.ConnectionPool(
            ssl_context=self._tls or trust.context(), network_backend=network
        )
        try:
            with pool, pool.stream(method, url, headers=list(headers), content=content) as answer:
                yield answer
        except (httpcore.TimeoutException, TimeoutError):
            raise Unreachable(f"{host} took too long (at most {total_s:g} s).") from None
        except httpcore.ConnectError as error:
            raise Unreachable(f"{host} cannot be reached over TLS: {error}.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise Unreachable(
                f"The answer of {host} broke off or is not HTTP ({type(error).__name__})."
            ) from None


class _PublicNetwork(httpcore.NetworkBackend):
    """Connects to public addresses only, and gives up at a moment that is fixed beforehand."""

    def __init__(
        self, resolve: Resolve, dial: Dial, until: float, monotonic: Callable[[], float]
    ) -> None:
        self._resolve = resolve
        self._dial = dial
        self._until = until
        self._monotonic = monotonic

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        for address in self._public_addresses(host, port):
            try:
                stream = self._dial(address, port, self._left(CONNECT_S))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
            return _BoundedStream(stream, self._left)
        raise Unreachable(f"{host} cannot be reached.")

    def _public_addresses(self, host: str, port: int) -> list[str]:
        """Return where a name leads; IPv4 first, which every function can reach."""
        addresses = _in_time(lambda: list(self._resolve(host, port)), self._left(CONNECT_S), host)
        if not addresses:
            raise Unreachable(f"There is no address of {host}.")
        if not all(map(is_public, addresses)):
            raise Unreachable(f"{host} leads to an address that is not public.")
        return sorted(dict.fromkeys(addresses), key=lambda address: ":" in address)

    def _left(self, most_s: float | None = None) -> float:
        left = self._until - self._monotonic()
        if left <= 0:
            raise TimeoutError
        return left if most_s is None else min(most_s, left)


class _BoundedStream(httpcore.NetworkStream):
    """A connection each of whose waits ends with the whole call."""

    def __init__(
        self, stream: httpcore.NetworkStream, left: Callable[[float | None], float]
    ) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(None))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(None))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        spoken = self._stream.start_tls(ssl_context, server_hostname, self._left(CONNECT_S))
        return _BoundedStream(spoken, self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _in_time(look_up: Callable[[], list[str]], within_s: float, host: str) -> list[str]:
    """Resolve in a thread of its own: the system's resolver has no timeout that could be set."""
    answered: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            answered.put(look_up())
        except (OSError, UnicodeError):
            answered.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        found = answered.get(timeout=within_s)
    except queue.Empty:
        raise Unreachable(f"The name {host} was not resolved in time.") from None
    if found is None:
        raise Unreachable(f"The name {host} cannot be resolved.")
    return found
