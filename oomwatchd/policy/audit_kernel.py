"""The kernel's own killers: of the whole machine, at a cgroup's limit, and by the group."""

from typing import Final

from oomwatchd.auditing import Cgroup, Holder, Machine, Subject, Surroundings, Unseen, Verdict
from oomwatchd.model import OOM_SCORE_ADJ_MIN
from oomwatchd.policy.queue import (
    LITTLE_RATIO,
    MUCH_RATIO,
    Place,
    Queues,
    by_kernel,
    first_words,
    last_in_line,
    lower_value,
)
from oomwatchd.text import size

PANIC_IN_CGROUPS_TOO: Final = 2  # vm.panic_on_oom
NEVER_OVERCOMMIT: Final = 2  # vm.overcommit_memory
MORE_MEMORY: Final = "more memory or swap: no value makes up for how much of both it holds"

# -- the whole machine -----------------------------------------------------------------------------


def kernel(subject: Subject, around: Surroundings, queues: Queues) -> Verdict:
    machine, holder = around.machine, subject.holder
    if machine.panic_on_oom:
        return Verdict(
            "exposed",
            f"vm.panic_on_oom={machine.panic_on_oom}: the kernel panics, and all ends",
            "sysctl vm.panic_on_oom=0",
        )
    place = queues.of_all("kernel", by_kernel(machine.total_pages)).place(holder.pid)
    if place.points is None:
        return never_picked(place, machine)
    if machine.oom_kill_allocating_task:
        return Verdict(
            "exposed",
            "vm.oom_kill_allocating_task=1: whoever asks for memory at that moment is killed,"
            " whatever its value",
            "sysctl vm.oom_kill_allocating_task=0",
        )
    if holder.oom_score_adj > 0 and not subject.rule.protects:
        return Verdict("exposed", f"its value of {holder.oom_score_adj} puts it forward, as meant")
    verdict = by_place(place, subject, around)
    return verdict._replace(reason=f"{verdict.reason}{remarks(machine)}")


def never_picked(place: Place, machine: Machine) -> Verdict:
    if not place.others:
        return Verdict(
            "exposed",
            "it is never picked, but neither is any other: the kernel would panic",
            "give up -1000 for others, so that the kernel has whom to kill",
        )
    return Verdict("safe", f"at {OOM_SCORE_ADJ_MIN} it is never picked{remarks(machine)}")


def by_place(place: Place, subject: Subject, around: Surroundings) -> Verdict:
    """Behind all that have a value of 0, whatever they hold; or with much before it."""
    machine, points = around.machine, place.points or 0
    much = place.ahead_pages >= machine.total_pages * MUCH_RATIO
    if place.ahead and (points <= 0 or much):
        more = f" at least, not counting {around.hidden}" if around.hidden else ""
        return last_in_line(place, machine, first_words(place, machine) + more)
    if around.hidden:
        return Verdict("unknown", f"who goes before it depends on {around.hidden}", as_root(around))
    counts = f"it counts for {size(points * machine.page_bytes)}"
    advice = lower_value(subject.holder, subject.rule, subject.wanted, machine.total_pages)
    advice = advice or MORE_MEMORY
    if not place.ahead:
        return Verdict("exposed", f"it is the next to be killed: {counts}", advice)
    return Verdict("exposed", f"only {first_words(place, machine)}, then it: {counts}", advice)


def as_root(around: Surroundings) -> str:
    """What helps who could not see all."""
    return "" if around.by_root else "ask as root"


def remarks(machine: Machine) -> str:
    """What is worth knowing of the kernel's ways on this machine."""
    text = ""
    if machine.overcommit_memory == NEVER_OVERCOMMIT:
        text += (
            "; with vm.overcommit_memory=2 most programs are refused memory before any is killed"
        )
    unfreed = machine.huge_bytes + machine.shared_bytes
    if unfreed * 4 > machine.total_pages * machine.page_bytes:
        text += f"; {size(unfreed)} in huge pages and shared memory is freed by no kill"
    return text


# -- a cgroup's limit ------------------------------------------------------------------------------


def limited(subject: Subject, around: Surroundings) -> list[Cgroup]:
    """From the root down, those whose limit can be reached: before all memory, and before the
    limits above it.  In cgroup v1, that of memory and swap together is one more limit.
    """
    machine = around.machine
    memory_bytes = (machine.total_pages - machine.swap_pages) * machine.page_bytes
    both_bytes = machine.total_pages * machine.page_bytes
    found = []
    for cgroup in subject.line:
        if cgroup.limit_bytes is None:
            continue
        both = both_bytes
        if not around.unified and cgroup.swap_limit_bytes is not None:
            both = cgroup.limit_bytes + cgroup.swap_limit_bytes
        if cgroup.limit_bytes < memory_bytes or both < both_bytes:
            found.append(cgroup)
        memory_bytes, both_bytes = min(memory_bytes, cgroup.limit_bytes), min(both_bytes, both)
    return found


def at_limit(subject: Subject, cgroup: Cgroup, around: Surroundings, queues: Queues) -> Verdict:
    """What happens to *subject* when *cgroup* has reached its limit."""
    machine, holder = around.machine, subject.holder
    total_pages = domain_pages(cgroup, machine)
    place = queues.inside(cgroup, total_pages).place(holder.pid)
    where = described(cgroup)
    if machine.panic_on_oom == PANIC_IN_CGROUPS_TOO:
        return Verdict(
            "exposed", f"{where}, and vm.panic_on_oom=2 makes the kernel panic then",
            "sysctl vm.panic_on_oom=0",
        )  # fmt: skip
    if place.points is None and not place.others and not around.hidden:
        return Verdict(
            "exposed",
            f"{where}, and nobody in it can be killed: at the limit, all of it spins for ever",
            raised(cgroup),
        )
    if place.points is None:
        return Verdict("safe", f"{where}; at {OOM_SCORE_ADJ_MIN} it is not picked there")
    enough = place.points <= 0 and place.ahead_pages >= total_pages * LITTLE_RATIO
    if enough or place.ahead_pages >= total_pages * MUCH_RATIO:
        return last_in_line(place, machine, f"{where}; {first_words(place, machine)}")
    if around.hidden:
        return Verdict(
            "unknown", f"{where}; who lies in it depends on {around.hidden}", as_root(around)
        )
    if not place.others:
        return Verdict("exposed", f"{where}, and it is alone in there", raised(cgroup))
    advice = lower_value(holder, subject.rule, subject.wanted, total_pages) or raised(cgroup)
    if not place.ahead:
        return Verdict("exposed", f"{where}, and it is the next to be killed there", advice)
    return Verdict("exposed", f"{where}; only {first_words(place, machine)}, then it", advice)


def domain_pages(cgroup: Cgroup, machine: Machine) -> int:
    """What a thousand units of oom_score_adj are worth there.

    Source:  mm/memcontrol.c, mem_cgroup_get_max().
    """
    swap = machine.swap_pages
    if cgroup.swap_limit_bytes is not None:
        swap = min(swap, cgroup.swap_limit_bytes // machine.page_bytes)
    return (cgroup.limit_bytes or 0) // machine.page_bytes + swap


def described(cgroup: Cgroup) -> str:
    used = "" if cgroup.used_bytes is None else f", {size(cgroup.used_bytes)} of it used"
    return f"{cgroup.path} is limited to {size(cgroup.limit_bytes or 0)}{used}"


def raised(cgroup: Cgroup) -> str:
    if cgroup.units:
        return f"raise MemoryMax= of {cgroup.units[0].name}"
    return f"raise the limit of {cgroup.path}"


# -- the whole group -------------------------------------------------------------------------------


def oom_group(subject: Subject, around: Surroundings) -> Verdict:
    """Of the cgroups with memory.oom.group=1, the kernel takes the topmost; mm/oom_kill.c."""
    group = next((cgroup for cgroup in subject.line if cgroup.oom_group), None)
    if group is None:
        return Verdict("absent", "no cgroup above it has memory.oom.group=1")
    where = f"{group.path} has memory.oom.group=1"
    others = others_in(group, subject.holder, around)
    if not others and not around.hidden:
        return Verdict("safe", f"{where}, but no other process in there can be picked")
    verdict = Verdict(
        "exposed", f"{where}: if one process of it is picked, all are killed", split(subject, group)
    )
    if subject.holder.oom_score_adj == OOM_SCORE_ADJ_MIN:
        verdict = spared(subject, group, around, where)
    if not others and verdict.verdict == "exposed":
        return Verdict("unknown", f"{where}; it may hold {around.hidden}", as_root(around))
    return verdict


def spared(subject: Subject, group: Cgroup, around: Surroundings, where: str) -> Verdict:
    """At -1000 the kernel passes over it; but what is left of a unit, systemd kills."""
    settings = [around.units.get(unit, Unseen("not asked")) for unit in group.units]
    if any(not isinstance(one, Unseen) and one.oom_policy == "kill" for one in settings):
        return Verdict(
            "exposed",
            f"{where}: the kernel spares it at {OOM_SCORE_ADJ_MIN}, then systemd kills it"
            " (OOMPolicy=kill)",
            split(subject, group),
        )
    unseen = next((one for one in settings if isinstance(one, Unseen)), None)
    if unseen is not None:
        return Verdict(
            "unknown", f"{where}; whether systemd kills the rest: {unseen.reason}", as_root(around)
        )
    return Verdict("safe", f"{where}, which spares whoever is at {OOM_SCORE_ADJ_MIN}")


def split(subject: Subject, group: Cgroup) -> str:
    """How to live on when others of the group die."""
    if subject.in_pod:
        return "singleProcessOOMKill: true in the kubelet's configuration"
    if group.units and group.units[0].name.endswith(".service"):
        return f"OOMPolicy=continue in {group.units[0].name}"
    if group.units and not subject.in_container:
        return f"shield: scope in rule {subject.rule.name}"
    return f"memory.oom.group=0 in {group.path}"


def others_in(cgroup: Cgroup, holder: Holder, around: Surroundings) -> list[Holder]:
    """Who else in *cgroup* the kernel may pick."""
    return [
        other
        for other in around.holders
        if other.pid != holder.pid
        and other.oom_score_adj != OOM_SCORE_ADJ_MIN
        and cgroup.holds(other.cgroup)
    ]
