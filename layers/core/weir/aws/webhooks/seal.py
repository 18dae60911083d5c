"""Secrets of webhook endpoints, encrypted by the stack's KMS key before they reach the table.

Who makes a secret may encrypt and not decrypt; the function that delivers may decrypt and not
encrypt. The encryption context ties a ciphertext to its endpoint: copied to another it opens
nothing. Source: AWS KMS developer guide, "Encryption context".
"""

import base64
from typing import Any

MOST_KEPT = 1000  # opened secrets, by one process


def _context(pid: str, endpoint_id: str) -> dict[str, str]:
    """The template's policies name these two keys."""
    return {"weir:project": pid, "weir:webhook_endpoint": endpoint_id}


class Sealer:
    """`kms` is botocore's client, `key` the key's ARN. Raises what botocore does."""

    def __init__(self, kms: Any, key: str) -> None:
        self._kms = kms
        self._key = key

    def seal(self, pid: str, endpoint_id: str, secret: str) -> str:
        answer = self._kms.encrypt(
            KeyId=self._key,
            Plaintext=secret.encode(),
            EncryptionContext=_context(pid, endpoint_id),
        )
        return base64.b64encode(answer["CiphertextBlob"]).decode()


class Opener:
    """Opens each secret once, and keeps it as long as the process."""

    def __init__(self, kms: Any, key: str) -> None:
        self._kms = kms
        self._key = key
        self._opened: dict[tuple[str, str, str], str] = {}

    def open(self, pid: str, endpoint_id: str, sealed: str) -> str:
        place = (pid, endpoint_id, sealed)
        if place not in self._opened:
            answer = self._kms.decrypt(
                KeyId=self._key,
                CiphertextBlob=base64.b64decode(sealed),
                EncryptionContext=_context(pid, endpoint_id),
            )
            if len(self._opened) >= MOST_KEPT:
                self._opened.clear()
            self._opened[place] = answer["Plaintext"].decode()
        return self._opened[place]
