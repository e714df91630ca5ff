"""When to take the next sample: seldom at rest, often while memory is short or goes fast.

A copy of a large table takes two seconds, and what is read every few seconds would show nothing of
it.  So, at rest, there is a glance at what is left twice a second; once that shrinks fast, samples
come ten times a second at first: enough for eight within two seconds, of which up to a half passed
before the glance.
"""

from typing import Final, NamedTuple

from oomwatchd.model import Level

REST_SECONDS: Final = (1.0, 10.0)  # between two samples, however short or long the interval
GLANCE_SECONDS: Final = 0.5
PRESSED_SECONDS: Final = 0.25
BURST_STEP_SECONDS: Final = 0.1
BURST_SECONDS: Final = 5.0  # so long at that rate, then as under pressure
GOES_ON_SECONDS: Final = 2.0  # after which memory that stands still is at rest
# What counts as fast: it would take all that is left within a minute, or so much of the whole in
# one second; but never less than what any program takes as it starts.
MINUTE_SECONDS: Final = 60.0
SHARE_PER_SECOND: Final = 1 / 256
LEAST_BYTES_PER_SECOND: Final = 4 << 20
NEVER: Final = float("-inf")


class Room(NamedTuple):
    """What is left of the machine's memory and swap, or below a cgroup's limit."""

    left_bytes: int
    total_bytes: int


class Pace(NamedTuple):
    """Whether memory goes fast, in monotonic seconds."""

    began_seconds: float = NEVER
    last_seconds: float = NEVER


def shrinks_fast(before: Room, after: Room, elapsed_seconds: float) -> bool:
    if elapsed_seconds <= 0:
        return False
    taken = (before.left_bytes - after.left_bytes) / elapsed_seconds
    bounds = (after.left_bytes / MINUTE_SECONDS, after.total_bytes * SHARE_PER_SECOND)
    return taken >= max(LEAST_BYTES_PER_SECOND, min(bounds))


def advance(pace: Pace, now_seconds: float, *, fast: bool) -> Pace:
    """The pace after a glance."""
    if not fast:
        return pace
    began = pace.began_seconds if goes_fast(pace, now_seconds) else now_seconds
    return Pace(began, now_seconds)


def goes_fast(pace: Pace, now_seconds: float) -> bool:
    return now_seconds - pace.last_seconds <= GOES_ON_SECONDS


def step_seconds(pace: Pace, level: Level, now_seconds: float, interval_seconds: float) -> float:
    """From this sample to the next; a glance in between may call for it earlier."""
    fast = goes_fast(pace, now_seconds)
    if fast and now_seconds - pace.began_seconds < BURST_SECONDS:
        return BURST_STEP_SECONDS
    if fast or level != "ok":
        return PRESSED_SECONDS
    least, most = REST_SECONDS
    return min(max(interval_seconds, least), most)
