"""Log lines that show a text as it is: no character that a terminal, a viewer or a pager obeys.

Callers choose the names of users and the origins of pages; exceptions repeat what others sent. A
line is JSON in ASCII, so that control characters, U+2028 and characters that change the direction
of writing are escapes in it. Powertools and Lambda's own formatter write them raw. The streaming
runtime has a formatter of its own. Standard library only: the preflight function uses it.
"""

import json
import logging
import re
from collections.abc import Mapping
from typing import Any


def line(told: Mapping[str, Any]) -> str:
    """Return a log line. For Powertools' `json_serializer`."""
    return escaped(json.dumps(told, separators=(",", ":"), default=str))


def escaped(text: str) -> str:
    """Return JSON with an escape for DEL and whatever is not ASCII: both stand in strings only."""
    return re.sub(r"[^\x00-\x7e]+", lambda found: _escape(found[0]), text)


def escape_root() -> None:
    """Make the handlers that Lambda's runtime has installed write lines as `line` does. Modules of
    Weir and of libraries log through them.
    """
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, _Escaping):
            handler.setFormatter(_Escaping(handler.formatter or logging.Formatter()))


class _Escaping(logging.Formatter):
    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        return escaped(self._formatter.format(record))


def _escape(text: str) -> str:
    return json.dumps(text)[1:-1].replace("\x7f", "\\u007f")
