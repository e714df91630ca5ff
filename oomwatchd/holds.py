"""The processes under rules: held by descriptors, checked for drift, and weighed."""

import os
import resource
import select
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from oomwatchd.kernel.adjust import parse_adj
from oomwatchd.kernel.proc import READ, Look, Stat, parse_stat
from oomwatchd.kernel.status import Status, StatusFile
from oomwatchd.model import OOM_SCORE_ADJ_MIN, Rule, Tracked

REASSERT_LIMIT: Final = 3  # times within REASSERT_SECONDS, before we yield
REASSERT_SECONDS: Final = 60.0
GUARD_RELEASE_RATIO: Final = 0.8  # of the limit: below it, -1000 is given again
NOT_HELD: Final = -1
ENDED_MAX: Final = 1024  # told of at one time; the rest at the next
DESCRIPTORS_LEFT: Final = 256  # for everything else: looks, connections, the log
DESCRIPTORS_MAX: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - DESCRIPTORS_LEFT


class Hold:
    """One process under one rule."""

    __slots__ = (
        "adj_fd", "anon_bytes", "comm", "drifts", "id", "let_be", "now", "pidfd", "program",
        "resident_bytes", "rule", "shmem_bytes", "stat_fd", "status_file", "swap_bytes",
        "unkillable", "wanted",
    )  # fmt: skip

    def __init__(self, look: Look, comm: str, rule: Rule) -> None:
        self.id = look.id
        self.program = look.stat.program
        self.comm = comm
        self.rule = rule
        self.wanted = self.now = 0
        self.unkillable = False  # the rule wants -1000, whether or not the guard lets it
        self.let_be = False  # write no more to it, until it runs another program
        self.adj_fd = held(look, "oom_score_adj")
        self.stat_fd = held(look, "stat")
        self.status_file: StatusFile | None = None  # of a few; see `Watch._weigh`
        self.pidfd = pidfd_held(look)
        self.resident_bytes = self.anon_bytes = self.shmem_bytes = self.swap_bytes = 0
        self.drifts: deque[float] = deque(maxlen=REASSERT_LIMIT)

    def is_for(self, look: Look, rule: Rule) -> bool:
        """Whether it is still the same program under the same rule."""
        return (self.id, self.program) == (look.id, look.stat.program) and self.rule == rule

    def weigh(self, status: Status) -> None:
        self.resident_bytes = status.resident_bytes
        self.anon_bytes = status.rss_anon_bytes
        self.shmem_bytes = status.rss_shmem_bytes
        self.swap_bytes = status.swap_bytes

    def value(self) -> int:
        """The value now; raises ProcessLookupError if the process has ended."""
        return self.now if self.adj_fd == NOT_HELD else parse_adj(os.pread(self.adj_fd, 16, 0))

    def stat(self) -> Stat | None:
        """Its stat line now; None if it is not held.  Raises ProcessLookupError as well."""
        return None if self.stat_fd == NOT_HELD else parse_stat(os.pread(self.stat_fd, 4096, 0))

    def has_drifted(self, value: int, now_seconds: float) -> bool:
        """Take note of the value as it is now; whether somebody else has changed it."""
        if value == self.now:
            return False
        self.now = value
        if value == self.wanted:
            return False
        self.let_be = self.let_be or not self.may_reassert(now_seconds)
        return True

    def may_reassert(self, now_seconds: float) -> bool:
        """Whether the rule and the limit let us write our value once more; if so, it counts."""
        if self.rule.drift == "yield":
            return False
        if len(self.drifts) == REASSERT_LIMIT and now_seconds - self.drifts[0] < REASSERT_SECONDS:
            return False
        self.drifts.append(now_seconds)
        return True

    def close(self) -> None:
        self.adj_fd, self.stat_fd, self.pidfd = map(closed, (self.adj_fd, self.stat_fd, self.pidfd))
        if self.status_file is not None:
            self.status_file.close()
            self.status_file = None

    def tracked(self) -> Tracked:
        return Tracked(
            self.id, self.comm, self.rule.name, self.wanted, self.now,
            self.resident_bytes, self.swap_bytes,
        )  # fmt: skip


def held(look: Look, name: str) -> int:
    """A descriptor on a file of the process, which is read in one call where opening takes three.

    NOT_HELD, when it has just ended, or when descriptors are about to run out.
    """
    try:
        return spared(os.open(name, READ, dir_fd=look.directory))
    except OSError:
        return NOT_HELD


def pidfd_held(look: Look) -> int:
    """A descriptor that tells of its end.  NOT_HELD as above, and before Linux 5.3."""
    try:
        return spared(look.pidfd())
    except OSError:
        return NOT_HELD


def spared(fd: int) -> int:
    """*fd*, if enough are left for everything else."""
    return fd if fd < DESCRIPTORS_MAX else closed(fd)


def closed(fd: int) -> int:
    if fd != NOT_HELD:
        os.close(fd)
    return NOT_HELD


class Holds:
    """All of them by pid, and a hand that goes round, so that a turn's work has a bound."""

    def __init__(self) -> None:
        self.met = 0  # how many there have been since the start
        self._holds: dict[int, Hold] = {}
        self._changed: set[int] | None = None  # None: nobody asks
        self._ends = select.epoll()
        self._by_pidfd: dict[int, int] = {}
        self._round: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def __iter__(self) -> Iterator[Hold]:
        return iter(self._holds.values())

    def get(self, pid: int) -> Hold | None:
        return self._holds.get(pid)

    def close(self) -> None:
        for pid in list(self._holds):
            self.drop(pid)
        self._ends.close()

    def fileno(self) -> int:
        """Readable while `ended` has something to tell."""
        return self._ends.fileno()

    def ended(self) -> list[int]:
        """The pids of those that have ended, of very many the first; each is told once."""
        return [self._by_pidfd[fd] for fd, _ in self._ends.poll(0, ENDED_MAX)]

    def put(self, hold: Hold) -> None:
        self.drop(hold.id.pid)
        self._holds[hold.id.pid] = hold
        self.met += 1
        if self._changed is not None:
            self._changed.add(hold.id.pid)
        if hold.pidfd == NOT_HELD:
            return
        try:
            self._ends.register(hold.pidfd, select.EPOLLIN | select.EPOLLONESHOT)
        except OSError:  # ENOSPC: fs.epoll.max_user_watches
            hold.pidfd = closed(hold.pidfd)
        else:
            self._by_pidfd[hold.pidfd] = hold.id.pid

    def drop(self, pid: int) -> None:
        hold = self._holds.pop(pid, None)
        if hold is None:
            return
        if self._changed is not None:
            self._changed.add(pid)
        if self._by_pidfd.pop(hold.pidfd, None) is not None:
            self._ends.unregister(hold.pidfd)
        hold.close()

    def take_changed(self) -> set[int]:
        """The pids whose hold is another, or none any more, since the last call; at first, all."""
        changed, self._changed = self._changed, set()
        return set(self._holds) if changed is None else changed

    def some(self, hand: str, count: int) -> list[Hold]:
        """The next *count* of them, round and round; each *hand* goes its own way."""
        if len(self._holds) <= count:
            return list(self._holds.values())
        left = self._round.get(hand) or list(self._holds)
        self._round[hand] = left[count:]
        return [self._holds[pid] for pid in left[:count] if pid in self._holds]


def unkillable_bytes(holds: Iterable[Hold]) -> int:
    """The memory of those at -1000, which no kill can free: private, swapped out, and shared.

    Shared memory is counted once for all, as the largest: it is mapped by many and exists once.
    """
    private = shared = 0
    for one in holds:
        if one.unkillable:
            private += one.anon_bytes + one.swap_bytes
            shared = max(shared, one.shmem_bytes)
    return private + shared


def still_unkillable(holds: Iterable[Hold]) -> list[int]:
    """The pids of those who have -1000 from us; not of those whom somebody else keeps there."""
    return [
        one.id.pid
        for one in holds
        if one.unkillable and one.now == OOM_SCORE_ADJ_MIN and not one.let_be
    ]


def guarded(held_bytes: int, limit_bytes: int, *, tripped: bool) -> bool:
    """Whether -1000 has to be suspended."""
    limit = limit_bytes * GUARD_RELEASE_RATIO if tripped else limit_bytes
    return held_bytes > limit
