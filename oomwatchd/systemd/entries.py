"""Reads in the journal who was killed by systemd-oomd, and what PID 1 says of its units' processes.

It is asked seldom: for what was not heard on the bus, and for SIGKILLs that nobody owns up to.
These a user can bring about all day, so the number of queries is bounded.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from oomwatchd.incident import OomdKill, UnitKilled
from oomwatchd.systemd.journalctl import Entry, Query
from oomwatchd.systemd.kills import parse_oomd_entry, parse_unit_entry

JOURNALCTL: Final = Path("/usr/bin/journalctl")
APART_SECONDS: Final = 2.0  # from one query to the next,
SPAN_SECONDS: Final = 30.0  # and within so long
STARTS_MAX: Final = 3  # so many
NEVER: Final = float("inf")
AT_ONCE: Final = float("-inf")


class JournalEntries:
    """One query at a time.  No call but `close` ever blocks."""

    def __init__(
        self, program: Path = JOURNALCTL, unix_clock: Callable[[], float] = time.time
    ) -> None:
        self.fault = ""  # why the last query failed; empty: it did not
        self.due_seconds = NEVER  # when to call `tend`, if nothing happens before
        self._program = program
        self._unix_clock = unix_clock
        self._wanted = False
        self._since_unix_seconds = NEVER  # what no query has told of yet begins there
        self._starts_seconds: deque[float] = deque(maxlen=STARTS_MAX)
        self._query: Query | None = None

    def ask(self, since_unix_seconds: float) -> None:
        """Have it read from then on (0: since boot), as soon as may be."""
        self._wanted = True
        self._since_unix_seconds = min(self._since_unix_seconds, since_unix_seconds)
        self.due_seconds = AT_ONCE

    def tend(self, now_seconds: float, now_boot_seconds: float) -> list[OomdKill | UnitKilled]:
        """What a query has found, all at once when it has ended; start the next."""
        found: list[OomdKill | UnitKilled] = []
        if self._query is not None and self._query.step(now_seconds):
            found = evidence(self._query.entries, self._unix_clock(), now_seconds, now_boot_seconds)
            self._finish(self._query)
        if self._query is None and self._wanted and now_seconds >= self._next_start_seconds:
            self._start(now_seconds)
        if self._query is not None:
            self.due_seconds = self._query.due_seconds
        else:
            self.due_seconds = self._next_start_seconds if self._wanted else NEVER
        return found

    def close(self) -> None:
        if self._query is not None:
            self._query.close()
            self._query = None

    @property
    def _next_start_seconds(self) -> float:
        starts = self._starts_seconds
        if not starts:
            return AT_ONCE
        rested_seconds = starts[-1] + APART_SECONDS
        return max(rested_seconds, starts[0] + SPAN_SECONDS if len(starts) == STARTS_MAX else 0.0)

    def _start(self, now_seconds: float) -> None:
        self._wanted = False
        self._starts_seconds.append(now_seconds)
        try:
            self._query = Query(self._program, self._since_unix_seconds, now_seconds)
        except OSError as error:  # not installed; no memory, no task left
            self._failed(error.strerror or str(error))
        else:
            self._since_unix_seconds = NEVER

    def _finish(self, query: Query) -> None:
        self._query = None
        self.fault = ""
        if query.fault:  # the next one is to tell what this one has not
            self._since_unix_seconds = min(self._since_unix_seconds, query.since_unix_seconds)
            self._failed(query.fault)

    def _failed(self, reason: str) -> None:
        self.fault = f"{self._program}: {reason}"


def evidence(
    entries: Iterable[Entry], now_unix_seconds: float, now_seconds: float, now_boot_seconds: float
) -> list[OomdKill | UnitKilled]:
    found: list[OomdKill | UnitKilled] = []
    for entry in entries:
        at = boot_seconds(entry, now_unix_seconds, now_seconds, now_boot_seconds)
        said = parse_oomd_entry(at, entry.fields) or parse_unit_entry(at, entry.fields)
        if said is not None:
            found.append(said)
    return found


def boot_seconds(
    entry: Entry, now_unix_seconds: float, now_seconds: float, now_boot_seconds: float
) -> float:
    """When *entry* was logged, on the clock that goes on while the machine sleeps.

    The wall clock tells, which may have been set since then.  The monotonic clock cannot be set:
    how long the machine has slept at all is what it leaves open, and no more.
    """
    seconds = now_boot_seconds - (now_unix_seconds - entry.unix_seconds)
    if entry.monotonic_seconds is None:
        return min(seconds, now_boot_seconds)
    slept_seconds = now_boot_seconds - now_seconds
    return min(max(seconds, entry.monotonic_seconds), entry.monotonic_seconds + slept_seconds)
