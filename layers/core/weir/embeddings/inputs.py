"""Understanding the body of an embeddings or a moderations request: its input and its fields.

What a provider gets is a list of what is known to be safe. The rest is dropped and named, or
refused, if without it the answer would mean something else. Source: OpenAI, "Create embeddings" and
"Create moderation".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from weir.chat.request import ChatRequest, Target
from weir.errors import BadRequest
from weir.projects.catalogue import Candidate, Model

MOST_INPUTS = 2_048
MOST_DIMENSIONS = 65_536
FLOAT, BASE64 = "float", "base64"

# Of other providers' embeddings: what a vector is made for, or of which numbers. Vectors that were
# made without it are stored, and compared with others for years.
REFUSED = frozenset(
    {
        *("embedding_types", "input_type", "late_chunking", "normalized", "output_dimension"),
        *("output_dtype", "prompt_name", "task", "task_type", "title", "truncate", "truncation"),
    }
)


@dataclass(frozen=True, slots=True)
class InputRequest(ChatRequest):
    """A request that has been understood: one without messages, and with no output to be billed.

    `inputs` is the number of results that belong to it. `encoding`, FLOAT or BASE64, and
    `dimensions` are what the caller asks for.
    """

    inputs: int = 1
    encoding: str = FLOAT
    dimensions: int | None = None

    def body_for(self, candidate: Candidate, output_cap: int) -> bytes:
        """Return what this candidate gets. There is no output to cap."""
        return self.common[:-1] + f',"model":{_json(candidate.model)}}}'.encode()


def for_inputs(model: Model, inputs: int) -> Model:
    """Return the model as the bounds of a request with so many inputs see it: each of them may
    fill the context, and has what the provider adds.
    """
    return replace(
        model,
        context_tokens=model.context_tokens * inputs,
        overhead_tokens=model.overhead_tokens * inputs,
    )


def embeddings(body: Mapping[str, Any], target: Target) -> InputRequest:
    """Raise BadRequest, with the name of the field, for what may not be sent."""
    texts = _texts(body.get("input"))
    encoding = body.get("encoding_format")
    if encoding not in (None, FLOAT, BASE64):
        raise BadRequest("encoding_format must be float or base64.", param="encoding_format")
    dimensions = body.get("dimensions")
    if dimensions is not None and (
        type(dimensions) is not int or not 1 <= dimensions <= MOST_DIMENSIONS
    ):
        raise BadRequest(
            f"dimensions must be an integer from 1 to {MOST_DIMENSIONS:,}.", param="dimensions"
        )
    # A provider is always asked for base64, which is a quarter as long. One that OpenAI's own
    # clients work with takes it, or ignores it: they ask for it unless told otherwise.
    own = {"input": texts, "encoding_format": BASE64, "dimensions": dimensions}
    request = _request(body, own, target, inputs=1 if isinstance(texts, str) else len(texts))
    return replace(request, encoding=encoding or FLOAT, dimensions=dimensions)


def moderations(body: Mapping[str, Any], target: Target) -> InputRequest:
    """As `embeddings`. A list of typed parts is one input."""
    value = body.get("input")
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return _request(body, {"input": _parts(value)}, target, inputs=1)
    texts = _texts(value)
    return _request(body, {"input": texts}, target, 1 if isinstance(texts, str) else len(texts))


def _request(
    body: Mapping[str, Any], own: Mapping[str, Any], target: Target, inputs: int
) -> InputRequest:
    passed = {name: value for name, value in own.items() if value is not None}
    allowed, dropped = target.allowed(), []
    for name, value in body.items():
        if value is None or name in own or name == "model":
            continue
        if name in allowed:
            passed[name] = value
        elif name in REFUSED:
            raise BadRequest(
                f"{name} is not passed on, and without it the answer differs. The operator can "
                f"allow it: allowed_fields with {name}, of the project, the model or its "
                "upstreams.",
                param=name,
            )
        else:
            dropped.append(name)
    return InputRequest(
        stream=False,
        usage_wanted=True,
        common=_written(passed),
        # As JSON, which is never shorter than the text; a token is at least one byte.
        text_bytes=len(_written(passed["input"])),
        output_cap=0,
        cap_asked=True,  # nothing to shrink
        dropped=tuple(dropped),
        inputs=inputs,
    )


def _texts(value: object) -> str | list[str]:
    if isinstance(value, str):
        _text(value, "input")
        return value
    if not isinstance(value, list):
        raise _invalid("input must be a string or a list of strings.")
    if not 1 <= len(value) <= MOST_INPUTS:
        raise _invalid(f"input must have 1 to {MOST_INPUTS:,} strings, and has {len(value):,}.")
    if any(isinstance(each, int | list) for each in value):
        raise _invalid(
            "input must be text: lists of token ids are not taken, because tokens differ "
            "between models and their price cannot be bounded."
        )
    for place, each in enumerate(value):
        _text(each, f"input[{place}]")
    return value


def _text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise _invalid(f"{where} must be a string.")
    if not value:
        raise _invalid(f"{where} must not be empty.")


def _parts(value: list[Any]) -> list[dict[str, str]]:
    if len(value) > MOST_INPUTS:
        raise _invalid(f"input must have at most {MOST_INPUTS:,} parts.")
    parts = []
    for place, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image_url":
            raise _invalid(f"input[{place}] is an image: only text is taken.")
        if kind != "text":
            raise _invalid(f'input[{place}] must be a part of type "text", as the others are.')
        _text(part.get("text"), f"input[{place}].text")
        parts.append({"type": "text", "text": part["text"]})
    return parts


def _invalid(message: str) -> BadRequest:
    return BadRequest(message, code="invalid_input", param="input")


def _written(value: object) -> bytes:
    # A lone surrogate cannot be UTF-8; its JSON escape can.
    return _json(value).encode("utf-8", "backslashreplace")


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
