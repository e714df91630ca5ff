"""Evidence that waits until all that belongs to it must have come, and the cases made of it."""

from collections.abc import Sequence
from typing import Final

from oomwatchd.incident import Case, Evidence, Victim
from oomwatchd.policy.attribution import cases, is_near, shares_unit
from oomwatchd.policy.causes import SAME_SECONDS, Causes

SETTLE_SECONDS: Final = 2.0  # the kernel's log, systemd-oomd and PID 1 have told by then
DOUBT_SECONDS: Final = 5.0  # before we say that nobody has
KEPT_SECONDS: Final = 30.0  # for what comes late, and belongs to a case that is closed
WAITING_MAX: Final = 512  # pieces; a flood of kills leaves the later ones uncounted here
CLOSED_MAX: Final = 4096
NEVER: Final = float("inf")


class Docket:
    def __init__(self, boot_id: str) -> None:
        self.dropped = 0  # pieces of evidence for which there was no room
        self.doubted: frozenset[str] = frozenset()  # keys of cases that nobody has owned up to yet
        self._boot_id = boot_id
        self._evidence: list[Evidence] = []
        self._closed = Causes(CLOSED_MAX)
        self._victims: dict[int, float] = {}  # by pid, when they were killed
        self._next_seconds = NEVER

    @property
    def next_boot_seconds(self) -> float:
        """When a case may be ripe, on the clock of the evidence."""
        return self._next_seconds

    def add(self, evidence: Evidence) -> None:
        if len(self._evidence) >= WAITING_MAX:
            self.dropped += 1
            return
        self._evidence.append(evidence)
        self._next_seconds = min(self._next_seconds, evidence.boot_seconds + SETTLE_SECONDS)

    def ripe(self, now_boot_seconds: float) -> list[Case]:
        """The cases that can be closed; each is given once, and each victim in one of them."""
        if now_boot_seconds < self._next_seconds:
            return []
        ready: list[Case] = []
        doubted: set[str] = set()
        self._next_seconds = NEVER
        found = cases(self._evidence, self._boot_id)
        for case in found:
            if case.key in self._closed:
                self._note_victims(case)
                continue
            patience = DOUBT_SECONDS if self._is_doubtful(case, found) else SETTLE_SECONDS
            ripe_seconds = case.boot_seconds + patience
            if now_boot_seconds < ripe_seconds:
                self._next_seconds = min(self._next_seconds, ripe_seconds)
                if case.killer == "unknown":
                    doubted.add(case.key)
                continue
            fresh = tuple(one for one in case.victims if not self._is_told(one, case.boot_seconds))
            self._closed.add(case.key)
            self._note_victims(case)
            if fresh or not case.victims:
                ready.append(case._replace(victims=fresh))
        self.doubted = frozenset(doubted)
        self._evidence = [
            one for one in self._evidence if now_boot_seconds - one.boot_seconds < KEPT_SECONDS
        ]
        return ready

    def _is_doubtful(self, case: Case, found: Sequence[Case]) -> bool:
        """Whether nobody has owned up to it, or to another that may turn out to belong to it."""
        return case.killer == "unknown" or any(
            one.killer == "unknown"
            and one.key not in self._closed
            and is_near(one, case)
            and any(shares_unit(case, victim) for victim in one.victims)
            for one in found
        )

    def _is_told(self, victim: Victim, boot_seconds: float) -> bool:
        if victim.pid is None:
            return False
        told = self._victims.get(victim.pid)
        return told is not None and abs(told - boot_seconds) <= SAME_SECONDS

    def _note_victims(self, case: Case) -> None:
        for victim in case.victims:
            if victim.pid is not None:
                self._victims[victim.pid] = case.boot_seconds
        while len(self._victims) > CLOSED_MAX:
            del self._victims[next(iter(self._victims))]
