"""What may be sent to be embedded or judged, and what a provider gets of it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.chat.request import Target
from weir.embeddings import inputs
from weir.embeddings.inputs import InputRequest
from weir.errors import BadRequest
from weir.projects.catalogue import Candidate, Model, Upstream

UPSTREAM = Upstream("main", "openai", {"base_url": "https://api.provider.example/v1"})
CANDIDATE = Candidate(UPSTREAM, 'their "model"', 20, 20, 0, "max_tokens")
TARGET = Target(0, upstreams=(UPSTREAM,))
Understand = Callable[[Any, Target], InputRequest]
both = pytest.mark.parametrize("understand", [inputs.embeddings, inputs.moderations])


def sent(request: InputRequest) -> Any:
    return json.loads(request.body_for(CANDIDATE, 0))


def refused(understand: Understand, **body: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        understand(body, TARGET)
    return caught.value


def test_provider_gets_the_known_fields_with_its_own_name_of_the_model() -> None:
    body = {"model": "m", "input": ["a", "é"], "encoding_format": "base64", "dimensions": 3}
    request = inputs.embeddings({**body, "user": "me", "x y": 1, "stream": True}, TARGET)
    assert sent(request) == {**body, "model": CANDIDATE.model}
    as_floats = inputs.embeddings({**body, "encoding_format": "float"}, TARGET)
    assert sent(as_floats) == sent(request)
    assert as_floats.encoding == "float"
    assert request.dropped == ("user", "x y", "stream")
    assert (request.inputs, request.encoding, request.dimensions) == (2, "base64", 3)
    assert not request.stream


def test_what_is_null_is_absent() -> None:
    request = inputs.embeddings(
        {"input": "a", "dimensions": None, "encoding_format": None, "user": None}, TARGET
    )
    assert sent(request) == {"input": "a", "encoding_format": "base64", "model": CANDIDATE.model}
    assert (request.encoding, request.dropped) == ("float", ())


@both
@pytest.mark.parametrize(
    "value",
    [
        *(None, "", [], [""], ["a", ""], 7, True, {}, ["a", None]),
        *([1, 2], [[1], [2]], ["a", 1], ["a"] * 2_049),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_input_that_is_no_text_is_refused_by_name(understand: Understand, value: Any) -> None:
    refusal = refused(understand, input=value)
    assert (refusal.code, refusal.param) == ("invalid_input", "input")


@both
def test_one_text_is_one_input_of_its_bytes_with_nothing_to_shrink(understand: Understand) -> None:
    request = understand({"input": "é"}, TARGET)
    assert (request.inputs, request.text_bytes) == (1, len('"é"'.encode()))
    assert (request.output_cap, request.cap_asked) == (0, True)


@both
def test_most_texts_are_2048(understand: Understand) -> None:
    assert understand({"input": ["a"] * 2_048}, TARGET).inputs == 2_048


def test_tokens_are_refused_in_words_and_the_empty_text_by_its_place() -> None:
    for tokens in ([[1, 2]], ["a", 1]):
        assert "token ids" in refused(inputs.embeddings, input=tokens).message
    assert "input[1]" in refused(inputs.embeddings, input=["a", ""]).message


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("encoding_format", ["int8", 1, [], "Base64"]),
        ("dimensions", [0, -1, 1.0, True, "8", 65_537]),
    ],
)
def test_field_out_of_its_range_is_refused_by_name(field: str, values: list[Any]) -> None:
    for value in values:
        assert refused(inputs.embeddings, input="a", **{field: value}).param == field
    for most in (1, 65_536):
        assert inputs.embeddings({"input": "a", "dimensions": most}, TARGET).dimensions == most


@both
def test_field_that_changes_the_answer_is_refused_unless_the_operator_allows_it(
    understand: Understand,
) -> None:
    refusal = refused(understand, input="a", input_type="query")
    assert refusal.param == "input_type"
    assert "allowed_fields" in refusal.message
    target = Target(0, upstreams=(UPSTREAM,), allowed_fields=frozenset({"input_type"}))
    request = understand({"input": "a", "input_type": "query"}, target)
    assert sent(request)["input_type"] == "query"


def test_allowed_field_never_replaces_what_is_priced() -> None:
    target = Target(0, upstreams=(UPSTREAM,), allowed_fields=frozenset({"model", "input"}))
    assert sent(inputs.moderations({"model": "dear", "input": "a"}, target)) == {
        "input": "a",
        "model": CANDIDATE.model,
    }


def test_parts_of_text_are_one_input_without_their_other_members() -> None:
    parts = [{"type": "text", "text": "a", "more": 1}, {"type": "text", "text": "b"}]
    request = inputs.moderations({"input": parts}, TARGET)
    assert request.inputs == 1
    assert sent(request)["input"] == [{"type": "text", "text": each} for each in "ab"]


def test_most_parts_are_2048() -> None:
    part = {"type": "text", "text": "a"}
    assert inputs.moderations({"input": [part] * 2_048}, TARGET).inputs == 1
    assert refused(inputs.moderations, input=[part] * 2_049).code == "invalid_input"


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}, "only text"),
        ({"type": "audio"}, "type"),
        ({"type": "text"}, "string"),
        ({"type": "text", "text": ""}, "empty"),
        ("text", "type"),
    ],
)
def test_part_that_is_no_text_is_refused_by_its_place(part: Any, word: str) -> None:
    refusal = refused(inputs.moderations, input=[{"type": "text", "text": "a"}, part])
    assert (refusal.code, refusal.param) == ("invalid_input", "input")
    assert "input[1]" in refusal.message
    assert word in refusal.message


def test_embeddings_take_no_parts() -> None:
    assert refused(inputs.embeddings, input=[{"type": "text", "text": "a"}]).param == "input"


@given(st.lists(st.text(st.characters(codec=None), min_size=1), min_size=1, max_size=5))
def test_bound_is_never_below_the_bytes_of_the_texts(texts: list[str]) -> None:
    """A token is at least one byte. A lone surrogate is sent as an escape, which is longer."""
    request = inputs.embeddings({"input": texts}, TARGET)
    assert request.text_bytes >= sum(len(each.encode("utf-8", "surrogatepass")) for each in texts)
    assert sent(request)["input"] == texts


def test_each_input_may_fill_the_context_and_has_the_overhead() -> None:
    model = Model("m", (), (CANDIDATE,), 8_192, 0, 16, None, None, False, 0)
    bounded = inputs.for_inputs(model, 3)
    assert (bounded.context_tokens, bounded.overhead_tokens) == (3 * 8_192, 3 * 16)
