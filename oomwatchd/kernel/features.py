"""What this machine, and our rights on it, let us use: found out by trying, once, at the start."""

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from oomwatchd.kernel.cgroup import CGROUP_ROOT
from oomwatchd.kernel.proc import PROC, READ
from oomwatchd.kernel.psi import PressureFile

NETLINK_CONNECTOR: Final = 11  # include/uapi/linux/netlink.h
CN_IDX_PROC: Final = 1  # include/uapi/linux/connector.h
NLMSG_DONE: Final = 3
PROC_CN_MCAST_LISTEN: Final = 1  # include/uapi/linux/cn_proc.h
PROC_EVENT_EXIT: Final = 0x80000000
EVENT_AT: Final = 36  # behind nlmsghdr (16 bytes) and cn_msg (20 bytes)
CAP_SYS_RESOURCE: Final = 24
WHOLE_UID_RANGE: Final = ["0", "0", "4294967295"]  # the initial user namespace
ANSWER_SECONDS: Final = 0.25
BOOTED_BY_SYSTEMD: Final = Path("/run/systemd/system")  # sd_booted(3)


class Missing(Exception):
    """The feature cannot be used; the text says why."""


def process_events() -> None:
    """The kernel tells of each exec; but only in its first namespaces, and elsewhere is silent.

    So we ask, have a thread start and end, and wait to hear of its end.  (A name given to a thread
    would be less trouble, but is told since Linux 5.17 or so only.)

    Source:  drivers/connector/cn_proc.c.
    """
    family = socket.AF_NETLINK
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_CONNECTOR) as link:
        link.bind((0, CN_IDX_PROC))
        operation = struct.pack("=I", PROC_CN_MCAST_LISTEN)
        message = struct.pack("=IIIIHH", CN_IDX_PROC, 1, 0, 0, len(operation), 0) + operation
        link.send(struct.pack("=IHHII", 16 + len(message), NLMSG_DONE, 0, 0, 0) + message)
        thread = threading.Thread(target=threading.get_ident)
        thread.start()
        thread.join()
        until = time.monotonic() + ANSWER_SECONDS
        while select.select([link], [], [], max(until - time.monotonic(), 0.0))[0]:
            event = link.recv(4096)  # others' too
            if event_of(event) == (PROC_EVENT_EXIT, os.getpid()):
                return
            if time.monotonic() >= until:
                break
    raise Missing("the kernel sends no events into this namespace")


def event_of(datagram: bytes) -> tuple[int, int]:
    """What happened, and in which process; (0, 0) for anything else."""
    if len(datagram) < EVENT_AT + 24:
        return 0, 0
    what, _cpu, _timestamp, _thread, pid = struct.unpack_from("=IIQII", datagram, EVENT_AT)
    return what, pid


def psi() -> None:
    """Switched off, the file may be there all the same; reading it then fails (EOPNOTSUPP)."""
    file = PressureFile()
    try:
        file.read()
    finally:
        file.close()


def psi_trigger() -> None:
    """Without CAP_SYS_RESOURCE the window has to be a multiple of 2 s; kernel/sched/psi.c."""
    fd = os.open(PROC / "pressure/memory", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, b"some 200000 2000000\n")
    finally:
        os.close(fd)


def kernel_log() -> None:
    os.close(os.open("/dev/kmsg", READ | os.O_NONBLOCK))


def cgroup2() -> None:
    if not (CGROUP_ROOT / "cgroup.controllers").exists():
        raise Missing("the unified hierarchy is not mounted at /sys/fs/cgroup")


def systemd() -> None:
    if not BOOTED_BY_SYSTEMD.is_dir():
        raise Missing("systemd does not run this machine")
    if find_spec("pystemd") is None:  # importing it would take 10 MiB
        raise Missing("pystemd is not installed")


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
