"""What to do about it, in plain words, with the numbers of the case."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import Final

from oomwatchd.incident import CPUSET, MEMORY_POLICY, Contender, Diagnosis, Kind
from oomwatchd.model import OOM_SCORE_ADJ_MIN
from oomwatchd.policy import hints
from oomwatchd.policy.contenders import next_in_line, sparing_adj
from oomwatchd.policy.diagnosis import MANIFOLD
from oomwatchd.policy.facts import Facts
from oomwatchd.policy.growth import jump
from oomwatchd.policy.suspects import family, largest_spared, lies_in_tmpfs
from oomwatchd.policy.words import rate, size, span

HEADROOM: Final = 1.2  # of what was needed: what a limit should be at least
EARLY_SHARE: Final = 0.8  # of the time until memory is full
WHERE_SET: Final = (
    "MemoryMax= of the unit, --memory= of docker, resources.limits.memory in Kubernetes"
)
LITTLE_SHARE: Final = 0.25
GIB: Final = 1 << 30

Words = Iterator[str]


def advice(facts: Facts, diagnosis: Diagnosis, candidates: Sequence[Contender]) -> str:
    """One piece of advice a line: first what would lessen the need, then what would spare it."""
    lines = [*BY_KIND[diagnosis.kind](facts, diagnosis)]
    lines += by_killer(facts)
    if facts.case.allocating_task:
        lines += by_asking(facts, candidates)
    elif not facts.case.by_sysrq:
        lines += by_order(facts, diagnosis, candidates)
    return "\n".join(lines)


# -- by what happened ------------------------------------------------------------------------------


def after_copy(facts: Facts, _diagnosis: Diagnosis) -> Words:
    yield hints.of_copy(facts.victim)
    found = jump(facts.points)
    if found is None:
        return
    if found.after_bytes >= MANIFOLD * found.before_bytes:
        yield f"It took {size(facts.peak_bytes)} at once, or more, if it was killed on the way."
        return
    whole = max(2 * found.before_bytes, facts.peak_bytes)
    need = HEADROOM * (whole + others_bytes(facts))
    said = f"What it held, {size(found.before_bytes)}, and a whole copy of it"
    said += f" are {size(2 * found.before_bytes)}"
    if need > facts.room_bytes:
        yield (
            f"{said}. If it has to be copied, that takes {size(rounded_up(need))} or more,"
            f" not {facts.room}."
        )
    else:
        yield f"{said}: that fits into {facts.room}, if others leave it so much."


def after_leak(facts: Facts, diagnosis: Diagnosis) -> Words:
    per_second = diagnosis.growth_bytes_per_second or 0.0
    room = facts.room_bytes
    yield hints.of_leak(facts.victim)
    if per_second > 0:
        yield (
            f"More memory only puts it off: at {rate(per_second)}, another {size(room)} would last"
            f" {span(room / per_second)}. Until it is mended, restart it in good time: from an"
            f" empty start, after {span(EARLY_SHARE * room / per_second)} at the latest."
        )


def after_peak(facts: Facts, _diagnosis: Diagnosis) -> Words:
    peak, room = facts.peak_bytes, facts.room_bytes
    need = rounded_up(HEADROOM * max(peak, room))
    if not facts.in_cgroup:
        yield (
            f"Give it less at a time (smaller batches, fewer workers), or run it where there are"
            f" {size(need)} of memory or more; it had {size(peak)} of {facts.room}."
        )
        return
    yield (
        f"Peak {size(peak)}, limit {size(room)}: the limit is too low for what the job itself"
        f" needs. {raise_to(facts, need)}, or give the job less at a time: smaller batches,"
        " shorter chunks."
    )


def after_many(facts: Facts, _diagnosis: Diagnosis) -> Words:
    yield (
        "Start fewer of them (num_workers= of a DataLoader, n_jobs=, --workers of gunicorn,"
        " num_cpus= of a Ray task, spark.executor.cores, make -j), or make each smaller: objects"
        " that were made before the fork are shared only until Python touches them; numpy arrays"
        " and memory-mapped files stay shared."
    )
    if facts.victim.rule is not None and not facts.case.allocating_task:
        yield (
            "In the rule, `workers:` can give the workers a higher value than the process that"
            " started them, so that a worker dies before it."
        )


def after_other(facts: Facts, _diagnosis: Diagnosis) -> Words:
    limit = (
        "Give the one that took the memory a limit of its own (MemoryMax= of its unit,"
        " systemd-run --scope -p MemoryMax=...)"
    )
    if facts.case.allocating_task:
        yield f"{limit}, so that it is killed for what it takes itself."
        return
    yield (
        f"{limit}, and a rule with a higher oom_score_adj, so that it is killed for what it takes"
        " itself."
    )
    spared = largest_spared(facts.case)
    if spared is not None and spared.oom_score_adj == OOM_SCORE_ADJ_MIN:
        yield (
            f"At -1000 {spared.name} is never killed, and everybody else dies before it, one after"
            " the other; -999 leaves it the last in line."
        )


def after_cache(facts: Facts, _diagnosis: Diagnosis) -> Words:
    where = facts.room if facts.in_cgroup else "the machine's memory"
    if not facts.in_cgroup or lies_in_tmpfs(facts.case) is not False:
        yield (
            "Files in a tmpfs (/dev/shm, /run, often /tmp) are memory until they are deleted: `df"
            " -h -t tmpfs` and `ls -l /dev/shm` show them, `ipcs -m` what else is shared."
            " DataLoader workers, Ray's object store and databases hand data over there, and leave"
            f" it behind when they are killed. It counts against {where}; --shm-size of docker, or"
            " size= of the mount, bounds it."
        )
    if facts.in_cgroup and not lies_in_tmpfs(facts.case):
        yield (
            "Files that have been written and are not on the disk yet cannot be dropped: write in"
            f" smaller pieces with fsync, to a faster disk, or raise {where}."
        )


def after_swap(facts: Facts, _diagnosis: Diagnosis) -> Words:
    machine = facts.machine
    yield (
        f"All {size(machine.swap_bytes)} of swap were in use beside {size(machine.ram_bytes)} of"
        " memory, so nothing more could be moved out. A larger swap, or zram, buys time and no"
        " speed; stop what sleeps in swap (VmSwap in /proc/PID/status tells who), run less at"
        " once, or add memory."
    )


def after_unknown(facts: Facts, _diagnosis: Diagnosis) -> Words:
    if facts.case.by_sysrq:
        yield (
            "No value and no limit has to change for it. Who may do so at a keyboard, kernel.sysrq"
            " says (64 of it: signals to processes); /proc/sysrq-trigger is root's, or a script's"
            " of root."
        )
        return
    if facts.case.killer == "unknown":
        yield (
            "Who sends SIGKILL: `kill -9`, a container runtime's stop, a kubelet's eviction,"
            " earlyoom and nohang, Ray's memory monitor, a batch system at its time limit. Their"
            " own logs tell: journalctl --since around that time."
        )
        return
    if facts.in_cgroup and facts.limit_bytes is not None:
        need = rounded_up(HEADROOM * facts.limit_bytes)
        yield (
            f"If the job always needs about as much, its limit of {size(facts.limit_bytes)} is too"
            f" low. {raise_to(facts, need)}. If it needs more from hour to hour, it leaks, and a"
            " higher limit only puts it off."
        )
    if facts.points:
        return
    watched = "It is under a rule" if facts.victim.rule is not None else "With a rule for it"
    yield (
        f"{watched}: while the daemon runs, its memory is recorded from its start, and the next"
        " report can say how it came to this."
    )


# -- sizes -----------------------------------------------------------------------------------------


def others_bytes(facts: Facts) -> int:
    """What counted against the same limit, but was not the victim's."""
    return max((facts.case.usage_bytes or 0) - facts.peak_bytes, 0) if facts.in_cgroup else 0


def raise_to(facts: Facts, need_bytes: int) -> str:
    ram = facts.machine.ram_bytes
    but = f"; this machine has {size(ram)}" if need_bytes > ram else ""
    return f"Raise it to {size(need_bytes)} or more ({WHERE_SET}{but})"


def rounded_up(size_bytes: float) -> int:
    """To whole GiB; what is small, to 64 MiB."""
    unit = GIB if size_bytes >= 4 * GIB else 64 << 20
    return ceil(size_bytes / unit) * unit


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
    count = len(case.victims)
    if case.killer == "systemd_oomd":
        known = f"; {count} processes that are known here died of it" if count > 1 else ""
        yield (
            f"systemd-oomd does not read oom_score_adj; it kills whole cgroups, here"
            f" {case.scope}{known}. `shield: preference` or `shield: scope` in the rule keeps it"
            " away, as far as this systemd lets us: `oomwatchd audit` says what holds here."
        )
    if case.killer == "oom_group":
        yield (
            f"All {count} processes of the cgroup were killed together, as its memory.oom.group is"
            " 1 (OOMPolicy=kill of the unit; kubelet sets it for containers, unless"
            " singleProcessOOMKill is on). At 0, the kernel kills one and looks again."
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


def by_asking(facts: Facts, candidates: Sequence[Contender]) -> Words:
    """Who would have been killed, if it had gone by points."""
    said = (
        "It was killed as it asked for memory when there was none, which"
        " vm.oom_kill_allocating_task=1 brings about: of all values of oom_score_adj, only -1000"
        " counts there. sysctl vm.oom_kill_allocating_task=0 has the kernel go by points"
    )
    first = next((one for one in candidates if one.points_pages is not None), None)
    if first is None:
        yield f"{said}."
    elif first.pid == facts.victim.pid:
        yield f"{said}; here it would have been killed all the same."
    else:
        yield (
            f"{said}; here {first.name} (pid {first.pid}, {size(first.memory_bytes)}) would have"
            " been killed."
        )


def by_order(facts: Facts, diagnosis: Diagnosis, candidates: Sequence[Contender]) -> Words:
    """Who was next, and what value would have made it the first."""
    if facts.case.killer not in ("kernel", "cgroup"):
        return
    instead = next_in_line(candidates, facts.case.victims)
    if instead is None:
        if candidates:
            yield "There was nobody else whom the kernel could have killed here."
        return
    said = f"Next in line was {instead.name} (pid {instead.pid}, {size(instead.memory_bytes)})"
    adj = sparing_adj(candidates, facts.victim, instead, facts.case, facts.machine)
    if family(instead.name) == family(facts.victim.name):
        yield f"{said}, another of its kind."
    elif adj is None or diagnosis.kind == "other_process":
        yield f"{said}."
    else:
        little = instead.memory_bytes < LITTLE_SHARE * (facts.victim.memory_bytes or 0)
        yield (
            f"{said}: with an oom_score_adj of {adj} or less"
            f" {facts.victim.name} would have been spared and that one killed instead"
            + (", which would have freed far less: others would have followed." if little else ".")
        )
