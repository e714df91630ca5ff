"""How processes under rules have ended: who is gone is told by one source, who was killed by
another, in either order.
"""

from collections.abc import Iterable
from typing import Final

from oomwatchd.incident import Ended, Victim

JOIN_SECONDS: Final = 2.0  # from one to the other; no pid is given out again within them
KILLED_MAX: Final = 4096  # whoever is killed is told, under a rule or not; of very many, the last


class Ends:
    def __init__(self) -> None:
        self._ended: dict[
            int | None, Ended
        ] = {}  # by pid, how not being known yet; the oldest first
        self._killed: dict[int | None, float] = {}  # by pid, when

    def hear(
        self, gone: Iterable[Victim], killed: Iterable[int], boot_seconds: float
    ) -> list[Ended]:
        """What is new by that: an end of each, and once more when it turns out to be by SIGKILL."""
        self._forget(boot_seconds - JOIN_SECONDS)
        self._killed.update((pid, boot_seconds) for pid in killed)
        news = [Ended(boot_seconds, victim, by_sigkill=None) for victim in gone]
        self._ended.update((end.victim.pid, end) for end in news)
        for pid in self._ended.keys() & self._killed.keys():
            del self._killed[pid]
            news.append(self._ended.pop(pid)._replace(by_sigkill=True))
        return news

    def _forget(self, until_boot_seconds: float) -> None:
        for pid, end in list(self._ended.items()):
            if end.boot_seconds < until_boot_seconds:
                del self._ended[pid]
        excess = len(self._killed) - KILLED_MAX
        for number, (pid, boot_seconds) in enumerate(list(self._killed.items())):
            if number < excess or boot_seconds < until_boot_seconds:
                del self._killed[pid]
