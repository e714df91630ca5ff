"""What the loop makes of kills: a line for each, a count, and no turn that waits for the disk."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc
from mortuary import HungDisk, bare_kill, capture, coroner_over, set_kills
from stage import PATIENCE_SECONDS, Stage, Story, at, turns_until
from world import named

from oomwatchd.incidents import Incidents, entries
from oomwatchd.kernel.proc import ProcFs

TRAINING = named("hog", -900)
HOG = Fake(278, comm=b"hog", cgroup="0::/oomcases/job\n")
OWN_LIMIT = capture("6.12.117_own-limit")  # of process 278
HEADLINE = "hog (pid 278) was killed by the kernel at its cgroup's limit of 24 MiB: "


class Scene(Stage):
    """With a coroner; *log* is what the kernel logs."""

    def __init__(self, fake: FakeProc, tmp_path: Path) -> None:
        super().__init__(fake, tmp_path / "ledger.json")
        self.log: deque[bytes | int] = deque()
        self.directory = tmp_path / "incidents"
        set_kills(fake, 0)
        self.keep_in(Incidents(self.directory, keep=200))

    def keep_in(self, incidents: Incidents) -> None:
        proc = ProcFs(self.fake.root)
        make = partial(coroner_over, proc, self.directory, self.log, incidents)
        self.machine = self.machine._replace(coroner=make)

    def files(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        return [one.path.stem for one in entries(self.directory) if one.incident is not None]


@pytest.fixture
def scene(fake: FakeProc, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(fake, tmp_path)
    yield scene
    scene.close()


def test_a_kill_is_one_line_one_count_and_one_file(scene: Scene, logged: list[str]) -> None:
    scene.fake.add(HOG)

    def story() -> Story:
        yield at(1.0)
        scene.log.extend(OWN_LIMIT)
        yield at(2.0, logged=True)
        for step in range(3, 9):
            yield at(float(step))
        yield from turns_until(lambda: any("incidents show" in line for line in logged), 10.0)
        yield at(20.0)
        yield at(30.0, stop=True)

    host = scene.play(story(), TRAINING)
    [id] = scene.files()

    assert [line.startswith(HEADLINE) for line in logged if "killed by" in line] == [True]
    assert [line.endswith(f"(oomwatchd incidents show {id})") for line in logged if id in line] == [
        True
    ]
    snapshot = host.snapshots[-1]
    assert snapshot.kills == {("rule-hog", "cgroup"): 1}
    assert snapshot.last_incident is not None
    assert snapshot.last_incident["id"] == id


def test_the_loop_comes_back_when_a_report_may_be_at_its_end(scene: Scene) -> None:
    def story() -> Story:
        yield at(1.0)
        scene.log.extend(OWN_LIMIT)
        yield at(2.0, logged=True)
        yield at(2.5, stop=True)

    host = scene.play(story(), TRAINING, interval_seconds=3600.0)

    assert host.waits[-1] <= 3.0


def test_samples_are_no_reason_to_report(scene: Scene) -> None:
    """They are taken every second at least, and a report costs as much as each of them."""

    def story() -> Story:
        while (seconds := scene.host.waits[-1]) < 30.0:
            yield at(seconds, beat=len(scene.host.waits) == 5)  # systemd has to hear of us once
        yield at(30.0, stop=True)

    host = scene.play(story(), TRAINING, interval_seconds=3600.0)

    assert len(host.waits) >= 15
    assert host.told.count("(published)") == 1 + 1
    assert host.told.count("WATCHDOG=1") == 1


def test_of_a_flood_in_the_kernels_log_not_every_line_is_a_reason_to_report(scene: Scene) -> None:
    def story() -> Story:
        for step in range(300):
            scene.log.append(bare_kill(step, 1000 + step // 100))
            yield at(1.0 + step / 100, logged=True)
        yield at(4.1, stop=True)

    host = scene.play(story(), TRAINING, interval_seconds=3600.0)

    assert host.told.count("(published)") <= 5


def test_the_loop_waits_for_the_kernels_log(scene: Scene) -> None:
    host = scene.play(iter([at(1.0, stop=True)]), TRAINING)

    assert host.wants[0].log_fd is not None


def test_a_kill_that_has_not_settled_when_the_daemon_stops_is_told(
    scene: Scene, logged: list[str]
) -> None:
    def story() -> Story:
        yield at(1.0)
        scene.log.extend([*OWN_LIMIT, bare_kill(10**6, 99)])  # another begins: the first is over
        yield at(2.0, logged=True)
        yield at(2.1, stop=True)

    scene.play(story(), TRAINING)

    assert sum("(pid 278) was killed" in line for line in logged) == 1
    assert len(scene.files()) == 1


def test_no_turn_waits_for_the_disk(scene: Scene) -> None:
    disk = HungDisk(scene.directory)
    scene.keep_in(disk)
    values = []

    def story() -> Story:
        scene.log.extend(OWN_LIMIT)
        yield at(1.0, logged=True)
        for step in range(2, 8):
            yield at(float(step))
        assert disk.asked.wait(PATIENCE_SECONDS)
        scene.fake.add(replace(HOG, pid=300))
        scene.log.append(bare_kill(10**6, 99))
        yield at(10.0, logged=True)
        values.append(scene.fake.oom_score_adj(300))
        yield at(20.0)
        disk.go.set()
        yield at(21.0, stop=True)

    scene.play(story(), TRAINING)

    assert values == [-900]
    assert disk.in_time
    assert len(scene.files()) == 2
