"""From a case to an incident: what the history and the order of death have to say of it."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from oomwatchd.history import History
from oomwatchd.incident import Case, Incident, Machine, Past, Victim
from oomwatchd.incidents import identifier
from oomwatchd.model import ProcessId
from oomwatchd.policy.advice import advice
from oomwatchd.policy.attribution import lies_in, merged
from oomwatchd.policy.causes import SAME_SECONDS
from oomwatchd.policy.contenders import contenders
from oomwatchd.policy.diagnosis import diagnose
from oomwatchd.policy.facts import Facts
from oomwatchd.policy.sampling import REST_SECONDS

UserName = Callable[[str], str]  # of a uid in digits
# Before a kill: everybody followed is in a sample within them, for as long as it lives.
SEEN_SECONDS: Final = REST_SECONDS + SAME_SECONDS
LATE_SECONDS: Final = 0.1  # after that, samples show what the kill has freed


class Clocks(NamedTuple):
    """The same instant on three clocks."""

    unix_seconds: float
    boot_seconds: float
    monotonic_seconds: float


def incident(
    case: Case,
    history: History,
    machine: Machine,
    clocks: Clocks,
    user_name: UserName,
    *,
    while_down: bool = False,
) -> Incident:
    """Explain *case*; *while_down*: it happened before this daemon's start."""
    seen = {} if while_down else seen_before(case, history, clocks)
    case = named(with_portraits(case, seen), user_name)
    victim = chief(case.victims)
    past = Past() if while_down else past_of(victim, case, history, clocks)
    facts = Facts(case, victim, past, machine)
    rules = {one.pid: one.rule for one in (*seen.values(), *case.victims)}
    candidates = contenders(case, machine, lambda pid, _name: rules.get(pid))
    diagnosis = diagnose(facts)
    unix_seconds = clocks.unix_seconds - clocks.boot_seconds + case.boot_seconds
    return Incident(
        id=identifier(unix_seconds, victim.pid),
        time_unix_seconds=round(unix_seconds, 3),
        case=case,
        victim=victim,
        candidates=candidates,
        past=past,
        diagnosis=diagnosis,
        advice=advice(facts, diagnosis, candidates),
        while_down=while_down,
    )


def seen_before(case: Case, history: History, clocks: Clocks) -> Mapping[int, Victim]:
    """By pid, who may have been there when it happened: a pid goes to another some day."""
    killed_seconds = clocks.monotonic_seconds - clocks.boot_seconds + case.boot_seconds
    return history.seen(
        killed_seconds,
        within_seconds=SEEN_SECONDS,
        buried_since=killed_seconds - SAME_SECONDS,
    )


def with_portraits(case: Case, seen: Mapping[int, Victim]) -> Case:
    """*case* with all that was seen of its victims; of a cgroup's, as far as they were followed."""
    if case.victims:
        return case._replace(victims=tuple(with_portrait(one, seen) for one in case.victims))
    inside = [one for one in seen.values() if lies_in(one.cgroup, case.scope)]
    inside.sort(key=lambda one: -(one.memory_bytes or 0))
    nobody = Victim(pid=None, name=case.scope.rpartition("/")[2], cgroup=case.scope)
    return case._replace(victims=tuple(inside) or (nobody,))


def with_portrait(victim: Victim, seen: Mapping[int, Victim]) -> Victim:
    known = seen.get(victim.pid) if victim.pid is not None else None
    return victim if known is None or not is_same(victim, known) else merged(victim, known)


def is_same(told: Victim, seen_before: Victim) -> bool:
    """Whether the pid that was told was still that process's; its name may have been changed."""
    if told.start_ticks is not None:
        return told.start_ticks == seen_before.start_ticks
    if None in (told.cgroup, seen_before.cgroup):
        return seen_before.name.startswith(told.name)
    return told.cgroup == seen_before.cgroup or seen_before.name.startswith(told.name)


def chief(victims: tuple[Victim, ...]) -> Victim:
    """The one the incident is told of.

    That is the chosen one, if it is under a rule or nobody is, else the largest of those that are.
    """
    ruled = [one for one in victims if one.rule is not None]
    if not ruled or victims[0] in ruled:
        return victims[0]
    return max(ruled, key=lambda one: one.memory_bytes or 0)


def past_of(victim: Victim, case: Case, history: History, clocks: Clocks) -> Past:
    """The samples up to the kill."""
    portrait = None
    if victim.pid is not None and victim.start_ticks is not None:
        portrait = history.portrait(ProcessId(victim.pid, victim.start_ticks))
    bounding = portrait.bounding if portrait is not None else None
    past = history.past(
        portrait.id if portrait is not None else None,
        case.scope if case.scope.startswith("/") and history.has_cgroup(case.scope) else bounding,
        unix_offset=clocks.unix_seconds - clocks.monotonic_seconds,
    )
    ended = clocks.unix_seconds - clocks.boot_seconds + case.boot_seconds
    count = sum(one.time_unix_seconds <= ended + LATE_SECONDS for one in past.samples)
    others = tuple(one._replace(bytes=one.bytes[:count]) for one in past.others)
    return Past(past.samples[:count], others)


def named(case: Case, user_name: UserName) -> Case:
    """*case* with names of users in place of numbers."""
    return case._replace(
        victims=tuple(
            one._replace(user=user_name(one.user)) if one.user is not None else one
            for one in case.victims
        )
    )
