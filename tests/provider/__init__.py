"""One model provider for all tests: it does what providers do, well or badly, when it is told to.

The last message of a request says how to be answered, as a JSON object: `do` names a dialect
(`dialects.DIALECTS`), other members change its answer (`answers.CHANGES`), whatever it is:

    {"do": "stream", "chunks": 3, "interleave": ": ping\\n\\n", "cut": {"after": 4, "how": "reset"}}
    {"do": "frames", "frames": ["data: {}\\n\\n"], "type": "application/json", "gzip": true}
    {"do": "body", "body": "busy", "status": 503, "headers": {"Retry-After": "3"}, "delay_s": 2}
    {"do": "whole", "first": {"do": "fail", "status": 503, "retry_after": 2}, "for": "u_1"}

The first request with exactly the last of these fails, later ones are answered well.
Of embeddings and moderations it is the first input that says so. Anything else is answered well. A
test in the same process can also hand over whole answers, down to the bytes
(`FakeProvider(*scripts)`), or set `does` for every request.
"""

from tests.provider.dialects import USAGE, chunk
from tests.provider.server import FakeProvider

__all__ = ["USAGE", "FakeProvider", "chunk"]
