#!/usr/bin/python3
"""Runs out of memory in many ways, and keeps what the kernel says of each, as /dev/kmsg gives it.

    python3 oomcases.py DIRECTORY [CASE...]

Writes DIRECTORY/CASE.kmsg, and prints each case with the number of kills that the kernel counts.
Cases that this machine cannot have are left out: some need cgroup v2, some two memory nodes.
"""

import argparse
import contextlib
import ctypes
import errno
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
V2 = (CGROUPS / "cgroup.controllers").exists()
ROOT = CGROUPS / "oomcases" if V2 else CGROUPS / "memory/oomcases"
LIMIT = "memory.max" if V2 else "memory.limit_in_bytes"
SWAP_FILE = Path("/root/oomcases.swap")
THERE_AT_ONCE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
PR_SET_NAME = 15
EXIT = 60  # the system call's number on x86-64
SET_MEMPOLICY = 238
MPOL_BIND = 2
MIB = 1 << 20
libc = ctypes.CDLL(None)
CASES: dict[str, Callable[[], object]] = {}


def case(function: Callable[[], object]) -> Callable[[], object]:
    CASES[function.__name__.replace("_", "-")] = function
    return function


def write(path: Path, text: object) -> None:
    path.write_text(str(text))


def cgroup(name: str, limit_mib: int | None = None) -> Path:
    path = ROOT / name
    path.mkdir(parents=True)
    if V2:
        for parent in [ROOT, *(ROOT / part for part in list(path.relative_to(ROOT).parents)[::-1])]:
            write(parent / "cgroup.subtree_control", "+memory")
        with contextlib.suppress(FileNotFoundError):
            write(path / "memory.swap.max", 0)
    if limit_mib is not None:
        write(path / LIMIT, limit_mib * MIB)
    return path


def start(
    work: Callable[[], object], inside: Path | None = None, comm: bytes = b"hog", adj: int = 0
) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        write(Path("/proc/self/oom_score_adj"), adj)
        if inside is not None:
            write(inside / "cgroup.procs", os.getpid())
        libc.prctl(PR_SET_NAME, comm, 0, 0, 0)
        work()
    finally:
        os._exit(1)


def hold(mib: int) -> Callable[[], None]:
    def work() -> None:
        block = mmap.mmap(-1, mib * MIB, flags=THERE_AT_ONCE)
        while block:
            time.sleep(60)

    return work


def grow() -> None:
    blocks = []
    while True:
        blocks.append(mmap.mmap(-1, MIB, flags=THERE_AT_ONCE))


def grow_without_leader() -> None:
    """The first thread ends; the one that the kernel finds with memory is another."""
    threading.Thread(target=grow).start()
    libc.syscall(EXIT, 0)  # of this thread alone


def in_limit(
    comm: bytes = b"hog", name: str = "job", adj: int = 0, work: Callable[[], object] = grow
) -> None:
    os.waitpid(start(work, cgroup(name, 24), comm, adj), 0)


@case
def own_limit() -> None:
    in_limit(adj=300)


@case
def ancestor_limit() -> None:
    cgroup("parent", 32)
    inside = cgroup("parent/child")
    other = start(hold(8), inside, b"bystander", -500)
    os.waitpid(start(grow, inside), 0)
    end(other)


@case
def name_with_total_vm() -> None:
    in_limit(b") total-vm:1kB,")


@case
def name_with_task_and_pid() -> None:
    in_limit(b"x,task=y,pid=1")


@case
def name_with_line_break() -> None:
    in_limit(b"a\nKilled process")


@case
def name_not_utf8() -> None:
    in_limit(b"\xff\xc3( \\x0a\t")


@case
def name_of_spaces_and_numbers() -> None:
    in_limit(b"  12 -5 7 ")


@case
def cgroup_that_names_another() -> None:
    in_limit(name="x,task_memcg=/system.slice/ssh.service,task=sshd,pid=1,uid=0")


@case
def group() -> None:
    if V2:
        inside = cgroup("job", 48)
        write(inside / "memory.oom.group", 1)
        others = [
            start(hold(8), inside, b"worker one", 0),
            start(hold(8), inside, b"spared", -1000),
        ]
        time.sleep(0.5)
        os.waitpid(start(grow, inside, b"leader"), 0)
        end(*others)


@case
def leader_gone() -> None:
    in_limit(work=grow_without_leader)


@case
def nobody_killable() -> None:
    inside = cgroup("job", 16)
    hog = start(grow, inside, adj=-1000)
    time.sleep(1.0)
    end(hog)


@case
def no_task_table() -> None:
    with sysctl("vm/oom_dump_tasks", 0):
        in_limit()


@case
def many_at_once() -> None:
    """More than the ten full reports in five seconds that the kernel allows itself."""
    inside = cgroup("job", 16)
    for _ in range(14):
        os.waitpid(start(grow, inside), 0)


@case
def swap_used() -> None:
    if V2:
        with swap():
            inside = cgroup("job", 24)
            write(inside / "memory.swap.max", 16 * MIB)
            os.waitpid(start(grow, inside), 0)


@case
def whole_machine() -> None:
    os.waitpid(start(grow), 0)


@case
def whole_machine_with_swap() -> None:
    with swap():
        os.waitpid(start(grow), 0)


@case
def whoever_asks() -> None:
    with everybody_else_spared(), sysctl("vm/oom_kill_allocating_task", 1):
        os.waitpid(start(grow), 0)


@case
def by_sysrq() -> None:
    hog = start(hold(64), adj=1000)
    time.sleep(1.0)
    write(Path("/proc/sysrq-trigger"), "f")
    os.waitpid(hog, 0)


@case
def memory_policy() -> None:
    if two_nodes():
        os.waitpid(start(grow_on_node_1), 0)


@case
def cpuset() -> None:
    if two_nodes():
        if V2:
            write(CGROUPS / "cgroup.subtree_control", "+cpuset")
            ROOT.mkdir()
            write(ROOT / "cgroup.subtree_control", "+cpuset")
        inside = (ROOT if V2 else CGROUPS / "cpuset") / "near"
        inside.mkdir()
        write(inside / "cpuset.cpus", 0)
        write(inside / "cpuset.mems", 1)
        os.waitpid(start(grow, inside), 0)
        inside.rmdir()


def two_nodes() -> bool:
    return Path("/sys/devices/system/node/node1").exists()


def grow_on_node_1() -> None:
    libc.syscall(SET_MEMPOLICY, MPOL_BIND, ctypes.byref(ctypes.c_ulong(1 << 1)), 64)
    grow()


@contextlib.contextmanager
def sysctl(name: str, value: int) -> Iterator[None]:
    path = Path("/proc/sys", name)
    before = path.read_text()
    write(path, value)
    yield
    write(path, before)


@contextlib.contextmanager
def everybody_else_spared() -> Iterator[None]:
    """What we are run and talked to through may well ask for memory just then, and be killed."""
    before = {}
    for path in Path("/proc").glob("[0-9]*/oom_score_adj"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            before[path] = path.read_text()
            write(path, -1000)
    yield
    for path, value in before.items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            write(path, value)


@contextlib.contextmanager
def swap() -> Iterator[None]:
    if not SWAP_FILE.exists():
        os.system(f"dd if=/dev/zero of={SWAP_FILE} bs=1M count=64; chmod 600 {SWAP_FILE}")  # noqa: S605 -- in a machine of its own
        os.system(f"mkswap {SWAP_FILE}")  # noqa: S605 -- the same
    os.system(f"swapon {SWAP_FILE}")  # noqa: S605 -- the same
    yield
    os.system(f"swapoff {SWAP_FILE}")  # noqa: S605 -- the same


def end(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def remove_cgroups() -> None:
    for path, _, _ in os.walk(ROOT, topdown=False):
        os.rmdir(path)


def oom_kills() -> int:
    """How many the kernel has killed since boot, by its own count."""
    text = Path("/proc/vmstat").read_text()
    return int(text.partition("\noom_kill ")[2].split()[0])


def records(log: int) -> Iterator[bytes]:
    """Until there has been none for three seconds: the reaper waits for two."""
    last = time.monotonic()
    while time.monotonic() < last + 3.0:
        try:
            yield os.read(log, 8192)
            last = time.monotonic()
        except BlockingIOError:
            time.sleep(0.1)
        except BrokenPipeError:
            yield b"# records lost\n"
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("cases", nargs="*")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    write(Path("/proc/self/oom_score_adj"), -1000)
    write(Path("/proc/sys/kernel/printk"), "1 4 1 7")  # nothing on the slow serial console
    for name, run in CASES.items():
        if arguments.cases and name not in arguments.cases:
            continue
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(log, 0, os.SEEK_END)
        before = oom_kills()
        run()
        kept = b"".join(records(log))
        os.close(log)
        remove_cgroups()
        if kept:
            (arguments.directory / f"{name}.kmsg").write_bytes(kept)
        sys.stdout.write(f"{name} {oom_kills() - before}\n")


if __name__ == "__main__":
    main()
