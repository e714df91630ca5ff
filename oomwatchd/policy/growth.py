"""The shape of a process's memory over time: a jump, a steady growth, or neither.

Samples are noisy, come at uneven times, and some are missing.  So nothing here takes a single
difference for the truth: a growth is the median over many pairs of instants (Theil and Sen), and is
taken from the lowest points of each stretch, so that what is freed again does not count.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

MIB: Final = 1 << 20
JUMP_MAX_SECONDS: Final = 10.0
JUMP_LEAST_BYTES: Final = 32 * MIB
JUMP_LEAST_RATIO: Final = 0.25  # of what was held before
HELD_LEAST_BYTES: Final = 32 * MIB  # less than that is a program that has just started
STANDS_RATIO: Final = 0.1  # of the rise: so little in the time before is a level
STANDS_MAX_SECONDS: Final = 10.0  # samples at rest may be so far apart
EDGE: Final = 0.03  # of the rise: where it has left the level, and where it has arrived
TOP_RATIO: Final = 0.92  # of the peak: from here on it was at the top
DYING_SECONDS: Final = 3.0  # in which a victim's memory is already being taken away
STRETCHES: Final = 40
TREND_LEAST_SECONDS: Final = 10.0
TREND_LEAST_STRETCHES: Final = 6
TREND_LEAST_BYTES: Final = 16 * MIB
TREND_LEAST_RATIO: Final = 0.08  # of what it had at the end
SHORTER: Final = 0.8  # a late beginning is looked for by leaving out more and more
# How far from the line the points may be (the median, of the whole growth), and over how long at
# least: in a short time two rises with a rest in between would look like one.
STRAIGHT: Final = (
    (0.015, TREND_LEAST_SECONDS),
    (0.03, TREND_LEAST_SECONDS),
    (0.06, 30.0),
    (0.12, 60.0),
)


class Point(NamedTuple):
    seconds: float
    bytes: int


Points = Sequence[Point]


class Jump(NamedTuple):
    """A rise that began from a level held before, and lasted to the end."""

    before_bytes: int
    after_bytes: int
    seconds: float
    points: int  # samples within it

    @property
    def bytes_per_second(self) -> float:
        return (self.after_bytes - self.before_bytes) / self.seconds


class Trend(NamedTuple):
    """A growth along a straight line, until the end."""

    bytes_per_second: float
    seconds: float  # for how long
    from_bytes: int
    to_bytes: int

    def is_new(self, points: Points) -> bool:
        """Whether it led to where it had not been before."""
        since = points[-1].seconds - self.seconds
        highest = max((point.bytes for point in points if point.seconds < since), default=0)
        return highest < self.to_bytes - 0.1 * (self.to_bytes - self.from_bytes)


def jump(points: Points) -> Jump | None:
    """The last sudden rise, if it began from a level, is large beside it, and lasted."""
    points = until_the_end(points)
    top = first_at_top(points)
    foot = foot_of(points, top) if top is not None else None
    if foot is None:
        return None
    before = points[foot].bytes
    after = max(point.bytes for point in points[foot:])
    rise = after - before
    start = max(at for at in range(foot, len(points)) if points[at].bytes <= before + EDGE * rise)
    end = next(at for at in range(start, len(points)) if points[at].bytes >= after - EDGE * rise)
    seconds = duration(points[start : end + 1])
    large = rise >= max(JUMP_LEAST_BYTES, JUMP_LEAST_RATIO * before)
    if before < HELD_LEAST_BYTES or not large or not 0 < seconds <= JUMP_MAX_SECONDS:
        return None
    return Jump(before, after, seconds, end - start + 1)


def trend(points: Points) -> Trend | None:
    """The growth over the longest time, up to the end, in which it follows a straight line.

    None as well, if it had been as high before: then it comes and goes.
    """
    points = until_the_end(points)
    top = first_at_top(points)
    points = points[: top + 1] if top is not None else points
    if not points:
        return None
    whole = points[-1].seconds - points[0].seconds
    for tolerance, least_seconds in STRAIGHT:
        seconds = whole
        while seconds >= least_seconds:
            since = points[-1].seconds - seconds
            found = line(lows([point for point in points if point.seconds >= since]), tolerance)
            if found is not None and found.is_new(points):
                return found
            seconds *= SHORTER
    return None


def line(points: Points, tolerance: float) -> Trend | None:
    """The straight line through *points*, if they rise enough and lie near enough to it."""
    if len(points) < TREND_LEAST_STRETCHES:
        return None
    slope = median(
        (later.bytes - one.bytes) / (later.seconds - one.seconds)
        for at, one in enumerate(points)
        for later in points[at + 1 :]
    )
    seconds = points[-1].seconds - points[0].seconds
    if seconds < 0.8 * TREND_LEAST_SECONDS:
        return None
    growth = slope * seconds
    if growth < max(TREND_LEAST_BYTES, TREND_LEAST_RATIO * points[-1].bytes):
        return None
    base = median(point.bytes - slope * point.seconds for point in points)
    distance = median(abs(point.bytes - slope * point.seconds - base) for point in points)
    if distance > tolerance * growth:
        return None
    return Trend(slope, seconds, points[0].bytes, points[-1].bytes)


def median(values: Iterable[float]) -> float:
    """Not that of `statistics`, which brings fractions and decimals: 0.5 MiB."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def lows(points: Points) -> list[Point]:
    """The lowest point of each of STRETCHES equal times; none where nothing was sampled."""
    if not points:
        return []
    first, last = points[0].seconds, points[-1].seconds
    width = (last - first) / STRETCHES or 1.0
    lowest: dict[int, Point] = {}
    for point in points:
        at = min(int((point.seconds - first) / width), STRETCHES - 1)
        if at not in lowest or point.bytes < lowest[at].bytes:
            lowest[at] = point
    return [lowest[at] for at in sorted(lowest)]


def growth(points: Points, within_seconds: float) -> int:
    """How much more it had at its most in the last seconds than before that most, at its least."""
    if not points:
        return 0
    since = points[-1].seconds - within_seconds
    recent = [point for point in points if point.seconds >= since]
    top = max(range(len(recent)), key=lambda at: recent[at].bytes)
    return recent[top].bytes - min(point.bytes for point in recent[: top + 1])


def until_the_end(points: Points) -> Points:
    """*points* without those that show a process whose memory is being taken away already."""
    if not points:
        return points
    peak = max(point.bytes for point in points)
    last_high = max(at for at, point in enumerate(points) if point.bytes >= 0.9 * peak)
    if points[-1].seconds - points[last_high].seconds <= DYING_SECONDS:
        return points[: last_high + 1]
    return points


def first_at_top(points: Points) -> int | None:
    """From where on it was near its peak until the end; None if it was not, in the end."""
    if len(points) < 3:
        return None
    bound = TOP_RATIO * max(point.bytes for point in points)
    top = len(points)
    while top > 0 and points[top - 1].bytes >= bound:
        top -= 1
    return top if top < len(points) else None


def duration(rise: Points) -> float:
    """How long *rise* took; its first sample may be of long before it began."""
    seconds = rise[-1].seconds - rise[0].seconds
    if len(rise) < 4 or rise[-1].bytes <= rise[1].bytes:
        return seconds
    bytes_per_second = (rise[-1].bytes - rise[1].bytes) / (rise[-1].seconds - rise[1].seconds)
    return min(seconds, (rise[-1].bytes - rise[0].bytes) / bytes_per_second)


def foot_of(points: Points, top: int) -> int | None:
    """Where the rise to *top* began: before it, for half as long as it took, it was level.

    None: it rose for as long as we know it, or for longer than any jump.
    """
    for start in range(top - 1, -1, -1):
        seconds = points[top].seconds - points[start].seconds
        if seconds > JUMP_MAX_SECONDS + STANDS_MAX_SECONDS:
            return None
        rise = points[top].bytes - points[start].bytes
        took = duration(points[start : top + 1])
        level = level_until(points, start, max(0.5, 0.5 * took), STANDS_RATIO * rise)
        if rise > 0 and level is not None:
            return level
    return None


def level_until(points: Points, at: int, for_seconds: float, within_bytes: float) -> int | None:
    """The lowest of the points up to *at*, if for so long they differ by no more than that."""
    lowest = at
    for earlier in range(at - 1, -1, -1):
        if abs(points[earlier].bytes - points[at].bytes) > within_bytes:
            return None
        if points[earlier].bytes <= points[lowest].bytes:
            lowest = earlier
        if points[at].seconds - points[earlier].seconds >= for_seconds:
            return lowest
    return None
