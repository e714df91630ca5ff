"""Lines of a frame: spans of text, each with the style that it is drawn in.

Names and command lines are anybody's: they come in by `cell` alone, which makes them printable.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from oomwatchd.cli.table import cells, cut
from oomwatchd.text import printable

Style = Literal["plain", "title", "heading", "label", "faint", "good", "warning", "bad"]
CHARACTERS_PER_CELL: Final = 4  # looked at: a letter may have accents, which take no room


class Span(NamedTuple):
    text: str
    style: Style = "plain"


Line = tuple[Span, ...]


class Column(NamedTuple):
    heading: str
    width: int
    right: bool = False  # numbers stand to the right


def cell(text: str, width: int, *, right: bool = False) -> str:
    """*text* made printable, in exactly *width* cells."""
    text = cut(printable(text[: max(width, 0) * CHARACTERS_PER_CELL]), max(width, 0))
    padding = " " * (width - cells(text))
    return padding + text if right else text + padding


def row(columns: Sequence[Column], texts: Iterable[Span]) -> Line:
    """One line of a table; the last column has what no other line may be shifted by."""
    spans: list[Span] = []
    for column, (text, style) in zip(columns, texts, strict=True):
        gap = " " if spans else ""
        spans.append(Span(gap + cell(text, column.width, right=column.right), style))
    return tuple(spans)


def heading(columns: Sequence[Column], width: int) -> Line:
    shown = row(columns, (Span(column.heading) for column in columns))
    return (Span(cell("".join(span.text for span in shown), width), "heading"),)


def fitted(line: Line, width: int) -> Line:
    """*line* without what is beyond *width*, and without blanks at its end that show nothing."""
    left = width
    spans: list[Span] = []
    for text, style in line:
        if cells(text) > left:
            text = cell(text, left)
        spans.append(Span(text, style))
        left -= cells(text)
    while spans and not spans[-1].text.strip() and spans[-1].style != "heading":
        spans.pop()
    if spans and spans[-1].style != "heading":
        spans[-1] = spans[-1]._replace(text=spans[-1].text.rstrip())
    return tuple(span for span in spans if span.text)


def text_of(line: Line) -> str:
    return "".join(span.text for span in line).rstrip()
