"""What the loop does when memory gets short or somebody was killed: hooks, and signals."""

import json
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc
from mortuary import capture, coroner_over, set_kills
from stage import PATIENCE_SECONDS, Stage, Story, at, turns_until
from world import named

from oomwatchd.incidents import Incidents
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import Command, PressureHooks, PressureSettings, Threshold

HOG = Fake(278, comm=b"hog", cgroup="0::/oomcases/job\n")
PRESSURE = PressureSettings(
    warning=(Threshold("some", "avg10", 20.0),),
    critical=(Threshold("full", "avg10", 10.0),),
    clear_after_seconds=0.0,
)


@pytest.fixture
def stage(fake: FakeProc, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(fake, tmp_path / "ledger.json")
    yield stage
    stage.close()


def writes_to(path: Path) -> Command:
    """A hook that appends what it is told, and a line break."""
    return ("/bin/sh", "-c", 'cat >> "$1"; echo >> "$1"', "sh", str(path))


def test_an_incident_is_handed_to_the_hook_as_it_is_on_disk(stage: Stage, tmp_path: Path) -> None:
    told, directory = tmp_path / "told", tmp_path / "incidents"
    log: deque[bytes | int] = deque(capture("6.12.117_own-limit"))
    set_kills(stage.fake, 1)
    incidents = Incidents(directory, keep=9)
    make = partial(coroner_over, ProcFs(stage.fake.root), tmp_path, log, incidents)
    stage.machine = stage.machine._replace(coroner=make)

    def story() -> Story:
        for step in range(1, 9):
            yield at(float(step))
        yield from turns_until(told.exists, 9.0)
        yield from turns_until(lambda: told.read_bytes().endswith(b"\n\n"), 9.0)
        yield at(10.0)
        yield at(11.0, stop=True)

    stage.play(story(), on_incident=writes_to(told))
    [path] = directory.iterdir()

    assert told.read_bytes() == path.read_bytes() + b"\n"
    assert json.loads(told.read_text())["killer"] == "cgroup"


def test_a_rise_of_pressure_runs_its_hook_once_an_episode(stage: Stage, tmp_path: Path) -> None:
    told = tmp_path / "told"

    def story() -> Story:
        readings = [(60.0, 50.0), (60.0, 50.0), (30.0, 0.0), (60.0, 50.0), (0.0, 0.0), (60.0, 50.0)]
        for second, (some, full) in enumerate(readings, 1):
            stage.fake.pressure(some=some, full=full)
            yield at(float(second), pressed=True)
        yield from turns_until(lambda: told.exists() and told.read_text().count("\n") == 2, 7.0)
        yield at(8.0)
        yield at(9.0, stop=True)

    stage.fake.pressure()
    hook = PressureHooks(critical=writes_to(told))
    host = stage.play(story(), pressure=PRESSURE, on_pressure=hook)
    found = [json.loads(line) for line in told.read_text().splitlines()]

    assert [one["level"] for one in found] == ["critical", "critical"]
    assert found[0]["pressure"]["full_avg10"] == 50.0
    levels = [snapshot.level for snapshot in host.snapshots]
    assert levels[:7] == ["ok", "critical", "critical", "warning", "critical", "ok", "critical"]


def test_the_loop_looks_often_while_a_hook_runs_and_does_not_wait_for_it(stage: Stage) -> None:
    def story() -> Story:
        stage.fake.pressure(some=60.0, full=50.0)
        yield at(10.0)
        yield at(11.0, stop=True)

    stage.fake.pressure()
    hook = PressureHooks(critical=("/bin/sleep", "600"))
    started = time.monotonic()
    host = stage.play(story(), pressure=PRESSURE, on_pressure=hook, interval_seconds=3600.0)

    assert time.monotonic() - started < PATIENCE_SECONDS
    assert 10.0 < host.waits[-1] <= 10.5


def test_how_a_hook_ended_is_logged_and_counted(stage: Stage, logged: list[str]) -> None:
    def story() -> Story:
        stage.fake.pressure(some=60.0, full=50.0)
        yield at(10.0)
        yield from turns_until(lambda: any("exit status" in line for line in logged), 11.0)
        yield at(20.0, stop=True)

    stage.fake.pressure()
    hook = PressureHooks(critical=("/bin/false",))
    host = stage.play(story(), pressure=PRESSURE, on_pressure=hook)

    assert "on_pressure: /bin/false: exit status 1" in logged
    assert host.snapshots[-1].hook_runs == {("on_pressure", "failed"): 1}


def test_a_dry_run_says_whom_it_would_tell_and_what_it_would_run(
    stage: Stage, logged: list[str]
) -> None:
    stage.fake.add(HOG)

    def story() -> Story:
        stage.fake.pressure(some=60.0, full=50.0)
        yield at(10.0)
        yield at(11.0, stop=True)

    stage.fake.pressure()
    rule = named("hog", -900, critical_signal="SIGUSR1")
    hook = PressureHooks(critical=("/bin/false",))
    stage.play(story(), rule, pressure=PRESSURE, on_pressure=hook, dry_run=True)

    assert "on_pressure: /bin/false: would be run" in logged
    said = "process 278 'hog', rule rule-hog: would send SIGUSR1, as memory pressure is critical"
    assert said in logged
