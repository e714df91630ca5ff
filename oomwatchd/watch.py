"""One scan: whom to look at.

/proc is listed every time, and looked at are those who are new, those who are due (`population`),
and those whose value has drifted; never all.  What becomes of them is `enforce`'s part.
"""

from math import ceil
from typing import Final

from oomwatchd.enforce import Enforcer
from oomwatchd.holds import guarded, unkillable_bytes
from oomwatchd.kernel.proc import GONE, ProcFs, Stat
from oomwatchd.kernel.status import read_status
from oomwatchd.ledger import Ledger
from oomwatchd.model import Config
from oomwatchd.population import Known, Moment, Population
from oomwatchd.record import Guarded, Record

LISTING_SECONDS: Final = 10.0  # what /proc is listed after, even if nobody new has come
FULL_VISITS: Final = 10  # one visit in so many reads everything again
# Of the processes under rules, so many are checked and weighed in one second, so that the system
# calls stay in proportion to all processes however many are under rules.
CHECKS_RATIO: Final = 0.02  # of all processes
CHECKS_MIN: Final = 48
WEIGH_SECONDS: Final = 10.0  # what is to be weighed has its turn in this time, but for:
WEIGHINGS_RATIO: Final = 0.01  # of all processes
WEIGHINGS_MIN: Final = 16


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
        self._list_at_seconds = 0.0
        self._proc = proc
        self._population = population
        self._enforcer = enforcer
        self._ledger = ledger
        self._record = record
        self._ram_bytes = ram_bytes

    def configure(self, config: Config) -> None:
        """Put *config* in force: the next scan looks at everything, as the first does."""
        self._config = config
        self._enforcer.configure(config)
        self._everything = True

    def scan(self, now: Moment) -> None:
        self._enforcer.new_turn()
        self._enforcer.look_at(self._fresh(now), now)
        if self._everything:
            self._settle(now)
        self._enforcer.look_at(self._due(now), now)
        self._enforcer.look_at(self._stirred(now), now)
        self._weigh()
        self._enforcer.look_at(self._guard(), now)
        self._enforcer.save_ledger()  # who has ended is in it no more

    def _fresh(self, now: Moment) -> list[int]:
        """The pids that stand for another process than at the last scan; or all of them.

        While no pid has been given out, nobody new can be there, and /proc need not be listed; but
        now and then it is, for those who have ended.
        """
        newest = self._proc.newest_pid()  # before the listing: who comes in between is next
        idle = newest is not None and newest == self._newest
        if idle and now.seconds < self._list_at_seconds and not self._everything:
            return []
        self._newest, self._list_at_seconds = newest, now.seconds + LISTING_SECONDS
        last, self._listing = self._listing, self._proc.listing()
        if last == self._listing and not self._everything:
            return []
        for pid in last.keys() - self._listing.keys():
            self._population.forget(int(pid))
        return [
            int(pid)
            for pid, inode in self._listing.items()
            if self._everything or last.get(pid) != inode
        ]

    def _settle(self, now: Moment) -> None:
        """After a look at everything: a date for each, and an end to claims on the ended."""
        self._everything = False
        self._population.settle(now)
        for id, _ in self._ledger.claims():
            if self._population.get(id) is None:
                self._ledger.forget(id)

    def _due(self, now: Moment) -> list[int]:
        """Those whose date has come, and whose stat line or time of life calls for a look."""
        pids = []
        for known in self._population.due(now):
            stat = self._stat(known.id.pid)
            if stat is None:
                continue  # the next listing will miss it too
            known.visits += 1
            full = not stat.traceable or self._wants_full_look(known, now)
            if known.runs_on(stat) and not full:
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
        return self._population.is_young(known, now) or known.visits % FULL_VISITS == 0

    def _stirred(self, now: Moment) -> list[int]:
        """Those under rules to look at again: they run something else, or somebody else has
        changed their value and they are to have ours again.
        """
        again = []
        holds = self._population.holds
        for hold in holds.some("check", self._bound(CHECKS_RATIO, CHECKS_MIN)):
            try:
                stat, value = hold.stat(), hold.value()
            except ProcessLookupError:
                self._population.forget(hold.id.pid)
                continue
            known = self._population.get(hold.id)
            execed = stat is not None and known is not None and not known.runs_on(stat)
            drifted = not execed and hold.has_drifted(value, now.seconds)
            if drifted:
                self._enforcer.tell_drift(hold)
            if execed or (drifted and not hold.let_be):
                again.append(hold.id.pid)
        return again

    def _weigh(self) -> None:
        """Read the memory of processes under rules: of those at -1000 all, of the others some."""
        holds = self._population.holds
        wanted = ceil(len(holds) * min(self._config.interval_seconds / WEIGH_SECONDS, 1.0))
        some = holds.some("weigh", min(wanted, self._bound(WEIGHINGS_RATIO, WEIGHINGS_MIN)))
        for hold in {*some, *(hold for hold in holds if hold.unkillable)}:
            try:
                hold.weigh(read_status(self._proc.directory, f"{hold.id.pid}/status"))
            except (*GONE, PermissionError):
                continue  # its end is noticed by its descriptor

    def _guard(self) -> list[int]:
        """Those to be looked at again, as the guard for -1000 has tripped or let go."""
        limit_bytes = int(self._ram_bytes * self._config.unkillable_memory_max_ratio)
        self.unkillable_bytes = unkillable_bytes(self._population.holds)
        tripped = self._enforcer.guard_tripped
        if guarded(self.unkillable_bytes, limit_bytes, tripped=tripped) == tripped:
            return []
        self._enforcer.guard_tripped = not tripped
        self._record.guarded(Guarded(not tripped, self.unkillable_bytes, limit_bytes))
        return [hold.id.pid for hold in self._population.holds if hold.unkillable]

    def _bound(self, ratio: float, least: int) -> int:
        return max(least, int(len(self._population) * ratio * self._config.interval_seconds))
