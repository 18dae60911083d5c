"""The catalogue keeps the mock provider and real ones apart."""

from typing import Any

import pytest

from tests.unit.conftest import CANDIDATE, MODEL, UPSTREAM_OF
from weir.errors import BadRequest, Conflict
from weir.operator import known_models
from weir.operator.documents import check_catalogue
from weir.operator.mocks import check_no_mock_changes_places
from weir.projects.model_kinds import CHAT
from weir.projects.upstream_kinds import KINDS, MOCK_MODELS

PROVIDERS = [kind for kind in KINDS if kind != "mock"]


def catalogue(kind: str, model: str = "echo") -> dict[str, Any]:
    candidate = {**CANDIDATE, "model": model, "input_nano_usd": 0, "output_nano_usd": 0}
    return {
        "upstreams": {"main": UPSTREAM_OF[kind], "other": UPSTREAM_OF["openai"]},
        "models": {"m": {**MODEL, "aliases": [], "candidates": [candidate]}},
    }


@pytest.mark.parametrize("kind", PROVIDERS)
def test_upstream_that_serves_a_model_does_not_become_a_mock_nor_a_mock_a_provider(
    kind: str,
) -> None:
    for before, after in [(kind, "mock"), ("mock", kind)]:
        with pytest.raises(Conflict, match="'main' serves 'm'"):
            check_no_mock_changes_places(catalogue(before), catalogue(after))


@pytest.mark.parametrize("kind", PROVIDERS)
def test_other_changes_of_a_kind_and_those_of_an_idle_upstream_are_free(kind: str) -> None:
    check_no_mock_changes_places(catalogue("openai"), catalogue(kind))
    check_no_mock_changes_places({}, catalogue(kind))
    idle = {"upstreams": {"main": UPSTREAM_OF["mock"]}, "models": {}}
    check_no_mock_changes_places(idle, catalogue(kind) | {"models": {}})


def test_model_of_a_mock_is_one_that_it_has() -> None:
    for name in MOCK_MODELS:
        check_catalogue(catalogue("mock", name))
    with pytest.raises(BadRequest, match="has no model 'gpt-4o'; it has: echo, slow") as refused:
        check_catalogue(catalogue("mock", "gpt-4o"))
    assert refused.value.param == "candidates.model"
    for kind in PROVIDERS:
        check_catalogue(catalogue(kind, "gpt-4o"))


def test_list_of_known_models_has_each_of_the_mocks_and_only_they_are_free() -> None:
    models = known_models.load().models
    free = {
        name
        for name, entry in models.items()
        for candidate in entry.candidates
        # Whoever embeds or judges puts nothing out; and one judges for nothing.
        if entry.kind == CHAT and not (candidate.input_nano_usd and candidate.output_nano_usd)
    }
    assert free == {f"mock-{name}" for name in MOCK_MODELS}
    for name in free:
        (candidate,) = models[name].candidates
        assert models[name].aliases == [f"fc:mock/{candidate.model}"]
        assert name == f"mock-{candidate.model}"
