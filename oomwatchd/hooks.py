"""Programs of the administrator's, run when somebody was killed or memory is short.

One at a time, each for 30 s at most, each in a session of its own; none is waited for.
"""

import json
import os
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final, NamedTuple

from oomwatchd.model import Command, Config, HookName, HookResult, Level, Pressure
from oomwatchd.record import Hooked, Record
from oomwatchd.systemd.manager import PACKAGE_PARENT

LIMIT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.25  # between two looks at whether one has ended
WAITING_MAX: Final = 16  # of incidents, each up to 1 MiB; more are dropped, and that is told
NEVER: Final = float("inf")
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
# -I: neither the directory that we were started in nor the environment says what is imported.
RUN_HOOK: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from oomwatchd.hooked import main; main()"
)
OURS: Final = (sys.executable, "-I", "-c", RUN_HOOK, str(PACKAGE_PARENT))
STDIN, STDOUT, STDERR = range(3)


class Waiting(NamedTuple):
    name: HookName
    command: Command
    document: bytes


class Running(NamedTuple):
    pid: int  # of the session's and the group's first process, which is our child
    name: HookName
    command: Command
    since_seconds: float


class Hooks:
    """No call blocks."""

    def __init__(self, record: Record, *, dry_run: bool) -> None:
        self._record = record
        self._dry_run = dry_run
        self._waiting: deque[Waiting] = deque()
        self._running: Running | None = None
        self._overdue = False  # it has been killed, and has not ended yet
        self._next_seconds = NEVER

    @property
    def due_seconds(self) -> float:
        """When to call `tend`, if nothing happens before."""
        return self._next_seconds

    def configure(self, config: Config) -> None:
        self._config = config

    def incident_kept(self, document: bytes) -> None:
        if document:  # else it was explained before a reload that asks for it
            self._add("on_incident", self._config.on_incident, document)

    def pressure_rose(self, level: Level, pressure: Pressure | None) -> None:
        hooks = self._config.on_pressure
        told = {
            "level": level,
            "time_unix_seconds": round(time.time(), 3),
            "pressure": pressure._asdict() if pressure is not None else None,
        }
        command = hooks.critical if level == "critical" else hooks.warning
        self._add("on_pressure", command, json.dumps(told).encode())

    def tend(self, now_seconds: float) -> None:
        """See whether the one that runs has ended, or has to; start the next."""
        if self._running is not None:
            self._watch(self._running, now_seconds)
        if self._running is None and self._waiting:
            self._start(self._waiting.popleft(), now_seconds)
        busy = self._running is not None or self._waiting
        self._next_seconds = now_seconds + POLL_SECONDS if busy else NEVER

    def close(self) -> None:
        """End the one that runs, whatever it does."""
        self._waiting.clear()
        if self._running is not None:
            kill(self._running)
            os.waitpid(self._running.pid, 0)
            self._running = None

    def _add(self, name: HookName, command: Command, document: bytes) -> None:
        if not command:
            return
        if self._dry_run:
            self._record.hooked(Hooked(name, command[0], "done"))
        elif len(self._waiting) >= WAITING_MAX:
            self._record.hooked(Hooked(name, command[0], "dropped"))
        else:
            self._waiting.append(Waiting(name, command, document))
            self._next_seconds = 0.0

    def _start(self, one: Waiting, now_seconds: float) -> None:
        try:
            pid = spawned([*OURS, *one.command], one.document)
        except OSError as error:  # no memory, or no task left
            reason = f"no process for it: {error.strerror}"
            self._record.hooked(Hooked(one.name, one.command[0], "failed", reason))
            return
        self._running = Running(pid, one.name, one.command, now_seconds)
        self._overdue = False

    def _watch(self, running: Running, now_seconds: float) -> None:
        if os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self._bury(running)
        elif now_seconds >= running.since_seconds + LIMIT_SECONDS and not self._overdue:
            kill(running)
            self._overdue = True

    def _bury(self, running: Running) -> None:
        """What it has left behind in its group ends with it; until we reap it, the group is its."""
        kill(running)
        status = os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1])
        result, reason = verdict(status, overdue=self._overdue)
        self._record.hooked(Hooked(running.name, running.command[0], result, reason))
        self._running = None


def verdict(status: int, *, overdue: bool) -> tuple[HookResult, str]:
    """*status*: as `os.waitstatus_to_exitcode` gives it."""
    if overdue:
        return "timed_out", f"killed, as it took longer than {LIMIT_SECONDS:g} s"
    if status == 0:
        return "done", ""
    return "failed", f"exit status {status}" if status > 0 else f"ended by signal {-status}"


def spawned(command: list[str], document: bytes) -> int:
    """Start *command* in a session of its own, with *document* as its standard input.

    By posix_spawn, which copies no memory and needs no lock that another thread may hold.  The
    document lies in memory, as a pipe would hold 64 KiB of it and no more.

    Raises:  OSError.
    """
    fd = os.memfd_create("oomwatchd-hook", os.MFD_CLOEXEC)
    try:
        os.truncate(fd, len(document))
        os.pwrite(fd, document, 0)
        actions: list[Any] = [
            (os.POSIX_SPAWN_DUP2, fd, STDIN),
            (os.POSIX_SPAWN_DUP2, STDERR, STDOUT),  # into the journal
        ]
        return os.posix_spawn(
            command[0], command, ENVIRONMENT, file_actions=actions, setsid=True, setsigmask=()
        )
    finally:
        os.close(fd)


def kill(running: Running) -> None:
    """End its group; it has not been reaped, so the number is still its own."""
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
