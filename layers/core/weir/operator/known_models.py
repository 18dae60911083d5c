"""The starting list that comes with a release: models of large providers with prices and limits,
each with where and when they were read. Nothing of it counts until an operator copies it into his
own catalogue: prices change, and a new release must not change what he has priced.

Where a provider's price rises with the length of the prompt, the entry has the lower price, and
`max_input_tokens` ends where that does.
"""

import json
from functools import cache
from importlib import resources
from typing import NamedTuple

from weir.operator.documents import ModelDocument, UpstreamDocument


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
    return KnownModels(
        told["as_of"],
        {name: UpstreamDocument.model_validate(each) for name, each in told["upstreams"].items()},
        {name: ModelDocument.model_validate(each) for name, each in told["models"].items()},
    )
