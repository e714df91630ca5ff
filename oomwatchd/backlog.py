"""Cases that have settled, until there is time to explain them and room to have them written."""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from oomwatchd.incident import Case, Killer

CASES_MAX: Final = 512  # as many as can settle at once
PAST_EVERY_SECONDS: Final = 0.1  # between two kills of before our start
# To explain cases, of one turn; of more, the next are explained when four times as long has passed.
EXPLAIN_SECONDS: Final = 0.05
NEVER: Final = float("inf")
LONG_AGO: Final = float("-inf")


class Backlog:
    def __init__(self, ruled: Callable[[], Collection[int]]) -> None:
        """*ruled* tells the pids of processes under rules, as far as they are followed."""
        self.started_boot_seconds = NEVER  # what happened earlier is of before our start
        self._ruled = ruled
        self._waiting: deque[Case] = deque()
        self._next_seconds = LONG_AGO  # when to explain the next,
        self._past_seconds = LONG_AGO  # and the next of before our start

    def __len__(self) -> int:
        return len(self._waiting)

    def is_past(self, case: Case) -> bool:
        return case.boot_seconds < self.started_boot_seconds

    def add(self, cases: Iterable[Case]) -> None:
        self._waiting.extend(cases)

    def take(self, now_seconds: float, has_room: Callable[[], bool]) -> Iterator[Case]:
        """Those to be explained in this turn; while there is room, as a case takes less than an
        incident.

        Of too many, the oldest go all the same: that they could not be written is told.  What
        happened before us has time: we log so many lines a second and no more.
        """
        if now_seconds < self._next_seconds:
            return
        until_seconds = time.monotonic() + EXPLAIN_SECONDS
        while self._waiting and (has_room() or len(self._waiting) > CASES_MAX):
            if self.is_past(self._waiting[0]):
                if now_seconds < self._past_seconds:
                    return
                self._past_seconds = now_seconds + PAST_EVERY_SECONDS
            yield self._waiting.popleft()
            if time.monotonic() >= until_seconds:
                self._next_seconds = now_seconds + 4 * EXPLAIN_SECONDS
                return

    def take_last(self, has_room: Callable[[], bool]) -> Iterator[Case]:
        """At the end of the daemon, all for which there is room."""
        while self._waiting and has_room():
            yield self._waiting.popleft()

    def leave_out(self) -> Counter[Killer]:
        """Drop, of more than can be explained in time, the oldest of those under no rule.

        How many, by killer; without those of before our start: who came before us may have told
        of them.
        """
        excess = len(self._waiting) - CASES_MAX
        if excess <= 0:
            return Counter()
        ruled = self._ruled()
        others = [case for case in self._waiting if is_of_others(case, ruled)][:excess]
        left_out = {case.key for case in others}
        self._waiting = deque(case for case in self._waiting if case.key not in left_out)
        return Counter(case.killer for case in others if not self.is_past(case))


def is_of_others(case: Case, ruled: Collection[int]) -> bool:
    """Whether all its victims are known, and none of them is under a rule."""
    known = bool(case.victims)
    return known and all(one.rule is None and one.pid not in ruled for one in case.victims)
