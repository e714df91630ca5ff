"""Values that others change, that children inherit, and that the guard takes back."""

from dataclasses import replace
from pathlib import Path

import pytest
from fakeproc import Fake
from world import World, named

from oomwatchd.holds import REASSERT_LIMIT, REASSERT_SECONDS
from oomwatchd.model import ProcessId
from oomwatchd.record import Drift

DB = named("postgres", -900, workers=-200, descendants="reset")
POSTGRES = Fake(7, comm=b"postgres")
KIB = 1024


def drifts(world: World) -> list[tuple[int, bool]]:
    return [(item.now, item.yielded) for item in world.news() if isinstance(item, Drift)]


# -- drift -----------------------------------------------------------------------------------------


def test_a_value_that_somebody_changed_is_set_again(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB)
    world.scans(40)
    world.fake.set_oom_score_adj(7, 55)
    world.scan()

    assert world.values([7]) == [-900]
    assert drifts(world) == [(55, False)]
    assert world.record.adjustments["rule-postgres", "drifted"] == 1


def test_three_times_a_minute_and_then_it_is_let_be(world: World) -> None:
    world.fake.add(POSTGRES)
    world.configure(DB)
    world.scans(40)
    after = []
    for value in range(1, 7):
        world.fake.set_oom_score_adj(7, value)
        world.scan()
        after += world.values([7])

    assert after == [-900] * REASSERT_LIMIT + [4, 5, 6]
    assert drifts(world) == [(1, False), (2, False), (3, False), (4, True), (5, True), (6, True)]


def test_who_changes_it_seldom_never_gets_his_way(world: World) -> None:
    world.fake.add(POSTGRES)
    world.configure(DB)
    world.scan()
    for _ in range(8):
        world.fake.set_oom_score_adj(7, 1)
        world.scan(REASSERT_SECONDS / REASSERT_LIMIT + 1)

        assert world.values([7]) == [-900]


def test_let_be_it_stays_so_until_it_runs_another_program(world: World) -> None:
    world.fake.add(POSTGRES)
    world.configure(replace(DB, drift="yield"))
    world.scans(40)
    world.fake.set_oom_score_adj(7, 5)
    world.scans(100)
    let_be = world.values([7])
    world.fake.exec(7, b"postgres")
    world.scan()

    assert (let_be, world.values([7])) == ([5], [-900])
    assert drifts(world) == [(5, True)]


@pytest.mark.parametrize("age_seconds", [0, 1, 3, 10, 40])
def test_a_rule_that_yields_does_so_whatever_the_age(world: World, age_seconds: int) -> None:
    """A young process is looked at again and again; that must not write over what it chose."""
    world.configure(replace(DB, drift="yield"))
    world.scan()
    world.fake.add(replace(POSTGRES, start_ticks=world.now_ticks()))
    world.scans(1 + age_seconds)
    before = world.values([7])
    world.fake.set_oom_score_adj(7, 5)
    world.scans(60)

    assert (before, world.values([7])) == ([-900], [5])
    assert drifts(world) == [(5, True)]


def test_among_many_a_drift_is_found_within_a_bound(world: World) -> None:
    pids = range(100, 400)
    for pid in pids:
        world.fake.add(Fake(pid, comm=b"postgres"))
    world.configure(DB)
    world.scan()
    for pid in pids:
        world.fake.set_oom_score_adj(pid, 1)
    world.scans(10)

    assert set(world.values(pids)) == {-900}


def test_put_back_to_what_we_want_by_somebody_else_is_no_drift(world: World) -> None:
    world.fake.add(POSTGRES)
    world.configure(replace(DB, drift="yield"))
    world.scans(40)
    world.fake.set_oom_score_adj(7, 5)
    world.scan()
    world.fake.set_oom_score_adj(7, -900)
    world.scan()

    assert drifts(world) == [(5, True)]
    assert world.hold(7).tracked().oom_score_adj == -900


# -- children --------------------------------------------------------------------------------------


def test_a_worker_seen_before_its_parent_became_a_match_gets_its_own_value(world: World) -> None:
    """The scan before fell between the parent's fork and exec; this one meets the worker first."""
    world.configure(DB)
    world.scan()
    world.fake.add(Fake(7, comm=b"sh", start_ticks=world.now_ticks()))
    world.scans(4, every_seconds=0.5)
    world.fake.exec(7, b"postgres")
    world.fake.add(Fake(8, comm=b"postgres", parent=7, start_ticks=world.now_ticks()))
    world.fake.add(Fake(9, comm=b"postgres", parent=8, start_ticks=world.now_ticks()))
    world.scan(0.1)
    between = world.values([7, 8, 9])
    world.scans(2)

    assert between[0] != -900  # else nothing is shown here
    assert world.values([7, 8, 9]) == [-900, -200, -200]


@pytest.mark.parametrize("parent", [7, 900])
def test_workers_get_their_own_value_whichever_pid_is_higher(world: World, parent: int) -> None:
    world.fake.add(Fake(parent, comm=b"postgres", start_ticks=100))
    for worker in (50, 500):
        world.fake.add(Fake(worker, comm=b"postgres", parent=parent, start_ticks=200))
    world.configure(DB)
    world.scan()

    assert world.values([parent, 50, 500]) == [-900, -200, -200]


def test_parents_come_first_however_long_the_line(world: World) -> None:
    """Pids have gone round: each of 200 has a parent with a higher pid."""
    line = range(1000, 1200)
    for pid in line:
        world.fake.add(Fake(pid, comm=b"postgres", parent=pid + 1, start_ticks=5000 - pid))
    world.configure(DB)
    world.scan()

    assert world.values(list(line)) == [-200] * 199 + [-900]


def test_a_child_that_matches_nothing_gets_back_what_its_parent_had(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB)
    world.scan()
    world.fake.add(Fake(8, comm=b"sh", parent=7, start_ticks=200), oom_score_adj=-900)
    world.fake.add(Fake(9, comm=b"cat", parent=8, start_ticks=201), oom_score_adj=-900)
    world.scan()

    assert world.values([7, 8, 9]) == [-900, 3, 3]


def test_a_child_between_fork_and_exec_is_a_worker_and_then_nothing_of_ours(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB)
    world.scan()
    child = Fake(8, comm=b"postgres", parent=7, start_ticks=world.now_ticks())
    world.fake.add(child, oom_score_adj=-900)
    world.scan()
    forked = world.values([8])
    world.fake.exec(8, b"sh")
    world.scan()

    assert (forked, world.values([8])) == ([-200], [3])


def test_heirs_keep_it_and_their_heirs_too_until_the_rule_goes(world: World) -> None:
    browser = named("chrome", 500, descendants="inherit")
    world.fake.add(Fake(7, comm=b"chrome"), oom_score_adj=3)
    world.configure(browser)
    world.scan()
    world.fake.add(Fake(8, comm=b"helper", parent=7, start_ticks=200), oom_score_adj=500)
    world.fake.add(Fake(9, comm=b"helper", parent=8, start_ticks=201), oom_score_adj=500)
    world.scan()
    kept = world.values([7, 8, 9])
    remembered = {id.pid: claim.standing for id, claim in world.remembered().items()}
    world.fake.exit(8)
    world.change(9, parent=1)
    world.scans(40)
    orphaned = world.values([9])
    world.configure()
    world.scan()

    assert kept == [500, 500, 500]
    assert remembered == {7: "matched", 8: "heir", 9: "heir"}
    assert orphaned == [500]
    assert world.values([7, 9]) == [3, 3]


def test_a_pid_used_again_is_nobody_s_parent(world: World) -> None:
    """A child is never older than its parent."""
    world.fake.add(Fake(8, comm=b"orphan", parent=7, start_ticks=50), oom_score_adj=-900)
    world.fake.add(Fake(7, comm=b"postgres", start_ticks=100), oom_score_adj=3)
    world.configure(DB)
    world.scan()

    assert world.values([7, 8]) == [-900, -900]


def test_what_a_child_had_of_its_own_is_never_taken(world: World) -> None:
    world.fake.add(POSTGRES)
    world.fake.add(Fake(8, comm=b"sh", parent=7, start_ticks=200), oom_score_adj=77)
    world.configure(DB)
    world.scans(3)

    assert world.values([8]) == [77]


# -- the next daemon -------------------------------------------------------------------------------


def test_the_next_daemon_puts_back_what_the_last_one_set(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB)
    world.scan()
    world.end()
    world.start()
    world.configure(DB)
    world.scan()
    between = world.news()
    world.configure()
    world.scan()

    assert between == []  # it had our value, and keeps it
    assert world.values([7]) == [3]


def test_the_next_daemon_without_the_rule_puts_it_back_at_once(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.fake.add(Fake(8, comm=b"postgres", parent=7, start_ticks=200), oom_score_adj=3)
    world.configure(DB)
    world.scan()
    world.end()
    world.start()
    world.configure()
    world.scan()

    assert world.values([7, 8]) == [3, 3]
    assert {claim.standing for claim in world.remembered().values()} == {"released"}


def test_claims_on_those_who_ended_in_between_are_dropped(world: World) -> None:
    world.fake.add(POSTGRES)
    world.configure(DB)
    world.scan()
    world.end()
    world.fake.reuse(Fake(7, comm=b"postgres", start_ticks=999), oom_score_adj=-900)
    world.start()
    world.configure()
    world.scan()

    assert world.values([7]) == [-900]  # another process: not ours to put back
    assert world.remembered() == {}


def test_on_stop_every_value_goes_back_if_it_is_still_ours(world: World) -> None:
    for pid in (7, 8, 9):
        world.fake.add(Fake(pid, comm=b"postgres"), oom_score_adj=pid)
    world.configure(DB)
    world.scan()
    world.fake.set_oom_score_adj(8, 55)
    world.fake.reuse(Fake(9, comm=b"postgres", start_ticks=999), oom_score_adj=-900)
    world.enforcer.put_all_back()

    assert world.values([7, 8, 9]) == [7, 55, -900]
    assert world.remembered() == {}
    assert world.results() == {"applied": 3, "restored": 1}


READ_ONLY_ONE = Path("/sys/class/net/lo/ifindex")  # a number that even root may not write


def becomes_read_only(world: World, pid: int) -> None:
    """Its value is 1 from now on, and whoever writes is refused with EACCES."""
    path = world.fake.root / f"{pid}/oom_score_adj"
    path.unlink()
    path.symlink_to(READ_ONLY_ONE)


@pytest.mark.skipif(not READ_ONLY_ONE.exists(), reason="no loopback interface in /sys")
def test_a_refused_value_is_counted_and_tried_again_now_and_then(world: World) -> None:
    world.fake.add(POSTGRES)
    becomes_read_only(world, 7)
    world.configure(DB)
    world.scan()
    first = world.results()
    remembered = world.remembered()
    world.scans(100, every_seconds=5.0)

    assert first == {"refused": 1}
    assert remembered == {}  # nothing of ours is there to be put back
    assert 1 <= world.results()["refused"] <= 10
    assert world.hold(7).tracked()[3:5] == (-900, 1)


@pytest.mark.skipif(not READ_ONLY_ONE.exists(), reason="no loopback interface in /sys")
def test_what_could_not_be_put_back_is_left_to_the_next_daemon(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(named("postgres", 1))
    world.scan()
    becomes_read_only(world, 7)
    world.enforcer.put_all_back()

    assert world.results() == {"applied": 1, "refused": 1}
    assert world.remembered()[ProcessId(7, 100)].before == 3
