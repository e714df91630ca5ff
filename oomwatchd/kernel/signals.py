"""Signals to processes that are not ours: sent only to those that have a handler for them."""

import os
import re
import signal
from typing import Final, NamedTuple

from oomwatchd.kernel.proc import GONE, READ, Look
from oomwatchd.model import CatchableSignal, SignalResult

CAUGHT: Final = re.compile(rb"^SigCgt:\t([0-9a-f]{16})$", re.MULTILINE)
STATUS_BYTES: Final = 1 << 20  # before the line stands one with all groups, up to 65,536


def parse_caught(raw: bytes) -> int:
    """Take from ``/proc/PID/status`` which signals it has handlers for, one bit each.

    Raises:  ValueError, if that does not stand there.
    Source:  proc_pid_status(5), SigCgt.
    """
    found = CAUGHT.search(raw)
    if found is None:
        raise ValueError(f"no SigCgt in {len(raw)} bytes of status")
    return int(found[1], 16)


class Sent(NamedTuple):
    result: SignalResult
    reason: str = ""  # for "refused"


def send(look: Look, name: CatchableSignal) -> Sent:
    """Send it to the very process of *look*, if that catches it.

    Without a handler each of these signals ends a process.  One that runs another program in the
    microseconds between our look and the signal has lost its handlers: that cannot be helped.

    Source:  pidfd_send_signal(2), since Linux 5.1; it takes a descriptor of /proc/PID as well.
    """
    number = signal.Signals[name]
    try:
        if not parse_caught(read_status(look.directory)) >> (number - 1) & 1:
            return Sent("not_caught")
        signal.pidfd_send_signal(look.directory, number)
    except GONE:
        return Sent("gone")
    except OSError as error:  # EPERM: without CAP_KILL; ENOSYS: an older kernel
        return Sent("refused", error.strerror or str(error))
    return Sent("sent")


def read_status(directory: int) -> bytes:
    fd = os.open("status", READ, dir_fd=directory)
    try:
        return os.read(fd, STATUS_BYTES)
    finally:
        os.close(fd)
