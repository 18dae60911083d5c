"""What `make run` sets up for the model that it is given."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from local import runner, seed
from local.settings import Upstream
from weir.operator.documents import ModelName


def upstream(**more: Any) -> Upstream:
    told: dict[str, Any] = {"input_price": "1", "output_price": "2", **more}
    return Upstream("http://127.0.0.1:1/v1", "m", "key", "max_tokens", **told)


def test_embedded_model_says_the_context_that_its_server_is_started_with() -> None:
    entry = seed.model_entry(upstream(context_tokens=runner.MODEL_CONTEXT_TOKENS))
    assert (entry.context_tokens, entry.max_output_tokens) == (4096, 4096)


def test_context_of_an_unknown_model_is_taken_to_be_large() -> None:
    entry = seed.model_entry(upstream())
    assert (entry.context_tokens, entry.max_output_tokens) == (131_072, 32_768)


@pytest.mark.parametrize(
    ("upstreams", "ours"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("google/gemma-3:free", "google/gemma-3:free"),
        ("@cf/meta/llama-3.1", "cf/meta/llama-3.1"),
        ("a//b/", "a/b"),
        ("../.env", "env"),
        ("a b", "a-b"),
        ("/", "model"),
    ],
)
def test_model_is_called_as_its_provider_calls_it_where_a_name_may_be_so(
    upstreams: str, ours: str
) -> None:
    assert seed.model_name(upstreams) == ours
    TypeAdapter(ModelName).validate_python(ours)
