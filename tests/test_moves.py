"""Processes that are to have a scope of their own: whom the worker is asked for, and what then."""

import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cgrouptree import CgroupTree, cgroup_tree
from fakeproc import FakeProc
from live import until
from shielded import APP, MANAGER_SCOPE, SERVICE, TERM, ShieldedWorld
from workers import DIES, HANGS, MOVES, REFUSES, worker
from world import named

from oomwatchd.model import ProcessId
from oomwatchd.moves import PAUSE_SECONDS
from oomwatchd.record import Moving
from oomwatchd.systemd.manager import DEADLINE_SECONDS, Spawn, Worker

TRAINING = named("train", -900, shield="scope")
UNSCOPED = named("cat", -100, shield="preference")
OURS = f"/oomwatchd.slice/oomwatchd-{TRAINING.name}-7.scope"
A_TURN_SECONDS = 0.5  # far below any deadline, far above what is measured
LEAVES_ALONE = MOVES.replace('"moved", scope, 1, ""', '"left_alone", "", 0, "in a container"')
WRITES_DOWN = MOVES.replace("    scope", "    print(pid, file=sys.stderr, flush=True)\n    scope")
assert LEAVES_ALONE != MOVES != WRITES_DOWN


@pytest.fixture
def tree() -> Iterator[CgroupTree]:
    with cgroup_tree() as tree:
        yield tree


class Hall:
    """Worlds for a test, each with the worker that it wants; and how many workers were started."""

    def __init__(self, fake: FakeProc, path: Path, tree: CgroupTree) -> None:
        self._parts = (fake, path, tree)
        self.world: ShieldedWorld | None = None
        self.started = 0

    def open(self, program: str, *, dry_run: bool = False) -> ShieldedWorld:
        return self.open_with(worker(program), dry_run=dry_run)

    def open_with(self, spawn: Spawn, *, dry_run: bool = False) -> ShieldedWorld:
        def counted() -> Worker:
            self.started += 1
            return spawn()

        fake, path, tree = self._parts
        tree.add(MANAGER_SCOPE)
        self.world = ShieldedWorld(fake, path, tree, counted, dry_run=dry_run)
        return self.world


@pytest.fixture
def hall(fake: FakeProc, tmp_path: Path, tree: CgroupTree) -> Iterator[Hall]:
    hall = Hall(fake, tmp_path / "ledger.json", tree)
    yield hall
    assert hall.world is not None
    hall.world.end_of_days()


def answered(world: ShieldedWorld) -> list[Moving]:
    """Turn until a move has ended, one way or another."""
    news: list[Moving] = []

    def told() -> bool:
        select.select([world.shield], [], [], 1.0)
        world.turn()
        news.extend(item for item in world.news() if isinstance(item, Moving))
        return bool(news)

    until(told, "an answer")
    return news


def test_who_is_to_have_a_scope_is_marked_at_once_and_then_moved(hall: Hall) -> None:
    world = hall.open(MOVES)
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    first = world.tree.marked()
    world.move(7, OURS)
    world.tree.set_mark(OURS)  # as systemd does
    news = answered(world)

    assert first == {TERM, MANAGER_SCOPE}
    assert news == [Moving(ProcessId(7, 100), TRAINING.name, "moved", OURS, 1)]
    assert world.tree.marked() == {OURS}
    assert world.remembered_marks() == set()
    assert world.record.movings == {"moved": 1}


def test_who_has_come_along_is_not_asked_for_again(hall: Hall) -> None:
    world = hall.open(MOVES)
    world.run(7, "train", TERM)
    world.run(8, "train", TERM, parent=7, start_ticks=101)
    world.configure(TRAINING)
    world.scan()
    world.move(7, OURS)
    world.move(8, OURS)
    [news] = answered(world)
    world.scans(5, PAUSE_SECONDS)

    assert news.id.pid == 7
    assert world.tree.marked() == {OURS}
    assert world.record.movings == {"moved": 1}


def test_only_who_is_to_have_a_scope_is_asked_for(hall: Hall) -> None:
    world = hall.open(MOVES)
    world.run(7, "cat", TERM)
    world.run(8, "train", OURS)
    world.run(9, "train", "/system.slice/docker-0123.scope")
    world.run(10, "train", MANAGER_SCOPE)
    world.configure(TRAINING, UNSCOPED)
    world.scans(3)

    assert hall.started == 0
    assert world.values() == [-100, -900, -900, -900]


def test_parents_are_asked_for_before_their_children(
    hall: Hall, capfd: pytest.CaptureFixture[str]
) -> None:
    world = hall.open(WRITES_DOWN)
    world.run(7, "train", TERM, start_ticks=300)
    world.run(8, "train", TERM, start_ticks=100)
    world.run(9, "train", TERM, start_ticks=200)
    world.configure(TRAINING)
    world.scan()
    for _ in range(3):
        answered(world)

    assert capfd.readouterr().err.split() == ["8", "9", "7"]


def test_what_has_failed_is_tried_again_after_a_pause(hall: Hall) -> None:
    world = hall.open(REFUSES)
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    [first] = answered(world)
    world.scans(int(PAUSE_SECONDS) - 1)
    before = world.news()
    world.scan()
    world.scan()
    [second] = answered(world)

    assert {(item.result, item.reason) for item in (first, second)} == {
        ("failed", "systemd said no")
    }
    assert before == []
    assert world.tree.marked() == {TERM, MANAGER_SCOPE}  # it keeps at least that


def test_who_is_left_alone_is_not_asked_for_again(hall: Hall) -> None:
    world = hall.open(LEAVES_ALONE)
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    [only] = answered(world)
    world.scans(5, PAUSE_SECONDS)

    assert only.result == "left_alone"
    assert world.news() == []


def test_a_process_that_ends_while_it_is_asked_for_is_forgotten(hall: Hall) -> None:
    world = hall.open(MOVES)
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    world.fake.exit(7)
    world.scan()
    world.run(8, "train", TERM)
    world.scan()
    [news] = answered(world)

    assert news.id.pid == 8
    assert world.record.movings == {"moved": 1}


def test_without_systemd_it_has_the_mark(fake: FakeProc, tmp_path: Path, tree: CgroupTree) -> None:
    tree.add(MANAGER_SCOPE)
    world = ShieldedWorld(fake, tmp_path / "ledger.json", tree, None)
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scans(3)
    marked, news = tree.marked(), world.news()
    world.end_of_days()

    assert marked == {TERM, MANAGER_SCOPE}
    assert not [item for item in news if isinstance(item, Moving)]


def test_a_dry_run_says_once_whom_it_would_move_and_starts_no_worker(hall: Hall) -> None:
    world = hall.open(MOVES, dry_run=True)
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scans(3, PAUSE_SECONDS)
    news = [item for item in world.news() if isinstance(item, Moving)]

    assert [(item.id.pid, item.result) for item in news] == [(7, "moved")]
    assert hall.started == 0
    assert world.record.movings == {}


# -- a systemd that does not answer ----------------------------------------------------------------


def test_while_systemd_hangs_values_and_marks_are_set_without_delay(hall: Hall) -> None:
    world = hall.open(HANGS)
    world.run(7, "train", TERM)
    world.configure(TRAINING, named("db", -500, shield="preference"))
    longest = 0.0
    for pid in range(100, 160):
        world.run(pid, "db", f"{SERVICE}-{pid}.service")
        started = time.monotonic()
        world.scan()
        world.turn()
        longest = max(longest, time.monotonic() - started)

    assert longest < A_TURN_SECONDS
    assert world.values() == [-900, *[-500] * 60]
    assert len(world.tree.marked()) == 62
    assert world.record.movings == {"failed": 1}
    assert world.shield.worker_failures == 1
    assert hall.started == 1


def test_after_a_worker_that_hung_the_next_one_does_it(hall: Hall) -> None:
    programs = [HANGS, DIES, MOVES]

    def spawn() -> Worker:
        return worker(programs.pop(0))()

    world = hall.open_with(spawn)
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    world.turn(DEADLINE_SECONDS)
    hung = answered_now(world)
    world.scan(PAUSE_SECONDS)
    world.scan()
    [died] = answered(world)
    world.scan(PAUSE_SECONDS)
    world.scan()
    [moved] = answered(world)

    assert [item.result for item in (*hung, died, moved)] == ["failed", "failed", "moved"]
    assert world.shield.worker_failures == 2


def answered_now(world: ShieldedWorld) -> list[Moving]:
    return [item for item in world.news() if isinstance(item, Moving)]


def test_the_worker_is_told_nothing_that_users_choose(hall: Hall, tmp_path: Path) -> None:
    """Neither a name nor a path: a rule's name, a pid and a start."""
    heard = tmp_path / "heard"
    program = f"open({str(heard)!r}, 'wb').write(link.recv(65536))\n"
    world = hall.open(program)
    world.run(7, "train", f"{APP}/$(id) \x1b.scope")
    world.configure(TRAINING)
    world.scan()
    until(lambda: heard.exists() and heard.read_bytes(), "a request")

    assert heard.read_bytes() == f'["{TRAINING.name}", 7, 100]'.encode()
