"""Signals reach only those that have a handler for them, and the very process that was meant."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from commands import needs_root
from world import named

from oomwatchd.alarm import Alarm
from oomwatchd.holds import Hold, Holds
from oomwatchd.hooks import Hooks
from oomwatchd.kernel.proc import Look, ProcFs
from oomwatchd.kernel.signals import Sent, parse_caught, send
from oomwatchd.model import CatchableSignal, Config, Level, PressureHooks, Rule
from oomwatchd.record import Record, Signalled

# Writes what it has got to its standard output, a line each; ends with its standard input.
TRAINER = """
import os, signal, sys
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, _frame: os.write(1, b"%d %d\\n" % (os.getpid(), number)))
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
forks = len(sys.argv) > 1
child = os.fork() if forks else 1
os.write(1, b"ready\\n")
sys.stdin.read()
if forks and child:
    os.waitpid(child, 0)
"""
PLAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # for which Python has a handler of its own
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def program(text: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for _ in range(2 if arguments else 1):
            assert child.stdout.readline() == "ready\n"
        yield child
        child.communicate()


@contextmanager
def looked_at(pid: int) -> Iterator[Look]:
    with closing(ProcFs()) as proc:
        look = proc.look(pid)
        assert look is not None
        with closing(look):
            yield look


def heard(child: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """Of each signal, who has got it; when the program has ended."""
    out, _ = child.communicate()
    return [(int(line.split()[0]), int(line.split()[1])) for line in out.splitlines()]


# -- one process -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_who_has_a_handler_gets_it(name: CatchableSignal) -> None:
    with program(TRAINER) as child:
        with looked_at(child.pid) as look:
            assert send(look, name) == Sent("sent")
        got = heard(child)

    assert got == [(child.pid, signal.Signals[name])]


@pytest.mark.parametrize("name", ["SIGUSR2", "SIGHUP", "SIGINT"])
def test_who_has_none_or_ignores_it_lives_on(name: CatchableSignal) -> None:
    text = TRAINER if name == "SIGUSR2" else PLAIN
    with program(text) as child:
        with looked_at(child.pid) as look:
            assert send(look, name) == Sent("not_caught")
        got = heard(child)

    assert got == []
    assert child.returncode == 0


def test_who_has_ended_is_gone() -> None:
    with program(TRAINER) as child, looked_at(child.pid) as look:
        child.communicate()
        assert child.wait() == 0
        assert send(look, "SIGUSR1") == Sent("gone")


@needs_root
def test_without_the_right_it_is_refused() -> None:
    with program(TRAINER) as child, looked_at(child.pid) as look:
        reader, writer = os.pipe()
        stranger = os.fork()
        if stranger == 0:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, send(look, "SIGUSR1").result.encode())
            os._exit(0)
        os.waitpid(stranger, 0)
        os.close(writer)
        with open(reader, "rb") as answer:
            assert answer.read() == b"refused"


def test_the_line_is_found_whatever_the_process_is_called() -> None:
    raw = Path("/proc/self/status").read_bytes()
    name = b"Name:\tSigCgt:\tffffffffffffffff\\nSigCgt:\tffffffffffffffff\n"
    forged = name + raw.partition(b"\n")[2]

    assert parse_caught(forged) == parse_caught(raw)
    with pytest.raises(ValueError, match="no SigCgt"):
        parse_caught(b"Name:\tx\n")


# -- those under rules -----------------------------------------------------------------------------


class Scene:
    def __init__(self) -> None:
        self.proc = ProcFs()
        self.holds = Holds()
        self.record = Record()
        hooks = Hooks(self.record, dry_run=False)
        hooks.configure(Config(on_pressure=PressureHooks()))
        self.alarm = Alarm(self.proc, self.holds, hooks, self.record, dry_run=False)

    def hold(self, pid: int, rule: Rule) -> None:
        with looked_at(pid) as look:
            self.holds.put(Hold(look, look.stat.comm.decode(), rule))

    def hear(self, *levels: Level) -> list[tuple[int, str]]:
        for level in levels:
            self.alarm.hear(level, None)
        news = self.record.take_news()
        return [(one.id.pid, one.result) for one in news if isinstance(one, Signalled)]

    def close(self) -> None:
        self.holds.close()
        self.proc.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with closing(Scene()) as scene:
        yield scene


ASKS = named("trainer", -900, critical_signal="SIGUSR1")


def test_at_critical_and_not_before_each_is_told_once_an_episode(scene: Scene) -> None:
    with program(TRAINER) as child:
        scene.hold(child.pid, ASKS)
        told = [
            scene.hear("ok", "warning"),
            scene.hear("critical", "critical", "warning", "critical"),
            scene.hear("ok", "critical"),
        ]

    assert told == [[], [(child.pid, "sent")], [(child.pid, "sent")]]


def test_only_rules_that_ask_for_it_have_it_sent(scene: Scene) -> None:
    with program(TRAINER) as child:
        scene.hold(child.pid, named("trainer", -900))
        assert scene.hear("critical") == []
        got = heard(child)

    assert got == []


def test_a_worker_is_left_to_its_parent(scene: Scene) -> None:
    """It has inherited the handler, which would save the same work once more."""
    with program(TRAINER, "fork") as child:
        [worker] = children_of(child.pid)
        scene.hold(worker, ASKS)
        scene.hold(child.pid, ASKS)
        told = scene.hear("critical")
        got = heard(child)

    assert told == [(child.pid, "sent")]
    assert [pid for pid, _ in got] == [child.pid]


def test_a_child_of_a_process_under_another_rule_is_told(scene: Scene) -> None:
    with program(TRAINER, "fork") as child:
        [worker] = children_of(child.pid)
        scene.hold(worker, ASKS)
        scene.hold(child.pid, named("launcher", -900))
        told = scene.hear("critical")

    assert told == [(worker, "sent")]


def test_another_process_under_the_same_pid_is_not_told(scene: Scene) -> None:
    with program(TRAINER) as child:
        scene.hold(child.pid, ASKS)
        hold = scene.holds.get(child.pid)
        assert hold is not None
        hold.id = hold.id._replace(start_ticks=hold.id.start_ticks - 1)
        told = scene.hear("critical")

    assert told == []


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
