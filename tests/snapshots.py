"""One snapshot with a value in every field, for the tests of all that shows snapshots."""

import dataclasses
import time
from typing import Any

from oomwatchd.model import (
    Cost,
    Match,
    Pressure,
    ProcessId,
    Rule,
    RuleTotals,
    Snapshot,
    Tracked,
)

TRAINING = Rule("model-training", Match(name=("python*",)), -900, workers=-800)
EXPENDABLE = Rule("expendable", Match(name=("chrome",)), 500)

BASE = Snapshot(
    version="1.2.3",
    started_unix_seconds=1_700_000_000.0,
    turn_seconds=0.0,
    rules=(TRAINING, EXPENDABLE),
    totals={"model-training": RuleTotals(2, 6_442_450_944, 1_048_576)},
    processes=(
        Tracked(ProcessId(811, 4211), "python3", "model-training", -900, -900, 4_294_967_296, 0),
        Tracked(
            ProcessId(812, 4300), "python3", "model-training", -800, -800, 2_147_483_648, 1_048_576
        ),
    ),
    adjustments={("model-training", "applied"): 2, ("model-training", "drifted"): 1},
    markings={"applied": 3, "repaired": 1},
    movings={"moved": 2},
    kills={("model-training", "kernel"): 2, ("none", "cgroup"): 1},
    hook_runs={("on_incident", "done"): 3},
    kernel_log_lost=4,
    worker_failures=1,
    exposed={("model-training", "systemd_oomd"): 2},
    pressure=Pressure(12.5, 6.25, 1.0, 42.5, 8.0, 4.0, 0.5, 21.25),
    level="warning",
    features={"psi": True, "kernel_log": False},
    reload_successful=True,
    reload_success_unix_seconds=1_700_000_100.0,
    scan_buckets=((0.001, 3), (0.25, 4), (1.0, 5)),
    scan_seconds_total=1.5,
    scans=6,
    unkillable_bytes=1_073_741_824,
    unkillable_guard_tripped=False,
    unkillable_guard_trips=1,
    match_timeouts=2,
    unreadable=3,
    process_events=40,
    process_events_lost=2,
    cost=Cost(3.25, 27_000_832),
)


def turn(**changes: Any) -> Snapshot:
    """The snapshot of a turn that has just ended."""
    return dataclasses.replace(BASE, **{"turn_seconds": time.monotonic(), **changes})
