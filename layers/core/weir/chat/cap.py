"""Whether a provider has produced more output than was admitted, judged by what is seen of it.

What is seen is no count of tokens: a chunk may hold several, or a part of one. So the judgement
leans to the provider's side: an answer that kept its cap is never cut.
"""

from collections.abc import Iterable, Mapping
from typing import Any


class Cap:
    """Of one request: `output_tokens` for all of its answers together."""

    def __init__(self, output_tokens: int) -> None:
        self._output_tokens = output_tokens

    def is_passed(self, texts: Iterable[str], usage: Mapping[str, Any] | None) -> bool:
        """Take in what one more chunk said, and the last usage that was told."""
        return False
