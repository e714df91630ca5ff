"""What was measured, as Markdown: tables, the bars, the machine; and where it is kept."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.contenders import PYTHON

DOCUMENT: Final = Path(__file__).resolve().parent.parent / "docs/performance.md"


class Bar(NamedTuple):
    """A promise of ours: that *value* is at most *limit*."""

    what: str
    value: float
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        verdict = "met" if self.met else "missed"
        return f"{self.what}: {number(self.value)}{unit}, at most {number(self.limit)}: {verdict}"


class Section(NamedTuple):
    """What one part of the benchmark says."""

    name: str  # as in the markers of the document
    text: str
    bars: Sequence[Bar] = ()
    plots: Sequence[tuple[str, str]] = ()  # file names in docs/, and SVG


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float) -> str:
    """Three digits that count, or as many as stand before the point."""
    if value != value or value in (float("inf"), float("-inf")):
        return "none"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3 if abs(value) >= 0.01 else 5
    return f"{value:.{digits}f}"


def milliseconds(microseconds: float) -> str:
    return number(microseconds / 1000)


def machine() -> str:
    cpu = re.search(
        r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    version = subprocess.run([PYTHON, "--version"], check=True, capture_output=True, text=True)
    return (
        f"{cpu[1].strip() if cpu else platform.machine()}, {os.cpu_count()} cores, "
        f"Linux {platform.release()}, {version.stdout.strip()}"
    )


def rendered(section: Section, command: str, load: float) -> str:
    """The section with where it comes from; *load*: the average of the minute before."""
    today = time.strftime("%Y-%m-%d")
    origin = f"`{command}` on {today}: {machine()}; load before: {load:.2f}.\n"
    bars = table(
        ["bar", "measured", "at most", ""],
        [
            [bar.what, with_unit(bar.value, bar), with_unit(bar.limit, bar),
             "met" if bar.met else "**missed**"]
            for bar in section.bars
        ],
    )  # fmt: skip
    parts = [origin, section.text, *([bars] if section.bars else [])]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def with_unit(value: float, bar: Bar) -> str:
    return f"{number(value)} {bar.unit}".rstrip()


def put(document: str, name: str, text: str) -> str:
    """The document, with *text* between the markers of that name.

    Raises ValueError:  it has no such markers.
    """
    begin, end = f"<!-- bench: {name} -->\n", "<!-- /bench -->\n"
    head, found, rest = document.partition(begin)
    _, ended, tail = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"no markers for {name}")
    return f"{head}{begin}\n{text}\n{end}{tail}"


def write(section: Section, text: str) -> None:
    """Keep it, in docs/."""
    DOCUMENT.write_text(
        put(DOCUMENT.read_text(encoding="utf-8"), section.name, text), encoding="utf-8"
    )
    for name, svg in section.plots:
        (DOCUMENT.parent / name).write_text(svg, encoding="utf-8")
