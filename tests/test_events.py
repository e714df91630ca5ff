"""The kernel's news of processes: the filter, the draining, the loss; all from the real kernel."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from oomwatchd.kernel import events
from oomwatchd.kernel.events import ProcessEvents, Silent, program
from oomwatchd.model import SILENCE, Heard

REPOSITORY = Path(__file__).parent.parent
BOUND_SECONDS = 10.0
ENDING = (signal.SIGTERM, signal.SIGKILL)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may subscribe, before 6.6")


@pytest.fixture
def ears() -> Iterator[ProcessEvents]:
    ears = ProcessEvents(forks=True)
    yield ears
    ears.close()


def child(act: Callable[[], object]) -> int:
    """A process that does *act* and has ended."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return pid


def heard_until(ears: ProcessEvents, done: Callable[[Heard], bool]) -> Heard:
    """All that is heard, until *done* with it."""
    end = time.monotonic() + BOUND_SECONDS
    pids, forks, count, lost = dict[int, int](), dict[tuple[int, int], None](), 0, False
    killed = dict[int, None]()
    while time.monotonic() < end:
        some = ears.drain()
        pids.update(some.pids)
        forks.update(dict.fromkeys(some.forks))
        killed.update(dict.fromkeys(some.killed))
        count, lost = count + some.events, lost or some.lost
        heard = Heard(pids, tuple(forks), count, lost, tuple(killed))
        if done(heard):
            return heard
        time.sleep(0.01)
    raise AssertionError(f"not within {BOUND_SECONDS:.0f} s, of {count} events; lost: {lost}")


def run_true() -> int:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    return process.pid


def test_an_exec_is_heard_once_and_with_its_time(ears: ProcessEvents) -> None:
    before_ns = time.monotonic_ns()
    pid = run_true()
    after_ns = time.monotonic_ns()
    heard = heard_until(ears, lambda heard: pid in heard.pids)

    assert before_ns < heard.pids[pid] < after_ns

    assert pid not in [child for _, child in heard.forks]
    assert pid not in ears.drain().pids


def test_of_those_that_end_only_the_killed_are_heard(ears: ProcessEvents) -> None:
    ends = [child(lambda: None), child(lambda: os._exit(signal.SIGKILL))]
    ends += [child(partial(signal.raise_signal, number)) for number in ENDING]
    *others, killed = ends
    heard = heard_until(ears, lambda heard: killed in heard.killed)

    assert not set(others) & set(heard.killed)


def test_a_name_is_heard(ears: ProcessEvents) -> None:
    pid = child(lambda: Path("/proc/self/comm").write_text("hello"))
    heard = heard_until(ears, lambda heard: pid in heard.pids)

    assert heard.pids[pid] == 0  # it has executed nothing


def test_an_owner_is_heard(ears: ProcessEvents) -> None:
    pid = child(lambda: os.setuid(65534))
    heard_until(ears, lambda heard: pid in heard.pids)


def test_a_fork_that_does_no_more_is_heard_with_its_parent(ears: ProcessEvents) -> None:
    pid = child(lambda: None)
    heard = heard_until(ears, lambda heard: (os.getpid(), pid) in heard.forks)

    assert pid not in heard.pids


def test_forks_are_not_heard_when_no_rule_asks(ears: ProcessEvents) -> None:
    ears.filter(forks=False)
    forked = child(lambda: None)
    execed = run_true()
    heard = heard_until(ears, lambda heard: execed in heard.pids)

    assert forked not in heard.pids
    assert os.getpid() not in [parent for parent, _ in heard.forks]


def test_threads_are_not_heard_but_for_what_they_exec(ears: ProcessEvents) -> None:
    ears.drain()
    names: list[int] = []

    def rename() -> None:
        names.append(threading.get_native_id())
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("thread")

    for _ in range(20):
        thread = threading.Thread(target=rename)
        thread.start()
        thread.join()
    last = run_true()
    heard = heard_until(ears, lambda heard: last in heard.pids)

    assert not {os.getpid(), *names} & set(heard.pids)
    assert not set(names) & {child for _, child in heard.forks}


def test_an_exec_by_another_thread_is_that_of_the_process(ears: ProcessEvents) -> None:
    code = (
        "import os, sys, threading\n"
        "sys.stdin.read()\n"  # till python's own exec has been heard
        "threading.Thread(target=os.execv, args=('/bin/true', ['true'])).start()\n"
        "threading.Event().wait()\n"
    )
    ears.drain()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        heard_until(ears, lambda heard: process.pid in heard.pids)
        process.communicate()
    heard_until(ears, lambda heard: process.pid in heard.pids)


def test_many_are_heard_each_once_and_none_is_lost(ears: ProcessEvents) -> None:
    pids = {run_true() for _ in range(300)}
    heard = heard_until(ears, lambda heard: pids <= set(heard.pids))

    assert not heard.lost
    assert heard.events >= 300


def test_when_the_buffer_is_full_that_is_said_and_hearing_goes_on(ears: ProcessEvents) -> None:
    set_buffer(ears, 1)
    for _ in range(50):
        run_true()
    heard = heard_until(ears, lambda heard: heard.lost)
    set_buffer(ears, events.BUFFER_BYTES)
    heard_until(ears, lambda heard: not ears.drain().lost)
    later = run_true()
    heard_until(ears, lambda heard: later in heard.pids)

    assert heard.lost


def set_buffer(ears: ProcessEvents, size_bytes: int) -> None:
    same = socket.fromfd(ears.fileno(), socket.AF_NETLINK, socket.SOCK_DGRAM)
    same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)
    same.close()


def test_when_nothing_has_happened_nothing_is_heard_and_nothing_waits(ears: ProcessEvents) -> None:
    ears.filter(forks=False)
    quiet = next((heard for _ in range(1000) if (heard := ears.drain()) == SILENCE), None)

    assert quiet == SILENCE


def test_in_another_network_the_kernel_is_silent_and_that_is_an_error() -> None:
    code = "from oomwatchd.kernel.events import ProcessEvents\nProcessEvents(forks=False)"
    result = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare failed" in result.stderr:
        pytest.skip("no namespaces here")

    assert result.returncode == 1
    assert "Silent" in result.stderr or "ConnectionRefusedError" in result.stderr


def test_silence_is_an_error_with_a_reason() -> None:
    error = Silent(errno.EPERM, "the kernel sends no events into this namespace")

    assert isinstance(error, OSError)
    assert error.strerror == "the kernel sends no events into this namespace"


# -- the filter, apart from the kernel -------------------------------------------------------------


def passes(what: int, thread: int, process: int, child: tuple[int, int], *, forks: bool) -> bool:
    """Run the filter over one datagram, as the kernel does.

    Source:  Documentation/networking/filter.rst.
    """
    event = events.EVENT.pack(what, 0, thread, process, *child)
    datagram = bytes(events.WHAT_AT) + event
    code, at, a, x = program(forks=forks), 0, 0, 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        if operation == events.LOAD_WORD:
            a = int.from_bytes(datagram[operand : operand + 4], "big")
        elif operation == events.COPY_TO_X:
            x = a
        elif operation == events.RETURN:
            return operand > 0
        else:
            other = x if operation == events.JUMP_IF_EQUAL_X else operand
            at += if_true if a == other else if_false


@pytest.mark.parametrize("forks", ["with forks", "without"])
@pytest.mark.parametrize(
    ("what", "ids", "passed"),
    [
        (events.EXEC, (7, 7, 0, 0), "yes"),
        (events.COMM, (7, 7, 0, 0), "yes"),
        (events.COMM, (8, 7, 0, 0), "no"),  # of a thread
        (events.UID, (7, 7, 0, 0), "yes"),
        (events.UID, (8, 7, 0, 0), "no"),
        (events.FORK, (7, 7, 9, 9), "with forks"),
        (events.FORK, (8, 7, 9, 9), "with forks"),  # by a thread
        (events.FORK, (7, 7, 9, 7), "no"),  # a thread
        (events.EXIT, (7, 7, 0, 0), "no"),
        (events.EXIT, (7, 7, signal.SIGKILL, 17), "yes"),
        (events.EXIT, (8, 7, signal.SIGKILL, 17), "no"),  # of a thread
        (events.EXIT, (7, 7, signal.SIGTERM, 17), "no"),
        (events.EXIT, (7, 7, signal.SIGKILL << 8, 17), "no"),  # exit(9)
        (0, (0, 0, 0, 0), "no"),  # the answer to a subscription
        (0x40, (7, 7, 0, 0), "no"),  # a group
    ],
)
def test_the_filter_lets_through_what_concerns_us(
    what: int, ids: tuple[int, int, int, int], passed: str, forks: str
) -> None:
    thread, process, *child = ids
    let_through = passes(what, thread, process, (child[0], child[1]), forks=forks == "with forks")

    assert let_through is (passed in ("yes", forks))
