"""The answer that a thread or session keeps, as far as its caller got it."""

from collections.abc import Mapping
from typing import Any

from weir.chat import turns
from weir.chat.intake import Accumulator
from weir.chat.masking import NOTHING_MASKED, Mask
from weir.chat.turns import Message


class Reply:
    """The first choice of an answer, put together while it is relayed."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._rest = Accumulator()
        self._message: Message | None = None  # of an answer that does not stream
        self._mask = NOTHING_MASKED
        self._heard = False
        self.finish_reason: str | None = None

    def hear(self, said: Mapping[str, Any], mask: Mask) -> None:
        """Take in a chunk or a whole answer, in normal form. `mask` hides the provider's key."""
        self._mask = mask
        for choice in said["choices"]:
            if choice["index"] != 0:
                continue
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            self._heard = True
            if "message" in choice:
                self._message = choice["message"]
                continue
            delta = choice["delta"]
            if isinstance(delta.get("content"), str):
                self._texts.append(delta["content"])
                delta = {name: value for name, value in delta.items() if name != "content"}
            if delta:
                chunk = {"model": "", "choices": [{"index": 0, "delta": delta}]}
                self._rest.add(chunk)

    def message(self) -> Message | None:
        """Return what has been said so far; None if it is nothing. Of an answer that did not come
        to its end only the text: a half tool call is of no use.
        """
        if not self._heard:
            return None
        message = self._message
        if message is None:
            choices = self._rest.completion()["choices"]
            message = {**(choices[0]["message"] if choices else {})}
            message["content"] = "".join(self._texts) or None
        if self.finish_reason not in turns.COMPLETE:
            message = {n: v for n, v in message.items() if n not in turns.CALLS + turns.THOUGHT}
        said = bool(message.get("content") or message.get("refusal") or turns.calls_of(message))
        if not said and self.finish_reason is None:
            return None
        masked: Message = self._mask.value({**message, "role": "assistant"})
        return masked
