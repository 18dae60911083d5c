"""Who may speak to a port that `make run` opens. Listening on loopback keeps other machines out,
but not the pages that are open in this one's browser, nor its other users.

Rules of this file (standard library only: the embedded AWS's interpreter imports it, too):

* A page can reach any loopback port. Its browser adds headers that it cannot leave out: `Origin`,
  or `Sec-Fetch-Site` where there is no `Origin` (W3C Fetch Metadata: to potentially trustworthy
  addresses, which loopback is). `Sec-Fetch-Mode` alone is no sign: Node's fetch sends it.
* A page can have its own domain name resolve to 127.0.0.1 (DNS rebinding), and is then of the same
  origin as what listens there. `Host` carries that name. The port in it decides nothing.
* Another user can write any header. The kernel knows whose socket is at the other end.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.http1 import Exchange, Handler

HERE = frozenset({"localhost", "127.0.0.1"})
# Names that resolve to this machine and that a stranger cannot register: RFC 6761 section 6.3 for
# `localhost` and what is under it, ICANN's reservation of `.internal` for Docker's.
ALSO_HERE = HERE | {"[::1]", "host.docker.internal"}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::[0-9]{1,5})?")
_OF_BROWSERS = frozenset({"origin", "sec-fetch-site", "sec-fetch-dest"})
_ROOT_UID = 0


def host_name(host: str) -> str:
    """Return the name in a Host header, in lower case and without the port; "" if malformed."""
    found = _HOST.fullmatch(host.lower())
    return found[1] if found else ""


def sent_by_a_browser(names: Iterable[str]) -> bool:
    """Judge by the names of a request's headers."""
    return not _OF_BROWSERS.isdisjoint(map(str.lower, names))


def for_hosts(handler: Handler, names: Iterable[str] = ()) -> Handler:
    """Answer 421 (RFC 9110 section 15.5.20) to a request for any name but this machine's own, and
    `names`.
    """
    allowed = ALSO_HERE | {name.lower() for name in names}

    async def judge(exchange: Exchange) -> None:
        name = host_name(exchange.header("host") or "")
        if name in allowed or name.endswith(".localhost"):
            await handler(exchange)
        else:
            said = f"Not for {name!r}. To allow this name: ALLOWED_HOSTS={name} make run\n"
            await exchange.respond(421, [("Content-Type", "text/plain")], said.encode())

    return judge


def for_programs(handler: Handler) -> Handler:
    """Answer 403 to whatever a page could have sent."""

    async def judge(exchange: Exchange) -> None:
        here = host_name(exchange.header("host") or "") in HERE
        if here and not sent_by_a_browser(name for name, _ in exchange.headers):
            await handler(exchange)
        else:
            await exchange.respond(403, [("Content-Type", "text/plain")], b"Not for pages.\n")

    return judge


# --- the other end of a connection --------------------------------------------------------------


class OwnSocket(socket.socket):
    """A listening socket that accepts connections of this user (and of root, which may do anything
    already). Linux only; elsewhere it accepts all.
    """

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Raise ConnectionAbortedError, after which asyncio goes on accepting, for another's."""
        connection, address = super().accept()
        if sys.platform != "linux" or owner(connection) in (os.geteuid(), _ROOT_UID):
            return connection, address
        connection.close()
        raise ConnectionAbortedError("a connection of another user")


def only_ours(listener: socket.socket) -> OwnSocket:
    """Return the same listening socket as one that accepts this user's connections only."""
    return OwnSocket(fileno=listener.detach())


# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1
_ANY = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_UID_AT = _HEADER.size + 4 + 48 + 3 * 4


def owner(connection: socket.socket) -> int | None:
    """Return the user id that opened the other end of a loopback connection; None if that end is
    gone, or if the kernel does not say. Takes some 10 µs, whatever the number of sockets.
    """
    with contextlib.suppress(OSError):
        ours, theirs = connection.getsockname(), connection.getpeername()
        ends = struct.pack("!HH", theirs[1], ours[1])
        ends += b"".join(socket.inet_aton(end[0]).ljust(16, b"\0") for end in (theirs, ours))
        # struct inet_diag_req_v2: any state, any interface, any cookie.
        asked = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ANY)
        asked += ends + struct.pack("=III", 0, _ANY, _ANY)
        length = _HEADER.size + len(asked)
        head = _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.send(head + asked)
            answer = kernel.recv(4096)
        if _HEADER.unpack_from(answer)[1] == _SOCK_DIAG_BY_FAMILY:
            uid: int = struct.unpack_from("=I", answer, _UID_AT)[0]
            return uid
    return None
