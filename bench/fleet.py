"""What a fleet costs its Prometheus: many machines, each with its own labels, all of them one.

    python3 -m bench.fleet --machines 100,500 --rules 10

One server of ours stands for all machines: it is scraped once for each, under another name.
"""

import argparse
import contextlib
import http.client
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from bench import meters
from oomwatchd.auditing import KILLERS
from oomwatchd.model import Address, Match, Pressure, Rule, RuleTotals, Snapshot
from oomwatchd.server import Reporter

INTERVAL_SECONDS: Final = 60
WARM_UP_INTERVALS: Final = 2
INTERVALS: Final = 2  # that are measured
MIB: Final = 1 << 20


class Measured(NamedTuple):
    machines: int
    series: int
    resident_mib: float
    cpu_percent: float


def snapshot(rules: int) -> Snapshot:
    """Of a machine on which every rule protects a process."""
    names = [f"rule-{number}" for number in range(rules)]
    return Snapshot(
        version="1.0.0",
        started_unix_seconds=time.time(),
        turn_seconds=time.monotonic(),
        rules=tuple(Rule(name, Match(name=(name,)), -900) for name in names),
        totals={name: RuleTotals(1, MIB, 0) for name in names},
        exposed={(name, killer): 0 for name in names for killer in KILLERS},
        pressure=Pressure(0, 0, 0, 0, 0, 0, 0, 0),
        features=dict.fromkeys(("psi", "kernel_log", "cgroup2", "systemd", "lower_adj"), True),
        scan_buckets=tuple((0.001 * number, 1) for number in range(1, 12)),
        scans=1,
    )


@contextlib.contextmanager
def prometheus(directory: Path, port: int, machines: int) -> Iterator[tuple[int, int]]:
    """Its pid and port."""
    own_port = free_port()
    target = f"127.0.0.1:{port}"
    configuration = {
        "global": {"scrape_interval": f"{INTERVAL_SECONDS}s"},
        "scrape_configs": [{"job_name": "oomwatchd", "static_configs": [
            {"targets": [target], "labels": {"instance": f"machine-{number:05}:9847"}}
            for number in range(machines)
        ]}],
    }  # fmt: skip
    (directory / "prometheus.yml").write_text(json.dumps(configuration), encoding="utf-8")
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{own_port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:
        try:
            yield process.pid, own_port
        finally:
            process.terminate()


def free_port() -> int:
    with contextlib.closing(Reporter(Address("127.0.0.1", 0), None, stale_seconds=60.0)) as one:
        if one.address is None:
            raise RuntimeError("it does not listen")
        return one.address.port


def series_in_memory(port: int) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(client):
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode()
    found = re.search(r"^prometheus_tsdb_head_series (\S+)", text, re.MULTILINE)
    if found is None:
        raise ValueError("no such metric")
    return int(float(found[1]))


def resident_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise ProcessLookupError(pid)
    return int(found[1]) / 1024


def measured(machines: int, rules: int) -> Measured:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        reporter = Reporter(Address("127.0.0.1", 0), None, stale_seconds=86400.0)
        stack.enter_context(contextlib.closing(reporter))
        reporter.publish(snapshot(rules))
        if reporter.address is None:
            raise RuntimeError("it does not listen")
        pid, port = stack.enter_context(prometheus(directory, reporter.address.port, machines))
        time.sleep(INTERVAL_SECONDS * WARM_UP_INTERVALS)
        before = meters.cpu_milliseconds(pid)
        time.sleep(INTERVAL_SECONDS * INTERVALS)
        spent = meters.cpu_milliseconds(pid) - before
        percent = spent / (10 * INTERVAL_SECONDS * INTERVALS)
        return Measured(machines, series_in_memory(port), resident_mib(pid), percent)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m bench.fleet", description=__doc__)
    parser.add_argument("--machines", default="100,500", metavar="N,N")
    parser.add_argument("--rules", type=int, default=10, metavar="N")
    arguments = parser.parse_args()
    print("| machines | series | RSS of Prometheus, MiB | CPU, % of one core |\n|---|---|---|---|")
    for machines in map(int, arguments.machines.split(",")):
        one = measured(machines, arguments.rules)
        print(f"| {one.machines:,} | {one.series:,} | {one.resident_mib:,.0f} "
              f"| {one.cpu_percent:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
