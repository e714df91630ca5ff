"""When to see how much memory is left, and when to take a sample: seldom at rest, often as it goes.

A copy of a large table takes two seconds, and what is read every ten would show nothing of it.  So
at rest there is a glance at what is left about once a second.  One that sees memory begin to go is
soon followed by another; and once it goes fast, samples come twenty times a second at first: enough
for eight within two seconds, of which up to 1.4 had passed by then.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from oomwatchd.model import Level

REST_SECONDS: Final = 10.0  # between two samples
# With EARLY, a loop that turns every second takes a glance with each of its turns: if not yet, then
# after some seconds, as the two come nearer by a tenth each time.
GLANCE_SECONDS: Final = 1.1
CLOSER_SECONDS: Final = 0.5  # to the next glance, when memory has begun to go
PRESSED_SECONDS: Final = 0.25
# Between two samples once it goes fast, and for how long from the beginning of that; after these,
# as under pressure.
BURST: Final = ((0.05, 1.0), (0.1, 3.0))
GOES_ON_SECONDS: Final = 1.0  # after which memory that stands still is at rest
# What counts as fast: it would take all that is left within a minute, or so much of the whole in
# one second; but never less than what any program takes as it starts.
MINUTE_SECONDS: Final = 60.0
SHARE_PER_SECOND: Final = 1 / 128
FAST_LEAST_BYTES: Final = 8 << 20
BEGINS: Final = 0.25  # of what counts as fast
# What is worth a sample although it came slowly: so much of what was left at the last one.
MOVED_SHARE: Final = 1 / 64
MOVED_LEAST_BYTES: Final = 16 << 20
EARLY: Final = 0.25  # of a wait: so much earlier is as good, if the loop turns then anyway
NEVER: Final = float("-inf")


class Room(NamedTuple):
    """What is left of the machine's memory and swap, or below a cgroup's limit."""

    left_bytes: int
    total_bytes: int


class Glance(NamedTuple):
    seconds: float
    rooms: Mapping[str, Room]  # by cgroup; the machine's under ""


class Pace(NamedTuple):
    """Whether memory goes fast, in monotonic seconds."""

    began_seconds: float = NEVER
    last_seconds: float = NEVER
    begins: bool = False  # not fast yet, and worth a closer look


def advance(pace: Pace, recent: Iterable[Glance], glance: Glance) -> Pace:
    """The pace after *glance*; *recent* are those of about the last second."""
    speed = max((swiftness(before, glance) for before in recent), default=0.0)
    if speed < 1.0:
        return pace._replace(begins=speed >= BEGINS and not pace.begins)
    began = pace.began_seconds if goes_fast(pace, glance.seconds) else glance.seconds
    return Pace(began, glance.seconds)


def swiftness(before: Glance, after: Glance) -> float:
    """How fast the room shrinks that shrinks the fastest; from 1 on it is fast."""
    elapsed = after.seconds - before.seconds
    shared = after.rooms.keys() & before.rooms.keys()
    shares = (shrinking(before.rooms[path], after.rooms[path], elapsed) for path in shared)
    return max(shares, default=0.0)


def shrinking(before: Room, after: Room, elapsed_seconds: float) -> float:
    a_second = min(after.left_bytes / MINUTE_SECONDS, after.total_bytes * SHARE_PER_SECOND)
    taken = before.left_bytes - after.left_bytes
    return taken / max(FAST_LEAST_BYTES, a_second * elapsed_seconds)


def goes_fast(pace: Pace, now_seconds: float) -> bool:
    return now_seconds - pace.last_seconds <= GOES_ON_SECONDS


def has_moved(before: Glance, after: Glance) -> bool:
    """Whether so much has been taken or given back that a sample would show another picture."""
    return any(
        abs(room.left_bytes - before.rooms[path].left_bytes)
        >= max(MOVED_LEAST_BYTES, before.rooms[path].left_bytes * MOVED_SHARE)
        for path, room in after.rooms.items()
        if path in before.rooms
    )


def step_seconds(pace: Pace, level: Level, now_seconds: float) -> float:
    """From this sample to the next; a glance in between may call for it earlier."""
    if not goes_fast(pace, now_seconds):
        return REST_SECONDS if level == "ok" else PRESSED_SECONDS
    lasted = now_seconds - pace.began_seconds
    return next((step for step, until in BURST if lasted < until), PRESSED_SECONDS)


def glance_seconds(pace: Pace) -> float:
    """From this glance to the next, unless a sample is due before."""
    return CLOSER_SECONDS if pace.begins else GLANCE_SECONDS
