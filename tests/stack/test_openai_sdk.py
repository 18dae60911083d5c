"""The OpenAI Python SDK, unmodified, against the running stack."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.provider import USAGE
from tests.stack.conftest import Stack, ask, start


@pytest.fixture(scope="module")
def client(stack: Stack, token: str) -> Iterator[OpenAI]:
    with OpenAI(api_key=token, base_url=stack.env["BEHEST_BASE_URL"] + "/v1") as sdk:
        yield sdk


def test_stream_arrives_in_pieces(client: OpenAI) -> None:
    arrivals, text = [], ""
    asked = ask({"do": "stream", "chunks": 5, "gap_s": 0.11})
    for chunk in client.chat.completions.create(model="default", stream=True, **asked):
        arrivals.append(time.monotonic())
        text += chunk.choices[0].delta.content or ""  # unguarded, as the quickstarts index it
    assert text == "w0 w1 w2 w3 w4 "
    assert arrivals[-1] - arrivals[0] > 0.4


def test_usage_comes_when_asked_for(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="", stream=True, stream_options={"include_usage": True}, **ask()
    )
    *_, last = stream
    assert last.usage is not None
    assert last.usage.total_tokens == USAGE["total_tokens"]


def test_answer_without_stream(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="default", **ask())
    assert answer.choices[0].message.content == "Hello!"


def test_error_in_a_begun_stream_is_an_api_error_with_its_code(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="default", stream=True, **ask({"do": "cut", "how": "end"})
    )
    with pytest.raises(openai.APIError) as failed:
        list(stream)
    assert failed.value.code == "upstream_error"


def test_errors_are_typed_and_carry_code_and_request_id(stack: Stack, client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="gpt-9", **ask())
    assert (refused.value.code, refused.value.param) == ("validation_error", "model")
    assert refused.value.request_id
    with pytest.raises(openai.AuthenticationError) as refused_too:
        client.with_options(api_key="nonsense").chat.completions.create(model="default", **ask())
    assert refused_too.value.code == "invalid_token"


def test_what_cannot_help_is_not_retried_and_what_can_is(
    stack: Stack, client: OpenAI, request: pytest.FixtureRequest
) -> None:
    provider = request.getfixturevalue("provider")
    for status, attempts in ((401, 1), (500, 3)):
        before = len(provider.requests)
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="default", **ask({"do": "fail", "status": status}))
        assert len(provider.requests) - before == attempts


@pytest.fixture(scope="module")
def of_the_real_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with start(tmp_path_factory.mktemp("real")) as real:
        token = real.mint("me")["token"]
        with OpenAI(api_key=token, base_url=real.env["BEHEST_BASE_URL"] + "/v1") as sdk:
            yield sdk


def test_real_model_embeds_like_texts_alike(of_the_real_model: OpenAI) -> None:
    answer = of_the_real_model.embeddings.create(
        model="smollm2-135m-embed", input=["The cat sits.", "A kitten rests.", "Shares fell."]
    )
    cat, kitten, shares = (each.embedding for each in answer.data)

    def likeness(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert len(cat) == 576
    assert likeness(cat, kitten) > likeness(cat, shares)
    assert answer.usage.prompt_tokens > 6


def test_real_model_answers_the_same_streamed_and_whole(of_the_real_model: OpenAI) -> None:
    question: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
    ask_it: Any = partial(
        of_the_real_model.chat.completions.create,
        model="default",
        messages=question,
        temperature=0,
    )
    whole = ask_it(max_tokens=20, extra_body={"n_predict": 60, "ignore_eos": True})
    stream = ask_it(max_tokens=20, stream=True)
    deltas = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(deltas) == whole.choices[0].message.content
    assert len([delta for delta in deltas if delta]) > 5
    assert whole.usage.completion_tokens <= 20
