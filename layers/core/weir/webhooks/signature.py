"""The signature by which a receiver knows that an event is ours (contracts/ringside.md, 4.16).

`X-FC-Signature: t=<Unix seconds>,v1=<hex>`: HMAC-SHA256 (RFC 2104) of `t`, a dot and the raw body,
keyed with the whole secret, `whsec_` included. While a replaced secret still counts, there is one
`v1=` for each. A receiver refuses a `t` that is more than 5 minutes old.
"""

import hashlib
import hmac
from collections.abc import Sequence

HEADER = "X-FC-Signature"
SECRET_PREFIX = "whsec_"  # noqa: S105
SECRET_BYTES = 32


def header_value(secrets: Sequence[str], at: int, body: bytes) -> str:
    """Sign a body for one attempt, made at `at` (Unix seconds)."""
    signed = f"{at}.".encode() + body
    digests = [hmac.new(each.encode(), signed, hashlib.sha256).hexdigest() for each in secrets]
    return ",".join([f"t={at}", *(f"v1={digest}" for digest in digests)])
