"""Model references: `fc:provider/model`, by which callers of the Ringside contract name a model of
the catalogue (contracts/ringside.md, section 9).

`provider/model` is a model's name or alias in the catalogue, or the upstream and the provider's own
model of its first candidate. `slot:NAME` is the name or alias itself, so that an operator may put
another model behind it. A bare name is an error: at that vendor it never meant anything.
"""

import re

from weir.errors import BadRequest, NotFound
from weir.projects.catalogue import Catalogue, Model
from weir.projects.model_kinds import CHAT
from weir.projects.project import Project, usable

DIRECT, SLOT = "fc:", "slot:"
_REFERENCE = re.compile(r"fc:[a-z0-9-]{1,32}/[A-Za-z0-9._:/-]{1,128}|slot:[A-Za-z0-9._:/-]{1,160}")


def reference(model: Model) -> str:
    """Return how a model is named in lists: as an alias says it, if one does."""
    named = (each for each in model.aliases if each.startswith(DIRECT))
    return next(named, DIRECT + model.candidates[0].name)


def choose(
    project: Project, catalogue: Catalogue, asked: object, *, stream: bool, kind: str = CHAT
) -> Model:
    """Return the model of this kind that a reference names. Raise BadRequest, NotFound, Killed."""
    if isinstance(asked, list):
        if stream:
            raise BadRequest(
                "A list of models cannot be streamed.",
                code="fallback_with_stream_unsupported",
                param="model",
            )
        raise _bad("must be one reference: fallback is configured in the catalogue, not asked for")
    if not isinstance(asked, str) or not _REFERENCE.fullmatch(asked):
        raise _bad("must be a reference such as fc:openai/gpt-4o-mini; GET /v1/models lists them")
    found = find(catalogue, asked)
    if found is None or not project.offers(found):
        raise NotFound(
            f"This project offers no model {asked[:100]!r}; GET /v1/models lists those it does.",
            code="model_not_found",
            param="model",
        )
    return usable(found, kind)


def find(catalogue: Catalogue, asked: str) -> Model | None:
    kind = SLOT if asked.startswith(SLOT) else DIRECT
    name = asked.removeprefix(kind)
    found = catalogue.find(asked) or catalogue.find(name)
    if found is not None or kind == SLOT:
        return found
    return next((m for m in catalogue.models.values() if m.candidates[0].name == name), None)


def _bad(why: str) -> BadRequest:
    return BadRequest(f"model {why}.", code="invalid_model_ref", param="model")
