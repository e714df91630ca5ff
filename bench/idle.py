#!/usr/bin/python3
"""What the daemon costs on a machine where nothing happens.

    bench/idle.py [--processes 200,2000,10000] [--turns 30] [--gate]

Idle processes, 100 rules, interval 1s.  Beside the daemon, in the same seconds, a C program reads
three files of every process once a second: its CPU time is the measure.  System calls are counted
by strace, in another stretch of the same run.  With --gate, exit status 1 if a bar is missed.

Root, cc and strace.  Machines are noisy: the ratio is of medians of three stretches.
"""

import argparse
import http.client
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

BENCH: Final = Path(__file__).resolve().parent
RULES: Final = 100
METRICS_PORT: Final = 19847
STRETCHES: Final = 3
CPU_RATIO_MAX: Final = 0.25
CALLS_MAX: Final = 0.2  # per process and turn
RESIDENT_MIB_MAX: Final = 32.0
MIB_KIB: Final = 1024
CPUCLOCK_SCHED: Final = 2  # include/linux/posix-timers.h


class Result(NamedTuple):
    processes: int
    reference_milliseconds: float  # CPU of one turn
    daemon_milliseconds: float
    calls: float  # per process and turn
    resident_mib: float
    proportional_mib: float
    ready_milliseconds: float  # CPU from start to the end of the first scan
    scrape_milliseconds: float  # CPU of one scrape, as Prometheus asks

    @property
    def ratio(self) -> float:
        return self.daemon_milliseconds / self.reference_milliseconds

    def faults(self) -> Iterator[str]:
        if self.ratio > CPU_RATIO_MAX:
            yield f"CPU is {self.ratio:.3f} of the reference, more than {CPU_RATIO_MAX}"
        if self.calls > CALLS_MAX:
            yield f"{self.calls:.3f} system calls per process and turn, more than {CALLS_MAX}"
        if self.processes <= 2500 and self.resident_mib > RESIDENT_MIB_MAX:
            yield f"{self.resident_mib:.1f} MiB resident, more than {RESIDENT_MIB_MAX}"


def main() -> int:
    parser = argparse.ArgumentParser(description="What the daemon costs on an idle machine.")
    parser.add_argument("--processes", default="200,2000,10000")
    parser.add_argument("--turns", type=int, default=30, help="of each stretch, a second each")
    parser.add_argument("--gate", action="store_true", help="exit status 1 if a bar is missed")
    arguments = parser.parse_args()
    faults = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="oomwatchd-bench-") as scratch:
        build(Path(scratch))
        for count in map(int, arguments.processes.split(",")):
            result = measured(Path(scratch), count, arguments.turns)
            print(row(result), flush=True)
            faults += [f"{result.processes} processes: {fault}" for fault in result.faults()]
    for fault in faults if arguments.gate else ():
        print(f"bar missed: {fault}", file=sys.stderr)
    return 1 if arguments.gate and faults else 0


HEAD: Final = """\
| processes | C, ms a turn | oomwatchd, ms a turn | ratio | calls per process and turn \
| RSS MiB | PSS MiB | start, CPU ms | scrape, CPU ms |
|---|---|---|---|---|---|---|---|---|"""


def row(result: Result) -> str:
    return (
        f"| {result.processes} | {result.reference_milliseconds:.2f} "
        f"| {result.daemon_milliseconds:.2f} | {result.ratio:.3f} | {result.calls:.3f} "
        f"| {result.resident_mib:.1f} | {result.proportional_mib:.1f} "
        f"| {result.ready_milliseconds:.0f} | {result.scrape_milliseconds:.2f} |"
    )


def build(scratch: Path) -> None:
    for name in ("reference", "sleepers"):
        source, program = BENCH / f"{name}.c", scratch / name
        subprocess.run(["cc", "-O2", "-static", "-o", program, source], check=True)
    rules = [
        f"  - {{name: r{number}, match: {{cmdline: '{pattern(number)}'}}, oom_score_adj: 100}}\n"
        for number in range(RULES)
    ]
    settings = f"interval: 1s\nmetrics: {{listen: 127.0.0.1:{METRICS_PORT}}}\nrules:\n"
    (scratch / "rules.yaml").write_text(settings + "".join(rules), encoding="ascii")


def pattern(number: int) -> str:
    """One rule in ten matches one process; the others none."""
    return f"/service{number}/bin/" if number % 10 == 0 else f"/bin/worker-{number:04d} "


@contextmanager
def sleepers(scratch: Path, count: int) -> Iterator[None]:
    reading_end, writing_end = os.pipe()
    command = [str(scratch / "sleepers"), str(count)]
    with (
        open(reading_end, "rb") as ready,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writing_end),
    ):
        os.close(writing_end)
        ready.readline()
        yield


@contextmanager
def daemon(scratch: Path) -> Iterator[int]:
    """Its pid, when it has made its first scan."""
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(scratch / "run")}
    command = ["/usr/bin/python3", "-m", "oomwatchd", "run", "-c", str(scratch / "rules.yaml")]
    process = subprocess.Popen(
        command, cwd=BENCH.parent, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        while not scraped():
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def scraped() -> bool:
    """Ask as Prometheus does; False while nobody answers, or the first turn is under way."""
    client = http.client.HTTPConnection("127.0.0.1", METRICS_PORT, timeout=10)
    try:
        client.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        return client.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        client.close()


def measured(scratch: Path, count: int, turns: int) -> Result:
    with sleepers(scratch, count), daemon(scratch) as pid:
        ready_milliseconds = cpu_milliseconds(pid)
        stretches = [beside(scratch, pid, turns) for _ in range(STRETCHES)]
        processes = sum(name.isdecimal() for name in os.listdir("/proc"))
        memory = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        return Result(
            processes=processes,
            reference_milliseconds=statistics.median(reference for reference, _ in stretches),
            daemon_milliseconds=statistics.median(ours for _, ours in stretches),
            calls=calls(scratch, pid, turns) / turns / processes,
            resident_mib=field(memory, "Rss") / MIB_KIB,
            proportional_mib=field(memory, "Pss") / MIB_KIB,
            ready_milliseconds=ready_milliseconds,
            scrape_milliseconds=scrape_milliseconds(pid),
        )


def beside(scratch: Path, pid: int, turns: int) -> tuple[float, float]:
    """CPU milliseconds of one turn: the reference's, and the daemon's in the same seconds."""
    before = cpu_milliseconds(pid)
    done = subprocess.run(
        [scratch / "reference", "1", str(turns)], check=True, capture_output=True, text=True
    )
    reference = statistics.mean(map(float, done.stdout.split())) / 1000
    return reference, (cpu_milliseconds(pid) - before) / turns


def cpu_milliseconds(pid: int) -> float:
    """Of all its threads, also those that have ended; clock_getcpuclockid(3)."""
    clock = (~pid << 3) | CPUCLOCK_SCHED
    return time.clock_gettime(clock) * 1000


def calls(scratch: Path, pid: int, turns: int) -> int:
    """System calls of all its threads in that many seconds."""
    counts = scratch / "calls"
    command = ["strace", "-f", "-c", "-o", str(counts), "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
        time.sleep(turns)
        strace.send_signal(signal.SIGINT)
    total = re.search(r"^100\.00 +\S+ +\S+ +(\d+)", counts.read_text(encoding="ascii"), re.M)
    if total is None:
        raise SystemExit("strace counted nothing")
    return int(total[1])


def scrape_milliseconds(pid: int, times: int = 20) -> float:
    """CPU of one scrape, each in a turn of its own, less what the turn costs."""
    spent = []
    for _ in range(times):
        time.sleep(1.0)
        before = cpu_milliseconds(pid)
        scraped()
        spent.append(cpu_milliseconds(pid) - before)
    return statistics.median(spent)


def field(rollup: str, name: str) -> int:
    found = re.search(rf"^{name}: +(\d+) kB", rollup, re.M)
    if found is None:
        raise SystemExit(f"no {name} in smaps_rollup")
    return int(found[1])


if __name__ == "__main__":
    sys.exit(main())
