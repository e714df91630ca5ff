"""``oomwatchd explain PID``: which rule decides about a process, and why the others do not."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from oomwatchd.cli import exits
from oomwatchd.cli.arguments import process_id
from oomwatchd.cli.failure import Failure, fail
from oomwatchd.cli.table import Column, show, show_document, table
from oomwatchd.cli.verdict import Judge, Verdict, doubt_as_json, loaded
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import Exe, Needs, Process, Rule, Units
from oomwatchd.paths import CONFIG

EVERYTHING: Final = Needs(
    cmdline=True, long_name=True, exe=("*",), uid=True, cgroup=True, working_directory=True
)
COLUMNS: Final = (Column("RULE"), Column("ADJ", right=True), Column("MATCH"))


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", type=process_id, metavar="PID", help="the process")
    parser.add_argument("-c", "--config", type=Path, default=CONFIG, metavar="FILE",
                        help=f"the configuration; {CONFIG} if not given")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="all of it, for programs")


def run(arguments: argparse.Namespace) -> int:
    try:
        config = loaded(arguments.config, root_only=False).config
        verdict = judged(Judge(config, ProcFs(), EVERYTHING), arguments.pid)
    except Failure as failure:
        return fail("explain", failure)
    if arguments.json:
        show_document(as_json(arguments.pid, verdict))
    else:
        show(as_text(arguments.pid, verdict), sys.stdout)
    if verdict.doubt is not None:
        return exits.NOT_PERMITTED
    return exits.FINE if verdict.rule is not None else exits.NO


def judged(judge: Judge, pid: int) -> Verdict:
    """Raises Failure, if there is no such process or it may not be seen."""
    try:
        verdict = judge.verdict(pid)
    except PermissionError:
        message = f"process {pid} may not be seen by you: try as root"
        raise Failure(message, exits.NOT_PERMITTED) from None
    if verdict is None:
        hint = "" if os.geteuid() == 0 else " that you may see"
        raise Failure(f"there is no process {pid}{hint}", exits.NO)
    return verdict


def as_json(pid: int, verdict: Verdict) -> dict[str, object]:
    """The field names are a contract."""
    process = verdict.process
    return {
        "pid": pid,
        "name": verdict.name,
        "rule": verdict.rule.name if verdict.rule else None,
        "oom_score_adj": verdict.oom_score_adj,
        "wanted": verdict.wanted,
        "left_alone": verdict.left_alone or None,
        "rules": [rule_as_json(rule, failed) for rule, failed in verdict.failed],
        "read": None if process is None else dict(facts(process)),
        "not_known": doubt_as_json(verdict.doubt) if verdict.doubt is not None else None,
    }


def rule_as_json(rule: Rule, failed: str | None) -> dict[str, object]:
    return {
        "name": rule.name,
        "oom_score_adj": rule.oom_score_adj,
        "matches": failed is None,
        "failed_key": failed,
    }


def facts(process: Process) -> Iterator[tuple[str, object]]:
    """What was read, by the key that it is matched with."""
    units = process.units or Units(None, None)
    exe = process.exe or Exe("", proven=False)
    yield "parent_pid", process.parent_pid
    yield "name", process.comm
    yield "long_name", process.long_name
    yield "script", process.script
    yield "script_path", process.script_path
    yield "cmdline", process.cmdline
    yield "exe", exe.path or None
    yield "exe_proven", exe.proven
    yield "uid", process.uid
    yield "unit", units.system
    yield "user_unit", units.user
    yield "cgroup", process.cgroup


def as_text(pid: int, verdict: Verdict) -> Iterator[str]:
    yield from table((Column(f"process {pid}"), Column(verdict.name)), read_rows(verdict), None)
    yield ""
    if verdict.failed:
        yield from table(COLUMNS, rule_rows(verdict), None)
        yield ""
    yield conclusion(verdict)


def read_rows(verdict: Verdict) -> Iterator[tuple[str, str]]:
    process = verdict.process
    for key, read in facts(process) if process is not None else ():
        if read is not None:
            yield f"  {key}", str(read)
    yield "  oom_score_adj", str(verdict.oom_score_adj)


def rule_rows(verdict: Verdict) -> Iterator[tuple[str, str, str]]:
    """Each rule up to the one that decides; those behind it are not asked."""
    decided, doubt = False, verdict.doubt
    for rule, failed in verdict.failed:
        if decided:
            answer = "not asked: the first that matches decides"
        elif failed is None:
            answer = "matches"
        elif doubt is not None and rule is doubt.rule:
            answer = f"not known: {doubt.key} may not be read by you"
        else:
            answer = f"no: {failed} does not match"
        decided = decided or failed is None
        yield rule.name, str(rule.oom_score_adj), answer


def conclusion(verdict: Verdict) -> str:
    if verdict.left_alone:
        return f"Left alone: {verdict.left_alone}."
    if verdict.doubt is not None:
        rule, key = verdict.doubt
        return f"Whether rule {rule.name} matches hangs on its {key}: try as root."
    if verdict.rule is None:
        return f"No rule matches; its value is {verdict.oom_score_adj}."
    if verdict.wanted == verdict.oom_score_adj:
        return f"Rule {verdict.rule.name} wants {verdict.wanted}, and that is its value."
    return (
        f"Rule {verdict.rule.name} wants {verdict.wanted}; its value is {verdict.oom_score_adj}."
        " Is the daemon running? `oomwatchd status` tells."
    )
