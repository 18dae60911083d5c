"""A provider's document of vectors or judgements, made anew."""

import json
import struct
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.chat.masking import NOTHING_MASKED
from weir.embeddings import answers
from weir.embeddings.inputs import InputRequest
from weir.errors import UpstreamFailed


def asked(inputs: int = 1, encoding: str = "float") -> InputRequest:
    return InputRequest(False, True, b"{}", inputs=inputs, encoding=encoding)


def base64_of(*numbers: float) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def embedded(*vectors: Any, encoding: str = "float") -> list[Any]:
    data = [{"index": place, "embedding": each} for place, each in enumerate(vectors)]
    return [each["embedding"] for each in answered(data, encoding)["data"]]


def answered(data: list[Any], encoding: str = "float") -> Any:
    vectors = answers.embeddings(data, asked(len(data), encoding))
    return json.loads(b"".join(answers.of_vectors(vectors, encoding, '"model":"m"}')))


def test_vectors_are_in_the_order_of_the_inputs_with_known_members_alone() -> None:
    data = [
        {"index": 1, "embedding": [2, 3.5], "more": 1, "object": "x"},
        {"index": 0, "embedding": [0.5, -1]},
    ]
    assert answered(data) == {
        "object": "list",
        "model": "m",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]},
            {"object": "embedding", "index": 1, "embedding": [2.0, 3.5]},
        ],
    }


def test_vectors_without_an_index_are_in_order() -> None:
    made = answered([{"embedding": [1]}, {"embedding": [2]}])
    assert [each["embedding"] for each in made["data"]] == [[1.0], [2.0]]


VECTOR = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9)


@given(VECTOR)
def test_caller_gets_the_encoding_that_was_asked_for_whatever_came(vector: list[float]) -> None:
    encoded = base64_of(*vector)
    assert embedded(vector, encoding="base64") == embedded(encoded, encoding="base64") == [encoded]
    assert embedded(vector) == embedded(encoded) == [vector]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1))
def test_numbers_stay_exactly_what_they_were(vector: list[float]) -> None:
    if sum(vector) in (float("inf"), float("-inf")):
        return
    assert json.loads(json.dumps(embedded(vector))) == [vector]


@pytest.mark.parametrize(
    "vector",
    [
        *(None, [], "", 7, {}, ["1"], [None], [[1]], [float("nan")], [float("inf")]),
        *(
            "!!!!",
            "AAA=",
            "AAAA",
            "é",
            "AAC!APw==",
            base64_of(float("nan")),
            base64_of(1, float("inf")),
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_what_is_no_vector_is_unreadable(vector: Any, encoding: str) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        embedded(vector, encoding=encoding)
    assert caught.value.code == "upstream_invalid_response"


def test_number_beyond_32_bits_is_unreadable_as_base64() -> None:
    assert embedded([1e300]) == [[1e300]]
    with pytest.raises(UpstreamFailed):
        embedded([1e300], encoding="base64")


def test_many_vectors_are_sent_in_pieces() -> None:
    vectors = answers.embeddings([{"embedding": [0.5] * 1_000}] * 300, asked(300))
    pieces = list(answers.of_vectors(vectors, "float", '"model":"m"}'))
    assert len(pieces) > 3
    assert max(map(len, pieces)) < answers.PIECE + 10_000
    assert len(json.loads(b"".join(pieces))["data"]) == 300


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [],
        [1, 2],
        [{"embedding": [1]}, 1],
        [{"embedding": [1]}],
        [{"embedding": [1]}] * 3,
        [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [1]}],
        [{"index": True, "embedding": [1]}, {"index": 0, "embedding": [1]}],
        [{"index": -1, "embedding": [1]}, {"index": 0, "embedding": [1]}],
        [{"embedding": [1]}, {"embedding": [1, 2]}],
    ],
    ids=repr,
)
def test_other_results_than_one_of_each_input_are_unreadable(data: Any) -> None:
    with pytest.raises(UpstreamFailed):
        answers.embeddings(data, asked(2))


# ---------------------------------------------------------------- judgements


JUDGED = {
    "flagged": True,
    "categories": {"violence": True, "self-harm": False},
    "category_scores": {"violence": 0.9, "self-harm": 0.0},
    "category_applied_input_types": {"violence": ["text"], "self-harm": []},
}


def judged(**changed: Any) -> Any:
    told = {n: v for n, v in {**JUDGED, **changed}.items() if v is not ...}
    return answers.moderations([told], asked())[0]


def test_judgement_has_the_known_members_alone() -> None:
    assert judged(more=1, categories={**JUDGED["categories"], "illicit": None}) == JUDGED  # type: ignore[dict-item]
    assert "category_applied_input_types" not in judged(category_applied_input_types=...)
    assert judged(category_scores={"violence": 1, "self-harm": 0})["category_scores"] == {
        "violence": 1.0,
        "self-harm": 0.0,
    }


def test_judgement_that_tells_categories_alone_is_flagged_by_them() -> None:
    """Mistral's form."""
    assert judged(flagged=...)["flagged"] is True
    assert judged(flagged=..., categories={"violence": False})["flagged"] is False


@pytest.mark.parametrize(
    "changed",
    [
        {"flagged": "no"},
        {"flagged": ..., "categories": ...},
        {"categories": {"violence": 1}},
        {"category_scores": {"violence": "0.9"}},
        {"category_scores": {"violence": float("inf")}},
        {"category_scores": {"violence": float("nan")}},
        {"category_scores": {"violence": True}},
        {"category_scores": {"violence": 10**400}},
        {"category_scores": {"violence": 1_001}},
        {"category_scores": {"violence": -1_001}},
        {"categories": {str(n): True for n in range(101)}},
        {"categories": {"x" * 101: True, "y": True}},
    ],
    ids=lambda changed: repr(changed)[:40],
)
def test_what_is_no_judgement_is_unreadable(changed: Any) -> None:
    with pytest.raises(UpstreamFailed):
        judged(**changed)


def test_most_categories_their_names_and_scores() -> None:
    categories = {f"{n:0100}": True for n in range(100)}
    scores = {"a": 1_000, "b": -1_000.0, "c": 0}
    told = judged(categories=categories, category_scores=scores)
    assert told["categories"] == categories
    assert told["category_scores"] == scores


@pytest.mark.parametrize(
    ("name", "told"),
    [("m", "m"), ("m" * 200, "m" * 200), ("m" * 201, None), ("", None), (7, None), (None, None)],
    ids=lambda value: repr(value)[:9],
)
def test_name_of_the_model_is_a_short_text(name: Any, told: str | None) -> None:
    assert answers.model_of({"model": name}, NOTHING_MASKED) == told


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"prompt_tokens": 5, "total_tokens": 5}, 5),
        ({"total_tokens": 7}, 7),  # Voyage
        ({"prompt_tokens": 5, "total_tokens": 9}, 9),
        ({"prompt_tokens": 5, "total_tokens": 0}, 5),
        ({"input_tokens": 4}, 4),
        ({"prompt_tokens": 1}, 1),
        ({"prompt_tokens": 10**9}, 10**9),
        ({"prompt_tokens": 0, "total_tokens": 0}, None),  # nothing is free
        ({"prompt_tokens": -5}, None),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": "5"}, None),
        ({"prompt_tokens": 10**12}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
    ids=repr,
)
def test_usage_is_all_input_and_what_is_no_count_is_none(told: Any, tokens: int | None) -> None:
    found = answers.usage({"usage": told})
    assert (found and found["prompt_tokens"]) == tokens
    if found:
        assert found["completion_tokens"] == 0
