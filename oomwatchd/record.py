"""What has happened since start: counts, and the news of one turn."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from oomwatchd.incident import Killer
from oomwatchd.model import (
    NO_RULE,
    CatchableSignal,
    Change,
    Heard,
    HookName,
    HookResult,
    MarkingResult,
    MoveResult,
    ProcessId,
    Result,
    SignalResult,
)

FLOOD_SECONDS: Final = 60.0  # without an untold kill, after which the next is news again
SCAN_BOUNDS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Adjustment(NamedTuple):
    """One write to a process that was made, tried, or, in a dry run, would have been made."""

    change: Change
    before: int
    result: Result
    reason: str = ""  # for "refused", the errno's name


class Drift(NamedTuple):
    """Somebody else has changed the value of a process under a rule."""

    id: ProcessId
    comm: str
    rule: str
    wanted: int
    now: int
    yielded: bool  # we leave it at that


class GaveUp(NamedTuple):
    """A process on which a time limit ran out."""

    id: ProcessId
    comm: str
    what: str


class Guarded(NamedTuple):
    """The guard for -1000 has tripped, or let go."""

    tripped: bool
    held_bytes: int
    limit_bytes: int
    left: int = 0  # processes that it could not be taken from yet


class Marking(NamedTuple):
    """A mark on a cgroup that was made, made again, taken back, or not to be had."""

    cgroup: str  # its path, with surrogates for bytes that are not UTF-8
    rule: str  # for whose sake; empty when nobody's any more
    result: MarkingResult
    reason: str = ""  # for "refused", the errno's name


class Moving(NamedTuple):
    """What became of a process that was to have a scope of its own."""

    id: ProcessId
    rule: str
    result: MoveResult
    scope: str = ""  # the path of its cgroup
    moved: int = 0  # processes, descendants among them
    reason: str = ""


class LedgerFailed(NamedTuple):
    """What processes had before us could not be written down."""

    reason: str


class DeafToOomd(NamedTuple):
    """Kills by systemd-oomd are not heard of."""

    reason: str


class ReadsHang(NamedTuple):
    """So many reads of command lines hang that none is tried any more."""

    hanging: int


class JournalUnread(NamedTuple):
    """Kills that were not heard of are not looked for in the journal."""

    reason: str


class AuditFailed(NamedTuple):
    """It is not known what can still kill the processes under rules."""

    reason: str


class Kept(NamedTuple):
    """A kill has been explained, and written down if it could be."""

    id: str
    headline: str
    diagnosis: str
    rule: str | None
    killer: Killer
    row: Mapping[str, object]  # as `oomwatchd incidents --json` has it
    fault: str
    document: bytes  # all of it, as JSON, if somebody asks for that
    written: bool


class Untold(NamedTuple):
    """More processes under no rule were killed than can be told of one by one."""

    kills: int  # so far


class Signalled(NamedTuple):
    """A process was to be told that memory pressure is critical."""

    id: ProcessId
    comm: str
    rule: str
    signal: CatchableSignal
    result: SignalResult
    reason: str = ""


class FeatureChanged(NamedTuple):
    """Something that the kernel has told us of its own accord, it does not any more, or it does."""

    name: str
    available: bool
    loss: str  # what is lost without


class Hooked(NamedTuple):
    """A hook has ended, or was not run."""

    name: HookName
    program: str
    result: HookResult
    reason: str = ""


News = (
    AuditFailed
    | DeafToOomd
    | Adjustment
    | Drift
    | FeatureChanged
    | GaveUp
    | Guarded
    | Hooked
    | JournalUnread
    | Kept
    | LedgerFailed
    | Marking
    | Moving
    | ReadsHang
    | Signalled
    | Untold
)


@dataclass(slots=True)
class Record:
    """Touched by the loop alone.  In a dry run there is news, and nothing is counted as done."""

    dry_run: bool = False
    adjustments: Counter[tuple[str, Result]] = field(default_factory=Counter)
    markings: Counter[MarkingResult] = field(default_factory=Counter)
    movings: Counter[MoveResult] = field(default_factory=Counter)
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    untold_seconds: float = float("-inf")  # when kills were left untold the last time
    last_incident: Mapping[str, object] | None = None
    hook_runs: Counter[tuple[HookName, HookResult]] = field(default_factory=Counter)
    kernel_log_lost: int = 0
    match_timeouts: int = 0
    unreadable: int = 0
    process_events: int = 0
    process_events_lost: int = 0
    guard_trips: int = 0
    scans: int = 0
    scan_seconds_total: float = 0.0
    scan_counts: list[int] = field(default_factory=lambda: [0] * len(SCAN_BOUNDS_SECONDS))
    news: list[News] = field(default_factory=list)
    audit_fault: str = ""
    oomd_fault: str = ""
    journal_fault: str = ""
    incident_fault: str = ""  # why the last incident could not be written down
    reads_exhausted: bool = False
    ledger_fault: str = ""  # why the ledger could not be written the last time

    def adjusted(self, adjustment: Adjustment) -> None:
        if not self.dry_run:
            self.adjustments[adjustment.change.rule, adjustment.result] += 1
        self.news.append(adjustment)

    def drifted(self, drift: Drift) -> None:
        self.adjustments[drift.rule, "drifted"] += 1
        self.news.append(drift)

    def marking(self, marking: Marking) -> None:
        if not self.dry_run:
            self.markings[marking.result] += 1
        self.news.append(marking)

    def moving(self, moving: Moving) -> None:
        if not self.dry_run:
            self.movings[moving.result] += 1
        self.news.append(moving)

    def match_gave_up(self, id: ProcessId, comm: str) -> None:
        self.match_timeouts += 1
        self.news.append(GaveUp(id, comm, "matching its command line took too long"))

    def read_gave_up(self, id: ProcessId, comm: str) -> None:
        self.unreadable += 1
        self.news.append(GaveUp(id, comm, "its command line could not be read in time"))

    def reads_hang(self, hanging: int, *, exhausted: bool) -> None:
        """Note whether too many do; that they have begun to is news."""
        if exhausted and not self.reads_exhausted:
            self.news.append(ReadsHang(hanging))
        self.reads_exhausted = exhausted

    def heard(self, heard: Heard) -> None:
        self.process_events += heard.events
        self.process_events_lost += heard.lost

    def guarded(self, guard: Guarded) -> None:
        """Before the writes that it has led to, as the log may have no room for all of them."""
        self.guard_trips += guard.tripped
        self.news.insert(0, guard)

    def audited(self, fault: str) -> None:
        """Note how it went (empty: well); only a change is news."""
        if fault and fault != self.audit_fault:
            self.news.append(AuditFailed(fault))
        self.audit_fault = fault

    def deaf_to_oomd(self, reason: str) -> None:
        """Note why its kills are not heard of (empty: they are); only a change is news."""
        if reason and reason != self.oomd_fault:
            self.news.append(DeafToOomd(reason))
        self.oomd_fault = reason

    def journal_unread(self, reason: str) -> None:
        """Note why the last query of it failed (empty: it did not); only a change is news."""
        if reason and reason != self.journal_fault:
            self.news.append(JournalUnread(reason))
        self.journal_fault = reason

    def kept(self, kept: Kept) -> None:
        """Every kill is news; why it could not be written down, only when that changes."""
        self.kills[kept.rule or NO_RULE, kept.killer] += 1
        self.last_incident = kept.row
        is_new = kept.fault != self.incident_fault
        self.news.append(kept if is_new else kept._replace(fault=""))
        self.incident_fault = kept.fault

    def untold(self, kills: Mapping[Killer, int], now_seconds: float) -> None:
        """Count *kills*, by killer; of a flood, only the beginning is news."""
        if not kills:
            return
        for killer, count in kills.items():
            self.kills[NO_RULE, killer] += count
        if now_seconds - self.untold_seconds > FLOOD_SECONDS:
            self.news.append(Untold(sum(kills.values())))
        self.untold_seconds = now_seconds

    def feature_changed(self, change: FeatureChanged) -> None:
        self.news.append(change)

    def signalled(self, signalled: Signalled) -> None:
        self.news.append(signalled)

    def hooked(self, hooked: Hooked) -> None:
        if not self.dry_run:
            self.hook_runs[hooked.name, hooked.result] += 1
        self.news.append(hooked)

    def ledger_written(self, fault: str) -> None:
        """Note how it went (empty: well); only a change is news."""
        if fault and fault != self.ledger_fault:
            self.news.append(LedgerFailed(fault))
        self.ledger_fault = fault

    def scanned(self, seconds: float) -> None:
        self.scans += 1
        self.scan_seconds_total += seconds
        bucket = bisect_left(SCAN_BOUNDS_SECONDS, seconds)
        if bucket < len(self.scan_counts):
            self.scan_counts[bucket] += 1

    def scan_buckets(self) -> tuple[tuple[float, int], ...]:
        """Upper bounds in seconds, each with the number of scans that took at most so long."""
        total = 0
        buckets = []
        for bound, count in zip(SCAN_BOUNDS_SECONDS, self.scan_counts, strict=True):
            total += count
            buckets.append((bound, total))
        return tuple(buckets)

    @property
    def restored(self) -> int:
        """How many old values have been put back."""
        results = self.adjustments.items()
        return sum(count for (_, result), count in results if result == "restored")

    @property
    def has_news(self) -> bool:
        return bool(self.news)

    def take_news(self) -> list[News]:
        news, self.news = self.news, []
        return news
