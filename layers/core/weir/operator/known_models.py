"""The starting list that comes with a release: models of large providers with prices and limits,
each with where and when they were read. Nothing of it counts until an operator copies it into his
own catalogue: prices change, and a new release must not change what he has priced.

Where a provider's price rises with the length of the prompt, the entry has the lower price, and
`max_input_tokens` ends where that does. The models of the mock provider are in it, too, at a price
of zero.
"""

import json
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from weir.operator.documents import ModelDocument, UpstreamDocument
from weir.projects.upstream_kinds import MOCK_MODELS

MOCK = "mock"  # the upstream; its models are called after it, so that nobody mistakes them


class KnownModels(NamedTuple):
    as_of: str
    upstreams: dict[str, UpstreamDocument]
    models: dict[str, ModelDocument]

    def serving(self, base_url: str, model: str) -> ModelDocument | None:
        """The entry that this provider serves under this name of its own."""
        for entry in self.models.values():
            for candidate in entry.candidates:
                known = self.upstreams[candidate.upstream].stored().get("base_url")
                if candidate.model == model and known == base_url.rstrip("/"):
                    return entry
        return None


@cache
def load() -> KnownModels:
    told = json.loads(resources.files("weir.operator").joinpath("known_models.json").read_text())
    upstreams = {**told["upstreams"], MOCK: {"kind": "mock"}}
    models = {**told["models"], **{f"{MOCK}-{model}": _mock(model) for model in MOCK_MODELS}}
    return KnownModels(
        told["as_of"],
        {name: UpstreamDocument.model_validate(each) for name, each in upstreams.items()},
        {name: ModelDocument.model_validate(each) for name, each in models.items()},
    )


def _mock(model: str) -> dict[str, Any]:
    free = dict.fromkeys(("input_nano_usd", "cached_input_nano_usd", "output_nano_usd"), 0)
    return {
        "aliases": [f"fc:{MOCK}/{model}"],
        "candidates": [{"upstream": MOCK, "model": model, **free}],
        "context_tokens": 131_072,
        "max_output_tokens": 8_192,
        "overhead_tokens": 0,
        "hidden_reasoning": False,
    }
