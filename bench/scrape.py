"""What it costs to be asked for the metrics."""

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from bench import contenders, meters
from bench.contenders import READER, Subject
from bench.programs import sleepers
from bench.report import Bar, Section, number, table

TRACKED: Final = (10, 100, 1000)
SLEEPERS: Final = 1000
SCRAPES: Final = 21
SETTLE_SECONDS: Final = 3.0
SCRAPE_MILLISECONDS_MAX: Final = 5.0


class Scraped(NamedTuple):
    """CPU milliseconds."""

    tracked: int
    reader: float  # one look at all processes, in C
    plain: float
    packed: float
    exporter: float | None  # packed


def measure(scratch: Path, *, peers: bool) -> Section:
    found, processes = [], 0
    for tracked in TRACKED:
        with sleepers(scratch, SLEEPERS, tracked):
            processes = meters.processes()
            found.append(beside(scratch, tracked, peers=peers))
    bars = [
        Bar(f"scrape, {one.tracked:,} processes under rules", max(one.plain, one.packed),
            SCRAPE_MILLISECONDS_MAX, "ms of CPU")
        for one in found
    ]  # fmt: skip
    return Section("scrape", text(found, processes), bars)


def beside(scratch: Path, tracked: int, *, peers: bool) -> Scraped:
    exporter = contenders.peers(scratch).get(contenders.EXPORTER) if peers else None
    with ExitStack() as stack:
        settings = {"interval": "1s", "events": "off"}
        daemon = stack.enter_context(contenders.oomwatchd(scratch, "scraped", settings))
        reader = stack.enter_context(contenders.references(scratch)[READER]())
        other = stack.enter_context(exporter()) if exporter else None
        time.sleep(SETTLE_SECONDS)
        before, began = meters.cpu_milliseconds(reader.pid), time.monotonic()
        plain = scrape_milliseconds(daemon, "identity")
        packed = scrape_milliseconds(daemon, "gzip")
        others = scrape_milliseconds(other, "gzip") if other else None
        turns = time.monotonic() - began
        one_turn = (meters.cpu_milliseconds(reader.pid) - before) / turns
        return Scraped(tracked, one_turn, plain, packed, others)


def scrape_milliseconds(subject: Subject, encoding: str) -> float:
    """Of the first after a turn: what is asked for again before the next may be kept."""
    if subject.port is None:
        raise ValueError(subject.name)
    spent = []
    for _ in range(SCRAPES):
        await_turn(subject)
        time.sleep(0.1)
        before = meters.cpu_milliseconds(subject.pid)
        contenders.scrape(subject.port, encoding)
        time.sleep(0.1)  # what its thread does after the answer is part of it
        spent.append(meters.cpu_milliseconds(subject.pid) - before)
    return statistics.median(spent)


def await_turn(subject: Subject) -> None:
    if subject.turned is None:
        return
    subject.turned.clear()
    if not subject.turned.wait(contenders.PATIENCE_SECONDS):
        raise SystemExit(f"{subject.name} does not turn")


def text(found: Sequence[Scraped], processes: int) -> str:
    head = ["under rules", "C, one look at all", "oomwatchd, plain", "oomwatchd, gzip",
            contenders.EXPORTER]  # fmt: skip
    rows = [
        [
            f"{one.tracked:,}",
            number(one.reader),
            f"{number(one.plain)} ({number(one.plain / one.reader)})",
            f"{number(one.packed)} ({number(one.packed / one.reader)})",
            "" if one.exporter is None
            else f"{number(one.exporter)} ({number(one.exporter / one.reader)})",
        ]
        for one in found
    ]  # fmt: skip
    return (
        f"CPU of one scrape in ms, 100 rules, {processes:,} processes; in brackets, the ratio to "
        f"the C program's look at all, in the same minute.\n\n{table(head, rows)}"
    )
