"""Having processes moved into scopes of their own, by the worker that may wait for systemd."""

from typing import Final

from oomwatchd.model import ProcessId
from oomwatchd.policy.shielding import Lodging
from oomwatchd.record import Moving, Record
from oomwatchd.systemd.manager import Manager, Reply, Request

PAUSE_SECONDS: Final = 60.0  # before what has failed is tried again
NEVER: Final = float("inf")


class Moves:
    def __init__(self, manager: Manager | None, record: Record, *, dry_run: bool) -> None:
        """*manager*: None, where nobody can be moved, which has been told at the start."""
        self._manager = manager
        self._record = record
        self._dry_run = dry_run
        self._wanted: dict[ProcessId, Lodging] = {}
        self._not_before: dict[ProcessId, float] = {}  # when to ask for one who has been asked for

    def want(self, lodging: Lodging) -> None:
        self._wanted[lodging.id] = lodging

    def drop(self, id: ProcessId) -> None:
        """It has gone, or lives where it should."""
        self._wanted.pop(id, None)
        self._not_before.pop(id, None)

    @property
    def failures(self) -> int:
        """Of workers."""
        return self._manager.failures if self._manager is not None else 0

    def tend(self, now_seconds: float) -> set[int]:
        """Go on; gives the pids that may live elsewhere now."""
        if self._dry_run:
            self._say_what_would_be()
        if self._manager is None:
            return set()
        self._ask(self._manager, now_seconds)
        replies = self._manager.tend(now_seconds)
        for reply in replies:
            self._take(reply, now_seconds)
        # Whom it has moved along as descendants, it does not tell.
        return {id.pid for id in self._wanted} if replies else set()

    def _ask(self, manager: Manager, now_seconds: float) -> None:
        """For parents before children, as these come along."""
        due = [id for id in self._wanted if self._not_before.get(id, 0.0) <= now_seconds]
        for id in sorted(due, key=lambda id: id.start_ticks):
            self._not_before[id] = NEVER
            manager.ask(Request(self._wanted[id].rule, id))

    def _take(self, reply: Reply, now_seconds: float) -> None:
        lodging = self._wanted.get(reply.process)
        if lodging is None:
            return  # it has ended meanwhile
        again = NEVER if reply.result == "left_alone" else now_seconds + PAUSE_SECONDS
        self._not_before[reply.process] = again
        self._record.moving(
            Moving(
                reply.process, lodging.rule, reply.result, reply.scope, reply.moved, reply.reason
            )
        )

    def _say_what_would_be(self) -> None:
        for id, lodging in self._wanted.items():
            if id not in self._not_before:
                self._not_before[id] = NEVER
                self._record.moving(Moving(id, lodging.rule, "moved"))

    def close(self) -> None:
        if self._manager is not None:
            self._manager.close()
