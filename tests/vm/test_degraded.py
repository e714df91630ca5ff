"""Scenario 8: machines that lack something; what is missing is said once, and the rest works."""

from pathlib import Path

import pytest

from .conftest import Boot
from .machine import Machine
from .service import (
    Training,
    configure,
    features,
    has_adj,
    install,
    log,
    metrics,
    put_programs,
)

pytestmark = pytest.mark.vm

RULES = """\
interval: 1s
rules:
  - name: database
    match: {unit: database.service}
    oom_score_adj: -700
  - name: training
    match: {script: train*.py, user: user}
    oom_score_adj: -900
    workers: -800
"""
AS_USER = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")


def restarted(machine: Machine) -> list[str]:
    """Start the daemon afresh, on the machine as it is now, and give what it logs then."""
    before = len(log(machine))
    machine.run("systemctl", "restart", "oomwatchd")
    configure(machine, RULES)
    return log(machine)[before:]


def lacking(machine: Machine) -> set[str]:
    return {name for name, value in features(machine).items() if value == 0.0}


def named_as_missing(lines: list[str], feature: str) -> int:
    return sum(line.startswith(f"{feature}: not available") for line in lines)


def rules_work(machine: Machine, unit: str) -> None:
    """A training run and its worker get their values, and have the old ones back without a rule."""
    run = Training(machine, unit, 5, "OOMScoreAdjust=100")
    has_adj(machine, run.main, -900)
    has_adj(machine, run.workers[0], -800)
    configure(machine, "rules: []\n")
    has_adj(machine, run.main, 100)
    has_adj(machine, run.workers[0], 100)
    run.stop()


def test_with_hidepid_the_daemon_still_sees_whom_users_do_not(protected: Machine) -> None:
    protected.run("mount", "-o", "remount,hidepid=2", "/proc")
    log_lines = restarted(protected)

    assert protected.status(*AS_USER, "test", "-e", "/proc/1/stat") == 1
    assert [line for line in log_lines if "not available" in line] == []
    assert lacking(protected) == set()
    rules_work(protected, "hidden")
    protected.run("mount", "-o", "remount,hidepid=0", "/proc")


def test_a_read_only_proc_sys_takes_nothing_away(protected: Machine) -> None:
    protected.sh("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys")
    log_lines = restarted(protected)

    assert protected.status("sysctl", "-w", "vm.swappiness=10") != 0
    assert [line for line in log_lines if "not available" in line] == []
    assert lacking(protected) == set()
    rules_work(protected, "read-only")
    protected.run("umount", "/proc/sys")


def test_without_systemd_oomd_nothing_is_lacking(protected: Machine) -> None:
    protected.run("systemctl", "mask", "--now", "systemd-oomd.service", "systemd-oomd.socket")
    log_lines = restarted(protected)

    assert protected.status("systemctl", "is-active", "--quiet", "systemd-oomd") != 0
    assert [line for line in log_lines if "not available" in line] == []
    assert lacking(protected) == set()
    rules_work(protected, "no-oomd")


@pytest.fixture(scope="module")
def without_psi(boot: Boot, deb: Path) -> Machine:
    return booted(boot, deb, "psi=0")


def test_without_psi_that_is_said_once_and_rules_work(without_psi: Machine) -> None:
    lines = log(without_psi)
    configure(without_psi, RULES)

    assert without_psi.get("/proc/pressure/memory") is None
    assert named_as_missing(lines, "psi") == 1
    assert any("psi=1" in line for line in lines if line.startswith("psi:"))
    assert lacking(without_psi) == {"psi", "psi_trigger"}
    assert [name for name in metrics(without_psi) if "memory_pressure_ratio" in name] == []
    rules_work(without_psi, "no-psi")
    assert named_as_missing(log(without_psi), "psi") == 1


@pytest.fixture(scope="module")
def hybrid(boot: Boot, deb: Path) -> Machine:
    """systemd asks for the second argument since 256, and since 258 knows but the unified one."""
    return booted(
        boot, deb, "systemd.unified_cgroup_hierarchy=0", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
    )


def test_on_the_hybrid_hierarchy_rules_work_by_unit_too(hybrid: Machine, suite: str) -> None:
    unified = hybrid.get("/sys/fs/cgroup/cgroup.controllers") is not None
    lines = log(hybrid)
    configure(hybrid, RULES)

    assert unified is (suite == "sid")
    assert named_as_missing(lines, "cgroup2") == (0 if unified else 1)
    assert lacking(hybrid) == (set() if unified else {"cgroup2"})
    by_unit = Training(hybrid, "database", 5)
    has_adj(hybrid, by_unit.main, -700)
    by_unit.stop()
    rules_work(hybrid, "hybrid")


def booted(boot: Boot, deb: Path, *kernel_arguments: str) -> Machine:
    machine = boot(*kernel_arguments)
    put_programs(machine)
    install(machine, deb)
    return machine
