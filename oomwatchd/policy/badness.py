"""The kernel's arithmetic: whom it would kill, were memory to run out on the whole machine.

Sizes are in pages, as in the kernel.  *total_pages* is RAM and swap together: one unit of
oom_score_adj is worth a thousandth of both.  Where a cgroup's limit is reached, the same arithmetic
holds among the processes of that cgroup, with the limit in place of *total_pages*.

Source:  mm/oom_kill.c, oom_badness() and oom_evaluate_task(), the same from Linux 5.9 on.  Kernels
         before that counted all points below zero as one.
"""

from collections.abc import Iterable
from typing import NamedTuple

from oomwatchd.model import OOM_SCORE_ADJ_MIN


class Candidate(NamedTuple):
    pid: int
    comm: str
    oom_score_adj: int
    memory_pages: int  # resident, swapped out and page tables
    points: int | None  # None: never picked


def step_pages(total_pages: int) -> int:
    """What one unit of oom_score_adj is worth."""
    return total_pages // 1000


def points(
    resident_pages: int,
    swap_pages: int,
    page_table_pages: int,
    oom_score_adj: int,
    total_pages: int,
) -> int | None:
    """The most points die first; they may be below zero.  None: never picked."""
    if oom_score_adj == OOM_SCORE_ADJ_MIN:
        return None
    memory_pages = resident_pages + swap_pages + page_table_pages
    return memory_pages + oom_score_adj * step_pages(total_pages)


def oom_score(points: int | None, total_pages: int) -> int:
    """What ``/proc/PID/oom_score`` shows for *points*: 0 to 2000, 666 for an idle process.

    Source:  fs/proc/base.c, proc_oom_score(), from Linux 5.9 on.
    """
    if points is None:
        return 0
    return _divided(2 * (1000 + _divided(1000 * points, total_pages)), 3)


def order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The order of death; who is never picked is left out.

    *candidates* come as the kernel meets them, first created first: of two with equal points it
    takes the one that it meets later.
    """
    killable = [
        (candidate.points, place, candidate)
        for place, candidate in enumerate(candidates)
        if candidate.points is not None
    ]
    return [candidate for _, _, candidate in sorted(killable, reverse=True)]


def _divided(dividend: int, divisor: int) -> int:
    """As C divides: towards zero, where Python's // goes down."""
    quotient = abs(dividend) // divisor
    return quotient if dividend >= 0 else -quotient
