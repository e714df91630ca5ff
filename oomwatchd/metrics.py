"""What Prometheus sees: one snapshot turned into metric families, and these into text.

Nothing is global and nothing is read here but the snapshot, so a scrape costs the loop nothing.
Label values come from the configuration or from fixed sets, so that no process can add a series.
"""

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, get_args

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder

from oomwatchd.model import Level, Pressure, Result, RuleTotals, Snapshot

OUTCOMES: Final[tuple[Result, ...]] = get_args(Result)
LEVELS: Final[tuple[Level, ...]] = get_args(Level)  # the exported number is the place in this row
NO_PROCESSES: Final = RuleTotals(processes=0, resident_bytes=0, swap_bytes=0)

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


def _adjustments(snapshot: Snapshot) -> Iterable[Row]:
    """Every rule and outcome, 0 included: a rate misses the first step of a series that is new.

    A rule that a reload has dropped keeps its counts: its last ones are the values put back.
    """
    count = snapshot.adjustments.get
    names = {rule.name: None for rule in snapshot.rules}
    names.update((name, None) for name, _ in snapshot.adjustments)
    return [((name, outcome), count((name, outcome), 0)) for name in names for outcome in OUTCOMES]


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
        "oomwatchd_adjustments_total",
        "counter",
        ("rule", "outcome"),
        "Changes of oom_score_adj by outcome: applied, gone (the process had ended), refused (by"
        " the kernel), drifted (somebody else changed it), restored (the old value).",
        _adjustments,
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


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """All that DECLARED lists and the snapshot has values for, in that order."""
    for declared in DECLARED:
        rows = declared.rows(snapshot)
        if declared.type == "histogram":
            buckets = [(le, count) for (le,), count in rows]
            total = snapshot.scan_seconds_total
            yield HistogramMetricFamily(declared.name, declared.help, buckets, total)
            continue
        make = CounterMetricFamily if declared.type == "counter" else GaugeMetricFamily
        family = make(declared.name, declared.help, labels=declared.labels)
        for labels, value in rows:
            family.add_metric(labels, value)
        if family.samples:
            yield family


class _SnapshotRegistry(CollectorRegistry):
    """What the library's encoders ask for: our families, and none of its own about Python."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return families(self._snapshot)


def render(snapshot: Snapshot, *, openmetrics: bool = False) -> bytes:
    """The text of a scrape, in Prometheus' own format or as OpenMetrics."""
    # Our names need no escaping; allow-utf-8 spares recent libraries a check of each character
    # of each sample, which doubled the time (0.26: 5.5 ms for 100 rules).  Older ones ignore it.
    wanted = "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"
    encode, _ = choose_encoder(wanted if openmetrics else "")
    return encode(_SnapshotRegistry(snapshot))


class Exposition:
    """The text of one snapshot, rendered once however many ask for it and however often.

    One thread renders while the others wait for it: several at once would only take the
    interpreter away from the loop for longer.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot: Final = snapshot
        self._lock: Final = threading.Lock()
        self._bodies: Final[dict[tuple[bool, bool], bytes]] = {}

    def body(self, *, openmetrics: bool, compressed: bool) -> bytes:
        with self._lock:
            return self._body(openmetrics=openmetrics, compressed=compressed)

    def _body(self, *, openmetrics: bool, compressed: bool) -> bytes:
        known = self._bodies.get((openmetrics, compressed))
        if known is not None:
            return known
        if compressed:  # level 1: a tenth of the time of level 9, and nearly as small here
            body = gzip.compress(self._body(openmetrics=openmetrics, compressed=False), 1, mtime=0)
        else:
            body = render(self.snapshot, openmetrics=openmetrics)
        self._bodies[openmetrics, compressed] = body
        return body
