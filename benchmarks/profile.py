"""What a chunk costs in the relay alone: CPU time, and instructions if valgrind is there.

    python -m benchmarks.profile                 # nanoseconds of CPU per chunk, by kind of stream
    python -m benchmarks.profile --instructions  # the same in instructions, under callgrind

No socket and no thread: `relay.stream` reads recorded bytes. Instructions hardly vary between two
runs, whatever else the machine does; nanoseconds are the least of the rounds, which take turns.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from benchmarks import ROOT, CannotMeasure

sys.path.insert(0, os.environ.get("WEIR_CORE", str(ROOT / "layers" / "core")))

from weir.chat import relay
from weir.chat.masking import Mask
from weir.chat.outcome import Ending, Outcome

CHUNKS = 20_000
ROUNDS = 7
BURST = 50
COUNTED = (500, 1_500)  # chunks of two runs: what differs between them is what chunks take
SAID = ("The", " relay", " is", " quick", ",", " “fast”", ".\n\n", " 1234", " na\u00efve", " 😀")


def openai(number: int, *, obfuscated: bool = False) -> bytes:
    """Return an event as OpenAI sends it (recorded 2026; the ids are made up)."""
    choice = {
        "index": 0,
        "delta": {"content": SAID[number % len(SAID)]},
        "logprobs": None,
        "finish_reason": None,
    }
    chunk = {
        "id": "chatcmpl-CkTq0bYw7eV5kP3mQx1sJfZr8u2Lh",
        "object": "chat.completion.chunk",
        "created": 1764331200,
        "model": "gpt-5-mini-2025-08-07",
        "service_tier": "default",
        "system_fingerprint": None,
        "choices": [choice],
        "usage": None,
    }
    if obfuscated:
        chunk["obfuscation"] = "aB3dE5gH7jK9"[: number % 13]
    return _event(chunk)


def another_each_time(number: int) -> bytes:
    """Return an event of which more than the text changes: nothing can be known of the next."""
    chunk = json.loads(openai(number)[6:])
    return _event({**chunk, "created": number, "id": f"gen-{number}"})


def tool_call(number: int) -> bytes:
    piece = {"index": 0, "function": {"arguments": '{"city": "Berlin"}'[number % 17 :][:3]}}
    choice = {"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}
    return _event({**json.loads(openai(number)[6:]), "choices": [choice]})


def _event(chunk: dict[str, object]) -> bytes:
    line = json.dumps(chunk, separators=(",", ":"), ensure_ascii=False)
    return b"data: " + line.encode() + b"\n\n"


LAST = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16}}\n\n'
    b"data: [DONE]\n\n"
)


def stream_of(kind: str, chunks: int) -> list[bytes]:
    """Return what arrives, piece by piece."""
    if kind == "bursts":
        events = [openai(number) for number in range(chunks)]
        return [b"".join(events[at : at + BURST]) for at in range(0, chunks, BURST)] + [LAST]
    return [KINDS[kind](number) for number in range(chunks)] + [LAST]


KINDS = {
    "plain": openai,
    "bursts": openai,
    "obfuscated": lambda number: openai(number, obfuscated=True),
    "changing": another_each_time,
    "tool calls": tool_call,
}


class Recorded:
    """An upstream that has arrived already. Satisfies `relay.Upstream`."""

    mask = Mask("sk-proj-0123456789abcdef0123456789abcdef")

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = deque(pieces)

    def receive(self, timeout_s: float) -> bytes | None:
        return self._pieces.popleft() if self._pieces else b""

    def close(self) -> None:
        pass


def relayed(pieces: list[bytes], chunks: int) -> int:
    """Relay a stream; return the nanoseconds of CPU that it took."""
    outcome = Outcome()
    answering = relay.Answering("chatcmpl-7f2a9e5c1b3d", 1764331200, 10 * chunks + 1000)
    timing = relay.Timing(time.monotonic, time.monotonic() + 3600)
    began = time.process_time_ns()
    deque(relay.stream(answering, Recorded(pieces), timing, outcome), maxlen=0)
    took = time.process_time_ns() - began
    if outcome.ending is not Ending.COMPLETED or outcome.chunks != chunks + 1:
        raise CannotMeasure(f"not a whole answer: {outcome}")
    return took


def nanoseconds(kinds: list[str]) -> dict[str, float]:
    streams = {kind: stream_of(kind, CHUNKS) for kind in kinds}
    least = dict.fromkeys(kinds, float("inf"))
    for _ in range(ROUNDS):
        for kind, pieces in streams.items():
            least[kind] = min(least[kind], relayed(pieces, CHUNKS) / CHUNKS)
    return least


def instructions(kinds: list[str]) -> dict[str, float]:
    few, many = COUNTED
    return {kind: (_counted(kind, many) - _counted(kind, few)) / (many - few) for kind in kinds}


def _counted(kind: str, chunks: int) -> int:
    """Return the instructions of a whole process that relays one stream."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        argv = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable]
        argv += ["-m", "benchmarks.profile", "--once", kind, str(chunks)]
        env = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run(argv, check=True, cwd=ROOT, env=env, capture_output=True)
        found = re.search(r"(?m)^(?:summary|totals): (\d+)", out.read_text())
    if found is None:
        raise CannotMeasure("callgrind has counted nothing")
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--once", nargs=2, metavar=("KIND", "CHUNKS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        kind, chunks = asked.once[0], int(asked.once[1])
        pieces = stream_of(kind, COUNTED[1])[:-1]  # as many are made, however many are relayed
        relayed([*pieces[: chunks * len(pieces) // COUNTED[1]], LAST], chunks)
        return
    kinds = asked.kind or list(KINDS)
    if asked.instructions and shutil.which("valgrind") is None:
        raise SystemExit("instructions are counted by valgrind, which is not installed")
    measured = instructions(kinds) if asked.instructions else nanoseconds(kinds)
    unit = "instructions" if asked.instructions else "ns of CPU"
    for kind, each in measured.items():
        print(f"{kind:12} {each:9,.0f} {unit} per chunk")


if __name__ == "__main__":
    main()
