"""How providers answer, by name. A dialect is one small entry of DIALECTS: from what a request says
of it to an Answer. Delays, cuts, headers and encodings are not part of it: they go with any
(`answers.CHANGES`). What is answered well is what the product's own mock provider would send.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.provider.answers import (
    ENDS,
    SSE,
    Answer,
    Exchange,
    Piece,
    begin,
    hang,
    headed,
    naked,
    point,
    reset,
    streamed,
    wait,
    whole,
)
from weir.upstreams import mock_answers
from weir.upstreams.mock_answers import DONE, frame

How = dict[str, Any]

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
HEAD = {"id": "theirs", "created": 1, "model": "fake-large"}


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    return frame(
        {
            **HEAD,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            **more,
        }
    )


def usage_frame(usage: object = USAGE) -> bytes:
    return frame({"id": "theirs", "choices": [], "usage": usage})


ENDING = (chunk(None, "stop"), usage_frame(), DONE)


def _said(*tokens: str) -> mock_answers.Answer:
    return mock_answers.Answer(tokens, "stop", USAGE["prompt_tokens"])


ROLE = next(mock_answers.streamed(_said(), HEAD, usage=False))


def _stream(how: How) -> Answer:
    said = _said(*(how.get("text", f"w{number} ") for number in range(how.get("chunks", 5))))
    role, *words, finish, done = mock_answers.streamed(said, HEAD, usage=False)
    pieces: list[Piece] = []
    for number, word in enumerate(words):
        pieces += [word if number else role + word, wait(how.get("gap_s", 0.01))]
    return streamed(*pieces, finish, usage_frame(), done)


def _whole(how: How) -> Answer:
    told = json.loads(mock_answers.whole(_said(how.get("text", "Hello!")), HEAD))
    answer = whole(json.dumps({**told, "usage": how.get("usage", USAGE)}).encode())
    first = (point(how["point"]),) if "point" in how else ()
    return replace(answer, pieces=(*first, *answer.pieces))


def _fail(how: How) -> Answer:
    body = {"error": {"message": how.get("message", "no"), "code": how.get("code")}}
    answer = whole(json.dumps(body).encode(), status=how["status"])
    return headed(answer, {"Retry-After": how["retry_after"]} if "retry_after" in how else {})


def _cut(how: How) -> Answer:
    return streamed(chunk("begun"), wait(0.1), chunk("never whole")[:25], *ENDS[how["how"]])


def _silent(how: How) -> Answer:
    begun = (begin, chunk("begun")) if how.get("begin") else ()
    if "seconds" in how:
        return streamed(*begun, wait(how["seconds"]), *_stream({}).pieces)
    return streamed(*begun, hang)


def _frames(how: How) -> Answer:
    pieces: list[Piece] = []
    for each in how["frames"]:
        pieces += [each.encode(), wait(0.02)]
    return streamed(*pieces)


def _talk_until_left(name: str) -> Piece:
    """Say a word each 100 ms until the peer hangs up, which is the point of this name."""

    def piece(exchange: Exchange) -> None:
        try:
            while True:
                exchange.send(chunk("on "))
                time.sleep(0.1)
        except OSError:
            exchange.provider.points[name]()
            raise

    return piece


def _steps(how: How) -> Answer:
    """The head leaves with the first thing that is sent, and not before."""
    kinds: dict[str, Callable[[Any], Piece]] = {
        "point": point,
        "talk": _talk_until_left,
        "text": chunk,
        "finish": lambda reason: chunk(None, reason),
        "usage": lambda _: usage_frame(),
        "done": lambda _: DONE,
    }
    return streamed(*(kinds[kind](value) for step in how["steps"] for kind, value in step.items()))


def _body(how: How) -> Answer:
    return whole(how["body"].encode(), status=how.get("status", 200))


DIALECTS: dict[str, Callable[[How], Answer]] = {
    "stream": _stream,
    "whole": _whole,
    "fail": _fail,
    "html": lambda how: whole(b"<html>a proxy's page</html>", "text/html"),
    "empty": lambda how: whole(b"", SSE),
    "reset": lambda how: naked(reset),
    "cut": _cut,
    "silent": _silent,
    "frames": _frames,
    "steps": _steps,
    "body": _body,
}
