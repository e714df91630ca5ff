"""What is done once while memory is short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.model import Level
from oomwatchd.policy.episode import LEVELS, highest, risen


def told(*levels: Level) -> list[Level | None]:
    """What each look at the pressure brings up."""
    before: Level = "ok"
    found = []
    for now in levels:
        found.append(risen(before, now))
        before = highest(before, now)
    return found


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["ok", "ok"], [None, None]),
        (["warning", "warning", "critical"], ["warning", None, "critical"]),
        (["critical", "critical"], ["critical", None]),
        (["critical", "warning"], ["critical", None]),  # on the way down is no rise
        (["warning", "critical", "warning", "critical"], ["warning", "critical", None, None]),
        (["critical", "ok", "critical"], ["critical", None, "critical"]),  # another episode
        (["warning", "ok", "warning"], ["warning", None, "warning"]),
    ],
)
def test_each_level_is_reached_once_until_all_is_well(
    levels: list[Level], expected: list[Level | None]
) -> None:
    assert told(*levels) == expected


@given(st.lists(st.sampled_from(LEVELS)))
def test_between_two_times_of_ok_no_level_is_told_twice(levels: list[Level]) -> None:
    since: set[Level] = set()
    for now, new in zip(levels, told(*levels), strict=True):
        if now == "ok":
            since.clear()
        assert new not in since
        assert new in (None, now)
        if new is not None:
            since.add(new)
