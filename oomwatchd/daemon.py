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
from oomwatchd.host import Host, reloading
from oomwatchd.journal import Narrator, log
from oomwatchd.kernel.mark import CgroupFs
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.kernel.psi import PressureFile
from oomwatchd.ledger import Ledger
from oomwatchd.model import Address, Level, Pressure, RuleTotals, Snapshot, Tracked
from oomwatchd.pending import pending
from oomwatchd.policy.pressure import PressureState, advance, level
from oomwatchd.population import Moment, Population
from oomwatchd.record import Record
from oomwatchd.shield import Shield
from oomwatchd.systemd.manager import Spawn
from oomwatchd.text import printable
from oomwatchd.watch import Watch

Load = Callable[[], Loaded]
Rebind = Callable[[Address | None], None]  # serve the metrics elsewhere; raises OSError
NEVER: Final = float("-inf")


class Machine(NamedTuple):
    ram_bytes: int
    ticks_per_second: int
    cgroup_root: Path | None = None  # None: cgroup v1, where there is no systemd-oomd
    spawn: Spawn | None = None  # a worker that asks systemd; None: there is no asking it
    spawn_auditor: Spawn | None = None  # None: no audits


def serve(daemon: "Daemon", host: Host) -> None:
    """Keep oom_score_adj in line with the rules until told to stop."""
    daemon.turn(host.now(), scan=True)
    host.publish(daemon.snapshot())
    host.notify("READY=1", daemon.status())
    while not (wake := host.wait(daemon.next_turn_seconds)).stop:
        if wake.reload:
            host.notify(*reloading())
            daemon.reload()
        daemon.turn(wake.now, scan=wake.reload or wake.now.seconds >= daemon.next_scan_seconds)
        host.publish(daemon.snapshot())
        if wake.reload:
            host.notify("READY=1")
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
        self.next_scan_seconds = NEVER
        self._load = load
        self._rebind = rebind
        self._missing = features
        self._features = {name: not missing for name, missing in features.items()}
        self._record = Record(dry_run=dry_run)
        self._holds = Holds()
        population = Population(self._holds, ledger, machine.ticks_per_second)
        self._enforcer = Enforcer(proc, population, ledger, self._record, dry_run=dry_run)
        self._watch = Watch(
            proc, population, self._enforcer, ledger, self._record, ram_bytes=machine.ram_bytes
        )
        self.shield: Shield | None = None
        if machine.cgroup_root is not None:
            self.shield = Shield(
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

    @property
    def next_turn_seconds(self) -> float:
        """When to turn, if nothing happens before."""
        if self.shield is None:
            return self.next_scan_seconds
        return min(self.next_scan_seconds, self.shield.due_seconds)

    def _configure(self, loaded: Loaded) -> None:
        """Put a configuration in force, and say what it asks for in vain."""
        self.config = loaded.config
        self._watch.configure(loaded.config)
        if self.shield is not None:
            self.shield.configure(loaded.config)
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

    def turn(self, now: Moment, *, scan: bool) -> None:
        """Look at the pressure, and at the processes when their time has come."""
        if scan:
            started = time.monotonic()
            self._watch.scan(now)
            self._record.scanned(time.monotonic() - started)
            self.next_scan_seconds = next_scan(
                self.next_scan_seconds, now.seconds, self.config.interval_seconds
            )
        if self.shield is not None:
            self.shield.tend(now, scan=scan)
        if self._exposure is not None:
            self._exposure.tend(self._holds, now.seconds)
            self._record.audited(self._exposure.fault)
        self._feel_pressure(now)
        self._narrator.tell(self._record.take_news())
        self._turn_seconds = time.monotonic()

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
        processes = tuple(hold.tracked() for hold in self._holds)
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
            worker_failures=self.shield.worker_failures if self.shield is not None else 0,
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
        )

    def stop(self, now: Moment) -> None:
        if self._exposure is not None:
            self._exposure.close()
        if self.config.on_stop == "restore":
            self._watch.scan(now)  # who was forked since the last one has inherited our values, too
            self._enforcer.put_all_back()
            if self.shield is not None:
                self.shield.take_all_back(now)
            self._narrator.tell(self._record.take_news())
        if self.shield is not None:
            self.shield.close()


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
