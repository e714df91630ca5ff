"""How many processes of each rule every killer can still take: the audit in numbers, now and then.

An audit reads of all processes and asks systemd, which may take as long as it likes.  So a child
does it (`auditor`), which is started for one audit: for the rest of the time it costs no memory.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from oomwatchd.holds import Hold
from oomwatchd.systemd.manager import PACKAGE_PARENT, Spawn, Worker

FIRST_SECONDS: Final = 5.0  # after the start, when all values have been set
EVERY_SECONDS: Final = 60.0
COST_RATIO: Final = 0.001  # of one core's time: on a large machine an audit comes less often
DEADLINE_SECONDS: Final = 45.0  # systemd has 10, and a machine short of memory is slow
TARGETS_MAX: Final = 2048  # so that a question fits into one packet; of more, the first
ANSWER_BYTES: Final = 1 << 20

# -I: neither the directory that we were started in nor the environment says what is imported.
RUN_AUDITOR: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from oomwatchd.auditor import main; main()"
)

Exposed = Mapping[tuple[str, str], int]  # by rule and killer


class Exposure:
    """Asks at most once a minute, and keeps the last answer.  No call ever blocks."""

    def __init__(self, spawn: Spawn) -> None:
        self.exposed: Exposed | None = None  # None: not known
        self.fault = ""  # why not
        self._spawn = spawn
        self._worker: Worker | None = None
        self._deadline_seconds = 0.0
        self._next_seconds: float | None = None
        self._dying: list[int] = []  # children to be reaped

    def tend(self, holds: Iterable[Hold], now_seconds: float) -> None:
        self._dying = [pid for pid in self._dying if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if self._worker is not None:
            self._hear(self._worker, now_seconds)
        elif self._next_seconds is None:
            self._next_seconds = now_seconds + FIRST_SECONDS
        elif now_seconds >= self._next_seconds:
            self._ask([hold for hold in holds if hold.rule.protects], now_seconds)

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._worker is not None:
            self._part(self._worker)
        for pid in self._dying:
            os.waitpid(pid, 0)
        self._dying = []

    def _ask(self, holds: list[Hold], now_seconds: float) -> None:
        if not holds:
            self.exposed, self.fault = {}, ""
            return
        self._next_seconds = now_seconds + EVERY_SECONDS
        self._deadline_seconds = now_seconds + DEADLINE_SECONDS
        try:
            self._worker = self._spawn()
            with suppress(BrokenPipeError):  # it has ended already, which is noticed later
                self._worker.link.send(question(holds[:TARGETS_MAX]))
        except OSError as error:  # no memory, or no task left
            self._give_up(f"no process for it: {error.strerror}")

    def _hear(self, worker: Worker, now_seconds: float) -> None:
        try:
            packet = worker.link.recv(ANSWER_BYTES)
        except BlockingIOError:
            if now_seconds >= self._deadline_seconds:
                self._give_up(f"it took longer than {DEADLINE_SECONDS:g} s")
            return
        except ConnectionResetError:  # before it had read the question
            packet = b""
        if not packet:
            self._give_up("its process has ended")
            return
        self._part(worker)
        answer = json.loads(packet)
        self.exposed = {(rule, killer): count for rule, killer, count in answer["exposed"]}
        self.fault = ""
        pause_seconds = max(EVERY_SECONDS, answer["cpu_seconds"] / COST_RATIO)
        self._next_seconds = now_seconds + pause_seconds

    def _give_up(self, reason: str) -> None:
        self.exposed, self.fault = None, reason
        if self._worker is not None:
            self._part(self._worker)

    def _part(self, worker: Worker) -> None:
        """It has said all, or nothing; it is our child, not reaped yet, so its pid is its own."""
        os.kill(worker.pid, signal.SIGKILL)
        worker.link.close()
        self._dying.append(worker.pid)
        self._worker = None


def question(holds: Iterable[Hold]) -> bytes:
    """The processes, and of their rules what an audit goes by."""
    rules: dict[str, list[Any]] = {}
    targets = []
    for hold in holds:
        rule = hold.rule
        rules[rule.name] = [rule.oom_score_adj, rule.workers, rule.shield]
        targets.append([*hold.id, hold.wanted, rule.name])
    return json.dumps({"rules": rules, "targets": targets}, separators=(",", ":")).encode()


def auditor_command() -> list[str]:
    return [sys.executable, "-I", "-c", RUN_AUDITOR, str(PACKAGE_PARENT)]
