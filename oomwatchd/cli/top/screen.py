"""Draws frames, by rich: what the terminal can do, its other screen, styles.  Only this imports it.

Text goes to the terminal as spans made by `line`: nothing in it is taken for markup.
"""

import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType, Segment, Segments
from rich.style import Style as RichStyle

from oomwatchd.cli.table import show
from oomwatchd.cli.top.frame import Size
from oomwatchd.cli.top.line import Line, Style, text_of

# Bold and reverse tell as well where there is no colour; and what a colour says, a word says too.
STYLES: Final[Mapping[Style, RichStyle]] = {
    "plain": RichStyle(),
    "title": RichStyle(bold=True),
    "heading": RichStyle(reverse=True),
    "label": RichStyle(color="cyan"),
    "faint": RichStyle(dim=True),
    "good": RichStyle(color="green"),
    "warning": RichStyle(color="yellow"),
    "bad": RichStyle(color="red", bold=True),
}
NO_WRAP: Final = "\x1b[?7l"  # DECAWM: a line that is wider than we believe ends at the edge
WRAP: Final = "\x1b[?7h"


class Screen:
    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # names have what an encoding may not have
        self._console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)

    @property
    def can_be_drawn_on(self) -> bool:
        """Whether lines can be put where they belong; else frames follow one another."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def size(self) -> Size:
        width, height = os.get_terminal_size(sys.stdout.fileno())
        return Size(max(width, 1), max(height, 1))

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The other screen, with the cursor hidden; afterwards what was there before."""
        if not self.can_be_drawn_on:
            yield
            return
        with self._console.screen(hide_cursor=True):
            self._write(NO_WRAP)
            try:
                yield
            finally:
                self._write(WRAP)

    def draw(self, lines: Sequence[Line]) -> None:
        if not self.can_be_drawn_on:
            self.print(lines)
            return
        erase = Control((ControlType.ERASE_IN_LINE, 2)).segment
        self._console.update_screen_lines([[erase, *segments(line)] for line in lines])

    def print(self, lines: Sequence[Line]) -> None:
        """One frame below what was there; in a file, text alone."""
        if not self._console.is_terminal:
            show(map(text_of, lines), sys.stdout)
            return
        for line in lines:
            self._console.print(Segments([*segments(line), Segment.line()]), end="")

    def _write(self, sequence: str) -> None:
        self._console.file.write(sequence)
        self._console.file.flush()


def segments(line: Line) -> list[Segment]:
    return [Segment(span.text, STYLES[span.style]) for span in line]
