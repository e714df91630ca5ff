"""Which killers can still take a process, and the one change that would help against each."""

from collections.abc import Iterable, Sequence
from typing import Final

from oomwatchd.auditing import (
    KILLERS,
    Cgroup,
    Holder,
    Killer,
    Standing,
    Subject,
    Surroundings,
    Verdict,
    Verdicts,
)
from oomwatchd.policy import audit_kernel, audit_others, audit_systemd
from oomwatchd.policy.queue import Queues
from oomwatchd.policy.unseen import killers_at, unseen

GRAVITY: Final[tuple[Standing, ...]] = ("absent", "safe", "last_in_line", "unknown", "exposed")
SCOPE_TO_COME: Final = "/oomwatchd.slice/oomwatchd.scope"  # stands for all of them
SHIELDED: Final[tuple[Killer, ...]] = ("oom_group", "oom_policy", "systemd_oomd")


class Auditor:
    """Judges processes by the same surroundings, one after the other."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._queues = Queues(surroundings)

    def verdicts(self, subject: Subject) -> Verdicts:
        """One for each killer, in the order of KILLERS."""
        around, queues = self._around, self._queues
        found: dict[Killer, Verdict] = {
            "kernel": audit_kernel.kernel(subject, around, queues),
            "cgroup": self._at_limits(subject),
            "oom_group": audit_kernel.oom_group(subject, around),
            "oom_policy": worst(audit_systemd.oom_policies(subject, around)),
            "systemd_oomd": worst(audit_systemd.systemd_oomd(subject, around)),
            "earlyoom": audit_others.earlyoom(subject, around, queues),
            "nohang": audit_others.nohang(subject, around, queues),
            "ray": audit_others.ray(subject, around),
            "kubelet": audit_others.kubelet(subject, around),
        }
        if reason := unseen(subject):
            found |= self._in_doubt(subject, found, reason)
        if not subject.rule.protects:  # nothing has to change for its sake
            found = {killer: one._replace(advice="") for killer, one in found.items()}
        return {killer: found[killer] for killer in KILLERS}

    def _in_doubt(self, subject: Subject, found: Verdicts, reason: str) -> dict[Killer, Verdict]:
        """What is seen to be exposed stays so; a mark that was not seen says nothing either way."""
        unknown = Verdict("unknown", reason)
        changed: dict[Killer, Verdict] = {
            killer: worst([found[killer], unknown]) for killer in killers_at(subject, self._around)
        }
        if found["systemd_oomd"].verdict != "absent":
            changed["systemd_oomd"] = unknown
        return changed

    def _at_limits(self, subject: Subject) -> Verdict:
        limited = audit_kernel.limited(subject, self._around)
        if not limited:
            return Verdict("absent", "no cgroup above it has a limit that can be reached")
        return worst(
            [
                audit_kernel.at_limit(subject, cgroup, self._around, self._queues)
                for cgroup in limited
            ]
        )


def worst(verdicts: list[Verdict]) -> Verdict:
    """The gravest; of two that only say who goes first, where less does."""
    return max(
        verdicts,
        key=lambda verdict: (GRAVITY.index(verdict.verdict), -(verdict.first_bytes or 0)),
    )


def as_shielded(subject: Subject) -> Subject:
    """*subject* as its rule's shield will have it; in a scope of its own, no cgroup above it takes
    it along, but as the main process of a service it may still be that.

    For `check`, which is asked before a configuration is in force.
    """
    if subject.rule.shield == "none" or subject.in_container:
        return subject
    if subject.rule.shield == "scope":
        home = subject.home or subject.line
        return subject._replace(line=(), init_scope=None, home=home)
    *above, own = subject.line
    groups = (marked(cgroup) if cgroup.oom_group else cgroup for cgroup in above)
    manager = subject.init_scope
    return subject._replace(
        line=(*groups, marked(own)),
        init_scope=None if manager is None else marked(manager),
    )


def after_moves(subjects: Iterable[Subject], holders: Sequence[Holder]) -> tuple[Holder, ...]:
    """*holders*, the first created first, when those whose shield is a scope have theirs: with
    their descendants, as far as these are in the same unit.
    """
    units = {
        subject.holder.pid: unit_of(subject)
        for subject in subjects
        if subject.rule.shield == "scope" and not subject.in_container
    }
    for holder in holders:
        unit = units.get(holder.parent_pid)
        if unit is not None and unit.holds(holder.cgroup):
            units.setdefault(holder.pid, unit)
    return tuple(
        holder._replace(cgroup=SCOPE_TO_COME) if holder.pid in units else holder
        for holder in holders
    )


def unit_of(subject: Subject) -> Cgroup:
    """The cgroup of the unit that it lies in; its own, if in none."""
    units = (
        cgroup
        for cgroup in reversed(subject.line)
        if any(not unit.name.endswith(".slice") for unit in cgroup.units)
    )
    return next(units, subject.line[-1])


def marked(cgroup: Cgroup) -> Cgroup:
    return cgroup._replace(preference="omit")
