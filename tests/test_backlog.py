"""Settled cases wait until they can be explained; of too many, no kill of a rule is left out."""

import time
from collections.abc import Collection

from oomwatchd.backlog import CASES_MAX, EXPLAIN_SECONDS, Backlog
from oomwatchd.incident import Case, Victim


def case(number: int, rule: str | None = None, at: float = 100.0) -> Case:
    return Case(f"k{number}", at, "kernel", "machine", (Victim(number, "x", rule=rule),))


def backlog(count: int, ruled: Collection[int] = ()) -> Backlog:
    made = Backlog(lambda: ruled)
    made.started_boot_seconds = 50.0
    made.add(case(number) for number in range(count))
    return made


def spend(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_one_turn_explains_no_longer_than_it_may_and_the_next_comes_later() -> None:
    waiting = backlog(20)
    taken = []
    for one in waiting.take(10.0, lambda: True):
        taken.append(one)
        spend(EXPLAIN_SECONDS)

    assert [one.key for one in taken] == ["k0"]
    assert list(waiting.take(10.1, lambda: True)) == []
    assert [one.key for one in waiting.take(10.3, lambda: True)] == [f"k{n}" for n in range(1, 20)]


def test_without_room_they_wait_unless_they_are_too_many() -> None:
    waiting = backlog(CASES_MAX + 3)
    taken = list(waiting.take(10.0, lambda: False))

    assert [one.key for one in taken] == ["k0", "k1", "k2"]
    assert len(waiting) == CASES_MAX


def test_of_more_than_can_be_explained_the_oldest_of_no_rule_are_counted() -> None:
    waiting = backlog(CASES_MAX, ruled={1})
    cgroup = Case("oomd", 100.0, "systemd_oomd", "/a.scope", ())
    waiting.add([cgroup, case(-1, rule="training"), *(case(10_000 + n) for n in range(2))])
    counted = waiting.leave_out()
    left = [one.key for one in waiting.take_last(lambda: True)]

    assert counted == {"kernel": 4}
    assert left[:2] == ["k1", "k5"]
    assert {"oomd", "k-1"} < set(left)
    assert len(left) == CASES_MAX


def test_what_happened_before_the_start_is_left_out_without_a_count() -> None:
    waiting = backlog(0)
    waiting.add(case(number, at=20.0) for number in range(CASES_MAX + 5))

    assert waiting.leave_out() == {}
    assert len(waiting) == CASES_MAX
