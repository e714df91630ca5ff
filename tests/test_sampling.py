"""When the next sample is due: seldom at rest, often enough to see a copy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.policy.sampling import (
    GLANCE_SECONDS,
    Pace,
    Room,
    advance,
    goes_fast,
    shrinks_fast,
    step_seconds,
)

MIB = 1 << 20
GIB = 1 << 30


def test_at_rest_a_sample_is_taken_every_interval() -> None:
    assert step_seconds(Pace(), "ok", 100.0, 5.0) == 5.0


def test_a_long_interval_does_not_make_the_history_coarse_nor_a_short_one_dear() -> None:
    assert step_seconds(Pace(), "ok", 100.0, 3600.0) == 10.0
    assert step_seconds(Pace(), "ok", 100.0, 0.1) == 1.0


def test_under_pressure_there_are_four_a_second() -> None:
    assert step_seconds(Pace(), "warning", 9.0, 5.0) == 0.25
    assert step_seconds(Pace(), "critical", 9.0, 5.0) == 0.25


def test_memory_that_goes_fast_is_seen_ten_times_a_second_and_after_a_while_four_times() -> None:
    pace = advance(Pace(), 10.0, fast=True)

    assert step_seconds(pace, "ok", 10.0, 5.0) == 0.1
    for tenth in range(1, 70):
        pace = advance(pace, 10.0 + tenth / 10, fast=True)
    assert step_seconds(pace, "ok", 16.9, 5.0) == 0.25
    assert step_seconds(pace, "ok", 20.0, 5.0) == 5.0  # it stands still again


def test_a_new_movement_after_a_rest_is_seen_in_full_again() -> None:
    pace = advance(advance(Pace(), 10.0, fast=True), 30.0, fast=True)

    assert pace.began_seconds == 30.0


@pytest.mark.parametrize(
    ("left", "taken", "total"),
    [
        pytest.param(600 * MIB, 75 * MIB, GIB, id="a copy in a small one"),
        pytest.param(20 * GIB, 75 * MIB, 24 * GIB, id="the same in 24 GiB"),
        pytest.param(400 * GIB, 8 * GIB, 512 * GIB, id="a large table"),
    ],
)
def test_fast_is_what_would_be_all_within_a_minute_or_much_of_the_whole(
    left: int, taken: int, total: int
) -> None:
    assert shrinks_fast(Room(left, total), Room(left - taken, total), 0.5)


@pytest.mark.parametrize(
    ("left", "taken", "total"),
    [
        pytest.param(400 * GIB, 75 * MIB, 512 * GIB, id="small in large"),
        pytest.param(20 * GIB, 3 * MIB, 24 * GIB, id="a leak"),
        pytest.param(MIB, MIB // 2, GIB, id="what any program takes"),
        pytest.param(100 * MIB, -200 * MIB, GIB, id="memory comes back"),
    ],
)
def test_what_is_slow_small_or_comes_back_is_not_fast(left: int, taken: int, total: int) -> None:
    assert not shrinks_fast(Room(left, total), Room(left - taken, total), 0.5)


def test_a_clock_that_stands_still_tells_nothing() -> None:
    assert not shrinks_fast(Room(GIB, GIB), Room(0, GIB), 0.0)


@given(
    begins=st.floats(0.0, 5.0),
    size_mib=st.integers(300, 4000),
    total_gib=st.integers(1, 64),
    late=st.floats(0.0, 0.02),
)
def test_a_copy_within_two_seconds_has_eight_points_whenever_it_begins(
    begins: float, size_mib: int, total_gib: int, late: float
) -> None:
    """*late*: how much later than asked for the loop turns."""
    total = total_gib * GIB
    size = min(size_mib * MIB, total // 3)
    if size / 2 < total / 256 and size / 2 < (total // 2 - size) / 60:
        return  # so little of so much is no movement to speak of

    def left(at: float) -> int:
        return total // 2 - int(size * min(max((at - begins) / 2.0, 0.0), 1.0))

    pace, now, last, sampled, points = Pace(), 0.0, (0.0, left(0.0)), 0.0, 0
    while now <= begins + 2.0:
        room = Room(left(now), total)
        fast = shrinks_fast(Room(last[1], total), room, now - last[0])
        pace, last = advance(pace, now, fast=fast), (now, room.left_bytes)
        step = step_seconds(pace, "ok", now, 5.0)
        if now >= sampled + step:
            sampled = now
            points += begins <= now <= begins + 2.0
        now = min(sampled + step, now + GLANCE_SECONDS) + late

    assert goes_fast(pace, begins + 2.0)
    assert points >= 8
