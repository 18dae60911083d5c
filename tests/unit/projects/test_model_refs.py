"""Model references: contracts/ringside.md, section 9."""

from typing import Any

import pytest

from tests.unit.conftest import CANDIDATE, MODEL, UPSTREAM
from weir.errors import BadRequest, Killed, NotFound, Refusal
from weir.projects import model_refs
from weir.projects.catalogue import Catalogue
from weir.projects.project import Project


def model(upstream: str, name: str, **told: Any) -> dict[str, Any]:
    candidate = {
        **CANDIDATE,
        "upstream": upstream,
        "model": name,
        "output_cap_parameter": "max_tokens",
    }
    return {**MODEL, "candidates": [candidate], **told}


CATALOGUE = Catalogue(
    {
        "upstreams": {"openai": UPSTREAM, "eu": UPSTREAM},
        "models": {
            "small": model("openai", "gpt-4o-mini"),
            "openai/gpt-4o": model("eu", "deployed-4o"),
            "named": model("eu", "odd name!", aliases=["fc:eu/named"]),
            "off": model("eu", "off", killed={"at": 1}),
            "meta/llama-3:70b": model("eu", "l"),
        },
    }
)
PROJECT = Project.from_document("p", {})


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("fc:openai/gpt-4o-mini", "small"),  # upstream and the provider's own name
        ("fc:openai/gpt-4o", "openai/gpt-4o"),  # a name of the catalogue
        ("fc:eu/deployed-4o", "openai/gpt-4o"),
        ("fc:eu/named", "named"),  # an alias
        ("fc:meta/llama-3:70b", "meta/llama-3:70b"),
        ("slot:small", "small"),
        ("slot:openai/gpt-4o", "openai/gpt-4o"),
    ],
)
def test_reference_finds_its_model(asked: str, name: str) -> None:
    assert model_refs.choose(PROJECT, CATALOGUE, asked, stream=True).name == name


@pytest.mark.parametrize(
    ("asked", "kind", "code"),
    [
        *((bare, BadRequest, "invalid_model_ref") for bare in ("small", "default", "", None, 7)),
        *((odd, BadRequest, "invalid_model_ref") for odd in ("FC:openai/x", "fc:openai", "fc:/x")),
        ("fc:openai/" + "x" * 129, BadRequest, "invalid_model_ref"),
        ("fc:openai/nothing", NotFound, "model_not_found"),
        ("fc:small", BadRequest, "invalid_model_ref"),
        ("slot:nothing", NotFound, "model_not_found"),
        ("fc:eu/off", Killed, "forbidden"),
        (["fc:openai/gpt-4o"], BadRequest, "invalid_model_ref"),
    ],
)
def test_what_is_no_reference_is_refused(asked: object, kind: type[Refusal], code: str) -> None:
    with pytest.raises(kind) as refusal:
        model_refs.choose(PROJECT, CATALOGUE, asked, stream=False)
    assert refusal.value.code == code


def test_list_cannot_be_streamed() -> None:
    with pytest.raises(BadRequest) as refusal:
        model_refs.choose(PROJECT, CATALOGUE, ["fc:openai/gpt-4o"], stream=True)
    assert refusal.value.code == "fallback_with_stream_unsupported"


def test_project_offers_what_it_offers() -> None:
    narrow = Project.from_document("p", {"models": ["small"]})
    assert model_refs.choose(narrow, CATALOGUE, "fc:openai/gpt-4o-mini", stream=False)
    with pytest.raises(NotFound):
        model_refs.choose(narrow, CATALOGUE, "fc:openai/gpt-4o", stream=False)


def test_every_listed_reference_finds_the_model_that_it_is_of() -> None:
    for each in CATALOGUE.models.values():
        assert model_refs.find(CATALOGUE, model_refs.reference(each)) == each
