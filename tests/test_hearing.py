"""What the kernel tells of its own accord: that it does not, or does again, is seen and said."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc
from stage import Stage, Story, at
from world import named

from oomwatchd.hearing import RETRY_MAX_SECONDS, RETRY_SECONDS, Hearing
from oomwatchd.host import Hears, Wants
from oomwatchd.record import Record

DB = named("postgres", -900)
EVENTS_LOST = (
    "process_events: not available any more (new programs are found by looking, not at once)"
)
TRIGGER_LOST = (
    "psi_trigger: not available any more (memory pressure is only looked at every few seconds)"
)


@pytest.fixture
def stage(fake: FakeProc, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(fake, tmp_path / "ledger.json")
    stage.missing = {"process_events": "", "psi_trigger": ""}
    yield stage
    stage.close()


def available(stage: Stage, name: str) -> list[bool]:
    return [snapshot.features[name] for snapshot in stage.host.snapshots]


def test_events_that_do_not_come_are_not_available_and_asked_for_again(
    stage: Stage, logged: list[str]
) -> None:
    values = []

    def story() -> Story:
        yield at(1.0)
        stage.host.tells = True
        yield at(RETRY_SECONDS - 1)
        stage.fake.add(Fake(7, comm=b"postgres"))  # nobody tells of it
        yield at(RETRY_SECONDS)
        values.append(stage.fake.oom_score_adj(7))
        yield at(3 * RETRY_SECONDS)
        yield at(3 * RETRY_SECONDS, stop=True)

    host = stage.play(story(), DB, interval_seconds=3600.0)

    assert available(stage, "process_events") == [False, False, False, True, True]
    assert values == [-900]
    assert logged[:1] == [EVENTS_LOST]
    assert logged.count("process_events: available now") == 1
    assert len(host.wants) == 2


def test_a_pressure_trigger_that_is_lost_is_not_available_until_it_is_had_again(
    stage: Stage, logged: list[str]
) -> None:
    stage.fake.pressure()

    def story() -> Story:
        yield at(1.0, trigger_lost=True)
        yield at(1.0 + RETRY_SECONDS)
        yield at(200.0, stop=True)

    host = stage.play(story(), DB, tells=True)

    assert available(stage, "psi_trigger") == [True, False, True]
    assert logged == [TRIGGER_LOST, "psi_trigger: available now"]
    assert [wants.pressure for wants in host.wants] == [True, True]


def test_events_that_nobody_wants_are_as_available_as_they_were(
    stage: Stage, logged: list[str]
) -> None:
    stage.play(iter([at(1.0), at(999.0), at(9999.0, stop=True)]), DB, events="off")

    assert available(stage, "process_events") == [True, True, True]
    assert logged == []
    assert len(stage.host.wants) == 1


def test_what_was_never_there_is_not_said_to_be_lost(stage: Stage, logged: list[str]) -> None:
    stage.missing["process_events"] = "Operation not permitted"
    stage.play(iter([at(1.0), at(999.0), at(9999.0, stop=True)]), DB)

    assert available(stage, "process_events") == [False, False, False]
    assert logged == []
    assert len(stage.host.wants) == 2


def test_it_is_tried_ever_more_seldom_and_at_least_every_hour() -> None:
    hearing, now_seconds, gaps = Hearing({}, Record()), 0.0, []
    wants = Wants(events=True, forks=False, pressure=False, exits_fd=-1)
    for _ in range(9):
        hearing.asked(wants, Hears(events=False, pressure=False), now_seconds)
        gaps.append(hearing.due_seconds - now_seconds)
        now_seconds = hearing.due_seconds
    hearing.asked(wants, Hears(events=True, pressure=False), now_seconds)
    never = hearing.due_seconds
    hearing.asked(wants, Hears(events=False, pressure=False), now_seconds)

    assert gaps[:3] == [RETRY_SECONDS, 2 * RETRY_SECONDS, 4 * RETRY_SECONDS]
    assert gaps[-1] == RETRY_MAX_SECONDS
    assert never == float("inf")
    assert hearing.due_seconds == now_seconds + RETRY_SECONDS
