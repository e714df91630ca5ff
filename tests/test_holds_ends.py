"""The ends of processes under rules, of which the kernel tells by descriptors."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc
from live import comm, until
from world import named

from oomwatchd.holds import NOT_HELD, Hold, Holds
from oomwatchd.kernel.proc import ProcFs

RULE = named("python3", -900)
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
READS = "import sys; print('ready', flush=True); sys.stdin.read()"
LEADER_ENDS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
THREAD_EXECS = """
import os, threading
print("ready", flush=True)
threading.Thread(target=os.execv, args=("/bin/cat", ["cat"])).start()
threading.Event().wait()
"""
StartHeld = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def holds() -> Iterator[Holds]:
    holds = Holds()
    yield holds
    holds.close()


@pytest.fixture
def start_held(holds: Holds) -> Iterator[StartHeld]:
    """Starts a program that ends when its input does, and puts a hold on it."""
    proc, started = ProcFs(), list[subprocess.Popen[bytes]]()

    def start(program: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        hold_on(holds, proc, child.pid)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()
    proc.close()


def hold_on(holds: Holds, proc: ProcFs, pid: int) -> Hold:
    look = proc.look(pid)
    assert look is not None
    hold = Hold(look, "python3", RULE)
    holds.put(hold)
    look.close()
    return hold


def is_ready(holds: Holds) -> bool:
    return bool(select.select([holds], [], [], 0)[0])


def end(child: subprocess.Popen[bytes]) -> None:
    child.communicate(timeout=20)


def test_an_end_is_told_at_once_and_only_once(holds: Holds, start_held: StartHeld) -> None:
    lives, ends = start_held(READS), start_held(READS)
    before = is_ready(holds), holds.ended()
    ends.kill()
    select.select([holds], [], [], 20)  # it is a zombie then, as nobody has waited for it

    assert before == (False, [])
    assert is_ready(holds)
    assert holds.ended() == [ends.pid]
    assert (is_ready(holds), holds.ended()) == (False, [])
    end(lives)
    assert holds.ended() == [lives.pid]


def test_who_has_been_dropped_ends_unnoticed(holds: Holds, start_held: StartHeld) -> None:
    child = start_held(READS)
    holds.drop(child.pid)
    end(child)

    assert (is_ready(holds), holds.ended()) == (False, [])


def test_a_process_lives_on_without_its_first_thread(holds: Holds, start_held: StartHeld) -> None:
    child = start_held(LEADER_ENDS)
    stat = Path(f"/proc/{child.pid}/task/{child.pid}/stat")
    until(lambda: b") Z " in stat.read_bytes(), "the first thread to end")
    before = holds.ended()
    end(child)

    assert before == []
    assert holds.ended() == [child.pid]


def test_an_exec_by_another_thread_is_no_end(holds: Holds, start_held: StartHeld) -> None:
    """The thread takes over the pid of the first one, which ends."""
    child = start_held(THREAD_EXECS)
    until(lambda: comm(child.pid) == b"cat", "the exec")
    before = holds.ended()
    end(child)

    assert before == []
    assert holds.ended() == [child.pid]


def test_who_has_ended_before_is_told_of_or_not_held(holds: Holds, start_held: StartHeld) -> None:
    child, proc = start_held(READS), ProcFs()
    look = proc.look(child.pid)
    assert look is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    holds.put(Hold(look, "a zombie", RULE))
    of_a_zombie = holds.ended()
    child.wait()
    gone = Hold(look, "nobody", RULE)
    look.close()
    proc.close()

    assert of_a_zombie == [child.pid]
    assert (gone.adj_fd, gone.stat_fd, gone.pidfd) == (NOT_HELD, NOT_HELD, NOT_HELD)


def test_the_end_of_who_has_got_the_pid_is_not_taken_for_its_own() -> None:
    if not os.access(LAST_PID, os.W_OK):
        pytest.skip("needs ns_last_pid")
    proc, pidfds = ProcFs(), list[int]()
    for _ in range(200):
        first = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        look = proc.look(first)
        assert look is not None
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        LAST_PID.write_text(str(first - 1), encoding="ascii")
        second = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        hold = Hold(look, "sleep", RULE)
        if second == first:  # others on this machine start programs, too
            pidfds.append(hold.pidfd)
        hold.close()
        look.close()
        os.kill(second, signal.SIGKILL)
        os.waitpid(second, 0)
    proc.close()

    assert set(pidfds) == {NOT_HELD}


def test_pids_of_another_tree_say_nothing_about_this_machine(
    holds: Holds, fake: FakeProc, proc: ProcFs
) -> None:
    fake.add(Fake(os.getpid()))

    assert hold_on(holds, proc, os.getpid()).pidfd == NOT_HELD


def test_what_cannot_be_watched_is_held_all_the_same(
    holds: Holds, fake: FakeProc, proc: ProcFs, tmp_path: Path
) -> None:
    fake.add(Fake(7))
    look = proc.look(7)
    assert look is not None
    hold = Hold(look, "python3", RULE)
    look.close()
    (tmp_path / "file").touch()
    hold.pidfd = os.open(tmp_path / "file", os.O_RDONLY)  # which epoll refuses
    holds.put(hold)

    assert (hold.pidfd, holds.get(7)) == (NOT_HELD, hold)
    assert holds.ended() == []


# -- where they cannot be had --------------------------------------------------------------------

FEW = """
import resource, subprocess, sys
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (320, 320))
from world import named
from oomwatchd.holds import DESCRIPTORS_MAX, NOT_HELD, Hold, Holds
from oomwatchd.kernel.proc import ProcFs
proc, holds, rule = ProcFs(), Holds(), named("sleep", 1)
children = [subprocess.Popen(["sleep", "60"]) for _ in range(40)]
for child in children:
    look = proc.look(child.pid)
    holds.put(Hold(look, "sleep", rule))
    look.close()
held = [fd for hold in holds for fd in (hold.adj_fd, hold.stat_fd, hold.pidfd) if fd != NOT_HELD]
watched = {hold.id.pid for hold in holds if hold.pidfd != NOT_HELD}
for child in children:
    child.kill()
    child.wait()
print(len(holds), 0 < len(watched) < 40, max(held) < DESCRIPTORS_MAX, set(holds.ended()) == watched)
"""


def test_the_ends_of_more_processes_than_descriptors_are_told_as_far_as_these_go() -> None:
    command = [sys.executable, "-c", FEW, str(Path(__file__).parent)]
    said = subprocess.run(command, check=True, capture_output=True, text=True)

    assert said.stdout == "40 True True True\n"


NO_PIDFD = """
import os
del os.pidfd_open
from oomwatchd.holds import NOT_HELD, Hold
from oomwatchd.kernel.proc import ProcFs
print(Hold(ProcFs().look(os.getpid()), "python3", None).pidfd == NOT_HELD)
"""


def test_a_python_without_pidfds_does_without() -> None:
    """Built with the headers of a kernel before 5.3, as some for many distributions are."""
    said = subprocess.run(
        [sys.executable, "-c", NO_PIDFD], check=True, capture_output=True, text=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip

    assert said.stdout == "True\n"
