"""Who killed: from all that was told to cases, each kill in one and only one.

The kernel's log is the strongest evidence, as nobody else can write there; then systemd-oomd's own
word; then counters, where records of the log were lost; and a SIGKILL with none of these has an
unknown sender.  Nothing is guessed.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from oomwatchd.incident import (
    CPUSET,
    MEMORY_POLICY,
    NOWHERE,
    WHOLE_MACHINE,
    Case,
    CounterRise,
    Ended,
    Evidence,
    KernelKill,
    Killer,
    OomdKill,
    UnitKilled,
    Victim,
)
from oomwatchd.policy.causes import SAME_SECONDS, oomd_key

GROUP_SECONDS: Final = 2.0
CONSTRAINED: Final = {"cpuset": CPUSET, "memory_policy": MEMORY_POLICY}


class Told(NamedTuple):
    """The evidence, by its kind, each in the order of time."""

    kernel: list[KernelKill]
    oomd: list[OomdKill]
    units: list[UnitKilled]
    ended: list[Ended]
    counters: list[CounterRise]


def cases(evidence: Iterable[Evidence], boot_id: str) -> list[Case]:
    """One case for each cause, in the order of time."""
    told = sorted_by_kind(evidence)
    found = [*kernel_cases(told, boot_id), *oomd_cases(told, boot_id)]
    unclaimed = told.ended
    for explains in (names, covers):
        left = []
        for end in unclaimed:
            at = next((at for at, case in enumerate(found) if explains(case, end, told)), None)
            if at is None:
                left.append(end)
            else:
                found[at] = with_victim(found[at], end.victim)
        unclaimed = left
    found += lost_cases(told, unclaimed, boot_id)
    return sorted(found, key=lambda case: case.boot_seconds)


def sorted_by_kind(evidence: Iterable[Evidence]) -> Told:
    every = sorted(dict.fromkeys(evidence), key=lambda one: one.boot_seconds)
    return Told(
        sorted([one for one in every if isinstance(one, KernelKill)], key=in_the_log),
        [one for one in every if isinstance(one, OomdKill)],
        [one for one in every if isinstance(one, UnitKilled)],
        each_once([one for one in every if isinstance(one, Ended)]),
        [one for one in every if isinstance(one, CounterRise)],
    )


def each_once(ends: Sequence[Ended]) -> list[Ended]:
    """A process ends once, whoever tells of it; who knows how, counts more."""
    known: dict[tuple[int | None, int | None], Ended] = {}
    for end in ends:
        id = (end.victim.pid, end.victim.start_ticks)
        if id not in known or known[id].by_sigkill is None:
            known[id] = end
    return list(known.values())


def in_the_log(killed: KernelKill) -> int:
    return killed.sequence


# -- the kernel ------------------------------------------------------------------------------------


def kernel_cases(told: Told, boot_id: str) -> list[Case]:
    groups: list[list[KernelKill]] = []
    for killed in told.kernel:
        if groups and is_same_group(groups[-1][0], killed):
            groups[-1].append(killed)
        elif all(killed.sequence != group[0].sequence for group in groups):
            groups.append([killed])
    return [kernel_case(group, told, boot_id) for group in groups]


def is_same_group(first: KernelKill, killed: KernelKill) -> bool:
    """Whether both died by the same decision, for memory.oom.group."""
    return (
        killed.group_cgroup is not None
        and killed.group_cgroup == first.group_cgroup
        and killed.boot_seconds - first.boot_seconds <= GROUP_SECONDS
    )


def kernel_case(group: Sequence[KernelKill], told: Told, boot_id: str) -> Case:
    first = group[0]
    victims: dict[int, Victim] = {}
    for killed in group:  # the one that was chosen is told twice, as one of its group as well
        victims.setdefault(killed.pid, victim_of(killed))
    sources = ["kernel_log"]
    if any(is_near(first, one) for one in told.counters):
        sources.append("counters")
    if any(not one.by_oomd and is_near(first, one) for one in told.units):
        sources.append("systemd")
    return Case(
        key=f"kernel:{boot_id}:{first.sequence}",
        boot_seconds=first.boot_seconds,
        killer=kernel_killer(first),
        scope=kernel_scope(first),
        victims=tuple(victims.values()),
        limit_bytes=first.limit_bytes,
        swap_limit_bytes=first.swap_limit_bytes,
        usage_bytes=first.usage_bytes,
        file_cache_bytes=first.file_cache_bytes,
        shmem_bytes=first.shmem_bytes,
        asked_by=first.asked_by,
        allocating_task=first.allocating_task,
        by_sysrq=first.by_sysrq,
        tasks=first.tasks,
        sources=tuple(sources),
        raw=tuple(dict.fromkeys(line for killed in group for line in killed.raw)),
    )


def kernel_killer(killed: KernelKill) -> Killer:
    if killed.group_cgroup is not None:
        return "oom_group"
    return "cgroup" if killed.of_cgroup else "kernel"


def kernel_scope(killed: KernelKill) -> str:
    if killed.of_cgroup:
        return killed.limit_cgroup or killed.victim_cgroup or NOWHERE
    return CONSTRAINED.get(killed.constraint or "", WHOLE_MACHINE)


def victim_of(killed: KernelKill) -> Victim:
    return Victim(
        pid=killed.pid,
        name=killed.name,
        user=None if killed.uid is None else str(killed.uid),
        cgroup=killed.victim_cgroup,
        oom_score_adj=killed.oom_score_adj,
        memory_bytes=killed.memory_bytes,
    )


# -- systemd-oomd ----------------------------------------------------------------------------------


def oomd_cases(told: Told, boot_id: str) -> list[Case]:
    """A case for each cgroup that it says it has killed; its signal and its log are one voice."""
    kills: list[OomdKill] = []
    for killed in told.oomd:
        if not any(killed.cgroup == one.cgroup and is_near(killed, one) for one in kills):
            kills.append(killed)
    for unit in told.units:
        if unit.by_oomd and not any(is_unit_of(unit, killed) for killed in kills):
            kills.append(OomdKill(unit.boot_seconds, cgroup_of(unit, told), "", unit.raw))
    return [oomd_case(killed, told, boot_id) for killed in kills]


def oomd_case(killed: OomdKill, told: Told, boot_id: str) -> Case:
    again = [one for one in told.oomd if one.cgroup == killed.cgroup and is_near(one, killed)]
    units = [one for one in told.units if one.by_oomd and is_unit_of(one, killed)]
    raw = [*killed.raw]
    raw += [line for one in again for line in one.raw]
    raw += [line for one in units for line in one.raw]
    reasons = [one.reason for one in again if one.reason]
    return Case(
        key=oomd_key(boot_id, killed.cgroup, killed.boot_seconds),
        boot_seconds=killed.boot_seconds,
        killer="systemd_oomd",
        scope=killed.cgroup,
        victims=(),
        reason=max(reasons, key=len, default=None),  # the log's tells more than the signal's
        sources=("systemd_oomd", "systemd") if units else ("systemd_oomd",),
        raw=tuple(dict.fromkeys(raw)),
    )


def is_unit_of(unit: UnitKilled, killed: OomdKill) -> bool:
    return is_near(unit, killed) and unit.unit in killed.cgroup.split("/")


def cgroup_of(unit: UnitKilled, told: Told) -> str:
    """Where the unit's processes were, as far as one that has ended tells; else the unit itself."""
    paths = (end.victim.cgroup or "" for end in told.ended if is_near(end, unit))
    path = next((path for path in paths if unit.unit in path.split("/")), "")
    return path[: path.index(unit.unit) + len(unit.unit)] if path else unit.unit


# -- who has ended ---------------------------------------------------------------------------------


def names(case: Case, end: Ended, _told: Told) -> bool:
    """Whether the killer has named the process that has ended."""
    return is_near(case, end) and any(one.pid == end.victim.pid for one in case.victims)


def covers(case: Case, end: Ended, told: Told) -> bool:
    """Whether it is one of the case's victims without having been named."""
    if not is_near(case, end) or end.by_sigkill is False:
        return False
    if case.killer == "systemd_oomd":
        cgroup = end.victim.cgroup or ""
        return lies_in(cgroup, case.scope) or case.scope in cgroup.split("/")
    at_once = apart_seconds(case, end) <= GROUP_SECONDS
    told_of_thread = any(is_thread_of(one, end.victim, case) for one in case.victims)
    if told_of_thread and (end.by_sigkill or at_once):
        return True
    return stopped_with_its_unit(case, end, told)


def is_thread_of(named: Victim, ended: Victim, case: Case) -> bool:
    """Whether the kernel has named a thread of the process: its first one had exited before.

    Whom its table has is a process: there, `kernel_kills` has put these in the place of threads.
    """
    unseen = named.start_ticks is None and named.cgroup is not None
    if not unseen or any(task.pid == named.pid for task in case.tasks):
        return False
    return named.cgroup == ended.cgroup and ended.name.startswith(named.name)


def stopped_with_its_unit(case: Case, end: Ended, told: Told) -> bool:
    """Whether systemd has ended it since another of its unit was killed (OOMPolicy=stop, kill)."""
    said = any(
        one.unit == end.victim.unit and not one.by_oomd and is_near(one, end) for one in told.units
    )
    return said and end.by_sigkill is True and shares_unit(case, end.victim)


def shares_unit(case: Case, victim: Victim) -> bool:
    """Whether *victim* is of a unit that one of the case's is of."""
    unit = victim.unit
    return unit is not None and any(
        one.unit == unit or unit in (one.cgroup or "").split("/") for one in case.victims
    )


def with_victim(case: Case, victim: Victim) -> Case:
    """*case* with what is known of *victim*; what its killer says of it counts more."""
    victims = list(case.victims)
    at = place_of(victim, case)
    if at is None:
        return case._replace(victims=(*victims, victim))
    victims[at] = merged(victims[at], victim)
    return case._replace(victims=tuple(victims))


def place_of(victim: Victim, case: Case) -> int | None:
    """Which of the case's victims it is: the one of its pid, or else a thread of it."""
    by_pid = (at for at, one in enumerate(case.victims) if one.pid == victim.pid)
    by_thread = (at for at, one in enumerate(case.victims) if is_thread_of(one, victim, case))
    return next(by_pid, next(by_thread, None))


def merged(told: Victim, seen: Victim) -> Victim:
    """What the killer *told*, and where it did not, what was *seen* before.

    Of the two sizes the larger: the kernel's is without what is swapped out, if it came alone.
    """
    known = {name: value for name, value in told._asdict().items() if value is not None}
    name = seen.name if seen.name.startswith(told.name) else told.name  # the kernel's is cut
    sizes = [one.memory_bytes for one in (told, seen) if one.memory_bytes is not None]
    known |= {"pid": seen.pid, "name": name, "memory_bytes": max(sizes, default=None)}
    return seen._replace(**known)


# -- what the log has lost -------------------------------------------------------------------------


def lost_cases(told: Told, unclaimed: Sequence[Ended], boot_id: str) -> list[Case]:
    """Cases for those whom no killer names: by the counters, or else of an unknown sender."""
    spare = spare_kills(told)
    made = []
    for end in unclaimed:
        risen = [one for one in told.counters if counts(one, end) and spare[one] > 0]
        for one in {one.cgroup: one for one in risen}.values():
            spare[one] -= 1
        if risen or end.by_sigkill:
            made.append(lost_case(end, risen, boot_id))
    return made


def spare_kills(told: Told) -> dict[CounterRise, int]:
    """How many kills each rise has counted that the kernel's log has not told us of.

    A process that dies as one of a group may be counted twice; then it is told twice as well.
    """
    spare = {one: one.kills for one in told.counters}
    for killed in {one.sequence: one for one in told.kernel}.values():
        for cgroup in {one.cgroup for one in told.counters}:
            of_it = cgroup is None or lies_in(killed.victim_cgroup, cgroup)
            rises = [one for one in told.counters if one.cgroup == cgroup and is_near(one, killed)]
            rises = [one for one in rises if of_it and spare[one] > 0]
            if rises:
                spare[min(rises, key=lambda one: apart_seconds(one, killed))] -= 1
    return spare


def counts(counter: CounterRise, end: Ended) -> bool:
    if not is_near(counter, end) or end.by_sigkill is False:
        return False
    return counter.cgroup is None or lies_in(end.victim.cgroup, counter.cgroup)


def lost_case(end: Ended, risen: Sequence[CounterRise], boot_id: str) -> Case:
    bounded = next((one.cgroup for one in risen if one.own_limit and one.cgroup), None)
    killer: Killer = "unknown"
    scope = NOWHERE
    if risen:
        killer, scope = ("cgroup", bounded) if bounded else ("kernel", WHOLE_MACHINE)
    return Case(
        key=f"ended:{boot_id}:{end.victim.pid}:{end.victim.start_ticks}",
        boot_seconds=end.boot_seconds,
        killer=killer,
        scope=scope,
        victims=(end.victim,),
        sources=("counters",) if risen else (),
    )


# -- measures --------------------------------------------------------------------------------------


def is_near(one: Evidence | Case, other: Evidence | Case) -> bool:
    return apart_seconds(one, other) <= SAME_SECONDS


def apart_seconds(one: Evidence | Case, other: Evidence | Case) -> float:
    return abs(one.boot_seconds - other.boot_seconds)


def lies_in(path: str | None, cgroup: str) -> bool:
    """Whether *path* is *cgroup*, or below it."""
    return path is not None and f"{path.rstrip('/')}/".startswith(f"{cgroup.rstrip('/')}/")
