"""What the kernel of this machine says of its kills is read; the records go to the results.

Samples for tests/data/kmsg are taken from there.
"""

import base64
from pathlib import Path

import pytest
from kernellog import records_of, reports_of

from oomwatchd.kernel.oom import OomReport

from .machine import Machine
from .service import GUEST, WORK

pytestmark = pytest.mark.vm

NAMES = {
    "name-with-total-vm": ") total-vm:1kB,",
    "name-with-task-and-pid": "x,task=y,pid=1",
    "name-with-line-break": "a\nKilled proces",
    "name-not-utf8": "\\xff\\xc3( \\x0a\t",
    "name-of-spaces-and-numbers": "  12 -5 7 ",
}


@pytest.fixture(scope="module")
def reports(machine: Machine, results: Path) -> dict[str, list[OomReport]]:
    """Of each case, after the kernel's own count of its kills has been compared."""
    machine.put(f"{WORK}/oomcases.py", (GUEST / "oomcases.py").read_bytes(), 0o755)
    machine.run("systemctl", "stop", "systemd-oomd.socket", "systemd-oomd", check=False)
    # In a unit of its own, which lives on although processes of it are killed.
    options = ("--wait", "--collect", "--pipe", "--quiet", "-p", "OOMPolicy=continue")
    told = machine.run(
        *("systemd-run", *options, "-p", "OOMScoreAdjust=-1000"),
        *("/usr/bin/python3", f"{WORK}/oomcases.py", "/root/oomcases"),
        timeout_seconds=400.0,
    )
    cases = dict(line.rsplit(" ", 1) for line in told.splitlines() if line.count(" ") == 1)
    found = {}
    for case, kills in cases.items():
        path = results / f"{case}.kmsg"
        encoded = machine.sh(f"base64 /root/oomcases/{case}.kmsg || true")
        path.write_bytes(base64.b64decode(encoded) if "No such" not in encoded else b"")
        found[case], _ = reports_of(records_of(path))
        told_of = sum(report.kill_lines for report in found[case])
        assert told_of == int(kills), case
    return found


def test_every_kill_that_the_kernel_counts_is_read(reports: dict[str, list[OomReport]]) -> None:
    assert len(reports) >= 15
    for case in ("own-limit", "ancestor-limit", "whole-machine", "by-sysrq", "no-task-table"):
        assert [len(report.killed) for report in reports[case]] == [1], case


def test_no_name_changes_what_is_read(reports: dict[str, list[OomReport]]) -> None:
    for case, name in NAMES.items():
        [report] = reports[case]

        assert [killed.comm for killed in report.killed] == [name]
        assert (report.oom_memcg, report.limit_bytes) == ("/oomcases/job", 24 << 20)


def test_whose_limit_it_was_is_told(reports: dict[str, list[OomReport]]) -> None:
    [ancestor], [whole] = reports["ancestor-limit"], reports["whole-machine"]
    [tricky] = reports["cgroup-that-names-another"]

    assert (ancestor.oom_memcg, ancestor.task_memcg) == (
        "/oomcases/parent",
        "/oomcases/parent/child",
    )
    assert (whole.of_cgroup, whole.oom_memcg) == (False, None)
    assert tricky.oom_memcg == tricky.task_memcg
    assert tricky.oom_memcg is not None
    assert tricky.oom_memcg.startswith("/oomcases/x,task_memcg=/system.slice/")


def test_a_group_is_one_report_without_the_one_at_minus_1000(
    reports: dict[str, list[OomReport]],
) -> None:
    [group] = reports["group"]

    assert {killed.comm for killed in group.killed} == {"leader", "worker one"}
    assert group.oom_group == "/oomcases/job"


def test_of_many_kills_at_once_each_is_read_though_the_kernel_tells_less(
    reports: dict[str, list[OomReport]],
) -> None:
    many = reports["many-at-once"]

    assert [len(report.killed) for report in many] == [1] * 14
    assert any(report.invoker is None for report in many)


def test_of_a_flood_nobody_is_taken_for_killed(reports: dict[str, list[OomReport]]) -> None:
    assert not [report for report in reports["nobody-killable"] if report.killed]
