"""A model provider that answers at once and stamps every chunk with the time it was sent.

    python -m benchmarks.upstream JWKS_FILE [CERTIFICATE_AND_KEY]

Prints its port, then serves until it is ended: over TLS if it is given a certificate. The last
message of a request says how to answer, as a JSON object: `chunks` (how many), `gap_s` (seconds
between two of them) and `whole_bytes` (of an answer that does not stream). It shares the tests'
HTTP server, but not their scripted answers: between a reading of the clock and the socket there is
one sendall.
"""

import json
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.provider.wire import LAST_CHUNK, Request, Server, reply

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
# One answer that does not stream; its content stands for the "@". It is text with one emoji, which
# makes Python hold each of its characters in four bytes.
EMOJI = "\N{GRINNING FACE}".encode()
WHOLE = (
    b'{"id":"chatcmpl-theirs","object":"chat.completion","created":1,"model":"bench","choices":[{'
    b'"index":0,"message":{"role":"assistant","content":"@"},"finish_reason":"stop"}],"usage":{'
    b'"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}'
)
WHOLE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
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
    if how["whole_bytes"]:
        connection.sendall(WHOLE_HEAD % (len(WHOLE) + how["whole_bytes"]))
        connection.sendall(
            WHOLE.replace(b"@", EMOJI + b"x" * (how["whole_bytes"] + 1 - len(EMOJI)))
        )
        return
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
    connection.sendall(LAST_CHUNK)


class Upstream(Server):
    def __init__(self, jwks: bytes, tls: ssl.SSLContext | None) -> None:
        self._send_jwks = reply(b"200 OK", b"application/json", jwks)
        super().__init__(tls=tls)

    def answer(self, request: Request, connection: socket.socket) -> bool:
        if request.method == "POST":
            answer_chat(connection, request.body)
        else:
            self._send_jwks(connection)
        return True


def main() -> None:
    tls = None
    if len(sys.argv) > 2:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[2])
    upstream = Upstream(Path(sys.argv[1]).read_bytes(), tls)
    sys.stdout.write(f"{upstream.port}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
