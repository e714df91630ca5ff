"""Who killed whom, in one sentence, for the page and for the terminal."""

from collections.abc import Mapping
from typing import Final

from oomwatchd.incident import (
    CPUSET,
    MEMORY_POLICY,
    NOWHERE,
    WHOLE_MACHINE,
    Case,
    Incident,
    Killer,
)
from oomwatchd.policy.words import size

KILLERS: Final[Mapping[Killer, str]] = {
    "kernel": "the kernel, as the machine was out of memory",
    "cgroup": "the kernel, as a cgroup had reached its limit",
    "oom_group": "the kernel, which kills this cgroup as a whole (memory.oom.group)",
    "systemd_oomd": "systemd-oomd, which kills whole cgroups by pressure or swap",
    "unknown": "an unknown sender of SIGKILL: not the kernel's OOM killer, not systemd-oomd",
}
SCOPES: Final[Mapping[str, str]] = {
    WHOLE_MACHINE: "the whole machine",
    CPUSET: "the memory nodes of its cpuset",
    MEMORY_POLICY: "the memory nodes of its NUMA policy",
    NOWHERE: "not known",
}
SHORT: Final[Mapping[Killer, str]] = {
    "kernel": "was killed by the kernel: the machine was out of memory",
    "cgroup": "was killed by the kernel at its cgroup's limit",
    "oom_group": "was killed by the kernel with its whole cgroup",
    "systemd_oomd": "was killed by systemd-oomd",
    "unknown": "was ended by SIGKILL from an unknown sender",
}
BY_SYSRQ: Final = "by hand (SysRq f)"

SOURCES: Final[Mapping[str, str]] = {
    "kernel_log": "the kernel's log",
    "counters": "the kernel's counters",
    "systemd_oomd": "systemd-oomd itself",
    "systemd": "the service manager",
}


def headline(incident: Incident) -> str:
    victim, case = incident.victim, incident.case
    pid = f" (pid {victim.pid})" if victim.pid is not None else ""
    limit = f" of {size(case.limit_bytes)}" if case.killer == "cgroup" and case.limit_bytes else ""
    more = victims_total(case) - 1
    others = f", and {more} more with it" if more > 0 else ""
    how = f"was killed by the kernel, {BY_SYSRQ}" if case.by_sysrq else SHORT[case.killer]
    return f"{victim.name}{pid} {how}{limit}{others}"


def victims_total(case: Case) -> int:
    return len(case.victims) + case.victims_left_out


def killer_in_words(case: Case) -> str:
    return f"the kernel, {BY_SYSRQ}" if case.by_sysrq else KILLERS[case.killer]


def scope_in_words(case: Case) -> str:
    if case.by_sysrq:
        return "nowhere that is known of"
    return SCOPES.get(case.scope, case.scope)


def evidence(case: Case) -> str:
    told = [SOURCES.get(source, source) for source in case.sources]
    return ", ".join(told) or "its end by SIGKILL alone"
