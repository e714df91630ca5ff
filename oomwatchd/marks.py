"""Keeping the wanted marks on cgroups, and taking ours back.

A mark that was there before us does as well, and stays when ours would go.  Which are ours stands
in the ledger, before they are made; a cgroup is known there by its path and its directory's inode.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Final, NamedTuple

from oomwatchd.kernel.inotify import AttributeEvents
from oomwatchd.kernel.mark import Cgroup, CgroupFs, Refused, Vanished, is_marked, mark, unmark
from oomwatchd.ledger import Ledger
from oomwatchd.model import MarkingResult
from oomwatchd.record import Marking, Record

CHECKS_MAX: Final = 256  # in one turn; the others have theirs in the next
BATCH: Final = 64  # directories open at the same time
PAUSE_SECONDS: Final = 60.0  # before what was refused is tried again


class Bare(NamedTuple):
    """A cgroup that is to be marked and is not."""

    cgroup: str
    directory: Cgroup
    was_ours: bool  # somebody has removed our mark


class Marks:
    def __init__(
        self,
        cgroups: CgroupFs,
        ledger: Ledger,
        record: Record,
        save_ledger: Callable[[], None],
        events: AttributeEvents | None,
        *,
        dry_run: bool,
    ) -> None:
        self._cgroups = cgroups
        self._ledger = ledger
        self._record = record
        self._save_ledger = save_ledger
        self._events = events  # None: marks that are removed are only missed at the next check
        self._dry_run = dry_run
        self._kept: dict[str, str] = {}  # cgroup: the rule for whose sake
        self._unchecked: list[str] = []
        self._paused: dict[str, float] = {}  # cgroup: until when it is not tried again
        self._vanished: set[str] = set()

    def keep(self, wanted: Mapping[str, str], now_seconds: float) -> None:
        """From now on *wanted* are to be marked, and no others by us."""
        fresh = [cgroup for cgroup in wanted if cgroup not in self._kept]
        for cgroup in self._kept.keys() - wanted.keys():
            self._paused.pop(cgroup, None)
            if self._events is not None:
                self._events.unwatch(self._cgroups.path_of(cgroup))
        self._kept = dict(wanted)
        self._mark(fresh, now_seconds)
        self._take_back(self._ledger.marks().keys() - wanted.keys(), now_seconds)

    def check(self, now_seconds: float) -> None:
        """See whether the marks are still there, and set again those that are not; and try again to
        take back what was refused.
        """
        unchecked = self._unchecked or list(self._kept)
        some, self._unchecked = unchecked[:CHECKS_MAX], unchecked[CHECKS_MAX:]
        self.look_at(some, now_seconds)
        left = self._ledger.marks().keys() - self._kept.keys()
        if left:
            self._take_back(left, now_seconds)

    def look_at(self, cgroups: Iterable[str], now_seconds: float) -> None:
        lost = [cgroup for cgroup in cgroups if self._is_lost(cgroup, now_seconds)]
        self._mark(lost, now_seconds)

    def look_at_changed(self, now_seconds: float) -> None:
        """See after those whose attributes have changed."""
        if self._events is not None:
            prefix = self._cgroups.path_of("")
            changed = (path.removeprefix(prefix) for path in self._events.drain())
            self.look_at(list(changed), now_seconds)

    def take_vanished(self) -> set[str]:
        """The cgroups that were to be marked and have turned out to be there no more."""
        vanished, self._vanished = self._vanished, set()
        return vanished

    def take_all_back(self, now_seconds: float) -> None:
        self._kept = {}
        self._paused = {}
        self._take_back(self._ledger.marks(), now_seconds)

    # -- marking -----------------------------------------------------------------------------------

    def _is_lost(self, cgroup: str, now_seconds: float) -> bool:
        if cgroup not in self._kept or self._is_paused(cgroup, now_seconds):
            return False
        try:
            return not self._cgroups.is_marked(cgroup)
        except Vanished:
            self._vanish(cgroup)
        except Refused as error:
            self._refuse(cgroup, error, now_seconds)
        return False

    def _mark(self, cgroups: list[str], now_seconds: float) -> None:
        for start in range(0, len(cgroups), BATCH):
            with ExitStack() as stack:
                bare = [
                    one
                    for cgroup in cgroups[start : start + BATCH]
                    if (one := self._bare(cgroup, stack, now_seconds)) is not None
                ]
                if bare:
                    self._save_ledger()
                for one in bare:
                    self._set(one, now_seconds)

    def _bare(self, cgroup: str, stack: ExitStack, now_seconds: float) -> Bare | None:
        """The directory, if it has no mark; then the ledger knows that it is about to have ours."""
        try:
            directory = stack.enter_context(self._cgroups.held(cgroup))
            self._watch(cgroup)  # before the look, so that nothing comes in between
            marked = is_marked(directory)
        except Vanished:
            self._vanish(cgroup)
            return None
        except Refused as error:
            self._refuse(cgroup, error, now_seconds)
            return None
        was_ours = self._ledger.mark_of(cgroup) == directory.inode
        if marked:
            if not was_ours:
                self._ledger.forget_mark(cgroup)  # of another one of that name
            return None
        if not self._dry_run:
            self._ledger.remember_mark(cgroup, directory.inode)
        return Bare(cgroup, directory, was_ours)

    def _set(self, bare: Bare, now_seconds: float) -> None:
        cgroup = bare.cgroup
        try:
            if self._dry_run:
                self._paused[cgroup] = float("inf")  # what would be done is said once
            else:
                mark(bare.directory)
        except Vanished:
            self._ledger.forget_mark(cgroup)
            self._vanish(cgroup)
        except Refused as error:
            self._ledger.forget_mark(cgroup)
            self._refuse(cgroup, error, now_seconds)
        else:
            result: MarkingResult = "repaired" if bare.was_ours else "applied"
            self._record.marking(Marking(cgroup, self._kept[cgroup], result))

    def _watch(self, cgroup: str) -> None:
        if self._events is not None and not self._dry_run:
            try:
                self._events.watch(self._cgroups.path_of(cgroup))
            except OSError:  # gone, which the next look tells; or no watches left, so it is checked
                return

    def _vanish(self, cgroup: str) -> None:
        del self._kept[cgroup]
        self._vanished.add(cgroup)

    # -- taking back -------------------------------------------------------------------------------

    def _take_back(self, cgroups: Iterable[str], now_seconds: float) -> None:
        """What could not be taken back stays in the ledger, and is tried again."""
        if self._dry_run:
            return
        for cgroup in list(cgroups):
            if not self._is_paused(cgroup, now_seconds) and self._taken_back(cgroup, now_seconds):
                self._ledger.forget_mark(cgroup)
                self._paused.pop(cgroup, None)
        self._save_ledger()

    def _taken_back(self, cgroup: str, now_seconds: float) -> bool:
        try:
            with self._cgroups.held(cgroup) as directory:
                if directory.inode == self._ledger.mark_of(cgroup) and is_marked(directory):
                    unmark(directory)
                    self._record.marking(Marking(cgroup, "", "restored"))
        except Vanished:
            return True
        except Refused as error:
            self._refuse(cgroup, error, now_seconds)
            return False
        return True

    def _is_paused(self, cgroup: str, now_seconds: float) -> bool:
        return self._paused.get(cgroup, now_seconds) > now_seconds

    def _refuse(self, cgroup: str, error: Refused, now_seconds: float) -> None:
        self._paused[cgroup] = now_seconds + PAUSE_SECONDS
        rule = self._kept.get(cgroup, "")
        self._record.marking(Marking(cgroup, rule, "refused", str(error)))
