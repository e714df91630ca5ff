"""The guard that takes -1000 back while too much memory is held by those who have it."""

import os
from dataclasses import replace

from fakeproc import Fake
from world import RAM_BYTES, World, named

from oomwatchd.model import Match, ProcessId, Rule
from oomwatchd.record import Guarded
from oomwatchd.watch import STATUS_FILES_MAX

KIB = 1024
DB = named("postgres", -900, workers=-200, descendants="reset")
FOREVER = Rule("forever", Match(name=("vital",)), -1000, unkillable=True, descendants="reset")
LIMIT_KIB = RAM_BYTES // 2 // KIB


def guards(world: World) -> list[bool]:
    return [item.tripped for item in world.news() if isinstance(item, Guarded)]


def test_the_guard_trips_and_lets_go_with_room_between(world: World) -> None:
    world.fake.add(Fake(7, comm=b"vital", anon_kib=1000))
    world.fake.add(Fake(8, comm=b"vital", anon_kib=1000))
    world.configure(FOREVER)
    story = []
    for share in (0.4, 0.6, 0.45, 0.41, 0.39, 0.49, 0.51):
        world.change(7, anon_kib=int(LIMIT_KIB * 2 * share) - 1000)
        world.scan()
        story.append((share, world.values([7, 8]), world.enforcer.guard_tripped))

    assert story == [
        (0.4, [-1000, -1000], False),
        (0.6, [-999, -999], True),
        (0.45, [-999, -999], True),
        (0.41, [-999, -999], True),
        (0.39, [-1000, -1000], False),
        (0.49, [-1000, -1000], False),
        (0.51, [-999, -999], True),
    ]
    assert guards(world) == [True, False, True]
    assert world.record.guard_trips == 2


def test_whoever_comes_while_the_guard_has_tripped_gets_minus_999(world: World) -> None:
    world.fake.add(Fake(7, comm=b"vital", anon_kib=LIMIT_KIB + 1))
    world.configure(FOREVER)
    world.scan()
    world.fake.add(Fake(8, comm=b"vital"), oom_score_adj=4)
    world.scan()
    while_tripped = world.values([7, 8])
    world.fake.exit(7)
    world.scan()
    freed = world.values([8])
    world.configure()
    world.scan()

    assert (while_tripped, freed, world.values([8])) == ([-999, -999], [-1000], [4])


VITAL = Rule("vital", Match(cmdline=("^vital",)), -1000, unkillable=True)


def hangs(world: World, pid: int) -> None:
    """From now on, nobody can read what it was called with."""
    (world.fake.root / f"{pid}/cmdline").unlink()
    os.mkfifo(world.fake.root / f"{pid}/cmdline")


def comes(world: World, pid: int) -> None:
    os.close(os.open(world.fake.root / f"{pid}/cmdline", os.O_RDWR))


def leaks(world: World, pid: int) -> None:
    leaking = replace(world.fake.get(pid), anon_kib=LIMIT_KIB + 1)
    (world.fake.root / f"{pid}/status").write_text(leaking.status())


def test_the_guard_needs_no_command_line(world: World) -> None:
    """When memory is short, it may not come."""
    world.fake.add(Fake(7, comm=b"vital"))
    world.configure(VITAL)
    world.scan()
    hangs(world, 7)
    leaks(world, 7)
    world.scan()

    assert world.values([7]) == [-999]
    assert [item.left for item in world.news() if isinstance(item, Guarded)] == [0]


def test_the_guard_acts_though_another_of_that_user_hangs(world: World) -> None:
    world.fake.add(Fake(7, comm=b"vital"))
    world.fake.add(Fake(8, comm=b"cat"))
    world.configure(VITAL)
    world.scan()
    world.change(8, program=2)
    hangs(world, 8)
    world.scans(40)  # it has made us wait by then
    leaks(world, 7)
    world.scan()
    comes(world, 8)

    assert world.record.unreadable > 0
    assert world.values([7]) == [-999]


def test_whom_the_guard_could_not_reach_is_told_and_tried_again(world: World) -> None:
    world.fake.add(Fake(7, comm=b"vital"))
    world.configure(VITAL)
    world.scan()
    world.change(7, program=2, anon_kib=LIMIT_KIB + 1)  # it may be another program by now
    hangs(world, 7)
    world.scan()
    at_first = world.values([7])
    left = [item.left for item in world.news() if isinstance(item, Guarded)]
    comes(world, 7)
    (world.fake.root / "7/cmdline").unlink()
    (world.fake.root / "7/cmdline").write_bytes(b"vital\0")
    for _ in range(100):
        world.scan()
        if world.values([7]) == [-999]:
            break

    assert (at_first, left) == ([-1000], [1])
    assert world.values([7]) == [-999]
    assert guards(world) == []  # told once


def test_a_value_that_somebody_changed_is_set_again_without_its_command_line(world: World) -> None:
    world.fake.add(Fake(7, comm=b"vital"))
    world.configure(VITAL)
    world.scan()
    hangs(world, 7)
    world.fake.set_oom_score_adj(7, 300)
    world.scan()

    assert world.values([7]) == [-1000]


def test_swap_counts_and_shared_memory_once(world: World) -> None:
    part = LIMIT_KIB // 4
    world.fake.add(Fake(7, comm=b"vital", anon_kib=part, shmem_kib=part, swap_kib=part))
    world.fake.add(Fake(8, comm=b"vital", anon_kib=part, shmem_kib=part, swap_kib=0))
    world.configure(FOREVER)
    world.scan()
    held_bytes = world.watch.unkillable_bytes
    world.change(8, swap_kib=KIB)
    world.scan()

    assert held_bytes == 4 * part * KIB
    assert world.values([7, 8]) == [-999, -999]


def test_the_guard_has_no_say_in_other_rules(world: World) -> None:
    world.fake.add(Fake(7, comm=b"postgres", anon_kib=LIMIT_KIB * 2))
    world.configure(DB, FOREVER)
    world.scan()

    assert world.values([7]) == [-900]
    assert guards(world) == []


def test_the_memory_of_processes_under_rules_is_weighed(world: World) -> None:
    world.fake.add(Fake(7, comm=b"postgres", anon_kib=100, shmem_kib=10, swap_kib=5))
    world.configure(DB)
    world.scan()
    first = world.hold(7).tracked()
    world.change(7, anon_kib=200)
    world.scans(6)

    assert (first.resident_bytes, first.swap_bytes) == (110 * KIB, 5 * KIB)
    assert world.hold(7).tracked().resident_bytes == 210 * KIB
    assert world.hold(7).id == ProcessId(7, 100)


def test_of_a_few_the_file_that_tells_their_memory_stays_open_until_they_end(world: World) -> None:
    for pid in (7, 8):
        world.fake.add(Fake(pid, comm=b"postgres", anon_kib=100))
    world.configure(DB)
    world.scans(20)
    hold = world.hold(7)
    held = hold.status_file
    world.fake.exit(7)
    world.scans(20)

    assert held is not None
    assert hold.status_file is None
    assert world.hold(8).status_file is not None


def test_of_many_none_stays_open(world: World) -> None:
    for pid in range(1000, 1001 + STATUS_FILES_MAX):
        world.fake.add(Fake(pid, comm=b"postgres", anon_kib=100))
    world.configure(DB)
    world.scans(20)

    assert [hold.status_file for hold in world.population.holds if hold.status_file] == []
    assert {hold.resident_bytes for hold in world.population.holds} == {100 * KIB}
