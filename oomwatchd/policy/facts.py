"""All that a diagnosis is made from, and what is measured of it."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from oomwatchd.incident import Case, Machine, Past, Trace, Victim
from oomwatchd.policy.attribution import lies_in
from oomwatchd.policy.growth import Jump, Point, Trend, jump, trend
from oomwatchd.policy.words import size

RECENT_SECONDS: Final = 60.0


class Facts(NamedTuple):
    case: Case
    victim: Victim
    past: Past
    machine: Machine

    @property
    def in_cgroup(self) -> bool:
        """Whether a cgroup's limit was reached, and not the end of all memory."""
        return self.case.killer in ("cgroup", "oom_group") and self.case.scope.startswith("/")

    @property
    def limit_bytes(self) -> int | None:
        if not self.in_cgroup or self.case.limit_bytes is not None:
            return self.case.limit_bytes
        return last_known(one.cgroup_limit_bytes for one in self.past.samples)

    @property
    def room_bytes(self) -> int:
        """What could be had in all: up to the limit, or the machine's memory and swap."""
        return self.limit_bytes or self.machine.ram_bytes + self.machine.swap_bytes

    @property
    def room(self) -> str:
        if self.limit_bytes is not None:
            return f"the limit of {size(self.limit_bytes)}"
        swap = f" and {size(self.machine.swap_bytes)} of swap" if self.machine.swap_bytes else ""
        return f"the machine's {size(self.machine.ram_bytes)}{swap}"

    @property
    def points(self) -> list[Point]:
        return [
            Point(one.time_unix_seconds, one.victim_bytes)
            for one in self.past.samples
            if one.victim_bytes is not None
        ]

    @property
    def peak_bytes(self) -> int:
        """The most that the victim is known to have had."""
        seen = [point.bytes for point in self.points]
        return max([*seen, self.victim.memory_bytes or 0])

    @property
    def who(self) -> str:
        if self.victim.pid is None:
            return self.victim.name
        return f"{self.victim.name} (pid {self.victim.pid})"

    def beside(self) -> list[Trace]:
        """The others that drew on the same memory when the victim was last seen.

        Who had ended by then, had given back all it had.
        """
        seen = [at for at, one in enumerate(self.past.samples) if one.victim_bytes is not None]
        last = seen[-1] if seen else -1
        there = [one for one in self.past.others if one.bytes and one.bytes[last] is not None]
        if not self.in_cgroup:
            return there
        return [one for one in there if lies_in(one.cgroup, self.case.scope)]

    def points_of(self, other: Trace) -> list[Point]:
        return [
            Point(sample.time_unix_seconds, size_bytes)
            for sample, size_bytes in zip(self.past.samples, other.bytes, strict=True)
            if size_bytes is not None
        ]


def rate_of(facts: Facts) -> float | None:
    """How fast the victim grew in the last minute it was seen; None: not known."""
    points = facts.points
    shape = shape_of(points)
    if shape is not None:
        return round(shape.bytes_per_second)
    if len(points) < 3:
        return None
    points = [one for one in points if one.seconds >= points[-1].seconds - RECENT_SECONDS]
    seconds = points[-1].seconds - points[0].seconds
    return round((points[-1].bytes - points[0].bytes) / seconds) if seconds > 0 else None


def shape_of(points: Sequence[Point]) -> Jump | Trend | None:
    return jump(points) or trend(points)


def known(values: Sequence[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def last_known(values: Iterator[int | None]) -> int | None:
    last = None
    for value in values:
        last = value if value is not None else last
    return last
