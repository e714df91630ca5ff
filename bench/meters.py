"""What a process uses, as the kernel counts it."""

import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from typing import Final, NamedTuple

CPUCLOCK_SCHED: Final = 2  # include/linux/posix-timers.h
MIB_KIB: Final = 1024
TRACED: Final = re.compile(r"\d+ +(\d+\.\d+) (.+)")  # thread, seconds, what it did
NO_CALL: Final = ("<...", "---", "+++")  # the end of a call, a signal, the end of a thread


class Memory(NamedTuple):
    resident_mib: float
    proportional_mib: float


def cpu_milliseconds(pid: int) -> float:
    """Of all its threads, also those that have ended; clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED) * 1000


def first_thread_milliseconds(pid: int) -> float:
    """CPU of the thread that the program began with; Documentation/scheduler/sched-stats.rst."""
    schedstat = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text(encoding="ascii")
    return int(schedstat.split()[0]) / 1e6


def cpu_beside(
    pids: Mapping[str, int], seconds: float, meanwhile: Callable[[float], None] = time.sleep
) -> dict[str, float]:
    """CPU milliseconds a minute of each, in the same seconds."""
    began = time.monotonic()
    before = {name: cpu_milliseconds(pid) for name, pid in pids.items()}
    meanwhile(seconds)
    minutes = (time.monotonic() - began) / 60
    return {name: (cpu_milliseconds(pid) - before[name]) / minutes for name, pid in pids.items()}


def memory(pid: int) -> Memory:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB", rollup, re.MULTILINE))
    return Memory(int(sizes["Rss"]) / MIB_KIB, int(sizes["Pss"]) / MIB_KIB)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def processes() -> int:
    return sum(map(str.isdecimal, os.listdir("/proc")))


def forks() -> int:
    """Since boot, threads included; proc(5)."""
    stat = Path("/proc/stat").read_text(encoding="ascii")
    return int(stat.partition("\nprocesses ")[2].split()[0])


@contextmanager
def tracing_calls(pid: int, trace: Path) -> Iterator[None]:
    """Have strace write the system calls of all its threads, a line each, into *trace*."""
    command = ["strace", "-f", "-ttt", "-s", "0", "-o", str(trace), "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        first = strace.stderr.readline() if strace.stderr else ""
        if "attached" not in first:
            raise SystemExit(first.strip() or "strace: failed")
        yield
        strace.send_signal(signal.SIGINT)
        strace.communicate()


def calls_beside(
    pids: Mapping[str, int],
    scratch: Path,
    seconds: float,
    meanwhile: Callable[[float], None] = time.sleep,
    settle_seconds: float = 0.0,
) -> dict[str, float]:
    """System calls a second of each; tracing makes them slow, but not more.

    Those who look at processes look at strace, too, when it is new: *settle_seconds* are for that.
    """
    traces = {name: scratch / f"calls-{pid}" for name, pid in pids.items()}
    with ExitStack() as stack:
        for name, pid in pids.items():
            stack.enter_context(tracing_calls(pid, traces[name]))
        meanwhile(settle_seconds)
        since = time.time()
        meanwhile(seconds)
    return {
        name: calls_counted(trace.read_text(encoding="ascii"), since) / seconds
        for name, trace in traces.items()
    }


def calls_counted(trace: str, since: float) -> int:
    """The calls begun at *since* (seconds since 1970) or later, in what `strace -f -ttt` wrote."""
    count = 0
    for line in trace.splitlines():
        parts = TRACED.fullmatch(line)
        if parts is None:
            raise SystemExit(f"strace wrote: {line}")
        began, what = parts.groups()
        count += float(began) >= since and not what.startswith(NO_CALL)
    return count


class Spread(NamedTuple):
    """Of delays in microseconds."""

    median: float
    percentile_99: float
    longest: float


def spread(delays: Sequence[float]) -> Spread:
    """The 99th percentile is the smallest delay that at least 99 % of them do not exceed."""
    if not delays:
        return Spread(float("inf"), float("inf"), float("inf"))
    ordered = sorted(delays)
    return Spread(statistics.median(ordered), ordered[ceil(0.99 * len(ordered)) - 1], ordered[-1])
