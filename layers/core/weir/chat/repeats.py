"""A chunk that differs from an earlier one in its text alone, written without reading it anew.

Nearly every chunk of a stream is such a one. To parse it, to normalise it and to spell it again
costs ten times what follows here (docs/decisions/0037): the text alone is read and spelled, and
what stands around it is compared with the bytes that stood there before.

Why the result is the same, byte for byte
* JSON is read from left to right, so the string in the hole of a template has no influence on what
  the rest is read as. `_learned` puts a mark into the hole, parses, and sees where the mark comes
  out: as that member of the delta, and so for every other text.
* Nothing in the normaliser depends on a text but what it counts. What else it depends on (which
  choices have begun; the last model and time; which tool calls have begun) is compared before a
  template is used.
* The text is read and spelled by the decoder and the encoder that read and spell whole chunks.
* A line that the mask would change is left to the long way, and so is everything unusual.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from weir.chat.json_lines import DECODER, compact
from weir.chat.masking import Mask
from weir.chat.normaliser import Normaliser, texts_of, usage_of
from weir.chat.outcome import Outcome

Chunk = dict[str, Any]
Path = tuple[str | int, ...]

_MARK, _PAD_MARK = "text of the template", "pad of the template"
_HOLES = re.compile(r'"(content|reasoning_content|reasoning|arguments)"\s*:\s*(?=")')
_ARGUMENTS: Path = ("tool_calls", 0, "function", "arguments")
# OpenAI and Mistral pad their chunks, so that who sees their sizes alone cannot guess the texts.
_PADS = re.compile(r'"(obfuscation|p)"\s*:\s*(?=")')
_MOST_PATIENCE = 256  # chunks


class _Template(NamedTuple):
    """What stands around the text, and around the pad if there is one: in what comes, and in our
    frame.
    """

    place: int  # the index of the choice
    path: Path  # from its delta to the text
    text_at: str  # the same, as the normaliser calls it
    pad: str  # the name of the pad; "" if there is none
    comes: list[str]
    leaves: list[bytes]
    chunk: Chunk  # in normal form
    named: tuple[str, int, int]  # the normaliser's model and time


class Repeats:
    """The templates of one stream: one at a time."""

    def __init__(
        self,
        normaliser: Normaliser,
        mask: Mask,
        outcome: Outcome,
        hear: Callable[[Chunk, Mask], None] | None,
    ) -> None:
        """`hear` is called with each chunk, if there is one."""
        self._normaliser = normaliser
        self._mask = mask
        self._outcome = outcome
        self._hear = hear
        self._template: _Template | None = None
        self._was_used = True
        # Streams whose chunks are all different are not worth a template: the long way goes on for
        # twice as many chunks after each one that was of no use.
        self._patience = self._wait = 1

    def frame(self, data: bytes) -> bytes | None:
        """Return the frame of an event's data, which has been counted then; None: take the long
        way.
        """
        template = self._template
        if template is None or template.named != self._normaliser.named:
            return None
        line, comes, leaves = data.decode("utf-8", "replace"), template.comes, template.leaves
        if not line.startswith(comes[0]):
            return None
        try:
            text, end = DECODER.raw_decode(line, len(comes[0]))
            if type(text) is not str or not line.startswith(comes[1], end):
                return None
            end += len(comes[1])
            pieces = [leaves[0], compact(text), leaves[1]]
            pad = ""
            if template.pad:
                pad, end = DECODER.raw_decode(line, end)
                if type(pad) is not str or not line.startswith(comes[2], end):
                    return None
                end += len(comes[2])
                pieces += [compact(pad), leaves[2]]
        except (ValueError, RecursionError):
            return None
        frame = b"".join(pieces)
        if end != len(line) or self._mask.is_needed(frame):
            return None
        self._was_used = True
        self._normaliser.repeat(template.place, template.text_at, text)
        self._outcome.chunks += 1
        if self._hear is not None:
            self._hear(_filled(template, text, pad), self._mask)
        return frame

    def learn(self, data: bytes, chunk: Chunk) -> None:
        """Make a template of an event's data and of what was written for it, if it may be one."""
        if not self._was_used:
            self._template = None  # not even the next chunk was like it
        self._wait -= 1
        if self._wait > 0:
            return
        self._patience = 1 if self._was_used else min(2 * self._patience, _MOST_PATIENCE)
        self._wait = self._patience
        template = _learned(data.decode("utf-8", "replace"), chunk, self._normaliser.named)
        if template is not None:
            self._template, self._was_used = template, False


def _learned(line: str, chunk: Chunk, named: tuple[str, int, int]) -> _Template | None:
    hole, choices = _HOLES.search(line), chunk["choices"]
    if hole is None or len(choices) != 1 or choices[0]["finish_reason"] is not None:
        return None
    path: Path = _ARGUMENTS if hole[1] == "arguments" else (hole[1],)
    place, texts = choices[0]["index"], texts_of(choices[0]["index"], choices[0]["delta"])
    if len(texts) != 1:
        return None
    comes = _around(line, hole.end())
    pad = _PADS.search(comes[1])
    if pad is not None:
        comes[1:] = _around(comes[1], pad.end())
    [((_, text_at), _)] = texts
    template = _Template(place, path, text_at, pad[1] if pad else "", comes, [], chunk, named)
    if not _is_proven(template):
        return None
    ours = b"data: " + compact(_filled(template, _MARK, _PAD_MARK)) + b"\n\n"
    for mark in (_MARK, _PAD_MARK)[: len(comes) - 1]:
        before, _, ours = ours.partition(compact(mark))
        template.leaves.append(before)
    template.leaves.append(ours)
    return template


def _around(line: str, at: int) -> list[str]:
    """Return what stands before and after the string at a place of a line that has been parsed."""
    _, end = DECODER.raw_decode(line, at)
    return [line[:at], line[end:]]


def _is_proven(template: _Template) -> bool:
    """Return whether what is put into the holes becomes the one text of the delta, and the pad, and
    nothing else.
    """
    first, *more = template.comes
    marks = (f'"{_MARK}"', f'"{_PAD_MARK}"')
    value, _ = DECODER.raw_decode(first + "".join(map(str.__add__, marks, more)))
    path, pad, chunk = template.path, template.pad, template.chunk
    was = chunk["choices"][0]["delta"]
    if _at(was, path) == _MARK or (pad and chunk.get(pad) == _PAD_MARK):
        return False  # it would come out there whatever is put into the holes
    if not isinstance(value["choices"], list) or usage_of(value) is not None:
        return False
    delta = value["choices"][0].get("delta")
    if _at(delta, path) != _MARK or (pad and value.get(pad) != _PAD_MARK):
        return False
    if delta.get("role") != was.get("role"):
        return False  # the first of a choice was given one
    if "tool_calls" in delta and not (path == _ARGUMENTS and _goes_on(delta, was)):
        return False
    ours = _filled(template, _MARK, _PAD_MARK)
    texts = texts_of(template.place, ours["choices"][0]["delta"])
    if texts != [((template.place, template.text_at), _MARK)]:
        return False
    return all(compact(ours).count(compact(mark)) == 1 for mark in (_MARK, _PAD_MARK)[: len(more)])


def _goes_on(delta: dict[str, Any], was: dict[str, Any]) -> bool:
    """Return whether a piece of a tool call goes on with one that has begun, by its index alone.
    The one that `was` before it may have begun it: it has an id then.
    """
    call, *others = delta["tool_calls"]
    names = (call.get("id"), call["function"].get("name"))
    if others or type(call.get("index")) is not int:
        return False
    return all(name in (None, "") for name in names) and "id" not in was["tool_calls"][0]


def _at(value: Any, path: Path) -> Any:
    """Return what lies there; None if nothing does."""
    try:
        for step in path:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return None
    return value


def _with(value: Any, path: Path, text: str) -> Any:
    """Return a copy with another text there."""
    if not path:
        return text
    step: Any = path[0]
    copied = value.copy()
    copied[step] = _with(value[step], path[1:], text)
    return copied


def _filled(template: _Template, text: str, pad: str) -> Chunk:
    """Return the chunk in normal form, with another text and pad."""
    filled: Chunk = _with(template.chunk, ("choices", 0, "delta", *template.path), text)
    if template.pad:
        filled[template.pad] = pad
    return filled
