"""Keep a provider's key out of what a caller reads, even if the provider quotes it.

Only a real secret is masked. What stands in for a key where a provider needs none (`none`,
`not-needed`), and any other word, also occurs in answers, which must stay as they are. Only string
values are masked: names and the syntax of JSON are never touched.
"""

import json
from typing import Any

MASKED = "***"
LEAST_SECRET = 8  # characters; shorter ones occur in texts by chance
# A word has to be as long as this, and to have a hyphen or its like, to be taken for a secret.
LEAST_WORDS = 16

_WITHOUT_SEPARATORS = str.maketrans("", "", "-_. ")
_escaped = json.JSONEncoder(ensure_ascii=False).encode


class Mask:
    """Hides one credential."""

    __slots__ = ("_needle", "_secret")

    def __init__(self, credential: str) -> None:
        self._secret = credential if is_secret(credential) else None
        # As it stands within a line of JSON.
        self._needle = _escaped(credential)[1:-1].encode() if self._secret else None

    def is_needed(self, json_line: bytes) -> bool:
        """Return whether a line of our JSON contains the secret. Quick: asked for each frame."""
        return self._needle is not None and self._needle in json_line

    def text(self, text: str) -> str:
        return text if self._secret is None else text.replace(self._secret, MASKED)

    def value(self, value: Any) -> Any:
        """Return a JSON value with the secret masked in all of its strings. A member whose name
        contains it is left out, because a name cannot be masked.
        """
        if self._secret is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(each) for each in value]
        if isinstance(value, dict):
            return {
                name: self.value(each) for name, each in value.items() if self._secret not in name
            }
        return value


def is_secret(credential: str) -> bool:
    """Return whether a credential may be cut out of a text without harm to that text."""
    letters = credential.translate(_WITHOUT_SEPARATORS)
    if letters.isalpha() and (letters.islower() or letters.isupper() or letters.istitle()):
        return len(credential) >= LEAST_WORDS and letters != credential
    return len(credential) >= LEAST_SECRET


NOTHING_MASKED = Mask("")
