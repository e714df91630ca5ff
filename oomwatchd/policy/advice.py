"""What to do about it, in plain words, with the numbers of the case."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import Final

from oomwatchd.incident import CPUSET, MEMORY_POLICY, Contender, Diagnosis, Kind
from oomwatchd.policy.contenders import next_in_line, sparing_adj
from oomwatchd.policy.diagnosis import Facts
from oomwatchd.policy.words import rate, size, span

HEADROOM: Final = 1.2  # of the peak: what a limit should be at least
LITTLE_SHARE: Final = 0.25
GIB: Final = 1 << 30

Words = Iterator[str]


def advice(facts: Facts, diagnosis: Diagnosis, candidates: Sequence[Contender]) -> str:
    """One piece of advice a line: first what would lessen the need, then what would spare it."""
    lines = [*BY_KIND[diagnosis.kind](facts, diagnosis)]
    lines += by_killer(facts)
    lines += by_order(facts, candidates)
    return "\n".join(lines)


# -- by what happened ------------------------------------------------------------------------------


def after_copy(facts: Facts, _diagnosis: Diagnosis) -> Words:
    peak = facts.peak_bytes
    yield (
        "If this is Python with pandas: drop(), astype(), merge(), sort_values() and"
        " df = df[cols] each copy the whole frame, and both are there until the old one is let"
        " go. Select columns with a list when reading (usecols=, columns=), read in smaller types"
        " (dtype=; float32 and category take half and less), work on one column at a time, and"
        " del the old frame before the next step."
    )
    yield (
        f"As it is, it needs {size(peak)} at once, or more, if it was killed before the copy was"
        f" whole; {facts.room} is not enough."
    )


def after_leak(facts: Facts, diagnosis: Diagnosis) -> Words:
    per_second = diagnosis.growth_bytes_per_second or 0.0
    room = facts.room_bytes
    yield (
        "Look for what is kept and never let go: results appended to a list, a cache without a"
        " bound (functools.lru_cache(maxsize=None)), tensors of a loss kept with their graph"
        " (use loss.item()), a worker that is never restarted. tracemalloc and memray show where"
        " it was allocated."
    )
    if per_second > 0:
        yield (
            f"More memory only puts it off: at {rate(per_second)}, as much again as"
            f" {size(room)} lasts {span(room / per_second)}. Until it is mended, restart it in"
            f" good time, after {span(0.8 * room / per_second)} at the latest from an empty start."
        )


def after_peak(facts: Facts, _diagnosis: Diagnosis) -> Words:
    peak = facts.peak_bytes
    if facts.in_cgroup:
        yield (
            f"Peak {size(peak)}, limit {size(facts.room_bytes)}: the limit is too low for what the"
            f" job itself needs. Raise it to {size(rounded_up(HEADROOM * peak))} or more"
            " (MemoryMax= of the unit, --memory= of docker, resources.limits.memory in"
            " Kubernetes), or give the job less at a time: smaller batches, shorter chunks."
        )
    else:
        yield (
            f"It had {size(peak)} of {facts.room}: give it less at a time (smaller batches, fewer"
            f" workers), or run it where there are {size(rounded_up(HEADROOM * peak))} or more."
        )


def after_many(facts: Facts, _diagnosis: Diagnosis) -> Words:
    yield (
        "Start fewer of them (num_workers= of a DataLoader, n_jobs=, --workers, -j), or make each"
        " smaller: objects that were made before the fork are shared only until Python touches"
        " them; numpy arrays and memory-mapped files stay shared."
    )
    if facts.victim.rule is not None:
        yield (
            "In the rule, `workers:` can give the workers a higher value than the process that"
            " started them, so that a worker dies before it."
        )


def after_other(facts: Facts, _diagnosis: Diagnosis) -> Words:
    yield (
        "Give the one that took the memory a limit of its own (MemoryMax= of its unit,"
        " systemd-run --scope -p MemoryMax=...), and a rule with a higher oom_score_adj, so that"
        " it is killed for what it takes itself."
    )


def after_cache(facts: Facts, _diagnosis: Diagnosis) -> Words:
    yield (
        "Pages of files are given back when memory is short, but not those of a tmpfs (/dev/shm,"
        " /tmp), nor those that have yet to be written to a slow disk, and not fast enough for"
        " everybody. Look at what lies in /dev/shm (DataLoader workers hand batches over there),"
        f" write in smaller pieces with fsync, or raise the limit of {size(facts.room_bytes)}."
    )


def after_swap(facts: Facts, _diagnosis: Diagnosis) -> Words:
    yield (
        f"The swap of {size(facts.machine.swap_bytes)} is small beside"
        f" {size(facts.machine.ram_bytes)} of memory: a larger one, or zram, gives time; it makes"
        " nothing faster. Processes that sleep for days and lie in swap are the first to stop."
    )


def after_unknown(facts: Facts, _diagnosis: Diagnosis) -> Words:
    if facts.case.killer == "unknown":
        yield (
            "Who sends SIGKILL: `kill -9`, a container runtime's stop, a kubelet's eviction,"
            " earlyoom and nohang, Ray's memory monitor, a batch system at its time limit. Their"
            " own logs tell: journalctl --since around that time."
        )
    else:
        yield (
            "With a rule for it, its memory is recorded from its start, and the next report can"
            " say how it came to this."
        )


BY_KIND: Final[Mapping[Kind, Callable[[Facts, Diagnosis], Words]]] = {
    "sudden_copy": after_copy,
    "steady_leak": after_leak,
    "limit_below_peak": after_peak,
    "many_processes": after_many,
    "swap_exhausted": after_swap,
    "other_process": after_other,
    "page_cache": after_cache,
    "unknown": after_unknown,
}


# -- by who killed ---------------------------------------------------------------------------------


def by_killer(facts: Facts) -> Words:
    case = facts.case
    if case.killer == "systemd_oomd":
        yield (
            "systemd-oomd does not read oom_score_adj; it kills whole cgroups"
            f" ({len(case.victims)} of ours or known here). ManagedOOMPreference=omit in the unit"
            " file, or a unit of its own for the job, keeps it away; `oomwatchd audit` says what"
            " holds here."
        )
    if case.killer == "oom_group":
        yield (
            f"All {len(case.victims)} processes of the cgroup were killed together, as its"
            " memory.oom.group is 1 (OOMPolicy=kill; kubelet sets it for containers unless"
            " singleProcessOOMKill is on). Without it one of them would have been enough."
        )
    if case.killer == "cgroup" and facts.victim.cgroup not in (None, case.scope):
        yield (
            f"The limit is not its own cgroup's but that of {case.scope}, which others draw on"
            f" as well; it lay in {facts.victim.cgroup}."
        )
    if case.scope in (CPUSET, MEMORY_POLICY):
        yield (
            "Memory was short only on the nodes that it may use (cpuset or NUMA policy); others"
            " may have had some left: see numactl --show and cpuset.mems."
        )


def by_order(facts: Facts, candidates: Sequence[Contender]) -> Words:
    """Who was next, and what value would have made it the first."""
    if facts.case.killer not in ("kernel", "cgroup"):
        return
    instead = next_in_line(candidates, facts.case.victims)
    if instead is None:
        if candidates:
            yield "There was nobody else whom the kernel could have killed here."
        return
    said = f"{instead.name} (pid {instead.pid}, {size(instead.memory_bytes)})"
    adj = sparing_adj(candidates, facts.victim, instead, facts.case, facts.machine)
    if adj is None:
        yield f"Next in line was {said}."
    else:
        little = instead.memory_bytes < LITTLE_SHARE * (facts.victim.memory_bytes or 0)
        yield (
            f"Next in line was {said}: with an oom_score_adj of {adj} or less"
            f" {facts.victim.name} would have been spared and that one killed instead"
            + (", which would have freed far less: others would have followed." if little else ".")
        )


def rounded_up(size_bytes: float) -> int:
    """To whole GiB; what is small, to 64 MiB."""
    unit = GIB if size_bytes >= 4 * GIB else 64 << 20
    return ceil(size_bytes / unit) * unit
