"""`make bench`: what Weir's chat function costs, beside what people would otherwise run.

Everything is asked the same questions, in turns, on this machine and over loopback only: the fake
provider itself, nginx, a FastAPI relay on uvloop, and the chat function on its real streaming
runtime. A provider's chunk carries the time it was sent, so that a delay is a subtraction
of two readings of one clock.

    environment   what has to be installed or built first: once, into .local/bench
    authority     the certificate authority of a run, which all of them trust
    upstream      the fake provider, a process of its own
    distance      a proxy that puts it some milliseconds away
    store         DynamoDB and Secrets Manager (the embedded AWS)
    counting      a proxy in front of the store that counts trips and units
    quota         a share of a core for one process
    wire          reading an answer with the time of each piece; Lambda's side of the Runtime API
    targets       what is measured: how it starts, how it is asked
    measure       the rounds                    report, plot     what is told of them
    situations    what happens once             tables, costs    what is told of it
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".local" / "bench"


class CannotMeasure(Exception):
    """One sentence for the person at the terminal. No table is written after one."""
