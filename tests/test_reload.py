"""Stories of a reload whose load takes long, as it asks a directory of users or of hosts."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc
from stage import PATIENCE_SECONDS, Stage, Story, at, turns_until
from world import named

from oomwatchd.config import ConfigError, Fault, Loaded
from oomwatchd.model import Config, Match, Rule, User
from oomwatchd.reload import LOAD_SECONDS

DB = named("postgres", -900)
WEB = named("nginx", 300)
POSTGRES = Fake(7, comm=b"postgres")
NGINX = Fake(8, comm=b"nginx")


class SlowStage(Stage):
    """A reload takes as long as the test likes; the load at the start does not."""

    def __init__(self, fake: FakeProc, path: Path) -> None:
        super().__init__(fake, path)
        self.goes_on = threading.Semaphore(0)
        self.loads = 0
        self.started = False

    def load(self) -> Loaded:
        if not self.started:
            self.started = True
            return super().load()
        assert self.goes_on.acquire(timeout=PATIENCE_SECONDS)
        try:
            return super().load()
        finally:
            self.loads += 1


@pytest.fixture
def stage(fake: FakeProc, tmp_path: Path) -> Iterator[SlowStage]:
    stage = SlowStage(fake, tmp_path / "ledger.json")
    yield stage
    stage.goes_on.release(9)
    stage.close()


def in_force(stage: Stage) -> list[str]:
    return [rule.name for rule in stage.host.snapshots[-1].rules]


def test_the_loop_goes_on_while_the_configuration_is_loaded(stage: SlowStage) -> None:
    values, ready = [], []

    def story() -> Story:
        stage.file = Config((WEB,))
        yield at(1.0, reload=True)
        stage.fake.add(POSTGRES)
        stage.fake.add(NGINX)
        yield at(6.0)
        values.append((stage.fake.oom_score_adj(7), stage.fake.oom_score_adj(8)))
        ready.append(stage.host.told.count("READY=1"))
        stage.goes_on.release()
        yield from turns_until(lambda: in_force(stage) == ["rule-nginx"], 7.0)
        values.append((stage.fake.oom_score_adj(7), stage.fake.oom_score_adj(8)))
        yield at(8.0, stop=True)

    host = stage.play(story(), DB, loads=False)

    assert values == [(-900, 0), (0, 300)]
    assert [*ready, host.told.count("READY=1")] == [1, 2]


def test_a_load_that_does_not_come_is_a_failed_reload(stage: SlowStage, logged: list[str]) -> None:
    stage.fake.add(POSTGRES)

    def story() -> Story:
        stage.file = Config((WEB,))
        yield at(1.0, reload=True)
        yield at(1.0 + LOAD_SECONDS)
        stage.goes_on.release()
        yield from turns_until(lambda: stage.loads == 1, 40.0)
        yield at(41.0)
        yield at(42.0, stop=True)

    host = stage.play(story(), DB, loads=False)

    failed = "reload failed, the rules in force stay in force: not done within 30 s"
    assert [line for line in logged if line.startswith(failed)]
    assert not host.snapshots[-1].reload_successful
    assert in_force(stage) == ["rule-postgres"]
    assert stage.fake.oom_score_adj(7) == -900
    assert host.told.count("READY=1") == 2


def test_an_order_during_a_load_has_the_file_read_again(stage: SlowStage) -> None:
    def story() -> Story:
        stage.file = ConfigError([Fault("x.yaml", 1, 1, "half written")])
        yield at(1.0, reload=True)
        yield at(2.0, reload=True)
        stage.goes_on.release()
        yield from turns_until(lambda: stage.loads == 1, 3.0)
        stage.file = Config((WEB,))
        stage.goes_on.release()
        yield from turns_until(lambda: in_force(stage) == ["rule-nginx"], 4.0)
        yield at(5.0, stop=True)

    host = stage.play(story(), DB, loads=False)

    assert stage.loads == 2
    assert all(snapshot.reload_successful for snapshot in host.snapshots)
    assert [host.told.count(line) for line in ("RELOADING=1", "READY=1")] == [2, 2]


def test_a_stop_does_not_wait_for_a_load(stage: SlowStage) -> None:
    def story() -> Story:
        yield at(1.0, reload=True)
        yield at(2.0, stop=True)

    host = stage.play(story(), DB, loads=False)

    assert stage.loads == 0
    assert host.told[-1] == "STOPPING=1"
    assert host.told.count("READY=1") == 1


# -- users who come up later -----------------------------------------------------------------------


def theirs(user: User) -> Rule:
    return Rule("theirs", Match(user=(user,)), 300)


def test_a_user_who_was_not_known_at_the_load_is_found_later(
    stage: SlowStage, logged: list[str]
) -> None:
    stage.fake.add(Fake(7, uid=0))

    def story() -> Story:
        yield from turns_until(lambda: stage.fake.oom_score_adj(7) == 300, 1.0)
        yield at(2.0)
        yield at(3.0, stop=True)

    stage.play(story(), theirs(User("root", None)))

    assert logged.count("user 'root' is known now, by uid 0") == 1
    assert stage.host.snapshots[-1].rules == (theirs(User("root", 0)),)
