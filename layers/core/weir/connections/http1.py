"""A connection of `http.client` over a `Channel`: kept while it is good, resumed under TLS."""

import contextlib
import http.client
import socket
import ssl
import time

from weir.connections import trust
from weir.connections.channel import Channel

# A connection that has been idle for longer may be gone without a word. Wall-clock time, because
# that goes on while a function is frozen.
SURELY_THERE_S = 10.0


class Connection(http.client.HTTPConnection):
    """To one host, whose TLS session outlives each connection. `timeout` is for dialling, and again
    for the handshake, in seconds.
    """

    sock: Channel | None

    def __init__(self, netloc: str, *, is_tls: bool) -> None:
        self._is_tls = is_tls
        self._session: ssl.SSLSession | None = None
        self._last_used = 0.0
        self._dialling: socket.socket | None = None
        self._interrupted = False
        if is_tls:
            self.default_port = http.client.HTTPS_PORT
        super().__init__(netloc)

    def make_ready(self) -> bool:
        """Keep the connection if its far end surely is there, else make a new one. Return whether
        it is kept. Raise OSError, of which TimeoutError and ssl.SSLError are kinds.
        """
        if self.sock is not None:
            is_there = self.sock.is_answered if self.has_paused() else self.sock.is_idle
            if is_there():
                return True
            self.close()
        self.connect()
        return False

    def may_be_gone(self) -> bool:
        """Return whether `make_ready` may take longer than a look at the socket."""
        return self.sock is None or self.has_paused() or not self.sock.is_idle()

    def connect(self) -> None:
        timeout_s = float(self.timeout or 0)
        sock = self._dialled(timeout_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel = Channel(sock)
            if self._is_tls:
                channel.secure(trust.context(), self.host, self._session, timeout_s)
            self._require_wanted()
        except BaseException:
            sock.close()
            raise
        self.sock = channel
        self.was_used()

    def _dialled(self, timeout_s: float) -> socket.socket:
        """As socket.create_connection, but `interrupt` can reach the socket meanwhile."""
        failure = OSError("the name has no address")
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            self._dialling = sock = socket.socket(family, kind, protocol)
            try:
                self._require_wanted()
                sock.settimeout(timeout_s)
                sock.connect(address)
                return sock
            except OSError as error:
                failure = error
                sock.close()
        raise failure

    def _require_wanted(self) -> None:
        if self._interrupted:
            raise ConnectionAbortedError("interrupted")

    def interrupt(self) -> None:
        """Make a `connect` in another thread fail, and every later one."""
        self._interrupted = True
        if self._dialling is not None:
            with contextlib.suppress(OSError):
                self._dialling.shutdown(socket.SHUT_RDWR)

    def recover(self) -> None:
        """Be as new after `interrupt`; the other thread must have ended."""
        self.close()
        self._interrupted = False

    def was_used(self) -> None:
        self._last_used = time.time()

    def has_paused(self) -> bool:
        """Return whether the far end may be gone without a word."""
        return time.time() - self._last_used > SURELY_THERE_S

    def close(self) -> None:
        if self.sock is not None:
            self._session = self.sock.session or self._session
        super().close()
