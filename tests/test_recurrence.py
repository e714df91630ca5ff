"""A job that is started again and again, and is killed each time, is told to be one."""

import pytest
from stories import KILLED_AT, TRAINER
from test_incidents import incident

from oomwatchd.incident import Incident, Victim
from oomwatchd.policy.recurrence import recurrence


def kill(minutes: float, victim: Victim = TRAINER, *, pid: int = 1) -> Incident:
    """So many minutes after the first."""
    made = incident(KILLED_AT + 60 * minutes, pid=pid)
    return made._replace(victim=victim._replace(pid=pid))


def test_a_unit_in_a_loop_of_restarts_is_told_with_how_often_and_since_when() -> None:
    loop = [kill(10.0 * number, pid=number) for number in range(1, 5)]

    said = recurrence(loop[-1], loop)

    assert said is not None
    assert "python3 had been killed 3 times before in the last 30 min" in said
    assert f"the last time 10 min before ({loop[-2].id}), and for the same reason" in said
    assert "StartLimitBurst= and RestartSec= of train.service" in said


def test_the_first_time_there_is_nothing_to_tell() -> None:
    first, second = kill(0), kill(10, pid=2)

    assert recurrence(first, [first, second]) is None


@pytest.mark.parametrize(
    "other",
    [
        TRAINER._replace(name="python2"),
        TRAINER._replace(unit="other.service", rule=None, cmdline="python3 other.py"),
        TRAINER._replace(unit=None, rule=None, user="bob"),
        Victim(7, "python3"),
    ],
)
def test_another_job_is_not_the_same_again(other: Victim) -> None:
    assert recurrence(kill(10, pid=2), [kill(0, other)]) is None


@pytest.mark.parametrize(
    "other",
    [
        TRAINER._replace(rule=None, cmdline="python3 train.py --resume"),
        TRAINER._replace(unit="run-u7.scope", cmdline="python3 train.py --resume"),
        TRAINER._replace(unit="run-u7.scope", rule=None),
    ],
    ids=["by its unit", "by its rule", "by its command line"],
)
def test_it_is_the_same_job_though_its_pid_and_scope_have_changed(other: Victim) -> None:
    assert recurrence(kill(10, pid=2), [kill(0, other)]) is not None


def test_a_kill_by_hand_is_not_the_same_again_as_one_for_want_of_memory() -> None:
    made = kill(0)
    by_hand = made._replace(case=made.case._replace(by_sysrq=True))

    assert recurrence(kill(10, pid=2), [by_hand]) is None


def test_what_was_more_than_a_day_ago_does_not_count() -> None:
    assert recurrence(kill(60 * 25, pid=2), [kill(0)]) is None


def test_a_kill_by_hand_is_no_repetition_of_one_for_want_of_memory() -> None:
    by_hand = kill(0)
    by_hand = by_hand._replace(case=by_hand.case._replace(killer="unknown"))

    assert recurrence(kill(10, pid=2), [by_hand]) is None
