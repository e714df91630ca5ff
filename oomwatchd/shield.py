"""Shielding processes under rules from the killers that do not read oom_score_adj.

holds -> where each lives -> what is wanted (`policy.shielding`) -> marks, moves
"""

import heapq
import select
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from typing import Final

from oomwatchd.holds import Hold, Holds
from oomwatchd.identify import CGROUP_LIMIT_BYTES
from oomwatchd.kernel.cgroup import in_container, is_too_deep, unified_path, unit_cgroup
from oomwatchd.kernel.inotify import AttributeEvents
from oomwatchd.kernel.mark import CgroupFs
from oomwatchd.kernel.proc import ProcFs, read
from oomwatchd.ledger import Ledger
from oomwatchd.marks import Marks
from oomwatchd.model import Config
from oomwatchd.moves import Moves
from oomwatchd.policy.shielding import Lodging, is_to_be_moved, wanted_marks
from oomwatchd.population import Moment
from oomwatchd.record import Record
from oomwatchd.systemd.manager import Manager, Spawn

AGAIN_SECONDS: Final = (1.0, 10.0)
ROUND_SECONDS: Final = 120.0  # within which it is noticed that somebody has moved a process
# Who owns a cgroup can change its attributes all day: so many seconds pass between two looks.
ALARM_PAUSE_SECONDS: Final = 0.2
NEVER: Final = float("inf")
LOOKS_MAX: Final = 1024  # at memory.oom.group in one turn; 10 ms


class Shield:
    def __init__(
        self,
        cgroups: CgroupFs,
        proc: ProcFs,
        holds: Holds,
        ledger: Ledger,
        record: Record,
        save_ledger: Callable[[], None],
        spawn: Spawn | None,
        *,
        dry_run: bool,
    ) -> None:
        """*spawn* starts a worker that asks systemd; None: there is no asking it."""
        self._cgroups = cgroups
        self._proc = proc
        self._holds = holds
        self._events = AttributeEvents()
        self._marks = Marks(cgroups, ledger, record, save_ledger, self._events, dry_run=dry_run)
        self._lodgings: dict[int, Lodging] = {}
        self._residents: dict[str, set[int]] = {}  # by cgroup: pids
        self._killed_as_one: dict[str, bool] = {}  # by cgroup, as seen in this turn
        self._changed = True  # which cgroups have residents
        self._settled: set[str] = set()  # those that have some again
        self._again: list[tuple[float, int]] = []  # a heap: when to visit whom once more
        self._poll = select.epoll()
        self._poll.register(self._events, select.EPOLLIN)
        manager = Manager(self._poll, spawn) if spawn is not None and not dry_run else None
        self._moves = Moves(manager, record, dry_run=dry_run)
        self._listen_again_seconds = NEVER  # when the events are to be waited for again

    def fileno(self) -> int:
        """Readable when `tend` has something to do."""
        return self._poll.fileno()

    @property
    def due_seconds(self) -> float:
        """When to call `tend`, if nothing happens before."""
        return min(self._again[0][0] if self._again else NEVER, self._listen_again_seconds)

    @property
    def worker_failures(self) -> int:
        """How often a worker that asks systemd hung or broke."""
        return self._moves.failures

    def configure(self, config: Config) -> None:
        self._round_ratio = min(config.interval_seconds / ROUND_SECONDS, 1.0)

    def tend(self, now: Moment, *, scan: bool) -> None:
        """See what has changed, and shield those who need it; with a *scan*, look at all marks."""
        fresh = self._holds.take_changed()
        self._come_again(fresh, now)
        self._visit(fresh | self._due(now))
        if scan:
            self._visit(self._next_in_round() | self._displaced())
        self._visit(self._moves.tend(now.seconds))
        self._killed_as_one = {}
        if self._changed:
            self._changed = False
            one_of_each = (self._lodgings[min(pids)] for pids in self._residents.values())
            self._marks.keep(wanted_marks(one_of_each), now.seconds)
            self._marks.look_at(self._settled, now.seconds)  # others, perhaps, of the same name
            self._settled = set()
        self._hear_alarms(now)
        if scan:
            self._marks.check(now.seconds)

    def take_all_back(self, now: Moment) -> None:
        self._marks.take_all_back(now.seconds)

    def close(self) -> None:
        self._moves.close()
        self._poll.close()
        self._events.close()

    # -- where they live ---------------------------------------------------------------------------

    def _come_again(self, pids: Iterable[int], now: Moment) -> None:
        """A desktop puts what it starts into a scope of its own a moment later."""
        for pid in pids:
            for seconds in AGAIN_SECONDS:
                heapq.heappush(self._again, (now.seconds + seconds, pid))

    def _due(self, now: Moment) -> set[int]:
        due = set()
        while self._again and self._again[0][0] <= now.seconds:
            due.add(heapq.heappop(self._again)[1])
        return due

    def _next_in_round(self) -> set[int]:
        count = ceil(len(self._holds) * self._round_ratio)
        return {hold.id.pid for hold in self._holds.some("visit", count)}

    def _displaced(self) -> set[int]:
        """Those whose cgroup has turned out to be there no more."""
        vanished = self._marks.take_vanished()
        if not vanished:
            return set()
        self._changed = True
        return {pid for pid, one in self._lodgings.items() if one.cgroup in vanished}

    def _visit(self, pids: Iterable[int]) -> None:
        moved = []
        for pid in pids:
            if len(self._killed_as_one) >= LOOKS_MAX:
                heapq.heappush(self._again, (0.0, pid))  # at once, in the next turn
                continue
            hold = self._holds.get(pid)
            last, now = self._lodgings.get(pid), self._lodging(hold) if hold is not None else None
            if last != now:
                moved.append((pid, now))
                if last is not None:
                    self._move_out(pid, last)
        for pid, now in moved:  # after all have left, so that it is seen who was the last
            if now is not None:
                self._move_in(pid, now)

    def _move_out(self, pid: int, lodging: Lodging) -> None:
        del self._lodgings[pid]
        self._moves.drop(lodging.id)
        residents = self._residents[lodging.cgroup]
        residents.discard(pid)
        if not residents:
            del self._residents[lodging.cgroup]
            self._changed = True

    def _move_in(self, pid: int, lodging: Lodging) -> None:
        self._lodgings[pid] = lodging
        residents = self._residents.setdefault(lodging.cgroup, set())
        if not residents:
            self._settled.add(lodging.cgroup)
            self._changed = True
        residents.add(pid)
        if is_to_be_moved(lodging):
            self._moves.want(lodging)

    def _lodging(self, hold: Hold) -> Lodging | None:
        """Where the process lives, if it is to be shielded; containers' runtimes see to theirs, and
        who nests cgroups too deep does so to hinder us.
        """
        shield = hold.rule.shield
        if shield == "none":
            return None
        cgroup = whereabouts(hold, self._proc)
        if cgroup is None or is_too_deep(cgroup) or in_container(cgroup):
            return None
        return Lodging(hold.id, hold.rule.name, shield, cgroup, tuple(self._groups(cgroup)))

    def _groups(self, cgroup: str) -> Iterator[str]:
        """Those above it, in the same unit, that are killed as one, as far as it counts: whoever is
        to kill in the unit takes the uppermost within it, and looks no further down.
        """
        unit = above = unit_cgroup(cgroup)
        while above != cgroup:
            if self._is_killed_as_one(above):
                yield above
                if above != unit:
                    return
            end = cgroup.find("/", len(above) + 1)
            above = cgroup[:end] if end >= 0 else cgroup

    def _is_killed_as_one(self, cgroup: str) -> bool:
        if cgroup not in self._killed_as_one:
            self._killed_as_one[cgroup] = self._cgroups.is_killed_as_one(cgroup)
        return self._killed_as_one[cgroup]

    # -- being told --------------------------------------------------------------------------------

    def _hear_alarms(self, now: Moment) -> None:
        if self._listen_again_seconds <= now.seconds:
            self._listen_again_seconds = NEVER
            self._poll.register(self._events, select.EPOLLIN)
        if not self._lodgings:
            return  # nobody to be alarmed for
        if any(fd == self._events.fileno() for fd, _ in self._poll.poll(0)):
            self._marks.look_at_changed(now.seconds)
            self._poll.unregister(self._events)
            self._listen_again_seconds = now.seconds + ALARM_PAUSE_SECONDS


def whereabouts(hold: Hold, proc: ProcFs) -> str | None:
    """The cgroup that the process lives in; None if it has ended, or that cannot be told.

    It still is itself after its pid has been used to read of it, so what was read is its own.
    """
    try:
        raw = read(proc.directory, f"{hold.id.pid}/cgroup", CGROUP_LIMIT_BYTES)
        stat = hold.stat() or proc.stat(hold.id.pid)
    except OSError:  # gone; or ENAMETOOLONG, before Linux 6.8, where the path is longer than 4 KiB
        return None
    same = stat is not None and stat.start_ticks == hold.id.start_ticks
    return unified_path(raw) if same else None
