"""Posts an event to an operator's server, over a guarded connection."""

from weir.upstreams.guarded import GuardedClient, Unreachable
from weir.webhooks.signature import HEADER

TOTAL_S = 10.0  # from the look-up of the name to the status line


class Poster:
    def __init__(self, client: GuardedClient) -> None:
        self._client = client

    def __call__(self, url: str, body: bytes, signature: str) -> str | None:
        """Return None if the receiver answers 2xx, or a sentence that says why it did not. Of its
        answer the status and headers are read, and no body.
        """
        headers = [
            ("Content-Type", "application/json"),
            ("User-Agent", "weir-webhooks"),
            (HEADER, signature),
        ]
        try:
            with self._client.stream("POST", url, headers, body, total_s=TOTAL_S) as answer:
                status = answer.status
        except Unreachable as error:
            return str(error)
        if 200 <= status < 300:
            return None
        if 300 <= status < 400:
            return f"It redirects elsewhere (status {status}), which is not followed."
        return f"It answers with status {status}."
