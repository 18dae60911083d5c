"""A proxy in front of the store that counts what is asked of it, and when. It costs time, so it is
there only where round trips are counted, or where milliseconds do not matter.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.wire import now

_OPERATION = re.compile(rb"(?i)\r\nx-amz-target: *[^\r]*?\.([A-Za-z]+)\r\n")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


@dataclass(frozen=True)
class Trip:
    at: int  # nanoseconds of the one clock, when the last byte of the question passed
    operation: str
    write_units: float
    read_units: float


class CountingProxy:
    def __init__(self, endpoint: str) -> None:
        self._upstream = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._trips: list[Trip] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def trips(self) -> list[Trip]:
        """Since it was last asked."""
        trips, self._trips = self._trips, []
        return trips

    def counted(self) -> Counter[str]:
        """By operation, since it was last asked."""
        return by_operation(self.trips())

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(self._upstream)
            for one, other, counts in ((client, upstream, True), (upstream, client, False)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(one, other, counts), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        seen = bytearray()
        try:
            while data := source.recv(65536):
                target.sendall(data)
                if counts:
                    seen += data
                    self._count(seen)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one of them has hung up

    def _count(self, seen: bytearray) -> None:
        """Take the whole requests from the front of `seen`."""
        while (head_end := seen.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(seen, 0, head_end + 2)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(seen) < end:
                return
            if operation := _OPERATION.search(seen, 0, head_end + 2):
                name = operation[1].decode()
                asked = json.loads(seen[head_end + 4 : end])
                self._trips.append(Trip(now(), name, *units(name, asked)))
            del seen[:end]


def units(operation: str, asked: dict[str, Any]) -> tuple[float, float]:
    """Return DynamoDB's write and read request units, of items that are no larger than 1 KB.

    A transaction takes two for each item, a strongly consistent read one, any other half a one; a
    Query at least that for all that it finds (AWS: "DynamoDB read and write operations").
    """
    if operation in ("TransactWriteItems", "TransactGetItems"):
        items = 2.0 * len(asked["TransactItems"])
        return (items, 0.0) if operation == "TransactWriteItems" else (0.0, items)
    if operation in ("PutItem", "UpdateItem", "DeleteItem"):
        return 1.0, 0.0
    if operation == "BatchGetItem":
        tables = asked["RequestItems"].values()
        return 0.0, sum(len(t["Keys"]) * _of_read(t) for t in tables)
    return (0.0, _of_read(asked)) if operation in ("GetItem", "Query") else (0.0, 0.0)


def _of_read(asked: dict[str, Any]) -> float:
    return 1.0 if asked.get("ConsistentRead") else 0.5


def by_operation(trips: Iterable[Trip]) -> Counter[str]:
    return Counter(trip.operation for trip in trips)
