"""Scenarios 3 and 6: the whole machine runs out of memory, 1 GiB and no swap."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .machine import Machine
from .service import (
    WORK,
    Training,
    alive,
    configure,
    has_adj,
    is_active,
    killed_by_kernel,
    log,
    main_pid,
    metrics,
    oom_kills,
    start,
    stop,
    unfed_seconds,
    unit_property,
)

pytestmark = pytest.mark.vm

vm_log = logging.getLogger("vm")

HOGS = 4  # together they take everything, and yet each stays smaller than the training run
RULES = """\
interval: 1s
rules:
  - name: training
    match: {script: train*.py, user: user}
    oom_score_adj: -900
"""
NO_RULES = "interval: 1s\nrules: []\n"

# Memory in MiB and oom_score_adj of the processes of each run.  The machine has about 970 MiB, so
# one unit of oom_score_adj is worth about 1 MiB: each run has a clear first, by one or by both.
RUNS = (
    ((120, 0), (60, 0), (30, 0)),
    ((120, 0), (60, 100), (30, 0)),
    ((120, 0), (60, 0), (30, 200)),
    ((150, -100), (90, 0), (40, 0)),
    ((150, -200), (90, -70), (40, -50)),
    ((200, -500), (100, -300), (20, 0)),
    ((200, -900), (100, -500), (60, -20)),
    ((80, 300), (120, 200), (160, 100)),
    ((80, 1000), (200, 500), (10, 900)),
    ((200, -1000), (150, -999), (60, 10)),
)


@pytest.fixture
def training(protected: Machine) -> Iterator[Training]:
    run = Training(protected, "training", 350)
    yield run
    run.stop()


def take_everything(machine: Machine) -> tuple[int, set[int]]:
    """Let the hogs grow until each has been killed; their parent, and who was killed in all."""
    before = killed_by_kernel(machine)
    parent = start(
        machine,
        "hogs",
        *("/usr/bin/python3", f"{WORK}/hog.py", "--processes", str(HOGS)),
        properties=("OOMPolicy=continue",),
    )
    machine.wait(
        "the hogs have been killed",
        lambda: unit_property(machine, "hogs", "ActiveState") != "active",
        180.0,
    )
    stop(machine, "hogs")
    return parent, set(killed_by_kernel(machine)[len(before) :])


def test_without_the_rule_the_training_run_dies(protected: Machine, training: Training) -> None:
    configure(protected, NO_RULES)

    _, killed = take_everything(protected)

    assert training.main in killed
    assert not alive(protected, training.main)


def test_with_the_rule_the_training_run_outlives_hogs_that_take_everything(
    protected: Machine, training: Training
) -> None:
    configure(protected, RULES)
    has_adj(protected, training.main, -900)
    before = oom_kills(protected)

    parent, killed = take_everything(protected)

    assert alive(protected, training.main)
    assert training.main not in killed
    # The kernel takes the parent too if the last hog's memory is not free soon enough.
    assert len(killed - {parent}) == HOGS
    assert oom_kills(protected) - before == len(killed)
    assert metrics(protected)['oomwatchd_rule_processes{rule="training"}'] == 2.0


def test_rank_names_the_next_victim_ten_times_out_of_ten(
    protected: Machine, results: Path, suite: str
) -> None:
    configure(protected, NO_RULES)
    rows = [predicted_and_killed(protected, run) for run in RUNS]
    table = rank_table(suite, rows)
    (results / "rank.md").write_text(table)
    vm_log.info("%s", table)

    assert [row["killed"] for row in rows] == [row["predicted"] for row in rows]


def predicted_and_killed(machine: Machine, run: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """Fill the memory, ask `rank` just before the end, and see whom the kernel then takes."""
    processes = {holder(machine, number, *held): held for number, held in enumerate(run)}
    kills, reported = oom_kills(machine), len(killed_by_kernel(machine))
    options = ("--leave-mib", "90", "--ready", "/run/ready", "--go", "/run/go")
    start(machine, "fill", "/usr/bin/python3", f"{WORK}/fill.py", *options)
    machine.wait("the memory is nearly full", lambda: machine.get("/run/ready") is not None)
    ranked = json.loads(machine.run("oomwatchd", "rank", "--json"))
    # The command itself may be in it, and has ended.
    ranked = [process for process in ranked if alive(machine, process["pid"])]
    # From here on no program is started, as it would be a candidate too.
    machine.put("/run/go", "")
    machine.wait("the kernel has killed", lambda: oom_kills(machine) > kills)
    machine.wait("its report is in the journal", lambda: killed_by_kernel(machine)[reported:])
    victim = killed_by_kernel(machine)[reported]
    stop(machine, "fill", *(f"held-{number}" for number in range(len(run))))
    machine.sh("rm -f /run/ready /run/go /run/held-*.json")
    return {
        "processes": processes,
        "names": {process["pid"]: process["name"] for process in ranked},
        "predicted": ranked[0]["pid"],
        "points": ranked[0]["points_pages"],
        "second": ranked[1]["points_pages"],
        "killed": victim,
    }


def holder(machine: Machine, number: int, mib: int, adj: int) -> int:
    """Start a process that holds *mib* at *adj*, and give its pid."""
    state = f"/run/held-{number}.json"
    pid = start(
        machine,
        f"held-{number}",
        *("/usr/bin/python3", f"{WORK}/train.py", "--hold-mib", str(mib), "--workers", "0"),
        *("--state", state),
        properties=(f"OOMScoreAdjust={adj}",),
    )
    machine.wait("it holds its memory", lambda: machine.get(state))
    return pid


def rank_table(suite: str, rows: list[dict[str, Any]]) -> str:
    def named(row: dict[str, Any], pid: int) -> str:
        mib, adj = row["processes"].get(pid, (None, None))
        return f"{mib} MiB at {adj}" if mib else row["names"].get(pid, str(pid))

    lines = [
        f"| {suite}: processes | rank's first | points, pages | next | killed |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        processes = ", ".join(f"{mib} MiB at {adj}" for mib, adj in row["processes"].values())
        lines.append(
            f"| {processes} | {named(row, row['predicted'])} | {row['points']} | {row['second']} "
            f"| {named(row, row['killed'])} |"
        )
    return "\n".join(lines) + "\n"


def test_the_daemon_works_on_while_memory_runs_out(protected: Machine, results: Path) -> None:
    configure(protected, RULES)
    daemon = main_pid(protected)
    kills_before = oom_kills(protected)
    scrape = ("/usr/bin/python3", f"{WORK}/scrape.py", "--seconds", "40")
    start(protected, "scrape", *scrape, "--results", "/run/scrapes.json")
    hog = ("/usr/bin/python3", f"{WORK}/hog.py", "--processes", str(HOGS), "--for-seconds", "20")
    start(protected, "hogs", *hog, properties=("OOMPolicy=continue",))
    protected.wait("memory has run out", lambda: oom_kills(protected) > kills_before, 120.0)

    in_the_middle = Training(protected, "late", 5)
    has_adj(protected, in_the_middle.main, -900)
    unfed_meanwhile_seconds = unfed_seconds(protected)
    killed_meanwhile = oom_kills(protected)
    hogs_are_at_work = unit_property(protected, "hogs", "ActiveState") == "active"
    told = protected.wait("the scrapes are done", lambda: protected.get("/run/scrapes.json"), 180.0)
    (results / "scrapes.json").write_text(told)
    scrapes = json.loads(told)
    stop(protected, "hogs")

    assert hogs_are_at_work
    assert killed_meanwhile > kills_before
    assert min(scrape["available_mib"] for scrape in scrapes) < 50
    assert [scrape for scrape in scrapes if not scrape["whole"]] == []
    assert max(scrape["took_seconds"] for scrape in scrapes) <= 5.0
    assert is_active(protected)
    assert main_pid(protected) == daemon
    assert unfed_meanwhile_seconds <= 30.0  # half of WatchdogSec
    assert unfed_seconds(protected) <= 30.0
    assert [line for line in log(protected) if "Watchdog timeout" in line] == []
    in_the_middle.stop()
