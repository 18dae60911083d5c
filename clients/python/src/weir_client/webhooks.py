"""Check that a webhook was sent by the gateway, and read it."""

from __future__ import annotations

import hashlib
import hmac
import json
import time

from weir_client._errors import InvalidSignature
from weir_client._models import WebhookEvent

HEADER = "X-FC-Signature"
TOLERANCE_S = 300


def verify(
    secret: str, header: str | None, body: bytes, *, tolerance_s: float = TOLERANCE_S
) -> WebhookEvent:
    """Return the event that a webhook's request carries, once its signature is verified.

    Args:
        secret: The endpoint's secret, `whsec_` included.
        header: The request's header `X-FC-Signature`.
        body: The request's body as bytes, before any parser has touched it.
        tolerance_s: The greatest age of a signature. A captured request cannot be replayed later.

    Raises:
        InvalidSignature: The gateway did not sign this with this secret, or too long ago. Answer
            with 400 and do nothing else.
    """
    parts = [part.strip().split("=", 1) for part in (header or "").split(",") if "=" in part]
    signed_at = next((value for name, value in parts if name == "t"), "")
    if not (signed_at.isascii() and signed_at.isdecimal()):
        raise InvalidSignature("The webhook has no valid X-FC-Signature header.")
    if abs(time.time() - int(signed_at)) > tolerance_s:
        raise InvalidSignature("The webhook's signature is too old, or this clock is wrong.")
    expected = hmac.new(secret.encode(), signed_at.encode() + b"." + body, hashlib.sha256)
    wanted = expected.hexdigest().encode()
    # Two signatures come while a replaced secret still counts.
    if not any(
        name == "v1" and hmac.compare_digest(value.encode(), wanted) for name, value in parts
    ):
        raise InvalidSignature("The webhook was not signed with this secret, or was changed.")
    return WebhookEvent.model_validate(json.loads(body))
