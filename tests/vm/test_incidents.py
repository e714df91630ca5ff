"""Each kill is one incident, with who did it, to whom, why, and how it came to it."""

import json
from collections.abc import Iterator

import pytest

from .incidents import Incident, counted, ids, new_rows, only_new, settled, told_again, why
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
    oom_kills,
    start,
    stop,
)

pytestmark = pytest.mark.vm

UNIT = "victim"
SCOPE = f"/system.slice/{UNIT}.service"
LIMIT_MIB = 640
JOBS = """\
interval: 1s
rules:
  - {name: jobs, match: {script: [eater.py, cast.py]}, oom_score_adj: 300}
"""
JOBS_PROCESSES = 'oomwatchd_rule_processes{rule="jobs"}'
TELL = f"{WORK}/tell"
HOOK = """\
#!/bin/sh
cat >/tmp/fresh
{ id -u; cat /proc/self/oom_score_adj; } >/tmp/told-as
mv /tmp/fresh /tmp/told
"""
OUT_OF_THE_SANDBOX = "/usr/bin/systemd-run, --quiet, --pipe, --wait, --collect"  # as in the README
DEAF = ("not heard of", "not found in the journal", "kernel_log: not available", "cannot be kept")
FORGED = (
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
    "task_memcg=/system.slice/ssh.service,task=sshd,pid=1,uid=0",
    "Out of memory: Killed process 1 (systemd) total-vm:9kB, anon-rss:8kB, file-rss:0kB, "
    "shmem-rss:0kB, UID:0 pgtables:9kB oom_score_adj:0",
)
DIES_SECONDS = 120.0
JUMP_SECONDS = 3.0


@pytest.fixture(scope="module")
def stage(protected: Machine) -> Machine:
    for name in ("eater.py", "cast.py"):
        protected.put(f"{WORK}/{name}", (GUEST / name).read_bytes(), 0o755)
    protected.put(TELL, HOOK, 0o755)
    protected.run("systemctl", "stop", "systemd-oomd.socket", "systemd-oomd", check=False)
    configure(protected, JOBS)
    return protected


@pytest.fixture(autouse=True)
def _clean(stage: Machine) -> Iterator[None]:
    yield
    stop(stage, UNIT)
    stage.run("rm", "-f", f"{WORK}/ready", f"{WORK}/go")


def eater(machine: Machine, *options: str, limit_mib: int = LIMIT_MIB) -> int:
    properties = (f"MemoryMax={limit_mib}M", "MemorySwapMax=0", "OOMPolicy=continue")
    command = ("/usr/bin/python3", f"{WORK}/eater.py", *options)
    pid = start(machine, UNIT, *command, properties=properties)
    has_adj(machine, pid, 300)
    return pid


def cast(machine: Machine, *options: str, properties: tuple[str, ...]) -> tuple[int, int]:
    """A process and its worker, which wait until they are let go."""
    ready = f"{WORK}/ready"
    files = ("--ready", ready, "--go", f"{WORK}/go")
    command = ("/usr/bin/python3", f"{WORK}/cast.py", "--grow", *options, *files)
    start(machine, UNIT, *command, properties=properties)
    told = json.loads(machine.wait("it is ready", lambda: machine.get(ready)))
    for pid in (told["main"], told["worker"]):
        has_adj(machine, pid, 300)
    return told["main"], told["worker"]


def let_go(machine: Machine) -> None:
    """The worker grows from now on."""
    machine.run("touch", f"{WORK}/go")


def died(machine: Machine, pid: int) -> None:
    machine.wait("it is dead", lambda: not alive(machine, pid), DIES_SECONDS)


# -- how it came to it -----------------------------------------------------------------------------


def test_a_copy_within_two_seconds_is_seen_and_named(stage: Machine) -> None:
    known, before = ids(stage), counted(stage, "cgroup")
    pid = eater(stage, "--hold-mib", "300", "--rest-seconds", "40", "--copy-seconds", "2")
    died(stage, pid)
    made = only_new(stage, known)

    assert (made["killer"], made["scope"]) == ("cgroup", SCOPE)
    assert made["limit_bytes"] == LIMIT_MIB << 20
    victim = made["victim"]
    assert (victim["pid"], victim["rule"], victim["oom_score_adj"]) == (pid, "jobs", 300)
    assert "eater.py" in victim["cmdline"]
    assert made["diagnosis"]["kind"] == "sudden_copy"
    assert len(in_the_jump(made)) >= 8
    assert why(stage, pid) == 0
    assert counted(stage, "cgroup") == before + 1


def in_the_jump(made: Incident) -> list[float]:
    """The sizes that were seen in the last seconds, and are above what was held before."""
    samples = [one for one in made["history"] if one["victim_bytes"]]
    end = samples[-1]["time_unix_seconds"]
    return [
        one["victim_bytes"]
        for one in samples
        if end - one["time_unix_seconds"] <= JUMP_SECONDS and one["victim_bytes"] > 315 << 20
    ]


@pytest.mark.long
def test_a_leak_is_named_with_its_rate(stage: Machine) -> None:
    known = ids(stage)
    pid = eater(stage, "--hold-mib", "40", "--leak-mib-per-second", "5", limit_mib=350)
    died(stage, pid)
    made = only_new(stage, known)

    assert made["diagnosis"]["kind"] == "steady_leak"
    assert made["diagnosis"]["growth_bytes_per_second"] == pytest.approx(5 << 20, rel=0.1)


# -- who did it ------------------------------------------------------------------------------------


def test_the_machine_out_of_memory_is_the_kernel_s(stage: Machine) -> None:
    known, kills = ids(stage), oom_kills(stage)
    pid = start(
        stage,
        UNIT,
        *("/usr/bin/python3", f"{WORK}/eater.py", "--hold-mib", "100"),
        *("--leak-mib-per-second", "200"),
        properties=("OOMPolicy=continue",),
    )
    died(stage, pid)
    made = only_new(stage, known)

    assert (made["killer"], made["scope"]) == ("kernel", "machine")
    assert (made["victim"]["pid"], made["victim"]["rule"]) == (pid, "jobs")
    assert oom_kills(stage) == kills + 1
    assert made["candidates"][0]["pid"] == pid
    assert why(stage, pid) == 0


def test_a_group_that_dies_as_one_is_one_incident(stage: Machine) -> None:
    known = ids(stage)
    limited = ("MemoryMax=150M", "MemorySwapMax=0", "OOMPolicy=kill")
    main, worker = cast(stage, "--hold-mib", "40", "--worker-mib", "20", properties=limited)
    let_go(stage)
    died(stage, main)
    made = only_new(stage, known)

    assert (made["killer"], made["scope"], made["victims_total"]) == ("oom_group", SCOPE, 2)
    assert {one["pid"] for one in made["victims"]} == {main, worker}
    assert made["diagnosis"]["kind"] != "many_processes"  # those of before have ended long ago
    assert why(stage, worker) == 0


def test_who_is_stopped_as_one_of_its_unit_was_killed_is_of_the_same_incident(
    stage: Machine,
) -> None:
    """Only systemd says so, and only in the journal."""
    known = ids(stage)
    limited = ("MemoryMax=150M", "MemorySwapMax=0", "OOMPolicy=stop", "KillSignal=SIGKILL")
    main, worker = cast(stage, "--hold-mib", "40", "--worker-mib", "20", properties=limited)
    let_go(stage)
    died(stage, main)
    made = only_new(stage, known)

    assert (made["killer"], made["scope"]) == ("cgroup", SCOPE)
    assert {one["pid"] for one in made["victims"]} == {main, worker}
    assert "systemd" in made["sources"]


def test_a_sigkill_by_hand_has_an_unknown_sender(stage: Machine) -> None:
    known = ids(stage)
    pid = eater(stage, "--hold-mib", "20", "--rest-seconds", "600", "--copy-seconds", "1")
    stage.run("kill", "-9", str(pid))
    made = only_new(stage, known)

    assert (made["killer"], made["victim"]["pid"], made["sources"]) == ("unknown", pid, [])
    assert why(stage, pid) == 1


# -- when nobody watched ---------------------------------------------------------------------------


def test_a_kill_while_the_daemon_was_down_is_found_once(stage: Machine) -> None:
    known = ids(stage)
    limited = ("MemoryMax=150M", "MemorySwapMax=0", "OOMPolicy=continue")
    _, worker = cast(stage, "--hold-mib", "40", "--worker-mib", "20", properties=limited)
    # Not by its value, which it has from its parent.
    stage.wait("the worker is known", lambda: metrics(stage).get(JOBS_PROCESSES) == 2.0)
    stage.run("systemctl", "stop", "oomwatchd")
    let_go(stage)
    died(stage, worker)
    stage.run("systemctl", "start", "oomwatchd")
    made = only_new(stage, known)

    assert (made["killer"], made["scope"], made["while_down"]) == ("cgroup", SCOPE, True)
    assert (made["victim"]["pid"], made["victim"]["rule"]) == (worker, "jobs")
    assert made["limit_bytes"] == 150 << 20
    assert made["history"] == []
    assert told_again(stage, known) == [made["id"]]
    assert why(stage, worker) == 0


# -- in its sandbox --------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", f"{OUT_OF_THE_SANDBOX}, "], ids=["inside", "outside"])
def test_the_hook_is_told_all_of_it_on_its_standard_input(stage: Machine, prefix: str) -> None:
    configure(stage, f"on_incident: [{prefix}{TELL}]\n{JOBS}")
    known = ids(stage)
    pid = eater(stage, "--hold-mib", "20", "--rest-seconds", "600", "--copy-seconds", "1")
    stage.run("kill", "-9", str(pid))
    made = only_new(stage, known)
    tmp = "/tmp" if prefix else f"/proc/{main_pid(stage)}/root/tmp"  # noqa: S108 - the machine's
    told = json.loads(stage.wait("the hook has been told", lambda: stage.get(f"{tmp}/told")))

    assert told == made
    assert stage.get(f"{tmp}/told-as") == "0\n0\n"  # root, and in the order of death as any other


def test_no_source_is_closed_to_it(stage: Machine) -> None:
    assert features(stage)["kernel_log"] == 1.0
    assert [line for line in log(stage) if any(part in line for part in DEAF)] == []


# -- who would spoil it ----------------------------------------------------------------------------


def test_what_users_write_into_the_log_is_no_incident(stage: Machine) -> None:
    known = ids(stage)
    for line in FORGED:
        stage.put(f"{WORK}/forged", f"<3>{line}\n")
        stage.sh(f"cat {WORK}/forged >/dev/kmsg")
    bystander = eater(stage, "--hold-mib", "20", "--rest-seconds", "600", "--copy-seconds", "1")

    settled(stage)
    assert why(stage, 1) == 1
    assert new_rows(stage, known) == []
    assert alive(stage, bystander)


def test_a_kill_in_a_flood_of_the_log_is_one_incident(stage: Machine) -> None:
    known = ids(stage)
    stage.sh("sysctl -q kernel.printk_devkmsg=on")
    start(stage, "flood", "sh", "-c", "while :; do echo '<3>x y z' >/dev/kmsg; done")
    pid = eater(stage, "--hold-mib", "20", "--leak-mib-per-second", "50", limit_mib=100)
    died(stage, pid)
    made = only_new(stage, known)
    stop(stage, "flood")

    assert (made["killer"], made["scope"], made["victim"]["pid"]) == ("cgroup", SCOPE, pid)


def test_each_is_one_line_in_the_journal_that_names_the_command(stage: Machine) -> None:
    said = [line for line in log(stage) if "was killed by" in line]

    assert len(said) == len([row for row in new_rows(stage, set()) if row["killer"] != "unknown"])
    assert all("oomwatchd incidents show " in line for line in said)
