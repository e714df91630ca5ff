"""The log: lines as systemd's journal takes them, and what the news of a turn reads like."""

import logging
import sys
from collections.abc import Iterator, Sequence
from functools import singledispatchmethod
from typing import Final

from oomwatchd.model import Change, ProcessId
from oomwatchd.record import (
    Adjustment,
    AuditFailed,
    DeafToOomd,
    Drift,
    FeatureChanged,
    GaveUp,
    Guarded,
    Hooked,
    JournalUnread,
    Kept,
    LedgerFailed,
    Marking,
    Moving,
    News,
    ReadsHang,
    Signalled,
    Untold,
)
from oomwatchd.text import printable

PRIORITIES: Final = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
LINES_PER_SECOND: Final = 20
MIB: Final = 1 << 20

log = logging.getLogger("oomwatchd")


class JournalFormatter(logging.Formatter):
    """``<6>text``: the priority in front, as sd-daemon(3) has it; none for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if sys.stderr.isatty():
            return text
        priority = PRIORITIES.get(record.levelno, 3)
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines() or [""])


def start() -> None:
    """Log to stderr from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JournalFormatter())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


class Narrator:
    """Tells the news of a turn, and nothing twice that would be the same each time."""

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._lines_left = LINES_PER_SECOND
        self._left_out = 0
        self._full_again_seconds = 0.0
        self._would: dict[int, tuple[int, int]] = {}  # by pid: its start, and what it would have
        self._refusals: set[tuple[str, str]] = set()  # (rule, reason): one line each
        self._repaired: set[str] = set()  # rules whose marks somebody removes: one line each

    def tell(self, news: Sequence[News], now_seconds: float) -> None:
        """In one second, no more lines than LINES_PER_SECOND; when it is over, how many more."""
        lines = [line for item in news for line in self.lines(item)]
        if now_seconds >= self._full_again_seconds:
            self.close()
            self._full_again_seconds = now_seconds + 1.0
            self._lines_left = LINES_PER_SECOND
        for level, text in lines[: self._lines_left]:
            log.log(level, "%s", text)
        self._left_out += max(len(lines) - self._lines_left, 0)
        self._lines_left -= min(len(lines), self._lines_left)

    def close(self) -> None:
        """Say how many lines have been left out, if any."""
        if self._left_out:
            log.info("and %d more within a second", self._left_out)
        self._left_out = 0

    def _is_news(self, change: Change) -> bool:
        """In a dry run nothing changes, so each look finds the same to do."""
        would = (change.id.start_ticks, change.oom_score_adj)
        if not self._dry_run:
            return True
        last, self._would[change.id.pid] = self._would.get(change.id.pid), would
        return last != would

    @singledispatchmethod
    def lines(self, item: News) -> Iterator[tuple[int, str]]:
        raise TypeError(f"no words for {item!r}")

    @lines.register
    def _(self, item: Adjustment) -> Iterator[tuple[int, str]]:
        change = item.change
        if item.result == "refused":
            if (change.rule, item.reason) not in self._refusals:
                self._refusals.add((change.rule, item.reason))
                yield (
                    logging.WARNING,
                    f"{told(change)}: refused ({item.reason}); said once for rule {change.rule}",
                )
        elif item.result in ("applied", "restored") and self._is_news(change):
            verb = "would set" if self._dry_run else "set"
            yield logging.INFO, f"{told(change)}: {verb} {item.before} -> {change.oom_score_adj}"

    @lines.register
    def _(self, item: Drift) -> Iterator[tuple[int, str]]:
        who = named(item.id, item.comm)
        act = "left at that" if item.yielded else "set again"
        yield (
            logging.WARNING,
            f"{who}: somebody changed {item.wanted} of rule {item.rule} to {item.now}; {act}",
        )

    @lines.register
    def _(self, item: GaveUp) -> Iterator[tuple[int, str]]:
        yield logging.WARNING, f"{named(item.id, item.comm)}: {item.what}; no rule for it"

    @lines.register
    def _(self, item: Guarded) -> Iterator[tuple[int, str]]:
        held, limit = item.held_bytes // MIB, item.limit_bytes // MIB
        if item.tripped:
            text = f"processes at -1000 hold {held} MiB, more than {limit}: set to -999"
            if item.left:
                text += f", but for {item.left} that could not be; tried again at each look"
        else:
            text = f"processes at -1000 hold {held} MiB again, of {limit}: -1000 is given again"
        yield logging.WARNING, f"unkillable_memory_max: {text}"

    @lines.register
    def _(self, item: ReadsHang) -> Iterator[tuple[int, str]]:
        text = f"{item.hanging} reads of command lines hang: until one of them ends, no other is"
        yield logging.WARNING, f"{text} tried"

    @lines.register
    def _(self, item: Marking) -> Iterator[tuple[int, str]]:
        where = f"cgroup '{printable(item.cgroup)}'"
        if item.result == "refused":
            if (item.rule, item.reason) not in self._refusals:
                self._refusals.add((item.rule, item.reason))
                yield (
                    logging.WARNING,
                    f"{where}: cannot be marked for systemd-oomd ({item.reason}); said once for "
                    f"rule {item.rule or 'that has gone'}",
                )
        elif item.result == "repaired":
            if item.rule not in self._repaired:
                self._repaired.add(item.rule)
                yield (
                    logging.INFO,
                    f"{where}: somebody had removed the mark for systemd-oomd (systemd does, at a "
                    f"daemon-reload); marked again, said once for rule {item.rule}",
                )
        elif item.result == "restored":
            yield logging.INFO, f"{where}: took our mark for systemd-oomd back"
        else:
            act = "would mark it" if self._dry_run else "marked, systemd-oomd passes it over"
            yield logging.INFO, f"{where}, rule {item.rule}: {act}"

    @lines.register
    def _(self, item: Moving) -> Iterator[tuple[int, str]]:
        who = f"process {item.id.pid}, rule {item.rule}"
        if item.result in ("failed", "left_alone"):
            if (item.rule, item.reason) not in self._refusals:
                self._refusals.add((item.rule, item.reason))
                yield (
                    logging.WARNING,
                    f"{who}: not moved to a scope of its own: {printable(item.reason)}; "
                    f"said once for rule {item.rule}",
                )
        elif item.result == "moved" and self._dry_run:
            yield logging.INFO, f"{who}: would move it with its descendants to a scope of its own"
        elif item.result == "moved":
            scope = item.scope.rpartition("/")[2]
            yield logging.INFO, f"{who}: moved to {scope} ({item.moved} processes)"

    @lines.register
    def _(self, item: DeafToOomd) -> Iterator[tuple[int, str]]:
        yield logging.WARNING, f"kills by systemd-oomd are not heard of: {item.reason}"

    @lines.register
    def _(self, item: JournalUnread) -> Iterator[tuple[int, str]]:
        what = "kills that were not heard of are not found in the journal"
        yield logging.WARNING, f"{what}: {item.reason}"

    @lines.register
    def _(self, item: AuditFailed) -> Iterator[tuple[int, str]]:
        what = "what can still kill the processes under rules is not known"
        yield logging.WARNING, f"audit: {what}: {item.reason}"

    @lines.register
    def _(self, item: FeatureChanged) -> Iterator[tuple[int, str]]:
        if item.available:
            yield logging.INFO, f"{item.name}: available now"
        else:
            yield logging.WARNING, f"{item.name}: not available any more ({item.loss})"

    @lines.register
    def _(self, item: Kept) -> Iterator[tuple[int, str]]:
        where = f" (oomwatchd incidents show {item.id})" if item.written else ""
        text = f"{printable(item.headline)}: {printable(item.diagnosis)}{where}"
        yield logging.WARNING, text
        if item.fault:
            yield logging.ERROR, f"incidents cannot be kept: {item.fault}; said once"

    @lines.register
    def _(self, item: Untold) -> Iterator[tuple[int, str]]:
        yield (
            logging.WARNING,
            f"more kills than can be told one by one: {item.kills} so far, of processes under no "
            "rule, and those that follow are counted (oomwatchd_oom_kills_total) and no more; "
            "said once",
        )

    @lines.register
    def _(self, item: Signalled) -> Iterator[tuple[int, str]]:
        who = f"{named(item.id, item.comm)}, rule {item.rule}"
        if item.result == "sent":
            verb = "would send" if self._dry_run else "sent"
            yield logging.WARNING, f"{who}: {verb} {item.signal}, as memory pressure is critical"
        elif item.result == "not_caught":
            yield (
                logging.WARNING,
                f"{who}: has no handler for {item.signal}, which would end it; not sent",
            )
        elif item.result == "refused":
            yield logging.WARNING, f"{who}: {item.signal} could not be sent: {item.reason}"

    @lines.register
    def _(self, item: Hooked) -> Iterator[tuple[int, str]]:
        hook = f"{item.name}: {printable(item.program)}"
        if item.result == "done":
            yield logging.INFO, f"{hook}: {'would be run' if self._dry_run else 'done'}"
        elif item.result == "dropped":
            yield logging.WARNING, f"{hook}: not run, as too many wait"
        else:
            yield logging.WARNING, f"{hook}: {item.reason}"

    @lines.register
    def _(self, item: LedgerFailed) -> Iterator[tuple[int, str]]:
        yield (
            logging.ERROR,
            f"cannot write the ledger: {item.reason}; should this daemon crash now, what processes "
            "had before will not be put back",
        )


def named(id: ProcessId, comm: str) -> str:
    return f"process {id.pid} '{printable(comm)}'"


def told(change: Change) -> str:
    return f"{named(change.id, change.comm)}, rule {change.rule}"
