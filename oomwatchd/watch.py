"""One scan: whom to look at.

/proc is listed every time, and looked at are those who are new, those who are due (`population`),
and those whose value has drifted; never all.  What becomes of them is `enforce`'s part.

Between two scans, those are looked at of whom the kernel tells (`kernel.events`).
"""

import time
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Final

from oomwatchd.enforce import NOBODY, Enforcer
from oomwatchd.holds import Hold, guarded, still_unkillable, unkillable_bytes
from oomwatchd.kernel.proc import GONE, ProcFs, Stat
from oomwatchd.kernel.status import Status, StatusFile, read_status
from oomwatchd.ledger import Ledger
from oomwatchd.model import Config, Heard
from oomwatchd.population import LONG_AGO, NEVER, Known, Moment, Population
from oomwatchd.record import Guarded, Record

LISTING_SECONDS: Final = 10.0  # what /proc is listed after, even if nobody new has come
# The same, where the kernel tells of each new program: even if some have come, and if none has.
LISTING_BUSY_SECONDS: Final = 2.0
LISTING_IDLE_SECONDS: Final = 120.0
LISTING_RATIO: Final = 5000  # and so many times as long as it takes, where there are thousands
# The same, where somebody may have forked before we saw to it.
LISTING_SOON_SECONDS: Final = 0.25
LISTING_SOON_RATIO: Final = 200
HEARD_OF: Final = 0  # no inode: of whom the kernel told before a listing did
DOUBT_SECONDS: Final = 2.0  # in which all are looked at when something was missed
TRY_AGAIN_SECONDS: Final = 1.0
FULL_VISITS: Final = 10  # one visit in so many reads everything again
# Of the processes under rules, so many are checked and weighed in one second, so that the system
# calls stay in proportion to all processes however many are under rules.
CHECKS_RATIO: Final = 0.02  # of all processes
CHECKS_MIN: Final = 48
EVERY_TURN: Final = 0.0
EXECS_SECONDS: Final = 2.0  # for what they run each has its turn in this time, with as many at once
WEIGH_SECONDS: Final = 10.0  # and to be weighed in this, but for:
WEIGHINGS_RATIO: Final = 0.01  # of all processes
WEIGHINGS_MIN: Final = 16
STATUS_FILES_MAX: Final = 128  # descriptors; where there are more processes under rules, none


class Watch:
    def __init__(
        self,
        proc: ProcFs,
        population: Population,
        enforcer: Enforcer,
        ledger: Ledger,
        record: Record,
        *,
        ram_bytes: int,
    ) -> None:
        self.unkillable_bytes = 0
        self._listing: dict[str, int] = {}
        self._newest: int | None = None
        self._listed_seconds = LONG_AGO
        self._listing_cpu_seconds = 0.0
        self._try_again_seconds = LONG_AGO
        self._doubt_until_seconds = LONG_AGO
        self._proc = proc
        self._population = population
        self._enforcer = enforcer
        self._ledger = ledger
        self._record = record
        self._ram_bytes = ram_bytes

    def configure(self, config: Config) -> None:
        """Put *config* in force: the next scan looks at everything, as the first does."""
        self._config = config
        self._enforcer.matcher.configure(config)
        self._everything = True

    def scan(self, now: Moment) -> None:
        self._new_turn(now)
        self._enforcer.look_at(self._fresh(now), now)
        if self._everything:
            self._settle(now)
        self._enforcer.look_at(self._changed(self._population.due(now), now), now)
        self._enforcer.look_at(self._execed(), now)
        self._enforcer.set_again(self._drifted(now), now)
        self._weigh()
        self._guard(now)
        self._enforcer.save_ledger()  # who has ended is in it no more

    def hear(self, heard: Heard, now: Moment) -> None:
        """Look at those of whom the kernel has told."""
        self._new_turn(now)
        if heard.lost and now.seconds >= self._doubt_until_seconds:
            self._doubt_until_seconds = now.seconds + DOUBT_SECONDS
            self.forget_listing()
            self._population.doubt(now, DOUBT_SECONDS)
        met = self._population.holds.met
        self._look_at_heard(list(heard.pids), now, heard.pids)
        self._look_at_workers(heard.forks, now)
        if not all(map(self._population.is_judged, heard.pids)):
            self._list_soon(now)  # who has gone may have been a match, and has left children
        self._list_if_met(met, now)

    def _look_at_workers(self, forks: Iterable[tuple[int, int]], now: Moment) -> None:
        """Of *forks* (parent, child), see to those of matches; the children's own after that."""
        children: dict[int, list[int]] = {}
        for parent, child in forks:
            children.setdefault(parent, []).append(child)
        parents = list(children)
        while pids := [
            child
            for parent in parents
            if self._cares_for_forks(parent)
            for child in children.pop(parent, ())
        ]:
            self._look_at_heard(pids, now)
            parents = pids

    def _look_at_heard(
        self, pids: list[int], now: Moment, execed_ns: Mapping[int, int] = NOBODY
    ) -> None:
        self._listing.update((str(pid), HEARD_OF) for pid in pids)
        self._enforcer.look_at(pids, now, execed_ns)

    def _list_if_met(self, met: int, now: Moment) -> None:
        """Have /proc listed if there are more matches than the *met* ones.

        What they forked before we wrote to them has not inherited our value, and no event shows it.
        """
        if self._population.told and self._population.holds.met != met:
            self._list_soon(now)

    def _list_soon(self, now: Moment) -> None:
        wait_seconds = max(LISTING_SOON_SECONDS, self._listing_cpu_seconds * LISTING_SOON_RATIO)
        soon_seconds = max(now.seconds, self._listed_seconds + wait_seconds)
        self._population.list_seconds = min(self._population.list_seconds, soon_seconds)

    def forget_listing(self) -> None:
        """Have the next scan list /proc, however little time has passed."""
        self._listed_seconds = LONG_AGO
        self._newest = None

    def revisit(self, now: Moment) -> None:
        """See what has become of those who have just started, or who had to wait."""
        self._new_turn(now)
        met = self._population.holds.met
        young = self._population.due_soon(now)
        self._enforcer.look_at(self._changed(young, now), now)
        if now.seconds >= self._population.list_seconds:
            self._enforcer.look_at(self._listed(now), now)
        self._list_if_met(met, now)

    def bury(self) -> None:
        """Forget the processes under rules that have ended."""
        for pid in self._population.holds.ended():
            self._population.forget(pid)

    def _new_turn(self, now: Moment) -> None:
        if now.seconds >= self._try_again_seconds:
            self._try_again_seconds = now.seconds + min(
                TRY_AGAIN_SECONDS, self._config.interval_seconds
            )
            self._enforcer.new_turn()

    def _cares_for_forks(self, pid: int) -> bool:
        """Whether what the process *pid* has forked is to be seen at once."""
        known = self._population.at(pid)
        return known is not None and self._enforcer.matcher.cares_for_forks(known.claim)

    def _fresh(self, now: Moment) -> list[int]:
        """The pids that stand for another process than at the last scan; or all of them.

        While no pid has been given out, nobody new can be there, and /proc need not be listed; but
        now and then it is, for those who have ended.
        """
        newest = self._proc.newest_pid()
        idle = newest is not None and newest == self._newest
        next_seconds = min(self._next_listing_seconds(idle=idle), self._population.list_seconds)
        if now.seconds < next_seconds and not self._everything:
            return []
        return self._listed(now)

    def _listed(self, now: Moment) -> list[int]:
        self._newest = self._proc.newest_pid()  # before it: who comes in between is next
        self._listed_seconds, self._population.list_seconds = now.seconds, NEVER
        started = time.process_time()
        listing = self._proc.listing()
        self._listing_cpu_seconds = time.process_time() - started
        return self._newcomers(listing)

    def _newcomers(self, listing: dict[str, int]) -> list[int]:
        """Of *listing*, those who were not in the last one; or all of them.

        The last one is brought up to date, not replaced: thousands of strings, made anew every few
        seconds, would leave holes in our memory.
        """
        last = self._listing
        if listing == last and not self._everything:
            return []
        for pid in last.keys() - listing.keys():
            self._population.forget(int(pid))
            del last[pid]
        fresh = {pid: inode for pid, inode in listing.items() if last.get(pid) != inode}
        heard_of = {pid for pid in fresh if last.get(pid) == HEARD_OF}
        last.update(fresh)
        if self._everything:
            return [int(pid) for pid in listing]
        return [int(pid) for pid in fresh if not (pid in heard_of and self._is_met(pid))]

    def _next_listing_seconds(self, *, idle: bool) -> float:
        if not self._population.told:
            return self._listed_seconds + (LISTING_SECONDS if idle else 0.0)
        enough_seconds = max(LISTING_BUSY_SECONDS, self._listing_cpu_seconds * LISTING_RATIO)
        wait_seconds = LISTING_IDLE_SECONDS if idle else min(enough_seconds, LISTING_IDLE_SECONDS)
        return self._listed_seconds + wait_seconds

    def _is_met(self, pid: str) -> bool:
        """Whether it is the one that we looked at when the kernel told us of it."""
        known = self._population.at(int(pid))
        stat = self._stat(int(pid)) if known is not None else None
        return known is not None and stat is not None and known.runs_on(stat)

    def _settle(self, now: Moment) -> None:
        """After a look at everything: a date for each, and an end to claims on the ended."""
        self._everything = False
        self._population.settle(now)
        for id, _ in self._ledger.claims():
            if self._population.get(id) is None:
                self._ledger.forget(id)

    def _changed(self, due: Iterable[Known], now: Moment) -> list[int]:
        """Those of *due* whose stat line or time of life calls for a look."""
        pids = []
        for known in due:
            known.visits += 1
            if self._wants_full_look(known, now):
                pids.append(known.id.pid)
                continue
            stat = self._stat(known.id.pid)
            if stat is None:
                self._population.forget(known.id.pid)
            elif stat.traceable and known.runs_on(stat):
                self._population.appoint(known, now)
            else:
                pids.append(known.id.pid)
        return pids

    def _stat(self, pid: int) -> Stat | None:
        hold = self._population.holds.get(pid)
        try:
            return (hold.stat() if hold is not None else None) or self._proc.stat(pid)
        except (ProcessLookupError, PermissionError):  # hidepid=1: it has become somebody else's
            return None

    def _wants_full_look(self, known: Known, now: Moment) -> bool:
        """Whether to read it all again, although it runs the same program.

        A title, a user and a cgroup may change without a trace in the stat line; mostly they do so
        in the first seconds of a program.
        """
        if self._population.told or self._population.is_young(known, now):
            return True
        return known.visits % FULL_VISITS == 0

    def _execed(self) -> list[int]:
        """Those under rules that run something else than they did, where no event tells of it."""
        again: list[int] = []
        if self._population.told:
            return again
        for hold in self._some("execs", EXECS_SECONDS, CHECKS_RATIO, CHECKS_MIN):
            try:
                if self._runs_another(hold):
                    again.append(hold.id.pid)
            except ProcessLookupError:
                self._population.forget(hold.id.pid)
        return again

    def _drifted(self, now: Moment) -> list[int]:
        """Those under rules whose value somebody else has changed, and who are to have ours again;
        or with it, what they run.
        """
        again = []
        for hold in self._some("drift", EVERY_TURN, CHECKS_RATIO, CHECKS_MIN):
            try:
                value = hold.value()
                execed = value != hold.now and self._runs_another(hold)
            except ProcessLookupError:
                self._population.forget(hold.id.pid)
                continue
            drifted = not execed and hold.has_drifted(value, now.seconds)
            if drifted:
                self._enforcer.tell_drift(hold)
            if execed or (drifted and not hold.let_be):
                again.append(hold.id.pid)
        return again

    def _runs_another(self, hold: Hold) -> bool:
        """Whether it has another program by now; raises ProcessLookupError if it has ended."""
        stat = hold.stat()
        return stat is not None and stat.program != hold.program

    def _weigh(self) -> None:
        """Read the memory of processes under rules: of those at -1000 all, of the others some."""
        holds = self._population.holds
        some = self._some("weigh", WEIGH_SECONDS, WEIGHINGS_RATIO, WEIGHINGS_MIN)
        for hold in {*some, *(hold for hold in holds if hold.unkillable)}:
            try:
                hold.weigh(self._status(hold))
            except (*GONE, PermissionError):
                continue  # its end is noticed by its descriptor

    def _status(self, hold: Hold) -> Status:
        """Of a few, the file is held open from the first time on: one call in place of three."""
        name = f"{hold.id.pid}/status"
        if hold.status_file is None:
            if len(self._population.holds) > STATUS_FILES_MAX:
                return read_status(self._proc.directory, name)
            hold.status_file = StatusFile(self._proc.directory, name)
        return hold.status_file.read()

    def _guard(self, now: Moment) -> None:
        """Take -1000 from all or give it again, should the guard trip or let go.

        From whom it could not be taken, it is tried again each time.
        """
        limit_bytes = int(self._ram_bytes * self._config.unkillable_memory_max_ratio)
        self.unkillable_bytes = unkillable_bytes(self._population.holds)
        before = self._enforcer.guard_tripped
        tripped = guarded(self.unkillable_bytes, limit_bytes, tripped=before)
        self._enforcer.guard_tripped = tripped
        if tripped != before:
            pids = [hold.id.pid for hold in self._population.holds if hold.unkillable]
            self._enforcer.set_again(pids, now)
            left = len(still_unkillable(self._population.holds)) if tripped else 0
            self._record.guarded(Guarded(tripped, self.unkillable_bytes, limit_bytes, left))
        elif tripped:
            self._enforcer.set_again(still_unkillable(self._population.holds), now)

    def _some(self, hand: str, round_seconds: float, ratio: float, least: int) -> list[Hold]:
        """Of the processes under rules, those whose turn it is: each has one in *round_seconds*.

        In one second no more than that *ratio* of all processes, or *least*.
        """
        interval_seconds = self._config.interval_seconds
        turns = max(round_seconds / interval_seconds, 1.0)
        bound = max(least, int(len(self._population) * ratio * interval_seconds))
        holds = self._population.holds
        return holds.some(hand, min(ceil(len(holds) / turns), bound))
