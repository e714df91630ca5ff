"""The kernel's own counts of its kills: against them one can see whether the log has told of all.

Kills by systemd-oomd, or by anybody else, are in none of them.
"""

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.kernel.proc import PROC, READ

VMSTAT_BYTES: Final = 65536  # 4 to 6 KiB today
EVENTS_BYTES: Final = 4096
OOM_KILL: Final = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
COUNT: Final = re.compile(rb"^(\w+) (\d+)$", re.MULTILINE)


def parse_oom_kills(raw: bytes) -> int:
    """Take from ``/proc/vmstat`` how many processes the kernel has killed since boot.

    Each of a group counts, and those killed for a cgroup's limit do as well.

    Raises:  ValueError, if it does not stand there: until Linux 4.12, or what was read is cut.
    Source:  mm/oom_kill.c, __oom_kill_process().
    """
    found = OOM_KILL.search(raw)
    if found is None:
        raise ValueError(f"no oom_kill in {len(raw)} bytes of vmstat")
    return int(found[1])


class OomKills:
    """Holds ``/proc/vmstat`` open."""

    def __init__(self, root: Path = PROC) -> None:
        """Raises OSError, where /proc shows processes alone (subset=pid)."""
        self._fd = os.open(root / "vmstat", READ)

    def read(self) -> int:
        return parse_oom_kills(os.pread(self._fd, VMSTAT_BYTES, 0))

    def close(self) -> None:
        os.close(self._fd)


class MemoryEvents(NamedTuple):
    """How often since the cgroup was made; what a kernel does not count is 0.

    memory.events counts for the cgroup and all below it (but mount option memory_localevents),
    memory.events.local for it alone.  A kill for the limit of an ancestor, or of the whole machine,
    raises oom_kill of the victim's cgroup, and not its oom.
    """

    low: int = 0
    high: int = 0
    max: int = 0
    oom: int = 0
    oom_kill: int = 0
    oom_group_kill: int = 0  # since Linux 5.17


def parse_memory_events(raw: bytes) -> MemoryEvents:
    """Take ``memory.events`` apart; names that we do not know are passed over.

    Raises:  ValueError, if it is not such a file.
    Source:  Documentation/admin-guide/cgroup-v2.rst.
    """
    found = {name.decode(): int(count) for name, count in COUNT.findall(raw)}
    if "oom_kill" not in found:
        raise ValueError(f"not a memory.events file: {raw[:80]!r}")
    return MemoryEvents(**{name: found.get(name, 0) for name in MemoryEvents._fields})
