"""Scenario 4: a leak in a process that the kernel may not kill.  The last test ends the machine."""

import json

import pytest

from .machine import Machine
from .service import (
    WORK,
    alive,
    configure,
    has_adj,
    is_active,
    killed_by_kernel,
    log,
    metrics,
    start,
    stop,
)

pytestmark = pytest.mark.vm

RULES = """\
interval: 500ms
unkillable_memory_max: {maximum}
rules:
  - name: immortal
    match: {{script: hog.py, user: root}}
    oom_score_adj: -1000
    unkillable: true
    descendants: inherit
"""


def leak(machine: Machine) -> int:
    return start(
        machine,
        "leak",
        *("/usr/bin/python3", f"{WORK}/hog.py", "--mib-per-second", "80"),
        properties=("OOMPolicy=continue",),
    )


def child_of(machine: Machine, parent: int) -> str:
    return machine.run("pgrep", "-P", str(parent), check=False).strip()


def test_the_kernel_exempts_whom_rank_shows_as_never_killed(protected: Machine) -> None:
    configure(protected, RULES.format(maximum="50%"))
    idle = start(protected, "idle", "/usr/bin/python3", f"{WORK}/hog.py", "--mib-per-second", "1")
    has_adj(protected, idle, -1000)
    ranked = json.loads(protected.run("oomwatchd", "rank", "--all", "--json"))
    [entry] = [entry for entry in ranked if entry["pid"] == idle]

    assert (entry["killable"], entry["points_pages"]) == (False, None)
    assert (entry["oom_score_adj"], entry["rule"]) == (-1000, "immortal")
    assert protected.run("cat", f"/proc/{idle}/oom_score").strip() == "0"
    assert ranked.index(entry) > max(ranked.index(one) for one in ranked if one["killable"])
    stop(protected, "idle")


def test_with_the_guard_the_leak_is_killed_and_the_machine_lives_on(protected: Machine) -> None:
    configure(protected, RULES.format(maximum="50%"))
    parent = leak(protected)
    has_adj(protected, parent, -1000)
    child = int(protected.wait("it leaks", lambda: child_of(protected, parent)))
    protected.wait("the leak has ended", lambda: not alive(protected, parent), 180.0)

    assert child in killed_by_kernel(protected)
    assert is_active(protected)
    assert metrics(protected)["oomwatchd_unkillable_guard_trips_total"] == 1.0
    assert any("unkillable_memory_max" in line and "-999" in line for line in log(protected))
    stop(protected, "leak")


def test_without_the_guard_the_same_leak_takes_the_machine_down(protected: Machine) -> None:
    configure(protected, RULES.format(maximum="100%"))
    parent = leak(protected)
    has_adj(protected, parent, -1000)

    assert protected.ended(180.0)
    assert "System is deadlocked on memory" in protected.console.read_text(errors="replace")
