"""The list of known models, which an operator copies from, holds what a catalogue needs of it."""

import json
import re
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[3] / "layers/core/weir/operator/known_models.json"
TEXT = PATH.read_text(encoding="utf-8")
KNOWN: dict[str, Any] = json.loads(TEXT)
MODELS: dict[str, dict[str, Any]] = KNOWN["models"]
UPSTREAMS: dict[str, dict[str, Any]] = KNOWN["upstreams"]

MODEL_FIELDS = [
    "aliases",
    "candidates",
    "context_tokens",
    "max_input_tokens",
    "max_output_tokens",
    "overhead_tokens",
    "image_max_tokens",
    "hidden_reasoning",
    "source",
    "as_of",
]
PRICES = ["input_nano_usd", "cached_input_nano_usd", "output_nano_usd"]
CANDIDATE_FIELDS = ["upstream", "model", *PRICES, "output_cap_parameter"]

CHATS = [name for name, told in MODELS.items() if "kind" not in told]
OTHERS = [name for name in MODELS if name not in CHATS]

every_model = pytest.mark.parametrize("name", MODELS)
every_chat_model = pytest.mark.parametrize("name", CHATS)
every_other_model = pytest.mark.parametrize("name", OTHERS)
every_upstream = pytest.mark.parametrize("name", UPSTREAMS)


def whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    again = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
    assert again == []
    return dict(pairs)


def test_file_is_indented_ascii_with_a_final_newline() -> None:
    assert json.dumps(KNOWN, indent=2, ensure_ascii=True) + "\n" == TEXT


def test_no_key_is_written_twice() -> None:
    json.loads(TEXT, object_pairs_hook=only_once)


def test_file_has_a_date_upstreams_and_models_and_nothing_else() -> None:
    assert list(KNOWN) == ["as_of", "upstreams", "models"]
    assert date.fromisoformat(KNOWN["as_of"]).isoformat() == KNOWN["as_of"]
    assert 20 <= len(CHATS) <= 35


@every_upstream
def test_upstream_is_bedrock_or_has_an_https_address(name: str) -> None:
    told = UPSTREAMS[name]
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name)
    if told["kind"] == "bedrock":
        assert told == {"kind": "bedrock"}
    else:
        assert list(told) == ["kind", "base_url"]
        assert told["kind"] == "openai"
        assert re.fullmatch(r"https://[a-z0-9.-]+(/[a-z0-9.-]+)*", told["base_url"])
        assert not told["base_url"].endswith("/chat/completions")


@every_chat_model
def test_model_has_the_known_fields_in_order(name: str) -> None:
    assert list(MODELS[name]) == MODEL_FIELDS
    assert MODELS[name]["candidates"] != []
    for candidate in MODELS[name]["candidates"]:
        assert list(candidate) == CANDIDATE_FIELDS


@every_other_model
def test_model_that_writes_nothing_has_a_price_for_its_input_alone(name: str) -> None:
    told = MODELS[name]
    of_vectors = ["dimensions"] if told["kind"] == "embedding" else []
    fields = ["aliases", "candidates", "context_tokens", "overhead_tokens", "source", "as_of"]
    assert list(told) == ["kind", *of_vectors, *fields]
    assert told["kind"] in ("embedding", "moderation")
    for candidate in told["candidates"]:
        assert list(candidate) == ["upstream", "model", "input_nano_usd"]
        assert whole(candidate["input_nano_usd"])
        assert candidate["input_nano_usd"] > 0 or told["kind"] == "moderation"


@every_model
def test_names_and_aliases_are_of_the_catalogue_s_form(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", name)
    assert MODELS[name]["aliases"] != []
    for alias in MODELS[name]["aliases"]:
        assert re.fullmatch(r"fc:[a-z0-9-]{1,32}/[A-Za-z0-9._:/-]{1,128}", alias)


def test_a_name_or_an_alias_is_that_of_one_model() -> None:
    names = Counter([*MODELS, *(alias for told in MODELS.values() for alias in told["aliases"])])
    assert [name for name, times in names.items() if times > 1] == []


@every_model
def test_candidates_name_a_listed_upstream(name: str) -> None:
    for candidate in MODELS[name]["candidates"]:
        assert candidate["upstream"] in UPSTREAMS
        assert isinstance(candidate["model"], str)
        assert candidate["model"] != ""


@every_chat_model
def test_candidates_of_a_chat_model_name_their_cap(name: str) -> None:
    for candidate in MODELS[name]["candidates"]:
        assert candidate["output_cap_parameter"] in {"max_tokens", "max_completion_tokens"}


@every_chat_model
def test_prices_are_whole_and_positive_and_cached_input_is_not_dearer(name: str) -> None:
    for candidate in MODELS[name]["candidates"]:
        for price in PRICES:
            assert whole(candidate[price]), price
            assert 0 < candidate[price] <= 10**9, price
        assert candidate["cached_input_nano_usd"] <= candidate["input_nano_usd"]


@every_chat_model
def test_limits_are_whole_and_the_output_fits_into_the_context(name: str) -> None:
    told = MODELS[name]
    for limit in ("context_tokens", "max_output_tokens", "overhead_tokens"):
        assert whole(told[limit]), limit
        assert told[limit] > 0, limit
    assert told["max_output_tokens"] <= told["context_tokens"]
    assert told["overhead_tokens"] < told["context_tokens"]
    if told["max_input_tokens"] is not None:
        assert whole(told["max_input_tokens"])
        assert told["overhead_tokens"] < told["max_input_tokens"] <= told["context_tokens"]
    if told["image_max_tokens"] is not None:
        assert whole(told["image_max_tokens"])
        assert 0 < told["image_max_tokens"] <= told["context_tokens"]


@every_model
def test_model_tells_where_and_as_of_when_it_was_read(name: str) -> None:
    told = MODELS[name]
    assert re.fullmatch(r"https://[!-~]{1,490}", told["source"])
    assert date.fromisoformat(told["as_of"]).isoformat() == told["as_of"]
    assert told["as_of"] <= KNOWN["as_of"]


@pytest.mark.parametrize("name", ["gpt-oss-120b", "gpt-oss-20b"])
def test_bedrock_s_default_model_and_its_smaller_kin_are_there_by_their_ids(name: str) -> None:
    served = [(each["upstream"], each["model"]) for each in MODELS[name]["candidates"]]
    assert served == [("bedrock", f"openai.{name}-1:0")]


def test_models_whose_price_rises_with_the_prompt_s_length_take_none_so_long() -> None:
    """Above these lengths their providers' lists have a second price: it would not be charged."""
    limits = {
        name: told["max_input_tokens"]
        for name, told in MODELS.items()
        if told.get("max_input_tokens") is not None
    }
    openai = ["gpt-5.4", "gpt-5.5", "gpt-6-luna", "gpt-6.1-sol", "gpt-6-astra"]
    assert limits == {
        **dict.fromkeys(openai, 272_000),
        "claude-haiku-5-5": 100_000,
        "gemini-3.1-pro-preview": 200_000,
    }


def test_models_that_show_all_they_produce_are_those_without_a_reasoning_mode() -> None:
    """Any other may be billed for more than it has said when it is stopped."""
    assert {name for name in CHATS if MODELS[name]["hidden_reasoning"] is False} == {
        "gpt-4o",
        "gpt-4o-mini",
        "gpt-4.1",
        "gpt-4.1-mini",
        "mistral-large-3",
        "codestral",
        "together-llama-3.3-70b",
    }
    assert {type(MODELS[name]["hidden_reasoning"]) for name in CHATS} == {bool}
