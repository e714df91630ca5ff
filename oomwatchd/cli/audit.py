"""``oomwatchd audit``: which killers can still take what the rules match, and what would help."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.auditing import Killer, Standing, Subject, Verdicts
from oomwatchd.cli import exits
from oomwatchd.cli.failure import Failure, fail
from oomwatchd.cli.table import bold, show, terminal_width, wrapped
from oomwatchd.cli.verdict import Judge, Verdict, loaded
from oomwatchd.kernel.cgroup import units_of
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.kernel.tree import CgroupTree
from oomwatchd.model import Config
from oomwatchd.paths import CONFIG
from oomwatchd.policy.audit import GRAVITY, Auditor
from oomwatchd.policy.shielding import OUR_SCOPE
from oomwatchd.policy.unseen import judged
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


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rule", metavar="NAME", help="only what this rule matches")
    parser.add_argument("--pid", type=int, metavar="N", help="only this process")
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
        print(json.dumps([as_json(one) for one in report.audited], indent=2))
        show(report.remarks, sys.stderr)
    else:
        show(as_text(report), sys.stdout)
    return exits.NO if exposures(report.audited) else exits.FINE


# -- finding out -----------------------------------------------------------------------------------


def reported(
    config: Config, sources: Sources, *, rule: str | None = None, pid: int | None = None
) -> Report:
    """Raises:  Failure, if there is no such rule or process."""
    names = [one.name for one in config.rules]
    if rule is not None and rule not in names:
        raise Failure(f"there is no rule {rule}; there are: {', '.join(names)}", exits.NO)
    pids = [pid] if pid is not None else sorted(map(int, sources.proc.listing()))
    targets, unseen = matched(Judge(config, sources.proc), pids)
    if pid is not None and not targets:
        reason = "may not be seen by you: try as root" if unseen else "is under no rule"
        raise Failure(f"process {pid} {reason}", exits.NOT_PERMITTED if unseen else exits.NO)
    targets = [target for target in targets if rule in (None, target.rule.name)]
    subjects, around = survey(targets, sources)
    auditor = Auditor(around)
    audited = [Audited(subject, judged(auditor, subject, around)) for subject in subjects]
    remarks = [f"not seen: {around.hidden}; try as root"] if around.hidden else []
    remarks += [f"not read: {file}" for file in around.oomd.unread]
    return Report(audited, remarks)


def matched(judge: Judge, pids: Iterable[int]) -> tuple[list[Target], int]:
    """Those of *pids* that rules match, and the number of those that we may not find out about."""
    targets: list[Target] = []
    unseen = 0
    for pid in pids:
        try:
            verdict = judge.verdict(pid)
        except PermissionError:
            unseen += 1
            continue
        target = None if verdict is None else target_of(verdict)
        if target is not None:
            targets.append(target)
    return targets, unseen


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
    yield from wrapped("", summary(report.audited), width)


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


def summary(audited: list[Audited]) -> str:
    if not audited:
        return "No process that runs now is under a rule."
    number = f"{len(audited)} process{'es' * (len(audited) != 1)}"
    counts = exposures(audited)
    if not counts:
        return f"{number}; none that a rule protects is exposed."
    exposed = ", ".join(f"{count} to {killer}" for killer, count in counts.items())
    return f"{number}; of those that a rule protects are exposed: {exposed}."
