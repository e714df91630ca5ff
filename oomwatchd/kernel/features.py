"""What this machine, and our rights on it, let us use: found out by trying, once, at the start."""

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from oomwatchd.kernel.cgroup import CGROUP_ROOT
from oomwatchd.kernel.events import ProcessEvents
from oomwatchd.kernel.proc import READ
from oomwatchd.kernel.psi import PressureFile, PressureTrigger

CAP_SYS_RESOURCE: Final = 24
WHOLE_UID_RANGE: Final = ["0", "0", "4294967295"]  # the initial user namespace
BOOTED_BY_SYSTEMD: Final = Path("/run/systemd/system")  # sd_booted(3)
NO_PYSTEMD: Final = "pystemd is not installed (apt: python3-pystemd, pip: pystemd)"


class Missing(Exception):
    """The feature cannot be used; the text says why."""


def process_events() -> None:
    ProcessEvents(forks=False).close()


def psi() -> None:
    """Switched off, the file may be there all the same; reading it then fails (EOPNOTSUPP)."""
    file = PressureFile()
    try:
        file.read()
    finally:
        file.close()


def psi_trigger() -> None:
    PressureTrigger().close()


def kernel_log() -> None:
    os.close(os.open("/dev/kmsg", READ | os.O_NONBLOCK))


def cgroup2() -> None:
    if not (CGROUP_ROOT / "cgroup.controllers").exists():
        raise Missing("the unified hierarchy is not mounted at /sys/fs/cgroup")


def systemd() -> None:
    if not BOOTED_BY_SYSTEMD.is_dir():
        raise Missing("systemd does not run this machine")
    if find_spec("pystemd") is None:  # importing it would take 10 MiB
        raise Missing(NO_PYSTEMD)


def lower_adj() -> None:
    """capable(CAP_SYS_RESOURCE) asks for the initial user namespace; user_namespaces(7)."""
    if Path("/proc/self/uid_map").read_text(encoding="ascii").split() != WHOLE_UID_RANGE:
        raise Missing("we run in a user namespace")
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = status.partition("CapEff:\t")[2].partition("\n")[0]
    if not int(effective, 16) >> CAP_SYS_RESOURCE & 1:
        raise Missing("CAP_SYS_RESOURCE is lacking")


PROBES: Final[Mapping[str, tuple[Callable[[], None], str]]] = {
    "process_events": (process_events, "new programs are found by looking, not at once"),
    "psi": (psi, "memory pressure is not known; boot with psi=1 to have it"),
    "psi_trigger": (psi_trigger, "memory pressure is only looked at every few seconds"),
    "kernel_log": (kernel_log, "kills by the kernel cannot be explained"),
    "cgroup2": (cgroup2, "systemd-oomd cannot run here, and cgroups' memory is not watched"),
    "systemd": (systemd, "systemd cannot be asked to move processes (shield: scope)"),
    "lower_adj": (lower_adj, "values can be raised, but lowered only as far as they once were"),
}


def probe() -> dict[str, str]:
    """Each feature, with why it is missing and what is lost by that; empty: it is there."""
    return {name: missing(*how) for name, how in PROBES.items()}


def missing(attempt: Callable[[], None], loss: str) -> str:
    try:
        attempt()
    except Missing as error:
        return f"{error}: {loss}"
    except OSError as error:
        return f"{error.strerror}: {loss}"
    return ""
