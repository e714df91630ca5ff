"""Thousands of turns, among processes that come and go: do memory and descriptors stay flat?"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench import contenders, meters
from bench.contenders import Subject
from bench.programs import OURS, launched, launching, sleepers
from bench.report import Bar, Section, number, table

SLEEPERS: Final = 200
TRACKED: Final = 10
INTERVAL_SECONDS: Final = 0.1
SAMPLES: Final = 200
RATE: Final = 5.0  # matching programs a second; each lives a second
LIVES_MILLISECONDS: Final = 1000
GROWTH_KIB_MAX: Final = 256.0
SCANS: Final = "oomwatchd_scan_duration_seconds_count"
HEAD: Final = ["turns", "RSS, MiB", "descriptors", "processes under rules"]
PROCESSES: Final = "oomwatchd_rule_processes"
DESCRIPTORS_PER_PROCESS: Final = 3  # it is held by, for as long as it lives


class Sample(NamedTuple):
    turns: float
    resident_kib: float
    descriptors: float
    processes: float  # under rules; there are more while the machine is busy with something else

    @property
    def own_descriptors(self) -> float:
        return self.descriptors - DESCRIPTORS_PER_PROCESS * self.processes


def measure(scratch: Path, turns: int) -> Section:
    """The launcher is stopped when the turns are done, so it is given more than enough time."""
    settings = {"interval": f"{INTERVAL_SECONDS * 1000:.0f}ms"}
    with (
        sleepers(scratch, SLEEPERS, TRACKED),
        contenders.oomwatchd(scratch, "soaked", settings) as daemon,
    ):
        began = time.monotonic()
        launcher = launching(
            scratch,
            OURS,
            rate=RATE,
            seconds=turns * INTERVAL_SECONDS,
            lives_milliseconds=LIVES_MILLISECONDS,
        )
        samples = sampled(daemon, turns)
        seconds = time.monotonic() - began
        programs = launched(launcher).started
    return Section("soak", text(samples, seconds, programs), bars(samples))


def sampled(daemon: Subject, turns: int) -> list[Sample]:
    """At even distances, until so many turns are done."""
    samples: list[Sample] = []
    while not samples or samples[-1].turns < turns:
        time.sleep(turns * INTERVAL_SECONDS / SAMPLES)
        samples.append(sample(daemon))
    return samples


def sample(daemon: Subject) -> Sample:
    if daemon.port is None:
        raise ValueError(daemon.name)
    scans = contenders.metric(daemon.port, SCANS)
    resident_kib = meters.memory(daemon.pid).resident_mib * meters.MIB_KIB
    descriptors = meters.descriptors(daemon.pid)
    return Sample(scans, resident_kib, descriptors, contenders.metric(daemon.port, PROCESSES))


def quarters(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The second and the last: in the first, a young process still fills its caches."""
    quarter = max(len(samples) // 4, 1)
    return samples[quarter : 2 * quarter] or samples, samples[-quarter:]


def growth(samples: Sequence[Sample], field: Callable[[Sample], float]) -> float:
    """Of the median."""
    second, last = quarters(samples)
    return statistics.median(map(field, last)) - statistics.median(map(field, second))


def bars(samples: Sequence[Sample]) -> list[Bar]:
    resident_kib = growth(samples, lambda one: one.resident_kib)
    descriptors = growth(samples, lambda one: one.own_descriptors)
    return [
        Bar("growth of resident memory", resident_kib, GROWTH_KIB_MAX, "KiB"),
        Bar("growth of the number of descriptors, but for those of processes", descriptors, 0),
    ]


def text(samples: Sequence[Sample], seconds: float, programs: int) -> str:
    every = max(len(samples) // 10, 1)
    rows = [
        [
            f"{one.turns:,.0f}",
            number(one.resident_kib / meters.MIB_KIB),
            number(one.descriptors),
            number(one.processes),
        ]
        for one in [*samples[:-1:every], samples[-1]]
    ]
    return (
        f"A look every {INTERVAL_SECONDS * 1000:.0f} ms for {seconds / 60:.0f} minutes, "
        f"{programs:,} matching programs that came and went. Growth is from the second quarter "
        f"to the last, median to median; each process under a rule is held by "
        f"{DESCRIPTORS_PER_PROCESS} descriptors.\n\n{table(HEAD, rows)}"
    )
