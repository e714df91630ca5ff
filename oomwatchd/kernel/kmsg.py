"""The kernel's log, record by record.

Source:  Documentation/ABI/testing/dev-kmsg; kernel/printk/printk.c, devkmsg_read().
"""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.text import decoded

KMSG: Final = Path("/dev/kmsg")
# The kernel's own bound: CONSOLE_EXT_LOG_MAX; since 6.4 PRINTK_MESSAGE_MAX, which is less.  A
# record that does not fit into the buffer is dropped.
RECORD_BYTES: Final = 8192
# One turn's share: about 10 ms.  What a cgroup writes in which nobody may be killed comes to 14,000
# records a second, so the rest may be overwritten before the next turn; that is counted.
DRAIN_RECORDS_MAX: Final = 2000
DRAIN_BYTES_MAX: Final = 1 << 20
KERNEL: Final = 0  # the facility; what users write to /dev/kmsg has another, whatever they ask for
PREFIX: Final = re.compile(rb"(\d{1,10}),(\d{1,20}),(\d{1,20}),([^,;]*)(,[^;]*)?;")
CALLER: Final = re.compile(rb",caller=([TC]\d+)")
ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})")


class Record(NamedTuple):
    sequence: int
    microseconds: int  # by the log's clock, which starts at boot
    facility: int
    fragment: bool  # goes on where an earlier record of the same caller ended
    caller: str | None  # T123: the thread; C1: the processor, in an interrupt; None: not told
    text: str
    lost_before: int = 0  # records between the last one read and this


class Batch(NamedTuple):
    records: tuple[Record, ...] = ()  # the kernel's own
    lost: int = 0
    more: bool = False  # the bound was reached; what is left may not be there for long


def parse_record(raw: bytes) -> Record:
    """Take one read of ``/dev/kmsg`` apart: ``PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,...];TEXT``.

    Everything that is not a printable ASCII character is escaped in TEXT, a line break as well; so
    is the backslash.  Lines of further fields, which some drivers add, are passed over.

    Raises:  ValueError, if it is not such a record.
    """
    prefix = PREFIX.match(raw)
    if prefix is None:
        raise ValueError(f"not a record of the kernel's log: {raw[:80]!r}")
    priority, sequence, microseconds, flags, more = prefix.groups()
    text = raw[prefix.end() :].partition(b"\n")[0]
    if b"\\" in text:
        text = ESCAPE.sub(lambda escape: bytes((int(escape[1], 16),)), text)
    caller = CALLER.search(more) if more else None
    return Record(
        sequence=int(sequence),
        microseconds=int(microseconds),
        facility=int(priority) >> 3,
        fragment=flags == b"c",
        caller=decoded(caller[1]) if caller else None,
        text=decoded(text),
    )


class KernelLog:
    """All records that are still there, from the oldest on, or those with numbers above *after*."""

    def __init__(
        self,
        path: Path = KMSG,
        *,
        after: int | None = None,
        read: Callable[[int, int], bytes] = os.read,
    ) -> None:
        """Raises OSError; PermissionError without CAP_SYSLOG, if kernel.dmesg_restrict is set."""
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._read = read
        self._last = after  # the number of the last record that was read
        self._missing = 0  # since the last record of the kernel's

    def fileno(self) -> int:
        """For poll: POLLIN, and with it POLLERR and POLLPRI where records were overwritten."""
        return self._fd

    def close(self) -> None:
        os.close(self._fd)

    def drain(self) -> Batch:
        """Take out what has come since, up to a bound; does not block."""
        records: list[Record] = []
        lost = size = 0
        for _ in range(DRAIN_RECORDS_MAX):
            try:
                raw = self._read(self._fd, RECORD_BYTES)
            except BlockingIOError:
                return Batch(tuple(records), lost)
            except OSError as error:
                # Overwritten, or too long: the number of the next record says how many.
                if error.errno not in (errno.EPIPE, errno.EINVAL):
                    raise
                continue
            if record := self._next(raw):
                lost += record.lost_before
                self._missing += record.lost_before
                if record.facility == KERNEL:
                    records.append(record._replace(lost_before=self._missing))
                    self._missing = 0
            size += len(raw)
            if size >= DRAIN_BYTES_MAX:
                break
        return Batch(tuple(records), lost, more=True)

    def _next(self, raw: bytes) -> Record | None:
        """The record, if it is a new one.  One that cannot be understood is missing, too."""
        try:
            record = parse_record(raw)
        except ValueError:
            return None
        if self._last is None:
            self._last = record.sequence - 1
        missing = record.sequence - self._last - 1
        if missing < 0:
            return None
        self._last = record.sequence
        return record._replace(lost_before=missing)
