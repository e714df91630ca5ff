"""oom_score_adj of other processes: the only module that writes to them."""

import errno
import os
from typing import Final, NamedTuple

from oomwatchd.kernel.proc import GONE, Look, read
from oomwatchd.model import Result

# A file of the kernel is replaced by what is written; O_TRUNC makes any other file behave so too.
WRITE: Final = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC


class Outcome(NamedTuple):
    result: Result
    reason: str = ""  # the errno's name, for "refused"


def parse_adj(raw: bytes) -> int:
    """``/proc/PID/oom_score_adj``: one decimal number from -1000 to 1000.

    Raises:  ValueError, if it is not a number.
    Source:  proc_pid_oom_score_adj(5).
    """
    return int(raw)


def read_adj(directory: int) -> int:
    """The value now; raises one of `GONE` if the process has ended."""
    return parse_adj(read(directory, "oom_score_adj", 16))


def adjust(look: Look, before: int, wanted: int) -> Outcome:
    """Write *wanted*, if the process still runs the program of *look*; *before* goes back if not.

    The kernel has no compare-and-set: a process may exec between our last look and our write, and
    keep the value across it.  So we look again afterwards and undo what hit the wrong program.
    "gone" means that the program which matched is there no more; "refused", that the kernel or a
    mount said no.  Any other fault is raised.

    Source:  fs/proc/base.c, __set_oom_adj().  To go below the lowest value that a privileged writer
             has set before takes CAP_SYS_RESOURCE (EACCES).
    """
    try:
        if not look.still_runs():
            return Outcome("gone")
        write(look.directory, wanted)
        if not look.still_runs():
            write(look.directory, before)
            return Outcome("gone")
        if read_adj(look.directory) != wanted:  # somebody else wrote at the same moment
            return Outcome("drifted")
    except GONE:
        return Outcome("gone")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return Outcome("refused", errno.errorcode[error.errno])
    return Outcome("applied")


def write(directory: int, value: int) -> None:
    """One unbuffered write: the kernel takes the number from a single write(2), or refuses it."""
    fd = os.open("oom_score_adj", WRITE, dir_fd=directory)
    try:
        os.write(fd, b"%d" % value)
    finally:
        os.close(fd)
