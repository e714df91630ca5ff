"""systemd's killers: the unit's OOMPolicy=, and systemd-oomd, which goes by pressure and swap."""

from typing import Final, NamedTuple

from oomwatchd.auditing import (
    Cgroup,
    Subject,
    Surroundings,
    UnitName,
    UnitSettings,
    Unseen,
    Verdict,
)
from oomwatchd.policy.audit_kernel import as_root, others_in
from oomwatchd.policy.queue import LITTLE_RATIO
from oomwatchd.text import size

SERVICE_OR_SCOPE: Final = (".service", ".scope")
PREFERENCES_SINCE: Final = (248, 0)
SAME_OWNER_SINCE: Final = (252, 0)
ROOT_NOT_HONOURED: Final = (252, 0)  # where the watched cgroup is not root's, too

# -- OOMPolicy= ------------------------------------------------------------------------------------


def oom_policies(subject: Subject, around: Surroundings) -> list[Verdict]:
    """One for each unit that it lies in: its own first, then perhaps its user's manager; and for
    the service that it was moved out of.
    """
    if not around.unified:
        return [Verdict("absent", "systemd sees the kernel's kills with cgroup v2 alone")]
    pairs = [
        (unit, cgroup)
        for cgroup in reversed(subject.line)
        for unit in cgroup.units
        if unit.name.endswith(SERVICE_OR_SCOPE)
    ]
    found = [oom_policy(subject, unit, cgroup, around) for unit, cgroup in pairs]
    found += by_home(subject, around)
    return found or [Verdict("absent", "it lies in no service or scope of systemd")]


def by_home(subject: Subject, around: Surroundings) -> list[Verdict]:
    """When systemd stops a service, it ends the main process wherever that lies."""
    found = []
    for cgroup in subject.home:
        unit = cgroup.units[0] if len(cgroup.units) == 1 else None  # a manager's is never moved
        if unit is None or not unit.name.endswith(".service"):
            continue
        settings = around.units.get(unit, Unseen("not asked"))
        verdict = oom_policy(subject, unit, cgroup, around)
        if isinstance(settings, Unseen):
            found.append(verdict)
        elif settings.main_pid == subject.holder.pid:
            why = f"wherever it lies, it is the main process of {unit.name}; {verdict.reason}"
            found.append(verdict._replace(reason=why))
    return found


def oom_policy(subject: Subject, unit: UnitName, cgroup: Cgroup, around: Surroundings) -> Verdict:
    others = others_in(cgroup, subject.holder, around)
    if not others and not around.hidden:
        return Verdict("safe", f"no other process of {unit.name} can be killed")
    settings = around.units.get(unit, Unseen("not asked"))
    if isinstance(settings, Unseen):
        return Verdict("unknown", f"OOMPolicy= of {unit.name}: {settings.reason}", as_root(around))
    policy = settings.oom_policy
    if policy is None:
        return Verdict("safe", f"{unit.name}: this systemd has no OOMPolicy= for it")
    if policy == "continue":
        return Verdict("safe", f"{unit.name} has OOMPolicy=continue")
    if not others:
        return Verdict("unknown", f"{unit.name} may hold {around.hidden}", as_root(around))
    what = "stops" if policy == "stop" else "kills"
    number = f"one of its {len(others)} others" if len(others) > 1 else "its one other process"
    reason = (
        f"{unit.name} has OOMPolicy={policy}: if the kernel kills {number}, systemd {what} them all"
    )
    return Verdict("exposed", reason, policy_advice(subject, unit))


def policy_advice(subject: Subject, unit: UnitName) -> str:
    """A scope is made by a program, not from a file that could be edited."""
    if unit.name.endswith(".scope"):
        return scope_advice(subject)
    edit = "systemctl edit" if unit.manager is None else "systemctl --user edit"
    return f"OOMPolicy=continue: {edit} {unit.name}"


# -- systemd-oomd ----------------------------------------------------------------------------------


class Watch(NamedTuple):
    """What systemd-oomd does when a unit is over its limit."""

    cgroup: Cgroup  # the unit's: below it, somebody is killed
    prefix: Cgroup  # whose owner decides which marks count


def systemd_oomd(subject: Subject, around: Surroundings) -> list[Verdict]:
    """One for each cgroup above it that systemd-oomd watches, or that we do not know about."""
    if not around.unified:
        return [Verdict("absent", "systemd-oomd needs cgroup v2 alone")]
    if not around.oomd.running and around.hidden:
        return [Verdict("unknown", f"whether it runs: {around.hidden}", as_root(around))]
    if not around.oomd.running:
        return [Verdict("absent", "systemd-oomd does not run")]
    settings = [
        (cgroup, unit, around.units.get(unit, Unseen("not asked")))
        for cgroup in subject.line
        for unit in cgroup.units
    ]
    verdicts = [
        verdict
        for cgroup, unit, found in settings
        for verdict in by_unit(subject, cgroup, unit, found, around)
    ]
    if around.oomd.rule_files:
        names = ", ".join(around.oomd.rule_files)
        verdicts.append(Verdict("unknown", f"systemd-oomd follows rules of its own: {names}"))
    return verdicts or [Verdict("safe", "systemd-oomd watches no cgroup above it")]


def by_unit(
    subject: Subject,
    watched: Cgroup,
    unit: UnitName,
    settings: UnitSettings | Unseen,
    around: Surroundings,
) -> list[Verdict]:
    for_pressure, for_swap = Watch(watched, watched), Watch(watched, subject.line[0])
    if isinstance(settings, Unseen):
        possible = [for_pressure, for_swap] if around.machine.swap_pages else [for_pressure]
        if all(never_candidate(subject, watch, around) for watch in possible):
            return []
        reason = f"whether systemd-oomd watches {unit.name}: {settings.reason}"
        return [Verdict("unknown", reason, as_root(around))]
    verdicts = []
    if settings.swap == "kill" and around.machine.swap_pages:  # first: its remedy serves for both
        when = f"when memory and swap are {around.oomd.swap_limit_ratio * 100:g} % full"
        verdicts.append(watched_by(subject, for_swap, f"{unit.name} {when}", around))
    if settings.pressure == "kill":
        limit = settings.pressure_limit_ratio or around.oomd.limit_ratio
        seconds = settings.pressure_seconds or around.oomd.seconds
        when = f"above {limit * 100:g} % memory pressure for {seconds:g} s"
        verdicts.append(watched_by(subject, for_pressure, f"{unit.name} {when}", around))
    return verdicts


def never_candidate(subject: Subject, watch: Watch, around: Surroundings) -> bool:
    """Whether nothing happens to it, should there be such a *watch*."""
    candidate = candidate_under(subject, watch.cgroup)
    return candidate is None or (
        candidate.preference == "omit"
        and honoured(candidate, watch.prefix, around.systemd_version) is True
        and not session_can_die(subject, watch, around)
    )


def session_can_die(subject: Subject, watch: Watch, around: Surroundings) -> bool:
    """Whether its user's manager is a candidate, with which all of the session ends."""
    manager = subject.init_scope
    if manager is None or not watch.cgroup.holds(manager.path):
        return False
    marked = manager.preference == "omit"
    return not (marked and honoured(manager, watch.prefix, around.systemd_version) is True)


def watched_by(subject: Subject, watch: Watch, why: str, around: Surroundings) -> Verdict:
    """What systemd-oomd would do by *watch*."""
    why = f"systemd-oomd kills cgroups of {why}"
    candidate = candidate_under(subject, watch.cgroup)
    if candidate is None:
        return Verdict("safe", f"{why}, but only those with no other below them, which its is not")
    if candidate.preference == "none":
        own = candidate is subject.line[-1]
        which = "its own" if own else f"{candidate.path}, which dies as a whole,"
        advice = shield_advice(subject, watch, around)
        return Verdict("exposed", f"{why}; {which} has no mark", advice)
    holds = honoured(candidate, watch.prefix, around.systemd_version)
    mark = f"the mark {candidate.preference} of its own"
    if holds is None:
        reason = getattr(around.systemd_version, "reason", "")
        return Verdict(
            "unknown",
            f"{why}; whether {mark} counts hangs on the version: {reason}",
            as_root(around),
        )
    if not holds:
        return Verdict(
            "exposed",
            f"{why}; {mark} does not count, {why_not(candidate, watch.prefix)}",
            scope_advice(subject),
        )
    return beside_others(subject, candidate, watch, f"{why}; {mark} counts", around)


def candidate_under(subject: Subject, watched: Cgroup) -> Cgroup | None:
    """The cgroup that would be killed with the process: its own, or one that dies as a group.

    Source:  systemd, src/oom/oomd-manager.c, recursively_get_cgroup_context().
    """
    below = [cgroup for cgroup in subject.line if watched.holds(cgroup.path)]
    group = next((cgroup for cgroup in below[1:] if cgroup.oom_group), None)
    own = subject.line[-1]
    return group or (own if own.leaf else None)


def honoured(cgroup: Cgroup, prefix: Cgroup, version: tuple[int, int] | Unseen) -> bool | None:
    """Whether a mark on *cgroup* counts; None: not known.

    *prefix* is, for pressure, the cgroup over its limit; for swap always the root.

    Source:  systemd, src/oom/oomd-util.c, of the versions named: oomd_sort_cgroup_contexts() and
             oomd_fetch_cgroup_oom_preference().
    """
    same_owner = cgroup.owner_uid == prefix.owner_uid
    if cgroup.owner_uid != 0 and not same_owner:
        return False
    if isinstance(version, Unseen):
        return True if same_owner and cgroup.owner_uid == 0 else None
    if version < PREFERENCES_SINCE:
        return False
    if cgroup.owner_uid == 0:
        return same_owner or version != ROOT_NOT_HONOURED
    return version >= SAME_OWNER_SINCE


def beside_others(
    subject: Subject, candidate: Cgroup, watch: Watch, why: str, around: Surroundings
) -> Verdict:
    """A mark that counts; but what does systemd-oomd take instead?"""
    manager_can_die = session_can_die(subject, watch, around)
    if candidate.preference == "omit" and not manager_can_die:
        return Verdict("safe", why)
    manager = subject.init_scope
    if manager is not None and manager_can_die:
        why = f"{why}, but {manager.path} has none, and with it the whole session ends"
    machine = around.machine
    first_pages = sum(
        holder.freed_pages
        for holder in around.holders
        if watch.cgroup.holds(holder.cgroup)
        and not candidate.holds(holder.cgroup)
        and not (manager is not None and manager.holds(holder.cgroup))
    )
    first_bytes = first_pages * machine.page_bytes
    advice = shield_advice(subject, watch, around)
    if first_pages < machine.total_pages * LITTLE_RATIO:
        return Verdict("exposed", f"{why}; next to nothing else could be killed", advice)
    reason = f"{why}; {size(first_bytes)} of others in {watch.cgroup.path} can go first"
    return Verdict("last_in_line", reason, advice, first_bytes)


def why_not(candidate: Cgroup, prefix: Cgroup) -> str:
    if candidate.owner_uid == prefix.owner_uid:
        return "as this version of systemd-oomd does not heed it"
    return (
        f"as {candidate.path} belongs to uid {candidate.owner_uid}"
        f" and {prefix.path} to uid {prefix.owner_uid}"
    )


def shield_advice(subject: Subject, watch: Watch, around: Surroundings) -> str:
    """A mark where it would count, else a cgroup of its own."""
    if subject.in_container:
        return scope_advice(subject)
    own = candidate_under(subject, watch.cgroup)
    if own is not None and honoured(own, watch.prefix, around.systemd_version) is not False:
        return f"shield: preference in rule {subject.rule.name}{already(subject, 'preference')}"
    return scope_advice(subject)


def scope_advice(subject: Subject) -> str:
    if subject.in_container:
        return "run it outside of the container: what is in one is not shielded"
    return f"shield: scope in rule {subject.rule.name}{already(subject, 'scope')}"


def already(subject: Subject, shield: str) -> str:
    """The rule may say so, and nobody has carried it out."""
    return " (it says so: does the daemon run?)" if subject.rule.shield == shield else ""
