"""The daemon with the rights that the DaemonSet gives it, and with one of them less."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from image import CAPABILITIES, confined, ours
from live import OUR_USERS, Herd, Service, adj, herd, needs_root, rule, service, until
from podlike import daemonset

USER = OUR_USERS[0]
VALUE = 317
LOCKED_KIB = 8192  # what a runtime lets a container lock by default
[CONTAINER] = daemonset()["spec"]["template"]["spec"]["containers"]
RIGHTS = CONTAINER["securityContext"]
ADDED = RIGHTS["capabilities"]["add"]

pytestmark = needs_root


@pytest.fixture
def animals() -> Iterator[Herd]:
    with herd() as processes:
        yield processes


@pytest.fixture
def daemon() -> Iterator[Service]:
    with service() as one:
        yield one


def contained(capabilities: set[str]) -> list[str]:
    """What starts a program with these, and with the limit on locked memory of a container."""
    limited = ["prlimit", f"--memlock={LOCKED_KIB << 10}", "--"]
    return [*limited, *confined(RIGHTS, capabilities)]


def started(daemon: Service, animals: Herd, *, without: str = "") -> int:
    """The daemon, with a rule for the program of another user's process; the pid of that."""
    sleep = os.path.realpath(shutil.which("sleep") or "")
    pid = animals.start(sleep, "600", user=USER).pid
    daemon.configure(rule("of-another", {"exe": sleep, "user": USER}, VALUE))
    daemon.start(under=contained(set(ADDED) - {without}))
    daemon.turns(1)
    return pid


def locked_kib(daemon: Service) -> int:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(re.findall(r"^VmLck:\s+(\d+)", status, re.M)[0])


def test_with_all_of_them_it_does_its_work(daemon: Service, animals: Herd) -> None:
    pid = started(daemon, animals)

    until(lambda: adj(pid) == VALUE, "the value is set")
    assert locked_kib(daemon) > 0
    assert daemon.answers(CONTAINER["livenessProbe"]["httpGet"]["path"])
    if "SYS_RESOURCE" in ours():
        assert daemon.metric("oomwatchd_feature_available", feature="lower_adj") == 1


def test_without_dac_override_it_may_not_set_the_value(daemon: Service, animals: Herd) -> None:
    pid = started(daemon, animals, without="DAC_OVERRIDE")

    until(lambda: daemon.metric("oomwatchd_adjustments_total", outcome="refused"), "a refusal")
    assert adj(pid) != VALUE


def test_without_sys_ptrace_it_cannot_see_the_program(daemon: Service, animals: Herd) -> None:
    pid = started(daemon, animals, without="SYS_PTRACE")

    daemon.turns(1)
    assert daemon.metric("oomwatchd_rule_processes") == 0
    assert adj(pid) != VALUE


def test_without_ipc_lock_its_pages_may_go(daemon: Service, animals: Herd) -> None:
    started(daemon, animals, without="IPC_LOCK")

    assert locked_kib(daemon) == 0


def test_without_sys_resource_it_cannot_lower_a_value(daemon: Service, animals: Herd) -> None:
    started(daemon, animals, without="SYS_RESOURCE")

    assert daemon.metric("oomwatchd_feature_available", feature="lower_adj") == 0


def test_each_of_them_has_been_tried() -> None:
    assert set(ADDED) == CAPABILITIES.keys()
