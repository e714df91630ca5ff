"""Scenarios 2 and 5: what rules do to a user's training run, and who dies inside a limit."""

import json
from collections.abc import Iterator

import pytest

from .machine import Machine
from .service import (
    WORK,
    Training,
    adj,
    alive,
    configure,
    has_adj,
    killed_by_kernel,
    metrics,
    start,
    stop,
    unit_property,
)

pytestmark = pytest.mark.vm

ADJ_BEFORE = 150
RULES = """\
interval: 1s
rules:
  - name: training
    match: {script: train*.py, user: user}
    oom_score_adj: -900
    workers: -800
"""
NO_RULES = "interval: 1s\nrules: []\n"


@pytest.fixture(scope="module")
def training(protected: Machine) -> Iterator[Training]:
    run = Training(protected, "training", 20, f"OOMScoreAdjust={ADJ_BEFORE}")
    yield run
    run.stop()


def test_without_a_rule_the_training_run_keeps_its_value(
    protected: Machine, training: Training
) -> None:
    configure(protected, NO_RULES)

    assert adj(protected, training.main) == ADJ_BEFORE
    assert [adj(protected, pid) for pid in training.workers] == [ADJ_BEFORE]


def test_a_rule_lowers_the_training_run_and_its_workers_and_resets_its_shell(
    protected: Machine, training: Training
) -> None:
    configure(protected, RULES)
    has_adj(protected, training.main, -900)
    training.fork_and_start_a_shell()
    for worker in training.workers:
        has_adj(protected, worker, -800)
    has_adj(protected, training.shells[0], ADJ_BEFORE)

    explained = json.loads(protected.run("oomwatchd", "explain", "--json", str(training.main)))
    assert len(training.workers) == 2
    assert explained["rule"] == "training"
    assert explained["wanted"] == explained["oom_score_adj"] == -900


def test_metrics_count_what_the_rule_holds(protected: Machine, training: Training) -> None:
    processes = 'oomwatchd_rule_processes{rule="training"}'
    applied = 'oomwatchd_adjustments_total{outcome="applied",rule="training"}'
    protected.wait("three processes are counted", lambda: metrics(protected).get(processes) == 3.0)

    scraped = metrics(protected)
    assert scraped['oomwatchd_rule_oom_score_adj{rule="training"}'] == -900.0
    assert scraped['oomwatchd_rule_resident_bytes{rule="training"}'] > 20 << 20
    assert (scraped.get(applied) or 0.0) >= 3.0


def test_once_the_rule_is_dropped_the_old_values_are_back(
    protected: Machine, training: Training
) -> None:
    configure(protected, NO_RULES)
    everyone = [training.main, *training.workers, *training.shells]
    for pid in everyone:
        has_adj(protected, pid, ADJ_BEFORE)

    assert all(alive(protected, pid) for pid in everyone)


@pytest.mark.parametrize("rules", [NO_RULES, RULES], ids=["without-rules", "with-rules"])
def test_a_limit_kills_the_largest_unless_a_rule_protects_it(
    protected: Machine, rules: str
) -> None:
    configure(protected, rules)
    limited = Limited(protected, "OOMPolicy=continue")
    protected.wait("the hogs have been killed", limited.hogs_have_ended)

    trained = limited.training_pid
    assert (trained in limited.killed()) is (rules == NO_RULES)
    assert alive(protected, trained) is (rules == RULES)
    limited.stop()


def test_with_oom_policy_stop_systemd_ends_the_run_that_the_kernel_spared(
    protected: Machine,
) -> None:
    configure(protected, RULES)
    limited = Limited(protected, "OOMPolicy=stop")
    protected.wait("the unit has ended", lambda: limited.result() == "oom-kill")

    assert limited.training_pid not in limited.killed()
    protected.wait("so has the run", lambda: not alive(protected, limited.training_pid))
    limited.stop()


class Limited:
    """A service with a limit, in which a large training run and a growing hog live together."""

    ENDED = "/home/user/hogs-have-ended"

    def __init__(self, machine: Machine, *properties: str) -> None:
        self._machine = machine
        self._before = set(killed_by_kernel(machine))
        state = "/home/user/limited.json"
        train = f"/usr/bin/python3 {WORK}/train.py --hold-mib 100 --state {state}"
        # The hog begins when the training run holds its memory, and has the value it is due.
        script = (
            f"{train} & until [ -e {state} ] && [ -e /run/go ]; do sleep 0.1; done; "
            f"/usr/bin/python3 {WORK}/hog.py --processes 2; touch {self.ENDED}; sleep infinity"
        )
        limits = ("User=user", "MemoryMax=200M", "MemorySwapMax=0", *properties)
        machine.run("rm", "-f", state, "/run/go", self.ENDED)
        start(machine, "limited", "/bin/sh", "-c", script, properties=limits)
        told = machine.wait("the training run holds its memory", lambda: machine.get(state))
        self.training_pid: int = json.loads(told)["main"]
        if "training" in (machine.get("/etc/oomwatchd.yaml") or ""):
            has_adj(machine, self.training_pid, -900)
        machine.run("touch", "/run/go")

    def hogs_have_ended(self) -> bool:
        return self._machine.get(self.ENDED) is not None

    def killed(self) -> set[int]:
        return set(killed_by_kernel(self._machine)) - self._before

    def result(self) -> str:
        return unit_property(self._machine, "limited", "Result")

    def stop(self) -> None:
        stop(self._machine, "limited")
