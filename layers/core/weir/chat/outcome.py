"""What became of a request, filled in while it runs: for the log, and for what it has cost.

How far an answer has come is its `State`, why it ended is its `Ending`. Who pays what follows from
these two alone: the table is in `weir/chat/completion.py`.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from weir.errors import Refusal


class State(Enum):
    """How far a provider's answer has come. The order is that of time."""

    REFUSED = "refused"  # the provider refused the request, or never received it
    UNHEARD = "unheard"  # the request was sent, and nothing has come back yet
    BEGUN = "begun"  # a 200 has begun, without a word
    SPEAKING = "speaking"  # words have come, or something that may have been words
    FINISHED = "finished"  # every answer that has begun has its finish_reason


class Ending(Enum):
    """Why a request ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"  # by the caller, by a deadline, or because the reader was gone
    CUT = "cut"  # by us, because it went beyond the output that was admitted
    BROKEN = "broken"  # by the provider


@dataclass(slots=True)
class Outcome:
    """`usage` is the provider's own count, the last that it sent; it is final if it came when every
    answer was finished. `content_bytes` is the UTF-8 length of all that the provider said, its tool
    calls included, and `content_chunks` counts the chunks that said something (in a whole answer:
    the choices that did).
    """

    outcome: str = "cancelled"  # completed | output_cap_enforced | cancelled | an error's code
    state: State = State.REFUSED
    ending: Ending = Ending.STOPPED
    chunks: int = 0
    first_byte_s: float | None = None
    total_s: float | None = None
    usage: dict[str, Any] | None = None
    usage_is_final: bool = False
    content_bytes: int = 0
    content_chunks: int = 0
    # What the log is to know of a failure, and nobody else: the provider's words and request id.
    evidence: dict[str, Any] = field(default_factory=dict)

    def complete(self) -> None:
        self.outcome, self.ending = "completed", Ending.COMPLETED

    def fail(self, refusal: Refusal) -> None:
        self.outcome, self.evidence = refusal.code, refusal.log

    def cut(self) -> None:
        self.outcome, self.ending = "output_cap_enforced", Ending.CUT
