"""The world outside the loop: what it waits for, and whom it tells."""

import os
import select
import signal
import time
from types import FrameType
from typing import Final, NamedTuple, Protocol

from oomwatchd.model import Snapshot
from oomwatchd.population import Moment
from oomwatchd.server import Reporter
from oomwatchd.systemd.notify import Notifier

STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
HEARTBEAT_SECONDS: Final = 5.0  # the loop turns at least so often, however long the interval
HEARTBEATS_PER_WATCHDOG: Final = 3


class Wake(NamedTuple):
    """What ended one wait; signals have been read, this is only data."""

    now: Moment
    reload: bool = False
    stop: bool = False


class Host(Protocol):
    """The outside world, as far as the loop needs it; tests hand in a scripted one."""

    def now(self) -> Moment: ...

    def wait(self, until_seconds: float) -> Wake: ...

    def notify(self, *assignments: str) -> None: ...

    def publish(self, snapshot: Snapshot) -> None: ...


class SystemHost:
    """Signals, the clock, systemd and the metrics server."""

    def __init__(self, notifier: Notifier, reporter: Reporter) -> None:
        self._notifier = notifier
        self._reporter = reporter
        self._pipe, writing_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing_end, warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            signal.signal(number, noted)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._heartbeat_seconds = heartbeat_seconds(notifier.watchdog_seconds)
        reporter.stale_seconds = 3 * self._heartbeat_seconds

    def attend(self, fd: int) -> None:
        """From now on a wait also ends when *fd* is readable."""
        self._poll.register(fd, select.POLLIN)

    def now(self) -> Moment:
        return Moment(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))

    def wait(self, until_seconds: float) -> Wake:
        """Wait for a signal or what else we attend to, for *until_seconds* (monotonic), or for the
        next heartbeat.
        """
        wait_seconds = min(until_seconds - time.monotonic(), self._heartbeat_seconds)
        self._poll.poll(max(wait_seconds, 0.0) * 1000)
        numbers = self._signals()
        return Wake(
            now=self.now(),
            reload=signal.SIGHUP in numbers,
            stop=not STOP_SIGNALS.isdisjoint(numbers),
        )

    def notify(self, *assignments: str) -> None:
        self._notifier.send(*assignments)

    def publish(self, snapshot: Snapshot) -> None:
        self._reporter.publish(snapshot)

    def _signals(self) -> bytes:
        try:
            return os.read(self._pipe, 4096)
        except BlockingIOError:
            return b""


def noted(_number: int, _frame: FrameType | None) -> None:
    """The number has been written to the pipe; there is nothing more to do here."""


def heartbeat_seconds(watchdog_seconds: float | None) -> float:
    """How long one wait may last, so that systemd hears of us in time."""
    if watchdog_seconds is None:
        return HEARTBEAT_SECONDS
    return min(HEARTBEAT_SECONDS, watchdog_seconds / HEARTBEATS_PER_WATCHDOG)


def reloading() -> tuple[str, str]:
    """What systemd is told when a reload begins; sd_notify(3)."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"
