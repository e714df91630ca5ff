"""From where the paths of /proc/PID/cgroup are told.

In a container with a cgroup namespace of its own that is the container's cgroup: what lies
elsewhere begins with ``/..``, and neither units nor pods could be known by it.

Source:  cgroup_namespaces(7); kernel/cgroup/cgroup.c, proc_cgroup_show().
"""

import os
import posixpath
from functools import lru_cache
from pathlib import Path
from typing import Final

from oomwatchd.kernel.cgroup import CGROUP_ROOT, UNIFIED, Membership, is_too_deep
from oomwatchd.kernel.proc import PROC

NAMESPACE_OF_BOOT: Final = 0xEFFFFFFB  # its inode number; include/uapi/linux/nsfs.h
NOT_FOUND: Final = ""


@lru_cache(maxsize=1)
def our_root() -> str:
    """Of this process: it does not change while we live."""
    if (PROC / "self/ns/cgroup").stat().st_ino == NAMESPACE_OF_BOOT:
        return "/"
    return namespace_root((PROC / "self/cgroup").read_bytes(), os.getpid(), CGROUP_ROOT)


def namespace_root(own: bytes, pid: int, cgroups: Path) -> str:
    """The cgroup that is ``/`` to the process *pid*, whose ``/proc/PID/cgroup`` *own* is.

    Found by where the process is a member, in the hierarchy of the whole machine at *cgroups*.
    Where there is none but the namespace's own, or others than that of cgroup2, NOT_FOUND.
    """
    if not (cgroups / "cgroup.controllers").exists():
        return NOT_FOUND  # paths may be of any hierarchy, and the root is another in each
    lines = [line for line in own.splitlines() if line.startswith(UNIFIED)]
    inside = os.fsdecode(lines[0].removeprefix(UNIFIED)) if lines else ""
    found = home(pid, cgroups)
    if not inside or found is None or found == inside or not found.endswith(inside.rstrip("/")):
        return NOT_FOUND
    return found.removesuffix(inside.rstrip("/"))


def home(pid: int, cgroups: Path) -> str | None:
    """The cgroup that *pid* is a member of.  It takes some 30 us for each cgroup there is."""
    member = str(pid).encode()
    root = os.fspath(cgroups)
    for directory, below, _ in os.walk(cgroups):
        if is_too_deep(directory.removeprefix(root)):
            below.clear()  # os.walk goes down by recursion, which has an end at 1,000
        try:
            members = Path(directory, "cgroup.procs").read_bytes()
        except OSError:  # it has ended; it is threaded, and has no processes to itself
            continue
        if member in members.split():
            return directory.removeprefix(root) or "/"
    return None


def in_machine(membership: Membership, root: str) -> Membership:
    """*membership*, told from *root*, as the machine would tell it."""
    if root in ("/", NOT_FOUND):
        return membership
    return Membership(*(posixpath.normpath(f"{root}/{path}") for path in membership))
