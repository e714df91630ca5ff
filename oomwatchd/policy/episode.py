"""What is done once while memory is short: an episode lasts from the first rise until ok again."""

from typing import Final, get_args

from oomwatchd.model import Level

LEVELS: Final[tuple[Level, ...]] = get_args(Level)


def highest(before: Level, now: Level) -> Level:
    """The highest level of the episode that goes on, after a look that has found *now*."""
    if now == "ok":
        return "ok"
    return max(before, now, key=LEVELS.index)


def risen(before: Level, now: Level) -> Level | None:
    """The level that is reached for the first time in this episode, if any is.

    Who goes from ok to critical at once has not risen to warning.
    """
    after = highest(before, now)
    return after if after != before and after != "ok" else None
