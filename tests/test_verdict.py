"""What `check`, `explain` and `rank` are told about a process, over a fake /proc."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakeproc import Fake, FakeProc
from world import named

from oomwatchd.cli.verdict import Judge, Verdict
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import Config, Match, Rule

DB = named("postgres", -900, workers=-200)
OTHER = named("post*", 100)
POSTGRES = Fake(7, comm=b"postgres")
POD = "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope\n"


def verdict(proc: ProcFs, *rules: Rule, pid: int = 7, **settings: Any) -> Verdict:
    found = Judge(Config(rules, **settings), proc).verdict(pid)
    assert found is not None
    return found


def test_the_first_rule_that_matches_decides_and_every_one_is_asked(
    fake: FakeProc, proc: ProcFs
) -> None:
    fake.add(POSTGRES, oom_score_adj=3)
    found = verdict(proc, named("nginx", 5), DB, OTHER)

    assert (found.name, found.rule, found.oom_score_adj, found.wanted) == ("postgres", DB, 3, -900)
    assert [failed for _, failed in found.failed] == ["name", None, None]
    assert found.left_alone == ""


def test_a_worker_is_told_by_its_parent(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(POSTGRES)
    fake.add(replace(POSTGRES, pid=8, parent=7))
    fake.add(replace(POSTGRES, pid=9, parent=6))

    assert verdict(proc, DB, pid=8).wanted == -200
    assert verdict(proc, DB, pid=9).wanted == -900


@pytest.mark.parametrize(
    ("process", "reason"),
    [
        (replace(POSTGRES, pid=1), "pid 1 is never touched"),
        (replace(POSTGRES, kernel_thread=True), "a kernel thread"),
        (replace(POSTGRES, state=b"Z"), "a zombie: it has ended"),
        (replace(POSTGRES, cgroup=POD), "a kubelet manages it (kubernetes_pods: leave)"),
    ],
)
def test_some_are_left_alone_and_it_is_said_why(
    fake: FakeProc, proc: ProcFs, process: Fake, reason: str
) -> None:
    fake.add(process, oom_score_adj=3)
    found = verdict(proc, DB, pid=process.pid)

    assert (found.rule, found.wanted, found.left_alone) == (None, None, reason)
    assert found.oom_score_adj == 3


def test_pods_are_as_any_other_where_they_are_managed(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(replace(POSTGRES, cgroup=POD))

    assert verdict(proc, DB, kubernetes_pods="manage").rule is DB


def test_a_command_line_that_takes_too_long_is_said_to(fake: FakeProc, proc: ProcFs) -> None:
    hostile = Rule("hostile", Match(cmdline=("a.*b.*c.*d",)), 1)
    fake.add(replace(POSTGRES, arguments=(b"ab" * 2048,)))
    found = verdict(proc, hostile)

    assert (found.rule, found.left_alone) == (None, "matching its command line takes too long")


def test_a_command_line_that_does_not_come_is_said_not_to(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(POSTGRES)
    cmdline = fake.root / "7/cmdline"
    cmdline.unlink()
    os.mkfifo(cmdline)
    found = verdict(proc, Rule("x", Match(cmdline=("y",)), 1))
    os.close(os.open(cmdline, os.O_WRONLY))

    assert (found.rule, found.process) == (None, None)
    assert found.left_alone == "its command line could not be read in time"


def test_one_that_is_not_there_has_no_verdict(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(POSTGRES)
    judge = Judge(Config((DB,)), proc)

    assert judge.verdict(8) is None
    assert judge.rule_of(8) is None
    assert judge.rule_of(7) is DB


@pytest.mark.parametrize("name", ["oom_score_adj", "stat"])
def test_one_that_ends_meanwhile_has_none_either(fake: FakeProc, proc: ProcFs, name: str) -> None:
    fake.add(POSTGRES)
    Path(fake.root / "7" / name).unlink()

    assert Judge(Config((DB,)), proc).verdict(7) is None
