"""Kills while the kernel's log is never silent, and kills by the hundred."""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc
from kernellog import raw
from mortuary import Mortuary, bare_kill, capture

from oomwatchd.backlog import CASES_MAX
from oomwatchd.record import Kept, Untold

JOB = "/oomcases/job"
DISK_SECONDS = 30.0
HOG = Fake(278, comm=b"hog", cgroup=f"0::{JOB}\n", anon_kib=28_000)


@pytest.fixture
def mortuary(fake: FakeProc, tmp_path: Path) -> Iterator[Mortuary]:
    yield (mortuary := Mortuary(fake, tmp_path / "state"))
    mortuary.end()


def chatter(mortuary: Mortuary, number: int, every_seconds: float, count: int) -> None:
    """Another part of the kernel logs something, time and again; the loop turns when it is due."""
    for at in range(number, number + count):
        until = mortuary.seconds + every_seconds
        while (due := mortuary.coroner.due_seconds(mortuary.now())) < until:
            mortuary.turn(after_seconds=max(due - mortuary.seconds, 0.01))
        line = b"4,%d,%d,-;segfault[99]: segfault at 0" % (at, mortuary.seconds * 1e6)
        mortuary.turn(line, after_seconds=max(until - mortuary.seconds, 0.0))


@pytest.mark.parametrize("every_seconds", [0.05, 0.6, 0.8, 0.99])
def test_a_kill_is_told_in_time_though_the_kernel_goes_on_logging(
    mortuary: Mortuary, every_seconds: float
) -> None:
    mortuary.turn(bare_kill(11, 278))
    chatter(mortuary, 12, every_seconds, round(4 / every_seconds))
    until = time.monotonic() + DISK_SECONDS
    while not mortuary.record.kills and time.monotonic() < until:
        mortuary.turn()

    assert mortuary.record.kills == {("none", "kernel"): 1}


def test_a_kill_is_not_laid_to_another_killer_as_the_kernel_goes_on_logging(
    mortuary: Mortuary,
) -> None:
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    mortuary.set_kills(1)
    lines = capture("6.12.117_own-limit")
    mortuary.bury(hog)
    mortuary.turn(*lines)
    chatter(mortuary, int(lines[-1].split(b",")[1]) + 1, 0.6, 50)
    mortuary.settle()

    [made] = mortuary.written()
    assert (made.case.killer, made.case.scope) == ("cgroup", JOB)
    assert mortuary.record.kills == {("training", "cgroup"): 1}


def test_a_group_some_of_whom_were_exiting_already_is_one_incident_with_its_limit(
    mortuary: Mortuary,
) -> None:
    """As it goes with groups of many: until its turn comes, a member may have died of itself."""
    *lines, again = capture("6.12.117_group")
    number = int(again.split(b",")[1])
    prefix = b"Memory cgroup out of memory: OOM victim"
    gone = b"%s 289 (leader) is already exiting. Skip killing the task" % prefix
    other = b"%s 290 (worker two) is already exiting. Skip killing the task" % prefix
    mortuary.turn(*lines, raw(number, other), raw(number + 1, gone))
    mortuary.settle()

    [made] = mortuary.written()
    assert (made.case.killer, made.case.scope) == ("oom_group", JOB)
    assert made.case.limit_bytes == 49152 << 10
    assert [one.pid for one in made.case.victims] == [289, 287]


def test_a_pid_given_out_again_does_not_make_a_protected_process_a_victim(
    mortuary: Mortuary,
) -> None:
    """Its name and its cgroup are its owner's to choose, and he can wait for the pid."""
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    mortuary.deaf = False
    mortuary.turns(15)
    mortuary.bury(hog)
    mortuary.turns(280)
    mortuary.turn(*capture("6.12.117_own-limit"))
    mortuary.settle()

    [made] = mortuary.written()
    assert (made.victim.pid, made.victim.cgroup) == (278, JOB)
    assert (made.victim.rule, made.victim.start_ticks, made.candidates[0].rule) == (None,) * 3
    assert mortuary.record.kills == {("none", "cgroup"): 1}


# -- floods ----------------------------------------------------------------------------------------


def test_a_flood_of_kills_hides_none_and_least_of_all_that_of_a_rule(
    fake: FakeProc, tmp_path: Path
) -> None:
    """As anybody brings it about with a small cgroup of his own and a loop that forks."""
    mortuary = Mortuary(fake, tmp_path / "state", keep=20)
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    numbers = iter(range(1, 10**6))
    for turn in range(60):
        mortuary.turn(
            *(bare_kill(number, 1000 + number) for number in islice(numbers, 30)),
            after_seconds=1.0,
        )
        if turn == 40:
            mortuary.turn(bare_kill(next(numbers), 278))
            mortuary.bury(hog)
    count = next(numbers) - 2
    until = time.monotonic() + DISK_SECONDS
    while sum(mortuary.record.kills.values()) <= count and time.monotonic() < until:
        mortuary.turn(after_seconds=1.0)
    mortuary.end()

    assert mortuary.record.kills == {("none", "kernel"): count, ("training", "kernel"): 1}


def test_more_kills_at_once_than_can_be_told_are_counted_and_said_once(mortuary: Mortuary) -> None:
    for second in range(3):
        start = second * 1500
        kills = [bare_kill(number, 1000 + number) for number in range(start, start + 1500)]
        mortuary.turn(*kills, after_seconds=1.0)
    until = time.monotonic() + DISK_SECONDS
    while sum(mortuary.record.kills.values()) < 4500 and time.monotonic() < until:
        mortuary.turn(after_seconds=0.5)

    news = [one for one in mortuary.record.take_news() if isinstance(one, Untold)]
    assert mortuary.record.kills == {("none", "kernel"): 4500}
    assert len(news) == 1
    assert 0 < news[0].kills < 4500


def test_of_a_flood_before_our_start_the_last_kills_are_found(
    fake: FakeProc, tmp_path: Path
) -> None:
    mortuary = Mortuary(fake, tmp_path / "state", keep=2 * CASES_MAX)
    mortuary.end()
    count = 3 * CASES_MAX
    mortuary.start(bare_kill(number, 1000 + number) for number in range(count))
    told: list[Kept] = []
    until = time.monotonic() + DISK_SECONDS
    while len(told) <= CASES_MAX and time.monotonic() < until:
        told += mortuary.turn(after_seconds=0.1)
    mortuary.end()
    pids = {one.victim.pid for one in mortuary.written()}

    assert set(range(1000 + count - CASES_MAX, 1000 + count)) < pids
    assert mortuary.record.kills == {("none", "kernel"): len(pids)}
