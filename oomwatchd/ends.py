"""How processes under rules have ended: who is gone is told by one source, who was killed by
another, in either order.
"""

from collections.abc import Collection, Iterable
from typing import Final

from oomwatchd.incident import Ended, Victim

LONG_AGO: Final = float("-inf")
JOIN_SECONDS: Final = 1.0  # from one to the other; no pid is given out again within them
KILLED_MAX: Final = 4096  # whoever is killed is told, under a rule or not; of very many, the last


class Ends:
    def __init__(self) -> None:
        # By pid, the oldest first: who is gone, not known yet how; and who was killed, when.
        self._ended: dict[int | None, Ended] = {}
        self._killed: dict[int | None, float] = {}
        self._late: set[int | None] = set()  # of the ended, those gone longer than we know of
        self._deaf_boot_seconds = LONG_AGO  # when somebody may have been killed without our hearing

    def hear(
        self,
        gone: Iterable[Victim],
        killed: Iterable[int],
        boot_seconds: float,
        *,
        late: Collection[int | None] = (),
        deaf: bool = False,
    ) -> list[Ended]:
        """What is new by that: an end of each, and once more when it is known how it came.

        *late* are the pids of those gone who may have ended long ago; *deaf*: not everybody who has
        been killed since the last call needs to be among *killed*.
        """
        if deaf:
            self._deaf_boot_seconds = boot_seconds
        settled = self._settled(boot_seconds - JOIN_SECONDS)
        self._killed.update((pid, boot_seconds) for pid in killed)
        news = [Ended(boot_seconds, victim, by_sigkill=None) for victim in gone]
        self._ended.update((end.victim.pid, end) for end in news)
        self._late.update(late)
        for pid in self._ended.keys() & self._killed.keys():
            del self._killed[pid]
            self._late.discard(pid)
            news.append(self._ended.pop(pid)._replace(by_sigkill=True))
        return settled + news

    def _settled(self, until_boot_seconds: float) -> list[Ended]:
        """Let go of what is that old; who would have been heard of by then, was not killed."""
        old = [end for end in self._ended.values() if end.boot_seconds < until_boot_seconds]
        sure = [end for end in old if self._is_sure(end)]
        for end in old:
            del self._ended[end.victim.pid]
            self._late.discard(end.victim.pid)
        excess = len(self._killed) - KILLED_MAX
        for number, (pid, boot_seconds) in enumerate(list(self._killed.items())):
            if number < excess or boot_seconds < until_boot_seconds:
                del self._killed[pid]
        return [end._replace(by_sigkill=False) for end in sure]

    def _is_sure(self, end: Ended) -> bool:
        heard_all = self._deaf_boot_seconds < end.boot_seconds - JOIN_SECONDS
        return heard_all and end.victim.pid not in self._late
