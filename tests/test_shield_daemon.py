"""What the loop makes of the shield: marks last as long as values do, and a reload changes them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cgrouptree import cgroup_tree
from fakeproc import Fake, FakeProc
from stage import Stage, Story, at
from world import named

from oomwatchd.model import Config

DB = named("postgres", -900)
POSTGRES = Fake(7, comm=b"postgres")


@pytest.fixture
def stage(fake: FakeProc, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(fake, tmp_path / "ledger.json")
    yield stage
    stage.close()


@pytest.mark.parametrize(("on_stop", "left"), [("keep", {"/a.service"}), ("restore", set())])
def test_marks_stay_or_go_with_the_daemon_as_values_do(
    stage: Stage, on_stop: str, left: set[str]
) -> None:
    with cgroup_tree() as tree:
        tree.add("/a.service")
        stage.machine = stage.machine._replace(cgroup_root=tree.root)
        stage.fake.add(replace(POSTGRES, cgroup="0::/a.service\n"))
        seen = []

        def story() -> Story:
            seen.append(tree.marked())
            yield at(5.0)
            yield at(6.0, stop=True)

        host = stage.play(story(), replace(DB, shield="preference"), on_stop=on_stop)
        stays = tree.marked()

    assert seen == [{"/a.service"}]
    assert stays == left
    assert host.snapshots[-1].markings == {"applied": 1}


def test_a_reload_that_drops_the_shield_takes_the_mark_back(stage: Stage) -> None:
    with cgroup_tree() as tree:
        tree.add("/a.service")
        stage.machine = stage.machine._replace(cgroup_root=tree.root)
        stage.fake.add(replace(POSTGRES, cgroup="0::/a.service\n"))
        seen = []

        def story() -> Story:
            seen.append(tree.marked())
            stage.file = Config((replace(DB, shield="none"),))
            yield at(5.0, reload=True)
            seen.append(tree.marked())
            yield at(6.0, stop=True)

        stage.play(story(), replace(DB, shield="preference"))

    assert seen == [{"/a.service"}, set()]
