"""Who could have been killed, in the kernel's order, and what would have changed it."""

from collections.abc import Callable, Sequence

from oomwatchd.incident import Case, Contender, Machine, Victim
from oomwatchd.model import OOM_SCORE_ADJ_MIN
from oomwatchd.policy import badness
from oomwatchd.policy.badness import Candidate

RuleOf = Callable[[int, str], str | None]  # by pid and name, as far as it was followed


def total_pages(case: Case, machine: Machine) -> int:
    """What one unit of oom_score_adj is a thousandth of: the limit, or all there is.

    Either with the swap that may be used beside it; that a swappiness of 0 would leave a cgroup
    without any, its report does not tell.

    Source:  mm/oom_kill.c, constrained_alloc(); mm/memcontrol.c, mem_cgroup_get_max(), the same
             arithmetic with cgroup v1 and v2 since Linux 4.5.
    """
    swap_bytes = machine.swap_bytes
    if case.swap_limit_bytes is not None:
        swap_bytes = min(case.swap_limit_bytes, swap_bytes)
    total_bytes = (case.limit_bytes or machine.ram_bytes) + swap_bytes
    return max(total_bytes // machine.page_bytes, 1)


def contenders(case: Case, machine: Machine, rule_of: RuleOf) -> tuple[Contender, ...]:
    """Those of the kernel's table in the order of death; at the end those it never picks."""
    total = total_pages(case, machine)
    rows = [
        Candidate(
            task.pid,
            task.name,
            task.oom_score_adj,
            task.memory_bytes // machine.page_bytes,
            badness.points(
                task.memory_bytes // machine.page_bytes, 0, 0, task.oom_score_adj, total
            ),
        )
        for task in case.tasks
    ]
    exempt = [row for row in rows if row.points is None]
    return tuple(
        Contender(
            row.pid,
            row.comm,
            row.oom_score_adj,
            row.memory_pages * machine.page_bytes,
            row.points,
            rule_of(row.pid, row.comm),
        )
        for row in [*badness.order(rows), *sorted(exempt, key=lambda row: -row.memory_pages)]
    )


def next_in_line(candidates: Sequence[Contender], victims: Sequence[Victim]) -> Contender | None:
    """Who would have been killed in place of *victims*."""
    dead = {victim.pid for victim in victims}
    return next(
        (one for one in candidates if one.pid not in dead and one.points_pages is not None), None
    )


def sparing_adj(
    candidates: Sequence[Contender],
    victim: Victim,
    instead: Contender,
    case: Case,
    machine: Machine,
) -> int | None:
    """The highest oom_score_adj at which the victim has fewer points than *instead*.

    None, if none that leaves it killable at all would have done, or if it was not in the table.
    """
    row = next((one for one in candidates if one.pid == victim.pid), None)
    if row is None or row.points_pages is None or instead.points_pages is None:
        return None
    step = max(badness.step_pages(total_pages(case, machine)), 1)
    over = row.points_pages - instead.points_pages
    needed = row.oom_score_adj - over // step - 1
    return needed if OOM_SCORE_ADJ_MIN < needed < row.oom_score_adj else None
