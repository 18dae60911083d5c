"""A provider's document, made anew from the members that are known: vectors, or judgements.

What is not what was asked for is refused as unreadable: another number of results, a vector of
another length than the others, a number that is none. Providers differ in the encoding that they
answer with, whatever was asked: the caller gets what they asked for.
"""

import binascii
import json
import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from weir.chat.masking import Mask
from weir.chat.normaliser import unreadable
from weir.embeddings.inputs import BASE64, InputRequest
from weir.ledger.costs import MOST_TOKENS

PIECE = 256_000  # characters that are sent at once
MOST_NAME = 200  # characters of a model's name
MOST_SCORE = 1_000
MOST_CATEGORIES = 100
MOST_CATEGORY = 100  # characters of its name

Document = Mapping[str, Any]


class Vector(NamedTuple):
    """The numbers of an embedding as bytes: `code` is struct's, `f` or `d`, little-endian."""

    raw: bytes
    code: str

    def __len__(self) -> int:
        return len(self.raw) // struct.calcsize(self.code)

    def written(self, encoding: str) -> str:
        """Return it as JSON. As BASE64 it must have the code `f`."""
        if encoding == BASE64:
            return f'"{b64encode(self.raw).decode()}"'
        return _encode(struct.unpack(f"<{len(self)}{self.code}", self.raw))


def embeddings(results: object, asked: InputRequest) -> list[Vector]:
    """Return the vectors of a document's `data`, in the order of the inputs. Raise a Refusal for
    what cannot be read.
    """
    found = _listed(results, asked.inputs)
    vectors: dict[int, Vector] = {}
    for place, each in enumerate(found):
        index = each.get("index", place)
        if type(index) is not int or not 0 <= index < asked.inputs or index in vectors:
            raise unreadable("its indexes are not those of the inputs")
        vectors[index] = _vector(each.get("embedding"), asked.encoding)
    if len({len(vector) for vector in vectors.values()}) > 1:
        raise unreadable("its vectors are not of the same length")
    return [vectors[index] for index in range(asked.inputs)]


def of_vectors(vectors: Sequence[Vector], encoding: str, ending: str) -> Iterator[bytes]:
    """Yield the JSON of an answer with these vectors in pieces; `ending` are its other members, as
    JSON without the brace that opens it.
    """
    text = '{"object":"list","data":['
    for index, vector in enumerate(vectors):
        comma = "," if index else ""
        embedding = vector.written(encoding)
        text += f'{comma}{{"object":"embedding","index":{index},"embedding":{embedding}}}'
        if len(text) >= PIECE:
            yield text.encode()
            text = ""
    yield f"{text}],{ending}".encode()


def moderations(results: object, asked: InputRequest) -> list[dict[str, Any]]:
    """Return the judgements of a document's `results`. Raise a Refusal for what cannot be read."""
    return [_judged(each) for each in _listed(results, asked.inputs)]


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


def _vector(value: object, encoding: str) -> Vector:
    """Base64 is of 32-bit floats, little-endian."""
    try:
        if isinstance(value, str):
            vector = Vector(b64decode(value, validate=True), "f")
            numbers: Sequence[float] = struct.unpack(f"<{len(vector)}f", vector.raw)
        elif isinstance(value, list):
            numbers, code = value, "f" if encoding == BASE64 else "d"
            vector = Vector(struct.pack(f"<{len(value)}{code}", *value), code)
        else:
            raise unreadable("an embedding is neither a list nor base64")
        if not numbers or not math.isfinite(sum(numbers)):
            raise unreadable("an embedding is empty, or has a number that is not finite")
    except (binascii.Error, struct.error, ValueError, OverflowError):
        raise unreadable("an embedding is not made of numbers") from None
    return vector


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
    if type(value) not in (int, float) or not abs(value) <= MOST_SCORE:  # type: ignore[arg-type]
        raise unreadable("a score is no number, or none that can be")
    return float(value)  # type: ignore[arg-type]


def _named(told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if len(told) > MOST_CATEGORIES or any(len(name) > MOST_CATEGORY for name in told):
        raise unreadable("it has too many categories")
    return list(told.items())


_encode = json.JSONEncoder(separators=(",", ":")).encode
