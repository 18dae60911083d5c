"""`make bench`: what Weir's chat function costs, beside what people would otherwise run.

Everything is asked the same questions, in turns, on this machine and over loopback only: the fake
provider itself, nginx, a FastAPI relay as people write it, and the chat function on its real
streaming runtime. A provider's chunk carries the time it was sent, so that a delay is a subtraction
of two readings of one clock.

    environment   what has to be installed or built first: once, into .local/bench
    upstream      the fake provider, a process of its own
    store         DynamoDB and Secrets Manager (the embedded AWS), and a proxy that counts
    wire          reading an answer with the time of each piece; Lambda's side of the Runtime API
    targets       what is measured: how it starts, how it is asked
    measure       the rounds                    report, plot     what is told of them
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".local" / "bench"


class CannotMeasure(Exception):
    """One sentence for the person at the terminal. No table is written after one."""
