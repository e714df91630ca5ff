"""Those who make us wait, by hostile command lines or by ones that never come."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeproc import Fake
from world import World, named

from oomwatchd.model import Match, Rule
from oomwatchd.record import GaveUp

HOSTILE = Rule("hostile", Match(cmdline=("a.*b.*c.*d",)), 100)
AB = (b"ab" * 2048,)


def test_a_hostile_command_line_costs_its_user_one_try_a_turn(world: World) -> None:
    for pid in range(100, 130):
        world.fake.add(Fake(pid, uid=1001, arguments=AB))
    world.fake.add(Fake(200, uid=1002, arguments=(b"abcd",)))
    world.configure(HOSTILE)
    world.scan()
    gave_up = [item for item in world.news() if isinstance(item, GaveUp)]

    assert len(gave_up) == 1
    assert world.record.match_timeouts == 1
    assert world.values([200]) == [100]
    world.scan()
    assert 1 <= world.record.match_timeouts <= 2


def test_who_had_to_wait_for_a_hostile_one_has_its_turn(world: World) -> None:
    world.fake.add(Fake(100, uid=1001, arguments=AB, start_ticks=1))
    world.fake.add(Fake(101, uid=1001, arguments=(b"abcd",), start_ticks=2))
    world.configure(HOSTILE)
    world.scan()
    first = world.values([101])
    world.scans(2)

    assert first == [0]
    assert world.values([101]) == [100]


def test_of_root_s_processes_only_those_of_the_same_cgroup_wait(world: World) -> None:
    """Containers run as root as well."""
    container = "0::/system.slice/docker-1.scope\n"
    world.fake.add(Fake(100, uid=0, arguments=AB, start_ticks=1, cgroup=container))
    world.fake.add(Fake(101, uid=0, arguments=(b"abcd",), start_ticks=2, cgroup=container))
    world.fake.add(Fake(102, uid=0, arguments=(b"abcd",), start_ticks=3))
    world.configure(HOSTILE)
    world.scan()
    first = world.values([101, 102])
    world.scans(2)

    assert first == [0, 100]
    assert world.values([101]) == [100]


def test_a_command_line_that_never_comes_leaves_the_others_alone(world: World) -> None:
    world.fake.add(Fake(100, uid=1001, start_ticks=1), oom_score_adj=7)
    (world.fake.root / "100/cmdline").unlink()
    os.mkfifo(world.fake.root / "100/cmdline")
    world.fake.add(Fake(101, uid=1002, arguments=(b"abcd",)))
    world.fake.add(Fake(102, uid=1001, arguments=(b"abcd",)))
    world.configure(HOSTILE)
    world.scans(4)
    waiting = world.values([100, 101, 102])
    os.close(os.open(world.fake.root / "100/cmdline", os.O_WRONLY))
    (world.fake.root / "100/cmdline").unlink()
    (world.fake.root / "100/cmdline").write_bytes(b"abcd\0")
    for _ in range(100):
        world.scan()
        if world.values([100, 102]) == [100, 100]:
            break

    assert waiting == [7, 100, 0]
    assert world.values([100, 102]) == [100, 100]
    assert world.record.unreadable >= 1


# -- nobody new ------------------------------------------------------------------------------------


@pytest.fixture
def newest(world: World) -> Iterator[Path]:
    """The file with the pid given out last, and a daemon that has found it."""
    path = world.fake.root / "loadavg"
    path.write_text("0.00 0.00 0.00 1/100 4711\n")
    world.end()
    world.start()
    world.configure(named("db", 100))
    world.scan()
    yield path
    path.write_text("0.00 0.00 0.00 1/100 4799\n")


def test_while_no_pid_is_given_out_nobody_new_is_looked_for(world: World, newest: Path) -> None:
    """A process cannot appear without one; here it does, to see that nobody looks."""
    world.fake.add(Fake(7, comm=b"db"))
    world.scan()
    unseen = world.values([7])
    newest.write_text("0.00 0.00 0.00 1/100 4712\n")
    world.scan()

    assert unseen == [0]
    assert world.values([7]) == [100]


@pytest.mark.usefixtures("newest")
def test_proc_is_listed_now_and_then_all_the_same(world: World) -> None:
    world.fake.add(Fake(7, comm=b"db"))
    world.scans(11)

    assert world.values([7]) == [100]


def test_who_was_heard_of_and_had_to_wait_has_its_turn_within_two_seconds(world: World) -> None:
    """However long the interval."""
    world.population.told = True
    world.configure(HOSTILE, interval_seconds=3600.0)
    world.scan()
    world.fake.add(Fake(100, uid=1001, arguments=AB, start_ticks=world.now_ticks()))
    world.fake.add(Fake(101, uid=1001, arguments=(b"abcd",), start_ticks=world.now_ticks() + 1))
    world.hear(100, 101)
    first = world.values([101])
    for _ in range(20):
        world.revisit(0.1)

    assert first == [0]
    assert world.values([101]) == [100]
    assert world.record.match_timeouts <= 3
