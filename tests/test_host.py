"""The world outside the loop: real signals, real clocks, a real socket of systemd's."""

import os
import select
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from snapshots import BASE

from oomwatchd.host import (
    BUSY_RATIO,
    DELAY_MAX_SECONDS,
    HEARTBEAT_SECONDS,
    Budget,
    SystemHost,
    Wake,
    Wants,
    heartbeat_seconds,
    reloading,
)
from oomwatchd.kernel.memory import libc
from oomwatchd.model import SILENCE, Address
from oomwatchd.server import Reporter
from oomwatchd.systemd.notify import Notifier

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SLACK_SECONDS = 1.0  # this machine is busy and shared
LATER_SECONDS = 60.0  # nobody waits so long: something else ends the wait


@pytest.fixture
def reporter() -> Iterator[Reporter]:
    reporter = Reporter(None, None, stale_seconds=15.0)
    yield reporter
    reporter.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5.0)
        yield manager


@pytest.fixture
def watchdog_seconds() -> float:
    return 1.5


@pytest.fixture
def host(
    manager: socket.socket, reporter: Reporter, watchdog_seconds: float
) -> Iterator[SystemHost]:
    """What it has opened and set is taken back, for the next test."""
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    environment = {
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": str(int(watchdog_seconds * 1e6)),
    }
    notifier = Notifier(environment)
    host = SystemHost(notifier, reporter)
    yield host
    host.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert notifier._socket is not None
    notifier._socket.close()


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def later() -> float:
    return time.monotonic() + LATER_SECONDS


# -- waiting ---------------------------------------------------------------------------------------


def test_a_wait_ends_at_its_time_and_not_before(host: SystemHost) -> None:
    started = time.monotonic()
    wake = host.wait(started + 0.2)
    waited_seconds = time.monotonic() - started

    assert 0.2 <= waited_seconds < 0.2 + SLACK_SECONDS
    assert (wake.reload, wake.stop) == (False, False)


def test_a_time_that_has_passed_is_not_waited_for(host: SystemHost) -> None:
    started = time.monotonic()
    host.wait(started - 10.0)
    host.wait(float("-inf"))

    assert time.monotonic() - started < SLACK_SECONDS


def test_no_wait_is_longer_than_a_heartbeat(host: SystemHost) -> None:
    started = time.monotonic()
    host.wait(later())
    waited_seconds = time.monotonic() - started

    assert 0.45 <= waited_seconds < 0.5 + SLACK_SECONDS  # a third of the watchdog's time


def test_however_often_it_is_woken_it_says_when_systemd_has_to_hear_of_us(host: SystemHost) -> None:
    host.notify("WATCHDOG=1")
    began = time.monotonic()
    beats = [host.wait(began + tenth / 10).beat for tenth in range(1, 4)]
    last = host.wait(later())
    ended_seconds = time.monotonic() - began
    host.notify("WATCHDOG=1")
    again = host.wait(time.monotonic() + 0.05)

    assert (beats, last.beat, again.beat) == ([False] * 3, True, False)
    assert 0.45 <= ended_seconds < 0.5 + SLACK_SECONDS


@pytest.mark.parametrize(
    ("watchdog_seconds", "expected"),
    [(None, HEARTBEAT_SECONDS), (60.0, HEARTBEAT_SECONDS), (3.0, 1.0), (0.3, 0.1)],
)
def test_systemd_hears_of_us_three_times_in_the_watchdog_s_time(
    watchdog_seconds: float | None, expected: float
) -> None:
    assert heartbeat_seconds(watchdog_seconds) == pytest.approx(expected)


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("watchdog_seconds", [60.0])  # so that no heartbeat ends it instead
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGHUP, (True, False)),
        (signal.SIGTERM, (False, True)),
        (signal.SIGINT, (False, True)),
    ],
)
def test_a_signal_before_the_wait_ends_it_at_once(
    host: SystemHost, number: int, expected: tuple[bool, bool]
) -> None:
    started = time.monotonic()
    send(number)
    wake = host.wait(later())

    assert time.monotonic() - started < SLACK_SECONDS
    assert (wake.reload, wake.stop) == expected
    again = host.wait(time.monotonic())
    assert (again.reload, again.stop) == (False, False)  # heard once


@pytest.mark.parametrize("watchdog_seconds", [60.0])
def test_a_signal_during_the_wait_ends_it(host: SystemHost) -> None:
    started = time.monotonic()
    timer = threading.Timer(0.1, send, [signal.SIGHUP])
    timer.start()
    wake = host.wait(later())
    timer.join()

    assert wake.reload
    assert time.monotonic() - started < 0.1 + SLACK_SECONDS


def test_signals_that_come_together_are_all_heard(host: SystemHost) -> None:
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
        send(number)
    wake = host.wait(later())

    assert (wake.reload, wake.stop) == (True, True)


def test_a_flood_of_signals_neither_blocks_nor_is_lost(host: SystemHost) -> None:
    for _ in range(70_000):  # more than the pipe holds
        signal.raise_signal(signal.SIGHUP)
    wakes = [host.wait(time.monotonic()) for _ in range(30)]
    send(signal.SIGTERM)
    stop = host.wait(later())

    assert wakes[0].reload
    assert not wakes[-1].reload
    assert stop.stop


def test_the_end_of_a_time_limit_is_no_order(host: SystemHost) -> None:
    """The alarm of a hostile command line comes through the same pipe."""
    handler = signal.signal(signal.SIGVTALRM, lambda _number, _frame: None)
    signal.raise_signal(signal.SIGVTALRM)
    wake = host.wait(later())
    signal.signal(signal.SIGVTALRM, handler)

    assert (wake.reload, wake.stop) == (False, False)


# -- the kernel's news -----------------------------------------------------------------------------


@pytest.fixture
def exits() -> Iterator[tuple[int, int]]:
    """A pipe in place of the descriptor that tells of ends, by its two ends."""
    reading_end, writing_end = os.pipe()
    yield reading_end, writing_end
    os.close(reading_end)
    os.close(writing_end)


def wants(exits: tuple[int, int], **others: bool) -> Wants:
    return Wants(
        **{"events": False, "forks": False, "pressure": False, **others}, exits_fd=exits[0]
    )


def test_a_wait_ends_when_the_shield_has_something_to_do(
    host: SystemHost, exits: tuple[int, int]
) -> None:
    reading_end, writing_end = os.pipe()
    host.listen(wants(exits)._replace(shield_fd=reading_end))
    os.write(writing_end, b"x")
    started = time.monotonic()
    wake = host.wait(later())
    os.close(reading_end)
    os.close(writing_end)

    assert time.monotonic() - started < SLACK_SECONDS
    assert (wake.stop, wake.reload, wake.ended) == (False, False, False)


def run_true() -> int:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    return process.pid


def waits(host: SystemHost, done: Callable[[Wake], bool]) -> Wake:
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        if done(wake := host.wait(end)):
            return wake
    raise AssertionError("not within 10 s")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may subscribe, before Linux 6.6")
@pytest.mark.parametrize("watchdog_seconds", [60.0])
def test_a_new_program_ends_the_wait(host: SystemHost, exits: tuple[int, int]) -> None:
    told = host.listen(wants(exits, events=True)).events
    pid = run_true()
    waits(host, lambda wake: pid in wake.heard.pids)

    assert told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may subscribe, before Linux 6.6")
def test_events_can_be_had_and_done_without_and_had_again(
    host: SystemHost, exits: tuple[int, int]
) -> None:
    first = host.listen(wants(exits, events=True)).events
    then = host.listen(wants(exits)).events
    run_true()
    silent = host.wait(time.monotonic() + 0.1)
    again = host.listen(wants(exits, events=True, forks=True)).events
    pid = run_true()
    waits(host, lambda wake: pid in wake.heard.pids)

    assert (first, then, again) == (True, False, True)
    assert silent.heard == SILENCE


def test_the_end_of_a_process_under_a_rule_ends_the_wait(
    host: SystemHost, exits: tuple[int, int]
) -> None:
    host.listen(wants(exits))
    before = host.wait(time.monotonic())
    os.write(exits[1], b"x")
    after = waits(host, lambda wake: wake.ended)

    assert (before.ended, after.ended) == (False, True)


def test_without_pressure_the_trigger_is_silent(host: SystemHost, exits: tuple[int, int]) -> None:
    host.listen(wants(exits, pressure=True))
    wakes = [host.wait(time.monotonic() + 0.01) for _ in range(5)]

    assert [wake.pressed for wake in wakes] == [False] * 5


def test_a_trigger_that_is_there_no_more_is_told_of_once_and_had_again(
    host: SystemHost, exits: tuple[int, int]
) -> None:
    if not host.listen(wants(exits, pressure=True)).pressure:
        pytest.skip("no pressure triggers here")
    assert host._trigger is not None
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    os.dup2(writing_end, host._trigger.fileno())  # to poll it gives POLLERR, for ever
    os.close(writing_end)
    wakes = [host.wait(time.monotonic() + 0.01) for _ in range(3)]
    again = host.listen(wants(exits, pressure=True)).pressure
    after = host.wait(time.monotonic() + 0.01)

    assert [wake.trigger_lost for wake in wakes] == [True, False, False]
    assert not any(wake.pressed for wake in wakes)
    assert again
    assert not after.trigger_lost


def work(cpu_seconds: float) -> None:
    end = time.process_time() + cpu_seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize("watchdog_seconds", [60.0])
def test_events_wait_while_the_work_on_the_last_is_made_up_for_and_signals_do_not(
    host: SystemHost, exits: tuple[int, int]
) -> None:
    host.listen(wants(exits))
    os.write(exits[1], b"x")
    host.wait(later())
    work(0.03)
    started = time.monotonic()
    host.wait(later())
    rested_seconds = time.monotonic() - started
    work(0.03)
    send(signal.SIGTERM)
    started = time.monotonic()
    wake = host.wait(later())

    assert rested_seconds >= 0.02
    assert (wake.stop, wake.ended) == (True, False)
    assert time.monotonic() - started < SLACK_SECONDS


class Spent:
    """A budget, and the CPU that is charged to it."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self.asked = 0  # how often for the CPU
        self._budget = Budget(self._used)

    def _used(self) -> float:
        self.asked += 1
        return self.cpu_seconds

    def after(
        self, waited_seconds: float, worked_seconds: float, *, cpu_seconds: float | None = None
    ) -> float:
        self.cpu_seconds += worked_seconds if cpu_seconds is None else cpu_seconds
        return self._budget.gather_seconds(waited_seconds, worked_seconds)


def test_what_comes_in_a_quiet_time_is_taken_up_at_once() -> None:
    budget = Spent()

    assert [budget.after(0.1, 0.0005) for _ in range(1000)] == [0.0] * 1000


def test_what_follows_on_an_event_does_not_wait_for_it() -> None:
    budget = Spent()

    assert [budget.after(0.0, 0.0005) for _ in range(10)] == [0.0] * 10


def test_in_a_storm_the_work_takes_its_share_of_the_time_and_no_more() -> None:
    budget, worked_seconds, all_seconds = Spent(), 0.0, 0.0
    gather_seconds = 0.0
    while all_seconds < 60.0:
        work_seconds = 0.0003 + 0.00001 * (1 + 500 * gather_seconds)
        gather_seconds = budget.after(gather_seconds, work_seconds)
        worked_seconds += work_seconds
        all_seconds += work_seconds + gather_seconds

    assert worked_seconds / all_seconds == pytest.approx(BUSY_RATIO, rel=0.1)
    assert 0.0 < gather_seconds < DELAY_MAX_SECONDS


@pytest.mark.parametrize(
    ("worked_seconds", "expected_seconds"), [(0.022, 0.028), (0.024, 0.026), (0.2, 0.2)]
)
def test_none_waits_longer_than_the_bound_unless_we_would_do_nothing_else(
    worked_seconds: float, expected_seconds: float
) -> None:
    gather_seconds = Spent().after(0.0, worked_seconds)

    assert gather_seconds == pytest.approx(expected_seconds)


def test_time_without_a_processor_is_not_made_up_for() -> None:
    budget = Spent()
    budget.after(0.0, 0.02)

    assert budget.after(0.0, 1.0, cpu_seconds=0.004) == pytest.approx(0.004)


def test_a_long_scan_is_made_up_for_soon() -> None:
    budget = Spent()
    budget.after(0.0, 3.0)
    waits = [budget.after(0.05, 0.0003) for _ in range(20)]

    assert waits[0] <= DELAY_MAX_SECONDS
    assert waits[-1] == 0.0


def test_in_a_quiet_time_nobody_asks_for_the_cpu_that_was_used() -> None:
    budget = Spent()
    for _ in range(1000):
        budget.after(0.1, 0.0005)

    assert budget.asked == 1  # at the beginning


def test_what_was_charged_in_a_quiet_time_is_not_charged_again() -> None:
    budget = Spent()
    for _ in range(1000):
        budget.after(0.1, 0.0005)
    gather_seconds = budget.after(0.0, 0.022)

    assert gather_seconds == pytest.approx(DELAY_MAX_SECONDS - 0.022)
    assert budget.asked == 2


def test_memory_is_locked_or_it_is_said_why_not(host: SystemHost) -> None:
    fault = host.settle_in()
    status = Path("/proc/self/status").read_text()
    locked_kib = int(status.partition("VmLck:")[2].split()[0])
    assert libc.munlockall() == 0

    assert (locked_kib > 0) is (fault == "")


# -- clocks, systemd, metrics ----------------------------------------------------------------------


def test_now_is_told_on_both_clocks(host: SystemHost) -> None:
    before = time.monotonic()
    now = host.now()
    started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age_seconds = now.boot_seconds - started_ticks / os.sysconf("SC_CLK_TCK")

    assert before <= now.seconds <= time.monotonic()
    assert 0.0 <= age_seconds < 3600.0


def test_systemd_hears_what_is_told(host: SystemHost, manager: socket.socket) -> None:
    host.notify("READY=1", "STATUS=fine")

    assert manager.recv(4096) == b"READY=1\nSTATUS=fine"


@pytest.mark.parametrize("watchdog_seconds", [60.0])
def test_systemd_is_not_woken_for_what_it_has_just_heard(
    host: SystemHost, manager: socket.socket
) -> None:
    for status in ("fine", "fine", "worse"):
        host.notify("WATCHDOG=1", f"STATUS={status}")
    host.notify("STOPPING=1")

    told = [manager.recv(4096).decode().splitlines() for _ in range(3)]
    assert told == [["WATCHDOG=1", "STATUS=fine"], ["WATCHDOG=1", "STATUS=worse"], ["STOPPING=1"]]


def test_it_hears_that_we_live_long_before_its_time_is_up(
    host: SystemHost, manager: socket.socket
) -> None:
    began = time.monotonic()
    while time.monotonic() < began + 1.5:  # the watchdog's time
        host.notify("WATCHDOG=1")
        host.wait(time.monotonic() + 0.01)
    host.notify("STOPPING=1")

    told = list(iter(lambda: manager.recv(4096), b"STOPPING=1"))
    assert 3 <= len(told) <= 7


def test_a_reload_begins_with_the_time_as_systemd_has_it() -> None:
    before = time.monotonic_ns() // 1000
    first, second = reloading()
    name, _, value = second.partition("=")

    assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before <= int(value) <= time.monotonic_ns() // 1000


def test_a_snapshot_is_published_and_grows_stale_after_three_heartbeats(
    host: SystemHost, reporter: Reporter
) -> None:
    reporter.rebind(Address("127.0.0.1", 0))
    host.publish(BASE)
    assert reporter.address is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{reporter.address.port}/metrics") as answer:
        shown = answer.read().decode()

    assert f'version="{BASE.version}"' in shown
    assert reporter.stale_seconds == pytest.approx(1.5)


def test_what_wakes_the_loop_is_not_inherited(host: SystemHost) -> None:
    poll = select.poll()
    poll.register(host._pipe, select.POLLIN)

    assert poll.poll(0) == []
    assert not os.get_inheritable(host._pipe)
