"""Model providers' API keys: one secret, {"<upstream>": {"key", "host"}}.

A key belongs to the host that it was given for. An upstream whose address has been changed to
another host has no key until it is given one: who may edit addresses cannot thereby send a key
elsewhere. Keys are written, never shown: what is shown is the last four characters, and those are
kept with the catalogue.
"""

import json
from typing import Any
from urllib.parse import urlsplit

from weir.aws.vault import usable_key


def host_of(base_url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def key_for(secret: str, upstream: str, base_url: str) -> str | None:
    """None if there is none for this host."""
    try:
        told = json.loads(secret)[upstream]
        key, host = told["key"], told["host"]
    except (ValueError, KeyError, TypeError):
        return None
    return key if host == host_of(base_url) and usable_key(key) else None


class ProviderKeys:
    """For the operator's side: to set and to remove."""

    def __init__(self, secrets: Any, secret_id: str) -> None:
        self._secrets = secrets
        self._secret_id = secret_id

    def set(self, upstream: str, key: str, base_url: str) -> None:
        self._write({**self._read(), upstream: {"key": key, "host": host_of(base_url)}})

    def remove(self, *upstreams: str) -> None:
        there = self._read() if upstreams else {}
        kept = {name: told for name, told in there.items() if name not in upstreams}
        if kept != there:
            self._write(kept)

    def _read(self) -> dict[str, Any]:
        text = self._secrets.get_secret_value(SecretId=self._secret_id)["SecretString"]
        try:
            told = json.loads(text)
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}

    def _write(self, keys: dict[str, Any]) -> None:
        text = json.dumps(keys, separators=(",", ":"))
        self._secrets.put_secret_value(SecretId=self._secret_id, SecretString=text)
