"""Owners whose processes have made us wait: those of theirs that come next have to wait instead."""

from contextlib import suppress

from oomwatchd.identify import cgroup_of
from oomwatchd.kernel.cgroup import in_container, user_slice
from oomwatchd.kernel.patience import Overdue
from oomwatchd.kernel.proc import GONE, Look
from oomwatchd.kernel.status import read_status


class Blame:
    def __init__(self) -> None:
        self._overdue: dict[int | str, list[Overdue]] = {}

    def put_on(self, look: Look, *reads: Overdue) -> None:
        """Blame its owner until `forgive`, and for as long as one of *reads* hangs."""
        with suppress(*GONE):
            self._overdue.setdefault(owner(look), []).extend(reads)

    def falls_on(self, look: Look) -> bool:
        """Raises one of `GONE`, if it has ended."""
        return bool(self._overdue) and owner(look) in self._overdue

    def forgive(self) -> None:
        """All of whom no read hangs any more; what hangs of others is no fault of theirs."""
        hanging = {
            owner: [read for read in reads if not read.is_over]
            for owner, reads in self._overdue.items()
        }
        self._overdue = {owner: reads for owner, reads in hanging.items() if reads}


def owner(look: Look) -> int | str:
    """Whom a process is charged to: the user whose slice it lies in, as 65,536 others may be his
    (subuid(5)); a container, which may run as anybody; a user; or, of root, the cgroup.
    """
    where = cgroup_of(look.directory)
    slice = user_slice(where.unit_path)
    if slice is not None:
        return slice
    if in_container(where.path):
        return where.path
    return read_status(look.directory).uid or where.path
