"""Secrets, read by name and kept for a moment. Their content is never logged and never in an error.

Powertools' cache would do the same, but imports boto3, which the chat path cannot afford.
"""

import re
from typing import Any

from weir.aws.contention import code_of
from weir.errors import NotReady

_KEY = re.compile(r"[!-~]+")  # what can stand in an Authorization header


class Vault:
    def __init__(self, client: Any, cached_for_s: int) -> None:
        self._client = client
        self._cached_for_s = cached_for_s
        self._cache: dict[str, tuple[int, str]] = {}

    def read(self, secret_id: str, now: int) -> str:
        """The current version's text. Raises NotReady while there is none."""
        read_at, text = self._cache.get(secret_id, (now - self._cached_for_s, ""))
        if now - read_at < self._cached_for_s:
            return text
        try:
            answer = self._client.get_secret_value(SecretId=secret_id, VersionStage="AWSCURRENT")
        except Exception as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            raise NotReady(
                "A secret of this deployment does not exist yet.", retry_after_s=5
            ) from None
        self._cache[secret_id] = (now, answer["SecretString"])
        return str(answer["SecretString"])

    def forget(self, secret_id: str) -> None:
        """The next read goes to the store: for a secret that turned out to be stale or empty."""
        self._cache.pop(secret_id, None)


def usable_key(key: object) -> bool:
    return isinstance(key, str) and bool(_KEY.fullmatch(key))
