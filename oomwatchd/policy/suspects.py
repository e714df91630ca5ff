"""Who took the memory, if it was not the victim: files, many alike, or another process."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from oomwatchd.incident import Case, Diagnosis, Task, Trace
from oomwatchd.model import OOM_SCORE_ADJ_MIN
from oomwatchd.policy.facts import RECENT_SECONDS, Facts, known, last_known, rate_of, shape_of
from oomwatchd.policy.growth import growth, trend
from oomwatchd.policy.words import percent, size, span

ALIKE_LEAST: Final = 4  # processes
ALIKE_SHARE: Final = 0.5  # of what there is: so much they have together, at least
LARGEST_SHARE: Final = 0.5  # of that: so much the largest of them has at most
OTHER_FACTOR: Final = 3  # so many times as much did another take
OTHER_LEAST_SHARE: Final = 0.05  # of what there is
OTHER_HOLDS_SHARE: Final = 0.5  # of what there is: so much one has who is in the way of all others
CACHE_SHARE: Final = 0.5  # of the cgroup's usage, or of the machine's memory
COMM: Final = 15  # characters of a name that the kernel tells
# Workers are often named by their work or their number: ray::train, worker-3, celery:7.
OWN_PART: Final = re.compile(r"::.*|[-_:/# ]\d+$", re.DOTALL)


def family(name: str) -> str:
    return OWN_PART.sub("", name[:COMM]) or name[:COMM]


def page_cache(facts: Facts) -> Diagnosis | None:
    """Of the cgroup's memory most was no process's: files read or written, or in a tmpfs."""
    case = facts.case
    used = case.usage_bytes or last_known(one.cgroup_bytes for one in facts.past.samples)
    cache = case.file_cache_bytes
    if not facts.in_cgroup or not used or cache is None or cache < CACHE_SHARE * used:
        return None
    text = f"Of the {size(used)} charged to {case.scope}, "
    if case.shmem_bytes is None:
        text += f"{size(cache)} were pages of files and of shared memory (a tmpfs such as /dev/shm"
        text += " counts too)"
    elif lies_in_tmpfs(case):
        text += f"{size(case.shmem_bytes)} were files in a tmpfs such as /dev/shm, or memory that"
        text += " processes share: the kernel cannot drop these to make room"
    else:
        text += f"{size(cache - case.shmem_bytes)} were pages of files on disks, read or written,"
        text += " that could not be given back fast enough"
    text += f". {facts.who}, which was killed, had {size(facts.peak_bytes)}."
    return Diagnosis("page_cache", text)


def lies_in_tmpfs(case: Case) -> bool | None:
    """Whether most of the files that counted against a limit did; None: not known."""
    if case.shmem_bytes is None or case.file_cache_bytes is None:
        return None
    return case.shmem_bytes >= CACHE_SHARE * case.file_cache_bytes


def shared_memory(facts: Facts) -> Diagnosis | None:
    """Of the machine's memory most lay in a tmpfs, or was shared."""
    shared = facts.case.shmem_bytes
    if facts.in_cgroup or shared is None or shared < CACHE_SHARE * facts.machine.ram_bytes:
        return None
    text = (
        f"Of the machine's {size(facts.machine.ram_bytes)}, {size(shared)} were in a tmpfs such as"
        " /dev/shm, /run or /tmp, or memory that processes share; a tmpfs keeps its files whoever"
        f" is killed. {facts.who}, which was killed, had {size(facts.peak_bytes)}."
    )
    return Diagnosis("page_cache", text)


def many_processes(facts: Facts) -> Diagnosis | None:
    """Processes of one name, or one kind, that together have most of it, none of them much."""
    kind = family(facts.victim.name)
    sizes = [one.memory_bytes for one in facts.case.tasks if family(one.name) == kind]
    if not facts.case.tasks:
        alike = [one for one in facts.beside() if family(one.name) == kind]
        peaks = (max(known(one.bytes), default=0) for one in alike)
        sizes = [facts.peak_bytes, *peaks]
    total = sum(sizes)
    if len(sizes) < ALIKE_LEAST or total < ALIKE_SHARE * facts.room_bytes:
        return None
    if max(sizes) > LARGEST_SHARE * total:
        return None
    mean = total / len(sizes)
    named = f"named {kind}" if kind == facts.victim.name[:COMM] else f"such as {facts.victim.name}"
    fit = int(facts.room_bytes / mean)
    text = (
        f"{len(sizes)} processes {named} had {size(total)} together, {size(mean)} each on average,"
        f" {size(max(sizes))} the largest; {facts.room} holds {fit} of that size and nothing else."
    )
    return Diagnosis("many_processes", text, rate_of(facts))


def other_process(facts: Facts) -> Diagnosis | None:
    """Another one took far more than the victim did, in the last minute or for longer."""
    return taker(facts, RECENT_SECONDS) or slow_taker(facts)


def taker(facts: Facts, within_seconds: float) -> Diagnosis | None:
    grown = [(growth(facts.points_of(one), within_seconds), one) for one in facts.beside()]
    most, other = max(grown, key=lambda pair: pair[0], default=(0, None))
    own = growth(facts.points, within_seconds)
    if other is None or most < max(OTHER_FACTOR * own, OTHER_LEAST_SHARE * facts.room_bytes):
        return None
    return took(facts, other, most, own, "in the last minute")


def slow_taker(facts: Facts) -> Diagnosis | None:
    """One that grew steadily; over a long time what comes and goes would look like growth."""
    found = [(trend(facts.points_of(one)), one) for one in facts.beside()]
    slow = [(shape.to_bytes - shape.from_bytes, shape, one) for shape, one in found if shape]
    most, shape, other = max(slow, key=lambda row: row[0], default=(0, None, None))
    if shape is None or other is None:
        return None
    own = growth(facts.points, shape.seconds)
    if most < max(OTHER_FACTOR * own, OTHER_LEAST_SHARE * facts.room_bytes):
        return None
    return took(facts, other, most, own, f"in {span(shape.seconds)}, steadily")


def took(facts: Facts, other: Trace, most: int, own: int, when: str) -> Diagnosis:
    points = facts.points_of(other)
    had = max(point.bytes for point in points)
    shape = shape_of(points)
    text = (
        f"{other.name} (pid {other.pid}) took {size(most)} more {when} and had"
        f" {size(had)}; {facts.who} took {size(own)} and had {size(facts.peak_bytes)}, but was"
        f" {chosen(facts)}.{''.join(spared(facts, task_of(other.pid, facts.case.tasks)))}"
    )
    return Diagnosis("other_process", text, shape and round(shape.bytes_per_second))


def overshadowed(facts: Facts) -> Diagnosis | None:
    """By the kernel's table: one that was spared has most of it, and the victim has little."""
    largest = largest_spared(facts.case)
    if largest is None or largest.memory_bytes < OTHER_HOLDS_SHARE * facts.room_bytes:
        return None
    own = max([facts.peak_bytes, *(one.memory_bytes or 0 for one in facts.case.victims)])
    if largest.memory_bytes < OTHER_FACTOR * own:
        return None
    text = (
        f"{largest.name} (pid {largest.pid}) had {size(largest.memory_bytes)},"
        f" {percent(largest.memory_bytes, facts.room_bytes)} of {facts.room}; {facts.who} had only"
        f" {size(facts.peak_bytes)}, but was {chosen(facts)}.{''.join(spared(facts, largest))}"
    )
    return Diagnosis("other_process", text)


def largest_spared(case: Case) -> Task | None:
    dead = {victim.pid for victim in case.victims}
    spared = [task for task in case.tasks if task.pid not in dead]
    return max(spared, key=lambda task: task.memory_bytes, default=None)


def task_of(pid: int, tasks: Sequence[Task]) -> Task | None:
    return next((task for task in tasks if task.pid == pid), None)


def spared(facts: Facts, task: Task | None) -> Iterator[str]:
    """Why the larger one was not killed in its place."""
    if task is None or facts.case.allocating_task:
        return
    if task.oom_score_adj >= (facts.victim.oom_score_adj or 0):
        return
    if task.oom_score_adj == OOM_SCORE_ADJ_MIN:
        yield f" {task.name} has an oom_score_adj of -1000: the kernel never kills it, so it takes"
        yield " others in its place."
    else:
        yield f" {task.name} has an oom_score_adj of {task.oom_score_adj}, which put it behind."


def chosen(facts: Facts) -> str:
    if facts.case.killer == "systemd_oomd":
        return "in the cgroup that systemd-oomd chose"
    if facts.case.killer == "unknown":
        return "the one that was killed"
    if facts.case.allocating_task:
        return "killed as it asked for memory (vm.oom_kill_allocating_task=1)"
    return f"the one with the most points (oom_score_adj {facts.victim.oom_score_adj or 0})"
