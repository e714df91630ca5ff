"""The records handed from stage to stage.

Data only: no I/O, no clock, and no import of ours, so that every module may import this one.
Units are in the names: _bytes, _pages, _ratio (0 to 1), _percent, _ticks, _seconds (monotonic
unless the name says unix).  Records made for every process are named tuples, as those are quickest
to make and to hash; what comes from the configuration are frozen dataclasses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

OOM_SCORE_ADJ_MIN: Final = -1000  # the kernel never picks this process; include/uapi/linux/oom.h
OOM_SCORE_ADJ_MAX: Final = 1000
ALMOST_UNKILLABLE: Final = -999  # what the guard leaves of -1000: last in line, but in line
CMDLINE_LIMIT_BYTES: Final = 4096  # how much of a command line the patterns see

# -- configuration ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class User:
    """A user as the file names it; *uid* is None while no such user is known."""

    name: str
    uid: int | None


@dataclass(frozen=True, slots=True)
class Match:
    """All keys given must match; of a key's items, any.  Empty means: not given."""

    name: tuple[str, ...] = ()  # globs on comm
    script: tuple[str, ...] = ()  # globs on what an interpreter runs
    cmdline: tuple[str, ...] = ()  # Python regular expressions, searched
    exe: tuple[str, ...] = ()  # globs on the program's real path
    user: tuple[User, ...] = ()
    unit: tuple[str, ...] = ()  # globs on the systemd unit's name
    cgroup: tuple[str, ...] = ()  # globs on the cgroup's path


CatchableSignal = Literal["SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"]


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    match: Match
    oom_score_adj: int
    workers: int | None = None  # the value of a match whose parent matches the same rule
    descendants: Literal["reset", "inherit"] = "inherit"
    shield: Literal["none", "preference", "scope"] = "none"
    drift: Literal["reassert", "yield"] = "reassert"
    unkillable: bool = False  # has to be said for -1000
    critical_signal: CatchableSignal | None = None  # sent when memory pressure is critical

    @property
    def protects(self) -> bool:
        """Whether the rule lowers a value, which asks for proof of who the process is."""
        return self.oom_score_adj < 0 or (self.workers is not None and self.workers < 0)

    @property
    def cares_for_forks(self) -> bool:
        """Whether a fork of a match is to be seen at once, and not when it executes a program.

        It may be due another value; or it has inherited -1000, and its memory has to be counted.
        """
        return self.workers is not None or self.unkillable


class Address(NamedTuple):
    host: str
    port: int


PressureKind = Literal["some", "full"]
PressureWindow = Literal["avg10", "avg60", "avg300"]


class Threshold(NamedTuple):
    """``some_avg10: 20`` is Threshold("some", "avg10", 20.0)."""

    kind: PressureKind
    window: PressureWindow
    percent: float


@dataclass(frozen=True, slots=True)
class PressureSettings:
    """A level holds while all its thresholds are reached; with none it never holds."""

    warning: tuple[Threshold, ...] = (Threshold("some", "avg10", 20.0),)
    critical: tuple[Threshold, ...] = (Threshold("full", "avg10", 10.0),)
    clear_after_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class IncidentSettings:
    keep: int = 200
    history_seconds: float = 600.0


Command = tuple[str, ...]  # a program with its arguments; empty: none


@dataclass(frozen=True, slots=True)
class PressureHooks:
    """What is run when the level rises to one of these."""

    warning: Command = ()
    critical: Command = ()


DEFAULT_LISTEN: Final = Address("127.0.0.1", 9847)  # loopback


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration, whole and checked; a reload swaps it for another."""

    rules: tuple[Rule, ...] = ()
    interval_seconds: float = 5.0
    events: Literal["auto", "off"] = "auto"
    metrics_listen: Address | None = DEFAULT_LISTEN
    pressure: PressureSettings = field(default_factory=PressureSettings)
    unkillable_memory_max_ratio: float = 0.5
    kubernetes_pods: Literal["leave", "manage"] = "leave"
    incidents: IncidentSettings = field(default_factory=IncidentSettings)
    on_incident: Command = ()
    on_pressure: PressureHooks = field(default_factory=PressureHooks)
    on_stop: Literal["keep", "restore"] = "keep"


NO_RULE: Final = "none"  # in the metrics: of kills of what no rule matches


# -- processes -------------------------------------------------------------------------------------


class ProcessId(NamedTuple):
    """One process for its whole life: the kernel gives a pid out again, but with another start."""

    pid: int
    start_ticks: int  # clock ticks since boot


class Units(NamedTuple):
    """The systemd units a cgroup path lies in; None where it lies in none."""

    system: str | None  # of PID 1; user@1000.service for everything of that user's manager
    user: str | None  # of the user's own manager, which lets its owner start units of any name


class Exe(NamedTuple):
    path: str
    proven: bool  # the file at this path in our own mount namespace is the very file that runs


class Process(NamedTuple):
    """What was read of one process.  None: not read, because no rule asks, or not readable."""

    id: ProcessId
    parent_pid: int
    comm: str  # 15 bytes at most, chosen by the process; bytes that are not UTF-8 as \\xff
    long_name: str | None = None  # the whole name, where the kernel has cut comm
    cmdline: str | None = None  # arguments joined by one space, cut at CMDLINE_LIMIT_BYTES
    script: str | None = None  # as the interpreter was given it
    script_path: str | None = None  # the same, made absolute by the working directory
    exe: Exe | None = None
    uid: int | None = None  # the real one
    units: Units | None = None
    cgroup: str | None = None

    def placed(self, uid: int | None, units: Units | None, cgroup: str | None) -> "Process":
        """The same, with these; from a list, as `_replace` iterates (docs/decisions.md)."""
        return Process._make([*self[:-3], uid, units, cgroup])


class Needs(NamedTuple):
    """What the rules in force ask of a process, beyond its stat line; nothing else is read."""

    cmdline: bool = False
    long_name: bool = False  # cmdline, but only of processes whose name the kernel has cut
    exe: tuple[str, ...] = ()  # the patterns: whom none matches needs no proof of it
    uid: bool = False
    cgroup: bool = False
    working_directory: bool = False


class Heard(NamedTuple):
    """What the kernel has told of processes since the last time, each pid once.

    *pids* run another program, or have another name or owner: by pid, when they have executed the
    program, in ns by the monotonic clock; 0: they have not.
    """

    pids: Mapping[int, int] = MappingProxyType({})
    forks: tuple[tuple[int, int], ...] = ()  # (parent, child), of those that did no more than that
    events: int = 0
    lost: bool = False  # some were dropped, as the buffer was full
    killed: tuple[int, ...] = ()  # ended by SIGKILL, whoever sent it


SILENCE: Final = Heard()


# -- changes ---------------------------------------------------------------------------------------


class Change(NamedTuple):
    """A write we mean to make, and why."""

    id: ProcessId
    comm: str
    rule: str
    oom_score_adj: int


Result = Literal["applied", "gone", "refused", "drifted", "restored"]
MarkingResult = Literal["applied", "repaired", "restored", "refused"]  # of a cgroup's mark
SignalResult = Literal["sent", "not_caught", "gone", "refused"]
HookName = Literal["on_incident", "on_pressure"]
HookResult = Literal["done", "failed", "timed_out", "dropped"]
MoveResult = Literal["moved", "there", "gone", "left_alone", "failed"]  # to a scope of its own


# -- pressure --------------------------------------------------------------------------------------


class Pressure(NamedTuple):
    """``/proc/pressure/memory``: averages in percent of time, totals of stalled time."""

    some_avg10: float
    some_avg60: float
    some_avg300: float
    some_total_seconds: float
    full_avg10: float
    full_avg60: float
    full_avg300: float
    full_total_seconds: float

    def percent(self, threshold: Threshold) -> float:
        value: float = getattr(self, f"{threshold.kind}_{threshold.window}")
        return value


Level = Literal["ok", "warning", "critical"]


# -- what the loop publishes -----------------------------------------------------------------------


class Tracked(NamedTuple):
    """A process under a rule, as `status` shows it."""

    id: ProcessId
    comm: str
    rule: str
    wanted: int
    oom_score_adj: int  # as last seen
    resident_bytes: int
    swap_bytes: int


class Gone(NamedTuple):
    """A process under a rule that has ended, as it was last seen."""

    tracked: Tracked
    late: bool  # it was not held, and may have ended some time ago


class RuleTotals(NamedTuple):
    processes: int
    resident_bytes: int
    swap_bytes: int


class Cost(NamedTuple):
    """What the daemon itself has taken."""

    cpu_seconds: float  # since it started, with its children that have ended
    resident_bytes: int


NOTHING_YET: Final = Cost(0.0, 0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The last turn's state, for other threads to read; nothing in it changes any more."""

    version: str
    started_unix_seconds: float
    turn_seconds: float  # monotonic, when the turn ended
    rules: tuple[Rule, ...] = ()
    totals: Mapping[str, RuleTotals] = field(default_factory=dict)  # by rule
    processes: tuple[Tracked, ...] = ()
    adjustments: Mapping[tuple[str, Result], int] = field(default_factory=dict)  # since start
    exposed: Mapping[tuple[str, str], int] | None = None  # by rule and killer; None: not known
    markings: Mapping[MarkingResult, int] = field(default_factory=dict)
    movings: Mapping[MoveResult, int] = field(default_factory=dict)
    kills: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by rule and killer
    last_incident: Mapping[str, object] | None = None  # as the commands' documents have it
    hook_runs: Mapping[tuple[HookName, HookResult], int] = field(default_factory=dict)
    kernel_log_lost: int = 0  # records that were overwritten before we could read them
    worker_failures: int = 0  # of workers that ask systemd
    pressure: Pressure | None = None  # None: no PSI on this machine
    level: Level = "ok"
    features: Mapping[str, bool] = field(default_factory=dict)
    reload_successful: bool = True
    reload_success_unix_seconds: float = 0.0
    scan_buckets: tuple[tuple[float, int], ...] = ()  # upper bound in seconds, count up to it
    scan_seconds_total: float = 0.0
    scans: int = 0
    unkillable_bytes: int = 0  # memory held by processes that rules keep at -1000
    unkillable_guard_tripped: bool = False
    unkillable_guard_trips: int = 0
    match_timeouts: int = 0  # command lines given up on, see policy/rules
    unreadable: int = 0  # processes whose command line did not come in time
    process_events: int = 0  # that the kernel has told us
    process_events_lost: int = 0  # times that its buffer was full
    cost: Cost = NOTHING_YET
