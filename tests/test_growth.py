"""Jumps and trends are told from noise, teeth, steps and gaps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stories import (
    GIB,
    MIB,
    Curve,
    copy,
    flat,
    instants,
    leak,
    noisy,
    points,
    sawtooth,
    steps,
)

from oomwatchd.policy.growth import Point, growth, jump, trend

QUARTERS = [-600 + at / 4 for at in range(2400)]


def test_a_copy_that_doubles_memory_is_a_jump_with_its_time_and_its_samples() -> None:
    found = jump(points(copy(31 * GIB, begins=-2.0, takes=1.9), instants()))

    assert found is not None
    assert (found.before_bytes, found.after_bytes) == (31 * GIB, 62 * GIB)
    assert found.seconds == pytest.approx(1.9, abs=0.2)
    assert found.points >= 8


def test_a_copy_that_is_killed_half_way_is_a_jump_all_the_same() -> None:
    found = jump(points(copy(300 * MIB, begins=-1.0, takes=2.0, killed_at=0.5), instants()))

    assert found is not None
    assert found.after_bytes == pytest.approx(450 * MIB, rel=0.04)


def test_loading_the_data_is_not_taken_for_the_copy_that_follows() -> None:
    def life(at: float) -> float:
        loading = min(10 + (at + 9) * 97, 300) * MIB
        return loading if at < -2 else copy(300 * MIB, begins=-2.0, takes=1.9)(at)

    found = jump(points(life, [-9 + at / 10 for at in range(90)]))

    assert found is not None
    assert found.before_bytes == pytest.approx(300 * MIB, rel=0.01)


def test_a_copy_soon_after_loading_is_found_though_the_rest_between_was_hardly_sampled() -> None:
    """As a real run was sampled: fast while it loaded, not at all for 4 s, fast from half a second
    into the copy, and killed two thirds through it.
    """

    def life(at: float) -> float:
        if at < -7.8:
            return (309 + (at + 7.8) * 100) * MIB
        return (309 + max(at + 1.6, 0) * 150) * MIB

    loading = [-10.4 + at / 10 for at in range(46)]
    seconds = [*loading, *(-1.3 + at / 10 for at in range(12))]

    found = jump(points(life, seconds))

    assert found is not None
    assert found.before_bytes == pytest.approx(309 * MIB, rel=0.01)
    assert found.seconds == pytest.approx(1.4, abs=0.2)
    assert trend(points(life, seconds)) is None


def test_the_time_of_a_copy_is_not_that_since_the_last_sample_at_rest() -> None:
    late = [-600 + 5.0 * at for at in range(120)]  # the last one at -5
    seconds = [*late, *(-1.5 + at / 10 for at in range(15))]  # a glance saw it after half a second

    found = jump(points(copy(GIB, begins=-2.0, takes=2.0), seconds))

    assert found is not None
    assert found.seconds == pytest.approx(2.0, abs=0.3)


def test_a_copy_is_still_seen_when_the_kill_takes_half_a_minute() -> None:
    found = jump(points(copy(GIB, begins=-30.0, takes=2.0), QUARTERS))

    assert found is not None
    assert found.seconds == pytest.approx(2.0, abs=0.3)


def test_a_copy_that_was_freed_again_is_no_jump() -> None:
    def freed(at: float) -> float:
        return 2 * GIB if -60 < at < -30 else GIB

    assert jump(points(freed, QUARTERS)) is None


def test_memory_taken_away_as_it_dies_does_not_hide_the_jump() -> None:
    alive = points(copy(GIB, begins=-2.0, takes=1.0), instants())
    dying = [Point(0.1, GIB), Point(0.2, 10 * MIB)]

    assert jump([*alive, *dying]) == jump(alive)


@pytest.mark.parametrize(
    "curve",
    [
        pytest.param(flat(GIB), id="flat"),
        pytest.param(noisy(flat(GIB), 50 * MIB), id="noise"),
        pytest.param(leak(GIB, 5 * MIB), id="a leak"),
        pytest.param(steps(2 * GIB, 100 * MIB, 30), id="steps"),
    ],
)
def test_what_is_no_copy_is_no_jump(curve: Curve) -> None:
    assert jump(points(curve, QUARTERS)) is None


def test_a_program_that_takes_all_at_its_start_has_not_jumped() -> None:
    assert jump([Point(at / 10, int(5 * MIB + at * 60 * MIB)) for at in range(10)]) is None


@pytest.mark.parametrize("seconds", [instants(), QUARTERS, instants(since=60, fast=20)])
@pytest.mark.parametrize("noise", [0, 3 * MIB])
def test_the_rate_of_a_leak_is_within_a_tenth(seconds: list[float], noise: int) -> None:
    curve = noisy(leak(40 * MIB, 5 * MIB, since=-seconds[0]), noise)

    found = trend(points(curve, seconds))

    assert found is not None
    assert found.bytes_per_second == pytest.approx(5 * MIB, rel=0.1)


def test_a_leak_that_began_late_has_its_own_rate_not_that_of_all_the_time() -> None:
    found = trend(points(leak(2 * GIB, 5 * MIB, since=150.0), QUARTERS))

    assert found is not None
    assert found.bytes_per_second == pytest.approx(5 * MIB, rel=0.1)
    assert found.seconds == pytest.approx(150, rel=0.3)


def test_a_leak_under_a_garbage_collector_is_that_of_what_is_kept() -> None:
    teeth, kept = sawtooth(0, 400 * MIB, 20.0), leak(500 * MIB, 5 * MIB)

    found = trend(points(lambda at: teeth(at) + kept(at), QUARTERS))

    assert found is not None
    assert found.bytes_per_second == pytest.approx(5 * MIB, rel=0.1)


def test_growth_in_steps_is_a_trend() -> None:
    found = trend(points(steps(500 * MIB, 100 * MIB, 30), instants()))

    assert found is not None
    assert found.bytes_per_second == pytest.approx(100 * MIB / 30, rel=0.1)


def test_a_leak_that_stood_at_the_limit_before_the_kill_keeps_its_rate() -> None:
    def stopped(at: float) -> float:
        return min(leak(0, 5 * MIB)(at), 2900 * MIB)

    found = trend(points(stopped, QUARTERS))

    assert found is not None
    assert found.bytes_per_second == pytest.approx(5 * MIB, rel=0.1)


def test_missing_samples_change_little() -> None:
    seconds = [at for n, at in enumerate(QUARTERS) if n * n % 11 == 5 and not -300 < at < -200]

    found = trend(points(noisy(leak(GIB, 5 * MIB), 3 * MIB), seconds))

    assert found is not None
    assert found.bytes_per_second == pytest.approx(5 * MIB, rel=0.1)


@pytest.mark.parametrize(
    "curve",
    [
        pytest.param(flat(GIB), id="flat"),
        pytest.param(noisy(flat(GIB), 50 * MIB), id="noise"),
        pytest.param(sawtooth(500 * MIB, 1300 * MIB, 20.0), id="teeth"),
        pytest.param(sawtooth(500 * MIB, 1300 * MIB, 33.0), id="long teeth"),
    ],
)
def test_what_comes_and_goes_is_no_trend(curve: Curve) -> None:
    assert trend(points(curve, QUARTERS)) is None


def test_growth_is_what_was_added_last() -> None:
    assert growth(points(leak(0, MIB), QUARTERS), 60.0) == pytest.approx(60 * MIB, rel=0.02)
    assert growth([], 60.0) == 0


series = st.lists(
    st.tuples(st.floats(0.01, 60.0), st.integers(0, 1 << 40)), max_size=60
)  # (seconds after the one before, bytes)


@given(series)
def test_no_series_is_too_odd_for_an_answer(steps: list[tuple[float, int]]) -> None:
    at, made = 0.0, []
    for wait, size in steps:
        at += wait
        made.append(Point(at, size))

    found, line = jump(made), trend(made)

    assert found is None or found.after_bytes > found.before_bytes
    assert line is None or line.bytes_per_second > 0
