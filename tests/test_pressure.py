"""Levels of pressure: up at once, down only after a while, and never to and fro."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.model import Level, Pressure, PressureSettings, Threshold
from oomwatchd.policy.pressure import PressureState, advance, level, reached

CALM = Pressure(*[0.0] * 8)
SETTINGS = PressureSettings(
    warning=(Threshold("some", "avg10", 20.0),),
    critical=(Threshold("full", "avg10", 10.0),),
    clear_after_seconds=30.0,
)
SOME = CALM._replace(some_avg10=20.0)
FULL = CALM._replace(some_avg10=50.0, full_avg10=10.0)
SEVERITY: dict[Level, int] = {"ok": 0, "warning": 1, "critical": 2}


def levels(
    readings: list[tuple[float, Pressure]], settings: PressureSettings = SETTINGS
) -> list[Level]:
    """The level after each reading, given with its time in seconds."""
    state, found = PressureState(), list[Level]()
    for now_seconds, pressure in readings:
        state = advance(state, pressure, settings, now_seconds)
        found.append(level(state, settings, now_seconds))
    return found


def test_a_level_is_reached_at_its_threshold_and_at_once() -> None:
    below = CALM._replace(some_avg10=19.99, full_avg10=9.99)

    assert levels([(0.0, below)]) == ["ok"]
    assert levels([(0.0, SOME)]) == ["warning"]
    assert levels([(0.0, FULL)]) == ["critical"]


def test_a_level_ends_only_after_the_time_to_clear() -> None:
    story = [(0.0, FULL), (5.0, CALM), (29.9, CALM), (30.0, CALM), (31.0, CALM)]

    assert levels(story) == ["critical", "critical", "critical", "ok", "ok"]


def test_critical_goes_down_to_warning_while_that_is_reached() -> None:
    story = [(0.0, FULL), (10.0, SOME), (29.0, SOME), (31.0, SOME), (60.0, CALM), (61.0, CALM)]

    assert levels(story) == ["critical", "critical", "critical", "warning", "warning", "ok"]


def test_a_short_calm_starts_the_time_again() -> None:
    story = [(0.0, SOME), (29.0, CALM), (29.5, SOME), (50.0, CALM), (59.0, CALM), (60.0, CALM)]

    assert levels(story) == ["warning"] * 5 + ["ok"]


def test_without_time_to_clear_a_level_lasts_as_long_as_its_cause() -> None:
    settings = PressureSettings(SETTINGS.warning, SETTINGS.critical, clear_after_seconds=0.0)

    assert levels([(0.0, SOME), (0.1, CALM)], settings) == ["warning", "ok"]


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ((), False),
        ((Threshold("some", "avg10", 20.0),), True),
        ((Threshold("some", "avg10", 20.0), Threshold("full", "avg60", 5.0)), False),
        ((Threshold("some", "avg10", 20.0), Threshold("full", "avg60", 0.0)), True),
    ],
)
def test_all_thresholds_given_have_to_be_reached(
    thresholds: tuple[Threshold, ...],
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    assert reached(thresholds, SOME) is expected


percents = st.floats(0.0, 100.0)
readings = st.lists(
    st.tuples(st.floats(0.1, 20.0), percents, percents), min_size=1, max_size=40
)  # after how many seconds, some, full


@given(readings)
def test_the_level_does_not_flap(steps: list[tuple[float, float, float]]) -> None:
    now_seconds, story = 0.0, []
    for wait_seconds, some, full in steps:
        now_seconds += wait_seconds
        story.append((now_seconds, CALM._replace(some_avg10=some, full_avg10=full)))
    found = [SEVERITY[one] for one in levels(story)]
    wanted = [2 if p.full_avg10 >= 10 else 1 if p.some_avg10 >= 20 else 0 for _, p in story]

    for index, (now_seconds, _) in enumerate(story):
        recent = [
            severity
            for (then_seconds, _), severity in zip(story[: index + 1], wanted, strict=False)
            if now_seconds - then_seconds < SETTINGS.clear_after_seconds
        ]
        assert found[index] == max(recent)  # so it goes down 30 s after its last cause, not before
