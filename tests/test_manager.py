"""Asking systemd by a worker: nobody waits, and a worker that is no good is replaced."""

import contextlib
import itertools
import os
import select
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import until
from workers import (
    BABBLES,
    DIES,
    ENDS_AT_ONCE,
    HANGS,
    MOVES,
    REFUSES,
    STUBBORN,
    TELLS_UNASKED,
    answered,
    worker,
)

from oomwatchd.model import ProcessId
from oomwatchd.systemd.manager import (
    DEADLINE_SECONDS,
    IDLE_SECONDS,
    PAUSE_SECONDS_MAX,
    Manager,
    Reply,
    Request,
    Worker,
)

REQUEST = Request("training", ProcessId(7, 100))
SCOPE = "/oomwatchd.slice/oomwatchd-training-7.scope"
AT_ONCE_SECONDS = 0.5  # far below any time limit, far above what is measured (0.2 ms)

Managed = Callable[[str], Manager]


@pytest.fixture
def poll() -> Iterator[select.epoll]:
    with select.epoll() as poll:
        yield poll


@pytest.fixture
def managed(poll: select.epoll) -> Iterator[Managed]:
    with contextlib.ExitStack() as stack:

        def make(program: str) -> Manager:
            manager = Manager(poll, worker(program))
            stack.callback(manager.close)
            return manager

        yield make


def children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def test_what_is_asked_is_answered(managed: Managed, poll: select.epoll) -> None:
    manager = managed(MOVES)
    manager.ask(REQUEST)
    first = manager.tend(0.0)
    replies = answered(manager, poll, 1.0)

    assert first == []
    assert replies == [Reply(REQUEST.process, "moved", SCOPE, 1)]
    assert manager.failures == 0


def test_requests_are_answered_one_after_another_by_one_worker(
    managed: Managed, poll: select.epoll
) -> None:
    manager = managed(MOVES)
    for pid in (7, 8, 9):
        manager.ask(Request("training", ProcessId(pid, 100)))
    manager.tend(0.0)
    replies = [answered(manager, poll, 1.0) for _ in range(3)]

    assert [reply.process.pid for [reply] in replies] == [7, 8, 9]


def test_with_nothing_to_ask_there_is_no_worker(managed: Managed) -> None:
    managed(MOVES).tend(0.0)

    assert not children()


def test_a_worker_with_nothing_to_do_ends(managed: Managed, poll: select.epoll) -> None:
    manager = managed(MOVES)
    manager.ask(REQUEST)
    manager.tend(0.0)
    answered(manager, poll, 1.0)
    manager.tend(1.0 + IDLE_SECONDS - 0.1)
    still = children()
    manager.tend(1.0 + IDLE_SECONDS)

    assert still
    until(lambda: manager.tend(20.0) == [] and not children(), "the end of the worker")
    assert manager.failures == 0


@pytest.mark.parametrize("program", [HANGS, STUBBORN])
def test_a_worker_that_does_not_answer_is_given_up_without_waiting(
    managed: Managed, program: str
) -> None:
    manager = managed(program)
    manager.ask(REQUEST)
    started = time.monotonic()
    manager.tend(0.0)
    before = manager.tend(DEADLINE_SECONDS - 0.1)
    [reply] = manager.tend(DEADLINE_SECONDS)
    took_seconds = time.monotonic() - started

    assert took_seconds < AT_ONCE_SECONDS
    assert before == []
    assert (reply.process, reply.result) == (REQUEST.process, "failed")
    assert "did not answer" in reply.reason
    assert manager.failures == 1
    until(lambda: manager.tend(DEADLINE_SECONDS) == [] and not children(), "its end")


@pytest.mark.parametrize(
    ("program", "reason"),
    [(DIES, "the worker has ended"), (BABBLES, "does not make sense")],
)
def test_a_worker_that_is_no_good_fails_the_request(
    managed: Managed, poll: select.epoll, program: str, reason: str
) -> None:
    manager = managed(program)
    manager.ask(REQUEST)
    manager.tend(0.0)
    [reply] = answered(manager, poll, 1.0)

    assert reply.result == "failed"
    assert reason in reply.reason
    assert manager.failures == 1


@pytest.mark.parametrize("program", [ENDS_AT_ONCE, TELLS_UNASKED])
def test_a_worker_that_was_no_good_is_replaced(managed: Managed, program: str) -> None:
    manager = managed(program)
    manager.ask(REQUEST)
    until(lambda: manager.tend(0.0) and manager.failures == 1, "the first worker's failure")
    manager.ask(REQUEST)
    until(lambda: manager.tend(10.0) and manager.failures == 2, "the second one's")

    assert manager.failures == 2


def test_the_pause_before_the_next_worker_doubles(poll: select.epoll) -> None:
    starts: list[float] = []
    now = 0.0

    def spawn() -> Worker:
        starts.append(now)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    manager = Manager(poll, spawn)
    while len(starts) < 10:
        manager.ask(REQUEST)
        manager.tend(now)
        now += 0.5
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]

    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, *[PAUSE_SECONDS_MAX] * 3]


def test_that_a_worker_cannot_be_started_is_an_answer_too(poll: select.epoll) -> None:
    def spawn() -> Worker:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    manager = Manager(poll, spawn)
    manager.ask(REQUEST)
    [reply] = manager.tend(0.0)

    assert (reply.result, reply.reason) == (
        "failed",
        "no worker: Resource temporarily unavailable",
    )


def test_what_systemd_refuses_is_told_and_the_worker_stays(
    managed: Managed, poll: select.epoll
) -> None:
    manager = managed(REFUSES)
    manager.ask(REQUEST)
    manager.tend(0.0)
    [reply] = answered(manager, poll, 1.0)

    assert reply == Reply(REQUEST.process, "failed", reason="systemd said no")
    assert manager.failures == 0


def test_the_end_of_the_daemon_is_the_end_of_a_worker_that_hangs(poll: select.epoll) -> None:
    manager = Manager(poll, worker(STUBBORN))
    manager.ask(REQUEST)
    manager.tend(0.0)
    manager.close()

    assert not children()


results = st.sampled_from(["moved", "there", "gone", "left_alone", "failed"])


@given(
    st.builds(
        Reply,
        st.builds(ProcessId, st.integers(), st.integers()),
        results,
        st.text(),
        st.integers(),
        st.text(),
    )
)
def test_a_reply_arrives_as_it_was_sent(reply: Reply) -> None:
    assert Reply.parsed(reply.packed()) == reply


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_what_is_no_reply_is_a_value_error_and_nothing_else(packet: bytes) -> None:
    with contextlib.suppress(ValueError):
        Reply.parsed(packet)


def test_a_request_arrives_as_it_was_sent() -> None:
    assert Request.parsed(REQUEST.packed()) == REQUEST
