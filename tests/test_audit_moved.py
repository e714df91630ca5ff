"""Of what lies in a scope of our own, or will: the service that it was moved out of."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from computer import (
    CONTINUE,
    SERVICE,
    SESSION,
    STOP,
    TERMINAL,
    TRAINER,
    Build,
    Computer,
    Machines,
    as_expected,
    name_of,
)

from oomwatchd.auditing import Standing, UnitSettings, Unseen
from oomwatchd.cli.check import Broken, promises_broken
from oomwatchd.model import Match, Rule
from oomwatchd.surroundings import Target

machine = Machines()
SCOPE = "/oomwatchd.slice/oomwatchd-training-4711.scope"
SCOPED = Rule("training", Match(user=()), -900, shield="scope")
MAIN = STOP._replace(main_pid=TRAINER)


def moved(computer: Computer, home: str, settings: UnitSettings, manager: int | None) -> None:
    """The trainer in a scope of its own; where it was, systemd has a main process, and a worker."""
    computer.trainer(SCOPE)
    computer.cgroup(SCOPE, mark="omit", owner=0)
    computer.home(SCOPE, home)
    computer.unit("oomwatchd-training-4711.scope", CONTINUE)
    computer.process(80, b"worker", mib=100, cgroup=home)
    computer.unit(home.rpartition("/")[2], settings, manager)


# -- audit -----------------------------------------------------------------------------------------


@machine(oom_policy="exposed", oom_group="absent", systemd_oomd="absent")
def the_main_process_of_a_service_that_stops(computer: Computer) -> None:
    moved(computer, SERVICE, MAIN, None)


@machine(oom_policy="exposed")
def the_main_process_of_a_service_that_kills(computer: Computer) -> None:
    moved(computer, SERVICE, MAIN._replace(oom_policy="kill"), None)


@machine(oom_policy="exposed")
def the_main_process_of_a_service_of_the_user_s(computer: Computer) -> None:
    moved(computer, f"{SESSION}/app.slice/train.service", MAIN, 1000)


@machine(oom_policy="exposed")
def the_main_process_that_was_deeper_in_its_service(computer: Computer) -> None:
    the_main_process_of_a_service_that_stops(computer)
    computer.home(SCOPE, f"{SERVICE}/main")


@machine(oom_policy="safe")
def the_main_process_of_a_service_that_continues(computer: Computer) -> None:
    moved(computer, SERVICE, MAIN._replace(oom_policy="continue"), None)


@machine(oom_policy="safe")
def one_that_is_not_the_main_process(computer: Computer) -> None:
    moved(computer, SERVICE, STOP._replace(main_pid=80), None)


@machine(oom_policy="safe")
def the_main_process_of_a_service_that_holds_nobody_else(computer: Computer) -> None:
    the_main_process_of_a_service_that_stops(computer)
    computer.proc.exit(80)


@machine(oom_policy="safe")
def the_main_process_beside_others_that_can_not_be_killed(computer: Computer) -> None:
    the_main_process_of_a_service_that_stops(computer)
    computer.proc.set_oom_score_adj(80, -1000)


@machine(oom_policy="safe")
def one_from_a_terminal(computer: Computer) -> None:
    computer.session(watched=CONTINUE)
    moved(computer, TERMINAL, STOP, 1000)


@machine(oom_policy="unknown")
def one_from_a_service_that_nobody_tells_of(computer: Computer) -> None:
    the_main_process_of_a_service_that_stops(computer)
    computer.unit("train.service", Unseen("systemd did not answer within 10 s"))


@machine(oom_policy="safe")
def one_from_a_terminal_whose_user_s_manager_nobody_tells_of(computer: Computer) -> None:
    one_from_a_terminal(computer)
    computer.unit("user@1000.service", Unseen("systemd did not answer within 10 s"))


@machine(oom_policy="safe")
def one_in_a_scope_of_that_name_that_belongs_to_a_user(computer: Computer) -> None:
    the_main_process_of_a_service_that_stops(computer)
    computer.cgroup(SCOPE, owner=1000)


@pytest.mark.parametrize(("build", "expected"), machine.cases, ids=name_of)
def test_the_verdicts_on(build: Build, expected: Mapping[str, Standing], tmp_path: Path) -> None:
    as_expected(Computer(tmp_path), build, expected)


def test_the_service_is_named_and_what_to_change_in_it(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    the_main_process_of_a_service_that_stops(computer)
    found = computer.verdicts(SCOPED)["oom_policy"]

    assert found.reason.startswith("wherever it lies, it is the main process of train.service")
    assert found.advice == "OOMPolicy=continue: systemctl edit train.service"


# -- check -----------------------------------------------------------------------------------------


def broken(computer: Computer) -> list[Broken]:
    with computer.sources() as sources:
        return promises_broken([Target(TRAINER, 100, SCOPED, -900)], sources)


def in_its_service(computer: Computer) -> None:
    """Beside a worker of its own."""
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE, parent=TRAINER)
    computer.process(81, b"sh", mib=1, cgroup=SERVICE, parent=80)
    computer.unit("train.service", MAIN)


def test_check_says_where_a_scope_will_not_help_a_main_process(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    in_its_service(computer)
    computer.process(82, b"helper", mib=100, cgroup=SERVICE)

    [one] = broken(computer)

    assert (one.killer, one.pids) == ("oom_policy", (TRAINER,))
    assert "its one other process" in one.reason
    assert one.advice == "OOMPolicy=continue: systemctl edit train.service"


def test_check_says_so_of_who_has_been_moved_already(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    the_main_process_of_a_service_that_stops(computer)

    assert [one.killer for one in broken(computer)] == ["oom_policy"]


def test_check_knows_that_descendants_come_along(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    in_its_service(computer)

    assert broken(computer) == []


def test_check_knows_that_who_has_a_unit_of_his_own_stays_in_it(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    in_its_service(computer)
    computer.process(83, b"python3", mib=100, cgroup="/system.slice/run.service", parent=TRAINER)
    computer.process(84, b"helper", mib=100, cgroup="/system.slice/run.service")
    other = Target(84, 100, replace(SCOPED, name="helper", shield="none"), -900)
    with computer.sources() as sources:
        found = promises_broken([Target(TRAINER, 100, SCOPED, -900), other], sources)

    assert [(one.rule, one.killer) for one in found] == [("helper", "oom_policy")]
