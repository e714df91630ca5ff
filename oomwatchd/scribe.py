"""Writes incidents down in a thread of its own: a disk may be slow, or never answer."""

import queue
import threading
from collections import deque
from typing import Final, NamedTuple

from oomwatchd.document import encoded
from oomwatchd.incident import Incident
from oomwatchd.incidents import Incidents
from oomwatchd.policy.causes import Causes

WAITING_MAX: Final = 16  # incidents, each with a history of up to 2 MiB


class Outcome(NamedTuple):
    incident: Incident
    written: bool
    fault: str = ""
    document: bytes = b""  # as it was, or would have been, written


class Scribe:
    def __init__(self, incidents: Incidents) -> None:
        self.documents = False  # whether outcomes are to have one
        self._incidents = incidents
        self._told: Causes | None = None  # of what is there from an earlier daemon
        self._queue: queue.Queue[Incident | None] = queue.Queue(WAITING_MAX)
        self._outcomes: deque[Outcome] = deque()
        self._thread: threading.Thread | None = None

    @property
    def has_room(self) -> bool:
        return not self._queue.full()

    def keep(self, incident: Incident) -> None:
        """Have *incident* written; how it went is among the `outcomes` later.

        One from while the daemon was down has none, if an earlier daemon has written it down.
        """
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="scribe", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(incident)
        except queue.Full:
            self._outcomes.append(
                Outcome(incident, written=False, fault="too many wait to be written")
            )

    def outcomes(self) -> list[Outcome]:
        """What has been written, or could not be, since the last time."""
        return [self._outcomes.popleft() for _ in range(len(self._outcomes))]

    def close(self, wait_seconds: float) -> bool:
        """Write what waits, for at most so long; whether all of it was done."""
        if self._thread is None:
            return True
        try:
            self._queue.put(None, timeout=wait_seconds)
        except queue.Full:
            return False
        self._thread.join(wait_seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (incident := self._queue.get()) is not None:
            if incident.while_down and self._is_told(incident):
                continue
            outcome = self._written(incident)
            document = encoded(outcome.incident) if self.documents else b""
            self._outcomes.append(outcome._replace(document=document))

    def _is_told(self, incident: Incident) -> bool:
        """Whether an earlier daemon has written it down; or so many since that it is gone again."""
        if self._told is None:
            keys = self._incidents.case_keys()
            self._told = Causes(len(keys), keys)
        return incident.case.key in self._told or not self._incidents.has_room_for(incident.id)

    def _written(self, incident: Incident) -> Outcome:
        try:
            self._incidents.prepare()
            incident = self._incidents.write(incident)
        except OSError as error:
            return Outcome(incident, written=False, fault=error.strerror or str(error))
        try:
            self._incidents.prune()
        except OSError as error:
            return Outcome(incident, written=True, fault=f"old ones stay: {error.strerror}")
        return Outcome(incident, written=True)
