"""The killers in user space besides systemd's: earlyoom, nohang, Ray and the kubelet.

Source:  earlyoom(1) and its kill.c; nohang's nohang.conf; Ray, src/ray/common/memory_monitor;
         kubernetes, pkg/kubelet/eviction.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from oomwatchd.auditing import Holder, Hunter, Subject, Surroundings, Verdict
from oomwatchd.model import OOM_SCORE_ADJ_MIN
from oomwatchd.policy import badness
from oomwatchd.policy.audit_kernel import as_root, by_place
from oomwatchd.policy.queue import Place, PointsOf, Queues, by_kernel

# earlyoom adds 300 to oom_score, or takes them away; 2/3 of that scale is that of oom_score_adj.
PREFER_ADJ: Final = 450
# With this it only says whom it would kill.  nohang has no such option: what does not --monitor,
# shows something and ends.
DRY_RUN: Final = {"earlyoom": "--dryrun"}
ANCESTORS_MAX: Final = 100  # how far up a worker of Ray may stand below its raylet
Matches = re.Pattern[str]


class Earlyoom(NamedTuple):
    """What its command line says."""

    prefer: Matches | None = None
    avoid: Matches | None = None
    ignore: Matches | None = None
    ignores_root: bool = False
    by_resident: bool = False  # the largest dies first, whatever its value
    whole_groups: bool = False  # kills the victim's process group
    limits: str = ""  # -m, -M, -s and -S, as given


def hunter(around: Surroundings, killer: str) -> Hunter | Verdict:
    """The one that runs; or the verdict, if none is seen that kills."""
    running = [one for one in around.hunters if one.killer == killer]
    dry_run = DRY_RUN.get(killer)
    found = next((one for one in running if dry_run not in one.arguments), None)
    if found is not None:
        return found
    if around.hidden:
        return Verdict("unknown", f"whether it runs: {around.hidden}", as_root(around))
    if running:
        return Verdict("safe", f"it runs with {dry_run}, and kills nobody")
    return Verdict("absent", "it does not run")


# -- earlyoom, nohang ------------------------------------------------------------------------------


def earlyoom(subject: Subject, around: Surroundings, queues: Queues) -> Verdict:
    found = hunter(around, "earlyoom")
    if isinstance(found, Verdict):
        return found
    ways = parse_earlyoom(found.arguments)
    limits = f" ({ways.limits})" if ways.limits else ""
    why = f"earlyoom runs{limits} and goes by oom_score"
    if ways.by_resident:
        why = f"earlyoom runs{limits} and kills the largest first, whatever its value"
    points_of = earlyoom_points(ways, around.machine.total_pages)
    place = queues.of_all("earlyoom", points_of).place(subject.holder.pid)
    if place.points is None:
        return Verdict("safe", f"{why}; it is never picked")
    if ways.whole_groups and shares_session(subject.holder, around):
        return Verdict(
            "exposed",
            f"{why}; with -g it kills the victim's process group, and perhaps this one with it",
            "start earlyoom without -g",
        )
    return beside(why, place, subject, around, way_out(ways, subject.holder))


def way_out(ways: Earlyoom, holder: Holder) -> str:
    """What of its command line stands against the process, if anything does."""
    if ways.by_resident:
        return "start earlyoom without --sort-by-rss"
    if ways.prefer is not None and ways.prefer.search(holder.name):
        return f"take {holder.name} out of what earlyoom is to --prefer"
    return ""


def earlyoom_points(ways: Earlyoom, total_pages: int) -> PointsOf:
    points = by_kernel(total_pages)
    step = badness.step_pages(total_pages)

    def points_of(holder: Holder) -> int | None:
        ignored = ways.ignore is not None and ways.ignore.search(holder.name)
        if ignored or (ways.ignores_root and holder.uid == 0):
            return None
        if holder.oom_score_adj == OOM_SCORE_ADJ_MIN:
            return None
        base = holder.counted_pages if ways.by_resident else points(holder) or 0
        if ways.prefer is not None and ways.prefer.search(holder.name):
            base += PREFER_ADJ * step
        if ways.avoid is not None and ways.avoid.search(holder.name):
            base -= PREFER_ADJ * step
        return base

    return points_of


def parse_earlyoom(arguments: Sequence[str]) -> Earlyoom:
    """Options of versions up to 1.8; what it would not take itself is passed over."""
    patterns: dict[str, Matches | None] = {}
    limits: list[str] = []
    flags: set[str] = set()
    words = iter(arguments[1:])
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--prefer", "--avoid", "--ignore"):
            patterns[name] = pattern(value if equals else next(words, ""))
        elif word[:2] in ("-m", "-M", "-s", "-S"):
            limits.append(f"{word[:2]} {word[2:] or next(words, '')}")
        else:
            flags.add(word)
    return Earlyoom(
        prefer=patterns.get("--prefer"),
        avoid=patterns.get("--avoid"),
        ignore=patterns.get("--ignore"),
        ignores_root="--ignore-root-user" in flags,
        by_resident="--sort-by-rss" in flags,
        whole_groups="-g" in flags,
        limits=" ".join(limits),
    )


def pattern(text: str) -> Matches | None:
    """It takes POSIX's extended expressions, which for names like these are the same."""
    try:
        return re.compile(text)
    except re.error:
        return None


def shares_session(holder: Holder, around: Surroundings) -> bool:
    """A process group lies within one session; who is alone in that, is alone in its group."""
    return any(
        other.session == holder.session and other.pid != holder.pid for other in around.holders
    )


def nohang(subject: Subject, around: Surroundings, queues: Queues) -> Verdict:
    found = hunter(around, "nohang")
    if isinstance(found, Verdict):
        return found
    why = "nohang runs and goes by oom_score, and by rules of its own, which are not read"
    points_of = by_kernel(around.machine.total_pages)
    place = queues.of_all("kernel", points_of).place(subject.holder.pid)
    if place.points is None:
        return Verdict("safe", f"{why}; at {OOM_SCORE_ADJ_MIN} its oom_score is 0")
    return beside(why, place, subject, around)


def beside(
    why: str, place: Place, subject: Subject, around: Surroundings, advice: str = ""
) -> Verdict:
    if subject.holder.oom_score_adj > 0 and not subject.rule.protects:
        return Verdict("exposed", f"{why}; its value puts it forward, as meant")
    verdict = by_place(place, subject, around)
    if advice and verdict.verdict == "exposed":
        verdict = verdict._replace(advice=advice)
    return verdict._replace(reason=f"{why}; {verdict.reason}")


# -- Ray, kubelet ----------------------------------------------------------------------------------


def ray(subject: Subject, around: Surroundings) -> Verdict:
    found = hunter(around, "ray")
    if isinstance(found, Verdict):
        return found
    if not descends(subject.holder, around):
        return Verdict("safe", "Ray runs, but its memory monitor kills its own workers only")
    return Verdict(
        "exposed",
        "it is a worker of Ray, whose memory monitor kills workers above a share of memory and"
        " reads no oom_score_adj",
        "start Ray with RAY_memory_monitor_refresh_ms=0",
    )


def descends(holder: Holder, around: Surroundings) -> bool:
    """Whether a raylet is among its ancestors."""
    by_pid = {other.pid: other for other in around.holders}
    raylets = {one.pid for one in around.hunters if one.killer == "ray"}
    parent = by_pid.get(holder.parent_pid)
    for _ in range(ANCESTORS_MAX):
        if parent is None:
            return False
        if parent.pid in raylets:
            return True
        parent = by_pid.get(parent.parent_pid)
    return False


def kubelet(subject: Subject, around: Surroundings) -> Verdict:
    if subject.in_pod:
        return Verdict(
            "exposed",
            "it is in a pod: when the node is short of memory, the kubelet evicts whole pods by"
            " priority and by use above their requests, and reads no oom_score_adj",
            "give the pod a memory request as high as its limit, and a priority class",
        )
    found = hunter(around, "kubelet")
    if isinstance(found, Verdict):
        return found
    return Verdict("safe", "a kubelet runs, but evicts pods only, and it is in none")
