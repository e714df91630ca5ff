"""systemd's manager, asked through a worker process, so that nobody has to wait for it.

The worker is started when there is something to ask, and ends when there has been nothing for a
while: it takes 20 MiB.  It has a deadline for each request; who misses it is killed, and the next
one is started after a pause that doubles each time.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from oomwatchd.model import MoveResult, ProcessId

DEADLINE_SECONDS: Final = 30.0  # a call over D-Bus gives up after 25
IDLE_SECONDS: Final = 10.0
PAUSE_SECONDS_MAX: Final = 60.0
END_SECONDS: Final = 1.0  # to wait for the killed one, which may be waiting for memory itself
POLL_SECONDS: Final = 0.005
PACKET_BYTES: Final = 65536
# -I: neither the directory that we were started in nor the environment says what is imported.
RUN_WORKER: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from oomwatchd.systemd.worker import main; main()"
)
PACKAGE_PARENT: Final = Path(__file__).resolve().parents[2]

RESULTS: Final = frozenset(get_args(MoveResult))


class Failed(Exception):
    """It could not be done; the text says why."""


class Request(NamedTuple):
    """Move *process* and its descendants into a scope of their own."""

    rule: str
    process: ProcessId

    def packed(self) -> bytes:
        return json.dumps([self.rule, *self.process]).encode()

    @classmethod
    def parsed(cls, packet: bytes) -> "Request":
        rule, pid, start_ticks = json.loads(packet)
        return cls(rule, ProcessId(pid, start_ticks))


class Reply(NamedTuple):
    process: ProcessId
    result: MoveResult
    scope: str = ""  # the path of its cgroup
    moved: int = 0  # processes
    reason: str = ""

    def packed(self) -> bytes:
        return json.dumps([*self.process, *self[1:]]).encode()

    @classmethod
    def parsed(cls, packet: bytes) -> "Reply":
        """Raises:  ValueError, if it is none."""
        try:
            pid, start_ticks, result, scope, moved, reason = json.loads(packet)
            reply = cls(ProcessId(pid, start_ticks), result, str(scope), int(moved), str(reason))
        except TypeError as error:
            raise ValueError(str(error)) from error
        if reply.result not in RESULTS:
            raise ValueError(f"{reply.result!r} is no result")
        return reply


class Worker(NamedTuple):
    pid: int
    link: socket.socket


Spawn = Callable[[], Worker]


class Manager:
    """All calls return at once."""

    def __init__(self, poll: select.epoll, spawn: Spawn) -> None:
        """*poll* is where to register what has to be waited for."""
        self.failures = 0  # workers that hung or broke, since start
        self._poll = poll
        self._spawn = spawn
        self._worker: Worker | None = None
        self._dying: set[int] = set()  # children to be reaped
        self._queue: deque[Request] = deque()
        self._asked: Request | None = None
        self._deadline_seconds = 0.0
        self._idle_since_seconds = 0.0
        self._pause_seconds = 0.0
        self._next_start_seconds = 0.0

    def ask(self, request: Request) -> None:
        """Have *request* carried out; `tend` gives the reply, whatever becomes of it."""
        self._queue.append(request)

    def tend(self, now_seconds: float) -> list[Reply]:
        """See what has been done, and go on; to be called now and then, and when *poll* tells."""
        self._reap()
        replies = self._received(now_seconds)
        if self._asked is not None and now_seconds >= self._deadline_seconds:
            late = f"systemd did not answer within {DEADLINE_SECONDS:g} s"
            replies.append(self._broken(late, now_seconds))
        replies += self._send_next(now_seconds)
        idle = self._asked is None and now_seconds - self._idle_since_seconds >= IDLE_SECONDS
        if idle and self._worker is not None:
            self._part()
        return replies

    def close(self) -> None:
        """End the worker, whatever it does."""
        self._part()
        for pid in self._dying:
            os.kill(pid, signal.SIGKILL)  # our child, not reaped yet: it is the same
        until = time.monotonic() + END_SECONDS
        while self._dying and time.monotonic() < until:
            self._reap()
            time.sleep(POLL_SECONDS)

    def _received(self, now_seconds: float) -> list[Reply]:
        if self._worker is None:
            return []
        try:
            packet = self._worker.link.recv(PACKET_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            packet = b""
        if self._asked is None or not packet:
            return self._ended(now_seconds)
        try:
            reply = Reply.parsed(packet)
        except ValueError as error:
            return [self._broken(f"the worker does not make sense: {error}", now_seconds)]
        if reply.process != self._asked.process:
            return [self._broken("the worker does not answer what it was asked", now_seconds)]
        self._asked = None
        self._idle_since_seconds = now_seconds
        self._pause_seconds = 0.0
        return [reply]

    def _ended(self, now_seconds: float) -> list[Reply]:
        """The worker is there no more, or says what it was not asked for."""
        if self._asked is not None:
            return [self._broken("the worker has ended", now_seconds)]
        self._fail(now_seconds)
        return []

    def _broken(self, reason: str, now_seconds: float) -> Reply:
        """The reply to what was asked of a worker that is no good."""
        assert self._asked is not None  # noqa: S101 - who calls has seen it
        asked, self._asked = self._asked, None
        self._fail(now_seconds)
        return Reply(asked.process, "failed", reason=reason)

    def _fail(self, now_seconds: float) -> None:
        self.failures += 1
        self._pause_seconds = min(max(2 * self._pause_seconds, 1.0), PAUSE_SECONDS_MAX)
        self._next_start_seconds = now_seconds + self._pause_seconds
        if self._worker is not None:
            os.kill(self._worker.pid, signal.SIGKILL)
            self._part()

    def _send_next(self, now_seconds: float) -> list[Reply]:
        if self._asked is not None or not self._queue:
            return []
        if self._worker is None and now_seconds < self._next_start_seconds:
            return []
        self._asked = self._queue.popleft()
        self._deadline_seconds = now_seconds + DEADLINE_SECONDS
        try:
            if self._worker is None:
                self._worker = self._spawn()
                self._poll.register(self._worker.link, select.EPOLLIN)
            self._worker.link.send(self._asked.packed())
        except OSError as error:  # no memory, no task left; or it has ended
            return [self._broken(f"no worker: {error.strerror}", now_seconds)]
        return []

    def _part(self) -> None:
        """Close the link, upon which a worker that works ends; it is reaped later."""
        if self._worker is not None:
            self._poll.unregister(self._worker.link)
            self._worker.link.close()
            self._dying.add(self._worker.pid)
            self._worker = None

    def _reap(self) -> None:
        self._dying = {pid for pid in self._dying if os.waitpid(pid, os.WNOHANG)[0] == 0}


def worker_command(cgroup_root: Path) -> list[str]:
    return [sys.executable, "-I", "-c", RUN_WORKER, str(PACKAGE_PARENT), str(cgroup_root)]


def spawned(command: list[str]) -> Worker:
    """Start *command* with the other end of a link as its standard input.

    By posix_spawn, which copies no memory and needs no lock that another thread may hold.
    """
    kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with theirs:
        actions: list[Any] = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
        pid = os.posix_spawn(command[0], command, {"LC_ALL": "C.UTF-8"}, file_actions=actions)
    ours.settimeout(0)
    return Worker(pid, ours)
