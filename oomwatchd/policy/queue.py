"""The order of death among some processes, and how much goes before one of them."""

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final, NamedTuple

from oomwatchd.auditing import Cgroup, Holder, Machine, Surroundings, Verdict
from oomwatchd.model import ALMOST_UNKILLABLE, Rule
from oomwatchd.policy import badness
from oomwatchd.text import size

LITTLE_RATIO: Final = 0.01  # of a limit: less than that goes first is as good as nothing
MUCH_RATIO: Final = 0.1  # of all: that much goes first, although others would go only afterwards

PointsOf = Callable[[Holder], int | None]  # the most die first; None: never


class Place(NamedTuple):
    """Where one process stands."""

    points: int | None  # None: it is never picked
    ahead: int  # how many go first
    ahead_pages: int  # what their deaths free
    others: int  # how many besides it can be picked


class Queue:
    def __init__(self, holders: Iterable[Holder], points_of: PointsOf) -> None:
        """*holders*: the first created first, as of equals the kernel takes the later."""
        pairs = [(points_of(holder), place, holder) for place, holder in enumerate(holders)]
        killable = [
            (points, place, holder) for points, place, holder in pairs if points is not None
        ]
        killable.sort(reverse=True)
        self._points = {holder.pid: points for points, _, holder in pairs}
        self._rank = {holder.pid: rank for rank, (_, _, holder) in enumerate(killable)}
        freed = (holder.freed_pages for _, _, holder in killable)
        self._freed_before = list(accumulate(freed, initial=0))

    def place(self, pid: int) -> Place:
        points = self._points[pid]
        if points is None:
            return Place(None, len(self._rank), self._freed_before[-1], len(self._rank))
        rank = self._rank[pid]
        return Place(points, rank, self._freed_before[rank], len(self._rank) - 1)


def by_kernel(total_pages: int) -> PointsOf:
    def points_of(holder: Holder) -> int | None:
        return badness.points(holder.counted_pages, 0, 0, holder.oom_score_adj, total_pages)

    return points_of


class Queues:
    """The queues of one audit, each made when it is first asked for."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._holders = surroundings.holders
        self._made: dict[tuple[str, int], Queue] = {}

    def inside(self, cgroup: Cgroup, total_pages: int) -> Queue:
        key = (cgroup.path, total_pages)
        if key not in self._made:
            inside = (holder for holder in self._holders if cgroup.holds(holder.cgroup))
            self._made[key] = Queue(inside, by_kernel(total_pages))
        return self._made[key]

    def of_all(self, name: str, points_of: PointsOf) -> Queue:
        """That of the whole machine, as the killer *name* orders it."""
        if (name, -1) not in self._made:
            self._made[name, -1] = Queue(self._holders, points_of)
        return self._made[name, -1]


def first_words(place: Place, machine: Machine) -> str:
    """``3 processes go first, which frees 1.2 GiB``."""
    freed = size(place.ahead_pages * machine.page_bytes)
    if place.ahead == 1:
        return f"1 process goes first, which frees {freed}"
    return f"{place.ahead} processes go first, which frees {freed}"


def last_in_line(place: Place, machine: Machine, reason: str) -> Verdict:
    freed_bytes = place.ahead_pages * machine.page_bytes
    return Verdict("last_in_line", reason, first_bytes=freed_bytes)


def lower_value(holder: Holder, rule: Rule, wanted: int, total_pages: int) -> str:
    """What value would put it behind all that have none; empty if no value would."""
    if holder.oom_score_adj > wanted:
        return (
            f"let the daemon set what rule {rule.name} wants ({wanted}):"
            " see `oomwatchd status` and its log"
        )
    step = badness.step_pages(total_pages)
    enough = -(-holder.counted_pages // step) if step else 1000
    if -enough < ALMOST_UNKILLABLE or holder.oom_score_adj <= -enough:
        return ""
    key = "oom_score_adj" if wanted == rule.oom_score_adj else "workers"
    return f"{key}: -{enough} or lower in rule {rule.name}"
