"""Evidence that waits until all that belongs to it must have come, and the cases made of it."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final

from oomwatchd.incident import Case, CounterRise, Ended, Evidence, KernelKill, Killer
from oomwatchd.policy.attribution import cases, is_near, kernel_killer, shares_unit
from oomwatchd.policy.causes import SAME_SECONDS, Causes

SETTLE_SECONDS: Final = 2.0  # the kernel's log, systemd-oomd and PID 1 have told by then
DOUBT_SECONDS: Final = 5.0  # before we say that nobody has
KEPT_SECONDS: Final = 30.0  # for what comes late, and belongs to a case that is closed
WAITING_MAX: Final = 512  # pieces: to make cases of so many takes 15 ms
# When there are more, how many to let go of at once: of those of no more use, and of others.
SPENT_ROOM: Final = 128
ROOM: Final = 32
CLOSED_MAX: Final = 4096
NEVER: Final = float("inf")
LONG_AGO: Final = float("-inf")


class Docket:
    def __init__(self, boot_id: str, ruled: Callable[[], Collection[int]] = tuple) -> None:
        """*ruled* tells the pids of processes under rules, as far as they are followed."""
        self.untold: Counter[Killer] = Counter()  # kills for which there was no room; to be taken
        self.doubted: frozenset[str] = frozenset()  # keys of cases that nobody has owned up to yet
        self._boot_id = boot_id
        self._ruled = ruled
        self._evidence: list[Evidence] = []
        self._now_boot_seconds = LONG_AGO  # as last told
        self._uncounted_boot_seconds = LONG_AGO  # counters up to then have counted untold kills
        self._closed = Causes(CLOSED_MAX)
        self._victims: dict[int, float] = {}  # by pid, when they were killed
        self._next_seconds = NEVER

    @property
    def next_boot_seconds(self) -> float:
        """When a case may be ripe, on the clock of the evidence."""
        return self._next_seconds

    @property
    def is_full(self) -> bool:
        return len(self._evidence) >= WAITING_MAX

    def add(self, evidence: Evidence) -> None:
        uncounted = evidence.boot_seconds <= self._uncounted_boot_seconds
        if uncounted and isinstance(evidence, CounterRise):
            return
        self._evidence.append(evidence)
        if len(self._evidence) > WAITING_MAX:
            self._make_room()
        self._next_seconds = min(self._next_seconds, evidence.boot_seconds + SETTLE_SECONDS)

    def ripe(self, now_boot_seconds: float) -> list[Case]:
        """The cases that can be closed; each is given once, and each victim in one of them."""
        self._now_boot_seconds = now_boot_seconds
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
            fresh = tuple(
                one for one in case.victims if not self._is_told(one.pid, case.boot_seconds)
            )
            self._closed.add(case.key)
            self._note_victims(case)
            if fresh or not case.victims:
                ready.append(case._replace(victims=fresh))
        self.doubted = frozenset(doubted)
        self._evidence = [
            one for one in self._evidence if now_boot_seconds - one.boot_seconds < KEPT_SECONDS
        ]
        return ready

    def take_untold(self) -> Counter[Killer]:
        untold, self.untold = self.untold, Counter()
        return untold

    def _is_doubtful(self, case: Case, found: Sequence[Case]) -> bool:
        """Whether nobody has owned up to it, or to another that may turn out to belong to it."""
        return case.killer == "unknown" or any(
            one.killer == "unknown"
            and one.key not in self._closed
            and is_near(one, case)
            and any(shares_unit(case, victim) for victim in one.victims)
            for one in found
        )

    def _is_told(self, pid: int | None, boot_seconds: float) -> bool:
        told = self._victims.get(pid) if pid is not None else None
        return told is not None and abs(told - boot_seconds) <= SAME_SECONDS

    def _note_victims(self, case: Case) -> None:
        for victim in case.victims:
            if victim.pid is not None:
                self._victims[victim.pid] = case.boot_seconds
        while len(self._victims) > CLOSED_MAX:
            del self._victims[next(iter(self._victims))]

    # -- a flood -----------------------------------------------------------------------------------

    def _make_room(self) -> None:
        """Let go of what is of no more use, or else of the last kills of those under no rule."""
        settled = {
            id_of(one)
            for one in self._evidence
            if isinstance(one, Ended) and one.by_sigkill is not None
        }
        spent = [one for one in self._evidence if self._is_spent(one, settled)]
        if spent:  # counters before the kills that they have counted
            self._let_go(
                sorted(spent, key=lambda one: not isinstance(one, CounterRise)), SPENT_ROOM
            )
            return
        dear = {one.victim.pid for one in self._evidence if isinstance(one, Ended)}
        dear.update(self._ruled())
        latest = self._evidence[::-1]
        strangers = [one for one in latest if isinstance(one, KernelKill) and one.pid not in dear]
        for killed in self._let_go(strangers or latest, ROOM):
            if isinstance(killed, KernelKill) and killed.raw:  # of a group's, one has it
                self.untold[kernel_killer(killed)] += 1
        # What has been counted of these is not to be laid to somebody who has just ended.
        self._let_go([one for one in self._evidence if isinstance(one, CounterRise)], WAITING_MAX)
        self._uncounted_boot_seconds = latest[0].boot_seconds + SAME_SECONDS

    def _let_go(self, pieces: Sequence[Evidence], most: int) -> Sequence[Evidence]:
        """The first of *pieces*, which are no more kept."""
        gone = pieces[:most]
        ids = set(map(id, gone))
        self._evidence = [one for one in self._evidence if id(one) not in ids]
        return gone

    def _is_spent(self, one: Evidence, settled: Collection[tuple[int | None, int | None]]) -> bool:
        """Whether it is of a case that is closed, or no more can be of any."""
        age_seconds = self._now_boot_seconds - one.boot_seconds
        if isinstance(one, KernelKill):
            return self._is_told(one.pid, one.boot_seconds)
        if isinstance(one, CounterRise):
            return age_seconds >= SETTLE_SECONDS
        if isinstance(one, Ended):
            if one.by_sigkill is None:
                return age_seconds > SAME_SECONDS or id_of(one) in settled
            return not one.by_sigkill or self._is_told(one.victim.pid, one.boot_seconds)
        return False


def id_of(end: Ended) -> tuple[int | None, int | None]:
    return end.victim.pid, end.victim.start_ticks
