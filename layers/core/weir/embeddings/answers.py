"""A provider's document, made anew from the members that are known: vectors, or judgements.

What is not what was asked for is refused as unreadable: another number of results, a vector of
another length than the others, a number that is none. Providers differ in the encoding that they
answer with, whatever was asked: the caller gets what they asked for.
"""

import binascii
import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any

from weir.chat.masking import Mask
from weir.chat.normaliser import unreadable
from weir.embeddings.inputs import BASE64, InputRequest
from weir.ledger.costs import MOST_TOKENS

MOST_NAME = 200  # characters of a model's name
MOST_CATEGORIES = 100
MOST_CATEGORY = 100  # characters of its name

Document = Mapping[str, Any]


def embeddings(results: object, asked: InputRequest) -> dict[str, Any]:
    """Return the members of the answer that only the provider knows, from its document's `data`.
    Raise a Refusal for what cannot be read.
    """
    found = _listed(results, asked.inputs)
    vectors: dict[int, str | list[float]] = {}
    lengths = set()
    for place, each in enumerate(found):
        index = each.get("index", place)
        if type(index) is not int or not 0 <= index < asked.inputs or index in vectors:
            raise unreadable("its indexes are not those of the inputs")
        vectors[index], length = _vector(each.get("embedding"), asked.encoding)
        lengths.add(length)
    if len(lengths) > 1:
        raise unreadable("its vectors are not of the same length")
    data = [
        {"object": "embedding", "index": index, "embedding": vectors[index]}
        for index in range(asked.inputs)
    ]
    return {"object": "list", "data": data}


def moderations(results: object, asked: InputRequest) -> dict[str, Any]:
    """As `embeddings`, from the document's `results`."""
    return {"results": [_judged(each) for each in _listed(results, asked.inputs)]}


def usage(document: Document) -> dict[str, int] | None:
    """Return the provider's own count as a chat's usage, which is what the ledger reads; None if it
    tells none. Some tell only the total, and all of it is input.
    """
    told = document.get("usage")
    if not isinstance(told, dict):
        return None
    counts = [told.get(name) for name in ("prompt_tokens", "total_tokens", "input_tokens")]
    tokens = max((n for n in counts if type(n) is int and 0 < n <= MOST_TOKENS), default=0)
    if not tokens:
        return None
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}


def model_of(document: Document, mask: Mask) -> str | None:
    name = document.get("model")
    return mask.text(name) if isinstance(name, str) and 0 < len(name) <= MOST_NAME else None


def _listed(value: object, inputs: int) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise unreadable("it has no list of results")
    if len(value) != inputs:
        raise unreadable(f"it has {len(value)} results for {inputs} inputs")
    return value


def _vector(value: object, encoding: str) -> tuple[str | list[float], int]:
    """Return a vector in the encoding that was asked for, and its length. In base64 it is 32-bit
    floats, little-endian.
    """
    try:
        if isinstance(value, str):
            raw = b64decode(value, validate=True)
            numbers: tuple[float, ...] = struct.unpack(f"<{len(raw) // 4}f", raw)
        elif isinstance(value, list):
            # Refuses what is no number, and makes floats of integers.
            numbers = struct.unpack(f"={len(value)}d", struct.pack(f"={len(value)}d", *value))
            raw = b""
        else:
            raise unreadable("an embedding is neither a list nor base64")
        if not numbers or not math.isfinite(sum(numbers)):
            raise unreadable("an embedding is empty, or has a number that is not finite")
        if encoding != BASE64:
            return list(numbers), len(numbers)
        if not raw:
            raw = struct.pack(f"<{len(numbers)}f", *numbers)
    except (binascii.Error, struct.error, ValueError, OverflowError):
        raise unreadable("an embedding is not made of numbers") from None
    return b64encode(raw).decode(), len(numbers)


def _judged(told: Mapping[str, Any]) -> dict[str, Any]:
    categories = _by_category(told.get("categories"), _flag)
    flagged = told.get("flagged")
    if flagged is None and categories:  # Mistral tells the categories only
        flagged = any(categories.values())
    if type(flagged) is not bool:
        raise unreadable("a result does not say whether it is flagged")
    scores = _by_category(told.get("category_scores"), _score)
    judged = {"flagged": flagged, "categories": categories, "category_scores": scores}
    kinds = told.get("category_applied_input_types")
    if isinstance(kinds, dict):
        judged["category_applied_input_types"] = {
            name: [kind for kind in value if kind in ("text", "image")]
            for name, value in _named(kinds)
            if isinstance(value, list)
        }
    return judged


def _by_category(told: object, read: Callable[[object], Any]) -> dict[str, Any]:
    return {
        name: read(value)
        for name, value in _named(told if isinstance(told, dict) else {})
        if value is not None  # a category that the model does not judge
    }


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise unreadable("a category is neither true nor false")
    return value


def _score(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise unreadable("a score is no number from -1 to 1")
    return float(value)


def _named(told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if len(told) > MOST_CATEGORIES or any(len(name) > MOST_CATEGORY for name in told):
        raise unreadable("it has too many categories")
    return list(told.items())
