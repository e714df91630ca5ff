"""Processes whose parent has ended before we saw it, and what they may have from us."""

from dataclasses import replace

import pytest
from fakeproc import Fake
from world import World, named

from oomwatchd.model import ProcessId, Rule
from oomwatchd.orphans import lost_ancestor

JOB = Fake(7, comm=b"train", session=7, start_ticks=1000, cgroup="0::/user.slice/job.scope\n")
ORPHAN = replace(JOB, pid=9, comm=b"sh", start_ticks=2000)  # adopted by pid 1, of session 1
REAPER = Fake(1, comm=b"systemd", session=1)
RESET = named("train", -900, workers=-100, descendants="reset")
INHERIT = named("train", -900, descendants="inherit")


def after(world: World, orphan: Fake, rule: Rule = RESET, oom_score_adj: int = -900) -> int:
    """The value of *orphan*, found beside a job that was set from 3 to -900."""
    world.fake.add(REAPER)
    world.fake.add(JOB, oom_score_adj=3)
    world.configure(rule)
    world.scan()
    world.fake.add(orphan, oom_score_adj=oom_score_adj)
    world.scans(3)
    return world.fake.oom_score_adj(orphan.pid)


def test_an_orphan_does_not_keep_what_it_inherited(world: World) -> None:
    assert after(world, ORPHAN) == 3


def test_an_orphan_keeps_it_where_the_rule_says_so_and_as_long_as_it_does(world: World) -> None:
    kept = after(world, ORPHAN, INHERIT)
    world.configure()
    world.scan()

    assert (kept, world.values([9])) == (-900, [3])


def test_an_orphan_that_matches_is_no_worker_and_has_its_ancestor_s_old_value(
    world: World,
) -> None:
    set_to = after(world, replace(ORPHAN, comm=b"train"))
    world.configure()
    world.scan()

    assert (set_to, world.values([9])) == (-900, [3])


@pytest.mark.parametrize(
    "orphan",
    [
        replace(ORPHAN, cgroup="0::/user.slice/other.scope\n"),
        replace(ORPHAN, start_ticks=999),  # older than the job
        replace(ORPHAN, session=1),  # pid 1 may have forked it itself
    ],
    ids=["another cgroup", "older", "the reaper's session"],
)
def test_who_cannot_have_it_from_us_is_left_alone(world: World, orphan: Fake) -> None:
    assert after(world, orphan) == -900


@pytest.mark.parametrize("value", [-899, 0, 3])
def test_a_value_that_is_not_ours_is_left_alone(world: World, value: int) -> None:
    assert after(world, ORPHAN, oom_score_adj=value) == value


def test_a_job_that_had_the_value_before_us_gives_nothing_of_ours(world: World) -> None:
    world.fake.add(REAPER)
    world.fake.add(JOB, oom_score_adj=-900)
    world.configure(RESET)
    world.scan()
    world.fake.add(ORPHAN, oom_score_adj=-900)
    world.scans(3)

    assert world.values([9]) == [-900]


def test_a_job_that_has_ended_and_whose_pid_is_used_again_gives_nothing(world: World) -> None:
    world.fake.add(REAPER)
    world.fake.add(JOB, oom_score_adj=3)
    world.configure(RESET)
    world.scan()
    world.fake.reuse(replace(JOB, comm=b"cat", start_ticks=1500))
    world.fake.add(ORPHAN, oom_score_adj=-900)
    world.scan()

    assert ProcessId(7, 1000) not in world.remembered()
    assert world.values([7]) == [0]


@pytest.mark.parametrize("then", ["ended", "used again"])
def test_a_job_that_went_a_moment_ago_gives_nothing(world: World, then: str) -> None:
    """It is in the ledger until the next listing."""
    world.fake.add(JOB, oom_score_adj=3)
    world.configure(RESET)
    world.scan()
    world.fake.add(ORPHAN, oom_score_adj=-900)
    look = world.proc.look(9)
    assert look is not None
    before = lost_ancestor(look, -900, world.proc, world.ledger)
    if then == "ended":
        world.fake.exit(7)
    else:
        world.fake.reuse(replace(JOB, start_ticks=1500), oom_score_adj=-900)
    after_it = lost_ancestor(look, -900, world.proc, world.ledger)
    look.close()

    assert before is not None
    assert after_it is None
