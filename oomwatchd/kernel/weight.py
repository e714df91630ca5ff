"""How much memory one process has, read again and again."""

import os
from typing import Final

from oomwatchd.kernel.proc import READ
from oomwatchd.kernel.status import Status, parse_status

FIRST_READ_BYTES: Final = 4096
REST_LIMIT_BYTES: Final = 1 << 20  # a line with very many groups; see kernel.status


class StatusFile:
    """Holds ``status`` of one process open: it can never come to be another's."""

    def __init__(self, directory: int, name: str = "status") -> None:
        """*directory* is the process's own in /proc.  Raises OSError."""
        self._fd = os.open(name, READ, dir_fd=directory)

    def read(self) -> Status:
        """Raises:  ProcessLookupError, if the process is gone and buried."""
        raw = os.pread(self._fd, FIRST_READ_BYTES, 0)
        if len(raw) == FIRST_READ_BYTES:
            raw += os.pread(self._fd, REST_LIMIT_BYTES, FIRST_READ_BYTES)
        return parse_status(raw)

    def memory_bytes(self) -> int | None:
        """Resident and swapped out; None once it has no memory any more.  Raises as `read`."""
        status = self.read()
        return status.resident_bytes + status.swap_bytes if status.has_memory else None

    def close(self) -> None:
        os.close(self._fd)
