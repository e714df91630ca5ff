"""What the administrator has told the kernel about shortage of memory, and what no kill frees."""

import re
from pathlib import Path
from typing import Final, NamedTuple

_KIB: Final = re.compile(rb"^(Shmem|Hugetlb): +(\d+) kB$", re.MULTILINE)


class VmSettings(NamedTuple):
    panic_on_oom: int
    oom_kill_allocating_task: int
    overcommit_memory: int


class Unfreed(NamedTuple):
    huge_bytes: int
    shared_bytes: int


def read_vm_setting(proc: Path, name: str) -> int:
    """Raises:  FileNotFoundError, where /proc has no sys (subset=pid)."""
    return int((proc / "sys/vm" / name).read_bytes())


def read_vm_settings(proc: Path) -> VmSettings:
    return VmSettings(*(read_vm_setting(proc, name) for name in VmSettings._fields))


def parse_unfreed(raw: bytes) -> Unfreed:
    """Take from ``/proc/meminfo`` what belongs to no process alone.

    Units:   the file has KiB under the name "kB"; both are given in bytes.
    Source:  proc_meminfo(5); Hugetlb since Linux 4.20.
    """
    found = {name: int(kib) * 1024 for name, kib in _KIB.findall(raw)}
    return Unfreed(found.get(b"Hugetlb", 0), found.get(b"Shmem", 0))
