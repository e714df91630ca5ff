"""What a report of the kernel's OOM killer says; data only.

Names of processes (comm) and paths of cgroups are chosen by users: they are to be shown, and never
decide anything by themselves.  A path is None where it could be read in two ways.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from oomwatchd.incident import KernelKill, Task

Constraint = Literal["none", "cpuset", "memory_policy", "memcg"]
Resource = Literal["memory", "swap", "memory+swap", "kmem"]
BY_SYSRQ: Final = -1  # with SysRq f, by hand
NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class Invoker(NamedTuple):
    """Who asked for the memory that was not there; often not who was killed."""

    comm: str
    pid: int | None  # of the thread
    gfp_mask: int
    gfp_flags: str  # empty, where the kernel did not spell them out
    order: int  # asked for 2**order pages; BY_SYSRQ: for none
    oom_score_adj: int


class Charge(NamedTuple):
    """Of one resource, what a cgroup with all below it used, and its limit."""

    resource: Resource
    usage_bytes: int
    limit_bytes: int | None  # None: no limit
    failures: int  # times that the limit was hit


class WholeMemory(NamedTuple):
    """The machine's memory, which stands in a report only if no cgroup's limit was hit."""

    ram_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    hugepages_bytes: int = 0  # set aside for huge pages, used or not
    counts_bytes: Mapping[str, int] = NOTHING  # active_anon, free, slab_unreclaimable, shmem, ...


NOT_TOLD: Final = WholeMemory()


class ReportedTask(NamedTuple):
    """One line of the table of those that the kernel chose from."""

    pid: int
    tgid: int
    uid: int
    comm: str
    oom_score_adj: int
    total_vm_bytes: int
    resident_bytes: int
    anon_bytes: int | None  # apart since Linux 6.8
    file_bytes: int | None
    shmem_bytes: int | None
    swap_bytes: int
    page_table_bytes: int

    @property
    def memory_bytes(self) -> int:
        """What the kernel counts when it chooses."""
        return self.resident_bytes + self.swap_bytes + self.page_table_bytes


class Killed(NamedTuple):
    """One ``Killed process`` line."""

    sequence: int  # of its record
    microseconds: int  # of the clock of the kernel's log, since boot
    pid: int  # of a thread, where the process's first thread has ended
    comm: str
    uid: int | None
    oom_score_adj: int | None
    total_vm_bytes: int
    anon_bytes: int
    file_bytes: int
    shmem_bytes: int
    page_table_bytes: int | None
    swap_bytes: int = 0  # of the table, as the line does not tell

    @property
    def memory_bytes(self) -> int:
        resident_bytes = self.anon_bytes + self.file_bytes + self.shmem_bytes
        return resident_bytes + self.swap_bytes + (self.page_table_bytes or 0)


@dataclass(frozen=True, slots=True)
class OomReport:
    """One decision of the killer, from "invoked oom-killer" to the last "Killed process".

    Of reports that are many within seconds, the kernel prints no more than who was killed.  With
    nobody killed, nobody was left whom the kernel may kill.
    """

    first_sequence: int  # the kernel's numbers of the log records that it was read from
    last_sequence: int
    microseconds: int  # when it began
    of_cgroup: bool  # a cgroup's limit was hit; else the whole machine's memory or some nodes'
    killed: tuple[Killed, ...] = ()  # the one chosen, and then all others of its group
    kill_lines: int = 0  # with those left out or told twice: what oom_kill of vmstat rose by
    constraint: Constraint | None = None
    allocating_task: bool = False  # vm.oom_kill_allocating_task: who asks dies, without a choice
    invoker: Invoker | None = None
    chosen_pid: int | None = None  # until Linux 5.0 not always who was killed: a child was taken
    oom_memcg: str | None = None  # whose limit was hit
    task_memcg: str | None = None  # where the chosen one lived: there, or below
    oom_group: str | None = None  # the cgroup that was killed whole
    charges: tuple[Charge, ...] = ()  # of oom_memcg
    memcg_stats: Mapping[str, int] = field(default_factory=dict)  # of oom_memcg, as in memory.stat
    whole: WholeMemory = NOT_TOLD
    candidates: tuple[ReportedTask, ...] = ()  # as the kernel met them: not the order of death
    candidates_seen: int = 0  # of so many, those most in danger were kept
    truncated: bool = False  # records within it were lost
    raw: tuple[str, ...] = ()
    raw_dropped: int = 0  # lines left out of the middle of raw

    def charge(self, resource: Resource) -> Charge | None:
        return next((charge for charge in self.charges if charge.resource == resource), None)

    @property
    def limit_bytes(self) -> int | None:
        """The cgroup's limit on memory; None: it has none, or it was not told."""
        memory = self.charge("memory")
        return memory.limit_bytes if memory else None

    @property
    def swap_limit_bytes(self) -> int | None:
        return swap_limit_bytes(self.charges)

    @property
    def usage_bytes(self) -> int | None:
        memory = self.charge("memory")
        return memory.usage_bytes if memory else None

    @property
    def file_cache_bytes(self) -> int | None:
        """Of the cgroup with all below it; until Linux 5.2 without."""
        names = ("file", "total_cache", "cache")  # cgroup v2; v1; both until Linux 5.2
        return next((self.memcg_stats[name] for name in names if name in self.memcg_stats), None)

    @property
    def shmem_bytes(self) -> int | None:
        """In a tmpfs, or shared: of the cgroup with all below it, or of the machine."""
        if not self.of_cgroup:
            return self.whole.counts_bytes.get("shmem")
        names = ("total_shmem", "shmem")  # cgroup v1, where the second is without; v2
        return next((self.memcg_stats[name] for name in names if name in self.memcg_stats), None)


def swap_limit_bytes(charges: Iterable[Charge]) -> int | None:
    """What of the swap a cgroup may use; None: it has no limit on that, or it was not told.

    With cgroup v1, what its limit on both together leaves beside that on memory.
    """
    limits = {charge.resource: charge.limit_bytes for charge in charges}
    if "swap" in limits:
        return limits["swap"]
    memory, both = limits.get("memory"), limits.get("memory+swap")
    return None if memory is None or both is None else max(both - memory, 0)


def kernel_kills(report: OomReport) -> tuple[KernelKill, ...]:
    """The kills of *report*, as evidence; what is told of the chosen one is told with each.

    A thread that was named in place of its process, as that has lost its first one, is named by
    the process, if the table tells which that is.
    """
    by_sysrq = report.invoker is not None and report.invoker.order == BY_SYSRQ
    process = {task.pid: task.tgid for task in report.candidates}
    tasks = tuple(
        Task(task.tgid, task.comm, task.uid, task.oom_score_adj, task.memory_bytes)
        for task in report.candidates
    )
    return tuple(
        KernelKill(
            boot_seconds=killed.microseconds / 1e6,
            sequence=killed.sequence,
            of_cgroup=report.of_cgroup,
            pid=process.get(killed.pid, killed.pid),
            name=killed.comm,
            uid=killed.uid,
            oom_score_adj=killed.oom_score_adj,
            memory_bytes=killed.memory_bytes,
            constraint=report.constraint,
            limit_cgroup=report.oom_memcg,
            victim_cgroup=report.task_memcg,
            group_cgroup=report.oom_group,
            limit_bytes=report.limit_bytes,
            swap_limit_bytes=report.swap_limit_bytes,
            usage_bytes=report.usage_bytes,
            file_cache_bytes=report.file_cache_bytes,
            shmem_bytes=report.shmem_bytes,
            asked_by=report.invoker.comm if report.invoker and not by_sysrq else None,
            allocating_task=report.allocating_task,
            by_sysrq=by_sysrq,
            tasks=tasks,
            raw=report.raw if number == 0 else (),
        )
        for number, killed in enumerate(report.killed)
    )
