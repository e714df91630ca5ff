"""Processes come, change and go; what the daemon makes of each."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc, at_each_open
from world import World, named

from oomwatchd.model import Config, Match, ProcessId, Rule, User
from oomwatchd.record import Adjustment
from oomwatchd.watch import LISTING_IDLE_SECONDS

DB = named("postgres", -900)
ZERO = named("zero", 0)
BROWSER = named("chrome*", 500)
POD = "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope\n"
POSTGRES = Fake(7, comm=b"postgres")


# -- coming and going ------------------------------------------------------------------------------


def test_who_is_there_at_the_start_is_set(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=17)
    world.fake.add(Fake(8, comm=b"sshd"), oom_score_adj=-5)
    world.configure(DB)
    world.scan()

    assert world.values([7, 8]) == [-900, -5]
    assert [hold.tracked()[1:5] for hold in world.holds] == [
        ("postgres", "rule-postgres", -900, -900)
    ]


def test_who_comes_is_set_on_the_next_scan(world: World) -> None:
    world.configure(DB)
    world.scan()
    world.fake.add(POSTGRES)
    world.scan()

    assert world.values([7]) == [-900]
    [news] = world.news()
    assert isinstance(news, Adjustment)
    assert (news.change.id, news.before, news.result) == (ProcessId(7, 100), 0, "applied")


def test_zero_is_a_value_like_any_other(world: World) -> None:
    world.fake.add(Fake(7, comm=b"zero"), oom_score_adj=-300)
    world.configure(ZERO)
    world.scan()

    assert world.values([7]) == [0]


def test_who_has_the_value_already_is_not_written_to(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=-900)
    world.configure(DB)
    opened: list[str] = []
    with at_each_open(opened.append):
        world.scan()

    assert opened.count("oom_score_adj") == 2  # read, and held; never opened to write
    assert world.news() == []
    assert world.holds.get(7) is not None


def test_who_ends_is_forgotten(world: World) -> None:
    world.fake.add(POSTGRES)
    world.configure(DB)
    world.scan()
    before = world.remembered()
    world.fake.exit(7)
    world.scan()

    assert list(before) == [ProcessId(7, 100)]
    assert (len(world.holds), len(world.population), world.remembered()) == (0, 0, {})


def test_who_ends_just_before_a_reload_is_forgotten_too(world: World) -> None:
    browser = replace(BROWSER, descendants="inherit")
    world.fake.add(POSTGRES)
    world.fake.add(Fake(8, comm=b"chrome"))
    world.fake.add(Fake(9, comm=b"heir", parent=8), oom_score_adj=500)
    world.fake.add(Fake(10, comm=b"other"))
    world.configure(DB, browser)
    world.scan()
    world.fake.everybody_exits()
    world.configure(DB, browser)
    world.scan()

    assert (len(world.holds), len(world.population), world.remembered()) == (0, 0, {})


def test_a_pid_used_again_is_another_process(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB)
    world.scan()
    world.fake.reuse(Fake(7, comm=b"sshd", start_ticks=world.now_ticks()), oom_score_adj=-900)
    world.scan()

    assert world.values([7]) == [-900]  # what the other had is no concern of this one
    assert len(world.holds) == 0
    assert world.remembered() == {}


def test_a_pid_used_again_by_another_match_has_a_value_of_its_own_to_put_back(
    world: World,
) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB)
    world.scan()
    world.fake.reuse(Fake(7, comm=b"postgres", start_ticks=900), oom_score_adj=8)
    world.scan()
    world.configure()
    world.scan()

    assert world.values([7]) == [8]


# -- becoming something else -----------------------------------------------------------------------


def test_an_exec_out_of_the_rule_gives_the_old_value_back(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB)
    world.scan()
    world.fake.exec(7, b"sh")
    world.scan()

    assert world.values([7]) == [3]
    assert world.remembered()[ProcessId(7, 100)].standing == "released"
    assert world.results() == {"applied": 1, "restored": 1}


def test_a_new_name_out_of_the_rule_does_too(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB)
    world.scan()
    world.fake.rename(7, b"worker")
    world.scan()

    assert world.values([7]) == [3]


def test_a_young_process_that_becomes_a_match_is_set_soon(world: World) -> None:
    world.configure(DB)
    world.scan()
    world.fake.add(Fake(7, comm=b"sh", start_ticks=world.now_ticks()))
    world.scan()
    world.fake.exec(7, b"postgres")
    world.scans(3)

    assert world.values([7]) == [-900]


def test_an_old_process_that_becomes_a_match_is_set_within_a_round(world: World) -> None:
    world.fake.add(Fake(7, comm=b"sh"))
    world.configure(DB)
    world.scans(40)
    world.fake.exec(7, b"postgres")
    world.scans(32)

    assert world.values([7]) == [-900]


def test_a_process_that_goes_from_rule_to_rule_keeps_the_value_from_before_both(
    world: World,
) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB, BROWSER)
    world.scan()
    world.fake.exec(7, b"chrome")
    world.scan()
    between = world.values([7])
    world.fake.exec(7, b"sh")
    world.scan()

    assert between == [500]
    assert world.values([7]) == [3]


def test_a_user_that_changes_without_a_trace_is_noticed_in_the_end(world: World) -> None:
    alice = Rule("alice", Match(user=(User("alice", 1000),)), 300)
    world.fake.add(Fake(7, uid=0))
    world.configure(alice)
    world.scan()
    world.change(7, uid=1000)
    world.scans(40, every_seconds=9.0)

    assert world.values([7]) == [300]


# -- reload ----------------------------------------------------------------------------------------


def test_a_rule_that_goes_gives_every_old_value_back(world: World) -> None:
    for pid in (7, 8, 9):
        world.fake.add(Fake(pid, comm=b"postgres"), oom_score_adj=pid)
    world.configure(DB)
    world.scan()
    world.fake.set_oom_score_adj(8, 55)  # somebody else's: stays
    world.configure()
    world.scan()

    assert world.values([7, 8, 9]) == [7, 55, 9]
    assert len(world.holds) == 0


def test_a_rule_with_another_value_sets_it(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(DB)
    world.scan()
    world.configure(replace(DB, oom_score_adj=-100))
    world.scan()
    between = world.values([7])
    world.configure()
    world.scan()

    assert (between, world.values([7])) == ([-100], [3])


# -- whom we leave alone ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "process",
    [
        Fake(1, comm=b"postgres"),
        Fake(os.getpid(), comm=b"postgres"),
        Fake(7, comm=b"postgres", kernel_thread=True),
        Fake(7, comm=b"postgres", state=b"Z"),
        Fake(7, comm=b"postgres", state=b"X"),
    ],
    ids=["pid 1", "ourselves", "kernel thread", "zombie", "dead"],
)
def test_some_are_never_touched(world: World, process: Fake) -> None:
    world.fake.add(process, oom_score_adj=3)
    world.configure(DB)
    opened: list[str] = []
    with at_each_open(opened.append):
        world.scans(3)

    assert world.values() == [3]
    assert "oom_score_adj" not in opened
    assert world.news() == []


def test_a_match_that_becomes_a_zombie_is_let_go(world: World) -> None:
    world.fake.add(POSTGRES)
    world.configure(DB)
    world.scan()
    world.change(7, state=b"Z")
    world.scans(35)

    assert (len(world.holds), world.remembered()) == (0, {})


@pytest.mark.parametrize("told", [True, False], ids=["told", "looking"])
def test_one_that_takes_its_time_to_die_stays_under_its_rule(world: World, *, told: bool) -> None:
    """It has no memory any more, and so no command line that says what it ran."""
    world.population.told = told
    world.fake.add(replace(POSTGRES, arguments=(b"python3", b"/x/train.py")))
    world.configure(Rule("training", Match(script=("train.py",)), -900))
    world.scan()
    world.change(7, exiting=True)
    world.scans(35)
    world.fake.exit(7)
    world.scan(LISTING_IDLE_SECONDS)
    results = world.results()

    assert results == {"applied": 1}
    [(gone, _)] = world.population.take_gone()
    assert (gone.id.pid, gone.rule) == (7, "training")


def test_what_a_kubelet_manages_is_left_to_it(world: World) -> None:
    world.fake.add(replace(POSTGRES, cgroup=POD), oom_score_adj=985)
    world.configure(DB)
    world.scan()
    left = world.values([7])
    world.configure(DB, kubernetes_pods="manage")
    world.scan()

    assert (left, world.values([7])) == ([985], [-900])


def test_no_file_is_read_that_no_rule_needs(world: World) -> None:
    for pid in range(100, 200):
        world.fake.add(Fake(pid, comm=b"other"))
    world.fake.add(POSTGRES)
    world.configure(named("nothing", 1))
    opened: list[str] = []
    with at_each_open(opened.append):
        world.scan()
    of_processes = {name for name in opened if not name.isdecimal() and "ledger" not in name}

    assert of_processes <= {"stat", "oom_score_adj"}  # the value: an ancestor may have ended


def test_a_quiet_machine_is_not_read_again(world: World) -> None:
    for pid in range(100, 200):
        world.fake.add(Fake(pid, comm=b"other"))
    world.configure(DB)
    world.scan()
    opened: list[str] = []
    with at_each_open(opened.append):
        world.scans(30)

    assert len(opened) < 100 * 2  # each about once in a round, of which one in ten in full


# -- a dry run -------------------------------------------------------------------------------------


def test_a_dry_run_says_all_and_writes_nothing(fake: FakeProc, tmp_path: Path) -> None:
    world = World(fake, tmp_path / "ledger.json", dry_run=True)
    fake.add(POSTGRES, oom_score_adj=3)
    fake.add(Fake(8, comm=b"child", parent=7), oom_score_adj=3)
    world.configure(DB, on_stop="restore")
    opened: list[str] = []
    with at_each_open(opened.append):
        world.scans(5)
        world.fake.exec(7, b"sh")
        world.scans(5)
        world.enforcer.put_all_back()
    told = [item.change.oom_score_adj for item in world.news() if isinstance(item, Adjustment)]
    counted = world.record.adjustments

    assert world.values([7, 8]) == [3, 3]
    assert not world.ledger_path.exists()
    assert told == [-900]
    assert counted == {}
    world.end_of_days()


def test_a_configuration_without_rules_touches_nothing(world: World) -> None:
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.watch.configure(Config())
    world.scans(3)

    assert world.values([7]) == [3]
