"""Whether the far end of a long idle connection is there: found out below HTTP, before a request.

A function is frozen between requests. What its peers, or a NAT on the way, say meanwhile may be
lost, and a request on a connection that is gone is either refused at once or not answered at all; a
provider must not get it twice, so it must not get it on a guess. A keepalive probe (RFC 9293,
section 3.8.4) carries no data, and every TCP acknowledges or refuses it: in one round trip where a
new connection takes two and the handshake's arithmetic.
"""

import select
import socket
import time

# Beyond two round trips: when Linux sends the probe is a matter of its ticks, of 4 ms or 10.
PROBE_MARGIN_S = 0.03
_STEP_MS = 1

_CAN_PROBE = hasattr(socket, "TCP_INFO") and hasattr(socket, "TCP_KEEPIDLE")
_MOST_IDLE_S = 1  # what the kernel probes after: its least
# Of struct tcp_info (linux/tcp.h): milliseconds since the last acknowledgement; microseconds.
_LAST_ACK_AT, _RTT_AT, _INFO_SIZE = 56, 68, 72


def is_answered(sock: socket.socket) -> bool:
    """Probe, and wait for the answer: two round trips and 30 ms at most, less on most days.

    False as well where it cannot be found out: by this system, or because to its clock the
    connection has not been idle for a second.
    """
    if not _CAN_PROBE or _last_ack_and_rtt_s(sock)[0] < _MOST_IDLE_S:
        return False
    began = time.monotonic()
    within_s = 2 * _last_ack_and_rtt_s(sock)[1] + PROBE_MARGIN_S
    changed = select.poll()
    changed.register(sock, select.POLLIN)
    # In this order: it is the second that reckons with how long the connection has been idle.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _MOST_IDLE_S)
    try:
        while not changed.poll(_STEP_MS):  # a refusal would be there to read
            passed_s = time.monotonic() - began
            if _last_ack_and_rtt_s(sock)[0] <= passed_s:
                return True
            if passed_s > within_s:
                return False
        return False
    finally:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)


def _last_ack_and_rtt_s(sock: socket.socket) -> tuple[float, float]:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    last_ack_ms = int.from_bytes(info[_LAST_ACK_AT : _LAST_ACK_AT + 4], "little")
    return last_ack_ms / 1e3, int.from_bytes(info[_RTT_AT : _RTT_AT + 4], "little") / 1e6
