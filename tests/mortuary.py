"""A coroner over a fake /proc and a log that a test writes, with a clock turned by hand."""

import errno
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakeproc import BOOT_ID, FakeProc
from kernellog import DATA, NOWHERE, raw
from stage import PATIENCE_SECONDS, at

from oomwatchd.coroner import Coroner, Sources
from oomwatchd.history import History
from oomwatchd.identify import SlowReader
from oomwatchd.incident import Incident
from oomwatchd.incidents import Incidents, entries
from oomwatchd.kernel.counters import OomKills
from oomwatchd.kernel.kmsg import KernelLog
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import Config, Gone, IncidentSettings, Level, ProcessId, Tracked
from oomwatchd.policy.plan import Claim
from oomwatchd.policy.remembered import Remembered
from oomwatchd.population import Moment
from oomwatchd.record import Kept, Record
from oomwatchd.sampler import Sampler
from oomwatchd.systemd.bus import OomdSignals
from oomwatchd.systemd.entries import JournalEntries

RAM_PAGE_BYTES = 4096
STARTED_UNIX_SECONDS = 1_800_000_000.0
NOBODY_PID = 2**22 + 1  # above the highest pid there can be: the sampler's own
LONG_ENOUGH_SECONDS = 10  # for every case to settle


def capture(name: str) -> list[bytes]:
    return (DATA / f"{name}.kmsg").read_bytes().splitlines(keepends=True)


def bare_kill(number: int, pid: int, *, priority: int = 3) -> bytes:
    """All that the kernel writes of a kill when there were many just before."""
    sizes = b"total-vm:9000kB, anon-rss:8000kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:9kB"
    text = b"Out of memory: Killed process %d (hog) %s oom_score_adj:0" % (pid, sizes)
    return raw(number, text, priority=priority)


def coroner_over(
    proc: ProcFs,
    state: Path,
    log: deque[bytes | int],
    incidents: Incidents,
    record: Record,
    oomd: OomdSignals | None = None,
    journal: JournalEntries | None = None,
    remembered: Remembered | None = None,
) -> Coroner:
    """*log*: what has not been read of the kernel's, errors among it."""

    def read(_fd: int, _size: int) -> bytes:
        answer = log.popleft() if log else errno.EAGAIN
        if isinstance(answer, int):
            raise OSError(answer, "as told")
        return answer

    history, cgroup_root = History(600.0), state / "cgroup"
    sampler = Sampler(proc, history, SlowReader(), cgroup_root=cgroup_root, our_pid=NOBODY_PID)
    sources = Sources(KernelLog(NOWHERE, read=read), OomKills(proc.root), oomd, journal)
    return Coroner(
        sources, history, sampler, incidents, record, BOOT_ID,
        page_bytes=RAM_PAGE_BYTES, remembered=remembered,
    )  # fmt: skip


def set_kills(fake: FakeProc, count: int) -> None:
    (fake.root / "vmstat").write_text(f"nr_free_pages 7\noom_kill {count}\n")


class HungDisk(Incidents):
    """It answers only when it is let go."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, keep=9)
        self.asked, self.go = threading.Event(), threading.Event()
        self.in_time = False

    def write(self, incident: Incident) -> Incident:
        self.asked.set()
        self.in_time = self.go.wait(PATIENCE_SECONDS)
        return super().write(incident)


class Mortuary:
    def __init__(
        self,
        fake: FakeProc,
        state: Path,
        *,
        keep: int = 200,
        incidents: Incidents | None = None,
        bus: Path | None = None,
        journalctl: Path | None = None,
    ) -> None:
        self.fake = fake
        self.directory, self.cgroup_root = state / "incidents", state / "cgroup"
        self.state = state
        self.keep = keep
        self._incidents = incidents
        self._bus = bus
        self._journalctl = journalctl
        self.seconds = 0.0
        self.log: deque[bytes | int] = deque()  # what has not been read of it, errors among it
        self.tracked: list[Tracked] = []
        self.met = 0
        self.claims: list[tuple[ProcessId, Claim]] = []  # that the daemon before has left
        self.deaf = True  # no news of processes: who is gone may have been killed, or not
        self.set_kills(0)
        self.start()

    def start(self, log: Iterator[bytes] | None = None) -> None:
        """A daemon starts, and finds *log*."""
        self._stopped = False
        self.log = deque(log or ())
        self.record = Record()
        incidents = self._incidents or Incidents(self.directory, keep=self.keep)
        self.proc = ProcFs(self.fake.root)
        self.oomd = OomdSignals(self._bus) if self._bus is not None else None
        self.journal = None
        if self._journalctl is not None:
            self.journal = JournalEntries(self._journalctl, self.unix_seconds)
        self.coroner = coroner_over(
            self.proc, self.state, self.log, incidents, self.record, self.oomd, self.journal,
            Remembered(self.claims),
        )  # fmt: skip
        self.coroner.configure(Config(incidents=IncidentSettings(keep=self.keep)))
        self.turn()

    def set_kills(self, count: int) -> None:
        set_kills(self.fake, count)

    def now(self) -> Moment:
        return at(self.seconds).now

    def unix_seconds(self) -> float:
        return STARTED_UNIX_SECONDS + self.seconds

    def turn(
        self,
        *answers: bytes | int,
        after_seconds: float = 0.0,
        told: bool = False,
        killed: tuple[int, ...] = (),
        level: Level = "ok",
    ) -> list[Kept]:
        """One turn of the loop, woken by what the kernel has logged, or else the bus has to say;
        or as somebody was *killed*, whom nobody follows.
        """
        self.seconds += after_seconds
        self.log.extend(answers)
        self.coroner.bury((), killed, self.now(), deaf=self.deaf)
        return self.coroner.tend(
            self.now(),
            level,
            None,
            list(self.tracked),
            met=self.met,
            logged=bool(answers),
            told=told,
        )

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.turn(after_seconds=1.0)

    def follow(self, pid: int, rule: str, **fields: Any) -> Tracked:
        """A process of the fake /proc comes under a rule."""
        process = self.fake.get(pid)
        tracked = Tracked(
            ProcessId(pid, process.start_ticks), process.comm.decode(), rule, -900, -900,
            process.anon_kib << 10, 0,
        )._replace(**fields)  # fmt: skip
        self.tracked.append(tracked)
        self.met += 1
        self.turn(after_seconds=20.0)
        return tracked

    def bury(self, *ended: Tracked, killed: tuple[int, ...] = ()) -> None:
        """They are gone; *killed*: by SIGKILL, whoever sent it."""
        self.tracked = [one for one in self.tracked if one not in ended]
        for one in ended:
            self.fake.exit(one.id.pid)
        gone = [Gone(one, late=False) for one in ended]
        self.coroner.bury(gone, killed, self.now(), deaf=self.deaf)

    def end(self) -> list[Kept]:
        """The daemon stops; what it has told of that nobody has heard yet."""
        if self._stopped:
            return []
        self._stopped = True
        told = self.coroner.close(self.now())
        self.proc.close()
        return told

    def settle(self) -> list[Kept]:
        """Time passes until every case is closed, and the daemon stops."""
        told = [one for _ in range(LONG_ENOUGH_SECONDS) for one in self.turn(after_seconds=1.0)]
        return told + self.end()

    def restart(self, log: list[bytes]) -> list[Kept]:
        """The daemon stops, and another one finds *log*; what that one tells of."""
        self.end()
        self.start(iter(log))
        return self.settle()

    def written(self) -> list[Incident]:
        """What is on disk, the oldest first."""
        if not self.directory.is_dir():
            return []
        found = [entry.incident for entry in entries(self.directory)]
        assert None not in found
        return [one for one in reversed(found) if one is not None]
