"""What can be used on this machine, found out by trying; and what is said where it cannot."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from oomwatchd.kernel.features import (
    PROBES,
    Missing,
    lower_adj,
    missing,
    probe,
    psi,
)

REPOSITORY = Path(__file__).parent.parent
CONTRACT = {"process_events", "psi", "psi_trigger", "kernel_log", "cgroup2", "systemd", "lower_adj"}
LOWER = """
from pathlib import Path
adj = Path("/proc/self/oom_score_adj")
adj.write_text(str(max(int(adj.read_text()) - 1, -1000)))
"""
PROBE = """
import json
from oomwatchd.kernel.features import probe
print(json.dumps(probe()))
"""


def test_the_features_are_those_that_the_metrics_name() -> None:
    assert PROBES.keys() == CONTRACT


def test_trying_never_fails_and_leaves_nothing_open() -> None:
    found = probe()

    assert found.keys() == CONTRACT
    assert all("\n" not in text for text in found.values())


def test_what_is_missing_is_said_with_its_loss_in_one_line() -> None:
    def none() -> None:
        raise Missing("there is none")

    def refused() -> None:
        raise PermissionError(1, "Operation not permitted")

    assert missing(none, "so nothing works") == "there is none: so nothing works"
    assert missing(refused, "so nothing works") == "Operation not permitted: so nothing works"
    assert missing(lambda: None, "so nothing works") == ""


def test_a_fault_of_ours_is_not_taken_for_a_missing_feature() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        missing(broken, "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_an_ordinary_user_lacks_what_takes_privilege_and_nothing_else() -> None:
    as_root = probe()
    command = [sys.executable, "-c", PROBE]
    said = subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, text=True,
        user=65534, group=65534, extra_groups=[],
    ).stdout  # fmt: skip
    lacking = {name for name, text in json.loads(said).items() if text}
    privileged = {"process_events", "kernel_log", "lower_adj", "psi_trigger"}

    assert lacking - privileged == {name for name, text in as_root.items() if text} - privileged
    assert "lower_adj" in lacking


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot lower a value anyway")
def test_lower_adj_says_what_the_kernel_will_say() -> None:
    """Tried for real, in a child: from 1 to 0, below what root has set."""
    refused = subprocess.run([sys.executable, "-c", LOWER], check=False, capture_output=True)

    assert bool(missing(lower_adj, "x")) == bool(refused.returncode)


@pytest.mark.skipif(not Path("/proc/pressure/memory").exists(), reason="no PSI here")
def test_psi_is_there_if_it_can_be_read() -> None:
    try:
        Path("/proc/pressure/memory").read_bytes()
        readable = True
    except OSError:
        readable = False

    assert (missing(psi, "x") == "") == readable


def can_open(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_what_is_there_is_what_the_machine_has() -> None:
    found = {name: not text for name, text in probe().items()}

    assert found["kernel_log"] == can_open("/dev/kmsg")
    assert found["cgroup2"] == Path("/sys/fs/cgroup/cgroup.controllers").is_file()
    booted = Path("/run/systemd/system").is_dir()
    assert found["systemd"] == (booted and find_spec("pystemd") is not None)


def probed_within(*unshare: str) -> dict[str, str]:
    command = ["unshare", *unshare, sys.executable, "-c", PROBE]
    done = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no such namespace here: {done.stderr}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_in_a_user_namespace_nobody_lowers_a_value_whatever_his_rights() -> None:
    found = probed_within("--user", "--map-root-user")

    assert found["lower_adj"].startswith("we run in a user namespace: values can be raised, but")


def test_into_a_network_of_one_s_own_the_kernel_sends_no_events() -> None:
    """It says yes to everything, and then nothing comes."""
    found = probed_within("--net") if os.geteuid() == 0 else probed_within("--user", "--net")

    assert found["process_events"].endswith(": new programs are found by looking, not at once")
