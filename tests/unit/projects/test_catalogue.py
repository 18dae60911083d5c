"""The catalogue as a request reads it: found by any of its names, and never without a price."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.conftest import CANDIDATE, MODEL, UPSTREAM
from weir.projects.catalogue import Catalogue

FULL = {**MODEL, "aliases": ["fast", "fc:main/m-large"]}
FULL["candidates"] = [{**CANDIDATE, "output_cap_parameter": "max_tokens"}]


def catalogue(**changes: Any) -> Catalogue:
    model = {name: value for name, value in {**FULL, **changes}.items() if value is not ...}
    return Catalogue({"upstreams": {"main": UPSTREAM}, "models": {"m-large": model}})


@pytest.mark.parametrize("name", ["m-large", "fast", "fc:main/m-large", "fc:main%2Fm-large"])
def test_model_is_found_by_its_name_and_its_aliases(name: str) -> None:
    found = catalogue().find(name)
    assert found is not None
    assert (found.name, found.owned_by, found.killed) == ("m-large", "main", False)
    candidate = found.candidates[0]
    assert (candidate.upstream.settings["base_url"], candidate.model) == (
        UPSTREAM["base_url"],
        "provider/m-large",
    )
    assert (candidate.input_nano_usd, candidate.output_nano_usd) == (100, 400)


@pytest.mark.parametrize("name", ["", "M-LARGE", "m-large ", "provider/m-large", "main", "default"])
def test_nothing_else_is_its_name(name: str) -> None:
    assert catalogue().find(name) is None


@pytest.mark.parametrize("written", ["openai/gpt-oss-120b", "openai%2Fgpt-oss-120b"])
def test_slash_in_a_name_may_be_written_as_in_a_url(written: str) -> None:
    model = {"upstreams": {"main": UPSTREAM}, "models": {"openai/gpt-oss-120b": FULL}}
    found = Catalogue(model).find(written)
    assert found is not None
    assert found.name == "openai/gpt-oss-120b"


def test_empty_catalogue_has_no_models() -> None:
    assert Catalogue({}).models == {}
    assert Catalogue({}).find("m-large") is None


def test_killed_model_is_found_as_killed() -> None:
    found = catalogue(killed={"reason": "", "at": 1, "by": "x"}).find("fast")
    assert found is not None
    assert found.killed


PRICES = ["input_nano_usd", "cached_input_nano_usd", "output_nano_usd"]
NO_PRICES: list[Any] = [..., None, "100", 1.5, True, False, -1, float("nan"), []]


@pytest.mark.parametrize("price", PRICES)
@pytest.mark.parametrize("value", NO_PRICES, ids=repr)
def test_model_without_a_price_is_never_free(price: str, value: Any) -> None:
    candidate = {**FULL["candidates"][0], price: value}
    if value is ...:
        del candidate[price]
    with pytest.raises((KeyError, ValueError)):
        catalogue(candidates=[candidate])


def test_zero_is_a_price() -> None:
    candidate = {**FULL["candidates"][0], **dict.fromkeys(PRICES, 0)}
    assert catalogue(candidates=[candidate]).models["m-large"].candidates[0].input_nano_usd == 0


def test_prices_hold_to_the_end_of_the_context_unless_it_is_said_otherwise() -> None:
    assert catalogue().models["m-large"].max_input_tokens is None
    assert catalogue(max_input_tokens=None).models["m-large"].max_input_tokens is None
    assert catalogue(max_input_tokens=272_000).models["m-large"].max_input_tokens == 272_000


@pytest.mark.parametrize(
    ("said", "read"), [(..., True), (True, True), (None, True), (0, True), (False, False)]
)
def test_model_reasons_unseen_unless_it_is_said_that_it_does_not(said: Any, read: bool) -> None:
    assert catalogue(hidden_reasoning=said).models["m-large"].hidden_reasoning is read


SPOILT: list[Callable[[dict[str, Any]], object]] = [
    lambda model: model.pop("candidates"),
    lambda model: model.pop("context_tokens"),
    lambda model: model.pop("overhead_tokens"),
    lambda model: model.update(max_output_tokens=None),
    lambda model: model.update(max_output_tokens="1024"),
    lambda model: model.update(image_max_tokens=True),
    lambda model: model.update(max_input_tokens="272000"),
    lambda model: model["candidates"][0].update(upstream="gone"),
    lambda model: model["candidates"][0].pop("output_cap_parameter"),
    lambda model: model["candidates"][0].pop("model"),
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_cannot_be_read_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    model = json.loads(json.dumps(FULL))
    spoil(model)
    with pytest.raises((KeyError, ValueError)):
        Catalogue({"upstreams": {"main": UPSTREAM}, "models": {"m-large": model}})
