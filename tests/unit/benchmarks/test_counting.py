"""What the store is asked becomes trips and units, and these become money."""

import json
import socket
import time

import pytest

from benchmarks import costs
from benchmarks.counting import CountingProxy, Trip, units
from benchmarks.situations import Chat


def a_request(operation: str, body: dict[str, object]) -> bytes:
    asked = json.dumps(body).encode()
    head = f"POST / HTTP/1.1\r\nX-Amz-Target: DynamoDB_20120810.{operation}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(asked) + asked


@pytest.mark.parametrize(
    ("operation", "asked", "expected"),
    [
        ("TransactWriteItems", {"TransactItems": [{}, {}, {}]}, (6.0, 0.0)),
        ("UpdateItem", {}, (1.0, 0.0)),
        ("GetItem", {}, (0.0, 0.5)),
        ("GetItem", {"ConsistentRead": True}, (0.0, 1.0)),
        ("Query", {}, (0.0, 0.5)),
        (
            "BatchGetItem",
            {
                "RequestItems": {
                    "a": {"Keys": [{}, {}], "ConsistentRead": True},
                    "b": {"Keys": [{}]},
                }
            },
            (0.0, 2.5),
        ),
        ("GetSecretValue", {}, (0.0, 0.0)),
    ],
)
def test_units_are_dynamodbs(
    operation: str, asked: dict[str, object], expected: tuple[float, float]
) -> None:
    assert units(operation, asked) == expected


def test_a_request_in_pieces_and_two_in_one_piece_are_each_counted_once() -> None:
    one, two = a_request("GetItem", {}), a_request("TransactWriteItems", {"TransactItems": [{}]})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = CountingProxy(f"http://127.0.0.1:{listener.getsockname()[1]}")
        address = ("127.0.0.1", int(proxy.endpoint.rpartition(":")[2]))
        with socket.create_connection(address, timeout=10) as client:
            store, _ = listener.accept()
            with store:
                client.sendall(one[:50])
                assert store.recv(50, socket.MSG_WAITALL) == one[:50]
                client.sendall(one[50:] + two)
                rest = len(one) - 50 + len(two)
                assert store.recv(rest, socket.MSG_WAITALL) == one[50:] + two
        proxy.close()
    trips: list[Trip] = []
    give_up = time.monotonic() + 10
    while len(trips) < 2 and time.monotonic() < give_up:  # it passes on first, and counts then
        trips += proxy.trips()
    assert [trip.operation for trip in trips] == ["GetItem", "TransactWriteItems"]
    assert [trip.write_units for trip in trips] == [0.0, 2.0]
    time.sleep(0.05)
    assert proxy.trips() == []


def test_a_million_chats_cost_what_their_prices_say() -> None:
    chat = Chat(
        billed_s=10.0, cpu_ns=0, write_units=20.0, read_units=8.0, log_bytes=1100, sent_bytes=10**5
    )
    found = costs.of_a_million(chat, memory_mb=512, traced=0.05)
    expected = {
        "Lambda, duration": 66.667,
        "Lambda, requests": 0.2,
        "API Gateway": 3.5,
        "DynamoDB, writes of the chat": 12.5,
        "DynamoDB, writes of the meter": 6.25,
        "DynamoDB, reads": 1.0,
        "logs": 1.0,
        "X-Ray": 0.25,
        "data to the internet": 9.0,
    }
    assert found == pytest.approx(expected)
