"""Fills the history: who is followed, what is read of them, and when."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.history import History, Portrait, Reading, Usage
from oomwatchd.identify import Identity, SlowReader, Unreadable, Untried, identify
from oomwatchd.incident import Victim
from oomwatchd.kernel.adjust import read_adj
from oomwatchd.kernel.bounds import Bound, BoundFiles, bounding, names
from oomwatchd.kernel.cgroup import CGROUP_ROOT
from oomwatchd.kernel.meminfo import MeminfoFile
from oomwatchd.kernel.proc import GONE, Look, ProcFs
from oomwatchd.kernel.status import Memory
from oomwatchd.kernel.weight import StatusFile
from oomwatchd.largest import Largest
from oomwatchd.model import Level, Needs, Pressure, Process, Tracked
from oomwatchd.policy.sampling import (
    GLANCE_SECONDS,
    Pace,
    Room,
    advance,
    goes_fast,
    shrinks_fast,
    step_seconds,
)

MATCHED_MAX: Final = 64  # of the processes under rules, the largest
GLANCED_MAX: Final = 16  # cgroups with a limit
PORTRAYED_MAX: Final = 16  # processes identified for one sample
FOLLOW_SECONDS: Final = 5.0  # between two looks at who is to be followed, at rest
SEARCH_SECONDS: Final = 10.0  # between two fast rounds for the largest
PORTRAIT_SECONDS: Final = 60.0  # after which a portrait is made anew, one in each sample
NEEDS: Final = Needs(cmdline=True, long_name=True, uid=True, cgroup=True)
QUICK_NEEDS: Final = NEEDS._replace(cmdline=False, long_name=False)
LONG_AGO: Final = float("-inf")


class Followed:
    """One process, for as long as it lives and is large enough."""

    __slots__ = ("comm", "file", "portrait", "since_seconds")

    def __init__(self, file: StatusFile, portrait: Portrait, comm: str, since: float) -> None:
        self.file = file
        self.portrait = portrait
        self.comm = comm
        self.since_seconds = since  # when the portrait was made

    def is_as(self, tracked: Tracked | None) -> bool:
        """Whether the portrait still holds, as far as the rules tell."""
        if tracked is None:
            return self.portrait.victim.rule is None
        mine = (self.portrait.id, self.portrait.victim.rule, self.comm)
        return mine == (tracked.id, tracked.rule, tracked.comm)


class Glance(NamedTuple):
    seconds: float
    rooms: dict[str, Room]  # by cgroup; the machine's under ""


class Sampler:
    def __init__(
        self,
        proc: ProcFs,
        history: History,
        reader: SlowReader,
        *,
        cgroup_root: Path = CGROUP_ROOT,
        our_pid: int | None = None,
    ) -> None:
        """Raises OSError, where there is no meminfo."""
        self.next_seconds = LONG_AGO  # when to call `turn` again
        self.interval_seconds = 5.0
        self._proc = proc
        self._history = history
        self._reader = reader
        self._files = names(cgroup_root)
        self._meminfo = MeminfoFile(proc.root)
        self._largest = Largest(proc, os.getpid() if our_pid is None else our_pid)
        self._followed: dict[int, Followed] = {}
        self._bounds: dict[str, BoundFiles] = {}
        self.memory = self._meminfo.read()  # as last seen
        self._last: Glance | None = None
        self._pace = Pace()
        self._sample_seconds = self._searched_seconds = self._followed_seconds = LONG_AGO

    def close(self) -> None:
        for pid in list(self._followed):
            self._drop(pid)
        for files in self._bounds.values():
            files.close()
        self._bounds.clear()
        self._meminfo.close()

    def turn(
        self,
        now_seconds: float,
        level: Level,
        pressure: Pressure | None,
        matched: Iterable[Tracked],
    ) -> None:
        """Glance at what is left; take a sample, if it is time.  *matched* is read only then."""
        memory = self.memory = self._meminfo.read()
        self._glance(now_seconds, memory)
        alert = goes_fast(self._pace, now_seconds) or level != "ok"
        if alert and now_seconds - self._searched_seconds >= SEARCH_SECONDS:
            self._searched_seconds = now_seconds
            self._largest.search()
        step = step_seconds(self._pace, level, now_seconds, self.interval_seconds)
        if now_seconds >= self._sample_seconds + step:
            self._sample_seconds = now_seconds
            if alert or now_seconds - self._followed_seconds >= FOLLOW_SECONDS:
                self._followed_seconds = now_seconds
                self._follow(now_seconds, list(matched))
            self._history.add(self._reading(now_seconds, memory, pressure))
        next_sample = self._sample_seconds + step
        self.next_seconds = min(next_sample, now_seconds + GLANCE_SECONDS)

    def _glance(self, now_seconds: float, memory: Memory) -> None:
        left = memory.available_bytes + memory.swap_free_bytes
        rooms = {"": Room(left, memory.total_bytes + memory.swap_total_bytes)}
        for path, bound in self._read_bounds(GLANCED_MAX).items():
            if bound.limit_bytes is not None:
                rooms[path] = Room(bound.limit_bytes - bound.usage_bytes, bound.limit_bytes)
        if self._last is not None:
            elapsed, before = now_seconds - self._last.seconds, self._last.rooms
            shrinking = [
                shrinks_fast(before[path], room, elapsed)
                for path, room in rooms.items()
                if path in before
            ]
            self._pace = advance(self._pace, now_seconds, fast=any(shrinking))
        self._last = Glance(now_seconds, rooms)

    # -- who is followed ---------------------------------------------------------------------------

    def _follow(self, now_seconds: float, matched: list[Tracked]) -> None:
        """Take up the largest under rules and the largest others, and let go of who is neither."""
        matched.sort(key=lambda one: -(one.resident_bytes + one.swap_bytes))
        ruled = {one.id.pid: one for one in matched[:MATCHED_MAX]}
        others = self._largest.look(but={one.id.pid for one in matched})
        wanted = {*ruled, *others}
        for pid, one in list(self._followed.items()):
            if pid not in wanted or not one.is_as(ruled.get(pid)):
                self._drop(pid)
        self._drop_oldest(now_seconds)
        missing = [pid for pid in (*ruled, *others) if pid not in self._followed]
        self._take_up(now_seconds, ruled, missing[:PORTRAYED_MAX])
        self._keep_bounds()

    def _drop_oldest(self, now_seconds: float) -> None:
        """Have one portrait made anew: its command line or its cgroup may be another by now."""
        oldest = min(self._followed, key=lambda pid: self._since(pid), default=None)
        if oldest is not None and now_seconds - self._since(oldest) >= PORTRAIT_SECONDS:
            self._drop(oldest)

    def _since(self, pid: int) -> float:
        return self._followed[pid].since_seconds

    def _take_up(self, now_seconds: float, ruled: dict[int, Tracked], pids: list[int]) -> None:
        looks = [look for pid in pids if (look := self._look(pid)) is not None]
        try:
            for look, process in zip(looks, self._identities(looks), strict=True):
                tracked = ruled.get(look.id.pid)
                if tracked is not None and tracked.id != look.id:  # the pid has gone to another
                    continue
                if isinstance(process, Process) and look.stat.alive:
                    self._take(look, process, tracked, now_seconds)
        finally:
            for look in looks:
                look.close()

    def _identities(self, looks: list[Look]) -> Iterator[Identity]:
        """What each is; without its command line, where that does not come in time."""
        for look, process in zip(looks, identify(looks, NEEDS, self._reader), strict=True):
            if isinstance(process, Unreadable | Untried):
                yield from identify([look], QUICK_NEEDS, self._reader)
            else:
                yield process

    def _look(self, pid: int) -> Look | None:
        try:
            return self._proc.look(pid)
        except PermissionError:  # hidepid=1
            return None

    def _take(self, look: Look, process: Process, tracked: Tracked | None, now: float) -> None:
        try:
            adj = read_adj(look.directory)
            file = StatusFile(look.directory)
        except (*GONE, PermissionError):
            return
        rule = tracked.rule if tracked is not None else None
        cgroup = process.cgroup or None
        portrait = Portrait(
            look.id,
            portrayed(process, rule, adj),
            bounding(cgroup, self._files) if cgroup is not None else None,
        )
        self._followed[look.id.pid] = Followed(file, portrait, process.comm, now)
        self._history.remember(portrait)

    def _drop(self, pid: int) -> None:
        self._followed.pop(pid).file.close()

    # -- their cgroups -----------------------------------------------------------------------------

    def _keep_bounds(self) -> None:
        """Hold the cgroups open that bound those followed, and no others."""
        bounds = (one.portrait.bounding for one in self._followed.values())
        wanted = {path for path in bounds if path is not None}
        for path in self._bounds.keys() - wanted:
            self._bounds.pop(path).close()
        for path in wanted - self._bounds.keys():
            try:
                self._bounds[path] = BoundFiles(path, self._files)
            except OSError:  # gone, or the root, which has no such files
                continue

    def _read_bounds(self, count: int | None = None) -> dict[str, Bound]:
        read = {}
        for path in list(self._bounds)[:count]:
            try:
                read[path] = self._bounds[path].read()
            except OSError:  # ENODEV: it has been removed
                self._bounds.pop(path).close()
        return read

    # -- reading -----------------------------------------------------------------------------------

    def _reading(self, now_seconds: float, memory: Memory, pressure: Pressure | None) -> Reading:
        bounds = self._read_bounds()
        return Reading(
            now_seconds,
            memory.available_bytes,
            memory.swap_free_bytes,
            pressure,
            [(one.portrait.id, size) for one, size in self._weighed()],
            [Usage(path, *bound) for path, bound in bounds.items()],
        )

    def _weighed(self) -> list[tuple[Followed, int]]:
        weighed = []
        for pid, one in list(self._followed.items()):
            try:
                size = one.file.memory_bytes()
            except ProcessLookupError:
                size = None
            if one.portrait.victim.rule is None:
                self._largest.weighed(pid, size)
            if size is None:
                self._drop(pid)
            else:
                weighed.append((one, size))
        return weighed


def portrayed(process: Process, rule: str | None, adj: int) -> Victim:
    units = process.units
    return Victim(
        pid=process.id.pid,
        name=process.long_name or process.comm,
        start_ticks=process.id.start_ticks,
        cmdline=process.cmdline or None,
        user=None if process.uid is None else str(process.uid),
        unit=(units.user or units.system) if units is not None else None,
        cgroup=process.cgroup or None,
        rule=rule,
        oom_score_adj=adj,
    )
