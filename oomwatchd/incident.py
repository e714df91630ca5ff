"""The records of a kill: what was told of it (evidence), what came before (samples), what it was.

Data only, as in `model`.  Evidence comes from the kernel's log, from systemd and from the ends of
processes; `policy.attribution` makes cases of it, `policy.diagnosis` explains them, `incidents`
keeps them.  Times of evidence are seconds since boot (CLOCK_BOOTTIME) when it came to us; of what
happened before we were there, the time that it has itself.
"""

from typing import Final, Literal, NamedTuple

Killer = Literal["kernel", "cgroup", "oom_group", "systemd_oomd", "unknown"]
Kind = Literal[
    "sudden_copy",
    "steady_leak",
    "limit_below_peak",
    "many_processes",
    "swap_exhausted",
    "other_process",
    "page_cache",
    "unknown",
]
# Where memory ran out: these, or the path of the cgroup whose limit was reached.  systemd-oomd does
# not wait until it has; there it is the cgroup that was killed.
WHOLE_MACHINE: Final = "machine"
CPUSET: Final = "cpuset"  # the memory nodes that the process may use, while others have memory left
MEMORY_POLICY: Final = "memory_policy"
NOWHERE: Final = "unknown"  # of a kill whose sender is not known

# -- what was told ---------------------------------------------------------------------------------


class Task(NamedTuple):
    """A row of the kernel's table of those it could have killed."""

    pid: int
    name: str
    uid: int
    oom_score_adj: int
    memory_bytes: int  # resident, swapped out and page tables: what the kernel's points count


class KernelKill(NamedTuple):
    """One ``Killed process`` line, with what the report around it tells.  None: not told.

    Only *boot_seconds*, *sequence*, *of_cgroup*, *pid* and *name* are certain to be there: the
    kernel limits the rate of all the rest.
    """

    boot_seconds: float  # the log's clock, which stands still while the machine sleeps
    sequence: int  # of the record in the log; with the boot's id it names the kill for good
    of_cgroup: bool  # "Memory cgroup out of memory", and not "Out of memory"
    pid: int  # in the first namespace; of the thread that had the memory, mostly the first one
    name: str
    uid: int | None = None
    oom_score_adj: int | None = None
    memory_bytes: int | None = None  # as of a task; without what is swapped out, if not in a table
    constraint: Literal["none", "cpuset", "memory_policy", "memcg"] | None = None
    limit_cgroup: str | None = None  # whose limit was reached (oom_memcg)
    victim_cgroup: str | None = None  # where the victim lay (task_memcg)
    group_cgroup: str | None = None  # killed as one of this cgroup: memory.oom.group
    limit_bytes: int | None = None
    swap_limit_bytes: int | None = None  # of the cgroup; None: no limit, or not told
    usage_bytes: int | None = None
    file_cache_bytes: int | None = None  # of the cgroup: "file" of its statistics
    shmem_bytes: int | None = None  # of that, or of the machine's memory: tmpfs, and shared
    asked_by: str | None = None  # who asked for memory when there was none
    allocating_task: bool = False  # and was taken for that: vm.oom_kill_allocating_task
    by_sysrq: bool = False  # somebody had it kill by hand, with SysRq f: nobody asked for memory
    tasks: tuple[Task, ...] = ()
    raw: tuple[str, ...] = ()  # the report's lines; of a group's further kills, each its own


class OomdKill(NamedTuple):
    """systemd-oomd says, by its signal or in the journal, that it has killed a cgroup."""

    boot_seconds: float
    cgroup: str
    reason: str  # "memory-pressure", "memory-used", or as the journal's line tells it
    raw: tuple[str, ...] = ()


class UnitKilled(NamedTuple):
    """PID 1, or a user's manager, says that processes of a unit were killed; by message id."""

    boot_seconds: float
    unit: str
    by_oomd: bool  # else by the kernel
    processes: int | None = None
    raw: tuple[str, ...] = ()


class Ended(NamedTuple):
    """A process under a rule has ended."""

    boot_seconds: float
    victim: "Victim"  # as last seen, with its pid and its start
    by_sigkill: bool | None  # None: nobody has told us (yet); then it takes other evidence


class CounterRise(NamedTuple):
    """``oom_kill`` of /proc/vmstat (*cgroup* is None) or of a cgroup's memory.events has risen."""

    boot_seconds: float
    cgroup: str | None
    kills: int
    own_limit: bool = False  # ``oom`` of memory.events.local as well: this cgroup's own limit


Evidence = KernelKill | OomdKill | UnitKilled | Ended | CounterRise


# -- what came before ------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One instant before a kill; None: not known then."""

    time_unix_seconds: float
    victim_bytes: int | None  # resident and swapped out
    available_bytes: int
    swap_free_bytes: int
    cgroup_bytes: int | None  # usage of the cgroup that bounds the victim
    cgroup_limit_bytes: int | None
    pressure_some_avg10: float | None
    pressure_full_avg10: float | None


class Trace(NamedTuple):
    """Another process over the same instants as the samples; None: not there, or not followed."""

    pid: int
    name: str
    rule: str | None
    cgroup: str | None
    bytes: tuple[int | None, ...]


class Past(NamedTuple):
    """What the history holds of one victim."""

    samples: tuple[Sample, ...] = ()
    others: tuple[Trace, ...] = ()  # the largest, at their largest, first


# -- what it was -----------------------------------------------------------------------------------


class Victim(NamedTuple):
    """Who was killed, as it was when last seen; None: not known."""

    pid: int | None  # None: of a cgroup that was killed, nobody is known
    name: str
    start_ticks: int | None = None
    cmdline: str | None = None
    user: str | None = None
    unit: str | None = None
    cgroup: str | None = None
    rule: str | None = None
    oom_score_adj: int | None = None
    memory_bytes: int | None = None  # resident and swapped out


class Contender(NamedTuple):
    """One of those who could have been killed, in the kernel's order."""

    pid: int
    name: str
    oom_score_adj: int
    memory_bytes: int
    points_pages: int | None  # None: never picked
    rule: str | None = None


class Case(NamedTuple):
    """One kill by one cause, as the evidence has it; its victims known by what was told."""

    key: str  # names the cause for good: the same evidence, read again, has the same key
    boot_seconds: float
    killer: Killer
    scope: str  # see above
    victims: tuple[Victim, ...]  # whom the killer chose, first
    limit_bytes: int | None = None
    swap_limit_bytes: int | None = None  # beside that on memory; None: none, or not known
    usage_bytes: int | None = None
    file_cache_bytes: int | None = None
    shmem_bytes: int | None = None  # of it; of the machine, if that was out of memory
    asked_by: str | None = None
    allocating_task: bool = False  # whoever asked was taken, and not the one with the most points
    by_sysrq: bool = False
    reason: str | None = None  # systemd-oomd's
    tasks: tuple[Task, ...] = ()
    sources: tuple[str, ...] = ()  # what kinds of evidence agree on it
    raw: tuple[str, ...] = ()
    victims_left_out: int = 0  # who died as well, but was not written down

    @property
    def for_want_of_memory(self) -> bool:
        """Whether that is shown: by hand, or of an unknown sender, it is not."""
        return self.killer != "unknown" and not self.by_sysrq


class Machine(NamedTuple):
    """The sizes that the kernel reckons with."""

    ram_bytes: int
    swap_bytes: int
    page_bytes: int


class Diagnosis(NamedTuple):
    kind: Kind
    text: str
    growth_bytes_per_second: float | None = None


class Incident(NamedTuple):
    """A case with everything that explains it: what is written down."""

    id: str
    time_unix_seconds: float
    case: Case
    victim: Victim  # of several, one under a rule before others, and then the largest
    candidates: tuple[Contender, ...]  # in the order of death
    past: Past
    diagnosis: Diagnosis
    advice: str
    while_down: bool = False  # found at the daemon's start: nobody watched when it happened
