"""Memory runs short between two looks that are an hour apart: the kernel tells of it."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .machine import Machine
from .service import (
    GUEST,
    WORK,
    alive,
    configure,
    features,
    has_adj,
    log,
    main_pid,
    metrics,
    start,
    stop,
    sync_journal,
    unit_property,
)

pytestmark = pytest.mark.vm

vm_log = logging.getLogger("vm")

RULES = """\
interval: 1h
events: off
pressure: {{warning: {{some_avg10: {some}}}, critical: {{full_avg10: {full}}}, clear_after: 2s}}
rules:
  - name: hog
    match: {{script: hog.py, user: root}}
    oom_score_adj: 300
"""
SAVERS = """\
interval: 1s
pressure: {warning: {some_avg10: 10}, critical: {some_avg10: 20}, clear_after: 2s}
on_pressure: {critical: [/bin/sh, -c, "cat >/tmp/fresh; mv /tmp/fresh /tmp/told"]}
rules:
  - name: savers
    match: {script: saver.py, user: user}
    oom_score_adj: 300
    on_critical: {signal: SIGUSR1}
"""
SAVED = "/home/user/saved"
LEVEL = "oomwatchd_memory_pressure_level"
SCANS = "oomwatchd_scan_duration_seconds_count"
SOME = 'oomwatchd_memory_pressure_ratio{kind="some",window="10s"}'
REACHED = "/run/pressure-reached"
NOTICED_SECONDS_MAX = 2.0  # after the kernel's average has reached the level; a heartbeat is 5 s
TRIES = 3


@contextmanager
def short_of_memory(machine: Machine) -> Iterator[None]:
    """A unit that is allowed less memory than it wants, and is made to wait for more."""
    hog = ("/usr/bin/python3", f"{WORK}/hog.py")
    start(machine, "short", *hog, properties=("MemoryHigh=30M", "MemorySwapMax=0"))
    yield
    stop(machine, "short")


@contextmanager
def watched(machine: Machine) -> Iterator[None]:
    """A shell notes when the kernel's average, which has to be low now, reaches the level."""
    machine.run("rm", "-f", REACHED)
    watch = (
        "until awk '/^some/ {exit !(substr($2, 7) + 0 >= 20)}' /proc/pressure/memory; do "
        f"sleep 0.1; done; cut -d' ' -f1 /proc/uptime >{REACHED}"
    )
    start(machine, "watch", "/bin/sh", "-c", watch, properties=("RemainAfterExit=yes",))
    yield
    stop(machine, "watch")


def level(machine: Machine) -> float | None:
    return metrics(machine).get(LEVEL)


def levels_logged_seconds(machine: Machine) -> list[float]:
    """When the daemon has said that memory is short, in seconds since boot."""
    sync_journal(machine)
    journal = machine.run(
        "journalctl", "-b", "--no-pager", "-o", "short-monotonic", "-u", "oomwatchd"
    )
    times = re.findall(r"(?m)^\[ *([\d.]+)\] .*memory pressure: ok -> ", journal)
    return [float(time) for time in times]


def looks_at_nothing(machine: Machine) -> None:
    """Wait until the daemon turns only to feed systemd's watchdog."""

    def quiet() -> bool:
        before = metrics(machine)[SCANS]
        fed(machine, 2)
        return metrics(machine)[SCANS] == before

    machine.wait("nothing is looked at", quiet)


def fed(machine: Machine, count: int) -> None:
    times = set[str]()

    def enough() -> bool:
        times.add(unit_property(machine, "oomwatchd", "WatchdogTimestampMonotonic"))
        return len(times) > count

    machine.wait(f"the watchdog is fed {count} times", enough)


def test_its_memory_is_locked_without_a_capability_and_without_a_limit(protected: Machine) -> None:
    status = protected.get(f"/proc/{main_pid(protected)}/status") or ""
    limits = protected.get(f"/proc/{main_pid(protected)}/limits") or ""
    kib = {name: int(size) for name, size in re.findall(r"(?m)^(Vm\w+):\s+(\d+) kB", status)}
    capabilities = re.search(r"(?m)^CapBnd:\s+(\w+)", status)
    vm_log.info("locked %d KiB of address space, resident %d KiB", kib["VmLck"], kib["VmRSS"])

    assert kib["VmLck"] > kib["VmRSS"] // 2
    assert re.search(r"(?m)^Max locked memory +unlimited +unlimited", limits)
    assert capabilities is not None
    assert not int(capabilities[1], 16) >> 14 & 1  # CAP_IPC_LOCK
    assert [line for line in log(protected) if "not locked" in line] == []


def test_while_memory_is_not_short_nothing_is_looked_at(protected: Machine) -> None:
    configure(protected, RULES.format(some=20, full=10))

    assert features(protected)["psi_trigger"] == 1.0
    assert level(protected) == 0.0
    looks_at_nothing(protected)


def late_seconds(machine: Machine) -> float:
    """How long after the kernel's average had reached the level the daemon said so."""
    before = len(levels_logged_seconds(machine))
    with watched(machine), short_of_memory(machine):
        machine.wait("it is noticed", lambda: level(machine))
        reached = machine.wait("the kernel's average reached it", lambda: machine.get(REACHED))
    late = levels_logged_seconds(machine)[before] - float(reached)
    vm_log.info("the level was noticed %.1f s after it had been reached", late)
    return late


def is_over(machine: Machine) -> None:
    machine.wait("it is over", lambda: level(machine) == 0.0, 120.0)


def test_a_level_is_noticed_when_it_is_reached(protected: Machine) -> None:
    """A machine that has to wait for processors makes it later, never sooner."""
    for _ in range(TRIES - 1):
        if late_seconds(protected) < NOTICED_SECONDS_MAX:
            return
        is_over(protected)

    assert late_seconds(protected) < NOTICED_SECONDS_MAX


def test_its_end_is_noticed_too_and_then_all_is_quiet_again(protected: Machine) -> None:
    is_over(protected)
    looks_at_nothing(protected)


def test_below_every_level_the_kernel_s_word_alone_makes_the_daemon_look(
    protected: Machine,
) -> None:
    with short_of_memory(protected):
        configure(protected, RULES.format(some=100, full=100))
        before = metrics(protected)[SCANS]
        protected.wait("it has looked five times", lambda: metrics(protected)[SCANS] >= before + 5)
        scraped = metrics(protected)

    assert scraped[LEVEL] == 0.0
    assert scraped[SOME] > 0.05


def test_when_it_is_critical_a_user_s_process_is_told_and_the_hook_is_run(
    protected: Machine,
) -> None:
    protected.put(f"{WORK}/saver.py", (GUEST / "saver.py").read_bytes(), 0o755)
    configure(protected, SAVERS)
    is_over(protected)  # by these levels; else what the last scenario has left would be critical
    saver = ("/usr/bin/python3", f"{WORK}/saver.py", SAVED)
    pid = start(protected, "saver", *saver, properties=("User=user",))
    has_adj(protected, pid, 300)
    protected.wait("it would save its work", lambda: protected.get(SAVED) is not None)
    with short_of_memory(protected):
        protected.wait("it has saved its work", lambda: protected.get(SAVED))
        told = f"/proc/{main_pid(protected)}/root/tmp/told"
        hooked = json.loads(protected.wait("the hook is run", lambda: protected.get(told)))
    is_over(protected)

    assert (protected.get(SAVED), alive(protected, pid)) == ("saved\n", True)
    assert hooked["level"] == "critical"
    assert hooked["pressure"]["some_avg10"] >= 20
    stop(protected, "saver")
