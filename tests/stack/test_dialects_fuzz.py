"""Providers' oddities at random against the running gateway: what its callers can read, and what
they are charged.

For a longer run, or to see one again:

    WEIR_FUZZ_SECONDS=600 WEIR_FUZZ_SEED=17 .venv/bin/python -m pytest -s -m long \
        tests/stack/test_dialects_fuzz.py
"""

import json
import os
import time
from collections import Counter
from dataclasses import replace
from random import Random, SystemRandom
from typing import Any

import httpx
import pytest

from tests.answers import checked_stream, checked_whole
from tests.provider import FakeProvider
from tests.provider.answers import (
    ENDS,
    Answer,
    Framing,
    Piece,
    begin,
    delayed,
    gzipped,
    headed,
    labelled,
    wait,
)
from tests.provider.oddities import Oddity, oddity
from tests.stack.conftest import Stack
from tests.stack.store import Books, balanced

SECONDS = float(os.environ.get("WEIR_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("WEIR_FUZZ_SEED", "0")) or SystemRandom().randrange(1, 10**6)
CAP = 200  # output tokens a choice: more than any oddity says, and less than some of them tell
TYPES = ["text/event-stream", "application/json", "text/plain", "text/html", "", "no/sense; x"]


def answer_of(odd: Oddity, random: Random) -> Answer:
    """Its bytes on the wire: in pieces, labelled, coded and broken off anyhow."""
    body, pieces = odd.body, list[Piece]()
    while body:
        size = random.choice([1, 20, 200, len(body), len(body)])
        pieces.append(body[:size])
        body = body[size:]
        if random.random() < 0.05:
            pieces.append(wait(0.01))
    framing = random.choice([Framing.CHUNKED, Framing.CHUNKED, Framing.SIZED, Framing.UNTIL_CLOSE])
    answer = Answer(tuple(pieces), framing=framing, length=len(odd.body))
    if random.random() < 0.2:
        answer = gzipped(answer)
    if odd.cut_at is not None:
        # Not before its head is read: a request that was never answered is rightly sent once more.
        end = random.choice(["close", "reset", "end"])
        answer = replace(answer, pieces=(begin, *answer.pieces, wait(0.02), *ENDS[end]))
        if end == "close" and framing is Framing.SIZED:
            answer = replace(answer, length=answer.length + 50)
    answer = labelled(answer, random.choice(TYPES))
    if random.random() < 0.1:
        answer = delayed(answer, 0.05)
    return headed(answer, {"X-Request-Id": "req_1"})


def ask(stack: Stack, token: str, odd: Oddity, random: Random) -> tuple[httpx.Response, bool, bool]:
    """Return the reply, whether it was to be a stream, and whether with its usage."""
    streams, usage_wanted = random.random() < 0.7, random.random() < 0.5
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": CAP,
        "n": odd.choices,
        "stream": streams,
    }
    if streams and usage_wanted:
        body["stream_options"] = {"include_usage": True}
    headers = {"Authorization": f"Bearer {token}"}
    return (
        stack.http.post("/v1/chat/completions", headers=headers, json=body),
        streams,
        usage_wanted,
    )


def ended_well(reply: httpx.Response, *, streams: bool, usage_wanted: bool) -> bool:
    """Return whether it is a success, after checking that it has one outcome that can be read."""
    if reply.status_code != 200:
        assert reply.status_code in (400, 502, 503), reply.text
        told = reply.json()
        assert told["error"]["message"]
        assert told["error"]["code"] == told["code"]
        return False
    completion_id = reply.headers["X-Completion-Id"]
    if streams:
        wanted = {"usage_wanted": usage_wanted, "completion_id": completion_id}
        return checked_stream(reply.content, **wanted)[0]  # type: ignore[arg-type]
    checked_whole(reply.content, completion_id=completion_id)
    return True


def check_charge(row: dict[str, Any], odd: Oddity, *, succeeded: bool) -> None:
    """What was held is enough, unless the provider tells more."""
    told = (odd.usage or {}).get("completion_tokens") or 0
    if "excess_nano_usd" in row:
        assert row["output_tokens"] == told > CAP * odd.choices
    else:
        assert row["output_tokens"] <= CAP * odd.choices
    assert succeeded == (row["outcome"] in ("completed", "output_cap_enforced")), row
    if succeeded:
        assert row["input_tokens"] > 0
        assert row["output_tokens"] > 0 or not odd.said()


@pytest.mark.long
def test_gateway_stays_readable_honest_and_settled_whatever_providers_send(
    stack: Stack, provider: FakeProvider
) -> None:
    minted = stack.mint(f"u_fuzz_{SEED}")
    sent: dict[str, tuple[int, Oddity, bool]] = {}
    counted: Counter[str] = Counter()
    print(f"WEIR_FUZZ_SEED={SEED}")  # noqa: T201
    give_up = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < give_up:
        random = Random(f"{SEED}-{number}")
        odd = oddity(random)
        before = len(provider.requests)
        provider.scripts.append(answer_of(odd, random))
        reply, streams, usage_wanted = ask(stack, minted["token"], odd, random)
        about = f"seed {SEED}, number {number}, stream {streams}: {odd}\n{reply.text}"
        assert len(provider.requests) == before + 1, about
        try:
            succeeded = ended_well(reply, streams=streams, usage_wanted=usage_wanted)
        except (AssertionError, ValueError, KeyError) as error:
            raise AssertionError(about) from error
        assert odd.may_succeed() or not succeeded, f"a success that was not one: {about}"
        assert succeeded or not odd.must_succeed(), f"taken for a failure: {about}"
        sent[reply.headers["X-Request-Id"]] = (number, odd, succeeded)
        counted["succeeded" if succeeded else f"failed with {reply.status_code}"] += 1
        number += 1
    counted["above what was held"] = check_books(stack, f"u_fuzz_{SEED}", sent)
    print(f"{number} requests: {dict(counted)}")  # noqa: T201
    assert counted["succeeded"] > number / 4


def check_books(stack: Stack, uid: str, sent: dict[str, tuple[int, Oddity, bool]]) -> int:
    """Return how many were charged more than was held, because the provider told more."""
    books: Books = balanced(stack)  # nothing is held, and the counters are what the rows add up to
    rows = [row for row in books.of("USAGE#") if row["pk"].endswith(f"#u#{uid}")]
    assert Counter(row["request_id"] for row in rows) == Counter(sent.keys())
    for row in rows:
        number, odd, succeeded = sent[row["request_id"]]
        try:
            check_charge(row, odd, succeeded=succeeded)
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}, number {number}: {row}\n{odd}") from error
    lines = [
        json.loads(line) for line in stack.log("ChatFunction").splitlines() if '"chat"' in line
    ]
    above = {line["request_id"] for line in lines if line.get("AboveWorstCase")}
    assert above == {row["request_id"] for row in rows if "excess_nano_usd" in row}
    return len(above)
