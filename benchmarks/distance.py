"""Puts a provider on loopback some milliseconds away: a TCP proxy that holds every byte back.

    python -m benchmarks.distance UPSTREAM_PORT ONE_WAY_MS

Prints its port. Loopback's own handshake takes no time, so the first bytes of a connection are held
back for one round trip more, as if SYN and SYN-ACK had travelled. It imitates distance only: no
loss, no slow start, no limit of bandwidth.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time


def carry(source: socket.socket, target: socket.socket, one_way_s: float, opens_at: float) -> None:
    """Pass on what `source` sends, `one_way_s` after it came, and its end, too."""
    under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def deliver() -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = under_way.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)

    threading.Thread(target=deliver, daemon=True).start()
    data = b"."
    while data:
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        under_way.put((max(time.monotonic(), opens_at) + one_way_s, data))


def main() -> None:
    upstream, one_way_s = ("127.0.0.1", int(sys.argv[1])), float(sys.argv[2]) / 1000
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        client, _ = listener.accept()
        opens_at = time.monotonic() + 2 * one_way_s
        provider = socket.create_connection(upstream)
        for one, other in ((client, provider), (provider, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ends = (one, other, one_way_s, opens_at)
            threading.Thread(target=carry, args=ends, daemon=True).start()


if __name__ == "__main__":
    main()
