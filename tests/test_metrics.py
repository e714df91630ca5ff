"""What is exported is what is declared, and every metric moves."""

import gzip
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from snapshots import EXPENDABLE, TRAINING, turn

from oomwatchd.metrics import Exposition, render
from oomwatchd.model import Cost, Pressure, ProcessId, RuleTotals, Snapshot, Tracked
from oomwatchd.series import DEADLY, DECLARED, OUTCOMES

Parse = Callable[[str], Iterable[Metric]]
parse_text: Parse = text_parser.text_string_to_metric_families
parse_openmetrics: Parse = openmetrics_parser.text_string_to_metric_families

PREFIX = "oomwatchd_"
TRAINING_TOTALS = {"model-training": RuleTotals(3, 7, 9)}
MORE_PRESSURE = Pressure(50.0, 6.25, 1.0, 43.5, 8.0, 4.0, 0.5, 21.25)

ABSENT = -1  # no metric of these tests has this value
# Metric, labels of one of its series, its value in turn(), what changes, the value then.
MOVES: list[tuple[str, dict[str, str], float, dict[str, Any], float]] = [
    ("build_info", {"version": "1.2.3"}, 1, {"version": "1.2.4"}, ABSENT),
    ("start_time_seconds", {}, 1.7e9, {"started_unix_seconds": 1.8e9}, 1.8e9),
    ("config_last_reload_successful", {}, 1, {"reload_successful": False}, 0),
    (
        "config_last_reload_success_timestamp_seconds",
        {},
        1_700_000_100.0,
        {"reload_success_unix_seconds": 1_700_000_200.5},
        1_700_000_200.5,
    ),
    ("rule_oom_score_adj", {"rule": "expendable"}, 500, {"rules": (TRAINING,)}, ABSENT),
    ("rule_processes", {"rule": "model-training"}, 2, {"totals": TRAINING_TOTALS}, 3),
    (
        "rule_resident_bytes",
        {"rule": "model-training"},
        6_442_450_944,
        {"totals": TRAINING_TOTALS},
        7,
    ),
    ("rule_swap_bytes", {"rule": "model-training"}, 1_048_576, {"totals": TRAINING_TOTALS}, 9),
    (
        "rule_exposed_processes",
        {"rule": "model-training", "killer": "systemd_oomd"},
        2,
        {"exposed": {}},
        0,
    ),
    (
        "adjustments_total",
        {"rule": "model-training", "outcome": "applied"},
        2,
        {"adjustments": {("model-training", "applied"): 5}},
        5,
    ),
    ("shield_marks_total", {"outcome": "repaired"}, 1, {"markings": {"repaired": 2}}, 2),
    ("shield_moves_total", {"outcome": "failed"}, 0, {"movings": {"failed": 2}}, 2),
    ("systemd_worker_failures_total", {}, 1, {"worker_failures": 2}, 2),
    (
        "oom_kills_total",
        {"rule": "none", "killer": "cgroup"},
        1,
        {"kills": {("none", "cgroup"): 2}},
        2,
    ),
    (
        "hook_runs_total",
        {"hook": "on_incident", "outcome": "timed_out"},
        0,
        {"hook_runs": {("on_incident", "timed_out"): 1}},
        1,
    ),
    ("kernel_log_lost_total", {}, 4, {"kernel_log_lost": 5}, 5),
    (
        "memory_pressure_ratio",
        {"kind": "some", "window": "10s"},
        0.125,
        {"pressure": MORE_PRESSURE},
        0.5,
    ),
    (
        "memory_pressure_stalled_seconds_total",
        {"kind": "some"},
        42.5,
        {"pressure": MORE_PRESSURE},
        43.5,
    ),
    ("memory_pressure_level", {}, 1, {"level": "critical"}, 2),
    ("scan_duration_seconds_count", {}, 6, {"scans": 7}, 7),
    ("scan_duration_seconds_sum", {}, 1.5, {"scan_seconds_total": 1.75}, 1.75),
    (
        "scan_duration_seconds_bucket",
        {"le": "0.25"},
        4,
        {"scan_buckets": ((0.25, 5),)},
        5,
    ),
    ("feature_available", {"feature": "kernel_log"}, 0, {"features": {"kernel_log": True}}, 1),
    ("unkillable_memory_bytes", {}, 1_073_741_824, {"unkillable_bytes": 17}, 17),
    ("unkillable_guard_tripped", {}, 0, {"unkillable_guard_tripped": True}, 1),
    ("unkillable_guard_trips_total", {}, 1, {"unkillable_guard_trips": 2}, 2),
    ("match_timeouts_total", {}, 2, {"match_timeouts": 4}, 4),
    ("unreadable_total", {}, 3, {"unreadable": 5}, 5),
    ("process_events_total", {}, 40, {"process_events": 41}, 41),
    ("process_events_lost_total", {}, 2, {"process_events_lost": 3}, 3),
    ("cpu_seconds_total", {}, 3.25, {"cost": Cost(4.5, 1)}, 4.5),
    ("resident_bytes", {}, 27_000_832, {"cost": Cost(4.5, 1)}, 1),
]
MOVED = {name: parameters for name, *parameters in MOVES}


def parsed(snapshot: Snapshot) -> dict[str, Metric]:
    """By the name that DECLARED gives."""
    families = parse_text(render(snapshot).decode())
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in families
    }


def value(snapshot: Snapshot, name: str, labels: Mapping[str, str]) -> float:
    samples = (sample for family in parsed(snapshot).values() for sample in family.samples)
    found = [sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)]
    assert len(found) <= 1
    return found[0] if found else ABSENT


@pytest.mark.parametrize("parse", [parse_text, parse_openmetrics])
@pytest.mark.parametrize("version", ['1"2', "1\\n2", "1\n2", '\\"', "1\u00e9\U0001f600", "{a=1,b}"])
def test_a_label_is_read_as_it_was_whatever_is_in_it(parse: Parse, version: str) -> None:
    body = render(turn(version=version), openmetrics=parse is parse_openmetrics)
    [family] = [one for one in parse(body.decode()) if one.name == "oomwatchd_build_info"]

    assert [sample.labels for sample in family.samples] == [{"version": version}]


def test_labels_stand_in_the_order_of_the_alphabet() -> None:
    lines = render(turn()).decode().splitlines()

    assert 'oomwatchd_adjustments_total{outcome="applied",rule="model-training"} 2.0' in lines


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
def test_each_metric_is_exported_as_it_is_declared(declared: Any) -> None:
    exported = parsed(turn())[declared.name]

    assert (exported.type, exported.documentation) == (declared.type, declared.help)
    assert exported.samples
    for sample in exported.samples:
        assert sample.labels.keys() - {"le"} == set(declared.labels)


def test_nothing_is_exported_that_is_not_declared() -> None:
    assert list(parsed(turn())) == [declared.name for declared in DECLARED]


@pytest.mark.parametrize(("name", "labels", "before", "change", "after"), MOVES)
def test_each_metric_moves(
    name: str, labels: dict[str, str], before: float, change: dict[str, Any], after: float
) -> None:
    assert value(turn(), PREFIX + name, labels) == before
    assert value(turn(**change), PREFIX + name, labels) == after


def test_no_declared_metric_is_left_out_of_these_tests() -> None:
    parts = ("_bucket", "_sum", "_count")
    tested = {
        next((name.removesuffix(p) for p in parts if name.endswith(p)), name) for name in MOVED
    }

    assert {PREFIX + name for name in tested} == {declared.name for declared in DECLARED}


def test_every_rule_has_every_outcome_from_the_start() -> None:
    samples = parsed(turn(adjustments={}))["oomwatchd_adjustments_total"].samples

    assert {(sample.labels["rule"], sample.labels["outcome"]) for sample in samples} == {
        (rule.name, outcome) for rule in (TRAINING, EXPENDABLE) for outcome in OUTCOMES
    }
    assert {sample.value for sample in samples} == {0}
    assert set(OUTCOMES) == {"applied", "gone", "refused", "drifted", "restored"}


def killed(**changes: Any) -> dict[tuple[str, str], float]:
    samples = parsed(turn(**changes))["oomwatchd_oom_kills_total"].samples
    return {(one.labels["rule"], one.labels["killer"]): one.value for one in samples}


def test_a_rule_with_processes_has_every_killer_before_the_first_kill() -> None:
    """Else the first would be missed by whoever asks for the increase."""
    counts = killed(kills={})

    assert counts.keys() == {(rule, one) for rule in ("none", "model-training") for one in DEADLY}
    assert set(counts.values()) == {0}


def test_a_rule_that_protects_has_them_before_its_first_process() -> None:
    """A job may come and be killed between two scrapes."""
    counts = killed(kills={}, totals={})

    assert counts.keys() == {(rule, one) for rule in ("none", "model-training") for one in DEADLY}


def test_kills_stay_counted_when_the_rule_has_no_process_or_is_gone() -> None:
    kills = {("expendable", "kernel"): 3, ("dropped", "unknown"): 1}
    counts = killed(kills=kills, totals={})

    assert {key: count for key, count in counts.items() if count} == kills


def test_a_rule_that_matches_nothing_has_zero_processes() -> None:
    assert value(turn(), "oomwatchd_rule_processes", {"rule": "expendable"}) == 0


def test_a_kernel_without_psi_has_no_pressure_but_a_level() -> None:
    names = parsed(turn(pressure=None, level="ok")).keys()

    assert {name for name in names if "pressure" in name} == {"oomwatchd_memory_pressure_level"}


@pytest.mark.parametrize(("level", "number"), [("ok", 0), ("warning", 1), ("critical", 2)])
def test_the_levels_have_their_numbers(level: str, number: int) -> None:
    assert value(turn(level=level), "oomwatchd_memory_pressure_level", {}) == number


def test_scans_slower_than_the_last_bound_are_counted_too() -> None:
    buckets = {
        sample.labels["le"]: sample.value
        for sample in parsed(turn())["oomwatchd_scan_duration_seconds"].samples
        if sample.name.endswith("_bucket")
    }

    assert buckets == {"0.001": 3, "0.25": 4, "1.0": 5, "+Inf": 6}


def test_before_the_first_scan_the_histogram_is_empty_not_absent() -> None:
    count = "oomwatchd_scan_duration_seconds_count"

    assert value(turn(scan_buckets=(), scan_seconds_total=0.0, scans=0), count, {}) == 0


def test_nothing_that_a_process_chose_is_exported() -> None:
    hostile = Tracked(ProcessId(31337, 1), 'x"} 1\nforged', "model-training", 0, 0, 0, 0)
    exported = render(turn(processes=(hostile,)))

    assert exported == render(turn(processes=()))


def test_a_label_is_escaped() -> None:
    version = 'a"b\\c\nd'

    assert value(turn(version=version), "oomwatchd_build_info", {"version": version}) == 1


def test_neither_the_librarys_own_metrics_nor_creation_times_are_exported() -> None:
    lines = render(turn()).decode().splitlines()
    series = [line for line in lines if not line.startswith("#")]

    assert all(line.startswith(PREFIX) for line in series)
    assert not [line for line in lines if "_created" in line]


def test_openmetrics_says_the_same_as_the_text() -> None:
    openmetrics = render(turn(), openmetrics=True).decode()

    def samples(parse: Parse, text: str) -> set[tuple[str, str, float]]:
        return {
            (sample.name, str(sorted(sample.labels.items())), sample.value)
            for family in parse(text)
            for sample in family.samples
        }

    assert openmetrics.endswith("# EOF\n")
    assert samples(parse_openmetrics, openmetrics) == samples(parse_text, render(turn()).decode())


def test_a_snapshot_is_rendered_once_however_many_ask() -> None:
    exposition = Exposition(turn())
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(exposition.body, openmetrics=False, compressed=False) for _ in range(32)
        ]

    assert len({id(body.result()) for body in asked}) == 1


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_compressed_text_is_the_text(openmetrics: bool) -> None:  # noqa: FBT001 - pytest gives it
    exposition = Exposition(turn())
    compressed = exposition.body(openmetrics=openmetrics, compressed=True)

    assert len(compressed) < len(render(turn())) / 3
    assert gzip.decompress(compressed) == exposition.body(openmetrics=openmetrics, compressed=False)
