"""The largest processes of all, found without looking at all of them at once.

A hand goes round.  At rest it looks at very few in each sample, however many there are: who is not
large does not become it unless memory goes, and then it is sent round once as fast as it may.
"""

from array import array
from collections.abc import Container
from typing import Final

from oomwatchd.kernel.proc import GONE, ProcFs
from oomwatchd.kernel.status import read_status

FOLLOWED: Final = 10
KEPT: Final = 32  # so that there is a next one when one ends
REST_LOOKS: Final = 2  # of three system calls each
SEARCH_LOOKS: Final = 256  # in one turn; 14 us each


class Largest:
    def __init__(self, proc: ProcFs, our_pid: int) -> None:
        self.searches = True  # the first round is a fast one
        self._proc = proc
        self._our_pid = our_pid
        self._sizes: dict[int, int] = {}  # of the largest that were met, by pid
        self._left = array("i")  # pids still to be looked at in this round

    def search(self) -> None:
        """Go round once, fast, beginning with the next look, and with the youngest."""
        self.searches = True
        self._left = array("i")

    def look(self) -> None:
        """Take the next few in turn."""
        if not self._left:
            self._left.extend(sorted(map(int, self._proc.listing())))
        count = SEARCH_LOOKS if self.searches else REST_LOOKS
        for _ in range(min(count, len(self._left))):
            self._weigh(self._left.pop())
        self.searches = self.searches and bool(self._left)
        largest = sorted(self._sizes.items(), key=lambda item: -item[1])
        self._sizes = dict(largest[:KEPT])

    def pids(self, *, but: Container[int]) -> list[int]:
        """Those of the largest so far; without those in *but*, who are not to be looked at."""
        self._sizes = {pid: size for pid, size in self._sizes.items() if pid not in but}
        return sorted(self._sizes, key=lambda pid: -self._sizes[pid])[:FOLLOWED]

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
            self.weighed(pid, None)
            return
        size_bytes = status.resident_bytes + status.swap_bytes
        self.weighed(pid, size_bytes if status.has_memory else None)
