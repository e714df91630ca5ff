"""``oomwatchd audit``: which killers can still take what the rules match, and what would help."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.auditing import Killer, Standing, Subject, Verdicts
from oomwatchd.cli import exits
from oomwatchd.cli.arguments import process_id
from oomwatchd.cli.failure import Failure, fail
from oomwatchd.cli.table import bold, show, show_document, terminal_width, wrapped
from oomwatchd.cli.verdict import Doubt, Judge, Verdict, doubted, loaded, unseen_remarks
from oomwatchd.kernel.cgroup import units_of
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.kernel.tree import CgroupTree
from oomwatchd.model import Config
from oomwatchd.paths import CONFIG
from oomwatchd.policy.audit import GRAVITY, Auditor
from oomwatchd.policy.shielding import OUR_SCOPE
from oomwatchd.surroundings import PAGE_BYTES, Sources, Target, survey
from oomwatchd.systemd.asking import ask_within
from oomwatchd.text import printable, size

FILES: Final = Path("/")
WIDTH: Final = 80  # where no terminal says otherwise
WIDEST: Final = 120  # longer lines are hard to read
SHOWN: Final[dict[Standing, str]] = {
    "exposed": "EXPOSED",
    "unknown": "unknown",
    "last_in_line": "last in line",
    "safe": "safe",
    "absent": "absent",
}
MOVED: Final = (
    "it is in a scope of its own: logging out, and stopping the unit it was started in, do not end"
    " it any more; systemctl stop {scope} does"
)


class Audited(NamedTuple):
    """One process, with what was found."""

    subject: Subject
    verdicts: Verdicts


class Report(NamedTuple):
    audited: list[Audited]
    remarks: list[str]  # on what could not be seen
    whole: bool  # nobody else may be under a rule


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rule", metavar="NAME", help="only what this rule matches")
    parser.add_argument("--pid", type=process_id, metavar="N", help="only this process")
    parser.add_argument("-c", "--config", type=Path, default=CONFIG, metavar="FILE",
                        help=f"the configuration; {CONFIG} if not given")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a list, for programs")


def run(arguments: argparse.Namespace) -> int:
    try:
        config = loaded(arguments.config, root_only=False).config
        with closing(ProcFs()) as proc:
            sources = Sources(proc, CgroupTree(), FILES, ask_within)
            return audit(arguments, config, sources)
    except Failure as failure:
        return fail("audit", failure)
    except FileNotFoundError as error:  # /proc with subset=pid, or none at all
        print(f"oomwatchd audit: {error.filename}: {error.strerror}", file=sys.stderr)
        return exits.NO_INPUT


def audit(arguments: argparse.Namespace, config: Config, sources: Sources) -> int:
    """Raises:  Failure, if there is no such rule or process."""
    report = reported(config, sources, rule=arguments.rule, pid=arguments.pid)
    if arguments.json:
        show_document([as_json(one) for one in report.audited])
        show(report.remarks, sys.stderr)
    else:
        show(as_text(report), sys.stdout)
    if exposures(report.audited):
        return exits.NO
    return exits.FINE if report.whole else exits.NOT_PERMITTED


# -- finding out -----------------------------------------------------------------------------------


def reported(
    config: Config, sources: Sources, *, rule: str | None = None, pid: int | None = None
) -> Report:
    """Raises:  Failure, if there is no such rule or process."""
    names = [one.name for one in config.rules]
    if rule is not None and rule not in names:
        raise Failure(f"there is no rule {rule}; there are: {', '.join(names)}", exits.NO)
    pids = [pid] if pid is not None else sorted(map(int, sources.proc.listing()))
    targets, doubts, hidden = matched(Judge(config, sources.proc), pids)
    if pid is not None and not targets:
        unseen = hidden or doubts
        reason = "may not be seen by you: try as root" if unseen else "is under no rule"
        raise Failure(f"process {pid} {reason}", exits.NOT_PERMITTED if unseen else exits.NO)
    doubts = [doubt for doubt in doubts if rule in (None, doubt.rule.name)]
    targets = [target for target in targets if rule in (None, target.rule.name)]
    subjects, around = survey(targets, sources)
    auditor = Auditor(around)
    audited = [Audited(subject, auditor.verdicts(subject)) for subject in subjects]
    remarks = [*doubted(doubts), *unseen_remarks(hidden)]
    if around.hidden:
        remarks.append(f"not seen: {around.hidden}; try as root")
    remarks += [f"not read: {file}" for file in around.oomd.unread]
    return Report(audited, remarks, whole=not (doubts or hidden))


def matched(judge: Judge, pids: Iterable[int]) -> tuple[list[Target], list[Doubt], int]:
    """Those of *pids* that rules match, those that may be, and how many may not be seen at all."""
    targets: list[Target] = []
    doubts: list[Doubt] = []
    hidden = 0
    for pid in pids:
        try:
            verdict = judge.verdict(pid)
        except PermissionError:
            hidden += 1
            continue
        if verdict is not None and verdict.doubt is not None:
            doubts.append(verdict.doubt)
        target = None if verdict is None else target_of(verdict)
        if target is not None:
            targets.append(target)
    return targets, doubts, hidden


def target_of(verdict: Verdict) -> Target | None:
    if verdict.rule is None or verdict.process is None or verdict.wanted is None:
        return None
    return Target(*verdict.process.id, verdict.rule, verdict.wanted)


def exposures(audited: Iterable[Audited]) -> Counter[Killer]:
    """Of what rules mean to protect, how many each killer can take."""
    return Counter(
        killer
        for one in audited
        if one.subject.rule.protects
        for killer, verdict in one.verdicts.items()
        if verdict.verdict == "exposed"
    )


# -- showing ---------------------------------------------------------------------------------------


def as_json(one: Audited) -> dict[str, object]:
    """The field names are a contract."""
    holder = one.subject.holder
    units = units_of(holder.unit_path)
    return {
        "pid": holder.pid,
        "name": holder.name,
        "rule": one.subject.rule.name,
        "oom_score_adj": holder.oom_score_adj,
        "wanted": one.subject.wanted,
        "memory_bytes": holder.counted_pages * PAGE_BYTES,
        "cgroup": holder.cgroup,
        "unit": units.user or units.system,
        "shield": one.subject.rule.shield,
        "killers": {killer: verdict._asdict() for killer, verdict in one.verdicts.items()},
        "notes": notes(one),
    }


def notes(one: Audited) -> list[str]:
    cgroup = one.subject.holder.cgroup
    if not OUR_SCOPE.fullmatch(cgroup):
        return []
    return [MOVED.format(scope=cgroup.split("/")[2])]


def as_text(report: Report) -> Iterator[str]:
    """Those of a kind together: workers of one run differ in little but their pids."""
    width = min(terminal_width(sys.stdout) or WIDTH, WIDEST)
    kinds: dict[object, list[Audited]] = {}
    for one in report.audited:
        kinds.setdefault(kind(one), []).append(one)
    for alike in kinds.values():
        yield from block(alike, width)
        yield ""
    for remark in report.remarks:
        yield from wrapped("", remark, width)
    yield from wrapped("", summary(report), width)


def kind(one: Audited) -> object:
    standings = tuple(verdict.verdict for verdict in one.verdicts.values())
    holder = one.subject.holder
    return one.subject.rule.name, holder.cgroup, holder.oom_score_adj, standings


def block(alike: list[Audited], width: int) -> Iterator[str]:
    """What holds for all of them; the figures are those of the first, the largest."""
    alike = sorted(alike, key=lambda one: -one.subject.holder.counted_pages)
    one = alike[0]
    for line in wrapped("", heading(alike), width):
        yield bold(line, sys.stdout)
    ordered = sorted(one.verdicts.items(), key=lambda pair: -GRAVITY.index(pair[1].verdict))
    for killer, verdict in ordered:
        if verdict.verdict == "absent":
            continue
        first = f"  {SHOWN[verdict.verdict]:12}  {killer:12}  "
        yield from wrapped(first, verdict.reason, width)
        if verdict.advice:
            yield from wrapped(f"{'':30}-> ", verdict.advice, width)
    absent = [killer for killer, verdict in ordered if verdict.verdict == "absent"]
    if absent:
        yield from wrapped(f"  {SHOWN['absent']:12}  ", ", ".join(absent), width)
    for note in notes(one):
        yield from wrapped("  note: ", note, width)


def heading(alike: list[Audited]) -> str:
    holder, rule = alike[0].subject.holder, alike[0].subject.rule
    more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
    memory = size(holder.counted_pages * PAGE_BYTES)
    return (
        f"{printable(holder.name)} ({holder.pid}){more}, rule {rule.name}:"
        f" oom_score_adj {holder.oom_score_adj}, {memory}"
    )


def summary(report: Report) -> str:
    audited = report.audited
    if not audited:
        known = "" if report.whole else ", as far as may be seen by you"
        return f"No process that runs now is under a rule{known}."
    number = f"{len(audited)} process{'es' * (len(audited) != 1)}"
    counts = exposures(audited)
    if not counts:
        return f"{number}; none that a rule protects is exposed."
    exposed = ", ".join(f"{count} to {killer}" for killer, count in counts.items())
    return f"{number}; of those that a rule protects are exposed: {exposed}."
