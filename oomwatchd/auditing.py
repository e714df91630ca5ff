"""The records of an audit: what was found out about a process, and what follows for it.

Data only, as in `model`.  A cgroup's path is that in its hierarchy: ``/`` for the root.  None: not
told, or not set.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, get_args

from oomwatchd.model import Rule

# -- what follows ----------------------------------------------------------------------------------

Killer = Literal[
    "kernel",  # the whole machine is out of memory
    "cgroup",  # a cgroup has reached its limit
    "oom_group",  # the kernel takes the whole cgroup: memory.oom.group
    "oom_policy",  # systemd takes the whole unit: OOMPolicy=
    "systemd_oomd",
    "earlyoom",
    "nohang",
    "ray",
    "kubelet",
]
KILLERS: Final[tuple[Killer, ...]] = get_args(Killer)
Standing = Literal["safe", "last_in_line", "exposed", "unknown", "absent"]


class Verdict(NamedTuple):
    """Whether one killer can still take one process."""

    verdict: Standing
    reason: str
    advice: str = ""  # the one change that helps; empty: nothing to change
    first_bytes: int | None = None  # for last_in_line: the memory that goes first


Verdicts = Mapping[Killer, Verdict]

# -- processes -------------------------------------------------------------------------------------


class Holder(NamedTuple):
    """A process that holds memory, as a killer sees it."""

    pid: int
    parent_pid: int
    session: int
    name: str
    uid: int
    oom_score_adj: int
    counted_pages: int  # resident, swapped out, page tables: what the kernel goes by
    freed_pages: int  # what its death frees: of these, the memory that it shares with nobody
    cgroup: str
    unit_path: str  # in the hierarchy that systemd arranges


class Hunter(NamedTuple):
    """A program that kills for want of memory; only one that may."""

    killer: Literal["earlyoom", "nohang", "ray", "kubelet"]
    pid: int
    arguments: tuple[str, ...]


# -- cgroups and units -----------------------------------------------------------------------------


class UnitName(NamedTuple):
    manager: int | None  # the uid whose manager it is; None: the system's
    name: str


class UnitSettings(NamedTuple):
    """What systemd itself tells of a unit."""

    oom_policy: str | None = None  # None: a unit of this type has none, or this systemd knows none
    pressure: str = "auto"  # ManagedOOMMemoryPressure=
    pressure_limit_ratio: float | None = None  # None: as systemd-oomd is configured
    pressure_seconds: float | None = None
    swap: str = "auto"  # ManagedOOMSwap=
    main_pid: int = 0  # of a service; 0: it has none


class Unseen(NamedTuple):
    """What could not be found out, and why."""

    reason: str


Preference = Literal["none", "avoid", "omit"]


class Cgroup(NamedTuple):
    """One cgroup on the way from the root down to that of a process."""

    path: str
    owner_uid: int = 0
    limit_bytes: int | None = None
    swap_limit_bytes: int | None = None
    high_bytes: int | None = None  # memory.high: above it the kernel slows down, and kills nobody
    used_bytes: int | None = None
    oom_group: bool = False
    preference: Preference = "none"  # by the xattr, which is what systemd-oomd reads
    leaf: bool = True  # nothing lies below it
    units: tuple[UnitName, ...] = ()  # whose cgroup it is: of user@1000.service, two managers' own
    unseen: str = ""  # why nothing but path and units is known of it; empty: all is

    def holds(self, path: str) -> bool:
        """Whether *path* is this cgroup or lies in it."""
        return self.path == "/" or path == self.path or path.startswith(f"{self.path}/")


# -- the machine -----------------------------------------------------------------------------------


class Machine(NamedTuple):
    page_bytes: int
    total_pages: int  # RAM and swap
    swap_pages: int
    panic_on_oom: int = 0
    oom_kill_allocating_task: int = 0
    overcommit_memory: int = 0
    huge_bytes: int = 0  # in huge pages, which count for no process
    shared_bytes: int = 0  # in tmpfs and shared memory, which outlive a process


class Oomd(NamedTuple):
    """systemd-oomd, by its configuration files and by whether it runs."""

    running: bool
    limit_ratio: float = 0.6
    seconds: float = 30.0
    swap_limit_ratio: float = 0.9
    rule_files: tuple[str, ...] = ()  # since systemd 261; what they say is not read
    unread: tuple[str, ...] = ()  # files that could not be read, each with why


class Surroundings(NamedTuple):
    """All that decides about processes, but for the one in question."""

    machine: Machine
    holders: tuple[Holder, ...]  # the first created first
    unified: bool  # cgroup v2 alone
    units: Mapping[UnitName, UnitSettings | Unseen]
    systemd_version: tuple[int, int] | Unseen
    oomd: Oomd
    hunters: tuple[Hunter, ...]
    hidden: str = ""  # which processes we were not shown, and as whom; empty: all were
    by_root: bool = True  # who asks


class Subject(NamedTuple):
    """The process in question."""

    holder: Holder
    rule: Rule
    wanted: int  # the value that the rule wants
    line: tuple[Cgroup, ...]  # from the root down to its own
    init_scope: Cgroup | None = None  # that of the user's manager which it lies under
    in_pod: bool = False
    in_container: bool = False  # of any kind; what is in one is not shielded
    home: tuple[Cgroup, ...] = ()  # the line that it lay in, before we moved it to a scope of ours
