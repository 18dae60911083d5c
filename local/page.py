"""Serves the example page on an origin of its own, beside the gateway.

The page is the same build for every run; this run's addresses are in /config.json. It gets what a
careful site would send with it: a policy under which it can reach the gateway and the user pool,
and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path

from local.http1 import Exchange

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Page:
    """Every file of a folder, read once."""

    def __init__(self, folder: Path, config: dict[str, str]) -> None:
        self._files = {
            f"/{path.relative_to(folder).as_posix()}": (
                MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
                path.read_bytes(),
            )
            for path in folder.rglob("*")
            if path.is_file()
        }
        self._files["/"] = self._files["/index.html"]
        self._files["/config.json"] = ("application/json", json.dumps(config).encode())
        reachable = " ".join(value for value in config.values() if value.startswith("http"))
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:;"
            f" connect-src 'self' {reachable};"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._headers = [
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-cache"),  # the next run may have built another one
        ]

    async def __call__(self, exchange: Exchange) -> None:
        found = self._files.get(exchange.target.partition("?")[0])
        if exchange.method not in ("GET", "HEAD") or found is None:
            status = 404 if found is None else 405
            await exchange.respond(status, [("Content-Type", "text/plain")], b"Not here.\n")
            return
        media_type, body = found
        await exchange.respond(200, [("Content-Type", media_type), *self._headers], body)


def config(url: str, cognito_client_id: str, cognito_endpoint: str) -> dict[str, str]:
    """The names of the page's .env.example."""
    return {
        "VITE_WEIR_BASE_URL": url,
        "VITE_COGNITO_CLIENT_ID": cognito_client_id,
        "VITE_COGNITO_ENDPOINT": cognito_endpoint,
    }
