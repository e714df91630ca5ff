"""What the daemon has written down of kills, as a scenario asks for it."""

import json
from typing import Any

from .machine import Machine
from .service import metrics

SETTLED_SECONDS = 60.0  # to be written down, on an emulated machine
SETTLE_SECONDS = 8  # in which all of one kill is told, and the journal is read at a start
Incident = dict[str, Any]


def rows(machine: Machine) -> list[Incident]:
    """One for each incident, the newest first."""
    listed: list[Incident] = json.loads(machine.run("oomwatchd", "incidents", "--json"))
    return listed


def new_rows(machine: Machine, known: set[str]) -> list[Incident]:
    return [row for row in rows(machine) if row["id"] not in known]


def ids(machine: Machine) -> set[str]:
    return {row["id"] for row in rows(machine)}


def shown(machine: Machine, id: str) -> Incident:
    told: Incident = json.loads(machine.run("oomwatchd", "incidents", "show", id, "--json"))
    return told


def only_new(machine: Machine, known: set[str]) -> Incident:
    """The one incident that has come, whole."""
    machine.wait("an incident", lambda: new_rows(machine, known), SETTLED_SECONDS)
    settled(machine)
    [row] = new_rows(machine, known)
    return shown(machine, row["id"])


def settled(machine: Machine) -> None:
    """Wait until another incident of what has happened so far would have been written, too."""
    nobody = ("--unit", "nobody")
    machine.run("oomwatchd", "why", *nobody, "--wait", f"{SETTLE_SECONDS}s", check=False)


def told_again(machine: Machine, known: set[str]) -> list[str]:
    """The ids of the new incidents, after the daemon has started once more."""
    machine.run("systemctl", "restart", "oomwatchd")
    settled(machine)
    return [row["id"] for row in new_rows(machine, known)]


def why(machine: Machine, pid: int) -> int:
    """The exit status of asking why the process ended."""
    return machine.status("oomwatchd", "why", "--pid", str(pid))


def counted(machine: Machine, killer: str) -> float:
    """What the metric says of all rules, and of none."""
    return sum(
        value
        for name, value in metrics(machine).items()
        if name.startswith("oomwatchd_oom_kills_total") and f'killer="{killer}"' in name
    )
