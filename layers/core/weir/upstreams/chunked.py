"""HTTP's chunked coding, bytes in, content out (RFC 9112, section 7.1).

The relay takes a provider's answer from the socket itself: handing each chunk over from another
thread, or through a general HTTP parser, costs more than everything else that happens to it (see
docs/decisions/0004). Strict: what is not chunked coding is an error, never guessed at.
"""

import re

MAX_LINE = 4096  # of a chunk's size with its extensions, or of a trailer

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")


class ChunkedDecoder:
    """`ended` is True once the last chunk and the trailers, which nobody reads, are over."""

    def __init__(self) -> None:
        self.ended = False
        self.rest = (
            b""  # what has come and is not decoded; after the end: what does not belong to it
        )
        self._left = 0  # content of the current chunk that is still to come
        self._closing = False  # a chunk's content is over, its line end is still to come
        self._trailers = False

    def feed(self, data: bytes) -> bytes:
        """The content that `data` brings: of all its chunks, in one piece. Raises ValueError."""
        raw = self.rest + data if self.rest else data
        at = 0
        pieces = []
        while not self.ended:
            if self._left:
                piece = raw[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._closing = True
            line_end = raw.find(b"\r\n", at, at + MAX_LINE + 2)
            if line_end < 0:
                if len(raw) - at > MAX_LINE:
                    raise ValueError("a line of the chunked coding does not end")
                break
            self._line(raw[at:line_end])
            at = line_end + 2
        self.rest = raw[at:]
        return b"".join(pieces)

    def _line(self, line: bytes) -> None:
        if self._closing:
            if line:
                raise ValueError("a chunk is longer than it said")
            self._closing = False
        elif self._trailers:
            self.ended = not line
        else:
            size = _SIZE_LINE.fullmatch(line)
            if size is None:
                raise ValueError("this is not the size of a chunk")
            self._left = int(size[1], 16)
            self._trailers = self._left == 0
