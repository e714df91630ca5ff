"""Cgroups nested by the thousand, or by many: what they may cost the shield, in files opened."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cgrouptree import cgroup_tree
from fakeproc import Fake, FakeProc, at_each_open
from shielded import SERVICE, TERM, ShieldedWorld
from world import named

from oomwatchd.kernel.cgroup import LEVELS_MAX, in_container, unit_cgroup, units_of
from oomwatchd.shield import LOOKS_MAX

TRAINING = named("train", -900, shield="preference")
DEEPEST = f"{TERM}{'/a' * 1950}"
SOME = 40
GROUP_FILE = "memory.oom.group"


@pytest.fixture
def world(fake: FakeProc, tmp_path: Path) -> Iterator[ShieldedWorld]:
    with cgroup_tree() as tree:
        world = ShieldedWorld(fake, tmp_path / "ledger.json", tree)
        world.configure(TRAINING)
        yield world
        world.end_of_days()


def live(world: ShieldedWorld, *cgroups: str) -> None:
    """One process in each; the cgroups are not there, which costs as much to find out."""
    for pid, cgroup in enumerate(cgroups, start=100):
        world.fake.add(Fake(pid, b"train", cgroup=f"0::{cgroup}\n"))


def opened_in(act: object, *arguments: object) -> Counter[str]:
    opened: Counter[str] = Counter()
    with at_each_open(lambda name: opened.update([name])):
        act(*arguments)  # type: ignore[operator]  # a method of the world
    return opened


def looks(opened: Counter[str]) -> int:
    return sum(count for name, count in opened.items() if name.endswith(GROUP_FILE))


def test_who_nests_cgroups_too_deep_has_none_of_them_looked_at(world: ShieldedWorld) -> None:
    live(world, *[DEEPEST] * SOME)
    opened = opened_in(world.scan)

    assert looks(opened) == 0
    assert max(opened.values()) <= 10 * SOME  # none of its levels either, one after the other
    assert world.values() == [-900] * SOME
    assert world.markings() == []


def test_a_level_that_many_live_below_is_looked_at_once(world: ShieldedWorld) -> None:
    levels = 50
    live(world, *[f"{TERM}{'/a' * levels}"] * SOME)

    assert looks(opened_in(world.scan)) == levels


def test_of_many_cgroups_some_wait_for_the_next_turn(world: ShieldedWorld) -> None:
    levels = 50
    live(world, *[f"{TERM}/{number}{'/a' * levels}" for number in range(2 * SOME)])
    turns = [opened_in(world.scan)]
    while world.shield.due_seconds <= world.seconds and len(turns) < SOME:
        turns.append(opened_in(world.turn))

    assert max(map(looks, turns)) <= LOOKS_MAX + LEVELS_MAX
    distinct = {name for opened in turns for name in opened if name.endswith(GROUP_FILE)}
    assert len(distinct) == 1 + 2 * SOME * levels


def test_below_one_that_is_killed_as_one_nothing_is_marked_but_its_own(
    world: ShieldedWorld,
) -> None:
    upper, lower = f"{SERVICE}/workers", f"{SERVICE}/workers/gpu"
    world.run(7, "train", f"{lower}/one")
    for cgroup in (upper, lower):
        world.tree.set_group(cgroup)
    world.scan()

    assert world.tree.marked() == {f"{lower}/one", upper}


def test_a_unit_may_be_watched_itself_so_what_is_killed_as_one_in_it_counts_too(
    world: ShieldedWorld,
) -> None:
    world.run(7, "train", f"{SERVICE}/workers/one")
    for cgroup in (SERVICE, f"{SERVICE}/workers"):
        world.tree.set_group(cgroup)
    world.scan()

    assert world.tree.marked() == {f"{SERVICE}/workers/one", f"{SERVICE}/workers", SERVICE}


@pytest.mark.parametrize("name", ["a", "a.slice"])
def test_of_a_path_only_the_upper_levels_are_taken_apart(name: str) -> None:
    deep = f"/{name}" * 10 * LEVELS_MAX

    assert units_of(f"{deep}/db.service") == (None, None)
    assert unit_cgroup(f"{deep}/db.service") == f"{deep}/db.service"
    assert not in_container(f"{deep}/docker")
