"""Keep the mock provider and real ones apart in the catalogue.

A mock's price is zero as a rule. A model that was priced for it must never be served by a real
provider, whose answers would then be free; nor must a mock answer in the place of a real one.
"""

from collections.abc import Mapping
from typing import Any

from weir.errors import BadRequest, Conflict
from weir.projects.upstream_kinds import KINDS, is_mock


def check_candidate(upstream: Mapping[str, Any], candidate: Mapping[str, Any]) -> None:
    """Raise BadRequest for a name of a model that the candidate's upstream cannot have."""
    kind = KINDS.get(upstream["kind"])
    if kind is None or not kind.models or candidate["model"] in kind.models:
        return
    raise BadRequest(
        f"An upstream of kind {kind.name} has no model {candidate['model']!r}; it has: "
        f"{', '.join(kind.models)}.",
        param="candidates.model",
    )


def check_no_mock_changes_places(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise Conflict if an upstream becomes a mock, or a mock a provider, while it serves models.

    `before` and `after` are catalogues, as they are kept.
    """
    was, becomes = before.get("upstreams", {}), after.get("upstreams", {})
    changed = {
        name
        for name in was.keys() & becomes.keys()
        if is_mock(was[name]["kind"]) != is_mock(becomes[name]["kind"])
    }
    for name, model in after.get("models", {}).items():
        for candidate in model["candidates"]:
            if candidate["upstream"] in changed:
                raise Conflict(
                    f"The upstream {candidate['upstream']!r} serves {name!r}, at a price that was "
                    "set for what it is now. No mock becomes a provider, and no provider a mock: "
                    "make an upstream with another name."
                )
