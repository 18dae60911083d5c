"""When an answer has surely passed its cap. tests/tokenizers proves the count."""

import random
import time

import pytest

from weir.chat.cap import MARGIN, Cap, Place

CONTENT: Place = (0, "content")
ARGUMENTS: Place = (0, "tool_calls.0.function.arguments")


def least(*texts: tuple[Place, str]) -> int:
    counting = Cap(10**9)
    counting.is_passed(texts, None)
    return counting.least_tokens()


COUNTED = {
    "words": ("one two three", 3),
    "an apostrophe within a word": ("isn't it (really)", 4),
    "marks between words, one of which no word's token holds": ("one, two; three", 5),
    "letters and digits, which are never one token": ("a1b2", 4),
    "digits alone": ("0" * 32, 1),
    "more digits than any token has": ("0" * 33, 2),
    "the longest token of one letter": ("x" * 64, 1),
    "letters without an end": ("x" * 6_400, 100),
    "Chinese, whose longest token has 16 characters": ("\u4e2d" * 160, 10),
    "Chinese clauses": ("\u4e2d\u4e2d\uff0c\u4e2d\u4e2d\u3002\u4e2d", 3),
    "emoji": ("\U0001f600" * 71, 10),
    "Arabic words": ("\u0643\u0644\u0645\u0629 \u0643\u0644\u0645\u0629", 2),
    "a lone surrogate": ("\ud800", 1),
    "marks": ("-" * 2_560, 10),
    "blanks": ("\n" * 10_240, 10),
    "HTML, whose tags may be one token each": ("</div>\n</div><h1>", 3),
    "a control token that is shown": ("<|tool_call_begin|><|tool_call_end|>", 2),
    "nothing": ("", 0),
}


@pytest.mark.parametrize(("text", "tokens"), COUNTED.values(), ids=COUNTED)
def test_text_is_at_least_so_many_tokens(text: str, tokens: int) -> None:
    assert least((CONTENT, text)) == tokens


@pytest.mark.parametrize("size", [1, 2, 7])
def test_chunks_may_be_cut_anywhere(size: int) -> None:
    text = 'Say, "one": 1,\n  caf\u00e9, \u4e2d\u6587; `x` (two)\n\n\U0001f600 don\'t\n' * 5
    for seen_at in range(0, len(text), 11):  # counted on the way, too
        counting = Cap(10**9)
        for at in range(0, len(text), size):
            counting.is_passed([(CONTENT, text[at : at + size])], None)
            if at % 11 == seen_at % 11:
                counting.least_tokens()
        assert counting.least_tokens() == least((CONTENT, text))


def test_texts_that_come_side_by_side_are_not_read_as_one() -> None:
    counting = Cap(10**9)
    for letter in "telecommunications":
        counting.is_passed([((0, "content"), letter), ((1, "content"), " ")], None)
    assert counting.least_tokens() == 1


def test_what_was_thought_counts_once_though_it_comes_under_two_names() -> None:
    thought = "first second third"
    texts = [
        ((0, "reasoning"), thought),
        ((0, "reasoning_details.0.text"), thought),
        ((0, "reasoning_details.0.data"), "c2VjcmV0 c2VjcmV0 c2VjcmV0 c2VjcmV0"),
        ((0, "content"), "fourth"),
    ]
    assert least(*texts) == 4


@pytest.mark.parametrize(
    "path",
    [
        "audio.data",
        "images.0.image_url.url",
        "annotations.0.url_citation.content",
        "tool_calls.0.function.name",
        "tool_calls.0.extra_content.google.thought_signature",
    ],
)
def test_what_is_no_text_of_a_model_does_not_count(path: str) -> None:
    assert least(((0, path), "QUJD 1 2 3 " * 1_000)) == 0


def test_tool_arguments_count_alike_however_they_are_escaped() -> None:
    plain = least((ARGUMENTS, '{"name":"\u4e2d\u6587\u4e2d\u6587"}'))
    assert least((ARGUMENTS, '{"name": "\\u4e2d\\u6587\\u4e2d\\u6587"}')) == plain
    assert least((ARGUMENTS, '"' + "\\n" * 40 + '"')) == 1


def passed_after(cap: int, text: str, size: int = 5) -> int | None:
    """Return how many characters came before the answer was stopped; None if it was not."""
    counting = Cap(cap)
    for at in range(0, len(text), size):
        if counting.is_passed([(CONTENT, text[at : at + size])], None):
            return at + size
    return None


def test_answer_is_stopped_when_it_has_passed_the_cap_by_the_margin() -> None:
    assert passed_after(1_000, "w123 " * 20_000) == 5 * (MARGIN * 1_000 / 2 + 1)
    assert passed_after(1_000, "w123 " * 625) is None


@pytest.mark.parametrize("text", ["x" * 200_000, "\u4e2d" * 200_000, "\U0001f600" * 50_000])
def test_text_without_a_blank_is_stopped_in_bounded_time(text: str) -> None:
    began = time.process_time()
    assert passed_after(1_000, text, 2) is not None
    assert time.process_time() - began < 5


def usage(completion: int, prompt: int = 7, total: int | None = None) -> dict[str, int]:
    told = {"prompt_tokens": prompt, "completion_tokens": completion}
    return told if total is None else {**told, "total_tokens": total}


def test_usage_that_is_reported_on_the_way_stops_at_the_cap() -> None:
    counting = Cap(100)
    assert not counting.is_passed([], usage(100))
    assert counting.is_passed([], usage(101))


def test_thinking_that_only_the_total_shows_counts() -> None:
    assert Cap(100).is_passed([], usage(60, total=7 + 101))


@pytest.mark.parametrize("reported", [usage(0), usage(3), usage(3, prompt=0), {"total_tokens": 1}])
def test_usage_below_what_is_seen_does_not_hide_it(reported: dict[str, int]) -> None:
    counting = Cap(100)
    assert counting.is_passed([(CONTENT, "a word " * 63)], reported)


def test_a_chunk_under_the_cap_costs_little() -> None:
    words = random.Random(1).choices(["the", "limit", "of", "a", "request,", "held.\n"], k=20_000)
    chunks = [[(CONTENT, word + " ")] for word in words]
    counting = Cap(30_000)
    began = time.process_time()
    for chunk in chunks:
        assert not counting.is_passed(chunk, None)
    each = (time.process_time() - began) / len(chunks)
    assert each < 10e-6, "some 0.7 \u00b5s, measured on an idle core"
