"""The lines of a report of the kernel's OOM killer, each taken apart by itself; Linux 4.4 to 7.2.

Each function gives None for any other text.  A text is a whole record of the log: whoever chose the
name of a process can put a line break into it, but begin no line of his own.  Within a line, what
users chose is found from what stands around it and is the kernel's: the name of a process has 15
bytes at most, too few for the numbers behind it, and the name of a cgroup has no slash in it.

Source:  mm/oom_kill.c, mm/memcontrol.c, mm/show_mem.c, kernel/cgroup/cpuset.c.
"""

import re
from functools import cache
from typing import Final, NamedTuple, cast

from oomwatchd.kernel.oom import Charge, Constraint, Invoker, Killed, ReportedTask, Resource

# Above, a limit is the kernel's "no limit" (PAGE_COUNTER_MAX), which depends on the page size.
LIMIT_KB_MAX: Final = 1 << 52
COLUMNS_MAX: Final = 20
COLUMNS_NEEDED: Final = {"uid", "tgid", "total_vm", "rss", "oom_score_adj"}

INVOKED: Final = re.compile(
    r"(.*) invoked oom-killer: gfp_mask=(0x[0-9a-f]{1,16})(?:\(([^()]*)\))?,"
    r"(?: nodemask=(?:\(null\)|[\d,-]*),)? +order=(-?\d{1,3}),(?: oom_adj=-?\d+,)?"
    r" oom_score_adj=(-?\d{1,5})",
    re.DOTALL,
)
ON_CPU: Final = re.compile(r"CPU: \d+ (?:UID: \d+ )?PID: (\d{1,10}) Comm: (.*)", re.DOTALL)
USAGE: Final = re.compile(
    r"(memory|swap|memory\+swap|kmem): usage (\d{1,20})kB, limit (\d{1,20})kB, failcnt (\d{1,20})"
)
STATS_OF: Final = re.compile(r"Memory cgroup stats for (/.*):(?: ((?:\w+:\d+KB ?)+))?", re.DOTALL)
STAT: Final = re.compile(r"([a-z0-9_]{1,40})(?: (\d{1,20})|:(\d{1,20})KB)")
STATS: Final = re.compile(r"[a-z][a-z0-9_]{0,39} \d{1,20}(?:\n[a-z][a-z0-9_]{0,39} \d{1,20})*\n?")
COUNTS: Final = re.compile(r"(?:\s*[a-z_]{1,40}:\d{1,20})+\s*")
COUNT: Final = re.compile(r"([a-z_]{1,40}):(\d{1,20})")
RAM: Final = re.compile(r"(\d{1,20}) pages RAM")
SWAP: Final = re.compile(r"(Free|Total) swap +=[ ]?(\d{1,20})kB")
HUGEPAGES: Final = re.compile(
    r"(?:Node \d+ )?hugepages_total=(\d{1,12}) .* ?hugepages_size=(\d{1,12})kB"
)
TABLE: Final = re.compile(r"\[ *pid *\] +(uid +tgid +total_vm +rss .*oom_score_adj) +name")
# A letter ends the nodes: else each of them would be tried as their end, for each of the rest.
CHOSEN: Final = re.compile(
    r"oom-kill:constraint=CONSTRAINT_(NONE|CPUSET|MEMORY_POLICY|MEMCG),"
    r"nodemask=(?:\(null\)|\d+(?:[,-]\d+)*|)(,[a-z].*),pid=(\d{1,10}),uid=(\d{1,10})",
    re.DOTALL,
)
# The name of a cpuset has no slash in it, so it cannot pose as what follows it; "/" is the root's.
CPUSET: Final = r"(?:,cpuset=(?:/|[^/]*?),mems_allowed=[\d,-]*)?"
CGROUPS: Final = re.compile(
    CPUSET + r",(?:oom_memcg=(?P<limited>/.*)|global_oom,task_memcg=(?P<whole>/.*))", re.DOTALL
)
WITHOUT_CGROUPS: Final = re.compile(CPUSET + r"(,task=.*)", re.DOTALL)
PREFIX: Final = (
    r"(Out of memory|Out of memory \(oom_kill_allocating_task\)|Memory cgroup out of memory): "
)
ABOUT_TO: Final = re.compile(
    PREFIX + r"Kill process (\d{1,10}) \((.*)\) score \d+ or sacrifice child", re.DOTALL
)
KILLED: Final = re.compile(
    rf"(?:{PREFIX})?Killed process (?P<pid>\d{{1,10}})(?:, UID (?P<uid6>\d{{1,10}}),)?"
    r" \((?P<comm>.*)\)(?:, UID (?P<uid7>\d{1,10}),)? total-vm:(?P<vm>\d{1,20})kB,"
    r" anon-rss:(?P<anon>\d{1,20})kB, file-rss:(?P<file>\d{1,20})kB"
    r"(?:, shmem-rss:(?P<shmem>\d{1,20})kB)?"
    r"(?:, UID:(?P<uid>\d{1,10}) pgtables:(?P<tables>\d{1,20})kB oom_score_adj:(?P<adj>-?\d{1,5}))?"
    r"(?:,? [\w-]+:-?\d{1,20}(?:kB)?)*",  # what a later kernel may add
    re.DOTALL,
)
GROUP: Final = re.compile(
    r"Tasks in (/.*) are going to be killed due to memory\.oom\.group set", re.DOTALL
)
NOBODY: Final = "Out of memory and no killable processes..."
EXITING: Final = re.compile(
    PREFIX + r"OOM victim (\d{1,10}) \((.*)\) is already exiting\. Skip killing the task", re.DOTALL
)


class Chosen(NamedTuple):
    """The line ``oom-kill:``.  Where in *rest* its parts end is told by other lines."""

    constraint: Constraint
    of_cgroup: bool
    pid: int
    uid: int
    rest: str | None  # paths and name; None: the kernel has no memory cgroups


class KillLine(NamedTuple):
    of_cgroup: bool | None  # None: not told in this line, before Linux 5.1
    allocating_task: bool
    killed: Killed

    @property
    def pid(self) -> int:
        return self.killed.pid

    @property
    def comm(self) -> str:
        return self.killed.comm


class Exiting(NamedTuple):
    """One who was to be killed, and has given its memory back already; since Linux 5.9."""

    of_cgroup: bool
    pid: int
    comm: str


def parse_invoked(text: str) -> Invoker | None:
    if match := INVOKED.fullmatch(text):
        comm, mask, flags, order, adj = match.groups()
        return Invoker(comm, None, int(mask, 16), flags or "", int(order), int(adj))
    return None


def parse_usage(text: str) -> Charge | None:
    if match := USAGE.fullmatch(text):
        usage, limit, failures = map(int, match.group(2, 3, 4))
        return Charge(
            cast(Resource, match[1]),
            usage << 10,
            limit << 10 if limit < LIMIT_KB_MAX else None,
            failures,
        )
    return None


def parse_stats(text: str) -> dict[str, int]:
    """``anon 4096``, until Linux 6.11 many such lines in one record; or ``rss:4KB cache:0KB``."""
    found = {}
    for match in STAT.finditer(text):
        found[match[1]] = int(match[2]) if match[2] else int(match[3]) << 10
    return found


def parse_table(text: str) -> tuple[str, ...] | None:
    """The names of the columns between pid and name."""
    match = TABLE.fullmatch(text)
    columns = tuple(match[1].split()) if match else ()
    known = {*columns} >= COLUMNS_NEEDED and len(columns) <= COLUMNS_MAX
    return columns if known else None


@cache
def row(columns: int) -> re.Pattern[str]:
    return re.compile(r"\[ *(\d{1,10})\]" + r" +(-?\d{1,20})" * columns + " (.*)", re.DOTALL)


def parse_task(text: str, columns: tuple[str, ...], page_bytes: int) -> ReportedTask | None:
    match = row(len(columns)).fullmatch(text)
    if match is None:
        return None
    pid, *numbers, comm = match.groups()
    value = dict(zip(columns, map(int, numbers), strict=True))
    apart = [value.get(name) for name in ("rss_anon", "rss_file", "rss_shmem")]
    anon, file, shmem = (None if pages is None else pages * page_bytes for pages in apart)
    tables = sum(value.get(name, 0) for name in ("nr_ptes", "nr_pmds", "nr_puds")) * page_bytes
    return ReportedTask(
        pid=int(pid),
        tgid=value["tgid"],
        uid=value["uid"],
        comm=comm,
        oom_score_adj=value["oom_score_adj"],
        total_vm_bytes=value["total_vm"] * page_bytes,
        resident_bytes=value["rss"] * page_bytes,
        anon_bytes=anon,
        file_bytes=file,
        shmem_bytes=shmem,
        swap_bytes=value.get("swapents", 0) * page_bytes,
        page_table_bytes=value.get("pgtables_bytes", tables),
    )


def parse_chosen(text: str) -> Chosen | None:
    match = CHOSEN.fullmatch(text)
    if match is None:
        return None
    constraint = cast(Constraint, match[1].lower())
    of_cgroup, rest = False, None
    if cgroups := CGROUPS.match(match[2]):
        limited, rest = cgroups["limited"], cgroups["limited"] or cgroups["whole"]
        if limited:
            of_cgroup, constraint = True, "memcg"  # Linux 5.0 to 5.2 say CONSTRAINT_NONE
    elif not WITHOUT_CGROUPS.match(match[2]):
        return None
    return Chosen(constraint, of_cgroup, int(match[3]), int(match[4]), rest)


def paths_of(chosen: Chosen, comm: str, limited: str | None) -> tuple[str | None, str | None]:
    """Whose limit was hit, and where the chosen one lived.

    *comm*: its name, from the line that tells of its death.  *limited*: whose limit was hit, from
    the line above the statistics.
    """
    if chosen.rest is None:
        return None, None
    paths, separator, _ = chosen.rest.rpartition(",task=")
    if chosen.rest.endswith(f",task={comm}"):  # names may hold the separator
        paths = chosen.rest.removesuffix(f",task={comm}")
    elif not separator or ",task=" in paths:
        return None, None
    if not chosen.of_cgroup:
        return None, paths
    return choose(splits(paths, ",task_memcg="), limited) or (limited, None)


def splits(text: str, separator: str) -> list[tuple[str, str]]:
    parts = text.split(separator)
    return [
        (separator.join(parts[:number]), separator.join(parts[number:]))
        for number in range(1, len(parts))
    ]


def choose(pairs: list[tuple[str, str]], limited: str | None) -> tuple[str, str] | None:
    """Of all pairs of a cgroup whose limit was hit and one that the chosen process lived in, the
    only one that can be; None, where there are others.
    """
    if limited is not None:
        pairs = [pair for pair in pairs if pair[0] == limited] or pairs
    if len(pairs) > 1:
        pairs = [pair for pair in pairs if lies_in(pair[1], pair[0])]
    return pairs[0] if len(pairs) == 1 else None


def lies_in(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith(ancestor.rstrip("/") + "/")


def parse_task_in(text: str, limited: str | None) -> tuple[str, str] | None:
    """Whose limit was hit, and where the chosen one lived, before Linux 5.0."""
    if not text.startswith("Task in /"):
        return None
    pairs = splits(text.removeprefix("Task in "), " killed as a result of limit of ")
    return choose([(limit, lived) for lived, limit in pairs], limited)


def parse_killed(text: str, sequence: int, microseconds: int) -> KillLine | None:
    match = KILLED.fullmatch(text)
    if match is None:
        return None
    uid = match["uid"] or match["uid6"] or match["uid7"]
    killed = Killed(
        sequence=sequence,
        microseconds=microseconds,
        pid=int(match["pid"]),
        comm=match["comm"],
        uid=int(uid) if uid else None,
        oom_score_adj=int(match["adj"]) if match["adj"] else None,
        total_vm_bytes=int(match["vm"]) << 10,
        anon_bytes=int(match["anon"]) << 10,
        file_bytes=int(match["file"]) << 10,
        shmem_bytes=int(match["shmem"] or 0) << 10,
        page_table_bytes=int(match["tables"]) << 10 if match["tables"] else None,
    )
    prefix = match[1]
    of_cgroup = None if prefix is None else prefix.startswith("Memory cgroup")
    return KillLine(of_cgroup, prefix is not None and "allocating" in prefix, killed)


def parse_exiting(text: str) -> Exiting | None:
    if match := EXITING.fullmatch(text):
        return Exiting(match[1].startswith("Memory cgroup"), int(match[2]), match[3])
    return None
