"""``oomwatchd check``: what is wrong with a configuration, and what it would match now."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.auditing import Killer
from oomwatchd.cli import exits
from oomwatchd.cli.audit import FILES, target_of
from oomwatchd.cli.failure import fail, unreadable
from oomwatchd.cli.table import show, show_document
from oomwatchd.cli.verdict import Doubt, Judge, doubt_as_json, doubted, unseen_remarks
from oomwatchd.config import ConfigError, Fault, Loaded, load
from oomwatchd.kernel.features import PROBES, missing
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.kernel.tree import CgroupTree
from oomwatchd.model import Config, Rule
from oomwatchd.paths import CONFIG
from oomwatchd.pending import pending
from oomwatchd.policy.audit import SHIELDED, Auditor, after_moves, as_shielded
from oomwatchd.surroundings import Sources, Target, survey
from oomwatchd.systemd.asking import ask_within
from oomwatchd.text import printable

NAMED_PROCESSES: Final = 5  # of each rule, for people
ANSWER_SECONDS: Final = 3.0  # for systemd, which may be stuck while a configuration is checked


class Matched(NamedTuple):
    pid: int
    name: str


class Broken(NamedTuple):
    """What a rule promises, and cannot keep for some of its processes, shielded as it says."""

    rule: str
    killer: Killer
    pids: tuple[int, ...]
    reason: str  # of the first
    advice: str


class Census(NamedTuple):
    """What each rule matches among the processes there are now."""

    by_rule: dict[str, list[Matched]]
    targets: list[Target]
    seen: int
    hidden: int  # that exist and may not be read
    doubts: dict[int, Doubt]  # by pid, of those not known to be under a rule


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="?", default=CONFIG, metavar="FILE",
                        help=f"the configuration; {CONFIG} if not given")  # fmt: skip
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="all of it, for programs")
    what.add_argument("--rules", action="store_true",
                      help="only the names of the rules, one on a line")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    path = arguments.file
    try:
        loaded = load(path, root_only=os.geteuid() == 0)
    except ConfigError as error:
        return report_faults(error, as_json=arguments.json)
    except OSError as error:
        return fail("check", unreadable(path, error))
    if arguments.rules:
        show([rule.name for rule in loaded.config.rules], sys.stdout)
        return exits.FINE
    with closing(ProcFs()) as proc:
        census = taken(loaded.config, proc)
        broken = promises_broken(
            census.targets,
            Sources(proc, CgroupTree(), FILES, partial(ask_within, within_seconds=ANSWER_SECONDS)),
        )
    if arguments.json:
        show_document(document([], loaded.warnings, loaded.config, census, broken))
    else:
        show(as_text(path, loaded, census, broken), sys.stdout)
    return exits.FINE


def report_faults(error: ConfigError, *, as_json: bool) -> int:
    if as_json:
        show_document(document(error.faults, error.warnings, None, None))
        return exits.NO
    number = len(error.faults)
    show(map(str, error.faults), sys.stdout)
    show(warning_lines(error.warnings), sys.stdout)
    show([f"{number} fault{'s' * (number != 1)}; such a configuration is not used"], sys.stdout)
    return exits.NO


def taken(config: Config, proc: ProcFs) -> Census:
    judge = Judge(config, proc)
    census: dict[str, list[Matched]] = {rule.name: [] for rule in config.rules}
    targets: list[Target] = []
    doubts: dict[int, Doubt] = {}
    seen = hidden = 0
    for pid in map(int, proc.listing()):
        try:
            verdict = judge.verdict(pid)
        except PermissionError:
            hidden += 1
            continue
        if verdict is not None:
            seen += 1
            if verdict.doubt is not None:
                doubts[pid] = verdict.doubt
            target = target_of(verdict)
            if target is not None:
                targets.append(target)
                census[target.rule.name].append(Matched(pid, verdict.name))
    return Census(census, targets, seen, hidden, doubts)


def promises_broken(targets: Sequence[Target], sources: Sources) -> list[Broken]:
    """Where systemd or the cgroup can take what a rule protects, its shield notwithstanding."""
    protected = [target for target in targets if target.rule.protects]
    if not protected:
        return []
    subjects, around = survey(protected, sources)
    auditor = Auditor(around._replace(holders=after_moves(subjects, around.holders)))
    found: dict[tuple[str, Killer], Broken] = {}
    for subject in map(as_shielded, subjects):
        verdicts = auditor.verdicts(subject)
        for killer in SHIELDED:
            verdict, key = verdicts[killer], (subject.rule.name, killer)
            if verdict.verdict == "exposed":
                one = found.setdefault(key, Broken(*key, (), verdict.reason, verdict.advice))
                found[key] = one._replace(pids=(*one.pids, subject.holder.pid))
    return list(found.values())


def document(
    faults: Sequence[Fault],
    warnings: Sequence[Fault],
    config: Config | None,
    census: Census | None,
    broken: Sequence[Broken] = (),
) -> dict[str, object]:
    """The field names are a contract."""
    rules = config.rules if config is not None else ()
    by_rule = census.by_rule if census is not None else {}
    doubts = census.doubts if census is not None else {}
    return {
        "faults": [fault._asdict() for fault in faults],
        "warnings": [warning._asdict() for warning in warnings],
        "not_carried_out": notes(config) if config is not None else [],
        "promises_broken": [one._asdict() for one in broken],
        "rules": [
            {
                "name": rule.name,
                "oom_score_adj": rule.oom_score_adj,
                "processes": [matched._asdict() for matched in by_rule[rule.name]],
            }
            for rule in rules
        ],
        "not_known": [{"pid": pid, **doubt_as_json(doubt)} for pid, doubt in doubts.items()],
    }


def as_text(path: Path, loaded: Loaded, census: Census, broken: Sequence[Broken]) -> Iterator[str]:
    yield from warning_lines(loaded.warnings)
    yield from (f"note: {line}" for line in notes(loaded.config))
    yield from map(broken_line, broken)
    rules = loaded.config.rules
    yield f"{printable(str(path))}: no faults, {len(rules)} rule{'s' * (len(rules) != 1)}"
    for rule in rules:
        yield f"  {rule_line(rule, census.by_rule[rule.name])}"
    yield from doubted(list(census.doubts.values()))
    yield from unseen_remarks(census.hidden)


def notes(config: Config) -> list[str]:
    """What is not done of it, by this version or on this machine."""
    return list(pending(config, {name: missing(*PROBES[name]) for name in ("systemd", "cgroup2")}))


def warning_lines(warnings: Sequence[Fault]) -> Iterator[str]:
    for fault in warnings:
        yield str(fault._replace(text=f"warning: {fault.text}"))


def broken_line(broken: Broken) -> str:
    number = f"{len(broken.pids)} process{'es' * (len(broken.pids) != 1)}"
    return (
        f"warning: rule {broken.rule} protects {number} that {broken.killer} can take as it is now:"
        f" {printable(broken.reason)} -> {printable(broken.advice)}"
    )


def rule_line(rule: Rule, matched: Sequence[Matched]) -> str:
    if not matched:
        return f"{rule.name} ({rule.oom_score_adj}): nothing that runs now"
    named = [f"{printable(one.name)} ({one.pid})" for one in matched[:NAMED_PROCESSES]]
    more = [f"and {len(matched) - len(named)} more"] if len(matched) > len(named) else []
    return f"{rule.name} ({rule.oom_score_adj}): {len(matched)}: {', '.join([*named, *more])}"
