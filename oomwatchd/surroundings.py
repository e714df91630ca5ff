"""Finding out all that an audit goes by: processes, cgroups, the kernel's settings, systemd's.

Whoever may not see all of it is told less, and the audit says so.
"""

import os
import pwd
from collections.abc import Container, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, Literal, NamedTuple

from oomwatchd.auditing import Cgroup, Holder, Hunter, Machine, Subject, Surroundings, UnitName
from oomwatchd.identify import cgroup_of
from oomwatchd.kernel.adjust import read_adj
from oomwatchd.kernel.cgroup import in_container, in_kubernetes_pod, units_of
from oomwatchd.kernel.proc import (
    GONE,
    Look,
    ProcFs,
    in_pid_namespace,
    parse_arguments,
    read_arguments,
)
from oomwatchd.kernel.rights import may_kill
from oomwatchd.kernel.settings import parse_unfreed, read_vm_settings
from oomwatchd.kernel.status import Status, memory_status, parse_meminfo
from oomwatchd.kernel.tree import CgroupTree
from oomwatchd.model import Rule
from oomwatchd.policy.shielding import our_scope
from oomwatchd.systemd.oomd import read_oomd
from oomwatchd.systemd.units import Ask
from oomwatchd.text import decoded

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
INIT: Final = 1
OOMD: Final = b"systemd-oomd"
OOMD_UNIT: Final = "systemd-oomd.service"
# By the names of their processes; k3s, RKE2 and MicroK8s have the kubelet built in.
HUNTERS: Final[dict[bytes, Literal["earlyoom", "nohang", "ray", "kubelet"]]] = {
    b"earlyoom": "earlyoom",
    b"nohang": "nohang",
    b"raylet": "ray",
    b"kubelet": "kubelet",
    b"k3s": "kubelet",
    b"k3s-server": "kubelet",
    b"k3s-agent": "kubelet",
    b"rke2": "kubelet",
    b"kubelite": "kubelet",
}
KILLS_ITS_OWN: Final = "ray"  # which takes no rights


class Target(NamedTuple):
    """A process to audit: one that a rule matches."""

    pid: int
    start_ticks: int
    rule: Rule
    wanted: int  # the value that the rule wants


class Sources(NamedTuple):
    """Where to look; the tests have trees of their own."""

    proc: ProcFs
    cgroups: CgroupTree
    files: Path  # the root of the file system
    ask: Ask


class Census(NamedTuple):
    """Every process that holds memory, but for pid 1 and us."""

    holders: tuple[Holder, ...]  # the first created first
    started: dict[int, int]  # by pid
    paths: dict[int, str]  # by pid: of some, the cgroup's as the file system has it
    hunters: tuple[Hunter, ...]
    oomd_runs: bool
    hidden: str


def survey(targets: Sequence[Target], sources: Sources) -> tuple[list[Subject], Surroundings]:
    """The subjects among *targets* that still live, and what surrounds them."""
    census = taken(sources.proc, {target.pid for target in targets})
    holders = {holder.pid: holder for holder in census.holders}
    subjects = [
        subject_of(target, holders[target.pid], census.paths[target.pid], sources.cgroups)
        for target in targets
        if census.started.get(target.pid) == target.start_ticks
    ]
    answers = sources.ask(units_to_ask(subjects))
    return subjects, Surroundings(
        machine=machine(sources.proc.root),
        holders=census.holders,
        unified=sources.cgroups.unified,
        units=answers.units,
        systemd_version=answers.version,
        oomd=read_oomd(sources.files, running=census.oomd_runs),
        hunters=census.hunters,
        hidden=census.hidden,
        by_root=os.geteuid() == 0,
    )


def subject_of(target: Target, holder: Holder, path: str, cgroups: CgroupTree) -> Subject:
    return Subject(
        holder=holder,
        rule=target.rule,
        wanted=target.wanted,
        line=cgroups.line(path),
        init_scope=cgroups.init_scope(path) if cgroups.unified else None,
        in_pod=in_kubernetes_pod(holder.cgroup),
        in_container=in_container(holder.cgroup),
        home=home_line(holder.cgroup, cgroups),
    )


def home_line(path: str, cgroups: CgroupTree) -> tuple[Cgroup, ...]:
    """For *path* in a scope of ours: the cgroups down to that which those in it are from."""
    scope = our_scope(path) if cgroups.unified else None
    home = cgroups.home_of(scope) if scope is not None else None
    return cgroups.line(home) if home is not None else ()


def units_to_ask(subjects: Iterable[Subject]) -> list[UnitName]:
    """Each once: most are shared by many."""
    cgroups = (cgroup for subject in subjects for cgroup in (*subject.line, *subject.home))
    return list(dict.fromkeys(unit for cgroup in cgroups for unit in cgroup.units))


def machine(proc: Path) -> Machine:
    raw = (proc / "meminfo").read_bytes()
    memory, unfreed = parse_meminfo(raw), parse_unfreed(raw)
    settings = read_vm_settings(proc)
    return Machine(
        page_bytes=PAGE_BYTES,
        total_pages=(memory.total_bytes + memory.swap_total_bytes) // PAGE_BYTES,
        swap_pages=memory.swap_total_bytes // PAGE_BYTES,
        panic_on_oom=settings.panic_on_oom,
        oom_kill_allocating_task=settings.oom_kill_allocating_task,
        overcommit_memory=settings.overcommit_memory,
        huge_bytes=unfreed.huge_bytes,
        shared_bytes=unfreed.shared_bytes,
    )


# -- processes -------------------------------------------------------------------------------------


def taken(proc: ProcFs, asked: Container[int]) -> Census:
    """*asked*: the pids of those whose cgroups are to be looked at."""
    found: list[tuple[int, Holder]] = []
    paths: dict[int, str] = {}
    hunters: list[Hunter] = []
    oomd_runs, refused = False, 0
    pids = {int(name) for name in proc.listing()}
    for pid in sorted(pids - {INIT, os.getpid()}):
        try:
            look = proc.look(pid)
            if look is None:
                continue
            with closing(look):
                if pid in asked:
                    paths[pid] = cgroup_of(look.directory, decode=os.fsdecode).path
                holder = read_holder(look)
                hunters += hunting(look)
        except PermissionError:
            refused += 1
        except GONE:
            continue
        else:
            if holder is not None:
                found.append((look.id.start_ticks, holder))
                oomd_runs = oomd_runs or is_oomd(look, holder)
    found.sort(key=lambda pair: (pair[0], pair[1].pid))
    return Census(
        tuple(holder for _, holder in found),
        {holder.pid: start_ticks for start_ticks, holder in found},
        paths,
        tuple(hunters),
        oomd_runs,
        hidden(proc.root, pids, refused),
    )


def read_holder(look: Look) -> Holder | None:
    """None if it is a kernel thread, or holds no memory any more."""
    status = None if look.stat.kernel_thread else memory_status(look.directory)
    if status is None:
        return None
    membership = cgroup_of(look.directory)
    return Holder(
        pid=look.id.pid,
        parent_pid=look.stat.parent_pid,
        session=look.stat.session,
        name=decoded(look.stat.comm),
        uid=status.uid,
        oom_score_adj=read_adj(look.directory),
        counted_pages=counted_bytes(status) // PAGE_BYTES,
        freed_pages=(status.rss_anon_bytes + status.swap_bytes) // PAGE_BYTES,
        cgroup=membership.path,
        unit_path=membership.unit_path,
    )


def counted_bytes(status: Status) -> int:
    return status.resident_bytes + status.swap_bytes + status.page_tables_bytes


def is_oomd(look: Look, holder: Holder) -> bool:
    return look.stat.comm == OOMD and units_of(holder.unit_path).system == OOMD_UNIT


def hunting(look: Look) -> list[Hunter]:
    """It, if it is one of those that kill for want of memory, and may."""
    killer = HUNTERS.get(look.stat.comm)
    if killer is None or (killer != KILLS_ITS_OWN and not may_kill(look.directory)):
        return []
    arguments = parse_arguments(read_arguments(look.directory))
    return [Hunter(killer, look.id.pid, tuple(decoded(word) for word in arguments))]


def hidden(proc: Path, pids: Iterable[int], refused: int) -> str:
    """Which processes we were not shown, and as whom."""
    if in_pid_namespace(proc):
        return "processes outside of this container"
    if INIT not in pids:
        return f"processes of other users, which /proc hides from {me()}"
    if refused:
        return f"{refused} processes that {me()} may not read"
    return ""


def me() -> str:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
