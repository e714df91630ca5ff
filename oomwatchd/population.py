"""The processes there are, what we know of each, and when to look at it again."""

import heapq
from collections.abc import Iterator, Set
from typing import Final, NamedTuple

from oomwatchd.holds import Holds
from oomwatchd.kernel.proc import Look, Stat
from oomwatchd.ledger import Ledger
from oomwatchd.model import ProcessId
from oomwatchd.policy.plan import Claim

# Every process is looked at within this time, whatever the interval.  One look takes three system
# calls, so at an interval of one second this is 0.1 calls per process and turn.
REVISIT_SECONDS: Final = 30.0
NEWBORN_SECONDS: Final = 1.0
NEWBORN_MAX: Final = 32
LONG_AGO: Final = float("-inf")


class Moment(NamedTuple):
    """One instant on two clocks."""

    seconds: float  # monotonic: our own appointments
    boot_seconds: float  # since boot, as start_ticks: the age of processes


class Known:
    """One process, from one look to the next."""

    __slots__ = (
        "claim", "due_seconds", "id", "parent_pid", "program", "since_boot_seconds", "visits",
    )  # fmt: skip

    def __init__(self, look: Look, claim: Claim | None, since_boot_seconds: float) -> None:
        self.id = look.id
        self.parent_pid = look.stat.parent_pid
        self.program: int | None = look.stat.program  # None: not known any more, to be read again
        self.since_boot_seconds = since_boot_seconds  # it has run this program
        self.claim = claim
        self.due_seconds = 0.0  # no date
        self.visits = look.id.pid  # so that not all have their full visit in the same turn

    def runs_on(self, stat: Stat) -> bool:
        """Whether it is the program that we know."""
        return self.id.start_ticks == stat.start_ticks and self.program == stat.program


class Population:
    def __init__(self, holds: Holds, ledger: Ledger, ticks_per_second: int) -> None:
        self.holds = holds
        self._ledger = ledger
        self._ticks_per_second = ticks_per_second
        self._known: dict[int, Known] = {}
        self._dates: list[tuple[float, ProcessId]] = []  # a heap; only the latest date counts

    def __len__(self) -> int:
        return len(self._known)

    def get(self, id: ProcessId) -> Known | None:
        known = self._known.get(id.pid)
        return known if known is not None and known.id == id else None

    def put(self, known: Known) -> Known:
        """Take *known* in, in place of whoever had its pid."""
        last = self._known.get(known.id.pid)
        if last is not None and last.id != known.id:
            self.forget(known.id.pid)
        self._known[known.id.pid] = known
        return known

    def forget(self, pid: int) -> None:
        """End what we had with the process that had this pid."""
        self.holds.drop(pid)
        known = self._known.pop(pid, None)
        if known is not None:
            self._ledger.forget(known.id)

    def parent_claim(self, parent_pid: int, child: ProcessId) -> Claim | None:
        known = self._known.get(parent_pid)
        if known is None or known.id.start_ticks > child.start_ticks:
            return None  # the pid is in use again: that one is not the parent
        return known.claim

    def children(self, parent_pids: Set[int]) -> list[int]:
        """The pids of all children of theirs that we know, the oldest first."""
        known = [one for one in self._known.values() if one.parent_pid in parent_pids]
        return [one.id.pid for one in sorted(known, key=lambda one: one.id.start_ticks)]

    def meet(self, look: Look, claim: Claim | None) -> Known:
        """Take in a process that we have not seen before."""
        started = look.id.start_ticks / self._ticks_per_second
        return self.put(Known(look, claim, started))

    def is_young(self, known: Known, now: Moment) -> bool:
        """Whether it may yet turn out to be something else.

        It may be a fork that has yet to exec, or a program that has yet to change its title, its
        user or its cgroup, none of which shows in the stat line.
        """
        return now.boot_seconds - known.since_boot_seconds < REVISIT_SECONDS

    def appoint(self, known: Known, now: Moment, wait_seconds: float = REVISIT_SECONDS) -> None:
        known.due_seconds = now.seconds + wait_seconds
        heapq.heappush(self._dates, (known.due_seconds, known.id))

    def appoint_by_age(self, known: Known, now: Moment) -> None:
        """A young process is looked at whenever its age has doubled."""
        age_seconds = max(now.boot_seconds - known.since_boot_seconds, 0.0)
        self.appoint(known, now, min(age_seconds, REVISIT_SECONDS))

    def settle(self, now: Moment) -> None:
        """After a look at everything: distribute the dates evenly over the time of one round.

        Who has started within the last second keeps its date, as the next moment may find it with
        another program; but not when there are many of them, as right after boot, or all would be
        looked at five times over.  Whom we have to ask again keeps its date, too.
        """
        dated = [known for known in self._known.values() if known.due_seconds]
        asked = [known for known in dated if known.program is not None]
        birth = now.boot_seconds - NEWBORN_SECONDS
        old = [known for known in asked if known.since_boot_seconds < birth]
        if len(asked) - len(old) > NEWBORN_MAX:
            old = asked
        for position, known in enumerate(old, start=1):
            known.since_boot_seconds = LONG_AGO
            known.due_seconds = now.seconds + REVISIT_SECONDS * position / len(old)
        self._dates = [(known.due_seconds, known.id) for known in dated]
        heapq.heapify(self._dates)

    def due(self, now: Moment) -> Iterator[Known]:
        """Take out those whose date has come; a date made in this turn never has."""
        while self._dates and self._dates[0][0] < now.seconds:
            due_seconds, id = heapq.heappop(self._dates)
            known = self.get(id)
            if known is not None and known.due_seconds == due_seconds:
                yield known
