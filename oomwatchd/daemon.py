"""The loop: wait, look, match, apply, record, publish."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd import __version__
from oomwatchd.absent import AbsentUsers, completed
from oomwatchd.alarm import Alarm
from oomwatchd.barometer import Barometer
from oomwatchd.config import Loaded
from oomwatchd.coroner import Coroner
from oomwatchd.enforce import Enforcer
from oomwatchd.exposure import Exposure
from oomwatchd.hearing import Hearing
from oomwatchd.holds import Holds
from oomwatchd.hooks import Hooks
from oomwatchd.host import Host, Wake, Wants, reloading
from oomwatchd.journal import Narrator, log
from oomwatchd.kernel.mark import CgroupFs
from oomwatchd.kernel.own import Own
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.ledger import Ledger
from oomwatchd.model import SILENCE, Config, Gone, Snapshot
from oomwatchd.pending import pending
from oomwatchd.population import LONG_AGO, Moment, Population
from oomwatchd.record import Record
from oomwatchd.reload import Load, Rebind, Reload
from oomwatchd.restore import put_all_back
from oomwatchd.shield import Shield
from oomwatchd.systemd.manager import Spawn
from oomwatchd.text import printable
from oomwatchd.totals import totals
from oomwatchd.watch import Watch

ALERT_SECONDS: Final = 10.0  # how long the kernel's call that tasks wait for memory counts
ALERT_INTERVAL_SECONDS: Final = 1.0  # between two scans, while memory is short
REPORT_SECONDS: Final = 1.0  # between two reports, while event follows event
REVISIT_STEP_SECONDS: Final = 0.25  # the young whose time comes within it are seen together
LATER: Final = float("inf")


class Machine(NamedTuple):
    ram_bytes: int
    ticks_per_second: int
    cgroup_root: Path | None = None  # None: cgroup v1, where there is no systemd-oomd
    spawn: Spawn | None = None  # a worker that asks systemd; None: there is no asking it
    spawn_auditor: Spawn | None = None  # None: no audits
    coroner: Callable[[Record], Coroner] | None = None  # None: kills are not written down


def serve(daemon: "Daemon", host: Host) -> None:
    """Keep oom_score_adj in line with the rules until told to stop."""
    daemon.listen(host, host.now())  # before the first look: nobody comes unseen
    daemon.turn(Wake(host.now()))
    host.publish(daemon.snapshot())
    if lacking := host.settle_in():
        log.debug("%s", lacking)  # containers may not lock
    host.notify("READY=1", daemon.status())
    while not (wake := host.wait(daemon.next_turn_seconds)).stop:
        if wake.reload:
            host.notify(*reloading())
        reloaded = daemon.reload(wake)
        if reloaded or daemon.has_to_listen(wake.now):
            daemon.listen(host, wake.now)
        daemon.turn(wake)
        if daemon.has_to_report:
            host.publish(daemon.snapshot())
        if reloaded:
            host.notify("READY=1")
        if daemon.has_to_report:
            host.notify("WATCHDOG=1", daemon.status())  # a turn that hangs must not look alive
    host.notify("STOPPING=1")
    daemon.stop(wake.now)


class Daemon:
    """What the loop turns on: the configuration in force, and everything known under it."""

    def __init__(
        self,
        loaded: Loaded,
        load: Load,
        rebind: Rebind,
        proc: ProcFs,
        ledger: Ledger,
        features: Mapping[str, str],
        machine: Machine,
        *,
        dry_run: bool,
    ) -> None:
        self.next_turn_seconds = self._next_scan_seconds = LONG_AGO
        self._alert_until_seconds = self._reported_seconds = LONG_AGO
        self.has_to_report = True
        self._unreported = False  # something has happened since the last report
        self._chores_seconds = LATER  # a sample, a hook: nothing to report by itself
        self._reload = Reload(load, rebind)
        self._absent = AbsentUsers()
        self._missing = features
        self._record = Record(dry_run=dry_run)
        self._hearing = Hearing(features, self._record)
        self._holds = Holds()
        self._population = Population(self._holds, ledger, machine.ticks_per_second)
        self._enforcer = Enforcer(proc, self._population, ledger, self._record, dry_run=dry_run)
        self._watch = Watch(
            proc,
            self._population,
            self._enforcer,
            ledger,
            self._record,
            ram_bytes=machine.ram_bytes,
        )
        self._shield: Shield | None = None
        if machine.cgroup_root is not None:
            self._shield = Shield(
                CgroupFs(machine.cgroup_root), proc, self._holds, ledger, self._record,
                self._enforcer.save_ledger, machine.spawn, dry_run=dry_run,
            )  # fmt: skip
        self._coroner = machine.coroner(self._record) if machine.coroner is not None else None
        spawn = machine.spawn_auditor
        self._exposure = Exposure(spawn) if spawn is not None else None
        self._narrator = Narrator(dry_run=dry_run)
        self._barometer = Barometer(proc.root, log.warning)
        self._own = Own()
        self._hooks = Hooks(self._record, dry_run=dry_run)
        self._alarm = Alarm(proc, self._holds, self._hooks, self._record, dry_run=dry_run)
        self._started_unix_seconds = time.time()
        self._turn_seconds = 0.0
        self._configure(loaded)

    def _put_in_force(self, config: Config) -> None:
        self.config = config
        self._next_scan_seconds = LONG_AGO
        self._absent.configure(config)
        self._watch.configure(config)
        if self._shield is not None:
            self._shield.configure(config)
        if self._coroner is not None:
            self._coroner.configure(config)
        self._hooks.configure(config)

    def _configure(self, loaded: Loaded) -> None:
        """Put what was loaded in force, and say what it asks for in vain."""
        self._put_in_force(loaded.config)
        for warning in loaded.warnings:
            log.warning("%s", printable(str(warning)))
        for line in pending(loaded.config, self._missing):
            log.warning("%s", line)

    def reload(self, wake: Wake) -> bool:
        """Have the configuration read afresh, if told to; whether that has come to its end now."""
        ended = self._reload.tend(wake)
        if ended is None:
            return False
        if ended.loaded is not None:
            self._configure(ended.loaded)
        self._next_scan_seconds = LONG_AGO
        return True

    def _find_users(self, now: Moment) -> None:
        """Those whom the rules name, and whom nobody knew when they were read."""
        found = self._absent.found(now.seconds)
        if found:
            self._put_in_force(completed(self.config, found))
            for name, uid in found.items():
                log.info("user '%s' is known now, by uid %d", printable(name), uid)

    def has_to_listen(self, now: Moment) -> bool:
        return now.seconds >= self._hearing.due_seconds

    def listen(self, host: Host, now: Moment) -> None:
        """What the next waits are to end for."""
        wants = Wants(
            events=self.config.events == "auto" and bool(self.config.rules),
            forks=any(rule.cares_for_forks for rule in self.config.rules),
            pressure=self._barometer.works,
            exits_fd=self._holds.fileno(),
            shield_fd=self._shield.fileno() if self._shield is not None else None,
            log_fd=self._coroner.log_fd if self._coroner is not None else None,
            oomd_fd=self._coroner.oomd_fd if self._coroner is not None else None,
            load_fd=self._reload.fileno(),
        )
        hears = host.listen(wants)
        self._hearing.asked(wants, hears, now.seconds)
        if hears.events and not self._population.told:
            self._watch.forget_listing()  # who has come since the last look was not told of
            self._next_scan_seconds = LONG_AGO
        self._population.told = hears.events

    def turn(self, wake: Wake) -> None:
        """Look at those of whom we have heard; at all when their time has come; at the pressure."""
        now = wake.now
        self._find_users(now)
        if wake.ended:
            self._watch.bury()
        self._record.heard(wake.heard)
        if wake.heard != SILENCE:
            self._watch.hear(wake.heard, now)
        if wake.trigger_lost:
            self._hearing.trigger_lost(now.seconds)
        if wake.pressed:
            self._alert_until_seconds = now.seconds + ALERT_SECONDS
        scan = wake.heard.lost or now.seconds >= self._next_scan_seconds
        revisit = not scan and now.seconds >= self._population.soon_seconds
        if scan:
            self._scan(now)
        elif revisit:
            self._watch.revisit(now)
        self._unreported |= revisit or wake.ended or wake.logged or wake.heard != SILENCE
        routine = self._unreported or now.seconds >= self._chores_seconds
        at_once = scan or wake.pressed or wake.beat or not routine
        late = now.seconds >= self._reported_seconds + REPORT_SECONDS
        self.has_to_report = at_once or (self._unreported and late)
        self._tend(now, scan=scan)
        if self.has_to_report:
            self._barometer.read(self.config.pressure, now.seconds)
            self._alarm.hear(self._barometer.level, self._barometer.pressure)
        self._hear_of_kills(wake, self._population.take_gone())
        self._hooks.tend(now.seconds)
        self._unreported = not self.has_to_report and (self._unreported or self._record.has_news)
        self._plan(now)
        self._narrator.tell(self._record.take_news(), now.seconds)
        self._turn_seconds = time.monotonic()

    def _tend(self, now: Moment, *, scan: bool) -> None:
        """See to the shield of those under rules, and to the audit of it."""
        if self._shield is not None:
            self._shield.tend(now, scan=scan)
        if self._exposure is not None and self.has_to_report:
            self._exposure.tend(self._holds, now.seconds)
            self._record.audited(self._exposure.fault)

    def _hear_of_kills(self, wake: Wake, gone: Sequence[Gone]) -> None:
        if self._coroner is None:
            return
        deaf = wake.heard.lost or not self._population.told
        self._coroner.bury(gone, wake.heard.killed, wake.now, deaf=deaf)
        told = self._coroner.tend(
            wake.now,
            self._barometer.level,
            self._barometer.pressure,
            (hold.tracked() for hold in self._holds),
            met=self._holds.met,
            logged=wake.logged,
            told=wake.told,
        )
        for kept in told:
            self._hooks.incident_kept(kept.document)

    def _scan(self, now: Moment) -> None:
        started = time.monotonic()
        self._watch.scan(now)
        self._record.scanned(time.monotonic() - started)
        self._next_scan_seconds = next_scan(
            self._next_scan_seconds, now.seconds, self.config.interval_seconds
        )

    def _plan(self, now: Moment) -> None:
        """When to scan, to see the young again, and to report; in a storm not after each event."""
        alert = self._barometer.level != "ok" or now.seconds < self._alert_until_seconds
        if alert:
            soonest_seconds = now.seconds + ALERT_INTERVAL_SECONDS
            self._next_scan_seconds = min(self._next_scan_seconds, soonest_seconds)
        if self.has_to_report:
            self._reported_seconds = now.seconds
        coroner_seconds = self._coroner.due_seconds(now) if self._coroner is not None else LATER
        self._chores_seconds = min(coroner_seconds, self._hooks.due_seconds)
        self.next_turn_seconds = min(
            self._next_scan_seconds,
            self._reported_seconds + REPORT_SECONDS if self._unreported else LATER,
            max(self._population.soon_seconds, now.seconds + REVISIT_STEP_SECONDS),
            self._shield.due_seconds if self._shield is not None else LATER,
            self._chores_seconds,
        )

    def status(self) -> str:
        """One line for `systemctl status`."""
        return (
            f"STATUS={len(self._holds)} processes under {len(self.config.rules)} rules, "
            f"memory pressure {self._barometer.level}"
        )

    def snapshot(self) -> Snapshot:
        processes = tuple([hold.tracked() for hold in self._holds])  # a list: docs/decisions.md
        return Snapshot(
            version=__version__,
            started_unix_seconds=self._started_unix_seconds,
            turn_seconds=self._turn_seconds,
            rules=self.config.rules,
            totals=totals(processes),
            processes=processes,
            adjustments=dict(self._record.adjustments),
            markings=dict(self._record.markings),
            movings=dict(self._record.movings),
            kills=dict(self._record.kills),
            last_incident=self._record.last_incident,
            hook_runs=dict(self._record.hook_runs),
            kernel_log_lost=self._record.kernel_log_lost,
            worker_failures=self._shield.worker_failures if self._shield is not None else 0,
            exposed=None if self._exposure is None else self._exposure.exposed,
            pressure=self._barometer.pressure,
            level=self._barometer.level,
            features=dict(self._hearing.features),
            reload_successful=self._reload.successful,
            reload_success_unix_seconds=self._reload.success_unix_seconds,
            scan_buckets=self._record.scan_buckets(),
            scan_seconds_total=self._record.scan_seconds_total,
            scans=self._record.scans,
            unkillable_bytes=self._watch.unkillable_bytes,
            unkillable_guard_tripped=self._enforcer.guard_tripped,
            unkillable_guard_trips=self._record.guard_trips,
            match_timeouts=self._record.match_timeouts,
            unreadable=self._record.unreadable,
            process_events=self._record.process_events,
            process_events_lost=self._record.process_events_lost,
            cost=self._own.cost(self._turn_seconds),
        )

    def stop(self, now: Moment) -> None:
        if self._exposure is not None:
            self._exposure.close()
        if self.config.on_stop == "restore":
            put_all_back(self._watch, self._enforcer, self._record, self.config, now)
            if self._shield is not None:
                self._shield.take_all_back(now)
        if self._shield is not None:
            self._shield.close()
        if self._coroner is not None:
            self._coroner.close(now)
        self._narrator.tell(self._record.take_news(), now.seconds)
        self._narrator.close()
        self._reload.close()
        self._absent.close()
        self._hooks.close()
        self._own.close()
        self._holds.close()


def next_scan(planned_seconds: float, now_seconds: float, interval_seconds: float) -> float:
    """On the grid, so that turns do not drift; afresh after one out of turn or too long."""
    following = planned_seconds + interval_seconds
    on_time = planned_seconds <= now_seconds < following
    return following if on_time else now_seconds + interval_seconds
