"""What happens between any two readings of a scan: an end, another process, our own end.

Each story is told again and again, and something happens one step later each time, until a scan has
no such step any more.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from fakeproc import BOOT_ID, Fake, FakeProc, at_each_open, at_open_number
from world import World, named

from oomwatchd.ledger import Ledger
from oomwatchd.model import Match, ProcessId, Rule, User

EVERYTHING = Rule(  # asks for every file of a process
    "everything",
    Match(
        name=("postgres",),
        script=("/srv/*", "*.pl"),
        cmdline=("^perl",),
        exe=("/*",),
        user=(User("alice", 1000),),
        cgroup=("/*",),
    ),
    -900,
)
NAME_ALONE = named("postgres", -900, workers=-200, descendants="reset")
POSTGRES = Fake(7, comm=b"postgres", arguments=(b"perl", b"postgres.pl"))
OTHER = Fake(7, comm=b"sshd", start_ticks=9999)
STEPS_MAX = 200


def at_each_step(tmp_path: Path) -> Iterator[tuple[int, World]]:
    """A new world for each step at which something may happen."""
    for step in count(1):
        assert step < STEPS_MAX, "a scan that never ends"
        world = World(FakeProc(tmp_path / f"proc-{step}"), tmp_path / f"ledger-{step}.json")
        yield step, world


Happens = Callable[[FakeProc], None]
THEN: dict[str, Happens] = {
    "it ends": lambda fake: fake.exit(7),
    "its pid is used again": lambda fake: fake.reuse(OTHER, oom_score_adj=77),
    "it becomes a zombie": lambda fake: fake.change(replace(POSTGRES, state=b"Z")),
}


@pytest.mark.parametrize("rule", [EVERYTHING, NAME_ALONE], ids=lambda rule: rule.name)
@pytest.mark.parametrize("then", THEN)
def test_a_new_process_may_go_at_any_step(tmp_path: Path, rule: Rule, then: str) -> None:
    for step, world in at_each_step(tmp_path):
        for process in (POSTGRES, replace(POSTGRES, pid=8)):
            world.fake.add(process, oom_score_adj=3, exe=Path("/bin/sh"), cwd=tmp_path)
        world.configure(rule)
        with at_open_number(step, partial(THEN[then], world.fake)) as happened:
            world.scan()
        world.scan()

        if then == "its pid is used again" and happened():
            assert world.values([7]) == [77]
        assert world.values([8]) == [-900]
        if happened():
            assert world.holds.get(7) is None
            assert ProcessId(7, 100) not in world.remembered()
        world.end_of_days()
        if not happened():
            return


@pytest.mark.parametrize("then", THEN)
def test_a_process_under_a_rule_may_go_at_any_step(tmp_path: Path, then: str) -> None:
    """While somebody has changed its value, so that we are about to write to it again."""
    for step, world in at_each_step(tmp_path):
        world.fake.add(POSTGRES, oom_score_adj=3)
        world.configure(NAME_ALONE)
        world.scan()
        world.fake.set_oom_score_adj(7, 55)
        with at_open_number(step, partial(THEN[then], world.fake)) as happened:
            world.scan()
        world.scan()

        if happened():
            assert world.holds.get(7) is None
            assert ProcessId(7, 100) not in world.remembered()
        if then == "its pid is used again" and happened():
            assert world.values([7]) == [77]
        world.end_of_days()
        if not happened():
            return


def test_an_exec_at_any_step_never_leaves_our_value_on_the_wrong_program(tmp_path: Path) -> None:
    for step, world in at_each_step(tmp_path):
        world.fake.add(POSTGRES, oom_score_adj=3)
        world.configure(NAME_ALONE)
        with at_open_number(step, partial(world.fake.exec, 7, b"sh")) as happened:
            world.scan()
        world.scans(2)

        assert world.values([7]) == [3 if happened() else -900]
        world.end_of_days()
        if not happened():
            return


def test_an_exec_into_the_rule_at_any_step_is_found(tmp_path: Path) -> None:
    for step, world in at_each_step(tmp_path):
        world.fake.add(replace(POSTGRES, comm=b"sh", start_ticks=world.now_ticks()))
        world.configure(NAME_ALONE)
        with at_open_number(step, partial(world.fake.exec, 7, b"postgres")) as happened:
            world.scan()
        world.scans(35)

        assert world.values([7]) == [-900 if happened() else 0]
        world.end_of_days()
        if not happened():
            return


# -- our own end -----------------------------------------------------------------------------------


class KilledError(Exception):
    """The daemon ends here, without another step."""


def killed() -> None:
    raise KilledError


def family(world: World) -> None:
    """A match, its worker, a child that inherited, and one that has nothing to do with it."""
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.fake.add(Fake(8, comm=b"postgres", parent=7, start_ticks=200), oom_score_adj=3)
    world.fake.add(Fake(9, comm=b"postgres", start_ticks=300), oom_score_adj=-5)
    world.fake.add(Fake(10, comm=b"cron"), oom_score_adj=77)


BEFORE = [3, 3, -5, 77]


@pytest.mark.parametrize(
    "rules",
    [[], [named("postgres", 100)], [named("cron", 1)]],
    ids=["gone", "changed", "another"],
)
def test_killed_at_any_step_the_next_daemon_puts_everything_back(
    tmp_path: Path, rules: list[Rule]
) -> None:
    """While values are set, and while a reload gives them back or changes them."""
    for step, world in at_each_step(tmp_path):
        family(world)
        ended = False
        world.configure(NAME_ALONE)
        try:
            with at_open_number(step, killed):
                world.scan()
                world.configure(*rules)
                world.scan()
        except KilledError:
            ended = True
        world.end()
        world.start()
        world.configure(*rules)
        world.scans(2)
        world.configure()
        world.scans(2)

        assert world.values([7, 8, 9, 10]) == BEFORE
        world.end_of_days()
        if not ended:
            return


def test_at_any_step_the_ledger_knows_every_value_of_ours(tmp_path: Path) -> None:
    """The rule of the ledger: what is about to be written stands in it before."""
    world = World(FakeProc(tmp_path / "proc"), tmp_path / "ledger.json")
    family(world)
    before = dict(zip(world.fake.pids(), world.values(), strict=True))
    looked = 0

    def check(_name: str) -> None:
        nonlocal looked
        looked += 1
        ledger = Ledger(world.ledger_path, BOOT_ID)
        ledger.load()
        known = {id.pid: claim for id, claim in ledger.claims()}
        for pid, value in zip(world.fake.pids(), world.values(), strict=True):
            if value != before[pid]:
                assert known[pid].before == before[pid]
                assert value in known[pid].ours

    world.configure(NAME_ALONE)
    with at_each_open(check):
        world.scan()
        world.configure(replace(NAME_ALONE, oom_score_adj=-100))
        world.scan()
        world.configure()
        world.scan()

    assert looked > 40
    assert world.values() == BEFORE
    world.end_of_days()


# -- as an ordinary user ---------------------------------------------------------------------------

HIDDEN = """
import os, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fakeproc import Fake, FakeProc
from world import World, named
with tempfile.TemporaryDirectory() as directory:
    world = World(FakeProc(Path(directory, "proc")), Path(directory, "none"), dry_run=True)
    for pid, comm in ((7, b"postgres"), (8, b"sh")):
        world.fake.add(Fake(pid, comm=comm, start_ticks=world.now_ticks()))
    world.configure(named("postgres", 100))
    world.scan()
    for pid in (7, 8):
        (world.fake.root / str(pid)).chmod(0)
    world.scans(40)
    for pid in (7, 8):
        (world.fake.root / str(pid)).chmod(0o755)
    world.scan()
    print(len(world.holds))
"""


def test_a_process_that_may_not_be_seen_any_more_is_no_fault() -> None:
    """With hidepid=1, one's own process becomes somebody else's as it runs sudo."""
    whom = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [sys.executable, "-c", HIDDEN, str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    result: subprocess.CompletedProcess[str] = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, **whom
    )  # type: ignore[call-overload]  # the same keywords, from a dict

    assert (result.stdout, result.stderr) == ("1\n", "")


# -- files that cannot be written ------------------------------------------------------------------


def test_without_a_ledger_values_are_set_all_the_same_and_put_back(world: World) -> None:
    world.ledger_path.mkdir()  # nothing can take its place
    world.fake.add(POSTGRES, oom_score_adj=3)
    world.configure(NAME_ALONE)
    world.scan()
    protected = world.values([7])
    fault = world.record.ledger_fault
    world.configure()
    world.scan()
    world.ledger_path.rmdir()

    assert (protected, world.values([7])) == ([-900], [3])
    assert "Is a directory" in fault


def test_the_fault_of_the_ledger_is_news_once(world: World) -> None:
    world.ledger_path.mkdir()
    world.configure(NAME_ALONE)
    for pid in (7, 8, 9):
        world.fake.add(replace(POSTGRES, pid=pid))
        world.scan()
    failures = [item for item in world.news() if type(item).__name__ == "LedgerFailed"]
    world.ledger_path.rmdir()

    assert len(failures) == 1
