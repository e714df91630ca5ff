"""What the daemon itself takes of the machine."""

import os
from typing import Final

from oomwatchd.kernel.proc import PROC, READ
from oomwatchd.model import Cost

STEP_SECONDS: Final = 5.0  # two system calls: not worth them at each turn
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Own:
    """Of this process, whatever root of /proc is watched.

    Raises: OSError, where there is no /proc.
    Source: proc_pid_statm(5); times(2), in ticks of 10 ms.
    """

    def __init__(self) -> None:
        self._statm = os.open(PROC / "self/statm", READ)
        self._read_seconds = float("-inf")
        self._cost = Cost(0.0, 0)

    def cost(self, now_seconds: float) -> Cost:
        if now_seconds >= self._read_seconds + STEP_SECONDS:
            self._read_seconds = now_seconds
            self._cost = self._read()
        return self._cost

    def _read(self) -> Cost:
        took = os.times()
        cpu_seconds = took.user + took.system + took.children_user + took.children_system
        resident_pages = int(os.pread(self._statm, 128, 0).split()[1])
        return Cost(cpu_seconds, resident_pages * PAGE_BYTES)

    def close(self) -> None:
        os.close(self._statm)
