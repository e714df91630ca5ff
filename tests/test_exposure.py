"""The audit in numbers: asked for by the loop, answered by a child that may take its time."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from computer import START_TICKS, TERMINAL, TRAINER, Computer
from fakeproc import Fake, FakeProc
from stage import Stage, at

from oomwatchd.auditing import KILLERS
from oomwatchd.auditor import answer
from oomwatchd.exposure import (
    DEADLINE_SECONDS,
    EVERY_SECONDS,
    FIRST_SECONDS,
    TARGETS_MAX,
    Exposure,
    auditor_command,
    question,
)
from oomwatchd.holds import Hold
from oomwatchd.host import Wake
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import Match, ProcessId, Rule
from oomwatchd.systemd.manager import Worker, spawned

TRAINING = Rule("training", Match(), -900, workers=-800, shield="preference")
EXPENDABLE = Rule("expendable", Match(), 500)
PATIENCE_SECONDS = 30.0


def hold(pid: int, rule: Rule, start_ticks: int = START_TICKS) -> Hold:
    """As far as it is looked at here."""
    held = SimpleNamespace(id=ProcessId(pid, start_ticks), rule=rule, wanted=rule.oom_score_adj)
    return cast(Hold, held)


class Children:
    """Children that do nothing, and links whose other ends are the test's."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    def spawn(self) -> Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        theirs.settimeout(PATIENCE_SECONDS)
        self.ends.append(theirs)
        pid = os.posix_spawn("/bin/sleep", ["sleep", "3600"], {})
        return Worker(pid, ours)

    def asked(self) -> Any:
        return json.loads(self.ends[-1].recv(1 << 20))

    def answers(self, exposed: list[list[Any]], cpu_seconds: float = 0.01) -> None:
        text = json.dumps({"exposed": exposed, "cpu_seconds": cpu_seconds})
        self.ends[-1].send(text.encode())


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    for end in children.ends:
        end.close()


@pytest.fixture
def exposure(children: Children) -> Iterator[Exposure]:
    exposure = Exposure(children.spawn)
    yield exposure
    exposure.close()


def test_the_first_audit_waits_until_the_values_are_set(
    exposure: Exposure, children: Children
) -> None:
    exposure.tend([hold(7, TRAINING)], 100.0)
    exposure.tend([hold(7, TRAINING)], 100.0 + FIRST_SECONDS - 1)

    assert children.ends == []
    assert exposure.exposed is None


def started(exposure: Exposure, holds: list[Hold]) -> float:
    """Start an audit, and say when that was."""
    exposure.tend(holds, 0.0)
    exposure.tend(holds, FIRST_SECONDS)
    return FIRST_SECONDS


def test_what_protects_is_asked_about_and_nothing_else(
    exposure: Exposure, children: Children
) -> None:
    started(exposure, [hold(7, TRAINING), hold(8, EXPENDABLE)])

    assert children.asked() == {
        "rules": {"training": [-900, -800, "preference"]},
        "targets": [[7, START_TICKS, -900, "training"]],
    }


def test_the_answer_is_kept_until_the_next(exposure: Exposure, children: Children) -> None:
    holds = [hold(7, TRAINING)]
    now = started(exposure, holds)
    exposure.tend(holds, now + 1)  # nothing has come yet
    children.answers([["training", "systemd_oomd", 1]])
    exposure.tend(holds, now + 2)

    assert exposure.exposed == {("training", "systemd_oomd"): 1}
    assert exposure.fault == ""
    exposure.tend(holds, now + 2 + EVERY_SECONDS - 1)
    assert len(children.ends) == 1
    exposure.tend(holds, now + 2 + EVERY_SECONDS)
    assert len(children.ends) == 2
    assert exposure.exposed == {("training", "systemd_oomd"): 1}


def test_where_an_audit_is_costly_it_comes_less_often(
    exposure: Exposure, children: Children
) -> None:
    holds = [hold(7, TRAINING)]
    now = started(exposure, holds)
    children.answers([], cpu_seconds=1.0)
    exposure.tend(holds, now)

    exposure.tend(holds, now + 900.0)
    assert len(children.ends) == 1
    exposure.tend(holds, now + 1000.0)
    assert len(children.ends) == 2


def test_with_nobody_to_protect_nobody_is_exposed(exposure: Exposure, children: Children) -> None:
    started(exposure, [hold(8, EXPENDABLE)])

    assert exposure.exposed == {}
    assert children.ends == []


def test_who_is_newly_protected_need_not_wait(exposure: Exposure, children: Children) -> None:
    now = started(exposure, [])
    exposure.tend([hold(7, TRAINING)], now + 1)

    assert len(children.ends) == 1


def test_a_child_that_hangs_is_given_up_and_the_next_one_asked(
    exposure: Exposure, children: Children
) -> None:
    holds = [hold(7, TRAINING)]
    now = started(exposure, holds)
    exposure.tend(holds, now + DEADLINE_SECONDS)

    hung = (exposure.exposed, exposure.fault)
    exposure.tend(holds, now + EVERY_SECONDS)
    children.answers([["training", "kernel", 2]])
    exposure.tend(holds, now + EVERY_SECONDS)

    assert hung == (None, "it took longer than 45 s")
    assert (exposure.exposed, exposure.fault) == ({("training", "kernel"): 2}, "")


def test_a_child_that_dies_is_said(exposure: Exposure, children: Children) -> None:
    holds = [hold(7, TRAINING)]
    now = started(exposure, holds)
    children.ends[-1].close()
    tended(exposure, holds, now + 1, lambda: exposure.fault != "")

    assert (exposure.exposed, exposure.fault) == (None, "its process has ended")


def test_without_room_for_a_child_it_is_said() -> None:
    def no_room() -> Worker:
        raise OSError(11, "Resource temporarily unavailable")

    exposure = Exposure(no_room)
    started(exposure, [hold(7, TRAINING)])

    assert exposure.fault == "no process for it: Resource temporarily unavailable"


def test_the_largest_question_fits_into_a_packet() -> None:
    holds = [hold(4_194_304 - pid, TRAINING, 10**12) for pid in range(TARGETS_MAX)]
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.settimeout(0)
    with near, far:
        sent = near.send(question(holds))
        assert far.recv(1 << 20) == question(holds)

    assert sent < 212992  # net.core.wmem_default


# -- the child -------------------------------------------------------------------------------------


def test_the_answer_counts_by_rule_and_killer(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)
    computer.process(80, b"worker", mib=100, cgroup=TERMINAL, adj=-800)
    computer.process(81, b"other", mib=100, cgroup=TERMINAL)
    holds = [hold(TRAINER, TRAINING), hold(80, TRAINING), hold(81, TRAINING, 5)]
    with computer.sources() as sources:
        told = answer(json.loads(question(holds)), sources)

    exposed = {(rule, killer): count for rule, killer, count in told["exposed"]}
    assert exposed["training", "systemd_oomd"] == 2  # the third is another process by now
    assert exposed["training", "oom_policy"] == 2
    assert exposed["training", "cgroup"] == 0
    assert told["cpu_seconds"] > 0


def test_the_child_that_is_shipped_answers_about_this_machine() -> None:
    with closing(ProcFs()) as proc:
        stat = proc.stat(os.getpid())
    assert stat is not None
    exposure = Exposure(partial(spawned, auditor_command()))
    holds = [hold(os.getpid(), TRAINING, stat.start_ticks)]
    now = started(exposure, holds)

    tended(exposure, holds, now, lambda: exposure.exposed is not None)
    exposure.close()

    assert exposure.fault == ""
    assert exposure.exposed is not None
    assert exposure.exposed.keys() == {("training", killer) for killer in KILLERS}
    assert exposure.exposed["training", "kubelet"] == 0


def tended(
    exposure: Exposure, holds: list[Hold], now_seconds: float, done: Callable[[], bool]
) -> None:
    """Turn after turn at that time, until it is *done*."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)
        exposure.tend(holds, now_seconds)


# -- in the daemon ---------------------------------------------------------------------------------


def test_the_daemon_publishes_what_is_exposed_and_ends_its_child(
    fake: FakeProc, tmp_path: Path, children: Children
) -> None:
    stage = Stage(fake, tmp_path / "ledger.json")
    stage.machine = stage.machine._replace(spawn_auditor=children.spawn)
    fake.add(Fake(7, b"python3"))

    def story() -> Iterator[Wake]:
        yield at(1.0)  # the first audit has its date since the start, at 0
        yield at(FIRST_SECONDS)
        asked.append(children.asked())
        children.answers([["training", "oom_policy", 1]])
        yield at(FIRST_SECONDS + 1)
        yield at(FIRST_SECONDS + EVERY_SECONDS + 1)  # one that is never answered
        yield at(FIRST_SECONDS + EVERY_SECONDS + 2, stop=True)

    asked: list[Any] = []
    host = stage.play(story(), Rule("training", Match(name=("python3",)), -900))
    stage.close()

    assert asked == [
        {"rules": {"training": [-900, None, "none"]}, "targets": [[7, 100, -900, "training"]]}
    ]
    exposed = [snapshot.exposed for snapshot in host.snapshots]
    assert exposed == [None, None, None, *[{("training", "oom_policy"): 1}] * 2]
    assert len(children.ends) == 2
