"""Reports of the kernel's OOM killer, put together from the records of its log.

The killer holds a lock (oom_lock) from a report's first line to the last process killed, so reports
do not mix with each other; records of other parts of the kernel may stand between their lines.
"""

from typing import Final

from oomwatchd.kernel import oomlines
from oomwatchd.kernel.kmsg import Record
from oomwatchd.kernel.oom import Invoker, OomReport
from oomwatchd.kernel.oomdraft import IN_STEPS, Draft, finished, take
from oomwatchd.kernel.oomlines import Exiting, KillLine

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

Milestone = Invoker | KillLine | Exiting


class OomReports:
    """Takes the kernel's own records in their order, and gives the reports that they make up."""

    def __init__(self, page_bytes: int, swap_bytes: int = 0) -> None:
        """*swap_bytes*: all that the machine has."""
        self._page_bytes = page_bytes
        self._swap_bytes = swap_bytes
        self._draft: Draft | None = None
        self.fruitless = 0  # how often nobody was left to be killed

    @property
    def last_sequence(self) -> int | None:
        """Of the record by which a report went on that may do so again; None: there is none.

        When it has not for a second, `flush` gives it.
        """
        return self._draft.last.sequence if self._draft is not None else None

    def feed(self, record: Record) -> list[OomReport]:
        """The reports that are complete now: mostly none, at most two."""
        line = milestone(record)
        complete = self.flush() if self._is_over(record, line) else []
        if self._draft is None:
            if not isinstance(line, Invoker) and not record.text.startswith(OPENINGS):
                return complete
            self._draft = Draft(record, record, self._page_bytes, self._swap_bytes)
            self._draft.truncated = bool(record.lost_before)
        self._draft.keep(record)
        return complete + self._take(self._draft, record, line)

    def flush(self) -> list[OomReport]:
        """End the report that might have gone on; one in which nobody was killed is dropped."""
        draft, self._draft = self._draft, None
        return [finished(draft)] if draft and draft.killed else []

    def _is_over(self, record: Record, line: Milestone | None) -> bool:
        """Whether *record* is not of the draft any more."""
        draft = self._draft
        if draft is None:
            return False
        draft.truncated |= bool(record.lost_before)
        late = record.microseconds - draft.last.microseconds > GAP_MICROSECONDS
        if late or (draft.first_name is not None and record.lost_before):
            return True
        if isinstance(line, KillLine | Exiting):
            return not draft.belongs(line)
        return line is not None

    def _take(self, draft: Draft, record: Record, line: Milestone | None) -> list[OomReport]:
        if isinstance(line, Invoker):
            draft.invoker = line
        elif isinstance(line, KillLine):
            draft.add(line, record)
        elif isinstance(line, Exiting):
            draft.pass_over(line, record)
        elif record.text == oomlines.NOBODY:
            self._draft = None
            self.fruitless += 1
            return [finished(draft)]
        else:
            return self._take_text(draft, record)
        return []

    def _take_text(self, draft: Draft, record: Record) -> list[OomReport]:
        text = draft.joined(record)
        if draft.group is None or not oomlines.GROUP.fullmatch(text):
            take(draft, text)
            return []
        # Another group, of whose report no more is written than this: its first was killed before.
        first = draft.give_up_last_kill()
        complete = self.flush()
        if first is not None:
            self.feed(first)
        if self._draft is None:
            self._draft = Draft(record, record, self._page_bytes, self._swap_bytes)
        self._draft.keep(record)
        take(self._draft, text)
        return complete


def milestone(record: Record) -> Milestone | None:
    """What *record* says, if it is one of the lines at which a report begins or goes on."""
    text = record.text
    if " invoked oom-killer: " in text and (invoker := oomlines.parse_invoked(text)):
        return invoker
    if "Killed process " in text and (
        killed := oomlines.parse_killed(text, record.sequence, record.microseconds)
    ):
        return killed
    return oomlines.parse_exiting(text) if " is already exiting." in text else None
