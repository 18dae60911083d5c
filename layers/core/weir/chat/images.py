"""Which addresses of images are passed on. Weir opens none of them; the provider does.

An image has a price only as an image. So an address is of a public host, over https, or it is the
data of a PNG, JPEG, GIF or WebP file. What else a provider might be made to read (its own files and
network, documents, films) is refused. What a public name resolves to is the provider's to judge.
"""

import re
from typing import Any

from weir.errors import BadRequest

MAX_URL = 2048
DETAILS = ("auto", "low", "high")

# Compiled (and kept by `re`) when a request first has an image, not at each cold start.
_DATA = r"data:image/(?:png|jpeg|gif|webp);base64,"
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# How the files begin, in base64: 89 50 4E 47 0D 0A 1A 0A; FF D8 FF; "GIF8"; "RIFF".
_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")

# A name of at least two labels, of which the last begins with a letter: no address in numbers, in
# any notation (WHATWG URL standard, "ends in a number"), no user before an @, no dot at the end.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_URL = (
    rf"(?ia)https://(?P<host>(?:{_LABEL}\.)+(?P<top>[a-z][a-z0-9-]*[a-z0-9]))(?::[0-9]{{1,5}})?"
    r"(?:[/?#][^\x00-\x20\x7f\\\ud800-\udfff]*)?"
)
# Names that mean something else within a private network (RFC 6761, 6762, 8375, 9476; ICANN 2024).
_PRIVATE = frozenset(
    {"localhost", "local", "internal", "arpa", "alt", "home", "corp", "mail", "lan", "intranet",
     "private", "localdomain", "onion", "test", "invalid"}
)  # fmt: skip


def check_image(image: object, place: str) -> dict[str, Any]:
    """Return an `image_url` with its url and detail alone. Raise BadRequest if it is none."""
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(image, dict) or not isinstance(url, str):
        raise _refused(f"{place} must be an object with a url, which is a string.")
    if not (is_image_data(url) if url.startswith("data:") else is_public_url(url)):
        raise _refused(
            f"{place}.url must be an https:// address of a public host (a name, no number) of at "
            f"most {MAX_URL:,} characters, or data:image/png, jpeg, gif or webp;base64, followed "
            "by such a file."
        )
    detail = image.get("detail")
    if detail is None:
        return {"url": url}
    if detail not in DETAILS:
        raise _refused(f"{place}.detail must be one of {', '.join(DETAILS)}.")
    return {"url": url, "detail": detail}


def is_image_data(url: str) -> bool:
    """Whether a data: URL holds the beginning of an image, and only base64 after it."""
    found = re.match(_DATA, url)
    if found is None or not url.startswith(_BEGINNINGS, found.end()) or not url.isascii():
        return False
    # There may be megabytes: one pass that leaves only what is no base64.
    left = url.encode().translate(None, _BASE64).removeprefix(b":;,")
    return left in (b"", b"=", b"==") and url.endswith(left.decode())


def is_public_url(url: str) -> bool:
    found = re.fullmatch(_URL, url) if len(url) <= MAX_URL else None
    return found is not None and found["top"].lower() not in _PRIVATE


def _refused(message: str) -> BadRequest:
    return BadRequest(message, param="messages")
