"""A process and its descendants, and their move to another cgroup.

Writing to cgroup.procs waits until no fork, exec or exit is under way anywhere, and these may wait
for memory: so this is for a process that may wait, not for the loop.

Source:  cgroups(7); kernel/cgroup/cgroup.c, cgroup_attach_lock().
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from oomwatchd.kernel.cgroup import in_container, is_too_deep, unified_path
from oomwatchd.kernel.mark import CgroupFs, Vanished
from oomwatchd.kernel.proc import GONE, ProcFs, read
from oomwatchd.model import ProcessId

ROUNDS_MAX: Final = 50  # each finds only what was forked during the one before
PATH_BYTES: Final = 65536
LIST_BYTES: Final = 1 << 20  # of cgroup.procs: 100,000 processes
ANCESTORS_MAX: Final = 1000
CGROUPS_MAX: Final = 1000  # in one unit; who owns one may nest as many as he likes


class Herded(NamedTuple):
    moved: int
    left: tuple[int, ...] = ()  # pids that are still outside
    reason: str = ""  # why, if the kernel refused


class Relative(NamedTuple):
    id: ProcessId
    parent_pid: int


def cgroup_at(proc: ProcFs, pid: int) -> str | None:
    """The path of the cgroup that the process lives in; None if it has gone, or is outside."""
    try:
        return unified_path(read(proc.directory, f"{pid}/cgroup", PATH_BYTES))
    except OSError:
        return None


def ancestors(proc: ProcFs, pid: int) -> Iterator[int]:
    """The parent, its parent, and so on, without pid 1."""
    for _ in range(ANCESTORS_MAX):
        stat = proc.stat(pid)
        if stat is None or stat.parent_pid <= 1:
            return
        pid = stat.parent_pid
        yield pid


class Herd:
    """One process with its descendants, as far as they live in *home*, on the way to *target*.

    Who has been put elsewhere stays there.  An orphan counts as long as it was seen before its
    parent ended.
    """

    def __init__(
        self, root: ProcessId, home: str, target: str, proc: ProcFs, cgroups: CgroupFs
    ) -> None:
        self._proc = proc
        self._cgroups = cgroups
        self._home = home
        self._target = target
        self._members = {root}
        self._refused = ""

    def move(self) -> Herded:
        """Move until none is left outside: what is forked meanwhile is found in the next round."""
        moved = 0
        outside: list[ProcessId] = []
        for _ in range(ROUNDS_MAX):
            outside = self._outside()
            if not outside:
                break
            arrived = sum(self._moves(id) for id in outside)
            moved += arrived
            if not arrived and self._refused:
                break
        return Herded(moved, tuple(id.pid for id in outside), self._refused if outside else "")

    def _outside(self) -> list[ProcessId]:
        """Members that are not in the target, the oldest first."""
        inside = set(self._pids(self._target))
        relatives = [
            Relative(ProcessId(pid, stat.start_ticks), stat.parent_pid)
            for pid in self._all_pids(self._home)
            if pid not in inside and (stat := self._proc.stat(pid)) is not None and stat.alive
        ]
        relatives.sort(key=lambda relative: relative.id.start_ticks)
        family = inside | {one.id.pid for one in relatives if one.id in self._members}
        found = True
        while found:  # a child may have been listed before its parent: they start in one tick
            found = False
            for one in relatives:
                if one.parent_pid in family and one.id.pid not in family:
                    family.add(one.id.pid)
                    self._members.add(one.id)
                    found = True
        return [one.id for one in relatives if one.id in self._members]

    def _moves(self, id: ProcessId) -> bool:
        look = self._proc.look(id.pid)
        if look is None:
            return False
        try:
            if look.id != id:
                return False
            with self._cgroups.held(self._target) as target:
                fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=target.directory)
                try:
                    os.write(fd, b"%d" % id.pid)
                finally:
                    os.close(fd)
        except GONE:
            return False
        except OSError as error:
            self._refused = errno.errorcode.get(error.errno or 0, str(error))
            return False
        finally:
            look.close()
        return True

    def _all_pids(self, cgroup: str) -> Iterator[int]:
        """The pids in *cgroup* and in all below it that is no container."""
        pending = [cgroup]
        for _ in range(CGROUPS_MAX):
            if not pending:
                return
            one = pending.pop()
            yield from self._pids(one)
            with suppress(OSError), os.scandir(self._cgroups.path_of(one)) as entries:
                below = [
                    f"{one.rstrip('/')}/{entry.name}"
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
                pending += [
                    path for path in below if not is_too_deep(path) and not in_container(path)
                ]

    def _pids(self, cgroup: str) -> list[int]:
        """Those in *cgroup* itself; of a threaded one, the one above it tells."""
        try:
            with self._cgroups.held(cgroup) as held:
                return [
                    int(pid) for pid in read(held.directory, "cgroup.procs", LIST_BYTES).split()
                ]
        except (OSError, Vanished):
            return []
