"""Every metric that Prometheus is given, and how a snapshot fills it.

Label values come from the configuration or from fixed sets, so that no process can add a series.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeVar, get_args

from oomwatchd.auditing import KILLERS
from oomwatchd.incident import Killer
from oomwatchd.model import (
    NO_RULE,
    HookName,
    HookResult,
    Level,
    MarkingResult,
    MoveResult,
    Pressure,
    Result,
    RuleTotals,
    Snapshot,
)

OUTCOMES: Final[tuple[Result, ...]] = get_args(Result)
MARKING_RESULTS: Final[tuple[MarkingResult, ...]] = get_args(MarkingResult)
MOVE_RESULTS: Final[tuple[MoveResult, ...]] = get_args(MoveResult)
DEADLY: Final[tuple[Killer, ...]] = get_args(Killer)
HOOKS: Final[tuple[HookName, ...]] = get_args(HookName)
HOOK_RESULTS: Final[tuple[HookResult, ...]] = get_args(HookResult)
LEVELS: Final[tuple[Level, ...]] = get_args(Level)  # the exported number is the place in this row
NO_PROCESSES: Final = RuleTotals(processes=0, resident_bytes=0, swap_bytes=0)

T = TypeVar("T", bound=str)
Row = tuple[Sequence[str], float]  # label values, value


class Declared(NamedTuple):
    """One metric; DECLARED is the whole list, and the README's table is checked against it."""

    name: str  # as scraped: a counter's with _total
    type: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str
    rows: Callable[[Snapshot], Iterable[Row]]  # none: the metric is left out


def _single(read: Callable[[Snapshot], float]) -> Callable[[Snapshot], Iterable[Row]]:
    return lambda snapshot: [((), read(snapshot))]


def _of_rules(read: Callable[[RuleTotals], float]) -> Callable[[Snapshot], Iterable[Row]]:
    return lambda snapshot: [
        ((rule.name,), read(snapshot.totals.get(rule.name, NO_PROCESSES)))
        for rule in snapshot.rules
    ]


def _exposed(snapshot: Snapshot) -> Iterable[Row]:
    """Every rule that protects and every killer; none before the first audit."""
    if snapshot.exposed is None:
        return ()
    count = snapshot.exposed.get
    names = [rule.name for rule in snapshot.rules if rule.protects]
    return [((name, killer), count((name, killer), 0)) for name in names for killer in KILLERS]


def _adjustments(snapshot: Snapshot) -> Iterable[Row]:
    """Every rule and outcome, 0 included: a rate misses the first step of a series that is new.

    A rule that a reload has dropped keeps its counts: its last ones are the values put back.
    """
    count = snapshot.adjustments.get
    names = {rule.name: None for rule in snapshot.rules}
    names.update((name, None) for name, _ in snapshot.adjustments)
    return [((name, outcome), count((name, outcome), 0)) for name in names for outcome in OUTCOMES]


def _kills(snapshot: Snapshot) -> Iterable[Row]:
    """Likewise of rules that protect, as a job may come and be killed between two scrapes; of
    others, only if they have processes.  `NO_RULE` is a name that no rule can have.
    """
    count = snapshot.kills.get
    having = snapshot.totals.keys() | {name for name, _ in snapshot.kills}
    shown = [rule.name for rule in snapshot.rules if rule.protects or rule.name in having]
    names = [NO_RULE, *shown]
    names += sorted(having - set(names))
    return [((name, killer), count((name, killer), 0)) for name in names for killer in DEADLY]


def _hook_runs(snapshot: Snapshot) -> Iterable[Row]:
    count = snapshot.hook_runs.get
    return [((name, one), count((name, one), 0)) for name in HOOKS for one in HOOK_RESULTS]


def _outcomes(counts: Mapping[T, int], outcomes: Iterable[T]) -> Iterable[Row]:
    return [((outcome,), counts.get(outcome, 0)) for outcome in outcomes]


def _pressure_ratios(pressure: Pressure | None) -> Iterable[Row]:
    if pressure is None:
        return ()
    return (
        (("some", "10s"), pressure.some_avg10 / 100),
        (("some", "60s"), pressure.some_avg60 / 100),
        (("some", "300s"), pressure.some_avg300 / 100),
        (("full", "10s"), pressure.full_avg10 / 100),
        (("full", "60s"), pressure.full_avg60 / 100),
        (("full", "300s"), pressure.full_avg300 / 100),
    )


def _stalled_seconds(pressure: Pressure | None) -> Iterable[Row]:
    if pressure is None:
        return ()
    return (
        (("some",), pressure.some_total_seconds),
        (("full",), pressure.full_total_seconds),
    )


def _scan_buckets(snapshot: Snapshot) -> Iterable[Row]:
    for upper_bound_seconds, count in snapshot.scan_buckets:
        yield (str(float(upper_bound_seconds)),), count
    yield ("+Inf",), snapshot.scans


DECLARED: Final = (
    Declared(
        "oomwatchd_build_info",
        "gauge",
        ("version",),
        "Always 1; the label says which version of oomwatchd runs.",
        lambda snapshot: [((snapshot.version,), 1)],
    ),
    Declared(
        "oomwatchd_start_time_seconds",
        "gauge",
        (),
        "When the daemon started, in seconds since 1970; all counters begin anew then.",
        _single(lambda snapshot: snapshot.started_unix_seconds),
    ),
    Declared(
        "oomwatchd_config_last_reload_successful",
        "gauge",
        (),
        "1 if the configuration was good when last read; 0 if it was refused and the one before it"
        " stays in force.",
        _single(lambda snapshot: snapshot.reload_successful),
    ),
    Declared(
        "oomwatchd_config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "When the configuration in force was read, in seconds since 1970.",
        _single(lambda snapshot: snapshot.reload_success_unix_seconds),
    ),
    Declared(
        "oomwatchd_rule_oom_score_adj",
        "gauge",
        ("rule",),
        "The oom_score_adj that the rule sets, from -1000 (never killed) to 1000 (killed first).",
        lambda snapshot: [((rule.name,), rule.oom_score_adj) for rule in snapshot.rules],
    ),
    Declared(
        "oomwatchd_rule_processes",
        "gauge",
        ("rule",),
        "Processes that the rule matches now.",
        _of_rules(lambda totals: totals.processes),
    ),
    Declared(
        "oomwatchd_rule_resident_bytes",
        "gauge",
        ("rule",),
        "Resident memory of the processes that the rule matches; what they share counts for each.",
        _of_rules(lambda totals: totals.resident_bytes),
    ),
    Declared(
        "oomwatchd_rule_swap_bytes",
        "gauge",
        ("rule",),
        "Swap used by the processes that the rule matches.",
        _of_rules(lambda totals: totals.swap_bytes),
    ),
    Declared(
        "oomwatchd_rule_exposed_processes",
        "gauge",
        ("rule", "killer"),
        "Processes of a rule that protects, which this killer can still take, by the last audit;"
        " `oomwatchd audit` says why. Left out until there has been one.",
        _exposed,
    ),
    Declared(
        "oomwatchd_adjustments_total",
        "counter",
        ("rule", "outcome"),
        "Changes of oom_score_adj by outcome: applied, gone (the process had ended), refused (by"
        " the kernel), drifted (somebody else changed it), restored (the old value).",
        _adjustments,
    ),
    Declared(
        "oomwatchd_shield_marks_total",
        "counter",
        ("outcome",),
        "Marks on cgroups for systemd-oomd by outcome: applied, repaired (somebody had removed it),"
        " restored (taken back), refused (by the kernel).",
        lambda snapshot: _outcomes(snapshot.markings, MARKING_RESULTS),
    ),
    Declared(
        "oomwatchd_shield_moves_total",
        "counter",
        ("outcome",),
        "Processes that were to have a scope of their own by outcome: moved, there (it was in one),"
        " gone (it had ended), left_alone (in a container), failed.",
        lambda snapshot: _outcomes(snapshot.movings, MOVE_RESULTS),
    ),
    Declared(
        "oomwatchd_systemd_worker_failures_total",
        "counter",
        (),
        "Workers that ask systemd and hung or broke, each of which was replaced.",
        _single(lambda snapshot: snapshot.worker_failures),
    ),
    Declared(
        "oomwatchd_oom_kills_total",
        "counter",
        ("rule", "killer"),
        "Kills for want of memory, one for each cause, by the rule of the victim (none: no rule"
        " matched it) and by killer; `oomwatchd incidents` explains them. Those that happened while"
        " the daemon was down count when they are found; of so many at once that they cannot all be"
        " explained, those of no rule are counted and no more.",
        _kills,
    ),
    Declared(
        "oomwatchd_hook_runs_total",
        "counter",
        ("hook", "outcome"),
        "Hooks by outcome: done (exit status 0), failed, timed_out (killed after 30 seconds),"
        " dropped (too many were waiting).",
        _hook_runs,
    ),
    Declared(
        "oomwatchd_kernel_log_lost_total",
        "counter",
        (),
        "Records of the kernel's log that were overwritten before they could be read.",
        _single(lambda snapshot: snapshot.kernel_log_lost),
    ),
    Declared(
        "oomwatchd_memory_pressure_ratio",
        "gauge",
        ("kind", "window"),
        "Share of the last 10, 60 or 300 seconds in which some or all (full) tasks waited for"
        " memory, from 0 to 1. Left out on kernels without pressure stall information.",
        lambda snapshot: _pressure_ratios(snapshot.pressure),
    ),
    Declared(
        "oomwatchd_memory_pressure_stalled_seconds_total",
        "counter",
        ("kind",),
        "Time since boot in which some or all (full) tasks waited for memory. Left out on kernels"
        " without pressure stall information.",
        lambda snapshot: _stalled_seconds(snapshot.pressure),
    ),
    Declared(
        "oomwatchd_memory_pressure_level",
        "gauge",
        (),
        "Level of memory pressure by the configured thresholds: 0 ok, 1 warning, 2 critical.",
        _single(lambda snapshot: LEVELS.index(snapshot.level)),
    ),
    Declared(
        "oomwatchd_scan_duration_seconds",
        "histogram",
        (),
        "How long it took to look at all processes.",
        _scan_buckets,
    ),
    Declared(
        "oomwatchd_cpu_seconds_total",
        "counter",
        (),
        "CPU time that the daemon has taken, with its children that have ended.",
        _single(lambda snapshot: snapshot.cost.cpu_seconds),
    ),
    Declared(
        "oomwatchd_resident_bytes",
        "gauge",
        (),
        "Resident memory of the daemon.",
        _single(lambda snapshot: snapshot.cost.resident_bytes),
    ),
    Declared(
        "oomwatchd_feature_available",
        "gauge",
        ("feature",),
        "1 if the kernel and the system offer what the feature needs, 0 if oomwatchd does without.",
        lambda snapshot: [((name,), works) for name, works in snapshot.features.items()],
    ),
    Declared(
        "oomwatchd_unkillable_memory_bytes",
        "gauge",
        (),
        "Memory held by the processes that rules keep at -1000, which the kernel never kills.",
        _single(lambda snapshot: snapshot.unkillable_bytes),
    ),
    Declared(
        "oomwatchd_unkillable_guard_tripped",
        "gauge",
        (),
        "1 while processes meant for -1000 are held at -999 because together they reached"
        " unkillable_memory_max.",
        _single(lambda snapshot: snapshot.unkillable_guard_tripped),
    ),
    Declared(
        "oomwatchd_unkillable_guard_trips_total",
        "counter",
        (),
        "How often processes meant for -1000 reached unkillable_memory_max and were set to -999.",
        _single(lambda snapshot: snapshot.unkillable_guard_trips),
    ),
    Declared(
        "oomwatchd_match_timeouts_total",
        "counter",
        (),
        "Command lines given up on because a cmdline pattern took too long on them.",
        _single(lambda snapshot: snapshot.match_timeouts),
    ),
    Declared(
        "oomwatchd_unreadable_total",
        "counter",
        (),
        "Processes whose command line could not be read in time, so that no rule matched on it.",
        _single(lambda snapshot: snapshot.unreadable),
    ),
    Declared(
        "oomwatchd_process_events_total",
        "counter",
        (),
        "What the kernel has told of processes: new programs, names, owners and forks.",
        _single(lambda snapshot: snapshot.process_events),
    ),
    Declared(
        "oomwatchd_process_events_lost_total",
        "counter",
        (),
        "Times that the kernel had more to tell than the buffer held; all were looked at then.",
        _single(lambda snapshot: snapshot.process_events_lost),
    ),
)
