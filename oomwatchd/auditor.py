"""The child that audits for the daemon: a question from its standard input, an answer, the end."""

import json
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from oomwatchd.kernel.proc import ProcFs
from oomwatchd.kernel.tree import CgroupTree
from oomwatchd.model import Match, Rule
from oomwatchd.policy.audit import Auditor
from oomwatchd.surroundings import Sources, Target, survey
from oomwatchd.systemd.asking import ask_within

QUESTION_BYTES: Final = 1 << 20
FILES: Final = Path("/")


def answer(question: Mapping[str, Any], sources: Sources) -> dict[str, Any]:
    """How many of each rule are exposed to each killer, and what it took to find out."""
    rules = {name: rule(name, *keys) for name, keys in question["rules"].items()}
    targets = [
        Target(pid, start_ticks, rules[name], wanted)
        for pid, start_ticks, wanted, name in question["targets"]
    ]
    subjects, around = survey(targets, sources)
    auditor = Auditor(around)
    exposed: Counter[tuple[str, str]] = Counter()
    for subject in subjects:
        for killer, verdict in auditor.verdicts(subject).items():
            exposed[subject.rule.name, killer] += verdict.verdict == "exposed"
    return {
        "exposed": [[name, killer, count] for (name, killer), count in exposed.items()],
        "cpu_seconds": time.process_time(),
    }


def rule(name: str, oom_score_adj: int, workers: int | None, shield: Any) -> Rule:
    return Rule(name, Match(), oom_score_adj, workers, shield=shield)


def main() -> None:
    with socket.socket(fileno=0) as link, closing(ProcFs()) as proc:
        question = json.loads(link.recv(QUESTION_BYTES))
        sources = Sources(proc, CgroupTree(), FILES, ask_within)
        link.send(json.dumps(answer(question, sources)).encode())
