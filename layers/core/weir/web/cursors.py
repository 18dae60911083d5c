"""Pages of lists: `{data, has_more, next_cursor}` (contracts/ringside.md, section 2.9)."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from weir.errors import BadRequest

MOST, DEFAULT = 100, 20
_MAX_CURSOR = 400  # characters


def page_of(query: Mapping[str, Sequence[str]]) -> tuple[int, str | None]:
    """Return how many a page has, and the id after which it begins. Raise BadRequest."""
    text = query.get("limit", [str(DEFAULT)])[-1]
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:4]) <= MOST or len(text) > 4:
        raise BadRequest(f"limit must be a number from 1 to {MOST}.", param="limit")
    cursor = query.get("cursor", [""])[-1]
    return int(text), _opened(cursor) if cursor else None


def page_view(data: Sequence[Any], after: str | None) -> dict[str, Any]:
    """`after`: the id of the last one, if there are more."""
    cursor = None if after is None else _closed(after)
    return {
        "object": "list",
        "data": list(data),
        "has_more": after is not None,
        "next_cursor": cursor,
    }


def _closed(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def _opened(cursor: str) -> str:
    try:
        if len(cursor) > _MAX_CURSOR or not cursor.isascii():
            raise ValueError
        opened = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        if not opened.isprintable():
            raise ValueError
    except (ValueError, binascii.Error):
        raise BadRequest("cursor must be a next_cursor of this list.", param="cursor") from None
    return opened
