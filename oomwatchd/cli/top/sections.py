"""The parts of a frame, each made from facts: gauges, rules, kills, processes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from oomwatchd.cli.top.facts import Facts, Kill, Kills, Row, RuleTotal
from oomwatchd.cli.top.line import Column, Line, Span, Style, cell, row
from oomwatchd.model import Level, Pressure
from oomwatchd.policy.words import size
from oomwatchd.text import GIB, MIB

RULE_CELLS_MIN: Final = 8
RULE_CELLS_MAX: Final = 16
NAME_CELLS: Final = 15  # the kernel keeps no more bytes of a name
ARGUMENTS_CELLS_MIN: Final = 12
SIZE_CELLS: Final = 8  # "1023 MiB"
USER_CELLS: Final = 10
LABEL_CELLS: Final = 8
NARROW_CELLS: Final = 60  # below that, only what tells who dies next
WIDE_CELLS: Final = 100  # from there on, everything
TWO_GAUGES_CELLS: Final = 72
FULL_RATIO: Final = 0.9
HIGH_RATIO: Final = 0.75
LEVELS: Final[Mapping[Level, Style]] = {"ok": "good", "warning": "warning", "critical": "bad"}
NOT_MEASURED: Final = "not measured; try booting with psi=1"


# -- gauges ----------------------------------------------------------------------------------------


def gauges(facts: Facts, width: int, lines: int) -> list[Line]:
    """Memory, swap and pressure: in two lines if they have to do, else beside each other."""
    memory, swap, some, full = bars(facts, width if width < TWO_GAUGES_CELLS else width // 2 - 1)
    if width >= TWO_GAUGES_CELLS:
        gap = (Span(" " * (2 + width % 2)),)
        return [memory + gap + swap, some + gap + full]
    return [memory, some] if lines < 4 else [memory, swap, some, full]


def bars(facts: Facts, width: int) -> Iterator[Line]:
    memory, pressure = facts.memory, facts.pressure
    used = memory.total_bytes - memory.available_bytes
    swapped = memory.swap_total_bytes - memory.swap_free_bytes
    largest = amounts(memory.total_bytes, max(memory.total_bytes, memory.swap_total_bytes))
    room = max(len(largest), len(percentage(100.0)))
    for label, part, whole in (
        ("memory", used, memory.total_bytes),
        ("swap", swapped, memory.swap_total_bytes),
    ):
        ratio = part / whole if whole else 0.0
        value = cell(amounts(part, whole), room, right=True)
        yield bar(label, ratio, value, fullness(ratio), width)
    if pressure is None:
        for label, told in (("psi some", NOT_MEASURED), ("psi full", "")):
            yield Span(f"{label} ", "label"), Span(cell(told, width - LABEL_CELLS - 1))
        return
    for label, percent in (("psi some", pressure.some_avg10), ("psi full", pressure.full_avg10)):
        value = cell(percentage(percent), room, right=True)
        yield bar(label, percent / 100, value, LEVELS[facts.level], width)


def bar(label: str, ratio: float, value: str, style: Style, width: int) -> Line:
    """``memory   [|||||     ]  12.3 of 31.2 GiB``."""
    inside = max(width - LABEL_CELLS - len(value) - 4, 0)
    filled = min(max(round(ratio * inside), 1 if ratio > 0 else 0), inside)
    return (
        Span(cell(label, LABEL_CELLS), "label"),
        Span(" ["),
        Span("|" * filled, style),
        Span(" " * (inside - filled) + "] "),
        Span(value),
    )


def percentage(percent: float) -> str:
    return f"{percent:.1f} % of 10 s"


def amounts(part: int, whole: int) -> str:
    """``12.3 of 31.2 GiB``, always as long on one machine."""
    if not whole:
        return "none"
    unit, name = (GIB, "GiB") if whole >= GIB else (MIB, "MiB")
    total = f"{whole / unit:.1f}"
    return f"{part / unit:{len(total)}.1f} of {total} {name}"


def fullness(ratio: float) -> Style:
    if ratio >= FULL_RATIO:
        return "bad"
    return "warning" if ratio >= HIGH_RATIO else "good"


def pressure_words(pressure: Pressure | None, level: Level) -> Span:
    if pressure is None:
        return Span("pressure not known", "faint")
    word = level if level == "ok" else level.upper()
    return Span(f"pressure {word:8}", LEVELS[level])


# -- rules -----------------------------------------------------------------------------------------


def rule_cells(rules: Sequence[RuleTotal]) -> int:
    """How wide a column of rules is: by the configuration, as matches come and go."""
    return min(max((len(rule.name) for rule in rules), default=0), RULE_CELLS_MAX)


def rule_columns(rules: Sequence[RuleTotal], width: int) -> list[Column]:
    columns = [
        Column("RULE", max(rule_cells(rules), RULE_CELLS_MIN)),
        Column("ADJ", 5, right=True),
        Column("PROCS", 6, right=True),
        Column("MEMORY", SIZE_CELLS, right=True),
    ]
    if width < NARROW_CELLS:
        return columns
    columns.append(Column("NOT SET", 8, right=True))
    return [*columns, rest("STILL EXPOSED TO", columns, width)]


def rest(heading: str, columns: Sequence[Column], width: int) -> Column:
    """A last column for what the others leave of the line."""
    return Column(heading, width - sum(column.width + 1 for column in columns))


def rule_line(rule: RuleTotal, columns: Sequence[Column]) -> Line:
    exposed = exposure(rule)
    texts = (
        Span(rule.name),
        Span(str(rule.oom_score_adj), adj_style(rule.oom_score_adj)),
        Span(str(rule.processes)),
        Span(size(rule.memory_bytes)),
        Span(str(rule.not_set) if rule.processes else "", "warning" if rule.not_set else "plain"),
        exposed,
    )
    return row(columns, texts[: len(columns)])


def exposure(rule: RuleTotal) -> Span:
    """To which killers, and how many; of a rule that sends forward, that is the purpose."""
    if not rule.processes:
        return Span("")
    if not rule.protects:
        return Span("-", "faint")
    if rule.exposed is None:
        return Span("unknown", "faint")
    found = sorted(
        ((count, killer) for killer, count in rule.exposed.items() if count), reverse=True
    )
    if not found:
        return Span("nothing", "good")
    return Span(", ".join(f"{killer} ({count})" for count, killer in found), "bad")


def adj_style(oom_score_adj: int) -> Style:
    if oom_score_adj == 0:
        return "plain"
    return "good" if oom_score_adj < 0 else "warning"


# -- kills -----------------------------------------------------------------------------------------


def kill_columns(rules: Sequence[RuleTotal], width: int) -> list[Column]:
    columns = [Column("LAST KILLS", 14), Column("BY", 12)]
    if width >= NARROW_CELLS:
        columns += [Column("PID", 7, right=True), Column("MEMORY", SIZE_CELLS, right=True)]
    if width >= TWO_GAUGES_CELLS:
        columns.append(Column("RULE", max(rule_cells(rules), RULE_CELLS_MIN)))
    if width >= WIDE_CELLS:
        columns.append(Column("DIAGNOSIS", 16))
    return [*columns, rest("NAME", columns, width)]


def kill_line(one: Kill, columns: Sequence[Column]) -> Line:
    told = {
        "LAST KILLS": time.strftime("%m-%d %H:%M:%S", time.localtime(one.time_unix_seconds)),
        "BY": one.killer,
        "PID": "" if one.pid is None else str(one.pid),
        "MEMORY": "" if one.memory_bytes is None else size(one.memory_bytes),
        "RULE": one.rule or "",
        "DIAGNOSIS": one.diagnosis.replace("_", " "),
        "NAME": one.name,
    }
    protected: Style = "bad" if one.rule else "plain"
    return row(columns, (Span(told[column.heading], protected) for column in columns))


def kill_lines(kills: Kills, columns: Sequence[Column], width: int) -> list[Line]:
    lines = [kill_line(one, columns) for one in kills.newest_first]
    if kills.unknown:
        lines.insert(0, (Span(cell(kills.unknown, width), "faint"),))
    return lines or [(Span(cell("none on record", width), "faint"),)]


# -- processes -------------------------------------------------------------------------------------


def process_columns(rules: Sequence[RuleTotal], width: int) -> list[Column]:
    columns = [
        Column("#", 5, right=True),
        Column("PID", 7, right=True),
        Column("ADJ", 5, right=True),
        Column("MEMORY", SIZE_CELLS, right=True),
    ]
    if width >= NARROW_CELLS:
        columns.append(Column("POINTS", SIZE_CELLS + 1, right=True))
        if rules:
            columns.append(Column("RULE", max(rule_cells(rules) + 1, 5)))
    if width >= WIDE_CELLS + USER_CELLS:
        columns.append(Column("USER", USER_CELLS))
    left = rest("NAME", columns, width)
    if left.width < NAME_CELLS + 1 + ARGUMENTS_CELLS_MIN:
        return [*columns, left]
    columns.append(Column("NAME", NAME_CELLS))
    return [*columns, rest("ARGUMENTS", columns, width)]


def process_line(one: Row, columns: Sequence[Column]) -> Line:
    style: Style = "faint" if one.rank is None else "plain"
    first: Style = "bad" if one.rank == 1 else style
    told = {
        "#": Span("never" if one.rank is None else str(one.rank), first),
        "PID": Span(str(one.pid), first),
        "ADJ": Span(str(one.oom_score_adj), adj_style(one.oom_score_adj)),
        "MEMORY": Span(size(one.memory_bytes), style),
        "POINTS": Span("" if one.points_bytes is None else size(one.points_bytes), style),
        "RULE": rule_of(one),
        "USER": Span(one.user, style),
        "NAME": Span(one.name, first),
        "ARGUMENTS": Span(arguments(one), style),
    }
    return row(columns, (told[column.heading] for column in columns))


def arguments(one: Row) -> str:
    """The command line; without its first word, if that says what the name does."""
    program, _, arguments = one.command.partition(" ")
    return arguments if program.rpartition("/")[2].startswith(one.name) else one.command


def rule_of(one: Row) -> Span:
    if one.rule is None:
        return Span("")
    return Span(one.rule, "label") if one.as_wanted else Span(f"!{one.rule}", "bad")
