"""The chunked coding under every cut of its bytes, and against an encoder that is not ours."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.upstreams.chunked import MAX_LINE, ChunkedDecoder

CODED = (
    b"4\r\nWiki\r\n7;name=value\r\npedia i\r\nB \t\r\nn \r\nchunks.\r\n0\r\nExpires: never\r\n\r\n"
)
CONTENT = b"Wikipedia in \r\nchunks."


def decode(*pieces: bytes) -> tuple[bytes, ChunkedDecoder]:
    decoder = ChunkedDecoder()
    return b"".join(decoder.feed(piece) for piece in pieces), decoder


@pytest.mark.parametrize("cut", range(len(CODED) + 1))
def test_one_cut_anywhere_gives_the_same_content(cut: int) -> None:
    content, decoder = decode(CODED[:cut], CODED[cut:])
    assert (content, decoder.ended, decoder.rest) == (CONTENT, True, b"")


def test_one_byte_at_a_time_gives_the_same_content() -> None:
    content, decoder = decode(*(CODED[i : i + 1] for i in range(len(CODED))))
    assert (content, decoder.ended) == (CONTENT, True)


@pytest.mark.parametrize("length", range(len(CODED)))
def test_nothing_short_of_the_end_is_taken_for_it(length: int) -> None:
    content, decoder = decode(CODED[:length])
    assert not decoder.ended
    assert CONTENT.startswith(content)


def test_content_arrives_before_its_chunk_is_whole() -> None:
    assert decode(b"ff\r\nhalf")[0] == b"half"


def test_what_follows_the_end_is_kept_apart() -> None:
    assert decode(CODED + b"HTTP/1.1")[1].rest == b"HTTP/1.1"


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(1, 64))
def test_what_h11_writes_is_read(chunks: list[bytes], step: int) -> None:
    writer = h11.Connection(h11.SERVER)
    writer.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.next_event()
    writer.send(h11.Response(status_code=200, headers=[]))
    coded = b"".join(writer.send(h11.Data(data=chunk)) or b"" for chunk in chunks)
    coded += writer.send(h11.EndOfMessage()) or b""
    content, decoder = decode(*(coded[i : i + step] for i in range(0, len(coded), step)))
    assert (content, decoder.ended) == (b"".join(chunks), True)


@pytest.mark.parametrize(
    "coded",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"0x4\r\nWiki\r\n",
        b"123456789\r\n",
        b"4 4\r\nWiki\r\n",
        b"4\r\nWikipedia\r\n",
        b"data: {}\n\n\r\n",
        b"4;" + b"x" * MAX_LINE + b"\r\n",
        b"0\r\nX: " + b"x" * MAX_LINE + b"\r\n",
    ],
)
def test_what_is_not_chunked_coding_is_an_error(coded: bytes) -> None:
    with pytest.raises(ValueError, match="chunk"):
        decode(coded, b"x" * MAX_LINE)
