"""Idempotency-Key: a request that is sent twice is carried out once (contracts/ringside.md, section
5; draft-ietf-httpapi-idempotency-key-header).
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from weir.errors import BadRequest

HEADER = "Idempotency-Key"
KEPT_S = 86_400
LOCKED_S = 60  # by a request whose process may have died
WAIT_S = 2.0  # for one that is running: many clients send the next step whatever this one answers
MAX_KEY = 255
REPLAYED = {"Idempotent-Replayed": "true"}


def parse_key(header: str | None) -> str | None:
    """Return the key; None without one. As a structured string, which the draft wants, or bare, as
    everyone sends it. Raise BadRequest.
    """
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 1 <= len(key) <= MAX_KEY or not all("!" <= each <= "~" for each in key):
        raise BadRequest(
            f"{HEADER} must have 1 to {MAX_KEY} visible ASCII characters, and be sent once.",
            code="invalid_idempotency_key",
            param=HEADER,
        )
    return key


def digest(*named: str) -> str:
    """Return what a request is found by: its method, route, place and key."""
    return sha256("\0".join(named).encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint(body: Mapping[str, Any]) -> str:
    """Return what tells one body from another. The order of its members does not matter."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()
