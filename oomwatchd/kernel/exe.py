"""Which file a process runs, and whether it is the one that its path says.

The path alone proves little: in a mount namespace of one's own, any file can be put at any path.
"""

import os
import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from oomwatchd.kernel.proc import PROC, READ
from oomwatchd.kernel.statx import status_of
from oomwatchd.model import Exe
from oomwatchd.text import decoded

MACHINE_ROOT: Final = "../1/root"  # the files as pid 1 has them, from a process's directory
MACHINE_MOUNTS: Final = "../1/mountinfo"
DELETED: Final = " (deleted)"
# Whoever serves such a file system says what its files hold, and may let us wait for ever.
SERVED_BY_OTHERS: Final = re.compile(r"fuse|nfs|cifs|smb|9p|afs|ceph|autofs")
ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    point: str
    kind: str


def parse_mountinfo(raw: bytes) -> list[Mount]:
    """``/proc/PID/mountinfo``: where which kind of file system is mounted, the uppermost last.

    Raises:  ValueError, if a line is none of its kind.
    Source:  proc_pid_mountinfo(5); white space and backslashes in a path are octal.
    """
    mounts = []
    for line in os.fsdecode(raw).removesuffix("\n").split("\n"):  # a path may hold other breaks
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 6:
            raise ValueError(f"not a line of mountinfo: {line[:80]!r}")
        point = ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4])
        mounts.append(Mount(point, after.split(" ")[0]))
    return mounts


def kind_at(path: str, mounts: Iterable[Mount]) -> str:
    """The kind of file system that *path* lies on; empty if on none."""
    kind, longest = "", -1
    for mount in mounts:
        point = mount.point.rstrip("/")
        if len(point) >= longest and (path == point or path.startswith(f"{point}/")):
            kind, longest = mount.kind, len(point)
    return kind


def read_exe(directory: int, wanted: Callable[[str], bool]) -> Exe | None:
    """The program's file, as the process's own mount namespace has it.

    None if it may not be seen: that of others needs CAP_SYS_PTRACE.  Proven, which costs more, only
    if somebody wants this path.  After a package upgrade the old file has no path any more; that is
    told by its link count, not by the text: root's own python can be mounted at "/usr/bin/postgres
    (deleted)".
    """
    try:
        path = os.readlink("exe", dir_fd=directory)
        upgraded = path.endswith(DELETED) and status_of("exe", directory).links == 0
    except OSError:
        return None
    if upgraded:
        path = path.removesuffix(DELETED)
    shown = decoded(os.fsencode(path))
    return Exe(shown, wanted(shown) and is_proven(directory, path, upgraded=upgraded))


def is_proven(directory: int, path: str, *, upgraded: bool) -> bool:
    """Whether the file that runs is the one that pid 1 finds at *path*.

    One that an upgrade has replaced has to lie on the file system of the directory it was in, and
    to belong to that directory's owner.
    """
    try:
        sought = os.path.dirname(path) if upgraded else path
        root, mounts = machine(directory)
        if SERVED_BY_OTHERS.match(kind_at(sought, mounts)):
            return False  # and it is not even looked at
        runs, found = status_of("exe", directory), status_of(f"{root}{sought}", directory)
    except OSError:
        return False
    if upgraded:
        return (runs.device, runs.uid) == (found.device, found.uid)
    return (runs.device, runs.inode) == (found.device, found.inode)


def machine(directory: int) -> tuple[str, list[Mount]]:
    """Where the files are as pid 1 has them, as our own service has a /tmp of its own.

    Where that may not be seen (by an ordinary user, in a container), as we have them.
    """
    try:
        os.close(os.open(MACHINE_ROOT, os.O_PATH | os.O_CLOEXEC, dir_fd=directory))
    except OSError:
        return "", parse_mountinfo((PROC / "self/mountinfo").read_bytes())
    fd = os.open(MACHINE_MOUNTS, READ, dir_fd=directory)
    with open(fd, "rb") as file:
        return MACHINE_ROOT, parse_mountinfo(file.read())
