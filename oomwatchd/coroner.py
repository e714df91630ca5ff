"""Hears of kills, and has each of them written down with what explains it.

what the kernel and systemd-oomd tell, ends of processes, counters, the journal
-> evidence -> cases (`docket`) -> incidents, on disk
"""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from oomwatchd.backlog import PAST_EVERY_SECONDS, Backlog
from oomwatchd.docket import Docket
from oomwatchd.document import row
from oomwatchd.ends import Ends
from oomwatchd.history import History, Portrait
from oomwatchd.incident import Case, CounterRise, Incident, Machine, Victim
from oomwatchd.incidents import Incidents
from oomwatchd.kernel.counters import OomKills
from oomwatchd.kernel.kmsg import Batch, KernelLog
from oomwatchd.kernel.oom import OomReport, kernel_kills
from oomwatchd.kernel.oomreport import OomReports
from oomwatchd.model import Config, Gone, Level, Pressure, Tracked
from oomwatchd.policy.causes import SAME_SECONDS
from oomwatchd.policy.remembered import Remembered
from oomwatchd.population import Moment
from oomwatchd.postmortem import Clocks, incident
from oomwatchd.record import Kept, Record
from oomwatchd.report.verdict import headline
from oomwatchd.sampler import Sampler
from oomwatchd.scribe import Outcome, Scribe
from oomwatchd.systemd.kills import parse_killed_signal
from oomwatchd.users import local_name

if TYPE_CHECKING:
    from oomwatchd.systemd.bus import OomdSignals  # imported only where systemd runs the machine
    from oomwatchd.systemd.entries import JournalEntries

QUIET_SECONDS: Final = 1.0  # without a line, after which a report of the kernel is at its end
NEVER: Final = float("inf")
LONG_AGO: Final = float("-inf")
NOTHING: Final = -1
THIS_BOOT: Final = 0.0  # since when to read the journal: all of it
# Where systemd-oomd does not tell of its kills, before we look into the journal for one:
LOGGED_SECONDS: Final = 3.0  # after somebody was killed; a doubt, which looks too, comes before,
PRESSED_SECONDS: Final = 60.0  # under pressure, if we do not hear of those who are,
LOOK_APART_SECONDS: Final = 20.0  # after the last look; whom it took is known for 30 s,
FAULTY_APART_SECONDS: Final = 600.0  # or if that had failed: an end of it by SIGKILL is heard, too
CLOSE_SECONDS: Final = 2.0  # for what is still to be written when the daemon ends


class Sources(NamedTuple):
    """Where kills are heard of; None: not to be had on this machine."""

    log: KernelLog | None
    kills: OomKills | None
    oomd: "OomdSignals | None" = None
    entries: "JournalEntries | None" = None


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
        remembered: Remembered | None = None,
    ) -> None:
        """*remembered*: who was under rules of the daemon before this one."""
        self._log = sources.log
        self._kills = sources.kills
        self._history = history
        self._sampler = sampler
        self._oomd = sources.oomd
        self._entries = sources.entries
        self._missed_unix_seconds: float | None = THIS_BOOT  # from when we may have missed kills
        self._look_seconds = NEVER  # when to look there for kills that we are not told of
        self._looked_seconds = LONG_AGO
        self._deaf = False  # somebody may have been killed without our hearing
        self._doubted: frozenset[str] = frozenset()  # cases of which the journal has been asked
        self._ends = Ends()
        self._docket = Docket(boot_id, history.ruled_pids)
        self._incidents = incidents
        self._scribe = Scribe(incidents)
        self._page_bytes = page_bytes
        self._remembered = remembered or Remembered()
        self._record = record
        self._reports = OomReports(page_bytes, sampler.memory.swap_total_bytes)
        self._caught_up = False  # with what the log held when we came,
        self._last_before_us = NOTHING  # of which this is the last record's number
        self._log_seconds = LONG_AGO  # when to look into the log unasked
        self._quiet_seconds = LONG_AGO  # when a report at the log's end is at its own
        self._backlog = Backlog(history.ruled_pids)
        self._counted = self._count()

    @property
    def log_fd(self) -> int | None:
        """Readable when the kernel has logged something."""
        return self._log.fileno() if self._log is not None else None

    @property
    def oomd_fd(self) -> int | None:
        """Readable when systemd-oomd may have told of a kill."""
        return self._oomd.fileno() if self._oomd is not None else None

    def due_seconds(self, now: Moment) -> float:
        """When to call `tend`, if nothing happens before."""
        ripe_seconds = now.seconds + (self._docket.next_boot_seconds - now.boot_seconds)
        hand_over_seconds = now.seconds + PAST_EVERY_SECONDS if self._backlog else NEVER
        return min(
            self._sampler.next_seconds,
            self._log_seconds,
            self._look_seconds,
            self._oomd.due_seconds if self._oomd is not None else NEVER,
            self._entries.due_seconds if self._entries is not None else NEVER,
            ripe_seconds,
            hand_over_seconds,
        )

    def configure(self, config: Config) -> None:
        self._history.seconds = config.incidents.history_seconds
        self._incidents.keep = config.incidents.keep
        self._scribe.documents = bool(config.on_incident)

    def tend(
        self,
        now: Moment,
        level: Level,
        pressure: Pressure | None,
        tracked: Iterable[Tracked],
        *,
        met: int,
        logged: bool,
        told: bool,
    ) -> list[Kept]:
        """Take a sample, if it is time; hear what there is to hear; what has been written down."""
        started = min(self._backlog.started_boot_seconds, now.boot_seconds)
        self._backlog.started_boot_seconds = started
        if self._sampler.is_due(now.seconds):
            self._sampler.turn(now.seconds, level, pressure, tracked, met=met)
        if logged or now.seconds >= self._log_seconds:
            self._read_log(now)
        if self._oomd is not None and (told or now.seconds >= self._oomd.due_seconds):
            self._hear_oomd(self._oomd, now)
        if self._deaf and level != "ok":
            self._suspect(now.seconds + PRESSED_SECONDS)
        if self._entries is not None:
            self._read_journal(self._entries, now)
        self._close_cases(now, now.boot_seconds)
        self._record.untold(self._docket.take_untold(), now.seconds)
        return self._tell()

    def _close_cases(self, now: Moment, settled_boot_seconds: float) -> None:
        """Have those explained that have settled, as far as there is time and room."""
        self._backlog.add(self._docket.ripe(settled_boot_seconds))
        if settled_boot_seconds == NEVER:
            ready = self._backlog.take_last(lambda: self._scribe.has_room)
        else:
            ready = self._backlog.take(now.seconds, lambda: self._scribe.has_room)
        for case in ready:
            self._scribe.keep(self._incident(case, now))
        self._docket.untold.update(self._backlog.leave_out())

    def _tell(self) -> list[Kept]:
        told = [kept(outcome) for outcome in self._scribe.outcomes()]
        for one in told:
            self._record.kept(one)
        return told

    def _incident(self, case: Case, now: Moment) -> Incident:
        memory = self._sampler.memory
        is_past = self._backlog.is_past(case)
        return incident(
            self._remembered.with_rules(case) if is_past else case,
            self._history,
            Machine(memory.total_bytes, memory.swap_total_bytes, self._page_bytes),
            Clocks(time.time(), now.boot_seconds, now.seconds),
            local_name,
            while_down=is_past,
        )

    def bury(self, gone: Sequence[Gone], killed: Sequence[int], now: Moment, *, deaf: bool) -> None:
        """Processes under rules are *gone*; *killed*: the pids of all whom a SIGKILL has ended.

        *deaf*: of all whom the kernel has told us of, which may be not all there were.
        """
        self._deaf = deaf
        if killed:
            self._suspect(now.seconds + LOGGED_SECONDS)
        victims = [as_victim(one, self._history.portrait(one.id)) for one, _ in gone]
        late = [one.id.pid for one, is_late in gone if is_late]
        for one, _ in gone:
            self._history.bury(one.id, now.seconds)
        ends = self._ends.hear(victims, killed, now.boot_seconds, late=late, deaf=deaf)
        for end in ends:
            self._docket.add(end)
        if gone:
            self._count_up(now)

    def close(self, now: Moment) -> list[Kept]:
        """Write down what has not settled yet: it will have to do.  As `tend` otherwise."""
        self._close_cases(now, NEVER)
        self._scribe.close(CLOSE_SECONDS)
        self._sampler.close()
        for source in (self._log, self._kills, self._oomd, self._entries):
            if source is not None:
                source.close()
        return self._tell()

    # -- systemd-oomd ------------------------------------------------------------------------------

    def _hear_oomd(self, oomd: "OomdSignals", now: Moment) -> None:
        for told in oomd.drain(now.seconds):
            killed = parse_killed_signal(now.boot_seconds, *told)
            if killed is not None:
                self._docket.add(killed)
        self._record.deaf_to_oomd(oomd.fault)

    # -- the journal -------------------------------------------------------------------------------

    def _read_journal(self, entries: "JournalEntries", now: Moment) -> None:
        """For what has been missed, and for who has killed those of whom nobody says so."""
        if self._docket.doubted - self._doubted:
            entries.ask(time.time() - 2 * SAME_SECONDS)
            self._look_seconds = LONG_AGO if self._missed_unix_seconds is not None else NEVER
        self._ask_for_missed(entries, now)
        self._doubted = self._docket.doubted
        if now.seconds >= entries.due_seconds:
            for said in entries.tend(now.seconds, now.boot_seconds):
                self._docket.add(said)
            self._record.journal_unread(entries.fault)

    def _ask_for_missed(self, entries: "JournalEntries", now: Moment) -> None:
        """Once systemd-oomd tells us (again), so that nothing is in between; first, in any case;
        and as long as it does not, when there is a suspicion.
        """
        tells = self._oomd.tells if self._oomd is not None else False
        at_first = tells is False and self._missed_unix_seconds == THIS_BOOT
        if self._missed_unix_seconds is None:
            if tells is False:
                self._missed_unix_seconds = time.time() - SAME_SECONDS
        elif tells or at_first or now.seconds >= self._look_seconds:
            entries.ask(self._missed_unix_seconds)
            self._missed_unix_seconds = None if tells else time.time() - SAME_SECONDS
            self._looked_seconds, self._look_seconds = now.seconds, NEVER

    def _suspect(self, look_seconds: float) -> None:
        """Somebody may have been killed of whom nobody tells us: look into the journal then."""
        if self._entries is None or self._missed_unix_seconds is None:
            return
        apart_seconds = FAULTY_APART_SECONDS if self._entries.fault else LOOK_APART_SECONDS
        soonest_seconds = max(look_seconds, self._looked_seconds + apart_seconds)
        self._look_seconds = min(self._look_seconds, soonest_seconds)

    # -- the kernel --------------------------------------------------------------------------------

    def _read_log(self, now: Moment) -> None:
        if self._log is None:
            self._log_seconds = NEVER
            return
        batch = self._log.drain()
        self._record.kernel_log_lost += batch.lost
        if not self._caught_up:
            numbers = (one.sequence for one in batch.records)
            self._last_before_us = max(numbers, default=self._last_before_us)
            self._caught_up = not batch.more
        before = self._reports.last_sequence
        reports = [report for record in batch.records for report in self._reports.feed(record)]
        if self._reports.last_sequence != before:
            self._quiet_seconds = now.seconds + QUIET_SECONDS
        elif now.seconds >= self._quiet_seconds:
            reports += self._reports.flush()
        self._log_seconds = self._next_look_seconds(batch, now)
        if reports:
            self._take(reports, now)

    def _next_look_seconds(self, batch: Batch, now: Moment) -> float:
        if batch.more:
            return now.seconds
        return self._quiet_seconds if self._reports.last_sequence is not None else NEVER

    def _take(self, reports: Iterable[OomReport], now: Moment) -> None:
        """A kill of our time was when we heard of it: the log's clock stands still in sleep."""
        for report in reports:
            for killed in kernel_kills(report):
                heard = killed._replace(boot_seconds=now.boot_seconds)
                is_past = killed.sequence <= self._last_before_us
                if is_past and self._docket.is_full:  # those before it are ripe already
                    self._backlog.add(self._docket.ripe(now.boot_seconds))
                self._docket.add(killed if is_past else heard)
        self._count_up(now)

    def _count_up(self, now: Moment) -> None:
        """See whether the kernel has killed more than it has told of, and in which cgroups."""
        counted = self._count()
        if counted == self._counted:
            return
        kills, self._counted = counted - self._counted, counted
        self._docket.add(CounterRise(now.boot_seconds, None, kills))
        for path, rise in self._sampler.killed().items():
            self._docket.add(CounterRise(now.boot_seconds, path, *rise))

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
        outcome.document,
        written=outcome.written,
    )


def as_victim(tracked: Tracked, portrait: Portrait | None) -> Victim:
    """With its unit and cgroup, if it has been followed: by these, killers of whole cgroups."""
    known = portrait.victim if portrait is not None else Victim(tracked.id.pid, tracked.comm)
    return known._replace(
        start_ticks=tracked.id.start_ticks,
        rule=tracked.rule,
        oom_score_adj=tracked.oom_score_adj,
        memory_bytes=tracked.resident_bytes + tracked.swap_bytes,
    )
