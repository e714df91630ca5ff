"""The processes under rules: held by a descriptor each, checked for drift, and weighed."""

import os
import resource
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from oomwatchd.kernel.adjust import parse_adj
from oomwatchd.kernel.proc import READ, Look, Stat, parse_stat
from oomwatchd.kernel.status import Status
from oomwatchd.model import Rule, Tracked

REASSERT_LIMIT: Final = 3  # times within REASSERT_SECONDS, before we yield
REASSERT_SECONDS: Final = 60.0
GUARD_RELEASE_RATIO: Final = 0.8  # of the limit: below it, -1000 is given again
NOT_HELD: Final = -1
DESCRIPTORS_LEFT: Final = 256  # for everything else: looks, connections, the log
DESCRIPTORS_MAX: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - DESCRIPTORS_LEFT


class Hold:
    """One process under one rule."""

    __slots__ = (
        "adj_fd", "anon_bytes", "comm", "drifts", "id", "let_be", "now", "program",
        "resident_bytes", "rule", "shmem_bytes", "stat_fd", "swap_bytes", "unkillable", "wanted",
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
        for fd in (self.adj_fd, self.stat_fd):
            if fd != NOT_HELD:
                os.close(fd)
        self.adj_fd = self.stat_fd = NOT_HELD

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
        fd = os.open(name, READ, dir_fd=look.directory)
    except OSError:
        return NOT_HELD
    if fd < DESCRIPTORS_MAX:
        return fd
    os.close(fd)
    return NOT_HELD


class Holds:
    """All of them by pid, and a hand that goes round, so that a turn's work has a bound."""

    def __init__(self) -> None:
        self._holds: dict[int, Hold] = {}
        self._changed: set[int] | None = None  # None: nobody asks
        self._round: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def __iter__(self) -> Iterator[Hold]:
        return iter(self._holds.values())

    def get(self, pid: int) -> Hold | None:
        return self._holds.get(pid)

    def put(self, hold: Hold) -> None:
        self.drop(hold.id.pid)
        self._holds[hold.id.pid] = hold
        if self._changed is not None:
            self._changed.add(hold.id.pid)

    def drop(self, pid: int) -> None:
        hold = self._holds.pop(pid, None)
        if hold is not None:
            hold.close()
            if self._changed is not None:
                self._changed.add(pid)

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


def guarded(held_bytes: int, limit_bytes: int, *, tripped: bool) -> bool:
    """Whether -1000 has to be suspended."""
    limit = limit_bytes * GUARD_RELEASE_RATIO if tripped else limit_bytes
    return held_bytes > limit
