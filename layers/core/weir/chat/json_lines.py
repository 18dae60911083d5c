"""JSON as the relay reads and writes it, made for one line at a time."""

import json
from typing import Any

from weir.web.request import finite, refuse_constant

# Made once: json.loads and json.dumps with arguments would make one for every chunk. Numbers that
# JSON cannot say are refused; control characters within strings are taken as they are.
DECODER = json.JSONDecoder(parse_constant=refuse_constant, parse_float=finite, strict=False)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

# Characters at which some clients' readers end a line (Python's str.splitlines), beside those that
# JSON escapes anyway.
_LINE_ENDS = [(chr(code), f"\\u{code:04x}") for code in (0x85, 0x2028, 0x2029)]


def compact(value: Any) -> bytes:
    """Return a value as one line of JSON in UTF-8."""
    text = _ENCODER.encode(value)
    if text.isascii():
        return text.encode()
    for mark, escaped in _LINE_ENDS:
        text = text.replace(mark, escaped)
    # A lone surrogate cannot be UTF-8; its JSON escape can.
    return text.encode("utf-8", "backslashreplace")
