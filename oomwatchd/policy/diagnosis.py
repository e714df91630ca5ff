"""Why memory ran out: what the samples before a kill and the case itself say of it.

Told are only numbers that were measured.  Who was killed need not be who took the memory; so first
it is asked who did: the page cache, many alike, another process, and only then the victim.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from oomwatchd.incident import Case, Diagnosis, Machine, Past, Trace, Victim
from oomwatchd.policy.attribution import lies_in
from oomwatchd.policy.growth import (
    Jump,
    Point,
    Trend,
    foot_of,
    growth,
    jump,
    trend,
    until_the_end,
)
from oomwatchd.policy.words import percent, rate, size, span

RECENT_SECONDS: Final = 60.0
ALIKE_LEAST: Final = 4  # processes
ALIKE_SHARE: Final = 0.5  # of what there is: so much they have together, at least
LARGEST_SHARE: Final = 0.5  # of that: so much the largest of them has at most
OTHER_FACTOR: Final = 3  # so many times as much did another take
OTHER_LEAST_SHARE: Final = 0.05  # of what there is
CACHE_SHARE: Final = 0.5  # of the cgroup's usage
SWAP_LEFT_SHARE: Final = 0.05
BARELY_FITS: Final = 0.6  # of what there is: no room for the same once more
NEAR_TOP: Final = 0.9  # of the peak: it had been there before
MOST_OTHERS: Final = 3  # named in a sentence


class Facts(NamedTuple):
    """All that a diagnosis is made from."""

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
        pid = self.victim.pid
        return self.victim.name if pid is None else f"{self.victim.name} (pid {pid})"

    def beside(self) -> list[Trace]:
        """The others that drew on the same memory."""
        if not self.in_cgroup:
            return list(self.past.others)
        return [one for one in self.past.others if lies_in(one.cgroup, self.case.scope)]

    def points_of(self, other: Trace) -> list[Point]:
        return [
            Point(sample.time_unix_seconds, size_bytes)
            for sample, size_bytes in zip(self.past.samples, other.bytes, strict=True)
            if size_bytes is not None
        ]


def diagnose(facts: Facts) -> Diagnosis:
    found = (judge(facts) for judge in JUDGES)
    return next((one for one in found if one is not None), unknown(facts))


# -- who took the memory, if not the victim --------------------------------------------------------


def page_cache(facts: Facts) -> Diagnosis | None:
    """Of the cgroup's memory most was no process's: files read or written, or in a tmpfs."""
    used = facts.case.usage_bytes or last_known(one.cgroup_bytes for one in facts.past.samples)
    cache = facts.case.file_cache_bytes
    if not facts.in_cgroup or not used or cache is None or cache < CACHE_SHARE * used:
        return None
    return Diagnosis(
        "page_cache",
        f"Of the {size(used)} charged to {facts.case.scope}, {size(cache)} were pages of files and"
        f" of shared memory (a tmpfs such as /dev/shm counts too); the largest process,"
        f" {facts.who}, had {size(facts.peak_bytes)}.",
    )


def many_processes(facts: Facts) -> Diagnosis | None:
    """Processes of one name that together have most of it, none of them much."""
    sizes = [one.memory_bytes for one in facts.case.tasks if one.name == facts.victim.name[:15]]
    if len(sizes) < ALIKE_LEAST:
        alike = [one for one in facts.beside() if one.name == facts.victim.name]
        peaks = (max(known(one.bytes), default=0) for one in alike)
        sizes = [facts.peak_bytes, *peaks]
    total = sum(sizes)
    if len(sizes) < ALIKE_LEAST or total < ALIKE_SHARE * facts.room_bytes:
        return None
    if max(sizes) > LARGEST_SHARE * total:
        return None
    mean = total / len(sizes)
    text = (
        f"{len(sizes)} processes named {facts.victim.name} had {size(total)} together,"
        f" {size(mean)} each on average; {facts.room} holds {facts.room_bytes / mean:.1f} of them."
    )
    return Diagnosis("many_processes", text, rate_of(facts))


def other_process(facts: Facts) -> Diagnosis | None:
    """Another one took far more than the victim did in the last minute."""
    grown = [(growth(facts.points_of(one), RECENT_SECONDS), one) for one in facts.beside()]
    most, other = max(grown, key=lambda pair: pair[0], default=(0, None))
    own = growth(facts.points, RECENT_SECONDS)
    if other is None or most < max(OTHER_FACTOR * own, OTHER_LEAST_SHARE * facts.room_bytes):
        return None
    points = facts.points_of(other)
    had = max(point.bytes for point in points)
    shape = shape_of(points)
    text = (
        f"{other.name} (pid {other.pid}) took {size(most)} more in the last minute and had"
        f" {size(had)}; {facts.who} took {size(own)} and had {size(facts.peak_bytes)}, but was"
        f" {chosen(facts)}."
    )
    return Diagnosis("other_process", text, shape and round(shape.bytes_per_second))


def chosen(facts: Facts) -> str:
    if facts.case.killer == "systemd_oomd":
        return "in the cgroup that systemd-oomd chose"
    if facts.case.killer == "unknown":
        return "the one that was killed"
    return f"the one with the most points (oom_score_adj {facts.victim.oom_score_adj or 0})"


# -- how the victim grew ---------------------------------------------------------------------------


def sudden_copy(facts: Facts) -> Diagnosis | None:
    found = jump(facts.points)
    if found is None:
        return None
    factor = found.after_bytes / found.before_bytes
    grew = "doubled" if 1.9 <= factor <= 2.15 else f"grew {factor:.1f}-fold"
    text = (
        f"{facts.who} {grew} in {span(found.seconds)}: from {size(found.before_bytes)} to"
        f" {size(found.after_bytes)} ({found.points} samples). Before, it held what it had, level;"
        f" then it took {size(found.after_bytes - found.before_bytes)} more at once: that is what a"
        " copy of its data looks like."
        f" {size(found.after_bytes)} of {facts.room} were then its own."
    )
    return Diagnosis("sudden_copy", text, round(found.bytes_per_second))


def steady_leak(facts: Facts) -> Diagnosis | None:
    found = trend(facts.points)
    if found is None:
        return None
    text = (
        f"{facts.who} grew steadily by {rate(found.bytes_per_second)} for {span(found.seconds)},"
        f" from {size(found.from_bytes)} to {size(found.to_bytes)}. At that rate each further"
        f" GiB lasts {span((1 << 30) / found.bytes_per_second)}."
    )
    return Diagnosis("steady_leak", text, round(found.bytes_per_second))


def swap_exhausted(facts: Facts) -> Diagnosis | None:
    """No swap was left, and nobody grew so as to explain it."""
    total = facts.machine.swap_bytes
    left = last_known(one.swap_free_bytes for one in facts.past.samples)
    for_swap = facts.case.killer == "systemd_oomd" and "used" in (facts.case.reason or "")
    gone = left is not None and left < SWAP_LEFT_SHARE * total
    if not total or facts.in_cgroup or not (gone or for_swap):
        return None
    told = f", {size(left)} of it left" if left is not None else ""
    text = (
        f"The swap of {size(total)} was used up{told}; {facts.who} had"
        f" {size(facts.peak_bytes)}, in memory and in swap."
    )
    return Diagnosis("swap_exhausted", text, rate_of(facts))


def limit_below_peak(facts: Facts) -> Diagnosis | None:
    """It neither leaked nor jumped: it needs about as much as there is."""
    points, peak, room = facts.points, facts.peak_bytes, facts.room_bytes
    if peak < BARELY_FITS * room or not (facts.in_cgroup or points):
        return None
    text = f"{facts.who} had {size(peak)} at its most; {facts.room} does not hold more than that"
    start = start_of(points)
    times = times_at_top(points)
    if start is not None:
        text += f". It took {size(peak)} within {span(start)} of when it was first seen"
    elif times > 1:
        text += f". It came to {percent(NEAR_TOP, 1)} of that {times} times in"
        text += f" {span(points[-1].seconds - points[0].seconds)}: this is what the job needs"
    return Diagnosis("limit_below_peak", f"{text}.", rate_of(facts))


def unknown(facts: Facts) -> Diagnosis:
    had = f"{facts.who} had {size(facts.peak_bytes)}" if facts.peak_bytes else facts.who
    if facts.case.killer == "unknown":
        text = (
            f"{had} and was ended by SIGKILL; neither the kernel nor systemd-oomd says that it was"
            " them, so somebody else sent it. Lack of memory is not shown."
        )
    elif len(facts.points) < 3:
        so = "not watched before, so how it grew is not known."
        text = f"{had}. It was {so}" if facts.peak_bytes else f"{had} was {so}"
    else:
        text = f"{had}. In the time before, neither it nor another process that was watched grew"
        text += " in a way that explains it."
    return Diagnosis("unknown", text, rate_of(facts))


# -- measures --------------------------------------------------------------------------------------


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


def start_of(points: Sequence[Point]) -> float | None:
    """How long it took from when it was first seen, small, to its peak; None: it was not small."""
    points = until_the_end(points)
    if not points:
        return None
    top = max(range(len(points)), key=lambda at: points[at].bytes)
    seconds = points[top].seconds - points[0].seconds
    small = points[0].bytes < 0.2 * points[top].bytes
    return seconds if small and seconds < RECENT_SECONDS and foot_of(points, top) is None else None


def times_at_top(points: Sequence[Point]) -> int:
    """How often it came near its peak, from well below."""
    peak = max((point.bytes for point in points), default=0)
    times, up = 0, False
    for point in points:
        if not up and point.bytes >= NEAR_TOP * peak:
            times, up = times + 1, True
        elif point.bytes < BARELY_FITS * peak:
            up = False
    return times


def known(values: Sequence[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def last_known(values: Iterator[int | None]) -> int | None:
    last = None
    for value in values:
        last = value if value is not None else last
    return last


JUDGES: Final[tuple[Callable[[Facts], Diagnosis | None], ...]] = (
    page_cache,
    many_processes,
    other_process,
    sudden_copy,
    steady_leak,
    swap_exhausted,
    limit_below_peak,
)
