"""Scenarios 1 and 7: installing, and what becomes of the values when the daemon ends."""

import re
import subprocess
from pathlib import Path

import pytest

from .machine import Machine
from .service import (
    WORK,
    Training,
    adj,
    configure,
    features,
    has_adj,
    is_active,
    main_pid,
    metrics,
    unit_property,
)

pytestmark = pytest.mark.vm

ADJ_BEFORE = 150
FEATURES = ("process_events", "psi", "psi_trigger", "kernel_log", "cgroup2", "systemd", "lower_adj")
RULES = """\
interval: 1s
on_stop: {on_stop}
rules:
  - name: training
    match: {{script: train*.py, user: user}}
    oom_score_adj: -900
    workers: -800
"""


@pytest.fixture(scope="module")
def training(protected: Machine) -> Training:
    return Training(protected, "training", 20, f"OOMScoreAdjust={ADJ_BEFORE}")


def test_nothing_of_it_runs_before_it_is_installed(machine: Machine) -> None:
    assert machine.run("systemctl", "is-active", "oomwatchd", check=False).strip() == "inactive"
    assert metrics(machine) == {}


def test_the_package_starts_the_service_and_its_status_says_what_it_holds(
    protected: Machine,
) -> None:
    status = protected.run("systemctl", "status", "--no-pager", "oomwatchd")

    assert is_active(protected)
    assert unit_property(protected, "oomwatchd", "UnitFileState") == "enabled"
    assert re.search(r"Status: \".*\d+ process", status)


def test_systemd_would_restart_it_if_its_loop_hung(protected: Machine) -> None:
    watchdog_microseconds = unit_property(protected, "oomwatchd", "WatchdogTimestampMonotonic")

    assert unit_property(protected, "oomwatchd", "Type") == "notify"
    assert unit_property(protected, "oomwatchd", "WatchdogUSec") not in {"0", "infinity"}
    assert int(watchdog_microseconds) > 0
    protected.wait(
        "the watchdog is fed again",
        lambda: (
            unit_property(protected, "oomwatchd", "WatchdogTimestampMonotonic")
            != watchdog_microseconds
        ),
    )


def test_its_exposure_is_rated_2_8_at_most(protected: Machine) -> None:
    report = protected.run("systemd-analyze", "security", "--no-pager", "oomwatchd.service")
    rating = re.search(r"Overall exposure level for oomwatchd.service: ([\d.]+)", report)

    assert rating is not None
    assert float(rating[1]) <= 2.8


def test_every_feature_is_available_under_the_shipped_unit(protected: Machine) -> None:
    assert features(protected) == dict.fromkeys(FEATURES, 1.0)


def test_killed_and_restarted_it_keeps_the_values_and_knows_the_old_ones(
    protected: Machine, training: Training
) -> None:
    configure(protected, RULES.format(on_stop="keep"))
    has_adj(protected, training.main, -900)
    killed = main_pid(protected)

    protected.run("kill", "-9", str(killed))
    assert adj(protected, training.main) == -900
    protected.wait(
        "systemd has restarted it",
        lambda: is_active(protected) and main_pid(protected) not in {0, killed},
    )
    configure(protected, "rules: []\n")

    has_adj(protected, training.main, ADJ_BEFORE)
    assert unit_property(protected, "oomwatchd", "NRestarts") == "1"


def test_an_upgrade_keeps_the_values_and_knows_the_old_ones(
    protected: Machine, training: Training, deb: Path, tmp_path: Path
) -> None:
    configure(protected, RULES.format(on_stop="keep"))
    has_adj(protected, training.main, -900)
    before = main_pid(protected)

    protected.put(f"{WORK}/newer.deb", newer(deb, tmp_path).read_bytes())
    protected.run("dpkg", "-i", f"{WORK}/newer.deb", timeout_seconds=180.0)
    protected.wait(
        "the new version runs",
        lambda: is_active(protected) and main_pid(protected) not in {0, before},
    )
    assert adj(protected, training.main) == -900
    configure(protected, "rules: []\n")

    has_adj(protected, training.main, ADJ_BEFORE)


def test_stopped_it_keeps_the_values_unless_told_to_restore_them(
    protected: Machine, training: Training
) -> None:
    configure(protected, RULES.format(on_stop="keep"))
    has_adj(protected, training.main, -900)
    protected.run("systemctl", "stop", "oomwatchd")
    kept = adj(protected, training.main)
    protected.run("systemctl", "start", "oomwatchd")
    configure(protected, RULES.format(on_stop="restore"))
    has_adj(protected, training.main, -900)
    protected.run("systemctl", "stop", "oomwatchd")

    assert kept == -900
    assert adj(protected, training.main) == ADJ_BEFORE
    assert [adj(protected, worker) for worker in training.workers] == [ADJ_BEFORE]


def test_purged_it_leaves_neither_files_nor_a_service_nor_values(
    protected: Machine, training: Training
) -> None:
    protected.run("systemctl", "start", "oomwatchd")
    configure(protected, RULES.format(on_stop="restore"))
    has_adj(protected, training.main, -900)

    protected.run("dpkg", "--purge", "oomwatchd", timeout_seconds=180.0)

    left = ("/etc/oomwatchd.yaml", "/var/lib/oomwatchd", "/run/oomwatchd", "/usr/bin/oomwatchd")
    assert [path for path in left if protected.status("test", "-e", path) == 0] == []
    assert unit_property(protected, "oomwatchd", "LoadState") == "not-found"
    assert adj(protected, training.main) == ADJ_BEFORE


def newer(deb: Path, work: Path) -> Path:
    """The same package with a higher version."""
    unpacked, result = work / "newer", work / "newer.deb"
    subprocess.run(["dpkg-deb", "-R", deb, unpacked], check=True)
    control = unpacked / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+newer", control.read_text()))
    subprocess.run(["dpkg-deb", "-b", unpacked, result], check=True, stdout=subprocess.DEVNULL)
    return result
