"""HTTP's content codings, of a body that nobody asked to be coded (RFC 9110, section 8.4.1).

We ask for `identity`. Some content networks compress all the same.
"""

import zlib

from weir.errors import UpstreamFailed, UpstreamUnavailable

MOST_AT_ONCE = 1_000_000  # bytes: a compressed body may be a thousand times as long as it looks

# zlib's window bits: gzip and zlib, told apart by their first bytes.
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Inflater:
    """Bytes of a compressed body in, its content out, in pieces of at most MOST_AT_ONCE."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._raw = b""

    def feed(self, data: bytes) -> bytes:
        """Return content, which may be empty: more has to come, or all has been returned. Raise
        UpstreamUnavailable for what is not compressed as it says.
        """
        try:
            content = self._inflate.decompress(self._raw + data, MOST_AT_ONCE)
        except zlib.error as error:
            raise UpstreamUnavailable("The provider's answer is compressed wrongly.") from error
        self._raw = self._inflate.unconsumed_tail
        return content

    @property
    def has_more(self) -> bool:
        """Whether `feed(b"")` has more to return."""
        return bool(self._raw)

    @property
    def ended(self) -> bool:
        return self._inflate.eof


def inflater_for(content_encoding: str) -> Inflater | None:
    """Return what decodes a body with this header; None if it needs no decoding. Raise
    UpstreamFailed for a coding that is not known here.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding in ("gzip", "x-gzip", "deflate"):
        return Inflater()
    raise UpstreamFailed(
        f"The provider's answer is coded as {coding[:60]!a}, which nobody asked for.",
        code="upstream_invalid_response",
    )
