"""The loop: wait, look, match, apply, record, publish."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd import __version__
from oomwatchd.config import ConfigError, Loaded
from oomwatchd.enforce import Enforcer
from oomwatchd.exposure import Exposure
from oomwatchd.holds import Holds
from oomwatchd.host import Host, Wake, Wants, reloading
from oomwatchd.journal import Narrator, log
from oomwatchd.kernel.mark import CgroupFs
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.kernel.psi import PressureFile
from oomwatchd.ledger import Ledger
from oomwatchd.model import SILENCE, Address, Level, Pressure, RuleTotals, Snapshot, Tracked
from oomwatchd.pending import pending
from oomwatchd.policy.pressure import PressureState, advance, level
from oomwatchd.population import LONG_AGO, Moment, Population
from oomwatchd.record import Record
from oomwatchd.shield import Shield
from oomwatchd.systemd.manager import Spawn
from oomwatchd.text import printable
from oomwatchd.watch import Watch

Load = Callable[[], Loaded]
Rebind = Callable[[Address | None], None]  # serve the metrics elsewhere; raises OSError
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


def serve(daemon: "Daemon", host: Host) -> None:
    """Keep oom_score_adj in line with the rules until told to stop."""
    daemon.listen(host)  # before the first look: nobody comes unseen
    daemon.turn(Wake(host.now()))
    host.publish(daemon.snapshot())
    if lacking := host.settle_in():
        log.debug("%s", lacking)  # containers may not lock
    host.notify("READY=1", daemon.status())
    while not (wake := host.wait(daemon.next_turn_seconds)).stop:
        if wake.reload:
            host.notify(*reloading())
            daemon.reload()
            daemon.listen(host)
        daemon.turn(wake)
        if daemon.has_to_report:
            host.publish(daemon.snapshot())
        if wake.reload:
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
        self._load = load
        self._rebind = rebind
        self._missing = features
        self._features = {name: not missing for name, missing in features.items()}
        self._record = Record(dry_run=dry_run)
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
        spawn = machine.spawn_auditor
        self._exposure = Exposure(spawn) if spawn is not None else None
        self._narrator = Narrator(dry_run=dry_run)
        self._pressure_file = pressure_file(proc.root)
        self._pressure: Pressure | None = None
        self._pressure_state = PressureState()
        self._level: Level = "ok"
        self._started_unix_seconds = time.time()
        self._turn_seconds = 0.0
        self._configure(loaded)

    def _configure(self, loaded: Loaded) -> None:
        """Put a configuration in force, and say what it asks for in vain."""
        self.config = loaded.config
        self._watch.configure(loaded.config)
        if self._shield is not None:
            self._shield.configure(loaded.config)
        self._reload_successful = True
        self._reload_success_unix_seconds = time.time()
        for warning in loaded.warnings:
            log.warning("%s", printable(str(warning)))
        for line in pending(loaded.config, self._missing):
            log.warning("%s", line)

    def reload(self) -> None:
        """Read the configuration afresh; if it cannot be used, all stays as it is."""
        try:
            loaded = self._load()
            self._rebind(loaded.config.metrics_listen)
        except ConfigError as error:
            for fault in error.faults:
                log.error("%s", printable(str(fault)))
            log.error("reload failed, the rules in force stay in force")
            self._reload_successful = False
        except OSError as error:
            log.error("reload failed, the rules in force stay in force: %s", error)
            self._reload_successful = False
        else:
            self._configure(loaded)
            log.info("reloaded: %d rules", len(self.config.rules))

    def listen(self, host: Host) -> None:
        """What the next waits are to end for."""
        wants = Wants(
            events=self.config.events == "auto" and bool(self.config.rules),
            forks=any(rule.cares_for_forks for rule in self.config.rules),
            pressure=self._pressure_file is not None,
            exits_fd=self._holds.fileno(),
            shield_fd=self._shield.fileno() if self._shield is not None else None,
        )
        self._population.told = host.listen(wants)
        if wants.events and not self._population.told and self._features.get("process_events"):
            log.warning("process events: not available any more; processes are found by looking")

    def turn(self, wake: Wake) -> None:
        """Look at those of whom we have heard; at all when their time has come; at the pressure."""
        now = wake.now
        if wake.ended:
            self._watch.bury()
        self._record.heard(wake.heard)
        if wake.heard != SILENCE:
            self._watch.hear(wake.heard, now)
        if wake.pressed:
            self._alert_until_seconds = now.seconds + ALERT_SECONDS
        scan = wake.reload or wake.heard.lost or now.seconds >= self._next_scan_seconds
        revisit = not scan and now.seconds >= self._population.soon_seconds
        if scan:
            self._scan(now)
        elif revisit:
            self._watch.revisit(now)
        at_once = scan or wake.pressed or not (revisit or wake.ended or wake.heard != SILENCE)
        self.has_to_report = at_once or now.seconds >= self._reported_seconds + REPORT_SECONDS
        self._tend(now, scan=scan)
        if self.has_to_report:
            self._feel_pressure(now)
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

    def _scan(self, now: Moment) -> None:
        started = time.monotonic()
        self._watch.scan(now)
        self._record.scanned(time.monotonic() - started)
        self._next_scan_seconds = next_scan(
            self._next_scan_seconds, now.seconds, self.config.interval_seconds
        )

    def _plan(self, now: Moment) -> None:
        """When to scan, to see the young again, and to report; in a storm not after each event."""
        alert = self._level != "ok" or now.seconds < self._alert_until_seconds
        if alert:
            soonest_seconds = now.seconds + ALERT_INTERVAL_SECONDS
            self._next_scan_seconds = min(self._next_scan_seconds, soonest_seconds)
        report_seconds = self._reported_seconds + REPORT_SECONDS
        if self.has_to_report:
            self._reported_seconds, report_seconds = now.seconds, LATER
        self.next_turn_seconds = min(
            self._next_scan_seconds,
            report_seconds,
            max(self._population.soon_seconds, now.seconds + REVISIT_STEP_SECONDS),
            self._shield.due_seconds if self._shield is not None else LATER,
        )

    def _feel_pressure(self, now: Moment) -> None:
        if self._pressure_file is None:
            return
        try:
            self._pressure = self._pressure_file.read()
        except OSError as error:  # EOPNOTSUPP: there, but switched off
            log.warning("memory pressure cannot be read: %s", error.strerror)
            self._pressure_file.close()
            self._pressure_file = self._pressure = None
            return
        settings = self.config.pressure
        self._pressure_state = advance(self._pressure_state, self._pressure, settings, now.seconds)
        now_level = level(self._pressure_state, settings, now.seconds)
        if now_level != self._level:
            log.warning(
                "memory pressure: %s -> %s (of the last 10 s, some stalled %.1f %%, all %.1f %%)",
                self._level, now_level, self._pressure.some_avg10, self._pressure.full_avg10,
            )  # fmt: skip
            self._level = now_level

    def status(self) -> str:
        """One line for `systemctl status`."""
        return (
            f"STATUS={len(self._holds)} processes under {len(self.config.rules)} rules, "
            f"memory pressure {self._level}"
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
            worker_failures=self._shield.worker_failures if self._shield is not None else 0,
            exposed=None if self._exposure is None else self._exposure.exposed,
            pressure=self._pressure,
            level=self._level,
            features=self._features,
            reload_successful=self._reload_successful,
            reload_success_unix_seconds=self._reload_success_unix_seconds,
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
        )

    def stop(self, now: Moment) -> None:
        if self._exposure is not None:
            self._exposure.close()
        if self.config.on_stop == "restore":
            self._watch.forget_listing()  # who was forked since has inherited our values, too
            self._watch.scan(now)
            self._enforcer.put_all_back()
            if self._shield is not None:
                self._shield.take_all_back(now)
            self._narrator.tell(self._record.take_news(), now.seconds)
        if self._shield is not None:
            self._shield.close()
        self._holds.close()


def pressure_file(root: Path) -> PressureFile | None:
    """None where the kernel has no PSI; `kernel.features` has told why."""
    try:
        return PressureFile(root)
    except OSError:
        return None


def next_scan(planned_seconds: float, now_seconds: float, interval_seconds: float) -> float:
    """On the grid, so that turns do not drift; afresh after one out of turn or too long."""
    following = planned_seconds + interval_seconds
    on_time = planned_seconds <= now_seconds < following
    return following if on_time else now_seconds + interval_seconds


def totals(processes: Iterable[Tracked]) -> dict[str, RuleTotals]:
    sums: dict[str, list[int]] = {}
    for process in processes:
        row = sums.setdefault(process.rule, [0, 0, 0])
        row[0] += 1
        row[1] += process.resident_bytes
        row[2] += process.swap_bytes
    return {rule: RuleTotals(*row) for rule, row in sums.items()}
