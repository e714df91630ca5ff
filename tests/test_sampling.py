"""When the next sample is due: seldom at rest, often enough to see a copy."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from oomwatchd.policy.sampling import (
    EARLY,
    GLANCE_SECONDS,
    REST_SECONDS,
    Glance,
    Pace,
    Room,
    advance,
    glance_seconds,
    goes_fast,
    has_moved,
    step_seconds,
    swiftness,
)

MIB = 1 << 20
GIB = 1 << 30
JOB = "/system.slice/job.service"


def glance(at: float, left: int, total: int = GIB, **cgroups: Room) -> Glance:
    return Glance(
        at, {"": Room(left, total), **{f"/{name}": room for name, room in cgroups.items()}}
    )


def after(*seen: Glance, pace: Pace | None = None) -> Pace:
    """The pace after the last of them, each compared with the one before."""
    now = pace or Pace()
    for before, one in pairwise(seen):
        now = advance(now, [before], one)
    return now


def test_at_rest_a_sample_is_taken_every_ten_seconds_and_a_glance_every_second_or_so() -> None:
    pace = after(glance(1.0, 600 * MIB), glance(2.0, 600 * MIB))

    assert step_seconds(pace, "ok", 2.0) == REST_SECONDS == 10.0
    assert glance_seconds(pace) == GLANCE_SECONDS == 1.1


def test_under_pressure_there_are_four_samples_a_second() -> None:
    assert step_seconds(Pace(), "warning", 9.0) == 0.25
    assert step_seconds(Pace(), "critical", 9.0) == 0.25


def test_memory_that_goes_fast_is_seen_often_at_first_and_then_less() -> None:
    seen = [glance(10.0 + second, 900 * MIB - second * 60 * MIB) for second in range(8)]
    steps = [step_seconds(after(*seen[: n + 1]), "ok", 10.0 + n) for n in range(8)]

    assert steps == [10.0, 0.05, 0.1, 0.1, 0.25, 0.25, 0.25, 0.25]
    assert step_seconds(after(*seen), "ok", 17.9) == 0.25  # it may go on
    assert step_seconds(after(*seen), "ok", 18.1) == 10.0  # it stands still again


def test_a_new_movement_after_a_rest_is_seen_in_full_again() -> None:
    first = after(glance(9.0, 900 * MIB), glance(10.0, 800 * MIB))
    second = after(glance(29.0, 800 * MIB), glance(30.0, 700 * MIB), pace=first)

    assert (first.began_seconds, second.began_seconds) == (10.0, 30.0)


def test_the_first_sign_of_a_movement_calls_for_one_closer_look() -> None:
    sign = after(glance(1.0, 600 * MIB), glance(2.0, 597 * MIB))
    not_more = after(glance(2.0, 597 * MIB), glance(2.5, 594 * MIB), pace=sign)

    assert (glance_seconds(sign), glance_seconds(not_more)) == (0.5, GLANCE_SECONDS)
    assert not goes_fast(sign, 2.0)


@pytest.mark.parametrize(
    ("left", "taken", "total"),
    [
        pytest.param(600 * MIB, 75 * MIB, GIB, id="a copy in a small one"),
        pytest.param(20 * GIB, 200 * MIB, 24 * GIB, id="a larger one in 24 GiB"),
        pytest.param(400 * GIB, 8 * GIB, 512 * GIB, id="a large table"),
        pytest.param(200 * MIB, 9 * MIB, 24 * GIB, id="little, of the last"),
    ],
)
def test_fast_is_what_would_be_all_within_a_minute_or_much_of_the_whole(
    left: int, taken: int, total: int
) -> None:
    assert swiftness(glance(1.0, left, total), glance(2.0, left - taken, total)) >= 1.0


@pytest.mark.parametrize(
    ("left", "taken", "total"),
    [
        pytest.param(400 * GIB, 75 * MIB, 512 * GIB, id="small in large"),
        pytest.param(20 * GIB, 5 * MIB, 24 * GIB, id="a leak"),
        pytest.param(MIB, 5 * MIB, GIB, id="what any program takes"),
        pytest.param(100 * MIB, -200 * MIB, GIB, id="memory comes back"),
    ],
)
def test_what_is_slow_small_or_comes_back_is_not_fast(left: int, taken: int, total: int) -> None:
    assert swiftness(glance(1.0, left, total), glance(2.0, left - taken, total)) < 1.0


def test_a_steady_rate_is_fast_or_not_however_often_it_is_looked_at() -> None:
    """Else, what is fast from second to second would stand still from step to step."""
    seen = [glance(at / 20, 900 * MIB - at * MIB // 2) for at in range(100)]  # 10 MiB/s
    paces = [Pace()]
    for number, one in enumerate(seen[1:], start=1):
        recent = [before for before in seen[:number] if before.seconds >= one.seconds - 1.0]
        paces.append(advance(paces[-1], recent, one))

    assert all(goes_fast(pace, at / 20) for at, pace in enumerate(paces) if at >= 20)
    assert paces[-1].began_seconds < 1.0


@pytest.mark.parametrize("seconds", [0.25, 0.5, 1.0, 2.0])
def test_what_is_fast_on_a_large_machine_is_a_matter_of_the_rate(seconds: float) -> None:
    before = glance(1.0, 200 * GIB, 512 * GIB)
    now = glance(1.0 + seconds, 200 * GIB - int(3 * GIB * seconds), 512 * GIB)

    assert swiftness(before, now) == pytest.approx(0.9, rel=0.05)


def test_a_job_that_fills_its_cgroup_on_a_large_machine_goes_fast() -> None:
    before = glance(1.0, 400 * GIB, 512 * GIB, job=Room(300 * MIB, 512 * MIB))
    now = glance(2.0, 400 * GIB, 512 * GIB, job=Room(200 * MIB, 512 * MIB))
    another = glance(2.0, 400 * GIB, 512 * GIB, new=Room(MIB, 512 * MIB))

    assert swiftness(before, now) >= 1.0
    assert swiftness(before, another) == 0.0


@pytest.mark.parametrize("change", [-40, 40])
def test_what_changes_the_picture_is_worth_a_sample_before_its_time(change: int) -> None:
    assert has_moved(glance(1.0, 2 * GIB), glance(5.0, 2 * GIB + change * MIB))


@pytest.mark.parametrize("change", [-20, 0, 20])
def test_what_hardly_changes_it_is_not(change: int) -> None:
    assert not has_moved(glance(1.0, 2 * GIB), glance(5.0, 2 * GIB + change * MIB))


def test_little_is_not_worth_a_sample_however_little_is_left() -> None:
    assert not has_moved(glance(1.0, 10 * MIB), glance(5.0, 5 * MIB))


class Loop:
    """Turns when it is asked to, somewhat late; the sampler's part of it alone."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.recent: list[Glance] = []
        self.sampled = 0.0
        self.points: list[float] = []

    def turn(self, now: Glance) -> float:
        """When to turn again."""
        self.pace = advance(self.pace, self.recent, now)
        self.recent = [*(one for one in self.recent if one.seconds > now.seconds - 1.0), now]
        step = step_seconds(self.pace, "ok", now.seconds)
        if now.seconds >= self.sampled + step - EARLY * min(step, GLANCE_SECONDS):
            self.sampled = now.seconds
            self.points.append(now.seconds)
        if step >= GLANCE_SECONDS:
            return now.seconds + glance_seconds(self.pace)
        return self.sampled + step


@given(
    begins=st.floats(0.0, 5.0),
    size_mib=st.integers(32, 4000),
    total_gib=st.integers(1, 64),
    used=st.floats(0.1, 0.9),
    late=st.floats(0.0, 0.02),
)
def test_a_copy_within_two_seconds_has_eight_points_whenever_it_begins(
    begins: float, size_mib: int, total_gib: int, used: float, late: float
) -> None:
    """*late*: how much later than asked for the loop turns."""
    total, size = total_gib * GIB, size_mib * MIB
    free = int(total * (1.0 - used))
    a_second = size / 2
    assume(size < free)
    assume(
        a_second >= 1.01 * min(total / 128, free / 60)
    )  # less of so much is no movement to speak of

    def left(at: float) -> int:
        return free - int(size * min(max((at - begins) / 2.0, 0.0), 1.0))

    loop, now = Loop(), 0.0
    while now <= begins + 2.0:
        now = loop.turn(glance(now, left(now), total)) + late

    assert goes_fast(loop.pace, begins + 2.0)
    assert len([at for at in loop.points if begins <= at <= begins + 2.0]) >= 8
