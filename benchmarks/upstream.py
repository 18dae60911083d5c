"""A model provider that answers at once and stamps every chunk with the time it was sent.

    python upstream.py JWKS_FILE

Prints its port, then serves until it is ended. The last message of a request says how to answer, as
a JSON object: `chunks` (how many) and `gap_s` (seconds between two of them). Standard library only,
one thread a connection: what is between a reading of the clock and the socket is one sendall.
"""

import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

# CLOCK_MONOTONIC is one clock for all processes of a machine.
CHUNK = (
    b'{"id":"chatcmpl-theirs","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"system_fingerprint":null,"choices":[{"index":0,"delta":{"content":" t=%d "},'
    b'"logprobs":null,"finish_reason":null}],"usage":null}'
)
LAST = (
    b'{"id":"chatcmpl-theirs","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"system_fingerprint":null,"choices":[{"index":0,"delta":{},"logprobs":null,'
    b'"finish_reason":"stop"}],"usage":null}'
)
USAGE = (
    b'{"id":"chatcmpl-theirs","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"system_fingerprint":null,"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":%d,'
    b'"total_tokens":%d}}'
)
BEGIN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def piece(json_line: bytes) -> bytes:
    """One frame, in an HTTP chunk and a segment of its own, as providers send them."""
    return b"%x\r\ndata: %b\n\n\r\n" % (len(json_line) + 8, json_line)


def answer_chat(connection: socket.socket, body: bytes) -> None:
    asked: dict[str, Any] = json.loads(body)
    how = json.loads(asked["messages"][-1]["content"])
    chunks, gap_s = int(how["chunks"]), float(how["gap_s"])
    connection.sendall(BEGIN)
    due = time.monotonic()
    for _ in range(chunks):
        connection.sendall(piece(CHUNK % time.monotonic_ns()))
        if gap_s:
            due += gap_s
            time.sleep(max(0.0, due - time.monotonic()))
    connection.sendall(piece(LAST))
    if (asked.get("stream_options") or {}).get("include_usage"):
        connection.sendall(piece(USAGE % (chunks, chunks + 7)))
    connection.sendall(piece(b"[DONE]"))
    connection.sendall(b"0\r\n\r\n")


def answer_json(connection: socket.socket, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % len(body) + body)


def serve(connection: socket.socket, jwks: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = connection.makefile("rb")
    try:
        while line := stream.readline():
            size = 0
            while (header := stream.readline()) not in (b"\r\n", b""):
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            body = stream.read(size)
            if line.startswith(b"POST "):
                answer_chat(connection, body)
            else:
                answer_json(connection, jwks)
    except OSError:
        pass  # the peer hung up
    finally:
        connection.close()


def main() -> None:
    jwks = Path(sys.argv[1]).read_bytes()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, jwks), daemon=True).start()


if __name__ == "__main__":
    main()
