"""Server-sent events: bytes in, whole events out; and the one way we write them.

Reading follows the WHATWG HTML standard, section 9.2.6 ("Interpreting an event stream"): LF, CRLF
or CR ends a line, a blank line ends an event, comments and unknown fields are ignored, an event
that was never ended is never delivered. Any cut of the bytes gives the same events.

Writing uses the narrow dialect that every published client reads: LF only, one `data: ` line, one
blank line, never an `id:` (openai-python <= 2.37 would crash on the next heartbeat).
"""

from typing import NamedTuple

# The largest event believed. The largest seen in the field are inline images of about 1 MB.
MAX_EVENT_BYTES = 4_000_000

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": ping\n\n"

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    name: str  # the `event` field; "message" if absent
    data: bytes  # the `data` lines, joined by LF


class EventTooLarge(ValueError):
    pass


class EventReader:
    """Feed it bytes as they come; it returns the events they complete."""

    def __init__(self) -> None:
        self._pending = b""
        self._at_start = True

    def feed(self, data: bytes) -> list[Event]:
        if not self._pending and not self._at_start and _is_one_plain_event(data):
            return [Event("message", data[6:-2])]
        pending = self._pending + data
        if self._at_start:
            if len(pending) < len(_BOM) and _BOM.startswith(pending):
                self._pending = pending
                return []
            pending = pending.removeprefix(_BOM)
            self._at_start = False
        if b"\r" in pending:
            # A CR at the very end may be the first half of a CRLF: it waits for the next bytes.
            held = b"\r" if pending.endswith(b"\r") else b""
            body = pending[: len(pending) - len(held)]
            pending = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *blocks, self._pending = pending.split(b"\n\n")
        if len(pending) > MAX_EVENT_BYTES and (
            max(map(len, [*blocks, self._pending])) > MAX_EVENT_BYTES
        ):
            raise EventTooLarge(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return [event for block in blocks if (event := _event(block))]

    def end(self) -> tuple[list[Event], Event | None]:
        """Return the events that the end of the stream completes (a CR that was held was a whole
        line end), and what stands there unfinished: the standard says to discard it.
        """
        ended = self.feed(b"\n") if self._pending.endswith(b"\r") else []
        return ended, _event(self._pending)


def frame(json_line: bytes) -> bytes:
    return b"data: " + json_line + b"\n\n"


def _is_one_plain_event(data: bytes) -> bool:
    """Whether it is what nearly all arrivals are: `data: …`, LF, LF."""
    return (
        data.startswith(b"data: ")
        and data.endswith(b"\n\n")
        and data.count(b"\n") == 2
        and b"\r" not in data
        and len(data) < MAX_EVENT_BYTES
    )


def _event(block: bytes) -> Event | None:
    name, lines = "message", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace") or "message"
    return Event(name, b"\n".join(lines)) if lines else None
