"""Pressure stall information: how much of the time tasks waited for memory."""

import os
import re
from pathlib import Path
from typing import Final

from oomwatchd.kernel.proc import PROC, READ
from oomwatchd.model import Pressure

# A tenth of a second in two, 5 % of the time.  A stall without a pause reaches it within 0.1 s; and
# without it `some_avg10` stays below 5, where `pressure.warning` is 20 if nothing else is said.
TRIGGER_STALL_MICROSECONDS: Final = 100_000
TRIGGER_WINDOW_MICROSECONDS: Final = 2_000_000  # the least that takes no CAP_SYS_RESOURCE
LINE: Final = re.compile(
    rb"^(some|full) avg10=([\d.]+) avg60=([\d.]+) avg300=([\d.]+) total=(\d+)", re.MULTILINE
)


def parse_pressure(raw: bytes) -> Pressure:
    """Take ``/proc/pressure/memory`` apart.  Kinds of line that we do not know are passed over.

    Units:   averages in percent of the time, totals in seconds (the kernel counts microseconds).
    Raises:  ValueError, if one of the two lines is missing or broken.
    Source:  Documentation/accounting/psi.rst; kernel/sched/psi.c, psi_show().
    """
    lines = {match[1]: match for match in LINE.finditer(raw)}
    if lines.keys() != {b"some", b"full"}:
        raise ValueError(f"not a pressure file: {raw[:80]!r}")
    some, full = (
        [*map(float, lines[kind].group(2, 3, 4)), int(lines[kind][5]) / 1e6]
        for kind in (b"some", b"full")
    )
    return Pressure(*some, *full)


class PressureFile:
    """Holds the file open, as one pread is nine times cheaper than open, read and close."""

    def __init__(self, root: Path = PROC) -> None:
        """Raises OSError where the kernel has no PSI, or has it switched off."""
        self._fd = os.open(root / "pressure/memory", READ)

    def read(self) -> Pressure:
        """Raises OSError (EOPNOTSUPP), if PSI is switched off."""
        return parse_pressure(os.pread(self._fd, 512, 0))

    def close(self) -> None:
        os.close(self._fd)


class PressureTrigger:
    """A descriptor that has POLLPRI while some tasks wait for memory, at most once in a window.

    Nothing is to be read: to be told of it takes the event away.  No event says that it is over.
    Where there is no trigger any more, poll tells POLLERR at once, again and again: who waits has
    to close it then.

    The line break is needed: the kernel puts a NUL in place of the last byte that it is given, and
    would see a tenth of the window.

    Source:  Documentation/accounting/psi.rst; kernel/sched/psi.c, psi_write(), psi_trigger_poll().
    """

    def __init__(self, root: Path = PROC) -> None:
        """Raises OSError where there are no triggers, or none for us."""
        path = root / "pressure/memory"
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        trigger = f"some {TRIGGER_STALL_MICROSECONDS} {TRIGGER_WINDOW_MICROSECONDS}\n"
        try:
            os.write(self._fd, trigger.encode("ascii"))
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)
