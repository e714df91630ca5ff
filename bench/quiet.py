"""What it costs while nothing happens: CPU, system calls, memory, and the start."""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from bench import chart, contenders, meters
from bench.contenders import EVENTS, POLLING, READER, SHIPPED, Start, Subject, metric
from bench.programs import sleepers
from bench.report import Bar, Section, number, table

TRACKED: Final = 10  # of the idle processes, so many are under rules
STARTS: Final = 3
STRETCHES: Final = 3
SETTLE_SECONDS: Final = 12  # young processes are looked at more often
GROWN_UP_SECONDS: Final = 35  # and such is strace, when it counts
ALONE_SECONDS: Final = 5
FIRST_SCAN: Final = "oomwatchd_scan_duration_seconds_sum"  # when it is the only one
CPU_RATIO_MAX: Final = 0.25
CALLS_MAX: Final = 0.2  # per process and turn
EVENTS_GROWTH_MAX: Final = 1.5
RESIDENT_MIB_MAX: Final = 32.0
START_MILLISECONDS_MAX: Final = 150.0


class Alone(NamedTuple):
    """What one has used with no other beside it."""

    start_milliseconds: float
    bare_start_milliseconds: float  # without the first look, for those that tell how long that was
    memory: meters.Memory


class Together(NamedTuple):
    stretches: Sequence[Mapping[str, float]]  # CPU, milliseconds a minute
    forks: float  # a second
    calls: Mapping[str, float]  # a second, in another stretch


class Size(NamedTuple):
    """All that was measured beside so many processes."""

    processes: int
    forks: float  # a second, by others: how quiet it was
    alone: Mapping[str, Alone]
    calls: Mapping[str, float]  # a second
    cpu: Mapping[str, float]  # milliseconds a minute: the median of the stretches
    ratio: Mapping[str, float]  # to the C program that reads all, in the same seconds; likewise

    def calls_per_process(self, name: str) -> float:
        return self.calls[name] / self.processes


def measure(scratch: Path, counts: Sequence[int], seconds: float, *, peers: bool) -> Section:
    others = contenders.peers(scratch) if peers else {}
    starts = {**contenders.references(scratch), **contenders.ours(scratch), **others}
    sizes = [size(scratch, starts, count, seconds) for count in counts]
    return Section("quiet", text(sizes, seconds), bars(sizes), [("cpu.svg", plot(sizes))])


def size(scratch: Path, starts: Mapping[str, Start], count: int, seconds: float) -> Size:
    with sleepers(scratch, count, TRACKED):
        processes = meters.processes()
        found = {name: alone(start) for name, start in starts.items()}
        stretches, forks, calls = together(scratch, list(starts.values()), seconds)
    return Size(
        processes=processes,
        forks=forks,
        alone=found,
        calls=calls,
        cpu={name: statistics.median(one[name] for one in stretches) for name in starts},
        ratio={
            name: statistics.median(one[name] / one[READER] for one in stretches) for name in starts
        },
    )


def alone(start: Start) -> Alone:
    """Its memory is weighed after it has been scraped, and has worked for a while."""
    with start() as subject:
        started = [started_in(subject)]
        time.sleep(ALONE_SECONDS)
        memory = meters.memory(subject.pid)
    for _ in range(STARTS - 1):
        with start() as subject:
            started.append(started_in(subject))
    whole, bare = map(statistics.median, zip(*started, strict=True))
    return Alone(whole, bare, memory)


def started_in(subject: Subject) -> tuple[float, float]:
    """CPU until it was ready, milliseconds: all, and what is left without the first look.

    The duration of that is of the clock on the wall; on a quiet machine that is the CPU of the
    thread that looks.  Another reads for it, and what that takes is of the look as well.
    """
    if subject.port is None or subject.looks_when_scraped:
        return subject.start_milliseconds, subject.start_milliseconds
    first_look = metric(subject.port, FIRST_SCAN) * 1000
    return subject.start_milliseconds, subject.first_thread_milliseconds - first_look


def together(scratch: Path, starts: Sequence[Start], seconds: float) -> Together:
    with ExitStack() as stack:
        subjects: list[Subject] = [stack.enter_context(start()) for start in starts]
        pids = {subject.name: subject.pid for subject in subjects}
        sleep = contenders.scraping(subjects)
        sleep(SETTLE_SECONDS)
        before = meters.forks()
        stretches = [meters.cpu_beside(pids, seconds, sleep) for _ in range(STRETCHES)]
        forks = (meters.forks() - before) / seconds / STRETCHES
        calls = meters.calls_beside(pids, scratch, seconds, sleep, GROWN_UP_SECONDS)
        return Together(stretches, forks, calls)


# -- what is said about it


def text(sizes: Sequence[Size], seconds: float) -> str:
    names = list(sizes[0].cpu)
    head = [f"{one.processes:,} processes" for one in sizes]

    def rows(cell: str) -> list[list[str]]:
        return [[name, *(CELLS[cell](one, name) for one in sizes)] for name in names]

    disturbed = ["(forks a second by others)", *(f"({number(one.forks)})" for one in sizes)]
    return "\n".join(
        [
            f"CPU, ms a minute (ratio to the C program that reads all): the median of {STRETCHES} "
            f"stretches of {seconds:g} s, all programs in the same seconds.\n",
            table(["CPU, ms a minute", *head], [*rows("cpu"), disturbed]),
            "System calls a second (per process), counted by strace in a further stretch.\n",
            table(["system calls a second", *head], rows("calls")),
            f"Each alone: memory once it has been scraped; CPU from the start to being ready, the "
            f"median of {STARTS} starts.\n",
            table(["RSS / PSS, MiB", *head], rows("memory")),
            table(["CPU to ready, ms", *head], rows("start")),
        ]
    )


CELLS: Final = {
    "cpu": lambda one, name: f"{number(one.cpu[name])} ({number(one.ratio[name])})",
    "calls": lambda one, name: f"{number(one.calls[name])} ({number(one.calls_per_process(name))})",
    "memory": lambda one, name: " / ".join(f"{value:.1f}" for value in one.alone[name].memory),
    "start": lambda one, name: number(one.alone[name].start_milliseconds),
}


def bars(sizes: Sequence[Size]) -> list[Bar]:
    found = []
    for one in sizes:
        at = f"at {one.processes:,} processes"
        found += [
            Bar(f"CPU, polling, to the C program's, {at}", one.ratio[POLLING], CPU_RATIO_MAX),
            Bar(f"system calls per process and turn, polling, {at}",
                one.calls_per_process(POLLING), CALLS_MAX),
            Bar(f"start, without the first look, {at}", one.alone[SHIPPED].bare_start_milliseconds,
                START_MILLISECONDS_MAX, "ms of CPU"),
        ]  # fmt: skip
        if 1000 <= one.processes <= 3000:
            resident = one.alone[EVENTS].memory.resident_mib
            found.append(Bar(f"resident memory, {at}", resident, RESIDENT_MIB_MAX, "MiB"))
    small, large = sizes[0], sizes[-1]
    if large.processes > small.processes:
        what = f"CPU, events: {large.processes:,} processes to {small.processes:,}"
        found.append(Bar(what, large.cpu[EVENTS] / small.cpu[EVENTS], EVENTS_GROWTH_MAX))
    return found


def plot(sizes: Sequence[Size]) -> str:
    lines = {name: [(one.processes, one.cpu[name] / 600) for one in sizes] for name in sizes[0].cpu}
    return chart.lines("CPU while nothing happens, 100 rules", "processes", "% of one core", lines)
