"""The processes there are, what we know of each, and when to look at it again."""

import heapq
from collections.abc import Iterator, Sequence, Set
from typing import Final, NamedTuple

from oomwatchd.holds import NOT_HELD, Holds
from oomwatchd.kernel.proc import Look, Stat
from oomwatchd.ledger import Ledger
from oomwatchd.matching import Answer
from oomwatchd.model import Gone, ProcessId
from oomwatchd.policy.plan import Claim

# Every process is looked at within this time, whatever the interval.  One look takes three system
# calls, so at an interval of one second this is 0.1 calls per process and turn.
REVISIT_SECONDS: Final = 30.0
# But where the kernel tells of each new program, name and owner, looking is for what shows in no
# event (a title, a cgroup), and need not cost more on a large machine than on a small one.
REVISITS_PER_SECOND: Final = 7
FULL_TOGETHER: Final = 8
YOUNG_SECONDS: Final = 30.0
FIRST_AGAIN_SECONDS: Final = 0.5  # a program that gives itself a title has done so by then, or
AGAIN_FACTOR: Final = 4  # when it is so many times as old: at 0.5, 2 and 8 s
ASK_AGAIN_SECONDS: Final = 1.0
NEWBORN_SECONDS: Final = 1.0
NEWBORN_MAX: Final = 32
LONG_AGO: Final = float("-inf")
NEVER: Final = float("inf")
STALE_MAX: Final = 1000  # dates that count no more, beside as many as there are processes


class Moment(NamedTuple):
    """One instant on two clocks."""

    seconds: float  # monotonic: our own appointments
    boot_seconds: float  # since boot, as start_ticks: the age of processes


class Known:
    """One process, from one look to the next."""

    __slots__ = (
        "answer", "claim", "due_seconds", "id", "parent_pid", "program", "since_boot_seconds",
        "visits",
    )  # fmt: skip

    def __init__(self, look: Look, claim: Claim | None, since_boot_seconds: float) -> None:
        self.id = look.id
        self.parent_pid = look.stat.parent_pid
        self.program: int | None = look.stat.program  # None: not known any more, to be read again
        self.since_boot_seconds = since_boot_seconds  # it has run this program
        self.claim = claim
        self.answer: Answer | None = None
        self.due_seconds = 0.0  # no date
        # Not all have their full visit in the same turn, but some have, as it costs them less.
        self.visits = look.id.pid // FULL_TOGETHER

    def runs_on(self, stat: Stat) -> bool:
        """Whether it is the program that we know."""
        return self.id.start_ticks == stat.start_ticks and self.program == stat.program


class Population:
    def __init__(self, holds: Holds, ledger: Ledger, ticks_per_second: int) -> None:
        self.holds = holds
        self._ledger = ledger
        self._ticks_per_second = ticks_per_second
        self._known: dict[int, Known] = {}
        self._gone: list[Gone] = []
        self.told = False  # whether the kernel tells us of each new program
        self.list_seconds = NEVER  # when /proc is to be listed out of turn
        self._dates = Dates()
        self._soon = Dates()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def dates(self) -> int:
        """How many are kept, those among them that count no more."""
        return len(self._dates) + len(self._soon)

    def get(self, id: ProcessId) -> Known | None:
        known = self._known.get(id.pid)
        return known if known is not None and known.id == id else None

    def at(self, pid: int) -> Known | None:
        """Whom we know by that pid; it may be another's by now."""
        return self._known.get(pid)

    def put(self, known: Known) -> Known:
        """Take *known* in, in place of whoever had its pid."""
        last = self._known.get(known.id.pid)
        if last is not None and last.id != known.id:
            self.forget(known.id.pid)
        self._known[known.id.pid] = known
        return known

    def forget(self, pid: int) -> None:
        """End what we had with the process that had this pid."""
        hold = self.holds.get(pid)
        if hold is not None:
            self._gone.append(Gone(hold.tracked(), late=hold.pidfd == NOT_HELD))
        self.holds.drop(pid)
        known = self._known.pop(pid, None)
        if known is not None:
            self._ledger.forget(known.id)

    def take_gone(self) -> list[Gone]:
        """Those under rules who have ended since the last call, as they were last seen."""
        gone, self._gone = self._gone, []
        return gone

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

    def met(self, look: Look, claim: Claim | None, now: Moment) -> Known:
        """What we know of the process, with the program that it runs now, and its next date."""
        known = self.get(look.id)
        if known is None:
            known = self.meet(look, claim)
        elif known.program != look.stat.program:
            known.program = look.stat.program
            known.since_boot_seconds = now.boot_seconds
        known.parent_pid = look.stat.parent_pid
        self.appoint_by_age(known, now)
        return known

    def is_judged(self, pid: int) -> bool:
        """Whether it was there for long enough to ask the rules about it."""
        known = self._known.get(pid)
        return known is not None and known.answer is not None

    def is_young(self, known: Known, now: Moment) -> bool:
        """Whether it may yet turn out to be something else.

        It may be a fork that has yet to exec, or a program that has yet to change its title, its
        user or its cgroup, none of which shows in the stat line.
        """
        return now.boot_seconds - known.since_boot_seconds < YOUNG_SECONDS

    @property
    def round_seconds(self) -> float:
        """How long it takes until each has been looked at once more."""
        if not self.told:
            return REVISIT_SECONDS
        return max(REVISIT_SECONDS, len(self._known) / REVISITS_PER_SECOND)

    def appoint(self, known: Known, now: Moment, wait_seconds: float | None = None) -> None:
        """Look at it again in *wait_seconds*; if not given, in a round."""
        wait = self.round_seconds if wait_seconds is None else wait_seconds
        self._make(self._dates, known, now.seconds + wait)

    def put_off(self, known: Known, now: Moment) -> None:
        """What was to be read of it could not be read now: it has to be asked again, and soon."""
        known.program = None  # unknown, so that the next visit reads it all
        if self.told:
            self._make(self._soon, known, now.seconds + ASK_AGAIN_SECONDS)
        else:
            self.appoint(known, now, wait_seconds=0.0)

    def ask_again(self, look: Look, now: Moment) -> None:
        """What could not be read, or not be finished, is to be tried once more."""
        self.put_off(self.get(look.id) or self.meet(look, self._ledger.get(look.id)), now)

    def appoint_by_age(self, known: Known, now: Moment) -> None:
        """A young process is looked at soon again; the next time is the later the older it is.

        Where the kernel tells of programs, it is for their titles, and on time; else it is at a
        scan, whenever the age has doubled, for the exec that follows a fork as well.
        """
        age_seconds = max(now.boot_seconds - known.since_boot_seconds, 0.0)
        if not self.told:
            self.appoint(known, now, min(age_seconds, REVISIT_SECONDS))
            return
        first = age_seconds < FIRST_AGAIN_SECONDS
        next_age_seconds = FIRST_AGAIN_SECONDS if first else age_seconds * AGAIN_FACTOR
        if next_age_seconds < YOUNG_SECONDS:
            self._make(self._soon, known, now.seconds + next_age_seconds - age_seconds)
        else:
            self.appoint(known, now)

    def _make(self, dates: "Dates", known: Known, due_seconds: float) -> None:
        """Any user can have us look at his processes, and make new dates, all day long."""
        dates.make(known, due_seconds)
        if len(dates) > 2 * len(self._known) + STALE_MAX:
            dates.drop_stale(self)

    def settle(self, now: Moment) -> None:
        """After a look at everything: distribute the dates evenly over the time of one round.

        Who has started within the last second keeps its date, as the next moment may find it with
        another program; but not when there are many of them, as right after boot, or all would be
        looked at five times over.  Whom we have to ask again keeps its date, too.
        """
        asked = [known for known in self._dated() if known.program is not None]
        birth = now.boot_seconds - NEWBORN_SECONDS
        old = [known for known in asked if known.since_boot_seconds < birth]
        if len(asked) - len(old) > NEWBORN_MAX:
            old = asked
        for known in old:
            known.since_boot_seconds = LONG_AGO
        self._dates.spread(old, now.seconds, self.round_seconds)

    def doubt(self, now: Moment, within_seconds: float) -> None:
        """Something has been missed, and it may concern anybody: see all of them soon."""
        self._soon.spread(list(self._dated()), now.seconds, within_seconds)

    def _dated(self) -> Iterator[Known]:
        return (known for known in self._known.values() if known.due_seconds)

    @property
    def soon_seconds(self) -> float:
        """When the next of the young is to be looked at, if the kernel tells us of programs; or
        /proc to be listed out of turn.
        """
        return min(self._soon.first_seconds, self.list_seconds)

    def due_soon(self, now: Moment) -> Iterator[Known]:
        """Take out the young whose date has come."""
        return self._soon.due(now, self)

    def due(self, now: Moment) -> Iterator[Known]:
        """Take out all those whose date has come; a date made in this turn never has."""
        yield from self._soon.due(now, self)
        yield from self._dates.due(now, self)


Date = tuple[float, ProcessId]


class Dates:
    """When to look at whom; only the latest date made with somebody counts."""

    def __init__(self) -> None:
        self._heap: list[Date] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first_seconds(self) -> float:
        return self._heap[0][0] if self._heap else NEVER

    def make(self, known: Known, due_seconds: float) -> None:
        known.due_seconds = due_seconds
        heapq.heappush(self._heap, (due_seconds, known.id))

    def spread(self, all_of_them: Sequence[Known], now_seconds: float, over_seconds: float) -> None:
        """A date for each, evenly, in place of those they had."""
        ids = {known.id for known in all_of_them}
        self._heap = [date for date in self._heap if date[1] not in ids]
        for position, known in enumerate(all_of_them, start=1):
            known.due_seconds = now_seconds + over_seconds * position / len(all_of_them)
            self._heap.append((known.due_seconds, known.id))
        heapq.heapify(self._heap)

    def drop_stale(self, population: "Population") -> None:
        """Drop those that count no more, before they are due."""
        self._heap = [date for date in set(self._heap) if counts(date, population) is not None]
        heapq.heapify(self._heap)

    def due(self, now: Moment, population: "Population") -> Iterator[Known]:
        while self._heap and self._heap[0][0] < now.seconds:
            known = counts(heapq.heappop(self._heap), population)
            if known is not None:
                yield known


def counts(date: Date, population: Population) -> Known | None:
    """With whom it is, if it is the latest one made."""
    due_seconds, id = date
    known = population.get(id)
    return known if known is not None and known.due_seconds == due_seconds else None
