"""Aligned columns for people.

What is put into a cell may come from any user: it is made printable here, so that no caller can
forget it.
"""

import json
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Final, NamedTuple, TextIO

from oomwatchd.text import printable

GAP: Final = "  "
CUT_MARK: Final = "..."  # not one character: a terminal need not know it
NARROWEST: Final = 8  # a column is not cut below this: less tells nothing


class Column(NamedTuple):
    heading: str
    right: bool = False  # numbers stand to the right
    cut: bool = False  # is shortened where the line would not fit the terminal


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None
) -> Iterator[str]:
    """The heading, then a line for each row, at most *width* cells wide if that can be."""
    grid = [[column.heading for column in columns]]
    grid += [[printable(text) for text in row] for row in rows]
    widths = [max(map(cells, texts)) for texts in zip(*grid, strict=True)]
    if width is not None:
        widths = _fitted(columns, widths, width)
    for texts in grid:
        placed = map(_placed, texts, widths, columns)
        yield GAP.join(placed).rstrip()


def cells(text: str) -> int:
    """How many cells of a terminal *text* takes: Chinese takes two each, an accent none."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, width: int) -> str:
    """*text*, or as much of its beginning as leaves room for a mark."""
    if cells(text) <= width:
        return text
    room = max(width - len(CUT_MARK), 0)
    ends = accumulate(map(_cells, text))
    kept = next(place for place, end in enumerate(ends) if end > room)
    return text[:kept] + CUT_MARK[:width]


def wrapped(first: str, text: str, width: int) -> Iterator[str]:
    """*first*, then *text* in as many lines as it takes, all of them beginning where it does."""
    indent = " " * cells(first)
    lines = textwrap.wrap(
        printable(text),
        max(width - len(indent), NARROWEST),
        break_on_hyphens=False,
        break_long_words=False,  # the name of a unit or a cgroup is there to be copied
    )
    for place, line in enumerate(lines or [""]):
        yield f"{indent if place else first}{line}".rstrip()


def terminal_width(stream: TextIO) -> int | None:
    """None where no terminal is: what goes to a file or another program is not cut."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def bold(text: str, stream: TextIO) -> str:
    """*text* to stand out, on a terminal whose user has not asked for none; no-color.org."""
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[1m{text}\x1b[0m" if coloured else text


class Unwritten(Exception):
    """The answer could not be written, as the message says."""


def show(lines: Iterable[str], stream: TextIO) -> None:
    """Print *lines*; what the stream's encoding does not have comes as ``\\xe9``.

    A reader that has gone (`oomwatchd rank | head`) has seen enough.  Raises:  Unwritten.
    """
    encoding = stream.encoding or "utf-8"
    made = list(lines)  # before: what fails in making them is no fault of the stream
    with written(stream):
        for line in made:
            print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def show_document(document: object) -> None:
    """As `show`, on standard output and in JSON."""
    show([json.dumps(document, indent=2)], sys.stdout)


@contextmanager
def written(stream: TextIO) -> Iterator[None]:
    """What is written within has been handed over at the end.  Raises:  Unwritten."""
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        discard(stream)
    except OSError as error:
        discard(stream)
        raise Unwritten(error.strerror or str(error)) from error


def discard(stream: TextIO) -> None:
    """Let what is left to be written go nowhere: Python would try once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitted(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """*widths* with those that may be cut made less, the widest first, until the line fits."""
    fitted = list(widths)
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    for place in sorted(range(len(widths)), key=lambda place: -widths[place]):
        if excess > 0 and columns[place].cut:
            narrower = max(fitted[place] - excess, min(fitted[place], NARROWEST))
            excess -= fitted[place] - narrower
            fitted[place] = narrower
    return fitted


def _placed(text: str, width: int, column: Column) -> str:
    text = cut(text, width)
    padding = " " * (width - cells(text))
    return padding + text if column.right else text + padding
