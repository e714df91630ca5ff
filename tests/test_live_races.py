"""Processes that exec, rename themselves, die and leave their pid to others at the worst moment:
thousands of times, and never does the wrong process keep a value of ours.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from live import (
    PATIENCE_SECONDS,
    Herd,
    Service,
    adj,
    comm,
    herd,
    needs_root,
    own_value,
    rule,
    service,
    until,
)

from oomwatchd.kernel.adjust import adjust, read_adj
from oomwatchd.kernel.proc import Look, ProcFs

pytestmark = needs_root

VALUE, BEFORE = 311, 57
SLACK_SECONDS: Final = 2.0  # for a machine that has other things to do
LAST_PID: Final = Path("/proc/sys/kernel/ns_last_pid")


@pytest.fixture
def animals() -> Iterator[Herd]:
    with herd() as processes:
        yield processes


@pytest.fixture
def daemon() -> Iterator[Service]:
    with service() as one:
        yield one


@pytest.fixture
def machine() -> Iterator[ProcFs]:
    """The real /proc."""
    reader = ProcFs()
    yield reader
    reader.close()


def looked_at(machine: ProcFs, pid: int) -> Look:
    look = machine.look(pid)
    assert look is not None
    return look


def wait_for_line(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline()


# -- the write itself ------------------------------------------------------------------------------

# Two scripts that take each other's place for ever.
HITHER = "exec /bin/sh ./live-yon.sh\n"
YON = "exec /bin/sh ./live-hither.sh\n"

RENAMING = """
import os
os.write(1, b"ready\\n")
while True:
    for name in (b"live-one", b"live-two"):
        with open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(name)
"""


@contextlib.contextmanager
def side_by_side(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Run on one processor while *child* has another; or else the two would take turns."""
    processors = os.sched_getaffinity(0)
    if len(processors) < 2:
        pytest.skip("a race needs two processors")
    ours, others = sorted(processors)[:2]
    os.sched_setaffinity(child.pid, {others})
    os.sched_setaffinity(0, {ours})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


def race(machine: ProcFs, child: subprocess.Popen[bytes]) -> Counter[str]:
    """Write thousands of times; no write that has hit the wrong program may last.

    How often it does so is up to the machine, so it goes on until that has happened often.
    """
    results: Counter[str] = Counter()
    deadline = time.monotonic() + PATIENCE_SECONDS
    with side_by_side(child):
        while results.total() < 4000 or min(results["applied"], results["gone"]) < 200:
            assert time.monotonic() < deadline, f"too seldom: {results}"
            Path(f"/proc/{child.pid}/oom_score_adj").write_text(str(BEFORE), encoding="ascii")
            look = looked_at(machine, child.pid)
            result = adjust(look, BEFORE, VALUE).result
            value = read_adj(look.directory)
            look.close()
            results[result] += 1

            assert value == (VALUE if result == "applied" else BEFORE)
    return results


def test_a_write_that_hits_the_next_program_is_undone(machine: ProcFs, animals: Herd) -> None:
    animals.script("live-hither.sh", HITHER)
    animals.script("live-yon.sh", YON)
    child = animals.start("/bin/sh", "./live-hither.sh")

    results = race(machine, child)

    assert results.keys() == {"applied", "gone"}


def test_a_write_that_hits_the_next_name_is_undone(machine: ProcFs, animals: Herd) -> None:
    animals.script("live-renaming.py", RENAMING)
    child = animals.ready(sys.executable, "-SI", "live-renaming.py")

    results = race(machine, child)

    assert results.keys() == {"applied", "gone"}


def test_a_process_that_has_died_is_gone_and_who_got_its_pid_is_left_alone(
    machine: ProcFs,
) -> None:
    if not os.access(LAST_PID, os.W_OK):
        pytest.skip("needs ns_last_pid")
    reused = 0
    for _ in range(1500):
        first = os.posix_spawn("/bin/sleep", ["live-sleep", "60"], {})
        look = looked_at(machine, first)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        LAST_PID.write_text(str(first - 1), encoding="ascii")
        second = os.posix_spawn("/bin/sleep", ["live-sleep", "60"], {})
        reused += second == first

        result = adjust(look, BEFORE, VALUE).result
        value = adj(second)
        look.close()
        os.kill(second, signal.SIGKILL)
        os.waitpid(second, 0)

        assert (result, value) == ("gone", own_value())

    assert reused > 1000  # not all, as others on this machine start programs, too


def test_a_process_that_dies_anywhere_between_look_and_write_is_gone(machine: ProcFs) -> None:
    results: Counter[str] = Counter()
    for _ in range(1000):
        child = os.posix_spawn("/bin/true", ["live-true"], {})
        look = looked_at(machine, child)
        results[adjust(look, own_value(), VALUE).result] += 1
        look.close()
        os.waitpid(child, 0)

    assert results["gone"] > 10
    assert results.keys() <= {"applied", "gone"}


# -- the daemon ------------------------------------------------------------------------------------

# Exec to and fro between a program that matches and one that does not, then settle as another.
MATCHING = 'exec /bin/sh ./live-other.sh "$1"\n'
OTHER = """
[ "$1" -gt 0 ] || exec /bin/sh ./live-settled.sh
exec /bin/sh ./live-matching.sh $(($1 - 1))
"""
SETTLED = "echo $$\nread -r line\n"


def standings(daemon: Service) -> set[str]:
    return {entry["standing"] for entry in daemon.claims().values()}


def test_programs_that_exec_around_the_daemons_writes_never_keep_its_value(
    animals: Herd, daemon: Service
) -> None:
    animals.script("live-matching.sh", MATCHING)
    animals.script("live-other.sh", OTHER)
    animals.script("live-settled.sh", SETTLED)
    daemon.configure(rule("racing", {"script": "live-matching.sh"}, VALUE), interval="100ms")
    daemon.start()

    def times(outcome: str) -> float:
        return daemon.metric("oomwatchd_adjustments_total", rule="racing", outcome=outcome)

    children: list[subprocess.Popen[bytes]] = []
    waves = 0
    while waves < 8 or (min(times("applied"), times("gone")) <= 10 and waves < 80):
        children += [  # ten processes that exec some hundred times
            animals.start("/bin/sh", "./live-matching.sh", str(40 + waves + 2 * each), value=BEFORE)
            for each in range(10)
        ]
        for child in children[-10:]:
            wait_for_line(child)
        waves += 1

    def all_as_before() -> bool:
        return all(adj(child.pid) == BEFORE for child in children)

    until(all_as_before, "all values to be back")
    daemon.turns(10)

    assert all_as_before()
    assert standings(daemon) <= {"released"}
    assert times("applied") > 10
    assert times("gone") > 10


RENAMED = """
import os, sys
for turn in range(400):
    for name in (b"live-matching", b"live-other"):
        with open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(name)
        os.sched_yield()
os.write(1, b"settled\\n")
sys.stdin.read()
"""


def test_names_that_change_around_the_daemons_writes_never_keep_its_value(
    animals: Herd, daemon: Service
) -> None:
    animals.script("live-renamed.py", RENAMED)
    daemon.configure(rule("racing", {"name": "live-matching"}, VALUE), interval="100ms")
    daemon.start()

    command = [sys.executable, "-SI", "live-renamed.py"]
    children = []
    for _ in range(8):  # waves, until the daemon has been in among them often enough
        children += [animals.start(*command, value=BEFORE) for _ in range(60)]
        for child in children[-60:]:
            wait_for_line(child)
        if daemon.metric("oomwatchd_adjustments_total", rule="racing") > 10:
            break

    until(lambda: all(adj(child.pid) == BEFORE for child in children), "all values to be back")
    daemon.turns(5)

    assert all(adj(child.pid) == BEFORE for child in children)
    assert standings(daemon) <= {"released"}
    assert daemon.metric("oomwatchd_adjustments_total", rule="racing") > 10


def test_a_thousand_processes_that_die_at_once_leave_nothing_behind(
    animals: Herd, daemon: Service
) -> None:
    animals.script("live-matching.sh", "[ $1 = 0 ] || sleep 0.0$1\n")
    daemon.configure(rule("racing", {"script": "live-matching.sh"}, VALUE), interval="100ms")
    daemon.start()

    for _ in range(50):
        children = [
            os.posix_spawn(
                "/bin/sh", ["sh", f"{animals.directory}/live-matching.sh", str(each)], {}
            )
            for each in range(20)
        ]
        for child in children:
            os.waitpid(child, 0)
    daemon.turns(2)

    assert daemon.claims() == {}
    assert daemon.metric("oomwatchd_rule_processes", rule="racing") == 0
    assert daemon.metric("oomwatchd_adjustments_total", rule="racing", outcome="applied") > 50
    assert "<3>" not in daemon.log()


def reuse(pid: int, command: list[str]) -> int:
    """Start *command* under the *pid* of a process that has ended, if the kernel plays along."""
    LAST_PID.write_text(str(pid - 1), encoding="ascii")
    return os.posix_spawn(command[0], command, {})


def test_who_gets_the_pid_of_a_process_under_a_rule_is_left_alone(
    animals: Herd, daemon: Service
) -> None:
    if not os.access(LAST_PID, os.W_OK):
        pytest.skip("needs ns_last_pid")
    animals.script("live-matching.sh", "echo ready\nread -r line\n")
    daemon.configure(rule("racing", {"script": "live-matching.sh"}, VALUE))
    daemon.start()
    first = [animals.ready("/bin/sh", "live-matching.sh", value=BEFORE) for _ in range(40)]
    until(lambda: all(adj(child.pid) == VALUE for child in first), "all to be set")

    # The new ones have chosen for themselves the value that the old ones were given.
    choose = f"echo {VALUE} >/proc/self/oom_score_adj; exec sleep 60"
    second = []
    for child in first:
        child.kill()
        child.wait()
        second.append(reuse(child.pid, ["/bin/sh", "-c", choose]))
    again = {child.pid for child in first} & set(second)
    try:
        until(lambda: all(comm(pid) == b"sleep" for pid in second), "all to have chosen")
        daemon.turns(3)
        values = [adj(pid) for pid in second]
    finally:
        for pid in second:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    assert len(again) > 20
    assert values == [VALUE] * 40
    assert daemon.metric("oomwatchd_adjustments_total", outcome="restored") == 0


# -- an exec later in life -------------------------------------------------------------------------

LAUNCHER = "echo ready\nread -r line\nexec /bin/sh ./live-matching.sh\n"
WAITING = "read -r line\n"


def launchers(animals: Herd, count: int) -> list[subprocess.Popen[bytes]]:
    animals.script("live-matching.sh", WAITING)
    animals.script("live-launcher.sh", LAUNCHER)
    return [animals.ready("/bin/sh", "./live-launcher.sh") for _ in range(count)]


def are_counted(daemon: Service, count: int) -> None:
    """Their values can be seen before the turn that has set them is over, and reported."""
    counted = partial(daemon.metric, "oomwatchd_rule_processes", rule="found")
    until(lambda: counted() == count, f"{count} to be counted")


def exec_and_be_found(children: list[subprocess.Popen[bytes]], seconds: float) -> None:
    """Let all of them exec; each has its value within so many *seconds*."""
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    until(lambda: all(adj(child.pid) == VALUE for child in children), "all to be found", seconds)


def test_who_has_started_just_before_the_first_look_and_execs_just_after_is_found_soon(
    animals: Herd, daemon: Service
) -> None:
    daemon.configure(rule("found", {"script": "live-matching.sh"}, VALUE), interval="200ms")
    daemon.launch()
    started = time.monotonic()
    children = launchers(animals, 20)
    until(lambda: daemon.answers("/healthz"), "the first turn")
    age_seconds = time.monotonic() - started

    exec_and_be_found(children, age_seconds + 0.2 + SLACK_SECONDS)

    are_counted(daemon, 20)


@pytest.fixture(scope="module", autouse=True)
def veterans() -> Iterator[list[subprocess.Popen[bytes]]]:
    """They start with the first test of this file, so that at the last one they are not young."""
    with herd() as processes:
        yield launchers(processes, 3)


def test_who_execs_late_in_life_is_found_within_half_a_minute(
    veterans: list[subprocess.Popen[bytes]], daemon: Service
) -> None:
    daemon.configure(rule("found", {"script": "live-matching.sh"}, VALUE))
    daemon.start()

    exec_and_be_found(veterans, 30 + 1 + SLACK_SECONDS)

    are_counted(daemon, 3)
