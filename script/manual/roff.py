"""Markdown, as far as our manual uses it, to man(7): headings, paragraphs, lists, code, tables.

A table becomes a list of definitions, as a terminal has no room for its columns.  Only what mandoc
and groff understand alike is written, and nothing that a line of text could take for a request.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final, NamedTuple

WIDTH: Final = 78
FENCE: Final = "```"
INLINE: Final = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<bold>[^*]+)\*\*|\[(?P<link>[^]]+)\]\([^)]*\)|(?P<plain>[^`*[]+|.)"
)
ESCAPES: Final = {"\\": r"\e", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
MINUS: Final = re.compile(r"(?<!\w)-(?=[\w-])")  # of an option or a number; others are hyphens
LEFT_ALIGNED: Final = ".ad l"
UNKNOWN: Final = re.compile(r"\s*(>|\*|\+|\d+[.)]|!\[|={3}|-{3}|<)|\s+(-\s|\|)| {4}")
CELL: Final = re.compile(r"(?<!\\)\|")


class Title(NamedTuple):
    name: str
    section: int
    date: str


def page(markdown: str, title: Title) -> str:
    """The man page of *markdown*, whose links lead nowhere: only their text stays."""
    head = f".TH {title.name.upper()} {title.section} {title.date} oomwatchd"
    lines = ['.\\" Made by script/make-docs.', head, LEFT_ALIGNED, *body(markdown.splitlines())]
    return "\n".join(lines) + "\n"


def body(lines: Sequence[str]) -> Iterator[str]:
    rest = list(lines)
    after_heading = True
    while rest:
        line = rest[0]
        if not line or line.startswith("<!--"):
            rest = rest[1:]
            continue
        block, rest = first_block(rest)
        if line.startswith("#"):
            yield heading(line)
        elif line.startswith(FENCE):
            yield from example(block, after_heading=after_heading)
        elif line.startswith("|"):
            yield from definitions(block)
        elif line.startswith("- "):
            yield from bullets(block)
        else:
            yield from paragraph(block, after_heading=after_heading)
        after_heading = line.startswith("#")


def known(line: str) -> str:
    """*line*, if it is none of those that Markdown has and this module has not."""
    if UNKNOWN.match(line):
        raise ValueError(f"no words for this kind of Markdown: {line}")
    return line


def first_block(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines that belong together at the start of *lines*, and the others."""
    if lines[0].startswith("#"):
        length = 1
    elif lines[0].startswith(FENCE):
        length = lines.index(FENCE, 1) + 1
    else:
        ours = takewhile(lambda line: line and not line.startswith("<!--"), lines)
        length = len(list(map(known, ours)))
    return list(lines[:length]), list(lines[length:])


def heading(line: str) -> str:
    marks, _, text = line.partition(" ")
    if len(marks) <= 2:
        return f".SH {quoted(text.upper())}"
    return f".SS {quoted(text)}"


def quoted(text: str) -> str:
    return '"' + inline(text).replace('"', r"\(dq") + '"'


def example(block: Sequence[str], *, after_heading: bool) -> Iterator[str]:
    if not after_heading:
        yield ".PP"
    yield ".RS 4"
    yield ".EX"
    yield from (protected(escaped(line, code=True)) for line in block[1:-1])
    yield ".EE"
    yield ".RE"


def paragraph(block: Sequence[str], *, after_heading: bool) -> Iterator[str]:
    if not after_heading:
        yield ".PP"
    yield from text(" ".join(block))


def bullets(block: Sequence[str]) -> Iterator[str]:
    items: list[str] = []
    for line in block:
        if line.startswith("- "):
            items.append(line[2:])
        else:
            items[-1] += f" {line.strip()}"
    for item in items:
        yield r".IP \(bu 2"
        yield from text(item)


def definitions(block: Sequence[str]) -> Iterator[str]:
    """The first cell, explained by the last; those between come after it, with their titles."""
    titles, _, *rows = map(cells, block)
    for row in rows:
        first, *between, last = row
        yield ".TP"
        yield protected(inline(first if "`" in first else f"**{first}**"))
        yield from text(last)
        told = zip(titles[1:-1], between, strict=True)
        said = "; ".join(f"{title}: {cell}" for title, cell in told if cell)
        if said:
            yield ".br"
            yield from text(f"{said[0].upper()}{said[1:]}.")


def cells(row: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in CELL.split(row.strip())[1:-1]]


def text(markdown: str) -> Iterator[str]:
    lines = textwrap.wrap(inline(markdown), WIDTH, break_long_words=False, break_on_hyphens=False)
    yield from map(protected, lines)


def inline(markdown: str) -> str:
    return "".join(map(part, INLINE.finditer(markdown)))


def part(found: re.Match[str]) -> str:
    kind, words = next((kind, words) for kind, words in found.groupdict().items() if words)
    if kind in ("code", "bold"):
        return rf"\fB{unbroken(words) if kind == 'code' else inline(words)}\fR"
    return inline(words) if kind == "link" else escaped(words, code=False)


def escaped(words: str, *, code: bool) -> str:
    safe = "".join(ESCAPES.get(character, character) for character in words)
    return safe.replace("-", r"\-") if code else MINUS.sub(r"\\-", safe)


def unbroken(code: str) -> str:
    """With no hyphen put into a word, as a reader could take it for a part of it."""
    return " ".join(rf"\%{escaped(word, code=True)}" for word in code.split(" "))


def protected(line: str) -> str:
    """*line*, with no request in it."""
    return rf"\&{line}" if line.startswith((".", "'")) else line
