"""One frame: as many lines as the screen has, made from facts alone.

What stands where depends on the size of the screen and on the configuration, and never on what
processes do: so no column jumps, and no section grows into another.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from oomwatchd.cli.table import wrapped
from oomwatchd.cli.top.facts import Facts, Row
from oomwatchd.cli.top.line import Line, Span, cell, fitted, heading
from oomwatchd.cli.top.sections import (
    TWO_GAUGES_CELLS,
    gauges,
    kill_columns,
    kill_lines,
    pressure_words,
    process_columns,
    process_line,
    rule_columns,
    rule_line,
)
from oomwatchd.cli.top.view import Page, View, scrolled

LEAST_PROCESSES: Final = 5  # lines for them, before rules and kills have any
KILLS_MAX: Final = 6
KEYS: Final = (
    ("q", "quit"),
    ("?", "help"),
    ("s", "order of death"),
    ("m", "by memory"),
    ("space", "pause"),
)
HELP: Final = (
    ("", ""),
    ("q", "quit"),
    ("s", "in order of death: whom the kernel would kill first now"),
    ("m", "the largest first"),
    ("space", "stand still; again: go on"),
    ("up, down, PgUp,", "scroll"),
    ("PgDn, Home, End", ""),
    ("", ""),
    ("psi", "how long some, or all (full) tasks have waited for memory"),
    ("#", "place in the order of death; never: at -1000"),
    ("POINTS", "memory + ADJ x a thousandth of RAM and swap"),
    ("!RULE", "the process does not have the value that its rule sets"),
    ("NOT SET", "how many of the rule's processes do not"),
    (
        "STILL EXPOSED TO",
        "which killers could still take how many of them, by the daemon's last audit;"
        " `oomwatchd audit` says why. -: the rule sends them forward",
    ),
)
HELP_KEY_CELLS: Final = 18


class Size(NamedTuple):
    width: int
    height: int


class Layout(NamedTuple):
    """Lines for each section, with its heading; 0: there is no room for it, or nothing in it."""

    gauges: int
    notes: int
    rules: int
    kills: int
    processes: int


def layout(facts: Facts, size: Size) -> Layout:
    small = size.height < 16
    gauges = 2 if small or size.width >= TWO_GAUGES_CELLS else 4
    notes = min(len(facts.notes), 1 if size.height < 30 else 3) if not small else 0
    left = size.height - 2 - gauges - notes
    room = left - 1 - LEAST_PROCESSES
    rules = _section(1 + len(facts.rules), max(room // 2, room - 1 - KILLS_MAX), facts.rules)
    kills = _section(1 + KILLS_MAX, min(room - rules, 1 + max(size.height // 8, 1)), size)
    return Layout(gauges, notes, rules, kills, max(left - rules - kills, 0))


def _section(wanted: int, room: int, content: Sequence[object]) -> int:
    lines = min(wanted, room)
    return lines if lines >= 2 and content else 0


def page(facts: Facts, size: Size) -> Page:
    return Page(max(layout(facts, size).processes - 1, 1), len(facts.rows))


def frame(facts: Facts, view: View, size: Size, *, interactive: bool = True) -> list[Line]:
    """Exactly size.height lines, none wider than size.width."""
    body = help_lines(facts, size) if view.help else live_lines(facts, view, size)
    lines = [title(facts, view, size.width), *body][: size.height - 1]
    lines += [()] * (size.height - 1 - len(lines))
    lines.append(footer(facts, view, size, interactive=interactive))
    return [fitted(line, size.width) for line in lines]


def live_lines(facts: Facts, view: View, size: Size) -> Iterator[Line]:
    shares, width = layout(facts, size), size.width
    yield from gauges(facts, width, shares.gauges)
    yield from notes(facts, width, shares.notes)
    if shares.rules:
        columns = rule_columns(facts.rules, width)
        yield heading(columns, width)
        shown = facts.rules
        if len(shown) > shares.rules - 1:  # the largest then, as not all can be seen
            shown = tuple(sorted(shown, key=lambda rule: (-rule.memory_bytes, -rule.processes)))
        yield from (rule_line(rule, columns) for rule in shown[: shares.rules - 1])
    if shares.kills:
        columns = kill_columns(facts.rules, width)
        yield heading(columns, width)
        shown_kills = kill_lines(facts.kills, columns, width)[: shares.kills - 1]
        yield from shown_kills
        yield from [()] * (shares.kills - 1 - len(shown_kills))
    columns = process_columns(facts.rules, width)
    yield heading(columns, width)
    yield from (process_line(one, columns) for one in visible(facts, view, size))


def visible(facts: Facts, view: View, size: Size) -> Sequence[Row]:
    rows = facts.rows
    if view.order == "memory":
        rows = tuple(sorted(rows, key=lambda one: -one.memory_bytes))
    shown = page(facts, size)
    first = scrolled(view, view.first, shown).first
    return rows[first : first + shown.rows]


def notes(facts: Facts, width: int, lines: int) -> Iterator[Line]:
    """The first ones, and how many more the help has."""
    more = len(facts.notes) - lines
    for number, note in enumerate(facts.notes[:lines], 1):
        last = f" (and {more} more: ?)" if more > 0 and number == lines else ""
        told = cell(f"! {note}", width - len(last)).rstrip()
        yield (Span(told + last, "warning"),)


def title(facts: Facts, view: View, width: int) -> Line:
    """The parts that there is room for, the most important first."""
    clock = time.strftime("%H:%M:%S", time.localtime(facts.unix_seconds))
    parts = (
        Span(clock, "title"),
        pressure_words(facts.pressure, facts.level),
        Span(f"{len(facts.rows):5} processes"),
        Span(facts.daemon, "warning" if facts.daemon_runs is False else "plain"),
        Span(cell(facts.host, min(len(facts.host), 24)), "faint"),
    )
    line = [Span("PAUSED   ", "bad") if view.paused else Span("oomwatchd", "title")]
    for part in parts:
        if sum(len(span.text) for span in line) + 2 + len(part.text) <= width:
            line += [Span("  "), part]
    return tuple(line)


def footer(facts: Facts, view: View, size: Size, *, interactive: bool) -> Line:
    """The keys there is room for, and at the right which rows these are."""
    shown = page(facts, size)
    first = scrolled(view, view.first, shown).first
    last = min(first + shown.rows, shown.total)
    order = "order of death" if view.order == "death" else "by memory"
    where = f"{order}, {first + 1}-{last} of {shown.total}"
    if view.help:
        where = "any key: back"
    line: list[Span] = []
    used = len(where) + 1
    for key, meaning in KEYS if interactive else ():
        used += len(key) + len(meaning) + 3
        if used <= size.width:
            line += [Span(key, "title"), Span(f" {meaning}  ")]
    taken = sum(len(span.text) for span in line)
    return (*line, Span(cell(where, size.width - taken, right=True), "faint"))


def help_lines(facts: Facts, size: Size) -> Iterator[Line]:
    for note in facts.notes:
        yield (Span(cell(f"! {note}", size.width), "warning"),)
    for key, meaning in HELP:
        first = cell(key, HELP_KEY_CELLS)
        for line in wrapped(first, meaning, size.width):
            yield Span(line[: len(first)], "label"), Span(line[len(first) :])
