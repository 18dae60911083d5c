"""A connection of `http.client` over a `Channel`: kept while it is good, resumed under TLS."""

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

    def __init__(self, netloc: str, *, is_tls: bool, unacknowledged_s: float | None = None) -> None:
        """`unacknowledged_s`: a connection is broken once what it sent is not acknowledged for so
        long. What asks for it must be able to ask again.
        """
        self._is_tls = is_tls
        self._unacknowledged_s = unacknowledged_s
        self._session: ssl.SSLSession | None = None
        self._last_used = 0.0
        if is_tls:
            self.default_port = http.client.HTTPS_PORT
        super().__init__(netloc)

    def connect(self) -> None:
        """Raise OSError, of which TimeoutError and ssl.SSLError are kinds."""
        timeout_s = float(self.timeout or 0)
        sock = socket.create_connection((self.host, self.port), timeout_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._unacknowledged_s is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
                most_ms = int(self._unacknowledged_s * 1000)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, most_ms)
            channel = Channel(sock)
            if self._is_tls:
                channel.secure(trust.context(), self.host, self._session, timeout_s)
        except BaseException:
            sock.close()
            raise
        self.sock = channel
        self.was_used()

    def was_used(self) -> None:
        self._last_used = time.time()

    def has_paused(self) -> bool:
        """Return whether the far end may be gone without a word."""
        return time.time() - self._last_used > SURELY_THERE_S

    def close(self) -> None:
        if self.sock is not None:
            self._session = self.sock.session or self._session
        super().close()
