"""A /proc in a temporary directory, with what the kernel shows of processes as far as we read it.

A process can do here what it does in life: exec, take another name, end, and leave its pid to
another.  `at_each_open` lets a test step in between any two readings.

What differs from the kernel: a write replaces the file only because we open it with O_TRUNC, and a
descriptor on a file of a process that has ended still reads.
"""

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

BOOT_ID = "5c2f8f4e-8f5b-4a0e-9d0a-3f1f5ad0c0de"
PF_KTHREAD = 0x00200000
PF_EXITING = 0x00000004
SYSTEM_CGROUP = "0::/system.slice/cron.service\n"
STAT = (
    b"%d (%s) %s %d 1 %d 0 -1 %d 98 0 0 0 0 0 0 0 20 0 %d 0 %d 3133440 380 18446744073709551615"
    b" %d %d %d 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 %d %d %d %d %d %d %d 0\n"
)
STATUS = """\
Name:\t{name}
Umask:\t0022
State:\tS (sleeping)
Tgid:\t{pid}
Pid:\t{pid}
PPid:\t{parent}
Uid:\t{uid}\t{uid}\t{uid}\t{uid}
Gid:\t{uid}\t{uid}\t{uid}\t{uid}
Groups:\t4 24 27
VmPeak:\t    9000 kB
VmRSS:\t{resident:8} kB
RssAnon:\t{anon:8} kB
RssFile:\t       0 kB
RssShmem:\t{shmem:8} kB
VmPTE:\t      52 kB
VmSwap:\t{swap:8} kB
Threads:\t1
"""
MEMINFO = """\
MemTotal:       16384000 kB
MemFree:         8192000 kB
MemAvailable:   12288000 kB
Buffers:           10000 kB
SwapTotal:             0 kB
SwapFree:              0 kB
"""
PRESSURE = """\
some avg10={some:.2f} avg60=0.00 avg300=0.00 total=1500000
full avg10={full:.2f} avg60=0.00 avg300=0.00 total=500000
"""


@dataclass(frozen=True)
class Fake:
    """One process.  *program* stands for the addresses that the kernel picks anew at each exec."""

    pid: int
    comm: bytes = b"cat"
    arguments: tuple[bytes, ...] | None = None  # None: the name alone
    parent: int = 1
    session: int = 1
    start_ticks: int = 100
    uid: int = 1000
    cgroup: str = SYSTEM_CGROUP
    state: bytes = b"S"
    kernel_thread: bool = False
    exiting: bool = False  # its memory is being given back
    threads: int = 1
    program: int = 1
    anon_kib: int = 1000
    shmem_kib: int = 0
    swap_kib: int = 0

    def stat(self) -> bytes:
        flags = PF_KTHREAD if self.kernel_thread else 0x400000
        flags |= PF_EXITING if self.exiting else 0
        first, more = [0] * 3, [0] * 7
        if self.has_memory():
            first = [0x5500000000 + 4096 * self.program + i for i in range(3)]
            more = [0x7F00000000 + 4096 * self.program + i for i in range(7)]
        head = (self.pid, self.comm, self.state, self.parent, self.session, flags)
        return STAT % (*head, self.threads, self.start_ticks, *first, *more)

    def has_memory(self) -> bool:
        return not self.kernel_thread and not self.exiting and self.state not in b"ZX"

    def cmdline(self) -> bytes:
        if self.exiting:
            return b""
        arguments = (self.comm,) if self.arguments is None else self.arguments
        return b"".join(argument + b"\0" for argument in arguments)

    def status(self) -> str:
        told = STATUS.format(
            name=self.comm.decode("utf-8", "backslashreplace").replace("\n", "\\n"),
            pid=self.pid,
            parent=self.parent,
            uid=self.uid,
            resident=self.anon_kib + self.shmem_kib,
            anon=self.anon_kib,
            shmem=self.shmem_kib,
            swap=self.swap_kib,
        )
        sizes = ("Vm", "Rss") if self.exiting else ()
        return "".join(one for one in told.splitlines(keepends=True) if not one.startswith(sizes))


class FakeProc:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._processes: dict[int, Fake] = {}
        (root / "self").mkdir(parents=True)  # names that are no pids are passed over
        (root / "sys/kernel/random").mkdir(parents=True)
        (root / "sys/kernel/random/boot_id").write_text(f"{BOOT_ID}\n")
        (root / "meminfo").write_text(MEMINFO)

    def add(
        self,
        process: Fake,
        *,
        oom_score_adj: int = 0,
        exe: Path | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Let *process* appear at once, as one does in life, under an inode of its own."""
        directory = self.root / f"new-{process.pid}"
        directory.mkdir()
        self._processes[process.pid] = process
        self._write(directory, process)
        (directory / "oom_score_adj").write_text(f"{oom_score_adj}\n")
        (directory / "cgroup").write_text(process.cgroup)
        if exe is not None:
            (directory / "exe").symlink_to(exe)
        if cwd is not None:
            (directory / "cwd").symlink_to(cwd)
        last = self.root / str(process.pid)
        if last.exists():
            last.rename(self.root / "ended")
        directory.rename(last)
        shutil.rmtree(self.root / "ended", ignore_errors=True)

    def exec(self, pid: int, comm: bytes, arguments: tuple[bytes, ...] | None = None) -> None:
        """Run another program: other addresses, the same process."""
        last = self._processes[pid]
        self.change(replace(last, comm=comm, arguments=arguments, program=last.program + 1))

    def rename(self, pid: int, comm: bytes) -> None:
        """prctl(PR_SET_NAME)."""
        self.change(replace(self._processes[pid], comm=comm))

    def change(self, process: Fake) -> None:
        """Show *process* as it is now, in the files that it has had all along."""
        self._processes[process.pid] = process
        directory = self.root / str(process.pid)
        self._write(directory, process)
        (directory / "cgroup").write_text(process.cgroup)

    def exit(self, pid: int) -> None:
        shutil.rmtree(self.root / str(pid))
        del self._processes[pid]

    def reuse(self, process: Fake, *, oom_score_adj: int = 0) -> None:
        """Its pid goes to *process*, between two looks of ours."""
        self.add(process, oom_score_adj=oom_score_adj)

    def everybody_exits(self) -> None:
        for pid in list(self._processes):
            self.exit(pid)

    def oom_score_adj(self, pid: int) -> int:
        return int((self.root / str(pid) / "oom_score_adj").read_text())

    def set_oom_score_adj(self, pid: int, value: int) -> None:
        """Somebody else sets it."""
        (self.root / str(pid) / "oom_score_adj").write_text(f"{value}\n")

    def get(self, pid: int) -> Fake:
        return self._processes[pid]

    def pids(self) -> list[int]:
        return list(self._processes)

    def pressure(self, *, some: float = 0.0, full: float = 0.0) -> None:
        (self.root / "pressure").mkdir(exist_ok=True)
        (self.root / "pressure/memory").write_text(PRESSURE.format(some=some, full=full))

    def _write(self, directory: Path, process: Fake) -> None:
        (directory / "stat").write_bytes(process.stat())
        (directory / "cmdline").write_bytes(process.cmdline())
        (directory / "status").write_text(process.status())


# -- stepping in between two readings --------------------------------------------------------------

_listeners: list[Callable[[str], None]] = []
_busy = threading.local()


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: Python tells it of each file before it is opened; sys.addaudithook."""
    if not _listeners or event != "open" or getattr(_busy, "acts", False):
        return
    if isinstance(arguments[0], (str, bytes, os.PathLike)):
        _busy.acts = True
        try:
            _listeners[-1](os.fsdecode(arguments[0]))
        finally:
            _busy.acts = False


sys.addaudithook(_heard)  # for good, as it cannot be taken away again


@contextlib.contextmanager
def at_each_open(act: Callable[[str], None]) -> Iterator[None]:
    """Call *act* before each file that is opened, with its name; what it opens itself aside."""
    _listeners.append(act)
    try:
        yield
    finally:
        _listeners.remove(act)


@contextlib.contextmanager
def at_open_number(number: int, act: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Call *act* once, before the file that is opened as number *number*; tells whether it was."""
    opened = 0

    def count(_name: str) -> None:
        nonlocal opened
        opened += 1
        if opened == number:
            act()

    with at_each_open(count):
        yield lambda: opened >= number
