"""A connection of `http.client` over a `Channel`: kept while it is good, resumed under TLS."""

import http.client
import socket
import ssl

from weir.connections import trust
from weir.connections.channel import Channel


class Connection(http.client.HTTPConnection):
    """To one host, whose TLS session outlives each connection. `timeout` is for dialling, and again
    for the handshake, in seconds.
    """

    sock: Channel | None

    def __init__(self, netloc: str, *, is_tls: bool) -> None:
        self._is_tls = is_tls
        self._session: ssl.SSLSession | None = None
        if is_tls:
            self.default_port = http.client.HTTPS_PORT
        super().__init__(netloc)

    def connect(self) -> None:
        """Raise OSError, of which TimeoutError and ssl.SSLError are kinds."""
        timeout_s = float(self.timeout or 0)
        sock = socket.create_connection((self.host, self.port), timeout_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel = Channel(sock)
            if self._is_tls:
                channel.secure(trust.context(), self.host, self._session, timeout_s)
        except BaseException:
            sock.close()
            raise
        self.sock = channel

    def close(self) -> None:
        if self.sock is not None:
            self._session = self.sock.session or self._session
        super().close()
