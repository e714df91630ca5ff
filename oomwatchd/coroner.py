"""Hears of kills, and has each of them written down with what explains it.

kernel's log, ends of processes, counters -> evidence -> cases (`docket`) -> incidents, on disk
"""

import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from oomwatchd.docket import Docket
from oomwatchd.document import row
from oomwatchd.history import History
from oomwatchd.incident import Case, CounterRise, Ended, Incident, Machine, Victim
from oomwatchd.incidents import Incidents
from oomwatchd.kernel.counters import OomKills
from oomwatchd.kernel.kmsg import KernelLog
from oomwatchd.kernel.oom import OomReport, kernel_kills
from oomwatchd.kernel.oomreport import OomReports
from oomwatchd.model import Config, Level, Pressure, Tracked
from oomwatchd.population import Moment
from oomwatchd.postmortem import Clocks, incident
from oomwatchd.record import Kept, Record
from oomwatchd.report.verdict import headline
from oomwatchd.sampler import Sampler
from oomwatchd.scribe import Outcome, Scribe
from oomwatchd.users import local_name

QUIET_SECONDS: Final = 1.0  # without a line, after which a report of the kernel is at its end
NEVER: Final = float("inf")
LONG_AGO: Final = float("-inf")
CLOSE_SECONDS: Final = 2.0  # for what is still to be written when the daemon ends


class Sources(NamedTuple):
    """Where kills are heard of; None: not to be had on this machine."""

    log: KernelLog | None
    kills: OomKills | None


class Coroner:
    def __init__(
        self,
        sources: Sources,
        history: History,
        sampler: Sampler,
        incidents: Incidents,
        record: Record,
        boot_id: str,
        *,
        page_bytes: int,
    ) -> None:
        self._log = sources.log
        self._kills = sources.kills
        self._history = history
        self._sampler = sampler
        self._docket = Docket(boot_id)
        self._incidents = incidents
        self._scribe = Scribe(incidents)
        self._page_bytes = page_bytes
        self._record = record
        self._reports = OomReports(page_bytes)
        self._started_boot_seconds = NEVER
        self._caught_up = False  # with what the log held when we came
        self._log_seconds = LONG_AGO  # when to look into the log unasked
        self._counted = self._count()

    @property
    def log_fd(self) -> int | None:
        """Readable when the kernel has logged something."""
        return self._log.fileno() if self._log is not None else None

    def due_seconds(self, now: Moment) -> float:
        """When to call `tend`, if nothing happens before."""
        ripe_seconds = now.seconds + (self._docket.next_boot_seconds - now.boot_seconds)
        return min(self._sampler.next_seconds, self._log_seconds, ripe_seconds)

    def configure(self, config: Config) -> None:
        self._sampler.interval_seconds = config.interval_seconds
        self._history.seconds = config.incidents.history_seconds
        self._incidents.keep = config.incidents.keep

    def tend(
        self,
        now: Moment,
        level: Level,
        pressure: Pressure | None,
        tracked: Iterable[Tracked],
        *,
        logged: bool,
    ) -> None:
        """Take a sample, if it is time; hear what there is to hear, and close the cases."""
        self._started_boot_seconds = min(self._started_boot_seconds, now.boot_seconds)
        if now.seconds >= self._sampler.next_seconds:
            self._sampler.turn(now.seconds, level, pressure, tracked)
        if logged or now.seconds >= self._log_seconds:
            self._read_log(now)
        for case in self._docket.ripe(now.boot_seconds):
            self._scribe.keep(self._incident(case, now))
        for outcome in self._scribe.outcomes():
            self._record.kept(kept(outcome))

    def _incident(self, case: Case, now: Moment) -> Incident:
        memory = self._sampler.memory
        return incident(
            case,
            self._history,
            Machine(memory.total_bytes, memory.swap_total_bytes, self._page_bytes),
            Clocks(time.time(), now.boot_seconds, now.seconds),
            local_name,
            while_down=case.boot_seconds < self._started_boot_seconds,
        )

    def bury(self, ended: Sequence[Tracked], now: Moment) -> None:
        """Processes under rules have ended; how, nobody has told."""
        for one in ended:
            self._docket.add(Ended(now.boot_seconds, as_victim(one), by_sigkill=None))
        if ended:
            self._count_up(now)

    def close(self) -> None:
        self._scribe.close(CLOSE_SECONDS)
        self._sampler.close()
        for source in (self._log, self._kills):
            if source is not None:
                source.close()

    # -- the kernel --------------------------------------------------------------------------------

    def _read_log(self, now: Moment) -> None:
        if self._log is None:
            self._log_seconds = NEVER
            return
        batch = self._log.drain()
        self._record.kernel_log_lost += batch.lost
        reports = [report for record in batch.records for report in self._reports.feed(record)]
        if not batch.records and self._reports.unfinished:
            reports += self._reports.flush()
        self._log_seconds = NEVER
        if batch.more:
            self._log_seconds = now.seconds
        elif self._reports.unfinished:
            self._log_seconds = now.seconds + QUIET_SECONDS
        if reports:
            self._take(reports, now)
        self._caught_up = self._caught_up or not batch.more

    def _take(self, reports: Iterable[OomReport], now: Moment) -> None:
        """A kill of our time was when we heard of it: the log's clock stands still in sleep."""
        if not self._caught_up:
            for key in self._incidents.case_keys():
                self._docket.close_beforehand(key)
        for report in reports:
            for killed in kernel_kills(report):
                heard = killed._replace(boot_seconds=now.boot_seconds)
                self._docket.add(heard if self._caught_up else killed)
        self._count_up(now)

    def _count_up(self, now: Moment) -> None:
        """See whether the kernel has killed more than it has told of."""
        counted = self._count()
        if counted > self._counted:
            self._docket.add(CounterRise(now.boot_seconds, None, counted - self._counted))
        self._counted = counted

    def _count(self) -> int:
        return self._kills.read() if self._kills is not None else 0


def kept(outcome: Outcome) -> Kept:
    one = outcome.incident
    return Kept(
        one.id,
        headline(one),
        one.diagnosis.text,
        one.victim.rule,
        one.case.killer,
        row(one),
        outcome.fault,
        written=outcome.written,
    )


def as_victim(tracked: Tracked) -> Victim:
    return Victim(
        pid=tracked.id.pid,
        name=tracked.comm,
        start_ticks=tracked.id.start_ticks,
        rule=tracked.rule,
        oom_score_adj=tracked.oom_score_adj,
        memory_bytes=tracked.resident_bytes + tracked.swap_bytes,
    )
