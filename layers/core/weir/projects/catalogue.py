"""The model catalogue as a request reads it: which models, served by whom, at what price.

It is written through `weir.operator.documents`, which validates; here it is read, on the chat path,
with the standard library only. What cannot be read is refused: a model without a price is never
free.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weir.projects.allowed_fields import allowed_fields
from weir.projects.extras import Extras
from weir.projects.model_kinds import CHAT
from weir.projects.upstream_kinds import SETTINGS, extras_of

_SLASH = re.compile("%2f", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider's endpoint: one of `upstream_kinds.KINDS`, with that kind's settings. The kind may
    be one that only a later release knows. `allowed_fields`: what the operator says that it takes.
    """

    name: str
    kind: str
    settings: Mapping[str, str]
    allowed_fields: frozenset[str] = frozenset()

    @property
    def extras(self) -> Extras:
        return extras_of(self.kind, self.settings)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to have a model answered. Prices are integer nano-USD per token.

    `thinking_parameter` is for a provider whose output cap does not bound what the model thinks:
    the name under which it takes a bound for that, `thinking_tokens` for each choice. None: the
    output cap bounds it.
    """

    upstream: Upstream
    model: str
    input_nano_usd: int
    cached_input_nano_usd: int
    output_nano_usd: int
    output_cap_parameter: str
    thinking_parameter: str | None = None
    thinking_tokens: int = 0

    @property
    def name(self) -> str:
        """As overruns and the operator name it."""
        return f"{self.upstream.name}/{self.model}"


@dataclass(frozen=True, slots=True)
class Model:
    """`candidates` in the order in which they are tried. `overhead_tokens` is what a provider adds
    to the input beyond its bytes; `image_max_tokens` what an image may cost, None: no images.
    The prices hold up to `max_input_tokens` of input (None: to the end of the context): what might
    be longer is refused. `hidden_reasoning`: it may produce output that it does not show, so what
    a stopped answer has cost cannot be told from what arrived. `kind` is a word of `model_kinds`.
    `dimensions`: how many numbers an embedding has unless a request wants fewer; None: not known.
    """

    name: str
    aliases: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    context_tokens: int
    max_output_tokens: int
    overhead_tokens: int
    image_max_tokens: int | None
    max_input_tokens: int | None
    killed: bool
    created_at: int
    hidden_reasoning: bool = True
    allowed_fields: frozenset[str] = frozenset()
    kind: str = CHAT
    dimensions: int | None = None

    @property
    def owned_by(self) -> str:
        return self.candidates[0].upstream.name


class Catalogue:
    """Found by name or alias; names and aliases are unique."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for a document that was not validated."""
        upstreams = {
            name: Upstream(name, told["kind"], _settings(told), allowed_fields(told))
            for name, told in document.get("upstreams", {}).items()
        }
        self.models: dict[str, Model] = {}
        self._names: dict[str, Model] = {}
        for name, told in document.get("models", {}).items():
            model = _model(name, told, upstreams)
            self.models[name] = model
            self._names.update(dict.fromkeys((name, *model.aliases), model))

    def find(self, name: str) -> Model | None:
        """Return the model of this name or alias. Some clients encode its slash, as in a URL."""
        return self._names.get(name) or self._names.get(_SLASH.sub("/", name))


def _settings(told: Mapping[str, Any]) -> dict[str, str]:
    return {name: told[name] for name in SETTINGS if told.get(name) is not None}


def _model(name: str, told: Mapping[str, Any], upstreams: Mapping[str, Upstream]) -> Model:
    return Model(
        name=name,
        aliases=tuple(told.get("aliases", ())),
        candidates=tuple(_candidate(each, upstreams) for each in told["candidates"]),
        context_tokens=_whole(told["context_tokens"]),
        max_output_tokens=_whole(told["max_output_tokens"]),
        overhead_tokens=_whole(told["overhead_tokens"]),
        image_max_tokens=_whole_or_none(told.get("image_max_tokens")),
        max_input_tokens=_whole_or_none(told.get("max_input_tokens")),
        killed=told.get("killed") is not None,
        created_at=_whole(told.get("created_at", 0)),
        # Whatever else is written there: the side on which nothing is left uncharged.
        hidden_reasoning=told.get("hidden_reasoning", True) is not False,
        allowed_fields=allowed_fields(told),
        kind=told.get("kind", CHAT),
        dimensions=_whole_or_none(told.get("dimensions")),
    )


def _candidate(told: Mapping[str, Any], upstreams: Mapping[str, Upstream]) -> Candidate:
    thinking = told.get("thinking_cap")
    return Candidate(
        upstream=upstreams[told["upstream"]],
        model=told["model"],
        input_nano_usd=_whole(told["input_nano_usd"]),
        cached_input_nano_usd=_whole(told["cached_input_nano_usd"]),
        output_nano_usd=_whole(told["output_nano_usd"]),
        output_cap_parameter=told["output_cap_parameter"],
        thinking_parameter=None if thinking is None else thinking["parameter"],
        thinking_tokens=0 if thinking is None else _whole(thinking["max_tokens"]),
    )


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"not a whole number: {value!r}")
    return value


def _whole_or_none(value: object) -> int | None:
    return None if value is None else _whole(value)
