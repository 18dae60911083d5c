"""A far end that is gone without a word, on loopback: its kernel acknowledges nothing."""

import ctypes
import socket
import struct

SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module has no name for it
BPF_RET = 6


def make_deaf(peer: socket.socket) -> None:
    """Attach a packet filter that takes 0 bytes of each segment (Linux, socket(7))."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    peer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
