"""Reports of the kernel's OOM killer, put together from the records of its log.

The killer holds a lock (oom_lock) from a report's first line to the last process killed, so reports
do not mix with each other; records of other parts of the kernel may stand between their lines.
"""

from typing import Final

from oomwatchd.kernel import oomlines
from oomwatchd.kernel.kmsg import Record
from oomwatchd.kernel.oom import Invoker, OomReport
from oomwatchd.kernel.oomdraft import IN_STEPS, Draft, finished, take
from oomwatchd.kernel.oomlines import KillLine

# Within a report it waits for nothing but a console, 0.1 s a line at worst.
GAP_MICROSECONDS: Final = 2_000_000
# How a report may begin whose first lines were lost, or never written: of many within seconds the
# kernel writes only who was killed.
OPENINGS: Final = (
    *IN_STEPS,
    "memory: usage ",
    "Tasks state (memory values in pages)",
    "[ pid ] ",
    "[  pid  ] ",
    "Out of memory",
    "Memory cgroup out of memory: ",
    "Killed process ",
)


class OomReports:
    """Takes the kernel's own records in their order, and gives the reports that they make up."""

    def __init__(self, page_bytes: int, swap_bytes: int = 0) -> None:
        """*swap_bytes*: all that the machine has."""
        self._page_bytes = page_bytes
        self._swap_bytes = swap_bytes
        self._draft: Draft | None = None
        self.fruitless = 0  # how often nobody was left to be killed

    @property
    def unfinished(self) -> bool:
        """Whether a report may go on.  When nothing has come for a second, `flush` gives it."""
        return self._draft is not None

    def feed(self, record: Record) -> list[OomReport]:
        """The reports that are complete now: mostly none, at most two."""
        text = record.text
        invoker = oomlines.parse_invoked(text) if " invoked oom-killer: " in text else None
        killed = None
        if "Killed process " in text:
            killed = oomlines.parse_killed(text, record.sequence, record.microseconds)
        complete = self.flush() if self._is_over(record, invoker, killed) else []
        if self._draft is None:
            if invoker is None and not text.startswith(OPENINGS):
                return complete
            self._draft = Draft(record, record, self._page_bytes, self._swap_bytes)
            self._draft.truncated = bool(record.lost_before)
        self._draft.keep(record)
        return complete + self._take(self._draft, record, invoker, killed)

    def flush(self) -> list[OomReport]:
        """End the report that might have gone on; one in which nobody was killed is dropped."""
        draft, self._draft = self._draft, None
        return [finished(draft)] if draft and draft.killed else []

    def _is_over(self, record: Record, invoker: Invoker | None, killed: KillLine | None) -> bool:
        """Whether *record* is not of the draft any more."""
        draft = self._draft
        if draft is None:
            return False
        draft.truncated |= bool(record.lost_before)
        late = record.microseconds - draft.last.microseconds > GAP_MICROSECONDS
        if late or (draft.killed and record.lost_before):
            return True
        return invoker is not None or (killed is not None and not draft.belongs(killed))

    def _take(
        self, draft: Draft, record: Record, invoker: Invoker | None, killed: KillLine | None
    ) -> list[OomReport]:
        if invoker:
            draft.invoker = invoker
        elif killed:
            draft.add(killed)
        elif record.text == oomlines.NOBODY:
            self._draft = None
            self.fruitless += 1
            return [finished(draft)]
        elif oomlines.EXITING.fullmatch(record.text):
            self._draft = None  # it dies of itself, and is not counted
        else:
            take(draft, draft.joined(record))
        return []
