"""The real daemon with the real kernel's news: what happens although the next scan is an hour off.

Where the machine does not tell of processes, the daemon says so and looks instead; that is shown in
a network of its own, where no kernel does.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from live import Herd, Rule, Service, adj, herd, needs_root, own_value, rule, service, until

from oomwatchd.kernel.features import missing, process_events

pytestmark = [
    needs_root,
    pytest.mark.skipif(bool(missing(process_events, "")), reason="the kernel tells nothing here"),
]

TRAIN, WORKER, TITLED, LATE = 311, 322, 333, 344
RULES: list[Rule] = [
    rule("training", {"script": "live-train*.py"}, TRAIN, workers=WORKER),
    rule("titled", {"cmdline": "^live-title: "}, TITLED),
    rule("late", {"name": "live-late"}, LATE),
]
HOUR: dict[str, Any] = {"interval": "1h", "events": "auto"}

# On a line of its input each does what it is for, and answers with a pid.
FORKING = (
    "import os, signal, sys\n"
    "print(os.getpid(), flush=True)\n"
    "for _ in sys.stdin:\n"
    "    pid = os.fork()\n"
    "    if pid == 0:\n"
    "        signal.pause()\n"
    "    print(pid, flush=True)\n"
)
# Of a shell: it says which process it is, and runs nothing else.
WAITING = "read -r pid rest </proc/self/stat; echo $pid; read -r line <silent"
RENAMING = (
    "import sys\n"
    "print('ready', flush=True)\n"
    "sys.stdin.readline()\n"
    "open('/proc/self/comm', 'w').write('live-late')\n"
    "print('done', flush=True)\n"
    "sys.stdin.readline()\n"
)


@pytest.fixture
def animals() -> Iterator[Herd]:
    with herd() as processes:
        yield processes


@pytest.fixture
def daemon() -> Iterator[Service]:
    with service() as one:
        one.configure(*RULES, **HOUR)
        one.start()
        yield one


def tell(process: subprocess.Popen[bytes]) -> bytes:
    """Give it a line, and take its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    return process.stdout.readline()


def has(pid: int, value: int) -> None:
    until(lambda: adj(pid) == value, f"{pid} has {value}, not {adj(pid)}")


def test_a_new_process_has_its_value_at_once(daemon: Service, animals: Herd) -> None:
    script = animals.script("live-train.py", FORKING)
    process = animals.ready(sys.executable, script)
    has(process.pid, TRAIN)

    until(lambda: daemon.metric("oomwatchd_process_events_total") > 0, "events are counted")
    assert daemon.scans() == 1


def test_a_worker_that_only_forks_has_its_own(daemon: Service, animals: Herd) -> None:
    process = animals.ready(sys.executable, animals.script("live-train.py", FORKING))
    has(process.pid, TRAIN)
    workers = [int(tell(process)) for _ in range(5)]
    for worker in workers:
        has(worker, WORKER)

    assert daemon.scans() == 1


def test_a_name_given_later_counts_at_once(daemon: Service, animals: Herd) -> None:
    process = animals.ready(sys.executable, animals.script("live-renaming.py", RENAMING))
    before = adj(process.pid)
    tell(process)
    has(process.pid, LATE)

    assert before == own_value()
    assert daemon.scans() == 1


def test_a_chain_of_execs_ends_with_the_value_of_the_last(daemon: Service, animals: Herd) -> None:
    script = animals.script("live-train.py", FORKING)
    process = animals.ready("/usr/bin/env", "sh", "-c", f"exec env {sys.executable} {script}")
    has(process.pid, TRAIN)

    assert daemon.scans() == 1


def test_a_program_that_is_replaced_gives_the_value_back(daemon: Service, animals: Herd) -> None:
    text = (
        "import os, sys\nprint(1, flush=True)\nsys.stdin.readline()\nos.execv('/bin/cat', ['cat'])"
    )
    process = animals.ready(sys.executable, animals.script("live-train.py", text))
    has(process.pid, TRAIN)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    has(process.pid, own_value())

    assert daemon.scans() == 1


def test_a_title_without_any_event_is_seen_soon(daemon: Service, animals: Herd) -> None:
    """The arguments are overwritten in place, as setproctitle(3) does."""
    text = (
        "import ctypes, os, sys\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "stat = open('/proc/self/stat').read().rpartition(')')[2].split()\n"
        "start, end = int(stat[45]), int(stat[46])\n"
        "ctypes.memset(start, 0, end - start)\n"
        "ctypes.memmove(start, b'live-title: busy', 16)\n"
        "print('done', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    process = animals.ready(sys.executable, animals.script("live-titling.py", text))
    tell(process)
    has(process.pid, TITLED)

    assert daemon.scans() == 1


def test_who_has_ended_is_counted_no_more(daemon: Service, animals: Herd) -> None:
    process = animals.ready(sys.executable, animals.script("live-train.py", FORKING))
    until(lambda: daemon.metric("oomwatchd_rule_processes", rule="training") == 1, "it is counted")
    process.kill()
    process.wait()
    until(lambda: daemon.metric("oomwatchd_rule_processes", rule="training") == 0, "no more")

    assert daemon.scans() == 1


def test_in_a_storm_of_others_none_of_ours_is_missed(daemon: Service, animals: Herd) -> None:
    script = animals.script("live-train.py", FORKING)
    going = threading.Event()

    def storm() -> None:
        while not going.is_set():
            subprocess.run(["/bin/true"], check=True)

    threads = [threading.Thread(target=storm) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for process in [animals.ready(sys.executable, script) for _ in range(30)]:
            has(process.pid, TRAIN)
    finally:
        going.set()
        for thread in threads:
            thread.join()

    assert daemon.metric("oomwatchd_process_events_lost_total") == 0


def pids_told(animals: Herd, text: str, count: int) -> list[int]:
    """Start *text* so many times together; the pids that they print."""
    os.mkfifo(animals.directory / "silent")
    script = animals.script("live-forking.sh", text)
    all_of_them = [animals.start("/bin/sh", script) for _ in range(count)]
    return [int(one.stdout.readline()) for one in all_of_them if one.stdout is not None]


@pytest.mark.parametrize(
    "text",
    [f"({WAITING}) & wait\n", f"(({WAITING}) &) &\n"],
    ids=["a worker", "into the background"],
)
def test_what_a_program_forks_first_thing_has_its_value_soon(animals: Herd, text: str) -> None:
    """Before we have written to it, or even looked at it; without `workers` no event tells."""
    with service() as daemon:
        daemon.configure(rule("forking", {"script": "live-forking.sh"}, TRAIN), **HOUR)
        daemon.start()
        for pid in pids_told(animals, text, 8):
            has(pid, TRAIN)
        scans = daemon.scans()

    assert scans == 1


def test_workers_that_a_program_forks_first_thing_have_theirs(animals: Herd) -> None:
    with service() as daemon:
        forking = rule("forking", {"script": "live-forking.sh"}, TRAIN, workers=WORKER)
        daemon.configure(forking, **HOUR)
        daemon.start()
        for pid in pids_told(animals, f"({WAITING}) & wait\n", 8):
            has(pid, WORKER)
        scans = daemon.scans()

    assert scans == 1


def test_a_reload_turns_events_off_and_on(daemon: Service, animals: Herd) -> None:
    script = animals.script("live-train.py", FORKING)
    daemon.configure(*RULES, interval="1h", events="off")
    daemon.reload()
    silent = daemon.metric("oomwatchd_process_events_total")
    unseen = animals.ready(sys.executable, script)
    still_silent = daemon.metric("oomwatchd_process_events_total")
    daemon.configure(*RULES, **HOUR)
    daemon.reload()
    has(unseen.pid, TRAIN)  # the reload has looked at everybody
    seen = animals.ready(sys.executable, script)
    has(seen.pid, TRAIN)

    assert still_silent == silent


def test_where_the_kernel_does_not_tell_that_is_said_and_looking_does(animals: Herd) -> None:
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    with service() as daemon:
        daemon.configure(*RULES, interval="200ms", events="auto", metrics={"listen": "off"})
        daemon.launch(under=["unshare", "--net"])
        daemon.logged("process_events: not available")
        process = animals.ready(sys.executable, animals.script("live-train.py", FORKING))
        has(process.pid, TRAIN)
        said = daemon.log().count("process_events")
        daemon.stop()

    assert said == 1
