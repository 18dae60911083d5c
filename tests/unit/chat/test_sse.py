"""The reader against the standard's own examples, and under every cut of the bytes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.chat import sse
from weir.chat.sse import Event, EventReader, EventTooLarge


def read(*pieces: bytes) -> list[Event]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


# WHATWG HTML, section 9.2.6, where each is explained.
STANDARD = [
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("message", b"YHOO\n+2\n10")]),
    (
        b": test stream\n\ndata: first event\nid: 1\n\n"
        b"data:second event\nid\n\ndata:  third event\n\n",
        [
            Event("message", b"first event"),
            Event("message", b"second event"),
            Event("message", b" third event"),
        ],
    ),
    (b"data\n\ndata\ndata\n\ndata:", [Event("message", b""), Event("message", b"\n")]),
    (b"data:test\n\ndata: test\n\n", [Event("message", b"test"), Event("message", b"test")]),
    (b"event: error\ndata: {}\n\n", [Event("error", b"{}")]),
    (b"\xef\xbb\xbfdata: after a BOM\n\n", [Event("message", b"after a BOM")]),
    (b"nonsense\nretry: 10\n\n", []),
]


@pytest.mark.parametrize(("stream", "events"), STANDARD)
def test_standard_examples_are_read_as_the_standard_says(
    stream: bytes, events: list[Event]
) -> None:
    assert read(stream) == events


RECORDED = (
    b"\xef\xbb\xbf: PROCESSING\r\n\r\n"
    b'data: {"choices":[{"delta":{"content":"Gr\xc3\xbc\xc3\x9fe \xf0\x9f\x8c\x8a"}}]}\r\n\r\n'
    b"event: error\ndata: a\ndata: b\n\n"
    b"data: cr only\r\r"
    b"data: mixed\r\n\ndata: [DONE]\n\n"
)
RECORDED_EVENTS = read(RECORDED)


def test_recorded_stream_has_the_events_one_sees_in_it() -> None:
    assert [event.data for event in RECORDED_EVENTS] == [
        '{"choices":[{"delta":{"content":"Grüße 🌊"}}]}'.encode(),
        b"a\nb",
        b"cr only",
        b"mixed",
        b"[DONE]",
    ]


@pytest.mark.parametrize("cut", range(len(RECORDED) + 1))
def test_one_cut_anywhere_gives_the_same_events(cut: int) -> None:
    assert read(RECORDED[:cut], RECORDED[cut:]) == RECORDED_EVENTS


def test_one_byte_at_a_time_gives_the_same_events() -> None:
    assert read(*(RECORDED[i : i + 1] for i in range(len(RECORDED)))) == RECORDED_EVENTS


@given(
    st.lists(st.sampled_from([b"data: a", b"data:", b":c", b"event: e", b"", b"x"]), max_size=12),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_any_cuts_of_any_lines_give_the_same_events(
    lines: list[bytes], end: bytes, cuts: list[int]
) -> None:
    # The trailing comment shows the reader that a CR at the very end was one line's end.
    stream = end.join([*lines, b"", b":"])
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    assert read(*pieces) == read(stream)


def test_event_without_its_blank_line_is_not_delivered() -> None:
    reader = EventReader()
    assert reader.feed(b"data: half") == []
    assert reader.end() == ([], Event("message", b"half"))


def test_endless_event_is_refused() -> None:
    with pytest.raises(EventTooLarge):
        read(b"data: " + b"x" * (sse.MAX_EVENT_BYTES + 1))


def test_frame_is_one_data_line_and_a_blank_line() -> None:
    assert read(sse.frame(b"{}"), sse.DONE) == [
        Event("message", b"{}"),
        Event("message", b"[DONE]"),
    ]
    assert sse.frame(b"{}") == b"data: {}\n\n"


def test_heartbeat_is_no_event() -> None:
    assert read(sse.HEARTBEAT) == []
