"""The world outside the loop: what it waits for, and whom it tells."""

import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Final, NamedTuple, Protocol

from oomwatchd.kernel.events import ProcessEvents
from oomwatchd.kernel.memory import lock_memory
from oomwatchd.kernel.psi import PressureTrigger
from oomwatchd.model import SILENCE, Heard, Snapshot
from oomwatchd.population import Moment
from oomwatchd.server import Reporter
from oomwatchd.systemd.notify import Notifier

STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
HEARTBEAT_SECONDS: Final = 5.0  # the loop turns at least so often, however long the interval
HEARTBEATS_PER_WATCHDOG: Final = 3
BUSY_RATIO: Final = 1 / 16  # of one processor, for events,
SAVED_MAX_SECONDS: Final = 0.02  # and what has been saved up of it in quiet times
DELAY_MAX_SECONDS: Final = 0.05


class Wake(NamedTuple):
    """What ended one wait; signals and events have been read, this is only data."""

    now: Moment
    reload: bool = False
    stop: bool = False
    heard: Heard = SILENCE
    ended: bool = False  # a process under a rule
    pressed: bool = False  # tasks wait for memory
    logged: bool = False  # the kernel, something
    told: bool = False  # systemd-oomd, perhaps
    beat: bool = False  # systemd has to hear of us now
    trigger_lost: bool = False  # we are not told any more that tasks wait for memory


class Wants(NamedTuple):
    """What a wait is to end for, besides signals and time."""

    events: bool  # the kernel's news of processes, and
    forks: bool  # of forks as well
    pressure: bool
    exits_fd: int  # readable when a process under a rule has ended
    shield_fd: int | None = None  # readable when the shield has something to do
    log_fd: int | None = None  # readable when the kernel has logged something
    oomd_fd: int | None = None  # readable when systemd-oomd may have told of a kill
    load_fd: int | None = None  # readable when the configuration has been loaded


class Hears(NamedTuple):
    """What the kernel tells us of its own accord."""

    events: bool  # of processes
    pressure: bool


class Host(Protocol):
    """The outside world, as far as the loop needs it; tests hand in a scripted one."""

    def now(self) -> Moment: ...

    def listen(self, wants: Wants) -> Hears:
        """From now on, as far as the kernel lets us."""

    def settle_in(self) -> str:
        """All has been done once; what could not be had for good, if anything."""

    def wait(self, until_seconds: float) -> Wake: ...

    def notify(self, *assignments: str) -> None: ...

    def publish(self, snapshot: Snapshot) -> None: ...


class SystemHost:
    """Signals, the kernel's news, the clock, systemd and the metrics server."""

    def __init__(self, notifier: Notifier, reporter: Reporter) -> None:
        self._notifier = notifier
        self._reporter = reporter
        self._pipe, self._writing_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writing_end, warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            signal.signal(number, noted)
        self._events: ProcessEvents | None = None
        self._trigger: PressureTrigger | None = None
        self._exits_fd: int | None = None
        self._log_fd: int | None = None
        self._oomd_fd: int | None = None
        self._prompt = select.poll()  # what is never put off
        self._all = select.poll()
        self._register(self._pipe, select.POLLIN)
        self._budget = Budget()
        self._waiting_seconds = self._woken_seconds = time.monotonic()
        self._heartbeat_seconds = heartbeat_seconds(notifier.watchdog_seconds)
        self._beat_seconds = time.monotonic()  # when systemd has to hear of us again
        reporter.stale_seconds = 3 * self._heartbeat_seconds

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._writing_end)
        os.close(self._pipe)
        for listener in (self._events, self._trigger):
            if listener is not None:
                listener.close()

    def now(self) -> Moment:
        return Moment(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))

    def listen(self, wants: Wants) -> Hears:
        if self._exits_fd is None:
            self._exits_fd = wants.exits_fd
            self._all.register(wants.exits_fd, select.POLLIN)
            self._log_fd, self._oomd_fd = wants.log_fd, wants.oomd_fd
            for fd in (wants.shield_fd, wants.log_fd, wants.oomd_fd, wants.load_fd):
                if fd is not None:
                    self._all.register(fd, select.POLLIN)
        if wants.pressure and self._trigger is None:
            self._listen_for_pressure()
        if self._events is not None and not wants.events:
            self._all.unregister(self._events)
            self._events.close()
            self._events = None
        elif self._events is not None:
            self._events.filter(forks=wants.forks)
        elif wants.events:
            self._listen_for_events(forks=wants.forks)
        return Hears(self._events is not None, self._trigger is not None)

    def _listen_for_events(self, *, forks: bool) -> None:
        with suppress(OSError):  # `kernel.features` has told why not, and what is lost by that
            self._events = ProcessEvents(forks=forks)
            self._all.register(self._events, select.POLLIN)

    def _listen_for_pressure(self) -> None:
        with suppress(OSError):  # likewise
            self._trigger = PressureTrigger()
            self._register(self._trigger.fileno(), select.POLLPRI)

    def _register(self, fd: int, mask: int) -> None:
        self._prompt.register(fd, mask)
        self._all.register(fd, mask)

    def settle_in(self) -> str:
        """Keep our pages in memory from now on, so that no event waits for one to be fetched."""
        try:
            lock_memory()
        except OSError as error:
            return f"its memory is not locked: {error.strerror}"
        return ""

    def wait(self, until_seconds: float) -> Wake:
        """Wait for a signal, an event, *until_seconds* (monotonic), or the next heartbeat."""
        ready = self._ready(until_seconds)
        numbers = os.read(self._pipe, 4096) if self._pipe in ready else b""
        heard = SILENCE
        if self._events is not None and self._events.fileno() in ready:
            heard = self._events.drain()
        ended = self._exits_fd in ready
        trigger = self._trigger
        pressed = trigger is not None and self._is_pressed(trigger, ready)
        now = self.now()
        self._woken_seconds = now.seconds
        return Wake(
            now=now,
            reload=signal.SIGHUP in numbers,
            stop=not STOP_SIGNALS.isdisjoint(numbers),
            heard=heard,
            ended=ended,
            pressed=pressed,
            logged=self._log_fd in ready,
            told=self._oomd_fd in ready,
            beat=now.seconds >= self._beat_seconds,
            trigger_lost=trigger is not self._trigger,
        )

    def _ready(self, until_seconds: float) -> dict[int, int]:
        """The descriptors that have something to tell."""
        now_seconds = time.monotonic()
        until_seconds = min(until_seconds, now_seconds + self._heartbeat_seconds)
        if now_seconds < self._beat_seconds:
            until_seconds = min(until_seconds, self._beat_seconds)
        gather_seconds = self._budget.gather_seconds(
            waited_seconds=self._woken_seconds - self._waiting_seconds,
            worked_seconds=now_seconds - self._woken_seconds,
        )
        self._waiting_seconds = now_seconds
        if gather_seconds:
            gathered_seconds = now_seconds + gather_seconds
            ready = polled(self._prompt, min(gathered_seconds, until_seconds))
            if ready or gathered_seconds >= until_seconds:
                return ready
        return polled(self._all, until_seconds)

    def _is_pressed(self, trigger: PressureTrigger, ready: Mapping[int, int]) -> bool:
        mask = ready.get(trigger.fileno(), 0)
        if mask & select.POLLERR:  # it would be ready for ever
            self._prompt.unregister(trigger.fileno())
            self._all.unregister(trigger.fileno())
            trigger.close()
            self._trigger = None
            return False
        return bool(mask)

    def notify(self, *assignments: str) -> None:
        """Tell systemd; but not that we live, if it has just heard that: each time wakes it up."""
        now_seconds = time.monotonic()
        early = now_seconds < self._beat_seconds - self._heartbeat_seconds / 2
        if early and self._notifier.news(assignments) == ["WATCHDOG=1"]:
            return
        if "WATCHDOG=1" in assignments:
            self._beat_seconds = now_seconds + self._heartbeat_seconds
        self._notifier.send(*assignments)

    def publish(self, snapshot: Snapshot) -> None:
        self._reporter.publish(snapshot)


def polled(poll: select.poll, until_seconds: float) -> dict[int, int]:
    return dict(poll.poll(max(until_seconds - time.monotonic(), 0.0) * 1000))


class Budget:
    """Time to work on events: a share of all time, saved up to a bound while there are none.

    So an event in a quiet time is taken up at once, and what follows on it as well.  In a storm
    they gather, and come in ever larger lots, which cost less for each.
    """

    def __init__(self, cpu_seconds: Callable[[], float] = time.process_time) -> None:
        """*cpu_seconds*: what we have used of it in all."""
        self._cpu_seconds = cpu_seconds
        self._used_seconds = cpu_seconds()  # when it was last asked for,
        self._paid_seconds = 0.0  # and what has been charged since
        self._saved_seconds = SAVED_MAX_SECONDS

    def gather_seconds(self, waited_seconds: float, worked_seconds: float) -> float:
        """How long to let events gather, after a wait and the work that followed it.

        None is left for longer than DELAY_MAX_SECONDS from the start of that work, unless there is
        so much of it that we would do nothing else.
        """
        saved_seconds = min(self._saved_seconds + waited_seconds * BUSY_RATIO, SAVED_MAX_SECONDS)
        cpu_seconds = self._charged_seconds(worked_seconds, saved_seconds)
        self._saved_seconds = saved_seconds - cpu_seconds
        if self._saved_seconds >= 0.0:
            return 0.0
        self._saved_seconds = max(self._saved_seconds, -SAVED_MAX_SECONDS)
        enough_seconds = -self._saved_seconds / BUSY_RATIO
        return min(enough_seconds, max(DELAY_MAX_SECONDS - worked_seconds, cpu_seconds))

    def _charged_seconds(self, worked_seconds: float, saved_seconds: float) -> float:
        """All of the time, if that much is saved: asking for the CPU takes a system call.

        Else the CPU alone.  Work for which there was no processor is not made up for: the machine
        is busy, and we are late already.
        """
        if worked_seconds <= saved_seconds:
            self._paid_seconds += worked_seconds
            return worked_seconds
        used_seconds = self._cpu_seconds()
        unpaid_seconds = used_seconds - self._used_seconds - self._paid_seconds
        self._used_seconds, self._paid_seconds = used_seconds, 0.0
        return max(unpaid_seconds, 0.0)


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
