"""What is left of the machine's memory, read often."""

import os
from pathlib import Path
from typing import Final

from oomwatchd.kernel.proc import PROC, READ
from oomwatchd.kernel.status import Memory, parse_meminfo

FILE_LIMIT_BYTES: Final = 8192  # 1.5 KiB with today's lines


class MeminfoFile:
    """Holds the file open: one pread, where opening it anew takes three calls."""

    def __init__(self, root: Path = PROC) -> None:
        """Raises OSError, where /proc shows processes alone (subset=pid)."""
        self._fd = os.open(root / "meminfo", READ)

    def read(self) -> Memory:
        return parse_meminfo(os.pread(self._fd, FILE_LIMIT_BYTES, 0))

    def close(self) -> None:
        os.close(self._fd)
