"""Fills the history: who is followed, what is read of them, and when."""

import heapq
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from oomwatchd.followed import PORTRAIT_SECONDS, Followed
from oomwatchd.history import History, Portrait, Reading, Usage
from oomwatchd.identify import Identity, SlowReader, Unreadable, Untried, identify
from oomwatchd.incident import Victim
from oomwatchd.kernel.adjust import read_adj
from oomwatchd.kernel.bounds import Bound, HeldBounds, Rise, bounding
from oomwatchd.kernel.cgroup import CGROUP_ROOT
from oomwatchd.kernel.meminfo import MeminfoFile
from oomwatchd.kernel.proc import GONE, Look, ProcFs
from oomwatchd.kernel.status import Memory, StatusFile, read_status
from oomwatchd.largest import Largest
from oomwatchd.model import Level, Needs, Pressure, Process, Tracked
from oomwatchd.policy.sampling import (
    EARLY,
    GLANCE_SECONDS,
    REST_SECONDS,
    Glance,
    Pace,
    Room,
    advance,
    glance_seconds,
    goes_fast,
    has_moved,
    step_seconds,
)

MATCHED_MAX: Final = 64  # of the processes under rules, the largest
GLANCED_MAX: Final = 8  # cgroups with a limit, those with the least left
PORTRAYED_MAX: Final = 16  # processes identified for one sample
FOLLOW_SECONDS: Final = 0.5  # between two looks at who is to be followed, while memory goes
NEWS_SECONDS: Final = 2.0  # the same, while others come under rules
SEARCH_SECONDS: Final = 20.0  # between two fast rounds for the largest
SEARCH_SHARE: Final = 15 / 16  # of what was left: when no more is, others may be the largest
RECENT_SECONDS: Final = 1.0  # glances are compared with those before
LIMIT_SECONDS: Final = 60.0  # after which limits are read again, at rest
CMDLINE_LIMIT_BYTES: Final = 8192  # bytes that are no ASCII may take four times as many
CMDLINE_KEPT: Final = 1024  # characters of a longer one
NEEDS: Final = Needs(cmdline=True, long_name=True, uid=True, cgroup=True)
QUICK_NEEDS: Final = NEEDS._replace(cmdline=False, long_name=False)
LONG_AGO: Final = float("-inf")


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
        self.next_seconds = LONG_AGO  # when to wake for `turn`
        self._proc = proc
        self._history = history
        self._reader = reader
        self._meminfo = MeminfoFile(proc.root)
        self._largest = Largest(proc, os.getpid() if our_pid is None else our_pid)
        self._followed: dict[int, Followed] = {}
        self._bounds = HeldBounds(cgroup_root)
        self._glanced: list[str] = []  # of these, those that each glance is at
        self.memory = self._meminfo.read()  # as last seen
        self._recent: list[Glance] = []
        self._sampled: Glance | None = None  # when the last sample was taken
        self._pace = Pace()
        self._met = 0
        self._lacking = False  # some have yet to be taken up
        self._most_left_bytes = 0  # since the last search
        self._due_seconds = self._sample_seconds = self._searched_seconds = LONG_AGO
        self._followed_seconds = self._renewed_seconds = self._limits_seconds = LONG_AGO

    def close(self) -> None:
        for pid in list(self._followed):
            self._drop(pid)
        self._bounds.close()
        self._meminfo.close()

    def is_due(self, now_seconds: float) -> bool:
        """Whether to call `turn` now that the loop turns; somewhat early is as good."""
        return now_seconds >= self._due_seconds

    def turn(
        self,
        now_seconds: float,
        level: Level,
        pressure: Pressure | None,
        matched: Iterable[Tracked],
        *,
        met: int = 0,
    ) -> None:
        """Glance at what is left; take a sample, if it is time.  *matched* is read only then.

        *met* is another number than before when some have come under rules since.
        """
        if not self._recent:  # a start is to be quick: the first sample comes with the next glance
            self._sample_seconds = now_seconds + GLANCE_SECONDS - REST_SECONDS
        memory = self.memory = self._meminfo.read()
        glance = Glance(now_seconds, self._rooms(memory))
        self._pace = advance(self._pace, self._recent, glance)
        alert = goes_fast(self._pace, now_seconds) or level != "ok"
        if self._recent:
            self._search(now_seconds, memory, alert=alert)
        since = now_seconds - RECENT_SECONDS
        self._recent = [*(one for one in self._recent if one.seconds > since), glance]
        step = step_seconds(self._pace, level, now_seconds)
        routine = now_seconds >= self._sample_seconds + step - EARLY * min(step, GLANCE_SECONDS)
        if routine or self._is_news(glance, met):
            told = self._followers(now_seconds, matched, met, alert=alert)
            at_rest = routine and not alert
            reading = self._reading(now_seconds, memory, pressure, told if at_rest else None)
            self._history.add(reading)
            self._sample_seconds, self._sampled = now_seconds, glance
        self._plan(now_seconds, step)

    def killed(self) -> dict[str, Rise]:
        """The cgroups that bound those followed, and what was killed there since the last call."""
        return self._bounds.risen()

    def _plan(self, now_seconds: float, step: float) -> None:
        """A sample at rest comes with a glance, so that the loop is not woken for it apart."""
        self.next_seconds = self._sample_seconds + step
        if step >= GLANCE_SECONDS:
            self.next_seconds = now_seconds + glance_seconds(self._pace)
        self._due_seconds = self.next_seconds - EARLY * (self.next_seconds - now_seconds)

    def _rooms(self, memory: Memory) -> dict[str, Room]:
        left_bytes = memory.available_bytes + memory.swap_free_bytes
        rooms = {"": Room(left_bytes, memory.total_bytes + memory.swap_total_bytes)}
        for path, bound in self._bounds.read(self._glanced, limits=False).items():
            if bound.limit_bytes is not None:
                rooms[path] = Room(bound.limit_bytes - bound.usage_bytes, bound.limit_bytes)
        return rooms

    def _is_news(self, glance: Glance, met: int) -> bool:
        """Whether a sample is worth its while although its time has not come."""
        if self._sampled is None:
            return False
        if self._lacking or has_moved(self._sampled, glance):
            return True
        waited = glance.seconds - self._followed_seconds
        return met != self._met and waited >= NEWS_SECONDS

    def _search(self, now_seconds: float, memory: Memory, *, alert: bool) -> None:
        """Look for the largest others, if they may be others by now."""
        left_bytes = memory.available_bytes + memory.swap_free_bytes
        self._most_left_bytes = max(self._most_left_bytes, left_bytes)
        taken = left_bytes < self._most_left_bytes * SEARCH_SHARE
        if (alert or taken) and now_seconds - self._searched_seconds >= SEARCH_SECONDS:
            self._searched_seconds, self._most_left_bytes = now_seconds, left_bytes
            self._largest.search()
        if self._largest.searches:
            self._largest.look()

    # -- who is followed ---------------------------------------------------------------------------

    def _followers(
        self, now_seconds: float, matched: Iterable[Tracked], met: int, *, alert: bool
    ) -> dict[int, int]:
        """Take up the largest under rules and the largest others, and let go of who is neither.

        What is known of those under rules without a look at them: bytes by pid.
        """
        if alert and now_seconds - self._followed_seconds < FOLLOW_SECONDS:
            return {}
        self._followed_seconds, self._met = now_seconds, met
        if not alert and not self._largest.searches:
            self._largest.look()
        everyone = list(matched)
        ruled = {one.id.pid: one for one in heapq.nlargest(MATCHED_MAX, everyone, key=weight)}
        others = self._largest.pids(but={one.id.pid for one in everyone})
        wanted = dict.fromkeys((*ruled, *others))
        for pid, one in list(self._followed.items()):
            if pid not in wanted or not one.is_as(ruled.get(pid)):
                self._drop(pid)
        again = self._to_be_renewed(now_seconds, alert=alert)
        missing = [pid for pid in wanted if pid not in self._followed or pid in again]
        self._take_up(now_seconds, ruled, missing[:PORTRAYED_MAX])
        self._lacking = len(missing) > PORTRAYED_MAX
        bounds = (one.portrait.bounding for one in self._followed.values())
        if self._bounds.keep({path for path in bounds if path is not None}):
            self._limits_seconds = LONG_AGO
        return {pid: weight(one) for pid, one in ruled.items()}

    def _to_be_renewed(self, now_seconds: float, *, alert: bool) -> set[int]:
        """Whose portrait to make anew: the command line or the cgroup may be another by now.

        Those that lack their command line, as it did not come when it was asked for; or else one,
        and at rest no more than one a minute.
        """
        due = [pid for pid, one in self._followed.items() if now_seconds >= one.due_seconds]
        lacking = {pid for pid in due if self._followed[pid].lacks_cmdline}
        if lacking or not due:
            return lacking
        if not alert and now_seconds - self._renewed_seconds < PORTRAIT_SECONDS:
            return set()
        self._renewed_seconds = now_seconds
        return {min(due, key=lambda pid: self._followed[pid].due_seconds)}

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
            look = self._proc.look(pid)
        except PermissionError:  # hidepid=1
            look = None
        if look is None:
            self._largest.weighed(pid, None)
        return look

    def _take(self, look: Look, process: Process, tracked: Tracked | None, now: float) -> None:
        try:
            adj = read_adj(look.directory)
            if not read_status(look.directory).has_memory:
                return  # it is dying, and has no command line any more: the last portrait stays
            file = StatusFile(look.directory)
        except (*GONE, PermissionError):
            return
        rule = tracked.rule if tracked is not None else None
        cgroup = process.cgroup or None
        portrait = Portrait(
            look.id,
            portrayed(process, rule, adj),
            bounding(cgroup, self._bounds.names) if cgroup is not None else None,
        )
        last = self._followed.get(look.id.pid)
        followed = Followed(file, portrait, look, process, now, last)
        if last is not None:
            last.file.close()
        self._followed[look.id.pid] = followed
        self._history.remember(followed.portrait)

    def _drop(self, pid: int) -> None:
        self._followed.pop(pid).file.close()

    # -- reading -----------------------------------------------------------------------------------

    def _reading(
        self,
        now_seconds: float,
        memory: Memory,
        pressure: Pressure | None,
        told: Mapping[int, int] | None,
    ) -> Reading:
        """*told* is what is known of some without reading it, bytes by pid; None: not at rest."""
        limits = told is None or now_seconds - self._limits_seconds >= LIMIT_SECONDS
        if limits:
            self._limits_seconds = now_seconds
        bounds = self._bounds.read(limits=limits)
        self._glanced = self._to_be_glanced_at(bounds)
        return Reading(
            now_seconds,
            memory.available_bytes,
            memory.swap_free_bytes,
            pressure,
            [(one.portrait.id, size) for one, size in self._weighed(told or {})],
            [Usage(path, *bound) for path, bound in bounds.items()],
        )

    def _to_be_glanced_at(self, bounds: Mapping[str, Bound]) -> list[str]:
        """Of the cgroups that bound those under rules, the ones with the least left to use."""
        portraits = (one.portrait for one in self._followed.values())
        ruled = {one.bounding for one in portraits if one.victim.rule is not None}
        left = {
            path: limit_bytes - usage_bytes
            for path, (usage_bytes, limit_bytes) in bounds.items()
            if path in ruled and limit_bytes is not None
        }
        return heapq.nsmallest(GLANCED_MAX, left, key=lambda path: left[path])

    def _weighed(self, told: Mapping[int, int]) -> list[tuple[Followed, int]]:
        weighed = []
        for pid, one in list(self._followed.items()):
            size = told.get(pid) or self._read_weight(one)
            if one.portrait.victim.rule is None:
                self._largest.weighed(pid, size)
            if size is None:
                self._drop(pid)
            else:
                weighed.append((one, size))
        return weighed

    def _read_weight(self, one: Followed) -> int | None:
        try:
            return one.file.memory_bytes()
        except ProcessLookupError:
            return None


def weight(one: Tracked) -> int:
    return one.resident_bytes + one.swap_bytes


def portrayed(process: Process, rule: str | None, adj: int) -> Victim:
    units = process.units
    return Victim(
        pid=process.id.pid,
        name=process.long_name or process.comm,
        start_ticks=process.id.start_ticks,
        cmdline=kept_cmdline(process.cmdline or "") or None,
        user=None if process.uid is None else str(process.uid),
        unit=(units.user or units.system) if units is not None else None,
        cgroup=process.cgroup or None,
        rule=rule,
        oom_score_adj=adj,
    )


def kept_cmdline(cmdline: str) -> str:
    return cmdline if sys.getsizeof(cmdline) <= CMDLINE_LIMIT_BYTES else cmdline[:CMDLINE_KEPT]
