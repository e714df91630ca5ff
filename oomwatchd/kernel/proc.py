"""Reading /proc.  The tree may lie anywhere, so the tests build one in a temporary directory.

Everything of one process is read through one directory descriptor: it can never come to point to
another process, whatever becomes of the pid.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.model import ProcessId
from oomwatchd.text import decoded

PROC: Final = Path("/proc")
COMM_LIMIT_BYTES: Final = 15  # TASK_COMM_LEN less the NUL; include/linux/sched.h
ARGUMENTS_LIMIT_BYTES: Final = 131072  # a class path may be long, and the jar stands behind it
ARGUMENTS_MAX: Final = 1000  # a script stands before that; 65,536 would hold the loop for 20 ms
PF_KTHREAD: Final = 0x00200000  # include/linux/sched.h
PF_EXITING: Final = 0x00000004
GONE: Final = (FileNotFoundError, ProcessLookupError)  # ENOENT by path, ESRCH by descriptor
READ: Final = os.O_RDONLY | os.O_CLOEXEC
READ_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FIRST_READ_BYTES: Final = 4096
PID_NAMESPACE_OF_BOOT: Final = 0xEFFFFFFC  # its inode number; include/uapi/linux/nsfs.h


class Stat(NamedTuple):
    comm: bytes
    state: str  # one letter; Z and X are dead
    parent_pid: int
    session: int
    kernel_thread: bool
    exiting: bool  # and may have no memory any more, so that what it ran cannot be read
    threads: int
    start_ticks: int
    program: int  # another at every exec and every new name, as far as it may be seen
    traceable: bool  # whether all of it may be seen

    @property
    def alive(self) -> bool:
        """Whether it is a process that runs a program: no kernel thread, no zombie.

        One whose first thread has ended looks like a zombie, but has other threads.
        """
        return not self.kernel_thread and (self.state not in "ZX" or self.threads > 1)


def parse_stat(raw: bytes) -> Stat:
    """Take what we need from ``/proc/PID/stat``.

    comm stands in parentheses and is the process's own choice: it may hold spaces, line breaks and
    parentheses.  So fields are counted from the last parenthesis.

    *program* is a hash over comm and the addresses that execve sets (code, data, heap, stack,
    arguments, environment): with address randomisation they change at every exec, even of the same
    program.  They read as 0 for who may not trace the process; then comm alone is left.

    Units:   start_ticks, clock ticks since boot.
    Raises:  ValueError, if the line is cut short or is not a stat line.
    Source:  proc_pid_stat(5), fields 2-4, 6, 9, 20, 22, 26-28, 45-51; fs/proc/array.c,
             do_task_stat().
    """
    opening = raw.find(b"(")
    closing = raw.rfind(b")")
    fields = raw[closing + 2 :].split()  # fields[0] is field 3 of the manual page
    if opening < 0 or closing < opening or len(fields) < 50:
        raise ValueError(f"not a stat line: {raw[:80]!r}")
    comm = raw[opening + 1 : closing]
    flags = int(fields[6])
    return Stat(
        comm=comm,
        state=fields[0].decode("ascii"),
        parent_pid=int(fields[1]),
        session=int(fields[3]),
        kernel_thread=bool(flags & PF_KTHREAD),
        exiting=bool(flags & PF_EXITING),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
        program=hash((comm, *fields[23:26], *fields[42:49])),
        traceable=fields[45] != b"0",  # arg_start
    )


def parse_arguments(raw: bytes) -> list[bytes]:
    """Split ``/proc/PID/cmdline`` at its NULs.

    A process may have overwritten it with a title: then there is one argument, perhaps padded.
    Empty for kernel threads and zombies.  Of very many arguments, the first ARGUMENTS_MAX.

    Source:  proc_pid_cmdline(5); fs/proc/base.c, get_mm_cmdline().
    """
    raw = raw.rstrip(b"\0")
    return raw.split(b"\0", ARGUMENTS_MAX)[:ARGUMENTS_MAX] if raw else []


def read(directory: int, name: str, limit_bytes: int = FIRST_READ_BYTES) -> bytes:
    """A file of a process in one read: its size is not known before, and it changes in between.

    Raises:  OSError; one of `GONE`, if the process has ended.
    """
    fd = os.open(name, READ, dir_fd=directory)
    try:
        return os.read(fd, limit_bytes)
    finally:
        os.close(fd)


def read_arguments(directory: int) -> bytes:
    """``cmdline``, all that we will look at; a second read only where the first was full.

    May block for as long as the process's owner likes (see `kernel.patience`).
    """
    fd = os.open("cmdline", READ, dir_fd=directory)
    try:
        raw = os.read(fd, FIRST_READ_BYTES)
        if len(raw) == FIRST_READ_BYTES:
            raw += os.read(fd, ARGUMENTS_LIMIT_BYTES - FIRST_READ_BYTES)
        return raw
    finally:
        os.close(fd)


def read_working_directory(directory: int) -> str | None:
    """Where the process works; None if it may not be seen."""
    try:
        return decoded(os.fsencode(os.readlink("cwd", dir_fd=directory)))
    except OSError:
        return None


class Look:
    """One process, held by one directory descriptor, with its stat line as of now."""

    __slots__ = ("directory", "id", "stat")

    def __init__(self, directory: int, pid: int) -> None:
        self.directory = directory
        self.stat = parse_stat(read(directory, "stat"))
        self.id = ProcessId(pid, self.stat.start_ticks)

    def still_runs(self) -> bool:
        """Whether the program is the one first seen: no exec, no new name, not dead."""
        try:
            now = parse_stat(read(self.directory, "stat"))
        except GONE:
            return False
        return now.alive and (now.comm, now.program) == (self.stat.comm, self.stat.program)

    def pidfd(self) -> int:
        """A descriptor that polls as readable once the process, with all its threads, has ended.

        Raises:  OSError; ProcessLookupError, if its pid stands for another process (or for none)
                 in the kernel's own /proc.
        Source:  pidfd_open(2), since Linux 5.3.
        """
        if not hasattr(os, "pidfd_open"):  # built with the headers of an older kernel
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fd = os.pidfd_open(self.id.pid)
        try:
            # Ours is there now, so its pid had not been given to another a moment ago.
            if not os.path.samestat(os.fstat(self.directory), os.stat(f"{PROC}/{self.id.pid}")):
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def close(self) -> None:
        os.close(self.directory)


def parents_first(looks: Iterable[Look]) -> list[Look]:
    """*looks* in their order, but a parent before its children: both may start in one tick."""
    by_pid = {look.id.pid: look for look in looks}
    ordered: list[Look] = []
    while by_pid:
        line = [by_pid.pop(next(iter(by_pid)))]
        while (parent := by_pid.pop(line[-1].stat.parent_pid, None)) is not None:
            line.append(parent)
        ordered += reversed(line)
    return ordered


class ProcFs:
    def __init__(self, root: Path = PROC) -> None:
        self.root = root
        self.directory = os.open(root, READ_DIRECTORY)
        try:
            self._loadavg: int | None = os.open("loadavg", READ, dir_fd=self.directory)
        except FileNotFoundError:  # /proc with subset=pid
            self._loadavg = None

    def close(self) -> None:
        if self._loadavg is not None:
            os.close(self._loadavg)
        os.close(self.directory)

    def newest_pid(self) -> int | None:
        """The pid given out last.  While it stays the same, no process and no thread has started.

        None, where that is not told.

        Source:  proc_loadavg(5), field 5; fs/proc/loadavg.c.
        """
        if self._loadavg is None:
            return None
        return int(os.pread(self._loadavg, 128, 0).split()[4])

    def listing(self) -> dict[str, int]:
        """Every pid, as text, with the inode number of its directory.

        The kernel makes that inode for one process: another number means another process under a
        pid used again (or an inode dropped for want of memory, which costs one look in vain).

        Source:  fs/proc/base.c, proc_pid_readdir(), proc_pid_make_inode().
        """
        os.lseek(self.directory, 0, os.SEEK_SET)
        with os.scandir(self.directory) as entries:
            return {entry.name: entry.inode() for entry in entries if entry.name.isdecimal()}

    def stat(self, pid: int) -> Stat | None:
        """The stat line alone; None if the process has gone."""
        try:
            return parse_stat(read(self.directory, f"{pid}/stat"))
        except GONE:
            return None

    def look(self, pid: int) -> Look | None:
        """Hold on to the process *pid*; None if it has gone.  The caller closes it.

        Raises:  PermissionError, where /proc is mounted with hidepid=1.
        """
        try:
            directory = os.open(str(pid), READ_DIRECTORY, dir_fd=self.directory)
        except GONE:
            return None
        try:
            return Look(directory, pid)
        except GONE:
            os.close(directory)
            return None
        except BaseException:
            os.close(directory)
            raise

    def boot_id(self) -> str:
        """Another at every boot; random(4)."""
        return (self.root / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def in_pid_namespace(root: Path) -> bool:
    """Whether there are processes that this /proc does not show, as in a container."""
    try:
        return (root / "self/ns/pid").stat().st_ino != PID_NAMESPACE_OF_BOOT
    except FileNotFoundError:  # a kernel that was built without
        return False
