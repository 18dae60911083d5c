"""A TCP proxy that breaks what passes through it, between the gateway and its provider."""

import contextlib
import socket
import struct
import threading
import time


class FaultProxy:
    """`mode`: pass, refuse, slow connect, trickle, cut:N or reset:N (after N bytes of answer)."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.mode = "pass"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._fillers: list[socket.socket] = []
        self._near: list[socket.socket] = []
        self._serve(self._listener)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def set(self, mode: str) -> None:
        """For connections from now on."""
        if self.mode in ("refuse", "slow connect"):
            for filler in self._fillers:
                filler.close()
            self._fillers = []
            self._listener.close()
            self._listener = self._listen(128)
            self._serve(self._listener)
        self.mode = mode
        if mode in ("refuse", "slow connect"):
            # shutdown wakes the thread that accepts; close alone would leave it the last one.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        if mode == "slow connect":
            # A full backlog: the kernel drops further SYNs, and a connect hangs.
            self._listener = self._listen(0)
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self.port))
                self._fillers.append(filler)

    def drop(self) -> None:
        """Ends the connections there are."""
        for near in self._near:
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)
        self._near = []

    def _listen(self, backlog: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(backlog)
        return listener

    def _serve(self, listener: socket.socket) -> None:
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self._near.append(near)
            far = socket.create_connection(self.target)
            threading.Thread(target=_pump, args=(near, far), daemon=True).start()
            threading.Thread(target=self._answer, args=(far, near), daemon=True).start()

    def _answer(self, far: socket.socket, near: socket.socket) -> None:
        kind, _, number = self.mode.partition(":")
        left = int(number or 0)
        with contextlib.suppress(OSError), far, near:
            while data := far.recv(65536):
                if kind == "trickle":
                    for place in range(len(data)):
                        near.sendall(data[place : place + 1])
                        time.sleep(0.0002)
                    continue
                if kind in ("cut", "reset"):
                    near.sendall(data[:left])
                    left -= len(data)
                    if left > 0:
                        continue
                    if kind == "reset":
                        linger = struct.pack("ii", 1, 0)
                        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    # Wakes the thread that reads from it, whose call would keep it open.
                    near.shutdown(socket.SHUT_RD if kind == "reset" else socket.SHUT_RDWR)
                    return
                near.sendall(data)


def _pump(near: socket.socket, far: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := near.recv(65536):
            far.sendall(data)
    with contextlib.suppress(OSError):
        far.shutdown(socket.SHUT_RDWR)  # the thread that answers closes both
