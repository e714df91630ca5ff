"""Locking our own pages, each time in a process of its own: what is locked stays so."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parent.parent
IPC_LOCK: Final = 1 << 14  # CAP_IPC_LOCK; include/uapi/linux/capability.h
# Root without the capability; others have none anyway.
WITHOUT: Final = ["setpriv", "--bounding-set=-ipc_lock"] if os.geteuid() == 0 else []
PROGRAM: Final = """
import json, mmap, resource, sys, threading
from oomwatchd.kernel.memory import lock_memory

limit_bytes = int(sys.argv[1])
SIZE = 64 << 20

def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name + ":"))

def limit():
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)

resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit_bytes, limit()[1]))
before_limit = limit()
before = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
resident = memory("VmRSS")
try:
    lock_memory()
    error = 0
except OSError as failure:
    error = failure.errno
after = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
end = threading.Event()
threads = [threading.Thread(target=end.wait) for _ in range(8)]
for thread in threads:
    thread.start()
said = {
    "error": error,
    "limit_is_as_before": limit() == before_limit,
    "locked": memory("VmLck"),
    "grown": memory("VmRSS") - resident,
}
end.set()
said["used"] = len(bytes(SIZE).replace(b"\\0", b"1"))
print(json.dumps(said))
"""
MIB: Final = 1 << 20
LIMIT_BYTES: Final = 1 * MIB  # less than what is allocated afterwards


def locking(limit_bytes: int, *under: str) -> dict[str, int]:
    """What a process has to say that locks its memory, and then goes on to use more."""
    done = subprocess.run(
        [*under, sys.executable, "-c", PROGRAM, str(limit_bytes)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    said: dict[str, int] = json.loads(done.stdout)
    return said


def may_lock_anything() -> bool:
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    effective = int(status.partition("CapEff:\t")[2].partition("\n")[0], 16)
    whole = Path("/proc/self/uid_map").read_text(encoding="ascii").split()[2] == "4294967295"
    return bool(effective & IPC_LOCK) and whole


@pytest.mark.skipif(not may_lock_anything(), reason="needs CAP_IPC_LOCK")
@pytest.mark.parametrize("limit_bytes", [0, LIMIT_BYTES])
def test_what_is_or_comes_to_be_mapped_is_locked_and_what_is_not_used_costs_nothing(
    limit_bytes: int,
) -> None:
    said = locking(limit_bytes)

    assert (said["error"], said["limit_is_as_before"]) == (0, True)
    assert said["locked"] > 2 * 64 * MIB  # by its size, before it is used
    assert said["grown"] < 4 * MIB  # neither the 64 MiB twice nor eight stacks of 8 MiB
    assert said["used"] == 64 * MIB


@pytest.mark.parametrize("limit_bytes", [0, LIMIT_BYTES])
def test_who_is_bound_by_a_limit_locks_nothing_and_can_still_use_more_than_that(
    limit_bytes: int,
) -> None:
    said = locking(limit_bytes, *WITHOUT)

    assert (said["error"], said["limit_is_as_before"]) == (1, True)  # EPERM
    assert said["locked"] == 0
    assert said["used"] == 64 * MIB


def test_without_a_limit_nobody_needs_a_capability() -> None:
    """As under the shipped unit."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] != resource.RLIM_INFINITY:
        pytest.skip("the limit on locked memory may not be lifted here")

    assert locking(resource.RLIM_INFINITY, *WITHOUT)["error"] == 0
