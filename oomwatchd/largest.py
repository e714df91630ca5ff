"""The largest processes of all, found without looking at all of them at once.

A hand goes round: at rest it looks at few in each sample, so that it costs next to nothing, and
each has its turn within minutes.  When memory begins to go fast, or to be short, it goes round once
as fast as it may.
"""

from collections.abc import Container
from typing import Final

from oomwatchd.kernel.proc import GONE, ProcFs
from oomwatchd.kernel.status import read_status

KEPT: Final = 10
REST_LOOKS: Final = 16  # 25 us each
SEARCH_LOOKS: Final = 256


class Largest:
    def __init__(self, proc: ProcFs, our_pid: int) -> None:
        self._proc = proc
        self._our_pid = our_pid
        self._sizes: dict[int, int] = {}  # of the largest that were met, by pid
        self._left: list[int] = []  # to be looked at in this round
        self._searches = True  # the first round is a fast one

    def search(self) -> None:
        """Go round once, fast, beginning with the next look."""
        self._searches = True
        self._left = []

    def look(self, *, but: Container[int]) -> list[int]:
        """Take the next few in turn; the pids of the largest so far, without those in *but*."""
        if not self._left:
            self._left = [int(pid) for pid in self._proc.listing()]
        count = SEARCH_LOOKS if self._searches else REST_LOOKS
        now, self._left = self._left[:count], self._left[count:]
        for pid in now:
            self._weigh(pid)
        self._searches = self._searches and bool(self._left)
        for pid in [pid for pid in self._sizes if pid in but]:
            del self._sizes[pid]
        self._sizes = dict(sorted(self._sizes.items(), key=lambda item: -item[1])[:KEPT])
        return list(self._sizes)

    def weighed(self, pid: int, size_bytes: int | None) -> None:
        """What a look at *pid* from elsewhere has shown; None: it has ended."""
        if size_bytes is None:
            self._sizes.pop(pid, None)
        else:
            self._sizes[pid] = size_bytes

    def _weigh(self, pid: int) -> None:
        if pid == self._our_pid:
            return
        try:
            status = read_status(self._proc.directory, f"{pid}/status")
        except (*GONE, PermissionError):
            self._sizes.pop(pid, None)
            return
        size_bytes = status.resident_bytes + status.swap_bytes
        self.weighed(pid, size_bytes if status.has_memory else None)
