"""How a customer is named: by the id that Weir gives, or by the operator's own, its external id.

A path, a header and a body may hold either; `ext:` says that it is the operator's. In the place of
an external id alone the seed writes the prefix, too, so one leading `ext:` is always taken off.
"""

import re
from typing import NamedTuple

from weir.errors import BadRequest
from weir.identifiers import MAX_IDENTIFIER, is_identifier

EXTERNAL = "ext:"
PREFIX = "cust_"
_OTHER_PREFIX = "cus_"  # of the vendor's older pages
_ULID = "[0-9A-HJKMNP-TV-Z]{26}"
_ID = re.compile(PREFIX + _ULID)

# API Gateway decodes a path's parameters before anyone sees them: with these in an id, what was
# one segment could be read as several, or as a query.
_AMBIGUOUS = "%/?#\\"
# What a program writes that had no id: all of its visitors would share one customer and budget.
_NOBODY = ("undefined", "null", "nan", "none", "[object object]")

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Reference(NamedTuple):
    """One of the two is there."""

    customer_id: str | None
    external_id: str | None


def ulid(at_ms: int, random: bytes) -> str:
    """Return 26 characters that sort by time: 48 bits of milliseconds, 80 random ones (10 bytes),
    in Crockford's base 32 (github.com/ulid/spec).
    """
    number = at_ms << 80 | int.from_bytes(random[:10], "big")
    return "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def is_customer_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def parse_external_id(value: object, param: str = "external_id") -> str:
    """Return it without `ext:`, normalised (Unicode NFC). Raise BadRequest."""
    import unicodedata  # a user token's chat needs this module, and not that

    if not isinstance(value, str):
        raise _refused("must be a string", param)
    text = unicodedata.normalize("NFC", value.removeprefix(EXTERNAL))
    if not is_identifier(text) or text != text.strip():
        raise _refused(
            f"must have 1 to {MAX_IDENTIFIER} characters after ext:, no control characters, and no "
            "space at either end",
            param,
        )
    if text in (".", "..") or any(each in text for each in _AMBIGUOUS):
        raise _refused(r"must not be . or .., and must not contain % / \ ? or #", param)
    if text.lower().endswith(_NOBODY):
        raise _refused(
            f"ends in {text[-20:]!r}: the program that made it had no id for this user. All of its "
            "users would share one customer and one budget",
            param,
        )
    return text


def parse_reference(text: str, param: str = "customer") -> Reference:
    """Return what a path, a header or a body names. Raise BadRequest for a bad external id; what is
    neither is nobody's id.
    """
    if text.startswith(EXTERNAL):
        return Reference(None, parse_external_id(text, param))
    if text.startswith(_OTHER_PREFIX):
        text = PREFIX + text.removeprefix(_OTHER_PREFIX)
    return Reference(text if is_customer_id(text) else None, None)


def _refused(why: str, param: str) -> BadRequest:
    return BadRequest(f"{param} {why}.", code="invalid_external_id", param=param)
