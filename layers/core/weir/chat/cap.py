"""The output cap, enforced by what is seen of an answer.

A provider that does not know the name of its cap would answer without an end. So the relay asks,
after each chunk, whether more has come than was admitted, and stops the answer if so.

Rules of this file
* An answer that kept its cap is never cut. What is counted is not tokens but a number that no
  answer's tokens can be fewer than.
* What the provider reports on the way is believed as soon as it is above the cap; below it, the
  text is counted all the same.

The count
* A *word* is a run of letters, or a run of digits. No token of a vocabulary in use holds parts of
  two words: their pre-tokenizers split there, and none joins words over a space. So each word is at
  least one token.
* A *gap* is what lies between two words in ASCII. None of it is in the token of the word before,
  and at most one character in that of the word after. So two characters are one token more.
* A long word is more than one: `_UNITS` says what part of a token a character takes at least. The
  longest tokens decide that, and they are rare: 64 times the same letter, 104 letters, 32 digits,
  16 Chinese or Japanese characters, 6 emoji, 64 of `ÃÂ`, 256 of `-`, 1,024 blanks.
* tests/tokenizers proves both for every token of the vocabularies that packages ship (r50k, p50k,
  cl100k, o200k, Llama 2 and 3, Mistral, Claude 2, Gemma 3, Qwen 2 and 3.6, DeepSeek 4, SmolLM2).
* Nobody outside has seen the vocabularies of some providers. So only MARGIN times the cap counts as
  passed.

So an answer is stopped late rather than early. docs/ledger.md says how late, by kind of text.
"""

import re
from collections.abc import Iterable, Mapping
from operator import eq
from typing import Any

from weir.ledger.costs import read_usage

MARGIN = 1.25

Place = tuple[int, str]  # a choice, and the path of a text in its deltas: "tool_calls.0.function.…"

# Marks beyond ASCII: symbols, and what Chinese and Japanese text has in the place of spaces.
_STOPS = (
    r"\u200e-\u2027\u2030-\u205e\u2190-\u22ff"
    r"\u3001\u3002\u300a-\u300d\u3010\u3011\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"
)
# Everything else that is not ASCII counts as a letter: fewer words, at worst. `don't` is one word.
# A control token that a provider shows, <|…|>, is one token, and so may a heading's tag be.
_LETTER = rf"(?:[A-Za-z]|[^\x00-\x7f\s{_STOPS}])"
# Patterns are compiled (and kept by `re`) when an answer first needs them, not at each cold start.
_WORD = rf"<\|[^\s|]{{1,40}}\|>|</?h[1-6]>|[0-9]+|{_LETTER}(?:{_LETTER}|['\u2019])*"
# Tags may be one token with both brackets; a letter beyond ASCII may have a mark after it in its.
_GAP = r"(?<![^A-Za-z0-9'])[\t-\r !-&(-/:;=?@\[-`{-~]{2,}(?='?[A-Za-z0-9])"
_WORD_BEFORE_BLANK = rf"(?s:.*)(?:[0-9]|{_LETTER})(?=[ \n])"
_LONG = 8  # no shorter word needs more than one token: 8 emoji take a whole one

_TOKEN = 128  # units
_DIGIT, _LETTER_UNIT, _REPEATED = 4, 1, 2
_CLASSES = (  # of characters beyond ASCII, with the units that each takes
    ("[\U00010000-\U0010ffff]", 18),
    ("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]", 8),
    ("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]", 4),
)
_OTHER = 2
_MARKS, _BLANKS = 256, 1_024  # of them a token holds at most

_THOUGHTS = ("reasoning", "thinking", "thought")
_SAID = frozenset({"content", "refusal"})
_CALLS = frozenset({"tool_calls", "function_call"})
_NOT_THOUGHT = frozenset({"data", "signature"})


class Cap:
    """The cap of one request: `output_tokens` for all of its choices together."""

    def __init__(self, output_tokens: int) -> None:
        self._output_tokens = output_tokens
        self._most = output_tokens * MARGIN
        self._usage: Mapping[str, Any] | None = None
        self._texts: dict[Place, _Text | None] = {}
        self._due = self._most  # characters until it can be passed: each is one token at most

    def is_passed(
        self, texts: Iterable[tuple[Place, str]], usage: Mapping[str, Any] | None
    ) -> bool:
        """Return whether the answer has surely passed its cap. Take in the texts of one more chunk
        and the usage that was reported last.
        """
        if usage is not self._usage:
            self._usage = usage
            reported = read_usage(usage)
            if reported is not None and reported.output > self._output_tokens:
                return True
        for place, said in texts:
            try:
                text = self._texts[place]
            except KeyError:
                text = self._texts[place] = _text_at(place[1])
            if text is not None:
                text.pieces.append(said)
                self._due -= len(said)
        if self._due >= 0:
            return False
        left = self._most - self.least_tokens()
        # A long text without a blank is counted from its start each time: not too often.
        longest = max(len(text.open) for text in self._texts.values() if text is not None)
        self._due = max(left, longest / 16)
        return left < 0

    def least_tokens(self) -> int:
        """Return a number of tokens that the texts so far cannot have been made of fewer than."""
        thoughts: dict[int, dict[str, int]] = {}
        total = 0
        for (choice, path), text in self._texts.items():
            if text is None:
                continue
            least = text.least_tokens()
            name = path.partition(".")[0]
            if name.startswith(_THOUGHTS):
                of_choice = thoughts.setdefault(choice, {})
                of_choice[name] = of_choice.get(name, 0) + least
            else:
                total += least
        # Some providers send what was thought twice, under two names.
        return total + sum(max(by_name.values()) for by_name in thoughts.values())


def _text_at(path: str) -> "_Text | None":
    """Return where to keep a text; None for one that a model has not written, or not as text:
    signatures, citations, audio, an image, the name of a function (repeated by some).
    """
    first, last = path.partition(".")[0], path.rpartition(".")[2]
    if first in _CALLS:
        return _Text(escaped=True) if last in ("arguments", "input") else None
    if first in _SAID or path == "audio.transcript":
        return _Text()
    if first.startswith(_THOUGHTS) and last not in _NOT_THOUGHT:
        return _Text()
    return None


class _Text:
    """One text of an answer, whose chunks may be cut anywhere. `open` is what is not counted for
    good: the end of the last word that is whole, for a gap begins with it, and what follows.
    """

    __slots__ = ("_blanks", "_escaped", "_marks", "_words", "open", "pieces")

    def __init__(self, *, escaped: bool = False) -> None:
        self._escaped = escaped  # JSON, which may have been written anew by other rules
        self._words = self._marks = self._blanks = 0
        self.open = ""
        self.pieces: list[str] = []

    def least_tokens(self) -> int:
        text = self.open + "".join(self.pieces)
        self.pieces.clear()
        found = re.match(_WORD_BEFORE_BLANK, text)
        if found:
            words, marks, blanks = _counted(found[0], self._escaped)
            self._words += words - 1  # its end is a word of `open`
            self._marks += marks
            self._blanks += blanks
            text = text[found.end() - 1 :]
        self.open = text
        words, marks, blanks = _counted(text, self._escaped)
        return max(
            self._words + words,
            (self._marks + marks) // _MARKS,
            (self._blanks + blanks) // _BLANKS,
        )


_ESCAPE = r"(?s)\\(?:u[0-9a-fA-F]{4}|.)"


def _counted(text: str, escaped: bool) -> tuple[int, int, int]:
    """Return tokens that words and gaps take at least, and the numbers of marks and of blanks."""
    if escaped and "\\" in text:  # one character each, which may be anything
        text = re.sub(_ESCAPE, "\u00e9", text)
    words = re.findall(_WORD, text)
    tokens = len(words) + sum(_tokens_of(word) - 1 for word in words if len(word) > _LONG)
    if not escaped:
        tokens += len(re.findall(_GAP, text))
    visible = len("".join(text.split())) - text.count("\0")
    return tokens, visible - sum(map(len, words)), len(text) - visible


def _tokens_of(word: str) -> int:
    """Return the least number of tokens of one word: at least 1."""
    if word.isascii():
        if word.isdigit():
            units = _DIGIT * len(word)
        elif word[0] == "<":
            return 1
        else:
            repeated = sum(map(eq, word, word[1:]))
            units = _LETTER_UNIT * len(word) + (_REPEATED - _LETTER_UNIT) * repeated
    else:
        ascii_letters = len(word.encode("ascii", "ignore"))
        units = _LETTER_UNIT * ascii_letters + _OTHER * (len(word) - ascii_letters)
        for characters, each in _CLASSES:
            units += (each - _OTHER) * len(re.findall(characters, word))
    return max(1, -(-units // _TOKEN))
