"""From exec to the value, what that costs, and whether anybody is missed: quiet, and in storms."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from bench import chart, contenders, meters
from bench.contenders import EVENTS, LISTENER, POLLING, Subject
from bench.programs import (
    FORK,
    LOOK_ONCE,
    NOBODYS,
    OURS,
    THEIRS,
    Launched,
    launched,
    launching,
    sleepers,
)
from bench.report import Bar, Section, milliseconds, number, table

TRACKED: Final = 10
STORM_RATE: Final = 500.0  # programs a second
MEASURED_RATE: Final = 10.0  # beside the storm
MEASURED_LIVES_MILLISECONDS: Final = 5000
MEASURED_EVERY_MICROSECONDS: Final = 50  # they must not keep a storm from the processors
MATCHED_LIVES_MILLISECONDS: Final = 300
SETTLE_SECONDS: Final = 12.0
LOST: Final = "oomwatchd_process_events_lost_total"

MEDIAN_MILLISECONDS_MAX: Final = 2.0
PERCENTILE_99_MILLISECONDS_MAX: Final = 10.0
STORM_CPU_PERCENT_MAX: Final = 10.0


class Storm(NamedTuple):
    what: str
    program: str = ""  # none: quiet
    rate: float = 0.0  # 0: as many as one core can
    lives_milliseconds: int = 0


QUIET: Final = Storm("quiet")
UNMATCHED: Final = Storm("500 execs a second, no rule matches", NOBODYS, STORM_RATE)
MATCHED: Final = Storm(
    "500 execs a second, a rule matches", OURS, STORM_RATE, MATCHED_LIVES_MILLISECONDS
)
STORMS: Final = (
    UNMATCHED,
    MATCHED,
    Storm("execs, as many as one core can", NOBODYS),
    Storm("forks, as many as one core can", FORK),
)


class Run(NamedTuple):
    """What one daemon did in one storm; the C listener ran beside it."""

    storm: Storm
    daemon: str
    background: Launched | None
    ours: Launched
    theirs: Launched
    cpu_percent: dict[str, float]  # of one core, by name
    lost: float  # events

    @property
    def started(self) -> int:
        beside = self.background.started if self.background else 0
        return beside + self.ours.started + self.theirs.started

    def cpu_of_one(self, name: str) -> float:
        """Microseconds for each program that was started."""
        return self.cpu_percent[name] / 100 * self.ours.seconds * 1e6 / self.started

    def share_of_exec(self, name: str) -> float:
        """That, to what starting, running and ending the program itself takes."""
        return self.cpu_of_one(name) / (self.background or self.ours).cpu_of_one

    @property
    def missed(self) -> int:
        matched = self.background.missed if self.background and self.storm.program == OURS else 0
        return matched + self.ours.missed


def measure(scratch: Path, count: int, seconds: float) -> Section:
    """Polling gets half the time: its delays are long, and soon known."""
    with sleepers(scratch, count, TRACKED):
        processes = meters.processes()
        runs = [
            *daemon_runs(scratch, EVENTS, (QUIET, *STORMS), seconds),
            *daemon_runs(scratch, POLLING, (QUIET, UNMATCHED, MATCHED), seconds / 2),
        ]
    return Section("execs", text(runs, processes), bars(runs), [("latency.svg", plot(runs))])


def daemon_runs(scratch: Path, name: str, storms: Sequence[Storm], seconds: float) -> Iterator[Run]:
    listener = contenders.references(scratch)[LISTENER]
    with ExitStack() as stack:
        subjects = [
            stack.enter_context(start()) for start in (contenders.ours(scratch)[name], listener)
        ]
        contenders.scraping([])(SETTLE_SECONDS)
        for storm in storms:
            yield run(scratch, storm, subjects, seconds)


def run(scratch: Path, storm: Storm, subjects: Sequence[Subject], seconds: float) -> Run:
    daemon, _ = subjects
    every = 0 if storm is QUIET else MEASURED_EVERY_MICROSECONDS
    lost = lost_events(daemon)
    background = storm.program and launching(
        scratch,
        storm.program,
        rate=storm.rate,
        seconds=seconds,
        lives_milliseconds=storm.lives_milliseconds,
        every_microseconds=LOOK_ONCE,
    )
    measured = [
        launching(
            scratch,
            program,
            rate=MEASURED_RATE,
            seconds=seconds,
            lives_milliseconds=MEASURED_LIVES_MILLISECONDS,
            every_microseconds=every,
        )
        for program in (OURS, THEIRS)
    ]
    pids = {subject.name: subject.pid for subject in subjects}
    cpu = meters.cpu_beside(pids, seconds)
    ours, theirs = map(launched, measured)
    return Run(
        storm=storm,
        daemon=daemon.name,
        background=launched(background) if background else None,
        ours=ours,
        theirs=theirs,
        cpu_percent={name: used / 600 for name, used in cpu.items()},
        lost=lost_events(daemon) - lost,
    )


def lost_events(daemon: Subject) -> float:
    return contenders.metric(daemon.port, LOST) if daemon.port else 0.0


# -- what is said about it


def text(runs: Sequence[Run], processes: int) -> str:
    """Storm by storm, the C program first."""
    shown = [
        (run, name)
        for storm in (QUIET, *STORMS)
        for run in runs
        if run.storm is storm
        for name in ([LISTENER] if run.daemon == EVENTS else []) + [run.daemon]
    ]
    starts = [start for run in runs if run.storm is QUIET for start in run.ours.starts]
    return "\n".join(
        [
            f"{processes:,} processes. From just before the exec until the program itself reads "
            f"its value; of that, {milliseconds(meters.spread(starts).median)} ms are the exec "
            "(median, quiet). In brackets, the ratio to the C program that listens, in the same "
            "seconds.\n",
            table(DELAY_HEAD, [delay_row(run, name) for run, name in shown]),
            "What that costs. Missed: matching programs that ended without their value; those of "
            f"the storm live {MATCHED_LIVES_MILLISECONDS} ms, the measured ones 5 s.\n",
            table(COST_HEAD, [cost_row(run, name) for run, name in shown if run.background]),
        ]
    )


DELAY_HEAD: Final = ("while", "program", "measured", "median, ms", "99th percentile, ms", "max, ms")
COST_HEAD: Final = (
    "storm", "program", "programs a second", "CPU, % of one core", "CPU of one exec, µs",
    "to what the exec costs itself", "missed", "events lost",
)  # fmt: skip


def delay_row(run: Run, name: str) -> list[str]:
    found = run.ours if name == run.daemon else run.theirs
    spread, floor = meters.spread(found.delays), meters.spread(run.theirs.delays)
    ratio = "" if name == LISTENER else f" ({number(spread.median / floor.median)})"
    return [
        run.storm.what, name, f"{found.started:,}", milliseconds(spread.median) + ratio,
        milliseconds(spread.percentile_99), milliseconds(spread.longest),
    ]  # fmt: skip


def cost_row(run: Run, name: str) -> list[str]:
    is_daemon = name == run.daemon
    return [
        run.storm.what, name, number(run.started / run.ours.seconds),
        number(run.cpu_percent[name]), number(run.cpu_of_one(name)),
        number(run.share_of_exec(name)),
        f"{run.missed:,}" if is_daemon else f"{run.theirs.missed:,}",
        f"{run.lost:,.0f}" if is_daemon else "",
    ]  # fmt: skip


def bars(runs: Sequence[Run]) -> list[Bar]:
    found = []
    for run in (run for run in runs if run.daemon == EVENTS):
        spread, what = meters.spread(run.ours.delays), run.storm.what
        if run.storm is QUIET:
            found += [
                Bar(f"exec to value, median, {what}", spread.median / 1000,
                    MEDIAN_MILLISECONDS_MAX, "ms"),
                Bar(f"exec to value, 99th percentile, {what}", spread.percentile_99 / 1000,
                    PERCENTILE_99_MILLISECONDS_MAX, "ms"),
            ]  # fmt: skip
        else:
            cpu = run.cpu_percent[EVENTS]
            found.append(Bar(f"CPU, {what}", cpu, STORM_CPU_PERCENT_MAX, "% of one core"))
        if run.storm in (QUIET, MATCHED):
            found.append(Bar(f"missed, {what}, of {matching(run):,}", run.missed, 0))
    return found


def matching(run: Run) -> int:
    beside = run.background.started if run.background and run.storm.program == OURS else 0
    return beside + run.ours.started


def plot(runs: Sequence[Run]) -> str:
    """Polling's delays are the same in a storm."""
    drawn = {f"events: {run.storm.what}": run.ours for run in runs if run.daemon == EVENTS}
    for run in (run for run in runs if run.storm is QUIET):
        drawn["polling: quiet" if run.daemon == POLLING else "C, listens: quiet"] = (
            run.ours if run.daemon == POLLING else run.theirs
        )
    return chart.lines(
        "From exec to the value: the longest delays",
        "of so many programs, one waits at least that long",
        "milliseconds",
        {name: longest(found) for name, found in drawn.items()},
    )


def longest(found: Launched) -> list[tuple[float, float]]:
    """How rare each delay is: of how many programs one waits at least so many milliseconds."""
    ordered = sorted(found.delays)
    count = len(ordered)
    step = max(count // 50, 1)
    places = {*range(0, count, step), *range(max(count - 10, 0), count)}
    return [(count / (count - place), ordered[place] / 1000) for place in sorted(places)]
