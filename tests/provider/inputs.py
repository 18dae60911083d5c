"""What a provider answers to embeddings and moderations: the same for the same text, always."""

import hashlib
import json
import struct
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.provider.answers import Answer, point, whole

DIMENSIONS = 8


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Numbers that 32 bits hold exactly."""
    seed = hashlib.sha256(text.encode()).digest()
    return [(seed[place % 32] - 128) / 128 for place in range(dimensions)]


def tokens(texts: list[Any]) -> int:
    """A token a word."""
    return sum(len(json.dumps(text).split()) for text in texts)


def _listed(asked: dict[str, Any]) -> list[Any]:
    told = asked["input"]
    return told if isinstance(told, list) else [told]


def _embeddings(asked: dict[str, Any], how: dict[str, Any]) -> Answer:
    """`how`: `usage` in place of the true one, null for none; `point`, reached before the answer
    leaves.
    """
    texts = _listed(asked)
    data = []
    for index, text in enumerate(texts):
        numbers: Any = vector(text, asked.get("dimensions", DIMENSIONS))
        if asked.get("encoding_format") == "base64":
            numbers = b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
        data.append({"object": "embedding", "index": index, "embedding": numbers})
    count = tokens(texts)
    usage = how.get("usage", {"prompt_tokens": count, "total_tokens": count})
    body = {"object": "list", "data": data, "model": "fake-embed", "usage": usage}
    answer = whole(json.dumps(body).encode())
    first = (point(how["point"]),) if "point" in how else ()
    return replace(answer, pieces=(*first, *answer.pieces))


def _moderations(asked: dict[str, Any], how: dict[str, Any]) -> Answer:
    """What says "kill" is flagged. A list of typed parts is one input."""
    texts = _listed(asked)
    if any(isinstance(each, dict) for each in texts):
        texts = [" ".join(part["text"] for part in texts)]
    results = []
    for text in texts:
        flagged = "kill" in text
        results.append(
            {
                "flagged": flagged,
                "categories": {"violence": flagged, "self-harm": False},
                "category_scores": {"violence": 0.9 if flagged else 0.1, "self-harm": 0},
                "category_applied_input_types": {"violence": ["text"], "self-harm": ["text"]},
            }
        )
    body = {"id": "modr-theirs", "model": "fake-moderation", "results": results}
    return whole(json.dumps(body).encode())


INPUTS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Answer]] = {
    "embeddings": _embeddings,
    "moderations": _moderations,
}
