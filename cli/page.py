"""A page for a terminal: sentences, tables and bar charts, as wide as the terminal is.

Not rich: unless it is talked out of each, it cuts what goes into a pipe at 80 columns, fails on a
terminal that cannot show its ellipsis, reads `[red]` in a name as markup, and lets a name turn the
writing direction. Which columns a narrow table leaves out, and the chart, would still be ours.
"""

import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TextIO

from .text import padded, printable, start_of, width_of

BLOCKS, ASCII = " ▁▂▃▄▅▆▇█", " .#"  # from nothing to a whole character
CHART_HEIGHT = 5
LEAST_NAME = 8  # columns of a name that are shown however narrow the terminal is
CYAN, PLAIN = "\x1b[36m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Terminal:
    """`width` in columns; None in a file or a pipe, where nothing is cut."""

    width: int | None
    encoding: str
    colour: bool

    @classmethod
    def of(cls, out: TextIO, env: Mapping[str, str] = os.environ) -> "Terminal":
        seen = out.isatty()
        width = shutil.get_terminal_size().columns if seen else None
        colour = seen and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
        return cls(width, out.encoding or "ascii", colour)

    def can(self, characters: str) -> bool:
        try:
            characters.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True


class Page:
    def __init__(self, terminal: Terminal) -> None:
        self.lines: list[str] = []
        self._terminal = terminal
        self._ellipsis = "…" if terminal.can("…") else "~"

    def say(self, sentence: str) -> None:
        text, width = self._writable(sentence), self._terminal.width
        self.lines += _wrapped(text, width) if width else [text]

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a blank line and a table: names to the left, numbers to the right. Where it is too
        narrow for all of them, the second column of numbers goes first, then the first, and names
        are cut.
        """
        first, *columns = zip(heads, *rows, strict=True)
        names = [self._writable(name) for name in first]
        longest, width = max(map(width_of, names)), self._terminal.width
        if width is not None:
            least = min(longest, LEAST_NAME)
            for column in columns[1::-1]:
                if least + _taken(columns) > width:
                    columns.remove(column)
            longest = min(longest, max(width - _taken(columns), least))
        widths = [max(map(len, column)) for column in columns]
        self.lines.append("")
        for name, *numbers in zip(names, *columns, strict=True):
            right = [cell.rjust(width) for cell, width in zip(numbers, widths, strict=True)]
            self.lines.append("  ".join([padded(self._cut(name, longest), longest), *right]))

    def chart(
        self, what: str, days: Sequence[date], values: Sequence[int], written: Callable[[int], str]
    ) -> None:
        """Add a blank line, a sentence with the highest bar's value, and a bar for each day: for
        several, if the terminal is too narrow. Nothing is added if all values are 0.
        """
        width = self._terminal.width or 80
        merged = math.ceil(len(values) / width)
        bars = [sum(values[at : at + merged]) for at in range(0, len(values), merged)]
        most = max(bars)
        if not most:
            return
        each = "day" if merged == 1 else f"{merged} days"
        self.lines.append("")
        self.say(f"{what} of each {each}, at most {written(most)}:")
        step = 2 if len(bars) * 2 <= width else 1
        for drawn in self._bars(bars, most, " " * (step - 1)):
            self.lines.append(f"{CYAN}{drawn}{PLAIN}" if self._terminal.colour and drawn else drawn)
        self.lines.append(_axis(days[::merged], step, width))

    def _bars(self, values: Sequence[int], most: int, gap: str) -> Iterator[str]:
        marks = BLOCKS if self._terminal.can(BLOCKS) else ASCII
        full = len(marks) - 1
        heights = [math.ceil(value * CHART_HEIGHT * full / most) for value in values]
        for row in reversed(range(CHART_HEIGHT)):
            drawn = (marks[min(max(height - row * full, 0), full)] for height in heights)
            yield gap.join(drawn).rstrip()

    def _cut(self, name: str, width: int) -> str:
        return name if width_of(name) <= width else start_of(name, width - 1) + self._ellipsis

    def _writable(self, text: str) -> str:
        encoding = self._terminal.encoding
        return printable(text).encode(encoding, "replace").decode(encoding)


def _taken(columns: Iterable[Sequence[str]]) -> int:
    return sum(2 + max(map(len, column)) for column in columns)


def _wrapped(text: str, width: int) -> Iterator[str]:
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if line and width_of(joined) > width:
            yield line
            joined = word
        while width_of(joined) > width:  # a word that is longer than a line
            part = start_of(joined, width) or joined[0]
            yield part
            joined = joined[len(part) :]
        line = joined
    yield line


def _axis(days: Sequence[date], step: int, width: int) -> str:
    """Write the first day, and each that is a multiple of five, below its bar."""
    axis = ""
    for at, day in enumerate(days):
        if (at and (day.day % 5 or len(axis) >= at * step)) or at * step + 2 > width:
            continue
        axis = axis.ljust(at * step) + str(day.day)
    return axis
