"""Those who make us wait, by hostile command lines or by ones that never come."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakeproc import Fake
from world import World, named

from oomwatchd.kernel.patience import STUCK_LIMIT
from oomwatchd.model import Match, Rule
from oomwatchd.record import GaveUp, ReadsHang

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


TRAINING = Rule("training", Match(script=("train*.py",)), 100)
TRAINER = (b"python3", b"train.py")
SLICE = "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-1.scope\n"


@pytest.fixture
def hang(world: World) -> Iterator[Callable[[Fake], None]]:
    """Has a process appear whose command line does not come until `comes`, or the test ends."""
    hanging: list[Path] = []

    def hang(process: Fake) -> None:
        world.fake.add(process)
        path = world.fake.root / f"{process.pid}/cmdline"
        path.unlink()
        os.mkfifo(path)
        hanging.append(path)

    yield hang
    for path in hanging:
        comes(path)


def comes(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, OSError):  # ENXIO: nobody reads it now
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def test_who_was_slow_once_does_not_wait_for_a_user_whose_read_hangs_for_ever(
    world: World, hang: Callable[[Fake], None]
) -> None:
    hang(Fake(50, uid=1001, start_ticks=1))
    hang(Fake(60, uid=1002, start_ticks=2))
    world.configure(TRAINING)
    world.scans(2)
    comes(world.fake.root / "60/cmdline")
    (world.fake.root / "60/cmdline").unlink()
    (world.fake.root / "60/cmdline").write_bytes(b"python3\0train.py\0")
    world.fake.add(Fake(61, uid=1002, arguments=TRAINER))
    for _ in range(100):
        world.scan()
        if world.values([60, 61]) == [100, 100]:
            break

    assert world.values([60, 61]) == [100, 100]


def test_who_took_long_to_match_does_not_wait_for_a_user_whose_read_hangs_for_ever(
    world: World, hang: Callable[[Fake], None]
) -> None:
    hang(Fake(50, uid=1001, start_ticks=1))
    world.fake.add(Fake(100, uid=1002, arguments=AB, start_ticks=2))
    world.fake.add(Fake(101, uid=1002, arguments=(b"abcd",), start_ticks=3))
    world.configure(HOSTILE)
    world.scans(40)

    assert world.values([101]) == [100]


def test_a_user_with_many_users_below_him_is_one(
    world: World, hang: Callable[[Fake], None]
) -> None:
    """subuid(5), as in rootless containers."""
    for pid in range(100, 100 + STUCK_LIMIT):
        hang(Fake(pid, uid=99_900 + pid, cgroup=SLICE, start_ticks=pid))
    world.fake.add(Fake(200, uid=1003, arguments=TRAINER, start_ticks=200))
    world.configure(TRAINING)
    world.scans(40)
    world.fake.add(Fake(201, uid=1003, arguments=TRAINER, start_ticks=201))
    world.scans(2)

    assert world.values([200, 201]) == [100, 100]
    assert world.record.unreadable <= 2


def test_a_container_is_one_whoever_it_runs_as(world: World, hang: Callable[[Fake], None]) -> None:
    container = "0::/system.slice/docker-1.scope\n"
    for pid in range(100, 100 + STUCK_LIMIT):
        hang(Fake(pid, uid=pid, cgroup=container, start_ticks=pid))
    world.fake.add(Fake(200, uid=1003, arguments=TRAINER, start_ticks=200))
    world.configure(TRAINING)
    world.scans(40)

    assert world.values([200]) == [100]
    assert world.record.unreadable <= 2


def test_that_no_command_line_is_read_any_more_is_news_once(
    world: World, hang: Callable[[Fake], None]
) -> None:
    for pid in range(100, 100 + STUCK_LIMIT):
        hang(Fake(pid, uid=1000 + pid, start_ticks=pid))
    world.configure(TRAINING)
    world.scans(60)

    assert [item for item in world.news() if isinstance(item, ReadsHang)] == [
        ReadsHang(STUCK_LIMIT)
    ]


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
