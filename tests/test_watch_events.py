"""What the kernel tells of processes between two scans, and what is left for the scans to see."""

from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc, at_each_open
from world import World, named

from oomwatchd.model import Match, Rule
from oomwatchd.population import NEVER, REVISIT_SECONDS, STALE_MAX
from oomwatchd.watch import DOUBT_SECONDS, LISTING_BUSY_SECONDS, LISTING_SOON_SECONDS

DB = named("postgres", -900, workers=-200, descendants="reset")
TITLE = Rule("title", Match(cmdline=("^busy",)), 300)
POSTGRES = Fake(7, comm=b"postgres")


@pytest.fixture
def told(world: World) -> World:
    """A world whose kernel tells of processes; nothing has happened for a long time."""
    world.population.told = True
    return world


def newborn(world: World, pid: int, comm: bytes = b"sh", *, parent: int = 1) -> Fake:
    return Fake(pid, comm=comm, start_ticks=world.now_ticks(), parent=parent)


def opens(world: World, seconds: int) -> int:
    """How many files are opened by scans, one a second."""
    seen: list[str] = []
    with at_each_open(seen.append):
        world.scans(seconds)
    return len(seen)


# -- at once ---------------------------------------------------------------------------------------


def test_a_new_program_has_its_value_when_it_is_heard_of(told: World) -> None:
    told.fake.add(Fake(7, comm=b"sh"))
    told.configure(DB)
    told.scans(40)
    told.fake.exec(7, b"postgres")
    told.hear(7)

    assert told.values([7]) == [-900]


def test_a_new_process_has_its_value_before_any_listing_shows_it(told: World) -> None:
    told.configure(DB)
    told.scan()
    told.fake.add(newborn(told, 7, b"postgres"))
    told.hear(7)

    assert told.values([7]) == [-900]


def test_one_that_has_ended_by_then_is_nothing(told: World) -> None:
    told.configure(DB)
    told.scan()
    told.hear(7, 8, 9)
    told.scans(5)

    assert told.news() == []
    assert len(told.population) == 0


def test_who_was_heard_of_and_has_ended_is_forgotten_with_the_next_listing(told: World) -> None:
    told.configure(DB)
    told.scan()
    told.fake.add(newborn(told, 7, b"postgres"))
    told.hear(7)
    told.fake.exit(7)
    told.scans(int(LISTING_BUSY_SECONDS) + 1)

    assert len(told.population) == 0
    assert len(told.holds) == 0


def test_a_pid_heard_of_twice_for_two_processes_is_the_second_in_the_end(told: World) -> None:
    told.configure(DB)
    told.scan()
    told.fake.add(newborn(told, 7, b"postgres"))
    told.hear(7)
    told.seconds += 0.5
    told.fake.reuse(newborn(told, 7, b"cat"), oom_score_adj=5)
    told.hear(7)
    told.scans(5)

    assert told.values([7]) == [5]
    assert len(told.holds) == 0


def test_a_listing_does_not_look_again_at_whom_we_know(told: World) -> None:
    told.configure(DB)
    told.scan()
    told.fake.add(newborn(told, 7, b"postgres"))
    told.hear(7)
    told.seconds += 100.0
    told.population.settle(told.moment())
    seen: list[str] = []
    with at_each_open(seen.append):
        told.scan(0.0)

    assert "7" not in seen  # its directory


# -- parents and children --------------------------------------------------------------------------


def test_a_worker_is_told_from_its_parent_by_the_parents_claim(told: World) -> None:
    told.configure(DB)
    told.scan()
    told.fake.add(newborn(told, 7, b"postgres"))
    told.fake.add(newborn(told, 8, b"postgres", parent=7))
    told.hear(8, 7)

    assert told.values([7, 8]) == [-900, -200]


def test_a_fork_of_a_match_is_a_worker_at_once(told: World) -> None:
    told.fake.add(POSTGRES)
    told.configure(DB)
    told.scans(3)
    told.fake.add(newborn(told, 8, b"postgres", parent=7), oom_score_adj=-900)
    told.hear(forks=[(7, 8)])

    assert told.values([7, 8]) == [-900, -200]


def test_what_a_new_match_forks_at_once_is_a_worker_and_so_is_what_that_forks(
    told: World,
) -> None:
    told.configure(DB)
    told.scan()
    told.fake.add(newborn(told, 7, b"postgres"))
    told.fake.add(newborn(told, 8, b"postgres", parent=7))
    told.fake.add(newborn(told, 9, b"postgres", parent=8))
    told.hear(7, forks=[(8, 9), (7, 8)])

    assert told.values([7, 8, 9]) == [-900, -200, -200]


def test_a_long_chain_of_forks_costs_each_a_look(told: World) -> None:
    told.configure(DB)
    told.scan()
    chain = range(5000, 5200)
    for pid in chain:
        told.fake.add(newborn(told, pid, b"postgres", parent=pid - 1))
    seen: list[str] = []
    with at_each_open(seen.append):
        told.hear(5000, forks=[(pid - 1, pid) for pid in chain if pid > 5000])

    assert told.values(chain) == [-900] + [-200] * 199
    assert {seen.count(str(pid)) for pid in chain} == {1}  # its directory


def test_what_a_new_match_forked_before_it_had_its_value_is_found_soon(told: World) -> None:
    """Where no rule has `workers`, no event tells of it."""
    told.configure(named("train", 300), interval_seconds=3600.0)
    told.scan()
    told.fake.add(newborn(told, 7, b"train"))
    told.hear(7)
    told.fake.add(newborn(told, 8, b"train", parent=7))
    told.fake.add(newborn(told, 9, b"train", parent=8))
    told.revisit(LISTING_SOON_SECONDS + 0.01)

    assert told.values([7, 8, 9]) == [300, 300, 300]


def test_what_is_left_of_one_that_has_gone_is_found_soon(told: World) -> None:
    """As of a program that puts itself into the background."""
    told.configure(named("train", 300), interval_seconds=3600.0)
    told.scan()
    told.fake.add(newborn(told, 9, b"train"))
    told.hear(7)
    due = told.population.soon_seconds
    told.revisit(LISTING_SOON_SECONDS + 0.01)

    assert due <= told.seconds
    assert told.values([9]) == [300]


def test_proc_is_listed_out_of_turn_no_more_often_than_that(told: World) -> None:
    told.configure(DB)
    told.scan()
    listings = 0
    for step in range(200):
        told.hear(5000 + step)  # it has gone
        before = told.population.list_seconds
        told.revisit(0.01)
        listings += told.population.list_seconds > before

    assert 1 <= listings <= 2.0 / LISTING_SOON_SECONDS + 1


def test_where_nobody_new_matches_proc_is_not_listed_out_of_turn(told: World) -> None:
    told.configure(DB)
    told.scan()
    told.fake.add(newborn(told, 7, b"cat"))
    told.hear(7)

    assert told.population.list_seconds == NEVER


def test_a_fork_of_anybody_else_is_left_to_the_scan(told: World) -> None:
    told.fake.add(Fake(7, comm=b"sh"))
    told.configure(DB)
    told.scans(3)
    seen: list[str] = []
    with at_each_open(seen.append):
        told.hear(forks=[(7, 8), (1234, 5678)])

    assert seen == []


def test_a_parent_that_nobody_has_met_is_met_first(told: World) -> None:
    """A subshell runs nothing of its own; what it starts is a descendant of its parent's."""
    told.fake.add(POSTGRES)
    told.configure(named("postgres", 500, descendants="inherit"))
    told.scans(3)
    told.fake.add(newborn(told, 8, b"bash", parent=7), oom_score_adj=500)
    told.fake.add(newborn(told, 9, b"cat", parent=8), oom_score_adj=500)
    told.hear(9)

    claims = [told.population.at(pid) for pid in (8, 9)]
    assert [known and known.claim and known.claim.standing for known in claims] == ["heir", "heir"]


def test_a_child_of_a_negative_rule_gets_back_what_it_would_have_had(told: World) -> None:
    told.fake.add(POSTGRES, oom_score_adj=3)
    told.configure(DB)
    told.scans(3)
    told.fake.add(newborn(told, 8, b"bash", parent=7), oom_score_adj=-900)
    told.fake.add(newborn(told, 9, b"cat", parent=8), oom_score_adj=-900)
    told.hear(9)

    assert told.values([8, 9]) == [3, 3]


def test_ancestors_without_end_are_asked_about_up_to_a_bound(told: World) -> None:
    told.configure(DB)
    told.scan()
    for pid in range(5_000_000, 5_001_000):
        told.fake.add(newborn(told, pid, b"bash", parent=pid - 1))
    seen: list[str] = []
    with at_each_open(seen.append):
        told.hear(5_000_999)

    assert len(told.population) == 1
    assert len(seen) < 20


def test_a_parent_of_whom_nobody_has_anything_is_left_to_the_scan(told: World) -> None:
    told.fake.add(Fake(7, comm=b"bash"))
    told.configure(DB)
    told.scans(3)
    told.fake.add(newborn(told, 8, b"bash", parent=7))
    told.fake.add(newborn(told, 9, b"cat", parent=8))
    told.hear(9)

    assert told.population.at(8) is None
    assert told.population.at(9) is not None


# -- later names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("age_seconds", [0.3, 1.9, 7.0])
def test_a_title_given_later_is_seen_soon_after(told: World, age_seconds: float) -> None:
    told.configure(TITLE)
    told.scan()
    told.fake.add(newborn(told, 7, b"worker"))
    told.hear(7)
    for _ in range(int(age_seconds * 10)):
        told.revisit(0.1)
    told.change(7, arguments=(b"busy with a task",))
    for _ in range(int(age_seconds * 35)):
        told.revisit(0.1)

    assert told.values([7]) == [300]


def test_it_is_looked_at_again_a_few_times_and_then_seldom(told: World) -> None:
    told.configure(TITLE)
    told.scan()
    told.fake.add(newborn(told, 7, b"worker"))
    told.hear(7)
    looks: list[float] = []
    for step in range(1, 1000):
        seen: list[str] = []
        with at_each_open(seen.append):
            told.revisit(0.1)
        if "cmdline" in seen:
            looks.append(step / 10)

    assert len(looks) == 3
    assert looks[-1] < REVISIT_SECONDS


# -- what is lost ----------------------------------------------------------------------------------


def test_when_events_were_lost_everybody_is_looked_at_within_a_bound(told: World) -> None:
    for pid in range(100, 200):
        told.fake.add(Fake(pid, comm=b"sh"))
    told.configure(DB)
    told.scans(100)
    for pid in range(100, 200):
        told.fake.exec(pid, b"postgres")
    told.fake.add(newborn(told, 300, b"postgres"))
    told.hear(lost=True)
    told.scan(0.0)
    at_first = told.values([300])
    for _ in range(25):
        told.revisit(DOUBT_SECONDS / 20)

    assert at_first == [-900]
    assert set(told.values(range(100, 200))) == {-900}


def test_losing_them_again_and_again_does_not_begin_anew_each_time(told: World) -> None:
    told.fake.add(POSTGRES)
    told.configure(DB)
    told.scans(100)
    for _ in range(40):
        told.hear(lost=True)
        told.revisit(0.1)

    assert told.population.soon_seconds - told.seconds <= DOUBT_SECONDS
    seen: list[str] = []
    with at_each_open(seen.append):
        told.revisit(DOUBT_SECONDS)
    assert seen.count("7/stat") + seen.count("7") <= 2


def test_who_renames_himself_all_day_costs_no_memory(told: World) -> None:
    told.fake.add(Fake(7, comm=b"sh"))
    told.configure(DB)
    told.scans(40)
    for _ in range(3 * STALE_MAX):
        told.hear(7)
        told.seconds += 0.001

    assert told.population.dates <= STALE_MAX + 10


# -- at rest ---------------------------------------------------------------------------------------


def test_at_rest_the_number_of_processes_makes_no_difference(tmp_path: Path) -> None:
    counted = []
    for processes in (250, 2500):
        fake = FakeProc(tmp_path / str(processes))
        for pid in range(1000, 1000 + processes):
            fake.add(Fake(pid))
        world = World(fake, tmp_path / f"ledger-{processes}.json")
        world.population.told = True
        world.configure(DB)
        world.scans(100)
        counted.append(opens(world, 50))
        world.end_of_days()

    assert counted[1] <= 1.5 * counted[0]


def test_what_one_at_minus_1000_forks_is_counted_at_once(told: World) -> None:
    """It has inherited that value, and may be the one that leaks."""
    told.fake.add(POSTGRES)
    told.configure(named("postgres", -1000, unkillable=True))
    told.scans(40)
    told.fake.add(newborn(told, 8, b"postgres", parent=7), oom_score_adj=-1000)
    told.hear(forks=[(7, 8)])

    assert told.hold(8).unkillable
